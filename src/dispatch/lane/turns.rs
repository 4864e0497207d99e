//! What a lane does next: commands, due events, new events, chores.
//!
//! Promises: commands come first, and neither due nor new events starve the other: they take turns. A call is made only
//! if the topics of its outputs have room.

use tokio::time::Instant;

use super::batch::Unreadable;
use super::claims::Share;
use super::error::LaneError;
use super::reading::ReadEvents;
use super::sharing::claims_end;
use super::{Lane, LaneParts, LeaveReason};
use crate::dispatch::apart;
use crate::dispatch::intake::backlog;
use crate::engine::{Chunk, Entries, ReadBudget, Session};
use crate::limits;
use crate::topology::{BatchPlan, Condition};

impl<S: Session, K: Entries> Lane<S, K> {
    /// Waits for the next task, and does it.
    pub(super) async fn turn(&mut self) -> Result<(), LeaveReason> {
        self.run_errands().await?;
        let reading = match self.next(true).await? {
            Some(reading) => self.more(reading).await?,
            None => return Ok(()),
        };
        let ended = self.process(reading).await;
        if std::mem::take(&mut self.is_ahead) {
            // Flushes first: once the status shows that nothing is in progress, the results are visible.
            self.parts.session.flush().await?;
            self.show();
        }
        ended
    }

    /// Whether a call may be made: the topics of its outputs have room.
    pub(super) fn has_room_below(&mut self) -> bool {
        let has_room = self.parts.children.iter().all(|child| child.has_room());
        if self.is_blocked == has_room {
            self.is_blocked = !has_room;
            self.show();
        }
        has_room
    }

    /// Waits until a call may be made.
    pub(super) async fn wait_for_room_below(&mut self) -> Result<(), LeaveReason> {
        while !self.has_room_below() {
            let LaneParts { stop, commands, .. } = &mut *self.parts;
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(LaneError::Stopped.into()),
                Some(command) = commands.recv() => self.obey(command).await?,
                () = tokio::time::sleep(backlog::LOOK_EVERY) => {}
            }
            if !self.works() {
                self.is_blocked = false;
                self.seek_to_position().await?;
                return Err(LeaveReason::Moved);
            }
        }
        Ok(())
    }

    /// When the next waiting event may be called: when it is due, or when its outputs may have room.
    fn next_retry(&mut self) -> Option<Instant> {
        let due = self.waiting.next_due().filter(|_| self.works())?;
        let is_free = due > Instant::now() || self.has_room_below();
        Some(if is_free { due } else { Instant::now() + backlog::LOOK_EVERY })
    }

    /// Calls due events, if possible. New events are next then, so that neither starves the other.
    async fn retry_what_is_due(&mut self) -> Result<(), LeaveReason> {
        if self.has_room_below() {
            self.is_reads_turn = true;
            self.retry().await?;
            if self.waiting.active_keys() == 0 {
                // Flushes first: once the status shows that nothing waits, the results are visible.
                self.parts.session.flush().await?;
            }
        }
        Ok(())
    }

    /// When due events take precedence over new events, and when they are handled after them.
    fn turns(&mut self) -> (Option<Instant>, Option<Instant>) {
        let due = self.next_retry();
        if self.is_reads_turn { (None, due) } else { (due, None) }
    }

    /// Waits for events, if it may read, or for another task, and does that.
    pub(super) async fn next(&mut self, reads: bool) -> Result<Option<ReadEvents>, LeaveReason> {
        let (works, (first, later)) = (self.works(), self.turns());
        let chores = self.chores.due().filter(|_| works);
        let budget = self.budget(ReadBudget {
            events: self.parts.flow.most(self.parts.policy.batch.max_events),
            bytes: self.parts.policy.batch.max_bytes,
        });
        let left = self.keeps_claims_for().filter(|_| !works);
        let (taken, is_available) = (self.taken.generation, self.is_available());
        let roster = self.parts.roster.clone();
        let LaneParts { session, stop, commands, share, .. } = &mut *self.parts;
        tokio::select! {
            biased;
            () = stop.cancelled() => return Err(LaneError::Stopped.into()),
            Some(command) = commands.recv() => self.obey(command).await?,
            () = roster.changes(taken), if !is_available => self.becomes_available(),
            () = claims_end(left) => self.give_back().await?,
            () = Share::is_given_back(share), if works && reads => {}
            () = until(first) => self.retry_what_is_due().await?,
            chunks = session.read(budget), if works && reads => {
                let mut reading = ReadEvents::default();
                self.take(&mut reading, &chunks?)?;
                return Ok(Some(reading));
            }
            () = until(later) => self.retry_what_is_due().await?,
            () = until(chores) => self.do_chores().await?,
        }
        self.show();
        Ok(None)
    }

    /// The read budget: a small one if conditions take long to evaluate, so that commands are executed soon.
    fn budget(&self, budget: ReadBudget) -> ReadBudget {
        match &self.parts.policy.when {
            Some(when) if when.takes_long() => ReadBudget {
                events: budget.events.min(limits::SLOW_READ_EVENTS_MAX),
                bytes: budget.bytes.min(limits::SLOW_READ_BYTES_MAX),
            },
            _ => budget,
        }
    }

    /// Adds newly read events.
    fn take(&mut self, reading: &mut ReadEvents, chunks: &[Chunk]) -> Result<(), Unreadable> {
        self.is_reads_turn = false;
        let when = self.parts.policy.when.as_ref();
        apart::run(when.is_some_and(Condition::takes_long), || reading.take(chunks, when))
    }

    /// Waits for more events, for the time that the topology allows, if the lane handles any of those read so far.
    async fn more(&mut self, mut reading: ReadEvents) -> Result<ReadEvents, LeaveReason> {
        let BatchPlan { max_events, max_bytes, wait } = self.parts.policy.batch;
        let Some(wait) = wait.filter(|_| !reading.held.is_empty()) else { return Ok(reading) };
        let deadline = Instant::now() + wait;
        let most = self.parts.flow.most(max_events) as usize;
        loop {
            let (events, bytes) = (reading.held.len(), reading.bytes());
            if events >= most || bytes >= max_bytes {
                return Ok(reading);
            }
            let budget = self.budget(ReadBudget { events: (most - events) as u32, bytes: max_bytes - bytes });
            let (first, later) = self.turns();
            let LaneParts { session, stop, commands, .. } = &mut *self.parts;
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(LaneError::Stopped.into()),
                Some(command) = commands.recv() => self.obey(command).await?,
                () = until(first) => {
                    self.retry_what_is_due().await?;
                    self.show();
                }
                () = tokio::time::sleep_until(deadline) => return Ok(reading),
                chunks = session.read(budget) => self.take(&mut reading, &chunks?)?,
                () = until(later) => {
                    self.retry_what_is_due().await?;
                    self.show();
                }
            }
            if !self.works() {
                return Ok(reading);
            }
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
