//! What waits waits on the disk: for a stuck leaf, and for very many lanes that are far behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use wattle::dispatch::Tree;
use wattle::engine::Engine as _;
use wattle::engine::embedded::EmbeddedEngine;
use wattle::log::Durability;
use wattle::model::call::{Batch, HandleError, Handled, Handler, Output};

use crate::alone::is_alone;
use crate::common::trees::{PATIENCE, event, plan_of, settled, status, until};

const TREE: &str = "
wattle: v1
name: t
topics: { in: {}, below: {} }
subscribers:
  copy: { from: in, plugin: p.wasm, to: [below] }
  quick: { from: below, plugin: p.wasm }
  stuck: { from: below, plugin: p.wasm }
";

const EVENT_BYTES: usize = 10 << 10;
const BATCH: u64 = 100;
const BATCHES: u64 = 128;
/// The journal's tail and as much again for queues, batches and the index. The backlog is several times as large.
const GROWTH_BYTES_MAX: u64 = 96 << 20;
const _: () = assert!(2 * EVENT_BYTES as u64 * BATCH * BATCHES > 2 * GROWTH_BYTES_MAX);

/// Copies, or waits for its gate and emits nothing.
#[derive(Clone)]
struct Simple {
    gate: Option<Arc<Semaphore>>,
    copies: bool,
    handled: Arc<AtomicU64>,
}

impl Handler for Simple {
    fn digest(&self) -> [u8; 32] {
        [7; 32]
    }

    async fn handle(&self, batch: Batch<'_>) -> Result<Handled, HandleError> {
        if let Some(gate) = &self.gate {
            drop(gate.acquire().await.unwrap());
        }
        let output = |(index, event): (u32, &wattle::model::call::CallEvent<'_>)| Output {
            event: index,
            port: 0,
            key: None,
            r#type: "copy".into(),
            content_type: batch.content_type.to_owned(),
            attributes: String::new(),
            data: event.data.to_vec(),
        };
        let outputs = (0..).zip(batch.events).filter(|_| self.copies).map(output).collect();
        for event in batch.events {
            let number: u64 = std::str::from_utf8(&event.data[..8]).unwrap().parse().unwrap();
            assert_eq!(number, self.handled.fetch_add(1, Ordering::SeqCst), "in order, each once");
        }
        Ok(Handled { outputs, ..Handled::done(batch.events.len()) })
    }
}

/// Memory of this process that is in use.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_does_not_grow_with_what_waits_for_a_stuck_leaf() {
    if !is_alone("dispatch::memory_does_not_grow_with_what_waits_for_a_stuck_leaf") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let engine = EmbeddedEngine::open(folder.path(), Durability::Os).unwrap();
    let plan = plan_of(&[TREE]);
    let gate = Arc::new(Semaphore::new(0));
    let simple = |copies, gate| Simple { gate, copies, handled: Arc::default() };
    let handlers = plan.subscribers.iter().map(|subscriber| match subscriber.name.as_str() {
        "copy" => simple(true, None),
        "stuck" => simple(false, Some(gate.clone())),
        _ => simple(false, None),
    });
    let handlers: Vec<_> = handlers.collect();
    let stuck = handlers[plan.subscribers.iter().position(|subscriber| subscriber.name == "stuck").unwrap()].clone();
    let tree = Tree::start(engine, &plan, handlers, &Handle::current()).await.unwrap();
    let before = resident_bytes();
    let filling = "x".repeat(EVENT_BYTES - 8);
    for batch in 0..BATCHES {
        let numbers = batch * BATCH..(batch + 1) * BATCH;
        let events: Vec<_> = numbers.map(|n| event(&n.to_string(), "one", &format!("{n:08}{filling}"))).collect();
        tree.publisher().publish("in", &events, None).await.unwrap();
    }
    let all = BATCH * BATCHES;
    for other in ["t/copy", "t/quick"] {
        until(other, || status(&tree.snapshot(), other).handled == all).await;
    }
    assert_eq!(status(&tree.snapshot(), "t/stuck").lag, all);
    let with_backlog = resident_bytes().saturating_sub(before);
    gate.add_permits(1);
    settled(&tree).await;
    let after = resident_bytes().saturating_sub(before);
    eprintln!(
        "grew by {} MiB with a backlog of {} MiB, {} MiB when it was handled",
        with_backlog >> 20,
        (all * EVENT_BYTES as u64) >> 20,
        after >> 20
    );
    assert_eq!(stuck.handled.load(Ordering::SeqCst), all);
    assert!(with_backlog < GROWTH_BYTES_MAX && after < GROWTH_BYTES_MAX);
    assert!(tree.drain(PATIENCE).await);
}

const PARTITIONS: u64 = 1_024;
/// Of each partition. All of them are twice what may be taken, so that a cache that keeps what was read shows.
const EVENTS_EACH: u64 = 64;
const BEHIND_EVENT_BYTES: usize = 4 << 10;
/// What lanes that are behind may take, all together: an event for each, what is kept of the disk for all of them, and
/// the lanes themselves.
const BEHIND_BYTES_MAX: u64 = 128 << 20;
const _: () = assert!(PARTITIONS * EVENTS_EACH * BEHIND_EVENT_BYTES as u64 >= 2 * BEHIND_BYTES_MAX);

/// A handler that does nothing, and hardly ever may.
#[derive(Clone)]
struct Idle;

impl Handler for Idle {
    fn digest(&self) -> [u8; 32] {
        [8; 32]
    }

    async fn handle(&self, batch: Batch<'_>) -> Result<Handled, HandleError> {
        Ok(Handled::done(batch.events.len()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_does_not_grow_with_how_many_lanes_are_behind() {
    if !is_alone("dispatch::memory_does_not_grow_with_how_many_lanes_are_behind") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let plan = {
        let subscriber = |name: &str| format!("  {name}: {{ from: in, plugin: p.wasm, rate: 1/h }}\n");
        let all: String = ["a", "b", "c"].map(subscriber).concat();
        plan_of(&[&format!(
            "wattle: v1\nname: t\ntopics: {{ in: {{ partitions: {PARTITIONS} }} }}\nsubscribers:\n{all}"
        )])
    };
    let handlers = || plan.subscribers.iter().map(|_| Idle).collect();
    let filling = "x".repeat(BEHIND_EVENT_BYTES);
    {
        let engine = EmbeddedEngine::open(folder.path(), Durability::Os).unwrap();
        let bus = Tree::start(engine, &plan, handlers(), &Handle::current()).await.unwrap();
        for subscriber in ["a", "b", "c"] {
            bus.subscriber(subscriber).unwrap().pause().await.unwrap();
        }
        for batch in 0..EVENTS_EACH * PARTITIONS / 128 {
            let numbers = batch * 128..(batch + 1) * 128;
            let events: Vec<_> =
                numbers.map(|n| event(&n.to_string(), &format!("k{}", n % (4 * PARTITIONS)), &filling)).collect();
            bus.publisher().publish("in", &events, None).await.unwrap();
        }
        assert!(bus.drain(PATIENCE).await);
        bus.engine().close().await.unwrap();
    }
    let before = resident_bytes();
    let engine = EmbeddedEngine::open(folder.path(), Durability::Os).unwrap();
    let opened = resident_bytes().saturating_sub(before);
    let bus = Tree::start(engine, &plan, handlers(), &Handle::current()).await.unwrap();
    let started = resident_bytes().saturating_sub(before);
    for subscriber in ["a", "b", "c"] {
        bus.subscriber(subscriber).unwrap().resume().await.unwrap();
    }
    // until each has read what it waits with
    let mut behind = 0;
    loop {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        let now = resident_bytes().saturating_sub(before);
        if now <= behind + (1 << 20) {
            break;
        }
        behind = now;
    }
    let all = 3 * EVENTS_EACH * PARTITIONS;
    let lag: u64 = ["t/a", "t/b", "t/c"].iter().map(|name| status(&bus.snapshot(), name).lag).sum();
    assert!(lag + 3 >= all, "{lag} of {all} are behind");
    eprintln!(
        "{} MiB in use before; opened {} MiB more, with lanes that stand {} MiB, with lanes that are behind {} MiB",
        before >> 20,
        opened >> 20,
        started >> 20,
        behind >> 20
    );
    assert!(behind < BEHIND_BYTES_MAX, "{} MiB", behind >> 20);
    bus.drain(std::time::Duration::from_secs(1)).await;
    bus.engine().close().await.unwrap();
}
