//! Calls that a stop waits for: all that were admitted, but not those whose caller takes no answers.
//!
//! ```text
//!   woken (by the disk, or by the stop) ──> has something to say ──> polled by the transport ──> woken ...
//!                                            └── for UNTAKEN_AFTER, while closing: it is no longer waited for
//! ```
//!
//! The transport polls a stream only while its caller takes what there is. So a stream that was woken and is not polled
//! has an answer that its caller does not take, while a stream that was polled and not woken waits for the bus.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::bounds;

/// The calls of a service. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Calls {
    tracker: TaskTracker,
    streams: Arc<Streams>,
}

#[derive(Debug, Default)]
struct Streams {
    /// Streams that have something to say and were not asked since.
    untaken: AtomicUsize,
    /// How often any was asked.
    asked: AtomicU64,
}

impl Calls {
    /// A call is under way for as long as this is kept.
    pub(super) fn token(&self) -> TaskTrackerToken {
        self.tracker.token()
    }

    /// The same of a call that streams its answers.
    pub(super) fn stream(&self) -> StreamCall {
        let bell = Bell { is_rung: AtomicBool::new(false), waker: Mutex::default(), streams: self.streams.clone() };
        let bell = Arc::new(bell);
        bell.ring(); // it has not been polled yet
        StreamCall { bell, _token: self.token() }
    }

    /// Waits until no call is under way, or only such whose callers take nothing. Whether all were answered within a
    /// time.
    pub(super) async fn answered(&self, within: Duration) -> bool {
        self.tracker.close();
        let is_untaken = async {
            let mut asked = None;
            loop {
                let now = self.streams.asked.load(Ordering::SeqCst);
                let is_rest_untaken = self.tracker.len() <= self.streams.untaken.load(Ordering::SeqCst);
                if is_rest_untaken && asked == Some(now) {
                    return;
                }
                asked = is_rest_untaken.then_some(now);
                tokio::time::sleep(bounds::UNTAKEN_AFTER).await;
            }
        };
        tokio::select! {
            biased;
            () = self.tracker.wait() => true,
            () = is_untaken => false,
            () = tokio::time::sleep(within) => false,
        }
    }
}

/// A call that streams its answers is under way for as long as this is kept.
pub(super) struct StreamCall {
    bell: Arc<Bell>,
    _token: TaskTrackerToken,
}

impl StreamCall {
    /// The transport asks for the next answer. The futures that it polls must wake this.
    pub(super) fn asked(&self, cx: &Context<'_>) -> Waker {
        *self.bell.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        self.bell.streams.asked.fetch_add(1, Ordering::SeqCst);
        if self.bell.is_rung.swap(false, Ordering::SeqCst) {
            self.bell.streams.untaken.fetch_sub(1, Ordering::SeqCst);
        }
        self.bell.clone().into()
    }

    /// It was given one, behind which there is another, or the end.
    pub(super) fn has_answered(&self) {
        self.bell.ring();
    }
}

impl Drop for StreamCall {
    fn drop(&mut self) {
        // It stays rung: what still has its waker may wake it, which no longer means anything.
        if self.bell.is_rung.swap(true, Ordering::SeqCst) {
            self.bell.streams.untaken.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Is rung while a stream has something to say.
#[derive(Debug)]
struct Bell {
    is_rung: AtomicBool,
    waker: Mutex<Option<Waker>>,
    streams: Arc<Streams>,
}

impl Bell {
    fn ring(&self) {
        if !self.is_rung.swap(true, Ordering::SeqCst) {
            self.streams.untaken.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn ask(call: &StreamCall) -> Waker {
        call.asked(&Context::from_waker(Waker::noop()))
    }

    async fn took(calls: &Calls) -> (bool, Duration) {
        let begin = Instant::now();
        (calls.answered(LONG).await, begin.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_waits_for_us_is_waited_for_and_one_that_waits_for_its_caller_is_not() {
        let calls = Calls::default();
        assert_eq!(took(&calls).await, (true, Duration::ZERO), "there is none");

        let stream = calls.stream();
        let (answered, took_unasked) = took(&calls).await;
        assert!(!answered && took_unasked < LONG / 100, "nobody ever asked it: {took_unasked:?}");

        let waker = ask(&stream);
        assert_eq!(took(&calls).await, (false, LONG), "it waits for us");
        waker.wake();
        assert!(took(&calls).await.1 < LONG / 100, "it has something to say, and nobody asks");
        ask(&stream);
        stream.has_answered();
        assert!(took(&calls).await.1 < LONG / 100, "nor here");

        let token = calls.token();
        assert_eq!(took(&calls).await, (false, LONG), "another call waits for us");
        drop(token);
        let waker = ask(&stream);
        drop(stream);
        waker.wake();
        assert_eq!(calls.streams.untaken.load(Ordering::SeqCst), 0);
        assert_eq!(took(&calls).await, (true, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_takes_one_answer_after_the_other_is_waited_for() {
        let calls = Calls::default();
        let (stuck, slow) = (calls.stream(), calls.stream());
        let slowly = async {
            for _ in 0..10 {
                ask(&slow);
                slow.has_answered();
                tokio::time::sleep(bounds::UNTAKEN_AFTER * 3 / 4).await;
            }
            drop(slow);
        };
        let ((answered, took), ()) = tokio::join!(took(&calls), slowly);
        assert!(!answered && took >= bounds::UNTAKEN_AFTER * 15 / 2 && took < LONG / 100, "{took:?}");
        drop(stuck);
    }
}
