//! Stops, restarts and takeovers: nothing is lost, nothing happens twice.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use wattle::api::{LaneState, Seek, SeekState, SeekTo};
use wattle::dispatch::{ControlError, Tree};
use wattle::engine::embedded::EmbeddedEngine;
use wattle::engine::memory::MemoryEngine;
use wattle::engine::{Engine, StopReason};
use wattle::log::Durability;
use wattle::model::call::CallErrorKind;
use wattle::model::partition_of;

use crate::common::trees::{PATIENCE, data, only, plan_of, settled, status, until};
use crate::dispatch::bed::{ONE, one, publish, start, start_on};
use crate::dispatch::script::{Script, Step, by_event, copy};

/// A copying handler whose calls end one by one as permits are given.
fn gated() -> (Script, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let open = gate.clone();
    let script = Script::calls(move |call| {
        let gate = gate.clone();
        async move {
            gate.acquire().await.unwrap().forget();
            by_event(&call, copy)
        }
    });
    (script, open)
}

#[tokio::test(start_paused = true)]
async fn a_drain_in_the_middle_of_a_pause_is_quick_and_the_event_is_tried_again_after_it() {
    let failing =
        Script::each(|given| if given.data == "b" { Step::Retry(Some(Duration::from_secs(30))) } else { copy(given) });
    let tree = one(&failing, &["a", "b", "c"]).await;
    until("it retries", || status(&tree.snapshot(), "t/work").lanes == [LaneState::Retrying]).await;
    let before = tokio::time::Instant::now();
    assert!(tree.drain(Duration::from_secs(10)).await);
    assert!(before.elapsed() < Duration::from_secs(1));
    assert_eq!(data(&tree, "out").await, ["a", "c"]);
    assert_eq!(failing.batches(), [&["a", "b", "c"][..], &["c"]]);

    let passing = Script::each(copy);
    let tree = start_on(tree.engine().clone(), &plan_of(&[ONE]), &[("work", &passing)]).await;
    settled(&tree).await;
    assert_eq!(passing.batches(), [["b"]], "after what was left of its pause");
    assert_eq!(passing.called()[0].attempts(), [2], "the failed attempt counts");
    assert_eq!(data(&tree, "out").await, ["a", "c", "b"]);
    assert!(only(&tree, "work.dead").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_only_some_lanes_have_done_is_said() {
    let plan = plan_of(&["wattle: v1\nname: t\ntopics: { in: { partitions: 2, dedupe: off } }\nsubscribers:\n  \
                         work: { from: in, plugin: w.wasm }\n"]);
    let (work, open) = gated();
    let tree = start_on(MemoryEngine::default(), &plan, &[("work", &work)]).await;
    let name = (0..).map(|n| n.to_string()).find(|name| partition_of(name, 2) == 1).unwrap();
    publish(&tree, "in", &[&name]).await;
    until("the call", || work.called().len() == 1).await;
    let to_start =
        Seek { to: SeekTo::Start, partition: None, state: Some(SeekState::Keep), drops_waiting: false, dry_run: false };
    for error in [
        tree.subscriber("work").unwrap().seek(to_start).await.unwrap_err(),
        tree.subscriber("work").unwrap().pause().await.unwrap_err(),
    ] {
        assert!(matches!(error, ControlError::Partly { .. }), "{error}");
        assert!(
            error.to_string().starts_with("partition 1: ") && error.to_string().contains("1 partition had"),
            "{error}"
        );
    }
    open.add_permits(10);
    assert!(tree.drain(PATIENCE).await);
}

#[tokio::test]
async fn a_drain_in_the_middle_of_a_call_waits_for_it_and_commits_it() {
    let (work, open) = gated();
    let tree = one(&work, &["a", "b", "c"]).await;
    until("the call", || work.called().len() == 1).await;
    let draining = tokio::spawn({
        let tree = tree.clone();
        async move { tree.drain(PATIENCE).await }
    });
    publish(&tree, "in", &["d"]).await;
    tokio::task::yield_now().await;
    assert!(!draining.is_finished());
    open.add_permits(10);
    assert!(draining.await.unwrap());
    assert_eq!(data(&tree, "out").await, ["a", "b", "c"], "the call's, and no other");

    let rest = Script::each(copy);
    let tree = start_on(tree.engine().clone(), &plan_of(&[ONE]), &[("work", &rest)]).await;
    settled(&tree).await;
    assert_eq!(rest.batches(), [["d"]]);
    assert_eq!(data(&tree, "out").await, ["a", "b", "c", "d"]);
}

#[tokio::test]
async fn a_drain_between_the_parts_of_a_batch_keeps_what_is_done() {
    let (gate, open) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (entered, leave) = (gate.clone(), open.clone());
    // The first call breaks at `b`, so what is in front runs again, and then `b` alone: that call is held.
    let work = Script::calls(move |call| {
        let (entered, leave) = (entered.clone(), leave.clone());
        async move {
            if call.data() == ["b"] {
                entered.add_permits(1);
                leave.acquire().await.unwrap().forget();
            }
            by_event(&call, |given| {
                if given.data == "b" && !given.is_alone { Step::Break(CallErrorKind::Trap) } else { copy(given) }
            })
        }
    });
    let tree = one(&work, &["a", "b", "c", "d"]).await;
    gate.acquire().await.unwrap().forget();
    let drained = tokio::join!(tree.drain(PATIENCE), async { open.add_permits(1) }).0;
    assert!(drained);
    assert_eq!(data(&tree, "out").await, ["a", "b"]);
    let rest = Script::each(copy);
    let tree = start_on(tree.engine().clone(), &plan_of(&[ONE]), &[("work", &rest)]).await;
    settled(&tree).await;
    assert_eq!(rest.batches(), [["c", "d"]]);
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_a_handler_does_not_let_end_says_so() {
    let (work, _open) = gated();
    let tree = one(&work, &["a"]).await;
    until("the call", || work.called().len() == 1).await;
    assert!(!tree.drain(Duration::from_secs(5)).await);
    assert_eq!(data(&tree, "out").await, [""; 0]);
}

#[tokio::test]
async fn after_a_drain_nothing_is_handled() {
    let work = Script::each(copy);
    let tree = start(ONE, &[("work", &work)]).await;
    assert!(tree.drain(PATIENCE).await);
    assert!(tree.drain(PATIENCE).await, "a second time as well");
    publish(&tree, "in", &["a"]).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(work.called().is_empty());
    assert!(!tree.is_settled());
    assert_eq!(status(&tree.snapshot(), "t/work").lag, 1);
}

/// The first tree is in the middle of a call when a second one takes its lanes over: what the first one does is void.
async fn taken_over<E: Engine>(engine: E) {
    let plan = plan_of(&[ONE]);
    let (slow, open) = gated();
    let old = start_on(engine.clone(), &plan, &[("work", &slow)]).await;
    publish(&old, "in", &["a", "b"]).await;
    until("the call", || slow.called().len() == 1).await;
    let quick = Script::each(copy);
    let new = start_on(engine, &plan, &[("work", &quick)]).await;
    settled(&new).await;
    open.add_permits(10);
    until("the old lane stops", || status(&old.snapshot(), "t/work").lanes == [LaneState::Stopped]).await;
    publish(&new, "in", &["c"]).await;
    settled(&new).await;
    assert_eq!(data(&new, "out").await, ["a", "b", "c"]);
    assert_eq!(status(&new.snapshot(), "t/work").lanes, [LaneState::Running]);
    assert!(slow.called().len() == 1, "it is not called again");
    until("it is said", || status(&old.snapshot(), "t/work").last_failure.is_some()).await;
    assert_eq!(status(&old.snapshot(), "t/work").last_failure.unwrap(), "another session owns the lane");
    assert!(old.drain(PATIENCE).await && new.drain(PATIENCE).await);
}

#[tokio::test]
async fn a_lane_that_was_taken_over_stops_in_memory() {
    taken_over(MemoryEngine::default()).await;
}

#[tokio::test]
async fn a_lane_that_was_taken_over_stops_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    taken_over(EmbeddedEngine::open(folder.path(), Durability::Os).unwrap()).await;
}

#[tokio::test]
async fn lanes_stop_with_their_engine() {
    let folder = tempfile::tempdir().unwrap();
    let (work, open) = gated();
    let plan = plan_of(&[ONE]);
    let tree =
        start_on(EmbeddedEngine::open(folder.path(), Durability::Sync).unwrap(), &plan, &[("work", &work)]).await;
    publish(&tree, "in", &["a"]).await;
    until("the call", || work.called().len() == 1).await;
    tree.engine().close().await.unwrap();
    assert_eq!(tree.stopped().await, StopReason::Closed);
    open.add_permits(10);
    until("the lane stops", || status(&tree.snapshot(), "t/work").lanes == [LaneState::Stopped]).await;
    assert!(tree.drain(PATIENCE).await);
    assert_eq!(status(&tree.snapshot(), "t/work").last_failure, None, "the engine says it itself");
    drop(tree);

    let again = Script::each(copy);
    let tree = start_on(reopened(folder.path()).await, &plan, &[("work", &again)]).await;
    settled(&tree).await;
    assert_eq!(data(&tree, "out").await, ["a"]);
}

/// Opens a folder as soon as its last owner has let it go.
async fn reopened(folder: &std::path::Path) -> EmbeddedEngine {
    let mut engine = None;
    until("the folder is free", || {
        engine = EmbeddedEngine::open(folder, Durability::Sync).ok();
        engine.is_some()
    })
    .await;
    engine.unwrap()
}

#[tokio::test]
async fn a_tree_on_disk_goes_on_where_it_was_after_every_restart() {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan_of(&[ONE]);
    let mut expected = Vec::new();
    for life in 0..5 {
        // Each life handles some calls, of one event each since they are published one by one while it is busy.
        let (work, open) = gated();
        let tree: Tree<EmbeddedEngine> = start_on(reopened(folder.path()).await, &plan, &[("work", &work)]).await;
        for n in 0..4 {
            let name = format!("{life}-{n}");
            publish(&tree, "in", &[&name]).await;
            expected.push(name);
        }
        let calls = work.called().len();
        open.add_permits(2);
        until("two calls more", || work.called().len() > calls.max(1)).await;
        let drained = tokio::join!(tree.drain(PATIENCE), async { open.add_permits(100) }).0;
        assert!(drained);
        tree.engine().close().await.unwrap();
    }
    let tree = start_on(reopened(folder.path()).await, &plan, &[("work", &Script::each(copy))]).await;
    settled(&tree).await;
    assert_eq!(data(&tree, "out").await, expected);
}
