//! Bounds how long a log that is closing waits for room on a full disk.
//!
//! Submissions that are given up were not acknowledged and are not in the journal. Everything that was acknowledged is
//! in the journal, and the next start recovers it.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::{LogInner, is_passing};
use crate::limits;

/// The state of one log's closing.
#[derive(Debug, Default)]
pub(super) struct CloseState {
    /// How many times a thread has found no room since the close began.
    looks: AtomicU32,
    /// The last checkpoint found no room.
    has_no_room: AtomicBool,
    has_given_up: AtomicBool,
}

impl LogInner {
    /// Records whether a checkpoint found room.
    pub(super) fn found_room(&self, has_room: bool) {
        self.closing.has_no_room.store(!has_room, Ordering::Release);
    }

    /// Whether a thread that waits for a checkpoint to free room should give up.
    pub(super) fn gives_up_on_checkpoints(&self) -> bool {
        self.closing.has_no_room.load(Ordering::Acquire) && self.gives_up()
    }

    /// Whether a thread that found no room should give up instead of trying again.
    pub(super) fn gives_up(&self) -> bool {
        if self.queue.is_open() {
            return false;
        }
        let gives_up = self.closing.looks.fetch_add(1, Ordering::AcqRel) >= limits::CLOSE_LOOKS_MAX;
        self.closing.has_given_up.fetch_or(gives_up, Ordering::AcqRel);
        gives_up
    }

    pub(super) fn has_given_up(&self) -> bool {
        self.closing.has_given_up.load(Ordering::Acquire)
    }

    /// Turns a failure for lack of room into success if the log has given up.
    pub(super) fn unless_given_up(&self, ended: io::Result<()>) -> io::Result<()> {
        match ended {
            Err(error) if is_passing(&error) && self.has_given_up() => Ok(()),
            ended => ended,
        }
    }
}
