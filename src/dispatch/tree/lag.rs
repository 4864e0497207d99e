//! Lag of a subscriber: the number of unhandled events, and the age of the oldest.
//!
//! For a member of a queue group, events that other members have claimed do not count.
//!
//! Promises: one memory lookup per lane, and for a member of a group two pages of claims. If the append time of an
//! event is only on disk, it is read for at most [`READS_MAX`] lanes per subscriber, those with the oldest candidates,
//! and cached until the lane advances: a paused subscriber is read once, however many partitions it has and however
//! often its lag is queried.

use super::Tree;
use crate::dispatch::lane::claims;
use crate::dispatch::lane::status::Counters;
use crate::engine::{Engine, TimeOf};
use crate::model::{LaneId, PartitionId, SubscriberId, TopicId};

/// Lanes of a subscriber for which one query reads the disk. If the oldest event is still unknown after that, the
/// reported age is that of the oldest event whose time is known.
const READS_MAX: usize = 4;

/// Lag of a subscriber.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lag {
    pub(crate) events: u64,
    /// Append time of the oldest unhandled event, trusted time.
    pub(crate) oldest_ns: Option<u64>,
}

impl Lag {
    fn is_as_old_as(&mut self, time_ns: u64) {
        self.oldest_ns = Some(self.oldest_ns.map_or(time_ns, |oldest_ns| oldest_ns.min(time_ns)));
    }
}

impl<E: Engine> Tree<E> {
    /// Unhandled events of a subscriber in a topic with `partitions` partitions; `keeper` stores the claims of its
    /// group, if any. Reads the positions before the bounds.
    pub(crate) fn lag(
        &self,
        subscriber: SubscriberId,
        (topic, partitions): (TopicId, u32),
        (counters, keeper): (Option<&Counters>, Option<SubscriberId>),
    ) -> Lag {
        let engine = self.engine();
        let position = |partition| engine.position(LaneId { subscriber, partition }).unwrap_or(0);
        let positions: Vec<_> = (0..partitions).map(position).collect();
        let (mut lag, mut unread) = (Lag::default(), Vec::new());
        for (partition, position) in (0..).zip(positions) {
            let id = PartitionId { topic, partition };
            let Some(bounds) = engine.bounds(id) else { continue };
            // expired events do not count
            let next = position.max(bounds.start);
            if next >= bounds.written {
                continue;
            }
            let claims = keeper.and_then(|keeper| engine.entries(LaneId { subscriber: keeper, partition }));
            let left = claims.and_then(|claims| claims::left_for(&claims, subscriber, next..bounds.written).ok()?);
            let (events, next) = match left {
                Some((_, None)) => continue,
                Some((events, Some(first))) => (events, first),
                None => (bounds.written - next, next),
            };
            lag.events += events;
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
                break; // the rest is sorted, and no older
            }
            if let Ok(Some(time_ns)) = engine.read_time_of(PartitionId { topic, partition }, next) {
                lag.is_as_old_as(time_ns);
                counters.into_iter().for_each(|counters| counters.set_read_time_of(partition, next, time_ns));
            }
        }
        lag
    }
}
