//! What is kept of subscribers that are gone, and forgetting it.
//!
//! Promises: nothing that runs is touched. What is forgotten is forgotten as a whole or again: whoever is new begins with
//! nothing, whatever is left of one of its name.
//! Relies on: whoever asks has decided, durably, that those it names are gone for good.
//! Must not know: who remembers which ones are gone.

use std::ops::Bound;

use super::apply::both;
use super::numbered::blueprint_on;
use super::snapshots::{self, SnapshotError};
use super::tree::Tree;
use crate::engine::{
    ApplyError, Blueprint, Engine, Entries, LaneWrite, Numbers, PageBudget, ReadError, Session, SessionError,
    SubscriberSpec, TopicSpec, Unit,
};
use crate::model::{LaneId, PartitionId, SubscriberId, TopicId};

/// Entries that one unit deletes.
const PAGE_ENTRIES: usize = 1_000;

/// A subscriber that is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// Its full name.
    pub name: String,
    /// The full name of the topic that it took from.
    pub from: String,
    /// How many partitions that has.
    pub partitions: u32,
}

/// What is kept of one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    /// Events that it has handled, as far as they are kept: a new one of its name would handle them again.
    pub handled: u64,
    /// Events that it has yet to handle, as far as they are kept.
    pub behind: u64,
    /// Entries: of its handler's state, of events that wait, of what it was told.
    pub entries: u64,
    /// Snapshots of them.
    pub snapshots: u64,
}

/// Why what is kept was not forgotten, or cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The engine does not give its number.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// What a lane keeps cannot be read or changed.
    #[error("what is kept of `{subscriber}` cannot be read or forgotten: {error}")]
    Lane {
        /// The subscriber.
        subscriber: String,
        /// Why.
        error: SessionError,
    },
    /// Its snapshots cannot be listed or removed.
    #[error("the snapshots of `{subscriber}` cannot be listed or removed: {error}")]
    Snapshots {
        /// The subscriber.
        subscriber: String,
        /// Why.
        error: SnapshotError,
    },
}

impl<E: Engine> Tree<E> {
    /// What is kept of a subscriber that is gone.
    ///
    /// # Errors
    /// [`CollectError`].
    pub async fn kept_of(&self, gone: &Gone) -> Result<Kept, CollectError> {
        let _alone = self.shared.applying.lock().await;
        let (topic, subscriber) = self.numbers_of(gone).await?;
        let engine = &self.shared.engine;
        let mut kept = Kept::default();
        for partition in 0..gone.partitions {
            let (lane, place) = (LaneId { subscriber, partition }, PartitionId { topic, partition });
            let unreadable =
                |error: ReadError| CollectError::Lane { subscriber: gone.name.clone(), error: error.into() };
            let bounds = engine.bounds(place).unwrap_or_default();
            let position = engine.position(lane).unwrap_or(0).max(bounds.start);
            kept.handled += position.min(bounds.written) - bounds.start.min(bounds.written);
            kept.behind += bounds.written.saturating_sub(position);
            kept.entries += count(engine, lane).map_err(unreadable)?;
        }
        if let Some(disk) = engine.snapshots() {
            let subscriber_of = |error| CollectError::Snapshots { subscriber: gone.name.clone(), error };
            let counted = tokio::task::spawn_blocking(move || snapshots::count_of(&*disk, subscriber)).await;
            kept.snapshots = counted.map_err(SnapshotError::from).and_then(|count| count).map_err(subscriber_of)?;
        }
        Ok(kept)
    }

    /// Forgets what is kept of a subscriber that is gone: what its lanes keep, and snapshots of that.
    ///
    /// # Errors
    /// [`CollectError`]; a part may be forgotten.
    pub async fn forget(&self, gone: &Gone) -> Result<(), CollectError> {
        let _alone = self.shared.applying.lock().await;
        let (_, subscriber) = self.numbers_of(gone).await?;
        for partition in 0..gone.partitions {
            let forgotten = clear(&self.shared.engine, LaneId { subscriber, partition }, 0).await;
            forgotten.map_err(|error| CollectError::Lane { subscriber: gone.name.clone(), error })?;
        }
        if let Some(disk) = self.shared.engine.snapshots() {
            let subscriber_of = |error| CollectError::Snapshots { subscriber: gone.name.clone(), error };
            let removed = tokio::task::spawn_blocking(move || snapshots::remove_of(&*disk, subscriber)).await;
            removed.map_err(SnapshotError::from).and_then(|removed| removed).map_err(subscriber_of)?;
        }
        Ok(())
    }

    /// The numbers of its topic and of itself. What runs stays applied.
    async fn numbers_of(&self, gone: &Gone) -> Result<(TopicId, SubscriberId), CollectError> {
        let running = blueprint_on(&self.shared.engine, &self.shared.running().plan, Vec::new());
        let topic = TopicSpec {
            name: gone.from.clone(),
            partitions: gone.partitions,
            settings: Default::default(),
            lifecycle: None,
        };
        let subscriber = SubscriberSpec { name: gone.name.clone(), from: gone.from.clone() };
        let wanted = Blueprint { topics: vec![topic], subscribers: vec![subscriber], ..Blueprint::default() };
        let all = both(running.clone(), &wanted);
        let numbers = self.shared.engine.apply(&all).await;
        self.shared.engine.apply(&running).await?;
        let Numbers { topics, subscribers, .. } = numbers?;
        let topic = all.topics.iter().position(|topic| topic.name == gone.from).and_then(|at| topics.get(at).copied());
        let is_it = |spec: &SubscriberSpec| (&spec.name, &spec.from) == (&gone.name, &gone.from);
        let subscriber = all.subscribers.iter().position(is_it).and_then(|at| subscribers.get(at).copied());
        let unknown =
            || CollectError::Lane { subscriber: gone.name.clone(), error: ReadError::UnknownPartition.into() };
        topic.zip(subscriber).ok_or_else(unknown)
    }
}

/// How many entries a lane has.
pub(super) fn count<E: Engine>(engine: &E, lane: LaneId) -> Result<u64, ReadError> {
    let entries = engine.entries(lane).ok_or(ReadError::UnknownPartition)?;
    let (mut from, mut found) = (Vec::new(), 0);
    loop {
        let page = entries.range(Bound::Excluded(&from), &[u8::MAX], PageBudget::of(PAGE_ENTRIES))?.entries;
        let Some((last, _)) = page.last() else { return Ok(found) };
        found += page.len() as u64;
        from = last.to_vec();
    }
}

/// Leaves nothing of a lane that does not run but a place, durably.
pub(super) async fn clear<E: Engine>(engine: &E, lane: LaneId, place: u64) -> Result<(), SessionError> {
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
