//! The last sequence numbers of producers. Memory holds those since the last checkpoint and recently used ones; the
//! store holds all others.
//!
//! A topic may forget a producer, with all its numbers, after it has sent nothing for a while. A forgotten producer
//! must not be mistaken for a new one. The start time that a producer states, which is a part of its identity, tells
//! the two apart:
//!
//! ```text
//!   start     sends     sends                forgotten                 trusted time ──>
//!     │                   └ last seen: at this time, or at its start        │
//!     │                     if that is later                           floor: now minus the topic's period
//!     └ before the floor and unknown: refused
//! ```
//!
//! Promises: a producer is forgotten only when it was last seen before the floor, so it started before the floor. An
//! unknown producer that started at or after the floor is new. The floor never goes back: it is stored with each
//! deletion. Relies on: a producer's numbers grow across partitions. So a producer that its topic knows and a partition
//! does not is new to the partition, with a number above the last one that it sent to the topic.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;

use super::Settings;
use super::runs::RunLookup;
use super::store::{Changes, LastSequence, StoreError, StoreReader};
use crate::limits;
use crate::model::{PartitionId, ProducerId, TopicId};

/// A producer in a partition.
pub(super) type ProducerKey = (PartitionId, ProducerId);

/// Stands for all partitions of a topic together. Its row of a producer has the highest number of the last frame in
/// which the producer sent something to the topic, and in place of an offset the time at which it was last seen.
pub(super) fn whole(topic: TopicId) -> PartitionId {
    PartitionId { topic, partition: u32::MAX }
}

/// The rows of a producer for whole topics, after a frame with these last numbers.
pub(super) fn of_whole_topics(
    numbers: impl Iterator<Item = (PartitionId, u64)>,
    trusted_time_ns: u64,
    began_ns: u64,
) -> BTreeMap<TopicId, LastSequence> {
    let mut last = BTreeMap::new();
    for (id, sequence) in numbers {
        let known = last.entry(id.topic).or_insert(LastSequence { sequence, offset: trusted_time_ns.max(began_ns) });
        known.sequence = known.sequence.max(sequence);
    }
    last
}

/// The time before which producers of a topic are forgotten; 0: none is. `forgotten_ns` is the floor of earlier
/// deletions.
pub(super) fn floor_ns(forgotten_ns: Option<u64>, forget: Option<std::time::Duration>, now_ns: u64) -> u64 {
    let period_ns = |forget: std::time::Duration| u64::try_from(forget.as_nanos()).unwrap_or(u64::MAX);
    let by_age = forget.map(|forget| now_ns.saturating_sub(period_ns(forget)).max(1));
    forgotten_ns.max(by_age).unwrap_or(0)
}

/// Forgets producers, a few with each checkpoint.
#[derive(Debug, Default)]
pub(super) struct ProducerExpiry {
    /// Where the scan of each topic's producers continues.
    next: BTreeMap<TopicId, u128>,
}

impl ProducerExpiry {
    /// Deletes producers that were last seen before the floor of their topic and have no `pending` change. Scans a
    /// bounded number. `now_ns` is not later than any frame that is neither in the store nor pending: a producer in
    /// such a frame was seen at or after the floor, so it is not deleted.
    pub(super) fn forget(
        &mut self,
        settings: &Settings,
        now_ns: u64,
        store: &StoreReader,
        (pending, changes): (&Changes, &mut Changes),
        partitions: impl Fn(TopicId) -> Vec<PartitionId>,
    ) -> Result<(), StoreError> {
        // ordered, so that a simulation is deterministic
        let topics: BTreeMap<TopicId, u64> = settings
            .topics
            .iter()
            .filter(|(_, settings)| settings.forget_producers.is_some())
            .map(|(topic, settings)| (*topic, floor_ns(None, settings.forget_producers, now_ns)))
            .collect();
        for (topic, floor_ns) in topics {
            let from = self.next.remove(&topic).unwrap_or(0);
            let partitions = partitions(topic);
            let most =
                (limits::PRODUCERS_FORGOTTEN_ROWS / (partitions.len() + 1)).clamp(1, limits::PRODUCERS_LOOKED_AT);
            let page = store.producers(whole(topic), ProducerId(from), most)?;
            if let Some((ProducerId(last), _)) = page.get(most - 1)
                && let Some(next) = last.checked_add(1)
            {
                self.next.insert(topic, next);
            }
            let before = changes.producers_gone.len();
            for (producer, _) in page.into_iter().filter(|(_, last)| last.offset < floor_ns) {
                if !pending.producers.contains_key(&(whole(topic), producer)) {
                    let all = partitions.iter().copied().chain([whole(topic)]);
                    changes.producers_gone.extend(all.map(|partition| (partition, producer)));
                }
            }
            if changes.producers_gone.len() > before {
                changes.forgotten.insert(topic, floor_ns);
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
struct CachedSequence {
    last: LastSequence,
    /// End position of the frame with this number: the entry stays in memory until a checkpoint includes it. The
    /// maximum while its group is being made.
    position: u64,
    /// Used since the last check for eviction.
    is_used: bool,
}

/// The last numbers of producers.
#[derive(Debug, Default)]
pub(super) struct Producers {
    known: HashMap<ProducerKey, CachedSequence>,
    /// The producers in memory, in the order of eviction checks. Some may be evicted already.
    order: VecDeque<ProducerKey>,
    /// Of the group that is being made.
    open: Vec<ProducerKey>,
}

impl Producers {
    /// The last number of a producer. May read the store.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(super) fn last(&mut self, of: ProducerKey, look: &mut RunLookup<'_>) -> io::Result<Option<LastSequence>> {
        if let Some(known) = self.known.get_mut(&of) {
            known.is_used = true;
            return Ok(Some(known.last));
        }
        let stored = look.producer(of)?;
        if let Some(last) = stored {
            self.keep(of, CachedSequence { last, position: 0, is_used: true });
        }
        Ok(stored)
    }

    /// Sets the last number of a producer.
    pub(super) fn put(&mut self, of: ProducerKey, last: LastSequence) {
        self.open.push(of);
        self.keep(of, CachedSequence { last, position: u64::MAX, is_used: true });
    }

    /// Undoes [`Self::put`].
    pub(super) fn take_back(&mut self, of: ProducerKey, before: Option<LastSequence>) {
        match (self.known.get_mut(&of), before) {
            (Some(known), Some(before)) => known.last = before,
            _ => drop(self.known.remove(&of)),
        }
    }

    fn keep(&mut self, of: ProducerKey, known: CachedSequence) {
        if self.known.insert(of, known).is_none() {
            self.order.push_back(of);
        }
    }

    /// The group is written, up to this position.
    pub(super) fn written(&mut self, position: u64) {
        for of in self.open.drain(..) {
            if let Some(known) = self.known.get_mut(&of) {
                known.position = position;
            }
        }
    }

    /// Evicts entries that were not used recently while there are more than `max`. Entries after `sealed` in the
    /// journal are not in the store, and stay. Checks at most `most` entries.
    pub(super) fn release(&mut self, sealed: u64, max: usize, most: usize) {
        for _ in 0..most {
            if self.order.len() <= max {
                return;
            }
            let Some(of) = self.order.pop_front() else { return };
            let Some(known) = self.known.get_mut(&of) else { continue };
            if known.position > sealed || std::mem::take(&mut known.is_used) {
                self.order.push_back(of);
            } else {
                self.known.remove(&of);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use super::*;
    use crate::effects::{ManualClock, MemoryDisk};
    use crate::log::{Log, LogOptions, Stepper};
    use crate::model::{Mark, Slices, TopicSettings};

    fn of(number: u128) -> ProducerKey {
        (PartitionId { topic: TopicId(1), partition: 0 }, ProducerId(number))
    }

    #[test]
    fn what_is_in_the_store_goes_where_there_are_many_and_the_rest_stays() {
        let mut producers = Producers::default();
        for number in 0..10 {
            producers.put(of(number), LastSequence { sequence: 1, offset: 0 });
            producers.written(number as u64 + 1);
        }
        producers.put(of(3), LastSequence { sequence: 2, offset: 5 });
        producers.release(0, 2, 100);
        assert_eq!(producers.known.len(), 10, "nothing is in the store");
        producers.release(6, 2, 100);
        let mut left: Vec<u128> = producers.known.keys().map(|(_, producer)| producer.0).collect();
        left.sort_unstable();
        assert_eq!(left, [3, 6, 7, 8, 9], "one of them has a later number");
        producers.written(11);
        producers.release(11, 2, 100);
        assert_eq!((producers.known.len(), producers.order.len()), (2, 2));
    }

    #[test]
    fn rows_go_with_their_producers_a_bounded_number_with_each_checkpoint() {
        const PRODUCERS: usize = 3 * limits::PRODUCERS_LOOKED_AT / 2;
        const ELSEWHERE: PartitionId = PartitionId { topic: TopicId(1), partition: 1 };
        const PERIOD: Duration = Duration::from_secs(3600);
        let hands = Arc::new(ManualClock::default());
        let options = LogOptions { file_bytes: 1 << 20, ..LogOptions::default() };
        let (log, _, mut stepper) = Log::open_stepped(Arc::new(MemoryDisk::default()), hands.clone(), options).unwrap();
        let topic = TopicSettings { forget_producers: Some(PERIOD), ..TopicSettings::default() };
        log.configure(Settings { topics: [(TopicId(1), topic)].into(), ..Settings::default() });
        let send = |stepper: &mut Stepper, producer: usize, began_ns: u64| {
            let mut slices = Slices::default();
            for (partition, number) in [(of(0).0, 1), (ELSEWHERE, 2)] {
                slices.push_marked(partition, Mark::Sequence(number), |_| Ok::<_, ()>(())).unwrap();
            }
            slices.set_producer(ProducerId(producer as u128));
            slices.set_began(began_ns);
            let mut ticket = log.append(slices).unwrap();
            stepper.append();
            stepper.sync();
            ticket.try_recv().unwrap().unwrap();
        };
        let rows = |partition| log.shared.entries.producers(partition, ProducerId(0), usize::MAX).unwrap().len();
        (0..PRODUCERS).for_each(|producer| send(&mut stepper, producer, 1));
        assert!(stepper.checkpoint());
        assert_eq!([rows(of(0).0), rows(ELSEWHERE), rows(whole(TopicId(1)))], [PRODUCERS; 3]);
        hands.0.store(PERIOD.as_nanos() as u64 + 2, Ordering::Relaxed);
        for (number, left) in (0..).zip([PRODUCERS - limits::PRODUCERS_LOOKED_AT + 1, 2, 3]) {
            send(&mut stepper, PRODUCERS + number, 2);
            assert!(stepper.checkpoint());
            assert_eq!([rows(of(0).0), rows(ELSEWHERE), rows(whole(TopicId(1)))], [left; 3], "{number}");
        }
    }
}
