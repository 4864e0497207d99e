//! What is recognised for as long as its key is known: in the store and the journal, with the states of keys.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use wattle::effects::{ManualClock, MemoryDisk};
use wattle::log::{AppendRefusal, Log, LogOptions, Settings, SlicePlaces, Stepper};
use wattle::model::{
    Diversion, EventId, Guard, GuardReason, KEY_IDENTITIES_MAX, Lifecycle, PartitionId, Slices, TopicId,
};

use super::support::{P, options};

const HOUR: u64 = 3_600_000_000_000;
const HELD: PartitionId = PartitionId { topic: TopicId(9), partition: 0 };
const REMEMBERED_MAX: u64 = 3;

struct Bed {
    log: Log,
    stepper: Stepper,
    disk: MemoryDisk,
    clock: Arc<ManualClock>,
    options: LogOptions,
}

/// `a`, any number of `b`, then `z`; an end is remembered for an hour.
fn lifecycle() -> Lifecycle {
    let next = ["b".into(), "z".into()];
    Lifecycle {
        start: ["a".into()].into(),
        allow: [("a".into(), next.clone().into()), ("b".into(), next.into())].into(),
        keys_max: 1_000,
        remember: Some(Duration::from_nanos(HOUR)),
        remembered_max: REMEMBERED_MAX,
    }
}

/// A key, a state, an identity.
type Event = (&'static str, &'static str, u64);

impl Bed {
    fn new() -> Self {
        Self::open(MemoryDisk::default(), Arc::new(ManualClock((1_000_000 * HOUR).into())), options())
    }

    fn open(disk: MemoryDisk, clock: Arc<ManualClock>, options: LogOptions) -> Self {
        let (log, _, stepper) = Log::open_stepped(Arc::new(disk.clone()), clock.clone(), options.clone()).unwrap();
        let lifecycles = [(P.topic, Arc::new(lifecycle()))].into();
        log.configure(Settings { lifecycles, ..Settings::default() });
        log.confirm_clock();
        Self { log, stepper, disk, clock, options }
    }

    /// Another life: what was not synced may be there.
    fn open_again(self) -> Self {
        let Self { log, stepper, disk, clock, options } = self;
        drop((log, stepper));
        Self::open(disk.after_crash(|| true), clock, options)
    }

    fn pass(&mut self, ns: u64) {
        self.clock.0.fetch_add(ns, Ordering::Relaxed);
        self.log.confirm_clock();
    }

    fn checkpoint(&mut self) {
        assert!(self.stepper.move_out() && self.stepper.checkpoint());
    }

    fn append(&mut self, events: &[Event], aside: Option<Diversion>) -> Result<SlicePlaces, GuardReason> {
        let mut slices = Slices::default();
        for (of, (key, state, id)) in (0..).zip(events) {
            let (slice, _) = slices.push(P, |_| Ok::<_, ()>(())).unwrap();
            let guard = Guard::new(key, (*state).into(), of).or_aside(aside);
            slices.guard_last(slice, guard.recognised_by(EventId::new("/test", &id.to_string())));
        }
        let mut ticket = self.log.append(slices).unwrap();
        self.stepper.append();
        self.stepper.sync();
        ticket.try_recv().unwrap().map_err(|refused| match refused {
            AppendRefusal::Guard(refused) => refused.why,
            other => panic!("{other:?}"),
        })
    }

    /// Of which of some events it is known that they came before, and where those are.
    fn known(&mut self, events: &[Event]) -> Vec<(u32, Option<u64>)> {
        let placed = self.append(events, None).unwrap();
        placed.duplicates.iter().map(|known| (known.record, known.offset)).collect()
    }

    fn stored(&self) -> u64 {
        self.log.partition(P).written()
    }
}

#[test]
fn what_a_key_had_is_found_for_as_long_as_it_is_known_and_not_longer() {
    let mut bed = Bed::new();
    assert_eq!(bed.known(&[("k", "a", 1), ("k", "b", 2), ("l", "a", 1)]), []);
    for checkpoint in [false, true, false] {
        bed.pass(100_000 * HOUR); // however long it lives
        if checkpoint {
            bed.checkpoint();
        }
        bed = bed.open_again();
        assert_eq!(
            bed.known(&[("k", "a", 1), ("k", "z", 2), ("l", "a", 1)]),
            [(0, Some(0)), (1, Some(1)), (2, Some(2))]
        );
    }
    assert_eq!(bed.known(&[("k", "z", 3)]), []);
    bed.pass(HOUR - 1);
    for checkpoint in [true, false] {
        bed.checkpoint();
        assert_eq!(bed.known(&[("k", "b", 2), ("k", "z", 3)]), [(0, Some(1)), (1, Some(3))], "{checkpoint}");
        assert!(matches!(bed.append(&[("k", "a", 4)], None), Err(GuardReason::Order { .. })));
        bed = bed.open_again();
    }
    bed.pass(1);
    assert_eq!(bed.stored(), 4);
    assert_eq!(bed.known(&[("k", "a", 1), ("k", "b", 2)]), [], "it is another life of the key");
    assert_eq!(bed.known(&[("k", "a", 1), ("k", "b", 2), ("l", "b", 1)]), [(0, Some(4)), (1, Some(5)), (2, Some(2))]);
}

#[test]
fn what_a_key_had_is_forgotten_with_it_where_too_many_have_ended() {
    let mut bed = Bed::new();
    for key in ["k", "l", "m", "n"] {
        assert_eq!(bed.known(&[(key, "a", 1), (key, "z", 2)]), []);
    }
    bed.checkpoint();
    assert_eq!(bed.known(&[("l", "a", 1), ("n", "z", 2)]), [(0, Some(2)), (1, Some(7))]);
    assert_eq!(bed.known(&[("k", "a", 1)]), [], "one more than is remembered has ended since");
}

#[test]
fn what_a_call_repeats_and_what_it_is_refused_with() {
    let mut bed = Bed::new();
    let events = [("k", "a", 1), ("l", "a", 1), ("k", "a", 1), ("k", "b", 2), ("l", "b", 1), ("k", "b", 2)];
    assert_eq!(bed.known(&events), [(2, Some(0)), (4, Some(1)), (5, Some(2))]);
    assert!(bed.append(&[("m", "a", 1), ("k", "b", 3), ("k", "a", 4)], None).is_err());
    assert_eq!(bed.stored(), 3);
    assert_eq!(bed.known(&[("m", "a", 1), ("k", "b", 3)]), [], "nothing of what was refused is known");
    assert_eq!(bed.known(&[("m", "a", 1), ("m", "z", 1), ("k", "b", 3)]), [(0, Some(3)), (1, Some(3)), (2, Some(4))]);
}

#[test]
fn what_is_held_is_recognised_until_its_key_is_forgotten() {
    let mut bed = Bed::new();
    let aside = Some(Diversion { to: HELD, held_max: Some(100) });
    // the places that it is said to repeat are those that records get
    let events = [("k", "b", 1), ("l", "a", 1), ("l", "b", 2), ("l", "b", 2), ("k", "b", 1)];
    let placed = bed.append(&events, aside).unwrap();
    assert_eq!(placed.aside.len(), 1);
    let known: Vec<_> = placed.duplicates.iter().map(|known| (known.record, known.offset)).collect();
    assert_eq!(known, [(3, Some(1)), (4, None)]);
    for _ in 0..2 {
        bed.checkpoint();
        bed = bed.open_again();
        let again = bed.append(&[("k", "b", 1), ("l", "b", 2)], aside).unwrap();
        assert_eq!((again.aside.len(), again.duplicates.len()), (0, 2));
    }
    let more = bed.append(&[("k", "b", 2), ("k", "a", 3), ("k", "b", 2), ("k", "a", 3)], aside).unwrap();
    let known: Vec<_> = more.duplicates.iter().map(|known| (known.record, known.offset)).collect();
    assert_eq!((more.aside.len(), known), (1, vec![(2, None), (3, Some(2))]), "it has begun with what was held");
    assert_eq!(bed.known(&[("k", "b", 1), ("k", "b", 2), ("k", "z", 4)]), [(0, None), (1, None)]);
    assert_eq!(bed.known(&[("k", "b", 1), ("k", "z", 4)]), [(0, None), (1, Some(3))]);
    // one that never begins goes as those do that have ended
    bed.append(&[("m", "b", 1)], aside).unwrap();
    assert_eq!(bed.append(&[("m", "b", 1)], aside).unwrap().duplicates.len(), 1);
    bed.pass(HOUR);
    assert_eq!(bed.append(&[("m", "b", 1)], aside).unwrap().aside.len(), 1);
}

#[test]
fn so_many_events_of_a_key_are_recognised_and_past_that_they_are_refused() {
    let mut bed = Bed::new();
    let most = KEY_IDENTITIES_MAX as u64;
    assert_eq!(bed.known(&[("k", "a", 0)]), []);
    for id in 1..most {
        assert_eq!(bed.known(&[("k", "b", id)]), []);
    }
    bed.checkpoint();
    let mut bed = bed.open_again();
    let refused = bed.append(&[("l", "a", 1), ("k", "z", most)], None).unwrap_err();
    assert_eq!(refused, GuardReason::Recognised { max: KEY_IDENTITIES_MAX });
    assert!(refused.to_string().contains("`dedupe: { per: key }`"), "{refused}");
    let aside = Some(Diversion { to: HELD, held_max: Some(100) });
    assert!(matches!(bed.append(&[("k", "a", most)], aside), Err(GuardReason::Recognised { .. })), "nor is it held");
    assert_eq!(bed.known(&[("l", "a", 1), ("k", "b", most - 1)]), [(1, Some(most - 1))]);
    // without an identity it ends, and what is known of it stays
    let mut slices = Slices::default();
    let (slice, _) = slices.push(P, |_| Ok::<_, ()>(())).unwrap();
    slices.guard_last(slice, Guard::new("k", "z".into(), 0));
    let mut ticket = bed.log.append(slices).unwrap();
    bed.stepper.append();
    bed.stepper.sync();
    ticket.try_recv().unwrap().unwrap();
    assert_eq!(bed.known(&[("k", "b", 7)]), [(0, Some(7))]);
}
