//! Room and descriptors that run out: who waits, who is refused, who goes on, and that nobody has to do anything about
//! it once there is enough again.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use wattle::effects::memory::Operation;
use wattle::effects::{MemoryDisk, SystemClock};
use wattle::engine::embedded::EmbeddedEngine;
use wattle::engine::{AppendError, Blueprint, Engine, ReadBudget, Session, Slices, SubscriberSpec, TopicSpec, Unit};
use wattle::log::{AppendRefusal, Condition, LogOptions, SlicePlaces, Ticket};
use wattle::model::{LaneId, PartitionId};

use super::support::{P, append, open, options, slices, stored};

const ALL: ReadBudget = ReadBudget { events: u32::MAX, bytes: usize::MAX };
const PATIENCE: Duration = Duration::from_secs(60);

fn engine_on(disk: &MemoryDisk) -> EmbeddedEngine {
    EmbeddedEngine::open_with(Path::new("memory"), Arc::new(disk.clone()), Arc::new(SystemClock), options()).unwrap()
}

/// Two topics, and two subscribers of the first: one that emits to the second and one that emits nothing.
async fn apply(engine: &EmbeddedEngine) -> (PartitionId, PartitionId, [LaneId; 2]) {
    let topic =
        |name: &str| TopicSpec { name: name.into(), partitions: 1, settings: Default::default(), lifecycle: None };
    let subscriber = |name: &str| SubscriberSpec { name: name.into(), from: "in".into() };
    let blueprint = Blueprint {
        topics: vec![topic("in"), topic("out")],
        subscribers: vec![subscriber("emits"), subscriber("leaf")],
        ..Blueprint::default()
    };
    let numbers = engine.apply(&blueprint).await.unwrap();
    let partition = |index: usize| PartitionId { topic: numbers.topics[index], partition: 0 };
    let lane = |index: usize| LaneId { subscriber: numbers.subscribers[index], partition: 0 };
    (partition(0), partition(1), [lane(0), lane(1)])
}

fn large(partition: PartitionId, bytes: usize) -> Slices {
    slices(&[(partition, &vec![7; bytes])])
}

/// Appends until the disk is full. How often it was not.
async fn fill(engine: &EmbeddedEngine, partition: PartitionId, bytes: usize) -> u64 {
    for count in 0.. {
        match tokio::time::timeout(PATIENCE, engine.append(large(partition, bytes))).await.unwrap() {
            Ok(_) => {}
            Err(AppendError::Full { .. }) => return count,
            Err(error) => panic!("{error:?}"),
        }
    }
    unreachable!()
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_producers_are_refused_then_lanes_that_emit_wait_and_all_others_go_on() {
    let disk = MemoryDisk::default();
    disk.set_capacity(Some(16 << 20));
    let engine = engine_on(&disk);
    let (input, output, [emits, leaf]) = apply(&engine).await;
    let appended = fill(&engine, input, 64 << 10).await + fill(&engine, input, 100).await;
    assert!(appended > 100, "{appended}");

    // Lanes that emit may still, for a while.
    let mut emitting = engine.acquire(emits).await.unwrap();
    let mut consumed = 0;
    let waits = loop {
        consumed += 1;
        assert!(consumed < appended, "lanes that emit never have to wait");
        let unit = Unit { consumed_to: consumed, emits: large(output, 64 << 10), ..Unit::default() };
        let mut commit = tokio::spawn(async move {
            emitting.commit(unit).await.unwrap();
            emitting
        });
        match tokio::time::timeout(Duration::from_secs(1), &mut commit).await {
            Ok(committed) => emitting = committed.unwrap(),
            Err(_) => break commit,
        }
    };
    assert!(consumed > 1, "they have more room than producers");
    assert!(!engine.storage().takes_events);

    // A lane that emits nothing goes on to the end, and whoever reads.
    let mut leaf_session = engine.acquire(leaf).await.unwrap();
    for consumed_to in 1..=appended {
        let commit = leaf_session.commit(Unit { consumed_to, emits: Slices::default(), ..Unit::default() });
        tokio::time::timeout(PATIENCE, commit).await.unwrap().unwrap();
    }
    leaf_session.flush().await.unwrap();
    assert_eq!(engine.position(leaf), Some(appended));
    let mut read = 0;
    while read < appended {
        read = engine.read(input, read, ALL).await.unwrap().last().unwrap().end_offset();
    }

    // Somebody makes room.
    disk.set_capacity(Some(32 << 20));
    let mut emitting = tokio::time::timeout(Duration::from_secs(5), waits).await.unwrap().unwrap();
    emitting.flush().await.unwrap();
    assert_eq!(engine.position(emits), Some(consumed));
    engine.append(large(input, 1)).await.unwrap();
    engine.close().await.unwrap();
}

/// Between two looks at the disk much can come: not more than there is room for.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_admitted_finds_room_however_fast_it_comes() {
    for (capacity, bytes) in [(2 << 20, 20_000), (4 << 20, 4_000), (4 << 20, 100_000), (16 << 20, 3 << 20)] {
        let disk = MemoryDisk::default();
        disk.set_capacity(Some(capacity));
        let engine = engine_on(&disk);
        let (input, ..) = apply(&engine).await;
        let producers: Vec<_> = (0..8)
            .map(|_| {
                let engine = engine.clone();
                tokio::spawn(async move { fill(&engine, input, bytes).await })
            })
            .collect();
        let mut appended = 0;
        for producer in producers {
            appended += producer.await.unwrap();
        }
        assert!(appended * bytes as u64 > capacity / 8, "{appended} of {bytes} bytes on {capacity}");
        tokio::time::timeout(PATIENCE, engine.close()).await.unwrap().unwrap();
    }
}

/// Connections and readers may take all descriptors that there are. That passes, so nothing is poisoned by it.
#[tokio::test(flavor = "multi_thread")]
async fn descriptors_that_run_out_end_nothing() {
    const EMFILE: i32 = 24;
    let disk = MemoryDisk::default();
    let small = LogOptions { file_bytes: 4 << 10, recent_bytes_max: 8 << 10, checkpoint_bytes: 2 << 10, ..options() };
    let (log, _) = open(&disk, small.clone());
    let are_short = Arc::new(AtomicBool::new(false));
    let short = are_short.clone();
    disk.set_fault(move |operation| match operation {
        Operation::Create if short.load(Ordering::Relaxed) => Err(io::Error::from_raw_os_error(EMFILE)),
        _ => Ok(()),
    });
    let mut expected = Vec::new();
    for round in 0..6 {
        let event = |number: usize| format!("{number} {}", "x".repeat(200));
        let mut tickets = Vec::new();
        are_short.store(true, Ordering::Relaxed);
        for _ in 0..50 {
            expected.push(event(expected.len()));
            tickets.push(super::support::submit(&log, P, expected.last().unwrap()));
        }
        tokio::time::sleep(Duration::from_millis(120)).await; // it meets the shortage meanwhile
        are_short.store(false, Ordering::Relaxed);
        for ticket in tickets {
            tokio::time::timeout(PATIENCE, ticket).await.unwrap().unwrap().unwrap();
        }
        assert_eq!(*log.condition().borrow(), Condition::Working, "round {round}");
    }
    expected.push("last".to_owned());
    append(&log, P, "last").await;
    assert!(stored(&log, P) == expected);
    drop(log);
    assert!(stored(&open(&disk.after_crash(|| false), small).0, P) == expected);
}

/// What is handed in to a log whose files of some names find no room any more, and how it ends.
fn closes(is_refused: fn(&str) -> bool, small: LogOptions, handed_in: usize) {
    let disk = MemoryDisk::default();
    let (log, _) = open(&disk, small.clone());
    let event = |number: usize| format!("{number} {}", "x".repeat(200));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(append(&log, P, &event(0)));
    disk.set_fault_on(move |name, operation| match operation {
        Operation::Write(_) | Operation::Allocate(_) | Operation::Create if is_refused(name) => {
            Err(io::ErrorKind::StorageFull.into())
        }
        _ => Ok(()),
    });
    let tickets: Vec<_> = (1..1 + handed_in).map(|number| super::support::submit(&log, P, &event(number))).collect();
    let (sender, receiver) = std::sync::mpsc::channel();
    let condition = log.condition();
    // on a thread of its own, so that this test ends where that does not
    std::thread::spawn(move || {
        log.close();
        drop(log);
        sender.send(())
    });
    receiver.recv_timeout(PATIENCE).unwrap();
    assert_eq!(*condition.borrow(), Condition::Closed, "nothing has failed");
    let acked = |ticket: Ticket<Result<SlicePlaces, AppendRefusal>>| {
        runtime.block_on(async { tokio::time::timeout(PATIENCE, ticket).await.unwrap().is_ok() })
    };
    let acked = 1 + tickets.into_iter().map(acked).take_while(|is_acked| *is_acked).count();
    assert!(acked < 1 + handed_in || handed_in == 0, "there was room");
    disk.clear_fault();
    for disk in [&disk, &disk.after_crash(|| false)] {
        let found = stored(&open(disk, small.clone()).0, P);
        assert!(found.len() >= acked, "{} of {acked}", found.len());
        assert_eq!(found, (0..found.len()).map(event).collect::<Vec<_>>(), "and nothing else");
    }
}

#[test]
fn a_log_closes_although_its_disk_stays_full_and_what_was_acknowledged_is_there() {
    closes(|name| name.starts_with("journal"), options(), 59);
    // neither segments nor the store find room, so the appender waits for a checkpoint
    let small = LogOptions { recent_bytes_max: 4 << 10, move_bytes: 512, checkpoint_bytes: 1 << 10, ..options() };
    closes(|name| !name.starts_with("journal"), small, 59);
}

#[test]
fn a_log_closes_although_there_is_no_room_for_its_mark_and_has_not_failed() {
    closes(|name| name.starts_with("journal"), options(), 0);
}
