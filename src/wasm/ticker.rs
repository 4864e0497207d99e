//! The thread that measures the running time of plugins.
//!
//! Compiled code checks the engine's epoch at every loop and call. Each tick of the thread increments the epoch, and a
//! plugin that sees a new epoch yields to other tasks. Time is counted in ticks, per event and only while the plugin
//! runs: no clock is read, and a suspended machine or a stopped process costs no event an attempt.
//!
//! The thread sleeps while nothing runs, so that an idle bus is idle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use wasmtime::EngineWeak;

use super::limits::TICK;
use crate::effects;

/// Idle ticks before the thread sleeps: waking it for each of a slow trickle of calls would cost more.
const LINGER_TICKS: u32 = 50;

/// The maximum number of ticks that one wait counts as. A thread that wakes a little late is common, so missed ticks
/// count. If it is later than that, it did not get the processor, and probably neither did the plugins that it
/// measures: on an overloaded machine a loop may end late, but no event is blamed for time that it did not have.
const CATCH_UP_TICKS: u64 = 5;

/// Owns the thread. Dropping it ends the thread and waits for that, which takes at most a tick.
pub(super) struct Ticker {
    shared: Arc<TickerInner>,
    thread: Option<JoinHandle<()>>,
}

struct TickerInner {
    ticks: Arc<AtomicU64>,
    running: AtomicUsize,
    resting: AtomicBool,
    stopping: AtomicBool,
}

impl Ticker {
    pub(super) fn start(engine: EngineWeak) -> std::io::Result<Ticker> {
        let shared = Arc::new(TickerInner {
            ticks: Arc::default(),
            running: AtomicUsize::new(0),
            resting: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        });
        let on_thread = Arc::clone(&shared);
        let thread = effects::thread("wattle-ticks", move || on_thread.run(&engine))?;
        Ok(Ticker { shared, thread: Some(thread) })
    }

    /// Counts time until the guard is dropped.
    pub(super) fn run(&self) -> TickGuard<'_> {
        // Sequentially consistent, like the loads of the thread before it sleeps: one of the two sees the other.
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        if self.shared.resting.load(Ordering::SeqCst) {
            self.wake();
        }
        TickGuard(self)
    }

    /// A timer that allows this much running time.
    pub(super) fn timer(&self, allowed: Duration) -> Timer {
        let mut timer =
            Timer { ticks: Arc::clone(&self.shared.ticks), slice_start: Arc::default(), ran: 0, allowed: 0 };
        timer.allow(allowed);
        timer
    }

    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.wake();
        if let Some(thread) = self.thread.take() {
            // It holds no state that could be inconsistent.
            let _ = thread.join();
        }
    }
}

/// Time is counted while it exists.
pub(super) struct TickGuard<'a>(&'a Ticker);

impl Drop for TickGuard<'_> {
    fn drop(&mut self) {
        self.0.shared.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl TickerInner {
    fn run(&self, engine: &EngineWeak) {
        let mut idle_ticks = 0;
        let mut last = Instant::now();
        while !self.stopping.load(Ordering::SeqCst) {
            if self.running.load(Ordering::SeqCst) > 0 {
                idle_ticks = 0;
            } else {
                idle_ticks += 1;
            }
            if idle_ticks > LINGER_TICKS {
                self.resting.store(true, Ordering::SeqCst);
                while self.running.load(Ordering::SeqCst) == 0 && !self.stopping.load(Ordering::SeqCst) {
                    thread::park();
                }
                self.resting.store(false, Ordering::SeqCst);
                idle_ticks = 0;
                last = Instant::now();
                continue;
            }
            thread::sleep(TICK);
            let waited = (last.elapsed().as_nanos() / TICK.as_nanos()).clamp(1, u128::from(CATCH_UP_TICKS));
            last = Instant::now();
            self.ticks.fetch_add(u64::try_from(waited).unwrap_or(1), Ordering::Relaxed);
            let Some(engine) = engine.upgrade() else { return };
            engine.increment_epoch();
        }
    }
}

/// Counts the ticks for which an event has run. It is in the store; the start of a slice is shared with the code that
/// polls.
pub(super) struct Timer {
    ticks: Arc<AtomicU64>,
    slice_start: Arc<AtomicU64>,
    ran: u64,
    allowed: u64,
}

impl Timer {
    /// Restarts with this limit.
    pub(super) fn allow(&mut self, time: Duration) {
        // One more, because the first tick may come right after the start.
        let ticks = time.as_nanos().div_ceil(TICK.as_nanos()).saturating_add(1);
        self.allowed = u64::try_from(ticks).unwrap_or(u64::MAX);
        self.restart();
    }

    /// Restarts with the same limit.
    pub(super) fn restart(&mut self) {
        self.ran = 0;
        self.slice().begin();
    }

    /// Counts the ticks since the slice began. Returns false if the limit is exceeded.
    pub(super) fn spend(&mut self) -> bool {
        let now = self.ticks.load(Ordering::Relaxed);
        let since = self.slice_start.swap(now, Ordering::Relaxed);
        self.ran = self.ran.saturating_add(now.saturating_sub(since));
        self.ran < self.allowed
    }

    /// Marks the start of a slice after the plugin has yielded.
    pub(super) fn slice(&self) -> Slice {
        Slice { ticks: Arc::clone(&self.ticks), start: Arc::clone(&self.slice_start) }
    }
}

/// Marks the start of a slice, from outside of the store.
#[derive(Clone)]
pub(super) struct Slice {
    ticks: Arc<AtomicU64>,
    start: Arc<AtomicU64>,
}

impl Slice {
    pub(super) fn begin(&self) {
        self.start.store(self.ticks.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timer(ticks: &Arc<AtomicU64>, allowed_ticks: u32) -> Timer {
        let mut timer = Timer { ticks: Arc::clone(ticks), slice_start: Arc::default(), ran: 0, allowed: 0 };
        timer.allow(TICK * allowed_ticks);
        timer
    }

    #[test]
    fn time_is_up_one_tick_after_what_was_allowed_at_the_latest() {
        let ticks = Arc::new(AtomicU64::new(7));
        let mut timer = timer(&ticks, 3);
        for _ in 0..3 {
            ticks.fetch_add(1, Ordering::Relaxed);
            assert!(timer.spend());
        }
        ticks.fetch_add(1, Ordering::Relaxed);
        assert!(!timer.spend());
    }

    #[test]
    fn waiting_for_a_turn_costs_no_time() {
        let ticks = Arc::new(AtomicU64::new(0));
        let mut timer = timer(&ticks, 3);
        let slice = timer.slice();
        for _ in 0..3 {
            ticks.fetch_add(1, Ordering::Relaxed);
            assert!(timer.spend());
            ticks.fetch_add(1_000, Ordering::Relaxed);
            slice.begin();
        }
    }

    #[test]
    fn the_next_event_has_its_time_for_itself() {
        let ticks = Arc::new(AtomicU64::new(0));
        let mut timer = timer(&ticks, 3);
        for _ in 0..10 {
            ticks.fetch_add(3, Ordering::Relaxed);
            assert!(timer.spend());
            timer.restart();
        }
    }
}
