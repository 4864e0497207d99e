//! What does an append cost beside the write and the fdatasync that it cannot do without?
//!
//! The engine appends, and the sizes of its writes to the journal and the places of its syncs are noted. Then a bare
//! loop writes as many bytes in the same groups to a new file, as a program would that knows nothing of preallocation.
//! Rounds of the two alternate, since disks change their mind. What is reported is the median round and its ratio, bare
//! time by engine time: 1.0 means that the engine costs nothing. With `os` durability the bare loop only writes.
//!
//! A round is longer than checkpoints are apart, so they are part of the engine's time: they run on the other core, to
//! the same disk.
//!
//! `cargo bench --bench append`; the files are in cargo's target folder, so on whatever disk that is. `-- 300` makes
//! the rounds so many percent long; a part of a name asks for that shape only.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark fails by panicking and prints its result")]
#![allow(clippy::disallowed_methods, reason = "a benchmark waits for its own tasks, and measures real time")]

mod common;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{EVENT_BYTES, median, noise};
use wattle::effects::memory::Operation;
use wattle::effects::{DiskFolder, SystemClock, WatchedDisk};
use wattle::engine::embedded::{Durability, EmbeddedEngine, LogOptions};
use wattle::engine::{Blueprint, Engine, Mark, Slices, TopicSettings, TopicSpec};
use wattle::limits;
use wattle::model::{Dedupe, EventId, PartitionId};

const ROUNDS: usize = 11;

/// How events come.
struct Shape {
    name: &'static str,
    durability: Durability,
    producers: usize,
    /// Of each producer in a round; each waits for its ack before the next.
    appends: usize,
    events: usize,
    /// Events are recognised when they come again.
    dedupes: bool,
}

const SHAPES: [Shape; 4] = [
    Shape {
        name: "1 x 1,000 events",
        durability: Durability::Sync,
        producers: 1,
        appends: 400,
        events: 1_000,
        dedupes: false,
    },
    Shape {
        name: "1 x 1,000, deduped",
        durability: Durability::Sync,
        producers: 1,
        appends: 400,
        events: 1_000,
        dedupes: true,
    },
    Shape {
        name: "64 x 1 event",
        durability: Durability::Sync,
        producers: 64,
        appends: 1_000,
        events: 1,
        dedupes: false,
    },
    Shape {
        name: "4 x 1,000, os",
        durability: Durability::Os,
        producers: 4,
        appends: 400,
        events: 1_000,
        dedupes: false,
    },
];

/// The sizes of the writes to the journal in front of each sync.
type Groups = Arc<Mutex<Vec<Vec<usize>>>>;

/// One round of the engine. How long it took, and how long each append waited.
async fn with_engine(folder: &Path, groups: &Groups, shape: &Shape, percent: usize) -> (Duration, Vec<Duration>) {
    let noted = groups.clone();
    let disk = WatchedDisk::new(DiskFolder::create(folder).unwrap(), move |name, operation| {
        let mut groups = noted.lock().unwrap();
        match operation {
            _ if !name.starts_with("journal-") => {}
            Operation::Write(bytes) => groups.last_mut().unwrap().push(bytes),
            Operation::Sync => groups.push(Vec::new()),
            _ => {}
        }
    });
    let options = LogOptions { durability: shape.durability, ..LogOptions::default() };
    let engine = EmbeddedEngine::open_with(folder, Arc::new(disk), Arc::new(SystemClock), options).unwrap();
    let dedupe = shape.dedupes.then_some(Dedupe { window: Duration::from_secs(120), count: None });
    let settings = TopicSettings { dedupe, ..TopicSettings::default() };
    let topics = vec![TopicSpec { name: "bench/events".into(), partitions: 1, settings, lifecycle: None }];
    let numbers = engine.apply(&Blueprint { topics, ..Blueprint::default() }).await.unwrap();
    let partition = PartitionId { topic: *numbers.topics.first().unwrap(), partition: 0 };
    let event = Arc::new(noise(EVENT_BYTES));
    // A log is asked that has been in use: its first journal file is only allocated, those that follow have been
    // written before. The files of the journal and its spare ones are then as they will be for ever.
    let mut appended = 0;
    while appended <= limits::JOURNAL_FILE_BYTES as usize {
        appended += 4_000 * EVENT_BYTES;
        engine.append(common::events(partition, 4_000)).await.unwrap();
    }
    tokio::time::sleep(limits::IDLE_MARK_AFTER * 2).await;
    *groups.lock().unwrap() = vec![Vec::new()];
    let start = Instant::now();
    let producers: Vec<_> = (0..shape.producers)
        .map(|producer| {
            let (engine, event) = (engine.clone(), event.clone());
            let (appends, events, dedupes) = (shape.appends * percent / 100, shape.events, shape.dedupes);
            tokio::spawn(async move {
                let mut waited = Vec::with_capacity(appends);
                for append in 0..appends {
                    let start = Instant::now();
                    let mut slices = Slices::default();
                    for number in 0..events {
                        let write = |out: &mut Vec<u8>| {
                            out.extend_from_slice(&event);
                            Ok::<_, ()>(())
                        };
                        let mark = match dedupes {
                            true => Mark::Identity(EventId::new("/bench", &format!("{producer}-{append}-{number}"))),
                            false => Mark::None,
                        };
                        slices.push_marked(partition, mark, write).unwrap();
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
    let noted = {
        let mut groups = groups.lock().unwrap();
        std::mem::replace(&mut *groups, vec![Vec::new()])
    };
    engine.close().await.unwrap();
    *groups.lock().unwrap() = noted.into_iter().filter(|group| !group.is_empty()).collect();
    (took, waited)
}

/// The same bytes in the same groups, and nothing else.
fn bare(file: &Path, groups: &[Vec<usize>], durability: Durability) -> Duration {
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
        if durability == Durability::Sync {
            file.sync_data().unwrap();
        }
    }
    start.elapsed()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let percent = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(100);
    let wanted = |name: &str| {
        let mut names = arguments.iter().filter(|argument| argument.parse::<usize>().is_err()).peekable();
        names.peek().is_none() || names.any(|part| name.contains(part))
    };
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    println!("append of {EVENT_BYTES} B events, median of {ROUNDS} rounds");
    for (number, shape) in SHAPES.iter().enumerate().filter(|(_, shape)| wanted(shape.name)) {
        let events = (shape.producers * (shape.appends * percent / 100) * shape.events) as f64;
        let (mut engine, mut floor, mut ratios, mut waits, mut syncs) = (vec![], vec![], vec![], vec![], vec![]);
        for round in 0..=ROUNDS {
            let engine_folder = home.path().join(format!("{number}-{round}"));
            let bare_file = home.path().join(format!("{number}-{round}-bare"));
            let groups = Groups::default();
            groups.lock().unwrap().push(Vec::new());
            let (took, mut waited) = runtime.block_on(with_engine(&engine_folder, &groups, shape, percent));
            let groups = groups.lock().unwrap().clone();
            let bare_took = bare(&bare_file, &groups, shape.durability);
            std::fs::remove_dir_all(&engine_folder).unwrap();
            std::fs::remove_file(&bare_file).unwrap();
            if round == 0 {
                continue; // to warm up
            }
            engine.push(events / took.as_secs_f64());
            floor.push(events / bare_took.as_secs_f64());
            ratios.push(bare_took.as_secs_f64() / took.as_secs_f64());
            waits.push(median(&mut waited).as_secs_f64() * 1e3);
            syncs.push(bare_took.as_secs_f64() * 1e3 / groups.len() as f64);
        }
        println!(
            "{:20} engine {:>8.0} events/s, bare {:>8.0} events/s, ratio {:.2} ({:.2} to {:.2}); an ack {:.2} ms, a \
             bare \
             group {:.2} ms",
            shape.name,
            median(&mut engine),
            median(&mut floor),
            median(&mut ratios.clone()),
            ratios.iter().copied().fold(f64::INFINITY, f64::min),
            ratios.iter().copied().fold(0.0, f64::max),
            median(&mut waits),
            median(&mut syncs),
        );
    }
}
