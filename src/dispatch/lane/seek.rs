//! Moves a lane to another position, and keeps, deletes or restores its handler's state.
//!
//! ```text
//!   delete waiting events and old state ──> write the snapshot's entries ──> set the position
//!   └──────────────────── in one unit, or in several units with a mark ───────────────────┘
//! ```
//!
//! A state that is larger than a unit is written in several units, the first of which marks the lane. Until the last
//! one the state is incomplete, so the lane stays stopped, also across restarts, until a seek succeeds.

use std::collections::BTreeMap;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::command::{Answer, LaneSeek, Refusal, SeekFrom, SnapshotPart};
use super::entries::{RECORD, STATE, WAITING, number_of};
use super::error::LaneError;
use super::waiting::{Waiter, WaitingSet, decode};
use super::{BROKEN, Lane, LeaveReason, state};
use crate::engine::{Entries, LaneWrite, Session, Unit};
use crate::limits;
use crate::model::{Offset, Record};

/// Size of writes at which a unit is committed.
const UNIT_BYTES: usize = limits::UNIT_BYTES_MAX / 4;
/// Entries that are read at once.
const PAGE: usize = 1_000;

/// Why a snapshot's state was not restored.
enum RestoreError {
    /// The snapshot is missing or damaged; in words.
    Snapshot(String),
    Lane(LaneError),
}

impl<E: Into<LaneError>> From<E> for RestoreError {
    fn from(error: E) -> Self {
        Self::Lane(error.into())
    }
}

/// Collected writes.
#[derive(Default)]
struct Writes {
    all: Vec<LaneWrite>,
    bytes: usize,
}

impl Writes {
    fn extend(&mut self, writes: impl IntoIterator<Item = LaneWrite>) {
        for write in writes {
            self.bytes += write.bytes();
            self.all.push(write);
        }
    }

    fn is_a_unit(&self) -> bool {
        self.all.len() >= limits::SEEK_WRITES_MAX || self.bytes >= UNIT_BYTES
    }
}

impl<S: Session, K: Entries> Lane<S, K> {
    /// Executes a seek, or answers why it is refused.
    pub(super) async fn seek(&mut self, seek: LaneSeek, answer: Answer) -> Result<(), LeaveReason> {
        let waiting = self.waiting.len();
        let refusal = match &seek.from {
            // nothing tells which later events were its own
            _ if self.parts.policy.queue_group.is_some() => {
                Some(Refusal::Shared { group: self.parts.policy.queue_group.clone().unwrap_or_default() })
            }
            // waiting events belong to a state that no longer exists
            _ if waiting > 0 && !seek.drops_waiting && !self.told.is_broken => Some(Refusal::Waits { waiting }),
            SeekFrom::Kept if self.told.is_broken => Some(Refusal::Broken),
            _ => None,
        };
        if let Some(refusal) = refusal {
            drop(answer.send(Err(refusal)));
            return Ok(());
        }
        let mut writes = Writes::default();
        for number in self.waiting.numbers() {
            writes.extend(self.waiting.remove(number).into_iter().flatten());
        }
        let changed = match seek.from {
            SeekFrom::Kept => Ok(()),
            SeekFrom::Empty => self.empty(&mut writes).await,
            SeekFrom::Snapshot(snapshot) => match self.empty(&mut writes).await {
                Ok(()) => self.restore(snapshot, seek.to, &mut writes).await,
                failed => failed,
            },
        };
        match changed {
            Ok(()) => {}
            Err(RestoreError::Lane(error)) => return Err(error.into()),
            Err(RestoreError::Snapshot(reason)) => {
                if self.told.is_broken {
                    self.commit_part(&mut writes).await?;
                    self.parts.counters.failed(&reason);
                } else {
                    // nothing was committed
                    let (policy, longest) = (self.parts.policy.retry_queue, self.parts.backoff.longest_asked());
                    self.waiting = WaitingSet::load(&self.parts.entries, policy, longest, self.parts.now_ns())?;
                }
                self.show();
                drop(answer.send(Err(Refusal::Snapshot { reason })));
                return Ok(());
            }
        }
        if std::mem::take(&mut self.told.is_broken) {
            writes.extend([LaneWrite::delete(BROKEN)]);
        }
        self.state.account(&mut writes.all)?;
        self.commit(Unit { consumed_to: seek.to, writes: writes.all, is_seek: true, ..Unit::default() }).await?;
        self.parts.session.sync().await?;
        drop(seek.hold); // from here on the lane's own position protects the events from retention
        self.show();
        drop(answer.send(Ok(seek.to)));
        Err(LeaveReason::Moved)
    }

    /// Deletes the handler's state.
    async fn empty(&mut self, writes: &mut Writes) -> Result<(), RestoreError> {
        let mut behind: Option<Vec<u8>> = None;
        loop {
            let (page, _) = state::list(&self.parts.entries, behind.as_deref(), PAGE)?;
            let Some(last) = page.last() else { return Ok(()) };
            behind = Some(state::position_behind(&last.bucket, &last.key));
            let gone = page.iter().map(|entry| state::position_behind(&entry.bucket, &entry.key));
            writes.extend(gone.map(LaneWrite::delete));
            if writes.is_a_unit() {
                self.commit_part(writes).await?;
                behind = None; // deleted entries are no longer listed
            }
        }
    }

    /// Restores the state of a snapshot, and those of its waiting events that the seek does not deliver again.
    async fn restore(
        &mut self,
        mut snapshot: mpsc::Receiver<SnapshotPart>,
        to: Offset,
        writes: &mut Writes,
    ) -> Result<(), RestoreError> {
        let mut waiters: BTreeMap<u64, Waiter> = BTreeMap::new();
        loop {
            let entries = match snapshot.recv().await {
                Some(SnapshotPart::Entries(entries)) => entries,
                Some(SnapshotPart::End) => break,
                Some(SnapshotPart::Broken(reason)) => return Err(RestoreError::Snapshot(reason)),
                None => return Err(RestoreError::Snapshot("the reader of the snapshot has ended".to_owned())),
            };
            for (key, value) in entries {
                match (key.first(), number_of(&key)) {
                    (Some(&STATE), _) => writes.extend([LaneWrite::put(key, value)]),
                    (Some(&WAITING), Some(number)) => {
                        waiters.insert(number, decode(number, &value)?);
                    }
                    (Some(&RECORD), Some(number)) => {
                        // records follow all waiters, in the same order
                        let waiter = waiters.remove(&number).filter(|waiter| waiter.offset < to);
                        if let (Some(waiter), Ok(record)) = (waiter, Record::parse(&value)) {
                            writes.extend(self.waiting.add(record.key, &waiter, value.clone(), Instant::now()));
                        }
                    }
                    _ => {}
                }
                if writes.is_a_unit() {
                    self.commit_part(writes).await?;
                }
            }
        }
        Ok(())
    }

    /// Commits a part of a seek that exceeds one unit.
    async fn commit_part(&mut self, writes: &mut Writes) -> Result<(), LaneError> {
        let mut part = std::mem::take(writes).all;
        self.state.account(&mut part)?;
        if !self.told.is_broken {
            self.told.is_broken = true;
            part.push(LaneWrite::put(BROKEN, ""));
        }
        self.commit(Unit { consumed_to: self.position, writes: part, ..Unit::default() }).await
    }
}
