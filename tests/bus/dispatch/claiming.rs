//! Subscribers that share the events of a topic: each event is for one of them. Clocks are paused.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use wattle::api::{LaneState, Seek, SeekState, SeekTo};
use wattle::dispatch::{ControlError, Refusal, Tree};
use wattle::engine::memory::MemoryEngine;
use wattle::engine::{Engine, Entries as _, PageBudget};
use wattle::model::LaneId;

use crate::common::trees::{data, event, plan_of, settled, status, until};
use crate::dispatch::bed::{Home, ends, publish, start, start_on};
use crate::dispatch::script::{Script, Step, by_event, copy};

fn yaml(more: &str) -> String {
    yaml_of(&["a", "b"], more)
}

fn yaml_of(names: &[&str], more: &str) -> String {
    let worker = |name: &str| {
        format!(
            "  {name}:\n    from: in\n    plugin: work.wasm\n    to: {{ out: {name}s }}\n    queue_group: workers\n    \
             batch: {{ max: 2 }}\n    retry: {{ attempts: 2, backoff: {{ initial: 10ms, max: 10ms }} }}\n{more}"
        )
    };
    let topics: String = names.iter().map(|name| format!(", {name}s: {{}}")).collect();
    let workers: String = names.iter().map(|name| worker(name)).collect();
    format!("wattle: v1\nname: t\ntopics: {{ in: {{}}{topics} }}\nsubscribers:\n{workers}")
}

/// Everything that both made, by how often.
async fn made<E: Engine>(tree: &Tree<E>) -> BTreeMap<String, usize> {
    made_by(tree, &["a", "b"]).await
}

async fn made_by<E: Engine>(tree: &Tree<E>, names: &[&str]) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for topic in names.iter().flat_map(|name| [format!("{name}s"), format!("{name}.dead")]) {
        for data in data(tree, &topic).await {
            *all.entry(data).or_default() += 1;
        }
    }
    all
}

/// The events that are left for a member.
fn lag<E: Engine>(tree: &Tree<E>, name: &str) -> u64 {
    status(&tree.snapshot(), name).lag
}

fn names_of(count: usize) -> Vec<String> {
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
    let all = names_of(100);
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
    let all = names_of(40);
    let (first, rest) = all.split_at(2);
    // so that the slow one has them
    tree.subscriber("b").unwrap().pause().await.unwrap();
    publish(&tree, "in", &first.iter().map(String::as_str).collect::<Vec<_>>()).await;
    until("the slow one is called", || !slow.called().is_empty()).await;
    tree.subscriber("b").unwrap().resume().await.unwrap();
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

/// Entries that say whose events are whose: of the members' lanes, and of the group's.
fn claims<E: Engine>(engine: &E, names: &[&str]) -> usize {
    let topic = engine.topic("t/in").unwrap();
    let entries = |name: String| {
        let Some(subscriber) = engine.subscriber(&name, topic) else { return 0 };
        let entries = engine.entries(LaneId { subscriber, partition: 0 }).unwrap();
        entries.range(Bound::Included(&[7]), &[8], PageBudget::of(100_000)).unwrap().entries.len()
    };
    names.iter().map(|name| entries(format!("t/{name}"))).sum::<usize>() + entries("t/workers@claims".to_owned())
}

/// Two of three take turns while the third one is paused, over a restart; then it goes on.
async fn is_bounded(home: impl Home) {
    let names = ["a", "b", "c"];
    let plan = plan_of(&[&yaml_of(&names, "")]);
    let scripts = names.map(|_| Script::each(copy));
    let of = |scripts: &[Script; 3]| -> Vec<(&str, Script)> { names.into_iter().zip(scripts.clone()).collect() };
    let begin = async |scripts: &[Script; 3]| {
        let scripts = of(scripts);
        let scripts: Vec<_> = scripts.iter().map(|(name, script)| (*name, script)).collect();
        start_on(home.open().await, &plan, &scripts).await
    };
    let tree = begin(&scripts).await;
    tree.subscriber("c").unwrap().pause().await.unwrap();
    let all = names_of(60);
    let take_turns = async |tree: &Tree<_>, events: &[String], scripts: &[Script; 3]| {
        for (turn, event) in events.iter().enumerate() {
            let (works, rests) = (turn % 2, ["b", "a"][turn % 2]);
            tree.subscriber(rests).unwrap().pause().await.unwrap();
            let before = scripts[works].called().len();
            publish(tree, "in", &[event]).await;
            until("it is its turn", || scripts[works].called().len() > before).await;
            tree.subscriber(rests).unwrap().resume().await.unwrap();
        }
    };
    take_turns(&tree, &all[..10], &scripts).await;
    let few = claims(tree.engine(), &names);
    take_turns(&tree, &all[10..40], &scripts).await;
    let many = claims(tree.engine(), &names);
    assert!(many <= few, "{few} entries after 10 events, {many} after 40");
    let engine = tree.engine().clone();
    ends(tree).await;
    engine.close().await.ok();
    drop(engine);
    let again = names.map(|_| Script::each(copy));
    let tree = begin(&again).await;
    take_turns(&tree, &all[40..], &again).await;
    assert!(claims(tree.engine(), &names) <= few);
    tree.subscriber("c").unwrap().resume().await.unwrap();
    settled(&tree).await;
    assert!(scripts[2].called().is_empty() && again[2].called().is_empty(), "all of it was somebody's");
    let made = made_by(&tree, &names).await;
    assert_eq!(made.keys().cloned().collect::<Vec<_>>(), all);
    assert!(made.values().all(|count| *count == 1), "{made:?}");
    ends(tree).await;
}

#[tokio::test]
async fn a_paused_member_costs_nothing_however_many_events_come() {
    is_bounded(tempfile::tempdir().unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_its_claimers_to_the_end() {
    let fails = |given: &crate::dispatch::script::Given| {
        if given.data.ends_with('7') { Step::Retry(None) } else { copy(given) }
    };
    let (a, b) = (Script::each(fails), Script::each(fails));
    let tree = start(&yaml(""), &[("a", &a), ("b", &b)]).await;
    let all = names_of(60);
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
    let yaml = yaml("").replacen("queue_group: workers", "queue_group: workers\n    when: key == 'x'", 1);
    let tree = start(&yaml, &[("a", &a), ("b", &b)]).await;
    tree.subscriber("b").unwrap().pause().await.unwrap();
    publish(&tree, "in", &["x", "y", "z"]).await;
    until("it has its own", || a.called().len() == 1 && lag(&tree, "t/a") == 0).await;
    assert_eq!(lag(&tree, "t/b"), 2, "what nobody has claimed");
    tree.subscriber("b").unwrap().resume().await.unwrap();
    settled(&tree).await;
    assert_eq!(data(&tree, "as").await, ["x"]);
    assert_eq!(data(&tree, "bs").await, ["y", "z"]);
}

/// One of two halts in the middle of what it has claimed; the other one gets the rest in time, over a restart or not.
async fn gives_back(restarts: bool) {
    let engine = MemoryEngine::default();
    let halts = |given: &crate::dispatch::script::Given| if given.data == "bad" { Step::Reject } else { copy(given) };
    let yaml = yaml("    queue_group_timeout: 1s\n").replace("max: 2", "max: 3").replacen(
        "queue_group: workers",
        "queue_group: workers\n    on_failure: halt",
        1,
    );
    let plan = plan_of(&[&yaml]);
    let (mut a, mut b) = (Script::each(halts), Script::each(copy));
    let mut tree = start_on(engine.clone(), &plan, &[("a", &a), ("b", &b)]).await;
    tree.subscriber("b").unwrap().pause().await.unwrap();
    publish(&tree, "in", &["bad", "x", "y"]).await;
    let state = |tree: &Tree<_>| status(&tree.snapshot(), "t/a").lanes[0];
    until("it has halted", || state(&tree) == LaneState::Halted).await;
    assert_eq!((lag(&tree, "t/a"), lag(&tree, "t/b")), (2, 0), "all is claimed by the one that halted");
    publish(&tree, "in", &["z"]).await;
    assert_eq!((lag(&tree, "t/a"), lag(&tree, "t/b")), (3, 1), "and this by nobody");
    tree.subscriber("b").unwrap().resume().await.unwrap();
    until("the other one has what nobody claimed", || b.called().len() == 1).await;
    assert_eq!(b.called()[0].data(), ["z"], "the rest is not its yet");
    if restarts {
        ends(tree).await;
        (a, b) = (Script::each(copy), Script::each(copy));
        tree = start_on(engine.clone(), &plan, &[("a", &a), ("b", &b)]).await;
    }
    until("it has the rest", || b.called().iter().any(|call| call.data() == ["x", "y"])).await;
    assert_eq!(state(&tree), LaneState::Halted);
    publish(&tree, "in", &["last"]).await;
    until("it goes on", || b.called().iter().any(|call| call.data() == ["last"])).await;
    tree.subscriber("a").unwrap().resume().await.unwrap();
    if restarts {
        settled(&tree).await;
    } else {
        // it halts for the same event again
        until("it has halted", || a.called().len() == 2 && state(&tree) == LaneState::Halted).await;
    }
    // the first call had them all, and came to the first one only
    let since: Vec<_> = a.called().into_iter().skip(usize::from(!restarts)).collect();
    assert!(since.iter().all(|call| call.data() == ["bad"]), "{since:?}");
    let mut made = [data(&tree, "as").await, data(&tree, "bs").await].concat();
    made.retain(|name| name != "bad");
    made.sort();
    assert_eq!(made, ["last", "x", "y", "z"]);
    ends(tree).await;
}

#[tokio::test(start_paused = true)]
async fn who_stands_still_for_too_long_gives_back_what_it_has_not_begun() {
    gives_back(false).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_claimed_by_who_stands_still_is_given_back_also_after_a_restart() {
    gives_back(true).await;
}

#[tokio::test(start_paused = true)]
async fn what_has_been_given_under_its_identity_is_given_to_nobody_again() {
    let yaml = "wattle: v1\nname: t\ntopics: { in: {}, mid: { id: data.o, dedupe: { window: 1h } }, as: {}, bs: {} \
        }\nsubscribers:\n  \
                work: { from: in, plugin: w.wasm, to: { out: mid } }\n  \
                a: { from: mid, plugin: w.wasm, queue_group: both, to: { out: as } }\n  \
                b: { from: mid, plugin: w.wasm, queue_group: both, to: { out: bs } }\n";
    let (work, a, b) = (Script::each(copy), Script::each(copy), Script::each(copy));
    let plan = plan_of(&[yaml]);
    let engine = MemoryEngine::default();
    let scripts = [("work", &work), ("a", &a), ("b", &b)];
    let tree = start_on(engine.clone(), &plan, &scripts).await;
    let send = async |tree: &Tree<_>, id: &str, order: &str| {
        let data = format!("{{\"o\":\"{order}\"}}");
        tree.publisher().publish("in", &[event(id, order, &data)], None).await.unwrap();
    };
    for (id, order) in [("1", "x"), ("2", "x"), ("3", "y"), ("4", "x")] {
        send(&tree, id, order).await;
    }
    settled(&tree).await;
    let repeated = |tree: &Tree<_>| tree.snapshot().subscribers.iter().map(|of| of.repeated).sum::<u64>();
    assert_eq!(repeated(&tree), 2, "each at one member");
    ends(tree).await;
    let tree = start_on(engine, &plan, &scripts).await;
    tree.subscriber("a").unwrap().pause().await.unwrap();
    for (id, order) in [("5", "y"), ("6", "z")] {
        send(&tree, id, order).await;
    }
    until("it has what is new", || b.called().iter().any(|call| call.data() == ["{\"o\":\"z\"}"])).await;
    tree.subscriber("a").unwrap().resume().await.unwrap();
    settled(&tree).await;
    let mut made = [data(&tree, "as").await, data(&tree, "bs").await].concat();
    made.sort();
    assert_eq!(made, ["x", "y", "z"].map(|order| format!("{{\"o\":\"{order}\"}}")));
    assert_eq!((data(&tree, "mid").await.len(), repeated(&tree)), (6, 1));
}

#[tokio::test(start_paused = true)]
async fn who_shares_is_not_moved() {
    let (a, b) = (Script::each(copy), Script::each(copy));
    let tree: Tree<MemoryEngine> = start(&yaml(""), &[("a", &a), ("b", &b)]).await;
    let to =
        Seek { to: SeekTo::Start, partition: None, state: Some(SeekState::Keep), drops_waiting: false, dry_run: false };
    let refused = tree.subscriber("a").unwrap().seek(to).await.unwrap_err();
    assert!(matches!(refused, ControlError::Refused { refusal: Refusal::Shared { .. }, .. }), "{refused}");
}
