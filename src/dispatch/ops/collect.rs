//! Stored data of removed topics and subscribers, and its deletion.
//!
//! The engine knows which topics were removed: they have a number, and no running plan contains them. So none can be
//! missed, whatever led to its removal.
//!
//! Promises: does not touch running nodes. A deletion is complete, or is repeated: a new node starts empty, even if
//! data of an earlier one with its name is left. A topic that returns before its deletion is the same topic. Relies on:
//! the caller has durably decided that the given nodes are removed for good. Must not know: where removed nodes are
//! recorded.

use std::collections::{BTreeMap, HashSet};

use super::error::SnapshotError;
use super::snapshots;
use crate::dispatch::lane::{delay, held};
use crate::dispatch::rules;
use crate::dispatch::tree::Tree;
use crate::dispatch::tree::leftovers::{clear, count};
use crate::dispatch::tree::numbered::blueprint_on;
use crate::engine::{
    ApplyError, Blueprint, CatalogueTopic, Engine, Entries, GuardCounts, NameChanges, ReadError, SessionError,
};
use crate::model::{LaneId, PartitionId, SubscriberId, TopicId};

/// A removed subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovedSubscriber {
    /// Its full name.
    pub name: String,
    /// The full name of its input topic.
    pub from: String,
    /// Number of partitions of that topic.
    pub partitions: u32,
}

/// A removed topic whose events are still stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovedTopic {
    /// Its full name.
    pub name: String,
    /// Its number and those of its hidden topics, each with the name that it gets when it is deleted.
    pub names: Vec<(TopicId, String)>,
    /// Number of its events, including held and delayed ones.
    pub events: u64,
    /// Approximate size in bytes.
    pub bytes: u64,
}

impl RemovedTopic {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), names: Vec::new(), events: 0, bytes: 0 }
    }
}

/// Stored data of a removed subscriber.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetainedData {
    /// Stored events that it has handled: a new subscriber with its name would handle them again.
    pub handled: u64,
    /// Stored events that it has not handled.
    pub behind: u64,
    /// Entries: state, retry queue, and commands.
    pub entries: u64,
    pub snapshots: u64,
}

/// Why stored data could not be determined or deleted.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The engine refused the change.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The data of a lane cannot be read or changed.
    #[error("the stored data of `{subscriber}` cannot be read or deleted: {error}")]
    Lane { subscriber: String, error: SessionError },
    /// The data of a removed topic cannot be read.
    #[error("the stored data of the removed topic `{topic}` cannot be read: {error}")]
    Topic { topic: String, error: ReadError },
    /// The snapshots cannot be listed or removed.
    #[error("the snapshots of `{subscriber}` cannot be listed or removed: {error}")]
    Snapshots { subscriber: String, error: SnapshotError },
}

impl<E: Engine> Tree<E> {
    /// The stored data of a removed subscriber.
    ///
    /// # Errors
    /// [`CollectError`].
    pub async fn kept_of(&self, gone: &RemovedSubscriber) -> Result<RetainedData, CollectError> {
        let _alone = self.shared.applying.lock().await;
        let engine = &self.shared.engine;
        let mut kept = RetainedData::default();
        let Some((topic, subscriber)) = self.numbers_of(gone) else { return Ok(kept) };
        for partition in 0..gone.partitions {
            let (lane, place) = (LaneId { subscriber, partition }, PartitionId { topic, partition });
            let unreadable =
                |error: ReadError| CollectError::Lane { subscriber: gone.name.clone(), error: error.into() };
            let bounds = engine.bounds(place).unwrap_or_default();
            let position = engine.position(lane).unwrap_or(0).max(bounds.start);
            kept.handled += position.min(bounds.written) - bounds.start.min(bounds.written);
            kept.behind += bounds.written.saturating_sub(position);
            if engine.entries(lane).is_some() {
                kept.entries += count(engine, lane).map_err(unreadable)?;
            }
        }
        if let Some(disk) = engine.snapshots() {
            let subscriber_of = |error| CollectError::Snapshots { subscriber: gone.name.clone(), error };
            let counted = tokio::task::spawn_blocking(move || snapshots::count_of(&*disk, subscriber)).await;
            kept.snapshots = counted.map_err(SnapshotError::from).and_then(|count| count).map_err(subscriber_of)?;
        }
        Ok(kept)
    }

    /// Number of events that a removed subscriber would have to handle if it returned.
    pub fn lag_of(&self, gone: &RemovedSubscriber) -> u64 {
        let Some((topic, subscriber)) = self.numbers_of(gone) else { return 0 };
        let lag = |partition| {
            let bounds = self.shared.engine.bounds(PartitionId { topic, partition }).unwrap_or_default();
            let position = self.shared.engine.position(LaneId { subscriber, partition }).unwrap_or(0);
            bounds.written.saturating_sub(position.max(bounds.start))
        };
        (0..gone.partitions).map(lag).sum()
    }

    /// Deletes the data of a removed subscriber: entries of its lanes, and snapshots.
    ///
    /// # Errors
    /// [`CollectError`]; a part may be deleted.
    pub async fn forget(&self, gone: &RemovedSubscriber) -> Result<(), CollectError> {
        let _alone = self.shared.applying.lock().await;
        let engine = &self.shared.engine;
        let Some((_, subscriber)) = self.numbers_of(gone) else { return Ok(()) };
        let lanes = (0..gone.partitions).map(|partition| LaneId { subscriber, partition });
        // if its topic is deleted, so are the entries of its lanes
        for lane in lanes.filter(|lane| engine.entries(*lane).is_some()) {
            let forgotten = clear(engine, lane, 0).await;
            forgotten.map_err(|error| CollectError::Lane { subscriber: gone.name.clone(), error })?;
        }
        if let Some(disk) = engine.snapshots() {
            let subscriber_of = |error| CollectError::Snapshots { subscriber: gone.name.clone(), error };
            let removed = tokio::task::spawn_blocking(move || snapshots::remove_of(&*disk, subscriber)).await;
            removed.map_err(SnapshotError::from).and_then(|removed| removed).map_err(subscriber_of)?;
        }
        Ok(())
    }

    /// The removed topics whose events are still stored, by name.
    ///
    /// # Errors
    /// [`CollectError::Topic`].
    pub async fn removed_topics(&self) -> Result<Vec<RemovedTopic>, CollectError> {
        let _alone = self.shared.applying.lock().await; // an apply creates topics before they run
        let engine = &self.shared.engine;
        let running = blueprint_on(engine, &self.shared.running().plan, Vec::new());
        let running: HashSet<&str> = running.topics.iter().map(|topic| topic.name.as_str()).collect();
        let numbers: HashSet<TopicId> = running.iter().filter_map(|name| engine.topic(name)).collect();
        let mut removed: BTreeMap<String, RemovedTopic> = BTreeMap::new();
        for topic in engine.topics().into_iter().filter(|topic| !numbers.contains(&topic.number)) {
            // a hidden topic is deleted together with its topic
            let name = topic.name.split('@').next().unwrap_or(&topic.name);
            if name != topic.name && running.contains(name) {
                continue;
            }
            let unreadable = |error| CollectError::Topic { topic: name.to_owned(), error };
            let (events, bytes) = size_of(engine, &topic).map_err(unreadable)?;
            let of = removed.entry(name.to_owned()).or_insert_with(|| RemovedTopic::new(name));
            of.events += events;
            of.bytes += bytes;
            of.names.push((topic.number, topic.gone_name()));
        }
        Ok(removed.into_values().collect())
    }

    /// Marks topics as deleted, each under the name of [`RemovedTopic::names`]. Their data is deleted in the
    /// background.
    ///
    /// # Errors
    /// [`CollectError::Apply`].
    pub async fn forget_topics(&self, topics: Vec<(TopicId, String)>) -> Result<(), CollectError> {
        let _alone = self.shared.applying.lock().await;
        let engine = &self.shared.engine;
        let names = NameChanges { topics, ..NameChanges::default() };
        let running = blueprint_on(engine, &self.shared.running().plan, Vec::new());
        engine.apply(&Blueprint { names, ..running }).await?;
        Ok(())
    }

    /// The numbers of its topic and of itself; `None` if nothing was ever stored for it.
    fn numbers_of(&self, gone: &RemovedSubscriber) -> Option<(TopicId, SubscriberId)> {
        let topic = self.shared.engine.topic(&gone.from)?;
        Some((topic, self.shared.engine.subscriber(&gone.name, topic)?))
    }
}

/// Number of events in a topic including held and delayed ones, and its bytes. Events in a hidden queue are counted
/// where they wait, not by the topic's offsets.
fn size_of<E: Engine>(engine: &E, topic: &CatalogueTopic) -> Result<(u64, u64), ReadError> {
    let (mut events, mut bytes) = (0, 0);
    let is_queue = [rules::delay::SUFFIX, held::SUFFIX].iter().any(|suffix| topic.name.ends_with(suffix));
    for partition in (0..topic.partitions).map(|partition| PartitionId { topic: topic.number, partition }) {
        bytes += engine.bytes(partition).unwrap_or(0);
        if is_queue {
            continue;
        }
        let bounds = engine.bounds(partition).unwrap_or_default();
        events += bounds.written.saturating_sub(bounds.start);
        if let Some(states) = engine.states(partition) {
            events += GuardCounts::read(|key| states.get(key))?.held;
        }
    }
    let timer = engine.subscriber(&topic.name, topic.number).filter(|_| topic.name.ends_with(rules::delay::SUFFIX));
    if let Some(entries) = timer.and_then(|subscriber| engine.entries(LaneId { subscriber, partition: 0 })) {
        events += delay::waiting(&entries)?;
    }
    Ok((events, bytes))
}
