//! A sync that fails: nothing is acknowledged any more, the bus says so and ends, and what it had acknowledged is
//! there.
//!
//! After a failed `fdatasync` the kernel may call lost pages clean, so a second one proves nothing. It must not be
//! tried.

use std::time::{Duration, Instant};

use wattle::api::reason;

use crate::faults::bus::{Bus, Home, Sent, read};
use crate::faults::steps;
use crate::faults::strace::Fault;

/// The journal's first file, to which everything in these tests goes.
const JOURNAL: &str = "journal-0000000000000000";

/// From the health's point of view: how long after a producer was told it says NOT_SERVING, and how long after the call
/// began that failed, which is before the disk did.
type Delays = (Duration, Duration);

/// Publishes until the first failure, and goes on trying until the bus is gone.
async fn publish_until_it_ends(mut bus: Bus, sent: &mut Sent, bytes: usize, context: &str) -> Delays {
    let health = bus.watch_health().await;
    let client = bus.client().await;
    let mut began = Instant::now();
    let mut calls = 0;
    let error = loop {
        match sent.publish(&client, "log", bytes).await {
            Ok(()) => began = Instant::now(),
            Err(error) => break error,
        }
        calls += 1;
        assert!(calls < 400, "{context}: nothing fails");
    };
    let failed = Instant::now();
    assert!(error.is_retryable(), "{context}: {error:?}");
    if let wattle::client::ClientError::Refused(refused) = &error {
        let expected = [reason::STORAGE_FAILED, reason::SHUTTING_DOWN].contains(&refused.reason.as_str());
        assert!(expected, "{context}: {refused:?}");
    }
    let acked = sent.acked.clone();
    while bus.runs() {
        if let Err(error) = read(&client, "log").await {
            assert!(error.is_retryable(), "{context}: a read is not to blame: {error:?}");
        }
        assert!(sent.publish(&client, "log", bytes).await.is_err(), "{context}: an ack after the failure");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(sent.acked, acked, "{context}");
    let ended = bus.end();
    ended.assert_failed_with("the disk failed, and the bus has stopped");
    let (not_serving, said_so) = health.await.unwrap();
    assert!(said_so, "{context}: it went without saying NOT_SERVING");
    (not_serving.saturating_duration_since(failed), not_serving.saturating_duration_since(began))
}

/// Lets syncs fail from one on, and holds the bus to its promises. Nothing where not even the start succeeds; else also
/// how many events were acknowledged.
async fn fails(fault: &Fault, home: &Home, bytes: usize) -> Option<(Delays, usize)> {
    let context = format!("{fault:?}");
    let mut sent = Sent::default();
    let delays = match home.start_with(fault) {
        Ok(bus) => {
            let delays = publish_until_it_ends(bus, &mut sent, bytes, &context).await;
            Some((delays, sent.acked.len()))
        }
        Err(ended) => {
            ended.assert_failed_with("Input/output error");
            None
        }
    };
    assert!(!home.trace().is_empty(), "{context}: nothing was injected");
    sent.check(&home.stored("log").await, &context);
    delays
}

fn judge(what: &str, mut delays: Vec<Delays>) {
    assert!(!delays.is_empty(), "{what}: the bus never came to serve");
    delays.sort();
    let (median, worst) = (delays[delays.len() / 2].0, delays[delays.len() - 1].0);
    let from_call = delays.iter().map(|(_, from_call)| *from_call).max().unwrap_or_default();
    eprintln!(
        "{what}: {} failures; NOT_SERVING after the producer knew: median {median:?}, worst {worst:?}; worst after the \
         call began: {from_call:?}",
        delays.len()
    );
    // The median, since a machine that is busy with other tests may keep anybody waiting.
    assert!(median <= Duration::from_millis(100), "{what}: {median:?}");
}

/// Row 4 of the matrix of faults: each sync of the journal, of the first fifty.
#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_cannot_be_synced_ends_the_acks_for_good() {
    let mut delays = Vec::new();
    for nth in steps(1, 50) {
        let home = Home::new();
        let fault = Fault::error_from("fdatasync", "EIO", nth).on(home.file(JOURNAL));
        let failed = fails(&fault, &home, 10).await;
        assert_eq!(failed.is_some(), nth > 2, "the first syncs are those of the start, the others are for what runs");
        if let Some((delay, acked)) = failed {
            // The first two that succeeded were for the topics, each other one for one event at the most.
            assert!(acked + 3 <= nth as usize, "{acked} acknowledged, though sync {nth} failed");
            delays.push(delay);
        }
    }
    judge("fdatasync of the journal", delays);
}

/// Any sync of a first start, whatever it is for, and those of a later one.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_cannot_sync_refuses_and_the_next_one_serves() {
    for call in ["fdatasync", "fsync"] {
        let last = if call == "fsync" { 5 } else { 9 };
        for nth in steps(1, last) {
            let home = Home::new();
            let fault = Fault::error(call, "EIO", nth);
            let ended = home.start_with(&fault).err();
            ended.unwrap_or_else(|| panic!("it serves: {fault:?}")).assert_failed_with("Input/output error");
            let mut sent = Sent::default();
            let bus = home.start();
            sent.publish(&bus.client().await, "log", 10).await.unwrap();
            bus.stop();
            sent.check(&home.stored("log").await, &format!("{fault:?}"));
        }
    }
}

/// A checkpoint syncs the segments that changed, and then the state store.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_cannot_be_synced_ends_the_acks_for_good() {
    let large = 900_000; // so that a checkpoint comes after some eighty of them
    let segment = name_of_segment().await;
    let mut delays = Vec::new();
    for nth in steps(1, 3) {
        // a third checkpoint goes on in another file
        if nth < 3 {
            let home = Home::new();
            let fault = Fault::error_from("fdatasync", "EIO", nth).on(home.file(&segment));
            delays.extend(fails(&fault, &home, large).await.map(|(delay, _)| delay));
        }
        let home = Home::new();
        drop(home.start()); // which makes the store
        let fault = Fault::error_from("fdatasync", "EIO", 4 + nth).on(home.file("state"));
        delays.extend(fails(&fault, &home, large).await.map(|(delay, _)| delay));
    }
    judge("checkpoints", delays);
}

/// The file to which events go, which has the same name in each home.
async fn name_of_segment() -> String {
    let home = Home::new();
    let bus = home.start();
    Sent::default().publish(&bus.client().await, "log", 10).await.unwrap();
    bus.stop();
    let files = std::fs::read_dir(home.data("log")).unwrap();
    let mut names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.find(|name| name.starts_with("segment-")).expect("a checkpoint was made at the end")
}
