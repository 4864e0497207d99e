//! Throttling of a subscriber: a rate and a number of concurrent calls for all its lanes together, and the retry pauses
//! of each lane.
//!
//! ```text
//!   lane ─┐                             ┌─ queue for the bucket, in order of arrival
//!   lane ─┼─> Flow::admit(events) ──────┤
//!   lane ─┘     first a permit to call, └─ wait until the bucket has enough tokens, then take them
//!               which the call returns
//! ```
//!
//! Promises: after `t` seconds a rate of `r` has admitted at most `r * t` events and one burst, and at least that minus
//! one burst if lanes always have more. A cancelled wait has taken nothing. Pauses are a function of the lane, the
//! event and the attempt, so that a replay waits like the first run. Must not know: what an event is, where it comes
//! from, who calls.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use xxhash_rust::xxh3;

use crate::limits;
use crate::topology::{Rate, Retry};

/// Size of a burst, in time: large enough that the inaccuracy of sleeping (a millisecond or two) and short calls cost
/// no throughput, and small enough that the protected service does not notice.
const BURST: Duration = Duration::from_millis(50);

/// What all lanes of one subscriber share.
#[derive(Debug)]
pub(crate) struct Flow {
    rate: Option<RateLimit>,
    concurrency: Option<Concurrency>,
}

impl Flow {
    /// From the settings of a subscriber.
    pub(crate) fn new(rate: Option<Rate>, concurrency: Option<NonZeroU32>) -> Self {
        Flow { rate: rate.map(RateLimit::new), concurrency: concurrency.map(Concurrency::new) }
    }

    /// Maximum number of events in a call: `max`, and no more than a burst.
    pub(crate) fn most(&self, max: u32) -> u32 {
        self.rate.as_ref().map_or(max, |rate| rate.most().min(max))
    }

    /// Waits until a call with this number of events may be made. The permit is held during the call. A cancelled wait
    /// has taken nothing.
    pub(crate) async fn admit(&self, events: u32) -> Option<Permit> {
        // The permit comes first, so that admitted events are called at once, and do not queue for a slow call.
        let permit = match &self.concurrency {
            Some(concurrency) => Some(concurrency.permit().await),
            None => None,
        };
        if let Some(rate) = &self.rate {
            rate.take(events).await;
        }
        permit
    }
}

/// A token bucket: fills at a rate, holds one burst, and is full at first.
#[derive(Debug)]
pub(crate) struct RateLimit {
    rate: Rate,
    /// The lock queues callers in order of arrival.
    bucket: Mutex<Bucket>,
}

/// The used part of the rate, as a point in time: when the admitted events would be over at exactly the rate.
#[derive(Debug)]
struct Bucket {
    taken_to: Instant,
    /// Remainder of whole nanoseconds, in units of one per event of the rate, so that rounding loses nothing.
    rest: u64,
}

impl RateLimit {
    /// A full bucket.
    pub(crate) fn new(rate: Rate) -> Self {
        RateLimit { rate, bucket: Mutex::new(Bucket { taken_to: Instant::now(), rest: 0 }) }
    }

    /// Events that can be taken at once, at least one and at most a batch: larger batches would make a slow rate
    /// uneven.
    pub(crate) fn most(&self) -> u32 {
        let events = u128::from(self.rate.events.get()) * BURST.as_nanos() / self.rate.per.duration().as_nanos();
        u32::try_from(events).unwrap_or(u32::MAX).clamp(1, limits::BATCH_EVENTS_MAX)
    }

    /// Waits in order of arrival, then until the bucket has this number of tokens, and takes them. More than the bucket
    /// holds are admitted late rather than early. A cancelled wait has taken nothing.
    pub(crate) async fn take(&self, events: u32) {
        let mut bucket = self.bucket.lock().await;
        let now = Instant::now();
        let (spent, rest) = self.spent(events, bucket.rest);
        // Tokens beyond the capacity are lost.
        let taken_to = bucket.taken_to.max(now) + spent;
        let full = self.brim();
        tokio::time::sleep_until(taken_to.checked_sub(full).unwrap_or(now)).await;
        *bucket = Bucket { taken_to, rest };
    }

    /// The time that this number of events takes at the rate, and the remainder of a nanosecond.
    fn spent(&self, events: u32, rest: u64) -> (Duration, u64) {
        let rate = u128::from(self.rate.events.get());
        let parts = u128::from(events) * self.rate.per.duration().as_nanos() + u128::from(rest);
        let nanos = u64::try_from(parts / rate).unwrap_or(u64::MAX);
        (Duration::from_nanos(nanos), u64::try_from(parts % rate).unwrap_or_default())
    }

    /// The time in which an empty bucket fills: [`BURST`], but at least one event.
    fn brim(&self) -> Duration {
        let (one, rest) = self.spent(1, 0);
        BURST.max(one + Duration::from_nanos(u64::from(rest > 0)))
    }
}

/// Limits the number of concurrent calls.
#[derive(Debug)]
pub(crate) struct Concurrency(Arc<Semaphore>);

/// Permission for one call; released on drop.
#[derive(Debug)]
#[must_use = "it is given back at once"]
pub(crate) struct Permit {
    _given_back: OwnedSemaphorePermit,
}

impl Concurrency {
    /// With all permits available.
    pub(crate) fn new(calls: NonZeroU32) -> Self {
        let permits = usize::try_from(calls.get()).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Concurrency(Arc::new(Semaphore::new(permits)))
    }

    /// Waits for a permit, in order of arrival.
    pub(super) async fn permit(&self) -> Permit {
        match self.0.clone().acquire_owned().await {
            Ok(permit) => Permit { _given_back: permit },
            // The semaphore is never closed; if it were, that would be no permission to call.
            Err(_) => std::future::pending().await,
        }
    }
}

/// The retry pauses of a lane: those of [`Retry`], shortened by up to a half, so that events that failed together are
/// not retried together.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    pub(crate) retry: Retry,
    lane: u64,
}

impl Backoff {
    /// For a lane of the subscriber with this full name.
    pub(crate) fn new(retry: Retry, subscriber: &str, partition: u32) -> Self {
        let lane = xxh3::xxh3_64_with_seed(&partition.to_le_bytes(), xxh3::xxh3_64(subscriber.as_bytes()));
        Backoff { retry, lane }
    }

    /// The pause after the `attempts`-th failed attempt at the event at `offset`: deterministic, between half of
    /// [`Backoff::longest`] and all of it.
    pub(crate) fn pause(&self, offset: u64, attempts: u32) -> Duration {
        let mut event = [0; 12];
        event[..8].copy_from_slice(&offset.to_le_bytes());
        event[8..].copy_from_slice(&attempts.to_le_bytes());
        // The upper 53 bits as a number between 0 and 1, exact in a double.
        let part = (xxh3::xxh3_64_with_seed(&event, self.lane) >> 11) as f64 / (1_u64 << 53) as f64;
        self.longest(attempts).mul_f64(0.5 + 0.5 * part)
    }

    /// The pause that a handler asks for, clamped to the limits.
    pub(super) fn asked(&self, pause: Duration) -> Duration {
        pause.clamp(limits::RETRY_PAUSE_MIN, self.longest_asked())
    }

    /// Upper limit of all pauses.
    pub(super) fn longest_asked(&self) -> Duration {
        limits::RETRY_PAUSE_MAX.max(self.retry.max)
    }

    /// The unshortened pause after the `attempts`-th failed attempt.
    fn longest(&self, attempts: u32) -> Duration {
        let Retry { initial, max, factor, .. } = self.retry;
        // Never infinite, so that an initial pause of zero stays zero.
        let grown = factor.powi(i32::try_from(attempts.saturating_sub(1)).unwrap_or(i32::MAX)).min(f64::MAX);
        let seconds = (initial.as_secs_f64() * grown).min(max.as_secs_f64());
        Duration::try_from_secs_f64(seconds).unwrap_or(max)
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::topology::Per;

    fn rate(events: u32, per: Per) -> Rate {
        Rate { events: NonZeroU32::new(events).unwrap(), per }
    }

    /// Runs with a clock that advances only when nothing can run.
    fn timed<F: Future>(future: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(future)
    }

    /// The times in seconds at which batches of `lanes` lanes are admitted within `seconds`, with lane and number of
    /// events; a call takes `call`.
    async fn run(limit: RateLimit, lanes: usize, seconds: f64, batch: u32, call: Duration) -> Vec<(f64, usize, u32)> {
        let (limit, begin) = (Arc::new(limit), Instant::now());
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        for lane in 0..lanes {
            let (limit, sender) = (limit.clone(), sender.clone());
            tokio::spawn(async move {
                loop {
                    limit.take(batch).await;
                    let _ = sender.send((begin.elapsed().as_secs_f64(), lane, batch));
                    tokio::time::sleep(call).await;
                }
            });
        }
        tokio::time::sleep_until(begin + Duration::from_secs_f64(seconds)).await;
        let mut through = Vec::new();
        while let Ok(batch) = receiver.try_recv() {
            through.push(batch);
        }
        through
    }

    /// Maximum number of events in any second.
    fn in_a_second(through: &[(f64, usize, u32)]) -> u32 {
        let from = |at: usize| through[at..].iter().take_while(move |(time, ..)| *time < through[at].0 + 1.0);
        (0..through.len()).map(|at| from(at).map(|(_, _, events)| events).sum()).max().unwrap_or_default()
    }

    #[test]
    fn a_rate_is_kept_in_the_long_run_and_in_each_second() {
        for (events, lanes) in [(10, 1), (10, 7), (99, 3), (1_000, 1), (1_000, 16), (50_000, 4), (1_000_000, 8)] {
            let limit = RateLimit::new(rate(events, Per::Second));
            let most = limit.most();
            let through = timed(run(limit, lanes, 10.0, most, Duration::from_micros(100)));
            let sum: u32 = through.iter().map(|(_, _, events)| events).sum();
            let (sum, wanted, burst) = (f64::from(sum), 10.0 * f64::from(events), (f64::from(events) * 0.05).max(1.0));
            assert!(sum <= wanted + burst, "{events}/s: {sum} of {wanted}");
            assert!(sum >= wanted * 0.99, "{events}/s: {sum} of {wanted}");
            let in_a_second = f64::from(in_a_second(&through));
            // A sleeper wakes up to a millisecond late, so more tokens may be left in a second.
            let slack = f64::from(events) * 0.001;
            assert!(in_a_second <= f64::from(events) + burst + slack, "{events}/s: {in_a_second} in a second");
        }
    }

    #[test]
    fn a_call_that_takes_a_moment_costs_no_events() {
        let limit = RateLimit::new(rate(200, Per::Second));
        let through = timed(run(limit, 1, 10.0, 5, Duration::from_millis(20)));
        let sum: u32 = through.iter().map(|(_, _, events)| events).sum();
        assert!((1_980..=2_010).contains(&sum), "{sum}");
    }

    #[test]
    fn lanes_get_equal_parts() {
        let through = timed(run(RateLimit::new(rate(100, Per::Second)), 4, 10.0, 5, Duration::from_millis(1)));
        for lane in 0..4 {
            let events: u32 = through.iter().filter(|(_, of, _)| *of == lane).map(|(_, _, events)| events).sum();
            assert!((245..=255).contains(&events), "{lane}: {events}");
        }
    }

    #[test]
    fn what_was_not_used_is_not_made_up_for() {
        timed(async {
            let limit = RateLimit::new(rate(100, Per::Second));
            tokio::time::sleep(Duration::from_secs(3_600)).await;
            let begin = Instant::now();
            for _ in 0..20 {
                limit.take(5).await;
            }
            assert!(begin.elapsed() >= Duration::from_millis(950), "{:?}", begin.elapsed());
        });
    }

    #[test]
    fn slow_rates_come_one_by_one() {
        timed(async {
            let limit = RateLimit::new(rate(7, Per::Hour));
            assert_eq!(limit.most(), 1);
            let begin = Instant::now();
            for _ in 0..=70 {
                limit.take(1).await;
            }
            // The first is available at once, and no nanosecond gets lost.
            let late = begin.elapsed().saturating_sub(Duration::from_secs(36_000));
            assert!(begin.elapsed() >= Duration::from_secs(36_000) && late < Duration::from_millis(2), "{late:?}");
        });
    }

    #[test]
    fn a_batch_is_as_large_as_a_burst() {
        let most = |events, per| RateLimit::new(rate(events, per)).most();
        timed(async {
            assert_eq!(most(1, Per::Hour), 1);
            assert_eq!(most(39, Per::Second), 1);
            assert_eq!(most(40, Per::Second), 2);
            assert_eq!(most(1_000, Per::Second), 50);
            assert_eq!(most(60_000, Per::Minute), 50);
            assert_eq!(most(u32::MAX, Per::Second), limits::BATCH_EVENTS_MAX);
        });
    }

    #[test]
    fn more_than_a_burst_comes_late_rather_than_early() {
        timed(async {
            let limit = RateLimit::new(rate(10, Per::Second));
            let begin = Instant::now();
            limit.take(21).await;
            assert_eq!(begin.elapsed().as_millis(), 2_000);
            limit.take(0).await;
            assert_eq!(begin.elapsed().as_millis(), 2_000);
        });
    }

    #[test]
    fn who_stops_waiting_has_taken_nothing() {
        timed(async {
            let limit = RateLimit::new(rate(1, Per::Second));
            limit.take(1).await;
            let begin = Instant::now();
            for _ in 0..100 {
                assert!(tokio::time::timeout(Duration::from_millis(1), limit.take(1)).await.is_err());
            }
            limit.take(1).await;
            assert_eq!(begin.elapsed().as_millis(), 1_000);
        });
    }

    #[test]
    fn calls_at_the_same_time_are_counted() {
        timed(async {
            let flow = Flow::new(None, NonZeroU32::new(3));
            let (flow, now, most) = (Arc::new(flow), Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
            let begin = Instant::now();
            let lanes = (0..12).map(|_| {
                let (flow, now, most) = (flow.clone(), now.clone(), most.clone());
                tokio::spawn(async move {
                    let permit = flow.admit(1).await;
                    most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    now.fetch_sub(1, Ordering::Relaxed);
                    drop(permit);
                })
            });
            for lane in lanes.collect::<Vec<_>>() {
                lane.await.unwrap();
            }
            assert_eq!((most.load(Ordering::Relaxed), begin.elapsed().as_millis()), (3, 40));
        });
    }

    #[test]
    fn a_handler_asks_for_a_pause_within_bounds() {
        let retry = |max| Retry { attempts: 9, initial: Duration::from_secs(1), max, factor: 2.0 };
        let backoff = Backoff::new(retry(Duration::from_secs(30)), "a/b", 0);
        assert_eq!(backoff.asked(Duration::ZERO), limits::RETRY_PAUSE_MIN);
        assert_eq!(backoff.asked(Duration::from_secs(3_600)), Duration::from_secs(3_600));
        assert_eq!(backoff.asked(Duration::from_millis(u64::MAX)), limits::RETRY_PAUSE_MAX);
        let slow = Backoff::new(retry(2 * limits::RETRY_PAUSE_MAX), "a/b", 0);
        assert_eq!(slow.asked(Duration::from_millis(u64::MAX)), 2 * limits::RETRY_PAUSE_MAX);
    }

    #[test]
    fn what_says_nothing_holds_nothing_up() {
        timed(async {
            let (flow, begin) = (Flow::new(None, None), Instant::now());
            assert_eq!(flow.most(256), 256);
            assert!(flow.admit(u32::MAX).await.is_none());
            assert_eq!(begin.elapsed(), Duration::ZERO);
            let slow = Flow::new(Some(rate(100, Per::Second)), None);
            assert_eq!((slow.most(256), slow.most(2)), (5, 2));
        });
    }

    fn backoff(factor: f64, initial_ms: u64) -> Backoff {
        let (initial, max) = (Duration::from_millis(initial_ms), Duration::from_millis(500));
        Backoff::new(Retry { attempts: 9, initial, max, factor }, "shop/validate", 3)
    }

    #[test]
    fn pauses_grow_to_their_limit() {
        let longest: Vec<_> = (1..=5).map(|attempts| backoff(2.0, 100).longest(attempts).as_millis()).collect();
        assert_eq!(longest, [100, 200, 400, 500, 500]);
        assert_eq!(backoff(1e300, 100).longest(u32::MAX), Duration::from_millis(500));
        assert_eq!(backoff(1e300, 0).pause(0, u32::MAX), Duration::ZERO);
    }

    #[test]
    fn pauses_are_from_half_to_all_of_that() {
        let backoff = backoff(2.0, 100);
        let mut parts: Vec<f64> = Vec::new();
        for offset in 0..1_000 {
            for attempts in 1..=5 {
                let (pause, longest) = (backoff.pause(offset, attempts), backoff.longest(attempts));
                assert!(longest / 2 <= pause && pause <= longest, "{offset}, {attempts}: {pause:?}");
                parts.push(pause.as_secs_f64() / longest.as_secs_f64());
            }
        }
        let mean = parts.iter().sum::<f64>() / parts.len() as f64;
        assert!((0.74..0.76).contains(&mean), "they are spread evenly: {mean}");
    }

    #[test]
    fn pauses_are_the_same_again_and_differ_between_events_lanes_and_subscribers() {
        let retry = backoff(1.0, 500).retry;
        let of = |subscriber: &str, partition| Backoff::new(retry.clone(), subscriber, partition);
        let pause = of("shop/validate", 3).pause(7, 1);
        assert_eq!(pause, of("shop/validate", 3).pause(7, 1));
        assert_ne!(pause, of("shop/validate", 3).pause(8, 1));
        assert_ne!(pause, of("shop/validate", 3).pause(7, 2));
        assert_ne!(pause, of("shop/validate", 4).pause(7, 1));
        assert_ne!(pause, of("shop/notify", 3).pause(7, 1));
        // A replay with a later release relies on it.
        assert_eq!(pause.as_micros(), 289_937);
    }
}
