//! Replaces the versions that the lanes of a subscriber call, while they run.

use std::sync::Arc;

use super::subscriber::Subscriber;
use crate::api::{SubscriberStatus, TrialStatus};
use crate::dispatch::lane::versions::{Assignment, Terms, Trial, Version, VersionSlot};
use crate::dispatch::tree::numbered::blueprint;
use crate::engine::{ApplyError, Engine, StopReason};
use crate::model::call::{Handler, PluginSettings};

/// The versions that lanes call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurrentVersions {
    /// Hexadecimal digest of the stable version.
    pub proven: String,
    /// Hexadecimal digest of the candidate, and the number of lanes that call it, `None` for all.
    pub tried: Option<(String, Option<u32>)>,
    /// Settings of the newer of the two.
    pub settings: Arc<PluginSettings>,
    /// Whether the newer of the two declares its output ports.
    pub declares_ports: bool,
    /// Whether the stable version can be called.
    pub is_available: bool,
    /// Whether it cannot only because it is being compiled.
    pub is_compiling: bool,
}

impl VersionSlot {
    /// Adds the versions to a status.
    pub(crate) fn read_into(&self, status: &mut SubscriberStatus) {
        status.digest = self.assignment().proven.digest.to_string();
        status.on_trial = self.on_trial(status.lanes.len() as u32);
        status.reload = self.note();
    }

    /// The progress of the trial, if there is one. The subscriber has `all` lanes.
    fn on_trial(&self, all: u32) -> Option<TrialStatus> {
        let assignment = self.assignment();
        let on_trial = assignment.on_trial.as_ref()?;
        let lanes = on_trial.trial.terms().lanes.map_or(all, |lanes| lanes.min(all));
        Some(TrialStatus { digest: on_trial.version.digest.to_string(), lanes, ..TrialStatus::of(&on_trial.trial) })
    }
}

/// The versions that the lanes of a subscriber call.
pub struct Versions<'a, E>(&'a Subscriber<E>);

impl<E: Engine> Subscriber<E> {
    /// The versions that its lanes call.
    pub fn versions(&self) -> Versions<'_, E> {
        Versions(self)
    }
}

impl<E: Engine> Versions<'_, E> {
    fn roster(&self) -> &VersionSlot {
        &self.0.branch.roster
    }

    /// Gets a durable number for a version.
    async fn numbered<H: Handler>(&self, handler: H) -> Result<Version, ApplyError> {
        let shared = &self.0.tree.shared;
        let _alone = shared.applying.lock().await;
        let blueprint = blueprint(&shared.running().plan, vec![handler.digest()]);
        let numbers = shared.engine.apply(&blueprint).await?;
        // the engine returns one number per digest; none means that it has stopped
        let number = numbers.versions.first().copied().ok_or(StopReason::Closed)?;
        Ok(Version::new(handler, number))
    }

    /// Makes all lanes call a version from their next call on, and ends a trial.
    ///
    /// # Errors
    /// [`ApplyError`]: the engine assigned no number; nothing has changed then.
    pub async fn run<H: Handler>(&self, handler: H) -> Result<(), ApplyError> {
        self.roster().replace(self.numbered(handler).await?);
        Ok(())
    }

    /// Makes lanes call a stable version and a candidate from their next call on. Both change in one step, since the
    /// stable version may be unable to read the state of the candidate. Ends an earlier trial.
    ///
    /// # Errors
    /// [`ApplyError`]: the engine assigned no numbers; nothing has changed then.
    pub async fn run_with_trial<H: Handler>(
        &self,
        handler: H,
        (candidate, terms): (impl Handler, Terms),
    ) -> Result<Arc<Trial>, ApplyError> {
        let (proven, candidate) = (self.numbered(handler).await?, self.numbered(candidate).await?);
        Ok(self.roster().replace_both(proven, candidate, terms))
    }

    /// Makes lanes call a version from their next call on, until it fails on an event that the stable version handles.
    /// Ends an earlier trial.
    ///
    /// # Errors
    /// [`ApplyError`]: the engine assigned no number; nothing has changed then.
    pub async fn run_on_trial<H: Handler>(&self, handler: H, terms: Terms) -> Result<Arc<Trial>, ApplyError> {
        Ok(self.roster().try_version(self.numbered(handler).await?, terms))
    }

    /// The current trial.
    pub fn trial(&self) -> Option<Arc<Trial>> {
        self.roster().assignment().on_trial.as_ref().map(|on_trial| on_trial.trial.clone())
    }

    /// The versions that the lanes call.
    pub fn called(&self) -> CurrentVersions {
        let assignment = self.roster().assignment();
        let Assignment { proven, on_trial } = &*assignment;
        let tried =
            on_trial.as_ref().map(|on_trial| (on_trial.version.digest.to_string(), on_trial.trial.terms().lanes));
        let newest = on_trial.as_ref().map_or(proven, |on_trial| &on_trial.version);
        let (settings, declares_ports) = (newest.settings.clone(), newest.declares_ports);
        let (is_available, is_compiling) = (proven.unavailable.is_none(), proven.is_compiling);
        CurrentVersions {
            proven: proven.digest.to_string(),
            tried,
            settings,
            declares_ports,
            is_available,
            is_compiling,
        }
    }

    /// Protects a trial that has met its terms from failing, until it is promoted, released, or over for another
    /// reason. False if it has not met them, or is over.
    pub fn hold_trial(&self, trial: &Arc<Trial>) -> bool {
        self.roster().hold(trial)
    }

    /// Like [`Self::hold_trial`], whether or not the trial has met its terms.
    pub fn hold_trial_now(&self, trial: &Arc<Trial>) -> bool {
        self.roster().hold_now(trial)
    }

    /// The progress of the trial, if there is one.
    pub fn on_trial(&self) -> Option<TrialStatus> {
        self.roster().on_trial(self.0.partitions())
    }

    /// Ends the protection of [`Self::hold_trial`]; a failure in the meantime takes effect now.
    pub fn release_trial(&self, trial: &Arc<Trial>) {
        self.roster().release(trial);
    }

    /// Promotes the candidate to the stable version. False if the trial is over.
    pub fn pass_trial(&self, trial: &Arc<Trial>) -> bool {
        self.roster().pass(trial)
    }

    /// Extends a trial from some lanes to all. `None` if the trial is over.
    pub fn widen_trial(&self, trial: &Arc<Trial>) -> Option<Arc<Trial>> {
        self.roster().widen(trial)
    }

    /// Makes all lanes call the stable version from their next call on.
    pub fn give_up_trial(&self) {
        self.roster().give_up();
    }

    /// Sets the note on the last deploy in the status.
    pub fn note_reload(&self, note: Option<String>) {
        self.roster().set_note(note);
    }
}
