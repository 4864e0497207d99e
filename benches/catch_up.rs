//! How near does reading a cold backlog come to `cat`, and what does it cost those who append meanwhile?
//!
//! A backlog is written and checkpointed. A reader then reads all of it through the engine, looking at every event, and
//! `cat` copies the same segment files to nowhere; once with the page cache warm and once after it was made to forget
//! them. Then a producer appends durably, alone and while another reader goes through the backlog again and again.
//!
//! `cargo bench --bench catch_up`

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a benchmark fails by panicking and prints its result"
)]
#![allow(clippy::disallowed_methods, reason = "a benchmark waits for its own tasks, and measures real time")]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{bytes_of, engine_in, events, fill, forget, median};
use wattle::engine::embedded::EmbeddedEngine;
use wattle::engine::{Engine, ReadBudget};
use wattle::model::PartitionId;

const EVENTS: usize = 2_000_000;
const ROUNDS: usize = 7;
const BUDGET: ReadBudget = ReadBudget { events: 1_000_000, bytes: 1 << 20 };

fn segments(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> =
        entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("segment-")).collect();
    paths.sort();
    paths
}

/// Reads all there is; a sum over every event, so that each is looked at.
async fn read_all(engine: &EmbeddedEngine, partition: PartitionId, stop: &AtomicBool) -> (u64, u64) {
    let (mut from, end, mut sum) = (0, engine.bounds(partition).unwrap().durable, 0u64);
    while from < end && !stop.load(Ordering::Relaxed) {
        for chunk in engine.read(partition, from, BUDGET).await.unwrap() {
            from = chunk.end_offset();
            sum += chunk.iter().map(|stored| u64::from(stored.record[0])).sum::<u64>();
        }
    }
    (from, sum)
}

fn cat(paths: &[PathBuf]) -> Duration {
    let start = Instant::now();
    assert!(Command::new("cat").args(paths).stdout(Stdio::null()).status().unwrap().success());
    start.elapsed()
}

/// Appends of 1,000 events in so many seconds.
async fn appends(engine: &EmbeddedEngine, partition: PartitionId, seconds: f64) -> f64 {
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed().as_secs_f64() < seconds {
        engine.append(events(partition, 1_000)).await.unwrap();
        count += 1;
    }
    f64::from(count) / start.elapsed().as_secs_f64()
}

fn main() {
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let folder = home.path().join("log");
    runtime.block_on(async {
        let (engine, topic) = engine_in(&folder, 2).await;
        let partition = PartitionId { topic, partition: 0 };
        fill(&engine, partition, EVENTS).await;
        engine.close().await.unwrap();
        drop(engine);
        let bytes = bytes_of(&folder, "segment-") as f64;
        let paths = segments(&folder);
        let (engine, _) = engine_in(&folder, 2).await;
        let never = AtomicBool::new(false);
        for is_cold in [false, true] {
            let (mut ours, mut theirs, mut ratios) = (vec![], vec![], vec![]);
            for round in 0..=ROUNDS {
                let cold = || paths.iter().filter(|_| is_cold).for_each(|path| forget(path));
                cold();
                let start = Instant::now();
                assert_eq!(read_all(&engine, partition, &never).await.0, EVENTS as u64);
                let took = start.elapsed();
                cold();
                let by_cat = cat(&paths);
                if round > 0 {
                    ours.push(bytes / took.as_secs_f64() / 1e9);
                    theirs.push(bytes / by_cat.as_secs_f64() / 1e9);
                    ratios.push(by_cat.as_secs_f64() / took.as_secs_f64());
                }
            }
            println!(
                "catch-up of {:.0} MB, page cache {}: {:.2} GB/s, cat {:.2} GB/s, ratio {:.2}",
                bytes / 1e6,
                if is_cold { "cold" } else { "warm" },
                median(&mut ours),
                median(&mut theirs),
                median(&mut ratios)
            );
        }
        let other = PartitionId { topic, partition: 1 };
        let mut ratios = vec![];
        for _ in 0..ROUNDS {
            let alone = appends(&engine, other, 1.0).await;
            let (stop, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
            let reader = tokio::spawn({
                let (engine, stop, reads) = (engine.clone(), stop.clone(), reads.clone());
                async move {
                    while !stop.load(Ordering::Relaxed) {
                        reads.fetch_add(read_all(&engine, partition, &stop).await.0, Ordering::Relaxed);
                        // as fast as a lane that handles what it reads: an event in 2 us
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                }
            });
            let beside = appends(&engine, other, 1.0).await;
            stop.store(true, Ordering::Relaxed);
            reader.await.unwrap();
            ratios.push(beside / alone);
            println!(
                "durable appends of 1,000: {alone:.0}/s alone, {beside:.0}/s beside a reader of {:.1} M events/s",
                reads.load(Ordering::Relaxed) as f64 / 1e6
            );
        }
        println!("a lagging reader leaves {:.2} of durable appends", median(&mut ratios));
    });
}
