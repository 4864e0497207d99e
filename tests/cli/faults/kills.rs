//! A process that is killed at any moment, again and again (row 18): the sum of what all lives were told is there.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wattle::effects::{DiskFolder, SystemClock};
use wattle::engine::embedded::{EmbeddedEngine, LogOptions};
use wattle::engine::{Blueprint, Engine, Slices, TopicSpec};
use wattle::model::PartitionId;

use crate::common::random::Random;
use crate::faults::is_thorough;
use crate::faults::ledger::{End, Ledger};
use crate::faults::life::{Life, push};

fn seed() -> u64 {
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    std::env::var("WATTLE_SEED").map_or_else(|_| now(), |seed| seed.parse().expect("WATTLE_SEED is a number"))
}

/// As many appends as there is time for.
fn endless(folder: &Path, number: u64) -> Life {
    let life = if number.is_multiple_of(4) { Life::of_large_appends } else { Life::of_small_appends };
    Life { appends: u64::MAX, ..life(folder, number) }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_kills_lose_nothing_acknowledged() {
    let seed = seed();
    let mut random = Random::new(seed);
    let kills = if is_thorough() { 2_000 } else { 200 };
    let (mut ledger, mut acked, mut lives) = (Ledger::new(), 0, 0);
    for kill in 0..kills {
        let context = format!("WATTLE_SEED={seed}, kill {kill}");
        let end = ledger.live_for(endless, Duration::from_millis(5 + random.below(100)));
        assert_eq!(end, End::Killed, "{context}: {}", ledger.said);
        if random.one_in(5) {
            ledger.check(&context).await;
        }
        if random.one_in(40) || kill + 1 == kills {
            ledger.check(&context).await;
            acked += ledger.acked();
            lives += 1;
            ledger = Ledger::new();
        }
    }
    eprintln!("{kills} kills in {lives} folders, {acked} events acknowledged, WATTLE_SEED={seed}");
    assert!(acked > 0);
}

/// How long a start takes for each byte of the journal, which it reads whole: a figure to look at, since nothing that
/// is a bound here is one on a busy machine, or in a build for tests.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_reads_what_no_checkpoint_has() {
    let folder = crate::faults::bus::quick_folder();
    let options = || LogOptions {
        recent_bytes_max: 256 << 20,
        move_bytes: usize::MAX,
        checkpoint_bytes: usize::MAX,
        ..LogOptions::default()
    };
    let open = |folder: &Path| {
        let disk = Arc::new(DiskFolder::create(folder).unwrap());
        EmbeddedEngine::open_with(folder, disk, Arc::new(SystemClock), options()).unwrap()
    };
    let engine = open(folder.path());
    let topic = TopicSpec { name: "in".into(), partitions: 1, settings: Default::default(), lifecycle: None };
    let blueprint = Blueprint { topics: vec![topic], ..Blueprint::default() };
    let partition = PartitionId { topic: engine.apply(&blueprint).await.unwrap().topics[0], partition: 0 };
    let appends = 128_u64;
    for number in 0..appends {
        let mut slices = Slices::default();
        for _ in 0..256 {
            let record = number.to_string().repeat(2_000);
            push(&mut slices, partition, &record.as_bytes()[..1_000]);
        }
        engine.append(slices).await.unwrap();
    }
    let crashed = crate::faults::bus::quick_folder();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), crashed.path().join(entry.file_name())).unwrap();
    }
    let start = Instant::now();
    let again = open(crashed.path());
    let took = start.elapsed();
    assert_eq!(again.bounds(partition).unwrap().durable, appends * 256);
    assert!(again.recovery().frames >= appends, "a checkpoint was made: nothing was read");
    let mebibytes = (appends * 256 * 1_004) as f64 / f64::from(1 << 20);
    let per_gibibyte = took.as_secs_f64() / mebibytes * 1_024.0;
    eprintln!("{mebibytes:.0} MiB of journal read in {took:?}: {per_gibibyte:.1} s for each GiB");
}
