//! The catalogue: which numbers stand for which topics, subscribers and versions.
//!
//! Numbers are given in order, from 1, and never reused. The journal has an entry for each change:
//!
//! ```text
//! catalogue entry v1, little endian: lines of
//!   u8 kind                 1 topic, 2 subscriber, 3 version
//!   u32 number
//!   topic:       u32 partitions, u16 length, name
//!   subscriber:  u32 number of the topic that it consumes, u16 length, name
//!   version:     32 bytes digest
//! ```

use std::collections::HashMap;

use bytes::{Buf, BufMut, Bytes};

use crate::engine::{ApplyError, Blueprint, Numbers};
use crate::model::{LaneId, PartitionId, SubscriberId, TopicId, VersionId};

const TOPIC: u8 = 1;
const SUBSCRIBER: u8 = 2;
const VERSION: u8 = 3;

/// The journal's catalogue entries cannot be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {entry} of the catalogue cannot be read: it was written by a newer release, or is damaged")]
pub struct CatalogueError {
    /// Which one, from 1.
    pub entry: usize,
}

/// What has a number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Catalogue {
    topics: HashMap<String, (TopicId, u32)>,
    /// Partitions by number.
    partitions: HashMap<TopicId, u32>,
    /// By name and what it consumes: another topic makes another subscriber.
    subscribers: HashMap<(String, TopicId), SubscriberId>,
    /// What a subscriber consumes, by number.
    inputs: HashMap<SubscriberId, TopicId>,
    versions: HashMap<[u8; 32], VersionId>,
    /// Digests by number.
    digests: HashMap<VersionId, [u8; 32]>,
}

impl Catalogue {
    pub(super) fn replay(entries: &[Bytes]) -> Result<Self, CatalogueError> {
        let mut catalogue = Self::default();
        for (index, entry) in entries.iter().enumerate() {
            catalogue.replay_entry(entry.clone()).ok_or(CatalogueError { entry: index + 1 })?;
        }
        Ok(catalogue)
    }

    fn replay_entry(&mut self, mut entry: Bytes) -> Option<()> {
        while entry.has_remaining() {
            let kind = entry.get_u8();
            let number = entry.try_get_u32_le().ok()?;
            match kind {
                TOPIC => {
                    let partitions = entry.try_get_u32_le().ok()?;
                    self.add_topic(take_name(&mut entry)?, TopicId(number), partitions);
                }
                SUBSCRIBER => {
                    let topic = TopicId(entry.try_get_u32_le().ok()?);
                    self.add_subscriber(take_name(&mut entry)?, topic, SubscriberId(number));
                }
                VERSION => {
                    let mut digest = [0; 32];
                    entry.try_copy_to_slice(&mut digest).ok()?;
                    self.add_version(digest, VersionId(number));
                }
                _ => return None,
            }
        }
        Some(())
    }

    fn add_topic(&mut self, name: String, number: TopicId, partitions: u32) {
        self.topics.insert(name, (number, partitions));
        self.partitions.insert(number, partitions);
    }

    fn add_subscriber(&mut self, name: String, topic: TopicId, number: SubscriberId) {
        self.subscribers.insert((name, topic), number);
        self.inputs.insert(number, topic);
    }

    fn add_version(&mut self, digest: [u8; 32], number: VersionId) {
        self.versions.insert(digest, number);
        self.digests.insert(number, digest);
    }

    /// Gives numbers to what is new. The entry to be journaled, where anything is.
    pub(super) fn apply(&mut self, blueprint: &Blueprint) -> Result<(Numbers, Option<Bytes>), ApplyError> {
        let (mut numbers, mut entry) = (Numbers::default(), Vec::new());
        for topic in &blueprint.topics {
            let number = match self.topics.get(&topic.name) {
                Some((number, partitions)) if *partitions == topic.partitions => *number,
                Some((_, existing)) => {
                    return Err(ApplyError::Partitions {
                        topic: topic.name.clone(),
                        existing: *existing,
                        wanted: topic.partitions,
                    });
                }
                None => {
                    let number = TopicId(self.topics.len() as u32 + 1);
                    entry.put_u8(TOPIC);
                    entry.put_u32_le(number.0);
                    entry.put_u32_le(topic.partitions);
                    put_name(&mut entry, &topic.name);
                    self.add_topic(topic.name.clone(), number, topic.partitions);
                    number
                }
            };
            numbers.topics.push(number);
        }
        for subscriber in &blueprint.subscribers {
            let position = blueprint.topics.iter().position(|topic| topic.name == subscriber.from);
            let topic = position.and_then(|position| numbers.topics.get(position)).copied();
            let topic = topic.ok_or_else(|| ApplyError::UnknownTopic {
                subscriber: subscriber.name.clone(),
                topic: subscriber.from.clone(),
            })?;
            let known = self.subscribers.get(&(subscriber.name.clone(), topic)).copied();
            numbers.subscribers.push(known.unwrap_or_else(|| {
                let number = SubscriberId(self.subscribers.len() as u32 + 1);
                entry.put_u8(SUBSCRIBER);
                entry.put_u32_le(number.0);
                entry.put_u32_le(topic.0);
                put_name(&mut entry, &subscriber.name);
                self.add_subscriber(subscriber.name.clone(), topic, number);
                number
            }));
        }
        for digest in &blueprint.versions {
            let known = self.versions.get(digest).copied();
            numbers.versions.push(known.unwrap_or_else(|| {
                let number = VersionId(self.versions.len() as u32 + 1);
                entry.put_u8(VERSION);
                entry.put_u32_le(number.0);
                entry.put_slice(digest);
                self.add_version(*digest, number);
                number
            }));
        }
        Ok((numbers, (!entry.is_empty()).then(|| entry.into())))
    }

    pub(super) fn has(&self, partition: PartitionId) -> bool {
        self.partitions.get(&partition.topic).is_some_and(|count| partition.partition < *count)
    }

    pub(super) fn digest(&self, version: VersionId) -> Option<[u8; 32]> {
        self.digests.get(&version).copied()
    }

    /// The partition that a lane consumes; `None` where there is no such lane.
    pub(super) fn input(&self, lane: LaneId) -> Option<PartitionId> {
        let partition = PartitionId { topic: *self.inputs.get(&lane.subscriber)?, partition: lane.partition };
        self.has(partition).then_some(partition)
    }
}

fn put_name(entry: &mut Vec<u8>, name: &str) {
    // Names are at most some hundred bytes: the topology refuses longer ones.
    let name = name.get(..name.len().min(usize::from(u16::MAX))).unwrap_or_default();
    entry.put_u16_le(name.len() as u16);
    entry.put_slice(name.as_bytes());
}

fn take_name(entry: &mut Bytes) -> Option<String> {
    let length = usize::from(entry.try_get_u16_le().ok()?);
    (length <= entry.len()).then(|| String::from_utf8(entry.split_to(length).to_vec()).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{SubscriberSpec, TopicSpec};

    fn blueprint(topics: &[(&str, u32)], subscribers: &[(&str, &str)], versions: &[u8]) -> Blueprint {
        Blueprint {
            topics: topics
                .iter()
                .map(|(name, n)| TopicSpec {
                    name: (*name).into(),
                    partitions: *n,
                    settings: Default::default(),
                    lifecycle: None,
                })
                .collect(),
            subscribers: subscribers
                .iter()
                .map(|(name, from)| SubscriberSpec { name: (*name).into(), from: (*from).into() })
                .collect(),
            versions: versions.iter().map(|byte| [*byte; 32]).collect(),
        }
    }

    #[test]
    fn numbers_stay_and_survive_a_replay() {
        let mut catalogue = Catalogue::default();
        let (first, entry) = catalogue.apply(&blueprint(&[("a", 1), ("b", 4)], &[("s", "a")], &[7])).unwrap();
        let more = blueprint(&[("c", 2), ("b", 4), ("a", 1)], &[("t", "b"), ("s", "a")], &[8, 7]);
        let (second, second_entry) = catalogue.apply(&more).unwrap();
        assert_eq!(second.topics[1..], [first.topics[1], first.topics[0]]);
        assert_eq!(second.subscribers[1], first.subscribers[0]);
        assert_eq!(second.versions[1], first.versions[0]);
        let replayed = Catalogue::replay(&[entry.unwrap(), second_entry.unwrap()]).unwrap();
        assert_eq!(replayed, catalogue);
        assert_eq!(replayed.digest(second.versions[0]), Some([8; 32]));
        assert_eq!(catalogue.clone().apply(&more).unwrap(), (second, None), "nothing new, nothing to journal");
    }

    #[test]
    fn another_input_makes_another_subscriber() {
        let mut catalogue = Catalogue::default();
        let (first, _) = catalogue.apply(&blueprint(&[("a", 1), ("b", 1)], &[("s", "a")], &[])).unwrap();
        let (second, _) = catalogue.apply(&blueprint(&[("a", 1), ("b", 1)], &[("s", "b")], &[])).unwrap();
        assert_ne!(first.subscribers, second.subscribers);
    }

    #[test]
    fn the_number_of_partitions_never_changes() {
        let mut catalogue = Catalogue::default();
        catalogue.apply(&blueprint(&[("a", 1)], &[], &[])).unwrap();
        let error = catalogue.apply(&blueprint(&[("a", 2)], &[], &[])).unwrap_err();
        assert!(matches!(error, ApplyError::Partitions { existing: 1, wanted: 2, .. }));
    }

    #[test]
    fn an_unknown_entry_is_refused() {
        assert_eq!(Catalogue::replay(&[Bytes::from_static(&[9, 0, 0, 0, 0])]), Err(CatalogueError { entry: 1 }));
        assert_eq!(Catalogue::replay(&[Bytes::from_static(&[TOPIC, 0])]), Err(CatalogueError { entry: 1 }));
    }
}
