//! What expires, when, and what never does: on a clock that the test moves, step by step.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wattle::effects::{Clock, MemoryDisk};
use wattle::log::{LaneOwnership, Log, LogOptions, Settings, Stepper};
use wattle::model::{Retention, Slices, TopicSettings};

use super::support::{LANE, P, options, slices, stored};

const HOUR: Duration = Duration::from_secs(3_600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3_600);

/// Two hands: the wall clock, and one that never jumps.
#[derive(Default)]
struct Hands {
    wall: AtomicU64,
    elapsed: AtomicU64,
}

impl Hands {
    fn pass(&self, time: Duration) {
        self.wall.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
        self.elapsed.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    fn jump(&self, time: Duration) {
        self.wall.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }
}

impl Clock for Hands {
    fn now_ns(&self) -> u64 {
        self.wall.load(Ordering::Relaxed)
    }

    fn elapsed_ns(&self) -> u64 {
        self.elapsed.load(Ordering::Relaxed)
    }
}

struct Bed {
    log: Log,
    stepper: Stepper,
    hands: Arc<Hands>,
    disk: MemoryDisk,
}

impl Bed {
    fn open(disk: &MemoryDisk, hands: Arc<Hands>) -> Self {
        let options = LogOptions { recent_bytes_max: 0, checkpoint_bytes: 0, ..options() };
        let (log, _, stepper) = Log::open_stepped(Arc::new(disk.clone()), hands.clone(), options).unwrap();
        Self { log, stepper, hands, disk: disk.clone() }
    }

    fn new(retention: Retention, has_reader: bool) -> Self {
        let hands = Arc::new(Hands::default());
        hands.jump(50 * YEAR);
        let bed = Self::open(&MemoryDisk::default(), hands);
        bed.configure(retention, has_reader);
        bed
    }

    fn configure(&self, retention: Retention, has_reader: bool) {
        let topics = HashMap::from([(P.topic, TopicSettings { retention, ..TopicSettings::default() })]);
        let readers = HashMap::from([(P.topic, if has_reader { vec![LANE.subscriber] } else { vec![] })]);
        self.log.configure(Settings { topics, readers, ..Settings::default() });
    }

    fn append(&mut self, count: usize) {
        for _ in 0..count {
            drop(self.log.append(slices(&[(P, b"event")])).unwrap());
            self.work();
        }
    }

    fn work(&mut self) {
        self.stepper.append();
        self.stepper.sync();
        assert!(self.stepper.checkpoint());
    }

    fn start(&self) -> u64 {
        self.log.partition(P).start()
    }

    fn consume(&mut self, to: u64) {
        self.hand_in(to);
        self.work();
    }

    /// Hands in a unit with which a lane goes on at an offset.
    fn hand_in(&mut self, to: u64) {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let lane: LaneOwnership = {
            let mut acquire = std::pin::pin!(self.log.acquire(LANE));
            assert!(acquire.as_mut().poll(&mut cx).is_pending());
            self.stepper.append();
            let std::task::Poll::Ready(lane) = acquire.as_mut().poll(&mut cx) else { panic!("it was the only one") };
            lane.unwrap()
        };
        {
            let mut unit = std::pin::pin!(self.log.unit(&lane, to, Slices::default(), Vec::new()));
            assert!(unit.as_mut().poll(&mut cx).is_ready());
        }
    }

    /// Reopens the log on what is on the disk.
    fn again(self, retention: Retention, has_reader: bool) -> Self {
        let Self { log, stepper, hands, disk } = self;
        stepper.close();
        drop(log);
        let bed = Self::open(&disk, hands);
        bed.configure(retention, has_reader);
        bed
    }
}

fn age(age: Duration) -> Retention {
    Retention { age: Some(age), ..Retention::default() }
}

#[test]
fn events_go_when_they_are_old_enough_and_not_before() {
    let mut bed = Bed::new(age(8 * HOUR), false);
    bed.append(3);
    bed.hands.pass(7 * HOUR);
    bed.work();
    assert_eq!(bed.start(), 0);
    bed.append(2); // the first segment is closed by now
    bed.hands.pass(2 * HOUR);
    bed.work();
    assert_eq!(bed.start(), 3, "the first three are nine hours old");
    assert_eq!(bed.log.partition(P).written(), 5);
    let kept: Vec<_> = bed.log.cold_reader().read(P, 0, 5, 99, usize::MAX).unwrap();
    assert_eq!(kept.first().unwrap().base_offset, 3, "a read from the start begins where there is something");
    bed.hands.pass(100 * HOUR);
    bed.work();
    bed.work();
    assert_eq!(bed.start(), 5, "also the last segment goes");
    let mut bed = bed.again(age(8 * HOUR), false);
    assert_eq!((bed.start(), bed.log.partition(P).written()), (5, 5), "and offsets go on");
    bed.append(1);
    assert_eq!(bed.log.partition(P).written(), 6);
    assert!(!bed.disk.contents().contains_key("segment-00000001-00000000-0000000000000000"));
}

#[test]
fn what_a_subscriber_has_yet_to_process_stays_unless_forced() {
    for force in [false, true] {
        let retention = Retention { force, ..age(HOUR) };
        let mut bed = Bed::new(retention, true);
        bed.append(4);
        bed.hands.pass(2 * HOUR);
        bed.work();
        bed.work();
        assert_eq!(bed.start(), if force { 4 } else { 0 });
        if !force {
            bed.consume(3);
            assert_eq!(bed.start(), 0, "a segment goes as a whole");
            bed.consume(4);
            bed.work();
            assert_eq!(bed.start(), 4);
        }
    }
}

#[test]
fn a_subscriber_that_is_gone_holds_nothing_back() {
    let mut bed = Bed::new(age(HOUR), true);
    bed.append(4);
    bed.hands.pass(2 * HOUR);
    bed.work();
    assert_eq!(bed.start(), 0);
    bed.configure(age(HOUR), false);
    bed.work();
    assert_eq!(bed.start(), 4);
}

#[test]
fn what_is_held_stays_although_it_would_be_forced_to_go() {
    let mut bed = Bed::new(Retention { force: true, ..age(HOUR) }, false);
    bed.append(3);
    let held = bed.log.hold(P);
    assert_eq!(held.from(), 0);
    bed.hands.pass(2 * HOUR);
    bed.work();
    bed.work();
    assert_eq!(bed.start(), 0);
    drop(held);
    bed.work();
    assert_eq!(bed.start(), 3);
}

#[test]
fn what_a_subscriber_goes_back_to_stays_although_that_is_not_durable_yet() {
    let mut bed = Bed::new(age(HOUR), true);
    bed.append(3);
    bed.consume(3);
    let held = bed.log.hold(P);
    bed.hands.pass(2 * HOUR);
    bed.hand_in(0);
    bed.stepper.append();
    drop(held);
    assert!(bed.stepper.checkpoint());
    assert_eq!(bed.start(), 0, "it is there, and no sync has been");
    bed.consume(3);
    bed.work();
    assert_eq!(bed.start(), 3);
}

#[test]
fn a_topic_that_is_not_declared_any_more_keeps_everything() {
    let mut bed = Bed::new(age(HOUR), false);
    bed.append(4);
    bed.log.configure(Settings::default());
    bed.hands.pass(YEAR);
    bed.hands.pass(YEAR);
    bed.work();
    assert_eq!(bed.start(), 0);
}

#[test]
fn a_size_bounds_what_is_kept() {
    let mut bed = Bed::new(Retention { partition_bytes: Some(4_000), ..Retention::default() }, false);
    bed.append(200);
    let bytes: usize =
        bed.disk.contents().iter().filter(|(name, _)| name.starts_with("segment-")).map(|(_, b)| b.len()).sum();
    assert!(bytes <= 4_000 + 600, "{bytes}");
    assert!(bed.start() > 100, "{}", bed.start());
    assert_eq!(bed.log.partition(P).written(), 200);
}

#[test]
fn a_clock_that_jumps_makes_nothing_old() {
    for jump in [HOUR, 10 * YEAR] {
        let mut bed = Bed::new(age(HOUR / 2), false);
        bed.append(3);
        bed.hands.jump(jump);
        bed.append(1);
        bed.work();
        assert_eq!(bed.start(), 0, "{jump:?}");
        assert_eq!(bed.log.frozen().is_some(), jump > 24 * HOUR);
        // what survives a restart, after which the clock is right again
        let before = bed.hands.now_ns();
        bed.hands.wall.store(before - jump.as_nanos() as u64, Ordering::Relaxed);
        let mut bed = bed.again(age(HOUR / 2), false);
        bed.append(1);
        assert_eq!(bed.start(), 0, "{jump:?}");
        let stored = stored(&bed.log, P);
        assert_eq!(stored.len(), 5);
        bed.log.confirm_clock();
        bed.work();
        assert_eq!(bed.start(), 0, "{jump:?}: the jump was a mistake, so nothing has become old by it");
        bed.hands.pass(2 * HOUR);
        bed.work();
        bed.work();
        assert_eq!(
            bed.start(),
            5,
            "{jump:?}: what time has passed in truth counts, also for what was appended ten years ahead"
        );
    }
}

#[test]
fn a_bus_that_was_off_for_long_waits_for_a_word_before_it_removes_anything() {
    let mut bed = Bed::new(age(HOUR), false);
    bed.append(3);
    bed.hands.jump(72 * HOUR); // nobody can say how much of it has passed
    let mut bed = bed.again(age(HOUR), false);
    bed.work();
    assert_eq!(bed.start(), 0);
    assert!(bed.log.frozen().is_some());
    assert!(bed.log.confirm_clock());
    bed.work();
    bed.work();
    assert_eq!(bed.start(), 3);
    assert!(bed.log.frozen().is_none());
}
