//! A bus on a disk that can be cut off, with a clock in the test's hands.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use wattle::dispatch::publish::EventRefusal;
use wattle::dispatch::{PublishError, Tree};
use wattle::effects::memory::Operation;
use wattle::effects::{Clock, MemoryDisk};
use wattle::engine::embedded::{EmbeddedEngine, LogOptions};
use wattle::engine::{AppendError, Engine, Fence, GuardReason};
use wattle::model::{Attribute, PartitionId};
use wattle::topology::Plan;

use super::model::{Answer, Event, Model, Request, Rules};
use crate::common::random::Random;
use crate::common::trees::{contents, event, plan_of};
use crate::dispatch::bed::{ends, start_on};
use crate::dispatch::script::{Script, copy};

const START_NS: u64 = 1_700_000_000_000_000_000;
/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// The wall clock, which jumps, and one that never does.
#[derive(Clone)]
struct Hands(Arc<(AtomicU64, AtomicU64)>);

impl Clock for Hands {
    fn now_ns(&self) -> u64 {
        self.0.0.load(SeqCst)
    }

    fn elapsed_ns(&self) -> u64 {
        self.0.1.load(SeqCst)
    }
}

pub(super) struct Bed {
    pub(super) rules: Rules,
    pub(super) guards_input: bool,
    pub(super) has_room_for_streams: bool,
    pub(super) keys: u64,
    plan: Plan,
    disk: MemoryDisk,
    hands: Hands,
    /// What a loss of the power has left.
    left: Arc<Mutex<Option<MemoryDisk>>>,
}

impl Bed {
    pub(super) fn new(random: &mut Random) -> Self {
        let guards_input = !random.one_in(3);
        // where few may be held, it is not known how many are while one request after the other comes
        let diverts = random.one_in(3);
        let has_room_for_streams = diverts || !guards_input || random.one_in(2);
        let held_max = if has_room_for_streams { 1_000 } else { 1 + random.below(4) as usize };
        let partitions = 1 + random.below(3) as u32;
        let rules = Rules { partitions, guards_input, diverts, hold_s: 600, held_max, remember_s: 3_600 };
        let (out_of_order, late) = match diverts {
            true => ("divert: late".to_owned(), "  late: {}\n"),
            false => (format!("hold: 10m, max: {held_max}"), ""),
        };
        let lifecycle = format!(
            "lifecycle: {{ state: data.s, start: [new], allow: {{ new: [paid, void], paid: [done, void] }}, \
             remember: 1h, out_of_order: {{ {out_of_order} }} }}"
        );
        let topic = |name: &str, guards: bool| {
            let lifecycle = if guards { format!(", {lifecycle}") } else { String::new() };
            let dedupe = if name == "in" { ", dedupe: { window: 48h }" } else { "" };
            format!("  {name}: {{ partitions: {partitions}{dedupe}{lifecycle} }}\n")
        };
        let yaml = format!(
            "wattle: v1\nname: t\ntopics:\n{}{}{late}subscribers:\n  work: {{ from: in, plugin: w.wasm, to: {{ out: \
             out }} }}\n",
            topic("in", guards_input),
            topic("out", !guards_input)
        );
        Self {
            rules,
            guards_input,
            has_room_for_streams,
            keys: 3 + random.below(4),
            plan: plan_of(&[&yaml]),
            disk: MemoryDisk::default(),
            hands: Hands(Arc::new((START_NS.into(), 0.into()))),
            left: Arc::default(),
        }
    }

    pub(super) async fn start(&self) -> Life {
        let options = LogOptions {
            file_bytes: 16 << 10,
            move_bytes: 4 << 10,
            checkpoint_bytes: 8 << 10,
            ..LogOptions::default()
        };
        let (disk, hands) = (Arc::new(self.disk.clone()), Arc::new(self.hands.clone()));
        let engine = EmbeddedEngine::open_with(Path::new("here"), disk, hands, options).unwrap();
        let tree = start_on(engine, &self.plan, &[("work", &Script::each(copy))]).await;
        let guarded = if self.guards_input { "in" } else { "out" };
        Life { tree, guarded, diverts: self.rules.diverts, hands: self.hands.clone() }
    }

    /// So many bytes are left.
    pub(super) fn fill(&self, bytes: u64) {
        let used: u64 = self.disk.contents().values().map(|bytes| bytes.len() as u64).sum();
        self.disk.set_capacity(Some(used + bytes));
    }

    pub(super) fn empty(&self) {
        self.disk.set_capacity(None);
    }

    /// In front of that operation of the disk, what a loss of the power would leave is kept for the next life.
    pub(super) fn crash_after(&self, operations: u64, seed: u64) {
        let (of, left, count) = (self.disk.clone(), self.left.clone(), AtomicU64::new(0));
        self.disk.set_fault(move |operation| {
            if !matches!(operation, Operation::Read(_)) && count.fetch_add(1, SeqCst) == operations {
                let mut random = Random::new(seed);
                let kept = random.below(3);
                *left.lock().unwrap() = Some(of.after_crash(|| random.below(2) < kept));
            }
            Ok(())
        });
    }

    /// A life is over, and everything that ran in it.
    pub(super) fn died(&mut self) {
        self.disk.clear_fault();
        if let Some(left) = self.left.lock().unwrap().take() {
            self.disk = left;
        }
    }
}

/// A bus that runs.
pub(super) struct Life {
    tree: Tree<EmbeddedEngine>,
    guarded: &'static str,
    diverts: bool,
    hands: Hands,
}

impl Life {
    /// Trusted time.
    pub(super) fn now_ns(&self) -> u64 {
        self.tree.engine().trusted_now_ns()
    }

    pub(super) fn wall_ns(&self) -> u64 {
        self.hands.now_ns()
    }

    /// Time passes until it is that late by trusted time, and hardly later.
    pub(super) fn pass_until(&self, until_ns: u64) {
        loop {
            let left_ns = until_ns.saturating_sub(self.now_ns());
            if left_ns == 0 {
                return;
            }
            let by_ns = (left_ns / 100 * 98).max(1_000);
            self.hands.0.1.fetch_add(by_ns, SeqCst);
            self.hands.0.0.fetch_add(by_ns, SeqCst);
        }
    }

    pub(super) fn jump(&self, by: Duration, is_back: bool) {
        let by_ns = by.as_nanos() as u64;
        let jump = |now_ns: u64| Some(if is_back { now_ns.saturating_sub(by_ns) } else { now_ns + by_ns });
        self.hands.0.0.fetch_update(SeqCst, SeqCst, jump).unwrap();
    }

    /// Longer than a lane goes without a look at its clock.
    pub(super) async fn looks(&self) {
        for _ in 0..3 {
            tokio::time::sleep(wattle::limits::DELAY_LOOK_EVERY).await;
        }
    }

    /// Sends a request, each part of it before any is answered.
    pub(super) async fn send(&self, request: &Request) -> Vec<Answer> {
        let publisher = self.tree.publisher();
        match request {
            Request::Batch(events) => {
                let events: Vec<_> = events.iter().map(encoded).collect();
                vec![answer(publisher.publish("in", &events, None).await.map(drop))]
            }
            Request::Stream(events) => {
                let (fence, mut answers) = (Fence::default(), Vec::new());
                for event in events {
                    let (event, fence) = ([encoded(event)], fence.clone());
                    let admission = match publisher.admit("in", 1).await {
                        Ok(admission) => admission,
                        Err(error) => return vec![answer(Err(error)); events.len()],
                    };
                    let mut answer = Box::pin(async move {
                        publisher.publish_admitted("in", &event, None, admission, Some(fence)).await.map(drop)
                    });
                    // the first poll hands it in
                    let first = std::future::poll_fn(|cx| std::task::Poll::Ready(answer.as_mut().poll(cx))).await;
                    answers.push((answer, first));
                }
                let mut results = Vec::new();
                for (waits, first) in answers {
                    results.push(answer(match first {
                        std::task::Poll::Ready(result) => result,
                        std::task::Poll::Pending => waits.await,
                    }));
                }
                // a refusal that passes has shut the fence as well
                if results.contains(&Answer::Unknown) {
                    results.fill(Answer::Unknown);
                }
                results
            }
        }
    }

    /// Waits until all is where a model says.
    pub(super) async fn rests(&self, model: &Model) {
        self.rests_in(std::slice::from_ref(model)).await;
    }

    /// Waits until all is where one of some models says.
    pub(super) async fn rests_in(&self, models: &[Model]) {
        let wanted: Vec<Found> = models.iter().map(|model| Found::by(model, self.guarded)).collect();
        let start = Instant::now();
        loop {
            // how many there are is quickly told, and says of nearly all looks that it is too early
            let is_late = start.elapsed() > PATIENCE;
            if is_late || wanted.iter().map(Found::counts).any(|counts| counts == self.counts()) {
                let found = Found::of(self).await;
                if wanted.contains(&found) {
                    return;
                }
                let last = wanted.last().unwrap();
                assert!(!is_late, "found {found:#?}, wanted one of {}: {last:#?}", models.len());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// How many events are in topics, are held, and are to come.
    fn counts(&self) -> [u64; 7] {
        let (engine, snapshot, targets) = (self.tree.engine(), self.tree.snapshot(), self.tree.publisher().targets());
        let status = |name: &str| snapshot.topics.iter().find(|topic| topic.name == format!("t/{name}")).unwrap();
        let count = |name: &str| -> u64 {
            let target = targets.find(name).unwrap();
            let partitions = (0..target.partitions).map(|partition| PartitionId { topic: target.topic, partition });
            partitions.map(|id| engine.bounds(id).unwrap().written).sum()
        };
        let (held, later) = (status(self.guarded).states.unwrap().held, status("in").delayed);
        let refused = format!("{}@refused", self.guarded);
        let diverted = if self.diverts { count("late") } else { 0 };
        [count("in"), count("out"), count(&refused), count("work.dead"), held, later, diverted]
    }

    /// Waits until what lanes did is durable as well: what a loss of the power took back would be done again, and
    /// later.
    pub(super) async fn is_durable(&self) {
        let engine = self.tree.engine();
        for name in ["in", "out", "work.dead", "late", "in@held", "out@held", "in@refused", "out@refused"] {
            let Some(topic) = engine.topic(&format!("t/{name}")) else { continue };
            for partition in 0..4 {
                engine.durable_bounds(PartitionId { topic, partition }).await.unwrap();
            }
        }
    }

    pub(super) async fn ends(self) {
        ends(self.tree).await;
    }
}

fn encoded(given: &Event) -> Bytes {
    let data = format!(r#"{{"s":"{}","id":"{}"}}"#, given.state, given.id);
    let encoded = event(&given.id, &given.key, &data);
    let Some(delay) = given.delay else { return encoded };
    let mut late = wattle::model::Event::decode(&encoded).unwrap();
    late.attributes.insert("delay".into(), Attribute::String(format!("{delay}s")));
    late.encode()
}

fn answer(result: Result<(), PublishError>) -> Answer {
    match result {
        Ok(()) => Answer::Taken,
        Err(PublishError::Append(AppendError::Fenced)) => Answer::Fenced,
        Err(PublishError::Event { error: EventRefusal::Lifecycle(GuardReason::Unreadable(_)), .. }) => Answer::Unknown,
        Err(PublishError::Event { error: EventRefusal::Lifecycle(_), .. }) => Answer::Refused,
        Err(_) => Answer::Unknown,
    }
}

/// What is where.
#[derive(Debug, PartialEq)]
struct Found {
    published: BTreeMap<String, Vec<String>>,
    out: BTreeMap<String, Vec<String>>,
    diverted: BTreeMap<String, Vec<String>>,
    given_up: Vec<String>,
    dead: Vec<String>,
    held: u64,
    later: u64,
}

impl Found {
    fn by(model: &Model, guarded: &str) -> Self {
        let published = if guarded == "in" { &model.placed } else { &model.published };
        let (given_up, dead) = (sorted(model.given_up.clone()), sorted(model.dead.clone()));
        let (held, later) = (model.held(), model.later());
        let diverted = model.diverted.clone();
        Self { published: published.clone(), out: model.placed.clone(), diverted, given_up, dead, held, later }
    }

    fn counts(&self) -> [u64; 7] {
        let count = |keys: &BTreeMap<String, Vec<String>>| keys.values().map(|ids| ids.len() as u64).sum();
        let (given_up, dead) = (self.given_up.len() as u64, self.dead.len() as u64);
        [count(&self.published), count(&self.out), given_up, dead, self.held, self.later, count(&self.diverted)]
    }

    async fn of(Life { tree, guarded, diverts, .. }: &Life) -> Self {
        let snapshot = tree.snapshot();
        let status = |name: &str| snapshot.topics.iter().find(|topic| topic.name == format!("t/{name}")).unwrap();
        Self {
            held: status(guarded).states.unwrap().held,
            later: status("in").delayed,
            published: by_key(tree, "in").await,
            out: by_key(tree, "out").await,
            diverted: if *diverts { by_key(tree, "late").await } else { BTreeMap::new() },
            given_up: ids(tree, &format!("{guarded}@refused")).await,
            dead: ids(tree, "work.dead").await,
        }
    }
}

fn sorted(ids: BTreeSet<String>) -> Vec<String> {
    ids.into_iter().collect()
}

fn id(data: &str) -> String {
    serde_json::from_str::<serde_json::Value>(data).unwrap()["id"].as_str().unwrap().to_owned()
}

async fn by_key(tree: &Tree<EmbeddedEngine>, topic: &str) -> BTreeMap<String, Vec<String>> {
    let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for seen in contents(tree, topic).await.into_iter().flatten() {
        let id = id(seen.data());
        keys.entry(seen.key).or_default().push(id);
    }
    keys
}

/// Each as often as it is there.
async fn ids(tree: &Tree<EmbeddedEngine>, topic: &str) -> Vec<String> {
    let mut ids: Vec<String> = contents(tree, topic).await.into_iter().flatten().map(|seen| id(seen.data())).collect();
    ids.sort();
    ids
}
