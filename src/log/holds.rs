//! Holds: readers that are about to go back to retained events prevent their expiry for a while.
//!
//! ```text
//!   start ... going ....... held ....... end
//!     │         │            └ nothing from here on is selected for removal
//!     │         └ events before are removed with the checkpoint that is being made
//!     └ events before are removed
//! ```
//!
//! Promises: while a hold exists, its partition has all events from the hold's offset on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::{Offset, PartitionId};

/// All holds of a log.
#[derive(Debug, Default)]
pub(super) struct Holds(Arc<Mutex<HoldTable>>);

#[derive(Debug, Default)]
pub(super) struct HoldTable {
    /// The number of holds per offset.
    held: BTreeMap<(PartitionId, Offset), usize>,
    /// The first offsets of partitions once the checkpoint that is being made is committed.
    going: BTreeMap<PartitionId, Offset>,
}

/// A hold on a partition from an offset on.
#[derive(Debug)]
pub struct PartitionHold {
    all: Arc<Mutex<HoldTable>>,
    partition: PartitionId,
    from: Offset,
}

fn lock(state: &Mutex<HoldTable>) -> MutexGuard<'_, HoldTable> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Holds {
    /// Holds all events of a partition. They begin at `start`, or later if a removal is being made.
    pub(super) fn hold(&self, partition: PartitionId, start: impl FnOnce() -> Offset) -> PartitionHold {
        let mut state = lock(&self.0);
        // read under the lock: otherwise a removal could be decided in between
        let from = state.going.get(&partition).copied().unwrap_or(0).max(start());
        *state.held.entry((partition, from)).or_default() += 1;
        PartitionHold { all: self.0.clone(), partition, from }
    }

    /// Starts the next selection of segments to remove; the previous one is complete.
    pub(super) fn decide(&self) -> MutexGuard<'_, HoldTable> {
        let mut state = lock(&self.0);
        state.going.clear();
        state
    }
}

impl HoldTable {
    /// The first offset of a partition that is held.
    pub(super) fn first(&self, partition: PartitionId) -> Offset {
        let first = self.held.range((partition, 0)..=(partition, Offset::MAX)).next();
        first.map_or(Offset::MAX, |((_, offset), _)| *offset)
    }

    /// Records that events before an offset are about to be removed.
    pub(super) fn goes(&mut self, partition: PartitionId, start: Offset) {
        self.going.insert(partition, start);
    }
}

impl PartitionHold {
    /// The first offset that is held.
    pub fn from(&self) -> Offset {
        self.from
    }
}

impl Drop for PartitionHold {
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
        assert_eq!(first(P), 7, "another hold exists");
        drop(same);
        assert_eq!(first(P), Offset::MAX);
    }
}
