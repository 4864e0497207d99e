//! The syncer: makes written groups durable while the appender goes on writing, so that no lane waits for a sync.
//!
//! ```text
//!   appender:  write 1   write 2  write 3   write 4
//!   syncer:            [ sync 1 ]         [ sync 2..3 ]       [ sync 4 ]
//!                               └ acks of 1           └ acks of 2, 3
//! ```
//!
//! Promises: what it acks, or shows outside, was written before the `fdatasync` began that has returned for it. A sync
//! that fails is never tried again, and nothing is acked after it. No two syncs run at once: of two on one file only one
//! is told that a write failed, and the other would ack what is lost. So the appender, where a file ends, waits for this
//! thread in place of a sync of its own.
//!
//! A sync covers whatever was written when it begins: that is the group commit.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Shared;
use super::appender::{Permit, Placed};
use super::files::JournalFile;
use super::partition::Partition;
use crate::limits;
use crate::model::Offset;

/// Who waits for a group.
pub(super) enum Ack {
    Append(oneshot::Sender<Placed>, Placed, Permit),
    Catalogue(oneshot::Sender<()>),
}

impl Ack {
    pub(super) fn send(self) {
        // a receiver that is gone has lost interest, not the event
        match self {
            Self::Append(ticket, placed, permit) => {
                drop(permit);
                drop(ticket.send(placed));
            }
            Self::Catalogue(ticket) => drop(ticket.send(())),
        }
    }
}

/// How far a group goes in each partition that it has events of.
pub(super) type Ends = Arc<[(Arc<Partition>, Offset)]>;

/// A group that is written.
pub(super) struct Written {
    pub(super) file: Arc<JournalFile>,
    /// The position behind its last frame.
    pub(super) end_position: u64,
    pub(super) ends: Ends,
    pub(super) acks: Vec<Ack>,
}

pub(super) struct Syncer {
    pending: Mutex<Pending>,
    arrived: Condvar,
    /// More is durable, or nothing more will be.
    settled: Condvar,
    /// Everything in front of it is durable.
    durable: AtomicU64,
    /// Least time between two syncs.
    interval: Duration,
}

#[derive(Default)]
struct Pending {
    groups: Vec<Written>,
    closed: bool,
    /// Somebody waits, so the interval does not count.
    urgent: bool,
    /// The thread is gone.
    ended: bool,
}

impl Syncer {
    pub(super) fn new(durable: u64, interval: Duration) -> Self {
        let (arrived, settled) = (Condvar::new(), Condvar::new());
        Self { pending: Mutex::default(), arrived, settled, durable: AtomicU64::new(durable), interval }
    }

    /// Everything in front of this position is durable.
    pub(super) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a group to be made durable, waiting where too many are waiting already. A group that nobody waits for joins
    /// the one in front of it.
    pub(super) fn submit(&self, group: Written) {
        let mut pending = self.pending();
        match pending.groups.last_mut() {
            Some(last) if group.acks.is_empty() && group.ends.is_empty() && Arc::ptr_eq(&last.file, &group.file) => {
                last.end_position = group.end_position;
            }
            _ => pending.groups.push(group),
        }
        self.arrived.notify_one();
        // Lanes run ahead of the sync, but not without end: a disk that hangs stops them here.
        while pending.groups.len() >= limits::UNSYNCED_GROUPS_MAX && !pending.ended {
            pending.urgent = true;
            pending = self.settled.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until everything in front of a position, which was submitted, is durable.
    ///
    /// # Errors
    /// When the syncer has ended before; it has said why.
    pub(super) fn settle(&self, position: u64) -> io::Result<()> {
        let mut pending = self.pending();
        while self.durable() < position {
            if pending.ended {
                return Err(io::Error::other("the syncer has ended"));
            }
            pending.urgent = true;
            self.arrived.notify_one();
            pending = self.settled.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// Nothing more is coming.
    pub(super) fn close(&self) {
        self.pending().closed = true;
        self.arrived.notify_one();
    }

    /// Waits for groups, and at least until `not_before`. `None`: closed, and nothing is left.
    fn take(&self, not_before: Instant) -> Option<Vec<Written>> {
        let mut pending = self.pending();
        loop {
            let early = not_before.saturating_duration_since(Instant::now());
            pending = match (pending.groups.is_empty(), pending.closed) {
                (true, true) => return None,
                (true, false) => self.arrived.wait(pending).unwrap_or_else(PoisonError::into_inner),
                (false, false) if !pending.urgent && !early.is_zero() => {
                    self.arrived.wait_timeout(pending, early).unwrap_or_else(PoisonError::into_inner).0
                }
                (false, _) => {
                    pending.urgent = false;
                    return Some(std::mem::take(&mut pending.groups));
                }
            };
        }
    }

    /// Serves until it is closed or a sync fails.
    pub(super) fn run(&self, shared: &Shared) {
        // Without this thread nothing is acked any more, however it ended: whoever waits must be told.
        if catch_unwind(AssertUnwindSafe(|| self.serve(shared))).is_err() {
            shared.poison("the syncer panicked");
        }
        self.pending().ended = true;
        self.settled.notify_all();
    }

    fn serve(&self, shared: &Shared) {
        let mut last = Instant::now();
        while let Some(groups) = self.take(last + self.interval) {
            if let Err(error) = sync_files(&groups) {
                shared.poison(&format!("fdatasync failed: {error}"));
            }
            if shared.is_poisoned() {
                return; // with the groups, and so their tickets
            }
            last = Instant::now();
            for group in groups {
                self.durable.store(group.end_position, Ordering::Release);
                for (partition, end) in group.ends.iter() {
                    partition.set_durable(*end);
                }
                group.acks.into_iter().for_each(Ack::send);
            }
            drop(self.pending()); // or who has just looked and not yet begun to wait would miss it
            self.settled.notify_all();
        }
    }
}

fn sync_files(groups: &[Written]) -> io::Result<()> {
    let mut last: Option<&Arc<JournalFile>> = None;
    for group in groups {
        if last.is_none_or(|last| !Arc::ptr_eq(last, &group.file)) {
            group.file.file.sync()?;
            last = Some(&group.file);
        }
    }
    Ok(())
}
