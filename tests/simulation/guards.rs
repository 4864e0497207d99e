//! Steps with guards: events that bring states, streams of them, and units that emit such or give what is held its
//! place.

use wattle::log::{Condition, SpaceLevel};
use wattle::model::{Fence, GuardCounts, Mark, PartitionId, keeper_of};

use super::lives::{Aside, Brings};
use super::model::{Incoming, Submitted, SubmittedUnit, slices_of};
use super::plan::{self, GUARDED, Guarding, HOLDERS, diverted_of, held_for, held_of, input_of};
use super::world::{Life, VerdictFuture, Waiting, World, poll};

impl World {
    /// A state of some key.
    fn brings(&mut self) -> (u8, &'static str) {
        (self.random.below(4) as u8, self.random.pick(&["a", "a", "b", "z"]))
    }

    /// Whether a topic diverts at the moment what is out of order, or else holds it.
    fn diverts(&mut self, guarding: &Guarding) -> bool {
        guarding.diverts && (!guarding.holds || self.random.once_in(2))
    }

    fn guard_of(&mut self, of: PartitionId, guarding: &Guarding, diverts: bool, may_have_id: bool) -> Brings {
        let (key, state) = self.brings();
        let id = (may_have_id && self.random.once_in(2)).then(|| self.random.below(6));
        let aside = match diverts {
            true => diverted_of(of).map(Aside::Diverted),
            false => held_of(of).filter(|_| guarding.holds).map(Aside::Held),
        };
        Brings { key, state, aside, beside: held_of(of), id }
    }

    /// Sometimes events bring states, and sometimes they belong to a stream.
    pub(crate) fn guard(&mut self, life: &mut Life, events: &mut [Incoming]) -> Option<(Fence, usize)> {
        let guarding = self.guarding.filter(|_| self.damaged.is_none())?;
        if self.random.once_in(2) {
            let diverts = self.diverts(&guarding);
            for event in events {
                // no topic recognises events in two ways
                let may_have_id = event.mark == Mark::None;
                event.guard = Some(self.guard_of(event.partition, &guarding, diverts, may_have_id));
            }
        }
        if self.random.once_in(2) {
            return None;
        }
        let is_over = life.stream.as_ref().is_none_or(|(_, number)| self.model.shut.contains(number));
        if life.stream.is_none() || (is_over && self.random.once_in(2)) {
            self.next_number += 1;
            life.stream = Some((Fence::default(), self.next_number as usize));
        }
        life.stream.clone()
    }

    /// The states of keys can be read: on a full disk, they may not be until the next checkpoint.
    pub(crate) fn open_states(&mut self, life: &mut Life) {
        if self.guarding.is_none() || self.damaged.is_some() || life.is_poisoned {
            return;
        }
        let log = life.log.clone();
        let is_closed = || {
            let cannot = |id: &PartitionId| {
                let entries = log.entries(keeper_of(*id));
                entries.get(b"none").is_err() || GuardCounts::read(|key| entries.get(key)).is_err()
            };
            *log.condition().borrow() == Condition::Working && GUARDED.iter().any(cannot)
        };
        if is_closed() {
            self.note("the states are opened again");
            self.faults.disarm_full();
            self.disk.set_capacity(None);
            if let Some(stepper) = &mut life.stepper {
                stepper.move_out();
            }
            assert!(!is_closed(), "the states cannot be read, and nothing is wrong");
        }
    }

    /// A lane emits events with states, or one that gives what is held its place does that; and waits for the verdict.
    pub(crate) fn guarded_unit(&mut self, life: &mut Life) {
        let Some(guarding) = self.guarding.filter(|_| self.damaged.is_none() && !life.is_poisoned) else { return };
        if self.random.once_in(8) || life.sessions.is_empty() {
            let lane = self.random.pick(&HOLDERS);
            return self.acquire_one(life, lane);
        }
        let which = self.random.below(life.sessions.len() as u64) as usize;
        let (id, owner, from) = {
            let session = &life.sessions[which];
            (session.id, session.acquired.owner, session.position)
        };
        let written = life.log.partition(input_of(id)).written();
        let count = self.random.pick(&[1, 1, 2, 3]);
        let (mut events, mut released) = (Vec::new(), None);
        if let Some(of) = held_for(input_of(id)) {
            // any of them, also such that have gone by now: the log takes the lane's word
            for _ in 0..count {
                let back = 1 + self.random.below(written.min(4));
                let Some(at) = written.checked_sub(back) else { break };
                let held = &self.model.partitions[&input_of(id)][at as usize];
                let guard = held.guard.map(|brings| Brings { aside: None, beside: None, id: None, ..brings });
                events.push(Incoming { partition: of, bytes: held.bytes.clone(), mark: Mark::None, guard });
            }
            released = Some((of, events.len() as u32));
        } else if id.subscriber.0 == 1 {
            let diverts = self.diverts(&guarding);
            for _ in 0..count {
                let partition = plan::GUARDED[3 + self.random.below(2) as usize];
                let guard = Some(self.guard_of(partition, &guarding, diverts, true));
                events.push(Incoming { guard, ..self.incoming(partition, Mark::None) });
            }
        }
        let bytes: usize = events.iter().map(|event| event.bytes.len() + 100).sum();
        if events.is_empty() || life.log.space(4 * bytes) == SpaceLevel::Critical {
            return; // it would wait for room
        }
        let (consumed_to, writes) = (written.max(from), plan::writes(&mut self.random));
        let mut slices = slices_of(&events, None);
        released.iter().for_each(|(of, count)| slices.release(*of, *count));
        let (log, acquired) = (life.log.clone(), life.sessions[which].acquired.clone());
        let handed_in = writes.clone();
        let mut verdict: VerdictFuture =
            Box::pin(async move { log.unit(&acquired, consumed_to, slices, handed_in).await });
        let states: Vec<_> = events.iter().map(|event| (event.partition, event.guard)).collect();
        self.note(format!("unit of {id:?}, owner {owner}, to {consumed_to}, {states:?}, {released:?}"));
        assert!(poll(&mut verdict).is_none(), "a verdict before it was written");
        life.sessions[which].position = consumed_to;
        let ticket = self.ticket(life, Waiting::Verdict(verdict, (id, owner), from));
        let unit = SubmittedUnit { lane: id, owner, consumed_to, events, writes, released, ticket: Some(ticket) };
        life.queue.push(Submitted::Unit(unit));
        self.append(life);
    }
}
