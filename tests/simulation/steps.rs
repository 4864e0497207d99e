//! One step of a history: what somebody does to the log, or the log does, or happens to it.

use std::ops::Bound;
use std::pin::Pin;

use wattle::effects::Disk;
use wattle::log::{ColdError, SpaceLevel, SubmitError};
use wattle::model::{EventId, LaneId, Mark, PageBudget, PartitionId, ProducerId};

use super::check;
use super::model::{Incoming, Producer, Submitted, SubmittedUnit, slices_of};
use super::plan::{self, HOUR, LANES, PARTITIONS, ROOTS, START, input_of, outputs_of};
use super::random::Random;
use super::world::{Life, Waiting, World, is_of, poll};

/// Bytes that wait in the queue at the most, so that all of them are one group.
const QUEUE_BYTES_MAX: usize = 1 << 20;

type Step = fn(&mut World, &mut Life);

/// What a step may be, and how often it is that.
const STEPS: [(u64, Step); 20] = [
    (26, World::publish),
    (16, World::unit),
    (2, World::work),
    (5, World::acquire),
    (2, World::catalogue),
    (2, World::barrier),
    (14, World::append),
    (10, World::sync),
    (4, World::idle),
    (6, World::checkpoint),
    (6, World::move_out),
    (7, World::read),
    (2, World::look_for_time),
    (4, |world, _| world.let_pass()),
    (1, |world, _| world.jump()),
    (1, World::configure),
    (1, World::confirm),
    (3, |world, _| world.disturb()),
    (2, World::look_around),
    (6, World::guarded_unit),
];

/// Where among them the queue is written.
const APPEND: usize = 6;

/// Each history does some things often and others never: so it gets further than one in which everything happens.
pub(crate) fn weights(random: &mut Random) -> Vec<u64> {
    let times = |(weight, _): &(u64, Step)| weight * random.pick(&[0, 1, 1, 2, 4]);
    let mut weights: Vec<u64> = STEPS.iter().map(times).collect();
    weights[APPEND] = weights[APPEND].max(5); // or nothing would ever happen
    weights
}

impl World {
    /// One step by chance.
    pub(crate) fn step(&mut self, life: &mut Life) {
        self.faults.begin_step();
        let mut chosen = self.random.below(self.weights.iter().sum());
        let at = self.weights.iter().position(|weight| {
            let is_it = chosen < *weight;
            chosen = chosen.saturating_sub(*weight);
            is_it
        });
        STEPS[at.unwrap()].1(self, life);
        self.after_step(life);
    }

    pub(crate) fn append(&mut self, life: &mut Life) {
        self.note("append");
        self.take_in(life, |life| life.stepper.as_mut().unwrap().append());
    }

    fn sync(&mut self, life: &mut Life) {
        self.note("sync");
        life.stepper.as_mut().unwrap().sync();
    }

    fn idle(&mut self, life: &mut Life) {
        self.note("idle");
        life.stepper.as_mut().unwrap().idle();
    }

    fn checkpoint(&mut self, life: &mut Life) {
        let is_made = life.stepper.as_mut().unwrap().checkpoint();
        self.note(format!("checkpoint: {is_made}"));
        if self.damaged.is_none() && self.random.once_in(4) {
            self.probe();
        }
    }

    fn move_out(&mut self, life: &mut Life) {
        let is_made = life.stepper.as_mut().unwrap().move_out();
        self.note(format!("move: {is_made}"));
    }

    /// A lane works: unit after unit is written, and some are durable before the next one.
    fn work(&mut self, life: &mut Life) {
        for _ in 0..self.random.between(2, 4) {
            self.unit(life);
            self.append(life);
            self.after_step(life);
            if self.random.once_in(2) {
                self.sync(life);
                self.after_step(life);
            }
        }
        match self.random.below(6) {
            0 | 1 => self.checkpoint(life),
            2 => self.move_out(life),
            _ => {}
        }
    }

    pub(crate) fn ticket(&mut self, life: &mut Life, waiting: Waiting) -> usize {
        self.next_ticket += 1;
        life.waiting.insert(self.next_ticket, (waiting, None));
        self.next_ticket
    }

    pub(crate) fn queued_bytes(life: &Life) -> usize {
        let bytes = |submitted: &Submitted| match submitted {
            Submitted::Append { events, .. } | Submitted::Unit(SubmittedUnit { events, .. }) => {
                events.iter().map(|event| event.bytes.len() + 100).sum()
            }
            _ => 0,
        };
        life.queue.iter().map(bytes).sum()
    }

    pub(crate) fn incoming(&mut self, partition: PartitionId, mark: Mark) -> Incoming {
        self.next_number += 1;
        Incoming { partition, bytes: plan::event(&mut self.random, self.next_number), mark, guard: None }
    }

    /// Events from outside: without marks, with identities, or numbered.
    fn publish(&mut self, life: &mut Life) {
        if Self::queued_bytes(life) > QUEUE_BYTES_MAX / 2 {
            return;
        }
        let count = self.random.pick(&[1, 1, 1, 2, 3, 8]);
        let (mut events, mut producer) = (Vec::new(), None);
        match self.random.below(4) {
            0 => {
                for _ in 0..count {
                    let partition = self.random.pick(&ROOTS);
                    events.push(self.incoming(partition, Mark::None));
                }
            }
            1 | 2 => {
                let topic = 1 + self.random.below(2) as u32;
                for _ in 0..count {
                    let partitions: Vec<_> = ROOTS.into_iter().filter(|id| id.topic.0 == topic).collect();
                    let partition = self.random.pick(&partitions);
                    let mark = Mark::Identity(self.identity(partition));
                    events.push(self.incoming(partition, mark));
                }
            }
            _ => {
                let by = self.producer(life);
                producer = Some(by);
                for sequence in self.numbers(life, by, count) {
                    // a number goes to the same partition whenever it is sent
                    let partition = ROOTS[(sequence * 7 / 3 % 3) as usize];
                    events.push(self.incoming(partition, Mark::Sequence(sequence)));
                }
            }
        }
        let stream = self.guard(life, &mut events);
        let marks: Vec<_> =
            events.iter().map(|event| (event.partition, event.mark, event.guard, event.bytes.len())).collect();
        let mut slices = slices_of(&events, producer);
        if let Some((fence, _)) = &stream {
            slices.set_fence(fence.clone());
        }
        let stream = stream.map(|(_, number)| number);
        let appended = life.log.append(slices);
        self.note(format!("publish {producer:?} {stream:?} {marks:?}: {:?}", appended.as_ref().map(drop)));
        match appended {
            Ok(ticket) => {
                assert!(!life.is_poisoned, "a poisoned log takes events");
                let ticket = self.ticket(life, Waiting::Append(ticket));
                life.queue.push(Submitted::Append { events, producer, stream, ticket });
            }
            Err(SubmitError::Stopped) => assert!(life.is_poisoned, "the log has stopped, and does not say so"),
            // at the last look at the disk there was no room for this; by now there may be
            Err(SubmitError::Full) => {}
            Err(SubmitError::Busy) => panic!("nothing is in the queue that could keep it busy"),
        }
    }

    /// One of two producers, mostly as it began last; one that may be forgotten begins anew.
    fn producer(&mut self, life: &Life) -> Producer {
        let name = if self.random.once_in(2) { "p" } else { "q" };
        let beginnings = self.beginnings.entry(name).or_default();
        if beginnings.is_empty() || self.random.once_in(15) {
            let now_ns = life.log.trusted_now_ns();
            let began_ns = self.random.pick(&[Some(now_ns), Some(now_ns), Some(now_ns + HOUR), Some(START), None]);
            beginnings.push(began_ns);
        }
        let last = beginnings.len() as u64 - 1;
        let back = if self.random.once_in(5) { self.random.below(last + 1) } else { 0 };
        let began_ns = beginnings[(last - back) as usize];
        let id = began_ns.map_or(ProducerId::new(name), |began_ns| ProducerId::begun(name, began_ns));
        Producer { id, began_ns }
    }

    /// A new identity, or one of before.
    fn identity(&mut self, partition: PartitionId) -> EventId {
        let (generation, used) = self.identities.entry(partition.topic).or_default();
        let number = if !used.is_empty() && self.random.once_in(2) {
            let back = self.random.pick(&[3, 20, u64::MAX]).min(used.len() as u64);
            used[used.len() - 1 - self.random.below(back) as usize]
        } else {
            used.push(used.len() as u64);
            used.len() as u64 - 1
        };
        EventId(u128::from(*generation) << 96 | u128::from(partition.topic.0) << 64 | u128::from(number))
    }

    /// Numbers that a producer sends: again from any point, but without a gap, as an outbox does.
    fn numbers(&mut self, life: &Life, producer: Producer, count: u64) -> std::ops::Range<u64> {
        let queued = life.queue.iter().flat_map(|submitted| match submitted {
            Submitted::Append { events, producer: Some(by), .. } if *by == producer => events.as_slice(),
            _ => &[],
        });
        let queued = queued.filter_map(|event| match event.mark {
            Mark::Sequence(sequence) => Some(sequence),
            _ => None,
        });
        let last = queued.max().unwrap_or(0).max(self.model.last_sequence(producer.id));
        let from = if self.random.once_in(2) { last + 1 } else { 1 + self.random.below(last + 1) };
        from..from + count
    }

    fn unit(&mut self, life: &mut Life) {
        if life.sessions.is_empty() || Self::queued_bytes(life) > QUEUE_BYTES_MAX / 2 {
            return;
        }
        // mostly the last session, which is an owner unless it was fenced
        let back = if self.random.once_in(3) { life.sessions.len() as u64 } else { 2 };
        let which = life.sessions.len() - 1 - self.random.below(back.min(life.sessions.len() as u64)) as usize;
        let (id, owner, from) = {
            let session = &life.sessions[which];
            (session.id, session.acquired.owner, session.position)
        };
        let written = life.log.partition(input_of(id)).written();
        let left = written.saturating_sub(from).min(4);
        let consumed_to = from + if self.random.once_in(4) { 0 } else { left.min(self.random.between(1, 4)) };
        let outputs = outputs_of(id);
        let count = if outputs.is_empty() { 0 } else { self.random.pick(&[0, 1, 2, 4]) };
        let mut events = Vec::new();
        if life.log.space(0) != SpaceLevel::Critical {
            for _ in 0..count {
                let partition = self.random.pick(outputs);
                events.push(self.incoming(partition, Mark::None));
            }
        }
        let writes = plan::writes(&mut self.random);
        life.sessions[which].position = consumed_to;
        let (log, acquired) = (life.log.clone(), life.sessions[which].acquired.clone());
        let slices = slices_of(&events, None);
        let outputs: Vec<_> = events.iter().map(|event| (event.partition, event.bytes.len())).collect();
        let slices_are_empty = events.is_empty();
        let handed_in = writes.clone();
        let mut unit: Pin<Box<dyn Future<Output = _>>> =
            Box::pin(async move { log.unit(&acquired, consumed_to, slices, handed_in).await });
        let done = poll(&mut unit);
        self.note(format!(
            "unit of {id:?}, owner {owner}, to {consumed_to}, {outputs:?}, {} entries: {done:?}",
            writes.len()
        ));
        match done {
            Some(Ok(Ok(()))) => {
                let (lane, released, ticket) = (id, None, None);
                let unit = SubmittedUnit { lane, owner, consumed_to, events, writes, released, ticket };
                life.queue.push(Submitted::Unit(unit));
            }
            Some(Ok(Err(refused))) => panic!("nothing guards it: {refused:?}"),
            Some(Err(_)) => assert!(life.is_poisoned, "the log has stopped, and does not say so"),
            // there is room, but not for all of this; it was never handed in
            None => {
                assert!(!slices_are_empty, "a unit that emits nothing waits");
                life.sessions[which].position = from;
            }
        }
    }

    pub(crate) fn acquire(&mut self, life: &mut Life) {
        // mostly one of two, so that these get somewhere
        let any = self.random.pick(&LANES);
        let lane = self.random.pick(&[LANES[0], LANES[2], any]);
        self.acquire_one(life, lane);
    }

    pub(crate) fn acquire_one(&mut self, life: &mut Life, lane: LaneId) {
        let log = life.log.clone();
        self.note(format!("acquire {lane:?}"));
        let mut future: Pin<Box<dyn Future<Output = _>>> = Box::pin(async move { log.acquire(lane).await });
        if poll(&mut future).is_none() {
            let ticket = self.ticket(life, Waiting::Acquire(lane, future));
            life.queue.push(Submitted::Acquire { lane, ticket });
        }
    }

    fn catalogue(&mut self, life: &mut Life) {
        self.next_number += 1;
        let (entry, log) = (format!("entry {}", self.next_number).into_bytes(), life.log.clone());
        self.note(format!("catalogue entry {}", self.next_number));
        let bytes = entry.clone();
        let mut future: Pin<Box<dyn Future<Output = _>>> = Box::pin(async move { log.catalogue(bytes.into()).await });
        if poll(&mut future).is_none() {
            let ticket = self.ticket(life, Waiting::Done(future));
            life.queue.push(Submitted::Catalogue { entry, ticket });
        }
    }

    fn barrier(&mut self, life: &mut Life) {
        self.note("barrier");
        let log = life.log.clone();
        let mut future: Pin<Box<dyn Future<Output = _>>> = Box::pin(async move { log.barrier().await });
        if poll(&mut future).is_none() {
            let ticket = self.ticket(life, Waiting::Done(future));
            life.queue.push(Submitted::Barrier { ticket });
        }
    }

    /// Somebody reads a part of a partition: from inside to what is written, from outside to what is durable.
    fn read(&mut self, life: &mut Life) {
        let id = self.random.pick(&PARTITIONS);
        let partition = life.log.partition(id);
        let end = if self.random.once_in(2) { partition.written() } else { partition.durable() };
        let from = self.random.between(partition.start(), end.max(partition.start()));
        let events = self.random.pick(&[1, 3, u32::MAX]);
        let bytes = self.random.pick(&[0, 600, 5_000, usize::MAX]);
        let before = self.faults.fired().reads;
        let read = check::read(&life.log, &mut life.reader, id, (from, end), (events, bytes));
        self.note(format!("read {id:?} from {from} to {end}: {:?}", read.as_ref().map(Vec::len)));
        match read {
            Ok(chunks) => {
                let next = check::compare(&self.model, id, from, &chunks);
                assert!(next > from || from >= end, "{id:?}: nothing at {from}, in front of {end}");
                assert!(next <= end.max(from) && next - from <= u64::from(events), "{id:?}: more than was asked for");
            }
            Err(error) if is_of(&error, self.damaged.as_ref()) => {}
            Err(error) => assert!(self.faults.fired().reads > before, "{id:?} cannot be read at {from}: {error}"),
        }
    }

    pub(crate) fn read_all(&mut self, life: &mut Life) {
        self.note("read all");
        let (faults, before) = (self.faults.clone(), self.faults.fired().reads);
        let damaged = self.damaged.clone();
        let is_excused = |error: &ColdError| faults.fired().reads > before || is_of(error, damaged.as_ref());
        check::all(&mut self.model, &life.log, &is_excused);
        self.read_entries(life);
        if self.guarding.is_some() && self.damaged.is_none() && !life.is_poisoned {
            self.open_states(life);
            // what waits in the queue has changed nothing yet
            check::lives(&self.model.lives, &life.log, &|_| life.is_poisoned);
        }
    }

    /// Reads what the lanes keep; of those only of which nothing is on its way.
    fn read_entries(&mut self, life: &mut Life) {
        for lane in LANES {
            let is_of_it = |submitted: &Submitted| match submitted {
                Submitted::Unit(SubmittedUnit { lane: of, .. }) | Submitted::Acquire { lane: of, .. } => *of == lane,
                _ => false,
            };
            if life.is_poisoned || life.queue.iter().any(is_of_it) {
                continue;
            }
            let expected = self.model.entries(lane, self.model.published);
            let entries = life.log.entries(lane);
            let (mut found, mut from) = (Vec::new(), Bound::Unbounded);
            let count = self.random.pick(&[1, 2, 100]);
            let mut is_reopened = false;
            loop {
                match entries.range(from.as_ref().map(bytes::Bytes::as_ref), &[255], PageBudget::of(count)) {
                    Ok(page) => {
                        let Some((last, _)) = page.entries.last() else { break };
                        from = Bound::Excluded(last.clone());
                        found.extend(page.entries);
                    }
                    // what a checkpoint has closed, the next one opens
                    Err(error) if error.is_passing() && !std::mem::replace(&mut is_reopened, true) => {
                        life.stepper.as_mut().unwrap().move_out();
                    }
                    Err(error) => {
                        let fired = self.faults.fired() != life.fired;
                        // a full disk may keep the store closed until there is room
                        let is_full = self.disk.space().unwrap().total_bytes < u64::MAX / 4;
                        assert!(
                            fired || is_full || self.damaged.is_some(),
                            "{lane:?}: entries cannot be read: {error}"
                        );
                        return;
                    }
                }
            }
            assert_eq!(found, expected, "what {lane:?} keeps");
            if let Some((key, value)) = found.first() {
                assert_eq!(entries.get(key).unwrap().as_ref(), Some(value), "what {lane:?} keeps under one key");
            }
        }
    }

    fn look_for_time(&mut self, life: &mut Life) {
        let id = self.random.pick(&PARTITIONS);
        let (start, end) = (life.log.partition(id).start(), life.log.partition(id).written());
        let times: Vec<u64> = self.model.units.iter().filter_map(|unit| unit.time_ns).collect();
        let time_ns = if times.is_empty() { 1 } else { self.random.pick(&times) + self.random.below(3) - 1 };
        let before = self.faults.fired().reads;
        let found = life.log.cold_reader().offset_at_time(id, time_ns, end);
        self.note(format!("{id:?}: {time_ns} is at {found:?}"));
        match found {
            Ok(found) => {
                let expected = check::offset_at_time(&self.model, id, time_ns, (start, end));
                assert_eq!(Some(found), expected, "{id:?}: where {time_ns} begins");
            }
            Err(error) if is_of(&error, self.damaged.as_ref()) => {}
            Err(error) => assert!(self.faults.fired().reads > before, "{id:?}: {time_ns} is not found: {error}"),
        }
    }
}
