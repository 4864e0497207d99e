//! Descriptors that run out: everybody waits, and nobody has to do anything about it once there are enough again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use wattle::effects::MemoryDisk;
use wattle::effects::memory::Operation;
use wattle::log::{Condition, LogOptions};

use super::support::{P, append, open, options, stored};

const PATIENCE: Duration = Duration::from_secs(60);

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
            tokio::time::timeout(PATIENCE, ticket).await.expect("no answer").unwrap();
        }
        assert_eq!(*log.condition().borrow(), Condition::Working, "round {round}");
    }
    expected.push("last".to_owned());
    append(&log, P, "last").await;
    assert!(stored(&log, P) == expected);
    drop(log);
    assert!(stored(&open(&disk.after_crash(|| false), small).0, P) == expected);
}
