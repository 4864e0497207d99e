//! What does somebody who is slow, or does not get on at all, cost those beside it?
//!
//! Three questions, each with the same tree without that one in turns in the same run, medians of several rounds:
//! - a subscriber that takes an event per second, beside two that take all: how quickly a backlog is handled by those,
//!   and how much memory 50,000 events per second take;
//! - a subscriber whose call does not come back: the p99 latency of one beside it;
//! - a key that fails for ever: the p99 latency of the other keys of its lane.
//!
//! `cargo bench --bench siblings`

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a benchmark fails by panicking and prints its result"
)]
#![allow(clippy::disallowed_methods, reason = "a benchmark waits for its own tasks, and measures real time")]

mod common;
#[path = "common/tree.rs"]
mod tree;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use wattle::dispatch::Tree;
use wattle::engine::Engine;
use wattle::engine::embedded::{Durability, EmbeddedEngine};
use wattle::model::call::{Action, Batch, Failure, HandleError, Handled, Handler};

use common::{median, resident_bytes};
use tree::{event, plan_of, until};

const TREE: &str = "
wattle: v1
name: t
topics: { in: { dedupe: off } }
subscribers:
  one: { from: in, plugin: p.wasm, retry: { attempts: 1000, backoff: { initial: 100ms, max: 1s } } }
  two: { from: in, plugin: p.wasm, retry: { attempts: 1000, backoff: { initial: 100ms, max: 1s } } }
";
/// One more subscriber.
const SLOW: &str = "  slow: { from: in, plugin: p.wasm, rate: 1/s }\n";
const STUCK: &str = "  stuck: { from: in, plugin: p.wasm }\n";

const ROUNDS: usize = 7;
const BACKLOG: u64 = 500_000;
const PADDING_BYTES: usize = 200;
/// A burst, and how long it lasts.
const BURST_PER_SECOND: u64 = 50_000;
const BURST: Duration = Duration::from_secs(10);
/// A steady pace, at which latency is measured.
const PER_SECOND: u64 = 2_000;
const STEADY: Duration = Duration::from_secs(2);
/// What is published at once, at the steady pace and otherwise.
const FEW: u64 = 2;
const MANY: u64 = 1_000;
const KEYS: u64 = 1_000;

/// Handles what it gets, and notes how long after its publish; fails what is poison, and is stuck if it is told to be.
#[derive(Clone, Default)]
struct Work {
    handled: Arc<AtomicU64>,
    late_ns: Arc<Mutex<Vec<u64>>>,
    notes_latency: Arc<AtomicBool>,
    is_stuck: bool,
}

fn now_ns() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64
}

impl Handler for Work {
    fn digest(&self) -> [u8; 32] {
        [3; 32]
    }

    async fn handle(&self, batch: Batch<'_>) -> Result<Handled, HandleError> {
        if self.is_stuck {
            std::future::pending::<()>().await;
        }
        let now_ns = now_ns();
        for (index, event) in (0..).zip(batch.events) {
            if event.key == "poison" {
                let failed = Some(Failure { event: index, action: Action::Retry(None), reason: "poison".into() });
                return Ok(Handled::in_order(batch.events.len(), failed));
            }
            let published_ns: u64 = std::str::from_utf8(&event.data[..20]).unwrap().parse().unwrap();
            if self.notes_latency.load(Ordering::Relaxed) {
                self.late_ns.lock().unwrap().push(now_ns.saturating_sub(published_ns));
            }
            self.handled.fetch_add(1, Ordering::Release);
        }
        Ok(Handled::done(batch.events.len()))
    }
}

impl Work {
    fn handled(&self) -> u64 {
        self.handled.load(Ordering::Acquire)
    }

    /// The 99th percentile of what was noted since it was asked before, in milliseconds.
    fn p99_ms(&self) -> f64 {
        let mut late_ns = std::mem::take(&mut *self.late_ns.lock().unwrap());
        late_ns.sort_unstable();
        late_ns[late_ns.len() * 99 / 100] as f64 / 1e6
    }
}

/// A tree, and what handles the events of its first two subscribers.
struct Bed {
    tree: Tree<EmbeddedEngine>,
    one: Work,
    two: Work,
}

impl Bed {
    async fn start(folder: &Path, more: &str) -> Self {
        let (one, two) = (Work::default(), Work::default());
        let handler = |name: &str| match name {
            "one" => one.clone(),
            "two" => two.clone(),
            name => Work { is_stuck: name == "stuck", ..Work::default() },
        };
        let tree = tree::start(folder, Durability::Os, &plan_of(&[&format!("{TREE}{more}")]), handler).await;
        Self { tree, one, two }
    }

    /// Publishes so many events at this pace, or as fast as it can.
    async fn publish(&self, events: u64, at_once: u64, per_second: Option<u64>) {
        let (start, padding) = (Instant::now(), "x".repeat(PADDING_BYTES));
        for first in (0..events).step_by(at_once as usize) {
            if let Some(per_second) = per_second {
                let due = start + Duration::from_nanos(first * (1_000_000_000 / per_second));
                tokio::time::sleep_until(due.into()).await;
            }
            let data = format!("{:020}{padding}", now_ns());
            let event = |number: u64| event(&number.to_string(), &format!("k{}", number % KEYS), &data);
            let events: Vec<Bytes> = (first..first + at_once).map(event).collect();
            self.tree.publisher().publish("in", &events, None).await.unwrap();
        }
    }

    async fn poison(&self) {
        let poison: Vec<_> = (0..10).map(|number| event(&format!("p{number}"), "poison", "")).collect();
        self.tree.publisher().publish("in", &poison, None).await.unwrap();
    }

    async fn both_have_handled(&self, events: u64) {
        until("both have handled all", || self.one.handled().min(self.two.handled()) >= events).await;
    }

    /// Whoever is stuck is not waited for.
    async fn end(self) {
        self.tree.drain(Duration::from_millis(100)).await;
        self.tree.engine().close().await.unwrap();
    }
}

/// Events per second of a backlog that both subscribers handle.
async fn throughput(folder: &Path, more: &str) -> f64 {
    let bed = Bed::start(folder, more).await;
    for name in ["one", "two"] {
        bed.tree.subscriber(name).unwrap().pause().await.unwrap();
    }
    bed.publish(BACKLOG, MANY, None).await;
    let start = Instant::now();
    for name in ["one", "two"] {
        bed.tree.subscriber(name).unwrap().resume().await.unwrap();
    }
    bed.both_have_handled(BACKLOG).await;
    let took = start.elapsed().as_secs_f64();
    bed.end().await;
    BACKLOG as f64 / took
}

/// Bytes more than before anything was published, at the most, while a burst is published and handled; and the share of
/// its pace that both subscribers kept.
async fn burst(folder: &Path, more: &str) -> (u64, f64) {
    let bed = Bed::start(folder, more).await;
    let (before, events) = (resident_bytes(), BURST_PER_SECOND * BURST.as_secs());
    let is_over = Arc::new(AtomicBool::new(false));
    let watching = {
        let is_over = is_over.clone();
        tokio::spawn(async move {
            let mut most = 0;
            while !is_over.load(Ordering::Acquire) {
                most = most.max(resident_bytes());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            most
        })
    };
    let start = Instant::now();
    bed.publish(events, MANY, Some(BURST_PER_SECOND)).await;
    bed.both_have_handled(events).await;
    let took = start.elapsed().as_secs_f64();
    is_over.store(true, Ordering::Release);
    let most = watching.await.unwrap().saturating_sub(before);
    bed.end().await;
    (most, events as f64 / took / BURST_PER_SECOND as f64)
}

/// The 99th percentile of the latency of the first subscriber, at a steady pace.
async fn latency(folder: &Path, more: &str, has_poison: bool) -> f64 {
    let bed = Bed::start(folder, more).await;
    if has_poison {
        bed.poison().await;
    }
    let warm_up = PER_SECOND / 2;
    bed.publish(warm_up, FEW, Some(PER_SECOND)).await;
    bed.both_have_handled(warm_up).await;
    bed.one.notes_latency.store(true, Ordering::Relaxed);
    let events = PER_SECOND * STEADY.as_secs();
    bed.publish(events, FEW, Some(PER_SECOND)).await;
    bed.both_have_handled(warm_up + events).await;
    let p99_ms = bed.one.p99_ms();
    bed.end().await;
    p99_ms
}

fn main() {
    tree::run(async |home| {
        let mut round = 0;
        let mut folder = || {
            round += 1;
            home.join(round.to_string())
        };
        // first, and in this order: what the allocator keeps of one run is not seen to grow in the next
        for (what, more) in [("beside one that takes 1/s", SLOW), ("without it", "")] {
            let (bytes, share) = burst(&folder(), more).await;
            let mebibytes = bytes as f64 / f64::from(1 << 20);
            println!(
                "{BURST_PER_SECOND} events/s for {BURST:?} {what}: {share:.3} of the pace, {mebibytes:.1} MiB more"
            );
        }
        let (mut alone, mut beside, mut ratios) = (vec![], vec![], vec![]);
        for _ in 0..ROUNDS {
            let (calm, slow) = (throughput(&folder(), "").await, throughput(&folder(), SLOW).await);
            alone.push(calm);
            beside.push(slow);
            ratios.push(slow / calm);
        }
        println!(
            "a backlog of {BACKLOG}: two subscribers handle {:.0} events/s, {:.0} beside one that takes 1/s: {:.2} of \
             it",
            median(&mut alone),
            median(&mut beside),
            median(&mut ratios)
        );
        for (what, more, has_poison) in
            [("beside a subscriber that is stuck", STUCK, false), ("beside a key that fails for ever", "", true)]
        {
            let (mut alone, mut beside, mut ratios) = (vec![], vec![], vec![]);
            for _ in 0..ROUNDS {
                let (calm, other) = (latency(&folder(), "", false).await, latency(&folder(), more, has_poison).await);
                alone.push(calm);
                beside.push(other);
                ratios.push(other / calm);
            }
            println!(
                "p99 at {PER_SECOND} events/s: {:.2} ms, {:.2} ms {what}: {:.2} of it",
                median(&mut alone),
                median(&mut beside),
                median(&mut ratios)
            );
        }
    });
}
