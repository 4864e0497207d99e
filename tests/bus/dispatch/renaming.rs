//! Nodes that another topology calls otherwise: nothing of them is lost, repeated or left behind.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use tokio::sync::Semaphore;
use wattle::api::{ChangeKind, Filter, Seek, SeekState, SeekTo};
use wattle::dispatch::Tree;
use wattle::engine::Engine;
use wattle::engine::memory::MemoryEngine;
use wattle::model::OutputIds;

use crate::common::trees::{PATIENCE, Seen, data, event, only, plan_of, settled, status, until};
use crate::dispatch::applying::{apply, gated};
use crate::dispatch::bed::{Home, ends, publish, start, start_on};
use crate::dispatch::script::{Given, Script, Step, copy, out};

const BEFORE: &str = "
wattle: v1
name: t
topics: { in: {}, mid: {}, end: {}, letters: {} }
subscribers:
  work: { from: in, plugin: work.wasm, to: { out: mid }, retry: { attempts: 1000, backoff: { initial: 100ms, max: \
  100ms } } }
  tail: { from: mid, plugin: tail.wasm, to: { out: end } }
  mourn: { from: work.dead, plugin: mourn.wasm, to: { out: letters } }
";

/// A root, an inner topic and the subscriber between them are called otherwise.
fn after() -> String {
    BEFORE
        .replace("in: {}, mid: {}", "orders: { renamed_from: in }, accepted: { renamed_from: mid }")
        .replace("work: { from: in", "check: { renamed_from: work, from: orders")
        .replace("out: mid", "out: accepted")
        .replace("{ from: mid", "{ from: accepted")
        .replace("from: work.dead", "from: check.dead")
}

/// The same once nobody says any more how it was called.
fn later() -> String {
    after()
        .replace("{ renamed_from: in }", "{}")
        .replace("{ renamed_from: mid }", "{}")
        .replace("renamed_from: work, ", "")
}

/// Counts what it handles in its state, rejects `bad`, and fails `again` until it may pass.
fn counting() -> (Script, Arc<AtomicBool>) {
    let may_pass = Arc::new(AtomicBool::new(false));
    let passes = may_pass.clone();
    let script = Script::each(move |given: &Given| {
        let count = given.state.get("b", "n").map_or(0, |count| count.parse().unwrap()) + 1;
        given.state.set("b", "n", count.to_string());
        match given.data.as_str() {
            "bad" => Step::Reject,
            "again" if !passes.load(SeqCst) => Step::Retry(None),
            data => Step::Emit(vec![out(format!("{data} {count}"))]),
        }
    });
    (script, may_pass)
}

/// Waits until so many events are in a topic.
async fn has<E: Engine>(tree: &Tree<E>, topic: &str, count: usize) -> Vec<Seen> {
    let began = std::time::Instant::now();
    loop {
        let found = only(tree, topic).await;
        if found.len() >= count {
            assert_eq!(found.len(), count, "{topic}");
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "{topic}: {found:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn late() -> bytes::Bytes {
    let mut late = wattle::model::Event::decode(&event("late", "late", "late")).unwrap();
    late.attributes.insert("delay".into(), wattle::model::Attribute::String("1h".into()));
    late.encode()
}

fn delayed<E: Engine>(tree: &Tree<E>, topic: &str) -> u64 {
    tree.snapshot().topics.iter().find(|status| status.name == topic).unwrap().delayed
}

fn ids(seen: &[Seen]) -> Vec<String> {
    seen.iter().map(|seen| seen.id().to_owned()).collect()
}

async fn nothing_is_left_behind<H: Home>(home: H) {
    let ((work, may_pass), tail, mourn) = (counting(), Script::each(copy), Script::each(copy));
    let scripts: [(&str, &Script); 4] = [("work", &work), ("check", &work), ("tail", &tail), ("mourn", &mourn)];
    let tree = start_on(home.open().await, &plan_of(&[BEFORE]), &scripts).await;
    tree.publisher().publish("in", &[late()], None).await.unwrap();
    publish(&tree, "in", &["a"]).await;
    until("its output went on", || tail.times().len() == 1).await;
    publish(&tree, "in", &["bad"]).await;
    until("it is a dead letter", || mourn.times().len() == 1).await;
    publish(&tree, "in", &["again"]).await;
    until("it has failed once", || status(&tree.snapshot(), "t/work").waiting == 1).await;
    tree.subscriber("tail").unwrap().pause().await.unwrap();
    until("it is kept", || delayed(&tree, "t/in") == 1).await;

    apply(&tree, &plan_of(&[&after()]), &scripts, &[]).await;
    assert!(tree.changes(&plan_of(&[&after()])).is_empty(), "what a rename said says nothing any more");
    publish(&tree, "orders", &["b"]).await;
    assert_eq!(has(&tree, "accepted", 2).await[1].data(), "b 2");
    assert_eq!(status(&tree.snapshot(), "t/check").waiting, 1, "it still waits");
    may_pass.store(true, SeqCst);
    let made = has(&tree, "accepted", 3).await;
    assert_eq!(work.called().last().unwrap().topic, "t/orders");
    assert_eq!((delayed(&tree, "t/orders"), mourn.times().len()), (1, 1));
    let now = status(&tree.snapshot(), "t/check");
    assert_eq!((now.handled, now.lag), (4, 0), "its counts and its place go on: {now:?}");
    assert!(tree.publisher().targets().find("in").is_err() && tree.publisher().targets().find("work.dead").is_err());
    // The ids are those that it would have made by its old name, also of what it made by it.
    let by_old_name = OutputIds::new("t/work", "t/in", 0);
    for seen in &made {
        assert_eq!(seen.id(), &*by_old_name.id(seen.lineage.unwrap().offset, 0), "{seen:?}");
    }
    assert_eq!((&*made[0].event.source, &*made[2].event.source), ("/t/work", "/t/check"), "sources tell names");

    // A restart finds the same, by the new names.
    ends(tree).await;
    let tree = start_on(home.open().await, &plan_of(&[&later()]), &scripts).await;
    publish(&tree, "orders", &["c"]).await;
    has(&tree, "accepted", 4).await;
    assert_eq!(delayed(&tree, "t/orders"), 1);
    until("what waited behind the pause is still there", || status(&tree.snapshot(), "t/tail").lag == 3).await;
    tree.subscriber("tail").unwrap().resume().await.unwrap();
    until("it goes on as well", || tail.times().len() == 4).await;
    assert_eq!(data(&tree, "accepted").await, ["a 1", "b 2", "again 3", "c 4"], "its state goes on");
    // Letters from before are its letters.
    let letters = only(&tree, "check.dead").await;
    assert_eq!((letters.len(), letters[0].attribute("wattlesubscriber").as_str()), (1, "t/work"));
    assert_eq!(tree.subscriber("check").unwrap().dead_letters().redrive(&Filter::default()).await.unwrap(), 1);
    has(&tree, "check.dead", 2).await;
    // Whoever handles it all once more names it all the same.
    tree.subscriber("check").unwrap().pause().await.unwrap();
    let all =
        Seek { to: SeekTo::Start, partition: None, state: Some(SeekState::Empty), drops_waiting: true, dry_run: false };
    tree.subscriber("check").unwrap().seek(all).await.unwrap();
    tree.subscriber("check").unwrap().resume().await.unwrap();
    let mut again = ids(&has(&tree, "accepted", 8).await);
    again.sort_unstable();
    again.dedup();
    assert_eq!(again.len(), 4, "{again:?}");
    ends(tree).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_behind_in_memory() {
    nothing_is_left_behind(MemoryEngine::default()).await;
}

#[tokio::test]
async fn nothing_is_left_behind_on_disk() {
    nothing_is_left_behind(tempfile::tempdir().unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_to_come_later_comes_by_the_new_name() {
    let ((work, _), other) = (counting(), Script::each(copy));
    let scripts: [(&str, &Script); 4] = [("work", &work), ("check", &work), ("tail", &other), ("mourn", &other)];
    let tree = start(BEFORE, &scripts).await;
    let mut soon = wattle::model::Event::decode(&event("soon", "soon", "soon")).unwrap();
    soon.attributes.insert("delay".into(), wattle::model::Attribute::String("5s".into()));
    tree.publisher().publish("in", &[soon.encode()], None).await.unwrap();
    apply(&tree, &plan_of(&[&after()]), &scripts, &[]).await;
    settled(&tree).await;
    assert_eq!(data(&tree, "orders").await, ["soon"]);
    assert_eq!(data(&tree, "end").await, ["soon 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_was_given_up_is_free() {
    let ((work, _), other) = (counting(), Script::each(copy));
    let scripts: [(&str, &Script); 4] = [("work", &work), ("check", &work), ("tail", &other), ("mourn", &other)];
    let tree = start(BEFORE, &scripts).await;
    publish(&tree, "in", &["a", "bad"]).await;
    settled(&tree).await;
    apply(&tree, &plan_of(&[&after()]), &scripts, &[]).await;
    let both = later().replace("topics: {", "topics: { in: {}, mid: {}, ")
        + "  work: { from: in, plugin: w.wasm, to: { out: mid } }\n";
    let another = Script::each(copy);
    apply(&tree, &plan_of(&[&both]), &[("work", &another)], &["work"]).await;
    for (topic, name) in [("in", "x"), ("orders", "y")] {
        publish(&tree, topic, &[name]).await;
    }
    settled(&tree).await;
    assert_eq!((data(&tree, "in").await, data(&tree, "mid").await), (vec!["x".to_owned()], vec!["x".to_owned()]));
    assert_eq!(data(&tree, "accepted").await, ["a 1", "y 2"]);
    assert_eq!((only(&tree, "work.dead").await.len(), only(&tree, "check.dead").await.len()), (0, 1));
    let (one, other) = (ids(&only(&tree, "mid").await), ids(&only(&tree, "accepted").await));
    assert!(one.iter().all(|id| !other.contains(id)), "two are never the same: {one:?} {other:?}");
}

#[tokio::test(start_paused = true)]
async fn whoever_only_publishes_to_what_is_renamed_is_not_touched() {
    let yaml = "wattle: v1\nname: t\ntopics: { in: {}, out: { backlog: 9 } }\nsubscribers:\n  keep: { from: in, \
        plugin: k.wasm, to: [out] }\n";
    let (keep, gate): (Script, Arc<Semaphore>) = gated();
    let tree = start(yaml, &[("keep", &keep)]).await;
    publish(&tree, "in", &["a"]).await;
    until("it is in a call", || keep.called().len() == 1).await;
    let plan =
        plan_of(&[&yaml.replace("out: {", "made: { renamed_from: out,").replace("to: [out]", "to: { out: made }")]);
    assert!(tree.started_by(&plan).is_empty());
    apply(&tree, &plan, &[], &[]).await; // a lane that was stopped would be waited for
    gate.add_permits(9);
    settled(&tree).await;
    assert_eq!((data(&tree, "made").await, keep.called().len()), (vec!["a".to_owned()], 1));
}

#[tokio::test(start_paused = true)]
async fn a_full_topic_is_called_as_it_is_called_now() {
    let yaml =
        "wattle: v1\nname: t\ntopics: { in: { backlog: 1 } }\nsubscribers:\n  keep: { from: in, plugin: k.wasm }\n";
    let keep = Script::each(|_| Step::Emit(Vec::new()));
    let tree = start(yaml, &[("keep", &keep)]).await;
    tree.subscriber("keep").unwrap().pause().await.unwrap();
    publish(&tree, "in", &["a"]).await;
    let plan =
        plan_of(&[&yaml.replace("from: in", "from: orders").replace("in: { b", "orders: { renamed_from: in, b")]);
    apply(&tree, &plan, &[("keep", &keep)], &[]).await;
    let full = tree.publisher().publish("orders", &[event("b", "b", "b")], None).await.unwrap_err();
    assert!(full.to_string().contains("`t/orders`"), "{full}");
}

#[tokio::test(start_paused = true)]
async fn a_plan_says_what_is_renamed_and_that_nothing_is_lost() {
    let ((work, _), other) = (counting(), Script::each(copy));
    let tree = start(BEFORE, &[("work", &work), ("tail", &other), ("mourn", &other)]).await;
    publish(&tree, "in", &["a", "bad"]).await;
    settled(&tree).await;
    let changes = tree.changes(&plan_of(&[&after()]));
    let said: Vec<_> = changes
        .changes
        .iter()
        .map(|change| (change.renamed_from.as_deref(), change.name.as_str(), change.what))
        .collect();
    let expected = [
        (Some("t/mid"), "t/accepted", ChangeKind::Renamed),
        (Some("t/in"), "t/orders", ChangeKind::Renamed),
        (Some("t/work"), "t/check", ChangeKind::Renamed),
        (None, "t/mourn", ChangeKind::Changed),
        (None, "t/tail", ChangeKind::Changed),
    ];
    assert_eq!(said, expected);
    assert!(changes.losses.is_empty() && changes.refusals.is_empty(), "{changes:?}");
    let words = |name: &str| changes.changes.iter().find(|change| change.name == name).unwrap().words.concat();
    assert!(words("t/tail").contains("called t/accepted, and was t/mid"), "{changes:?}");
    // Where nothing is called so, `renamed_from` says nothing, and that is said.
    let nothing =
        tree.changes(&plan_of(&[&BEFORE.replace("in: {}, mid", "other: { renamed_from: nobody }, in: {}, mid")]));
    assert_eq!(nothing.changes[0].what, ChangeKind::Added);
    assert!(nothing.changes[0].words.concat().contains("nothing that runs is called t/nobody"), "{nothing:?}");
    // One that takes from another topic as well is another one.
    let moved = BEFORE.replace("tail: { from: mid", "next: { renamed_from: tail, from: in");
    let moved = tree.changes(&plan_of(&[&moved]));
    let next = moved.changes.iter().find(|change| change.name == "t/next").unwrap();
    assert_eq!(next.what, ChangeKind::Added);
    assert!(next.words.concat().contains("takes from another topic"), "{moved:?}");
}
