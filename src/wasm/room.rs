//! The budget of instances: their maximum number, and their total memory.
//!
//! An instance's whole memory limit is reserved before it starts, so that a plugin never fails an event because others
//! are large. If there is no room, idle instances of other plugins are evicted; if that is not enough, the call waits.
//!
//! Waiting cannot deadlock: a waiting call holds no other instance, and every instance is either idle, and so evicted
//! for waiting calls, or in a call, which ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const MIB: u64 = 1024 * 1024;

pub(super) struct InstanceBudget {
    slots: Arc<Semaphore>,
    memory_mib: Arc<Semaphore>,
    budget_mib: u32,
    waiting: AtomicUsize,
}

/// The room of an instance, until it is dropped.
pub(super) struct InstancePermit {
    _slot: OwnedSemaphorePermit,
    _memory: OwnedSemaphorePermit,
}

impl InstanceBudget {
    pub(super) fn new(slots: u32, budget_bytes: u64) -> InstanceBudget {
        let budget_mib = u32::try_from(budget_bytes / MIB).unwrap_or(u32::MAX).min(MIB_MAX);
        let slots = usize::try_from(slots).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        InstanceBudget {
            slots: Arc::new(Semaphore::new(slots)),
            memory_mib: Arc::new(Semaphore::new(usize::try_from(budget_mib).unwrap_or(usize::MAX))),
            budget_mib,
            waiting: AtomicUsize::new(0),
        }
    }

    /// Whether an instance of this size could ever fit.
    pub(super) fn could_hold(&self, memory_bytes: u64) -> bool {
        mib(memory_bytes) <= self.budget_mib
    }

    /// Whether a call waits for room, so that idle instances should be evicted.
    pub(super) fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Reserves room for an instance, waiting if necessary. `make_room` evicts an idle instance and returns false if
    /// there is none. `None`: the host is gone.
    pub(super) async fn take(&self, memory_bytes: u64, mut make_room: impl FnMut() -> bool) -> Option<InstancePermit> {
        if let Some(place) = self.try_take(memory_bytes) {
            return Some(place);
        }
        // Counted before evictions: from then on no instance becomes idle.
        let _waiting = WaiterCount::announce(&self.waiting);
        while make_room() {
            if let Some(place) = self.try_take(memory_bytes) {
                return Some(place);
            }
        }
        let slot = Arc::clone(&self.slots).acquire_owned().await.ok()?;
        let memory = Arc::clone(&self.memory_mib).acquire_many_owned(mib(memory_bytes)).await.ok()?;
        Some(InstancePermit { _slot: slot, _memory: memory })
    }

    fn try_take(&self, memory_bytes: u64) -> Option<InstancePermit> {
        let slot = Arc::clone(&self.slots).try_acquire_owned().ok()?;
        let memory = Arc::clone(&self.memory_mib).try_acquire_many_owned(mib(memory_bytes)).ok()?;
        Some(InstancePermit { _slot: slot, _memory: memory })
    }
}

/// Half of what a 32-bit semaphore can hold.
const MIB_MAX: u32 = 1 << 28;

fn mib(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(MIB)).unwrap_or(u32::MAX)
}

struct WaiterCount<'a>(&'a AtomicUsize);

impl<'a> WaiterCount<'a> {
    fn announce(count: &'a AtomicUsize) -> WaiterCount<'a> {
        count.fetch_add(1, Ordering::SeqCst);
        WaiterCount(count)
    }
}

impl Drop for WaiterCount<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
