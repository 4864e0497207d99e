//! Background tasks of a lane: removes expired state, and marks of dead letters that are no longer stored.
//!
//! A bounded part of the first is done after each batch, in units of its own, and more while the lane is idle. The
//! second is done only while it is idle, from time to time.

use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::batch::BatchEvent;
use super::done::{done_key, done_of};
use super::entries::{DONE, end_of};
use super::{Lane, LeaveReason};
use crate::engine::{Entries, LaneWrite, PageBudget, ReadError, Session, Unit};
use crate::limits;

/// How long a lane waits for other tasks before it continues with these.
const PAUSE: Duration = Duration::from_millis(5);
/// Interval of checks for marks of expired dead letters. Marks are small, and need no hurry.
const NOTES_LOOK_EVERY: Duration = Duration::from_secs(60);
/// Marks that are deleted at once.
const NOTES_AT_ONCE: usize = 1_000;

/// When the next task is due.
#[derive(Debug, Default)]
pub(crate) struct Chores {
    /// Trusted time of the last event, by which state expires.
    now_ns: u64,
    expires: Option<Instant>,
    /// Set if there are marks.
    notes: Option<Instant>,
}

impl Chores {
    /// For a lane with these entries; `is_behind`: its expiry index has work to do.
    pub(super) fn load(entries: &impl Entries, is_behind: bool) -> Result<Self, ReadError> {
        let notes = entries.range(Bound::Included(&[DONE]), &end_of(DONE), PageBudget::of(1))?;
        let has_notes = !notes.entries.is_empty();
        Ok(Self { now_ns: 0, expires: is_behind.then(Instant::now), notes: has_notes.then(Instant::now) })
    }

    /// When the next task is due, if the lane is idle.
    pub(super) fn due(&self) -> Option<Instant> {
        self.expires.into_iter().chain(self.notes).min()
    }

    /// Dead letters were marked as done.
    pub(super) fn are_noted(&mut self) {
        self.notes.get_or_insert_with(|| Instant::now() + NOTES_LOOK_EVERY);
    }
}

impl<S: Session, K: Entries> Lane<S, K> {
    /// After a batch: removes state that has expired at its time, at the pace of the writes.
    pub(super) async fn sweep(&mut self, last: Option<&BatchEvent>) -> Result<(), LeaveReason> {
        if let Some(last) = last {
            self.chores.now_ns = last.trusted_time_ns;
        }
        self.expire_some().await
    }

    /// Does the tasks that are due.
    pub(super) async fn do_chores(&mut self) -> Result<(), LeaveReason> {
        let now = Instant::now();
        if self.chores.expires.is_some_and(|due| due <= now) {
            self.expire_some().await?;
        }
        if self.chores.notes.is_some_and(|due| due <= now) {
            self.forget_notes().await?;
        }
        Ok(())
    }

    /// Whether a dead letter, by the key of its mark, is no longer stored: then its mark may be gone as well.
    pub(super) fn is_letter_gone(&self, done: &[u8]) -> bool {
        let of = done_of(done).zip(self.parts.letters.as_ref());
        of.is_some_and(|((partition, offset), starts)| offset < starts(partition))
    }

    /// Deletes marks of dead letters that are no longer stored, since nothing lists those again.
    async fn forget_notes(&mut self) -> Result<(), LeaveReason> {
        self.chores.notes = None;
        let Some(starts) = self.parts.letters.clone() else { return Ok(()) };
        let entries = self.parts.entries.clone();
        let (mut writes, mut from, mut pause) = (Vec::new(), Bound::Included(Bytes::from_static(&[DONE])), None);
        loop {
            // the next partition with marks
            let first = entries.range(from.as_ref().map(Bytes::as_ref), &end_of(DONE), PageBudget::of(1))?;
            let Some((partition, _)) = first.entries.first().and_then(|(key, _)| done_of(key)) else { break };
            pause.get_or_insert(NOTES_LOOK_EVERY);
            let (begin, start) = (done_key(partition, 0), done_key(partition, starts(partition)));
            let gone = entries.range(Bound::Included(&begin), &start, PageBudget::of(NOTES_AT_ONCE - writes.len()))?;
            writes.extend(gone.entries.into_iter().map(|(key, _)| LaneWrite::delete(key)));
            if !gone.is_last {
                pause = Some(PAUSE);
                break;
            }
            from = Bound::Excluded(done_key(partition, u64::MAX));
        }
        self.chores.notes = pause.map(|pause| Instant::now() + pause);
        if !writes.is_empty() {
            self.commit(Unit { consumed_to: self.position, writes, ..Unit::default() }).await?;
        }
        Ok(())
    }

    async fn expire_some(&mut self) -> Result<(), LeaveReason> {
        let (mut left, now_ns) = (limits::STATE_SWEEP_ENTRIES.max(2 * self.state.take_written()), self.chores.now_ns);
        self.chores.expires = None;
        while let Some(step) = self.state.expire(now_ns, false)? {
            self.commit_state(step.writes).await?;
            left = left.saturating_sub(step.looked_at);
            if left == 0 {
                self.chores.expires = Some(Instant::now() + PAUSE);
                break;
            }
        }
        self.state.take_written(); // removals are no writes to keep pace with
        Ok(())
    }

    /// Removes all state that has expired at a time. Whether there may be more room.
    pub(super) async fn remove_expired(&mut self, time_ns: u64) -> Result<bool, LeaveReason> {
        if !self.state.may_make_room(time_ns) {
            return Ok(false);
        }
        let before = self.state.size();
        while let Some(step) = self.state.expire(time_ns, true)? {
            self.commit_state(step.writes).await?;
        }
        Ok(self.state.size() < before)
    }

    /// Commits writes of state in a unit of their own.
    async fn commit_state(&mut self, mut writes: Vec<LaneWrite>) -> Result<(), LeaveReason> {
        if !writes.is_empty() {
            self.state.account(&mut writes)?;
            self.commit(Unit { consumed_to: self.position, writes, ..Unit::default() }).await?;
        }
        Ok(())
    }
}
