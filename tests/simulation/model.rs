//! What the log must hold: every submission in its order, judged and placed as the log promises to, and how much of it a
//! crash may still take.
//!
//! ```text
//!   0 ............ must ............ published ............ units.len()
//!     survives       may be lost,      no reader saw it;
//!     everything     from the end      the write failed, so it may be there after the next start
//! ```
//!
//! The model is exact: what the log answers, to the offset, is known before it is asked. After a start the log holds the
//! first so many of the units, never less than `must`; the rest is forgotten here, and may never be seen again.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use bytes::Bytes;
use wattle::log::{Placed, Settings};
use wattle::model::{
    Dedupe, Duplicate, EventId, Guard, LaneId, LaneWrite, Mark, PartitionId, ProducerId, Slices, SubscriberId, TopicId,
};

/// An event on its way in.
#[derive(Debug, Clone)]
pub(crate) struct Incoming {
    pub(crate) partition: PartitionId,
    pub(crate) bytes: Vec<u8>,
    pub(crate) mark: Mark,
    /// Its key, and the state that it brings.
    pub(crate) guard: Option<(u8, &'static str)>,
}

/// What waits in the queue, with the number of its ticket.
#[derive(Debug)]
pub(crate) enum Submitted {
    Append { events: Vec<Incoming>, producer: Option<ProducerId>, ticket: usize },
    Unit { lane: LaneId, owner: u64, consumed_to: u64, events: Vec<Incoming>, writes: Vec<LaneWrite> },
    Acquire { lane: LaneId, ticket: usize },
    Catalogue { entry: Vec<u8>, ticket: usize },
    Barrier { ticket: usize },
}

/// What a ticket must resolve to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    Placed(Placed),
    /// By its number among the events.
    Refused(u32),
    Acquired {
        position: u64,
        owner: u64,
    },
    Durable,
    Written,
}

/// One frame of the journal.
#[derive(Debug)]
pub(crate) struct Unit {
    pub(crate) cursor: Option<(LaneId, u64)>,
    /// Of that lane.
    writes: Vec<LaneWrite>,
    pub(crate) catalogue: Option<Vec<u8>>,
    /// The states of keys behind it, where it is an append.
    states: Option<States>,
    /// The last number of a producer in each partition, and its offset.
    sequences: Vec<(PartitionId, ProducerId, u64, u64)>,
    pub(crate) epoch: u32,
    /// Append time; unknown until it was seen.
    pub(crate) time_ns: Option<u64>,
    /// Trusted time.
    pub(crate) trusted_ns: u64,
}

/// Of keys: those that live, and for each partition those whose end is remembered, oldest first.
#[derive(Debug, Clone, Default)]
struct States {
    living: BTreeMap<(PartitionId, u8), &'static str>,
    ended: BTreeMap<PartitionId, Vec<u8>>,
}

pub(crate) struct Stored {
    pub(crate) bytes: Vec<u8>,
    pub(crate) unit: usize,
}

/// An identity that a topic's event had.
struct Noted {
    identity: u128,
    partition: u32,
    offset: u64,
    unit: usize,
}

#[derive(Default)]
pub(crate) struct Model {
    pub(crate) units: Vec<Unit>,
    pub(crate) published: usize,
    pub(crate) must: usize,
    pub(crate) partitions: BTreeMap<PartitionId, Vec<Stored>>,
    cursors: BTreeMap<LaneId, u64>,
    noted: BTreeMap<TopicId, Vec<Noted>>,
    sequences: BTreeMap<(PartitionId, ProducerId), (u64, u64)>,
    states: States,
    /// Of this life.
    pub(crate) owners: BTreeMap<LaneId, u64>,
    pub(crate) epoch: u32,
    /// Engine time, once it is known in this life.
    pub(crate) engine_ns: Option<u64>,
    /// The highest that it ever can have been.
    pub(crate) engine_max_ns: u64,
    /// Trusted time as the log has it.
    pub(crate) trusted_ns: u64,
}

pub(crate) fn slices_of(events: &[Incoming], producer: Option<ProducerId>) -> Slices {
    let mut slices = Slices::default();
    for (number, event) in (0..).zip(events) {
        let write = |out: &mut Vec<u8>| {
            out.extend_from_slice(&event.bytes);
            Ok::<_, ()>(())
        };
        let (slice, _) = slices.push_marked(event.partition, event.mark, write).unwrap();
        if let Some((key, state)) = event.guard {
            slices.guard_last(slice, Guard::new(&key.to_string(), state.into(), number));
        }
    }
    if let Some(producer) = producer {
        slices.set_producer(producer);
    }
    slices
}

/// Events by partition, in the order in which slices have them, with their numbers.
fn grouped(events: Vec<Incoming>) -> Vec<(PartitionId, Vec<(u32, Incoming)>)> {
    let mut groups: Vec<(PartitionId, Vec<(u32, Incoming)>)> = Vec::new();
    for (number, event) in (0..).zip(events) {
        match groups.iter_mut().find(|(partition, _)| *partition == event.partition) {
            Some((_, group)) => group.push((number, event)),
            None => groups.push((event.partition, vec![(number, event)])),
        }
    }
    groups
}

impl Model {
    /// Events of a partition that exist, were only the first `units` written.
    pub(crate) fn end(&self, partition: PartitionId, units: usize) -> u64 {
        self.partitions.get(&partition).map_or(0, |events| events.partition_point(|event| event.unit < units) as u64)
    }

    /// A lane's position, were only the first `units` written.
    pub(crate) fn cursor(&self, lane: LaneId, units: usize) -> u64 {
        let cursors = self.units[..units].iter().rev().filter_map(|unit| unit.cursor);
        cursors.into_iter().find(|(of, _)| *of == lane).map_or(0, |(_, to)| to)
    }

    /// What a lane keeps, were only the first `units` written.
    pub(crate) fn entries(&self, lane: LaneId, units: usize) -> Vec<(Bytes, Bytes)> {
        let mut entries = BTreeMap::new();
        let of_lane = self.units[..units].iter().filter(|unit| unit.cursor.is_some_and(|(of, _)| of == lane));
        for write in of_lane.flat_map(|unit| unit.writes.iter().cloned()) {
            entries.insert(write.key, write.value);
        }
        entries.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }

    pub(crate) fn catalogue(&self, units: usize) -> Vec<&[u8]> {
        self.units[..units].iter().filter_map(|unit| unit.catalogue.as_deref()).collect()
    }

    /// The last number of a producer that is stored.
    pub(crate) fn last_sequence(&self, producer: ProducerId) -> u64 {
        let last = self.sequences.iter().filter(|((_, of), _)| *of == producer);
        last.map(|(_, (sequence, _))| *sequence).max().unwrap_or(0)
    }

    /// Takes the queue in at a time by the wall clock, and by trusted time. What the tickets must resolve to, and how many units are in front of each.
    pub(crate) fn process(
        &mut self,
        queue: Vec<Submitted>,
        settings: &Settings,
        (now_ns, trusted_ns): (u64, u64),
    ) -> Vec<(usize, Expected, usize)> {
        if queue.is_empty() {
            return Vec::new();
        }
        self.trusted_ns = trusted_ns;
        if let Some(engine_ns) = &mut self.engine_ns {
            *engine_ns = now_ns.max(*engine_ns);
        }
        self.engine_max_ns = self.engine_max_ns.max(now_ns);
        let mut answers = Vec::new();
        for submitted in queue {
            match submitted {
                Submitted::Append { events, producer, ticket } => {
                    let expected = match self.append(events, producer, settings) {
                        Ok(placed) => Expected::Placed(placed),
                        Err(number) => Expected::Refused(number),
                    };
                    answers.push((ticket, expected, self.units.len()));
                }
                Submitted::Unit { lane, owner, consumed_to, events, writes } => {
                    if self.owners.get(&lane) != Some(&owner) {
                        continue; // fenced
                    }
                    let unit = self.units.len();
                    for event in events {
                        self.partitions.entry(event.partition).or_default().push(Stored { bytes: event.bytes, unit });
                    }
                    self.cursors.insert(lane, consumed_to);
                    self.push(Some((lane, consumed_to)), None, Vec::new());
                    if let Some(unit) = self.units.last_mut() {
                        unit.writes = writes;
                    }
                }
                Submitted::Acquire { lane, ticket } => {
                    let owner = self.owners.entry(lane).or_default();
                    *owner += 1;
                    let position = self.cursors.get(&lane).copied().unwrap_or(0);
                    answers.push((ticket, Expected::Acquired { position, owner: *owner }, self.units.len()));
                }
                Submitted::Catalogue { entry, ticket } => {
                    self.push(None, Some(entry), Vec::new());
                    answers.push((ticket, Expected::Durable, self.units.len()));
                }
                Submitted::Barrier { ticket } => answers.push((ticket, Expected::Written, self.units.len())),
            }
        }
        answers
    }

    fn push(
        &mut self,
        cursor: Option<(LaneId, u64)>,
        catalogue: Option<Vec<u8>>,
        sequences: Vec<(PartitionId, ProducerId, u64, u64)>,
    ) {
        let (time_ns, trusted_ns) = (self.engine_ns, self.trusted_ns);
        let (writes, states) = (Vec::new(), None);
        self.units.push(Unit { cursor, writes, catalogue, states, sequences, epoch: self.epoch, time_ns, trusted_ns });
    }

    /// All of some events or nothing: the number of the first one that is refused.
    fn append(
        &mut self,
        events: Vec<Incoming>,
        producer: Option<ProducerId>,
        settings: &Settings,
    ) -> Result<Placed, u32> {
        let ends: Vec<_> = self.partitions.iter().map(|(id, events)| (*id, events.len())).collect();
        let noted: Vec<_> = self.noted.iter().map(|(topic, noted)| (*topic, noted.len())).collect();
        let (sequences, states) = (self.sequences.clone(), self.states.clone());
        let placed = self.try_append(events, producer, settings);
        if placed.is_err() {
            let end = |id: &PartitionId| ends.iter().find(|(of, _)| of == id).map_or(0, |(_, end)| *end);
            self.partitions.iter_mut().for_each(|(id, events)| events.truncate(end(id)));
            let known = |topic: &TopicId| noted.iter().find(|(of, _)| of == topic).map_or(0, |(_, known)| *known);
            self.noted.iter_mut().for_each(|(topic, noted)| noted.truncate(known(topic)));
            (self.sequences, self.states) = (sequences, states);
        }
        placed
    }

    /// Whether a state may follow, of those that [`super::plan::lifecycle`] has: `a`, any number of `b`, `z`.
    fn follows(&mut self, id: PartitionId, key: u8, state: &'static str) -> bool {
        let States { living, ended } = &mut self.states;
        let count = living.keys().filter(|(of, _)| *of == id).count() as u64;
        let current = living.get(&(id, key)).copied();
        let ended = ended.entry(id).or_default();
        let may = match (current, state) {
            (None, "a") => count < super::plan::LIVING_MAX && !ended.contains(&key),
            (Some("a" | "b"), "b" | "z") => true,
            _ => false,
        };
        match (may, state) {
            (true, "z") => {
                living.remove(&(id, key));
                ended.push(key);
                ended.drain(..ended.len().saturating_sub(super::plan::ENDED_MAX as usize));
            }
            (true, _) => drop(living.insert((id, key), state)),
            (false, _) => {}
        }
        may
    }

    fn try_append(
        &mut self,
        events: Vec<Incoming>,
        producer: Option<ProducerId>,
        settings: &Settings,
    ) -> Result<Placed, u32> {
        let unit = self.units.len();
        let (mut base_offsets, mut duplicates, mut numbers, mut count) = (Vec::new(), Vec::new(), Vec::new(), 0);
        let mut refused = None;
        for (slice, (id, events)) in grouped(events).into_iter().enumerate() {
            let base = self.end(id, usize::MAX);
            base_offsets.push(base);
            let dedupe = settings.topics.get(&id.topic).and_then(|topic| topic.dedupe);
            let has_identities = matches!(events[0].1.mark, Mark::Identity(_));
            let window = dedupe.filter(|_| has_identities).map(|dedupe| self.window(id.topic, dedupe));
            for (record, (number, event)) in events.into_iter().enumerate() {
                let offset = self.end(id, usize::MAX);
                let mut duplicate = |partition, offset| {
                    duplicates.push(Duplicate { slice: slice as u32, record: record as u32, partition, offset });
                };
                match (event.mark, producer) {
                    (Mark::Sequence(sequence), Some(producer)) => match self.sequences.entry((id, producer)) {
                        Entry::Occupied(last) if sequence <= last.get().0 => {
                            let (last, at) = *last.get();
                            duplicate(id.partition, (last == sequence).then_some(at));
                            continue;
                        }
                        entry => {
                            entry.insert_entry((sequence, offset));
                        }
                    },
                    (Mark::Identity(EventId(identity)), _) => {
                        let noted = self.noted.entry(id.topic).or_default();
                        let known = noted.iter().enumerate().rev().find(|(_, noted)| noted.identity == identity);
                        if let (Some(window), Some((at, known))) = (window, known)
                            && at >= window
                        {
                            duplicate(known.partition, Some(known.offset));
                            continue;
                        }
                        noted.push(Noted { identity, partition: id.partition, offset, unit });
                    }
                    _ => {}
                }
                if let Some((key, state)) = event.guard
                    && !self.follows(id, key, state)
                {
                    refused = refused.or(Some(number));
                }
                self.partitions.entry(id).or_default().push(Stored { bytes: event.bytes, unit });
                count += 1;
            }
            if let Some(producer) = producer
                && let Some((sequence, offset)) = self.sequences.get(&(id, producer))
            {
                numbers.push((id, producer, *sequence, *offset));
            }
        }
        if let Some(number) = refused {
            return Err(number);
        }
        if count > 0 {
            self.push(None, None, numbers);
            let states = self.states.clone();
            if let Some(unit) = self.units.last_mut() {
                unit.states = Some(states);
            }
        } else {
            base_offsets.fill(0);
        }
        Ok(Placed { base_offsets, duplicates, aside: Vec::new() })
    }

    /// From which one on a topic's identities are recognised.
    fn window(&self, topic: TopicId, dedupe: Dedupe) -> usize {
        let Some(noted) = self.noted.get(&topic) else { return 0 };
        let window_ns = u64::try_from(dedupe.window.as_nanos()).unwrap_or(u64::MAX);
        let horizon_ns = self.trusted_ns.saturating_sub(window_ns);
        // those of the append that is looked at have no unit yet
        let time_ns = |noted: &Noted| self.units.get(noted.unit).map_or(self.trusted_ns, |unit| unit.trusted_ns);
        let by_time = noted.partition_point(|noted| time_ns(noted) < horizon_ns);
        by_time.max(dedupe.count.map_or(0, |count| noted.len().saturating_sub(count as usize)))
    }

    /// An append time was seen: it is that of all that was written at once.
    pub(crate) fn saw_time(&mut self, first: usize, time_ns: u64) {
        self.engine_ns = Some(time_ns);
        self.engine_max_ns = self.engine_max_ns.max(time_ns);
        for unit in &mut self.units[first..] {
            unit.time_ns = Some(time_ns);
        }
    }

    /// Only the first so many units are there after a start; they are durable. The others never were.
    pub(crate) fn keep(&mut self, units: usize, epoch: u32) {
        self.units.truncate(units);
        (self.published, self.must, self.epoch, self.engine_ns) = (units, units, epoch, None);
        self.owners.clear();
        for events in self.partitions.values_mut() {
            events.truncate(events.partition_point(|event| event.unit < units));
        }
        for noted in self.noted.values_mut() {
            noted.retain(|noted| noted.unit < units);
        }
        (self.cursors, self.sequences, self.states) = (BTreeMap::new(), BTreeMap::new(), States::default());
        for unit in &self.units {
            if let Some(states) = &unit.states {
                self.states = states.clone();
            }
            self.cursors.extend(unit.cursor);
            self.sequences.extend(unit.sequences.iter().map(|(id, by, number, at)| ((*id, *by), (*number, *at))));
        }
    }

    /// Up to where all live subscribers of a partition have processed it, were only the first `units` written.
    pub(crate) fn reached(&self, partition: PartitionId, readers: &[SubscriberId], units: usize) -> u64 {
        let lane = |subscriber: &SubscriberId| LaneId { subscriber: *subscriber, partition: partition.partition };
        readers.iter().map(|reader| self.cursor(lane(reader), units)).min().unwrap_or(u64::MAX)
    }
}
