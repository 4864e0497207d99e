//! The room on the disk, and which writers may use it.
//!
//! ```text
//!   free on the disk
//!   ├ promised: data in the queue and in the journal, which will also need room in segments
//!   ├ reserve for lanes that emit nothing, and for checkpoints: they free room
//!   ├ reserve for lanes that emit: they may continue a little longer than producers
//!   └ the rest is for producers
//! ```
//!
//! Promises: producers are refused first, then lanes that emit wait; nothing else is affected. Both continue
//! automatically. Every admitted byte has room in a segment, unless another program fills the disk.

use std::sync::atomic::{AtomicU64, Ordering};

use super::LogInner;
use crate::effects::Space;
use crate::limits;

/// Which writers are admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SpaceLevel {
    Ample,
    /// Lanes; producers are refused.
    Low,
    /// Lanes that emit nothing; other lanes wait.
    Critical,
}

/// Free bytes on the disk, without those that admitted data will need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// All of them.
    pub left_bytes: u64,
    /// The part that producers do not get: the reserves.
    pub reserve_bytes: u64,
    /// The largest publish that is admitted: it has room in the journal and in a segment.
    pub publish_bytes: u64,
}

impl SpaceLevel {
    pub(super) fn admits_producers(self) -> bool {
        self == Self::Ample
    }

    pub(super) fn admits_emits(self) -> bool {
        self != Self::Critical
    }
}

/// Room that bytes need before they are in the journal: in the journal, if they exceed its files, and in a segment.
fn twice(bytes: u64) -> u64 {
    2 * bytes
}

/// Room for data that was admitted and is not in segments yet.
fn promised(shared: &LogInner) -> u64 {
    twice(shared.queue.bytes()) + shared.tail.waiting_bytes() as u64
}

/// Size of each reserve in bytes.
fn reserve(space: &Space) -> u64 {
    (space.total_bytes / limits::SPACE_RESERVE_PART).min(limits::SPACE_RESERVE_BYTES_MAX)
}

/// The last look at the disk.
pub(super) struct SpaceWatch {
    /// Bytes that were left at that time.
    left: AtomicU64,
    reserve: AtomicU64,
    looked_ns: AtomicU64,
    /// Bytes admitted or written since then, which the disk may not count yet.
    since: AtomicU64,
}

impl SpaceWatch {
    pub(super) fn new() -> Self {
        Self { left: u64::MAX.into(), reserve: 0.into(), looked_ns: u64::MAX.into(), since: 0.into() }
    }

    /// Records a write: after enough bytes, another look is due.
    pub(super) fn note(&self, bytes: usize) {
        self.since.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Which writers may write `bytes` that are not in the queue yet. Looks at the disk if the last look is too old, in
    /// time or in bytes, and before it refuses a writer: so a small disk never admits more than it has room for, and
    /// new room is used at once.
    pub(super) fn level(&self, shared: &LogInner, bytes: usize) -> SpaceLevel {
        let bytes = twice(bytes as u64);
        let since = self.since.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let now = shared.clock.elapsed_ns();
        let looked = self.looked_ns.load(Ordering::Relaxed);
        let is_due = looked == u64::MAX
            || now.saturating_sub(looked) >= limits::SPACE_LOOK_EVERY.as_nanos() as u64
            || since >= limits::SPACE_LOOK_BYTES
            || self.after(since) != SpaceLevel::Ample;
        if !is_due {
            return self.after(since);
        }
        self.looked_ns.store(now, Ordering::Relaxed);
        self.since.store(bytes, Ordering::Relaxed);
        self.look(shared);
        self.after(bytes)
    }

    /// As [`Self::level`], always with a new look at the disk.
    pub(super) fn level_now(&self, shared: &LogInner, bytes: usize) -> SpaceLevel {
        self.looked_ns.store(u64::MAX, Ordering::Relaxed);
        self.level(shared, bytes)
    }

    /// Which writers are admitted after `bytes` more than at the last look.
    fn after(&self, bytes: u64) -> SpaceLevel {
        let left = self.left.load(Ordering::Relaxed).saturating_sub(bytes);
        let reserve = self.reserve.load(Ordering::Relaxed);
        if left >= 3 * reserve {
            SpaceLevel::Ample
        } else if left >= 2 * reserve {
            SpaceLevel::Low
        } else {
            SpaceLevel::Critical
        }
    }

    /// The room at the last look; `None` before the first one.
    pub(super) fn room(&self) -> Option<Room> {
        let (left_bytes, reserve) = (self.left.load(Ordering::Relaxed), self.reserve.load(Ordering::Relaxed));
        let reserve_bytes = 3 * reserve;
        let publish_bytes = left_bytes.saturating_sub(reserve_bytes) / twice(1);
        (left_bytes != u64::MAX).then_some(Room { left_bytes, reserve_bytes, publish_bytes })
    }

    /// Whether `bytes` can be taken such that all writers are still admitted.
    pub(super) fn has_room_for(&self, shared: &LogInner, bytes: u64) -> bool {
        shared
            .disk
            .space()
            .is_ok_and(|space| space.free_bytes.saturating_sub(promised(shared) + bytes) >= 4 * reserve(&space))
    }

    /// Whether some writers are refused, as of the last look.
    pub(super) fn is_tight(&self) -> bool {
        self.after(0) != SpaceLevel::Ample
    }

    fn look(&self, shared: &LogInner) {
        let space = match shared.disk.space() {
            Ok(space) => space,
            Err(error) => {
                tracing::debug!(%error, "cannot read the free space of the disk");
                return;
            }
        };
        let before = self.after(0);
        self.left.store(space.free_bytes.saturating_sub(promised(shared)), Ordering::Relaxed);
        self.reserve.store(reserve(&space), Ordering::Relaxed);
        let level = self.after(0);
        if before != level {
            let free_bytes = space.free_bytes;
            match level {
                SpaceLevel::Ample => tracing::info!(free_bytes, "the disk has room again: all writes are accepted"),
                SpaceLevel::Low => tracing::warn!(free_bytes, "the disk is nearly full: producers are refused"),
                SpaceLevel::Critical => {
                    tracing::error!(free_bytes, "the disk is full: lanes that emit wait until there is room");
                }
            }
        }
    }
}
