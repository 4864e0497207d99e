//! What becomes of events that fail, and that nothing becomes of others. Clocks are paused: pauses are exact.

use std::time::Duration;

use tokio::time::Instant;
use wattle::api::{Filter, ListPosition};
use wattle::dispatch::Tree;
use wattle::engine::Engine;
use wattle::engine::memory::MemoryEngine;
use wattle::limits::{RETRY_PAUSE_MAX, RETRY_PAUSE_MIN};
use wattle::model::Event;
use wattle::model::call::CallErrorKind;

use crate::common::trees::{Seen, data, event, only, plan_of, settled, status, until};
use crate::dispatch::bed::{Home, ONE, ends, one, one_of, publish, start, start_on};
use crate::dispatch::script::{Given, Script, Step, copy};

/// Pauses are those that the topology says, each shortened by a half at the most.
fn assert_pauses(pauses: &[u128], longest: &[u128]) {
    assert_eq!(pauses.len(), longest.len(), "{pauses:?}");
    assert!(pauses.iter().zip(longest).all(|(pause, longest)| (longest / 2..=*longest).contains(pause)), "{pauses:?}");
}

fn ms(times: &[Instant]) -> Vec<u128> {
    times.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect()
}

/// When calls began that had this event at their front.
fn starts(script: &Script, name: &str) -> Vec<Instant> {
    script.called().iter().filter(|call| call.data()[0] == name).map(|call| call.at).collect()
}

async fn dead<E: Engine>(tree: &Tree<E>) -> Vec<Seen> {
    only(tree, "work.dead").await
}

/// Acts on event `b` as told, copies all others.
fn on_b(act: impl Fn(&Given) -> Step + Send + Sync + 'static) -> Script {
    Script::each(move |given| if given.data == "b" { act(given) } else { copy(given) })
}

const FIVE: [&str; 5] = ["a0", "a1", "b", "c0", "c1"];
const OTHERS: [&str; 4] = ["a0", "a1", "c0", "c1"];

#[tokio::test(start_paused = true)]
async fn what_is_in_front_of_a_failure_commits_and_the_rest_runs_again() {
    let work = on_b(|given| if given.attempt < 2 { Step::Retry(None) } else { copy(given) });
    let tree = one(&work, &FIVE).await;
    settled(&tree).await;
    assert_eq!(work.batches(), [&FIVE[..], &["c0", "c1"], &["b"]], "who has another key does not wait");
    let attempts: Vec<_> = work.called().iter().map(|call| call.attempts()).collect();
    assert_eq!(attempts, [vec![1; 5], vec![1, 1], vec![2]], "the failed call was its first attempt");
    assert_eq!(data(&tree, "out").await, ["a0", "a1", "c0", "c1", "b"]);
    assert!(dead(&tree).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn attempts_are_apart_by_a_growing_pause_and_end_in_a_dead_letter() {
    let yaml = ONE.replace("attempts: 3", "attempts: 6").replace("max: 1s", "max: 5s");
    let work = on_b(|_| Step::Retry(None));
    let tree = one_of(&yaml, &work, &FIVE).await;
    settled(&tree).await;
    let mut times = vec![work.called()[0].at];
    times.extend(starts(&work, "b"));
    assert_pauses(&ms(&times), &[100, 400, 1600, 5000, 5000]);
    let attempts: Vec<_> =
        work.called().iter().filter(|call| call.data()[0] == "b").map(|call| call.attempts()).collect();
    assert_eq!(attempts, [[2], [3], [4], [5], [6]]);
    assert_eq!(data(&tree, "out").await, OTHERS);
    let [letter] = <[_; 1]>::try_from(dead(&tree).await).unwrap();
    assert_eq!((letter.data(), letter.attribute("wattleattempts").as_str()), ("b", "6"));
    assert_eq!(letter.attribute("wattlefailure"), "retry");
}

#[tokio::test(start_paused = true)]
async fn a_handlers_own_delay_is_kept_to_the_millisecond() {
    let delays = [Some(17), Some(12_345), Some(0), None];
    let yaml = ONE.replace("attempts: 3", "attempts: 5");
    let work = on_b(move |given| match delays.get(given.attempt as usize - 1) {
        Some(delay) => Step::Retry(delay.map(Duration::from_millis)),
        None => copy(given),
    });
    let tree = one_of(&yaml, &work, &["b", "c"]).await;
    settled(&tree).await;
    let mut times = vec![work.called()[0].at];
    times.extend(starts(&work, "b").into_iter().skip(1));
    let pauses = ms(&times);
    assert_eq!(pauses[..3], [17, 12_345, 10], "never none");
    assert_pauses(&pauses[3..], &[1000]); // the topology's, after the fourth attempt
    assert_eq!(data(&tree, "out").await, ["c", "b"]);
}

async fn a_pause_is_bounded(home: impl Home) {
    let plan = plan_of(&[&ONE.replace("attempts: 3", "attempts: 1000")]);
    let spins =
        Script::each(|given| if given.attempt < 1000 { Step::Retry(Some(Duration::ZERO)) } else { copy(given) });
    let tree = start_on(home.open().await, &plan, &[("work", &spins)]).await;
    publish(&tree, "in", &["a"]).await;
    settled(&tree).await;
    let calls = spins.called();
    let apart = calls.windows(2).map(|pair| pair[1].at - pair[0].at).min();
    assert!(calls.len() == 1000 && apart >= Some(RETRY_PAUSE_MIN), "{apart:?}");
    ends(tree).await;

    let forever = Script::each(|_| Step::Retry(Some(Duration::from_millis(u64::MAX))));
    let tree = start_on(home.open().await, &plan, &[("work", &forever)]).await;
    publish(&tree, "in", &["b"]).await;
    until("it failed", || status(&tree.snapshot(), "t/work").waiting == 1).await;
    let is_due_in = |tree: &Tree<_>| {
        let found = tree
            .subscriber("t/work")
            .unwrap()
            .retry_queue()
            .list(&Filter::default(), ListPosition::default(), 9)
            .unwrap()
            .found;
        Duration::from_nanos(found[0].due_ns - found[0].failed_ns)
    };
    assert_eq!(is_due_in(&tree), RETRY_PAUSE_MAX);
    ends(tree).await;
    // the same after a restart
    let tree = start_on(home.open().await, &plan, &[("work", &forever)]).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!((is_due_in(&tree), forever.called().len()), (RETRY_PAUSE_MAX, 1));
}

#[tokio::test(start_paused = true)]
async fn a_handlers_own_delay_is_bounded_in_memory() {
    a_pause_is_bounded(MemoryEngine::default()).await;
}

#[tokio::test(start_paused = true)]
async fn a_handlers_own_delay_is_bounded_on_disk() {
    a_pause_is_bounded(tempfile::tempdir().unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_is_the_event_untouched_and_why_it_is_there() {
    let work = on_b(|_| Step::Retry(None));
    let tree = one(&work, &FIVE).await;
    settled(&tree).await;
    let original = event("b", "b", "b");
    let [letter] = <[_; 1]>::try_from(dead(&tree).await).unwrap();
    assert_eq!(&letter.encoded[..original.len()], &original[..], "its bytes");
    assert_eq!(letter.key, "b");
    let lineage = letter.lineage.unwrap();
    assert_eq!((lineage.partition, lineage.offset), (0, 2));
    let mut attributes = letter.event.attributes.clone();
    let time_ns = |name: &str| letter.attribute(name).parse::<u64>().unwrap();
    assert_eq!(time_ns("wattleappended"), work.called()[0].events[2].time_ns, "when it came into its topic");
    assert!(time_ns("wattlefailed") > time_ns("wattleappended"), "when it failed, by the same clock");
    attributes
        .retain(|name, _| name.starts_with("wattle") && !["wattlefailed", "wattleappended"].contains(&name.as_str()));
    let attributes: Vec<_> = attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let digest = format!("wattledigest={}", "01".repeat(32));
    let expected = [
        "wattleattempts=3",
        &digest,
        "wattlefailure=retry",
        "wattleoffset=2",
        "wattlepartition=0",
        "wattlereason=no b",
        "wattlesubscriber=t/work",
        "wattletopic=t/in",
    ];
    assert_eq!(attributes, expected);
    let mut rest = letter.event.clone();
    rest.attributes.retain(|name, _| !name.starts_with("wattle"));
    assert_eq!(rest, Event::decode(&original).unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_reject_goes_to_the_dead_letters_at_once() {
    let work = on_b(|_| Step::Reject);
    let start = Instant::now();
    let tree = one(&work, &FIVE).await;
    settled(&tree).await;
    assert_eq!(work.batches(), [&FIVE[..], &["c0", "c1"]]);
    assert!(start.elapsed() < Duration::from_millis(100), "no pause was made");
    let [letter] = <[_; 1]>::try_from(dead(&tree).await).unwrap();
    assert_eq!(
        (letter.attribute("wattlefailure").as_str(), letter.attribute("wattleattempts").as_str()),
        ("reject", "1")
    );
    assert_eq!(data(&tree, "out").await, OTHERS);
}

#[tokio::test(start_paused = true)]
async fn after_a_trap_those_in_front_run_again_then_the_event_alone() {
    let work = on_b(|_| Step::Break(CallErrorKind::Trap));
    let tree = one(&work, &FIVE).await;
    settled(&tree).await;
    assert_eq!(work.batches(), [&FIVE[..], &["a0", "a1"], &["b"], &["c0", "c1"], &["b"], &["b"]]);
    let attempts: Vec<_> =
        work.called().iter().filter(|call| call.data() == ["b"]).map(|call| call.attempts()).collect();
    assert_eq!(attempts, [[1], [2], [3]], "the trap in a batch was nobody's attempt");
    assert_pauses(&ms(&starts(&work, "b")), &[100, 400]);
    assert_eq!(data(&tree, "out").await, OTHERS);
    let [letter] = <[_; 1]>::try_from(dead(&tree).await).unwrap();
    assert_eq!((letter.data(), letter.attribute("wattlefailure").as_str()), ("b", "trap"));
    assert_eq!(letter.attribute("wattlereason"), "broke at b");
    assert_eq!(letter.attribute("wattlebacktrace"), "in a\nin b");
    assert_eq!(letter.attribute("wattleattempts"), "3");
}

#[tokio::test(start_paused = true)]
async fn a_trap_or_timeout_that_only_happens_in_a_batch_blames_nobody() {
    for kind in [CallErrorKind::Trap, CallErrorKind::Timeout, CallErrorKind::Memory] {
        let work = on_b(move |given| if given.is_alone { copy(given) } else { Step::Break(kind) });
        let start = Instant::now();
        let tree = one(&work, &FIVE).await;
        settled(&tree).await;
        assert_eq!(work.batches(), [&FIVE[..], &["a0", "a1"], &["b"], &["c0", "c1"]], "{kind:?}");
        assert_eq!(data(&tree, "out").await, FIVE);
        assert!(dead(&tree).await.is_empty(), "{kind:?}");
        assert_eq!(status(&tree.snapshot(), "t/work").retried, 0, "{kind:?}");
        assert!(start.elapsed() < Duration::from_millis(100), "{kind:?}: no pause was made");
    }
}

#[tokio::test(start_paused = true)]
async fn a_trap_at_the_first_event_of_a_batch_still_counts_only_alone() {
    let work = on_b(|given| if given.is_alone { copy(given) } else { Step::Break(CallErrorKind::Timeout) });
    let tree = one(&work, &["b", "c0"]).await;
    settled(&tree).await;
    assert_eq!(work.batches(), [&["b", "c0"][..], &["b"], &["c0"]]);
    assert_eq!(work.called()[1].attempts(), [1]);
    assert_eq!(data(&tree, "out").await, ["b", "c0"]);
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_names_nobody_makes_each_run_alone() {
    let work = Script::each(|given| match (given.data.as_str(), given.is_alone) {
        (_, false) => Step::BreakSomewhere(CallErrorKind::OutputTooLarge),
        ("b", true) => Step::BreakSomewhere(CallErrorKind::OutputTooLarge),
        _ => copy(given),
    });
    let tree = one(&work, &FIVE).await;
    settled(&tree).await;
    let times = work.times();
    assert!(FIVE.iter().filter(|name| **name != "b").all(|name| times[*name] <= 3), "{times:?}");
    assert_eq!(data(&tree, "out").await, OTHERS);
    let [letter] = <[_; 1]>::try_from(dead(&tree).await).unwrap();
    assert_eq!((letter.data(), letter.attribute("wattlefailure").as_str()), ("b", "output_too_large"));
    assert_eq!(letter.attribute("wattleattempts"), "3");
}

#[tokio::test(start_paused = true)]
async fn blame_that_points_past_the_call_is_not_believed() {
    let work = Script::calls(|call| async move {
        match call.events.as_slice() {
            [_] => crate::dispatch::script::by_event(&call, copy),
            _ => Err(wattle::model::call::CallError {
                event: Some(99),
                kind: CallErrorKind::Trap,
                message: "somewhere".into(),
                backtrace: None,
            }
            .into()),
        }
    });
    let tree = one(&work, &FIVE).await;
    settled(&tree).await;
    assert_eq!(data(&tree, "out").await, FIVE);
    assert!(dead(&tree).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_answer_against_the_contract_is_not_asked_for_again() {
    let work = on_b(|_| Step::Break(CallErrorKind::Protocol));
    let tree = one(&work, &FIVE).await;
    settled(&tree).await;
    assert_eq!(work.batches(), [&FIVE[..], &["a0", "a1"], &["b"], &["c0", "c1"]]);
    let [letter] = <[_; 1]>::try_from(dead(&tree).await).unwrap();
    assert_eq!(
        (letter.attribute("wattlefailure").as_str(), letter.attribute("wattleattempts").as_str()),
        ("protocol", "1")
    );
}

#[tokio::test(start_paused = true)]
async fn without_an_instance_nobody_is_blamed_and_it_goes_on_when_there_is_one() {
    let missing = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(10));
    let left = missing.clone();
    let work = Script::calls(move |call| {
        let none = left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
        let step = move |given: &_| if none { Step::NoInstance } else { copy(given) };
        async move { crate::dispatch::script::by_event(&call, step) }
    });
    use std::sync::atomic::Ordering::SeqCst;
    let tree = one(&work, &FIVE).await;
    settled(&tree).await;
    assert_eq!(work.batches().len(), 11, "more often than there are attempts");
    assert!(work.called().iter().all(|call| call.attempts() == [1; 5]));
    assert!(work.called().windows(2).all(|pair| pair[1].at > pair[0].at), "with a pause between");
    assert_eq!(data(&tree, "out").await, FIVE);
    assert!(dead(&tree).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_failing_event_keeps_the_successors_of_its_key_waiting_in_their_order_and_nobody_else() {
    let work = Script::each(|given| match (given.data.as_str(), given.attempt) {
        ("b", 1..3) | ("d", 1) => Step::Retry(None),
        ("e", _) => Step::Reject,
        _ => copy(given),
    });
    let engine = wattle::engine::memory::MemoryEngine::default();
    let plan = crate::common::trees::plan_of(&[ONE]);
    let first = crate::dispatch::bed::start_on(engine.clone(), &plan, &[("work", &work)]).await;
    assert!(first.drain(crate::common::trees::PATIENCE).await);
    let of_key = |key: &str, names: &[&str]| names.iter().map(|name| event(name, key, name)).collect::<Vec<_>>();
    for (key, names) in [("k", &["a", "b", "c"][..]), ("other", &["x"]), ("k", &["d", "e", "f"]), ("other", &["y"])] {
        first.publisher().publish("in", &of_key(key, names), None).await.unwrap();
    }
    let tree = crate::dispatch::bed::start_on(engine, &plan, &[("work", &work)]).await;
    settled(&tree).await;
    let out = data(&tree, "out").await;
    assert_eq!(out[..3], ["a", "x", "y"], "another key goes on");
    assert_eq!(out[3..], ["b", "c", "d", "f"], "its own waits, in order");
    assert_eq!(dead(&tree).await.iter().map(Seen::data).collect::<Vec<_>>(), ["e"]);
    assert_eq!(status(&tree.snapshot(), "t/work").waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn one_event_may_fail_in_several_ways_before_it_passes() {
    let yaml = ONE.replace("attempts: 3", "attempts: 9");
    let work = on_b(|given| match (given.is_alone, given.attempt) {
        (false, _) => Step::Break(CallErrorKind::Trap),
        (_, 1) => Step::Retry(Some(Duration::from_secs(3))),
        (_, 2) => Step::Break(CallErrorKind::Timeout),
        (_, 3) => Step::NoInstance,
        _ => copy(given),
    });
    // An instance that is missing is no attempt, so the third one is made for ever; here it comes back.
    let turns = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let work = {
        let inner = work;
        Script::calls(move |call| {
            let third = call.attempts() == [3];
            let again = third && turns.fetch_add(1, std::sync::atomic::Ordering::SeqCst) > 0;
            let inner = inner.clone();
            async move {
                match again {
                    true => crate::dispatch::script::by_event(&call, copy),
                    false => inner.answer(call).await,
                }
            }
        })
    };
    let tree = one_of(&yaml, &work, &FIVE).await;
    settled(&tree).await;
    assert_eq!(data(&tree, "out").await, ["a0", "a1", "c0", "c1", "b"]);
    let attempts: Vec<_> =
        work.called().iter().filter(|call| call.data() == ["b"]).map(|call| call.attempts()).collect();
    assert_eq!(attempts, [[1], [2], [3], [3]]);
}

#[tokio::test(start_paused = true)]
async fn several_failures_in_a_batch_are_dealt_with_one_after_another() {
    let work = Script::each(|given| match (given.data.as_bytes()[0], given.is_alone) {
        (b't', _) => Step::Break(CallErrorKind::Trap),
        (b'x', _) => Step::Reject,
        (b'n', false) => Step::BreakSomewhere(CallErrorKind::OutputTooLarge),
        _ => copy(given),
    });
    let tree = one(&work, &["a", "t0", "x0", "b", "n0", "t1", "t2", "c", "x1", "x2", "n1"]).await;
    settled(&tree).await;
    assert_eq!(data(&tree, "out").await, ["a", "b", "n0", "c", "n1"]);
    let letters = dead(&tree).await;
    let letters: Vec<_> = letters.iter().map(Seen::data).collect();
    assert_eq!(letters[..3], ["x0", "x1", "x2"], "what is hopeless goes at once");
    let mut later = letters[3..].to_vec();
    later.sort_unstable(); // their keys do not wait for each other
    assert_eq!(later, ["t0", "t1", "t2"]);
}

#[tokio::test(start_paused = true)]
async fn a_failing_key_holds_up_no_other_key_and_no_other_lane() {
    let yaml = ONE.replace("in: {}", "in: { partitions: 8 }").replace("attempts: 3", "attempts: 1000")
        + "
  beside: { from: in, plugin: p.wasm }
";
    let work = on_b(|_| Step::Retry(None));
    let beside = Script::each(|_| Step::Emit(Vec::new()));
    let tree = start(&yaml, &[("work", &work), ("beside", &beside)]).await;
    publish(&tree, "in", &["b"]).await;
    for n in 0..100 {
        publish(&tree, "in", &[&format!("a{n}")]).await;
    }
    let handled = |name: &str| status(&tree.snapshot(), name).handled;
    crate::common::trees::until("all others", || handled("t/work") == 100).await;
    crate::common::trees::until("the sibling", || handled("t/beside") == 101).await;
    assert!(!tree.is_settled());
    let status = status(&tree.snapshot(), "t/work");
    assert_eq!((status.lag, status.waiting, status.parked), (0, 1, 0));
}

const OF_DEAD_LETTERS: &str = "
wattle: v1
name: t
topics:
  in: {}
  out: {}
subscribers:
  work: { from: in, plugin: w.wasm, to: { out: out }, retry: { attempts: 1 } }
  mourn: { from: work.dead, plugin: w.wasm, retry: { attempts: 1 } }
";

#[tokio::test(start_paused = true)]
async fn a_dead_letter_of_a_dead_letter_says_once_why_and_is_handled_again_as_it_was() {
    let (work, mourn) = (Script::each(|_| Step::Reject), Script::each(|_| Step::Reject));
    let tree = start(OF_DEAD_LETTERS, &[("work", &work), ("mourn", &mourn)]).await;
    publish(&tree, "in", &["a"]).await;
    settled(&tree).await;
    let [first] = <[_; 1]>::try_from(dead(&tree).await).unwrap();
    let [second] = <[_; 1]>::try_from(only(&tree, "mourn.dead").await).unwrap();
    let view = wattle::model::EventView::parse(&second.encoded).unwrap();
    let names: Vec<_> = view.attributes().map(|(name, _)| name).collect();
    assert_eq!(names.iter().filter(|name| **name == "wattlesubscriber").count(), 1, "{names:?}");
    let of = |name: &str| second.attribute(name);
    assert_eq!((of("wattlesubscriber").as_str(), of("wattletopic").as_str()), ("t/mourn", "t/work.dead"));
    assert_eq!(of("wattleoffset"), first.offset.to_string(), "which dead letter it is about");
    // what is handled again is what was handled first
    let page = tree
        .subscriber("mourn")
        .unwrap()
        .dead_letters()
        .list(&Filter::default(), ListPosition::default(), 10)
        .await
        .unwrap();
    assert_eq!(page.found[0].event, first.encoded);
    assert_eq!(page.found[0].reason, of("wattlereason"));
}
