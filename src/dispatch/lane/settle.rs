//! Outputs, state and position of what was handled, as one unit.

use super::batch::Parsed;
use super::error::LaneError;
use super::failure::LastFailure;
use super::outputs::Fit;
use super::state::LaneState as HandlerState;
use super::waiting::{GONE_BYTES, gone};
use super::{Lane, Leave, Of};
use crate::engine::{Entries, LaneWrite, Session, SessionError, Unit};
use crate::limits;
use crate::model::call::{Action, Handled};

impl<S: Session, K: Entries> Lane<S, K> {
    /// Commits what was handled. How many events that were, and why the next one failed, where it did.
    pub(super) async fn settle(
        &mut self,
        run: &[Parsed<'_>],
        handled: Handled,
        of: &Of<'_>,
    ) -> Result<(usize, Option<LastFailure>), Leave> {
        let (mut slices, mut fit) = self.parts.emitter.emit(run, &handled.outputs);
        let time_ns = |event: u32| run.get(event as usize).map_or(0, |event| event.trusted_time_ns);
        let (mut state, mut too_much) = self.state.entries_of(&handled.writes, time_ns)?;
        if let Some((event, _)) = too_much
            && self.remove_expired(time_ns(event)).await?
        {
            (state, too_much) = self.state.entries_of(&handled.writes, time_ns)?;
        }
        if let Some((event, reason)) = too_much {
            let is_first = match &fit {
                Fit::All => true,
                Fit::UpTo(other) | Fit::Refused(other, _) => event <= *other,
            };
            if is_first {
                let in_front = handled.outputs.iter().filter(|output| output.event < event);
                let in_front: Vec<_> = in_front.cloned().collect();
                (slices, _) = self.parts.emitter.emit(run, &in_front);
                fit = Fit::Refused(event, reason);
            }
        }
        let done_by_handler = handled.failed.as_ref().map_or(run.len(), |failed| failed.event as usize);
        let mut done = match &fit {
            Fit::All => done_by_handler,
            Fit::UpTo(event) | Fit::Refused(event, _) => (*event as usize).min(done_by_handler),
        };
        // Outputs and state are bounded each; a unit has both, and notes of the lane's own.
        let written = |done: usize| -> usize {
            let writes = state.iter().filter(|(event, _)| (*event as usize) < done);
            let notes = if state.is_empty() { 0 } else { HandlerState::<K>::NOTES_BYTES };
            let gone = if let Of::Waiting(_) = of { done * GONE_BYTES } else { 0 };
            writes.map(|(_, write)| self.state.unit_bytes(write)).sum::<usize>() + notes + gone
        };
        while done > 0 && slices.bytes() + written(done) > limits::UNIT_BYTES_MAX {
            if done == 1 {
                let (bytes, max) = (slices.bytes() + written(1), limits::UNIT_BYTES_MAX);
                let reason = format!("its outputs and its state are {bytes} bytes together, a unit may have {max}");
                fit = Fit::Refused(0, reason);
                done = 0;
                break;
            }
            done /= 2;
            let in_front: Vec<_> =
                handled.outputs.iter().filter(|output| (output.event as usize) < done).cloned().collect();
            (slices, _) = self.parts.emitter.emit(run, &in_front);
            fit = Fit::UpTo(done as u32);
        }
        let mut is_whole = true;
        while done > 0 {
            let of_done = |(event, write): &(u32, LaneWrite)| ((*event as usize) < done).then(|| write.clone());
            let mut writes: Vec<LaneWrite> = state.iter().filter_map(of_done).collect();
            let (position, accounted) = (self.position, self.state.account(&mut writes)?);
            // Counted first, so that whoever sees the position has seen it counted.
            let emitted = slices.count() as u64;
            self.parts.counters.handled(done as u64, emitted);
            let places = if let Of::Read(places) = of { places.get(..done).unwrap_or_default() } else { &[] };
            let passed_over = self.passed_over_with(places);
            let consumed_to = match of {
                Of::Read(_) => self.consume(places),
                Of::Waiting(waiters) => {
                    writes.extend(waiters.iter().take(done).flat_map(|(number, _)| gone(*number)));
                    self.position
                }
            };
            match self.commit(Unit { consumed_to, emits: slices, writes, ..Unit::default() }).await {
                Ok(()) => {
                    if let Of::Waiting(waiters) = of {
                        waiters.iter().take(done).for_each(|(number, _)| drop(self.waiting.remove(*number)));
                    }
                    if let Some(trial) = &self.taken.trial {
                        trial.add_handled(done as u64);
                    }
                    if is_whole {
                        self.together.passed(done);
                    }
                    break;
                }
                Err(error) => {
                    // nothing of it happened
                    self.parts.counters.not_handled(done as u64, emitted);
                    self.parts.counters.not_passed_over(passed_over);
                    let refused = match error {
                        LaneError::Session(SessionError::Guard(refused)) if refused.is_for_its_event() => refused,
                        error => return Err(error.into()),
                    };
                    // what is in front of that event is handed in without it
                    (self.position, done) = (position, (refused.of as usize).min(done - 1));
                    self.together.refused(done);
                    is_whole = false;
                    self.state.take_back(accounted);
                    let in_front = handled.outputs.iter().filter(|output| output.event < refused.of);
                    let in_front: Vec<_> = in_front.cloned().collect();
                    (slices, _) = self.parts.emitter.emit(run, &in_front);
                    fit = Fit::Refused(refused.of, refused.why.to_string());
                }
            }
        }
        let failure = match (fit, handled.failed) {
            (Fit::Refused(_, reason), _) => {
                Some(LastFailure { kind: "refused", reason, backtrace: None, may_pass: false, delay: None })
            }
            (Fit::UpTo(_), _) | (Fit::All, None) => None,
            (Fit::All, Some(failed)) => {
                let (kind, may_pass, delay) = match failed.action {
                    Action::Retry(delay) => ("retry", true, delay),
                    Action::Reject => ("reject", false, None),
                };
                Some(LastFailure { kind, reason: failed.reason, backtrace: None, may_pass, delay })
            }
        };
        Ok((done, failure))
    }
}
