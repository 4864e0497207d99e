//! What a handler has answered becomes units: outputs, state and position of the events that are done, and the
//! retry queue for the others. What is done in which order is in [`settlement`](super::settlement).

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::batch::{BatchEvent, ParsedEvent};
use super::error::LaneError;
use super::failure::LastFailure;
use super::outputs::Fit;
use super::settlement::{SettleStep, UnitEnd};
use super::state::{EventWrites, HandlerState};
use super::waiting::{GONE_BYTES, Waiter, gone};
use super::{CallSource, Lane, LeaveReason, Progress, ReadBatch};
use crate::engine::{Entries, LaneWrite, Session, SessionError, Slices, Unit};
use crate::model::GuardRefusal;
use crate::model::call::{Handled, Output, StateWrite};

impl<S: Session, K: Entries> Lane<S, K> {
    /// Settles the answer to a call with `count` events that were read, from `progress.at` on. Those that are left
    /// are called again.
    pub(super) async fn settle_read(
        &mut self,
        read: ReadBatch<'_>,
        count: usize,
        handled: &Handled,
        progress: &mut Progress,
    ) -> Result<(), LeaveReason> {
        let (start, calls) = (progress.at, self.calls);
        let (run, places) = (read.events.get(start..start + count).unwrap_or_default(), read.places_of(start, count));
        while self.may_settle(calls) {
            let at = progress.at - start;
            // No key of a call is in the retry queue when it begins.
            let is_behind = |of: usize| at > 0 && run.get(of).is_some_and(|event| self.waiting.holds(event.key));
            match SettleStep::next(&handled.verdicts, at, is_behind) {
                None => return Ok(()),
                Some(SettleStep::Commit { end }) => {
                    let (done, refused) = self.settle(run, handled, at..end, &CallSource::Read(places)).await?;
                    progress.at = start + done;
                    if let Some(failure) = refused {
                        return self.fail_read(read, failure, progress).await;
                    }
                }
                Some(SettleStep::Fail) => {
                    let Some(verdict) = handled.verdicts.get(at) else { return Ok(()) };
                    self.fail_read(read, LastFailure::of_verdict(verdict), progress).await?;
                }
                Some(SettleStep::Queue) => {
                    self.queue_read(read, Duration::ZERO, progress).await?;
                    if !writes_of(&handled.writes, at..at + 1).is_empty() {
                        return Ok(()); // later events may have read what is not written now
                    }
                }
                Some(SettleStep::Wait) => {
                    let pause = run.get(at).map_or(Duration::ZERO, |event| self.parts.backoff.pause(event.offset, 1));
                    self.queue_read(read, pause, progress).await?;
                }
                // A handler that does nothing must not be asked without a pause.
                Some(SettleStep::CallAgain) if at == 0 => {
                    return self.without_instance("the handler came to no event").await;
                }
                Some(SettleStep::CallAgain) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Settles the answer to a call with events of one key that wait, the first of them at this attempt. Those
    /// that are left stay in the retry queue.
    pub(super) async fn settle_waiting(
        &mut self,
        waiters: &[(u64, Waiter)],
        (held, run): (&Arc<Vec<BatchEvent>>, &[ParsedEvent<'_>]),
        handled: &Handled,
        attempts: u32,
    ) -> Result<(), LeaveReason> {
        let (mut at, calls) = (0, self.calls);
        while self.may_settle(calls) {
            let Some(((event, waiter), verdict)) = run.get(at).zip(waiters.get(at)).zip(handled.verdicts.get(at))
            else {
                return Ok(());
            };
            let is_behind = at > 0 && !self.waiting.is_first(waiter.0);
            let attempts = if at == 0 { attempts } else { 1 };
            match SettleStep::next(&handled.verdicts, at, |_| is_behind) {
                Some(SettleStep::Commit { end }) => {
                    let (done, refused) = self.settle(run, handled, at..end, &CallSource::Waiting(waiters)).await?;
                    at = done;
                    if let (Some(failure), Some(event), Some(waiter)) = (refused, run.get(at), waiters.get(at)) {
                        let attempts = if at == 0 { attempts } else { 1 };
                        return self.fail_waiting(waiter, (held, at), event, failure, attempts).await;
                    }
                }
                Some(SettleStep::Fail) => {
                    let failure = LastFailure::of_verdict(verdict);
                    self.fail_waiting(waiter, (held, at), event, failure, attempts).await?;
                    at += 1;
                }
                // What was not reached first would be called again without a pause.
                Some(SettleStep::Wait) => return self.postpone(waiter).await,
                Some(SettleStep::Queue | SettleStep::CallAgain) if at == 0 => return self.postpone(waiter).await,
                Some(SettleStep::Queue | SettleStep::CallAgain) | None => return Ok(()),
            }
        }
        Ok(())
    }

    /// Whether the answer to the last of this many calls still counts: a call after it may have written state that
    /// this one has not seen, or have been one of another version.
    fn may_settle(&self, calls: u64) -> bool {
        self.works() && self.calls == calls
    }

    /// The event at `progress.at` goes into the retry queue without a failed attempt, and is called after a pause.
    async fn queue_read(
        &mut self,
        read: ReadBatch<'_>,
        pause: Duration,
        progress: &mut Progress,
    ) -> Result<(), LeaveReason> {
        let Some((held, (event, _))) = read.held.get(progress.at).zip(read.at(progress.at)) else { return Ok(()) };
        while !self.waiting.has_room(held.bytes()) {
            self.wait_for_room(event.offset).await?;
        }
        self.is_full = false;
        let (times, now_ns) = ((event.append_time_ns, event.trusted_time_ns), self.parts.now_ns());
        let waiter = Waiter::new(event.offset, times, now_ns).after(pause, now_ns);
        let writes = self.waiting.add(event.key, &waiter, held.record.clone(), Instant::now() + pause);
        self.show();
        let consumed_to = self.consume(read.places_of(progress.at, 1));
        self.commit(Unit { consumed_to, writes, ..Unit::default() }).await?;
        progress.at += 1;
        Ok(())
    }

    /// An event that waits is called again after a pause, without a failed attempt.
    async fn postpone(&mut self, (number, before): &(u64, Waiter)) -> Result<(), LeaveReason> {
        let pause = self.parts.backoff.pause(before.offset, 1);
        let after = before.clone().after(pause, self.parts.now_ns());
        let writes = self.waiting.update(*number, &after, Instant::now() + pause);
        let writes = writes.into_iter().collect();
        Ok(self.commit(Unit { consumed_to: self.position, writes, ..Unit::default() }).await?)
    }

    /// Commits the events of `range`, which are done, as one unit, as far as they go into one. Where it ends, and
    /// why the next event has failed, where it has.
    pub(super) async fn settle(
        &mut self,
        run: &[ParsedEvent<'_>],
        handled: &Handled,
        Range { start, end }: Range<usize>,
        of: &CallSource<'_>,
    ) -> Result<(usize, Option<LastFailure>), LeaveReason> {
        let (mut slices, fit) = self.emit(run, handled, start..end);
        let (state, state_full) = self.state_entries(run, writes_of(&handled.writes, start..end)).await?;
        let emitted = if let Fit::UpTo(event) | Fit::Refused(event, _) = &fit { *event as usize } else { end };
        let mut unit = UnitEnd::of(end, fit, state_full);
        if unit.end < emitted {
            (slices, _) = self.emit(run, handled, start..unit.end);
        }
        while let Some(shorter) = unit.shorter(start, slices.bytes() + self.written_bytes(&state, start..unit.end, of))
        {
            unit = shorter;
            (slices, _) = self.emit(run, handled, start..unit.end);
        }
        let mut is_whole = true;
        while unit.end > start {
            match self.commit_done(start..unit.end, slices, &state, of).await? {
                None => {
                    if is_whole {
                        self.together.passed(unit.end - start);
                    }
                    break;
                }
                Some(refused) => {
                    // the events before that one are handed in without it
                    is_whole = false;
                    let end = (refused.of as usize).clamp(start, unit.end - 1);
                    unit = UnitEnd { end, refused: Some(refused.why.to_string()) };
                    self.together.refused(end - start);
                    (slices, _) = self.emit(run, handled, start..end);
                }
            }
        }
        Ok((unit.end, unit.refused.map(LastFailure::refused)))
    }

    /// The outputs of some events of a call.
    fn emit(&self, run: &[ParsedEvent<'_>], handled: &Handled, range: Range<usize>) -> (Slices, Fit) {
        self.parts.emitter.emit(run, range.start as u32, outputs_of(&handled.outputs, range))
    }

    /// State as it is kept, and the first event that makes it larger than it may be, with the reason. State that
    /// has expired by then makes room.
    async fn state_entries(
        &mut self,
        run: &[ParsedEvent<'_>],
        writes: &[StateWrite],
    ) -> Result<(EventWrites, Option<(u32, String)>), LeaveReason> {
        let time_ns = |event: u32| run.get(event as usize).map_or(0, |event| event.trusted_time_ns);
        let made = self.state.entries_of(writes, time_ns)?;
        match &made.1 {
            Some((event, _)) if self.remove_expired(time_ns(*event)).await? => {
                Ok(self.state.entries_of(writes, time_ns)?)
            }
            _ => Ok(made),
        }
    }

    /// Bytes of a unit besides its outputs: state, and notes of the lane's own.
    fn written_bytes(&self, state: &EventWrites, range: Range<usize>, of: &CallSource<'_>) -> usize {
        let writes = state.iter().filter(|(event, _)| range.contains(&(*event as usize)));
        let notes = if state.is_empty() { 0 } else { HandlerState::<K>::NOTES_BYTES };
        let gone = if let CallSource::Waiting(_) = of { range.len() * GONE_BYTES } else { 0 };
        writes.map(|(_, write)| self.state.unit_bytes(write)).sum::<usize>() + notes + gone
    }

    /// Commits events that are done as one unit. What a guard has against one of them, where it has: nothing of it
    /// happened then.
    async fn commit_done(
        &mut self,
        range: Range<usize>,
        slices: Slices,
        state: &EventWrites,
        of: &CallSource<'_>,
    ) -> Result<Option<GuardRefusal>, LeaveReason> {
        let of_done = |(event, write): &(u32, LaneWrite)| range.contains(&(*event as usize)).then(|| write.clone());
        let mut writes: Vec<LaneWrite> = state.iter().filter_map(of_done).collect();
        let (position, accounted) = (self.position, self.state.account(&mut writes)?);
        // Counted first: the count is there once the position is seen.
        let (done, emitted) = (range.len() as u64, slices.count() as u64);
        self.parts.counters.handled(done, emitted);
        let (places, waiters) = of.part(range);
        let passed_over = self.passed_over_with(places);
        let consumed_to = if let CallSource::Read(_) = of { self.consume(places) } else { self.position };
        writes.extend(waiters.iter().flat_map(|(number, _)| gone(*number)));
        match self.commit(Unit { consumed_to, emits: slices, writes, ..Unit::default() }).await {
            Ok(()) => {
                waiters.iter().for_each(|(number, _)| drop(self.waiting.remove(*number)));
                if let Some(trial) = &self.taken.trial {
                    trial.add_handled(done);
                }
                Ok(None)
            }
            Err(error) => {
                self.parts.counters.not_handled(done, emitted);
                self.parts.counters.not_passed_over(passed_over);
                match error {
                    LaneError::Session(SessionError::Guard(refused)) if refused.is_for_its_event() => {
                        self.position = position;
                        self.state.take_back(accounted);
                        Ok(Some(refused))
                    }
                    error => Err(error.into()),
                }
            }
        }
    }
}

/// The part of some outputs, which are in the order of events, that is of these events.
fn outputs_of(outputs: &[Output], events: Range<usize>) -> &[Output] {
    let before = |end: usize| outputs.partition_point(|output| (output.event as usize) < end);
    outputs.get(before(events.start)..before(events.end)).unwrap_or_default()
}

/// As [`outputs_of`].
fn writes_of(writes: &[StateWrite], events: Range<usize>) -> &[StateWrite] {
    let before = |end: usize| writes.partition_point(|write| (write.event as usize) < end);
    writes.get(before(events.start)..before(events.end)).unwrap_or_default()
}
