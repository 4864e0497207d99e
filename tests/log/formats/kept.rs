//! `log-v6`: in the store and in the journal behind it, what is remembered of events that are gone.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use wattle::effects::{Clock, DiskFolder};
use wattle::engine::embedded::{Durability, EmbeddedEngine, LogOptions};
use wattle::engine::{
    AppendError, AppendReceipt, Blueprint, Diversion, Engine, Guard, GuardCounts, LaneWrite, Lifecycle, Mark, Numbers,
    PageBudget, Session, Slices, SubscriberSpec, TopicSettings, TopicSpec, Unit,
};
use wattle::model::{Dedupe, EventId, LaneId, PartitionId, ProducerId, Record, Retention};

use super::{copy, everything, fixture, text};

const DAY_NS: u64 = 24 * 3_600_000_000_000;
const BEGIN_NS: u64 = 1_700_000_000_000_000_000;
/// When the fixture was copied.
const END_NS: u64 = BEGIN_NS + 31 * DAY_NS;

/// A clock that stands where it is put.
struct Hands(AtomicU64);

impl Clock for Hands {
    fn now_ns(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn elapsed_ns(&self) -> u64 {
        self.now_ns()
    }
}

fn open(folder: &Path, now_ns: u64) -> (EmbeddedEngine, Arc<Hands>) {
    let (disk, hands) = (Arc::new(DiskFolder::create(folder).unwrap()), Arc::new(Hands(now_ns.into())));
    let options = LogOptions { file_bytes: 16 << 10, first_sequence: 77, ..LogOptions::default() };
    (EmbeddedEngine::open_with(folder, disk, hands.clone(), options).unwrap(), hands)
}

/// A topic with a window that forgets producers, one whose keys have lives, and what is held of that.
async fn apply(engine: &EmbeddedEngine) -> (Numbers, [PartitionId; 3]) {
    let days = |days: u32| Duration::from_secs(24 * 3600) * days;
    let settings = TopicSettings {
        dedupe: Some(Dedupe { window: days(1), count: None }),
        forget_producers: Some(days(30)),
        ..TopicSettings::default()
    };
    let lifecycle = Lifecycle {
        start: ["begun".into()].into(),
        allow: [("begun".into(), ["more".into(), "ended".into()].into()), ("more".into(), ["ended".into()].into())]
            .into(),
        keys_max: 9,
        remember: Some(days(100)),
        remembered_max: 9,
    };
    let topic = |name: &str, settings, lifecycle| TopicSpec { name: name.into(), partitions: 1, settings, lifecycle };
    let held = TopicSettings {
        retention: Retention { age: Some(days(1_000)), ..Retention::default() },
        ..TopicSettings::default()
    };
    let blueprint = Blueprint {
        topics: vec![
            topic("shop/in", settings, None),
            topic("shop/guarded", TopicSettings::default(), Some(Arc::new(lifecycle))),
            topic("shop/guarded@held", held, None),
        ],
        subscribers: vec![SubscriberSpec { name: "shop/s".into(), from: "shop/in".into() }],
        ..Blueprint::default()
    };
    let numbers = engine.apply(&blueprint).await.unwrap();
    let partitions = [0, 1, 2].map(|topic| PartitionId { topic: numbers.topics[topic], partition: 0 });
    (numbers, partitions)
}

async fn append(
    engine: &EmbeddedEngine,
    to: PartitionId,
    mark: Mark,
    producer: Option<(ProducerId, u64)>,
    guard: Option<Guard>,
) -> Result<AppendReceipt, AppendError> {
    let mut slices = Slices::default();
    let write = |out: &mut Vec<u8>| Record { key: "k", lineage: None, event: b"an event" }.write(out);
    let (slice, _) = slices.push_marked(to, mark, write).unwrap();
    guard.into_iter().for_each(|guard| slices.guard_last(slice, guard));
    if let Some((producer, began_ns)) = producer {
        slices.set_producer(producer);
        slices.set_began(began_ns);
    }
    engine.append(slices).await
}

async fn identified(engine: &EmbeddedEngine, to: PartitionId, id: &str) -> AppendReceipt {
    append(engine, to, Mark::Identity(EventId::new("/shop", id)), None, None).await.unwrap()
}

async fn numbered(
    engine: &EmbeddedEngine,
    to: PartitionId,
    (name, began_ns): (&str, u64),
    number: u64,
) -> Result<AppendReceipt, AppendError> {
    append(engine, to, Mark::Sequence(number), Some((ProducerId::begun(name, began_ns), began_ns)), None).await
}

/// An event of a key, recognised by its state.
async fn state(engine: &EmbeddedEngine, [_, to, held]: [PartitionId; 3], key: &str, state: &str) -> AppendReceipt {
    let guard = Guard::new(key, state.into(), 0).or_aside(Some(Diversion { to: held, held_max: Some(9) }));
    let guard = guard.recognised_by(EventId::new("/shop", state));
    append(engine, to, Mark::None, None, Some(guard)).await.unwrap()
}

async fn keep(engine: &EmbeddedEngine, numbers: &Numbers, key: &str, value: &str) {
    let mut session = engine.acquire(LaneId { subscriber: numbers.subscribers[0], partition: 0 }).await.unwrap();
    let writes = vec![LaneWrite::put(key.as_bytes().to_vec(), value.as_bytes().to_vec())];
    session.commit(Unit { consumed_to: 1, writes, ..Unit::default() }).await.unwrap();
    session.sync().await.unwrap();
}

/// Writes the fixture.
async fn make(folder: &Path) {
    let _ = std::fs::remove_dir_all(folder);
    let made = TempDir::new().unwrap();
    let (engine, hands) = open(made.path(), BEGIN_NS);
    let (numbers, all) = apply(&engine).await;
    numbered(&engine, all[0], ("idle", BEGIN_NS), 1).await.unwrap();
    for day in 1..=31 {
        hands.0.store(BEGIN_NS + day * DAY_NS, Ordering::Relaxed);
        engine.confirm_clock();
    }
    identified(&engine, all[0], "in the store").await;
    numbered(&engine, all[0], ("busy", BEGIN_NS), 5).await.unwrap_err(); // it began as long ago
    numbered(&engine, all[0], ("busy", END_NS), 5).await.unwrap();
    for (key, brings) in [("lives", "begun"), ("is over", "begun"), ("is over", "ended"), ("waits", "ended")] {
        state(&engine, all, key, brings).await;
    }
    keep(&engine, &numbers, "a", "in the store").await;
    engine.close().await.unwrap();
    drop(engine);
    let (engine, _) = open(made.path(), END_NS);
    let (numbers, all) = apply(&engine).await;
    identified(&engine, all[0], "in the journal").await;
    numbered(&engine, all[0], ("busy", END_NS), 6).await.unwrap();
    state(&engine, all, "lives", "more").await;
    keep(&engine, &numbers, "b", "in the journal").await;
    copy(made.path(), folder); // while it runs: as a kill would leave it
    for spare in ["spare-0", "spare-1"] {
        let _ = std::fs::remove_file(folder.join(spare));
    }
}

#[tokio::test]
async fn a_log_with_what_is_remembered_of_events_is_opened() {
    let kept = fixture("log-v6");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        make(&kept).await;
    }
    let folder = TempDir::new().unwrap();
    copy(&kept, folder.path());
    for start in 0..2 {
        let (engine, _) = open(folder.path(), END_NS);
        let (numbers, all) = apply(&engine).await;
        let counts = [5, 4, 1].into_iter().zip(all);
        for (count, partition) in counts {
            assert_eq!(everything(&engine, partition).await.len(), count, "{partition:?}");
        }
        for (id, offset) in [("in the store", 1), ("in the journal", 3)] {
            assert_eq!(identified(&engine, all[0], id).await.duplicates[0].offset, Some(offset), "{id}");
        }
        for (number, offset) in [(5, None), (6, Some(4))] {
            let appended = numbered(&engine, all[0], ("busy", END_NS), number).await.unwrap();
            assert_eq!(appended.duplicates[0].offset, offset, "number {number}");
        }
        for number in [1, 2] {
            let forgotten = numbered(&engine, all[0], ("idle", BEGIN_NS), number).await.unwrap_err();
            assert!(matches!(forgotten, AppendError::Producer(_)), "{forgotten}");
        }
        let known = [
            ("lives", "begun", Some(0)),
            ("lives", "more", Some(3)),
            ("is over", "ended", Some(2)),
            ("waits", "ended", None),
        ];
        for (key, brings, offset) in known {
            let appended = state(&engine, all, key, brings).await;
            assert_eq!(appended.duplicates[0].offset, offset, "{key}, {brings}");
        }
        let states = engine.states(all[1]).unwrap();
        let counts = GuardCounts::read(|key| states.get(key)).unwrap();
        assert_eq!((counts.living, counts.ended, counts.held), (1, 2, 1), "start {start}");
        let lane = LaneId { subscriber: numbers.subscribers[0], partition: 0 };
        let page = engine.entries(lane).unwrap().range(std::ops::Bound::Unbounded, b"z", PageBudget::of(9)).unwrap();
        let found: Vec<_> = page.entries.iter().map(|(key, value)| (text(key), text(value))).collect();
        assert_eq!(found, [("a", "in the store"), ("b", "in the journal")]);
        engine.close().await.unwrap();
    }
}

/// It is opened with the durability that a bus has.
#[tokio::test]
async fn a_bus_opens_it() {
    let data = TempDir::new().unwrap();
    copy(&fixture("log-v6"), &data.path().join("log"));
    let engine = EmbeddedEngine::open(data.path(), Durability::Sync).unwrap();
    let (_, all) = apply(&engine).await;
    assert_eq!(everything(&engine, all[1]).await.len(), 4);
    engine.close().await.unwrap();
}
