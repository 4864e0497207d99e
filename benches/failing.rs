//! What does a failure cost those who do not fail, and is a redrive of very many dead letters in order?
//!
//! - One key that fails for ever beside others of its partition, against the same without it; rounds take turns.
//! - A hundred thousand dead letters of a thousand keys, redriven at once: each once, in the order of its key.
//!
//! `cargo bench --bench failing`

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

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use wattle::api::Filter;
use wattle::dispatch::Tree;
use wattle::engine::embedded::{Durability, EmbeddedEngine};
use wattle::model::call::{Action, Batch, Failure, HandleError, Handled, Handler};

use common::median;
use tree::{event, plan_of, until};

const TREE: &str = "
wattle: v1
name: t
topics: { in: { dedupe: off } }
subscribers:
  work:
    from: in
    plugin: p.wasm
    retry: { attempts: 1000, backoff: { initial: 100ms, max: 30s } }
    retry_queue: { max: 200000, size: 1GiB }
";
const EVENTS: u64 = 300_000;
const ROUNDS: usize = 7;
const LETTERS: u64 = 100_000;
const KEYS: u64 = 1_000;

/// Handles all but what it is told to fail, and notes in which order it did.
#[derive(Clone, Default)]
struct Work {
    rejects: Arc<AtomicBool>,
    handled: Arc<AtomicU64>,
    disordered: Arc<AtomicU64>,
    last: Arc<Mutex<HashMap<String, u64>>>,
    notes_order: bool,
}

impl Handler for Work {
    fn digest(&self) -> [u8; 32] {
        [3; 32]
    }

    async fn handle(&self, batch: Batch<'_>) -> Result<Handled, HandleError> {
        for (index, event) in (0..).zip(batch.events) {
            let action = match event.key {
                "poison" => Some(Action::Retry(None)),
                _ if self.rejects.load(Ordering::Acquire) => Some(Action::Reject),
                _ => None,
            };
            if let Some(action) = action {
                let failed = Some(Failure { event: index, action, reason: "as it was told".into() });
                return Ok(Handled::in_order(batch.events.len(), failed));
            }
            if self.notes_order {
                let number: u64 = std::str::from_utf8(event.data).unwrap().parse().unwrap();
                let mut last = self.last.lock().unwrap();
                let last = last.entry(event.key.to_owned()).or_default();
                if number <= *last {
                    self.disordered.fetch_add(1, Ordering::Relaxed);
                }
                *last = number;
            }
            self.handled.fetch_add(1, Ordering::Release);
        }
        Ok(Handled::done(batch.events.len()))
    }
}

async fn publish(tree: &Tree<EmbeddedEngine>, numbers: std::ops::Range<u64>) {
    for first in numbers.clone().step_by(1_000) {
        let these = first..(first + 1_000).min(numbers.end);
        let events: Vec<_> = these
            .map(|number| event(&number.to_string(), &format!("k{}", number % KEYS), &number.to_string()))
            .collect();
        tree.publisher().publish("in", &events, None).await.unwrap();
    }
}

/// Events per second that are handled of a backlog, with a key that fails, or without.
async fn backlog(folder: &std::path::Path, has_poison: bool) -> f64 {
    let work = Work::default();
    let tree = tree::start(folder, Durability::Os, &plan_of(&[TREE]), |_| work.clone()).await;
    tree.subscriber("work").unwrap().pause().await.unwrap();
    if has_poison {
        let poison: Vec<_> = (0..10).map(|number| event(&format!("p{number}"), "poison", "0")).collect();
        tree.publisher().publish("in", &poison, None).await.unwrap();
    }
    publish(&tree, 0..EVENTS).await;
    let start = Instant::now();
    tree.subscriber("work").unwrap().resume().await.unwrap();
    until("the backlog", || work.handled.load(Ordering::Acquire) == EVENTS).await;
    let took = start.elapsed().as_secs_f64();
    assert!(tree.drain(Duration::from_secs(10)).await);
    EVENTS as f64 / took
}

fn main() {
    tree::run(async |home| {
        let (mut alone, mut beside, mut ratios) = (vec![], vec![], vec![]);
        for round in 0..ROUNDS {
            alone.push(backlog(&home.join(format!("{round}-alone")), false).await);
            beside.push(backlog(&home.join(format!("{round}-beside")), true).await);
            ratios.push(beside[round] / alone[round]);
        }
        println!(
            "a backlog of {EVENTS}: {:.0} events/s, {:.0} beside a key that fails for ever: {:.2} of it",
            median(&mut alone),
            median(&mut beside),
            median(&mut ratios)
        );

        let plan = plan_of(&[&TREE.replace("in: { dedupe: off }", "in: { dedupe: off, partitions: 4 }")]);
        let work = Work { notes_order: true, rejects: Arc::new(AtomicBool::new(true)), ..Work::default() };
        let tree = tree::start(&home.join("letters"), Durability::Os, &plan, |_| work.clone()).await;
        let start = Instant::now();
        publish(&tree, 1..LETTERS + 1).await;
        until("the dead letters", || tree.snapshot().subscribers[0].dead_lettered == LETTERS).await;
        println!("{LETTERS} events became dead letters in {:.1} s", start.elapsed().as_secs_f64());
        work.rejects.store(false, Ordering::Release);
        let start = Instant::now();
        let redriven = tree.subscriber("work").unwrap().dead_letters().redrive(&Filter::default()).await.unwrap();
        until("the redriven", || work.handled.load(Ordering::Acquire) >= LETTERS).await;
        println!(
            "{redriven} redriven and {} handled in {:.1} s, {} out of order",
            work.handled.load(Ordering::Acquire),
            start.elapsed().as_secs_f64(),
            work.disordered.load(Ordering::Relaxed)
        );
        assert!(tree.drain(Duration::from_secs(10)).await);
    });
}
