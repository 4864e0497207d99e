//! What several benchmarks need: an engine on the real disk, events for it, and what the process uses.

#![allow(dead_code, clippy::indexing_slicing, reason = "each benchmark uses a part; it fails by panicking")]

use std::path::Path;
use std::sync::Arc;

use wattle::effects::{Disk, DiskFolder, SystemClock};
use wattle::engine::embedded::{EmbeddedEngine, LogOptions};
use wattle::engine::{Blueprint, Engine, Slices, TopicSettings, TopicSpec};
use wattle::model::{PartitionId, TopicId};

pub(crate) const EVENT_BYTES: usize = 256;

/// An engine with one topic, and the topic's number.
pub(crate) async fn engine_on(disk: Arc<dyn Disk>, options: LogOptions, partitions: u32) -> (EmbeddedEngine, TopicId) {
    let engine = EmbeddedEngine::open_with(Path::new("bench"), disk, Arc::new(SystemClock), options).unwrap();
    let topics = vec![TopicSpec {
        name: "bench/events".into(),
        partitions,
        settings: TopicSettings::default(),
        lifecycle: None,
    }];
    let numbers = engine.apply(&Blueprint { topics, ..Blueprint::default() }).await.unwrap();
    (engine, numbers.topics[0])
}

/// The same in a folder, with the default options.
pub(crate) async fn engine_in(folder: &Path, partitions: u32) -> (EmbeddedEngine, TopicId) {
    engine_on(Arc::new(DiskFolder::create(folder).unwrap()), LogOptions::default(), partitions).await
}

/// So many events of [`EVENT_BYTES`] bytes.
pub(crate) fn events(partition: PartitionId, count: usize) -> Slices {
    let (event, mut slices) = (noise(EVENT_BYTES), Slices::default());
    for _ in 0..count {
        let write = |out: &mut Vec<u8>| {
            out.extend_from_slice(&event);
            Ok::<_, ()>(())
        };
        slices.push(partition, write).unwrap();
    }
    slices
}

/// Appends so many events, in batches of 5,000, several on their way.
pub(crate) async fn fill(engine: &EmbeddedEngine, partition: PartitionId, count: usize) {
    let mut on_the_way = std::collections::VecDeque::new();
    for _ in 0..count / 5_000 {
        let engine = engine.clone();
        on_the_way.push_back(tokio::spawn(async move { engine.append(events(partition, 5_000)).await.unwrap() }));
        if on_the_way.len() >= 4 {
            on_the_way.pop_front().unwrap().await.unwrap();
        }
    }
    for append in on_the_way {
        append.await.unwrap();
    }
}

/// Bytes that do not compress.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(&mut next).take(length).collect()
}

pub(crate) fn median<T: Copy + PartialOrd>(values: &mut [T]) -> T {
    values.sort_unstable_by(|a, b| a.partial_cmp(b).unwrap());
    values[values.len() / 2]
}

/// Resident memory of this process in bytes.
pub(crate) fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Bytes of the files in a folder whose names begin so.
pub(crate) fn bytes_of(folder: &Path, prefix: &str) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let of_kind = entries.filter(|entry| entry.file_name().to_str().unwrap().starts_with(prefix));
    of_kind.map(|entry| entry.metadata().unwrap().len()).sum()
}

/// Lets the page cache forget a file.
pub(crate) fn forget(path: &Path) {
    let file = std::fs::File::open(path).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
}
