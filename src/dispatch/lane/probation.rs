//! A lane that calls a candidate: it calls the stable version for each event on which the candidate fails.
//!
//! ```text
//!   candidate fails ──┬─ by time alone ──────────────> normal failure handling: a busy machine proves nothing
//!                     ├─ in `when` ──────────────────> normal failure handling: no version was called
//!                     ├─ at-most-once delivery ──────> normal failure handling: no event is called twice
//!                     ├─ another state version ──────> normal failure handling; a final failure halts the lane instead
//!                     └─ call the stable version ──┬─ handles it: commit that; every lane goes back to it
//!                                                  └─ fails too: the event is the problem: normal failure handling
//! ```

use std::sync::Arc;

use super::batch::{BatchEvent, ParsedEvent};
use super::failure::LastFailure;
use super::versions::{CurrentVersion, TrialFailure};
use super::{CallSource, Lane, LeaveReason};
use crate::engine::{Entries, Session};
use crate::model::call::CallErrorKind;
use crate::topology::OnFailure;

impl<S: Session, K: Entries> Lane<S, K> {
    /// Takes the version to call from now on.
    pub(super) fn take_version(&mut self) {
        if self.taken.is_stale(&self.parts.roster) {
            let before = self.call_with(CurrentVersion::of(&self.parts.roster, self.parts.partition));
            // The last owner of a version frees its instances and its code, which takes a while.
            tokio::task::spawn_blocking(move || drop(before));
        }
    }

    fn call_with(&mut self, taken: CurrentVersion) -> CurrentVersion {
        self.parts.emitter.version = taken.version.number;
        self.parts.emitter.digest = taken.version.digest.to_string();
        std::mem::replace(&mut self.taken, taken)
    }

    /// The called version has failed on the single event `held[at]`. If it is a candidate and the stable version
    /// handles the event, commits that result and ends the trial: returns true, and the event is done.
    pub(super) async fn proven_handles(
        &mut self,
        held: &Arc<Vec<BatchEvent>>,
        at: usize,
        event: &ParsedEvent<'_>,
        failure: &LastFailure,
        of: &CallSource<'_>,
        attempt: u32,
    ) -> Result<bool, LeaveReason> {
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
        tracing::warn!(subscriber, from, back_to, %failure, "the new version failed where the stable one does not: \
            rolled back");
        self.parts.counters.failed(&failure.to_string());
        self.parts.roster.fail(&trial, failure);
        Ok(true)
    }

    fn trial_failure(&self, event: &ParsedEvent<'_>, failure: &LastFailure) -> TrialFailure {
        TrialFailure {
            partition: self.parts.partition,
            offset: event.offset,
            event: event.view.id.to_owned(),
            reason: failure.reason.clone(),
        }
    }

    /// What happens to an event that finally failed: what the topology says, unless the candidate has another state
    /// version than the stable one. Then an operator has to choose the version.
    pub(super) fn on_failure(&self, event: &ParsedEvent<'_>, failure: &LastFailure) -> OnFailure {
        match &self.taken.trial {
            Some(trial) if self.taken.changes_state() => {
                trial.ask(self.trial_failure(event, failure));
                OnFailure::Halt
            }
            _ => self.parts.policy.on_failure,
        }
    }
}
