//! A disk that fails: nothing is acknowledged after it, and everyone is told.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wattle::effects::MemoryDisk;
use wattle::effects::memory::Operation;
use wattle::engine::embedded::EmbeddedEngine;
use wattle::engine::{
    AppendError, Blueprint, Engine, Health, ReadBudget, Session, SessionError, StopReason, SubscriberSpec, TopicSpec,
    Unit,
};
use wattle::limits;
use wattle::log::{Condition, Durability, LogOptions};
use wattle::model::{LaneId, PartitionId};

use super::support::{Gate, LANE, P, Random, Ticks, append, end_of, open, options, slices, stored, submit};

const ALL: ReadBudget = ReadBudget { events: u32::MAX, bytes: usize::MAX };

fn engine_on(disk: &MemoryDisk, options: LogOptions) -> EmbeddedEngine {
    EmbeddedEngine::open_with(Path::new("memory"), Arc::new(disk.clone()), Arc::new(Ticks::default()), options).unwrap()
}

/// One topic, one subscriber of it, and a topic for its outputs.
async fn apply(engine: &EmbeddedEngine) -> (PartitionId, LaneId, PartitionId) {
    let topic =
        |name: &str| TopicSpec { name: name.into(), partitions: 1, settings: Default::default(), lifecycle: None };
    let subscriber = SubscriberSpec { name: "s".into(), from: "in".into() };
    let blueprint =
        Blueprint { topics: vec![topic("in"), topic("out")], subscribers: vec![subscriber], ..Blueprint::default() };
    let numbers = engine.apply(&blueprint).await.unwrap();
    let partition = |index: usize| PartitionId { topic: numbers.topics[index], partition: 0 };
    (partition(0), LaneId { subscriber: numbers.subscribers[0], partition: 0 }, partition(1))
}

/// The nth operation of a kind on the journal fails from now on, once; all others work.
fn fail_once(disk: &MemoryDisk, kind: fn(&str, Operation) -> bool, nth: u64) {
    let count = AtomicU64::new(0);
    disk.set_fault_on(move |name, operation| {
        if kind(name, operation) && count.fetch_add(1, Ordering::Relaxed) + 1 == nth {
            return Err(io::Error::other("the disk is gone"));
        }
        Ok(())
    });
}

fn is_write(operation: Operation) -> bool {
    matches!(operation, Operation::Write(_))
}

fn is_sync(operation: Operation) -> bool {
    operation == Operation::Sync
}

fn is_journal_write(name: &str, operation: Operation) -> bool {
    name.starts_with("journal-") && is_write(operation)
}

fn is_journal_sync(name: &str, operation: Operation) -> bool {
    name.starts_with("journal-") && is_sync(operation)
}

/// A spare file gets the name of a journal file.
fn is_beginning(name: &str, operation: Operation) -> bool {
    name.starts_with("spare-") && operation == Operation::Rename
}

fn is_sync_folder(_: &str, operation: Operation) -> bool {
    operation == Operation::SyncFolder
}

#[tokio::test]
async fn after_one_failure_nothing_is_acknowledged_any_more() {
    // the disk works again at once: a log that tried again would acknowledge what is lost
    for kind in [is_journal_write, is_journal_sync, is_beginning, is_sync_folder] {
        for nth in 1..=10 {
            let disk = MemoryDisk::default();
            let small = LogOptions { file_bytes: 200, ..options() };
            let (log, _) = open(&disk, small.clone());
            fail_once(&disk, kind, nth);
            let mut acked = Vec::new();
            for number in 0..100 {
                let text = format!("event {number}");
                let Ok(ticket) = log.append(slices(&[(P, text.as_bytes())])) else { break };
                match ticket.await {
                    Ok(_) => acked.push(text),
                    Err(_) => break,
                }
            }
            assert!(acked.len() < 100, "it failed");
            assert!(matches!(end_of(&log).await, Condition::Poisoned(reason) if reason.contains("the disk is gone")));
            assert!(log.append(slices(&[(P, b"late")])).is_err());
            assert!(log.acquire(LANE).await.is_err());
            assert_eq!(log.partition(P).durable(), acked.len() as u64, "and nothing more is shown outside");
            log.close();
            assert!(matches!(end_of(&log).await, Condition::Poisoned(_)), "closing does not make it well");
            drop(log);
            // a crash may lose everything of which the sync failed, but nothing that was acknowledged
            let after = stored(&open(&disk.after_crash(|| false), small.clone()).0, P);
            assert_eq!(after, acked);
            // without a crash the next start finds what is in the cache, and makes that durable before it serves it
            let (log, _) = open(&disk, small.clone());
            let served = stored(&log, P);
            assert!(served.starts_with(&acked));
            drop(log);
            assert_eq!(stored(&open(&disk.after_crash(|| false), small).0, P), served);
        }
    }
}

#[tokio::test]
async fn a_start_after_a_failed_sync_may_itself_be_cut_short() {
    // also the sync of a new file's head is among those that fail, and its head may then be in the cache only
    for nth in 1..=5 {
        for operations in 0..12 {
            for seed in 0..8 {
                let disk = MemoryDisk::default();
                let small = LogOptions { file_bytes: 200, ..options() };
                let (log, _) = open(&disk, small.clone());
                fail_once(&disk, |name, op| is_journal_sync(name, op) || is_sync_folder(name, op), nth);
                let mut acked = Vec::new();
                while append_if_served(&log, acked.len()).await {
                    acked.push(format!("event {}", acked.len()));
                }
                drop(log);
                let _asked = super::crashes::power_off_after(&disk, operations);
                drop(super::support::try_open(&disk, small.clone()));
                let mut random = Random(seed);
                let (log, _) = open(&disk.after_crash(|| random.next() & 1 == 0), small);
                let after = stored(&log, P);
                assert!(after.starts_with(&acked), "sync {nth}, {operations} operations, seed {seed}: {after:?}");
            }
        }
    }
}

async fn append_if_served(log: &wattle::log::Log, number: usize) -> bool {
    match log.append(slices(&[(P, format!("event {number}").as_bytes())])) {
        Ok(ticket) => ticket.await.is_ok(),
        Err(_) => false,
    }
}

#[tokio::test]
async fn a_poisoned_engine_says_so_and_still_gives_what_was_durable() {
    for kind in [is_journal_write, is_journal_sync] {
        let disk = MemoryDisk::default();
        let engine = engine_on(&disk, options());
        let (input, lane, output) = apply(&engine).await;
        engine.append(slices(&[(input, b"durable")])).await.unwrap();
        let mut session = engine.acquire(lane).await.unwrap();
        session.read(ALL).await.unwrap();
        let waits = tokio::spawn({
            let engine = engine.clone();
            async move { engine.wait_durable(input, 9).await }
        });
        let reads = tokio::spawn({
            let mut other = engine.acquire(LaneId { ..lane }).await.unwrap();
            other.read(ALL).await.unwrap();
            async move { other.read(ALL).await.map(|chunks| chunks.len()) }
        });
        let mut session = engine.acquire(lane).await.unwrap();
        fail_once(&disk, kind, 1);
        let mut health = engine.health();
        session.commit(Unit { consumed_to: 1, emits: slices(&[(output, b"lost")]), ..Unit::default() }).await.unwrap();

        let changed = health.wait_for(|health| *health != Health::Serving);
        let stopped = tokio::time::timeout(Duration::from_secs(60), changed).await.unwrap().unwrap().clone();
        let Health::Stopped(StopReason::Poisoned(reason)) = &stopped else { panic!("{stopped:?}") };
        assert!(reason.contains("the disk is gone"), "{reason}");
        let error = engine.append(slices(&[(input, b"refused")])).await.unwrap_err();
        assert!(matches!(&error, AppendError::Stopped(StopReason::Poisoned(_))), "{error:?}");
        assert!(!error.has_no_side_effects());
        assert!(matches!(session.flush().await, Err(SessionError::Stopped(StopReason::Poisoned(_)))));
        assert!(matches!(waits.await.unwrap(), Err(StopReason::Poisoned(_))));
        assert!(matches!(reads.await.unwrap(), Err(SessionError::Stopped(StopReason::Poisoned(_)))));
        assert!(matches!(engine.close().await, Err(StopReason::Poisoned(_))), "closing reports it");

        let chunks = engine.read(input, 0, ALL).await.unwrap();
        assert_eq!(chunks[0].iter().next().unwrap().record, b"durable");
        assert!(engine.read(output, 0, ALL).await.unwrap().is_empty(), "what was not durable is not shown");
    }
}

#[tokio::test]
async fn what_was_applied_survives_a_crash() {
    for durability in [Durability::Sync, Durability::Interval(Duration::from_secs(3600))] {
        let disk = MemoryDisk::default();
        let engine = engine_on(&disk, LogOptions { durability, ..options() });
        let before = apply(&engine).await;
        engine.append(slices(&[(before.0, b"a")])).await.unwrap();
        let engine = engine_on(&disk.after_crash(|| false), options());
        if durability == Durability::Sync {
            assert_eq!(engine.bounds(before.0).map(|bounds| bounds.durable), Some(1));
            assert_eq!(apply(&engine).await, before);
        } else {
            // nothing was promised; what was lost was lost together
            assert_eq!(engine.bounds(before.0), None);
        }
    }
}

#[tokio::test]
async fn a_sync_that_fails_at_the_end_is_reported_by_closing() {
    let disk = MemoryDisk::default();
    let never = LogOptions { durability: Durability::Interval(Duration::from_secs(3600)), ..options() };
    let engine = engine_on(&disk, never);
    let (input, ..) = apply(&engine).await;
    disk.set_fault(|operation| if is_sync(operation) { Err(io::Error::other("the disk is gone")) } else { Ok(()) });
    engine.append(slices(&[(input, b"acknowledged when written")])).await.unwrap();
    assert!(matches!(engine.close().await, Err(StopReason::Poisoned(_))));
}

#[tokio::test]
async fn a_panic_of_a_thread_of_the_log_poisons_and_hangs_nobody() {
    for kind in [is_journal_write, is_journal_sync] {
        let disk = MemoryDisk::default();
        let (log, _) = open(&disk, options());
        append(&log, P, "a").await;
        disk.set_fault_on(move |name, operation| match kind(name, operation) {
            true => panic!("a fault of the test"),
            false => Ok(()),
        });
        let acks = submit(&log, P, "b");
        assert!(matches!(end_of(&log).await, Condition::Poisoned(_)));
        assert!(acks.await.is_err());
        assert!(log.append(slices(&[(P, b"c")])).is_err());
        assert!(log.barrier().await.is_err());
    }
}

#[tokio::test]
async fn two_syncs_never_run_at_once() {
    // Of two at once only one is told that a write failed, and the other one would acknowledge what is lost.
    for durability in [Durability::Sync, Durability::Interval(Duration::ZERO), Durability::Os] {
        let disk = MemoryDisk::default();
        let (log, _) = open(&disk, LogOptions { file_bytes: 500, durability, ..options() });
        let (running, overlaps) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (count, seen) = (running.clone(), overlaps.clone());
        disk.set_fault_on(move |name, operation| {
            if is_journal_sync(name, operation) {
                seen.fetch_add(count.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(1)); // room for the other one, had it come
                count.fetch_sub(1, Ordering::SeqCst);
            }
            Ok(())
        });
        let mut tickets = Vec::new();
        for number in 0..200 {
            tickets.push(submit(&log, P, &format!("event {number}")));
            log.barrier().await.unwrap(); // a group of its own, so that files end while others are synced
        }
        for ticket in tickets {
            ticket.await.unwrap().unwrap();
        }
        assert!(disk.contents().len() > 10, "files ended");
        log.close();
        assert_eq!(overlaps.load(Ordering::SeqCst), 0, "{durability:?}");
    }
}

#[tokio::test]
async fn what_writes_nothing_syncs_nothing() {
    let disk = MemoryDisk::default();
    let (log, _) = open(&disk, options());
    append(&log, P, "a").await;
    let syncs = Arc::new(AtomicU64::new(0));
    let count = syncs.clone();
    disk.set_fault_on(move |name, operation| {
        count.fetch_add(u64::from(is_journal_sync(name, operation)), Ordering::Relaxed);
        Ok(())
    });
    for _ in 0..100 {
        log.barrier().await.unwrap();
        log.acquire(LANE).await.unwrap();
    }
    log.close();
    assert!(syncs.load(Ordering::Relaxed) <= 2, "but those of a mark");
}

#[tokio::test]
async fn the_end_of_a_file_does_not_wait_for_the_interval() {
    let disk = MemoryDisk::default();
    let never = Durability::Interval(Duration::from_secs(3600));
    let (log, _) = open(&disk, LogOptions { file_bytes: 200, durability: never, ..options() });
    for number in 0..20 {
        append(&log, P, &format!("event {number}")).await;
    }
    assert!(disk.contents().len() > 5);
    // all but the last file is durable
    let least = stored(&open(&disk.after_crash(|| false), options()).0, P).len();
    assert!(least >= 16, "{least}");
}

#[tokio::test]
async fn the_outside_sees_nothing_before_the_sync_and_lanes_do() {
    let disk = MemoryDisk::default();
    let engine = engine_on(&disk, options());
    let (input, lane, output) = apply(&engine).await;
    let mut session = engine.acquire(lane).await.unwrap();
    let gate = Gate::on(&disk, is_sync);
    let acks = tokio::spawn({
        let engine = engine.clone();
        async move { engine.append(slices(&[(input, b"a")])).await }
    });
    // the lane runs ahead of the sync, which is held back all the while
    let chunks = session.read(ALL).await.unwrap();
    assert_eq!(chunks[0].count, 1);
    gate.wait_until_reached();
    session.commit(Unit { consumed_to: 1, emits: slices(&[(output, b"b")]), ..Unit::default() }).await.unwrap();
    assert_eq!((engine.bounds(input).unwrap().written, engine.bounds(input).unwrap().durable), (1, 0));
    assert!(engine.read(input, 0, ALL).await.unwrap().is_empty());
    assert_eq!(engine.offset_at_time(input, 0).await.unwrap(), 0);
    assert!(!acks.is_finished());
    gate.open();
    acks.await.unwrap().unwrap();
    engine.wait_durable(output, 0).await.unwrap();
    assert_eq!(engine.read(input, 0, ALL).await.unwrap().len(), 1);
    assert_eq!(engine.read(output, 0, ALL).await.unwrap().len(), 1);
}

#[tokio::test]
async fn producers_past_their_budget_are_refused_without_a_trace_and_lanes_are_not() {
    let disk = MemoryDisk::default();
    let engine = engine_on(&disk, options());
    let (input, lane, output) = apply(&engine).await;
    let mut session = engine.acquire(lane).await.unwrap();
    let gate = Gate::on(&disk, is_write);
    let half = vec![1u8; limits::PRODUCER_QUEUE_BYTES_MAX / 2 - 4];
    let mut taken = Vec::new();
    for _ in 0..2 {
        let (engine, event) = (engine.clone(), slices(&[(input, &half)]));
        taken.push(tokio::spawn(async move { engine.append(event).await }));
        gate.wait_until_reached();
        tokio::task::yield_now().await;
    }
    let error = engine.append(slices(&[(input, b"one more")])).await.unwrap_err();
    assert!(matches!(error, AppendError::Busy { .. }), "{error:?}");
    assert!(error.is_retryable() && error.has_no_side_effects());
    session.commit(Unit { consumed_to: 0, emits: slices(&[(output, b"of a lane")]), ..Unit::default() }).await.unwrap();
    gate.open();
    for task in taken {
        task.await.unwrap().unwrap();
    }
    session.flush().await.unwrap();
    assert_eq!(engine.append(slices(&[(input, b"again")])).await.unwrap().base_offsets, [2], "it left no trace");
    assert_eq!(engine.bounds(output).unwrap().written, 1);
}

#[tokio::test]
async fn an_idle_engine_writes_one_mark_that_proves_everything() {
    let disk = MemoryDisk::default();
    let (log, _) = open(&disk, options());
    append(&log, P, "a").await;
    let marks = || {
        let file = &disk.contents()[&super::layout::name(0)];
        let starts = super::layout::frame_starts(file);
        starts.iter().filter(|start| file[**start + 5] == super::layout::MARK).count()
    };
    // of its own; the clock of the idle time is the machine's, so this waits for it
    let waits = async {
        while marks() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waits).await.unwrap();
    log.close();
    assert_eq!(marks(), 2, "closing has nothing to add");
}

/// A file system that finds out late that it is full says so when it is asked to sync. What was to be synced is lost
/// then, and the next sync knows nothing of it.
#[tokio::test]
async fn a_sync_that_says_that_the_disk_is_full_has_failed_like_any_other() {
    let syncs: [fn(&str, Operation) -> bool; 4] = [
        |name, operation| name.starts_with("spare-") && is_sync(operation), // the head of the next journal file
        is_sync_folder,
        |name, operation| name.starts_with("segment-") && is_sync(operation),
        |name, operation| name == "state" && is_sync(operation),
    ];
    for (number, is_met) in syncs.into_iter().enumerate() {
        let disk = MemoryDisk::default();
        // neither spare files nor checkpoints but those of files that end
        let small =
            LogOptions { file_bytes: 8 << 10, recent_bytes_max: 16 << 10, checkpoint_bytes: 1 << 10, ..options() };
        let (log, _) = open(&disk, small.clone());
        append(&log, P, "there").await;
        disk.set_fault_on(move |name, operation| match is_met(name, operation) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        });
        let mut acked = 1;
        while append_if_served(&log, acked).await {
            acked += 1;
            assert!(acked < 10_000, "fault {number} is never met");
        }
        let Condition::Poisoned(reason) = end_of(&log).await else { panic!("fault {number}") };
        assert!(reason.contains("a sync failed"), "{reason}");
        disk.clear_fault();
        drop(log);
        let (log, _) = open(&disk.after_crash(|| false), small);
        assert!(stored(&log, P).len() >= acked, "fault {number}: {} of {acked}", stored(&log, P).len());
    }
}
