//! A handler may end the events of a call in any order across keys: each has its end once, in the order of its key.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use wattle::engine::memory::MemoryEngine;
use wattle::model::call::EventVerdict::{self, Done, NotReached, Pending};
use wattle::model::call::{CallErrorKind, Handled};

use crate::common::random::Random;
use crate::common::trees::{by_key, data, only, plan_of, settled, status};
use crate::dispatch::bed::{ONE, backlog, ends};
use crate::dispatch::script::{Given, Script, by_verdict, out};

fn retry() -> EventVerdict {
    EventVerdict::Retry { after: None, reason: "not yet".into() }
}

fn reject() -> EventVerdict {
    EventVerdict::Reject { reason: "never".into() }
}

/// Answers the first call with these verdicts, and is done with everything that comes after it.
fn once(verdicts: &[EventVerdict]) -> Script {
    let verdicts = Arc::new(Mutex::new(verdicts.to_vec()));
    Script::calls(move |call| {
        let mut first = std::mem::take(&mut *verdicts.lock().unwrap()).into_iter();
        async move { by_verdict(&call, |_| first.next().unwrap_or(Done)) }
    })
}

/// The attempts at each event, by its name.
fn attempts(script: &Script) -> BTreeMap<String, Vec<u32>> {
    let mut attempts: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for Given { data, attempt, .. } in script.called().into_iter().flat_map(|call| call.events) {
        attempts.entry(data).or_default().push(attempt);
    }
    attempts
}

/// Calls with these events, keys and names, of which the first is answered like this. What is in `out`, by key,
/// the attempts at each event, and the dead letters.
async fn handled(
    events: &[(&str, &str)],
    verdicts: &[EventVerdict],
) -> (BTreeMap<String, Vec<String>>, BTreeMap<String, Vec<u32>>, Vec<String>) {
    let script = once(verdicts);
    let tree = backlog(MemoryEngine::default(), &plan_of(&[ONE]), &script, events).await;
    settled(&tree).await;
    assert_eq!(script.batches()[0].len(), verdicts.len(), "they were one call");
    let found = (by_key(&tree, "out").await, attempts(&script), data(&tree, "work.dead").await);
    let status = status(&tree.snapshot(), "t/work");
    assert_eq!((status.waiting, status.parked), (0, 0));
    ends(tree).await;
    found
}

#[tokio::test(start_paused = true)]
async fn what_is_done_behind_a_failure_of_another_key_is_done() {
    let events = [("k", "a"), ("l", "b"), ("m", "c"), ("n", "d")];
    let (out, attempts, dead) = handled(&events, &[retry(), Done, reject(), Done]).await;
    assert_eq!(
        (out["k"].as_slice(), out["l"].as_slice(), out["n"].as_slice()),
        (&["a".into()][..], &["b".into()][..], &["d".into()][..])
    );
    assert_eq!(dead, ["c"]);
    let expected = [("a", vec![1, 2]), ("b", vec![1]), ("c", vec![1]), ("d", vec![1])];
    assert_eq!(attempts, expected.map(|(name, attempts)| (name.to_owned(), attempts)).into());
}

#[tokio::test(start_paused = true)]
async fn what_is_done_before_an_earlier_event_of_its_key_comes_again_after_it() {
    for first in [retry(), Pending, NotReached] {
        let (out, attempts, _) = handled(&[("k", "a"), ("k", "b"), ("l", "c")], &[first.clone(), Done, Done]).await;
        assert_eq!((out["k"].clone(), out["l"].clone()), (vec!["a".to_owned(), "b".to_owned()], vec!["c".to_owned()]));
        let again = if first == retry() { 2 } else { 1 };
        assert_eq!(
            (&*attempts["a"], &*attempts["b"], &*attempts["c"]),
            (&[1, again][..], &[1, 1][..], &[1][..]),
            "{first:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_was_given_up_holds_back_nothing() {
    let (out, attempts, dead) = handled(&[("k", "a"), ("k", "b")], &[reject(), Done]).await;
    assert_eq!((out["k"].as_slice(), dead.as_slice()), (&["b".to_owned()][..], &["a".to_owned()][..]));
    assert_eq!(attempts["b"], [1], "its answer counts");
}

#[tokio::test(start_paused = true)]
async fn what_was_not_reached_comes_again_and_costs_no_attempt() {
    let events = [("k", "a"), ("l", "b"), ("m", "c"), ("n", "d")];
    let (out, attempts, _) = handled(&events, &[NotReached, Done, NotReached, NotReached]).await;
    assert_eq!(out.len(), 4);
    assert_eq!(attempts["b"], [1]);
    for name in ["a", "c", "d"] {
        assert_eq!(attempts[name], [1, 1], "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pending_event_is_asked_about_after_a_pause_and_others_go_on() {
    let pending = 5;
    let script = Script::calls(move |call| async move {
        by_verdict(
            &call,
            |event| if event.data == "a" && event.attempt == 1 && event.time_ns > 0 { Pending } else { Done },
        )
    });
    let plan = plan_of(&[ONE]);
    let tree = backlog(MemoryEngine::default(), &plan, &script, &[("k", "a"), ("k", "b"), ("l", "c")]).await;
    while script.times().get("a") < Some(&pending) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(data(&tree, "out").await, ["c"], "its key waits");
    assert_eq!(status(&tree.snapshot(), "t/work").waiting, 2);
    let calls = script.called();
    let times: Vec<_> = calls.iter().filter(|call| call.data().contains(&"a")).map(|call| call.at).collect();
    for (before, after) in times.iter().zip(&times[1..]) {
        assert!(*after - *before >= Duration::from_millis(50), "half of `initial`: {:?}", *after - *before);
    }
    assert!(attempts(&script)["a"].iter().all(|attempt| *attempt == 1));
    ends(tree).await;
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_reaches_nothing_is_not_asked_without_a_pause() {
    let script = Script::calls(|call| async move { by_verdict(&call, |_| NotReached) });
    let tree = backlog(MemoryEngine::default(), &plan_of(&[ONE]), &script, &[("k", "a"), ("l", "b")]).await;
    while script.called().len() < 4 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let calls = script.called();
    for (before, after) in calls.iter().zip(&calls[1..]) {
        assert!(after.at - before.at >= Duration::from_secs(1), "{:?}", after.at - before.at);
    }
    assert_eq!(attempts(&script)["a"], [1; 4]);
    ends(tree).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_fit_its_events_is_a_fault_of_the_handler() {
    // For one event too few, for one too many, and an output of an event that is not done.
    type Wrong = fn(usize) -> Handled;
    let wrong: [Wrong; 3] = [
        |events| Handled::done(events - 1),
        |events| Handled::done(events + 1),
        |events| Handled { verdicts: vec![Pending; events], outputs: vec![out("x")], writes: Vec::new() },
    ];
    for answer in wrong {
        let script = Script::calls(move |call| async move {
            if call.data().contains(&"b") { Ok(answer(call.events.len())) } else { by_verdict(&call, |_| Done) }
        });
        let events = [("k", "a"), ("l", "b"), ("m", "c")];
        let tree = backlog(MemoryEngine::default(), &plan_of(&[ONE]), &script, &events).await;
        settled(&tree).await;
        assert_eq!(data(&tree, "out").await, ["a", "c"], "each alone shows whose fault it is");
        let letters = only(&tree, "work.dead").await;
        assert_eq!((letters.len(), letters[0].data()), (1, "b"));
        assert_eq!(letters[0].attribute("wattlefailure"), CallErrorKind::Protocol.as_str());
        ends(tree).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_delivered_once_at_most_is_never_asked_about_again() {
    let once_at_most = ONE.replace("    retry: { attempts: 3, backoff: { initial: 100ms, max: 1s, factor: 4 } }\n", "");
    let plan = plan_of(&[&format!("{once_at_most}    delivery: at_most_once\n")]);
    for verdict in [Pending, NotReached] {
        let given = verdict.clone();
        let script = Script::calls(move |call| {
            let given = given.clone();
            async move { by_verdict(&call, |event| if event.data == "a" { given.clone() } else { Done }) }
        });
        let tree = backlog(MemoryEngine::default(), &plan, &script, &[("k", "a"), ("k", "b")]).await;
        settled(&tree).await;
        assert_eq!(
            (data(&tree, "out").await, data(&tree, "work.dead").await),
            (vec!["b".to_owned()], vec!["a".to_owned()])
        );
        assert_eq!(script.times()["a"], 1, "{verdict:?}");
        ends(tree).await;
    }
}

/// Without room in the retry queue, the lane calls an event of the queue between an answer and the rest of its events:
/// that call may have written state which the answer has not seen.
#[tokio::test(start_paused = true)]
async fn an_answer_counts_no_further_once_another_call_was_made() {
    let plan = plan_of(&[&format!("{ONE}    retry_queue: {{ max: 1 }}\n")]);
    let script = Script::calls(|call| async move {
        by_verdict(&call, |event| match (event.data.as_str(), event.attempt, event.is_alone) {
            ("a" | "b", 1, false) => retry(),
            _ => {
                let counted = event.state.get("b", "done").map_or(0, |value| value.parse::<u64>().unwrap());
                event.state.set("b", "done", (counted + 1).to_string());
                Done
            }
        })
    });
    let events = [("k", "a"), ("l", "b"), ("m", "c")];
    let tree = backlog(MemoryEngine::default(), &plan, &script, &events).await;
    settled(&tree).await;
    assert_eq!(script.batches(), [vec!["a", "b", "c"], vec!["a"], vec!["c"], vec!["b"]], "`a` makes room for `b`");
    let state = tree.subscriber("work").unwrap().state().list(0, None, 10).unwrap();
    assert_eq!((state.len(), &*state[0].value), (1, &b"3"[..]), "each saw what those before it had written");
    assert_eq!(attempts(&script)["c"], [1, 1], "it had its first attempt with `a` and `b`, and failed at none");
    ends(tree).await;
}

/// Many events of few keys, and a handler that ends them as it likes: what is done counts itself in the state.
async fn at_random(seed: u64) {
    let mut random = Random::new(seed);
    let (keys, count) = (1 + random.below(6), 5 + random.below(60));
    let events: Vec<(String, String)> =
        (0..count).map(|at| (format!("k{}", random.below(keys)), format!("e{at:03}"))).collect();
    let rejected: HashSet<String> = events.iter().filter(|_| random.one_in(12)).map(|(_, name)| name.clone()).collect();
    let never = rejected.clone();
    let random = Mutex::new(random);
    let script = Script::calls(move |call| {
        let answer = {
            let mut random = random.lock().unwrap();
            by_verdict(&call, |event| {
                let verdict = match random.below(10) {
                    _ if never.contains(&event.data) => reject(),
                    0 => retry(),
                    1 => Pending,
                    2 => NotReached,
                    _ => Done,
                };
                if verdict == Done {
                    let counted = event.state.get("b", "done").map_or(0, |value| value.parse::<u64>().unwrap());
                    event.state.set("b", "done", (counted + 1).to_string());
                    event.state.set("b", &event.data, counted.to_string());
                }
                verdict
            })
        };
        async move { answer }
    });
    let plan = plan_of(&[&ONE.replace("attempts: 3", "attempts: 1000")]);
    let events: Vec<_> = events.iter().map(|(key, name)| (key.as_str(), name.as_str())).collect();
    let tree = backlog(MemoryEngine::default(), &plan, &script, &events).await;
    settled(&tree).await;
    let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, name) in events.iter().filter(|(_, name)| !rejected.contains(*name)) {
        expected.entry((*key).to_owned()).or_default().push((*name).to_owned());
    }
    assert_eq!(by_key(&tree, "out").await, expected, "seed {seed}: each once, in the order of its key");
    let dead: HashSet<String> = data(&tree, "work.dead").await.into_iter().collect();
    assert_eq!(dead, rejected, "seed {seed}");
    let text = |value: &Bytes| String::from_utf8(value.to_vec()).unwrap();
    let entries = tree.subscriber("work").unwrap().state().list(0, None, 1_000).unwrap();
    let state: BTreeMap<String, String> = entries.iter().map(|entry| (entry.key.clone(), text(&entry.value))).collect();
    let done = (events.len() - rejected.len()) as u64;
    assert_eq!(state.get("done").map_or(0, |count| count.parse::<u64>().unwrap()), done, "seed {seed}: {state:?}");
    let mut numbers: Vec<u64> =
        state.iter().filter(|(key, _)| *key != "done").map(|(_, number)| number.parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..done).collect::<Vec<_>>(), "seed {seed}: each saw what those before it had written");
    ends(tree).await;
}

#[tokio::test(start_paused = true)]
async fn whatever_the_mixture_each_event_ends_once_in_the_order_of_its_key() {
    for seed in 0..150 {
        at_random(seed).await;
    }
}
