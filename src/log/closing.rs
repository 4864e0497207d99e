//! How long a log that is told to close waits for room: not without end, though the disk is full.
//!
//! What is given up was not acknowledged, and is not in the journal. What was acknowledged is there, and the next start has it.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::{Shared, is_passing};
use crate::limits;

/// Of one log.
#[derive(Debug, Default)]
pub(super) struct Closing {
    /// How often it was looked for room since.
    looks: AtomicU32,
    /// The last checkpoint found none.
    has_no_room: AtomicBool,
    has_given_up: AtomicBool,
}

impl Shared {
    /// A checkpoint found room, or found none.
    pub(super) fn found_room(&self, has_room: bool) {
        self.closing.has_no_room.store(!has_room, Ordering::Release);
    }

    /// Whether a thread that waits for a checkpoint to make room gives that up.
    pub(super) fn gives_up_on_checkpoints(&self) -> bool {
        self.closing.has_no_room.load(Ordering::Acquire) && self.gives_up()
    }

    /// Whether a thread that found no room gives it up, rather than looking again.
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

    /// How something ended, where that it was given up is no failure.
    pub(super) fn unless_given_up(&self, ended: io::Result<()>) -> io::Result<()> {
        match ended {
            Err(error) if is_passing(&error) && self.has_given_up() => Ok(()),
            ended => ended,
        }
    }
}
