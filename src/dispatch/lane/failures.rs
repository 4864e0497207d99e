//! Handling of failed attempts, and retries.
//!
//! ```text
//!   an attempt fails ──┬─ may pass, attempts left ──> into the retry queue, and again after a pause
//!                      └─ finally ─────────────────> dead letter, parked, or the lane halts
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::batch::{BatchEvent, ParsedEvent};
use super::capsule::Source;
use super::failure::{LastFailure, cut};
use super::waiting::{Waiter, kept};
use super::{CallSource, HALTED, Lane, LaneParts, LeaveReason, Progress, ReadBatch};
use crate::engine::{Entries, LaneWrite, Session, Unit};
use crate::topology::OnFailure;

impl<S: Session, K: Entries> Lane<S, K> {
    /// The first attempt at a newly read event has failed: the one at `progress.at`.
    pub(super) async fn fail_read(
        &mut self,
        read: ReadBatch<'_>,
        failure: LastFailure,
        progress: &mut Progress,
    ) -> Result<(), LeaveReason> {
        let Some((held, (event, _))) = read.held.get(progress.at).zip(read.at(progress.at)) else { return Ok(()) };
        let places = read.places_of(progress.at, 1);
        if self.proven_handles(read.held, progress.at, event, &failure, &CallSource::Read(places), 1).await? {
            progress.at += 1;
            return Ok(());
        }
        let record = held.record.clone();
        let end = self.end_of_attempt(event, &failure, 1);
        if !matches!(end, End::GivenUp) {
            // The event goes through the queue whatever its end is, so there has to be room.
            while !self.waiting.has_room(record.len()) {
                self.wait_for_room(event.offset).await?;
            }
            self.is_full = false;
        }
        let waiter = self.waiter_of(event, &failure, 1, &end);
        let mut unit = Unit { consumed_to: self.consume(places), ..Unit::default() };
        match end {
            End::GivenUp => {
                unit.emits = self.parts.emitter.dead_letter(event, &failure, 1, waiter.failed_ns);
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

    /// An attempt at a waiting event has failed.
    pub(super) async fn fail_waiting(
        &mut self,
        waiting: &(u64, Waiter),
        (held, at): (&Arc<Vec<BatchEvent>>, usize),
        event: &ParsedEvent<'_>,
        failure: LastFailure,
        attempts: u32,
    ) -> Result<(), LeaveReason> {
        let of = CallSource::Waiting(std::slice::from_ref(waiting));
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
            // it was deleted before the call
            unit.writes.extend(kept(number, &waiter, &record));
        }
        match end {
            End::GivenUp => {
                unit.emits = self.parts.emitter.dead_letter(event, &failure, attempts, waiter.failed_ns);
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

    fn waiter_of(&self, event: &ParsedEvent<'_>, failure: &LastFailure, attempts: u32, end: &End) -> Waiter {
        let now_ns = self.parts.now_ns();
        let pause = if let End::Again(pause) = end { *pause } else { Duration::ZERO };
        Waiter {
            offset: event.offset,
            append_time_ns: event.append_time_ns,
            trusted_time_ns: event.trusted_time_ns,
            attempts,
            since_ns: now_ns,
            failed_ns: now_ns,
            due_ns: now_ns.saturating_add(u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX)),
            is_parked: matches!(end, End::Parked),
            failure: failure.kind.to_owned(),
            reason: cut(&failure.reason).into_owned(),
            backtrace: failure.backtrace.as_deref().map(|backtrace| cut(backtrace).into_owned()),
            digest: self.parts.emitter.digest.clone(),
        }
    }

    /// Decides what follows a failed attempt.
    fn end_of_attempt(&self, event: &ParsedEvent<'_>, failure: &LastFailure, attempts: u32) -> End {
        let LaneParts { subscriber, partition, counters, backoff, .. } = &*self.parts;
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
                saved_ns: self.parts.now_ns(),
            },
        );
        match self.on_failure(event, failure) {
            OnFailure::Halt => {
                tracing::error!(subscriber, partition, offset, event = id, attempts, %reason, "the lane halts");
                End::Halts
            }
            // looking at an event does not help if the handler itself rejects it
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

/// What follows a failed attempt.
enum End {
    /// Another attempt, after a pause.
    Again(Duration),
    /// Dead letter.
    GivenUp,
    /// It waits until an operator releases it.
    Parked,
    /// The lane halts before any other event.
    Halts,
}
