//! A topic whose backlog is bounded: who brings more is refused or waits, and nobody waits for ever. Clocks are paused.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use wattle::api::{AddressedEvent, LaneState};
use wattle::dispatch::{PublishError, Tree};
use wattle::engine::Engine;
use wattle::engine::embedded::EmbeddedEngine;
use wattle::engine::memory::MemoryEngine;
use wattle::log::Durability;

use crate::common::trees::{data, event, plan_of, settled, status, until};
use crate::dispatch::bed::{ends, publish, start, start_on};
use crate::dispatch::script::{Script, Step, by_event, copy, out};

/// `in` -> `work`, of which five events may wait, and a root without bounds.
fn bounded(when_full: &str) -> String {
    format!(
        "
wattle: v1
name: t
topics: {{ in: {{ backlog: 5, when_full: {when_full} }}, other: {{ backlog: 5 }}, free: {{}} }}
subscribers:
  work: {{ from: in, plugin: p.wasm }}
  beside: {{ from: in, plugin: p.wasm }}
  last: {{ from: other, plugin: p.wasm }}
"
    )
}

fn silent() -> Script {
    Script::each(|_| Step::Emit(Vec::new()))
}

/// Nobody consumes anything.
async fn standing(when_full: &str) -> Tree<MemoryEngine> {
    let silent = silent();
    let tree = start(&bounded(when_full), &[("work", &silent), ("beside", &silent), ("last", &silent)]).await;
    for subscriber in ["work", "last"] {
        tree.subscriber(subscriber).unwrap().pause().await.unwrap();
    }
    tree
}

async fn try_publish<E: Engine>(tree: &Tree<E>, topic: &str, names: &[&str]) -> Result<(), PublishError> {
    let events: Vec<_> = names.iter().map(|name| event(name, name, name)).collect();
    tree.publisher().publish(topic, &events, None).await.map(drop)
}

fn is_full(result: Result<(), PublishError>) -> (u64, u64, u64) {
    match result {
        Err(PublishError::Backlog(full)) => (full.events, full.waiting, full.max),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_publish_past_the_backlog_is_refused_until_the_slowest_subscriber_has_consumed() {
    let tree = standing("reject").await;
    publish(&tree, "in", &["a", "b", "c"]).await;
    assert_eq!(is_full(try_publish(&tree, "in", &["d", "e", "f"]).await), (3, 3, 5));
    publish(&tree, "in", &["d", "e"]).await;
    assert_eq!(is_full(try_publish(&tree, "in", &["f"]).await), (1, 5, 5));
    until("the other has consumed all", || status(&tree.snapshot(), "t/beside").lag == 0).await;
    assert_eq!(is_full(try_publish(&tree, "in", &["f"]).await), (1, 5, 5), "the slowest one counts");
    publish(&tree, "free", &["a", "b", "c", "d", "e", "f"]).await;
    assert_eq!(data(&tree, "in").await, ["a", "b", "c", "d", "e"], "nothing of what was refused is there");
    tree.subscriber("work").unwrap().resume().await.unwrap();
    settled(&tree).await;
    publish(&tree, "in", &["f"]).await;
}

#[tokio::test(start_paused = true)]
async fn more_than_a_backlog_comes_in_where_nothing_waits() {
    let tree = standing("reject").await;
    publish(&tree, "in", &["a", "b", "c", "d", "e", "f", "g"]).await;
    assert_eq!(is_full(try_publish(&tree, "in", &["h"]).await), (1, 7, 5));
}

#[tokio::test(start_paused = true)]
async fn a_publish_that_waits_comes_in_when_there_is_room_and_in_its_turn() {
    let tree = standing("wait").await;
    publish(&tree, "in", &["a", "b", "c", "d"]).await;
    let mut waiting = Vec::new();
    for names in [&["e", "f"][..], &["g"], &["h", "i", "j", "k"]] {
        let publishing = {
            let tree = tree.clone();
            tokio::spawn(async move { try_publish(&tree, "in", names).await.unwrap() })
        };
        waiting.push(publishing);
        tokio::time::sleep(Duration::from_secs(1)).await; // it has asked
    }
    // `g` would have room, but it is not its turn
    assert!(waiting.iter().all(|publishing| !publishing.is_finished()));
    assert_eq!(data(&tree, "in").await.len(), 4);
    tree.subscriber("work").unwrap().resume().await.unwrap();
    for publishing in waiting {
        publishing.await.unwrap();
    }
    assert_eq!(data(&tree, "in").await.concat(), "abcdefghijk");
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_while_it_waits_leaves_its_turn_and_its_room_to_others() {
    let tree = standing("wait").await;
    publish(&tree, "in", &["a", "b", "c", "d"]).await;
    let waits = try_publish(&tree, "in", &["e", "f"]);
    assert!(tokio::time::timeout(Duration::from_secs(9), waits).await.is_err());
    let admitted = tree.publisher().admit("in", 1).await.unwrap();
    let waits = try_publish(&tree, "in", &["g"]);
    assert!(tokio::time::timeout(Duration::from_secs(9), waits).await.is_err(), "what is on its way counts");
    drop(admitted);
    publish(&tree, "in", &["h"]).await;
    assert_eq!(data(&tree, "in").await.concat(), "abcdh");
    tree.engine().close().await.unwrap();
    let stopped = try_publish(&tree, "in", &["i"]).await;
    assert!(
        matches!(stopped, Err(PublishError::Append(_))),
        "nobody waits for an engine that has stopped: {stopped:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn events_for_several_topics_are_admitted_together() {
    let tree = standing("wait").await;
    publish(&tree, "in", &["a", "b", "c", "d"]).await;
    publish(&tree, "other", &["a", "b", "c", "d"]).await;
    let to = |topic: &str, id: &str| AddressedEvent { topic: topic.to_owned(), event: event(id, id, id) };
    let together = |events: Vec<AddressedEvent>| {
        let tree = tree.clone();
        async move { tree.publisher().publish_together(&events, None).await.map(drop) }
    };
    let refused = together(vec![to("in", "e"), to("other", "e"), to("other", "f")]).await;
    assert_eq!(is_full(refused), (2, 4, 5), "it does not wait for room in the one where the other refuses");
    let waits = tokio::spawn(together(vec![to("other", "g"), to("in", "g"), to("in", "h"), to("free", "g")]));
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert!(!waits.is_finished());
    publish(&tree, "other", &["e"]).await; // it has reserved nothing while it waits
    tree.subscriber("work").unwrap().resume().await.unwrap();
    assert_eq!(is_full(waits.await.unwrap()), (1, 5, 5), "and is refused where the room has gone meanwhile");
    together(vec![to("in", "i"), to("free", "i")]).await.unwrap();
    assert_eq!((data(&tree, "in").await.concat(), data(&tree, "free").await.concat()), ("abcdi".into(), "i".into()));
}

#[tokio::test]
async fn producers_at_once_never_bring_more_than_there_is_room_for() {
    let folder = tempfile::tempdir().unwrap();
    let engine = EmbeddedEngine::open(folder.path(), Durability::Sync).unwrap();
    let silent = silent();
    let scripts = [("work", &silent), ("beside", &silent), ("last", &silent)];
    let yaml = bounded("reject").replacen("backlog: 5", "dedupe: off, backlog: 5", 1);
    let tree = start_on(engine, &plan_of(&[&yaml]), &scripts).await;
    tree.subscriber("work").unwrap().pause().await.unwrap();
    let publishing = (0..40).map(|number| {
        let tree = tree.clone();
        tokio::spawn(async move { try_publish(&tree, "in", &[&number.to_string()]).await.is_ok() })
    });
    let mut came_in = 0;
    for published in publishing.collect::<Vec<_>>() {
        came_in += usize::from(published.await.unwrap());
    }
    // what is on its way counts until it is durable, so one may be refused early, but never late
    assert!((1..=5).contains(&came_in), "{came_in}");
    while try_publish(&tree, "in", &["more"]).await.is_ok() {
        came_in += 1;
    }
    assert_eq!((came_in, data(&tree, "in").await.len()), (5, 5));
    ends(tree).await;
}

/// `in` -> `work` -> `out`, of which three events may wait -> `leaf`.
const CHAIN: &str = "
wattle: v1
name: t
topics: { in: {}, out: { backlog: 3 } }
subscribers:
  work: { from: in, plugin: p.wasm, to: [out], batch: { max: 1 }, when: \"data != 0\", retry: { attempts: 2 } }
  leaf: { from: out, plugin: p.wasm, batch: { max: 1 } }
";

/// A leaf that takes as many calls as the semaphore lets it.
fn gated() -> (Script, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let inner = gate.clone();
    let script = Script::calls(move |call| {
        let gate = inner.clone();
        async move {
            gate.acquire().await.unwrap().forget();
            by_event(&call, |_| Step::Emit(Vec::new()))
        }
    });
    (script, gate)
}

fn lane<E: Engine>(tree: &Tree<E>) -> LaneState {
    status(&tree.snapshot(), "t/work").lanes[0]
}

async fn blocked<E: Engine>(tree: &Tree<E>) {
    until("it is blocked", || lane(tree) == LaneState::Blocked).await;
}

#[tokio::test(start_paused = true)]
async fn a_lane_makes_no_call_while_a_topic_below_is_full() {
    let (work, (leaf, gate)) = (Script::each(copy), gated());
    let tree = start(CHAIN, &[("work", &work), ("leaf", &leaf)]).await;
    publish(&tree, "in", &["1", "2", "3", "4", "5", "0", "6"]).await;
    blocked(&tree).await;
    assert_eq!((work.called().len(), data(&tree, "out").await.concat()), (3, "123".to_owned()));
    gate.add_permits(1);
    until("the fourth is called", || work.called().len() == 4).await;
    blocked(&tree).await;
    assert_eq!(data(&tree, "out").await.concat(), "1234");
    // what it is told, it does all the same
    tree.subscriber("work").unwrap().pause().await.unwrap();
    assert_eq!(lane(&tree), LaneState::Paused);
    gate.add_permits(1);
    tree.subscriber("work").unwrap().resume().await.unwrap();
    until("the fifth is called", || work.called().len() == 5).await;
    gate.add_permits(100);
    settled(&tree).await;
    assert_eq!((data(&tree, "out").await.concat(), lane(&tree)), ("123456".to_owned(), LaneState::Running));
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_another_attempt_waits_for_room_as_well() {
    let failing = Script::each(|event| match event.data.as_str() {
        "2" if event.attempt == 1 => Step::Retry(Some(Duration::from_secs(1))),
        _ => copy(event),
    });
    let (leaf, gate) = gated();
    let tree = start(CHAIN, &[("work", &failing), ("leaf", &leaf)]).await;
    publish(&tree, "in", &["2", "3", "4", "5"]).await;
    until("three are out", || failing.called().len() == 4).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((failing.times()["2"], lane(&tree)), (1, LaneState::Blocked), "its time has come, but there is no room");
    gate.add_permits(100);
    settled(&tree).await;
    assert_eq!(data(&tree, "out").await.concat(), "3452");
}

#[tokio::test(start_paused = true)]
async fn a_blocked_lane_ends_when_it_is_told_to() {
    let (work, (leaf, _gate)) = (Script::each(|_| Step::Emit(vec![out("1"), out("2"), out("3"), out("4")])), gated());
    let tree = start(CHAIN, &[("work", &work), ("leaf", &leaf)]).await;
    publish(&tree, "in", &["1", "2"]).await;
    blocked(&tree).await;
    assert_eq!(data(&tree, "out").await.len(), 4, "what one call makes goes in whole");
    let _ = tree.drain(Duration::from_secs(5)).await; // the leaf is in a call that does not end
    assert_eq!(lane(&tree), LaneState::Stopped);
}

#[tokio::test(start_paused = true)]
async fn full_topics_at_every_level_all_empty_again() {
    const DEEP: &str = "
wattle: v1
name: t
topics: { in: { backlog: 4, when_full: wait, partitions: 2 }, a: { backlog: 2 }, b: { backlog: 1, partitions: 3 }, c: \
{ backlog: 3 } }
subscribers:
  one: { from: in, plugin: p.wasm, to: { x: a, y: c } }
  two: { from: a, plugin: p.wasm, to: [b] }
  three: { from: b, plugin: p.wasm }
  four: { from: c, plugin: p.wasm }
";
    let one = Script::each(|event| {
        let data = event.data.clone();
        Step::Emit(vec![out(data.clone()), out(data.clone()), crate::dispatch::script::on(1, data)])
    });
    let two = Script::each(|event| Step::Emit(vec![out(event.data.clone()), out(event.data.clone())]));
    let (three, four) = (silent(), silent());
    let tree = start(DEEP, &[("one", &one), ("two", &two), ("three", &three), ("four", &four)]).await;
    for number in 0..50 {
        let names = [format!("{number}a"), format!("{number}b"), format!("{number}c")];
        publish(&tree, "in", &names.each_ref().map(String::as_str)).await;
    }
    settled(&tree).await;
    let handled = |name: &str| status(&tree.snapshot(), name).handled;
    assert_eq!(["t/one", "t/two", "t/three", "t/four"].map(handled), [150, 300, 600, 150]);
}
