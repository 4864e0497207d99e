//! A lane: the one owner of a (subscriber, partition). It reads, calls, commits, in order.
//!
//! ```text
//!            ┌──────────────── all handled: commit ────────────────┐
//!            v                                                     │
//!   read ─> call(events[at..]) ─┬─ failed at k: commit in front ─> k alone, attempt + 1, after a pause ─┬─> commit
//!                               │                                                                       └─> dead letter
//!                               └─ trapped at k: call(events[at..k]) again, then k alone
//! ```
//!
//! Promises: every event is committed once, as handled or as a dead letter, in order. An event is only blamed for what
//! happened when it ran alone; a handler's own word for a failure is taken as it is.
//!
//! A failing event holds up its lane until it passes or is given up, and no other lane.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::batch::{Context, Held, Parsed, Unreadable};
use super::handler::{HandleError, Handler};
use super::outputs::{Emitter, Fit, LastFailure};
use super::status::{Counters, LaneState};
use crate::engine::{ReadBudget, Session, SessionError, Slices, Unit};
use crate::limits;
use crate::topology::Retry;
use crate::wasm::{Action, Batch, CallErrorKind, Event, Handled};

/// A lane.
pub(super) struct Lane<S, H> {
    pub(super) session: S,
    pub(super) handler: H,
    pub(super) emitter: Emitter,
    pub(super) retry: Retry,
    pub(super) partition: u32,
    pub(super) subscriber: Arc<str>,
    pub(super) counters: Arc<Counters>,
    pub(super) stop: CancellationToken,
}

/// Why a lane ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum LaneError {
    /// It was told to.
    #[error("stopped")]
    Stopped,
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
}

/// Where a lane is in the events that it has read.
struct Progress {
    /// The next event.
    at: usize,
    /// These run alone, so that it is certain which one fails.
    alone: Range<usize>,
    /// Attempts at the event `at` so far.
    attempts: u32,
}

impl Progress {
    /// The end of the next call, out of `total` events.
    fn end(&self, total: usize) -> usize {
        match self.at {
            at if at < self.alone.start => self.alone.start,
            at if at < self.alone.end => at + 1,
            _ => total,
        }
    }

    /// The next `count` events are done.
    fn pass(&mut self, count: usize) {
        self.at += count;
        self.attempts = 0;
    }
}

impl<S: Session, H: Handler> Lane<S, H> {
    /// Runs until it is told to stop or cannot go on.
    pub(super) async fn run(mut self) -> Result<(), LaneError> {
        let ended = loop {
            let budget = ReadBudget { events: limits::BATCH_EVENTS_MAX, bytes: limits::BATCH_BYTES_MAX };
            let chunks = tokio::select! {
                biased;
                () = self.stop.cancelled() => break LaneError::Stopped,
                chunks = self.session.read(budget) => match chunks {
                    Ok(chunks) => chunks,
                    Err(error) => break error.into(),
                },
            };
            if let Err(error) = self.process(Arc::new(Held::all(&chunks))).await {
                break error;
            }
        };
        self.counters.set_lane(self.partition, LaneState::Stopped);
        match ended {
            LaneError::Stopped => Ok(self.session.flush().await?),
            error => Err(error),
        }
    }

    /// Brings every event to its end.
    async fn process(&mut self, held: Arc<Vec<Held>>) -> Result<(), LaneError> {
        let events = held.iter().map(Held::parse).collect::<Result<Vec<_>, _>>()?;
        let mut progress = Progress { at: 0, alone: 0..0, attempts: 0 };
        while progress.at < events.len() {
            if self.stop.is_cancelled() {
                return Err(LaneError::Stopped);
            }
            let rest = events.get(progress.at..progress.end(events.len())).unwrap_or_default();
            // The contract says the content type once for all events of a call.
            let content_type = rest.first().and_then(|event| event.view.content_type).unwrap_or_default();
            let alike = |event: &&Parsed<'_>| event.view.content_type.unwrap_or_default() == content_type;
            let run = rest.get(..rest.iter().take_while(alike).count()).unwrap_or_default();
            let called = self.call(&held, progress.at, run, content_type, progress.attempts + 1).await;
            match called {
                Ok(handled) => self.settle(run, handled, &mut progress).await?,
                Err(HandleError::Instance(error)) => {
                    // No event is to blame, so none may be given up for it.
                    tracing::error!(subscriber = &*self.subscriber, partition = self.partition, %error, "no instance");
                    self.counters.failed(&error.to_string());
                    self.pause(self.retry.max).await?;
                }
                Err(HandleError::Call(error)) => match (error.event, run) {
                    (Some(k), _) if run.len() > 1 && (k as usize) < run.len() => {
                        let blamed = progress.at + k as usize;
                        progress.alone = blamed..blamed + 1;
                    }
                    (_, [alone]) => {
                        let failure = LastFailure {
                            kind: error.kind.as_str(),
                            reason: error.message,
                            backtrace: error.backtrace,
                            may_pass: error.kind != CallErrorKind::Protocol,
                            delay: None,
                        };
                        self.fail(alone, failure, &mut progress).await?;
                    }
                    _ => progress.alone = progress.at..progress.at + run.len(),
                },
            }
        }
        Ok(())
    }

    async fn call(
        &mut self,
        held: &Arc<Vec<Held>>,
        first: usize,
        run: &[Parsed<'_>],
        content_type: &str,
        attempt: u32,
    ) -> Result<Handled, HandleError> {
        let events: Vec<Event<'_>> = run
            .iter()
            .enumerate()
            .map(|(index, event)| Event {
                key: event.key,
                r#type: event.view.r#type,
                time_ns: event.append_time_ns,
                attempt: if index == 0 { attempt } else { 1 },
                data: event.view.data.unwrap_or_default(),
            })
            .collect();
        let context = Context { subscriber: self.subscriber.clone(), held: held.clone(), first };
        let batch = Batch {
            topic: &self.emitter.from,
            partition: self.partition,
            content_type,
            events: &events,
            context: Arc::new(context),
            state: Arc::new(crate::wasm::NoState),
        };
        self.handler.handle(batch).await
    }

    /// Commits what was handled, and deals with the first failure.
    async fn settle(&mut self, run: &[Parsed<'_>], handled: Handled, progress: &mut Progress) -> Result<(), LaneError> {
        let (slices, fit) = self.emitter.emit(run, &handled.outputs);
        let done_by_handler = handled.failed.as_ref().map_or(run.len(), |failed| failed.event as usize);
        let done = match &fit {
            Fit::All => done_by_handler,
            Fit::UpTo(event) | Fit::Refused(event, _) => (*event as usize).min(done_by_handler),
        };
        if let Some(last) = done.checked_sub(1).and_then(|last| run.get(last)) {
            // Counted first, so that whoever sees the position has seen it counted.
            self.counters.handled(done as u64, slices.count() as u64);
            self.counters.set_lane(self.partition, LaneState::Running);
            self.session.commit(Unit { consumed_to: last.offset + 1, emits: slices, ..Unit::default() }).await?;
            progress.pass(done);
        }
        let failure = match (fit, handled.failed) {
            (Fit::Refused(_, reason), _) => {
                LastFailure { kind: "refused", reason, backtrace: None, may_pass: false, delay: None }
            }
            (Fit::UpTo(_), _) | (Fit::All, None) => return Ok(()),
            (Fit::All, Some(failed)) => {
                let (kind, may_pass, delay) = match failed.action {
                    Action::Retry(delay) => ("retry", true, delay),
                    Action::Reject => ("reject", false, None),
                };
                LastFailure { kind, reason: failed.reason, backtrace: None, may_pass, delay }
            }
        };
        match run.get(done) {
            Some(event) => self.fail(event, failure, progress).await,
            None => Ok(()),
        }
    }

    /// An attempt at the event at `progress.at` has failed: another one after a pause, or the end.
    async fn fail(
        &mut self,
        event: &Parsed<'_>,
        failure: LastFailure,
        progress: &mut Progress,
    ) -> Result<(), LaneError> {
        progress.attempts += 1;
        let attempts = progress.attempts;
        let (subscriber, partition, id) = (&*self.subscriber, self.partition, event.view.id);
        let reason = &failure.reason;
        self.counters.failed(&format!("event {id}: {reason}"));
        if failure.may_pass && attempts < self.retry.attempts {
            tracing::warn!(subscriber, partition, offset = event.offset, event = id, attempts, %reason, "will try again");
            self.counters.retried();
            progress.alone = progress.at..progress.at + 1;
            return self.pause(failure.delay.unwrap_or_else(|| backoff(&self.retry, attempts))).await;
        }
        tracing::warn!(subscriber, partition, offset = event.offset, event = id, attempts, %reason, "given up");
        let emits: Slices = self.emitter.dead_letter(event, &failure, attempts);
        self.counters.dead_lettered();
        self.counters.set_lane(self.partition, LaneState::Running);
        self.session.commit(Unit { consumed_to: event.offset + 1, emits, ..Unit::default() }).await?;
        progress.pass(1);
        Ok(())
    }

    async fn pause(&mut self, pause: Duration) -> Result<(), LaneError> {
        self.counters.set_lane(self.partition, LaneState::Retrying);
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(LaneError::Stopped),
            () = tokio::time::sleep(pause) => Ok(()),
        }
    }
}

/// The pause after the `attempts`-th failed attempt.
fn backoff(retry: &Retry, attempts: u32) -> Duration {
    // Never infinite: no pause at all, however often, stays none.
    let factor = retry.factor.powi(i32::try_from(attempts.saturating_sub(1)).unwrap_or(i32::MAX)).min(f64::MAX);
    let seconds = (retry.initial.as_secs_f64() * factor).min(retry.max.as_secs_f64());
    Duration::try_from_secs_f64(seconds).unwrap_or(retry.max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_limit() {
        let retry =
            Retry { attempts: 9, initial: Duration::from_millis(100), max: Duration::from_millis(500), factor: 2.0 };
        let pauses: Vec<_> = (1..=5).map(|attempts| backoff(&retry, attempts).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 500, 500]);
        assert_eq!(backoff(&Retry { factor: 1e300, ..retry.clone() }, u32::MAX), Duration::from_millis(500));
        assert_eq!(backoff(&Retry { factor: 1e300, initial: Duration::ZERO, ..retry }, u32::MAX), Duration::ZERO);
    }
}
