//! The versions of subscribers, for status and lists. Waits for no write.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::{StoredVersion, SubscriberStatus, Summary, VersionRole};
use crate::deploy::compile::Compile;
use crate::deploy::error::ReloadError;
use crate::deploy::record::decided::VersionRecord;
use crate::deploy::reloader::{Reloader, Subject};
use crate::deploy::versions::source;
use crate::engine::Engine;

impl<E: Engine, C: Compile> Reloader<E, C> {
    /// Adds the decided versions to the statuses of subscribers.
    pub fn tell(&self, statuses: &mut [SubscriberStatus]) {
        let (shown, subjects) = (self.shown(), self.all());
        let subjects: BTreeMap<_, _> = subjects.iter().map(|subject| (&subject.name, subject)).collect();
        for status in statuses {
            let Some(decided) = shown.0.subscribers.get(&status.name) else { continue };
            status.is_pinned = decided.is_pinned;
            let settings = subjects.get(&status.name).map(|subject| source::settings(&subject.plan()));
            status.other_settings = settings.and_then(|settings| decided.other_settings(settings, &status.name));
        }
    }

    /// A summary of the versions of every subscriber.
    pub fn list(&self) -> Vec<Summary> {
        let shown = self.shown();
        let summary = |subject: &Subject| {
            let decided = shown.0.subscribers.get(&subject.name)?;
            Some(Summary {
                subscriber: subject.name.clone(),
                proven: decided.proven,
                tried: decided.tried.map(|tried| tried.version),
                is_pinned: decided.is_pinned,
                kept: decided.kept.len() as u64,
            })
        };
        let runs = |subject: &Arc<Subject>| self.running(subject).is_ok();
        self.all().iter().filter(|subject| runs(subject)).filter_map(|subject| summary(subject)).collect()
    }

    /// Number of reloads of a subscriber that run or wait.
    ///
    /// # Errors
    /// [`ReloadError::Control`].
    pub fn waiting(&self, subscriber: &str) -> Result<usize, ReloadError> {
        Ok(self.subject(subscriber)?.1.queue.len())
    }

    /// The stored versions of a subscriber, the latest last.
    ///
    /// # Errors
    /// [`ReloadError::Control`].
    pub fn versions(&self, subscriber: &str) -> Result<Vec<StoredVersion>, ReloadError> {
        let (_, subject) = self.subject(subscriber)?;
        let shown = self.shown();
        let Some(decided) = shown.0.subscribers.get(&subject.name) else { return Ok(Vec::new()) };
        let on_trial = self.running(&subject)?.versions().on_trial();
        let trial = |kept: &VersionRecord| on_trial.clone().filter(|trial| trial.digest == kept.version.to_string());
        let back_to = match decided.tried {
            Some(_) => Some(decided.proven),
            None => decided.before.last().copied(),
        };
        let version = |kept: &VersionRecord| StoredVersion {
            version: kept.version,
            wasm: kept.wasm,
            standing: match () {
                () if decided.tried.is_some_and(|tried| tried.version == kept.version) => VersionRole::Tried,
                () if decided.proven == kept.version => VersionRole::Proven,
                () if kept.taken_back.is_some() => VersionRole::TakenBack,
                () => VersionRole::Kept,
            },
            is_next_back: back_to == Some(kept.version),
            cause: kept.cause.clone(),
            decided_ns: kept.decided_ns,
            taken_back: kept.taken_back.clone(),
            trial: trial(kept),
        };
        Ok(decided.kept.iter().map(version).collect())
    }
}
