//! What stays for a while for somebody who is about to go back to it, though it may expire.
//!
//! ```text
//!   start ... going ....... held ....... end
//!     │         │            └ nothing from here on is decided to go
//!     │         └ what lies before goes with the checkpoint that is being made
//!     └ what lies before is gone
//! ```
//!
//! Promises: whoever holds a partition has all of it from the offset on that it was told, until it lets go.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::{Offset, PartitionId};

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Holds(Arc<Mutex<State>>);

#[derive(Debug, Default)]
pub(super) struct State {
    /// How often each offset is held.
    held: BTreeMap<(PartitionId, Offset), usize>,
    /// Where partitions begin once the checkpoint is committed that is being made.
    going: BTreeMap<PartitionId, Offset>,
}

/// A partition from an offset on.
#[derive(Debug)]
pub struct Held {
    all: Arc<Mutex<State>>,
    partition: PartitionId,
    from: Offset,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Holds {
    /// Holds all that a partition has, which begins at `start` if nothing is about to go.
    pub(super) fn hold(&self, partition: PartitionId, start: impl FnOnce() -> Offset) -> Held {
        let mut state = lock(&self.0);
        // looked at under the lock, or a decision could come between
        let from = state.going.get(&partition).copied().unwrap_or(0).max(start());
        *state.held.entry((partition, from)).or_default() += 1;
        Held { all: self.0.clone(), partition, from }
    }

    /// Decides what goes next; what was decided before has gone, or has not.
    pub(super) fn decide(&self) -> MutexGuard<'_, State> {
        let mut state = lock(&self.0);
        state.going.clear();
        state
    }
}

impl State {
    /// The first offset of a partition that is held.
    pub(super) fn first(&self, partition: PartitionId) -> Offset {
        let first = self.held.range((partition, 0)..=(partition, Offset::MAX)).next();
        first.map_or(Offset::MAX, |((_, offset), _)| *offset)
    }

    /// What lies before an offset is about to go.
    pub(super) fn goes(&mut self, partition: PartitionId, start: Offset) {
        self.going.insert(partition, start);
    }
}

impl Held {
    /// The first offset that is held.
    pub fn from(&self) -> Offset {
        self.from
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = lock(&self.all);
        let at = (self.partition, self.from);
        if let Some(count) = state.held.get_mut(&at) {
            *count -= 1;
            if *count == 0 {
                state.held.remove(&at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TopicId;

    const P: PartitionId = PartitionId { topic: TopicId(1), partition: 0 };
    const OTHER: PartitionId = PartitionId { topic: TopicId(1), partition: 1 };

    #[test]
    fn what_is_about_to_go_is_not_held_and_what_is_held_is_not_decided_to_go() {
        let holds = Holds::default();
        holds.decide().goes(P, 7);
        let held = holds.hold(P, || 3);
        assert_eq!((held.from(), holds.hold(OTHER, || 3).from()), (7, 3));
        let first = |partition| holds.decide().first(partition);
        assert_eq!((first(P), first(OTHER)), (7, Offset::MAX));
        let same = holds.hold(P, || 7);
        drop(held);
        assert_eq!(first(P), 7, "somebody else holds it");
        drop(same);
        assert_eq!(first(P), Offset::MAX);
    }
}
