//! What a lane reads and writes: its entries, and its session on the journal.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::EmbeddedInner;
use crate::engine::{Chunk, Entries, EntryPage, PageBudget, ReadBudget, ReadError, Session, SessionError, Unit};
use crate::log::{ColdReader, EntriesError, LaneEntries, LaneOwnership};
use crate::model::{Offset, PartitionId};

fn unreadable(error: &EntriesError) -> ReadError {
    match error.is_passing() {
        true => ReadError::Passing(error.to_string().into()),
        false => ReadError::Storage(error.to_string().into()),
    }
}

impl Entries for LaneEntries {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        LaneEntries::get(self, key).map_err(|error| unreadable(&error))
    }

    fn range(&self, from: Bound<&[u8]>, until: &[u8], budget: PageBudget) -> Result<EntryPage, ReadError> {
        LaneEntries::range(self, from, until, budget).map_err(|error| unreadable(&error))
    }

    fn frozen(&self) -> Result<Self, ReadError> {
        LaneEntries::frozen(self).map_err(|error| unreadable(&error))
    }
}

/// A session of the embedded engine.
pub struct EmbeddedSession {
    pub(super) shared: Arc<EmbeddedInner>,
    pub(super) lane: LaneOwnership,
    pub(super) partition: PartitionId,
    pub(super) next_offset: Offset,
    pub(super) consumed_to: Offset,
    pub(super) cold: Option<ColdReader>,
}

impl EmbeddedSession {
    fn check(&self) -> Result<(), SessionError> {
        match self.shared.has_stopped() {
            Some(stopped) => Err(stopped.into()),
            None if !self.lane.lane.is_owner(self.lane.owner) => Err(SessionError::Fenced),
            None => Ok(()),
        }
    }
}

impl Session for EmbeddedSession {
    fn next_offset(&self) -> Offset {
        self.next_offset
    }

    async fn read(&mut self, budget: ReadBudget) -> Result<Vec<Chunk>, SessionError> {
        let partition = self.shared.log.partition(self.partition);
        loop {
            if let Some(stopped) = self.shared.has_stopped() {
                return Err(stopped.into());
            }
            let (from, end) = (self.next_offset.max(partition.start()), partition.written());
            let chunks = self.shared.read(&mut self.cold, self.partition, from, end, budget).await?;
            if let (Some(first), Some(last)) = (chunks.first(), chunks.last()) {
                let expired = first.base_offset.saturating_sub(self.next_offset);
                if expired > 0 && self.next_offset > 0 {
                    let PartitionId { topic, partition } = self.partition;
                    tracing::warn!(%topic, partition, expired, "events expired before a subscriber had processed them");
                }
                self.next_offset = last.end_offset();
                return Ok(chunks);
            }
            partition.wait_written(from, || self.shared.has_stopped().is_some()).await;
        }
    }

    async fn commit(&mut self, unit: Unit) -> Result<(), SessionError> {
        self.check()?;
        if unit.is_seek {
            (self.next_offset, self.cold) = (unit.consumed_to, None);
        } else if unit.consumed_to < self.consumed_to {
            let words = format!("it moves the position from {} back to {}", self.consumed_to, unit.consumed_to);
            return Err(SessionError::Refused(words));
        }
        unit.check()?;
        if let Some(unknown) = self.shared.unknown_target(&unit.emits) {
            return Err(SessionError::unknown_target(unknown));
        }
        match self.shared.log.unit(&self.lane, unit.consumed_to, unit.emits, unit.writes).await {
            Ok(Ok(())) => {
                self.consumed_to = unit.consumed_to;
                Ok(())
            }
            Ok(Err(refused)) => Err(SessionError::Guard(refused)),
            Err(_) => Err(self.shared.stopped().await.into()),
        }
    }

    async fn sync(&mut self) -> Result<(), SessionError> {
        match self.shared.log.sync().await {
            Ok(()) => self.check(),
            Err(_) => Err(self.shared.stopped().await.into()),
        }
    }

    async fn flush(&mut self) -> Result<(), SessionError> {
        match self.shared.log.barrier().await {
            Ok(()) => self.check(),
            Err(_) => Err(self.shared.stopped().await.into()),
        }
    }
}
