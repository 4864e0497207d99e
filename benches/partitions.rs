//! Do many partitions with few events each cost more syncs than one partition with all of them?
//!
//! 2,000 events a second for some time, appended in 20 batches a second: to one partition, then one to each of 2,000.
//! All syncs of any kind are counted, those of checkpoints too.
//!
//! `cargo bench --bench partitions`

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark fails by panicking and prints its result")]
#![allow(clippy::disallowed_methods, reason = "a benchmark waits for its own tasks, and measures real time")]

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{EVENT_BYTES, engine_on, noise};
use wattle::effects::memory::Operation;
use wattle::effects::{DiskFolder, WatchedDisk};
use wattle::engine::embedded::LogOptions;
use wattle::engine::{Engine, Slices};
use wattle::model::PartitionId;

const SECONDS: u32 = 30;
const BATCHES: u32 = 20;

fn main() {
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for partitions in [1, 2_000u32] {
        let counts: Arc<Mutex<BTreeMap<&'static str, u64>>> = Arc::default();
        let counted = counts.clone();
        let disk = DiskFolder::create(&home.path().join(partitions.to_string())).unwrap();
        let disk = WatchedDisk::new(disk, move |name, operation| {
            let kind = match operation {
                Operation::Sync if name.starts_with("journal-") => "journal",
                Operation::Sync if name.starts_with("state") => "state store",
                Operation::Sync => "spare journal files",
                Operation::SyncAll => "segments (syncfs)",
                Operation::SyncFolder => "folder",
                _ => return,
            };
            *counted.lock().unwrap().entry(kind).or_default() += 1;
        });
        runtime.block_on(async {
            let (engine, topic) = engine_on(Arc::new(disk), LogOptions::default(), partitions).await;
            let event = noise(EVENT_BYTES);
            counts.lock().unwrap().clear();
            let start = Instant::now();
            let mut next = 0;
            for batch in 0..SECONDS * BATCHES {
                tokio::time::sleep_until((start + Duration::from_millis(u64::from(batch * 1_000 / BATCHES))).into())
                    .await;
                let mut slices = Slices::default();
                for _ in 0..2_000 / BATCHES {
                    let write = |out: &mut Vec<u8>| {
                        out.extend_from_slice(&event);
                        Ok::<_, ()>(())
                    };
                    slices.push(PartitionId { topic, partition: next % partitions }, write).unwrap();
                    next += 1;
                }
                engine.append(slices).await.unwrap();
            }
            let counts = counts.lock().unwrap().clone();
            println!(
                "{partitions} partitions, 2,000 events/s for {SECONDS} s: {} syncs: {counts:?}",
                counts.values().sum::<u64>()
            );
            engine.close().await.unwrap();
        });
    }
}
