//! Decides which thread writes: the appender's own, or a calling thread if the appender is idle and the queue is short.
//!
//! ```text
//!   a caller submits ──> is the appender in use? ── yes ──> its user checks the queue again afterwards
//!                              │ no
//!                              v
//!                         is it a small group, and is there room? ── no ──> the appender's thread is woken
//!                              │ yes
//!                              v
//!                         the caller writes the group
//! ```
//!
//! A group of a few kilobytes is encoded and written in less time than it takes to wake a thread, and each event would
//! wait for such a wake-up once per level of the tree.
//!
//! Promises: one thread writes at a time, in the order of the queue; every submission is written. A caller never waits
//! for room in memory, for the end of a file, for a checkpoint, or for a full disk.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard};

use super::appender::Appender;
use super::queue::WakeReason;
use super::{LogInner, lock};
use crate::limits;

/// The appender, used by one thread at a time. Empty once the log has ended.
pub(super) struct Seat {
    shared: Arc<LogInner>,
    appender: Mutex<Option<Appender>>,
}

impl Seat {
    pub(super) fn new(shared: Arc<LogInner>, appender: Appender) -> Self {
        Self { shared, appender: Mutex::new(Some(appender)) }
    }

    /// Removes the appender once its user is done: nothing is written afterwards.
    pub(super) fn leave(&self) -> Option<Appender> {
        lock(&self.appender).take()
    }

    /// The appender's thread: writes submissions until the queue is closed or a write fails.
    pub(super) fn serve(&self) -> io::Result<()> {
        let mut seen = None;
        loop {
            let woken = self.shared.queue.wait(limits::IDLE_MARK_AFTER);
            let mut seat = lock(&self.appender);
            let Some(appender) = seat.as_mut() else { return Ok(()) };
            if self.shared.is_poisoned() {
                return Ok(()); // the failing thread has reported the reason
            }
            let done = match woken {
                WakeReason::Closed => return Self::ended(appender.finish(), &mut seat),
                WakeReason::Called => appender.write(self.shared.queue.take()),
                WakeReason::Time if seen == appender.unmarked() => appender.idle(),
                WakeReason::Time => Ok(()), // other threads have written in the meantime
            };
            if done.is_err() {
                return Self::ended(done, &mut seat);
            }
            seen = appender.unmarked();
            self.shared.queue.set_unmarked(seen.is_some());
        }
    }

    /// The appender's thread ends. After a failure it removes the appender, so that nothing is written after the failed
    /// part, even before the log is marked as failed.
    fn ended(done: io::Result<()>, seat: &mut Option<Appender>) -> io::Result<()> {
        if done.is_err() {
            *seat = None;
        }
        done
    }

    /// Makes sure that the queue is written: by the appender's current user, by the caller, or by the appender's
    /// thread.
    pub(super) fn write_what_waits(&self) {
        let queue = &self.shared.queue;
        let mut looks = 0;
        while !queue.is_empty() {
            let Some(mut seat) = self.try_sit() else { return };
            let Some(appender) = seat.as_mut() else { return };
            if self.shared.is_poisoned() {
                return;
            }
            looks += 1;
            let is_for_caller = |bytes| looks <= limits::CALLER_GROUPS_MAX && appender.writes_at_once(bytes);
            let Some(submissions) = queue.take_if(is_for_caller) else {
                drop(seat);
                return queue.wake();
            };
            let written = catch_unwind(AssertUnwindSafe(|| appender.write_at_once(submissions)));
            queue.set_unmarked(appender.unmarked().is_some());
            // While this thread still has the appender: nothing may be written after the failed part.
            match &written {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => self.shared.poison(&error.to_string()),
                Err(_) => self.shared.poison("the appender panicked"),
            }
            drop(seat);
            match written {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => return queue.wake(), // it begins with the rest
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }

    /// The appender, if it is not in use and may be used.
    fn try_sit(&self) -> Option<MutexGuard<'_, Option<Appender>>> {
        self.appender.try_lock().ok() // locked, or poisoned by a panic, which ends the log
    }
}
