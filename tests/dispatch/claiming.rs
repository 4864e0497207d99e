//! Subscribers that share the events of a topic: each event is for one of them. Clocks are paused.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use wattle::dispatch::{ControlError, Move, Refusal, SeekState, SeekTo, Tree};
use wattle::engine::Engine;
use wattle::engine::memory::MemoryEngine;

use crate::bed::{Home, ends, publish, start, start_on};
use crate::common::trees::{data, plan_of, settled, until};
use crate::script::{Script, Step, by_event, copy};

fn yaml(more: &str) -> String {
    let worker = |name: &str| {
        format!(
            "  {name}:\n    from: in\n    plugin: work.wasm\n    to: {{ out: {name}s }}\n    claim: workers\n    batch: {{ max: 2 }}\n    retry: {{ attempts: 2, backoff: {{ initial: 10ms, max: 10ms }} }}\n{more}"
        )
    };
    format!(
        "wattle: v1\nname: t\ntopics: {{ in: {{}}, as: {{}}, bs: {{}} }}\nsubscribers:\n{}{}",
        worker("a"),
        worker("b")
    )
}

/// Everything that both made, by how often.
async fn made<E: Engine>(tree: &Tree<E>) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for topic in ["as", "bs", "a.dead", "b.dead"] {
        for data in data(tree, topic).await {
            *all.entry(data).or_default() += 1;
        }
    }
    all
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("e{n:03}")).collect()
}

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
async fn each_event_is_for_one_and_who_has_time_gets_more() {
    let ((slow, gate), quick) = (gated(), Script::each(copy));
    let tree = start(&yaml(""), &[("a", &slow), ("b", &quick)]).await;
    let all = names(100);
    publish(&tree, "in", &all.iter().map(String::as_str).collect::<Vec<_>>()).await;
    until("the quick one has the rest", || quick.called().iter().map(|call| call.events.len()).sum::<usize>() >= 98)
        .await;
    gate.add_permits(100);
    settled(&tree).await;
    let made = made(&tree).await;
    assert_eq!(made.keys().cloned().collect::<Vec<_>>(), all);
    assert!(made.values().all(|count| *count == 1), "{made:?}");
    assert!(data(&tree, "as").await.len() <= 2, "it was busy with its first call");
}

/// One of them is stopped in the middle of a call, and both start again.
async fn survives(home: impl Home) {
    let plan = plan_of(&[&yaml("")]);
    let ((slow, gate), quick) = (gated(), Script::each(copy));
    let tree = start_on(home.open().await, &plan, &[("a", &slow), ("b", &quick)]).await;
    let all = names(40);
    let (first, rest) = all.split_at(2);
    // so that the slow one has them
    tree.pause("b").await.unwrap();
    publish(&tree, "in", &first.iter().map(String::as_str).collect::<Vec<_>>()).await;
    until("the slow one is called", || !slow.called().is_empty()).await;
    tree.resume("b").await.unwrap();
    publish(&tree, "in", &rest.iter().map(String::as_str).collect::<Vec<_>>()).await;
    until("the other one goes on", || quick.called().iter().map(|call| call.events.len()).sum::<usize>() == 38).await;
    // the call is dropped: what it was for was claimed, and nothing came of it
    let engine = tree.engine().clone();
    let _ = tree.drain(Duration::from_millis(10)).await;
    drop(tree);
    gate.add_permits(100);
    engine.close().await.ok();
    drop(engine);
    let (again, quick) = (Script::each(copy), Script::each(copy));
    let tree = start_on(home.open().await, &plan, &[("a", &again), ("b", &quick)]).await;
    settled(&tree).await;
    let made = made(&tree).await;
    assert_eq!(made.keys().cloned().collect::<Vec<_>>(), all);
    assert!(made.values().all(|count| *count == 1), "{made:?}");
    assert!(quick.called().is_empty(), "what was claimed stays with whom it was claimed by");
    ends(tree).await;
}

#[tokio::test]
async fn what_is_claimed_stays_so_over_a_restart() {
    survives(tempfile::tempdir().unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_its_claimers_to_the_end() {
    let fails = |given: &crate::script::Given| {
        if given.data.ends_with('7') { Step::Retry(None) } else { copy(given) }
    };
    let (a, b) = (Script::each(fails), Script::each(fails));
    let tree = start(&yaml(""), &[("a", &a), ("b", &b)]).await;
    let all = names(60);
    for event in &all {
        publish(&tree, "in", &[event]).await;
    }
    settled(&tree).await;
    let made = made(&tree).await;
    assert_eq!(made.keys().cloned().collect::<Vec<_>>(), all);
    assert!(made.values().all(|count| *count == 1), "{made:?}");
    let dead = data(&tree, "a.dead").await.len() + data(&tree, "b.dead").await.len();
    assert_eq!(dead, 6);
    for event in all.iter().filter(|event| event.ends_with('7')) {
        let attempts = |script: &Script| {
            script.called().iter().flat_map(|call| call.events.clone()).filter(|given| given.data == *event).count()
        };
        let tried = [attempts(&a), attempts(&b)];
        assert!(tried == [2, 0] || tried == [0, 2], "{event}: {tried:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_does_not_want_an_event_leaves_it_to_the_other() {
    let (a, b) = (Script::each(copy), Script::each(copy));
    let yaml = yaml("").replacen("claim: workers", "claim: workers\n    when: key == 'x'", 1);
    let tree = start(&yaml, &[("a", &a), ("b", &b)]).await;
    tree.pause("b").await.unwrap();
    publish(&tree, "in", &["x", "y", "z"]).await;
    until("it has its own", || a.called().len() == 1).await;
    tree.resume("b").await.unwrap();
    settled(&tree).await;
    assert_eq!(data(&tree, "as").await, ["x"]);
    assert_eq!(data(&tree, "bs").await, ["y", "z"]);
}

#[tokio::test(start_paused = true)]
async fn who_shares_is_not_moved() {
    let (a, b) = (Script::each(copy), Script::each(copy));
    let tree: Tree<MemoryEngine> = start(&yaml(""), &[("a", &a), ("b", &b)]).await;
    let to = Move { to: SeekTo::Start, partition: None, state: SeekState::Keep, drops_waiting: false, dry_run: false };
    let refused = tree.seek("a", to).await.unwrap_err();
    assert!(matches!(refused, ControlError::Refused { refusal: Refusal::Shared { .. }, .. }), "{refused}");
}
