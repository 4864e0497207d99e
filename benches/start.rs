//! How long is a start, and how much memory does a backlog take?
//!
//! - Reopening after a kill, by the bytes of journal that are not in segments yet.
//! - A start with ten million retained events, and what is resident then and while they are appended, beside an idle
//!   engine.
//!
//! `cargo bench --bench start`

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a benchmark fails by panicking and prints its result"
)]
#![allow(clippy::disallowed_methods, reason = "a benchmark waits for its own tasks, and measures real time")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use common::{bytes_of, engine_in, engine_on, events, fill, forget, median, resident_bytes};
use wattle::effects::DiskFolder;
use wattle::engine::Engine;
use wattle::engine::embedded::LogOptions;
use wattle::model::PartitionId;

const EVENTS: usize = 10_000_000;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let copy = to.join(entry.file_name());
        std::fs::copy(entry.path(), &copy).unwrap();
        // or the start would wait for these writes
        std::fs::File::open(copy).unwrap().sync_all().unwrap();
    }
}

fn main() {
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();

    // As much of journal as a log ever has without a checkpoint, and far more than it ever has.
    let most = 2 * LogOptions::default().checkpoint_bytes + LogOptions::default().recent_bytes_max;
    for (name, bytes_max) in [("the default bound", most), ("1 GiB", 1 << 30)] {
        let folder = home.path().join("killed");
        let options = LogOptions { checkpoint_bytes: usize::MAX, ..LogOptions::default() };
        let mut seconds = vec![];
        let mut journal = 0;
        let left = home.path().join("left");
        runtime.block_on(async {
            let disk = Arc::new(DiskFolder::create(&folder).unwrap());
            let (engine, topic) = engine_on(disk, options.clone(), 1).await;
            let partition = PartitionId { topic, partition: 0 };
            while journal + 280_000 < bytes_max {
                engine.append(events(partition, 1_000)).await.unwrap();
                journal += 260_000 + 200;
            }
            copy(&folder, &left); // as a kill leaves it
        });
        for _ in 0..3 {
            let again = home.path().join("again");
            copy(&left, &again);
            let disk = Arc::new(DiskFolder::create(&again).unwrap());
            let start = Instant::now();
            let (engine, _) = runtime.block_on(engine_on(disk, options.clone(), 1));
            seconds.push(start.elapsed().as_secs_f64());
            drop(engine);
            std::fs::remove_dir_all(&again).unwrap();
        }
        std::fs::remove_dir_all(&folder).unwrap();
        std::fs::remove_dir_all(&left).unwrap();
        let seconds = median(&mut seconds);
        let gib = journal as f64 / f64::from(1 << 30);
        println!(
            "reopening after a kill, {name}: {:.0} MB in {seconds:.2} s, {:.2} s/GiB",
            journal as f64 / 1e6,
            seconds / gib
        );
    }

    let folder = home.path().join("retained");
    let idle = runtime.block_on(async {
        let (engine, _) = engine_in(&home.path().join("idle"), 8).await;
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        let idle = resident_bytes();
        engine.close().await.unwrap();
        idle
    });
    runtime.block_on(async {
        let (engine, topic) = engine_in(&folder, 8).await;
        let mut most = 0;
        for tenth in 0..10 {
            for partition in 0..8 {
                fill(&engine, PartitionId { topic, partition }, EVENTS / 80).await;
            }
            let resident = resident_bytes();
            most = most.max(resident);
            println!("{} M events appended: {} MiB more than idle", tenth + 1, resident.saturating_sub(idle) >> 20);
        }
        println!("a backlog of 10 M events: at most {} MiB more than an idle engine", most.saturating_sub(idle) >> 20);
        engine.close().await.unwrap();
    });
    println!("{:.1} GB of segments", bytes_of(&folder, "segment-") as f64 / 1e9);
    for is_cold in [false, true] {
        for entry in std::fs::read_dir(&folder).unwrap().map(Result::unwrap).filter(|_| is_cold) {
            forget(&entry.path());
        }
        let start = Instant::now();
        let (engine, topic) = runtime.block_on(engine_in(&folder, 8));
        let took = start.elapsed().as_secs_f64();
        let bounds = engine.bounds(PartitionId { topic, partition: 3 }).unwrap();
        assert_eq!(bounds.durable, EVENTS as u64 / 8);
        println!(
            "a start with 10 M retained events, page cache {}: {took:.3} s",
            if is_cold { "cold" } else { "warm" }
        );
        runtime.block_on(engine.close()).unwrap();
    }
}
