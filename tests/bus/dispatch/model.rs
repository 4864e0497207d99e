//! Random trees of random handlers with a state, some of which park what fails or take only some events; stopped,
//! killed and paused at random moments, and sent back: what every topic holds in the end is what a pure model says, to
//! the byte.
//!
//! The model knows nothing of batches, attempts in the making, restarts or lanes. It goes from each topic's events, as
//! they are stored, to what the children must hold. What is not determined is only how the outputs of several keys
//! of the parent mix in one partition: there each key's must be in order.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::Bound;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Runtime;
use wattle::api::{LaneMove, LaneState, Seek, SeekState, SeekTo};
use wattle::dispatch::{ControlError, Tree, Waiter};
use wattle::engine::embedded::EmbeddedEngine;
use wattle::engine::memory::MemoryEngine;
use wattle::engine::{Blueprint, Engine, Entries as _, Numbers, PageBudget, SubscriberSpec, TopicSpec};
use wattle::log::Durability;
use wattle::model::call::{CallErrorKind, Output};
use wattle::model::{LaneId, OutputIds, partition_of};
use wattle::topology::{OnFailure, Plan, SubscriberPlan};

use crate::common::random::Random;
use crate::common::trees::{PATIENCE, Seen, contents, event, plan_of, settled, status, until};
use crate::dispatch::bed::start_on;
use crate::dispatch::script::{Given, Script, Step, by_event, on};

/// Attempts of every subscriber.
const ATTEMPTS: u32 = 3;
const RUNS: &str = "plugin: p.wasm, retry: { attempts: 3, backoff: { initial: 1ms, max: 2ms } }";
/// Conditions: one that has an answer for every event, and one that has none for those of the root.
const THIRDS: &str = "data.n % 3 != 0";
const INDEX: &str = "data.i < 2";
/// Keys of what is published.
const KEYS: u64 = 5;

/// What a topic says of itself: partitions, a key, both or neither.
fn settings(random: &mut Random) -> String {
    let partitions = random.one_in(2).then(|| format!("partitions: {}", 1 + random.below(3)));
    let keys = ["key: data.to", "key: 'key + data.to'", "key: id"];
    let key = random.one_in(3).then(|| keys[random.below(3) as usize].to_owned());
    partitions.into_iter().chain(key).collect::<Vec<_>>().join(", ")
}

/// How a subscriber runs.
fn runs(random: &mut Random) -> String {
    let mut runs = RUNS.to_owned();
    if random.one_in(4) {
        runs += ", on_failure: park";
    } else if random.one_in(3) {
        // not where events are parked: they would fill it for good
        let _ = write!(runs, ", retry_queue: {{ max: {} }}", 1 + random.below(3));
    }
    if random.one_in(4) {
        let _ = write!(runs, ", when: {}", if random.one_in(4) { INDEX } else { THIRDS });
    }
    if random.one_in(4) {
        let _ = write!(runs, ", batch: {{ max: {} }}", 1 + random.below(8));
    }
    runs
}

/// A topology with one root and up to four levels of topics.
fn topology(random: &mut Random) -> String {
    let mut topics = String::new();
    let mut subscribers = String::new();
    let mut level = vec!["in".to_owned()];
    let _ = writeln!(topics, "  in: {{ partitions: {} }}", 1 + random.below(3));
    let (mut made, mut subscribed) = (0, 0);
    for _ in 0..1 + random.below(3) {
        let mut next = Vec::new();
        for topic in level {
            for _ in 0..random.below(3).max(u64::from(topic == "in")) {
                subscribed += 1;
                let mut ports: Vec<(String, String)> = Vec::new();
                let mut own: Vec<String> = Vec::new();
                for port in 0..random.below(4) {
                    // Two ports may lead to one topic.
                    let topic = match random.one_in(3).then(|| own.first().cloned()).flatten() {
                        Some(topic) => topic,
                        None => {
                            made += 1;
                            own.push(format!("t{made}"));
                            let _ = writeln!(topics, "  t{made}: {{ {} }}", settings(random));
                            format!("t{made}")
                        }
                    };
                    ports.push((format!("p{port}"), topic));
                }
                let ports: Vec<_> = ports.iter().map(|(port, topic)| format!("{port}: {topic}")).collect();
                let ports = ports.join(", ");
                let runs = runs(random);
                let _ = writeln!(subscribers, "  s{subscribed}: {{ from: {topic}, {runs}, to: {{ {ports} }} }}");
                next.extend(own);
            }
            if topic != "in" && random.one_in(8) {
                subscribed += 1;
                let parent = format!("s{}", 1 + random.below(subscribed - 1));
                let _ = writeln!(subscribers, "  s{subscribed}: {{ from: {parent}.dead, {RUNS} }}");
            }
        }
        level = next;
    }
    format!("wattle: v1\nname: t\ntopics:\n{topics}subscribers:\n{subscribers}")
}

/// What a handler does about an event, however and whenever it is called with it.
struct Fate {
    /// The event fails as many attempts, and then ends as the others.
    failures: u32,
    failing: Failing,
    /// It is refused, by itself or because of its last output.
    refusal: Option<Refusal>,
    outputs: Vec<Output>,
}

#[derive(Clone, Copy, PartialEq)]
enum Failing {
    Says,
    Traps,
    /// Traps wherever it is not alone, also where it does not fail.
    TrapsAmongOthers,
    /// Breaks the call without being named.
    Breaks,
}

#[derive(Clone, Copy, PartialEq)]
enum Refusal {
    Says,
    Output,
}

/// The outcome of an event: outputs or a dead letter.
enum Outcome {
    Outputs(Vec<Output>),
    Dead { failure: &'static str, attempts: u32 },
}

fn fate(subscriber: &SubscriberPlan, data: &str) -> Fate {
    let mut random = Random::of(&format!("{} {data}", subscriber.label()));
    let failures = match random.below(10) {
        0 => ATTEMPTS,
        1..3 => 1 + random.below(u64::from(ATTEMPTS) - 1) as u32,
        _ => 0,
    };
    let failing = [Failing::Says, Failing::Traps, Failing::TrapsAmongOthers, Failing::Breaks][random.below(4) as usize];
    let ports = subscriber.ports.len() as u64;
    let outputs = (0..if ports == 0 { 0 } else { random.below(4) }).map(|index| {
        let (to, number) = (random.below(KEYS), random.below(1 << 40));
        let mut output = on(random.below(ports) as u32, format!(r#"{{"to":"k{to}","n":{number},"i":{index}"#));
        output.key = random.one_in(3).then(|| format!("own{}", random.below(KEYS)));
        output
    });
    let mut outputs: Vec<_> = outputs.collect();
    let refusal = match random.below(12) {
        0 => Some(Refusal::Says),
        1 => outputs.last_mut().map(|last| {
            last.key = Some("k".repeat(2000));
            Refusal::Output
        }),
        _ => None,
    };
    Fate { failures, failing, refusal, outputs }
}

/// Outputs that tell how many events of their key were handled in their lane, with the one that they answer.
fn counted(outputs: &[Output], count: u64) -> Vec<Output> {
    let mut outputs = outputs.to_vec();
    for output in &mut outputs {
        output.data.extend_from_slice(format!(r#","c":{count}}}"#).as_bytes());
    }
    outputs
}

/// One more than is under a key.
fn count(given: &Given, bucket: &str, key: &str) -> u64 {
    let count = given.state.get(bucket, key).map_or(0, |count| count.parse().unwrap()) + 1;
    given.state.set(bucket, key, count.to_string());
    count
}

impl Fate {
    /// What the handler does in a call. Whatever that is, it has written something before.
    fn step(&self, given: &Given) -> Step {
        count(given, "lane", "all");
        let count = count(given, "keys", &given.key);
        if self.failing == Failing::TrapsAmongOthers && !given.is_alone {
            return Step::Break(CallErrorKind::Timeout);
        }
        if given.attempt <= self.failures {
            return match self.failing {
                Failing::Says => Step::Retry(None),
                Failing::Traps | Failing::TrapsAmongOthers => Step::Break(CallErrorKind::Trap),
                Failing::Breaks => Step::BreakSomewhere(CallErrorKind::Memory),
            };
        }
        match self.refusal {
            Some(Refusal::Says) => Step::Reject,
            _ => Step::Emit(counted(&self.outputs, count)),
        }
    }

    /// What must come of it in the end.
    fn outcome(self) -> Outcome {
        let failure = match self.failing {
            Failing::Says => "retry",
            Failing::Traps | Failing::TrapsAmongOthers => "trap",
            Failing::Breaks => "memory",
        };
        match self.refusal {
            _ if self.failures >= ATTEMPTS => Outcome::Dead { failure, attempts: ATTEMPTS },
            Some(Refusal::Says) => Outcome::Dead { failure: "reject", attempts: self.failures + 1 },
            Some(Refusal::Output) => Outcome::Dead { failure: "refused", attempts: self.failures + 1 },
            None => Outcome::Outputs(self.outputs),
        }
    }
}

/// What is promised of an event in a topic.
#[derive(Debug, Clone, PartialEq)]
struct Expected {
    id: String,
    source: String,
    key: String,
    data: String,
    parent: (u32, u64),
    dead: Option<(String, String)>,
}

impl Expected {
    fn of(seen: &Seen) -> Self {
        let lineage = seen.lineage.unwrap();
        let dead = (seen.attribute("wattlefailure"), seen.attribute("wattleattempts"));
        Self {
            id: seen.event.id.clone(),
            source: seen.event.source.clone(),
            key: seen.key.clone(),
            data: seen.data().to_owned(),
            parent: (lineage.partition, lineage.offset),
            dead: (!dead.0.is_empty()).then_some(dead),
        }
    }
}

/// Whether an event is for a subscriber; none where that cannot be said.
fn passes(subscriber: &SubscriberPlan, data: &str) -> Option<bool> {
    let number = |name: &str| -> Option<u64> {
        let (_, rest) = data.split_once(&format!(r#""{name}":"#))?;
        rest.split([',', '}']).next()?.parse().ok()
    };
    match subscriber.when.as_ref().map(|when| when.text()) {
        None => Some(true),
        Some(THIRDS) => number("n").map(|n| n % 3 != 0),
        Some(_) => number("i").map(|i| i < 2),
    }
}

/// What a lane keeps in the end.
#[derive(Debug, Default, PartialEq)]
struct Kept {
    /// Offsets of what waits, and whether it is parked.
    waiting: BTreeMap<u64, bool>,
    /// By bucket and key.
    state: BTreeMap<(String, String), u64>,
}

/// A subscriber was sent back when it had come to its end.
struct Sent {
    subscriber: String,
    /// From where to where, for each partition.
    moved: Vec<LaneMove>,
    empties_state: bool,
}

/// The events of a lane in the order in which it got them, each with whether it was sent back in front of it, and with
/// what became of its state.
fn course<'a>(
    subscriber: &SubscriberPlan,
    lane: u32,
    events: &'a [Seen],
    sent: &[Sent],
) -> Vec<(Option<bool>, Option<&'a Seen>)> {
    let (mut course, mut from) = (Vec::new(), 0);
    for sent in sent.iter().filter(|sent| sent.subscriber == subscriber.label()) {
        let moved = sent.moved.iter().find(|moved| moved.partition == lane).unwrap();
        let until = usize::try_from(moved.from).unwrap();
        course.extend(events[from..until].iter().map(|event| (None, Some(event))));
        course.push((Some(sent.empties_state), None));
        from = usize::try_from(moved.to).unwrap();
    }
    course.extend(events[from..].iter().map(|event| (None, Some(event))));
    course
}

/// For each topic, target partition and key of the parent the events in their order.
type Made = BTreeMap<(String, u32, String), Vec<Expected>>;

/// What a subscriber makes of its input, and what each of its lanes keeps.
fn expected(plan: &Plan, subscriber: &SubscriberPlan, input: &[Vec<Seen>], sent: &[Sent]) -> (Made, Vec<Kept>) {
    let (mut all, mut kept) = (Made::new(), Vec::new());
    for (lane, events) in (0..).zip(input) {
        let ids = OutputIds::new(&subscriber.label(), &plan[subscriber.from].label(), lane);
        let (mut keeps, mut held) = (Kept::default(), BTreeSet::new());
        for (sent_back, parent) in course(subscriber, lane, events, sent) {
            if let Some(empties_state) = sent_back {
                // what waited was dropped
                keeps.waiting.clear();
                held.clear();
                if empties_state {
                    keeps.state.clear();
                }
            }
            let Some(parent) = parent else { continue };
            let outcome = match passes(subscriber, parent.data()) {
                Some(false) => continue,
                _ if held.contains(&parent.key) => {
                    keeps.waiting.insert(parent.offset, false);
                    continue;
                }
                None => Outcome::Dead { failure: "when", attempts: 1 },
                Some(true) => fate(subscriber, parent.data()).outcome(),
            };
            let place = (lane, parent.offset);
            match outcome {
                Outcome::Outputs(outputs) => {
                    *keeps.state.entry(("lane".into(), "all".into())).or_default() += 1;
                    let count = keeps.state.entry(("keys".into(), parent.key.clone())).or_default();
                    *count += 1;
                    for (index, output) in (0..).zip(counted(&outputs, *count)) {
                        let topic = &plan[subscriber.ports[output.port as usize].1];
                        let data = String::from_utf8(output.data).unwrap();
                        let id = ids.id(parent.offset, index).to_string();
                        let to = data.split('"').nth(3).unwrap();
                        let key = match (output.key, topic.key.as_ref().map(|key| key.text())) {
                            (Some(key), _) => key,
                            (None, None) => parent.key.clone(),
                            (None, Some("data.to")) => to.to_owned(),
                            (None, Some("id")) => id.clone(),
                            (None, Some(_)) => format!("{}{to}", parent.key),
                        };
                        let target = (topic.label(), partition_of(&key, topic.partitions), parent.key.clone());
                        let source = format!("/{}", subscriber.label());
                        all.entry(target).or_default().push(Expected {
                            id,
                            source,
                            key,
                            data,
                            parent: place,
                            dead: None,
                        });
                    }
                }
                Outcome::Dead { failure, .. } if subscriber.on_failure == OnFailure::Park && failure != "reject" => {
                    keeps.waiting.insert(parent.offset, true);
                    held.insert(parent.key.clone());
                }
                Outcome::Dead { failure, attempts } => {
                    let topic = &plan[subscriber.dead_letters.unwrap()];
                    let target = (topic.label(), partition_of(&parent.key, topic.partitions), parent.key.clone());
                    all.entry(target).or_default().push(Expected {
                        id: parent.event.id.clone(),
                        source: parent.event.source.clone(),
                        key: parent.key.clone(),
                        data: parent.data().to_owned(),
                        parent: place,
                        dead: Some((failure.to_owned(), attempts.to_string())),
                    });
                }
            }
        }
        kept.push(keeps);
    }
    (all, kept)
}

/// What a lane keeps, as it is stored.
fn kept<E: Engine>(engine: &E, lane: LaneId) -> Kept {
    let entries = engine.entries(lane).unwrap();
    let all =
        entries.range(Bound::Unbounded, &[9], PageBudget { entries: usize::MAX, bytes: usize::MAX }).unwrap().entries;
    let (mut kept, mut bytes, mut size, mut records) = (Kept::default(), 0, 0, 0);
    // by the time at which each key was written, and whether all of them are said to be there
    let (mut wanted, mut entered, mut is_complete) = (BTreeSet::new(), BTreeSet::new(), false);
    for (key, value) in &all {
        match key[0] {
            1 => {
                bytes += (key.len() + value.len()) as u64;
                let step = u64::from_le_bytes(value[..8].try_into().unwrap()) >> 30;
                wanted.insert([&step.to_be_bytes()[..], &key[1..]].concat());
                let (bucket, name) = std::str::from_utf8(&key[1..]).unwrap().split_once('\0').unwrap();
                let count = std::str::from_utf8(&value[8..]).unwrap().parse().unwrap();
                kept.state.insert((bucket.to_owned(), name.to_owned()), count);
            }
            2 => {
                let waiter: Waiter = serde_json::from_slice(value).unwrap();
                kept.waiting.insert(waiter.offset, waiter.is_parked);
            }
            3 => records += 1,
            8 => drop(entered.insert(key[1..].to_vec())),
            _ if &key[1..] == b"expiry" => is_complete = value[..] == [2],
            _ if &key[1..] == b"state" => size = u64::from_le_bytes(value[..].try_into().unwrap()),
            _ => {}
        }
    }
    // they may just have begun to go
    is_complete &= entries.get(b"\x04expiry").unwrap().is_some_and(|mark| mark[..] == [2]);
    assert!(!is_complete || entered == wanted, "{lane:?}: what expires when");
    assert_eq!((size, records), (bytes, kept.waiting.len()), "{lane:?}: the size of the state, records that wait");
    kept
}

/// The numbers of a plan that runs: it is what is there already.
async fn numbers<E: Engine>(engine: &E, plan: &Plan) -> Numbers {
    let topics = plan.topics.iter().map(|topic| TopicSpec {
        name: topic.label(),
        partitions: topic.partitions,
        settings: topic.settings,
        lifecycle: None,
    });
    let subscribers = plan
        .subscribers
        .iter()
        .map(|subscriber| SubscriberSpec { name: subscriber.label(), from: plan[subscriber.from].label() });
    let blueprint = Blueprint { topics: topics.collect(), subscribers: subscribers.collect(), ..Blueprint::default() };
    engine.apply(&blueprint).await.unwrap()
}

/// Compares every topic with what its parents make it.
async fn compare<E: Engine>(
    tree: &Tree<E>,
    plan: &Plan,
    published: &BTreeMap<String, Vec<String>>,
    sent: &[Sent],
    seed: u64,
) {
    let mut found: BTreeMap<(String, u32, String), Vec<Expected>> = BTreeMap::new();
    let mut wanted = BTreeMap::new();
    let mut stored: BTreeMap<String, Vec<Vec<Seen>>> = BTreeMap::new();
    for topic in &plan.topics {
        let partitions = contents(tree, &topic.label()).await;
        stored.insert(topic.label(), partitions);
    }
    for topic in plan.topics.iter().filter(|topic| topic.parent.is_some()) {
        let parent = &plan[topic.parent.unwrap()];
        let input = &stored[&plan[parent.from].label()];
        for seen in stored[&topic.label()].iter().flatten() {
            let lineage = seen.lineage.unwrap();
            let of = input[lineage.partition as usize].iter().find(|event| event.offset == lineage.offset).unwrap();
            let place = (topic.label(), seen.partition, of.key.clone());
            found.entry(place).or_default().push(Expected::of(seen));
        }
    }
    let mut roots: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for seen in stored["t/in"].iter().flatten() {
        roots.entry(seen.key.clone()).or_default().push(seen.data().to_owned());
    }
    assert_eq!(&roots, published, "seed {seed}: the root");
    let numbers = numbers(tree.engine(), plan).await;
    for (subscriber, number) in plan.subscribers.iter().zip(numbers.subscribers) {
        let (made, keeps) = expected(plan, subscriber, &stored[&plan[subscriber.from].label()], sent);
        wanted.extend(made);
        let mut waiting = (0, 0);
        for (partition, keeps) in (0..).zip(keeps) {
            waiting.0 += keeps.waiting.len() as u64;
            waiting.1 += keeps.waiting.values().filter(|is_parked| **is_parked).count() as u64;
            let found = kept(tree.engine(), LaneId { subscriber: number, partition });
            assert_eq!(found, keeps, "seed {seed}: what `{}` keeps of partition {partition}", subscriber.label());
        }
        let status = status(&tree.snapshot(), &subscriber.label());
        assert_eq!((status.waiting, status.parked), waiting, "seed {seed}: {}", subscriber.label());
    }
    for place in found.keys().chain(wanted.keys()) {
        assert_eq!(found.get(place), wanted.get(place), "seed {seed}: topic, partition and the parent's key {place:?}");
    }
}

/// How a tree's life ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Drain,
    /// All lanes stop wherever they are, in the middle of what they await.
    Drop,
}

struct Scripts {
    by_name: BTreeMap<String, Script>,
    calls: Arc<AtomicU64>,
}

/// The handlers of a plan. Some calls take a while, so that more piles up for the next and lives end within them.
fn scripts(plan: &Plan, seed: u64) -> Scripts {
    let calls = Arc::new(AtomicU64::new(0));
    let random = Arc::new(Mutex::new(Random::new(seed)));
    let by_name = plan.subscribers.iter().map(|subscriber| {
        let (counted, random, of) = (calls.clone(), random.clone(), subscriber.clone());
        let script = Script::calls(move |call| {
            counted.fetch_add(1, Ordering::SeqCst);
            let naps = random.lock().unwrap().below(4);
            let answer = by_event(&call, |given| fate(&of, &given.data).step(given));
            async move {
                for _ in 0..naps {
                    tokio::task::yield_now().await;
                }
                if naps == 3 {
                    tokio::time::sleep(Duration::from_micros(300)).await;
                }
                answer
            }
        });
        (subscriber.name.clone(), script)
    });
    Scripts { by_name: by_name.collect(), calls }
}

impl Scripts {
    async fn start<E: Engine>(&self, engine: E, plan: &Plan) -> Tree<E> {
        let scripts: Vec<_> = self.by_name.iter().map(|(name, script)| (name.as_str(), script)).collect();
        start_on(engine, plan, &scripts).await
    }
}

/// Publishes some batches, and remembers what.
async fn feed<E: Engine>(tree: &Tree<E>, random: &mut Random, published: &mut BTreeMap<String, Vec<String>>) {
    for _ in 0..1 + random.below(4) {
        let mut batch = Vec::new();
        for _ in 0..1 + random.below(12) {
            let (key, n) = (format!("k{}", random.below(KEYS)), random.below(1 << 50));
            let data = format!(r#"{{"to":"k{}","n":{n}}}"#, random.below(KEYS));
            batch.push(event(&format!("e{n}"), &key, &data));
            published.entry(key).or_default().push(data);
        }
        tree.publisher().publish("in", &batch, None).await.unwrap();
    }
}

/// Somebody pauses a subscriber for a while, or until the next life.
async fn pause<E: Engine>(tree: &Tree<E>, plan: &Plan, random: &mut Random) -> bool {
    let paused: Vec<_> =
        tree.snapshot().subscribers.into_iter().filter(|it| it.lanes[0] == LaneState::Paused).collect();
    for subscriber in paused {
        assert!(subscriber.lanes.iter().all(|lane| *lane == LaneState::Paused), "{subscriber:?}");
        tree.subscriber(&subscriber.name).unwrap().resume().await.unwrap();
    }
    if !random.one_in(3) {
        return false;
    }
    let subscriber = plan.subscribers[random.below(plan.subscribers.len() as u64) as usize].label();
    tree.subscriber(&subscriber).unwrap().pause().await.unwrap();
    for _ in 0..random.below(20) {
        tokio::task::yield_now().await;
    }
    let stays = random.one_in(2);
    if !stays {
        tree.subscriber(&subscriber).unwrap().resume().await.unwrap();
    }
    stays
}

/// Somebody sends a subscriber back that has come to its end.
async fn send_back<E: Engine>(tree: &Tree<E>, plan: &Plan, random: &mut Random) -> Sent {
    let subscriber = plan.subscribers[random.below(plan.subscribers.len() as u64) as usize].label();
    let to = if random.one_in(2) { SeekTo::Start } else { SeekTo::Offset(random.below(30)) };
    let empties_state = random.one_in(2);
    let state = if empties_state { SeekState::Empty } else { SeekState::Keep };
    let mut to = Seek { to, partition: None, state: Some(state), drops_waiting: true, dry_run: false };
    let moved = loop {
        match tree.subscriber(&subscriber).unwrap().seek(to).await {
            Err(ControlError::BeyondEnd { end, .. }) => to.to = SeekTo::Offset(end),
            moved => break moved.unwrap(),
        }
    };
    Sent { subscriber, moved, empties_state }
}

/// A tree with its life in several parts, on one engine or on one folder.
fn live(seed: u64, folder: Option<&Path>) {
    let mut random = Random::new(seed);
    let yaml = topology(&mut random);
    // in some lives, state may expire, but never does
    let expires = yaml.replace("plugin: p.wasm,", "plugin: p.wasm, state: { ttl: 1000h },");
    let plans = [plan_of(&[&yaml]), plan_of(&[&expires])];
    let scripts = scripts(&plans[0], seed);
    let mut published = BTreeMap::new();
    let durability = [Durability::Sync, Durability::Os, Durability::Interval(Duration::from_millis(2))];
    let memory = MemoryEngine::default();
    let lives = random.below(4);
    for life in 0..=lives {
        let is_last = life == lives;
        let plan = &plans[random.below(2) as usize];
        let end = if random.one_in(2) { End::Drain } else { End::Drop };
        let more = random.below(40);
        let runtime = Runtime::new().unwrap();
        let durability = durability[random.below(3) as usize];
        match folder {
            None => runtime.block_on(async {
                let tree = scripts.start(memory.clone(), plan).await;
                let is_paused = pause(&tree, plan, &mut random).await;
                feed(&tree, &mut random, &mut published).await;
                if is_last {
                    last_life(&tree, plan, &mut random, &mut published, seed).await;
                } else if !is_paused {
                    some_calls(&tree, &scripts, more).await;
                }
                if !is_last && let End::Drain = end {
                    assert!(tree.drain(PATIENCE).await, "seed {seed}");
                }
            }),
            Some(folder) => runtime.block_on(async {
                let mut engine = None;
                until("the folder is free", || {
                    engine = EmbeddedEngine::open(folder, durability).ok();
                    engine.is_some()
                })
                .await;
                let tree = scripts.start(engine.unwrap(), plan).await;
                let is_paused = pause(&tree, plan, &mut random).await;
                feed(&tree, &mut random, &mut published).await;
                if is_last {
                    last_life(&tree, plan, &mut random, &mut published, seed).await;
                } else if !is_paused {
                    some_calls(&tree, &scripts, more).await;
                }
                if !is_last && let End::Drain = end {
                    assert!(tree.drain(PATIENCE).await, "seed {seed}");
                }
            }),
        }
        // Whatever still runs is dropped where it awaits.
        runtime.shutdown_timeout(PATIENCE);
    }
}

/// The tree comes to its end; perhaps somebody is sent back, once or twice.
async fn last_life<E: Engine>(
    tree: &Tree<E>,
    plan: &Plan,
    random: &mut Random,
    published: &mut BTreeMap<String, Vec<String>>,
    seed: u64,
) {
    for subscriber in tree.snapshot().subscribers {
        tree.subscriber(&subscriber.name).unwrap().resume().await.unwrap();
    }
    let mut sent = Vec::new();
    loop {
        settled(tree).await;
        compare(tree, plan, published, &sent, seed).await;
        if sent.len() == 2 || random.one_in(2) {
            return;
        }
        sent.push(send_back(tree, plan, random).await);
        feed(tree, random, published).await;
    }
}

async fn some_calls<E: Engine>(tree: &Tree<E>, scripts: &Scripts, more: u64) {
    let at = scripts.calls.load(Ordering::SeqCst) + more;
    until("some calls", || scripts.calls.load(Ordering::SeqCst) >= at || tree.is_settled()).await;
}

/// The seeds of a run: `WATTLE_SEED` alone, if it is set; as many as `WATTLE_SEEDS` says, if that is.
fn seeds(count: u64) -> Vec<u64> {
    let number = |name| std::env::var(name).ok().map(|value| value.parse().expect(name));
    match number("WATTLE_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("WATTLE_SEEDS").unwrap_or(count)).collect(),
    }
}

#[test]
fn every_topic_holds_what_the_model_says_in_memory() {
    for seed in seeds(120) {
        eprintln!("WATTLE_SEED={seed}");
        live(seed, None);
    }
}

#[test]
fn every_topic_holds_what_the_model_says_on_disk() {
    for seed in seeds(60) {
        eprintln!("WATTLE_SEED={seed}");
        let folder = tempfile::tempdir().unwrap();
        live(seed, Some(folder.path()));
    }
}
