//! Who sees to the end of a trial: the version is proven, goes on to all lanes, or is taken back, durably.

use std::sync::Arc;

use tokio::time::Instant;

use super::reloader::{Reloader, Subject};
use super::{Compile, ReloadError};
use crate::dispatch::{Trial, Verdict};
use crate::engine::Engine;

/// What became of a trial that had done enough.
enum Passed {
    Proven,
    Widened(Arc<Trial>),
    Over,
}

impl<E: Engine, C: Compile> Reloader<E, C> {
    /// Has somebody wait for the end of a trial and see to it.
    pub(super) fn judge(&self, index: usize, trial: Arc<Trial>) {
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
            let passes = Instant::now() + self.shared.probation.time;
            let mut verdicts = trial.verdict();
            let ended = loop {
                let verdict = verdicts.borrow_and_update().clone();
                match &verdict {
                    Verdict::Over | Verdict::Failed(_) => break verdict,
                    Verdict::Enough if Instant::now() >= passes => break verdict,
                    Verdict::Asks(failure) => {
                        let words = format!(
                            "a lane has halted and asks: the new version keeps state of another version, and failed on \
                             {failure}; say `wattle plugin pin {name} DIGEST` to stay with it, or `wattle plugin rollback \
                             {name}` to go back, on the state as it is, and then `wattle resume {name}`",
                            name = subject.name
                        );
                        tracing::error!(subscriber = subject.name, "{words}");
                        self.note(&subject, Some(words));
                    }
                    Verdict::Open | Verdict::Enough => {}
                }
                tokio::select! {
                    changed = verdicts.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep_until(passes), if verdict == Verdict::Enough => {}
                }
            };
            match ended {
                Verdict::Failed(failure) => return self.take_back(&subject, &failure.to_string()).await,
                Verdict::Enough => match self.passes(&subject, &trial).await {
                    Passed::Proven => return,
                    Passed::Widened(next) => trial = next,
                    Passed::Over => {} // meanwhile, and its verdict says how
                },
                _ => return,
            }
        }
    }

    /// The version on trial has failed, and no lane calls it any more.
    async fn take_back(&self, subject: &Subject, why: &str) {
        let _turn = subject.turn.lock().await;
        let (name, words) = (subject.name.clone(), why.to_owned());
        let decided = self.blocking(move |reloader| {
            let is_open = |reloader: &Self| reloader.shared.tree.trial(&name).ok().flatten().is_some();
            if is_open(reloader) {
                return Ok(None); // another one is tried by now
            }
            let mut store = reloader.store();
            let tried = store.decided(&name).and_then(|decided| decided.tried);
            store.decide(&name, |decided| decided.take_back_trial(&words))?;
            Ok(tried.map(|tried| tried.version))
        });
        match decided.await {
            Ok(Some(version)) => {
                let digest = version.short();
                tracing::warn!(
                    subscriber = subject.name,
                    digest,
                    why,
                    "rolled back; it is not tried again until its file changes"
                );
                self.note(
                    subject,
                    Some(format!("{digest} was rolled back: it failed on {why}, where the version before did not")),
                );
            }
            Ok(None) => {}
            Err(error) => self.not_decided(subject, &error),
        }
    }

    /// The version on trial has done enough: it is proven, or goes on to all lanes.
    async fn passes(&self, subject: &Subject, trial: &Arc<Trial>) -> Passed {
        let _turn = subject.turn.lock().await;
        let tree = &self.shared.tree;
        // No lane takes it back from here on. What is not durable yet is tried once more after a crash.
        let passed = match trial.terms().lanes {
            Some(_) => tree.widen_trial(&subject.name, trial).ok().flatten().map_or(Passed::Over, Passed::Widened),
            None if tree.pass_trial(&subject.name, trial).unwrap_or(false) => Passed::Proven,
            None => Passed::Over,
        };
        let (name, goes_on) = match passed {
            Passed::Over => return Passed::Over,
            Passed::Widened(_) => (subject.name.clone(), true),
            Passed::Proven => (subject.name.clone(), false),
        };
        let decided = self.blocking(move |reloader| {
            let mut store = reloader.store();
            let tried = store.decided(&name).and_then(|decided| decided.tried);
            store.decide(&name, |decided| match (&mut decided.tried, goes_on) {
                (Some(tried), true) => tried.lanes = None,
                (Some(tried), false) => {
                    let version = tried.version;
                    decided.prove(version);
                }
                (None, _) => {}
            })?;
            Ok(tried.map(|tried| tried.version.short()).unwrap_or_default())
        });
        match decided.await {
            Ok(digest) if goes_on => {
                tracing::info!(subscriber = subject.name, digest, "the canary has passed: all lanes try the version");
            }
            Ok(digest) => {
                tracing::info!(subscriber = subject.name, digest, "the new version is proven");
                self.note(subject, Some(format!("{digest} is proven")));
            }
            Err(error) => self.not_decided(subject, &error),
        }
        passed
    }

    fn not_decided(&self, subject: &Subject, error: &ReloadError) {
        tracing::error!(subscriber = subject.name, %error, "what became of the version on trial is not kept: the next start tries it again");
        self.note(subject, Some(error.to_string()));
    }
}
