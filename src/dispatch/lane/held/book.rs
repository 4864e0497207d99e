//! In-memory index of a partition's held events: key, state and expiry time of each. It finds the next allowed event
//! without looking at the others, however many the key has.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::model::Offset;

/// The hash of a key.
pub(super) type KeyHash = [u8; 16];

/// A held event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HeldEvent {
    pub(super) key: KeyHash,
    /// Its offset in the hidden topic, which is the arrival order.
    pub(super) offset: Offset,
    /// Its expiry time.
    pub(super) due_ns: u64,
    /// Its state; `None` if the lifecycle no longer contains it.
    pub(super) state: Option<Arc<str>>,
}

/// Events of one key with the same state, in arrival order, with their expiry times.
type Queue = VecDeque<(Offset, u64)>;

/// Key and state of a held event.
type HeldState = (KeyHash, Option<Arc<str>>);

/// All held events.
#[derive(Debug, Default)]
pub(super) struct HeldEvents {
    /// Events with a state. No queue is empty, and no key is without a queue.
    keys: BTreeMap<KeyHash, BTreeMap<Arc<str>, Queue>>,
    due: BTreeMap<(u64, Offset), HeldState>,
}

impl HeldEvents {
    /// Number of held events.
    pub(super) fn count(&self) -> u64 {
        self.due.len() as u64
    }

    /// When the first event expires.
    pub(super) fn next_ns(&self) -> Option<u64> {
        self.due.keys().next().map(|(due_ns, _)| *due_ns)
    }

    /// The keys with events that may become allowed.
    pub(super) fn keys(&self) -> impl Iterator<Item = &KeyHash> {
        self.keys.keys()
    }

    /// Whether [`Self::keys`] contains the key.
    pub(super) fn has(&self, key: &KeyHash) -> bool {
        self.keys.contains_key(key)
    }

    /// Adds an event, or returns one that was taken out.
    pub(super) fn put(&mut self, event: HeldEvent) {
        let HeldEvent { key, offset, due_ns, state } = event;
        if let Some(state) = &state {
            let queue = self.keys.entry(key).or_default().entry(state.clone()).or_default();
            queue.insert(queue.partition_point(|(other, _)| *other < offset), (offset, due_ns));
        }
        self.due.insert((due_ns, offset), (key, state));
    }

    /// Takes out the first event of a key that has one of these states.
    pub(super) fn take_first(&mut self, key: &KeyHash, may: &BTreeSet<Arc<str>>) -> Option<HeldEvent> {
        let states = self.keys.get(key)?;
        let first = may.iter().filter_map(|state| Some((*states.get(state)?.front()?, state)));
        let ((offset, due_ns), state) = first.min()?;
        self.take(*key, offset, due_ns, Some(state))
    }

    /// Takes out the first event that has expired at a time.
    pub(super) fn take_late(&mut self, now_ns: u64) -> Option<HeldEvent> {
        let ((due_ns, offset), (key, state)) = self.due.first_key_value()?;
        let (due_ns, offset, key, state) = (*due_ns, *offset, *key, state.clone());
        if due_ns > now_ns { None } else { self.take(key, offset, due_ns, state.as_ref()) }
    }

    fn take(&mut self, key: KeyHash, offset: Offset, due_ns: u64, state: Option<&Arc<str>>) -> Option<HeldEvent> {
        let (_, taken) = self.due.remove(&(due_ns, offset))?;
        if let Some(states) = self.keys.get_mut(&key)
            && let Some(state) = state
            && let Some(queue) = states.get_mut(state)
        {
            // nearly always the first one
            if let Ok(at) = queue.binary_search_by_key(&offset, |(offset, _)| *offset) {
                queue.remove(at);
            }
            if queue.is_empty() {
                states.remove(state);
            }
            if states.is_empty() {
                self.keys.remove(&key);
            }
        }
        Some(HeldEvent { key, offset, due_ns, state: taken })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: KeyHash = [7; 16];

    fn event(offset: Offset, due_ns: u64, state: Option<&str>) -> HeldEvent {
        HeldEvent { key: KEY, offset, due_ns, state: state.map(Arc::from) }
    }

    fn may(states: &[&str]) -> BTreeSet<Arc<str>> {
        states.iter().map(|state| Arc::from(*state)).collect()
    }

    #[test]
    fn the_first_that_may_follow_is_taken_and_nothing_is_left_of_what_is_taken() {
        let mut book = HeldEvents::default();
        for (offset, state) in [(1, "b"), (2, "a"), (3, "b"), (4, "c")] {
            book.put(event(offset, 100 - offset, Some(state)));
        }
        book.put(event(5, 1, None));
        assert_eq!((book.count(), book.next_ns()), (5, Some(1)));
        let next =
            |book: &mut HeldEvents, states: &[&str]| book.take_first(&KEY, &may(states)).map(|event| event.offset);
        assert_eq!(next(&mut book, &["x"]), None);
        assert_eq!(next(&mut book, &["a", "b"]), Some(1));
        let taken = book.take_first(&KEY, &may(&["a", "b"])).unwrap();
        assert_eq!(next(&mut book, &["a", "b"]), Some(3));
        book.put(taken);
        assert_eq!(next(&mut book, &["a", "b"]), Some(2), "as if it had not been taken");
        assert_eq!(book.take_late(0), None);
        assert_eq!(book.take_late(100).unwrap(), event(5, 1, None));
        assert!(book.has(&KEY));
        assert_eq!(book.take_late(100).unwrap(), event(4, 96, Some("c")));
        assert!(!book.has(&KEY) && book.count() == 0 && book.next_ns().is_none());
    }
}
