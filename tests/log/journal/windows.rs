//! Windows of what was published: they are what they say, whatever is in memory, and what they cost.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wattle::effects::memory::Operation;
use wattle::effects::{Clock, ManualClock, MemoryDisk};
use wattle::log::{Log, LogOptions, Settings, Stepper, WindowOptions};
use wattle::model::{Dedupe, EventId, Mark, ProducerId, Slices, TopicSettings};

use super::support::{P, options};

const MINUTE: u64 = 60_000_000_000;

struct Bed {
    log: Log,
    stepper: Stepper,
    disk: MemoryDisk,
    clock: Arc<ManualClock>,
    options: LogOptions,
}

impl Bed {
    fn new(windows: WindowOptions) -> Self {
        let options = LogOptions { windows, file_bytes: 64 << 20, ..options() };
        Self::open(MemoryDisk::default(), Arc::new(ManualClock((1_000_000 * MINUTE).into())), options)
    }

    fn open(disk: MemoryDisk, clock: Arc<ManualClock>, options: LogOptions) -> Self {
        let (log, _, stepper) = Log::open_stepped(Arc::new(disk.clone()), clock.clone(), options.clone()).unwrap();
        let dedupe = Some(Dedupe { window: Duration::from_secs(120), count: None });
        let topics = HashMap::from([(P.topic, TopicSettings { dedupe, ..TopicSettings::default() })]);
        log.configure(Settings { topics, ..Settings::default() });
        Self { log, stepper, disk, clock, options }
    }

    fn open_again(self) -> Self {
        drop((self.log, self.stepper));
        Self::open(self.disk.after_crash(|| true), self.clock, self.options)
    }

    /// Publishes events by their numbers. How many of them had been published before.
    fn publish(&mut self, numbers: Range<u64>) -> usize {
        let mut slices = Slices::default();
        for number in numbers {
            let mark = Mark::Identity(EventId::new("/test", &number.to_string()));
            slices.push_marked(P, mark, |_| Ok::<_, ()>(())).unwrap();
        }
        let mut ticket = self.log.append(slices).unwrap();
        self.stepper.append();
        self.stepper.sync();
        let placed = ticket.try_recv().unwrap().unwrap();
        for duplicate in &placed.duplicates {
            assert!(duplicate.offset.is_some());
        }
        placed.duplicates.len()
    }

    fn pass(&self, ns: u64) {
        self.clock.0.fetch_add(ns, Ordering::Relaxed);
    }

    /// Counts what is done to the state store from here on.
    fn count(&self, wanted: fn(Operation) -> bool) -> Arc<AtomicU64> {
        let count = Arc::new(AtomicU64::new(0));
        let counted = count.clone();
        self.disk.set_fault_on(move |name, operation| {
            counted.fetch_add(u64::from(name == "state" && wanted(operation)), Ordering::Relaxed);
            Ok(())
        });
        count
    }
}

fn small_runs() -> WindowOptions {
    WindowOptions { run_identities: 500, ..WindowOptions::default() }
}

#[test]
fn two_minutes_are_two_minutes_however_many_come_meanwhile() {
    let mut bed = Bed::new(WindowOptions::default());
    for thousand in 0..120 {
        assert_eq!(bed.publish(thousand * 1_000..(thousand + 1) * 1_000), 0);
        bed.pass(MINUTE / 100);
        if thousand % 20 == 7 {
            assert!(bed.stepper.checkpoint());
        }
    }
    assert_eq!(bed.publish(0..1_000), 1_000, "120,000 came in between, and 72 seconds");
    let mut bed = bed.open_again();
    assert_eq!(bed.publish(0..1_000), 1_000);
    bed.pass(MINUTE);
    assert_eq!(bed.publish(0..1_000), 0, "they are older than two minutes");
    assert_eq!(bed.publish(90_000..91_000), 1_000);
}

#[test]
fn what_is_new_costs_no_read_and_what_comes_again_one() {
    let mut bed = Bed::new(small_runs());
    for thousand in 0..20 {
        bed.publish(thousand * 1_000..(thousand + 1) * 1_000);
        assert!(bed.stepper.checkpoint());
    }
    bed.stepper.idle(); // what is in the store leaves memory
    let reads = bed.count(|operation| matches!(operation, Operation::Read(_)));
    assert_eq!(bed.publish(20_000..25_000), 0);
    assert_eq!(reads.load(Ordering::Relaxed), 0);
    assert_eq!(bed.publish(3_000..3_100), 100);
    // a look goes down the tree of the store, of which the upper pages are in memory
    assert!(reads.load(Ordering::Relaxed) <= 200, "{} reads", reads.load(Ordering::Relaxed));
}

#[test]
fn without_memory_for_filters_nothing_is_stored_twice_and_nothing_new_refused() {
    for windows in [
        WindowOptions { filter_bytes_max: 0, ..small_runs() },
        WindowOptions { fingerprint_bits: 1, ..small_runs() },
        WindowOptions { fingerprint_bits: 1, filter_bytes_max: 400, run_identities: 1, ..small_runs() },
    ] {
        let mut bed = Bed::new(windows);
        for hundred in 0..20 {
            assert_eq!(bed.publish(hundred * 100..(hundred + 1) * 100), 0);
            assert!(bed.stepper.checkpoint());
            bed.stepper.idle();
        }
        assert_eq!(bed.publish(0..2_000), 2_000);
        let mut bed = bed.open_again();
        assert_eq!(bed.publish(0..2_000), 2_000);
        assert_eq!(bed.publish(2_000..2_100), 0);
    }
}

#[test]
fn runs_of_any_size_are_joined_and_forgotten_and_none_is_missed() {
    let mut bed = Bed::new(small_runs());
    let (mut next, mut published) = (0, Vec::new());
    for round in 0..400u64 {
        let count = [1, 3, 40, 700][(round * 7 % 4) as usize];
        assert_eq!(bed.publish(next..next + count), 0);
        published.push((next..next + count, bed.clock.now_ns()));
        next += count;
        if round % 3 != 0 {
            assert!(bed.stepper.checkpoint());
            bed.stepper.idle();
        }
        bed.pass(MINUTE / 50);
        if round % 90 == 60 {
            bed = bed.open_again();
        }
        let horizon_ns = bed.clock.now_ns() - 2 * MINUTE;
        for (numbers, _) in published.iter().rev().skip(1).step_by(7).filter(|(_, at_ns)| *at_ns >= horizon_ns) {
            let some = numbers.start..numbers.end.min(numbers.start + 3);
            assert_eq!(bed.publish(some.clone()), some.count(), "round {round}: {numbers:?}");
        }
    }
    let state_bytes = bed.disk.contents()["state"].len();
    assert!(state_bytes < 8 << 20, "what is forgotten leaves the store: {state_bytes} bytes");
}

#[test]
fn identities_do_not_bring_checkpoints_of_their_own() {
    let mut bed = Bed::new(WindowOptions::default());
    assert!(bed.stepper.checkpoint()); // from here on the next one is due in ten seconds
    let commits = bed.count(|operation| matches!(operation, Operation::Sync));
    for thousand in 0..150 {
        bed.publish(thousand * 1_000..(thousand + 1) * 1_000);
        assert!(bed.stepper.move_out());
    }
    assert_eq!(commits.load(Ordering::Relaxed), 0, "150,000 identities are few MiB");
    for thousand in 150..230 {
        bed.publish(thousand * 1_000..(thousand + 1) * 1_000);
        assert!(bed.stepper.move_out());
    }
    assert!(commits.load(Ordering::Relaxed) > 0, "memory of them is bounded");
}

#[test]
fn numbers_of_producers_that_are_not_in_memory_are_found_in_the_store() {
    let mut bed = Bed::new(WindowOptions { producers_max: 10, ..small_runs() });
    let publish = |bed: &mut Bed, producer: u128, sequence: u64| {
        let mut slices = Slices::default();
        slices.set_producer(ProducerId(producer));
        slices.push_marked(P, Mark::Sequence(sequence), |_| Ok::<_, ()>(())).unwrap();
        let mut ticket = bed.log.append(slices).unwrap();
        bed.stepper.append();
        bed.stepper.sync();
        ticket.try_recv().unwrap().unwrap().duplicates.first().map(|duplicate| duplicate.offset)
    };
    for round in 1..=2 {
        for producer in 0..200 {
            assert_eq!(publish(&mut bed, producer, round), None);
            if producer % 50 == 49 {
                assert!(bed.stepper.checkpoint());
                bed.stepper.idle();
            }
        }
    }
    bed.stepper.idle();
    let reads = bed.count(|operation| matches!(operation, Operation::Read(_)));
    for producer in 0..200 {
        assert_eq!(publish(&mut bed, producer, 2), Some(Some(200 + producer as u64)), "{producer}");
        assert_eq!(publish(&mut bed, producer, 1), Some(None), "{producer}");
    }
    let mut bed = bed.open_again();
    assert_eq!(publish(&mut bed, 7, 2), Some(Some(207)));
    assert_eq!(publish(&mut bed, 7, 3), None);
    assert!(reads.load(Ordering::Relaxed) < 1_000, "{} reads", reads.load(Ordering::Relaxed));
}
