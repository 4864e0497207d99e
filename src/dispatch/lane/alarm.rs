//! A timer that is accurate to about 0.1 ms.
//!
//! The runtime's timer has a resolution of a millisecond and rounds up: 10 us become 1,150. So it is used until shortly
//! before the time, and a thread of the runtime's pool sleeps for the rest, which is accurate to about 0.1 ms.
//!
//! Promises: at most one thread sleeps for an alarm, for at most twice [`TIMER_LATE`], unless an earlier time is
//! requested meanwhile; and at most [`SLEEPERS_MAX`] threads for all alarms, beyond which the runtime's timer is used.

use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// Maximum lateness of the runtime's timer.
const TIMER_LATE: Duration = Duration::from_millis(2);
/// The awaited clock may be slower by one part in this number.
const SLOWER_PART: u32 = crate::limits::CLOCK_MELTS_PART as u32;

/// Maximum number of sleeping threads: the pool has a few hundred, which others use as well.
const SLEEPERS_MAX: usize = 16;

static SLEEPERS: Semaphore = Semaphore::const_new(SLEEPERS_MAX);

/// A task that is due at a time, which may change before. Times are ascending numbers.
#[derive(Default)]
pub(super) struct Alarm {
    /// The sleeping thread, and its time.
    sleeper: Option<(u64, JoinHandle<()>)>,
    /// The last time until which a thread slept.
    rang: Option<u64>,
}

impl Alarm {
    /// Waits for `pause`, after which it should be `at`; if the clock says otherwise, call it again. May be cancelled,
    /// and called with another time.
    pub(super) async fn wait(&mut self, at: u64, pause: Duration) {
        if pause > 2 * TIMER_LATE {
            return tokio::time::sleep(pause - TIMER_LATE).await;
        }
        if self.rang == Some(at) {
            // The clock does not advance with the time that passes here: it is stopped, or a test's.
            return tokio::time::sleep(pause).await;
        }
        if self.sleeper.as_ref().is_none_or(|(until, _)| *until > at) {
            let Ok(permit) = SLEEPERS.try_acquire() else { return tokio::time::sleep(pause).await };
            let pause = pause + pause / SLOWER_PART;
            let sleep = move || {
                let _permit = permit;
                std::thread::sleep(pause);
            };
            self.sleeper = Some((at, tokio::task::spawn_blocking(sleep)));
        }
        if let Some((until, sleeper)) = &mut self.sleeper {
            // An error means that the runtime shuts down, and so does the timer.
            let _ = sleeper.await;
            self.rang = Some(*until);
        }
        self.sleeper = None;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    fn sleeper(alarm: &Alarm) -> Option<tokio::task::Id> {
        alarm.sleeper.as_ref().map(|(_, sleeper)| sleeper.id())
    }

    /// Starts to wait, and cancels it.
    async fn begin(alarm: &mut Alarm, at: u64, pause: Duration) {
        tokio::select! {
            biased;
            () = alarm.wait(at, pause) => {}
            () = std::future::ready(()) => {}
        }
    }

    #[tokio::test]
    async fn it_is_never_early() {
        let mut alarm = Alarm::default();
        for (at, micros) in [(1, 0), (2, 10), (3, 900), (4, 3_900)] {
            let (began, pause) = (Instant::now(), Duration::from_micros(micros));
            alarm.wait(at, pause).await;
            assert!(began.elapsed() >= pause);
            assert!(sleeper(&alarm).is_none() && alarm.rang == Some(at));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_thread_sleeps_for_the_end_only() {
        let (mut alarm, began) = (Alarm::default(), tokio::time::Instant::now());
        alarm.wait(9, Duration::from_secs(3600)).await;
        let left = Duration::from_secs(3600).saturating_sub(began.elapsed());
        assert!(left <= TIMER_LATE, "{left:?} are left");
        assert!(sleeper(&alarm).is_none() && alarm.rang.is_none());
    }

    #[tokio::test]
    async fn one_thread_sleeps_however_often_it_is_asked() {
        let mut alarm = Alarm::default();
        begin(&mut alarm, 5, 4 * MILLISECOND).await;
        let first = sleeper(&alarm);
        assert!(first.is_some());
        for at in [5, 6, 7] {
            begin(&mut alarm, at, 4 * MILLISECOND).await;
            assert_eq!(sleeper(&alarm), first, "it wakes before {at}, which is looked at again then");
        }
        begin(&mut alarm, 4, MILLISECOND).await;
        assert_ne!(sleeper(&alarm), first, "it would wake too late");
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_stands_still_costs_no_thread_after_thread() {
        let (mut alarm, began) = (Alarm::default(), tokio::time::Instant::now());
        alarm.wait(5, MILLISECOND).await;
        assert_eq!(alarm.rang, Some(5));
        assert_eq!(began.elapsed(), Duration::ZERO, "a thread slept, and the clock of the test stood still");
        alarm.wait(5, MILLISECOND).await;
        assert!(began.elapsed() >= MILLISECOND, "by the timer");
    }
}
