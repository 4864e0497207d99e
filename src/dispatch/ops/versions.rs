//! Replaces the versions that the lanes of a subscriber call, while they run.

use std::sync::Arc;

use super::error::ControlError;
use crate::api::{OnTrial, SubscriberStatus};
use crate::dispatch::lane::versions::{Assignment, Roster, Terms, Trial, Version};
use crate::dispatch::tree::Tree;
use crate::dispatch::tree::numbered::blueprint;
use crate::engine::{ApplyError, Engine, Stopped};
use crate::model::call::{Handler, PluginSettings};

/// The versions that lanes call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Called {
    /// Hexadecimal digest of the stable version.
    pub proven: String,
    /// Hexadecimal digest of the candidate, and the number of lanes that call it, `None` for all.
    pub tried: Option<(String, Option<u32>)>,
    /// Settings of the newer of the two.
    pub settings: Arc<PluginSettings>,
    /// Whether the newer of the two declares its output ports.
    pub declares_ports: bool,
}

/// Why a version cannot be called.
#[derive(Debug, thiserror::Error)]
pub enum VersionError {
    /// Unknown subscriber.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The engine assigned no number.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

impl Roster {
    /// Adds the versions to a status.
    pub(crate) fn read_into(&self, status: &mut SubscriberStatus) {
        status.digest = self.assignment().proven.digest.to_string();
        status.on_trial = self.on_trial(status.lanes.len() as u32);
        status.reload = self.note();
    }

    /// The progress of the trial, if there is one. The subscriber has `all` lanes.
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

    /// Gets a durable number for a version.
    async fn numbered_version<H: Handler>(&self, handler: H) -> Result<Version, ApplyError> {
        let _alone = self.shared.applying.lock().await;
        let blueprint = blueprint(&self.shared.running().plan, vec![handler.digest()]);
        let numbers = self.shared.engine.apply(&blueprint).await?;
        // the engine returns one number per digest; none means that it has stopped
        let number = numbers.versions.first().copied().ok_or(Stopped::Closed)?;
        Ok(Version::new(handler, number))
    }

    /// Makes all lanes of a subscriber call a version from their next call on, and ends a trial.
    ///
    /// # Errors
    /// [`VersionError`]; nothing has changed then.
    pub async fn run_version<H: Handler>(&self, subscriber: &str, handler: H) -> Result<(), VersionError> {
        let roster = self.roster(subscriber)?;
        roster.replace(self.numbered_version(handler).await?);
        Ok(())
    }

    /// Makes lanes of a subscriber call a version from their next call on, until it fails on an event that the stable
    /// version handles. Ends an earlier trial.
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

    /// The current trial of a subscriber.
    ///
    /// # Errors
    /// [`ControlError::UnknownSubscriber`], [`ControlError::AmbiguousSubscriber`].
    pub fn trial(&self, subscriber: &str) -> Result<Option<Arc<Trial>>, ControlError> {
        Ok(self.roster(subscriber)?.assignment().on_trial.as_ref().map(|on_trial| on_trial.trial.clone()))
    }

    /// The versions that the lanes of a subscriber call.
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

    /// Protects a trial that has met its terms from failing, until it is promoted, released, or over for another
    /// reason. False if it has not met them, or is over.
    ///
    /// # Errors
    /// [`ControlError::UnknownSubscriber`], [`ControlError::AmbiguousSubscriber`].
    pub fn hold_trial(&self, subscriber: &str, trial: &Arc<Trial>) -> Result<bool, ControlError> {
        Ok(self.roster(subscriber)?.hold(trial))
    }

    /// Like [`Self::hold_trial`], whether or not the trial has met its terms.
    ///
    /// # Errors
    /// [`ControlError::UnknownSubscriber`], [`ControlError::AmbiguousSubscriber`].
    pub fn hold_trial_now(&self, subscriber: &str, trial: &Arc<Trial>) -> Result<bool, ControlError> {
        Ok(self.roster(subscriber)?.hold_now(trial))
    }

    /// The progress of a subscriber's trial, if there is one.
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

    /// Ends the protection of [`Self::hold_trial`]; a failure in the meantime takes effect now.
    ///
    /// # Errors
    /// [`ControlError::UnknownSubscriber`], [`ControlError::AmbiguousSubscriber`].
    pub fn release_trial(&self, subscriber: &str, trial: &Arc<Trial>) -> Result<(), ControlError> {
        self.roster(subscriber)?.release(trial);
        Ok(())
    }

    /// Promotes the candidate to the stable version. False if the trial is over.
    ///
    /// # Errors
    /// [`ControlError::UnknownSubscriber`], [`ControlError::AmbiguousSubscriber`].
    pub fn pass_trial(&self, subscriber: &str, trial: &Arc<Trial>) -> Result<bool, ControlError> {
        Ok(self.roster(subscriber)?.pass(trial))
    }

    /// Extends a trial from some lanes to all. `None` if the trial is over.
    ///
    /// # Errors
    /// [`ControlError::UnknownSubscriber`], [`ControlError::AmbiguousSubscriber`].
    pub fn widen_trial(&self, subscriber: &str, trial: &Arc<Trial>) -> Result<Option<Arc<Trial>>, ControlError> {
        Ok(self.roster(subscriber)?.widen(trial))
    }

    /// Makes all lanes of a subscriber call the stable version from their next call on.
    ///
    /// # Errors
    /// [`ControlError::UnknownSubscriber`], [`ControlError::AmbiguousSubscriber`].
    pub fn give_up_trial(&self, subscriber: &str) -> Result<(), ControlError> {
        self.roster(subscriber)?.give_up();
        Ok(())
    }

    /// Sets the note on the last deploy in the status.
    ///
    /// # Errors
    /// [`ControlError::UnknownSubscriber`], [`ControlError::AmbiguousSubscriber`].
    pub fn note_reload(&self, subscriber: &str, note: Option<String>) -> Result<(), ControlError> {
        self.roster(subscriber)?.set_note(note);
        Ok(())
    }
}
