//! Stored data of a lane that does not run.

use std::ops::Bound;

use crate::engine::{Engine, Entries, LaneWrite, PageBudget, ReadError, Session, SessionError, Unit};
use crate::model::LaneId;

/// Entries that one unit deletes.
const PAGE_ENTRIES: usize = 1_000;

/// Number of entries of a lane.
pub(crate) fn count<E: Engine>(engine: &E, lane: LaneId) -> Result<u64, ReadError> {
    let entries = engine.entries(lane).ok_or(ReadError::UnknownPartition)?;
    let (mut from, mut found) = (Vec::new(), 0);
    loop {
        let page = entries.range(Bound::Excluded(&from), &[u8::MAX], PageBudget::of(PAGE_ENTRIES))?.entries;
        let Some((last, _)) = page.last() else { return Ok(found) };
        found += page.len() as u64;
        from = last.to_vec();
    }
}

/// Durably deletes all entries of a stopped lane, and sets its position to `place`.
pub(crate) async fn clear<E: Engine>(engine: &E, lane: LaneId, place: u64) -> Result<(), SessionError> {
    let entries = engine.entries(lane).ok_or(ReadError::UnknownPartition)?;
    let is_there = engine.position(lane).unwrap_or(0) == place;
    if is_there && entries.range(Bound::Unbounded, &[u8::MAX], PageBudget::of(1))?.entries.is_empty() {
        return Ok(());
    }
    let mut session = engine.acquire(lane).await?;
    let mut from = Vec::new();
    loop {
        let page = entries.range(Bound::Excluded(&from), &[u8::MAX], PageBudget::of(PAGE_ENTRIES))?.entries;
        let Some((last, _)) = page.last() else { break };
        from = last.to_vec();
        let writes = page.iter().map(|(key, _)| LaneWrite::delete(key.clone())).collect();
        let consumed_to = engine.position(lane).unwrap_or(0);
        session.commit(Unit { consumed_to, writes, ..Unit::default() }).await?;
    }
    session.commit(Unit { consumed_to: place, is_seek: true, ..Unit::default() }).await?;
    session.sync().await
}
