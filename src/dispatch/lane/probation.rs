//! A lane on a version that is on trial: it asks the proven one about each event that the new one fails on.
//!
//! ```text
//!   new fails ──┬─ by time alone ───────────────> the failure way: a machine that is busy proves nothing
//!               ├─ delivered once at most ──────> the failure way: no event is called twice
//!               ├─ state of another version ────> the failure way; what would be given up halts the lane instead
//!               └─ ask the proven one ──┬─ handles it: commit that; every lane goes back to it
//!                                       └─ fails too: the event is the problem: the failure way
//! ```

use std::sync::Arc;

use super::batch::{Held, Parsed};
use super::failure::LastFailure;
use super::versions::{Taken, TrialFailure};
use super::{Lane, Leave, Of};
use crate::engine::{Entries, Session};
use crate::model::call::CallErrorKind;
use crate::topology::OnFailure;

impl<S: Session, K: Entries> Lane<S, K> {
    /// Looks which version is to be called from now on.
    pub(super) fn take_version(&mut self) {
        if self.taken.is_stale(&self.parts.roster) {
            let before = self.call_with(Taken::of(&self.parts.roster, self.parts.partition));
            // Whoever lets go of a version last takes its instances and its code down, which takes a while.
            tokio::task::spawn_blocking(move || drop(before));
        }
    }

    fn call_with(&mut self, taken: Taken) -> Taken {
        self.parts.emitter.version = taken.version.number;
        self.parts.emitter.digest = taken.version.digest.to_string();
        std::mem::replace(&mut self.taken, taken)
    }

    /// The version that was called has failed on an event alone, `held[at]`. Where it is on trial and the proven one handles
    /// the event, that is committed, and the trial is over: true, and the event is done.
    pub(super) async fn proven_handles(
        &mut self,
        held: &Arc<Vec<Held>>,
        at: usize,
        event: &Parsed<'_>,
        failure: &LastFailure,
        of: &Of<'_>,
        attempt: u32,
    ) -> Result<bool, Leave> {
        let Some(trial) = self.taken.trial.clone() else { return Ok(false) };
        let is_telling = ![CallErrorKind::Timeout.as_str(), LastFailure::OF_CONDITION].contains(&failure.kind);
        if !is_telling || self.taken.changes_state() || self.delivers_once_at_most() {
            return Ok(false);
        }
        let permit = self.admit(1).await?;
        let (on_trial, recorded) = (self.call_with(self.taken.without_trial()), self.parts.recorder.take());
        let run = std::slice::from_ref(event);
        let is_handled = match self.call_taken(permit, held, at, run, attempt).await {
            Ok(handled) if handled.unfinished().is_none() => {
                matches!(self.settle(run, &handled, 0..1, of).await?, (1, None))
            }
            Ok(_) | Err(_) => false,
        };
        if !is_handled {
            self.call_with(on_trial);
            self.parts.recorder.put_back(recorded);
            return Ok(false);
        }
        let failure = self.trial_failure(event, failure);
        let (subscriber, from, back_to) =
            (&*self.parts.subscriber, &*on_trial.version.digest, &*self.taken.version.digest);
        tracing::warn!(subscriber, from, back_to, %failure, "the new version failed where the stable one does not: rolled back");
        self.parts.counters.failed(&failure.to_string());
        self.parts.roster.fail(&trial, failure);
        Ok(true)
    }

    fn trial_failure(&self, event: &Parsed<'_>, failure: &LastFailure) -> TrialFailure {
        TrialFailure {
            partition: self.parts.partition,
            offset: event.offset,
            event: event.view.id.to_owned(),
            reason: failure.reason.clone(),
        }
    }

    /// What becomes of an event that has failed for the last time: what the topology says, unless the version on trial keeps
    /// state of another version than the proven one. Then somebody has to say which of them goes on.
    pub(super) fn on_failure(&self, event: &Parsed<'_>, failure: &LastFailure) -> OnFailure {
        match &self.taken.trial {
            Some(trial) if self.taken.changes_state() => {
                trial.ask(self.trial_failure(event, failure));
                OnFailure::Halt
            }
            _ => self.parts.policy.on_failure,
        }
    }
}
