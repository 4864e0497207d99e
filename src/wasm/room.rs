//! Room for instances: how many there may be at once, and how much memory they may take together.
//!
//! An instance's whole memory limit is set aside before it starts, so that a plugin never fails an event because others
//! are large. When there is no room, idle instances of other plugins make some; when that is not enough, one waits.
//!
//! Waiting cannot deadlock: who waits for room holds no other instance, and every instance is either idle, and so given
//! up for those who wait, or in a call, which ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const MIB: u64 = 1024 * 1024;

pub(super) struct Room {
    slots: Arc<Semaphore>,
    memory_mib: Arc<Semaphore>,
    budget_mib: u32,
    waiting: AtomicUsize,
}

/// Room that an instance takes, until it is dropped.
pub(super) struct Place {
    _slot: OwnedSemaphorePermit,
    _memory: OwnedSemaphorePermit,
}

impl Room {
    pub(super) fn new(slots: u32, budget_bytes: u64) -> Room {
        let budget_mib = u32::try_from(budget_bytes / MIB).unwrap_or(u32::MAX).min(MIB_MAX);
        let slots = usize::try_from(slots).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Room {
            slots: Arc::new(Semaphore::new(slots)),
            memory_mib: Arc::new(Semaphore::new(usize::try_from(budget_mib).unwrap_or(usize::MAX))),
            budget_mib,
            waiting: AtomicUsize::new(0),
        }
    }

    /// Whether an instance of this size could ever have room.
    pub(super) fn could_hold(&self, memory_bytes: u64) -> bool {
        mib(memory_bytes) <= self.budget_mib
    }

    /// Whether somebody waits for room, so that what is idle should go.
    pub(super) fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Takes room for an instance, waiting for it. `make_room` gives up something idle; false: there is nothing left.
    /// None: the host is gone.
    pub(super) async fn take(&self, memory_bytes: u64, mut make_room: impl FnMut() -> bool) -> Option<Place> {
        if let Some(place) = self.try_take(memory_bytes) {
            return Some(place);
        }
        // Announced before what is idle is taken away: nobody then adds to it.
        let _waiting = Waiting::announce(&self.waiting);
        while make_room() {
            if let Some(place) = self.try_take(memory_bytes) {
                return Some(place);
            }
        }
        let slot = Arc::clone(&self.slots).acquire_owned().await.ok()?;
        let memory = Arc::clone(&self.memory_mib).acquire_many_owned(mib(memory_bytes)).await.ok()?;
        Some(Place { _slot: slot, _memory: memory })
    }

    fn try_take(&self, memory_bytes: u64) -> Option<Place> {
        let slot = Arc::clone(&self.slots).try_acquire_owned().ok()?;
        let memory = Arc::clone(&self.memory_mib).try_acquire_many_owned(mib(memory_bytes)).ok()?;
        Some(Place { _slot: slot, _memory: memory })
    }
}

/// Half of what fits, so that it fits a semaphore of 32-bit machines too.
const MIB_MAX: u32 = 1 << 28;

fn mib(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(MIB)).unwrap_or(u32::MAX)
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn announce(count: &'a AtomicUsize) -> Waiting<'a> {
        count.fetch_add(1, Ordering::SeqCst);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
