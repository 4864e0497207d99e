//! The threads of the log: three, or none if a simulation makes each step.
//!
//! ```text
//!   appender ─┬─ ends when the queue is closed and empty, or a write fails
//!   syncer    ├─ ends after the appender, or when a sync fails
//!   checkpoints ─ ends last, with a final checkpoint, unless the log is poisoned
//! ```

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use super::appender::Appender;
use super::checkpointer::Turn;
use super::seat::Seat;
use super::syncer::Syncer;
use super::tail::Wake;
use super::{Condition, LogInner};
use crate::{effects, limits};

/// The threads of an open log.
pub(super) struct Threads {
    appender: JoinHandle<()>,
}

impl Threads {
    pub(super) fn start(shared: Arc<LogInner>, seat: Arc<Seat>, syncer: Arc<Syncer>) -> io::Result<Self> {
        let appender = effects::thread("wattle-appender", move || run(&shared, &seat, &syncer))?;
        Ok(Self { appender })
    }

    /// Waits for their end.
    pub(super) fn join(self, shared: &LogInner) {
        if self.appender.join().is_err() {
            shared.condition.send_replace(Condition::Poisoned("the appender panicked".into()));
        }
    }
}

/// The appender's thread, which starts the others and ends them. When it returns, no thread runs and no caller waits.
fn run(shared: &Arc<LogInner>, seat: &Seat, syncer: &Arc<Syncer>) {
    let served = std::thread::scope(|scope| -> io::Result<()> {
        let syncs = Builder::new().name("wattle-syncer".into()).spawn_scoped(scope, || syncer.run(shared))?;
        let checkpoints = Builder::new().name("wattle-checkpoint".into()).spawn_scoped(scope, || {
            if catch_unwind(AssertUnwindSafe(|| checkpoint(shared))).is_err() {
                shared.poison("the checkpointer panicked");
            }
        });
        // A panic ends the log like a failed write: waiting callers must learn it, and an incomplete group must not be
        // acked.
        let served = match &checkpoints {
            Ok(_) => catch_unwind(AssertUnwindSafe(|| seat.serve())),
            Err(error) => Ok(Err(io::Error::new(error.kind(), error.to_string()))),
        };
        let served = served.unwrap_or_else(|_| Err(io::Error::other("the appender panicked")));
        let served = shared.unless_given_up(served);
        if let Err(error) = &served {
            shared.poison(&error.to_string()); // before the syncer ends: it must not ack beyond the failure
        }
        let appender = seat.leave();
        syncer.close();
        let synced = syncs.join().map_err(|_| io::Error::other("the syncer panicked"));
        let marked = synced.and(served).and_then(|()| appender.map_or(Ok(()), |mut appender| appender.last_mark()));
        if let Err(error) = &marked {
            shared.poison(&error.to_string()); // before the last checkpoint
        }
        shared.tail.close();
        marked // the scope waits for the checkpointer
    });
    end(shared, served);
}

fn end(shared: &LogInner, served: io::Result<()>) {
    if let Err(error) = served {
        shared.poison(&error.to_string());
    }
    shared.queue.close();
    shared.condition.send_if_modified(|condition| {
        let works = *condition == Condition::Working;
        if works {
            *condition = Condition::Closed;
        }
        works
    });
    // A caller that still waits sees its ticket closed, or the condition.
    shared.queue.clear();
    shared.wake_all();
}

/// The checkpointer's thread.
fn checkpoint(shared: &LogInner) {
    if let Err(error) = shared.files.keep_a_spare() {
        tracing::debug!(%error, "no spare journal file could be made yet");
    }
    let mut begins = false;
    while !shared.is_poisoned() {
        let patience = if begins { limits::SEGMENTS_BEGUN_EVERY } else { limits::RETENTION_EVERY };
        let wake = shared.tail.wait_for_work(patience);
        if begins && wake == Wake::Time {
            begins = shared.begin_writing();
            continue;
        }
        begins = true;
        let turn = if wake == Wake::Full { Turn::Move } else { Turn::Checkpoint };
        let began_ns = shared.clock.elapsed_ns();
        let is_made = shared.checkpoint(turn);
        if wake == Wake::Closing {
            return;
        }
        if !is_made {
            // The store was reopened and verified as a whole: limit that to one fifth of the time.
            let took = Duration::from_nanos(shared.clock.elapsed_ns().saturating_sub(began_ns));
            let pause = (4 * took).clamp(limits::CHECKPOINT_RETRY_AFTER, limits::CHECKPOINT_RETRY_MAX);
            shared.tail.pause(pause);
        }
    }
}

/// Does the work of a log without threads. Each step does the work that is due, and nothing else.
pub struct Stepper {
    shared: Arc<LogInner>,
    appender: Appender,
    syncer: Arc<Syncer>,
}

impl Stepper {
    pub(super) fn new(shared: Arc<LogInner>, appender: Appender, syncer: Arc<Syncer>) -> Self {
        Self { shared, appender, syncer }
    }

    /// Writes the queue.
    pub fn append(&mut self) {
        let submissions = self.shared.queue.take();
        if self.shared.is_poisoned() {
            return;
        }
        let written = self.appender.write(submissions);
        if let Err(error) = self.shared.unless_given_up(written) {
            self.shared.poison(&error.to_string());
        }
    }

    /// Does the appender's work after an idle period.
    pub fn idle(&mut self) {
        if !self.shared.is_poisoned()
            && let Err(error) = self.appender.idle()
        {
            self.shared.poison(&error.to_string());
        }
    }

    /// Syncs the written groups.
    pub fn sync(&mut self) {
        self.syncer.step(&self.shared);
    }

    /// Moves written groups into segments, and makes a checkpoint if one is due. Returns false if the disk is full.
    pub fn move_out(&mut self) -> bool {
        self.shared.checkpoint(Turn::Move)
    }

    /// Makes a checkpoint and removes expired segments. Returns false if the disk is full.
    pub fn checkpoint(&mut self) -> bool {
        self.shared.checkpoint(Turn::Checkpoint)
    }

    /// Ends the log like [`super::Log::close`].
    pub fn close(mut self) {
        self.shared.queue.close();
        self.append();
        self.sync();
        if let Err(error) = self.appender.last_mark() {
            self.shared.poison(&error.to_string());
        }
        self.shared.checkpoint(Turn::Checkpoint);
        end(&self.shared, Ok(()));
    }
}
