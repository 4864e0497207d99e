//! Further attempts at events of the retry queue, and first attempts at later events of their keys.

use std::sync::Arc;

use tokio::time::Instant;

use super::batch::{BatchEvent, ParsedEvent, content_type};
use super::failure::LastFailure;
use super::waiting::{Waiter, get, gone, kept, record};
use super::{CallSource, Lane, LeaveReason};
use crate::dispatch::rules::when;
use crate::engine::{Entries, Session, Unit};
use crate::model::call::{CallErrorKind, HandleError, InstanceError};

/// Events of one key that are due, with what is kept of them.
struct DueEvents {
    waiters: Vec<(u64, Waiter)>,
    held: Arc<Vec<BatchEvent>>,
}

impl<S: Session, K: Entries> Lane<S, K> {
    /// Calls due events.
    pub(super) async fn retry(&mut self) -> Result<(), LeaveReason> {
        let due = self.due_events()?;
        let events = due.held.iter().map(BatchEvent::parse).collect::<Result<Vec<_>, _>>()?;
        // If a call with several events fails at one of them, those before it are called again without it, and then it
        // is the first.
        let mut count = match self.count_for_lane(&due, &events).await? {
            0 => return Ok(()),
            count => count,
        };
        let Some((_, first)) = due.waiters.first() else { return Ok(()) };
        let attempts = first.attempts + 1;
        loop {
            let run = events.get(..count).unwrap_or_default();
            let permit = self.admit(run.len()).await?;
            if self.delivers_once_at_most() {
                // At-most-once delivery: deletes the events durably before the call, so that the call is never
                // repeated.
                let called = due.waiters.iter().take(run.len());
                self.tell(called.flat_map(|(number, _)| gone(*number)).collect()).await?;
            }
            return match self.call(permit, &due.held, 0, run, attempts).await {
                Ok(handled) => self.settle_waiting(&due.waiters, (&due.held, run), &handled, attempts).await,
                Err(HandleError::Instance(error)) => self.retry_without_instance(&due, run, &error, attempts).await,
                Err(HandleError::Call(error)) if error.kind == CallErrorKind::State => {
                    self.without_instance(&error.message).await
                }
                Err(HandleError::Call(error)) if count > 1 => {
                    count = error.event.map_or(1, |broken| (broken as usize).clamp(1, count - 1));
                    continue;
                }
                Err(HandleError::Call(error)) => match (events.first(), due.waiters.first()) {
                    (Some(event), Some(waiter)) => {
                        let failure = LastFailure::of_call(error);
                        self.fail_waiting(waiter, (&due.held, 0), event, failure, attempts).await
                    }
                    _ => Ok(()),
                },
            };
        }
    }

    /// The events that are due, as many as go into one call by their number and bytes.
    fn due_events(&self) -> Result<DueEvents, LeaveReason> {
        let most = self.parts.flow.most(self.parts.policy.batch.max_events);
        let numbers = self.waiting.take_due(Instant::now(), self.together.most().min(most as usize));
        let (mut waiters, mut held, mut bytes) =
            (Vec::with_capacity(numbers.len()), Vec::with_capacity(numbers.len()), 0);
        for number in numbers {
            let waiter = get(&self.parts.entries, number)?;
            let record = record(&self.parts.entries, number)?;
            bytes += record.len();
            if bytes > self.parts.policy.batch.max_bytes && !held.is_empty() {
                break;
            }
            let (append_time_ns, trusted_time_ns) = (waiter.append_time_ns, waiter.trusted_time_ns());
            held.push(BatchEvent { offset: waiter.offset, append_time_ns, trusted_time_ns, record });
            waiters.push((number, waiter));
        }
        Ok(DueEvents { waiters, held: Arc::new(held) })
    }

    /// How many of these are for the lane and go into one call; none where the first one is not, and is done by now.
    async fn count_for_lane(&mut self, due: &DueEvents, events: &[ParsedEvent<'_>]) -> Result<usize, LeaveReason> {
        let content_type = content_type(events);
        let alike = events.iter().take_while(|event| event.view.content_type.unwrap_or_default() == content_type);
        let mut count = 0;
        for (event, waiter) in alike.zip(&due.waiters) {
            // The condition is evaluated again, since the topology may have changed.
            match self.passes(event) {
                Ok(true) => count += 1,
                _ if count > 0 => break, // in a call of its own
                Ok(false) => {
                    self.parts.counters.passed_over(1);
                    let writes = self.waiting.remove(waiter.0).into_iter().flatten().collect();
                    self.commit(Unit { consumed_to: self.position, writes, ..Unit::default() }).await?;
                    break;
                }
                Err(reason) => {
                    let (failure, attempts) = (LastFailure::of_condition(&reason), waiter.1.attempts + 1);
                    self.fail_waiting(waiter, (&due.held, 0), event, failure, attempts).await?;
                    break;
                }
            }
        }
        Ok(count)
    }

    /// Whether the condition selects a waiting event.
    fn passes(&self, event: &ParsedEvent<'_>) -> Result<bool, String> {
        match &self.parts.policy.when {
            None => Ok(true),
            Some(condition) => when::passes(condition, &event.view, Some(event.key)),
        }
    }

    /// There was no instance for a call with these events.
    async fn retry_without_instance(
        &mut self,
        due: &DueEvents,
        run: &[ParsedEvent<'_>],
        error: &InstanceError,
        attempts: u32,
    ) -> Result<(), LeaveReason> {
        if self.delivers_once_at_most() {
            let called = due.waiters.iter().zip(due.held.iter()).take(run.len());
            let writes = called.flat_map(|((number, waiter), held)| kept(*number, waiter, &held.record));
            self.tell(writes.collect()).await?;
        }
        if let (Some(event), Some(waiter)) = (run.first(), due.waiters.first()) {
            let (failure, of) = (LastFailure::of_instance(error), CallSource::Waiting(std::slice::from_ref(waiter)));
            if self.proven_handles(&due.held, 0, event, &failure, &of, attempts).await? {
                return Ok(());
            }
        }
        self.without_instance(&error.to_string()).await
    }
}
