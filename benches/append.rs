//! What does a durable append cost beside the write and the fdatasync that it cannot do without?
//!
//! The engine appends, and the sizes of its writes and the places of its syncs are noted. Then a bare loop writes as
//! many bytes in the same groups to a file beside it. Rounds of the two alternate, since disks change their mind, and
//! nothing is deleted between them, since that is work for the disk too. What is reported is the median round and its
//! ratio, bare time by engine time: 1.0 means that the engine costs nothing. On a disk that others use, the rounds differ
//! widely: look at the range, and run it again. What the engine takes by itself is steadier: the last number, on a disk
//! that does nothing.
//!
//! `cargo bench --bench append`; the files are in cargo's target folder, so on whatever disk that is.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use wattle::effects::{Disk, DiskFile, DiskFolder, Space, SystemClock};
use wattle::engine::embedded::EmbeddedEngine;
use wattle::engine::{Blueprint, Engine, Slices, TopicSpec};
use wattle::log::LogOptions;
use wattle::model::PartitionId;

const EVENT_BYTES: usize = 256;
const ROUNDS: usize = 15;

/// How events come.
struct Shape {
    name: &'static str,
    producers: usize,
    /// Of each producer in a round; each waits for its ack before the next.
    appends: usize,
    events: usize,
}

const SHAPES: [Shape; 3] = [
    Shape { name: "1 producer, 1,000 events each time", producers: 1, appends: 40, events: 1_000 },
    Shape { name: "4 producers, 1,000 events each time", producers: 4, appends: 20, events: 1_000 },
    Shape { name: "64 producers, 1 event each time", producers: 64, appends: 50, events: 1 },
];

/// What the engine did to the disk: the sizes of the writes in front of each sync.
type Groups = Arc<Mutex<Vec<Vec<usize>>>>;

/// The real disk, with a note of each write and sync.
struct Noting<T> {
    inner: T,
    groups: Groups,
}

impl Disk for Noting<DiskFolder> {
    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(Noting { inner: self.inner.open(name)?, groups: self.groups.clone() }))
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(Noting { inner: self.inner.create(name)?, groups: self.groups.clone() }))
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }
    fn sync_folder(&self) -> io::Result<()> {
        self.inner.sync_folder()
    }
    fn sync_all(&self) -> io::Result<()> {
        self.inner.sync_all()
    }
    fn space(&self) -> io::Result<Space> {
        self.inner.space()
    }
}

impl DiskFile for Noting<Box<dyn DiskFile>> {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.inner.read_at(buffer, position)
    }
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let mut groups = self.groups.lock().unwrap();
        if let Some(group) = groups.last_mut() {
            group.push(bytes.len());
        }
        drop(groups);
        self.inner.write_at(bytes, position)
    }
    fn sync(&self) -> io::Result<()> {
        self.inner.sync()?;
        self.groups.lock().unwrap().push(Vec::new());
        Ok(())
    }
    fn length(&self) -> io::Result<u64> {
        self.inner.length()
    }
    fn allocate(&self, length: u64) -> io::Result<()> {
        self.inner.allocate(length)
    }
    fn truncate(&self, length: u64) -> io::Result<()> {
        self.inner.truncate(length)
    }
}

/// A disk that does nothing, to see what the engine takes by itself.
struct Nothing;

impl Disk for Nothing {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }
    fn open(&self, _: &str) -> io::Result<Box<dyn DiskFile>> {
        Err(io::ErrorKind::NotFound.into())
    }
    fn create(&self, _: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(Nothing))
    }
    fn remove(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn sync_folder(&self) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for Nothing {
    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Ok(0)
    }
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn length(&self) -> io::Result<u64> {
        Ok(0)
    }
    fn truncate(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
}

/// One round of the engine. How long it took, what it wrote, and how long each append waited.
async fn with_engine(
    disk: Arc<dyn Disk>,
    groups: &Groups,
    shape: &Shape,
) -> (Duration, Vec<Vec<usize>>, Vec<Duration>) {
    let clock = Arc::new(SystemClock);
    let engine = EmbeddedEngine::open_with(Path::new("bench"), disk, clock, LogOptions::default()).unwrap();
    let topics = vec![TopicSpec { name: "bench/events".into(), partitions: 1 }];
    let numbers = engine.apply(&Blueprint { topics, ..Blueprint::default() }).await.unwrap();
    let partition = PartitionId { topic: *numbers.topics.first().unwrap(), partition: 0 };
    let event = Arc::new(noise(EVENT_BYTES));
    *groups.lock().unwrap() = vec![Vec::new()];
    let start = Instant::now();
    let producers: Vec<_> = (0..shape.producers)
        .map(|_| {
            let (engine, event, appends, events) = (engine.clone(), event.clone(), shape.appends, shape.events);
            tokio::spawn(async move {
                let mut waited = Vec::with_capacity(appends);
                for _ in 0..appends {
                    let start = Instant::now();
                    let mut slices = Slices::default();
                    for _ in 0..events {
                        let write = |out: &mut Vec<u8>| {
                            out.extend_from_slice(&event);
                            Ok::<_, ()>(())
                        };
                        slices.push(partition, write).unwrap();
                    }
                    engine.append(slices).await.unwrap();
                    waited.push(start.elapsed());
                }
                waited
            })
        })
        .collect();
    let mut waited = Vec::new();
    for producer in producers {
        waited.extend(producer.await.unwrap());
    }
    let took = start.elapsed();
    let mut groups = groups.lock().unwrap().clone();
    groups.retain(|group| !group.is_empty());
    engine.close().await.unwrap();
    (took, groups, waited)
}

/// The same bytes in the same groups, and nothing else.
fn bare(file: &Path, groups: &[Vec<usize>]) -> Duration {
    let file = OpenOptions::new().create_new(true).read(true).write(true).open(file).unwrap();
    let bytes = noise(groups.iter().flatten().copied().max().unwrap_or(0));
    file.sync_all().unwrap();
    let mut position = 0;
    let start = Instant::now();
    for group in groups {
        for length in group {
            file.write_all_at(bytes.get(..*length).unwrap(), position).unwrap();
            position += *length as u64;
        }
        file.sync_data().unwrap();
    }
    start.elapsed()
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(&mut next).take(length).collect()
}

fn median<T: Copy + PartialOrd>(values: &mut [T]) -> T {
    values.sort_unstable_by(|a, b| a.partial_cmp(b).unwrap());
    *values.get(values.len() / 2).unwrap()
}

fn main() {
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    println!("durable append of {EVENT_BYTES} B events, median of {ROUNDS} rounds");
    for (number, shape) in SHAPES.iter().enumerate() {
        let events = (shape.producers * shape.appends * shape.events) as f64;
        let (mut engine, mut alone, mut floor, mut ratios, mut waits, mut syncs) =
            (vec![], vec![], vec![], vec![], vec![], vec![]);
        for round in 0..=ROUNDS {
            let engine_folder = home.path().join(format!("{number}-{round}"));
            let bare_file = home.path().join(format!("{number}-{round}-bare"));
            let noted = Groups::default();
            let disk = Noting { inner: DiskFolder::create(&engine_folder).unwrap(), groups: noted.clone() };
            let (took, groups, mut waited) = runtime.block_on(with_engine(Arc::new(disk), &noted, shape));
            let (by_itself, ..) = runtime.block_on(with_engine(Arc::new(Nothing), &noted, shape));
            let bare_took = bare(&bare_file, &groups);
            if round == 0 {
                continue; // to warm up
            }
            engine.push(events / took.as_secs_f64());
            alone.push(events / by_itself.as_secs_f64());
            floor.push(events / bare_took.as_secs_f64());
            ratios.push(bare_took.as_secs_f64() / took.as_secs_f64());
            waits.push(median(&mut waited).as_secs_f64() * 1e3);
            syncs.push(bare_took.as_secs_f64() * 1e3 / groups.len() as f64);
        }
        println!(
            "{:35} engine {:>8.0} events/s, bare {:>8.0} events/s, ratio {:.2} ({:.2} to {:.2}); an ack {:.2} ms, a bare \
             group {:.2} ms; on a disk that does nothing {:>8.0} events/s",
            shape.name,
            median(&mut engine),
            median(&mut floor),
            median(&mut ratios.clone()),
            ratios.iter().copied().fold(f64::INFINITY, f64::min),
            ratios.iter().copied().fold(0.0, f64::max),
            median(&mut waits),
            median(&mut syncs),
            median(&mut alone),
        );
    }
}
