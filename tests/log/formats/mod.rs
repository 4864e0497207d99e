//! Data folders that earlier code wrote, kept as they were: every release opens them.
//!
//! `journal-v1` is what the code in front of segments wrote: a journal and nothing else, of a bus that was killed
//! twice. `log-v2` has a state store, segments, one of them compressed and sealed, and a journal with frames behind the
//! last checkpoint. `log-v3` has the same, and what a lane keeps, in the store and in the journal. `log-v4` has also
//! what topics keep of the states of keys. `log-v5` has names that were given to numbers, in the store and in the
//! journal. `log-v6` has frames and a store with trusted time, runs of identities, the ends of keys and what is
//! recognised and held of them, and producers, of which one is forgotten (`formats/kept.rs`). `UPDATE_EXPECT=1` writes
//! the last one anew: only for a format that nobody has yet.

mod kept;

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use wattle::effects::{Clock, DiskFolder};
use wattle::engine::embedded::{Durability, EmbeddedEngine, LogOptions};
use wattle::engine::{
    AppendError, Blueprint, Engine, Guard, Lifecycle, Mark, NameChanges, Numbers, PageBudget, ReadBudget, Session,
    Slices, SubscriberSpec, TopicSettings, TopicSpec, Unit,
};
use wattle::model::{
    Compression, Dedupe, Event, EventId, LaneId, PartitionId, ProducerId, Record, Retention, SubscriberId, TopicId,
};

const ALL: ReadBudget = ReadBudget { events: u32::MAX, bytes: usize::MAX };

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats").join(name)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

async fn everything(engine: &EmbeddedEngine, partition: PartitionId) -> Vec<(u64, Vec<u8>)> {
    let (mut found, end) = (Vec::new(), engine.bounds(partition).unwrap().durable);
    let mut from = engine.bounds(partition).unwrap().start;
    while from < end {
        for chunk in engine.read(partition, from, ALL).await.unwrap() {
            from = chunk.end_offset();
            found.extend(chunk.iter().map(|stored| (stored.offset, stored.record.to_vec())));
        }
    }
    found
}

#[tokio::test]
async fn a_journal_from_before_there_were_segments_is_taken_over() {
    let data = TempDir::new().unwrap();
    copy(&fixture("journal-v1"), &data.path().join("journal"));
    for start in 0..3 {
        let engine = EmbeddedEngine::open(data.path(), Durability::Sync).unwrap();
        let topic = |name: &str, partitions| TopicSpec {
            name: format!("shop/{name}"),
            partitions,
            settings: TopicSettings::default(),
            lifecycle: None,
        };
        let blueprint = Blueprint { topics: vec![topic("orders", 4), topic("log", 1)], ..Blueprint::default() };
        let numbers = engine.apply(&blueprint).await.unwrap();
        assert_eq!(numbers.topics.iter().map(|number| number.0).collect::<Vec<_>>(), [1, 2], "as they were numbered");
        let mut ids = Vec::new();
        for partition in 0..4 {
            for (_, record) in everything(&engine, PartitionId { topic: numbers.topics[0], partition }).await {
                let event = Event::decode(Record::parse(&record).unwrap().event).unwrap();
                ids.push((partition, event.id));
            }
        }
        let expected = [(0, "o3"), (0, "o4"), (0, "o6"), (1, "o5"), (2, "o2"), (2, "o7"), (3, "o1")];
        assert_eq!(ids, expected.map(|(partition, id)| (partition, id.to_owned())));
        let log = PartitionId { topic: numbers.topics[1], partition: 0 };
        assert_eq!(everything(&engine, log).await.len(), 1 + start);
        let mut slices = Slices::default();
        slices.push(log, |out| Record { key: "k", lineage: None, event: b"" }.write(out)).unwrap();
        assert_eq!(engine.append(slices).await.unwrap().base_offsets, [1 + start as u64]);
        if start == 1 {
            engine.close().await.unwrap(); // the other times it just goes
        }
        drop(engine);
        assert!(!data.path().join("journal").exists() && data.path().join("log/state").exists());
    }
}

/// A clock that stands still: fixtures are the same every time.
struct Noon;

impl Clock for Noon {
    fn now_ns(&self) -> u64 {
        1_700_000_000_000_000_000
    }

    fn elapsed_ns(&self) -> u64 {
        0
    }
}

fn open(folder: &Path) -> EmbeddedEngine {
    let disk = Arc::new(DiskFolder::create(folder).unwrap());
    let options = LogOptions { file_bytes: 16 << 10, first_sequence: 77, ..LogOptions::default() };
    EmbeddedEngine::open_with(folder, disk, Arc::new(Noon), options).unwrap()
}

async fn apply(engine: &EmbeddedEngine) -> (Numbers, PartitionId, PartitionId) {
    let settings = TopicSettings {
        retention: Retention { partition_bytes: Some(20_000), ..Retention::default() },
        dedupe: Some(Dedupe { window: Duration::from_secs(120), count: Some(1_000) }),
        forget_producers: None,
        compression: Compression::Lz4,
    };
    let input = TopicSpec { name: "shop/in".into(), partitions: 2, settings, lifecycle: None };
    let output =
        TopicSpec { name: "shop/out".into(), partitions: 1, settings: TopicSettings::default(), lifecycle: None };
    let subscriber = SubscriberSpec { name: "shop/s".into(), from: "shop/in".into() };
    let state = |name: &str| Arc::<str>::from(name);
    let lifecycle = Lifecycle {
        start: [state("begun")].into(),
        allow: [(state("begun"), [state("ended")].into())].into(),
        keys_max: 9,
        remember: Some(Duration::from_secs(60)),
        remembered_max: 9,
    };
    let guarded = TopicSpec {
        name: "shop/guarded".into(),
        partitions: 1,
        settings: TopicSettings::default(),
        lifecycle: Some(Arc::new(lifecycle)),
    };
    let blueprint = Blueprint {
        topics: vec![input, output, guarded],
        subscribers: vec![subscriber],
        versions: vec![[7; 32]],
        ..Blueprint::default()
    };
    let numbers = engine.apply(&blueprint).await.unwrap();
    let (input, output) = (numbers.topics[0], numbers.topics[1]);
    (numbers, PartitionId { topic: input, partition: 1 }, PartitionId { topic: output, partition: 0 })
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn event(partition: PartitionId, id: &str, size: usize) -> Slices {
    let mut slices = Slices::default();
    let text = format!("{id} {}", "x".repeat(size));
    let write = |out: &mut Vec<u8>| Record { key: id, lineage: None, event: text.as_bytes() }.write(out);
    slices.push_marked(partition, Mark::Identity(EventId::new("/shop", id)), write).unwrap();
    slices
}

fn numbered(partition: PartitionId, sequence: u64) -> Slices {
    let mut slices = Slices::default();
    slices.set_producer(ProducerId(5));
    let write = |out: &mut Vec<u8>| Record { key: "k", lineage: None, event: b"numbered" }.write(out);
    slices.push_marked(partition, Mark::Sequence(sequence), write).unwrap();
    slices
}

/// An event that begins the life of its key.
async fn begin(engine: &EmbeddedEngine, numbers: &Numbers, key: &str) -> Result<(), AppendError> {
    let mut slices = Slices::default();
    let write = |out: &mut Vec<u8>| Record { key, lineage: None, event: b"begins" }.write(out);
    let partition = PartitionId { topic: numbers.topics[2], partition: 0 };
    let (slice, _) = slices.push(partition, write).unwrap();
    slices.guard_last(slice, Guard::new(key, "begun".into(), 0));
    engine.append(slices).await.map(drop)
}

/// A topic and a subscriber of it by these names, which their numbers are given.
fn called(names: NameChanges, topic: &str, subscriber: &str) -> Blueprint {
    let topics = [topic, "shop/first"].map(|name| TopicSpec {
        name: name.into(),
        partitions: 1,
        settings: TopicSettings::default(),
        lifecycle: None,
    });
    let subscribers = vec![SubscriberSpec { name: subscriber.into(), from: topic.into() }];
    Blueprint { topics: topics.into(), subscribers, names, ..Blueprint::default() }
}

/// How the fixture was made: a topic that was renamed twice, the second time in the journal alone. Another one has its
/// first name.
#[allow(dead_code, reason = "it tells how the fixture came to be")]
async fn make(folder: &Path) {
    let made = TempDir::new().unwrap();
    let names = |topic: &str, subscriber: &str| NameChanges {
        topics: vec![(TopicId(1), topic.into())],
        subscribers: vec![(SubscriberId(1), subscriber.into())],
    };
    let engine = open(made.path());
    let alone = called(NameChanges::default(), "shop/first", "shop/s");
    engine.apply(&Blueprint { topics: alone.topics[..1].to_vec(), ..alone }).await.unwrap();
    let (input, lane) =
        (PartitionId { topic: TopicId(1), partition: 0 }, LaneId { subscriber: SubscriberId(1), partition: 0 });
    engine.append(event(input, "before", 10)).await.unwrap();
    let mut session = engine.acquire(lane).await.unwrap();
    session.commit(Unit { consumed_to: 1, ..Unit::default() }).await.unwrap();
    engine.apply(&called(names("shop/second", "shop/t"), "shop/second", "shop/t")).await.unwrap();
    engine.close().await.unwrap();
    drop(engine);
    let engine = open(made.path());
    engine.apply(&called(names("shop/third", "shop/u"), "shop/third", "shop/u")).await.unwrap();
    engine.append(event(input, "behind", 10)).await.unwrap();
    copy(made.path(), folder); // while it runs: as a kill would leave it
    std::fs::remove_file(folder.join("spare-1")).or_else(|_| std::fs::remove_file(folder.join("spare-0"))).ok();
}

#[tokio::test]
async fn a_log_with_names_that_were_given_is_opened() {
    let kept = fixture("log-v5");
    let folder = TempDir::new().unwrap();
    copy(&kept, folder.path());
    for _ in 0..2 {
        let engine = open(folder.path());
        let numbers = engine.apply(&called(NameChanges::default(), "shop/third", "shop/u")).await.unwrap();
        assert_eq!((numbers.topics, numbers.subscribers), (vec![TopicId(1), TopicId(2)], vec![SubscriberId(1)]));
        assert_eq!(numbers.topic_origins, ["shop/first".into(), "shop/first#2".into()]);
        assert_eq!(everything(&engine, PartitionId { topic: TopicId(1), partition: 0 }).await.len(), 2);
        assert_eq!(engine.position(LaneId { subscriber: SubscriberId(1), partition: 0 }), Some(1));
        engine.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_log_with_segments_and_a_state_store_is_opened() {
    opens(&fixture("log-v2"), &[]).await;
}

#[tokio::test]
async fn a_log_with_what_lanes_keep_is_opened() {
    opens(&fixture("log-v3"), &[("a", "in the store"), ("c", "in the journal")]).await;
}

#[tokio::test]
async fn a_log_with_what_topics_keep_is_opened() {
    let kept = fixture("log-v4");
    opens(&kept, &[("a", "in the store"), ("c", "in the journal")]).await;
    let folder = TempDir::new().unwrap();
    copy(&kept, folder.path());
    for _ in 0..2 {
        let engine = open(folder.path());
        let (numbers, ..) = apply(&engine).await;
        for key in ["in the store", "in the journal"] {
            let again = begin(&engine, &numbers, key).await.unwrap_err();
            assert!(matches!(again, AppendError::Guard(_)), "{key}: {again}");
        }
        engine.close().await.unwrap();
    }
}

async fn opens(kept: &Path, entries: &[(&str, &str)]) {
    let folder = TempDir::new().unwrap();
    copy(kept, folder.path());
    for _ in 0..2 {
        let engine = open(folder.path());
        let (numbers, input, output) = apply(&engine).await;
        let records = everything(&engine, input).await;
        let keys: Vec<_> = records.iter().map(|(_, record)| Record::parse(record).unwrap().key.to_owned()).collect();
        assert_eq!(keys, ["segment 0", "segment 1", "segment 2", "segment 3", "k", "journal", "k"]);
        assert_eq!(everything(&engine, output).await.len(), 1);
        let lane = LaneId { subscriber: numbers.subscribers[0], partition: 1 };
        assert_eq!(engine.position(lane), Some(3));
        let kept = engine.entries(lane).unwrap().range(Bound::Unbounded, b"z", PageBudget::of(10)).unwrap().entries;
        let kept: Vec<_> = kept.iter().map(|(key, value)| (text(key), text(value))).collect();
        assert_eq!(kept, entries);
        // what was published is recognised, from the store and from the journal
        for (again, first) in [("segment 2", 2), ("journal", 5)] {
            let appended = engine.append(event(input, again, 5)).await.unwrap();
            assert_eq!(appended.duplicates[0].offset, Some(first));
        }
        for (sequence, offset) in [(10, None), (11, Some(6))] {
            let appended = engine.append(numbered(input, sequence)).await.unwrap();
            assert_eq!(appended.duplicates[0].offset, offset);
        }
        engine.close().await.unwrap();
    }
}
