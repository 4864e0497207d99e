//! Another topology takes the place of the one that runs, live.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Semaphore;
use wattle::api::{ChangeKind, Changes};
use wattle::dispatch::{InitialVersions, NameError, PublishError, StartError, Tree};
use wattle::engine::memory::MemoryEngine;
use wattle::engine::{Engine, StopReason};
use wattle::topology::Plan;

use crate::common::trees::{PATIENCE, data, plan_of, settled, status, until};
use crate::dispatch::bed::{ends, publish, start, start_on};
use crate::dispatch::script::{Script, Step, by_event, copy, out};

/// `in` -> `keep` -> `kept`.
const BEFORE: &str = "
wattle: v1
name: t
topics: { in: {}, kept: {} }
subscribers:
  keep: { from: in, plugin: keep.wasm, to: { out: kept } }
";

/// The same with `more` beside it, which begins as it says.
fn after(start: &str) -> String {
    format!(
        "{}  more: {{ from: in, plugin: more.wasm, to: {{ out: extra }}, start: {start} }}\n",
        BEFORE.replace("kept: {} }", "kept: {}, extra: {} }")
    )
}

/// Applies a topology as whoever decides does; those of these names are new.
pub(super) async fn apply<E: Engine>(tree: &Tree<E>, plan: &Plan, scripts: &[(&str, &Script)], new: &[&str]) {
    tree.prepare(plan, |subscriber| new.contains(&subscriber.name.as_str())).await.unwrap();
    run(tree, plan, scripts).await.unwrap();
}

async fn run<E: Engine>(tree: &Tree<E>, plan: &Plan, scripts: &[(&str, &Script)]) -> Result<(), StartError> {
    let versions = |name: &str| scripts.iter().find(|(of, _)| format!("t/{of}") == name).map(|(_, script)| *script);
    let started = tree.started_by(plan).into_iter().filter_map(|name| {
        let proven = versions(&name)?.clone();
        Some((name, InitialVersions { proven, on_trial: None }))
    });
    let starts: BTreeMap<_, _> = started.collect();
    tree.apply(plan, starts).await
}

fn of(changes: &Changes, name: &str) -> Option<ChangeKind> {
    changes.changes.iter().find(|change| change.name == name).map(|change| change.what)
}

/// A handler that is in the middle of a call until it is let go on, with each of its calls.
pub(super) fn gated() -> (Script, Arc<Semaphore>) {
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
async fn a_subscriber_that_stays_is_not_even_waited_for() {
    let (keep, gate) = gated();
    let tree = start(BEFORE, &[("keep", &keep)]).await;
    publish(&tree, "in", &["a"]).await;
    until("it is in a call", || keep.called().len() == 1).await;
    let (more, plan) = (Script::each(copy), plan_of(&[&after("earliest")]));
    // The one that stays is in the middle of a call all the while: a lane that was stopped would be waited for.
    apply(&tree, &plan, &[("more", &more)], &["more"]).await;
    until("the new one has it all", || more.times().len() == 1).await;
    assert_eq!(keep.called().len(), 1);
    gate.add_permits(100);
    publish(&tree, "in", &["b"]).await;
    settled(&tree).await;
    assert_eq!(data(&tree, "kept").await, ["a", "b"]);
    assert_eq!(data(&tree, "extra").await, ["a", "b"]);
    assert_eq!(keep.times(), [("a".to_owned(), 1), ("b".to_owned(), 1)].into(), "the call ended where it was");
}

#[tokio::test(start_paused = true)]
async fn a_new_subscriber_begins_where_it_says() {
    let long_ago = "1970-01-01T00:00:00Z";
    let far_off = "2200-01-01T00:00:00Z";
    for (at, expected) in [
        ("earliest", vec!["a", "b", "c"]),
        ("latest", vec!["c"]),
        (long_ago, vec!["a", "b", "c"]),
        (far_off, vec!["c"]),
    ] {
        let (keep, more) = (Script::each(copy), Script::each(copy));
        let tree = start(BEFORE, &[("keep", &keep)]).await;
        publish(&tree, "in", &["a", "b"]).await;
        settled(&tree).await;
        apply(&tree, &plan_of(&[&after(&format!("{at:?}"))]), &[("more", &more)], &["more"]).await;
        publish(&tree, "in", &["c"]).await;
        settled(&tree).await;
        assert_eq!(data(&tree, "extra").await, expected, "{at}");
        assert_eq!(data(&tree, "kept").await, ["a", "b", "c"], "{at}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_was_there_before_goes_on_from_where_it_was_whatever_it_says() {
    let (keep, more) = (Script::each(copy), Script::each(copy));
    let (with, without) = (plan_of(&[&after("latest")]), plan_of(&[BEFORE]));
    let tree = start_on(MemoryEngine::default(), &with, &[("keep", &keep), ("more", &more)]).await;
    publish(&tree, "in", &["a"]).await;
    settled(&tree).await;
    apply(&tree, &without, &[], &[]).await;
    publish(&tree, "in", &["b"]).await;
    settled(&tree).await;
    assert!(tree.publisher().targets().find("extra").is_err());
    assert_eq!(more.times().len(), 1, "it is gone");
    apply(&tree, &with, &[("more", &more)], &[]).await;
    settled(&tree).await;
    assert_eq!(data(&tree, "extra").await, ["a", "b"], "its place was kept");
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_is_removed_ends_its_call_first() {
    let ((more, gate), keep) = (gated(), Script::each(copy));
    let tree = start(&after("earliest"), &[("keep", &keep), ("more", &more)]).await;
    publish(&tree, "in", &["a"]).await;
    until("it is in a call", || more.called().len() == 1).await;
    let (stopping, plan) = (tree.clone(), plan_of(&[BEFORE]));
    let applied = tokio::spawn(async move { apply(&stopping, &plan, &[], &[]).await });
    publish(&tree, "in", &["b"]).await;
    until("the one that stays goes on meanwhile", || keep.times().len() == 2).await;
    assert!(!applied.is_finished(), "the call goes on");
    gate.add_permits(100);
    applied.await.unwrap();
    assert_eq!(more.times(), [("a".to_owned(), 1)].into(), "and no other is made");
    assert!(tree.snapshot().subscribers.iter().all(|subscriber| subscriber.name != "t/more"));
    // What the call made is there, as is the place behind it.
    let (again, keep) = (Script::each(copy), Script::each(copy));
    let engine = tree.engine().clone();
    ends(tree).await;
    let tree = start_on(engine, &plan_of(&[&after("earliest")]), &[("keep", &keep), ("more", &again)]).await;
    settled(&tree).await;
    assert_eq!(data(&tree, "extra").await, ["a", "b"]);
    assert_eq!(again.times(), [("b".to_owned(), 1)].into());
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_changes_goes_on_from_where_it_was() {
    let (keep, changed) =
        (Script::each(copy), Script::each(|given| Step::Emit(vec![out(format!("2 {}", given.data))])));
    let tree = start(BEFORE, &[("keep", &keep)]).await;
    publish(&tree, "in", &["a"]).await;
    settled(&tree).await;
    let text = BEFORE.replace("plugin: keep.wasm", "plugin: keep.wasm, retry: { attempts: 2 }");
    let plan = plan_of(&[&text]);
    assert_eq!(tree.started_by(&plan), ["t/keep"]);
    apply(&tree, &plan, &[("keep", &changed.version(2))], &[]).await;
    publish(&tree, "in", &["b"]).await;
    settled(&tree).await;
    assert_eq!(data(&tree, "kept").await, ["a", "2 b"]);
    let status = status(&tree.snapshot(), "t/keep");
    assert_eq!((status.handled, status.digest), (2, "02".repeat(32)), "its counts go on");
}

#[tokio::test(start_paused = true)]
async fn one_that_takes_from_elsewhere_is_another_one_and_keeps_nothing() {
    let two = BEFORE.replace("in: {},", "in: {}, other: {},");
    let moved = two.replace("from: in", "from: other");
    let (keep, next) = (Script::each(copy), Script::each(copy));
    let tree = start(&two, &[("keep", &keep)]).await;
    publish(&tree, "in", &["a"]).await;
    publish(&tree, "other", &["x"]).await;
    settled(&tree).await;
    let plan = plan_of(&[&moved]);
    assert_eq!(of(&tree.changes(&plan), "t/keep"), Some(ChangeKind::Moved));
    apply(&tree, &plan, &[("keep", &next)], &["keep"]).await;
    publish(&tree, "in", &["b"]).await;
    settled(&tree).await;
    assert_eq!(data(&tree, "kept").await, ["a", "x"]);
    assert_eq!(status(&tree.snapshot(), "t/keep").handled, 1);
}

#[tokio::test(start_paused = true)]
async fn producers_see_the_topics_that_there_are() {
    let keep = Script::each(copy);
    let tree = start(BEFORE, &[("keep", &keep)]).await;
    let publisher = tree.publisher().clone();
    let other = BEFORE.replace("in: {},", "in: {}, other: {},");
    apply(&tree, &plan_of(&[&other]), &[], &[]).await;
    let event = crate::common::trees::event("x", "x", "x");
    publisher.publish("other", std::slice::from_ref(&event), None).await.unwrap();
    apply(&tree, &plan_of(&[BEFORE]), &[], &[]).await;
    let refused = publisher.publish("other", &[event], None).await.unwrap_err();
    assert!(matches!(refused, PublishError::Name(NameError::Unknown { .. })), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn what_would_be_lost_and_what_cannot_be_is_said_and_nothing_happens() {
    let keep = Script::each(copy);
    let other = BEFORE.replace("in: {},", "in: {}, other: {},");
    let tree = start(&other, &[("keep", &keep)]).await;
    publish(&tree, "other", &["a", "b"]).await;
    let changes = tree.changes(&plan_of(&[BEFORE]));
    assert_eq!((of(&changes, "t/other"), changes.changes.len()), (Some(ChangeKind::Removed), 1));
    let expected = "topic `t/other` still has 2 events (they stay reachable as long as it is declared)";
    assert_eq!(changes.losses, [expected]);
    let wider = tree.changes(&plan_of(&[&other.replace("other: {}", "other: { partitions: 2 }")]));
    assert!(wider.refusals.concat().contains("has 1 partitions and cannot have 2"), "{wider:?}");
    assert!(tree.changes(&plan_of(&[&other])).is_empty());
    assert_eq!(tree.changes(&plan_of(&[&other])), Changes::default());
}

#[tokio::test(start_paused = true)]
async fn without_a_version_for_each_nothing_changes() {
    let keep = Script::each(copy);
    let tree = start(BEFORE, &[("keep", &keep)]).await;
    let plan = plan_of(&[&after("earliest")]);
    let refused = run(&tree, &plan, &[]).await.unwrap_err();
    assert!(matches!(refused, StartError::Handlers { handlers: 0, subscribers: 1 }), "{refused}");
    publish(&tree, "in", &["a"]).await;
    settled(&tree).await;
    assert_eq!(data(&tree, "kept").await, ["a"]);
    assert_eq!(tree.plan(), plan_of(&[BEFORE]));
}

#[tokio::test(start_paused = true)]
async fn what_was_prepared_and_never_decided_does_no_harm() {
    let (keep, more) = (Script::each(copy), Script::each(copy));
    let tree = start(BEFORE, &[("keep", &keep)]).await;
    publish(&tree, "in", &["a"]).await;
    settled(&tree).await;
    let latest = plan_of(&[&after("latest")]);
    tree.prepare(&latest, |subscriber| subscriber.name == "more").await.unwrap();
    publish(&tree, "in", &["b"]).await;
    settled(&tree).await;
    assert_eq!(data(&tree, "kept").await, ["a", "b"]);
    // It is new for whoever decides later, wherever it would have begun before.
    apply(&tree, &plan_of(&[&after("earliest")]), &[("more", &more)], &["more"]).await;
    settled(&tree).await;
    assert_eq!(data(&tree, "extra").await, ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_tree_that_is_stopped_takes_nothing_new() {
    let keep = Script::each(copy);
    let tree = start(BEFORE, &[("keep", &keep)]).await;
    assert!(tree.drain(PATIENCE).await);
    let more = Script::each(copy);
    let refused = run(&tree, &plan_of(&[&after("earliest")]), &[("more", &more)]).await.unwrap_err();
    assert!(matches!(refused, StartError::Apply(error) if error.to_string() == StopReason::Closed.to_string()));
    assert!(more.called().is_empty());
}

#[tokio::test(start_paused = true)]
async fn those_who_share_events_change_together_and_none_leaves_the_others() {
    let claim = |names: &[&str]| {
        let of = |name: &&str| {
            format!("  {name}: {{ from: in, plugin: {name}.wasm, to: {{ out: {name}.out }}, queue_group: g }}\n")
        };
        let topics: Vec<_> = names.iter().map(|name| format!("{name}.out: {{}}")).collect();
        let subscribers: String = names.iter().map(of).collect();
        format!("wattle: v1\nname: t\ntopics: {{ in: {{}}, {} }}\nsubscribers:\n{subscribers}", topics.join(", "))
    };
    let (a, b, c) = (Script::each(copy), Script::each(copy), Script::each(copy));
    let tree = start(&claim(&["a", "b"]), &[("a", &a), ("b", &b)]).await;
    publish(&tree, "in", &["1", "2", "3", "4"]).await;
    settled(&tree).await;
    let three = plan_of(&[&claim(&["a", "b", "c"])]);
    assert_eq!(tree.started_by(&three), ["t/a", "t/b", "t/c"]);
    apply(&tree, &three, &[("a", &a), ("b", &b), ("c", &c)], &["c"]).await;
    publish(&tree, "in", &["5", "6"]).await;
    settled(&tree).await;
    let mut times = a.times();
    for other in [&b, &c] {
        other.times().into_iter().for_each(|(event, count)| *times.entry(event).or_default() += count);
    }
    assert_eq!(times.len(), 6, "{times:?}");
    assert!(times.values().all(|count| *count == 1), "each by one of them, once: {times:?}");
    let alone = tree.changes(&plan_of(&[&claim(&["a"])]));
    assert!(alone.refusals.concat().contains("cannot leave the group `g`"), "{alone:?}");
}
