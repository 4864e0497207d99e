//! What each delivery promises, wherever it is cut off: power fails before every operation of the disk, and
//! lanes are dropped at every point at which they wait.
//!
//! A run has all that can be in the middle of something: keys in order, state, an event that fails once, one that fails
//! to the end, one that is rejected, an output that a lifecycle refuses, events that come later, and a group that
//! shares what comes out. Calls are counted outside of what a crash takes. What is left is started again, the producer
//! publishes all of its events once more, as a producer without an answer does, and the run continues to its end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use wattle::dispatch::Tree;
use wattle::effects::memory::Operation;
use wattle::effects::{MemoryDisk, SystemClock};
use wattle::engine::Engine;
use wattle::engine::embedded::{EmbeddedEngine, LogOptions};
use wattle::engine::memory::MemoryEngine;
use wattle::model::call::CallErrorKind;
use wattle::topology::Plan;

use crate::common::random::Random;
use crate::common::trees::{data, event, only, plan_of, settled};
use crate::dispatch::bed::{ends, start_on};
use crate::dispatch::script::{Given, Script, Step, by_event, out};
use Promise::{AtLeast, AtMost, Exactly};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::enum_variant_names, reason = "that is what they are called")]
enum Promise {
    Exactly,
    AtLeast,
    AtMost,
}

impl Promise {
    fn plan(self) -> Plan {
        let (name, retry) = match self {
            Exactly => ("exactly_once", true),
            AtLeast => ("at_least_once", true),
            AtMost => ("at_most_once", false),
        };
        let retry = if retry { "retry: { attempts: 2, backoff: { initial: 1ms, max: 1ms } }" } else { "" };
        let lifecycle = "{ state: data.s, start: [new], allow: { new: [paid], paid: [done] } }";
        let subscriber = |name: &str, from: &str, to: &str, more: &str| {
            format!(
                "  {name}:\n    from: {from}\n    plugin: p.wasm\n    to: {{ out: {to} }}\n    {more}\n    {retry}\n"
            )
        };
        let delivery = format!("delivery: {name}");
        let shares = format!("{delivery}\n    queue_group: group");
        plan_of(&[&format!(
            "wattle: v1\nname: t\ntopics:\n  in: {{ lifecycle: {lifecycle} }}\n  out: {{ lifecycle: {lifecycle} }}\n  \
             as: {{}}\n  bs: {{}}\nsubscribers:\n{}{}{}",
            subscriber("work", "in", "out", &delivery),
            subscriber("a", "out", "as", &shares),
            subscriber("b", "out", "bs", &shares),
        )])
    }
}

/// An event: its name, its key, the state it brings, what is done with it, and whether it comes later.
const EVENTS: &[(&str, &str, &str, &str, bool)] = &[
    ("a1", "a", "new", "", false),
    ("b1", "b", "new", "", false),
    ("d1", "d", "new", "", true),
    ("a2", "a", "paid", "fails once", false),
    ("a3", "a", "done", "", false),
    ("b2", "b", "paid", "fails", false),
    ("c1", "c", "new", "emits paid", false), // as its first state: refused
    ("c2", "c", "paid", "emits new", false),
    ("e1", "e", "new", "later fails once", true),
    ("f1", "f", "new", "rejects", false),
    ("g1", "g", "new", "shared fails once", false),
    ("h1", "h", "new", "breaks once", false),
];

fn names() -> Vec<String> {
    EVENTS.iter().map(|(name, ..)| (*name).to_owned()).collect()
}

fn encoded((name, key, state, does, is_late): &(&str, &str, &str, &str, bool)) -> Bytes {
    let encoded = event(name, key, &json!({ "s": state, "n": name, "does": does }).to_string());
    if !is_late {
        return encoded;
    }
    let mut late = wattle::model::Event::decode(&encoded).unwrap();
    late.attributes.insert("delay".into(), wattle::model::Attribute::String("4ms".into()));
    late.encode()
}

fn value(data: &str) -> Value {
    serde_json::from_str(data).unwrap()
}

fn name(data: &str) -> String {
    value(data)["n"].as_str().unwrap().to_owned()
}

/// Does as the event says, counts the events of its key, and says how many there were.
fn works(given: &Given) -> Step {
    let event = value(&given.data);
    let count = given.state.get("b", &given.key).map_or(0, |count| count.parse::<u64>().unwrap());
    given.state.set("b", &given.key, (count + 1).to_string());
    let emits = |state: &str| {
        Step::Emit(vec![out(json!({ "s": state, "n": event["n"], "does": event["does"], "count": count }).to_string())])
    };
    let is_first = given.attempt == 1;
    match event["does"].as_str().unwrap() {
        "fails once" | "later fails once" if is_first => Step::Retry(None),
        "breaks once" if is_first => Step::Break(CallErrorKind::Trap),
        "fails" => Step::Retry(None),
        "rejects" => Step::Reject,
        "emits paid" => emits("paid"),
        "emits new" => emits("new"),
        _ => emits(event["s"].as_str().unwrap()),
    }
}

fn shares(given: &Given) -> Step {
    match value(&given.data)["does"].as_str() {
        Some("shared fails once") if given.attempt == 1 => Step::Retry(None),
        _ => crate::dispatch::script::copy(given),
    }
}

/// The handlers of a life. Each call waits in its middle.
#[derive(Clone)]
struct Handlers {
    work: Script,
    a: Script,
    b: Script,
}

/// Who was called with which event, as often as it was.
type Calls = Vec<(&'static str, String)>;

impl Handlers {
    fn new() -> Self {
        let of = |act: fn(&Given) -> Step| {
            Script::calls(move |call| async move {
                tokio::task::yield_now().await;
                by_event(&call, act)
            })
        };
        Self { work: of(works), a: of(shares), b: of(shares) }
    }

    async fn start<E: Engine>(&self, engine: E, plan: &Plan) -> Tree<E> {
        start_on(engine, plan, &[("work", &self.work), ("a", &self.a), ("b", &self.b)]).await
    }

    fn calls(&self) -> Calls {
        let of = |who, script: &Script| {
            let calls = script.called().into_iter().flat_map(|call| call.events);
            calls.map(move |given| (who, name(&given.data))).collect::<Vec<_>>()
        };
        [of("work", &self.work), of("a", &self.a), of("b", &self.b)].concat()
    }
}

/// One after the other, so that what was published before a crash is a beginning of the events.
async fn publish<E: Engine>(tree: &Tree<E>) {
    for event in EVENTS {
        tree.publisher().publish("in", &[encoded(event)], None).await.unwrap();
    }
}

/// What is in the topics that anything ends in.
struct Found {
    /// By key: the name of the event, and how many there were in front of it.
    out: BTreeMap<String, Vec<(String, u64)>>,
    work_dead: Vec<String>,
    shared: Vec<String>,
}

async fn found<E: Engine>(tree: &Tree<E>) -> Found {
    let mut out: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for seen in only(tree, "out").await {
        let count = value(seen.data())["count"].as_u64().unwrap();
        out.entry(seen.key.clone()).or_default().push((name(seen.data()), count));
    }
    let in_topic = async |topic| data(tree, topic).await.iter().map(|data| name(data)).collect::<Vec<_>>();
    let mut shared = Vec::new();
    for topic in ["as", "bs", "a.dead", "b.dead"] {
        shared.extend(in_topic(topic).await);
    }
    let mut work_dead = in_topic("work.dead").await;
    work_dead.sort();
    shared.sort();
    Found { out, work_dead, shared }
}

/// Everything that was promised, of a run that was cut off once and then came to its end. These calls were made, and
/// more of them may have been.
async fn check<E: Engine>(promise: Promise, tree: &Tree<E>, calls: &Calls, at_most: &Calls, context: &str) {
    let mut taken_in: Vec<_> = data(tree, "in").await.iter().map(|data| name(data)).collect();
    taken_in.sort();
    let mut all = names();
    all.sort();
    assert_eq!(taken_in, all, "{context}: each event has its place once, those that came later as well");
    let refused = data(tree, "in@refused").await;
    assert!(refused.is_empty(), "{context}: one came twice: {refused:?}");
    let found = found(tree).await;
    let mut emitted: Vec<_> = found.out.values().flatten().map(|(name, _)| name.clone()).collect();
    emitted.sort();

    let mut members: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (who, name) in calls.iter().filter(|(who, _)| *who != "work") {
        members.entry(name).or_default().insert(who);
    }
    let given_to_two = members.iter().find(|(_, of)| of.len() > 1);
    assert_eq!(given_to_two, None, "{context}: an event is one member's, for ever");

    if promise != AtMost {
        let out = |key: &str, counted: &[(&str, u64)]| {
            (key.to_owned(), counted.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect::<Vec<_>>())
        };
        let wanted = BTreeMap::from([
            out("a", &[("a1", 0), ("a2", 1), ("a3", 2)]),
            out("b", &[("b1", 0)]),
            out("c", &[("c2", 0)]),
            out("d", &[("d1", 0)]),
            out("e", &[("e1", 0)]),
            out("g", &[("g1", 0)]),
            out("h", &[("h1", 0)]),
        ]);
        if promise == Exactly {
            assert_eq!(found.out, wanted, "{context}");
            assert_eq!(found.work_dead, ["b2", "c1", "f1"], "{context}");
            assert_eq!(found.shared, emitted, "{context}: each once, of one of them");
        } else {
            let wanted: BTreeSet<_> = wanted.values().flatten().map(|(name, _)| name).collect();
            assert!(wanted.iter().all(|name| emitted.contains(name)), "{context}: {emitted:?}");
            assert!(["b2", "c1", "f1"].iter().all(|name| found.work_dead.contains(&(*name).to_owned())), "{context}");
            assert!(emitted.iter().all(|name| found.shared.contains(name)), "{context}: {:?}", found.shared);
        }
        let called = |who: &[&str], name: &String| at_most.iter().any(|call| who.contains(&call.0) && call.1 == *name);
        assert!(all.iter().all(|name| called(&["work"], name)), "{context}: {at_most:?}");
        assert!(emitted.iter().all(|name| called(&["a", "b"], name)), "{context}: {at_most:?}");
        return;
    }
    let mut times: BTreeMap<(bool, &str), u64> = BTreeMap::new();
    for (who, name) in calls {
        *times.entry((*who == "work", name)).or_default() += 1;
    }
    let twice = times.iter().find(|(_, times)| **times > 1);
    assert_eq!(twice, None, "{context}: called twice: {calls:?}");
    let once = |names: &[String]| names.iter().collect::<BTreeSet<_>>().len() == names.len();
    let ends = [emitted.clone(), found.work_dead].concat();
    assert!(once(&ends) && once(&found.shared), "{context}: {ends:?} {:?}", found.shared);
    // only what a lane had in its hands is lost
    assert!(ends.len() + 1 >= all.len(), "{context}: {ends:?}");
    assert!(found.shared.len() + 2 >= emitted.len(), "{context}: {:?} of {emitted:?}", found.shared);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn open(disk: &MemoryDisk) -> EmbeddedEngine {
    let options =
        LogOptions { file_bytes: 16 << 10, move_bytes: 4 << 10, checkpoint_bytes: 8 << 10, ..LogOptions::default() };
    EmbeddedEngine::open_with(Path::new("memory"), Arc::new(disk.clone()), Arc::new(SystemClock), options).unwrap()
}

/// The same topics and subscribers as a run has, so that no crash is in front of them.
async fn created(promise: Promise) -> MemoryDisk {
    let disk = MemoryDisk::default();
    ends(Handlers::new().start(open(&disk), &promise.plan()).await).await;
    disk.after_crash(|| true)
}

/// The power goes.
struct Crash {
    /// Calls that were made in front of it.
    before: Calls,
    /// What is left.
    left: MemoryDisk,
    /// With those that may have been: lanes go on while the disk is copied.
    at_most: Calls,
}

fn cut_off_by_power(promise: Promise) {
    let (runtime, plan) = (runtime(), promise.plan());
    let crashes: Arc<Mutex<Vec<Crash>>> = Arc::default();
    runtime.block_on(async {
        let (disk, handlers) = (created(promise).await, Handlers::new());
        let tree = handlers.start(open(&disk), &plan).await;
        disk.set_fault({
            let (disk, handlers, crashes) = (disk.clone(), handlers.clone(), crashes.clone());
            let random = Mutex::new(Random::new(7));
            move |operation| {
                if !matches!(operation, Operation::Read(_)) {
                    let mut random = random.lock().unwrap();
                    let mut crashes = crashes.lock().unwrap();
                    // of what was not synced, nothing is left, everything, or any part
                    for kept in 0..=2 {
                        let before = handlers.calls();
                        let left = disk.after_crash(|| random.below(2) < kept);
                        crashes.push(Crash { before, left, at_most: handlers.calls() });
                    }
                }
                Ok(())
            }
        });
        publish(&tree).await;
        settled(&tree).await;
        check(promise, &tree, &handlers.calls(), &handlers.calls(), "without a crash").await;
        ends(tree).await;
        disk.clear_fault();
    });
    let crashes = std::mem::take(&mut *crashes.lock().unwrap());
    let mut in_the_middle = 0;
    let count = crashes.len();
    for (number, Crash { before, left, at_most }) in crashes.into_iter().enumerate() {
        runtime.block_on(async {
            let handlers = Handlers::new();
            let tree = handlers.start(open(&left), &plan).await;
            publish(&tree).await;
            settled(&tree).await;
            let after = handlers.calls();
            in_the_middle += usize::from(!before.is_empty() && !after.is_empty());
            let context = format!("{promise:?}, crash {number} of {count}, three in front of each operation");
            let (calls, at_most) = ([before, after.clone()].concat(), [at_most, after].concat());
            check(promise, &tree, &calls, &at_most, &context).await;
            ends(tree).await;
        });
    }
    eprintln!("{promise:?}: {count} crashes, {in_the_middle} of them between calls");
    assert!(in_the_middle > 20, "{in_the_middle} of {count}");
}

#[test]
fn exactly_once_holds_wherever_the_power_goes() {
    cut_off_by_power(Exactly);
}

#[test]
fn at_least_once_holds_wherever_the_power_goes() {
    cut_off_by_power(AtLeast);
}

#[test]
fn at_most_once_holds_wherever_the_power_goes() {
    cut_off_by_power(AtMost);
}

/// A runtime that polls one task at a time, with its clock paused.
fn slow_motion() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).event_interval(1).build().unwrap()
}

/// Each life has one poll of a task more than the one before, and is dropped then with all that runs in it.
fn cut_off_by_drops(promise: Promise) {
    let (plan, mut lives, mut in_the_middle) = (promise.plan(), 0, 0);
    loop {
        let (engine, before) = (MemoryEngine::default(), Handlers::new());
        let first = slow_motion();
        let is_done = first.block_on(async {
            let tree = tokio::spawn({
                let (engine, before, plan) = (engine.clone(), before.clone(), plan.clone());
                async move {
                    let tree = before.start(engine, &plan).await;
                    publish(&tree).await;
                    settled(&tree).await;
                }
            });
            for step in 0..lives {
                if step % 4 == 3 {
                    tokio::time::advance(Duration::from_millis(1)).await;
                } else {
                    tokio::task::yield_now().await;
                }
            }
            tree.is_finished()
        });
        drop(first);
        slow_motion().block_on(async {
            let after = Handlers::new();
            let tree = after.start(engine.clone(), &plan).await;
            publish(&tree).await;
            settled(&tree).await;
            in_the_middle += usize::from(!before.calls().is_empty() && !after.calls().is_empty());
            let (calls, context) =
                ([before.calls(), after.calls()].concat(), format!("{promise:?}, dropped after {lives} polls"));
            check(promise, &tree, &calls, &calls, &context).await;
            ends(tree).await;
        });
        lives += 1;
        if is_done {
            break;
        }
    }
    eprintln!("{promise:?}: {lives} lives, {in_the_middle} of them ended between calls");
    assert!(in_the_middle > 20, "{in_the_middle} of {lives}");
}

#[test]
fn exactly_once_holds_wherever_lanes_are_dropped() {
    cut_off_by_drops(Exactly);
}

#[test]
fn at_least_once_holds_wherever_lanes_are_dropped() {
    cut_off_by_drops(AtLeast);
}

#[test]
fn at_most_once_holds_wherever_lanes_are_dropped() {
    cut_off_by_drops(AtMost);
}
