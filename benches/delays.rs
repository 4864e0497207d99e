//! What do very many events that are to come later cost while they wait, and are they on time?
//!
//! Events are published in any order of their times, wait together, and come due 20,000 a second. What is measured:
//! memory above a bus that has done nothing yet while they wait, for a quarter of them and for all; how quickly they
//! are taken; and how late each is handled, beside events that are published at the same pace and do not wait.
//!
//! `cargo bench --bench delays`; `-- 100000` for another number

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

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use wattle::dispatch::Tree;
use wattle::engine::Engine;
use wattle::engine::embedded::{Durability, EmbeddedEngine};
use wattle::model::call::{Batch, HandleError, Handled, Handler};
use wattle::model::event::Data;
use wattle::model::{Attribute, Event, Time};

use common::{noise, resident_bytes};

const TREE: &str = "
wattle: v1
name: t
topics: { in: { dedupe: off } }
subscribers:
  work: { from: in, plugin: p.wasm }
";
const EVENTS: u64 = 1_000_000;
const PER_SECOND: u64 = 20_000;
/// Events of one publish, of which so many are on their way at once.
const BATCH: u64 = 1_000;
const ON_THE_WAY: usize = 4;
const PADDING_BYTES: usize = 128;
/// Coprime to the numbers of events: so far apart in time are two that are published one behind the other.
const STRIDE: u64 = 382_831;
const PAUSE: Duration = Duration::from_millis(20);

/// Notes of each event how late it is by the time in its data, and whether one in front of it was for later.
#[derive(Clone, Default)]
struct Work {
    seen: Arc<Mutex<Seen>>,
    handled: Arc<AtomicU64>,
}

#[derive(Default)]
struct Seen {
    late_ns: Vec<u32>,
    last_ns: u64,
    disordered: u64,
}

fn now_ns() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64
}

impl Handler for Work {
    fn digest(&self) -> [u8; 32] {
        [3; 32]
    }

    async fn handle(&self, batch: Batch<'_>) -> Result<Handled, HandleError> {
        let (now_ns, mut seen) = (now_ns(), self.seen.lock().unwrap());
        for event in batch.events {
            let due_ns = u64::from_le_bytes(event.data[..8].try_into().unwrap());
            assert!(now_ns >= due_ns, "too early");
            seen.late_ns.push(u32::try_from(now_ns - due_ns).unwrap_or(u32::MAX));
            seen.disordered += u64::from(due_ns < seen.last_ns);
            seen.last_ns = due_ns;
        }
        self.handled.fetch_add(batch.events.len() as u64, Ordering::Release);
        Ok(Handled::done(batch.events.len()))
    }
}

impl Work {
    /// What was seen since it was asked before.
    fn lateness(&self, what: &str) {
        let mut seen = std::mem::take(&mut *self.seen.lock().unwrap());
        seen.late_ns.sort_unstable();
        let at = |share: f64| {
            let late = seen.late_ns[((seen.late_ns.len() - 1) as f64 * share) as usize];
            f64::from(late) / 1e6
        };
        println!(
            "{what}: {} handled, {} out of order, late by p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
            seen.late_ns.len(),
            seen.disordered,
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
}

fn event(number: u64, due_ns: u64, is_delayed: bool) -> Bytes {
    let mut event = Event { id: number.to_string(), source: "/b".into(), r#type: "b".into(), ..Event::default() };
    event.attributes.insert("partitionkey".into(), Attribute::String(format!("k{}", number % 1_000)));
    if is_delayed {
        let due = Time::new((due_ns / 1_000_000_000) as i64, (due_ns % 1_000_000_000) as u32).unwrap();
        event.attributes.insert("deliverat".into(), Attribute::Timestamp(due));
    }
    let data = [due_ns.to_le_bytes().as_slice(), &noise(PADDING_BYTES)].concat();
    event.data = Some(Data::Binary(data.into()));
    event.encode()
}

fn delayed(tree: &Tree<EmbeddedEngine>) -> u64 {
    tree.snapshot().topics.iter().find(|topic| topic.name == "t/in").unwrap().delayed
}

/// Publishes events that are due from some time on, and waits for all of them.
async fn wait_for(tree: &Tree<EmbeddedEngine>, work: &Work, events: u64, idle: u64) {
    let before = work.handled.load(Ordering::Acquire);
    // as long as it may take to publish them
    let begins_ns = now_ns() + 4_000_000_000 + events * 40_000;
    let start = Instant::now();
    let mut on_the_way = VecDeque::new();
    for first in (0..events).step_by(BATCH as usize) {
        let batch: Vec<_> = (first..first + BATCH)
            .map(|number| {
                let turn = number * STRIDE % events;
                event(number, begins_ns + turn * (1_000_000_000 / PER_SECOND), true)
            })
            .collect();
        let tree = tree.clone();
        on_the_way.push_back(tokio::spawn(async move { tree.publisher().publish("in", &batch, None).await.unwrap() }));
        if on_the_way.len() >= ON_THE_WAY {
            on_the_way.pop_front().unwrap().await.unwrap();
        }
    }
    for publish in on_the_way {
        publish.await.unwrap();
    }
    let published = start.elapsed().as_secs_f64();
    while delayed(tree) < events && now_ns() < begins_ns {
        tokio::time::sleep(PAUSE).await;
    }
    let taken_in = start.elapsed().as_secs_f64();
    let waiting = delayed(tree);
    let early = begins_ns.saturating_sub(now_ns()) / 1_000_000;
    let mut most = 0;
    while now_ns() < begins_ns {
        most = most.max(resident_bytes());
        tokio::time::sleep(PAUSE).await;
    }
    println!(
        "{waiting} wait {early} ms in front of the first: published at {:.0}/s, all in the queue after {taken_in:.1} \
         s, {:.1} MiB above idle",
        events as f64 / published,
        most.saturating_sub(idle) as f64 / f64::from(1 << 20),
    );
    while work.handled.load(Ordering::Acquire) < before + events {
        most = most.max(resident_bytes());
        tokio::time::sleep(PAUSE).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await; // none comes twice
    println!("{:.1} MiB above idle at the most", most.saturating_sub(idle) as f64 / f64::from(1 << 20));
    work.lateness(&format!("{events} that were delayed"));
}

/// Publishes events at the same pace, none delayed: how late one is that has to go through the bus and no more.
async fn at_once(tree: &Tree<EmbeddedEngine>, work: &Work, events: u64) {
    let (start, before) = (Instant::now(), work.handled.load(Ordering::Acquire));
    let batch = PER_SECOND / 100;
    for first in (0..events).step_by(batch as usize) {
        let until = start + Duration::from_nanos(first * (1_000_000_000 / PER_SECOND));
        tokio::time::sleep_until(until.into()).await;
        let now = now_ns();
        let events: Vec<_> = (first..first + batch).map(|number| event(number, now, false)).collect();
        tree.publisher().publish("in", &events, None).await.unwrap();
    }
    while work.handled.load(Ordering::Acquire) < before + events {
        tokio::time::sleep(PAUSE).await;
    }
    work.lateness(&format!("{events} that were not, at {PER_SECOND}/s"));
}

fn main() {
    let events = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(EVENTS);
    tree::run(async |home| {
        let (plan, work) = (tree::plan_of(&[TREE]), Work::default());
        let tree = tree::start(&home.join("bus"), Durability::Sync, &plan, |_| work.clone()).await;
        let idle = resident_bytes();
        wait_for(&tree, &work, 20_000, idle).await;
        at_once(&tree, &work, 5 * PER_SECOND).await;
        wait_for(&tree, &work, events / 4 / BATCH * BATCH, idle).await;
        wait_for(&tree, &work, events / BATCH * BATCH, idle).await;
        assert!(tree.drain(Duration::from_secs(10)).await);
        tree.engine().close().await.unwrap();
    });
}
