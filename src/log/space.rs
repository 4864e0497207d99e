//! How much room the disk has left, and for whom.
//!
//! ```text
//!   free on the disk
//!   ├ promised: what is in the queue and in the journal will be in segments as well
//!   ├ reserve of the lanes that emit nothing, and of checkpoints: they make room again
//!   ├ reserve of the lanes that emit: they may go on a little longer than producers
//!   └ the rest is for producers
//! ```
//!
//! Promises: producers are refused first, then lanes that emit wait; nothing else ever does. Both go on by themselves.
//! Every byte that is admitted has room in a segment, unless somebody else fills the disk.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::Shared;
use crate::effects::Space;
use crate::limits;

/// Who may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SpaceLevel {
    /// Everybody.
    Ample,
    /// Lanes; producers are refused.
    Low,
    /// Lanes that emit nothing; the others wait.
    Critical,
}

impl SpaceLevel {
    pub(super) fn admits_producers(self) -> bool {
        self == Self::Ample
    }

    pub(super) fn admits_emits(self) -> bool {
        self != Self::Critical
    }
}

/// Bytes that were admitted and are not in segments yet.
fn promised(shared: &Shared) -> u64 {
    shared.queue.bytes() + shared.tail.waiting_bytes() as u64
}

/// Bytes of each reserve.
fn reserve(space: &Space) -> u64 {
    (space.total_bytes / limits::SPACE_RESERVE_PART).min(limits::SPACE_RESERVE_BYTES_MAX)
}

/// The last look at the disk.
pub(super) struct SpaceWatch {
    level: AtomicU8,
    looked_ns: AtomicU64,
    /// Bytes that were written since, which the disk may not count yet.
    written: AtomicU64,
}

impl SpaceWatch {
    pub(super) fn new() -> Self {
        Self { level: 0.into(), looked_ns: u64::MAX.into(), written: 0.into() }
    }

    /// So much was written: after enough of it another look is due.
    pub(super) fn note(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Who may write. Looks at the disk where the last look was long ago, in time or in bytes.
    pub(super) fn level(&self, shared: &Shared) -> SpaceLevel {
        let now = shared.clock.elapsed_ns();
        let looked = self.looked_ns.load(Ordering::Relaxed);
        let is_due = looked == u64::MAX
            || now.saturating_sub(looked) >= limits::SPACE_LOOK_EVERY.as_nanos() as u64
            || self.written.load(Ordering::Relaxed) >= limits::SPACE_LOOK_BYTES;
        if is_due {
            self.looked_ns.store(now, Ordering::Relaxed);
            self.written.store(0, Ordering::Relaxed);
            self.look(shared);
        }
        match self.level.load(Ordering::Relaxed) {
            0 => SpaceLevel::Ample,
            1 => SpaceLevel::Low,
            _ => SpaceLevel::Critical,
        }
    }

    /// Whether so many bytes can be taken and everybody may still write.
    pub(super) fn has_room_for(&self, shared: &Shared, bytes: u64) -> bool {
        shared
            .disk
            .space()
            .is_ok_and(|space| space.free_bytes.saturating_sub(promised(shared) + bytes) >= 4 * reserve(&space))
    }

    fn look(&self, shared: &Shared) {
        let space = match shared.disk.space() {
            Ok(space) => space,
            Err(error) => {
                tracing::debug!(%error, "cannot see how much room the disk has");
                return;
            }
        };
        let (left, reserve) = (space.free_bytes.saturating_sub(promised(shared)), reserve(&space));
        let level = if left >= 3 * reserve {
            SpaceLevel::Ample
        } else if left >= 2 * reserve {
            SpaceLevel::Low
        } else {
            SpaceLevel::Critical
        };
        let before = self.level.swap(level as u8, Ordering::Relaxed);
        if before != level as u8 {
            let free_bytes = space.free_bytes;
            match level {
                SpaceLevel::Ample => tracing::info!(free_bytes, "the disk has room again: everybody may write"),
                SpaceLevel::Low => tracing::warn!(free_bytes, "the disk is nearly full: producers are refused"),
                SpaceLevel::Critical => {
                    tracing::error!(free_bytes, "the disk is full: lanes that emit wait until there is room");
                }
            }
        }
    }
}
