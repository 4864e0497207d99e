//! What handlers keep: committed with what they make, seen by whoever comes next, bounded, and gone when its time is
//! over.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use wattle::dispatch::Tree;
use wattle::effects::memory::MemoryDisk;
use wattle::engine::Engine;
use wattle::engine::memory::MemoryEngine;
use wattle::limits::UNIT_BYTES_MAX;
use wattle::model::call::{CallErrorKind, Output};
use wattle::topology::Plan;

use crate::common::trees::{Seen, by_key, data, event, only, plan_of, settled, status};
use crate::dispatch::bed::{Hand, Home, ONE, backlog, backlog_of, ends, publish, start_on};
use crate::dispatch::script::{Given, Script, Step, copy, out};

fn plan(more: &str) -> Plan {
    plan_of(&[&format!("{ONE}    {more}\n")])
}

/// One more than was under a key.
fn count(given: &Given, key: &str) -> u64 {
    let count = given.state.get("b", key).map_or(0, |count| count.parse().unwrap()) + 1;
    given.state.set("b", key, count.to_string());
    count
}

/// Counts the events of each key, and puts that into its output.
fn counting(fails: impl Fn(&Given) -> Option<Step> + Send + Sync + 'static) -> Script {
    Script::each(move |given| {
        let count = count(given, &given.key);
        fails(given).unwrap_or_else(|| Step::Emit(vec![out(format!("{} {count}", given.data))]))
    })
}

async fn dead<E: Engine>(tree: &Tree<E>) -> Vec<Seen> {
    only(tree, "work.dead").await
}

const EVENTS: [(&str, &str); 8] =
    [("k", "a"), ("k", "b"), ("l", "x"), ("k", "c"), ("l", "y"), ("k", "d"), ("k", "e"), ("l", "z")];

async fn without_a_trace<H: Home>(home: H) {
    let fails = |given: &Given| match (given.data.as_str(), given.attempt) {
        ("b", 1..3) => Some(Step::Retry(None)),
        ("c", _) => Some(Step::Reject),
        ("d", _) => Some(Step::Break(CallErrorKind::Trap)),
        ("y", 1) => Some(Step::BreakSomewhere(CallErrorKind::Memory)),
        ("z", _) => Some(Step::Emit(vec![crate::dispatch::script::on(9, "there is no such port")])),
        _ => None,
    };
    let work = counting(fails);
    let mut tree = backlog(home.open().await, &plan(""), &work, &EVENTS).await;
    settled(&tree).await;
    let out = by_key(&tree, "out").await;
    assert_eq!(out["k"], ["a 1", "b 2", "e 3"], "each sees those in front of it, and none that failed");
    assert_eq!(out["l"], ["x 1", "y 2"]);
    assert_eq!(dead(&tree).await.len(), 3);
    for life in 0..3 {
        ends(tree).await;
        tree = start_on(home.open().await, &plan(""), &[("work", &work)]).await;
        tree.publisher().publish("in", &[event(&format!("m{life}"), "k", "m")], None).await.unwrap();
        settled(&tree).await;
    }
    assert_eq!(by_key(&tree, "out").await["k"][3..], ["m 4", "m 5", "m 6"]);
}

#[tokio::test(start_paused = true)]
async fn what_fails_leaves_nothing_and_what_passes_is_seen_next_in_memory() {
    without_a_trace(MemoryEngine::default()).await;
}

#[tokio::test(start_paused = true)]
async fn what_fails_leaves_nothing_and_what_passes_is_seen_next_on_disk() {
    without_a_trace(tempfile::tempdir().unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_tried_again_sees_what_other_keys_wrote_meanwhile() {
    let work = Script::each(|given| match (given.data.as_str(), given.attempt) {
        ("b", 1) => Step::Retry(None),
        _ => Step::Emit(vec![out(format!("{} {}", given.data, count(given, "all")))]),
    });
    let tree = backlog(MemoryEngine::default(), &plan(""), &work, &EVENTS).await;
    settled(&tree).await;
    let out = by_key(&tree, "out").await;
    assert_eq!((&out["k"][0], &out["l"][..]), (&"a 1".to_owned(), &["x 2".to_owned(), "y 3".into(), "z 4".into()][..]));
    assert_eq!(out["k"][1..], ["b 5", "c 6", "d 7", "e 8"]);
}

#[tokio::test]
async fn lanes_and_subscribers_have_a_state_each() {
    let yaml = "
wattle: v1
name: t
topics: { in: { partitions: 4 }, out: {}, out2: {} }
subscribers:
  work: { from: in, plugin: p.wasm, to: [out] }
  beside: { from: in, plugin: p.wasm, to: [out2] }
";
    let work = Script::each(|given| Step::Emit(vec![out(count(given, "all").to_string())]));
    let beside = Script::each(|given| Step::Emit(vec![out((100 + count(given, "all")).to_string())]));
    let scripts = [("work", &work), ("beside", &beside)];
    let tree = start_on(MemoryEngine::default(), &plan_of(&[yaml]), &scripts).await;
    for n in 0..40 {
        publish(&tree, "in", &[&format!("n{n}")]).await;
    }
    settled(&tree).await;
    for (topic, base) in [("out", 0), ("out2", 100)] {
        let mut by_lane = std::collections::BTreeMap::<u32, Vec<u64>>::new();
        for partition in crate::common::trees::contents(&tree, topic).await {
            for seen in partition {
                let lane = by_lane.entry(seen.lineage.unwrap().partition).or_default();
                lane.push(seen.data().parse::<u64>().unwrap() - base);
            }
        }
        assert_eq!(by_lane.len(), 4);
        for counts in by_lane.values_mut() {
            counts.sort_unstable();
            assert_eq!(*counts, (1..=counts.len() as u64).collect::<Vec<_>>());
        }
    }
}

/// What one event does: `set KEY BYTES`, `delete KEY`, or anything else, which tells what there is.
fn keeper() -> Script {
    Script::each(|given| {
        let words: Vec<_> = given.data.split(' ').collect();
        match words.as_slice() {
            ["set", key, bytes] => given.state.set("b", key, "x".repeat(bytes.parse().unwrap())),
            ["delete", key] => given.state.delete("b", key),
            _ => return Step::Emit(vec![out(given.state.keys("b", None, 100).join(","))]),
        }
        Step::Emit(Vec::new())
    })
}

/// Publishes what is to be done, one call each, and tells what there is then and how many were refused so far.
async fn does<E: Engine>(tree: &Tree<E>, what: &[&str]) -> (String, usize) {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    for data in what.iter().chain(&["tell"]) {
        // none of an event that a test publishes by itself: it would be recognised
        let id = format!("does-{}", NUMBER.fetch_add(1, SeqCst));
        tree.publisher().publish("in", &[event(&id, "k", data)], None).await.unwrap();
        settled(tree).await;
    }
    let letters = dead(tree).await;
    for letter in &letters {
        assert_eq!(
            (letter.attribute("wattlefailure"), letter.attribute("wattleattempts")),
            ("refused".into(), "1".into())
        );
        assert!(letter.attribute("wattlereason").starts_with("the state would have "));
    }
    (data(tree, "out").await.pop().unwrap(), letters.len())
}

async fn bounded<H: Home>(home: H) {
    let plan = plan("state: { max: 1KiB }");
    let work = keeper();
    let mut tree = start_on(home.open().await, &plan, &[("work", &work)]).await;
    // a key has 4 bytes more than itself with its bucket, a value 8
    assert_eq!(does(&tree, &["set a 500", "set b 400"]).await, ("a,b".into(), 0));
    assert_eq!(does(&tree, &["set c 200"]).await, ("a,b".into(), 1), "there is no room for it");
    assert_eq!(does(&tree, &["set b 600"]).await, ("a,b".into(), 2), "nor for that to grow");
    assert_eq!(does(&tree, &["set b 480", "set a 500"]).await, ("a,b".into(), 2), "what it replaces goes off");
    ends(tree).await;
    tree = start_on(home.open().await, &plan, &[("work", &work)]).await;
    assert_eq!(does(&tree, &["set c 200"]).await, ("a,b".into(), 3), "it is as large after a restart");
    assert_eq!(
        does(&tree, &["set a 300", "set c 100"]).await,
        ("a,b,c".into(), 3),
        "it shrinks by what is overwritten"
    );
    assert_eq!(does(&tree, &["delete b", "set d 480"]).await, ("a,c,d".into(), 3), "and by what is deleted");
    assert_eq!(does(&tree, &["delete b", "delete b", "set e 200"]).await, ("a,c,d".into(), 4), "once only");
    assert_eq!(does(&tree, &["delete a", "delete c", "delete d", "set a 1000"]).await, ("a".into(), 4), "to nothing");
}

#[tokio::test(start_paused = true)]
async fn a_state_is_bounded_and_its_size_known_in_memory() {
    bounded(MemoryEngine::default()).await;
}

#[tokio::test(start_paused = true)]
async fn a_state_is_bounded_and_its_size_known_on_disk() {
    bounded(tempfile::tempdir().unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn in_a_batch_what_is_in_front_of_a_write_without_room_is_kept() {
    let events: Vec<_> = ["set a 400", "set a 450", "set b 400", "set c 900", "set a 1", "set d 300", "tell"]
        .iter()
        .enumerate()
        .map(|(n, data)| event(&n.to_string(), &n.to_string(), data))
        .collect();
    let work = keeper();
    let tree = backlog_of(MemoryEngine::default(), &plan("state: { max: 1KiB }"), &work, &events).await;
    settled(&tree).await;
    assert_eq!(does(&tree, &[]).await, ("a,b,d".into(), 1));
    assert_eq!(dead(&tree).await[0].data(), "set c 900");
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_fills_and_empties_the_state_again_is_not_refused() {
    let work = Script::each(|given| {
        let (old, new) = (format!("k{}", given.data), format!("k{}", given.data.parse::<u64>().unwrap() + 1));
        given.state.delete("b", &old);
        given.state.set("b", &new, "x".repeat(700));
        copy(given)
    });
    let names: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    let keyed: Vec<_> = names.iter().map(|name| ("k", name.as_str())).collect();
    let tree = backlog(MemoryEngine::default(), &plan("state: { max: 1KiB }"), &work, &keyed).await;
    settled(&tree).await;
    assert_eq!(data(&tree, "out").await, names);
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn what_has_expired_is_not_seen_and_makes_room() {
    let (clock, disk, work) = (Hand::default(), MemoryDisk::default(), keeper());
    let tree = start_on(clock.engine(&disk), &plan("state: { ttl: 1h, max: 1KiB }"), &[("work", &work)]).await;
    assert_eq!(does(&tree, &["set a 400"]).await, ("a".into(), 0));
    clock.moves(30 * MINUTE);
    assert_eq!(does(&tree, &["set b 400"]).await, ("a,b".into(), 0));
    clock.moves(29 * MINUTE);
    assert_eq!(does(&tree, &["set c 400"]).await, ("a,b".into(), 1), "both are there still");
    clock.moves(MINUTE);
    assert_eq!(does(&tree, &[]).await, ("b".into(), 1));
    assert_eq!(does(&tree, &["set c 400"]).await, ("b,c".into(), 1), "what has expired is no reason to refuse");
    assert_eq!(does(&tree, &["set b 401"]).await, ("b,c".into(), 1), "it lives on from its last change");
    clock.moves(59 * MINUTE);
    assert_eq!(does(&tree, &[]).await, ("b,c".into(), 1));
    clock.moves(MINUTE);
    assert_eq!(does(&tree, &[]).await, (String::new(), 1));
    assert_eq!(does(&tree, &["set a 1000"]).await, ("a".into(), 1));
}

#[tokio::test]
async fn a_sweep_removes_what_has_expired_and_nothing_else() {
    let (clock, disk) = (Hand::default(), MemoryDisk::default());
    let work = Script::each(|given| {
        given.state.set("b", &given.data, "x");
        Step::Emit(Vec::new())
    });
    let with_ttl = plan("state: { ttl: 1h }\n    batch: { max: 8 }");
    let tree = start_on(clock.engine(&disk), &with_ttl, &[("work", &work)]).await;
    let names = |kind: &str| (0..3_000).map(|n| format!("{kind}{n}")).collect::<Vec<_>>();
    let publish_all = async |names: Vec<String>| {
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        for names in names.chunks(500) {
            publish(&tree, "in", names).await;
        }
        settled(&tree).await;
    };
    publish_all(names("old")).await;
    clock.moves(40 * MINUTE);
    publish_all(names("new")).await;
    clock.moves(20 * MINUTE + Duration::from_secs(2)); // it is swept by the second
    publish_all((0..400).map(|n| format!("last{n}")).collect()).await;
    ends(tree).await;
    // another topology, in which nothing expires, shows what there is
    let look = Script::each(|given| Step::Emit(vec![out(given.state.keys("b", None, 100_000).join(","))]));
    let tree = start_on(clock.engine(&disk), &plan(""), &[("work", &look)]).await;
    publish(&tree, "in", &["look"]).await;
    settled(&tree).await;
    let found = data(&tree, "out").await.pop().unwrap();
    let kinds = ["old", "new", "last"].map(|kind| found.split(',').filter(|key| key.starts_with(kind)).count());
    assert_eq!(kinds, [0, 3_000, 400]);
}

const KEYS: u64 = 10_000;

/// A tree with as many keys in its state, all written at one time. Each event writes the key that it names.
async fn with_many_keys(engine: &MemoryEngine, plan: &Plan) -> Tree<MemoryEngine> {
    engine.hold_clock(HOUR_NS);
    let work = Script::each(|given| {
        given.state.set("b", &given.data, "x");
        Step::Emit(Vec::new())
    });
    let tree = start_on(engine.clone(), plan, &[("work", &work)]).await;
    for first in (0..KEYS).step_by(500) {
        let names: Vec<_> = (first..first + 500).map(|n| format!("key{n}")).collect();
        publish(&tree, "in", &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    settled(&tree).await;
    tree
}

const HOUR_NS: u64 = 3_600_000_000_000;

#[tokio::test(start_paused = true)]
async fn what_has_not_expired_is_not_looked_at() {
    let engine = MemoryEngine::default();
    let tree = with_many_keys(&engine, &plan("state: { ttl: 1h }")).await;
    let before = engine.entries_read();
    for n in 0..1_000 {
        engine.hold_clock(HOUR_NS + n * 1_000_000);
        publish(&tree, "in", &[&format!("new{n}")]).await;
        settled(&tree).await;
    }
    let read = engine.entries_read() - before;
    assert!(read <= 1_010, "{read} entries for 1,000 events that wrote a key each");
}

#[tokio::test(start_paused = true)]
async fn what_has_expired_is_looked_at_once() {
    let engine = MemoryEngine::default();
    let tree = with_many_keys(&engine, &plan("state: { ttl: 1h }")).await;
    let before = engine.entries_read();
    engine.hold_clock(3 * HOUR_NS);
    publish(&tree, "in", &["last"]).await;
    settled(&tree).await;
    // the lane has nothing else to do, so all of it goes
    tokio::time::sleep(Duration::from_secs(1)).await;
    let read = engine.entries_read() - before;
    assert_eq!(tree.subscriber("work").unwrap().state().list(0, None, 10).unwrap().len(), 1);
    assert!((2 * KEYS..=2 * KEYS + KEYS / 10).contains(&read), "{read} entries: when each was written, and what it is");
}

#[tokio::test(start_paused = true)]
async fn a_state_that_was_kept_without_a_time_limit_gets_one() {
    let engine = MemoryEngine::default();
    ends(with_many_keys(&engine, &plan("")).await).await;
    // it says of each key when it was written, beside all else
    let tree = start_on(engine.clone(), &plan("state: { ttl: 1h }"), &[("work", &keeper())]).await;
    let read = engine.entries_read();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!((KEYS..KEYS + 10).contains(&(engine.entries_read() - read)), "it was looked through, once");
    engine.hold_clock(2 * HOUR_NS - 1);
    assert_eq!(
        does(&tree, &["delete key7", "set key8 1"]).await.0.split(',').count(),
        100,
        "a page of those that are there"
    );
    engine.hold_clock(2 * HOUR_NS);
    assert_eq!(does(&tree, &["set new 1"]).await.0, "key8,new");
    engine.hold_clock(2 * HOUR_NS + 2_000_000_000);
    assert_eq!(does(&tree, &[]).await.0, "key8,new");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(tree.subscriber("work").unwrap().state().list(0, None, 10).unwrap().len(), 2, "the others are gone");
}

async fn many_keys<H: Home>(home: H) {
    let work = Script::each(|given| match given.data.as_str() {
        "tell" => {
            let (mut all, mut after): (Vec<String>, Option<String>) = (Vec::new(), None);
            loop {
                let page = given.state.keys("ключи", after.as_deref(), 999);
                let Some(last) = page.last() else { break };
                after = Some(last.clone());
                all.extend(page);
            }
            assert!(all.iter().zip(all.iter().skip(1)).all(|(one, next)| one.as_bytes() < next.as_bytes()));
            let values = all.iter().filter(|key| given.state.get("ключи", key).as_ref() == Some(*key)).count();
            Step::Emit(vec![out(format!("{} {values} {}", all.len(), given.state.keys("клю", None, 10).len()))])
        }
        name => {
            for n in 0..100 {
                let key = format!("🔑/{name}/{n}");
                given.state.set("ключи", &key, key.clone());
            }
            Step::Emit(Vec::new())
        }
    });
    let names: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    let keyed: Vec<_> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
    let tree = backlog(home.open().await, &plan(""), &work, &keyed).await;
    settled(&tree).await;
    ends(tree).await;
    let tree = start_on(home.open().await, &plan(""), &[("work", &work)]).await;
    publish(&tree, "in", &["tell"]).await;
    settled(&tree).await;
    assert_eq!(data(&tree, "out").await, ["10000 10000 0"]);
}

#[tokio::test]
async fn ten_thousand_keys_are_kept_in_order_in_memory() {
    many_keys(MemoryEngine::default()).await;
}

#[tokio::test]
async fn ten_thousand_keys_are_kept_in_order_on_disk() {
    many_keys(tempfile::tempdir().unwrap()).await;
}

/// Outputs nearly fill a unit, and state is on top of it.
async fn more_than_a_unit(events: &[&str], outputs: usize, state_bytes: usize) -> (usize, Vec<Seen>, usize) {
    let work = Script::each(move |given| {
        given.state.set("b", &given.data, "x".repeat(state_bytes));
        Step::Emit((0..outputs).map(|_| Output { key: Some("k".into()), ..out(vec![b'x'; 1_000_000]) }).collect())
    });
    let keyed: Vec<_> = events.iter().map(|name| (*name, *name)).collect();
    let tree = backlog(MemoryEngine::default(), &plan(""), &work, &keyed).await;
    settled(&tree).await;
    assert_eq!(status(&tree.snapshot(), "t/work").lag, 0, "the lane goes on");
    (only(&tree, "out").await.len(), dead(&tree).await, work.called().len())
}

#[tokio::test]
async fn outputs_and_state_that_are_more_than_a_unit_together_are_committed_in_parts() {
    let (emitted, dead, calls) = more_than_a_unit(&["a", "b", "c", "d"], 8, 500_000).await;
    assert_eq!((emitted, dead.len()), (32, 0));
    const { assert!(4 * (8 * 1_000_000 + 500_000) > UNIT_BYTES_MAX, "it is too much for one") };
    assert_eq!(calls, 1, "what has been answered is not asked for again");
    let full = UNIT_BYTES_MAX / 1_000_100;
    let (emitted, dead, _) = more_than_a_unit(&["a", "b"], full, 900_000).await;
    assert_eq!((emitted, dead.len()), (0, 2), "one event has too much");
    assert!(dead[0].attribute("wattlereason").starts_with("its outputs and its state are "));
    assert_eq!(dead[0].attribute("wattlefailure"), "refused");
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_not_put_in() {
    let work = counting(|_| None);
    let tree = start_on(MemoryEngine::default(), &plan("state: { max: 1KiB }"), &[("work", &work)]).await;
    let entry = |key: &str, bytes: usize| wattle::api::StateEntry {
        bucket: "b".into(),
        key: key.into(),
        written_ns: 1,
        value: vec![b'1'; bytes].into(),
    };
    assert_eq!(tree.subscriber("work").unwrap().state().import(0, &[entry("x", 500)]).await.unwrap(), 1);
    let refused =
        tree.subscriber("work").unwrap().state().import(0, &[entry("y", 1), entry("z", 500)]).await.unwrap_err();
    let full = |refused: &wattle::dispatch::ControlError| {
        matches!(
            refused,
            wattle::dispatch::ControlError::Refused {
                refusal: wattle::dispatch::Refusal::StateFull { max: 1024, bytes: 1025.. },
                ..
            }
        )
    };
    assert!(full(&refused) && refused.to_string().contains("`state.max`"), "{refused}");
    assert_eq!(
        tree.subscriber("work").unwrap().state().import(0, &[entry("x", 900)]).await.unwrap(),
        1,
        "in place of what is there"
    );
    assert_eq!(tree.subscriber("work").unwrap().state().import(0, &[entry("x", 1)]).await.unwrap(), 1);
    assert_eq!(
        tree.subscriber("work").unwrap().state().import(0, &[entry("z", 900)]).await.unwrap(),
        1,
        "what was refused takes no room"
    );
}
