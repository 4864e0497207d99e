//! A disk that records how much it is given between two syncs, so that a yardstick can do exactly the same.

use std::sync::{Arc, Mutex, PoisonError};

use crate::effects::memory::Operation;
use crate::effects::{Disk, WatchedDisk};

/// Bytes of each group that a disk was given between two syncs, in their order.
#[derive(Debug, Clone, Default)]
pub(super) struct Groups(Arc<Mutex<Recorded>>);

#[derive(Debug, Default)]
struct Recorded {
    unsynced: usize,
    synced: Vec<usize>,
}

impl Groups {
    /// What was recorded since the last time.
    pub(super) fn take(&self) -> Vec<usize> {
        let mut recorded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.unsynced = 0;
        std::mem::take(&mut recorded.synced)
    }

    fn wrote(&self, bytes: usize) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).unsynced += bytes;
    }

    /// What is written from here on counts with the next sync, even where this one takes some of it along.
    fn syncs(&self) {
        let mut recorded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let group = std::mem::take(&mut recorded.unsynced);
        recorded.synced.push(group);
    }
}

/// A disk of which it is recorded what is written to the journal: that is what an ack waits for.
pub(super) fn recording<D: Disk>(disk: D, groups: Groups) -> WatchedDisk<D> {
    let is_journal = |name: &str| name.starts_with("journal-");
    WatchedDisk::new(disk, move |name, operation| match operation {
        Operation::Write(bytes) if is_journal(name) => groups.wrote(bytes),
        Operation::Sync if is_journal(name) => groups.syncs(),
        _ => {}
    })
}
