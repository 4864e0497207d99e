//! What becomes of an attempt that failed, and the attempts that follow.
//!
//! ```text
//!   an attempt fails ──┬─ may pass, and there are more ──> into the waiting set, and again after a pause
//!                      └─ for the last time ─────────────> dead letter, parked, or the lane halts
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::batch::{Held, Parsed, content_type};
use super::capsule::Source;
use super::failure::{LastFailure, cut};
use super::waiting::{Waiter, get, gone, kept, now_ns, record};
use super::{HALTED, Lane, Leave, Of, Parts, Progress, Read};
use crate::dispatch::rules::when;
use crate::engine::{Entries, LaneWrite, Session, Unit};
use crate::model::call::{CallErrorKind, HandleError};
use crate::topology::OnFailure;

impl<S: Session, K: Entries> Lane<S, K> {
    /// The first attempt at an event that was just read has failed: the one at `progress.at`.
    pub(super) async fn fail_read(
        &mut self,
        read: Read<'_>,
        failure: LastFailure,
        progress: &mut Progress,
    ) -> Result<(), Leave> {
        let Some((held, (event, _))) = read.held.get(progress.at).zip(read.at(progress.at)) else { return Ok(()) };
        let places = read.places_of(progress.at, 1);
        if self.proven_handles(read.held, progress.at, event, &failure, &Of::Read(places), 1).await? {
            progress.at += 1;
            return Ok(());
        }
        let record = held.record.clone();
        let end = self.end_of_attempt(event, &failure, 1);
        if !matches!(end, End::GivenUp) {
            // The event is in the set whatever its end is, so there has to be room.
            while !self.waiting.has_room(record.len()) {
                self.wait_for_room(event.offset).await?;
            }
            self.is_full = false;
        }
        let waiter = self.waiter_of(event, &failure, 1, &end);
        let mut unit = Unit { consumed_to: self.consume(places), ..Unit::default() };
        match end {
            End::GivenUp => {
                unit.emits = self.parts.emitter.dead_letter(event, &failure, 1);
                self.parts.counters.dead_lettered();
            }
            End::Again(pause) => {
                self.parts.counters.retried();
                unit.writes = self.waiting.add(event.key, &waiter, record, Instant::now() + pause);
            }
            End::Parked => unit.writes = self.waiting.add(event.key, &waiter, record, Instant::now()),
            End::Halts => {
                unit.writes = self.waiting.add(event.key, &waiter, record, Instant::now());
                unit.writes.push(self.halt());
            }
        }
        self.show();
        self.commit(unit).await?;
        progress.at += 1;
        Ok(())
    }

    /// Whether a waiting event is for the lane.
    fn passes(&self, event: &Parsed<'_>) -> Result<bool, String> {
        match &self.parts.policy.when {
            None => Ok(true),
            Some(condition) => when::passes(condition, &event.view, Some(event.key)),
        }
    }

    /// Calls what is due.
    pub(super) async fn retry(&mut self) -> Result<(), Leave> {
        let most = self.parts.flow.most(self.parts.policy.batch.max_events);
        let numbers = self.waiting.take_due(Instant::now(), self.together.most().min(most as usize));
        let mut waiters = Vec::with_capacity(numbers.len());
        let mut held = Vec::with_capacity(numbers.len());
        let mut bytes = 0;
        for number in numbers {
            let waiter = get(&self.parts.entries, number)?;
            let record = record(&self.parts.entries, number)?;
            bytes += record.len();
            if bytes > self.parts.policy.batch.max_bytes && !held.is_empty() {
                break;
            }
            let (append_time_ns, trusted_time_ns) = (waiter.append_time_ns, waiter.trusted_time_ns());
            held.push(Held { offset: waiter.offset, append_time_ns, trusted_time_ns, record });
            waiters.push((number, waiter));
        }
        let held = Arc::new(held);
        let events = held.iter().map(Held::parse).collect::<Result<Vec<_>, _>>()?;
        let content_type = content_type(&events);
        let mut count = 0;
        let alike = events.iter().take_while(|event| event.view.content_type.unwrap_or_default() == content_type);
        for (event, waiting) in alike.zip(&waiters) {
            // They are asked again, since another topology may ask for something else.
            match self.passes(event) {
                Ok(true) => count += 1,
                _ if count > 0 => break, // in its own turn
                Ok(false) => {
                    self.parts.counters.passed_over(1);
                    let writes = self.waiting.remove(waiting.0).into_iter().flatten().collect();
                    return Ok(self.commit(Unit { consumed_to: self.position, writes, ..Unit::default() }).await?);
                }
                Err(reason) => {
                    let (failure, attempts) = (LastFailure::of_condition(&reason), waiting.1.attempts + 1);
                    return self.fail_waiting(waiting, (&held, 0), event, failure, attempts).await;
                }
            }
        }
        // Where a call of several breaks at one of them, those before it are called again without it, and it is the first then.
        loop {
            let run = events.get(..count).unwrap_or_default();
            let Some((_, first)) = waiters.first() else { return Ok(()) };
            let attempts = first.attempts + 1;
            let permit = self.admit(run.len()).await?;
            if self.delivers_once_at_most() {
                // Gone first, durably: whatever becomes of the call, it is not made again.
                let called = waiters.iter().take(run.len());
                self.tell(called.flat_map(|(number, _)| gone(*number)).collect()).await?;
            }
            match self.call(permit, &held, 0, run, attempts).await {
                Ok(handled) => {
                    let of = Of::Waiting(waiters.iter().take(count).cloned().collect());
                    let (done, failure) = self.settle(run, handled, &of).await?;
                    let attempts = if done == 0 { attempts } else { 1 };
                    return match (failure, run.get(done), waiters.get(done)) {
                        (Some(failure), Some(event), Some(waiter)) => {
                            self.fail_waiting(waiter, (&held, done), event, failure, attempts).await
                        }
                        _ => Ok(()),
                    };
                }
                Err(HandleError::Instance(error)) => {
                    if self.delivers_once_at_most() {
                        let called = waiters.iter().zip(held.iter()).take(run.len());
                        let writes = called.flat_map(|((number, waiter), held)| kept(*number, waiter, &held.record));
                        self.tell(writes.collect()).await?;
                    }
                    let failure = LastFailure::of_instance(&error);
                    if let (Some(event), Some(waiter)) = (run.first(), waiters.first())
                        && self
                            .proven_handles(&held, 0, event, &failure, &Of::Waiting(vec![waiter.clone()]), attempts)
                            .await?
                    {
                        return Ok(());
                    }
                    return self.without_instance(&error.to_string()).await;
                }
                Err(HandleError::Call(error)) if error.kind == CallErrorKind::State => {
                    return self.without_instance(&error.message).await;
                }
                Err(HandleError::Call(error)) if count > 1 => {
                    count = error.event.map_or(1, |broken| (broken as usize).clamp(1, count - 1));
                }
                Err(HandleError::Call(error)) => {
                    let failure = LastFailure::of_call(error);
                    return match (events.first(), waiters.first()) {
                        (Some(event), Some(waiter)) => {
                            self.fail_waiting(waiter, (&held, 0), event, failure, attempts).await
                        }
                        _ => Ok(()),
                    };
                }
            }
        }
    }

    /// An attempt at a waiting event has failed.
    async fn fail_waiting(
        &mut self,
        waiting: &(u64, Waiter),
        (held, at): (&Arc<Vec<Held>>, usize),
        event: &Parsed<'_>,
        failure: LastFailure,
        attempts: u32,
    ) -> Result<(), Leave> {
        let of = Of::Waiting(vec![waiting.clone()]);
        if self.proven_handles(held, at, event, &failure, &of, attempts).await? {
            return Ok(());
        }
        let (number, before) = waiting;
        let record = held.get(at).map(|held| held.record.clone()).unwrap_or_default();
        let end = self.end_of_attempt(event, &failure, attempts);
        let number = *number;
        let waiter = Waiter { since_ns: before.since_ns, ..self.waiter_of(event, &failure, attempts, &end) };
        let mut unit = Unit { consumed_to: self.position, ..Unit::default() };
        if self.delivers_once_at_most() {
            // it was taken out in front of the call
            unit.writes.extend(kept(number, &waiter, &record));
        }
        match end {
            End::GivenUp => {
                unit.emits = self.parts.emitter.dead_letter(event, &failure, attempts);
                unit.writes.extend(self.waiting.remove(number).into_iter().flatten());
                self.parts.counters.dead_lettered();
            }
            End::Again(pause) => {
                self.parts.counters.retried();
                unit.writes.extend(self.waiting.update(number, &waiter, Instant::now() + pause));
            }
            End::Parked => unit.writes.extend(self.waiting.update(number, &waiter, Instant::now())),
            End::Halts => {
                unit.writes.extend(self.waiting.update(number, &waiter, Instant::now()));
                unit.writes.push(self.halt());
            }
        }
        Ok(self.commit(unit).await?)
    }

    fn halt(&mut self) -> LaneWrite {
        self.told.is_halted = true;
        LaneWrite::put(HALTED, self.stands())
    }

    fn waiter_of(&self, event: &Parsed<'_>, failure: &LastFailure, attempts: u32, end: &End) -> Waiter {
        let now = now_ns();
        let pause = if let End::Again(pause) = end { *pause } else { Duration::ZERO };
        Waiter {
            offset: event.offset,
            append_time_ns: event.append_time_ns,
            trusted_time_ns: event.trusted_time_ns,
            attempts,
            since_ns: now,
            failed_ns: now,
            due_ns: now.saturating_add(u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX)),
            is_parked: matches!(end, End::Parked),
            failure: failure.kind.to_owned(),
            reason: cut(&failure.reason).to_owned(),
            backtrace: failure.backtrace.as_deref().map(|backtrace| cut(backtrace).to_owned()),
            digest: self.parts.emitter.digest.clone(),
        }
    }

    /// What comes of an attempt that failed.
    fn end_of_attempt(&self, event: &Parsed<'_>, failure: &LastFailure, attempts: u32) -> End {
        let Parts { subscriber, partition, counters, backoff, .. } = &*self.parts;
        let (subscriber, id, reason) = (&**subscriber, event.view.id, &failure.reason);
        counters.failed(&format!("event {id}: {reason}"));
        let offset = event.offset;
        if failure.may_pass && attempts < backoff.retry.attempts {
            tracing::warn!(subscriber, partition, offset, event = id, attempts, %reason, "will try again");
            let asked = failure.delay.map(|pause| backoff.asked(pause));
            return End::Again(asked.unwrap_or_else(|| backoff.pause(offset, attempts)));
        }
        self.parts.recorder.save(
            event,
            failure,
            attempts,
            Source {
                subscriber,
                origin: &self.parts.emitter.origin,
                topic: &self.parts.emitter.from,
                partition: *partition,
                digest: &self.parts.emitter.digest,
                wasm_digest: self.taken.version.wasm_digest,
                settings: &self.taken.version.settings,
            },
        );
        match self.on_failure(event, failure) {
            OnFailure::Halt => {
                tracing::error!(subscriber, partition, offset, event = id, attempts, %reason, "the lane halts");
                End::Halts
            }
            // what the handler itself calls hopeless does not get better by being looked at
            OnFailure::Park if failure.kind != "reject" => {
                tracing::warn!(subscriber, partition, offset, event = id, attempts, %reason, "parked");
                End::Parked
            }
            OnFailure::Park | OnFailure::DeadLetter => {
                tracing::warn!(subscriber, partition, offset, event = id, attempts, %reason, "given up");
                End::GivenUp
            }
        }
    }
}

/// What comes of an attempt that failed.
enum End {
    /// Another attempt, after a pause.
    Again(Duration),
    /// Dead letter.
    GivenUp,
    /// It waits until it is released.
    Parked,
    /// The lane halts in front of all others.
    Halts,
}
