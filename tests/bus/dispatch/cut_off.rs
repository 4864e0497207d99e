//! What is held or diverted, and what members of a group give back, wherever the power goes: in front of every
//! operation of the disk.
//!
//! What is left of each crash is started again, the producer publishes all of its events once more, as one does that
//! got no answer, and the run continues to its end.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::runtime::Runtime;
use wattle::api::LaneState;
use wattle::dispatch::Tree;
use wattle::effects::memory::Operation;
use wattle::effects::{Clock, MemoryDisk, SystemClock};
use wattle::engine::embedded::{EmbeddedEngine, LogOptions};
use wattle::topology::Plan;

use crate::common::random::Random;
use crate::common::trees::{PATIENCE, by_key, data, event, plan_of, settled, status, until};
use crate::dispatch::bed::{Hand, ends, start_on};
use crate::dispatch::script::{Script, Step, by_event, copy, out};

type Bus = Tree<EmbeddedEngine>;

fn open(disk: &MemoryDisk, clock: Arc<dyn Clock>) -> EmbeddedEngine {
    let options =
        LogOptions { file_bytes: 16 << 10, move_bytes: 4 << 10, checkpoint_bytes: 8 << 10, ..LogOptions::default() };
    EmbeddedEngine::open_with(Path::new("memory"), Arc::new(disk.clone()), clock, options).unwrap()
}

/// Something that is run to its end, cut off everywhere, and run to its end again.
trait Run: Sized {
    /// What is known of a run outside of the bus.
    type Seen: Send + 'static;

    fn runtime() -> Runtime;

    /// A bus on a disk.
    async fn start(&self, disk: &MemoryDisk) -> Bus;

    /// Everything that is done to the bus, and what it must hold then.
    async fn run(&self, bus: &Bus, context: &str);

    /// What is known now.
    fn seen(&self) -> impl Fn() -> Self::Seen + Send + Sync + 'static;

    /// As what is known was once.
    fn since(seen: Self::Seen) -> Self;

    /// Whether it was in the middle of something.
    fn is_in_the_middle(seen: &Self::Seen) -> bool;
}

/// What was known at each crash, and what it left.
type Crashes<S> = Arc<Mutex<Vec<(S, MemoryDisk)>>>;

fn cut_off<R: Run>(first: &R) {
    let crashes: Crashes<R::Seen> = Arc::default();
    R::runtime().block_on(async {
        // the topics are there, so that no crash is in front of them
        let made = MemoryDisk::default();
        ends(first.start(&made).await).await;
        let disk = made.after_crash(|| true);
        let bus = first.start(&disk).await;
        disk.set_fault({
            let (disk, crashes, seen) = (disk.clone(), crashes.clone(), first.seen());
            let random = Mutex::new(Random::new(7));
            move |operation| {
                if !matches!(operation, Operation::Read(_)) {
                    let (mut random, mut crashes) = (random.lock().unwrap(), crashes.lock().unwrap());
                    // of what was not synced, nothing is left, everything, or any part
                    for kept in 0..=2 {
                        let seen = seen();
                        crashes.push((seen, disk.after_crash(|| random.below(2) < kept)));
                    }
                }
                Ok(())
            }
        });
        first.run(&bus, "without a crash").await;
        ends(bus).await;
        disk.clear_fault();
    });
    let crashes = std::mem::take(&mut *crashes.lock().unwrap());
    let (count, mut in_the_middle) = (crashes.len(), 0);
    for (number, (seen, left)) in crashes.into_iter().enumerate() {
        in_the_middle += u32::from(R::is_in_the_middle(&seen));
        R::runtime().block_on(async {
            let run = R::since(seen);
            let bus = run.start(&left).await;
            run.run(&bus, &format!("crash {number} of {count}, three in front of each operation")).await;
            ends(bus).await;
        });
    }
    eprintln!("{count} crashes, {in_the_middle} of them in the middle");
    assert!(in_the_middle > 20, "{in_the_middle} of {count}");
}

/// Waits until something that is asked of a bus is so.
async fn until_so<F: Future<Output = bool>>(what: &str, context: &str, so: impl Fn() -> F) {
    let start = std::time::Instant::now();
    while !so().await {
        assert!(start.elapsed() < PATIENCE, "{context}: not so: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Events of which some are held until their key's next one comes, and some for as long as they may be.
struct Holds {
    clock: Hand,
    plan: Plan,
}

const HOLD: Duration = Duration::from_secs(600);

impl Holds {
    fn at(clock: Hand) -> Self {
        let lifecycle =
            "{ state: data.s, start: [new], allow: { new: [paid], paid: [done] }, out_of_order: { hold: 10m } }";
        let plan = plan_of(&[&format!(
            "wattle: v1\nname: t\ntopics:\n  in: {{ dedupe: {{ window: 48h }}, lifecycle: {lifecycle} }}\n  out: {{}}\n\
             subscribers:\n  work: {{ from: in, plugin: p.wasm, to: {{ out: out }} }}\n"
        )]);
        Self { clock, plan }
    }

    async fn publish(bus: &Bus, events: &[(&str, &str, &str)]) {
        for (id, key, state) in events {
            let event = event(id, key, &json!({ "s": state, "id": id }).to_string());
            bus.publisher().publish("in", &[event], None).await.unwrap();
        }
    }

    async fn ids(bus: &Bus, topic: &str) -> BTreeMap<String, Vec<String>> {
        let id =
            |data: &String| serde_json::from_str::<serde_json::Value>(data).unwrap()["id"].as_str().unwrap().to_owned();
        let keys = by_key(bus, topic).await.into_iter();
        keys.map(|(key, data)| (key, data.iter().map(id).collect())).collect()
    }
}

impl Run for Holds {
    type Seen = u64;

    /// One that flies: only the clock of the bus says when something is due.
    fn runtime() -> Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
    }

    async fn start(&self, disk: &MemoryDisk) -> Bus {
        start_on(open(disk, Arc::new(self.clock.clone())), &self.plan, &[("work", &Script::each(copy))]).await
    }

    async fn run(&self, bus: &Bus, context: &str) {
        let early = [
            ("1", "a", "paid"),
            ("2", "b", "done"),
            ("3", "a", "new"),
            ("4", "c", "new"),
            ("5", "d", "paid"),
            ("6", "b", "paid"),
        ];
        Self::publish(bus, &early).await;
        let place =
            |key: &str, ids: &[&str]| (key.to_owned(), ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>());
        let mut wanted = BTreeMap::from([place("a", &["3", "1"]), place("c", &["4"])]);
        until_so("it follows what it waited for", context, async || {
            Self::ids(bus, "in").await.get("a").is_some_and(|ids| ids.len() >= 2)
        })
        .await;
        if self.clock.elapsed_ns() == 0 {
            self.clock.moves(HOLD + Duration::from_secs(1));
        }
        until_so("the others are given up", context, async || data(bus, "in@refused").await.len() == 3).await;
        Self::publish(bus, &[("7", "d", "new"), ("8", "b", "new"), ("9", "a", "done")]).await;
        wanted.extend([place("a", &["3", "1", "9"]), place("b", &["8"]), place("d", &["7"])]);
        until_so("all of it is handled", context, async || Self::ids(bus, "out").await == wanted).await;
        assert_eq!(Self::ids(bus, "in").await, wanted, "{context}");
        let refused = Self::ids(bus, "in@refused").await;
        assert_eq!(refused, BTreeMap::from([place("b", &["2", "6"]), place("d", &["5"])]), "{context}");
        let held =
            |bus: &Bus| bus.snapshot().topics.iter().filter_map(|topic| topic.states).map(|it| it.held).sum::<u64>();
        until("nothing is held", || held(bus) == 0).await;
        settled(bus).await;
    }

    fn seen(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
        let clock = self.clock.clone();
        move || clock.elapsed_ns()
    }

    fn since(seen: u64) -> Self {
        let clock = Hand::default();
        clock.moves(Duration::from_nanos(seen));
        Self::at(clock)
    }

    fn is_in_the_middle(seen: &u64) -> bool {
        *seen > 0
    }
}

#[test]
fn what_is_held_goes_on_once_wherever_the_power_goes() {
    cut_off(&Holds::at(Hand::default()));
}

/// Events of which some, and some of what comes of others, are out of order and go to topics of their own.
struct Diverts {
    plan: Plan,
    /// How many events were published.
    published: Arc<AtomicU64>,
}

impl Diverts {
    fn after(published: u64) -> Self {
        let topic = |name: &str, more: &str, late: &str| {
            let lifecycle = format!(
                "state: data.s, start: [new], allow: {{ new: [paid], paid: [done] }}, out_of_order: {{ divert: {late} \
                 }}"
            );
            format!("  {name}: {{ {more}lifecycle: {{ {lifecycle} }} }}\n")
        };
        let plan = plan_of(&[&format!(
            "wattle: v1\nname: t\ntopics:\n{}{}  late: {{}}\n  odd: {{}}\n  seen: {{}}\nsubscribers:\n  \
             work: {{ from: in, plugin: p.wasm, to: {{ out: out }} }}\n  \
             look: {{ from: late, plugin: p.wasm, to: {{ out: seen }} }}\n",
            topic("in", "dedupe: { window: 48h }, ", "late"),
            topic("out", "", "odd")
        )]);
        Self { plan, published: Arc::new(published.into()) }
    }

    /// What comes of `e` is done before its time.
    fn work() -> Script {
        Script::each(|given| match given.key.as_str() {
            "e" => Step::Emit(vec![out(given.data.replace("paid", "done"))]),
            _ => copy(given),
        })
    }
}

impl Run for Diverts {
    type Seen = u64;

    fn runtime() -> Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
    }

    async fn start(&self, disk: &MemoryDisk) -> Bus {
        let (work, look) = (Self::work(), Script::each(copy));
        start_on(open(disk, Arc::new(Hand::default())), &self.plan, &[("work", &work), ("look", &look)]).await
    }

    async fn run(&self, bus: &Bus, context: &str) {
        let events = [
            ("1", "a", "paid"),
            ("2", "e", "new"),
            ("3", "a", "new"),
            ("4", "e", "paid"),
            ("5", "a", "paid"),
            ("6", "b", "done"),
            ("7", "a", "done"),
            ("8", "a", "new"),
            ("9", "e", "done"),
        ];
        let wanted = [
            ("in", vec![("a", vec!["3", "5", "7"]), ("e", vec!["2", "4", "9"])]),
            ("late", vec![("a", vec!["1", "8"]), ("b", vec!["6"])]),
            ("out", vec![("a", vec!["3", "5", "7"]), ("e", vec!["2"])]),
            ("odd", vec![("e", vec!["4", "9"])]),
            ("seen", vec![("a", vec!["1", "8"]), ("b", vec!["6"])]),
        ];
        // the second time nothing of it is new
        for _ in 0..2 {
            for event in events {
                Holds::publish(bus, &[event]).await;
                self.published.fetch_add(1, SeqCst);
            }
            settled(bus).await;
            for (topic, keys) in &wanted {
                let owned = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
                let wanted: BTreeMap<_, _> = keys.iter().map(|(key, ids)| ((*key).to_owned(), owned(ids))).collect();
                assert_eq!(Holds::ids(bus, topic).await, wanted, "{context}: {topic}");
            }
        }
        let kept = bus.snapshot().topics.iter().filter_map(|topic| topic.states).map(|it| it.held).sum::<u64>();
        assert_eq!(
            (kept, data(bus, "work.dead").await.len()),
            (0, 0),
            "{context}: nothing is held, nothing has failed"
        );
    }

    fn seen(&self) -> impl Fn() -> u64 + Send + Sync + 'static {
        let published = self.published.clone();
        move || published.load(SeqCst)
    }

    fn since(seen: u64) -> Self {
        Self::after(seen)
    }

    fn is_in_the_middle(seen: &u64) -> bool {
        (1..18).contains(seen)
    }
}

#[test]
fn what_is_diverted_is_in_its_topic_once_wherever_the_power_goes() {
    cut_off(&Diverts::after(0));
}

/// Two who share: one of them halts in the middle of what it has claimed, and the other one gets the rest in time. What
/// comes again under the same identity is for neither.
struct Shares {
    plan: Plan,
    /// Who has begun what, in this life and in those before.
    begun: Begun,
    /// What one of them halts for can be handled from now on.
    is_mended: Arc<AtomicBool>,
}

type Begun = Arc<Mutex<BTreeSet<(&'static str, String)>>>;

impl Shares {
    fn after(begun: BTreeSet<(&'static str, String)>) -> Self {
        let member = |name: &str, more: &str| {
            format!(
                "  {name}: {{ from: mid, plugin: p.wasm, queue_group: both, queue_group_timeout: 2ms, batch: {{ max: 4 \
                 }}, to: {{ out: {name}s }}{more} }}\n"
            )
        };
        let plan = plan_of(&[&format!(
            "wattle: v1\nname: t\ntopics: {{ in: {{}}, mid: {{ id: data.o, dedupe: {{ window: 1h }} }}, as: {{}}, bs: \
             {{}} }}\n\
             subscribers:\n  work: {{ from: in, plugin: p.wasm, to: {{ out: mid }} }}\n{}{}",
            member("a", ", on_failure: halt"),
            member("b", "")
        )]);
        Self { plan, begun: Arc::new(Mutex::new(begun)), is_mended: Arc::default() }
    }

    fn member(&self, name: &'static str) -> Script {
        let (begun, is_mended) = (self.begun.clone(), self.is_mended.clone());
        Script::calls(move |call| {
            let (begun, is_mended) = (begun.clone(), is_mended.load(SeqCst));
            async move {
                tokio::task::yield_now().await;
                by_event(&call, |given| {
                    begun.lock().unwrap().insert((name, given.data.clone()));
                    if given.data.contains("bad") && name == "a" && !is_mended { Step::Reject } else { copy(given) }
                })
            }
        })
    }

    async fn publish(bus: &Bus, events: &[(&str, &str)]) {
        let events: Vec<_> =
            events.iter().map(|(id, order)| event(id, "k", &json!({ "o": order }).to_string())).collect();
        bus.publisher().publish("in", &events, None).await.unwrap();
    }
}

impl Run for Shares {
    type Seen = BTreeSet<(&'static str, String)>;

    fn runtime() -> Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    }

    async fn start(&self, disk: &MemoryDisk) -> Bus {
        let (work, a, b) = (Script::each(copy), self.member("a"), self.member("b"));
        start_on(open(disk, Arc::new(SystemClock)), &self.plan, &[("work", &work), ("a", &a), ("b", &b)]).await
    }

    async fn run(&self, bus: &Bus, context: &str) {
        let state = |of: &str| status(&bus.snapshot(), of).lanes[0];
        if state("t/a") != LaneState::Halted {
            bus.subscriber("b").unwrap().pause().await.unwrap();
        }
        Self::publish(bus, &[("1", "bad"), ("2", "x"), ("3", "y"), ("4", "x")]).await;
        until(context, || {
            state("t/a") == LaneState::Halted || self.begun.lock().unwrap().iter().any(|(who, _)| *who == "b")
        })
        .await;
        bus.subscriber("b").unwrap().resume().await.unwrap();
        Self::publish(bus, &[("5", "z"), ("6", "y"), ("7", "z")]).await;
        let orders = ["x", "y", "z"].map(|order| json!({ "o": order }).to_string());
        let made = async || [data(bus, "as").await, data(bus, "bs").await].concat();
        until_so("each is handled by somebody", context, async || {
            let made = made().await;
            orders.iter().all(|order| made.contains(order))
        })
        .await;
        Self::publish(bus, &[("8", "last"), ("9", "x")]).await;
        let last = json!({ "o": "last" }).to_string();
        until_so("the last one is", context, async || made().await.contains(&last)).await;
        // what it has given back is its own no more
        self.is_mended.store(true, SeqCst);
        let bad = json!({ "o": "bad" }).to_string();
        until_so("what it halts for is handled", context, async || {
            if state("t/a") == LaneState::Halted {
                bus.subscriber("a").unwrap().resume().await.unwrap();
            }
            made().await.contains(&bad)
        })
        .await;
        settled(bus).await;
        let mut made = made().await;
        made.sort();
        let mut wanted: Vec<_> = orders.into_iter().chain([last, bad]).collect();
        wanted.sort();
        assert_eq!(made, wanted, "{context}: each once");
        let begun = self.begun.lock().unwrap().clone();
        for (who, order) in &begun {
            let other = if *who == "a" { "b" } else { "a" };
            assert!(!begun.contains(&(other, order.clone())), "{context}: {order} was begun by both");
        }
    }

    fn seen(&self) -> impl Fn() -> Self::Seen + Send + Sync + 'static {
        let begun = self.begun.clone();
        move || begun.lock().unwrap().clone()
    }

    fn since(seen: Self::Seen) -> Self {
        Self::after(seen)
    }

    fn is_in_the_middle(seen: &Self::Seen) -> bool {
        !seen.is_empty()
    }
}

#[test]
fn what_is_given_back_is_one_members_wherever_the_power_goes() {
    cut_off(&Shares::after(BTreeSet::new()));
}
