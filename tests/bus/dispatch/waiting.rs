//! The waiting set: keys that fail wait for themselves only, in their order, through restarts, and no more of them than
//! may.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use wattle::api::LaneState;
use wattle::dispatch::Tree;
use wattle::engine::Engine;
use wattle::engine::memory::MemoryEngine;
use wattle::limits::EVENT_BYTES_MAX;
use wattle::model::call::CallErrorKind;
use wattle::topology::Plan;

use crate::common::trees::{by_key, data, event, only, plan_of, settled, status, until};
use crate::dispatch::bed::{Home, ONE, backlog, ends, start_on};
use crate::dispatch::script::{Given, Script, Step, by_event, copy};

/// As [`ONE`], with as many attempts as anybody needs and more in its subscriber.
fn patient(more: &str) -> Plan {
    plan_of(&[&format!("{}    {more}\n", ONE.replace("attempts: 3", "attempts: 1000"))])
}

/// A handler whose events with names that begin with `a` fail until it is told otherwise.
fn stubborn() -> (Script, Arc<AtomicBool>) {
    let passes = Arc::new(AtomicBool::new(false));
    let look = passes.clone();
    let act = move |given: &Given| match given.data.starts_with('a') && !look.load(SeqCst) {
        true => Step::Retry(None),
        false => copy(given),
    };
    (Script::each(act), passes)
}

fn lane<E: Engine>(tree: &Tree<E>) -> LaneState {
    status(&tree.snapshot(), "t/work").lanes[0]
}

fn waiting<E: Engine>(tree: &Tree<E>) -> (u64, u64) {
    let status = status(&tree.snapshot(), "t/work");
    (status.waiting, status.parked)
}

/// Which attempts at an event were made: not those of calls that ended in front of it.
#[derive(Clone, Default)]
struct Attempts(Arc<Mutex<Vec<(String, u32)>>>);

impl Attempts {
    fn of(&self, name: &str) -> Vec<u32> {
        let all = self.0.lock().unwrap();
        all.iter().filter(|(tried, _)| tried == name).map(|(_, attempt)| *attempt).collect()
    }
}

fn noted(act: impl Fn(&Given) -> Step + Send + Sync + 'static) -> (Script, Attempts) {
    let attempts = Attempts::default();
    let notes = attempts.clone();
    let script = Script::each(move |given| {
        notes.0.lock().unwrap().push((given.data.clone(), given.attempt));
        act(given)
    });
    (script, attempts)
}

/// Every life handles a call or two more.
async fn lives<H: Home>(home: H) {
    let plan =
        plan_of(&[&ONE.replace("attempts: 3", "attempts: 8").replace("100ms", "1ms").replace("max: 1s", "max: 2ms")]);
    let (work, attempts) = noted(|given| match (given.data.as_str(), given.attempt) {
        ("b", 1..6) | ("d", 1..4) | ("x", 1..8) => Step::Retry(None),
        ("e", _) => Step::Retry(None),
        _ => copy(given),
    });
    let events = ["a", "b", "c", "d", "e", "f"].map(|name| ("k", name));
    let events = [&events[..], &[("l", "x"), ("m", "m"), ("l", "y"), ("m", "n")]].concat();
    ends(backlog(home.open().await, &plan, &work, &events).await).await;
    for life in 1.. {
        let tree = start_on(home.open().await, &plan, &[("work", &work)]).await;
        let calls = work.called().len();
        until("a call", || work.called().len() > calls || tree.is_settled()).await;
        if tree.is_settled() {
            assert!(life > 4, "there were {life} lives");
            ends(tree).await;
            break;
        }
        ends(tree).await;
    }
    let tree = start_on(home.open().await, &plan, &[("work", &work)]).await;
    settled(&tree).await;
    let out = by_key(&tree, "out").await;
    assert_eq!(out["k"], ["a", "b", "c", "d", "f"]);
    assert_eq!(out["l"], ["x", "y"]);
    assert_eq!(out["m"], ["m", "n"]);
    assert_eq!(attempts.of("b"), [1, 2, 3, 4, 5, 6], "each is made once, whatever stops in between");
    assert_eq!(attempts.of("x"), [1, 2, 3, 4, 5, 6, 7, 8]);
    let letters = only(&tree, "work.dead").await;
    assert_eq!((letters.len(), letters[0].data()), (1, "e"));
    assert_eq!(letters[0].attribute("wattleattempts"), "8");
    assert_eq!(waiting(&tree), (0, 0));
}

#[tokio::test]
async fn order_and_attempts_survive_every_restart_in_memory() {
    lives(MemoryEngine::default()).await;
}

#[tokio::test]
async fn order_and_attempts_survive_every_restart_on_disk() {
    lives(tempfile::tempdir().unwrap()).await;
}

/// The lane stands still for a while.
async fn stands<E: Engine>(tree: &Tree<E>, work: &Script) {
    until("it is full", || lane(tree) == LaneState::Full).await;
    let others = |script: &Script| script.times().iter().filter(|(name, _)| !name.starts_with('a')).count();
    let (before, since) = (others(work), Instant::now());
    while since.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(lane(tree), LaneState::Full, "also between attempts at what waits");
    }
    assert_eq!(others(work), before);
    assert!(!tree.is_settled());
}

const FULL: [(&str, &str); 6] = [("a", "a0"), ("a", "a1"), ("x", "x0"), ("a", "a2"), ("x", "x1"), ("y", "y0")];

async fn full<H: Home>(home: H, restarts: bool) {
    let plan = patient("retry_queue: { max: 2 }");
    let (work, passes) = stubborn();
    let mut tree = backlog(home.open().await, &plan, &work, &FULL).await;
    stands(&tree, &work).await;
    assert_eq!(waiting(&tree), (2, 0));
    assert_eq!(status(&tree.snapshot(), "t/work").lag, 3);
    assert_eq!(data(&tree, "out").await, ["x0"]);
    if restarts {
        ends(tree).await;
        tree = start_on(home.open().await, &plan, &[("work", &work)]).await;
        stands(&tree, &work).await;
        assert_eq!(waiting(&tree), (2, 0));
    }
    passes.store(true, SeqCst);
    settled(&tree).await;
    let out = by_key(&tree, "out").await;
    assert_eq!(out["a"], ["a0", "a1", "a2"]);
    assert_eq!((&out["x"][..], &out["y"][..]), (&["x0".to_owned(), "x1".into()][..], &["y0".to_owned()][..]));
    assert_eq!(lane(&tree), LaneState::Running);
}

#[tokio::test(start_paused = true)]
async fn a_lane_whose_waiting_set_is_full_stands_still_until_there_is_room() {
    full(MemoryEngine::default(), false).await;
}

#[tokio::test(start_paused = true)]
async fn a_full_lane_is_full_again_after_a_restart_in_memory() {
    full(MemoryEngine::default(), true).await;
}

#[tokio::test(start_paused = true)]
async fn a_full_lane_is_full_again_after_a_restart_on_disk() {
    full(tempfile::tempdir().unwrap(), true).await;
}

#[tokio::test(start_paused = true)]
async fn a_key_that_fails_while_the_set_is_full_waits_with_its_attempt() {
    let plan = patient("retry_queue: { max: 1 }");
    let passes = Arc::new(AtomicBool::new(false));
    let look = passes.clone();
    let (work, attempts) = noted(move |given| match (&given.data[..1], given.attempt) {
        ("a", _) if !look.load(SeqCst) => Step::Retry(None),
        ("b", 1..4) => Step::Retry(None),
        _ => copy(given),
    });
    let tree =
        backlog(MemoryEngine::default(), &plan, &work, &[("a", "a"), ("b", "b0"), ("b", "b1"), ("x", "x")]).await;
    stands(&tree, &work).await;
    passes.store(true, SeqCst);
    settled(&tree).await;
    assert_eq!(attempts.of("b0"), [1, 2, 3, 4]);
    assert_eq!(by_key(&tree, "out").await["b"], ["b0", "b1"]);
    assert_eq!(data(&tree, "out").await.len(), 4);
    assert!(only(&tree, "work.dead").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_set_is_also_full_by_bytes() {
    let plan = patient("retry_queue: { size: 1MiB }");
    let (work, passes) = stubborn();
    let large = |name: &str| format!("{name}{}", " ".repeat(600 << 10));
    let tree = start_on(MemoryEngine::default(), &plan, &[("work", &work)]).await;
    for (key, name) in [("a", large("a0")), ("a", large("a1")), ("x", "x0".to_owned())] {
        tree.publisher().publish("in", &[event(&name[..2], key, &name)], None).await.unwrap();
    }
    until("one waits", || waiting(&tree) == (1, 0)).await;
    stands(&tree, &work).await;
    assert!(data(&tree, "out").await.is_empty());
    passes.store(true, SeqCst);
    settled(&tree).await;
    let out: Vec<_> = data(&tree, "out").await.iter().map(|data| data.trim().to_owned()).collect();
    assert_eq!(out.iter().filter(|name| name.starts_with('a')).collect::<Vec<_>>(), ["a0", "a1"]);
    assert_eq!(out.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_largest_event_waits_where_nothing_else_does() {
    let plan = patient("retry_queue: { size: 1MiB }");
    let (work, passes) = stubborn();
    let tree = start_on(MemoryEngine::default(), &plan, &[("work", &work)]).await;
    let head = event("a", &"a".repeat(500), "a").len();
    let largest = event("a", &"a".repeat(500), &format!("a{}", " ".repeat(EVENT_BYTES_MAX - head - 6)));
    assert!(largest.len() + 500 > EVENT_BYTES_MAX, "its record is larger than the set");
    tree.publisher().publish("in", &[largest], None).await.unwrap();
    tree.publisher().publish("in", &[event("x", "x", "x")], None).await.unwrap();
    until("it waits and the other goes", || waiting(&tree) == (1, 0) && work.times().contains_key("x")).await;
    tree.publisher().publish("in", &[event("a1", "b", "a1")], None).await.unwrap();
    stands(&tree, &work).await;
    passes.store(true, SeqCst);
    settled(&tree).await;
    assert_eq!(data(&tree, "out").await.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn successors_go_together_once_the_first_of_their_key_is_through() {
    let (work, passes) = stubborn();
    let plan = patient("batch: { max: 4 }");
    let names: Vec<String> = (0..10).map(|n| format!("k{n}")).collect();
    let mut events = vec![("k", "a")];
    events.extend(names.iter().map(|name| ("k", name.as_str())));
    let tree = backlog(MemoryEngine::default(), &plan, &work, &events).await;
    until("all wait", || waiting(&tree) == (11, 0)).await;
    passes.store(true, SeqCst);
    settled(&tree).await;
    let sizes: Vec<_> = work.batches().iter().rev().take(4).map(Vec::len).collect();
    assert_eq!(sizes, [2, 4, 4, 1], "from the last");
    assert_eq!(data(&tree, "out").await[1..], names);
}

#[tokio::test(start_paused = true)]
async fn a_call_of_successors_that_breaks_is_made_again_one_by_one() {
    let (work, passes) = stubborn();
    let work = Script::calls(move |call| {
        let work = work.clone();
        async move {
            if call.data().contains(&"t") {
                let kind = CallErrorKind::Trap;
                return by_event(&call, |given| match given.data.as_str() {
                    "t" if given.is_alone && given.attempt > 1 => copy(given),
                    "t" => Step::Break(kind),
                    _ => copy(given),
                });
            }
            work.answer(call).await
        }
    });
    let events = [("k", "a"), ("k", "b"), ("k", "t"), ("k", "c"), ("k", "d")];
    let tree = backlog(MemoryEngine::default(), &patient(""), &work, &events).await;
    until("all wait", || waiting(&tree) == (5, 0)).await;
    passes.store(true, SeqCst);
    settled(&tree).await;
    assert_eq!(data(&tree, "out").await, ["a", "b", "t", "c", "d"]);
    assert!(only(&tree, "work.dead").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_new_does_not_wait_for_all_that_is_tried_again() {
    // a call that breaks takes its second
    let work = Script::calls(|call| async move {
        let answer = by_event(&call, |given| match given.data.starts_with("bad") {
            true => Step::Break(CallErrorKind::Timeout),
            false => copy(given),
        });
        if answer.is_err() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        answer
    });
    let names: Vec<_> = (0..100).map(|n| format!("bad{n}")).chain((0..1_000).map(|n| format!("good{n}"))).collect();
    let events: Vec<_> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
    let tree = backlog(MemoryEngine::default(), &plan_of(&[ONE]), &work, &events).await;
    settled(&tree).await;
    let calls = work.called();
    let last_good = calls.iter().rposition(|call| call.data().iter().any(|name| name.starts_with("good"))).unwrap();
    let again = calls[..last_good].iter().filter(|call| call.attempts()[0] > 1).count();
    assert!(again <= 10, "{again} of 200 attempts were made before the last of the others");
    assert_eq!(data(&tree, "out").await.len(), 1_000);
    assert_eq!(only(&tree, "work.dead").await.len(), 100);
    assert!(calls.len() < 100 * 2 + 200 + 20, "nothing is called more often for it: {}", calls.len());
}

#[tokio::test(start_paused = true)]
async fn what_waits_before_an_event_that_breaks_its_call_is_not_called_one_by_one() {
    // the first of the key fails once, so that all others wait; each fiftieth of those breaks every call that it is in
    let work = Script::each(|given| match (given.data.as_str(), given.attempt) {
        ("first", 1) => Step::Retry(None),
        (name, _) if name.ends_with("breaks") => Step::Break(CallErrorKind::Trap),
        _ => copy(given),
    });
    let name = |n: u32| if n % 50 == 49 { format!("{n} breaks") } else { n.to_string() };
    let names: Vec<_> = std::iter::once("first".to_owned()).chain((0..200).map(name)).collect();
    let events: Vec<_> = names.iter().map(|name| ("k", name.as_str())).collect();
    let tree = backlog(MemoryEngine::default(), &plan_of(&[ONE]), &work, &events).await;
    settled(&tree).await;
    assert_eq!(by_key(&tree, "out").await["k"].len(), 1 + 196);
    assert_eq!(only(&tree, "work.dead").await.len(), 4);
    let calls = work.called().len();
    assert!(calls <= 2 + 4 * 6, "{calls} calls, of which one for each event would be 200");
}
