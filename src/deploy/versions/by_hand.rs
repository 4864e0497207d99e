//! Rollback to a stored version, and pins.
//!
//! Promises: a stored version runs without a trial. A pinned subscriber keeps its version until `unpin`.

use crate::api::{Component, DeployOutcome, Deployment, Digest, Policy, UnpinResult};
use crate::deploy::compile::Compile;
use crate::deploy::error::ReloadError;
use crate::deploy::record::decided::Decisions;
use crate::deploy::reloader::Reloader;
use crate::deploy::versions::deploy::not_called;
use crate::deploy::versions::{shown_time, source};
use crate::dispatch::{CurrentVersions, NameError, Renames};
use crate::engine::Engine;

impl<E: Engine, C: Compile> Reloader<E, C> {
    /// Returns to the previous version: from the candidate to the stable one, or from that to the one before it.
    /// Returns the version that then runs.
    ///
    /// # Errors
    /// [`ReloadError`]; the previous version continues to run, except after [`ReloadError::NotCalled`].
    pub async fn rollback(&self, subscriber: &str) -> Result<Digest, ReloadError> {
        self.rollback_if(subscriber, None).await
    }

    /// As [`Self::rollback`], provided that the last decided version begins with `expected`.
    ///
    /// # Errors
    /// [`ReloadError`], [`ReloadError::Moved`] if it is another one.
    pub async fn rollback_if(&self, subscriber: &str, expected: Option<String>) -> Result<Digest, ReloadError> {
        const WHY: &str = "it was rolled back by hand";
        let (index, _) = self.subject(subscriber)?;
        let reloader = self.clone();
        self.whole(async move {
            let subject = reloader.at(index)?;
            let _turn = reloader.to_begin(reloader.own_turn(&subject)).await?;
            reloader.is_still(&subject, expected.as_deref())?;
            let name = subject.name.clone();
            let looked = reloader.blocking(move |reloader| {
                let store = reloader.store();
                let none = || ReloadError::NoneBefore { subscriber: name.clone() };
                let decided = store.decided(&name).ok_or_else(none)?;
                match decided.tried {
                    Some(_) => Ok((decided.proven, true)),
                    None => Ok((*decided.before.last().ok_or_else(none)?, false)),
                }
            });
            let (version, is_trial) = looked.await?;
            let now_ns = reloader.shared.clock.now_ns();
            let change = move |decided: &mut Decisions| match is_trial {
                true => decided.take_back_trial(WHY, now_ns),
                false => drop(decided.take_back_proven(WHY, now_ns)),
            };
            reloader.run_kept(index, version, WHY, change).await?;
            Ok(version)
        })
        .await
    }

    /// Pins a subscriber to a version, which then runs: the one whose digest begins with `prefix`, or the running one.
    ///
    /// # Errors
    /// [`ReloadError`]; the previous version continues to run.
    pub async fn pin(&self, subscriber: &str, prefix: Option<&str>) -> Result<Digest, ReloadError> {
        self.pin_if(subscriber, prefix, None).await
    }

    /// As [`Self::pin`], provided that the last decided version begins with `expected`.
    ///
    /// # Errors
    /// [`ReloadError`], [`ReloadError::Moved`] if it is another one.
    pub async fn pin_if(
        &self,
        subscriber: &str,
        prefix: Option<&str>,
        expected: Option<String>,
    ) -> Result<Digest, ReloadError> {
        let (index, _) = self.subject(subscriber)?;
        let (reloader, prefix) = (self.clone(), prefix.map(str::to_owned));
        self.whole(async move {
            let subject = reloader.at(index)?;
            let _turn = reloader.to_begin(reloader.own_turn(&subject)).await?;
            reloader.is_still(&subject, expected.as_deref())?;
            let name = subject.name.clone();
            let version = reloader
                .blocking(move |reloader| {
                    let unknown = || NameError::gone(&name);
                    let decided = reloader.store().decided(&name).cloned().ok_or_else(unknown)?;
                    match prefix {
                        Some(prefix) => one(&decided, name, prefix),
                        None if decided.tried.is_some() => Err(ReloadError::OnTrial { subscriber: name }),
                        None => Ok(decided.proven),
                    }
                })
                .await?;
            let pin = move |decided: &mut Decisions| {
                decided.prove(version);
                decided.is_pinned = true;
            };
            reloader.run_kept(index, version, "it was pinned by hand", pin).await?;
            Ok(version)
        })
        .await
    }

    /// Unpins a subscriber. If its component or the topology has changed since it was pinned, the change is tried at
    /// once, as at the next start.
    ///
    /// # Errors
    /// [`ReloadError`]; then it is still pinned.
    pub async fn unpin(&self, subscriber: &str) -> Result<UnpinResult, ReloadError> {
        let (index, _) = self.subject(subscriber)?;
        let reloader = self.clone();
        self.whole(async move {
            let subject = reloader.at(index)?;
            let _turn = reloader.to_begin(reloader.own_turn(&subject)).await?;
            let (name, unpin) = (subject.name.clone(), |decided: &mut Decisions| decided.is_pinned = false);
            reloader.blocking(move |reloader| Ok(reloader.store().decide(&name, unpin)?)).await?;
            let (plan, named) = (subject.plan(), reloader.component_of(&subject.name));
            let proposed = reloader.blocking(move |reloader| {
                let read = |named: Component| {
                    let view = reloader.store().view(&Renames::default());
                    let wasm = source::read_component(&view, &plan.label(), &named).ok()?;
                    Some((named, wasm))
                };
                reloader.proposal_now(&plan, named.and_then(read), Policy::Swap)
            });
            let tried = match proposed.await {
                Ok(Some(proposal)) => Box::pin(reloader.reload(index, proposal)).await.map(Some),
                Ok(None) => Ok(None),
                Err(error) => Err(error),
            };
            Ok(match tried {
                Ok(tried) => {
                    let is_tried = |it: &Deployment| matches!(it.outcome, DeployOutcome::Tried | DeployOutcome::Runs);
                    UnpinResult { tries: tried.filter(is_tried).map(|it| it.version), refused: None }
                }
                Err(error) => {
                    reloader.note(&subject, Some(format!("keeping the previous version: {error}")));
                    UnpinResult { tries: None, refused: Some(error.to_string()) }
                }
            })
        })
        .await
    }

    /// The applied component of a subscriber.
    fn component_of(&self, subscriber: &str) -> Option<Component> {
        self.shown().1.as_ref()?.components_by_name().remove(subscriber)
    }

    /// Runs a stored version without a trial, whichever version lanes call now. The caller must hold [`Subject::turn`].
    async fn run_kept(
        &self,
        index: usize,
        version: Digest,
        why: &'static str,
        change: impl FnOnce(&mut Decisions) + Send + 'static,
    ) -> Result<(), ReloadError> {
        let subject = self.at(index)?;
        let running = self.running(&subject)?;
        let CurrentVersions { proven, tried, .. } = running.versions().called();
        let (plan, name, is_proven) = (subject.plan(), subject.name.clone(), proven == version.to_string());
        let handler = self
            .blocking(move |reloader| {
                let handler = match is_proven {
                    true => None,
                    false => Some(reloader.kept(&plan, version)?),
                };
                reloader.store().decide(&name, change)?;
                Ok(handler)
            })
            .await?;
        let not_called = |error| not_called(&subject.name, version, error);
        match handler {
            Some(handler) => running.versions().run(handler).await.map_err(not_called)?,
            None if tried.is_some() => running.versions().give_up_trial(),
            None => return Ok(()),
        }
        let at = shown_time(self.shared.clock.now_ns());
        self.note(&subject, Some(format!("{} runs since {at}: {why}", version.short())));
        tracing::info!(
            subscriber = subject.name,
            digest = version.short(),
            "a version that was kept is called from now on"
        );
        Ok(())
    }
}

/// The version with this prefix.
fn one(decided: &Decisions, subscriber: String, prefix: String) -> Result<Digest, ReloadError> {
    let found: Vec<_> = decided
        .kept
        .iter()
        .map(|kept| kept.version)
        .filter(|version| version.to_string().starts_with(&prefix))
        .collect();
    match found.as_slice() {
        [version] => Ok(*version),
        several => Err(ReloadError::NotOne { subscriber, prefix, count: several.len() }),
    }
}
