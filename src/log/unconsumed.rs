//! How many events of a topic the slowest of some subscribers has yet to consume: kept by those who change it, so that
//! anyone asks with one load, however many partitions there are.
//!
//! ```text
//!   the appender: an end, a position ─┐   ┌─ share of partition 0 ─┐
//!   the checkpointer: a start ────────┴──>├─ share of partition 1 ─┼──> sum
//!                                         └─ …                     ┘
//! ```
//!
//! Promises: whoever moves something counts its partition anew, behind the move and under the lock of that share, so the sum
//! is what a count of everything would say once they have, and no difference is ever carried on.
//! Must not know: who asks, what for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::{Lane, Log, Partition};
use crate::model::{LaneId, PartitionId, SubscriberId, TopicId};

/// A count that is kept for as long as this lives.
#[derive(Debug)]
pub struct Unconsumed {
    sum: Arc<AtomicU64>,
    /// What moves knows them only as long as they are here.
    _shares: Vec<Arc<Share>>,
}

impl Unconsumed {
    /// The events that the slowest subscriber has yet to consume, of those that are kept.
    pub fn count(&self) -> u64 {
        self.sum.load(Ordering::Acquire)
    }
}

/// One partition's part of a count.
#[derive(Debug)]
struct Share {
    partition: Arc<Partition>,
    /// Of all subscribers; there is one at least.
    lanes: Vec<Arc<Lane>>,
    counted: Mutex<u64>,
    sum: Arc<AtomicU64>,
}

impl Share {
    fn count_anew(&self) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        // Positions first: what is consumed meanwhile makes room, and never the other way round.
        let slowest = self.lanes.iter().map(|lane| lane.position()).min().unwrap_or(0);
        let now = self.partition.written().saturating_sub(slowest.max(self.partition.start()));
        // The sum wraps where it goes down; all of it together never does.
        self.sum.fetch_add(now.wrapping_sub(*counted), Ordering::AcqRel);
        *counted = now;
    }
}

/// The shares in which something counts.
#[derive(Debug, Default)]
pub(super) struct Counts(Mutex<Vec<Weak<Share>>>);

impl Counts {
    /// It has moved.
    pub(super) fn count_anew(&self) {
        // The lock also orders the move and the first count of a share that is only just added.
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
    /// Counts what the slowest of some subscribers has yet to consume of a topic, from now on.
    pub fn unconsumed(&self, topic: TopicId, partitions: u32, readers: &[SubscriberId]) -> Unconsumed {
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
        Unconsumed { sum, _shares: shares }
    }
}
