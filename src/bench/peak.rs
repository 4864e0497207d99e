//! Measures what a burst beyond the slowest subscriber's rate costs producers and memory, and checks the order.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::memory::resident_bytes;
use super::{BenchError, Subject, fresh, runtime, sample};
use crate::dispatch::Tree;
use crate::engine::Engine;
use crate::engine::embedded::{Durability, EmbeddedEngine};
use crate::model::call::{Batch, HandleError, Handled, Handler};
use crate::wasm::Plugin;

/// Events per publish; each publish follows the ack of the previous one.
const PUBLISH_EVENTS: usize = 1_000;
/// How often memory and progress are checked.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Peak rates, in events per second.
#[derive(Debug, Clone, Copy)]
pub struct Peak {
    /// Events of the burst.
    pub events: u64,
    /// Duration of the burst, from the first publish to the last ack.
    pub published_in: Duration,
    /// The longest wait for the ack of a publish.
    pub longest_ack: Duration,
    /// How long the slowest subscriber took for all events.
    pub handled_in: Duration,
    /// Resident memory of the process when everything has started and nothing is published.
    pub idle_bytes: u64,
    /// The maximum from then until all events were handled.
    pub most_bytes: u64,
}

/// The orders that the slowest subscriber got.
struct Tally {
    /// Distinct orders.
    handled: AtomicU64,
    /// Repeated orders.
    repeated: AtomicU64,
    /// Orders that arrived for the first time after a later one of their partition.
    disordered: AtomicU64,
    /// One bit per order number that has arrived.
    come: Vec<AtomicU64>,
    /// By partition, the highest number so far: numbers ascend.
    last: Mutex<HashMap<u32, u64>>,
}

impl Tally {
    /// An empty tally of orders with numbers below `numbers`.
    fn below(numbers: usize) -> Self {
        let [handled, repeated, disordered] = [0; 3].map(AtomicU64::new);
        let come = (0..numbers.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Self { handled, repeated, disordered, come, last: Mutex::default() }
    }

    /// Adds orders in the order of their arrival.
    fn add(&self, partition: u32, numbers: impl Iterator<Item = u64>) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let last = last.entry(partition).or_default();
        let mut new = 0;
        for number in numbers {
            let bit = 1 << (number % 64);
            let word = self.come.get((number / 64) as usize);
            let is_new = word.is_some_and(|word| word.fetch_or(bit, Ordering::Relaxed) & bit == 0);
            match (is_new, number > *last) {
                (false, _) => drop(self.repeated.fetch_add(1, Ordering::Relaxed)),
                (true, true) => *last = number,
                (true, false) => drop(self.disordered.fetch_add(1, Ordering::Relaxed)),
            }
            new += u64::from(is_new);
        }
        self.handled.fetch_add(new, Ordering::Release);
    }

    /// Checks that each order came once, and in order.
    fn check(&self) -> Result<(), BenchError> {
        let [repeated, disordered] = [&self.repeated, &self.disordered].map(|count| count.load(Ordering::Acquire));
        match (repeated, disordered) {
            (0, 0) => Ok(()),
            _ => Err(BenchError::Broken(format!("{repeated} orders arrived again, {disordered} out of order"))),
        }
    }
}

/// A plugin that reports its events to a tally.
#[derive(Clone)]
struct ObservedPlugin {
    plugin: Plugin,
    seen: Option<Arc<Tally>>,
}

impl Handler for ObservedPlugin {
    fn digest(&self) -> [u8; 32] {
        Handler::digest(&self.plugin)
    }

    async fn handle(&self, batch: Batch<'_>) -> Result<Handled, HandleError> {
        let (partition, events) = (batch.partition, batch.events);
        let handled = Handler::handle(&self.plugin, batch).await?;
        if let Some(seen) = &self.seen {
            let done = handled.unfinished().map_or(events.len(), |(at, _)| at);
            let number = |key: &str| key.rsplit('-').next().and_then(|digits| digits.parse().ok()).unwrap_or(0);
            seen.add(partition, events.iter().take(done).map(|event| number(event.key)));
        }
        Ok(handled)
    }
}

/// Publishes `events` orders in process, as fast as possible, and waits until the subscriber with the lowest `rate` has
/// handled each of them once and in order.
///
/// # Errors
/// [`BenchError`]; [`BenchError::Unfit`] if no subscriber has a rate, [`BenchError::Broken`] if it got orders
/// repeatedly or out of order.
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
    let seen = Arc::new(Tally::below(2 + events.div_ceil(PUBLISH_EVENTS) * PUBLISH_EVENTS));
    let observe = |(index, plugin): (usize, &Plugin)| {
        let seen = (index == slowest).then(|| seen.clone());
        ObservedPlugin { plugin: plugin.clone(), seen }
    };
    let handlers = subject.plugins.iter().enumerate().map(observe).collect();
    lanes.block_on(async {
        let engine = EmbeddedEngine::open(&folder, Durability::Sync)?;
        let tree = Tree::start(engine, &subject.plan, handlers, lanes.handle()).await?;
        // one event first, so that one-time setup counts as idle
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
        seen.check()?;
        Ok(Peak { events: all - 1, published_in, longest_ack, handled_in, idle_bytes, most_bytes })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_again_and_what_comes_late_are_told_apart() {
        let seen = Tally::below(100);
        seen.add(0, [1, 2, 5].into_iter());
        seen.add(1, [3, 4].into_iter());
        seen.check().unwrap();
        // an earlier batch again, then an order that was skipped
        seen.add(0, [1, 2, 5, 7, 6].into_iter());
        let counts = [&seen.handled, &seen.repeated, &seen.disordered].map(|count| count.load(Ordering::Relaxed));
        assert_eq!(counts, [7, 3, 1]);
        assert!(matches!(seen.check(), Err(BenchError::Broken(_))));
    }
}
