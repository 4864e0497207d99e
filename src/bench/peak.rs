//! Does a burst that is far more than the slowest subscriber takes cost the producers, memory or order?

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::memory::resident_bytes;
use super::{BenchError, Subject, fresh, runtime, sample};
use crate::dispatch::{HandleError, Handler, Tree};
use crate::engine::Engine;
use crate::engine::embedded::{Durability, EmbeddedEngine};
use crate::wasm::{Batch, Handled, Plugin};

/// Events that are published at once, each batch after the ack of the one before.
const PUBLISH_EVENTS: usize = 1_000;
/// How often it is looked how much memory there is, and whether all is done.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What was measured.
#[derive(Debug, Clone, Copy)]
pub struct Peak {
    /// Events of the burst.
    pub events: u64,
    /// How long the burst was, from the first publish to the last ack.
    pub published_in: Duration,
    /// The longest that a producer waited for an ack of a batch.
    pub longest_ack: Duration,
    /// How long the slowest subscriber took for all of it.
    pub handled_in: Duration,
    /// Events that it got more than once.
    pub repeated: u64,
    /// Events that it got behind a later one of their partition.
    pub disordered: u64,
    /// Resident memory of the process with everything started and nothing published.
    pub idle_bytes: u64,
    /// The most from then on until all was handled.
    pub most_bytes: u64,
}

/// What the slowest subscriber has seen.
#[derive(Default)]
struct Seen {
    handled: AtomicU64,
    repeated: AtomicU64,
    disordered: AtomicU64,
    /// By partition, the number of the last order, which ascends.
    last: Mutex<HashMap<u32, u64>>,
}

/// A plugin whose events are looked at on their way.
#[derive(Clone)]
struct Watched {
    plugin: Plugin,
    seen: Option<Arc<Seen>>,
}

impl Handler for Watched {
    fn digest(&self) -> [u8; 32] {
        Handler::digest(&self.plugin)
    }

    async fn handle(&self, batch: Batch<'_>) -> Result<Handled, HandleError> {
        let (partition, events) = (batch.partition, batch.events);
        let handled = Handler::handle(&self.plugin, batch).await?;
        if let Some(seen) = &self.seen {
            let done = handled.failed.as_ref().map_or(events.len(), |failed| failed.event as usize);
            let mut last = seen.last.lock().unwrap_or_else(PoisonError::into_inner);
            let last = last.entry(partition).or_default();
            for event in events.iter().take(done) {
                let number = event.key.rsplit('-').next().and_then(|digits| digits.parse::<u64>().ok()).unwrap_or(0);
                match number.cmp(last) {
                    std::cmp::Ordering::Greater => *last = number,
                    std::cmp::Ordering::Equal => drop(seen.repeated.fetch_add(1, Ordering::Relaxed)),
                    std::cmp::Ordering::Less => drop(seen.disordered.fetch_add(1, Ordering::Relaxed)),
                }
            }
            seen.handled.fetch_add(done as u64, Ordering::Release);
        }
        Ok(handled)
    }
}

/// Publishes `events` orders as fast as they are taken, and waits until the subscriber with the lowest `rate` has handled
/// them all.
///
/// # Errors
/// [`BenchError`]; [`BenchError::Unfit`] where no subscriber has a rate.
pub fn peak(subject: &Subject, events: usize) -> Result<Peak, BenchError> {
    let rate = |index: &usize| subject.plan.subscribers.get(*index).and_then(|subscriber| subscriber.rate);
    let limited = (0..subject.plan.subscribers.len()).filter(|index| rate(index).is_some());
    let slowest = limited.min_by(|a, b| {
        let per_second = |index| rate(index).map_or(0.0, |rate| rate.per_second());
        per_second(a).total_cmp(&per_second(b))
    });
    let slowest =
        slowest.ok_or_else(|| BenchError::Unfit("no subscriber has a `rate`: try topologies/peak.yaml".into()))?;
    let lanes = runtime("lane")?;
    let folder = fresh(&subject.folder, "bus")?;
    let root = subject.plan.topics.iter().find(|topic| topic.is_root()).map(|topic| topic.label()).unwrap_or_default();
    let seen = Arc::new(Seen::default());
    let handlers = subject
        .plugins
        .iter()
        .enumerate()
        .map(|(index, plugin)| Watched { plugin: plugin.clone(), seen: (index == slowest).then(|| seen.clone()) });
    let handlers = handlers.collect();
    lanes.block_on(async {
        let engine = EmbeddedEngine::open(&folder, Durability::Sync)?;
        let tree = Tree::start(engine, &subject.plan, handlers, lanes.handle()).await?;
        // once around, so that what the first event sets up counts as idle
        tree.publisher().publish(&root, &[sample::order(1)], None).await?;
        while !tree.is_settled() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let idle_bytes = resident_bytes()?;
        let (mut most_bytes, mut longest_ack) = (idle_bytes, Duration::ZERO);
        let start = Instant::now();
        for batch in 0..events.div_ceil(PUBLISH_EVENTS) {
            let first = 2 + batch * PUBLISH_EVENTS;
            let orders: Vec<Bytes> = (first..first + PUBLISH_EVENTS).map(sample::order).collect();
            let sent = Instant::now();
            tree.publisher().publish(&root, &orders, None).await?;
            longest_ack = longest_ack.max(sent.elapsed());
            most_bytes = most_bytes.max(resident_bytes()?);
        }
        let published_in = start.elapsed();
        let all = 1 + (events.div_ceil(PUBLISH_EVENTS) * PUBLISH_EVENTS) as u64;
        while seen.handled.load(Ordering::Acquire) < all {
            most_bytes = most_bytes.max(resident_bytes()?);
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let handled_in = start.elapsed();
        tree.drain(Duration::from_secs(5)).await;
        drop(tree.engine().close().await);
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (repeated, disordered) = (count(&seen.repeated), count(&seen.disordered));
        Ok(Peak {
            events: all - 1,
            published_in,
            longest_ack,
            handled_in,
            repeated,
            disordered,
            idle_bytes,
            most_bytes,
        })
    })
}
