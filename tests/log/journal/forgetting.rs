//! Producers that sent nothing for long: their numbers go, and nothing of what they sent is stored a second time.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use wattle::effects::memory::Operation;
use wattle::effects::{Clock, ManualClock, MemoryDisk};
use wattle::log::{AppendRefusal, Log, LogOptions, Settings, SlicePlaces, Stepper, Ticket, WindowOptions};
use wattle::model::{Mark, PartitionId, ProducerId, Slices, TopicSettings};

use super::support::{P, options};

const DAY: u64 = 24 * 3_600_000_000_000;
const START: u64 = 20_000 * DAY;
const FORGET: Duration = Duration::from_secs(30 * 24 * 3600);
const OTHER: PartitionId = PartitionId { topic: P.topic, partition: 1 };

struct Bed {
    log: Log,
    stepper: Stepper,
    disk: MemoryDisk,
    clock: Arc<ManualClock>,
    options: LogOptions,
    forget: Option<Duration>,
}

impl Bed {
    /// Nothing that is in the store stays in memory, or all that was there.
    fn new(producers_max: usize) -> Self {
        let windows = WindowOptions { producers_max, ..WindowOptions::default() };
        let options = LogOptions { windows, ..options() };
        Self::open(MemoryDisk::default(), Arc::new(ManualClock(START.into())), options, Some(FORGET))
    }

    fn open(disk: MemoryDisk, clock: Arc<ManualClock>, options: LogOptions, forget: Option<Duration>) -> Self {
        let (log, _, stepper) = Log::open_stepped(Arc::new(disk.clone()), clock.clone(), options.clone()).unwrap();
        let bed = Self { log, stepper, disk, clock, options, forget };
        bed.configure();
        bed
    }

    fn configure(&self) {
        let settings = TopicSettings { forget_producers: self.forget, ..TopicSettings::default() };
        self.log.configure(Settings { topics: HashMap::from([(P.topic, settings)]), ..Settings::default() });
    }

    fn open_again(self) -> Self {
        let Self { log, stepper, disk, clock, options, forget } = self;
        drop((log, stepper));
        let bed = Self::open(disk.after_crash(|| true), clock, options, forget);
        bed.log.confirm_clock(); // days have gone by
        bed
    }

    /// Days go by, while the bus runs.
    fn pass(&mut self, days: u64) {
        self.clock.0.fetch_add(days * DAY, Ordering::Relaxed);
        self.log.confirm_clock();
        assert_eq!(self.log.trusted_now_ns(), self.clock.now_ns());
    }

    /// A checkpoint, for which something has to be there.
    fn checkpoint(&mut self) {
        let mut slices = Slices::default();
        slices.push(OTHER, |_| Ok::<_, ()>(())).unwrap();
        self.append(slices).unwrap();
        assert!(self.stepper.checkpoint());
        self.stepper.idle();
    }

    fn append(&mut self, slices: Slices) -> Result<usize, AppendRefusal> {
        let mut ticket = self.log.append(slices).unwrap();
        self.stepper.append();
        self.stepper.sync();
        ticket.try_recv().unwrap().map(|placed| placed.duplicates.len())
    }

    /// Sends some numbers, which are written and wait for their sync.
    fn hand_in(
        &mut self,
        producer: Producer,
        numbers: &[(PartitionId, u64)],
    ) -> Ticket<Result<SlicePlaces, AppendRefusal>> {
        let ticket = self.log.append(numbered(producer, numbers)).unwrap();
        self.stepper.append();
        ticket
    }

    /// Sends some numbers: how many of them were there before, or that the producer is not known.
    fn send(&mut self, producer: Producer, numbers: &[(PartitionId, u64)]) -> Result<usize, ()> {
        self.append(numbered(producer, numbers)).map_err(|refused| {
            let AppendRefusal::Producer(unknown) = refused else { panic!("{refused:?}") };
            assert_eq!(unknown.partition.topic, P.topic);
        })
    }

    fn stored(&self) -> u64 {
        self.log.partition(P).written()
    }
}

#[derive(Clone, Copy)]
struct Producer(ProducerId, Option<u64>);

fn numbered(producer: Producer, numbers: &[(PartitionId, u64)]) -> Slices {
    let mut slices = Slices::default();
    for (partition, number) in numbers {
        slices.push_marked(*partition, Mark::Sequence(*number), |_| Ok::<_, ()>(())).unwrap();
    }
    slices.set_producer(producer.0);
    producer.1.into_iter().for_each(|began_ns| slices.set_began(began_ns));
    slices
}

/// One that says when it began.
fn begun(name: &str, began_ns: u64) -> Producer {
    Producer(ProducerId::begun(name, began_ns), Some(began_ns))
}

#[test]
fn who_is_forgotten_is_refused_and_nothing_of_it_is_stored_again() {
    for producers_max in [0, 1_000] {
        let mut bed = Bed::new(producers_max);
        let (idle, busy) = (begun("idle", START), begun("busy", START));
        assert_eq!(bed.send(idle, &[(P, 1), (P, 2)]), Ok(0));
        assert_eq!(bed.send(busy, &[(P, 1)]), Ok(0));
        bed.checkpoint();
        for number in 2..=4 {
            bed.pass(10);
            assert_eq!(bed.send(idle, &[(P, 1), (P, 2)]), Ok(2), "day {}", number * 10 - 10);
            assert_eq!(bed.send(busy, &[(P, number)]), Ok(0));
            bed.checkpoint();
        }
        bed.pass(1);
        let stored = bed.stored();
        for start in 0..3 {
            for numbers in [&[(P, 1), (P, 2)][..], &[(P, 2)], &[(P, 3)], &[(OTHER, 3)]] {
                assert_eq!(bed.send(idle, numbers), Err(()), "start {start}: {numbers:?}");
            }
            assert_eq!(bed.stored(), stored);
            assert_eq!(bed.send(busy, &[(P, 3), (P, 4)]), Ok(2));
            bed.checkpoint();
            bed = bed.open_again();
        }
        // it begins anew, and is recognised again
        let anew = begun("idle", bed.clock.now_ns());
        assert_eq!(bed.send(anew, &[(P, 1)]), Ok(0));
        assert_eq!(bed.send(anew, &[(P, 1), (P, 2)]), Ok(1));
        let mut bed = bed.open_again();
        assert_eq!(bed.send(anew, &[(P, 1), (P, 2)]), Ok(2));
        assert_eq!(bed.send(idle, &[(P, 1)]), Err(()));
    }
}

#[test]
fn who_does_not_say_when_it_began_is_not_new_where_producers_are_forgotten() {
    let mut bed = Bed::new(0);
    let (old, new) = (Producer(ProducerId::new("old"), None), Producer(ProducerId::new("new"), None));
    bed.forget = None;
    bed.configure();
    assert_eq!(bed.send(old, &[(P, 1)]), Ok(0));
    bed.forget = Some(FORGET);
    bed.configure();
    assert_eq!(bed.send(old, &[(P, 1), (P, 2)]), Ok(1), "it is known");
    assert_eq!(bed.send(new, &[(P, 1)]), Err(()));
    assert_eq!(bed.send(begun("new", START - 31 * DAY), &[(P, 1)]), Err(()), "it may have been forgotten");
    assert_eq!(bed.send(begun("new", START + DAY), &[(P, 1)]), Ok(0), "its clock is ahead");
    bed.checkpoint();
    bed.pass(31);
    assert_eq!(bed.send(old, &[(P, 3)]), Err(()));
    bed.checkpoint();
    assert_eq!(bed.send(begun("new", START + DAY), &[(P, 1)]), Ok(1), "it is remembered since it began");
}

#[test]
fn who_still_sends_is_known_in_all_partitions() {
    let mut bed = Bed::new(0);
    let producer = begun("p", START);
    assert_eq!(bed.send(producer, &[(P, 1)]), Ok(0));
    for number in 2..10 {
        bed.pass(20);
        bed.checkpoint();
        bed = bed.open_again();
        assert_eq!(bed.send(producer, &[(P, number)]), Ok(0));
    }
    assert_eq!(bed.send(producer, &[(OTHER, 9)]), Err(()), "it cannot be told whether that was there");
    assert_eq!(bed.send(producer, &[(OTHER, 10), (P, 11), (OTHER, 12)]), Ok(0));
    assert_eq!(bed.send(producer, &[(OTHER, 10), (P, 11), (OTHER, 12)]), Ok(3));
    assert_eq!(bed.send(producer, &[(P, 1)]), Ok(1));
}

#[test]
fn what_was_forgotten_stays_so_whatever_the_setting_is() {
    let mut bed = Bed::new(0);
    let producer = begun("p", START);
    assert_eq!(bed.send(producer, &[(P, 1)]), Ok(0));
    bed.checkpoint();
    bed.pass(31);
    bed.checkpoint();
    for forget in [None, Some(100 * FORGET)] {
        bed.forget = forget;
        bed = bed.open_again();
        assert_eq!(bed.send(producer, &[(P, 1)]), Err(()), "{forget:?}");
        let now_ns = bed.clock.now_ns();
        assert_eq!(bed.send(begun(&format!("{forget:?}"), now_ns), &[(P, 1)]), Ok(0));
    }
}

#[test]
fn a_checkpoint_that_fails_while_it_forgets_has_nothing_stored_twice() {
    for failing in 0..25 {
        let mut bed = Bed::new(0);
        let producer = begun("p", START);
        assert_eq!(bed.send(producer, &[(P, 1)]), Ok(0));
        bed.checkpoint();
        bed.pass(31);
        let (count, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
        bed.disk.set_fault_on(move |name, operation| {
            let is_it = name == "state" && matches!(operation, Operation::Write(..) | Operation::Sync);
            if is_over.load(Ordering::Relaxed) || !is_it || count.fetch_add(1, Ordering::Relaxed) < failing {
                return Ok(());
            }
            is_over.store(true, Ordering::Relaxed);
            Err(io::ErrorKind::StorageFull.into())
        });
        let mut slices = Slices::default();
        slices.push(OTHER, |_| Ok::<_, ()>(())).unwrap();
        let _ = bed.append(slices);
        bed.stepper.checkpoint();
        bed.disk.clear_fault();
        let mut bed = bed.open_again();
        for forget in [Some(FORGET), None] {
            bed.forget = forget;
            bed.configure();
            let again = bed.send(producer, &[(P, 1)]);
            assert!(again != Ok(0), "fault {failing}, {forget:?}: it is stored twice");
            bed.stepper.checkpoint();
        }
        assert_eq!(bed.stored(), 1, "fault {failing}");
    }
}

/// Its last frame is written, and no checkpoint has it when one looks who is to be forgotten.
#[test]
fn who_sends_again_just_before_a_checkpoint_keeps_what_it_sent_elsewhere() {
    let mut bed = Bed::new(0);
    let producer = begun("seldom", START);
    assert_eq!(bed.send(producer, &[(P, 1)]), Ok(0));
    bed.checkpoint();
    bed.pass(29);
    let mut filler = Slices::default();
    filler.push(OTHER, |_| Ok::<_, ()>(())).unwrap();
    bed.append(filler).unwrap();
    let mut ticket = bed.hand_in(producer, &[(OTHER, 2)]);
    bed.pass(29);
    assert!(bed.stepper.checkpoint(), "of the filler");
    bed.stepper.sync();
    assert!(ticket.try_recv().unwrap().unwrap().duplicates.is_empty());
    bed.checkpoint();
    let mut bed = bed.open_again();
    assert_eq!(bed.send(producer, &[(P, 1)]), Ok(1), "it was seen 29 days ago");
}
