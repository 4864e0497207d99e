//! What is kept of topics and subscribers that are gone, and forgetting it.
//!
//! Which topics were removed is known by the engine: they have a number, and nothing that runs has them. So none can be
//! overlooked, however it came to be there.
//!
//! Promises: nothing that runs is touched. What is forgotten is forgotten as a whole or again: whoever is new begins with
//! nothing, whatever is left of one of its name. A topic that comes back before it is forgotten is the one that it was.
//! Relies on: whoever asks has decided, durably, that those it names are gone for good.
//! Must not know: who remembers which ones are gone.

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

/// A topic that was removed, and whose events are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovedTopic {
    /// Its full name.
    pub name: String,
    /// Its number and those of what hangs on it, each with the name that it has once it is gone for good.
    pub names: Vec<(TopicId, String)>,
    /// Events in it and on their way to it.
    pub events: u64,
    /// Bytes that they take, about.
    pub bytes: u64,
}

impl RemovedTopic {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), names: Vec::new(), events: 0, bytes: 0 }
    }
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
    /// The engine does not take it.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// What a lane keeps cannot be read or changed.
    #[error("the stored data of `{subscriber}` cannot be read or deleted: {error}")]
    Lane {
        /// The subscriber.
        subscriber: String,
        /// Why.
        error: SessionError,
    },
    /// What is kept of a topic that was removed cannot be looked at.
    #[error("the stored data of the removed topic `{topic}` cannot be read: {error}")]
    Topic {
        /// The topic.
        topic: String,
        /// Why.
        error: ReadError,
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
        let engine = &self.shared.engine;
        let mut kept = Kept::default();
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

    /// How many events a subscriber that is gone has yet to handle, were it to come back.
    pub fn lag_of(&self, gone: &Gone) -> u64 {
        let Some((topic, subscriber)) = self.numbers_of(gone) else { return 0 };
        let lag = |partition| {
            let bounds = self.shared.engine.bounds(PartitionId { topic, partition }).unwrap_or_default();
            let position = self.shared.engine.position(LaneId { subscriber, partition }).unwrap_or(0);
            bounds.written.saturating_sub(position.max(bounds.start))
        };
        (0..gone.partitions).map(lag).sum()
    }

    /// Forgets what is kept of a subscriber that is gone: what its lanes keep, and snapshots of that.
    ///
    /// # Errors
    /// [`CollectError`]; a part may be forgotten.
    pub async fn forget(&self, gone: &Gone) -> Result<(), CollectError> {
        let _alone = self.shared.applying.lock().await;
        let engine = &self.shared.engine;
        let Some((_, subscriber)) = self.numbers_of(gone) else { return Ok(()) };
        let lanes = (0..gone.partitions).map(|partition| LaneId { subscriber, partition });
        // where its topic is gone for good, so is what its lanes kept
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

    /// The topics that were removed and whose events are kept, by name.
    ///
    /// # Errors
    /// [`CollectError::Topic`].
    pub async fn removed_topics(&self) -> Result<Vec<RemovedTopic>, CollectError> {
        let _alone = self.shared.applying.lock().await; // what is prepared is there before it runs
        let engine = &self.shared.engine;
        let running = blueprint_on(engine, &self.shared.running().plan, Vec::new());
        let running: HashSet<&str> = running.topics.iter().map(|topic| topic.name.as_str()).collect();
        let numbers: HashSet<TopicId> = running.iter().filter_map(|name| engine.topic(name)).collect();
        let mut removed: BTreeMap<String, RemovedTopic> = BTreeMap::new();
        for topic in engine.topics().into_iter().filter(|topic| !numbers.contains(&topic.number)) {
            // what hangs on a topic goes with it and not before
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

    /// Topics are gone for good, as was decided, each by the name that it has from then on ([`RemovedTopic::names`]). What is
    /// kept of them goes in the time that follows.
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

    /// The numbers of its topic and of itself, where it has some: it has none where nothing was ever kept of it.
    fn numbers_of(&self, gone: &Gone) -> Option<(TopicId, SubscriberId)> {
        let topic = self.shared.engine.topic(&gone.from)?;
        Some((topic, self.shared.engine.subscriber(&gone.name, topic)?))
    }
}

/// The events of a topic, and of its keys those that are held, and the bytes of all that it has. Those of a queue are those
/// that wait in it.
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
