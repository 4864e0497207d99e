//! Identities that are not in the store yet: all since the last checkpoint, in memory.
//!
//! The events of a group are one batch, shared by the appender and the checkpointer. After a checkpoint has written it,
//! its identities are removed in small steps, so that no call takes long.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashTable;

use super::filter::TOUCHED_MAX;
use super::runs::{Hashing, Horizon};
use super::store::IdentityRow;
use crate::model::Offset;

/// The place of an event in its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EventPlace {
    pub(super) partition: u32,
    pub(super) offset: Offset,
}

/// The identity and the place of an event.
#[derive(Debug, Clone, Copy)]
struct IdentityEntry {
    /// As bytes, to avoid padding.
    identity: [u8; 16],
    trusted_time_ns: u64,
    offset: Offset,
    partition: u32,
}

/// The events of a topic in one group.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    first_number: u64,
    events: Arc<[IdentityEntry]>,
}

impl Batch {
    /// A batch of stored events, numbered from `first_number` on.
    pub(super) fn of(first_number: u64, events: &[IdentityRow]) -> Self {
        let noted = |event: &IdentityRow| IdentityEntry {
            identity: event.identity.to_ne_bytes(),
            trusted_time_ns: event.trusted_time_ns,
            offset: event.offset,
            partition: event.partition,
        };
        Self { first_number, events: events.iter().map(noted).collect() }
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.events)
    }

    /// The number after its last event.
    pub(super) fn end_number(&self) -> u64 {
        self.first_number + self.events.len() as u64
    }

    pub(super) fn events(&self) -> impl Iterator<Item = IdentityRow> {
        (self.first_number..).zip(&*self.events).map(|(number, event)| IdentityRow {
            identity: u128::from_ne_bytes(event.identity),
            partition: event.partition,
            offset: event.offset,
            trusted_time_ns: event.trusted_time_ns,
            number,
        })
    }
}

/// The number of an event and a part of its hash, so that most lookups need only this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    hash: u32,
    /// The lower half.
    number: u32,
}

impl Slot {
    fn new(hash: u64, number: u64) -> Self {
        Self { hash: (hash >> 32) as u32, number: number as u32 }
    }

    fn spread(&self) -> u64 {
        u64::from(self.hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// How to undo [`Window::note`] for some events.
#[derive(Debug, Default)]
pub(super) struct Undo {
    count: usize,
    /// Slots that replaced others.
    replaced: Vec<(Slot, Slot)>,
}

/// The identities of one topic in memory.
#[derive(Debug, Default)]
pub(super) struct Window {
    next_number: u64,
    /// The number of the first event in memory.
    first_number: u64,
    /// With the end position of their group in the journal.
    batches: VecDeque<(Batch, u64)>,
    /// Of the group that is being made.
    open: Vec<IdentityEntry>,
    slots: HashTable<Slot>,
}

impl Window {
    /// An empty window whose next number is this.
    pub(super) fn from(next_number: u64) -> Self {
        Self { next_number, first_number: next_number, ..Self::default() }
    }

    pub(super) fn next_number(&self) -> u64 {
        self.next_number
    }

    fn number(&self, slot: &Slot) -> u64 {
        self.first_number + u64::from(slot.number.wrapping_sub(self.first_number as u32))
    }

    fn noted(&self, number: u64) -> Option<&IdentityEntry> {
        let open_from = self.next_number - self.open.len() as u64;
        if number >= open_from {
            return self.open.get((number - open_from) as usize);
        }
        let behind = self.batches.partition_point(|(batch, _)| batch.first_number <= number);
        let (batch, _) = self.batches.get(behind.checked_sub(1)?)?;
        batch.events.get((number - batch.first_number) as usize)
    }

    fn slot(&self, identity: u128, hash: u64) -> Option<Slot> {
        let slot = Slot::new(hash, 0);
        let identity = identity.to_ne_bytes();
        let is_it = |known: &Slot| {
            known.hash == slot.hash && self.noted(self.number(known)).is_some_and(|noted| noted.identity == identity)
        };
        self.slots.find(slot.spread(), is_it).copied()
    }

    /// Prefetches what [`Self::find`] will read for these hashes.
    pub(super) fn touch(&self, hashes: &[u64]) {
        let touched = |hash: &&u64| self.slots.find(Slot::new(**hash, 0).spread(), |_| false).is_some();
        std::hint::black_box(hashes.iter().filter(touched).count());
    }

    /// Looks up the last event with this identity. `None`: not in memory. `Some(None)`: outside of the window.
    pub(super) fn find(&self, identity: u128, hash: u64, horizon: Horizon) -> Option<Option<EventPlace>> {
        let slot = self.slot(identity, hash)?;
        let number = self.number(&slot);
        let noted = self.noted(number)?;
        let place = EventPlace { partition: noted.partition, offset: noted.offset };
        Some(horizon.has(noted.trusted_time_ns, number).then_some(place))
    }

    /// Records an event. An earlier one with the same identity is replaced.
    pub(super) fn note(&mut self, identity: u128, hash: u64, place: EventPlace, trusted_time_ns: u64, undo: &mut Undo) {
        let slot = Slot::new(hash, self.next_number);
        match self.slot(identity, hash) {
            Some(before) => {
                if let Ok(mut known) = self.slots.find_entry(before.spread(), |known| *known == before) {
                    *known.get_mut() = slot;
                }
                undo.replaced.push((slot, before));
            }
            None => drop(self.slots.insert_unique(slot.spread(), slot, Slot::spread)),
        }
        let identity = identity.to_ne_bytes();
        self.open.push(IdentityEntry { identity, trusted_time_ns, offset: place.offset, partition: place.partition });
        self.next_number += 1;
        undo.count += 1;
    }

    /// Undoes the last records.
    pub(super) fn take_back(&mut self, mut undo: Undo, hashing: &Hashing) {
        for _ in 0..undo.count {
            let Some(noted) = self.open.pop() else { return };
            self.next_number -= 1;
            let slot = Slot::new(hashing.hash(u128::from_ne_bytes(noted.identity)), self.next_number);
            let before = undo.replaced.pop_if(|(by, _)| *by == slot).map(|(_, before)| before);
            if let Ok(mut known) = self.slots.find_entry(slot.spread(), |known| *known == slot) {
                match before {
                    Some(before) => *known.get_mut() = before,
                    None => drop(known.remove()),
                }
            }
        }
    }

    /// Adds a batch from the store that is not in a run.
    pub(super) fn add(&mut self, batch: Batch, position: u64, hashing: &Hashing) {
        for event in batch.events() {
            let place = EventPlace { partition: event.partition, offset: event.offset };
            let hash = hashing.hash(event.identity);
            self.note(event.identity, hash, place, event.trusted_time_ns, &mut Undo::default());
        }
        self.open.clear();
        self.batches.push_back((batch, position));
    }

    /// The group is written, up to this position. Returns its batch.
    pub(super) fn written(&mut self, position: u64) -> Option<Batch> {
        if self.open.is_empty() {
            return None;
        }
        let first_number = self.next_number - self.open.len() as u64;
        let batch = Batch { first_number, events: self.open.drain(..).collect() };
        self.batches.push_back((batch.clone(), position));
        Some(batch)
    }

    /// Whether events before a position are still in memory.
    pub(super) fn has_before(&self, position: u64) -> bool {
        self.batches.front().is_some_and(|(_, end)| *end <= position)
    }

    /// Removes up to `most` events before a position. Returns their number.
    pub(super) fn release(&mut self, position: u64, most: usize, hashing: &Hashing) -> usize {
        let mut released = 0;
        while released < most && self.has_before(position) {
            let Some((batch, _)) = self.batches.front() else { break };
            let from = self.first_number.saturating_sub(batch.first_number) as usize;
            let events = batch.events.iter().skip(from).take((most - released).min(TOUCHED_MAX));
            let (mut hashes, mut count) = ([0; TOUCHED_MAX], 0);
            for (hash, noted) in hashes.iter_mut().zip(events) {
                *hash = hashing.hash(u128::from_ne_bytes(noted.identity));
                count += 1;
            }
            let hashes = hashes.get(..count).unwrap_or_default();
            self.touch(hashes);
            for hash in hashes {
                let slot = Slot::new(*hash, self.first_number);
                if let Ok(known) = self.slots.find_entry(slot.spread(), |known| *known == slot) {
                    known.remove(); // unless a later event has replaced it
                }
                self.first_number += 1;
                released += 1;
            }
            if self.first_number >= batch.end_number() {
                self.batches.pop_front();
            }
        }
        if self.slots.is_empty() {
            self.slots = HashTable::new();
        }
        released
    }
}

#[cfg(test)]
mod tests {
    use super::super::runs::WindowOptions;
    use super::*;

    const HASHING: fn() -> Hashing = || Hashing { seed: 7, options: WindowOptions::default() };

    fn note(window: &mut Window, identity: u128, time_ns: u64) -> Undo {
        let mut undo = Undo::default();
        let place = EventPlace { partition: 0, offset: window.next_number() };
        window.note(identity, HASHING().hash(identity), place, time_ns, &mut undo);
        undo
    }

    fn find(window: &Window, identity: u128) -> Option<Offset> {
        window.find(identity, HASHING().hash(identity), Horizon::everything()).flatten().map(|place| place.offset)
    }

    #[test]
    fn what_a_checkpoint_has_written_goes_and_the_rest_is_found() {
        let mut window = Window::default();
        for group in 0..10 {
            for identity in 0..100 {
                note(&mut window, group * 100 + identity, 0);
            }
            window.written(group as u64 + 1);
        }
        note(&mut window, 5_000, 0);
        assert_eq!(window.release(3, 150, &HASHING()), 150);
        assert_eq!(window.release(3, 1_000, &HASHING()), 150);
        assert!(!window.has_before(3) && window.has_before(4));
        for identity in 0..1_000 {
            let expected = (identity >= 300).then_some(identity as u64);
            assert_eq!(find(&window, identity), expected, "{identity}");
        }
        assert_eq!(find(&window, 5_000), Some(1_000));
        assert_eq!(window.slots.len(), 701);
    }

    #[test]
    fn what_is_taken_back_leaves_what_was_there() {
        let mut window = Window::default();
        note(&mut window, 1, 10);
        note(&mut window, 2, 10);
        window.written(1);
        let again = note(&mut window, 1, 20);
        let first = note(&mut window, 3, 20);
        assert_eq!((find(&window, 1), find(&window, 3)), (Some(2), Some(3)));
        window.take_back(first, &HASHING());
        window.take_back(again, &HASHING());
        assert_eq!((find(&window, 1), find(&window, 2), find(&window, 3)), (Some(0), Some(1), None));
        assert_eq!((window.next_number(), window.slots.len()), (2, 2));
    }

    #[test]
    fn a_later_event_of_the_same_identity_stays_when_the_first_one_goes() {
        let mut window = Window::default();
        note(&mut window, 1, 10);
        window.written(1);
        note(&mut window, 1, 20);
        window.written(2);
        window.release(1, 10, &HASHING());
        assert_eq!(find(&window, 1), Some(1));
        window.release(2, 10, &HASHING());
        assert_eq!(find(&window, 1), None);
    }
}
