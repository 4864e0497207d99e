//! A disk that records the bytes between syncs, so that a yardstick can write the same groups.

use std::sync::{Arc, Mutex, PoisonError};

use crate::effects::memory::Operation;
use crate::effects::{Disk, WatchedDisk};

/// The bytes between syncs of a disk, in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Groups(Arc<Mutex<GroupSizes>>);

#[derive(Debug, Default)]
struct GroupSizes {
    unsynced: usize,
    synced: Vec<usize>,
}

impl Groups {
    /// Takes the groups since the last call.
    pub(super) fn take(&self) -> Vec<usize> {
        let mut recorded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.unsynced = 0;
        std::mem::take(&mut recorded.synced)
    }

    fn wrote(&self, bytes: usize) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).unsynced += bytes;
    }

    /// Later writes count for the next sync, even if this one covers some of them.
    fn syncs(&self) {
        let mut recorded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let group = std::mem::take(&mut recorded.unsynced);
        recorded.synced.push(group);
    }
}

/// A disk that records writes to the journal, on which acks depend.
pub(super) fn recording<D: Disk>(disk: D, groups: Groups) -> WatchedDisk<D> {
    let is_journal = |name: &str| name.starts_with("journal-");
    WatchedDisk::new(disk, move |name, operation| match operation {
        Operation::Write(bytes) if is_journal(name) => groups.wrote(bytes),
        Operation::Sync if is_journal(name) => groups.syncs(),
        _ => {}
    })
}
