//! The cases of the conformance suite by what they are about, and the words that they are written in.

pub(crate) mod appends;
pub(crate) mod blueprints;
pub(crate) mod closing;
pub(crate) mod duplicates;
pub(crate) mod home;
pub(crate) mod lanes;
pub(crate) mod reads;
pub(crate) mod restarts;

use wattle::engine::{Blueprint, Chunk, Engine, ReadBudget, Session, Slices, SubscriberSpec, TopicSpec, Unit};
use wattle::model::{LaneId, Offset, PartitionId, SubscriberId, TopicId};

/// As much as there is.
pub(crate) const ALL: ReadBudget = ReadBudget { events: u32::MAX, bytes: usize::MAX };

/// orders (3 partitions) -> validate -> accepted (2), refused (1); accepted -> notify.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tree {
    pub(crate) orders: TopicId,
    pub(crate) accepted: TopicId,
    pub(crate) refused: TopicId,
    pub(crate) validate: SubscriberId,
    pub(crate) notify: SubscriberId,
}

pub(crate) fn blueprint(topics: &[(&str, u32)], subscribers: &[(&str, &str)]) -> Blueprint {
    let topic = |(name, partitions): &(&str, u32)| TopicSpec {
        name: (*name).into(),
        partitions: *partitions,
        settings: Default::default(),
        lifecycle: None,
    };
    let subscriber = |(name, from): &(&str, &str)| SubscriberSpec { name: (*name).into(), from: (*from).into() };
    Blueprint {
        topics: topics.iter().map(topic).collect(),
        subscribers: subscribers.iter().map(subscriber).collect(),
        ..Blueprint::default()
    }
}

pub(crate) async fn tree(engine: &impl Engine) -> Tree {
    let topics = [("shop/orders", 3), ("shop/accepted", 2), ("shop/refused", 1)];
    let subscribers = [("shop/validate", "shop/orders"), ("shop/notify", "shop/accepted")];
    let numbers = engine.apply(&blueprint(&topics, &subscribers)).await.unwrap();
    Tree {
        orders: numbers.topics[0],
        accepted: numbers.topics[1],
        refused: numbers.topics[2],
        validate: numbers.subscribers[0],
        notify: numbers.subscribers[1],
    }
}

pub(crate) fn partition(topic: TopicId, partition: u32) -> PartitionId {
    PartitionId { topic, partition }
}

pub(crate) fn lane(subscriber: SubscriberId, partition: u32) -> LaneId {
    LaneId { subscriber, partition }
}

pub(crate) fn slices<T: AsRef<[u8]>>(events: &[(PartitionId, T)]) -> Slices {
    let mut slices = Slices::default();
    for (partition, event) in events {
        slices
            .push(*partition, |out| {
                out.extend_from_slice(event.as_ref());
                Ok::<_, ()>(())
            })
            .unwrap();
    }
    slices
}

/// One event of so many bytes.
pub(crate) fn large(partition: PartitionId, bytes: usize) -> Slices {
    slices(&[(partition, vec![7u8; bytes])])
}

pub(crate) fn texts(chunks: &[Chunk]) -> Vec<String> {
    let text = |record: &[u8]| String::from_utf8(record.to_vec()).unwrap();
    chunks.iter().flat_map(|chunk| chunk.iter().map(|stored| text(stored.record)).collect::<Vec<_>>()).collect()
}

/// Everything in a partition, as the outside sees it, and that its offsets have no holes.
pub(crate) async fn everything(engine: &impl Engine, partition: PartitionId) -> Vec<String> {
    let (mut all, mut from) = (Vec::new(), 0);
    loop {
        let chunks = engine.read(partition, from, ALL).await.unwrap();
        let Some(last) = chunks.last() else { return all };
        for chunk in &chunks {
            assert_eq!(chunk.base_offset, from, "a hole");
            assert_eq!(chunk.iter().count(), chunk.count as usize);
            from = chunk.end_offset();
        }
        assert_eq!(last.end_offset(), from);
        all.extend(texts(&chunks));
    }
}

pub(crate) async fn append(engine: &impl Engine, partition: PartitionId, events: &[&str]) -> Offset {
    let events: Vec<_> = events.iter().map(|event| (partition, *event)).collect();
    engine.append(slices(&events)).await.unwrap().base_offsets[0]
}

pub(crate) async fn commit(
    session: &mut impl Session,
    consumed_to: Offset,
    emits: &[(PartitionId, &str)],
) -> Result<(), wattle::engine::SessionError> {
    session.commit(Unit { consumed_to, emits: slices(emits), ..Unit::default() }).await
}

/// Polls something once and gives it up: whether it was still waiting.
pub(crate) async fn still_waits<T>(future: impl Future<Output = T>) -> bool {
    tokio::select! {
        biased;
        _ = future => false,
        () = std::future::ready(()) => true,
    }
}

/// Resolves when everything written is durable, so that the outside sees it too.
pub(crate) async fn settle(engine: &impl Engine, partition: PartitionId) {
    if let Some(last) = engine.bounds(partition).unwrap().written.checked_sub(1) {
        engine.wait_durable(partition, last).await.unwrap();
    }
}
