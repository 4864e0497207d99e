//! The catalogue: the numbers of topics, subscribers and plugin versions.
//!
//! Numbers are assigned in order, from 1, and never reused. Names are labels: a name may be given to another number,
//! and the number that had it then has no name. In addition each number has an *origin*, for ever: a unique name among
//! the numbers of its kind, namely its first name if that was still unused as an origin.
//!
//! A topic that is *gone* (removed for good) is renamed to `NAME#NUMBER` ([`gone_name`]), which no topology can
//! contain. It no longer has partitions or lanes; another topic may take its name, and begins empty.
//!
//! A durable engine stores an entry for each change:
//!
//! ```text
//! catalogue entry v1, little endian: lines of
//!   u8 kind                 1 topic, 2 subscriber, 3 version, 4 new name of a topic, 5 of a subscriber
//!   u32 number
//!   topic:       u32 partitions, u16 length, name
//!   subscriber:  u32 number of the topic that it consumes, u16 length, name
//!   version:     32 bytes digest
//!   name:        u16 length, name
//! ```

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};

use super::{ApplyError, Blueprint, CatalogueTopic, NameChanges, Numbers};
use crate::model::{LaneId, PartitionId, SubscriberId, TopicId, VersionId};

const TOPIC: u8 = 1;
const SUBSCRIBER: u8 = 2;
const VERSION: u8 = 3;
const NAME_OF_TOPIC: u8 = 4;
const NAME_OF_SUBSCRIBER: u8 = 5;

/// The catalogue entries of the journal cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {entry} of the catalogue cannot be read: it was written by a newer release, or is damaged")]
pub struct CatalogueError {
    /// Its index, from 1.
    pub entry: usize,
}

/// All numbers and their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Catalogue {
    topics: HashMap<String, TopicId>,
    /// By name and input: a subscriber of another topic is another subscriber.
    subscribers: HashMap<(String, TopicId), SubscriberId>,
    versions: HashMap<[u8; 32], VersionId>,
    of_topics: HashMap<TopicId, Topic>,
    of_subscribers: HashMap<SubscriberId, Subscriber>,
    /// Digests by number.
    digests: HashMap<VersionId, [u8; 32]>,
    topic_origins: HashSet<String>,
    /// Origins of subscribers, with their input.
    subscriber_origins: HashSet<(String, TopicId)>,
}

/// A topic's number.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Topic {
    name: String,
    origin: Arc<str>,
    partitions: u32,
}

/// A subscriber's number.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Subscriber {
    name: String,
    origin: Arc<str>,
    input: TopicId,
}

/// The name of a topic that is removed for good.
pub(super) fn gone_name(name: &str, number: TopicId) -> String {
    format!("{name}#{number}", number = number.0)
}

impl Topic {
    fn is_gone(&self) -> bool {
        self.name.contains('#')
    }
}

/// Topologies allow no `#` in names, so this is unique.
fn origin(name: &str, number: u32, is_first: bool) -> Arc<str> {
    if is_first { name.into() } else { format!("{name}#{number}").into() }
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
                NAME_OF_TOPIC => self.name_topic(TopicId(number), take_name(&mut entry)?)?,
                NAME_OF_SUBSCRIBER => self.name_subscriber(SubscriberId(number), take_name(&mut entry)?)?,
                _ => return None,
            }
        }
        Some(())
    }

    fn add_topic(&mut self, name: String, number: TopicId, partitions: u32) {
        let origin = origin(&name, number.0, self.topic_origins.insert(name.clone()));
        self.topics.insert(name.clone(), number);
        self.of_topics.insert(number, Topic { name, origin, partitions });
    }

    fn add_subscriber(&mut self, name: String, topic: TopicId, number: SubscriberId) {
        let origin = origin(&name, number.0, self.subscriber_origins.insert((name.clone(), topic)));
        self.subscribers.insert((name.clone(), topic), number);
        self.of_subscribers.insert(number, Subscriber { name, origin, input: topic });
    }

    fn add_version(&mut self, digest: [u8; 32], number: VersionId) {
        self.versions.insert(digest, number);
        self.digests.insert(number, digest);
    }

    /// NameChanges a topic. `None` if it does not exist.
    fn name_topic(&mut self, number: TopicId, name: String) -> Option<()> {
        let topic = self.of_topics.get_mut(&number)?;
        // the old name may have been given to another number
        if self.topics.get(&topic.name) == Some(&number) {
            self.topics.remove(&topic.name);
        }
        topic.name.clone_from(&name);
        self.topics.insert(name, number);
        Some(())
    }

    /// As [`Self::name_topic`].
    fn name_subscriber(&mut self, number: SubscriberId, name: String) -> Option<()> {
        let subscriber = self.of_subscribers.get_mut(&number)?;
        let before = (std::mem::replace(&mut subscriber.name, name.clone()), subscriber.input);
        let input = subscriber.input;
        if self.subscribers.get(&before) == Some(&number) {
            self.subscribers.remove(&before);
        }
        self.subscribers.insert((name, input), number);
        Some(())
    }

    /// Applies renames, then assigns numbers to new items. Returns the entry to store if anything changed.
    pub(super) fn apply(&mut self, blueprint: &Blueprint) -> Result<(Numbers, Option<Bytes>), ApplyError> {
        let (mut numbers, mut entry) = (Numbers::default(), Vec::new());
        self.rename(&blueprint.names, &mut entry);
        for topic in &blueprint.topics {
            let known = self.topics.get(&topic.name).and_then(|number| Some((*number, self.of_topics.get(number)?)));
            let number = match known {
                Some((number, known)) if known.partitions == topic.partitions => number,
                Some((_, known)) => {
                    return Err(ApplyError::Partitions {
                        topic: topic.name.clone(),
                        existing: known.partitions,
                        wanted: topic.partitions,
                    });
                }
                None => {
                    let number = TopicId(self.of_topics.len() as u32 + 1);
                    entry.put_u8(TOPIC);
                    entry.put_u32_le(number.0);
                    entry.put_u32_le(topic.partitions);
                    put_name(&mut entry, &topic.name);
                    self.add_topic(topic.name.clone(), number, topic.partitions);
                    number
                }
            };
            numbers.topics.push(number);
            numbers.topic_origins.extend(self.of_topics.get(&number).map(|topic| topic.origin.clone()));
        }
        let topics = numbers_by_name(blueprint, &numbers);
        for (at, subscriber) in blueprint.subscribers.iter().chain(&blueprint.keepers).enumerate() {
            let topic = topics.get(subscriber.from.as_str()).copied().ok_or_else(|| ApplyError::UnknownTopic {
                subscriber: subscriber.name.clone(),
                topic: subscriber.from.clone(),
            })?;
            let number = self.subscriber(&subscriber.name, topic).unwrap_or_else(|| {
                let number = SubscriberId(self.of_subscribers.len() as u32 + 1);
                entry.put_u8(SUBSCRIBER);
                entry.put_u32_le(number.0);
                entry.put_u32_le(topic.0);
                put_name(&mut entry, &subscriber.name);
                self.add_subscriber(subscriber.name.clone(), topic, number);
                number
            });
            if at >= blueprint.subscribers.len() {
                numbers.keepers.push(number);
                continue;
            }
            numbers.subscribers.push(number);
            numbers.subscriber_origins.extend(self.of_subscribers.get(&number).map(|known| known.origin.clone()));
        }
        for digest in &blueprint.versions {
            let known = self.versions.get(digest).copied();
            numbers.versions.push(known.unwrap_or_else(|| {
                let number = VersionId(self.digests.len() as u32 + 1);
                entry.put_u8(VERSION);
                entry.put_u32_le(number.0);
                entry.put_slice(digest);
                self.add_version(*digest, number);
                number
            }));
        }
        Ok((numbers, (!entry.is_empty()).then(|| entry.into())))
    }

    /// NameChanges that are already in effect are skipped, so applying them again changes nothing.
    fn rename(&mut self, NameChanges { topics, subscribers }: &NameChanges, entry: &mut Vec<u8>) {
        let mut line = |kind, number, name: &str| {
            entry.put_u8(kind);
            entry.put_u32_le(number);
            put_name(entry, name);
        };
        for (number, name) in topics {
            if self.topics.get(name) != Some(number) && self.name_topic(*number, name.clone()).is_some() {
                line(NAME_OF_TOPIC, number.0, name);
            }
        }
        for (number, name) in subscribers {
            let Some(of) = self.of_subscribers.get(number) else { continue };
            if self.subscriber(name, of.input) != Some(*number) {
                self.name_subscriber(*number, name.clone());
                line(NAME_OF_SUBSCRIBER, number.0, name);
            }
        }
    }

    pub(super) fn has(&self, partition: PartitionId) -> bool {
        let topic = self.of_topics.get(&partition.topic).filter(|topic| !topic.is_gone());
        topic.is_some_and(|topic| partition.partition < topic.partitions)
    }

    /// All topics that are not gone, by number.
    pub(super) fn topics(&self) -> Vec<CatalogueTopic> {
        let there = self.of_topics.iter().filter(|(_, topic)| !topic.is_gone());
        let known = |(number, topic): (&TopicId, &Topic)| CatalogueTopic {
            number: *number,
            name: topic.name.clone(),
            partitions: topic.partitions,
        };
        let mut topics: Vec<_> = there.map(known).collect();
        topics.sort_unstable_by_key(|topic| topic.number);
        topics
    }

    /// The topics that are gone, each with the subscribers that it had.
    pub(super) fn gone(&self) -> BTreeMap<TopicId, Vec<SubscriberId>> {
        let gone = self.of_topics.iter().filter(|(_, topic)| topic.is_gone());
        let mut gone: BTreeMap<TopicId, Vec<_>> = gone.map(|(number, _)| (*number, Vec::new())).collect();
        for (number, subscriber) in &self.of_subscribers {
            if let Some(subscribers) = gone.get_mut(&subscriber.input) {
                subscribers.push(*number);
            }
        }
        gone.values_mut().for_each(|subscribers| subscribers.sort_unstable());
        gone
    }

    pub(super) fn topic(&self, name: &str) -> Option<TopicId> {
        self.topics.get(name).copied()
    }

    pub(super) fn subscriber(&self, name: &str, from: TopicId) -> Option<SubscriberId> {
        self.subscribers.get(&(name.to_owned(), from)).copied()
    }

    pub(super) fn digest(&self, version: VersionId) -> Option<[u8; 32]> {
        self.digests.get(&version).copied()
    }

    /// The partition that a lane consumes; `None` if there is no such lane.
    pub(super) fn input(&self, lane: LaneId) -> Option<PartitionId> {
        let topic = self.of_subscribers.get(&lane.subscriber)?.input;
        let partition = PartitionId { topic, partition: lane.partition };
        self.has(partition).then_some(partition)
    }
}

/// The numbers of a blueprint's topics, by the blueprint's names.
pub(super) fn numbers_by_name<'b>(blueprint: &'b Blueprint, numbers: &Numbers) -> HashMap<&'b str, TopicId> {
    blueprint.topics.iter().map(|topic| topic.name.as_str()).zip(numbers.topics.iter().copied()).collect()
}

fn put_name(entry: &mut Vec<u8>, name: &str) {
    // Names are at most some hundred bytes long: the topology refuses longer ones.
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
            ..Blueprint::default()
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
    fn a_name_is_given_to_another_number_as_later_lines_say() {
        let mut catalogue = Catalogue::default();
        let (first, entry) = catalogue.apply(&blueprint(&[("a", 1), ("b", 2)], &[("s", "a")], &[])).unwrap();
        let names = NameChanges {
            topics: vec![(first.topics[0], "b".into()), (first.topics[1], "a".into())],
            subscribers: vec![(first.subscribers[0], "t".into())],
        };
        let swapped = Blueprint { names, ..blueprint(&[("a", 2), ("b", 1)], &[("t", "b"), ("s", "b")], &[]) };
        let (second, line) = catalogue.apply(&swapped).unwrap();
        assert_eq!(second.topics, [first.topics[1], first.topics[0]]);
        assert_eq!(second.subscribers, [SubscriberId(1), SubscriberId(2)], "its old name is free, its number is not");
        assert_eq!(second.topic_origins, ["b".into(), "a".into()]);
        assert_eq!(second.subscriber_origins, ["s".into(), "s#2".into()], "no two are ever the same");
        let line = line.unwrap();
        assert_eq!(line[..8], [NAME_OF_TOPIC, 1, 0, 0, 0, 1, 0, b'b'], "as every later release reads it");
        assert_eq!(line[16..24], [NAME_OF_SUBSCRIBER, 1, 0, 0, 0, 1, 0, b't']);
        let replayed = Catalogue::replay(&[entry.unwrap(), line]).unwrap();
        assert_eq!(replayed, catalogue);
        assert_eq!(catalogue.apply(&swapped).unwrap(), (second, None), "said again it changes nothing");
    }

    #[test]
    fn a_topic_that_is_gone_leaves_its_name_to_another_one_and_has_nothing() {
        let mut catalogue = Catalogue::default();
        let before = blueprint(&[("a", 2)], &[("s", "a")], &[]);
        let (first, entry) = catalogue.apply(&before).unwrap();
        let (topic, subscriber) = (first.topics[0], first.subscribers[0]);
        let names = NameChanges { topics: vec![(topic, gone_name("a", topic))], ..NameChanges::default() };
        let (_, gone) = catalogue.apply(&Blueprint { names, ..Blueprint::default() }).unwrap();
        let lane = LaneId { subscriber, partition: 0 };
        assert_eq!((catalogue.has(PartitionId { topic, partition: 0 }), catalogue.input(lane)), (false, None));
        assert_eq!((catalogue.topics(), catalogue.gone()), (Vec::new(), [(topic, vec![subscriber])].into()));
        let (second, again) = catalogue.apply(&blueprint(&[("a", 3)], &[("s", "a")], &[])).unwrap();
        assert!(second.topics[0] != topic && second.subscribers[0] != subscriber, "nothing of the old one");
        assert!(second.topic_origins != first.topic_origins, "nor are its outputs named the same");
        let replayed = Catalogue::replay(&[entry.unwrap(), gone.unwrap(), again.unwrap()]).unwrap();
        assert_eq!(replayed, catalogue);
    }

    #[test]
    fn an_unknown_entry_is_refused() {
        assert_eq!(Catalogue::replay(&[Bytes::from_static(&[9, 0, 0, 0, 0])]), Err(CatalogueError { entry: 1 }));
        assert_eq!(Catalogue::replay(&[Bytes::from_static(&[TOPIC, 0])]), Err(CatalogueError { entry: 1 }));
        let nobody = Bytes::from_static(&[NAME_OF_TOPIC, 1, 0, 0, 0, 1, 0, b'a']);
        assert_eq!(Catalogue::replay(&[nobody]), Err(CatalogueError { entry: 1 }));
    }
}
