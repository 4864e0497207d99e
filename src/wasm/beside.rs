//! Work in the background: on threads of low priority, so that running plugins keep the processor.
//!
//! Normally one task at a time, because a reload may take a little longer. A compilation cannot be cancelled, and an
//! untrusted component may take long: so the next task waits a limited time and then starts in parallel, on a thread of
//! its own.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

/// Maximum number of parallel tasks. Each has one thread.
const SEATS: usize = 4;
/// How long a task waits for the previous one. A component with an interpreter takes less on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Their `nice` value: a tenth of the processor if others want all of it.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// Permanently lowers the priority of the calling thread.
pub fn give_way() {
    // On Linux this applies to the calling thread; elsewhere it would be the whole process. A failure is ignored.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, NICENESS);
}

/// The threads, which the compiler uses for its parallel work.
pub(super) struct BackgroundPool {
    seats: Mutex<Seats>,
    changed: Condvar,
    patience: Duration,
}

struct Seats {
    free: Vec<ThreadPool>,
    /// When the latest task began, if it is still running.
    latest: Option<Instant>,
    begun: u64,
}

impl BackgroundPool {
    pub(super) fn start() -> Result<BackgroundPool, ThreadPoolBuildError> {
        Self::with(PATIENCE)
    }

    fn with(patience: Duration) -> Result<BackgroundPool, ThreadPoolBuildError> {
        let pool = || {
            let threads = ThreadPoolBuilder::new().num_threads(1).start_handler(|_| give_way());
            threads.thread_name(|_| "compile".to_owned()).build()
        };
        let free = (0..SEATS).map(|_| pool()).collect::<Result<_, _>>()?;
        let seats = Mutex::new(Seats { free, latest: None, begun: 0 });
        Ok(BackgroundPool { seats, changed: Condvar::new(), patience })
    }

    /// Runs a task on them, while this thread waits.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let (pool, number) = self.take();
        let seat = Seat { beside: self, pool: Some(pool), number };
        match &seat.pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }

    fn take(&self) -> (ThreadPool, u64) {
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let wait = seats.latest.map_or(Duration::ZERO, |latest| self.patience.saturating_sub(latest.elapsed()));
            if wait.is_zero()
                && let Some(pool) = seats.free.pop()
            {
                seats.latest = Some(Instant::now());
                seats.begun += 1;
                return (pool, seats.begun);
            }
            // If none is free, without a limit.
            let wait = if wait.is_zero() { self.patience } else { wait };
            seats = self.changed.wait_timeout(seats, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Returned however the work ends.
struct Seat<'b> {
    beside: &'b BackgroundPool,
    pool: Option<ThreadPool>,
    number: u64,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut seats = self.beside.seats.lock().unwrap_or_else(PoisonError::into_inner);
        seats.free.extend(self.pool.take());
        if seats.begun == self.number {
            seats.latest = None;
        }
        self.beside.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn what_takes_for_ever_does_not_hold_up_all_that_follows() {
        let beside = BackgroundPool::with(Duration::from_millis(1)).unwrap();
        thread::scope(|scope| {
            let (end, ended) = mpsc::channel::<()>();
            let (begun, begins) = mpsc::channel();
            let beside = &beside;
            scope.spawn(move || {
                beside.run(move || {
                    begun.send(()).unwrap();
                    let _ = ended.recv();
                });
            });
            begins.recv().unwrap();
            assert_eq!(beside.run(|| 7), 7);
            assert_eq!(beside.run(|| 8), 8);
            drop(end);
        });
    }

    #[test]
    fn otherwise_one_waits_for_the_other() {
        let beside = BackgroundPool::with(Duration::from_secs(3_600)).unwrap();
        let (at_once, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    beside.run(|| {
                        most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        thread::yield_now();
                        at_once.fetch_sub(1, Ordering::SeqCst);
                    });
                });
            }
        });
        assert_eq!(most.into_inner(), 1);
    }
}
