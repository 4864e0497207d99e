//! What age events have, whatever the machine's clock does.
//!
//! Append times are engine time: the wall clock, but never less than that of the event before, and in the journal. Expiry
//! must not trust that: a wall clock that jumps ahead would make everything old at once. So it also watches a clock that
//! never jumps, and counts the difference as *skew*, by which events are taken to be younger.
//!
//! ```text
//!   engine time   ──────────┐ jump ┌──────────────>      age = engine time - skew - append time
//!   never jumps   ──────────────────────>
//!                           │<skew>│
//! ```
//!
//! - A jump of up to a day is skew. Skew melts when the wall clock is put back, and while engine time stands still for that.
//! - A jump of more than a day is skew and freezes expiry until somebody confirms the clock. Where it then still says so, the
//!   time has really passed, and there is no skew any more. At a start that is a jump since the last checkpoint: what was
//!   skew after that is forgotten.

use std::sync::Arc;
use std::time::Duration;

use crate::effects::Clock;
use crate::limits;

/// What of it survives a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct ClockState {
    /// Nanoseconds by which engine time may be ahead.
    pub(super) skew_ns: u64,
    /// Engine time at which expiry was frozen, Unix nanoseconds; 0 where it is not.
    pub(super) frozen_since_ns: u64,
}

/// A jump of the clock for which expiry waits to be confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frozen {
    /// Engine time in front of the jump, Unix nanoseconds.
    pub since_ns: u64,
    /// By how much the clock was ahead of where it should have been.
    pub skew: Duration,
}

const JUMP_NS_MAX: u64 = limits::CLOCK_JUMP_MAX.as_nanos() as u64;

pub(super) struct ExpiryClock {
    clock: Arc<dyn Clock>,
    state: ClockState,
    /// Engine time at the last look: what an event that was appended then got, or would have got. It goes back where the
    /// wall clock was put back and nothing was appended in between, or events appended since would seem too old.
    engine_ns: u64,
    elapsed_ns: u64,
}

impl ExpiryClock {
    /// `known_ns` is the engine time of the state, `appended_ns` that of the last event.
    pub(super) fn new(clock: Arc<dyn Clock>, state: ClockState, (known_ns, appended_ns): (u64, u64)) -> Self {
        let (engine_ns, elapsed_ns) = (appended_ns.max(clock.now_ns()), clock.elapsed_ns());
        let mut new = Self { clock, state, engine_ns: known_ns, elapsed_ns };
        let ahead_ns = engine_ns.saturating_sub(known_ns);
        if known_ns > 0 && ahead_ns > JUMP_NS_MAX {
            new.freeze(ahead_ns);
        }
        new.engine_ns = engine_ns;
        new
    }

    fn freeze(&mut self, jump_ns: u64) {
        self.state.skew_ns = self.state.skew_ns.saturating_add(jump_ns);
        if self.state.frozen_since_ns == 0 {
            self.state.frozen_since_ns = self.engine_ns;
            let jump = humantime::format_duration(Duration::from_secs(jump_ns / 1_000_000_000));
            tracing::warn!(
                %jump,
                "the clock is far ahead of the last event: nothing expires until `wattle clock confirm` says that it is right"
            );
        }
    }

    /// Looks at the clocks. The last event was appended at `appended_ns`; `slowest` is of those since the last look the one
    /// whose append time was the furthest behind the clock that never jumps, and that clock then: the wall clock may have
    /// been put back for a moment only.
    pub(super) fn look(&mut self, (slowest, appended_ns): (Option<(u64, u64)>, u64)) {
        if let Some((engine_ns, elapsed_ns)) = slowest {
            self.see(engine_ns, elapsed_ns);
        }
        self.see(appended_ns.max(self.clock.now_ns()), self.clock.elapsed_ns());
    }

    fn see(&mut self, engine_ns: u64, elapsed_ns: u64) {
        let expected_ns = self.engine_ns.saturating_add(elapsed_ns.saturating_sub(self.elapsed_ns));
        match engine_ns.checked_sub(expected_ns) {
            Some(jump) if jump > JUMP_NS_MAX => self.freeze(jump),
            Some(jump) => self.state.skew_ns = self.state.skew_ns.saturating_add(jump),
            None => self.state.skew_ns = self.state.skew_ns.saturating_sub(expected_ns - engine_ns),
        }
        (self.engine_ns, self.elapsed_ns) = (engine_ns, elapsed_ns);
    }

    /// Events that were appended before this are older than `age`; `None` while nothing may expire.
    pub(super) fn horizon_ns(&self, age: Duration) -> Option<u64> {
        let age = u64::try_from(age.as_nanos()).ok()?;
        let now = self.engine_ns.saturating_sub(self.state.skew_ns);
        (self.state.frozen_since_ns == 0).then(|| now.saturating_sub(age))
    }

    /// Somebody says that the wall clock is right. Whether anything had waited for that.
    pub(super) fn confirm(&mut self, times: (Option<(u64, u64)>, u64)) -> bool {
        self.look(times);
        let was_frozen = self.state.frozen_since_ns != 0;
        self.state.frozen_since_ns = 0;
        if was_frozen && self.clock.now_ns().saturating_add(JUMP_NS_MAX) >= self.engine_ns {
            self.state.skew_ns = 0;
        }
        was_frozen
    }

    pub(super) fn state(&self) -> ClockState {
        self.state
    }

    pub(super) fn frozen(&self) -> Option<Frozen> {
        let since_ns = self.state.frozen_since_ns;
        (since_ns != 0).then_some(Frozen { since_ns, skew: Duration::from_nanos(self.state.skew_ns) })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const HOUR: u64 = 3_600_000_000_000;
    const YEAR: u64 = 365 * 24 * HOUR;
    const START: u64 = 50 * YEAR;
    const AGE: Duration = Duration::from_secs(7 * 24 * 3600);

    #[derive(Default)]
    struct Hands {
        wall: AtomicU64,
        elapsed: AtomicU64,
    }

    impl Hands {
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

    impl Clock for Hands {
        fn now_ns(&self) -> u64 {
            self.wall.load(Ordering::Relaxed)
        }

        fn elapsed_ns(&self) -> u64 {
            self.elapsed.load(Ordering::Relaxed)
        }
    }

    /// How old an event of the start is taken to be, in hours.
    fn hours(clock: &ExpiryClock) -> Option<u64> {
        Some((clock.horizon_ns(Duration::ZERO)? - START) / HOUR)
    }

    #[test]
    fn time_that_passes_makes_old() {
        let hands = Hands::at(START);
        let mut clock = ExpiryClock::new(hands.clone(), ClockState::default(), (START, START));
        hands.pass(200 * HOUR);
        clock.look((None, START));
        assert_eq!(hours(&clock), Some(200));
        assert!(clock.horizon_ns(AGE).unwrap() > START);
    }

    #[test]
    fn an_hour_ahead_and_back_makes_nothing_older() {
        let hands = Hands::at(START);
        let mut clock = ExpiryClock::new(hands.clone(), ClockState::default(), (START, START));
        hands.set(START + HOUR);
        clock.look((None, START));
        assert_eq!(hours(&clock), Some(0));
        hands.pass(5 * HOUR);
        clock.look((None, START));
        assert_eq!(hours(&clock), Some(5));
        hands.set(START + 5 * HOUR);
        clock.look((None, START));
        hands.pass(2 * HOUR);
        clock.look((None, START));
        assert_eq!(hours(&clock), Some(7));
    }

    #[test]
    fn a_clock_that_is_put_back_makes_nothing_older_and_nothing_younger_than_it_was() {
        let hands = Hands::at(START);
        let mut clock = ExpiryClock::new(hands.clone(), ClockState::default(), (START, START));
        hands.set(START - 10 * YEAR);
        hands.pass(3 * HOUR);
        clock.look((None, START));
        assert_eq!(hours(&clock), Some(0), "engine time stands still, so events live longer, never shorter");
    }

    #[test]
    fn ten_years_ahead_freezes_until_confirmed_and_back_again_is_no_harm() {
        let hands = Hands::at(START);
        let mut clock = ExpiryClock::new(hands.clone(), ClockState::default(), (START, START));
        hands.set(START + 10 * YEAR);
        clock.look((None, START + 10 * YEAR));
        assert_eq!(hours(&clock), None);
        assert_eq!(clock.frozen().unwrap().skew, Duration::from_nanos(10 * YEAR));
        // what survives a restart, at which the clock is right again
        hands.set(START + HOUR);
        let mut clock = ExpiryClock::new(hands.clone(), clock.state(), (START + 10 * YEAR, START + 10 * YEAR));
        assert_eq!(hours(&clock), None);
        assert!(clock.confirm((None, START + 10 * YEAR)));
        assert_eq!(hours(&clock), Some(0));
        hands.pass(4 * HOUR);
        clock.look((None, START + 10 * YEAR));
        assert_eq!(hours(&clock), Some(4));
        assert!(!clock.confirm((None, START + 10 * YEAR)));
    }

    #[test]
    fn a_bus_that_was_off_for_days_waits_for_a_word() {
        let hands = Hands::at(START + 72 * HOUR);
        let mut clock = ExpiryClock::new(hands.clone(), ClockState::default(), (START, START));
        assert_eq!(hours(&clock), None);
        assert!(clock.confirm((None, START)));
        assert_eq!(hours(&clock), Some(72));
        let clock = ExpiryClock::new(hands, ClockState::default(), (START + 50 * HOUR, START + 50 * HOUR));
        assert_eq!(hours(&clock), Some(72), "less than a day is believed");
    }

    #[test]
    fn what_is_appended_after_the_clock_was_put_back_is_no_older_for_it() {
        let hands = Hands::at(START + 20 * HOUR);
        let mut clock = ExpiryClock::new(hands.clone(), ClockState::default(), (START, START));
        hands.set(START); // and an event is appended
        hands.pass(HOUR);
        clock.look((None, START));
        assert_eq!(hours(&clock), Some(1));
    }

    #[test]
    fn a_clock_that_was_put_back_for_a_moment_makes_nothing_older_either() {
        let hands = Hands::at(START);
        let mut clock = ExpiryClock::new(hands.clone(), ClockState::default(), (0, 0));
        hands.pass(2 * HOUR);
        clock.look((Some((START - 10 * HOUR, HOUR)), START - 10 * HOUR));
        assert_eq!(clock.horizon_ns(Duration::ZERO), Some(START - 9 * HOUR), "the event is of an hour ago");
    }

    #[test]
    fn a_jump_since_the_last_checkpoint_is_noticed_at_a_start() {
        let hands = Hands::at(START + 10 * YEAR);
        let clock = ExpiryClock::new(hands, ClockState::default(), (START, START + 10 * YEAR));
        assert_eq!(hours(&clock), None, "the event says so itself, which proves nothing");
    }

    #[test]
    fn a_new_log_has_no_past_to_jump_from() {
        let clock = ExpiryClock::new(Hands::at(START), ClockState::default(), (0, 0));
        assert!(clock.frozen().is_none());
    }
}
