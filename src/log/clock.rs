//! Trusted time: the clock for ages, windows and timers, independent of changes to the machine's clock.
//!
//! Append times follow the wall clock, which can be set and can be wrong. Expiry and timers must not follow it: a wall
//! clock that jumps ahead would make everything old at once. So the log has a time of its own, which advances with the
//! time that really passes and approaches the wall clock only slowly.
//!
//! ```text
//!   wall clock    ──────────┐ jump ┌────────┐ back ┌────>
//!   trusted time  ──────────────────────────────────────>   the time that really passes, plus or minus 1% at most
//! ```
//!
//! - While the bus runs, trusted time follows a monotonic clock that also counts while the machine is suspended. It
//!   never goes back.
//! - A wall clock that differs by at most [`limits::CLOCK_JUMP_MAX`] is assumed right in the long run: trusted time
//!   runs 1% faster or slower until the two meet. So a duration is right to 1%, and a correction of a few minutes takes
//!   effect within hours.
//! - A wall clock that is further ahead is believed only when an operator confirms it with [`TrustedClock::confirm`].
//!   Until then nothing expires by age; everything else continues with the time that really passes.
//! - How long a bus was stopped cannot be measured. Up to a day, the wall clock is believed; more counts as a clock
//!   that is far ahead.
//! - The appender chooses one trusted time per group and records it in the frames. So a start continues from the last
//!   frame or checkpoint, and an event that is read again has the same time as at first.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::effects::Clock;
use crate::limits;
use crate::model::units::show_duration;

/// The part that survives a restart: both clocks at one moment. All zero if nothing is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ClockState {
    /// Unix nanoseconds.
    pub(super) trusted_ns: u64,
    /// Unix nanoseconds.
    pub(super) wall_ns: u64,
}

impl ClockState {
    /// The later of two states.
    pub(super) fn later(self, other: Self) -> Self {
        if other.trusted_ns >= self.trusted_ns { other } else { self }
    }

    /// How far the wall clock is ahead.
    fn ahead_ns(self) -> u64 {
        self.wall_ns.saturating_sub(self.trusted_ns)
    }

    fn is_frozen(self) -> bool {
        self.ahead_ns() > JUMP_NS_MAX
    }

    /// Events with a trusted time before the result are older than `age`; `None` while nothing may expire by age.
    pub(super) fn horizon_ns(self, age: Duration) -> Option<u64> {
        let age_ns = u64::try_from(age.as_nanos()).ok()?;
        (!self.is_frozen()).then(|| self.trusted_ns.saturating_sub(age_ns))
    }
}

/// The wall clock is so far ahead that nothing expires by age until the clock is confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockJump {
    /// How far it is ahead.
    pub skew: Duration,
}

const JUMP_NS_MAX: u64 = limits::CLOCK_JUMP_MAX.as_nanos() as u64;
/// A confirmation had an effect if the clock was ahead by at least this.
const NOTICED_NS: u64 = 1_000_000_000;

pub(super) struct TrustedClock {
    clock: Arc<dyn Clock>,
    state: Mutex<Readings>,
}

struct Readings {
    now: ClockState,
    /// By the monotonic clock.
    elapsed_ns: u64,
    /// The warning that the wall clock is far ahead was logged.
    is_told: bool,
}

impl TrustedClock {
    /// Continues from the last state that is known.
    pub(super) fn open(clock: Arc<dyn Clock>, known: ClockState) -> Self {
        let (wall_ns, elapsed_ns) = (clock.now_ns(), clock.elapsed_ns());
        let off_ns = match wall_ns.checked_sub(known.wall_ns) {
            _ if known == ClockState::default() => wall_ns, // nothing is older than now
            Some(off_ns) => off_ns,
            // the clock was ahead and was set back: the time since then is believed under the same limit
            None => wall_ns.saturating_sub(known.trusted_ns),
        };
        let is_believed = known == ClockState::default() || off_ns <= JUMP_NS_MAX;
        let trusted_ns = known.trusted_ns + if is_believed { off_ns } else { 0 };
        let now = ClockState { trusted_ns, wall_ns };
        if !is_believed {
            tracing::warn!(
                off = %days_and_hours(off_ns),
                "the bus was off for more than a day, or the clock was set in the meantime: that time counts only \
                 after `wattle clock confirm`. Until then no event expires by age, and state, `dedupe` windows and \
                 delayed events are as old as before; `wattle run --confirm-clock` confirms at each start"
            );
        }
        let state = Readings { now, elapsed_ns, is_told: !is_believed };
        Self { clock, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, Readings> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Both clocks, now.
    pub(super) fn now(&self) -> ClockState {
        let mut state = self.state(); // locked first, so that readings of the clocks are applied in order
        state.look(self.clock.now_ns(), self.clock.elapsed_ns());
        state.now
    }

    /// `Some` while nothing expires by age.
    pub(super) fn frozen(&self) -> Option<ClockJump> {
        let now = self.now();
        now.is_frozen().then(|| ClockJump { skew: Duration::from_nanos(now.ahead_ns()) })
    }

    /// Confirms that the wall clock is right: if it is ahead, that much time has passed. Returns whether that made a
    /// difference.
    pub(super) fn confirm(&self) -> bool {
        let mut state = self.state();
        state.look(self.clock.now_ns(), self.clock.elapsed_ns());
        let ahead_ns = state.now.ahead_ns();
        state.now.trusted_ns = state.now.trusted_ns.max(state.now.wall_ns);
        state.is_told = false;
        ahead_ns >= NOTICED_NS
    }
}

impl Readings {
    fn look(&mut self, wall_ns: u64, elapsed_ns: u64) {
        let passed_ns = elapsed_ns.saturating_sub(self.elapsed_ns);
        let plain_ns = self.now.trusted_ns.saturating_add(passed_ns);
        let part_ns = passed_ns / limits::CLOCK_MELTS_PART;
        let trusted_ns = match (wall_ns.saturating_sub(plain_ns), plain_ns.saturating_sub(wall_ns)) {
            (ahead_ns, 0) if ahead_ns <= JUMP_NS_MAX => plain_ns.saturating_add(ahead_ns.min(part_ns)),
            (0, behind_ns) if behind_ns <= JUMP_NS_MAX => plain_ns - behind_ns.min(part_ns),
            _ => plain_ns,
        };
        self.now = ClockState { trusted_ns, wall_ns };
        self.elapsed_ns = elapsed_ns;
        if self.now.is_frozen() && !self.is_told {
            tracing::warn!(
                ahead = %days_and_hours(self.now.ahead_ns()),
                "the clock has jumped ahead by more than a day: that counts only after `wattle clock confirm`. Until \
                 then no event expires by age, and everything else continues with the time that really passes"
            );
        }
        self.is_told = self.now.is_frozen();
    }
}

fn days_and_hours(ns: u64) -> String {
    show_duration(Duration::from_secs(ns / 3_600_000_000_000 * 3_600))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use proptest::prelude::*;

    use super::*;

    const MINUTE: u64 = 60_000_000_000;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    const YEAR: u64 = 365 * DAY;
    const START: u64 = 50 * YEAR;
    const AGE: Duration = Duration::from_secs(3_600);

    #[derive(Default)]
    struct TestClock {
        wall: AtomicU64,
        elapsed: AtomicU64,
    }

    impl TestClock {
        fn at(wall: u64) -> Arc<Self> {
            Arc::new(Self { wall: wall.into(), elapsed: 0.into() })
        }

        fn pass(&self, ns: u64) {
            self.wall.fetch_add(ns, Ordering::Relaxed);
            self.elapsed.fetch_add(ns, Ordering::Relaxed);
        }

        fn set(&self, wall: u64) {
            self.wall.store(wall, Ordering::Relaxed);
        }
    }

    impl Clock for TestClock {
        fn now_ns(&self) -> u64 {
            self.wall.load(Ordering::Relaxed)
        }

        fn elapsed_ns(&self) -> u64 {
            self.elapsed.load(Ordering::Relaxed)
        }
    }

    fn open(hands: &Arc<TestClock>, trusted_ns: u64, wall_ns: u64) -> TrustedClock {
        TrustedClock::open(hands.clone(), ClockState { trusted_ns, wall_ns })
    }

    /// Trusted time since the start, in minutes.
    fn minutes(clock: &TrustedClock) -> u64 {
        (clock.now().trusted_ns - START) / MINUTE
    }

    #[test]
    fn it_goes_with_a_clock_that_is_right() {
        let hands = TestClock::at(START);
        let clock = TrustedClock::open(hands.clone(), ClockState::default());
        assert_eq!(clock.now().trusted_ns, START, "a new log has no past to jump from");
        hands.pass(200 * DAY);
        assert_eq!(clock.now(), ClockState { trusted_ns: START + 200 * DAY, wall_ns: START + 200 * DAY });
        assert_eq!(clock.now().horizon_ns(AGE), Some(START + 200 * DAY - HOUR));
        assert!(!clock.confirm() && clock.frozen().is_none());
    }

    #[test]
    fn an_hour_ahead_and_back_is_as_if_it_had_never_been() {
        let hands = TestClock::at(START);
        let clock = open(&hands, START, START);
        hands.set(START + HOUR);
        assert_eq!(minutes(&clock), 0);
        hands.pass(100 * MINUTE);
        assert_eq!(minutes(&clock), 101, "a hundredth more");
        hands.set(START + 100 * MINUTE);
        assert_eq!(minutes(&clock), 101, "and it never goes back");
        hands.pass(100 * MINUTE);
        assert_eq!(minutes(&clock), 200);
    }

    #[test]
    fn a_correction_is_taken_over_slowly() {
        let hands = TestClock::at(START);
        let clock = open(&hands, START, START);
        hands.set(START + 3 * MINUTE);
        for _ in 0..400 {
            hands.pass(MINUTE);
            clock.now();
        }
        assert_eq!(clock.now().trusted_ns, START + 403 * MINUTE, "three minutes are a hundredth of five hours");
        hands.set(START + 400 * MINUTE);
        hands.pass(400 * MINUTE);
        assert_eq!(clock.now().trusted_ns, START + 800 * MINUTE, "and so is one back");
    }

    #[test]
    fn years_ahead_freeze_retention_and_nothing_else_until_they_are_confirmed_or_gone() {
        let hands = TestClock::at(START);
        let clock = open(&hands, START, START);
        hands.set(START + 10 * YEAR);
        hands.pass(7 * MINUTE);
        assert_eq!(minutes(&clock), 7, "what really passes counts, and no more");
        assert_eq!(clock.now().horizon_ns(AGE), None);
        assert_eq!(clock.frozen().unwrap().skew, Duration::from_nanos(10 * YEAR));
        hands.set(START + 7 * MINUTE);
        assert_eq!(clock.frozen(), None, "nothing is left that anybody could confirm");
        hands.set(START + 3 * DAY);
        assert!(clock.frozen().is_some());
        assert!(clock.confirm());
        assert_eq!((clock.now().trusted_ns, clock.frozen()), (START + 3 * DAY, None));
        assert!(!clock.confirm());
    }

    #[test]
    fn a_small_jump_can_be_confirmed_as_well() {
        let hands = TestClock::at(START);
        let clock = open(&hands, START, START);
        hands.set(START + 3 * HOUR);
        assert!(clock.confirm());
        assert_eq!(minutes(&clock), 180);
    }

    #[test]
    fn a_clock_that_is_years_behind_changes_nothing() {
        let hands = TestClock::at(START);
        let clock = open(&hands, START, START);
        hands.set(START - 10 * YEAR);
        hands.pass(100 * HOUR);
        assert_eq!(minutes(&clock), 100 * 60);
        assert!(!clock.confirm());
        assert_eq!(minutes(&clock), 100 * 60);
    }

    #[test]
    fn a_bus_that_was_off_for_days_waits_for_a_word() {
        let hands = TestClock::at(START + 72 * HOUR);
        let clock = open(&hands, START, START);
        assert!(clock.frozen().is_some());
        hands.pass(5 * MINUTE);
        assert_eq!(minutes(&clock), 5);
        assert!(clock.confirm());
        assert_eq!(minutes(&clock), 72 * 60 + 5);
        let clock = open(&TestClock::at(START + 20 * HOUR), START, START);
        assert_eq!((minutes(&clock), clock.frozen()), (20 * 60, None), "less than a day is believed");
    }

    #[test]
    fn what_was_skew_is_skew_after_a_start() {
        // ten years ahead when the bus stopped, and still so a minute later
        let clock = open(&TestClock::at(START + 10 * YEAR + MINUTE), START, START + 10 * YEAR);
        assert_eq!(minutes(&clock), 1);
        assert!(clock.frozen().is_some());
        // corrected in the meantime: as far as can be known, an hour has passed
        let clock = open(&TestClock::at(START + HOUR), START, START + 10 * YEAR);
        assert_eq!((minutes(&clock), clock.frozen()), (60, None));
        let clock = open(&TestClock::at(START - HOUR), START, START + 10 * YEAR);
        assert_eq!((minutes(&clock), clock.frozen()), (0, None));
        let clock = open(&TestClock::at(START + 3 * DAY), START, START + 10 * YEAR);
        assert!(clock.frozen().is_some() && minutes(&clock) == 0);
    }

    proptest! {
        /// Whatever the wall clock does, a duration by trusted time is right to one per cent.
        #[test]
        fn no_jumps_make_a_duration_wrong(
            jumps in proptest::collection::vec((0..3 * DAY, 0..2 * YEAR), 1..40),
        ) {
            let hands = TestClock::at(START);
            let clock = open(&hands, START, START);
            let (mut elapsed, mut before) = (0, START);
            for (pass, wall) in jumps {
                hands.set(START - YEAR + wall);
                hands.pass(pass);
                elapsed += pass;
                let now = clock.now().trusted_ns;
                prop_assert!(now >= before);
                prop_assert!((now - START).abs_diff(elapsed) <= elapsed / 100, "{} of {elapsed}", now - START);
                before = now;
            }
        }
    }
}
