//! Seeded crashes: the power goes at a random operation of the disk, any subset of what was not synced survives, and
//! what was acknowledged is there. Several lives in a row, on the same disk.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wattle::effects::MemoryDisk;
use wattle::effects::memory::Operation;
use wattle::log::{Durability, Log, LogOptions, WindowOptions};
use wattle::model::{PartitionId, TopicId};

use super::support::{LANE, Random, slices, stored, try_open};

/// Each seed is some lives of a journal; 300 take a few seconds. More with `WATTLE_TEST_SEEDS`.
const SEEDS: u64 = 300;
const LIVES: u64 = 4;

/// So many more operations that change the disk succeed, then none does. Says how many were asked for.
pub(crate) fn power_off_after(disk: &MemoryDisk, operations: u64) -> impl Fn() -> u64 + use<> {
    let asked = Arc::new(AtomicU64::new(0));
    let count = asked.clone();
    disk.set_fault(move |operation| match operation {
        Operation::Read(_) => Ok(()),
        _ if asked.fetch_add(1, Ordering::Relaxed) < operations => Ok(()),
        _ => Err(io::Error::other("the power is gone")),
    });
    move || count.load(Ordering::Relaxed)
}

fn partition(number: u64) -> PartitionId {
    PartitionId { topic: TopicId(1 + (number % 2) as u32), partition: (number / 2 % 2) as u32 }
}

const PARTITIONS: u64 = 4;

/// What was handed to the log: an append, or a unit with the position to which it consumed. It names itself in each
/// of its events, as `number/how many/index`.
struct Submitted {
    partitions: Vec<PartitionId>,
    consumed_to: Option<u64>,
}

struct Seen {
    events: BTreeMap<PartitionId, Vec<String>>,
    position: u64,
}

fn look(log: &Log) -> Seen {
    let events = (0..PARTITIONS).map(|number| (partition(number), stored(log, partition(number)))).collect();
    Seen { events, position: log.lane(LANE).position() }
}

/// Units are there whole or not at all, nothing is there twice, nothing that was never submitted, and the position is
/// that of a unit that is there with everything it emitted.
fn check(seen: &Seen, submitted: &[Submitted], context: &str) -> Vec<usize> {
    let mut found: BTreeMap<usize, Vec<(usize, PartitionId)>> = BTreeMap::new();
    for (partition, texts) in &seen.events {
        let mut last = None;
        for text in texts {
            let parts: Vec<usize> = text.split('/').take(3).map(|part| part.parse().unwrap()).collect();
            let (number, index) = (parts[0], parts[2]);
            assert_eq!(parts[1], submitted[number].partitions.len(), "{context}: {text}");
            assert!(last < Some((number, index)), "{context}: {text} is out of order in {partition:?}");
            last = Some((number, index));
            found.entry(number).or_default().push((index, *partition));
        }
    }
    for (number, events) in &mut found {
        events.sort_unstable();
        let expected: Vec<_> = submitted[*number].partitions.iter().copied().enumerate().collect();
        assert_eq!(*events, expected, "{context}: unit {number} is not whole");
    }
    let last_unit = found.keys().rev().find_map(|number| submitted[*number].consumed_to);
    assert_eq!(seen.position, last_unit.unwrap_or(0), "{context}: the position is not that of the last unit");
    found.into_keys().collect()
}

async fn run(seed: u64, durability: Durability) {
    let mut random = Random(seed);
    let options = LogOptions {
        durability,
        file_bytes: [300, 2_000, 1 << 20][random.below(3) as usize],
        recent_bytes_max: [0, 1_000, 1 << 20][random.below(3) as usize],
        checkpoint_bytes: [0, 500, 1 << 20][random.below(3) as usize],
        move_bytes: [0, 500, 1 << 20][random.below(3) as usize],
        first_sequence: random.next() >> 1,
        windows: WindowOptions { run_identities: 3, ..WindowOptions::default() },
        is_stepped: false,
    };
    let mut disk = MemoryDisk::default();
    let mut submitted: Vec<Submitted> = Vec::new();
    // what must be there after the next crash, and for ever
    let mut must: Vec<usize> = Vec::new();
    // what lanes saw at the end of the life before: of that, or beyond it, a prefix is there
    let mut written: Vec<usize> = Vec::new();
    for life in 0..LIVES {
        let context = format!("seed {seed}, {durability:?}, {options:?}, life {life}");
        let operations = random.below(60);
        let _asked = power_off_after(&disk, operations);
        let opened = try_open(&disk, options.clone());
        let mut acked = Vec::new();
        if let Ok((log, _)) = opened {
            let seen = look(&log);
            let found = check(&seen, &submitted, &context);
            assert!(must.iter().all(|number| found.contains(number)), "{context}: acknowledged, and lost");
            let both = found.len().min(written.len());
            assert_eq!(found[..both], written[..both], "{context}: lost, but not what followed it");
            must = found; // recovery made it durable
            let mut position = seen.position;
            let mut tickets = Vec::new();
            let lane = log.acquire(LANE).await;
            for _ in 0..random.below(40) {
                let number = submitted.len();
                let count = 1 + random.below(4) as usize;
                let partitions: Vec<_> = (0..count).map(|_| partition(random.below(PARTITIONS))).collect();
                // events of all lengths around that of a block
                let longest = [8, 700][random.below(2) as usize];
                let padding = random.below(longest) as usize;
                let texts: Vec<_> =
                    (0..count).map(|index| format!("{number}/{count}/{index}/{}", "x".repeat(padding))).collect();
                let events: Vec<_> = partitions.iter().copied().zip(texts.iter().map(|text| text.as_bytes())).collect();
                let consumed_to = (random.below(3) == 0).then_some(position + 1);
                submitted.push(Submitted { partitions, consumed_to });
                match (consumed_to, &lane) {
                    (Some(consumed_to), Ok(lane)) => {
                        position = consumed_to;
                        let _ = log.unit(lane, consumed_to, slices(&events), Vec::new()).await;
                    }
                    _ => {
                        submitted[number].consumed_to = None;
                        match log.append(slices(&events)) {
                            Ok(ticket) => tickets.push((number, ticket)),
                            Err(_) => continue,
                        }
                    }
                }
                if random.below(4) == 0 {
                    for (number, ticket) in tickets.drain(..) {
                        if ticket.await.is_ok() {
                            acked.push(number);
                        }
                    }
                }
            }
            if random.below(4) == 0 {
                log.close();
            }
            for (number, ticket) in tickets {
                if ticket.await.is_ok() {
                    acked.push(number);
                }
            }
            let _ = log.barrier().await; // no group is half published any more
            written = check(&look(&log), &submitted, &format!("{context}, as lanes see it"));
        }
        if durability == Durability::Sync {
            must.extend(acked);
        }
        disk.clear_fault();
        if random.below(5) == 0 {
            // a kill: the page cache stays
            continue;
        }
        let keep = random.below(5); // from nothing at all to nearly everything
        let mut choice = Random(random.next());
        disk = disk.after_crash(|| choice.below(4) < keep);
    }
    let (log, _) = try_open(&disk, options.clone()).unwrap();
    let context = format!("seed {seed}, {durability:?}, {options:?}, at the end");
    let found = check(&look(&log), &submitted, &context);
    assert!(must.iter().all(|number| found.contains(number)), "{context}: acknowledged, and lost");
}

#[tokio::test]
async fn a_crash_at_any_operation_of_a_roll_loses_nothing_acknowledged() {
    // files of two events or so: every operation of making a file is among those that are the last
    let small = LogOptions { file_bytes: 200, checkpoint_bytes: 0, ..LogOptions::default() };
    for operations in 0.. {
        let mut done = 0;
        for seed in 0..6 {
            let disk = MemoryDisk::default();
            let asked = power_off_after(&disk, operations);
            let mut acked = Vec::new();
            if let Ok((log, _)) = try_open(&disk, small.clone()) {
                for number in 0..8 {
                    let text = format!("event {number}");
                    let Ok(ticket) = log.append(slices(&[(partition(0), text.as_bytes())])) else { break };
                    if ticket.await.is_ok() {
                        acked.push(text);
                    }
                }
            }
            done = asked();
            let mut random = Random(seed);
            let after = disk.after_crash(|| random.below(2) == 0);
            let (log, _) = try_open(&after, small.clone()).unwrap_or_else(|error| {
                let names: Vec<_> = after
                    .contents()
                    .into_iter()
                    .map(|(n, c)| (n, c.len(), c.into_iter().take(40).collect::<Vec<_>>()))
                    .collect();
                panic!("{operations} operations, seed {seed}: {error} {names:?}")
            });
            let found = stored(&log, partition(0));
            assert!(found.starts_with(&acked), "{operations} operations, seed {seed}: {acked:?}, found {found:?}");
        }
        if done <= operations {
            return; // the power stayed on to the end
        }
    }
}

fn seeds() -> impl Iterator<Item = u64> {
    let wanted = std::env::var("WATTLE_TEST_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    (0..wanted.unwrap_or(SEEDS)).inspect(|seed| println!("seed {seed}")) // shown where it fails
}

#[tokio::test]
async fn what_was_acknowledged_survives_any_crash_whole() {
    for seed in seeds() {
        run(seed, Durability::Sync).await;
    }
}

#[tokio::test]
async fn without_sync_a_suffix_may_be_lost_and_nothing_else() {
    for seed in seeds() {
        run(seed, Durability::Os).await;
        run(seed, Durability::Interval(Duration::from_millis(1))).await;
    }
}
