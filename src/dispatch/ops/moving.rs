//! Pauses, resumes and moves subscribers.

use tokio::time::Instant;

use super::error::{ControlError, SnapshotError};
use super::retry_queue::NUMBERS_MAX;
use super::snapshots::SnapshotRestore;
use super::subscriber::{ANSWER_WITHIN, Subscriber, late, stopped};
use crate::api::{LaneMove, Seek, SeekState, SeekTo};
use crate::dispatch::lane::command::{Answer, Command, LaneSeek, Refusal, SeekFrom};
use crate::dispatch::lane::waiting;
use crate::engine::Engine;
use crate::model::PartitionId;

impl<E: Engine> Subscriber<E> {
    /// Stops it from reading and calling its handler until it is resumed, also across restarts.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn pause(&self) -> Result<(), ControlError> {
        self.tell_all(Command::Pause).await
    }

    /// Resumes it after a pause or a halt; the event that caused the halt is tried again.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn resume(&self) -> Result<(), ControlError> {
        self.tell_all(Command::Resume).await
    }

    /// Sends a command to all lanes at once, and waits for their answers.
    async fn tell_all(&self, command: fn(Answer) -> Command) -> Result<(), ControlError> {
        let within = Instant::now() + ANSWER_WITHIN;
        let mut told = Vec::new();
        for partition in 0..self.partitions() {
            let handed_in = self.hand_in(partition, command);
            told.push(tokio::time::timeout_at(within, handed_in).await.unwrap_or_else(|_| Err(late(partition))));
        }
        // Collects all answers, even after an error: every lane executes the command.
        let (mut done, mut failed) = (0, None);
        for told in told {
            let answered = match told {
                Ok(told) => {
                    let partition = told.partition;
                    tokio::time::timeout_at(within, told.answer()).await.unwrap_or_else(|_| Err(late(partition)))
                }
                Err(error) => Err(error),
            };
            match answered {
                Ok(_) => done += 1,
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(()), |error: ControlError| Err(error.after(done, "partition")))
    }

    /// Moves it. Lanes are moved one after another, each entirely or not at all, with a log line. If waiting
    /// events may not be dropped, it first checks all partitions for them.
    ///
    /// # Errors
    /// [`ControlError`]; some lanes may have been moved.
    pub async fn seek(&self, to: Seek) -> Result<Vec<LaneMove>, ControlError> {
        self.check(to.partition)?;
        // Looked at here as well as by each lane, so that a dry run says so.
        if let Some(group) = self.plan().queue_group.clone() {
            let partition = to.partition.unwrap_or(0);
            return Err(ControlError::Refused { partition, refusal: Refusal::Shared { group } });
        }
        let state = match to.state {
            Some(state) => state,
            None if !self.state().is_empty(to.partition)? => {
                return Err(ControlError::HasState { subscriber: self.name() });
            }
            None => SeekState::Keep,
        };
        let mut moved = Vec::new();
        let partitions = || (0..self.partitions()).filter(|of| to.partition.is_none_or(|only| only == *of));
        for partition in partitions().filter(|_| !to.drops_waiting) {
            let waiting = waiting::list(&self.entries(partition)?, 0, NUMBERS_MAX)?.len();
            if waiting > 0 {
                return Err(ControlError::Refused { partition, refusal: Refusal::Waits { waiting } });
            }
        }
        let mut snapshot = match state {
            SeekState::Snapshot(number) => Some(self.snapshots().restoring(number).await?),
            SeekState::Keep | SeekState::Empty => None,
        };
        // All targets are determined before any lane moves, so that an invalid one changes nothing. The holds protect
        // the target events from retention until each lane has moved.
        let mut targets = Vec::new();
        for partition in partitions() {
            let input = PartitionId { topic: self.input, partition };
            let hold = self.engine().hold(input);
            let bounds = self.engine().bounds(input).unwrap_or_default();
            let start = hold.as_ref().map_or(bounds.start, |hold| hold.start);
            let target = match to.to {
                SeekTo::Start => start,
                SeekTo::End => bounds.written,
                SeekTo::Offset(offset) if offset > bounds.written => {
                    let (subscriber, end) = (self.name(), bounds.written);
                    return Err(ControlError::BeyondEnd { subscriber, partition, offset, end });
                }
                SeekTo::Offset(offset) => offset.max(start),
                SeekTo::Time(time_ns) => self.engine().offset_at_time(input, time_ns).await?.max(start),
                SeekTo::Snapshot => match &snapshot {
                    Some(snapshot) => snapshot.position(partition, start, bounds.written)?,
                    None => return Err(SnapshotError::NoPosition.into()),
                },
            };
            targets.push((partition, target, hold));
        }
        for (partition, target, hold) in targets {
            let from = self.engine().position(self.lane(partition)).unwrap_or(0);
            if !to.dry_run {
                let (from_state, feeding) = match (state, snapshot.take()) {
                    (SeekState::Snapshot(_), Some(snapshot)) => {
                        let (sender, receiver) = SnapshotRestore::channel();
                        let feeding = tokio::task::spawn_blocking(move || snapshot.feed(partition, &sender));
                        (SeekFrom::Snapshot(receiver), Some(feeding))
                    }
                    (SeekState::Empty, _) => (SeekFrom::Empty, None),
                    _ => (SeekFrom::Kept, None),
                };
                let seek = LaneSeek { to: target, hold, from: from_state, drops_waiting: to.drops_waiting };
                let so_far = moved.len() as u64;
                // Logged before the command, since the caller may be gone afterwards.
                tracing::info!(subscriber = self.name(), partition, from, to = target, "moving a partition");
                let told = self.tell(partition, |answer| Command::Seek(seek, answer)).await;
                told.map_err(|error| error.after(so_far, "partition"))?;
                if let Some(feeding) = feeding {
                    let fed = feeding.await.map_err(|_| stopped(partition, "the snapshot was not read"));
                    snapshot = Some(fed.map_err(|error| error.after(so_far + 1, "partition"))?);
                }
            }
            moved.push(LaneMove { partition, from, to: target });
        }
        Ok(moved)
    }
}
