//! How far a subscriber is behind: in events, and in the age of the oldest of them.
//!
//! Promises: costs a look into memory for each lane. When an event was appended that is on the disk alone is read for
//! [`READS_MAX`] lanes of a subscriber at the most, those whose events may be the oldest, and is remembered for as long as the
//! lane stays where it is: so a paused subscriber is read once, however many partitions it has and however often somebody asks.

use super::Tree;
use crate::dispatch::lane::status::Counters;
use crate::engine::{Engine, TimeOf};
use crate::model::{LaneId, PartitionId, SubscriberId, TopicId};

/// Lanes of a subscriber for which the disk is read each time that somebody asks. Where that is not enough to tell which event
/// is the oldest, the age is that of the oldest one that is known.
const READS_MAX: usize = 4;

/// How far behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Lag {
    pub(crate) events: u64,
    /// When the oldest of them was appended, trusted time.
    pub(crate) oldest_ns: Option<u64>,
}

impl Lag {
    fn is_as_old_as(&mut self, time_ns: u64) {
        self.oldest_ns = Some(self.oldest_ns.map_or(time_ns, |oldest_ns| oldest_ns.min(time_ns)));
    }
}

impl<E: Engine> Tree<E> {
    /// Events of a topic with that number of partitions that a subscriber has yet to look at. Positions are read first.
    pub(crate) fn lag(
        &self,
        subscriber: SubscriberId,
        (topic, partitions): (TopicId, u32),
        counters: Option<&Counters>,
    ) -> Lag {
        let engine = self.engine();
        let position = |partition| engine.position(LaneId { subscriber, partition }).unwrap_or(0);
        let positions: Vec<_> = (0..partitions).map(position).collect();
        let (mut lag, mut unread) = (Lag::default(), Vec::new());
        for (partition, position) in (0..).zip(positions) {
            let id = PartitionId { topic, partition };
            let Some(bounds) = engine.bounds(id) else { continue };
            // what has expired is not to be looked at any more
            let next = position.max(bounds.start);
            if next >= bounds.written {
                continue;
            }
            lag.events += bounds.written - next;
            match engine.time_of(id, next) {
                Some(TimeOf::At(time_ns)) => lag.is_as_old_as(time_ns),
                Some(TimeOf::NotBefore(time_ns)) => {
                    match counters.and_then(|counters| counters.read_time_of(partition, next)) {
                        Some(time_ns) => lag.is_as_old_as(time_ns),
                        None => unread.push((time_ns, partition, next)),
                    }
                }
                None => {}
            }
        }
        unread.sort_unstable();
        for (not_before_ns, partition, next) in unread.into_iter().take(READS_MAX) {
            if lag.oldest_ns.is_some_and(|oldest_ns| oldest_ns <= not_before_ns) {
                break; // and so it is for those that follow
            }
            if let Ok(Some(time_ns)) = engine.read_time_of(PartitionId { topic, partition }, next) {
                lag.is_as_old_as(time_ns);
                counters.into_iter().for_each(|counters| counters.set_read_time_of(partition, next, time_ns));
            }
        }
        lag
    }
}
