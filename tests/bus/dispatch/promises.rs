//! How often an event is handled where the process is killed: at most once, and exactly once.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use tokio::runtime::Runtime;
use wattle::dispatch::Tree;
use wattle::engine::Engine;
use wattle::engine::memory::MemoryEngine;
use wattle::topology::Plan;

use crate::common::trees::{PATIENCE, data, event, only, plan_of, settled, status, until};
use crate::dispatch::bed::{Home, ONE, backlog, ends, start_on};
use crate::dispatch::script::{Script, Step, by_event, copy};

fn once_at_most(more: &str) -> Plan {
    let retry = "retry: { attempts: 3, backoff: { initial: 100ms, max: 1s, factor: 4 } }";
    plan_of(&[&format!("{}    delivery: at_most_once\n{more}", ONE.replace(retry, ""))])
}

/// A runtime that is dropped with whatever runs on it, where it awaits.
fn life<T>(of: impl Future<Output = T>) -> T {
    let runtime = Runtime::new().unwrap();
    let result = runtime.block_on(of);
    runtime.shutdown_timeout(PATIENCE);
    result
}

/// A handler that never ends a call, and one that copies.
fn stuck() -> Script {
    Script::calls(|_| std::future::pending())
}

/// The process is killed in a call, again and again: each event is called once.
fn killed_in_calls<H: Home>(home: &H) {
    let plan = once_at_most("");
    let stuck = stuck();
    let names = ["a", "b", "c", "d", "e"];
    let keyed = names.map(|name| ("k", name));
    life(async {
        let tree = backlog(home.open().await, &plan, &stuck, &keyed).await;
        until("a call", || stuck.called().len() == 1).await;
        drop(tree);
    });
    life(async {
        let tree = start_on(home.open().await, &plan, &[("work", &stuck)]).await;
        until("a call", || stuck.called().len() == 2).await;
        drop(tree);
    });
    assert_eq!(stuck.batches(), [["a"], ["b"]], "one at a time, and none again");
    life(async {
        let work = Script::each(copy);
        let tree = start_on(home.open().await, &plan, &[("work", &work)]).await;
        settled(&tree).await;
        assert_eq!(work.batches(), [["c"], ["d"], ["e"]]);
        assert_eq!(data(&tree, "out").await, ["c", "d", "e"]);
        ends(tree).await;
    });
}

#[test]
fn what_a_kill_interrupts_is_not_called_again_where_it_is_once_at_most_in_memory() {
    killed_in_calls(&MemoryEngine::default());
}

#[test]
fn what_a_kill_interrupts_is_not_called_again_where_it_is_once_at_most_on_disk() {
    killed_in_calls(&tempfile::tempdir().unwrap());
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_not_called_again_where_it_is_once_at_most() {
    let work = Script::each(|given| if given.data == "b" { Step::Retry(None) } else { copy(given) });
    let tree = backlog(MemoryEngine::default(), &once_at_most(""), &work, &[("k", "a"), ("k", "b"), ("k", "c")]).await;
    settled(&tree).await;
    assert_eq!(work.batches(), [["a"], ["b"], ["c"]]);
    assert_eq!(data(&tree, "out").await, ["a", "c"]);
    assert_eq!(only(&tree, "work.dead").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_tree_is_not_settled_while_a_call_goes_on_whose_event_is_behind_the_position() {
    let (gate, seen) = (Arc::new(tokio::sync::Semaphore::new(0)), Arc::new(AtomicU64::new(0)));
    let (open, count) = (gate.clone(), seen.clone());
    let work = Script::calls(move |call| {
        let (gate, seen) = (gate.clone(), seen.clone());
        async move {
            seen.fetch_add(1, SeqCst);
            gate.acquire().await.unwrap().forget();
            by_event(&call, copy)
        }
    });
    let tree = backlog(MemoryEngine::default(), &once_at_most(""), &work, &[("k", "a")]).await;
    until("the call", || count.load(SeqCst) == 1).await;
    assert_eq!(status(&tree.snapshot(), "t/work").lag, 0);
    assert!(!tree.is_settled());
    open.add_permits(1);
    settled(&tree).await;
    assert_eq!(data(&tree, "out").await, ["a"]);
}

/// A drain loses nothing: what waits for its turn has not been called.
#[tokio::test(start_paused = true)]
async fn a_drain_in_front_of_the_call_loses_nothing_where_it_is_once_at_most() {
    let plan = once_at_most("    rate: 1/m\n");
    let work = Script::each(copy);
    let engine = MemoryEngine::default();
    let mut tree = backlog(engine.clone(), &plan, &work, &[("k", "a"), ("k", "b"), ("k", "c")]).await;
    for life in 1..=3 {
        until("a call", || work.called().len() == life).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(tree.drain(PATIENCE).await);
        tree = start_on(engine.clone(), &plan, &[("work", &work)]).await;
    }
    settled(&tree).await;
    assert_eq!(work.batches(), [["a"], ["b"], ["c"]]);
    assert_eq!(data(&tree, "out").await, ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn without_an_instance_nothing_is_lost_where_it_is_once_at_most() {
    let none = Script::each(|_| Step::NoInstance);
    let engine = MemoryEngine::default();
    let tree = backlog(engine.clone(), &once_at_most(""), &none, &[("k", "a"), ("k", "b")]).await;
    until("it was asked for", || none.called().len() >= 3).await;
    assert!(tree.drain(PATIENCE).await);
    let work = Script::each(copy);
    let tree = start_on(engine, &once_at_most(""), &[("work", &work)]).await;
    settled(&tree).await;
    assert_eq!(work.batches(), [["a"], ["b"]]);
}

/// What joined the set behind a parked event under another topology, or was given back to the lane, is called out of
/// the set: killed there, it is not called again either.
fn killed_out_of_the_set<H: Home>(home: &H) {
    let retries = plan_of(&[&ONE.replace("max: 1s", "max: 100ms")]);
    let failing = Script::each(|_| Step::Retry(None));
    life(async {
        let tree = backlog(home.open().await, &retries, &failing, &[("k", "a"), ("k", "b"), ("k", "c")]).await;
        until("all wait", || status(&tree.snapshot(), "t/work").waiting == 3).await;
        ends(tree).await;
    });
    let stuck = stuck();
    for calls in 1..=2 {
        life(async {
            let tree = start_on(home.open().await, &once_at_most(""), &[("work", &stuck)]).await;
            until("a call", || stuck.called().len() == calls).await;
            drop(tree);
        });
    }
    assert_eq!(stuck.batches(), [["a"], ["b"]]);
    life(async {
        let work = Script::each(|_| Step::Retry(None));
        let tree = start_on(home.open().await, &once_at_most("    on_failure: park\n"), &[("work", &work)]).await;
        settled(&tree).await;
        assert_eq!(work.batches(), [["c"]]);
        assert_eq!(status(&tree.snapshot(), "t/work").parked, 1);
        ends(tree).await;
    });
    life(async {
        let work = Script::each(copy);
        let tree = start_on(home.open().await, &once_at_most("    on_failure: park\n"), &[("work", &work)]).await;
        settled(&tree).await;
        assert_eq!((work.called().len(), status(&tree.snapshot(), "t/work").parked), (0, 1), "it is still there");
        ends(tree).await;
    });
}

#[test]
fn what_waits_is_not_called_again_after_a_kill_where_it_is_once_at_most_in_memory() {
    killed_out_of_the_set(&MemoryEngine::default());
}

#[test]
fn what_waits_is_not_called_again_after_a_kill_where_it_is_once_at_most_on_disk() {
    killed_out_of_the_set(&tempfile::tempdir().unwrap());
}

/// Each life is polled a little longer than the one before and then dropped: wherever a unit awaits, it is killed once.
fn killed_everywhere<H: Home>(home: &H, plan: &Plan, check: impl AsyncFn(&Tree<H::Engine>, &Script)) {
    let calls = Arc::new(AtomicU64::new(0));
    let counted = calls.clone();
    let work = Script::calls(move |call| {
        let n = counted.fetch_add(1, SeqCst);
        async move {
            for _ in 0..n % 3 {
                tokio::task::yield_now().await;
            }
            by_event(&call, |given| {
                let count: u64 = given.state.get("b", &given.key).map_or(0, |count| count.parse().unwrap());
                given.state.set("b", &given.key, (count + 1).to_string());
                match given.data.strip_suffix('!') {
                    Some(_) if given.attempt < 2 => Step::Retry(None),
                    _ => Step::Emit(vec![crate::dispatch::script::out(format!("{} {count}", given.data))]),
                }
            })
        }
    });
    let mut names = Vec::new();
    for steps in 0..60 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let tree = start_on(home.open().await, plan, &[("work", &work)]).await;
            for of in ["", "!", ""] {
                let name = format!("e{}{of}", names.len());
                tree.publisher().publish("in", &[event(&name, "k", &name)], None).await.unwrap();
                names.push(name);
            }
            for _ in 0..steps {
                tokio::task::yield_now().await;
            }
        });
        drop(runtime); // with its lanes, where they are
    }
    life(async {
        let tree = start_on(home.open().await, plan, &[("work", &work)]).await;
        settled(&tree).await;
        check(&tree, &work).await;
        ends(tree).await;
    });
}

async fn exactly_once<E: Engine>(tree: &Tree<E>, work: &Script) {
    let wanted: Vec<_> = (0..180).map(|n| format!("e{n}{} {n}", if n % 3 == 1 { "!" } else { "" })).collect();
    assert_eq!(data(tree, "out").await, wanted, "each once, in order, and the state of all in front of it");
    assert!(work.times().values().any(|times| *times > 2), "some calls were in vain");
}

#[test]
fn outputs_and_state_are_there_once_wherever_the_process_is_killed_in_memory() {
    killed_everywhere(&MemoryEngine::default(), &plan_of(&[&ONE.replace("100ms", "1ms")]), exactly_once);
}

#[test]
fn outputs_and_state_are_there_once_wherever_the_process_is_killed_on_disk() {
    killed_everywhere(&tempfile::tempdir().unwrap(), &plan_of(&[&ONE.replace("100ms", "1ms")]), exactly_once);
}

async fn once_at_the_most<E: Engine>(tree: &Tree<E>, work: &Script) {
    let times = work.times();
    assert!(times.values().all(|times| *times == 1), "{times:?}");
    let ends = data(tree, "out").await.len() + only(tree, "work.dead").await.len();
    assert!(ends <= times.len() && times.len() <= 180);
}

#[test]
fn no_event_is_called_twice_wherever_the_process_is_killed_in_memory() {
    killed_everywhere(&MemoryEngine::default(), &once_at_most(""), once_at_the_most);
}

#[test]
fn no_event_is_called_twice_wherever_the_process_is_killed_on_disk() {
    killed_everywhere(&tempfile::tempdir().unwrap(), &once_at_most(""), once_at_the_most);
}
