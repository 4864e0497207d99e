//! Calls: as many events as possible together, and one by one after a call with several events fails.

use std::sync::Arc;

use tokio::time::Instant;

use super::batch::{BatchEvent, Context, ParsedEvent, call_events, content_type};
use super::command::Command;
use super::error::LaneError;
use super::failure::LastFailure;
use super::flow::Permit;
use super::{CallSource, EventSpan, Lane, LaneParts, LeaveReason, Progress, ReadBatch};
use crate::engine::{Entries, Session, Unit};
use crate::model::call::{Batch, CallErrorKind, HandleError, Handled};

impl<S: Session, K: Entries> Lane<S, K> {
    /// Calls as many events from `progress.at` on as possible.
    pub(super) async fn call_from(&mut self, read: ReadBatch<'_>, progress: &mut Progress) -> Result<(), LeaveReason> {
        let held = read.held;
        let run = self.run_from(read, progress);
        let run_places = read.places_of(progress.at, run.len());
        // Being stopped while waiting for a permit loses nothing.
        let permit = self.admit(run.len()).await?;
        let before = self.position;
        if self.delivers_once_at_most() {
            // At-most-once delivery: commits the position durably before the call, so that the call is never repeated.
            self.is_ahead = true;
            self.show();
            let consumed_to = self.consume(run_places);
            self.commit(Unit { consumed_to, ..Unit::default() }).await?;
            self.parts.session.sync().await?;
        }
        match self.call(permit, held, progress.at, run, 1).await {
            Ok(handled) => self.settle_read(read, run.len(), &handled, progress).await,
            Err(HandleError::Instance(error)) => {
                let failure = LastFailure::of_instance(&error);
                if let Some(first) = run.first()
                    && let of = CallSource::Read(read.places_of(progress.at, 1))
                    && self.proven_handles(held, progress.at, first, &failure, &of, 1).await?
                {
                    progress.at += 1;
                    return Ok(());
                }
                let is_ahead = self.delivers_once_at_most();
                if is_ahead {
                    // nothing was called, so the events may still be called
                    self.position = before;
                    self.parts.counters.not_passed_over(self.passed_over_with(run_places));
                    self.seek_to_position().await?;
                }
                self.without_instance(&error.to_string()).await?;
                if is_ahead { Err(LeaveReason::Moved) } else { Ok(()) }
            }
            Err(HandleError::Call(error)) if error.kind == CallErrorKind::State => {
                self.without_instance(&error.message).await
            }
            Err(HandleError::Call(error)) => match (error.event, run) {
                (Some(k), _) if run.len() > 1 && (k as usize) < run.len() => {
                    let blamed = progress.at + k as usize;
                    progress.alone = blamed..blamed + 1;
                    Ok(())
                }
                (_, [_]) => self.fail_read(read, LastFailure::of_call(error), progress).await,
                _ => {
                    progress.alone = progress.at..progress.at + run.len();
                    Ok(())
                }
            },
        }
    }

    /// The events from `progress.at` on that can go together.
    fn run_from<'e>(&self, read: ReadBatch<'e>, progress: &Progress) -> &'e [ParsedEvent<'e>] {
        let ReadBatch { held, places, events } = read;
        let rest = events.get(progress.at..progress.end(events.len())).unwrap_or_default();
        // All events of a call have the same content type.
        let content_type = content_type(rest);
        let goes_along = |(event, place): &(&ParsedEvent<'_>, &EventSpan)| {
            event.view.content_type.unwrap_or_default() == content_type
                && !self.waiting.holds(event.key)
                && place.unanswered.is_none()
        };
        let sizes = held.iter().skip(progress.at).map(BatchEvent::bytes);
        let fits = fitting(sizes, self.parts.policy.batch.max_bytes).min(self.together.most());
        let candidates = rest.iter().zip(places.iter().skip(progress.at)).take(fits);
        rest.get(..candidates.take_while(goes_along).count()).unwrap_or_default()
    }

    /// No instance could be called, or the state could not be read. This is no failure of an event, so none is given
    /// up.
    pub(super) async fn without_instance(&mut self, error: &str) -> Result<(), LeaveReason> {
        tracing::error!(subscriber = &*self.parts.subscriber, partition = self.parts.partition, %error, "no call");
        self.parts.counters.failed(error);
        let until = Instant::now() + self.parts.backoff.retry.max;
        loop {
            let LaneParts { stop, commands, .. } = &mut *self.parts;
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(LaneError::Stopped.into()),
                Some(command) = commands.recv() => self.obey(command).await?,
                () = tokio::time::sleep_until(until) => return Ok(()),
            }
            self.show();
        }
    }

    /// Waits for a permit for a call with this number of events. Executes commands while waiting; restarts if one may
    /// change the events to call.
    pub(super) async fn admit(&mut self, events: usize) -> Result<Option<Permit>, LeaveReason> {
        let flow = self.parts.flow.clone();
        let mut admitted = std::pin::pin!(flow.admit(events as u32));
        loop {
            let LaneParts { stop, commands, .. } = &mut *self.parts;
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(LaneError::Stopped.into()),
                Some(command) = commands.recv() => {
                    let is_look = matches!(command, Command::Look(..));
                    self.obey(command).await?;
                    if !is_look {
                        self.seek_to_position().await?;
                        return Err(LeaveReason::Moved);
                    }
                }
                permit = &mut admitted => return Ok(permit),
            }
        }
    }

    pub(super) async fn call(
        &mut self,
        permit: Option<Permit>,
        held: &Arc<Vec<BatchEvent>>,
        first: usize,
        run: &[ParsedEvent<'_>],
        attempt: u32,
    ) -> Result<Handled, HandleError> {
        self.take_version();
        self.call_taken(permit, held, first, run, attempt).await
    }

    /// Calls the version that the lane took.
    pub(super) async fn call_taken(
        &mut self,
        permit: Option<Permit>,
        held: &Arc<Vec<BatchEvent>>,
        first: usize,
        run: &[ParsedEvent<'_>],
        attempt: u32,
    ) -> Result<Handled, HandleError> {
        let events = call_events(run, attempt);
        let context = Context {
            subscriber: self.parts.subscriber.clone(),
            origin: self.parts.emitter.origin.clone(),
            held: held.clone(),
            first,
        };
        let batch = Batch {
            topic: &self.parts.emitter.from,
            partition: self.parts.partition,
            content_type: content_type(run),
            events: &events,
            context: Arc::new(context),
            state: self.parts.recorder.begin(&self.state, run),
        };
        self.calls += 1;
        let handled = self.taken.version.handler.handle(batch).await;
        drop(permit);
        let mut handled = handled?;
        handled.check(run.len())?;
        if self.delivers_once_at_most() {
            handled.end();
        }
        Ok(handled)
    }
}

/// Number of events that go into one call by their size: at least one.
fn fitting(sizes: impl Iterator<Item = usize>, max_bytes: usize) -> usize {
    let mut bytes = 0;
    let fits = |size: &usize| {
        bytes += size;
        bytes <= max_bytes
    };
    sizes.take_while(fits).count().max(1)
}
