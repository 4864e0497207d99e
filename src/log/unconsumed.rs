//! Counts the events of a topic that the slowest of some subscribers has not consumed. Writers update the count, so
//! that reading it costs one load for any number of partitions.
//!
//! ```text
//!   the appender: an end, a position ─┐   ┌─ share of partition 0 ─┐
//!   the checkpointer: a start ────────┴──>├─ share of partition 1 ─┼──> sum
//!                                         └─ …                     ┘
//! ```
//!
//! Promises: after each change, the writer recounts its partition under the lock of that share. So the sum equals a
//! full count once all writers have done that, and errors do not accumulate. Must not know: the reader of the count and
//! its purpose.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::{Lane, Log, Partition};
use crate::model::{LaneId, PartitionId, SubscriberId, TopicId};

/// A count, updated as long as this exists.
#[derive(Debug)]
pub struct UnconsumedCount {
    sum: Arc<AtomicU64>,
    /// Writers hold only weak references to them.
    _shares: Vec<Arc<Share>>,
}

impl UnconsumedCount {
    /// The retained events that the slowest subscriber has not consumed.
    pub fn count(&self) -> u64 {
        self.sum.load(Ordering::Acquire)
    }
}

/// The part of a count for one partition.
#[derive(Debug)]
struct Share {
    partition: Arc<Partition>,
    /// Of all subscribers; not empty.
    lanes: Vec<Arc<Lane>>,
    counted: Mutex<u64>,
    sum: Arc<AtomicU64>,
}

impl Share {
    fn count_anew(&self) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        // Positions first: a concurrent change can then only make the count too small, never negative.
        let slowest = self.lanes.iter().map(|lane| lane.position()).min().unwrap_or(0);
        let now = self.partition.written().saturating_sub(slowest.max(self.partition.start()));
        // The difference may wrap; the sum of all shares does not.
        self.sum.fetch_add(now.wrapping_sub(*counted), Ordering::AcqRel);
        *counted = now;
    }
}

/// The shares that depend on a value.
#[derive(Debug, Default)]
pub(super) struct Counts(Mutex<Vec<Weak<Share>>>);

impl Counts {
    /// Recounts after a change of the value.
    pub(super) fn count_anew(&self) {
        // The lock also orders the change with the first count of a new share.
        let shares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shares.iter().filter_map(Weak::upgrade).for_each(|share| share.count_anew());
    }

    fn add(&self, share: &Arc<Share>) {
        let mut shares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shares.retain(|share| share.strong_count() > 0);
        shares.push(Arc::downgrade(share));
    }
}

impl Log {
    /// Counts, from now on, the events of a topic that the slowest of these subscribers has not consumed.
    pub fn unconsumed(&self, topic: TopicId, partitions: u32, readers: &[SubscriberId]) -> UnconsumedCount {
        let sum = Arc::new(AtomicU64::new(0));
        let partitions = if readers.is_empty() { 0 } else { partitions };
        let share = |partition| {
            let lane = |subscriber| self.lane(LaneId { subscriber, partition });
            let share = Arc::new(Share {
                partition: self.partition(PartitionId { topic, partition }),
                lanes: readers.iter().copied().map(lane).collect(),
                counted: Mutex::new(0),
                sum: sum.clone(),
            });
            share.partition.counts().add(&share);
            share.lanes.iter().for_each(|lane| lane.counts.add(&share));
            share.count_anew();
            share
        };
        let shares = (0..partitions).map(share).collect();
        UnconsumedCount { sum, _shares: shares }
    }
}
