//! Deduplication: decides which records were published before, in append order.
//!
//! - An event from outside is identified by a hash of `source` and `id`, within the time window of the topic's settings
//!   and, if they limit it, a number of later events.
//! - A producer that numbers its events is identified by its last number in each partition, for ever, or until its
//!   topic forgets it: then it is refused.
//! - New records with a guard are judged by it; a refusal applies to the whole append.
//!
//! Promises: the appender decides once, and the journal contains the result: duplicates have no frame. A replay applies
//! the frames and decides nothing. Memory: identities since the last checkpoint ([`Window`]), filters over those in the
//! store (`runs.rs`), and the last numbers of recently active producers ([`Producers`]).

use std::collections::{BTreeMap, VecDeque};
use std::io;

use super::filter::TOUCHED_MAX;
use super::frame::PartitionEntries;
use super::guards::Guards;
use super::identities::old_batches;
use super::producers::{ProducerKey, Producers, of_whole_topics, whole};
use super::queue::AppendRefusal;
use super::runs::{Hashing, Horizon, RunLookup};
use super::store::{Contents, LastSequence};
use super::window::{Batch, EventPlace, Undo, Window};
use crate::model::{
    DivertedRecord, Duplicate, EventId, Guard, Offset, PartitionId, ProducerId, ProducerUnknown, Slices, TopicId,
    TopicSettings,
};

/// Identities that each call removes from memory, in addition to twice the number that it adds: so memory shrinks under
/// load.
const RELEASED_AT_ONCE: usize = 64;

/// Producers that are checked while the log is idle.
const RELEASED_AT_IDLE: usize = 100_000;

/// The duplicates, the changed entries of partitions, and the records to set aside.
pub(super) type Judgement = (Vec<Duplicate>, Vec<PartitionEntries>, Vec<DivertedRecord>);

/// What was recorded for some records, in order to undo it.
#[derive(Default)]
struct AppendUndo {
    /// Of each slice.
    identities: Vec<(TopicId, Undo)>,
    /// The previous values.
    producers: Vec<(ProducerKey, Option<LastSequence>)>,
}

/// The identities and numbers that were published.
pub(super) struct Sequencer {
    hashing: Hashing,
    /// Ordered, so that a simulation is deterministic.
    windows: BTreeMap<TopicId, Window>,
    /// Topics with identities in the group that is being made; may contain repetitions.
    open: Vec<TopicId>,
    /// Everything before this position is in the store.
    sealed_position: u64,
    /// Topics that still have such identities in memory.
    sealed: VecDeque<TopicId>,
    producers: Producers,
}

impl Sequencer {
    /// The state as of a checkpoint.
    pub(super) fn load(contents: &Contents, hashing: Hashing) -> Self {
        let windows = contents.runs.iter().map(|(topic, runs)| (*topic, Window::from(runs.next_number())));
        let mut windows: BTreeMap<TopicId, Window> = windows.collect();
        for (topic, batch) in old_batches(contents) {
            windows.entry(topic).or_default().add(batch, contents.checkpoint.link.position, &hashing);
        }
        let producers = Producers::default();
        Self { hashing, windows, open: Vec::new(), sealed_position: 0, sealed: VecDeque::new(), producers }
    }

    /// Removes duplicates from `slices` and records the other identities, unless a guard refuses one of the new
    /// records. `settings` returns a topic's settings, `next_offset` the next offset of a partition; `guards` has the
    /// lifecycles, `look` reads the store.
    ///
    /// # Errors
    /// The store cannot be read, or the call would have to wait: then nothing is recorded. The inner error says why the
    /// append was refused.
    pub(super) fn judge(
        &mut self,
        slices: &mut Slices,
        now_ns: u64,
        guards: &Guards<'_>,
        look: &mut RunLookup<'_>,
        settings: impl Fn(TopicId) -> TopicSettings,
        mut next_offset: impl FnMut(PartitionId) -> Offset,
    ) -> io::Result<Result<Judgement, AppendRefusal>> {
        self.release(look.position(), RELEASED_AT_ONCE + 2 * slices.count());
        let mut noted = AppendUndo::default();
        let new = match self.note_new(slices, now_ns, look, &settings, &mut next_offset, &mut noted) {
            Ok(new) => new,
            Err(error) => {
                self.forget(noted);
                return Err(error);
            }
        };
        let known = new.as_ref().map_or(0, Vec::len);
        let judged = new.map_err(AppendRefusal::Producer).and_then(|mut duplicates| {
            let judged = guards.judge(slices, &mut duplicates, &mut next_offset).map_err(AppendRefusal::Guard);
            judged.map(|(kept, aside)| (duplicates, kept, aside))
        });
        let (mut duplicates, kept, mut aside) = match judged {
            Ok(judged) => judged,
            Err(refused) => {
                self.forget(noted);
                return Ok(Err(refused));
            }
        };
        slices.sort_out(&mut duplicates, &mut aside, &mut next_offset);
        if !aside.is_empty() || duplicates.len() > known {
            // Some records are duplicates after all or move elsewhere, which changes offsets: record again, as a replay
            // will.
            self.forget(noted);
            let mut numbers = Vec::new();
            for slice in slices.iter().filter(|slice| slice.count > 0) {
                let (id, base) = (slice.partition, next_offset(slice.partition));
                if settings(id.topic).dedupe.is_some() {
                    self.note(id, slice.identities.iter().copied(), base, now_ns);
                }
                if let (Some(producer), Some(sequence)) = (slices.producer(), slice.sequences.last()) {
                    let offset = base + Offset::from(slice.count) - 1;
                    self.note_sequence(id, producer, LastSequence { sequence: *sequence, offset });
                    numbers.push((id, *sequence));
                }
            }
            if let Some(producer) = slices.producer() {
                self.note_in_topics(numbers.into_iter(), producer, now_ns, slices.began_ns().unwrap_or(0));
            }
        }
        Ok(Ok((duplicates, kept, aside)))
    }

    /// Undoes the records of a refused append.
    fn forget(&mut self, noted: AppendUndo) {
        for (topic, undo) in noted.identities.into_iter().rev() {
            if let Some(window) = self.windows.get_mut(&topic) {
                window.take_back(undo, &self.hashing);
            }
        }
        for (of, before) in noted.producers.into_iter().rev() {
            self.producers.take_back(of, before);
        }
    }

    /// Finds duplicates and records the other identities.
    fn note_new(
        &mut self,
        slices: &Slices,
        now_ns: u64,
        look: &mut RunLookup<'_>,
        settings: impl Fn(TopicId) -> TopicSettings,
        mut next_offset: impl FnMut(PartitionId) -> Offset,
        noted: &mut AppendUndo,
    ) -> io::Result<Result<Vec<Duplicate>, ProducerUnknown>> {
        let mut duplicates: Vec<Duplicate> = Vec::new();
        let (producer, began_ns) = (slices.producer(), slices.began_ns().unwrap_or(0));
        let mut numbers = Vec::new();
        for (number, slice) in slices.iter().enumerate() {
            let id = slice.partition;
            // records that were set aside are known in their other topic
            let elsewhere = || slice.guards.first().into_iter().flat_map(Guard::elsewhere);
            let known = duplicates.len();
            let mut offset = None;
            let mut next = || *offset.get_or_insert_with(|| next_offset(id));
            let mut found = |record: usize, partition, offset| {
                duplicates.push(Duplicate { slice: number as u32, record: record as u32, partition, offset });
                (duplicates.len() - known) as Offset
            };
            let mut gone = 0;
            if let Some(producer) = producer {
                let in_topic = self.producers.last((whole(id.topic), producer), look)?;
                let forget = settings(id.topic).forget_producers;
                let floor_ns = look.floor_ns(id.topic, forget, now_ns);
                // treated as forgotten whether or not the store still has it
                let is_forgotten = in_topic.is_some_and(|last| last.offset < floor_ns);
                let last = match in_topic {
                    _ if is_forgotten => None,
                    Some(_) => self.producers.last((id, producer), look)?,
                    // memory may still have a producer that the store has forgotten
                    None => look.producer((id, producer))?,
                };
                let in_topic = in_topic.filter(|_| !is_forgotten);
                let mut reached = last;
                let mut reached_aside = None;
                for aside in elsewhere() {
                    let last = self.producers.last((aside, producer), look)?.map(|last| last.sequence);
                    reached_aside = reached_aside.max(last);
                }
                for (record, sequence) in slice.sequences.iter().enumerate() {
                    match reached {
                        _ if reached_aside.is_some_and(|reached| *sequence <= reached)
                            && reached.is_none_or(|before| *sequence > before.sequence) =>
                        {
                            gone = found(record, id.partition, None);
                        }
                        Some(before) if *sequence <= before.sequence => {
                            let offset = (*sequence == before.sequence).then_some(before.offset);
                            gone = found(record, id.partition, offset);
                        }
                        _ => {
                            let floor_ns = look.floor_ns(id.topic, forget, now_ns);
                            if reached.is_none()
                                && began_ns < floor_ns
                                && in_topic.is_none_or(|last| *sequence <= last.sequence)
                            {
                                return Ok(Err(ProducerUnknown { partition: id, since_ns: floor_ns }));
                            }
                            let offset = next() + record as Offset - gone;
                            reached = Some(LastSequence { sequence: *sequence, offset });
                        }
                    }
                }
                if let Some(reached) = reached.filter(|reached| last != Some(*reached)) {
                    self.producers.put((id, producer), reached);
                    noted.producers.push(((id, producer), last));
                    numbers.push((id, reached.sequence));
                }
            } else if let Some(dedupe) = settings(id.topic).dedupe
                && !slice.identities.is_empty()
            {
                let horizon = Horizon::new(dedupe, now_ns, self.windows.entry(id.topic).or_default().next_number());
                noted.identities.push((id.topic, Undo::default()));
                let Some((_, undo)) = noted.identities.last_mut() else { continue };
                let asides = elsewhere().map(|aside| aside.topic).chain(slice.known_in);
                let asides: Vec<TopicId> = asides.filter(|topic| self.windows.contains_key(topic)).collect();
                let hashes: Vec<u64> = slice.identities.iter().map(|id| self.hashing.hash(id.0)).collect();
                for (record, (EventId(identity), hash)) in slice.identities.iter().zip(&hashes).enumerate() {
                    let hash = *hash;
                    if record % TOUCHED_MAX == 0 && hashes.len() > 1 {
                        let next = hashes.get(record..hashes.len().min(record + TOUCHED_MAX)).unwrap_or_default();
                        look.touch(id.topic, next);
                        self.windows.entry(id.topic).or_default().touch(next);
                    }
                    let mut is_aside = false;
                    for aside in &asides {
                        let Some(window) = self.windows.get(aside) else { continue };
                        let horizon = Horizon::new(dedupe, now_ns, window.next_number());
                        let found_aside = match window.find(*identity, hash, horizon) {
                            Some(found) => found,
                            None => look.find(*aside, *identity, hash, horizon)?,
                        };
                        is_aside |= found_aside.is_some();
                    }
                    if is_aside {
                        gone = found(record, id.partition, None);
                        continue;
                    }
                    let window = self.windows.entry(id.topic).or_default();
                    let first = match window.find(*identity, hash, horizon) {
                        Some(found) => found,
                        None => look.find(id.topic, *identity, hash, horizon)?,
                    };
                    match first {
                        Some(first) => gone = found(record, first.partition, Some(first.offset)),
                        None => {
                            let offset = next() + record as Offset - gone;
                            let place = EventPlace { partition: id.partition, offset };
                            window.note(*identity, hash, place, now_ns, undo);
                        }
                    }
                }
                self.open.push(id.topic);
            }
        }
        if let Some(producer) = producer {
            // after all slices, because each is judged by the state before the append
            for (topic, last) in of_whole_topics(numbers.into_iter(), now_ns, began_ns) {
                let of = (whole(topic), producer);
                noted.producers.push((of, self.producers.last(of, look)?));
                self.producers.put(of, last);
            }
        }
        Ok(Ok(duplicates))
    }

    /// Records the identities of a frame, in a replay.
    pub(super) fn note(
        &mut self,
        partition: PartitionId,
        identities: impl Iterator<Item = EventId>,
        base_offset: Offset,
        trusted_time_ns: u64,
    ) {
        for (EventId(identity), offset) in identities.zip(base_offset..) {
            if self.open.last() != Some(&partition.topic) {
                self.open.push(partition.topic);
            }
            let window = self.windows.entry(partition.topic).or_default();
            let place = EventPlace { partition: partition.partition, offset };
            window.note(identity, self.hashing.hash(identity), place, trusted_time_ns, &mut Undo::default());
        }
    }

    /// Records the last number of a producer in a frame, in a replay.
    pub(super) fn note_sequence(&mut self, partition: PartitionId, producer: ProducerId, last: LastSequence) {
        self.producers.put((partition, producer), last);
    }

    /// Records the last numbers of a producer for whole topics, in a replay.
    pub(super) fn note_in_topics(
        &mut self,
        numbers: impl Iterator<Item = (PartitionId, u64)>,
        producer: ProducerId,
        trusted_time_ns: u64,
        began_ns: u64,
    ) {
        for (topic, last) in of_whole_topics(numbers, trusted_time_ns, began_ns) {
            self.producers.put((whole(topic), producer), last);
        }
    }

    /// The group is written, up to this position. Returns the identities that it added.
    pub(super) fn written(&mut self, position: u64) -> Vec<(TopicId, Batch)> {
        self.producers.written(position);
        let windows = &mut self.windows;
        let batch = |topic| Some((topic, windows.get_mut(&topic)?.written(position)?));
        self.open.drain(..).filter_map(batch).collect()
    }

    /// Removes about `most` identities from memory that are in the store by a checkpoint at `position`.
    pub(super) fn release(&mut self, position: u64, most: usize) {
        if position > self.sealed_position {
            self.sealed_position = position;
            let windows = self.windows.iter().filter(|(_, window)| window.has_before(position));
            self.sealed = windows.map(|(topic, _)| *topic).collect();
        }
        self.producers.release(position, self.hashing.options.producers_max, most.min(RELEASED_AT_IDLE));
        let mut left = most;
        while left > 0
            && let Some(topic) = self.sealed.front()
        {
            let Some(window) = self.windows.get_mut(topic) else { break };
            left -= window.release(self.sealed_position, left, &self.hashing).min(left);
            if !window.has_before(self.sealed_position) {
                self.sealed.pop_front();
            }
        }
    }
}
