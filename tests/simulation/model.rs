//! What the log must hold: every submission in its order, judged and placed as the log promises to, and how much of it
//! a crash may still take.
//!
//! ```text
//!   0 ............ must ............ published ............ units.len()
//!     survives       may be lost,      no reader saw it;
//!     everything     from the end      the write failed, so it may be there after the next start
//! ```
//!
//! The model is exact: what the log answers, to the offset, is known before it is asked. After a start the log holds
//! the first so many of the units, never less than `must`; the rest is forgotten here, and may never be seen again.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use wattle::log::{Settings, SlicePlaces};
use wattle::model::{
    Dedupe, Diversion, DivertedRecord, Duplicate, EventId, Guard, LaneId, LaneWrite, Mark, PartitionId, ProducerId,
    Slices, SubscriberId, TopicId,
};

use super::lives::{self, Brings, Lives, Verdict};
use super::plan::{Guarding, HELD_MAX};

/// An event on its way in.
#[derive(Debug, Clone)]
pub(crate) struct Incoming {
    pub(crate) partition: PartitionId,
    pub(crate) bytes: Vec<u8>,
    pub(crate) mark: Mark,
    pub(crate) guard: Option<Brings>,
}

/// Who numbers what it sends, and when it says that it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Producer {
    pub(crate) id: ProducerId,
    pub(crate) began_ns: Option<u64>,
}

/// The last number of a producer in a partition, and its offset.
type Reached = (PartitionId, Producer, u64, u64);

/// Why an append has no place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// A guard refuses an event, by its number.
    Guard(u32),
    /// The producer is not known.
    Producer,
}

/// What waits in the queue, with the number of its ticket.
#[derive(Debug)]
pub(crate) enum Submitted {
    Append {
        events: Vec<Incoming>,
        producer: Option<Producer>,
        /// Behind a refusal in the same one nothing is stored.
        stream: Option<usize>,
        ticket: usize,
    },
    Unit(SubmittedUnit),
    Acquire {
        lane: LaneId,
        ticket: usize,
    },
    Catalogue {
        entry: Vec<u8>,
        ticket: usize,
    },
    Barrier {
        ticket: usize,
    },
}

#[derive(Debug)]
pub(crate) struct SubmittedUnit {
    pub(crate) lane: LaneId,
    pub(crate) owner: u64,
    pub(crate) consumed_to: u64,
    pub(crate) events: Vec<Incoming>,
    pub(crate) writes: Vec<LaneWrite>,
    /// Events of a partition that are held no longer.
    pub(crate) released: Option<(PartitionId, u32)>,
    /// Where it has guards.
    pub(crate) ticket: Option<usize>,
}

/// What a ticket must resolve to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    Placed(SlicePlaces),
    Refused(NoPlace),
    /// Something in front of it was refused.
    Fenced,
    /// Whether a unit with guards is refused, by the number among its events.
    Verdict(Option<u32>),
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
    /// The lives of keys behind it, where it may have changed them.
    lives: Option<Lives>,
    /// The last number of a producer in each partition, and its offset.
    sequences: Vec<Reached>,
    pub(crate) epoch: u32,
    /// Append time; unknown until it was seen.
    pub(crate) time_ns: Option<u64>,
    /// Trusted time.
    pub(crate) trusted_ns: u64,
}

pub(crate) struct Stored {
    pub(crate) bytes: Vec<u8>,
    pub(crate) unit: usize,
    pub(crate) guard: Option<Brings>,
}

/// What becomes of an event of an append.
enum Fate {
    /// It was published before: where, as far as that is known.
    Known(u32, Option<u64>),
    /// It is in the same append already, as this record of this slice.
    Repeated(usize, usize),
    New,
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
    /// Of the last unit in which a producer sent something to a topic: its highest number, and when the producer was
    /// seen.
    in_topics: BTreeMap<(TopicId, ProducerId), (u64, u64)>,
    pub(crate) lives: Lives,
    pub(crate) guarding: Option<Guarding>,
    /// Streams of which something was refused.
    pub(crate) shut: BTreeSet<usize>,
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

pub(crate) fn slices_of(events: &[Incoming], producer: Option<Producer>) -> Slices {
    let mut slices = Slices::default();
    for (number, event) in (0..).zip(events) {
        let write = |out: &mut Vec<u8>| {
            out.extend_from_slice(&event.bytes);
            Ok::<_, ()>(())
        };
        let (slice, _) = slices.push_marked(event.partition, event.mark, write).unwrap();
        if let Some(Brings { key, state, aside, beside, id }) = event.guard {
            let aside = aside.map(|aside| match aside {
                lives::Aside::Held(to) => Diversion { to, held_max: Some(HELD_MAX) },
                lives::Aside::Diverted(to) => Diversion { to, held_max: None },
            });
            let guard = Guard::new(&key.to_string(), state.into(), number).or_aside(aside);
            let guard = beside.into_iter().fold(guard, Guard::with_held_in);
            let id = id.map(|id| EventId(u128::from(id) << 64));
            slices.guard_last(slice, id.into_iter().fold(guard, Guard::recognised_by));
        }
    }
    if let Some(producer) = producer {
        slices.set_producer(producer.id);
        producer.began_ns.into_iter().for_each(|began_ns| slices.set_began(began_ns));
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
    pub(crate) fn new(guarding: Option<Guarding>) -> Self {
        Self { guarding, ..Self::default() }
    }

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

    /// The lives of keys, were only the first `units` written.
    pub(crate) fn lives_after(&self, units: usize) -> Lives {
        self.units[..units].iter().rev().find_map(|unit| unit.lives.clone()).unwrap_or_default()
    }

    pub(crate) fn catalogue(&self, units: usize) -> Vec<&[u8]> {
        self.units[..units].iter().filter_map(|unit| unit.catalogue.as_deref()).collect()
    }

    /// The last number of a producer that is stored.
    pub(crate) fn last_sequence(&self, producer: ProducerId) -> u64 {
        let last = self.sequences.iter().filter(|((_, of), _)| *of == producer);
        last.map(|(_, (sequence, _))| *sequence).max().unwrap_or(0)
    }

    /// Takes the queue in at a time by the wall clock, and by trusted time. What the tickets must resolve to, and how
    /// many units are in front of each.
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
                Submitted::Append { events, producer, stream, ticket } => {
                    let expected = if stream.is_some_and(|stream| self.shut.contains(&stream)) {
                        Expected::Fenced
                    } else {
                        match self.append(events, producer, settings) {
                            Ok(placed) => Expected::Placed(placed),
                            Err(why) => {
                                self.shut.extend(stream);
                                Expected::Refused(why)
                            }
                        }
                    };
                    answers.push((ticket, expected, self.units.len()));
                }
                Submitted::Unit(unit) => {
                    let ticket = unit.ticket;
                    let verdict = self.unit(unit);
                    answers.extend(ticket.map(|ticket| (ticket, Expected::Verdict(verdict), self.units.len())));
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

    fn push(&mut self, cursor: Option<(LaneId, u64)>, catalogue: Option<Vec<u8>>, sequences: Vec<Reached>) {
        let (time_ns, trusted_ns) = (self.engine_ns, self.trusted_ns);
        let (writes, lives) = (Vec::new(), None);
        self.units.push(Unit { cursor, writes, catalogue, lives, sequences, epoch: self.epoch, time_ns, trusted_ns });
    }

    /// A lane's unit, where it is its owner. All of it or nothing: the number of the first event that is refused.
    fn unit(&mut self, submitted: SubmittedUnit) -> Option<u32> {
        let SubmittedUnit { lane, owner, consumed_to, events, writes, released, .. } = submitted;
        if self.owners.get(&lane) != Some(&owner) {
            return None; // fenced
        }
        let fates =
            |events: Vec<(u32, Incoming)>| events.into_iter().map(|(of, event)| (of, event, Fate::New)).collect();
        let groups = grouped(events).into_iter().map(|(id, events)| (id, fates(events))).collect();
        let lives = self.lives.clone();
        if let Err(number) = self.place(groups) {
            self.lives = lives;
            return Some(number);
        }
        if let Some((id, count)) = released {
            self.lives.release(id, count);
        }
        self.cursors.insert(lane, consumed_to);
        self.push(Some((lane, consumed_to)), None, Vec::new());
        let lives = self.lives.clone();
        if let Some(unit) = self.units.last_mut() {
            (unit.writes, unit.lives) = (writes, Some(lives));
        }
        None
    }

    /// All of some events or nothing.
    fn append(
        &mut self,
        events: Vec<Incoming>,
        producer: Option<Producer>,
        settings: &Settings,
    ) -> Result<SlicePlaces, NoPlace> {
        let known: BTreeMap<_, _> = self.noted.iter().map(|(topic, noted)| (*topic, noted.len())).collect();
        let lives = self.lives.clone();
        let mut groups = Vec::new();
        for (id, events) in grouped(events) {
            let fates = match producer {
                Some(producer) => self.numbered(id, events, producer, settings)?,
                None => self.identified(id, events, groups.len(), settings),
            };
            groups.push((id, fates));
        }
        // what was noted now was not said to be anywhere yet
        for (topic, noted) in &mut self.noted {
            noted.truncate(known.get(topic).copied().unwrap_or(0));
        }
        match self.place(groups) {
            Ok((placed, stored)) => {
                let unit = self.units.len();
                for (id, mark, offset) in &stored {
                    if let Mark::Identity(EventId(identity)) = mark {
                        let noted = Noted { identity: *identity, partition: id.partition, offset: *offset, unit };
                        self.noted.entry(id.topic).or_default().push(noted);
                    }
                }
                let mut numbers = BTreeMap::new();
                for (id, mark, offset) in &stored {
                    if let (Some(producer), Mark::Sequence(sequence)) = (producer, mark) {
                        numbers.insert(*id, (*id, producer, *sequence, *offset));
                        self.sequences.insert((*id, producer.id), (*sequence, *offset));
                    }
                }
                let numbers: Vec<_> = numbers.into_values().collect();
                self.saw(&numbers, self.trusted_ns);
                if !stored.is_empty() {
                    self.push(None, None, numbers);
                    let lives = self.lives.clone();
                    if let Some(unit) = self.units.last_mut() {
                        unit.lives = Some(lives);
                    }
                }
                Ok(placed)
            }
            Err(number) => {
                self.lives = lives;
                Err(NoPlace::Guard(number))
            }
        }
    }

    /// What of a producer's events for a partition is there already, also among what was put aside.
    fn numbered(
        &self,
        id: PartitionId,
        events: Vec<(u32, Incoming)>,
        producer: Producer,
        settings: &Settings,
    ) -> Result<Vec<(u32, Incoming, Fate)>, NoPlace> {
        let forget = settings.topics.get(&id.topic).and_then(|topic| topic.forget_producers);
        let floor_ns = forget.map_or(0, |forget| self.trusted_ns.saturating_sub(forget.as_nanos() as u64).max(1));
        let in_topic = self.in_topics.get(&(id.topic, producer.id)).copied();
        let is_forgotten = in_topic.is_some_and(|(_, seen_ns)| seen_ns < floor_ns);
        let in_topic = in_topic.filter(|_| !is_forgotten);
        let last = |of| self.sequences.get(&(of, producer.id)).copied().filter(|_| of != id || !is_forgotten);
        let elsewhere = events[0].1.guard.iter().flat_map(Brings::elsewhere);
        let last_aside = elsewhere.filter_map(last).map(|(last, _)| last).max();
        let fate = |event: &Incoming| match (event.mark, last(id)) {
            (Mark::Sequence(sequence), Some((last, at))) if sequence <= last => {
                Fate::Known(id.partition, (last == sequence).then_some(at))
            }
            (Mark::Sequence(sequence), _) if last_aside.is_some_and(|last| sequence <= last) => {
                Fate::Known(id.partition, None)
            }
            _ => Fate::New,
        };
        let fates: Vec<_> = events.into_iter().map(|(of, event)| (of, event.clone(), fate(&event))).collect();
        let may_be_new = producer.began_ns.unwrap_or(0) >= floor_ns || last(id).is_some();
        let first = fates.iter().find(|(.., fate)| matches!(fate, Fate::New)).map(|(_, event, _)| event.mark);
        match (first, in_topic) {
            (Some(Mark::Sequence(sequence)), Some((last, _))) if sequence <= last && !may_be_new => {
                Err(NoPlace::Producer)
            }
            (Some(_), None) if !may_be_new => Err(NoPlace::Producer),
            _ => Ok(fates),
        }
    }

    /// Producers sent these last numbers in one unit.
    fn saw(&mut self, numbers: &[Reached], trusted_ns: u64) {
        let mut highest: BTreeMap<_, (u64, u64)> = BTreeMap::new();
        for (id, producer, sequence, _) in numbers {
            let seen_ns = trusted_ns.max(producer.began_ns.unwrap_or(0));
            let of = highest.entry((id.topic, producer.id)).or_insert((*sequence, seen_ns));
            of.0 = of.0.max(*sequence);
        }
        self.in_topics.extend(highest);
    }

    /// What of some events for a partition, the slice of this number, is there already, also among what was put aside.
    fn identified(
        &mut self,
        id: PartitionId,
        events: Vec<(u32, Incoming)>,
        slice: usize,
        settings: &Settings,
    ) -> Vec<(u32, Incoming, Fate)> {
        let unit = self.units.len();
        let dedupe = settings.topics.get(&id.topic).and_then(|topic| topic.dedupe);
        let windows = dedupe.map(|dedupe| {
            let elsewhere = events[0].1.guard.iter().flat_map(Brings::elsewhere).map(|aside| aside.topic);
            let elsewhere: Vec<_> = elsewhere.map(|aside| (aside, self.window(aside, dedupe))).collect();
            (self.window(id.topic, dedupe), elsewhere)
        });
        let mut fates = Vec::new();
        for (record, (number, event)) in events.into_iter().enumerate() {
            let mut fate = Fate::New;
            if let Mark::Identity(EventId(identity)) = event.mark {
                let find = |topic: TopicId, window: usize| {
                    let noted = self.noted.get(&topic)?.iter().enumerate();
                    let (at, known) = noted.rev().find(|(_, noted)| noted.identity == identity)?;
                    (at >= window).then_some(known)
                };
                let (known, is_aside) = match &windows {
                    Some((window, elsewhere)) => (
                        find(id.topic, *window),
                        elsewhere.iter().any(|(aside, window)| find(*aside, *window).is_some()),
                    ),
                    None => (None, false),
                };
                fate = match known {
                    _ if is_aside => Fate::Known(id.partition, None),
                    // its slice and its record, as they were noted below
                    Some(known) if known.unit == unit => {
                        Fate::Repeated(known.partition as usize, known.offset as usize)
                    }
                    Some(known) => Fate::Known(known.partition, Some(known.offset)),
                    None => Fate::New,
                };
                if matches!(fate, Fate::New) {
                    let noted = Noted { identity, partition: slice as u32, offset: record as u64, unit };
                    self.noted.entry(id.topic).or_default().push(noted);
                }
            }
            fates.push((number, event, fate));
        }
        fates
    }

    /// Gives what is new its places, by slices. Where they are and what was stored; the number of the first that is
    /// refused.
    #[allow(clippy::type_complexity, reason = "each is looked at once")]
    fn place(
        &mut self,
        groups: Vec<(PartitionId, Vec<(u32, Incoming, Fate)>)>,
    ) -> Result<(SlicePlaces, Vec<(PartitionId, Mark, u64)>), u32> {
        let (mut beside, mut aside) = (Vec::<(PartitionId, Vec<Incoming>)>::new(), Vec::new());
        let (mut slices, count) = (Vec::<(PartitionId, Vec<Incoming>)>::new(), groups.len());
        // where new records are, none of those that are put aside; and those that are there already
        let (mut places, mut repeated) = (BTreeMap::new(), Vec::new());
        for (slice, (id, events)) in groups.into_iter().enumerate() {
            let (mut stays, base) = (Vec::new(), self.end(id, usize::MAX));
            for (record, (number, event, fate)) in events.into_iter().enumerate() {
                if !matches!(fate, Fate::New) {
                    repeated.push((slice, record, fate));
                    continue;
                }
                let offset = base + stays.len() as u64;
                let verdict = match (event.guard, &self.guarding) {
                    (Some(brings), Some(guarding)) => self.lives.judge(id, brings, offset, self.trusted_ns, guarding),
                    _ => Verdict::Follows,
                };
                match verdict {
                    Verdict::Refused => return Err(number),
                    Verdict::Known(offset) => repeated.push((slice, record, Fate::Known(id.partition, offset))),
                    Verdict::Follows => {
                        places.insert((slice, record), (id.partition, Some(offset)));
                        stays.push(event);
                    }
                    Verdict::Aside(to) => {
                        places.insert((slice, record), (id.partition, None));
                        let of = beside.iter().position(|(of, _)| *of == to).unwrap_or_else(|| {
                            beside.push((to, Vec::new()));
                            beside.len() - 1
                        });
                        let at = ((count + of) as u32, beside[of].1.len() as u32);
                        beside[of].1.push(event);
                        aside.push(DivertedRecord { slice: slice as u32, record: record as u32, to, at });
                    }
                }
            }
            slices.push((id, stays));
        }
        let duplicate = |(slice, record, fate): (usize, usize, Fate)| {
            let (partition, offset) = match fate {
                Fate::Known(partition, offset) => (partition, offset),
                Fate::Repeated(slice, record) => places[&(slice, record)],
                Fate::New => unreachable!(),
            };
            Duplicate { slice: slice as u32, record: record as u32, partition, offset }
        };
        let duplicates = repeated.into_iter().map(duplicate).collect();
        let (mut base_offsets, mut stored) = (Vec::new(), Vec::new());
        let unit = self.units.len();
        for (id, events) in slices.into_iter().chain(beside) {
            let all = self.partitions.entry(id).or_default();
            base_offsets.push(all.len() as u64);
            for event in events {
                stored.push((id, event.mark, all.len() as u64));
                all.push(Stored { bytes: event.bytes, unit, guard: event.guard });
            }
        }
        if stored.is_empty() {
            base_offsets.fill(0);
        }
        Ok((SlicePlaces { base_offsets, duplicates, aside }, stored))
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
        self.shut.clear();
        for events in self.partitions.values_mut() {
            events.truncate(events.partition_point(|event| event.unit < units));
        }
        for noted in self.noted.values_mut() {
            noted.retain(|noted| noted.unit < units);
        }
        (self.cursors, self.sequences, self.lives) = (BTreeMap::new(), BTreeMap::new(), self.lives_after(units));
        self.in_topics.clear();
        for number in 0..units {
            let (sequences, trusted_ns) = (self.units[number].sequences.clone(), self.units[number].trusted_ns);
            self.saw(&sequences, trusted_ns);
        }
        for unit in &self.units {
            self.cursors.extend(unit.cursor);
            self.sequences.extend(unit.sequences.iter().map(|(id, by, number, at)| ((*id, by.id), (*number, *at))));
        }
    }

    /// Up to where all live subscribers of a partition have processed it, were only the first `units` written.
    pub(crate) fn reached(&self, partition: PartitionId, readers: &[SubscriberId], units: usize) -> u64 {
        let lane = |subscriber: &SubscriberId| LaneId { subscriber: *subscriber, partition: partition.partition };
        readers.iter().map(|reader| self.cursor(lane(reader), units)).min().unwrap_or(u64::MAX)
    }
}
