//! A tree from YAML text, what one publishes into it, and what one finds in its topics.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wattle::api::{Snapshot, SubscriberStatus};
use wattle::dispatch::Tree;
use wattle::engine::{Engine, ReadBudget};
use wattle::model::event::Data;
use wattle::model::{Attribute, Event, Lineage, Offset, PartitionId, Record};
use wattle::topology::{PathKind, Plan, Source, Surroundings, check};

/// How long anything may take here before a test gives up. Nothing is measured by it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A world without variables in which every file is there, some with their text.
struct Everything<'a>(&'a [(&'a str, &'a str)]);

impl Surroundings for Everything<'_> {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }

    fn at(&self, _: &Path) -> PathKind {
        PathKind::File
    }

    fn text(&self, path: &Path, _: usize) -> Result<String, String> {
        let found = self.0.iter().find(|(name, _)| Path::new(name) == path);
        found.map(|(_, text)| (*text).to_owned()).ok_or_else(|| "there is no text".to_owned())
    }
}

/// The plan of one topology, or of several files' together.
pub fn plan_of(texts: &[&str]) -> Plan {
    plan_with(texts, &[])
}

/// The plan of topologies that name other files, each with its text.
pub fn plan_with(texts: &[&str], files: &[(&str, &str)]) -> Plan {
    let sources: Vec<Source> = (0..)
        .zip(texts)
        .map(|(number, text)| Source { path: format!("{number}.yaml").into(), text: (*text).to_owned() })
        .collect();
    let (plan, diagnostics) = check(&sources, &Everything(files));
    plan.unwrap_or_else(|| panic!("{diagnostics:#?}\n{texts:?}"))
}

/// An event with a key and text for data.
pub fn event(id: &str, key: &str, data: &str) -> Bytes {
    typed(id, key, data, "application/json")
}

/// An event of some content type; none where it is "".
pub fn typed(id: &str, key: &str, data: &str, content_type: &str) -> Bytes {
    let mut event = Event { id: id.into(), source: "/test".into(), r#type: "test".into(), ..Event::default() };
    event.attributes.insert("partitionkey".into(), Attribute::String(key.into()));
    if !content_type.is_empty() {
        event.attributes.insert("datacontenttype".into(), Attribute::String(content_type.into()));
    }
    event.data = Some(Data::Text(data.to_owned()));
    event.encode()
}

/// An event as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    pub partition: u32,
    pub offset: Offset,
    pub key: String,
    pub lineage: Option<Lineage>,
    pub event: Event,
    pub encoded: Bytes,
}

impl Seen {
    pub fn id(&self) -> &str {
        &self.event.id
    }

    pub fn data(&self) -> &str {
        self.event.data.as_ref().map_or("", |data| std::str::from_utf8(data.as_bytes()).unwrap())
    }

    /// An attribute as text; "" where there is none.
    pub fn attribute(&self, name: &str) -> String {
        self.event.attributes.get(name).map_or(String::new(), ToString::to_string)
    }
}

/// Everything in a topic, by partition.
pub async fn contents<E: Engine>(tree: &Tree<E>, topic: &str) -> Vec<Vec<Seen>> {
    let targets = tree.publisher().targets();
    let target = targets.find(topic).unwrap();
    let mut partitions = Vec::new();
    for partition in 0..target.partitions {
        let id = PartitionId { topic: target.topic, partition };
        let end = tree.engine().bounds(id).unwrap().written;
        if let Some(last) = end.checked_sub(1) {
            tree.engine().wait_durable(id, last).await.unwrap();
        }
        let (mut seen, mut from) = (Vec::new(), 0);
        while from < end {
            let chunks = tree.engine().read(id, from, ReadBudget { events: 1000, bytes: 8 << 20 }).await.unwrap();
            for chunk in &chunks {
                assert!(chunk.base_offset >= from, "offsets go back");
                seen.extend(chunk.iter().map(|stored| {
                    let record = Record::parse(stored.record).unwrap();
                    Seen {
                        partition,
                        offset: stored.offset,
                        key: record.key.to_owned(),
                        lineage: record.lineage,
                        event: Event::decode(record.event).unwrap_or_else(|error| panic!("{topic}: {error}")),
                        encoded: Bytes::copy_from_slice(record.event),
                    }
                }));
                from = chunk.end_offset();
            }
        }
        partitions.push(seen);
    }
    partitions
}

/// Everything in a topic of one partition.
pub async fn only<E: Engine>(tree: &Tree<E>, topic: &str) -> Vec<Seen> {
    let partitions = contents(tree, topic).await;
    let [seen] = <[Vec<Seen>; 1]>::try_from(partitions).expect("one partition");
    seen
}

/// The data of everything in a topic of one partition.
pub async fn data<E: Engine>(tree: &Tree<E>, topic: &str) -> Vec<String> {
    only(tree, topic).await.iter().map(|seen| seen.data().to_owned()).collect()
}

/// The data in a topic by key, partitions put together: what is promised to be in order.
pub async fn by_key<E: Engine>(tree: &Tree<E>, topic: &str) -> BTreeMap<String, Vec<String>> {
    let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for seen in contents(tree, topic).await.into_iter().flatten() {
        let data = seen.data().to_owned();
        keys.entry(seen.key).or_default().push(data);
    }
    keys
}

/// Waits until something is so, looking again and again. Time that is paused flies meanwhile.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < PATIENCE, "{what}: not after {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Waits until nothing is on its way in the tree.
pub async fn settled<E: Engine>(tree: &Tree<E>) {
    let start = Instant::now();
    while !tree.is_settled() {
        assert!(start.elapsed() < PATIENCE, "not settled after {PATIENCE:?}: {:#?}", tree.snapshot());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// What a snapshot says of a subscriber.
pub fn status(snapshot: &Snapshot, subscriber: &str) -> SubscriberStatus {
    let found = snapshot.subscribers.iter().find(|status| status.name == subscriber);
    found.unwrap_or_else(|| panic!("no {subscriber} in {snapshot:?}")).clone()
}
