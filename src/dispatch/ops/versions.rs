//! Changing the version that a subscriber's lanes call, while they run.

use std::sync::Arc;

use super::error::ControlError;
use crate::api::{OnTrial, SubscriberStatus};
use crate::dispatch::lane::versions::{Assignment, Roster, Terms, Trial, Version};
use crate::dispatch::tree::Tree;
use crate::dispatch::tree::numbered::blueprint;
use crate::engine::{ApplyError, Engine, Stopped};
use crate::model::call::{Handler, PluginSettings};

/// What lanes call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Called {
    /// The digest of the proven version, hexadecimal.
    pub proven: String,
    /// That of the one on trial, and how many lanes call it, `None` for all.
    pub tried: Option<(String, Option<u32>)>,
    /// What the newer of them was made with.
    pub settings: Arc<PluginSettings>,
    /// Whether the newer of them says which outputs it has.
    pub declares_ports: bool,
}

/// Why a version is not called.
#[derive(Debug, thiserror::Error)]
pub enum VersionError {
    /// There is no such subscriber.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// It gets no number.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

impl Roster {
    /// Puts what it says into a status.
    pub(crate) fn read_into(&self, status: &mut SubscriberStatus) {
        status.digest = self.assignment().proven.digest.to_string();
        status.on_trial = self.on_trial(status.lanes.len() as u32);
        status.reload = self.note();
    }

    /// How the trial goes, if there is one. The subscriber has `all` lanes.
    fn on_trial(&self, all: u32) -> Option<OnTrial> {
        let assignment = self.assignment();
        let on_trial = assignment.on_trial.as_ref()?;
        let lanes = on_trial.trial.terms().lanes.map_or(all, |lanes| lanes.min(all));
        Some(OnTrial { digest: on_trial.version.digest.to_string(), lanes, ..OnTrial::of(&on_trial.trial) })
    }
}

impl<E: Engine> Tree<E> {
    fn roster(&self, subscriber: &str) -> Result<Arc<Roster>, ControlError> {
        let unknown = || ControlError::UnknownSubscriber { subscriber: subscriber.to_owned(), nearest: None };
        let found = self.subscriber(subscriber)?;
        Ok(found.running.branches.get(found.index).ok_or_else(unknown)?.roster.clone())
    }

    /// Gives a version a number that lasts.
    async fn numbered_version<H: Handler>(&self, handler: H) -> Result<Version, ApplyError> {
        let _alone = self.shared.applying.lock().await;
        let blueprint = blueprint(&self.shared.running().plan, vec![handler.digest()]);
        let numbers = self.shared.engine.apply(&blueprint).await?;
        // one for each that is asked for; an engine that gives none is one that gives nothing any more
        let number = numbers.versions.first().copied().ok_or(Stopped::Closed)?;
        Ok(Version::new(handler, number))
    }

    /// Has all lanes of a subscriber call a version from their next call on. A trial is over.
    ///
    /// # Errors
    /// [`VersionError`]; nothing has changed then.
    pub async fn run_version<H: Handler>(&self, subscriber: &str, handler: H) -> Result<(), VersionError> {
        let roster = self.roster(subscriber)?;
        roster.replace(self.numbered_version(handler).await?);
        Ok(())
    }

    /// Has lanes of a subscriber call a version from their next call on, for as long as it does not fail on an event that
    /// the proven version handles. Another trial is over.
    ///
    /// # Errors
    /// [`VersionError`]; nothing has changed then.
    pub async fn try_version<H: Handler>(
        &self,
        subscriber: &str,
        handler: H,
        terms: Terms,
    ) -> Result<Arc<Trial>, VersionError> {
        let roster = self.roster(subscriber)?;
        Ok(roster.try_version(self.numbered_version(handler).await?, terms))
    }

    /// The trial of a subscriber that goes on.
    ///
    /// # Errors
    /// [`ControlError::UnknownSubscriber`], [`ControlError::AmbiguousSubscriber`].
    pub fn trial(&self, subscriber: &str) -> Result<Option<Arc<Trial>>, ControlError> {
        Ok(self.roster(subscriber)?.assignment().on_trial.as_ref().map(|on_trial| on_trial.trial.clone()))
    }

    /// What lanes of a subscriber call.
    ///
    /// # Errors
    /// [`ControlError::UnknownSubscriber`], [`ControlError::AmbiguousSubscriber`].
    pub fn called(&self, subscriber: &str) -> Result<Called, ControlError> {
        let assignment = self.roster(subscriber)?.assignment();
        let Assignment { proven, on_trial } = &*assignment;
        let tried =
            on_trial.as_ref().map(|on_trial| (on_trial.version.digest.to_string(), on_trial.trial.terms().lanes));
        let newest = on_trial.as_ref().map_or(proven, |on_trial| &on_trial.version);
        let (settings, declares_ports) = (newest.settings.clone(), newest.declares_ports);
        Ok(Called { proven: proven.digest.to_string(), tried, settings, declares_ports })
    }

    /// A trial that has done enough cannot fail from here on, until it passes, is released, or is over for another reason. False
    /// where it has not done enough, or was over before.
    ///
    /// # Errors
    /// [`ControlError::UnknownSubscriber`], [`ControlError::AmbiguousSubscriber`].
    pub fn hold_trial(&self, subscriber: &str, trial: &Arc<Trial>) -> Result<bool, ControlError> {
        Ok(self.roster(subscriber)?.hold(trial))
    }

    /// As [`Self::hold_trial`], whether or not it has done enough.
    ///
    /// # Errors
    /// [`ControlError::UnknownSubscriber`], [`ControlError::AmbiguousSubscriber`].
    pub fn hold_trial_now(&self, subscriber: &str, trial: &Arc<Trial>) -> Result<bool, ControlError> {
        Ok(self.roster(subscriber)?.hold_now(trial))
    }

    /// How the trial of a subscriber goes, if there is one.
    ///
    /// # Errors
    /// [`ControlError::UnknownSubscriber`], [`ControlError::AmbiguousSubscriber`].
    pub fn on_trial(&self, subscriber: &str) -> Result<Option<OnTrial>, ControlError> {
        let roster = self.roster(subscriber)?;
        let found = self.subscriber(subscriber)?;
        let plan = &found.running.plan;
        let lanes = plan.subscribers.get(found.index).map_or(0, |of| plan[of.from].partitions);
        Ok(roster.on_trial(lanes))
    }

    /// A trial that was held can fail again: what it failed on meanwhile counts.
    ///
    /// # Errors
    /// [`ControlError::UnknownSubscriber`], [`ControlError::AmbiguousSubscriber`].
    pub fn release_trial(&self, subscriber: &str, trial: &Arc<Trial>) -> Result<(), ControlError> {
        self.roster(subscriber)?.release(trial);
        Ok(())
    }

    /// A version on trial is the proven one from now on. False where the trial was over before.
    ///
    /// # Errors
    /// [`ControlError::UnknownSubscriber`], [`ControlError::AmbiguousSubscriber`].
    pub fn pass_trial(&self, subscriber: &str, trial: &Arc<Trial>) -> Result<bool, ControlError> {
        Ok(self.roster(subscriber)?.pass(trial))
    }

    /// A version that is on trial in some lanes is tried in all of them. None where the trial was over before.
    ///
    /// # Errors
    /// [`ControlError::UnknownSubscriber`], [`ControlError::AmbiguousSubscriber`].
    pub fn widen_trial(&self, subscriber: &str, trial: &Arc<Trial>) -> Result<Option<Arc<Trial>>, ControlError> {
        Ok(self.roster(subscriber)?.widen(trial))
    }

    /// Has all lanes of a subscriber call the proven version from their next call on.
    ///
    /// # Errors
    /// [`ControlError::UnknownSubscriber`], [`ControlError::AmbiguousSubscriber`].
    pub fn give_up_trial(&self, subscriber: &str) -> Result<(), ControlError> {
        self.roster(subscriber)?.give_up();
        Ok(())
    }

    /// Says in the status what became of the last reload.
    ///
    /// # Errors
    /// [`ControlError::UnknownSubscriber`], [`ControlError::AmbiguousSubscriber`].
    pub fn note_reload(&self, subscriber: &str, note: Option<String>) -> Result<(), ControlError> {
        self.roster(subscriber)?.set_note(note);
        Ok(())
    }
}
