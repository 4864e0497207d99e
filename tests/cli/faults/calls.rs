//! Calls that fail: where the disk is full, everybody waits and goes on; where it fails, the bus ends and says so.
//! Nothing is acknowledged that is not there afterwards.

use std::path::Path;
use std::time::Duration;

use crate::faults::bus::{Home, Sent};
use crate::faults::is_thorough;
use crate::faults::ledger::{End, Ledger};
use crate::faults::life::Life;
use crate::faults::strace::Fault;

const LIVES_PER_FOLDER: u32 = 20;

/// Lets calls fail for growing n, until a life makes fewer of them.
async fn fail_at_every(
    call: &'static str,
    first: u32,
    fault: impl Fn(u32) -> Fault,
    life: impl Fn(&Path, u64) -> Life,
    judge: impl Fn(End, &str),
) {
    let mut ledger = Ledger::new();
    let (mut nth, mut lives, mut failed, mut missed, mut acked) = (first, 0, 0, 0, 0);
    while missed < 2 {
        let fault = fault(nth);
        let end = ledger.live(&life, Some(&fault));
        let context = format!("{fault:?}, life {lives}: {}", ledger.said);
        missed = if ledger.was_injected() { 0 } else { missed + 1 };
        judge(end, &context);
        failed += u32::from(end == End::Failed);
        ledger.check(&context).await;
        nth += if is_thorough() { 1 } else { 1 + nth / 6 };
        lives += 1;
        if lives % LIVES_PER_FOLDER == 0 {
            acked += ledger.acked();
            ledger = Ledger::new();
        }
    }
    acked += ledger.acked();
    eprintln!("{call}: {failed} of {lives} lives ended early, up to its call {nth}; {acked} events acknowledged");
    // a file is cut off only where a failure has left too much of it
    assert!(lives > 2 || call == "ftruncate", "{call} is never called");
    assert!(acked > 0);
}

fn ends_in_order(end: End, context: &str) {
    assert_ne!(end, End::Killed, "{context}");
}

/// A program opens files before it is ours, so the first calls of `openat` are left out.
const ANY_CALL: [(&str, u32); 7] =
    [("pwrite64", 1), ("fdatasync", 1), ("fsync", 1), ("rename", 1), ("unlink", 1), ("fallocate", 1), ("openat", 16)];

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_fails_while_it_appends_costs_nothing_acknowledged() {
    for (call, first) in ANY_CALL {
        fail_at_every(call, first, |nth| Fault::error(call, "EIO", nth), Life::of_small_appends, ends_in_order).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_fails_while_it_makes_checkpoints_costs_nothing_acknowledged() {
    for (call, first) in ANY_CALL {
        fail_at_every(call, first, |nth| Fault::error(call, "EIO", nth), Life::of_large_appends, ends_in_order).await;
    }
    let fault = |nth| Fault::error("ftruncate", "EIO", nth);
    fail_at_every("ftruncate", 1, fault, Life::of_large_appends, ends_in_order).await;
}

/// A full disk is no failure: only a start may give up, and says what to do.
fn goes_on(end: End, context: &str) {
    assert!(end == End::Survived || context.contains("make room on the disk, nothing was lost"), "{context}");
}

/// Calls that may find no room.
const CALLS_FOR_ROOM: [(&str, u32); 4] = [("pwrite64", 1), ("fallocate", 1), ("rename", 1), ("openat", 16)];

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_for_a_moment_ends_nothing() {
    for (call, first) in CALLS_FOR_ROOM {
        let fault = |nth| Fault::errors(call, "ENOSPC", nth, nth + 2);
        fail_at_every(call, first, fault, Life::of_small_appends, goes_on).await;
        fail_at_every(call, first, fault, Life::of_large_appends, goes_on).await;
    }
}

/// The journal is full for a few writes: the publish that meets it waits, and is acknowledged when there is room. A
/// quota and a limit on the size of files are a full disk as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_publish_waits_for_room_in_the_journal() {
    for no_room in ["ENOSPC", "EDQUOT", "EFBIG"] {
        let home = Home::new();
        let journal = home.file("journal-0000000000000000");
        let mut bus = home.start_with(&Fault::errors("pwrite64", no_room, 10, 14).on(journal)).unwrap();
        let client = bus.client().await;
        let mut sent = Sent::default();
        for _ in 0..30 {
            sent.publish(&client, "log", 10).await.unwrap();
        }
        assert_eq!(home.trace().lines().count(), 5, "{no_room}: writes that found no room");
        assert!(bus.runs(), "{no_room}");
        bus.stop();
        sent.check(&home.stored("log").await, no_room);
    }
}

/// A checkpoint is full for a while: publishing goes on, and a later checkpoint takes it all.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_waits_for_room_and_nobody_else_does() {
    let home = Home::new();
    home.start().stop(); // which makes the store
    let state = home.file("state");
    let mut bus = home.start_with(&Fault::errors("pwrite64", "ENOSPC", 5, 8).on(state)).unwrap();
    let client = bus.client().await;
    let mut sent = Sent::default();
    for _ in 0..90 {
        sent.publish(&client, "log", 900_000).await.unwrap();
    }
    assert!(!home.trace().is_empty(), "the checkpoint found room");
    assert!(bus.runs());
    bus.stop();
    sent.check(&home.stored("log").await, "a full store");
}

/// Whoever runs it is told by the exit code and by words.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_ends_it_with_1_and_words() {
    for nth in [5, 9] {
        let home = Home::new();
        let fault = Fault::error("pwrite64", "EIO", nth).on(home.file("journal-0000000000000000"));
        let bus = home.start_with(&fault).unwrap();
        let client = bus.client().await;
        let mut sent = Sent::default();
        while sent.publish(&client, "log", 10).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        bus.end().assert_failed_with("the disk failed, and the bus has stopped");
        sent.check(&home.stored("log").await, "a failed write");
    }
}
