//! What was published before is recognised, also where the memory of it went through checkpoints and starts. The faults
//! here were found by the simulation.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use wattle::effects::{ManualClock, MemoryDisk};
use wattle::log::{Log, LogOptions, Settings, SlicePlaces};
use wattle::model::{Dedupe, EventId, Mark, PartitionId, ProducerId, Slices, TopicSettings};

use super::support::{P, options};

const OTHER: PartitionId = PartitionId { topic: P.topic, partition: 1 };

fn open(disk: &MemoryDisk, clock: &Arc<ManualClock>, options: LogOptions) -> Log {
    let (log, _) = Log::open(Arc::new(disk.clone()), clock.clone(), options).unwrap();
    let dedupe = Some(Dedupe { window: Duration::from_secs(10), count: Some(100) });
    let topic = TopicSettings { dedupe, ..TopicSettings::default() };
    log.configure(Settings {
        topics: HashMap::from([(P.topic, topic)]),
        readers: HashMap::new(),
        ..Settings::default()
    });
    log
}

async fn publish(log: &Log, producer: Option<ProducerId>, marks: &[(PartitionId, Mark)]) -> SlicePlaces {
    let mut slices = Slices::default();
    for (partition, mark) in marks {
        slices.push_marked(*partition, *mark, |_| Ok::<_, ()>(())).unwrap();
    }
    if let Some(producer) = producer {
        slices.set_producer(producer);
    }
    log.append(slices).unwrap().await.unwrap().unwrap()
}

/// The offset of the first one, where an identity is recognised.
async fn known(log: &Log, identity: u128) -> Option<u64> {
    let placed = publish(log, None, &[(P, Mark::Identity(EventId(identity)))]).await;
    placed.duplicates.first().and_then(|duplicate| duplicate.offset)
}

#[tokio::test]
async fn an_identity_is_recognised_after_any_number_of_starts() {
    // where nothing stays in memory, and there are several files, the replay makes checkpoints
    for options in [options(), LogOptions { recent_bytes_max: 0, file_bytes: 200, ..options() }] {
        let (mut disk, clock) = (MemoryDisk::default(), Arc::new(ManualClock::default()));
        clock.0.store(1_000_000_000_000, Ordering::Relaxed);
        let log = open(&disk, &clock, options.clone());
        assert_eq!(known(&log, 1).await, None);
        for start in 0..4 {
            if start > 1 {
                log_something(&disk, &clock, &options).await;
            }
            disk = disk.after_crash(|| false);
            let log = open(&disk, &clock, options.clone());
            assert_eq!(known(&log, 1).await, Some(0), "start {start}");
        }
    }
}

/// A life with a checkpoint of its own.
async fn log_something(disk: &MemoryDisk, clock: &Arc<ManualClock>, options: &LogOptions) {
    let log = open(disk, clock, options.clone());
    publish(&log, None, &[(P, Mark::None)]).await;
    log.close();
}

#[tokio::test]
async fn an_identity_is_recognised_where_a_replay_makes_the_checkpoint() {
    let (disk, clock) = (MemoryDisk::default(), Arc::new(ManualClock::default()));
    let log = open(&disk, &clock, LogOptions { file_bytes: 200, ..options() });
    for identity in 0..6 {
        assert_eq!(known(&log, identity).await, None);
    }
    let mut disk = disk.after_crash(|| false); // while none is checkpointed
    for _ in 0..2 {
        disk = disk.after_crash(|| false);
        drop(open(&disk, &clock, LogOptions { recent_bytes_max: 0, ..options() }));
    }
    let log = open(&disk, &clock, options());
    for identity in 0..6 {
        assert_eq!(known(&log, identity).await, Some(identity as u64));
    }
}

#[tokio::test]
async fn an_identity_that_was_forgotten_and_published_again_is_recognised_by_the_later_event() {
    let (disk, clock) = (MemoryDisk::default(), Arc::new(ManualClock::default()));
    let log = open(&disk, &clock, options());
    for (second, offset) in [(0, None), (20, None), (25, Some(1))] {
        clock.0.store(second * 1_000_000_000, Ordering::Relaxed);
        assert_eq!(known(&log, 1).await, offset);
    }
    drop(log);
    let log = open(&disk, &clock, options());
    assert_eq!(known(&log, 1).await, Some(1), "the first one is older than the window, the second one is not");
}

#[tokio::test]
async fn numbers_are_recognised_after_a_call_of_which_a_partition_had_all_before() {
    let (mut disk, clock) = (MemoryDisk::default(), Arc::new(ManualClock::default()));
    let by = Some(ProducerId(7));
    let log = open(&disk, &clock, options());
    publish(&log, by, &[(P, Mark::Sequence(1)), (OTHER, Mark::Sequence(2))]).await;
    publish(&log, by, &[(P, Mark::Sequence(1)), (OTHER, Mark::Sequence(2)), (OTHER, Mark::Sequence(3))]).await;
    for start in 0..3 {
        disk = disk.after_crash(|| true);
        let log = open(&disk, &clock, options());
        let placed = publish(&log, by, &[(P, Mark::Sequence(1)), (OTHER, Mark::Sequence(3))]).await;
        assert_eq!(placed.duplicates.len(), 2, "start {start}: {placed:?}");
        log.close();
    }
}
