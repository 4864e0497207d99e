//! What a lane reads and writes in memory: its entries, and its session.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::{MemoryInner, State};
use crate::engine::{
    Chunk, Entries, EntryPage, LaneWrite, PageBudget, ReadBudget, ReadError, Session, SessionError, Unit,
};
use crate::model::{LaneId, Offset, PartitionId};

/// The entries of a lane of a `MemoryEngine`.
#[derive(Clone)]
pub struct MemoryEntries {
    pub(super) shared: Arc<MemoryInner>,
    pub(super) lane: LaneId,
    pub(super) frozen: Option<Arc<BTreeMap<Bytes, Bytes>>>,
}

impl MemoryEntries {
    fn with<T>(&self, look: impl FnOnce(&BTreeMap<Bytes, Bytes>) -> T) -> T {
        match &self.frozen {
            Some(frozen) => look(frozen),
            None => look(self.shared.state().lanes.get(&self.lane).map_or(&BTreeMap::new(), |lane| &lane.entries)),
        }
    }
}

impl Entries for MemoryEntries {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        self.shared.entries_read.fetch_add(1, Ordering::Relaxed);
        Ok(self.with(|entries| entries.get(key).cloned()))
    }

    fn range(&self, from: Bound<&[u8]>, until: &[u8], mut budget: PageBudget) -> Result<EntryPage, ReadError> {
        let mut page = EntryPage { is_last: true, ..EntryPage::default() };
        if let Bound::Included(from) | Bound::Excluded(from) = from
            && from >= until
        {
            return Ok(page);
        }
        self.with(|entries| {
            let mut found = entries.range::<[u8], _>((from, Bound::Excluded(until)));
            page.is_last =
                found.all(|(key, value)| page.take(&mut budget, key, value, || (key.clone(), value.clone())));
        });
        self.shared.entries_read.fetch_add(page.entries.len() as u64, Ordering::Relaxed);
        Ok(page)
    }

    fn frozen(&self) -> Result<Self, ReadError> {
        let frozen = Some(Arc::new(self.with(BTreeMap::clone)));
        Ok(Self { shared: self.shared.clone(), lane: self.lane, frozen })
    }
}

/// A session of a `MemoryEngine`.
pub struct MemorySession {
    pub(super) shared: Arc<MemoryInner>,
    pub(super) lane: LaneId,
    pub(super) partition: PartitionId,
    pub(super) owner: u64,
    pub(super) next_offset: Offset,
}

impl Session for MemorySession {
    fn next_offset(&self) -> Offset {
        self.next_offset
    }

    async fn read(&mut self, budget: ReadBudget) -> Result<Vec<Chunk>, SessionError> {
        let (partition, from) = (self.partition, self.next_offset);
        let look = |state: &State| state.read(partition, from, budget).filter(|chunks| !chunks.is_empty());
        let chunks = self.shared.wait(look).await?;
        self.next_offset = chunks.last().map_or(from, Chunk::end_offset);
        Ok(chunks)
    }

    async fn commit(&mut self, mut unit: Unit) -> Result<(), SessionError> {
        self.shared.serving()?;
        unit.check()?;
        let now_ns = self.shared.now_ns();
        {
            let mut state = self.shared.state();
            if let Some(unknown) = state.unknown_target(&unit.emits) {
                return Err(SessionError::unknown_target(unknown));
            }
            let lane = state.lanes.entry(self.lane).or_default();
            if lane.owner != self.owner {
                return Err(SessionError::Fenced);
            }
            if !unit.is_seek && unit.consumed_to < lane.position {
                return Err(SessionError::Refused(format!("from {} back to {}", lane.position, unit.consumed_to)));
            }
            let mut duplicates = Vec::new();
            let mut aside = state.guard(&unit.emits, &mut duplicates, now_ns).map_err(SessionError::Guard)?;
            unit.emits.sort_out(&mut duplicates, &mut aside, |_| 0);
            let lane = state.lanes.entry(self.lane).or_default();
            if unit.is_seek {
                self.next_offset = unit.consumed_to;
            }
            lane.position = unit.consumed_to;
            for LaneWrite { key, value } in unit.writes {
                match value {
                    Some(value) => lane.entries.insert(key, value),
                    None => lane.entries.remove(&key),
                };
            }
            state.append(unit.emits, now_ns);
        }
        self.shared.changed.notify_waiters();
        Ok(())
    }

    async fn sync(&mut self) -> Result<(), SessionError> {
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), SessionError> {
        self.shared.serving()?;
        let state = self.shared.state();
        let is_owner = state.lanes.get(&self.lane).is_some_and(|lane| lane.owner == self.owner);
        if is_owner { Ok(()) } else { Err(SessionError::Fenced) }
    }
}
