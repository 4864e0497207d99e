//! What was published already: the one place that decides it, in append order.
//!
//! - An event from outside is recognised by its identity (a hash of `source` and `id`) for as long as the topic's settings
//!   say, by time and by count of later events.
//! - A producer that numbers what it sends is recognised by its last number in each partition, for ever.
//! - What is new and guarded has a verdict of its guard; a refusal is for all that it came with.
//!
//! Promises: the verdict is taken once, by the appender, and is in the journal: what comes again has no frame. A replay
//! notes what the frames say and judges nothing.
//! Memory: some 80 bytes for each event that is recognised, bounded by the topics' counts; 50 for each producer and
//! partition.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use super::frame::Kept;
use super::guards::Guards;
use super::store::{Contents, Recognised, Sequenced};
use crate::model::{
    Dedupe, Duplicate, EventId, GuardRefused, Offset, PartitionId, ProducerId, Slices, TopicId, TopicSettings,
};

/// Identities are hashes already.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, identity: u128) {
        self.0 = identity as u64;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    partition: u32,
    offset: Offset,
}

/// Identity, place and append time of an event that is recognised.
type Noticed = (u128, Place, u64);

/// What is recognised in one topic.
#[derive(Default)]
struct Window {
    places: HashMap<u128, Place, BuildHasherDefault<Spread>>,
    /// Oldest first.
    order: VecDeque<Noticed>,
}

impl Window {
    /// Forgets what is past a bound, and tells it to `gone`, oldest first.
    fn forget(&mut self, settings: Dedupe, now_ns: u64, mut gone: Option<&mut Vec<Noticed>>) {
        let window_ns = u64::try_from(settings.window.as_nanos()).unwrap_or(u64::MAX);
        let horizon_ns = now_ns.saturating_sub(window_ns);
        while let Some((identity, place, time_ns)) = self.order.front()
            && (*time_ns < horizon_ns || self.order.len() > settings.count as usize)
        {
            // unless it was forgotten before, and published again
            if self.places.get(identity) == Some(place) {
                self.places.remove(identity);
            }
            if let (Some(noticed), Some(gone)) = (self.order.pop_front(), &mut gone) {
                gone.push(noticed);
            }
        }
    }

    /// Notes an event that is stored. One of the same identity in front of it had been forgotten, so this one counts.
    fn note(&mut self, identity: u128, place: Place, append_time_ns: u64) {
        self.places.insert(identity, place);
        self.order.push_back((identity, place, append_time_ns));
    }
}

/// What was noted of some records.
#[derive(Default)]
struct Noted {
    /// For each slice, how many at the end of the window, and what that forgot for them.
    identities: Vec<(TopicId, usize, Vec<Noticed>)>,
    /// What was there before.
    producers: Vec<((PartitionId, ProducerId), Option<Sequenced>)>,
}

/// The memory of what was published.
#[derive(Default)]
pub(super) struct Sequencer {
    windows: HashMap<TopicId, Window>,
    producers: HashMap<(PartitionId, ProducerId), Sequenced>,
}

impl Sequencer {
    /// As of a checkpoint.
    pub(super) fn load(contents: &mut Contents) -> Self {
        let mut sequencer = Self { producers: std::mem::take(&mut contents.producers), ..Self::default() };
        for (topic, brought) in &mut contents.identities {
            for (_, events) in brought {
                for Recognised { identity, partition, offset, append_time_ns } in std::mem::take(events) {
                    let window = sequencer.windows.entry(*topic).or_default();
                    window.note(identity, Place { partition, offset }, append_time_ns);
                }
            }
        }
        sequencer
    }

    /// Takes out what was published before and notes the rest, unless a guard refuses one of those. `settings` are a topic's,
    /// `next_offset` is that of a partition's next record, `guards` knows the lifecycles. What partitions keep for it.
    pub(super) fn judge(
        &mut self,
        slices: &mut Slices,
        now_ns: u64,
        guards: &Guards<'_>,
        settings: impl Fn(TopicId) -> TopicSettings,
        next_offset: impl FnMut(PartitionId) -> Offset,
    ) -> Result<(Vec<Duplicate>, Vec<Kept>), GuardRefused> {
        let (duplicates, noted) = self.note_new(slices, now_ns, settings, next_offset);
        let kept = match guards.judge(slices, &duplicates) {
            Ok(kept) => kept,
            Err(refused) => {
                self.forget(noted);
                return Err(refused);
            }
        };
        let mut rest = duplicates.as_slice();
        while let Some(first) = rest.first() {
            let (of_slice, others) = rest.split_at(rest.partition_point(|other| other.slice == first.slice));
            let records: Vec<u32> = of_slice.iter().map(|duplicate| duplicate.record).collect();
            slices.leave_out(first.slice as usize, &records);
            rest = others;
        }
        Ok((duplicates, kept))
    }

    /// Takes back what was noted for records that are refused.
    fn forget(&mut self, noted: Noted) {
        for (topic, count, gone) in noted.identities.into_iter().rev() {
            let Some(window) = self.windows.get_mut(&topic) else { continue };
            for (identity, ..) in window.order.drain(window.order.len().saturating_sub(count)..) {
                window.places.remove(&identity);
            }
            // it was past a bound only because of those
            for noticed in gone.into_iter().rev() {
                window.places.entry(noticed.0).or_insert(noticed.1);
                window.order.push_front(noticed);
            }
        }
        for (of, before) in noted.producers.into_iter().rev() {
            match before {
                Some(before) => drop(self.producers.insert(of, before)),
                None => drop(self.producers.remove(&of)),
            }
        }
    }

    /// Finds what was published before and notes the rest.
    fn note_new(
        &mut self,
        slices: &Slices,
        now_ns: u64,
        settings: impl Fn(TopicId) -> TopicSettings,
        mut next_offset: impl FnMut(PartitionId) -> Offset,
    ) -> (Vec<Duplicate>, Noted) {
        let mut duplicates: Vec<Duplicate> = Vec::new();
        let mut noted = Noted::default();
        // only a guard takes anything back
        let is_guarded = slices.is_guarded();
        let producer = slices.producer();
        for (number, slice) in slices.iter().enumerate() {
            let id = slice.partition;
            let known = duplicates.len();
            let mut offset = None;
            let mut next = || *offset.get_or_insert_with(|| next_offset(id));
            let mut found = |record: usize, partition, offset| {
                duplicates.push(Duplicate { slice: number as u32, record: record as u32, partition, offset });
                (duplicates.len() - known) as Offset
            };
            let mut gone = 0;
            if let Some(producer) = producer {
                let last = self.producers.get(&(id, producer)).copied();
                let mut reached = last;
                for (record, sequence) in slice.sequences.iter().enumerate() {
                    match reached {
                        Some(before) if *sequence <= before.sequence => {
                            let offset = (*sequence == before.sequence).then_some(before.offset);
                            gone = found(record, id.partition, offset);
                        }
                        _ => {
                            let offset = next() + record as Offset - gone;
                            reached = Some(Sequenced { sequence: *sequence, offset });
                        }
                    }
                }
                if let Some(reached) = reached {
                    self.producers.insert((id, producer), reached);
                    noted.producers.push(((id, producer), last));
                }
            } else if let Some(dedupe) = settings(id.topic).dedupe
                && !slice.identities.is_empty()
            {
                let window = self.windows.entry(id.topic).or_default();
                let mut forgotten = Vec::new();
                window.forget(dedupe, now_ns, is_guarded.then_some(&mut forgotten));
                let known = window.order.len();
                for (record, EventId(identity)) in slice.identities.iter().enumerate() {
                    match window.places.entry(*identity) {
                        Entry::Occupied(first) => {
                            let first = *first.get();
                            gone = found(record, first.partition, Some(first.offset));
                        }
                        Entry::Vacant(vacant) => {
                            let offset = next() + record as Offset - gone;
                            let place = Place { partition: id.partition, offset };
                            vacant.insert(place);
                            window.order.push_back((*identity, place, now_ns));
                        }
                    }
                }
                noted.identities.push((id.topic, window.order.len() - known, forgotten));
            }
        }
        (duplicates, noted)
    }

    /// Notes what a frame brought, in a replay.
    pub(super) fn note(
        &mut self,
        partition: PartitionId,
        identities: impl Iterator<Item = EventId>,
        base_offset: Offset,
        append_time_ns: u64,
    ) {
        for (EventId(identity), offset) in identities.zip(base_offset..) {
            let window = self.windows.entry(partition.topic).or_default();
            window.note(identity, Place { partition: partition.partition, offset }, append_time_ns);
        }
    }

    /// Notes the last number of a producer in a frame, in a replay.
    pub(super) fn note_sequence(&mut self, partition: PartitionId, producer: ProducerId, last: Sequenced) {
        self.producers.insert((partition, producer), last);
    }
}
