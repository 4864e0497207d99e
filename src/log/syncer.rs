//! The syncer: makes written groups durable while the appender continues to write, so that no lane waits for a sync.
//!
//! ```text
//!   appender:  write 1   write 2  write 3   write 4
//!   syncer:            [ sync 1 ]         [ sync 2..3 ]       [ sync 4 ]
//!                               └ acks of 1           └ acks of 2, 3
//! ```
//!
//! Promises: an event is acked, or visible outside, only after an `fdatasync` that began after its write has returned.
//! A failed sync is never repeated, and nothing is acked after it. No two syncs run at once: of two on one file only
//! one would report a failed write, and the other would ack lost data. So at the end of a file the appender waits for
//! this thread instead of syncing itself.
//!
//! A sync covers everything written before it begins: that is the group commit. It begins at once if a producer waits
//! for an ack or an outside reader for an event. Other units of lanes are synced with the next one, or after
//! [`limits::SYNC_AFTER`]: a separate sync for each level of a tree would delay the urgent ones.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::files::JournalFile;
use super::partition::Partition;
use super::queue::{AppendRefusal, Permit, SlicePlaces};
use super::{Durability, LogInner};
use crate::limits;
use crate::model::{Offset, PartitionId};

/// The offsets of an append, or why it was refused. A refusal, too, is reported only once the state that caused it is
/// durable.
pub(super) type Verdict = Result<SlicePlaces, AppendRefusal>;

/// A caller that waits for a group to become durable.
pub(super) enum Ack {
    Append(oneshot::Sender<Verdict>, Verdict, Permit),
    Durable(oneshot::Sender<()>),
}

impl Ack {
    pub(super) fn send(self) {
        // a dropped receiver only means that the caller no longer waits
        match self {
            Self::Append(ticket, placed, permit) => {
                drop(permit);
                drop(ticket.send(placed));
            }
            Self::Durable(ticket) => drop(ticket.send(())),
        }
    }
}

/// The end offsets of a group in its partitions.
pub(super) type Ends = Arc<[End]>;

/// The end offset of a group in a partition.
#[derive(Debug, Clone)]
pub(super) struct End {
    pub(super) id: PartitionId,
    pub(super) partition: Arc<Partition>,
    /// After its last event there.
    pub(super) offset: Offset,
}

/// A group that is written.
pub(super) struct WrittenGroup {
    pub(super) file: Arc<JournalFile>,
    /// The position after its last frame.
    pub(super) end_position: u64,
    pub(super) ends: Ends,
    pub(super) acks: Vec<Ack>,
}

pub(super) struct Syncer {
    pending: Mutex<Pending>,
    arrived: Condvar,
    /// Signals that more is durable, or that nothing more will be.
    settled: Condvar,
    /// Everything before this position is durable.
    durable: AtomicU64,
    durability: Durability,
    /// How long groups without a waiting caller may stay unsynced.
    patience: Duration,
    /// There is no thread: the caller that waits for a sync performs it.
    is_stepped: bool,
}

#[derive(Default)]
struct Pending {
    groups: Vec<WrittenGroup>,
    /// The end position of the last submitted group.
    submitted: u64,
    closed: bool,
    /// When the first of the groups was submitted.
    since: Option<Instant>,
    /// A caller waits: the sync begins at once.
    urgent: bool,
    /// The thread has ended.
    ended: bool,
}

impl Pending {
    /// Adds a group. Once the syncer has ended it is dropped with its tickets, so that its callers learn that.
    fn push(&mut self, group: WrittenGroup, durability: Durability) {
        if self.ended {
            return;
        }
        let is_awaited = !group.acks.is_empty() || !group.ends.is_empty();
        if group.end_position == self.submitted && !is_awaited {
            return; // nothing was written since
        }
        self.submitted = group.end_position;
        self.since.get_or_insert_with(Instant::now);
        self.urgent |= durability == Durability::Sync
            && (!group.acks.is_empty() || group.ends.iter().any(|end| end.partition.is_awaited_outside()));
        match self.groups.last_mut() {
            Some(last) if !is_awaited && Arc::ptr_eq(&last.file, &group.file) => last.end_position = group.end_position,
            _ => self.groups.push(group),
        }
    }
}

impl Syncer {
    pub(super) fn new(durable: u64, durability: Durability, is_stepped: bool) -> Self {
        let patience = match durability {
            Durability::Interval(interval) => interval,
            Durability::Sync => limits::SYNC_AFTER,
            Durability::Os => Duration::ZERO,
        };
        let (arrived, settled) = (Condvar::new(), Condvar::new());
        let pending = Mutex::new(Pending { submitted: durable, ..Pending::default() });
        Self { pending, arrived, settled, durable: AtomicU64::new(durable), durability, patience, is_stepped }
    }

    /// Everything before this position is durable.
    pub(super) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Submits a group to be made durable; waits if too many are pending. A group without waiting callers is merged
    /// with the previous one.
    pub(super) fn submit(&self, group: WrittenGroup, shared: &LogInner) {
        let mut pending = self.pending();
        pending.push(group, self.durability);
        self.arrived.notify_one();
        // Lanes run ahead of the sync, but only a bounded distance: a disk that hangs stops them here.
        while pending.groups.len() >= limits::UNSYNCED_GROUPS_MAX && !pending.ended {
            pending = self.wait(pending, shared);
        }
    }

    /// Whether a group can be submitted without waiting.
    pub(super) fn is_keeping_up(&self) -> bool {
        self.pending().groups.len() < limits::UNSYNCED_GROUPS_MAX - 1
    }

    /// Waits until more is durable, or nothing more will be.
    fn wait<'a>(&'a self, mut pending: MutexGuard<'a, Pending>, shared: &LogInner) -> MutexGuard<'a, Pending> {
        pending.urgent = true;
        if self.is_stepped {
            drop(pending);
            self.step(shared);
            return self.pending();
        }
        self.arrived.notify_one();
        self.settled.wait(pending).unwrap_or_else(PoisonError::into_inner)
    }

    /// Syncs the pending groups, if there is no thread to do it.
    pub(super) fn step(&self, shared: &LogInner) {
        let groups = std::mem::take(&mut self.pending().groups);
        if !self.make_durable(groups, shared) {
            self.end();
        }
    }

    /// Ends: nothing more becomes durable, and callers that wait for a group learn that, also of one that comes later.
    fn end(&self) {
        let groups = {
            let mut pending = self.pending();
            pending.ended = true;
            std::mem::take(&mut pending.groups)
        };
        drop(groups); // outside of the lock: their tickets wake callers
        self.settled.notify_all();
    }

    /// Waits until everything before the end of a file is durable. After that, no group is pending.
    ///
    /// # Errors
    /// The syncer has ended; it has reported the reason.
    pub(super) fn settle(&self, file: &Arc<JournalFile>, position: u64, shared: &LogInner) -> io::Result<()> {
        let mut pending = self.pending();
        if pending.submitted < position {
            let group =
                WrittenGroup { file: file.clone(), end_position: position, ends: Ends::default(), acks: Vec::new() };
            pending.push(group, self.durability);
        }
        while self.durable() < position {
            if pending.ended {
                return Err(io::Error::other("the syncer has ended"));
            }
            pending = self.wait(pending, shared);
        }
        Ok(())
    }

    /// Makes the next sync begin at once.
    pub(super) fn hurry(&self) {
        let mut pending = self.pending();
        if !pending.urgent {
            pending.urgent = true;
            drop(pending);
            self.arrived.notify_one();
        }
    }

    /// Closes the syncer: no more groups will be submitted.
    pub(super) fn close(&self) {
        self.pending().closed = true;
        self.arrived.notify_one();
    }

    /// Waits for groups that are due. `None`: closed, and no group is left.
    fn take(&self) -> Option<Vec<WrittenGroup>> {
        let mut pending = self.pending();
        loop {
            let due = pending.since.map_or(Duration::ZERO, |since| self.patience.saturating_sub(since.elapsed()));
            pending = match (pending.groups.is_empty(), pending.closed) {
                (true, true) => return None,
                (true, false) => self.arrived.wait(pending).unwrap_or_else(PoisonError::into_inner),
                (false, false) if !pending.urgent && !due.is_zero() => {
                    self.arrived.wait_timeout(pending, due).unwrap_or_else(PoisonError::into_inner).0
                }
                (false, _) => {
                    (pending.urgent, pending.since) = (false, None);
                    return Some(std::mem::take(&mut pending.groups));
                }
            };
        }
    }

    /// Runs until it is closed or a sync fails.
    pub(super) fn run(&self, shared: &LogInner) {
        // Nothing is acked after the end of this thread, however it ended: waiting callers must learn that.
        if catch_unwind(AssertUnwindSafe(|| self.serve(shared))).is_err() {
            shared.poison("the syncer panicked");
        }
        self.end();
    }

    fn serve(&self, shared: &LogInner) {
        while let Some(groups) = self.take() {
            if !self.make_durable(groups, shared) {
                return; // drops the groups with their tickets
            }
            drop(self.pending()); // so that a thread between its check and its wait does not miss the signal
            self.settled.notify_all();
        }
    }

    /// Syncs groups and notifies their waiters. Returns false if nothing can be promised any more.
    fn make_durable(&self, groups: Vec<WrittenGroup>, shared: &LogInner) -> bool {
        if let Err(error) = sync_files(&groups, self.durable()) {
            shared.poison(&format!("fdatasync failed: {error}"));
        }
        if shared.is_poisoned() {
            return false;
        }
        for group in groups {
            self.durable.store(group.end_position, Ordering::Release);
            for end in group.ends.iter() {
                end.partition.set_durable(end.offset);
            }
            group.acks.into_iter().for_each(Ack::send);
        }
        shared.tail.set_settled(self.durable());
        true
    }
}

/// Syncs the files of groups that are not durable yet. (A group of duplicates only has nothing to sync.)
fn sync_files(groups: &[WrittenGroup], durable: u64) -> io::Result<()> {
    let mut last: Option<&Arc<JournalFile>> = None;
    for group in groups.iter().filter(|group| group.end_position > durable) {
        if last.is_none_or(|last| !Arc::ptr_eq(last, &group.file)) {
            group.file.file.sync()?;
            last = Some(&group.file);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TopicId;

    /// A group with one event, which ends at `end_position`.
    fn group(partition: &Arc<Partition>, end_position: u64, acks: Vec<Ack>) -> WrittenGroup {
        let id = PartitionId { topic: TopicId(1), partition: 0 };
        let disk: Arc<dyn crate::effects::Disk> = Arc::new(crate::effects::MemoryDisk::default());
        let file = Arc::new(JournalFile { first_position: 0, file: disk.create("file").unwrap() });
        let ends = vec![End { id, partition: partition.clone(), offset: 1 }].into();
        WrittenGroup { file, end_position, ends, acks }
    }

    #[test]
    fn a_sync_begins_at_once_where_somebody_waits_for_it() {
        let partition = Arc::new(Partition::default());
        let mut pending = Pending::default();
        pending.push(group(&partition, 10, Vec::new()), Durability::Sync);
        assert!(!pending.urgent && pending.since.is_some(), "lanes do not wait");

        pending.push(group(&partition, 20, vec![Ack::Durable(oneshot::channel().0)]), Durability::Sync);
        assert!(pending.urgent, "an ack");

        let mut pending = Pending::default();
        let waits = partition.wait_durable(5, || false, || ());
        let mut waits = std::pin::pin!(waits);
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(waits.as_mut().poll(&mut cx).is_pending());
        pending.push(group(&partition, 10, Vec::new()), Durability::Sync);
        assert!(pending.urgent, "a reader outside");

        let mut pending = Pending::default();
        let interval = Durability::Interval(Duration::from_secs(1));
        pending.push(group(&partition, 10, vec![Ack::Durable(oneshot::channel().0)]), interval);
        assert!(!pending.urgent, "the setting says how long it takes");
    }

    #[test]
    fn who_waits_for_a_group_learns_that_the_syncer_has_ended() {
        let (partition, syncer) = (Arc::new(Partition::default()), Syncer::new(0, Durability::Sync, false));
        let (before, mut left) = oneshot::channel();
        syncer.pending().push(group(&partition, 10, vec![Ack::Durable(before)]), Durability::Sync);
        syncer.end(); // as it does after a failed sync, with a group that came meanwhile
        assert!(matches!(left.try_recv(), Err(oneshot::error::TryRecvError::Closed)), "a group that was left");
        let (after, mut late) = oneshot::channel();
        syncer.pending().push(group(&partition, 20, vec![Ack::Durable(after)]), Durability::Sync);
        assert!(matches!(late.try_recv(), Err(oneshot::error::TryRecvError::Closed)), "a group that came later");
    }

    #[test]
    fn who_waits_for_what_is_written_hurries_the_sync() {
        let partition = Partition::default();
        partition.written_up_to(3);
        let hurried = std::cell::Cell::new(0);
        let hurry = || hurried.set(hurried.get() + 1);
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        for (offset, hurries) in [(2, 1), (3, 1)] {
            let mut waits = std::pin::pin!(partition.wait_durable(offset, || false, hurry));
            assert!(waits.as_mut().poll(&mut cx).is_pending());
            assert_eq!(hurried.get(), hurries, "the event at {offset} of 3 that are written");
        }
        assert!(!partition.is_awaited_outside(), "no reader waits any more");
    }
}
