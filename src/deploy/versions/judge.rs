//! Ends trials: the candidate becomes stable, is extended to all lanes, or is rolled back, durably.
//!
//! ```text
//!   enough ──> held: cannot fail ──> record ──┬─ stored ─────> stable, or candidate in all lanes
//!     ^                                       └─ not stored ─> released: failures meanwhile count ──┐
//!     └──────────────────────────────────── after a pause ──────────────────────────────────────────┘
//!   its time limit is reached: that is enough
//!   failed: lanes have already returned ──> record, repeated until stored, or until another version comes
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::api::Digest;
use crate::deploy::compile::Compile;
use crate::deploy::error::ReloadError;
use crate::deploy::reloader::{Reloader, Subject};
use crate::deploy::versions::shown_time;
use crate::dispatch::{Trial, Verdict};
use crate::engine::Engine;

/// The result of a trial that had enough.
enum TrialResult {
    Proven,
    Widened(Arc<Trial>),
    Over,
    NotKept,
}

/// Pauses before another attempt to store the end of a trial, each twice the previous one.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(60);

impl<E: Engine, C: Compile> Reloader<E, C> {
    /// Starts a task that waits for the end of a trial and completes it.
    pub(crate) fn judge(&self, index: usize, trial: Arc<Trial>) {
        let (reloader, closing) = (self.clone(), self.shared.closing.clone());
        let judging = async move {
            tokio::select! {
                () = closing.cancelled() => {}
                () = reloader.judged(index, trial) => {}
            }
        };
        self.shared.tasks.spawn_on(judging, &self.shared.runtime);
    }

    async fn judged(&self, index: usize, mut trial: Arc<Trial>) {
        let Ok(subject) = self.at(index) else { return };
        loop {
            let mut pause = PAUSE_MIN;
            let (mut passes, ends) = (trial.passes_at(), trial.ends_at());
            let mut verdicts = trial.verdict();
            let next = loop {
                let verdict = verdicts.borrow_and_update().clone();
                match &verdict {
                    Verdict::Over => return,
                    Verdict::Failed(failure) => return self.take_back(&subject, &trial, &failure.to_string()).await,
                    Verdict::Enough if Instant::now() >= passes => match self.passes(&subject, &trial).await {
                        TrialResult::Proven => return,
                        TrialResult::Widened(next) => break next,
                        TrialResult::Over => {} // meanwhile; its verdict says how
                        TrialResult::NotKept => {
                            passes = Instant::now() + pause;
                            pause = (2 * pause).min(PAUSE_MAX);
                        }
                    },
                    Verdict::Asks(failure) => {
                        let words = format!(
                            "a lane has halted and asks: the new version keeps state of another version, and failed on \
                             {failure}; say `wattle plugin promote {name}` to stay with it, or `wattle plugin rollback \
                             {name}` to go back, on the state as it is, and then `wattle resume {name}`",
                            name = subject.name
                        );
                        tracing::error!(subscriber = subject.name, "{words}");
                        self.note(&subject, Some(words));
                    }
                    Verdict::Open if Instant::now() >= ends => {
                        trial.has_lasted();
                        continue;
                    }
                    Verdict::Open | Verdict::Enough | Verdict::Passing(_) => {}
                }
                tokio::select! {
                    changed = verdicts.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep_until(passes), if verdict == Verdict::Enough => {}
                    () = tokio::time::sleep_until(ends), if verdict == Verdict::Open => {}
                }
            };
            trial = next;
        }
    }

    /// Rolls back a failed candidate, which no lane calls any more.
    async fn take_back(&self, subject: &Subject, trial: &Trial, why: &str) {
        let mut pause = PAUSE_MIN;
        while let Err(error) = self.taken_back(subject, trial, why).await {
            self.not_kept(subject, &error);
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(PAUSE_MAX);
        }
    }

    async fn taken_back(&self, subject: &Subject, trial: &Trial, why: &str) -> Result<(), ReloadError> {
        let _turn = subject.turn.lock().await;
        let (name, version, words) = (subject.name.clone(), trial.version().to_owned(), why.to_owned());
        let decided = self.blocking(move |reloader| {
            if reloader.shared.tree.subscriber(&name).is_ok_and(|running| running.versions().trial().is_some()) {
                return Ok(None); // another candidate, or a new trial of this one
            }
            let mut store = reloader.store();
            let tried = store.decided(&name).and_then(|decided| decided.tried);
            let Some(tried) = tried.filter(|tried| tried.version.to_string() == version) else { return Ok(None) };
            let now_ns = store.clock().now_ns();
            store.decide(&name, |decided| decided.take_back_trial(&words, now_ns))?;
            Ok(Some(tried.version))
        });
        if let Some(version) = decided.await? {
            let digest = version.short();
            tracing::warn!(
                subscriber = subject.name,
                digest,
                why,
                "rolled back; it is not tried again until its file changes"
            );
            self.note(
                subject,
                Some(format!(
                    "{digest} was rolled back at {}: it failed on {why}, where the version before did not",
                    shown_time(self.shared.clock.now_ns())
                )),
            );
        }
        Ok(())
    }

    /// Completes a trial with enough events: the candidate becomes stable, or is extended to all lanes. It cannot fail
    /// while that is stored.
    async fn passes(&self, subject: &Subject, trial: &Arc<Trial>) -> TrialResult {
        let _turn = subject.turn.lock().await;
        let Ok(running) = self.running(subject) else { return TrialResult::Over };
        let versions = running.versions();
        if !versions.hold_trial(trial) {
            return TrialResult::Over;
        }
        let goes_on = trial.terms().lanes.is_some();
        let (name, version) = (subject.name.clone(), trial.version().to_owned());
        let now_ns = self.shared.clock.now_ns();
        let decided = self.blocking(move |reloader| {
            let mut store = reloader.store();
            let tried = store.decided(&name).and_then(|decided| decided.tried);
            let Some(tried) = tried.filter(|tried| tried.version.to_string() == version) else { return Ok(None) };
            store.decide(&name, |decided| match goes_on {
                true => decided.widen_trial(now_ns),
                false => decided.prove(tried.version),
            })?;
            Ok(Some(tried.version.short()))
        });
        let digest = match decided.await {
            Ok(Some(digest)) => digest,
            Ok(None) => {
                // it was not decided: there is nothing to store
                versions.give_up_trial();
                return TrialResult::Over;
            }
            Err(error) => {
                versions.release_trial(trial);
                self.not_kept(subject, &error);
                return TrialResult::NotKept;
            }
        };
        if goes_on {
            tracing::info!(subscriber = subject.name, digest, "the canary has passed: all lanes try the version");
            return versions.widen_trial(trial).map_or(TrialResult::Over, TrialResult::Widened);
        }
        versions.pass_trial(trial); // it was held
        tracing::info!(subscriber = subject.name, digest, "the new version is stable");
        self.note(subject, Some(format!("{digest} is stable")));
        TrialResult::Proven
    }

    /// Ends the trial of a candidate at once: it becomes stable, in all lanes. Returns the version.
    ///
    /// # Errors
    /// [`ReloadError`]; then the trial continues, if there is one.
    pub async fn promote(&self, subscriber: &str) -> Result<Digest, ReloadError> {
        self.promote_if(subscriber, None).await
    }

    /// As [`Self::promote`], provided that the last decided version begins with `expected`.
    ///
    /// # Errors
    /// [`ReloadError`], [`ReloadError::Moved`] if it is another one.
    pub async fn promote_if(&self, subscriber: &str, expected: Option<String>) -> Result<Digest, ReloadError> {
        let (index, _) = self.subject(subscriber)?;
        let reloader = self.clone();
        self.whole(async move {
            let subject = reloader.at(index)?;
            let _turn = reloader.to_begin(reloader.own_turn(&subject)).await?;
            reloader.is_still(&subject, expected.as_deref())?;
            let running = reloader.running(&subject)?;
            let versions = running.versions();
            let none = || ReloadError::NoTrial { subscriber: subject.name.clone() };
            let trial = versions.trial().ok_or_else(none)?;
            if !versions.hold_trial_now(&trial) {
                return Err(none()); // it has failed
            }
            let (name, version) = (subject.name.clone(), trial.version().to_owned());
            let decided = reloader.blocking(move |reloader| {
                let mut store = reloader.store();
                let tried = store.decided(&name).and_then(|decided| decided.tried);
                let Some(tried) = tried.filter(|tried| tried.version.to_string() == version) else { return Ok(None) };
                store.decide(&name, |decided| decided.prove(tried.version))?;
                Ok(Some(tried.version))
            });
            match decided.await {
                Ok(Some(version)) => {
                    versions.pass_trial(&trial); // it was held
                    let digest = version.short();
                    tracing::info!(
                        subscriber = subject.name,
                        digest,
                        "the trial was ended by hand: the version is stable"
                    );
                    reloader.note(&subject, Some(format!("{digest} is stable: it was promoted by hand")));
                    Ok(version)
                }
                Ok(None) => {
                    // it was not decided: there is nothing to store
                    versions.give_up_trial();
                    Err(none())
                }
                Err(error) => {
                    versions.release_trial(&trial);
                    Err(error)
                }
            }
        })
        .await
    }

    fn not_kept(&self, subject: &Subject, error: &ReloadError) {
        tracing::error!(subscriber = subject.name, %error, "the end of the trial is not stored yet");
        self.note(subject, Some(format!("the end of the trial is not stored yet: {error}")));
    }
}
