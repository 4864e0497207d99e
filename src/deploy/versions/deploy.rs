//! Replaces the component of a subscriber.
//!
//! ```text
//!   file, command ──> turn ──> compile in ──> snapshot ──> store ──> decide ──> lanes, as candidate ──> judge
//!                      │       background     of state     durable, in this order
//!                      │         └ refused: the previous version continues to run
//!                      └─ one at a time per subscriber; the newest waiting one is next
//! ```
//!
//! Promises: a component that does not compile or match changes nothing. A version is stored and decided durably before
//! a lane calls it.

use std::path::Path;
use std::time::Duration;

use crate::api::{Component, DeployOutcome, Deployment, Digest, Policy};
use crate::deploy::compile::Compile;
use crate::deploy::error::{ReloadError, StoredVersionError};
use crate::deploy::record::decided::{SourceDigests, VersionRecord};
use crate::deploy::reloader::{Reloader, Subject};
use crate::deploy::versions::{cause, source, start, terms};
use crate::dispatch::CurrentVersions;
use crate::engine::{ApplyError, Engine};
use crate::model::call::Handler as _;
use crate::topology::SubscriberPlan;
use crate::wasm::{PluginSpec, RegisterError};

/// A component that is proposed to replace the running one.
pub(super) struct Proposal {
    spec: PluginSpec,
    cause: String,
    /// Its source, if that is a file or the topology.
    said: Option<SourceDigests>,
    policy: Policy,
}

/// The proposal of a file.
enum FileProposal {
    Nothing(Deployment),
    New(Box<Proposal>),
}

impl<E: Engine, C: Compile> Reloader<E, C> {
    /// Replaces the component of a subscriber; `cause` describes its origin.
    ///
    /// # Errors
    /// [`ReloadError`]; the previous version continues to run.
    pub async fn deploy(
        &self,
        subscriber: &str,
        wasm: Vec<u8>,
        policy: Policy,
        cause: &str,
    ) -> Result<Deployment, ReloadError> {
        let (index, _) = self.subject(subscriber)?;
        let (reloader, how) = (self.clone(), (policy, cause.to_owned()));
        self.whole(async move { reloader.deployed(index, move |_| Ok(wasm), how, None).await }).await
    }

    /// Replaces the component of a subscriber by one that is read when it is its turn, provided that the last decided
    /// version begins with `expected`.
    pub(super) async fn deployed(
        &self,
        index: usize,
        read: impl FnOnce(&Self) -> Result<Vec<u8>, ReloadError> + Send + 'static,
        (policy, cause): (Policy, String),
        expected: Option<String>,
    ) -> Result<Deployment, ReloadError> {
        let subject = self.at(index)?;
        let place = subject.queue.join();
        let _turn = self.to_begin(self.turn_of(&subject, &place)).await?;
        self.is_still(&subject, expected.as_deref())?;
        let plan = subject.plan();
        let spec = self.blocking(move |reloader| source::spec(&plan, read(reloader)?).map_err(ReloadError::Source));
        let reloaded = self.reload(index, Proposal { spec: spec.await?, cause, said: None, policy }).await?;
        place.is_done();
        Ok(reloaded)
    }

    /// Reads the file of a subscriber's plugin, which may have changed.
    ///
    /// # Errors
    /// [`ReloadError`]; the previous version continues to run.
    pub async fn propose(&self, subscriber: &str, file: &Path, policy: Policy) -> Result<Deployment, ReloadError> {
        let (index, _) = self.subject(subscriber)?;
        let (reloader, file) = (self.clone(), file.to_owned());
        self.whole(async move {
            let subject = reloader.at(index)?;
            let place = subject.queue.join();
            let _turn = reloader.to_begin(reloader.turn_of(&subject, &place)).await?;
            let plan = subject.plan();
            let looked = reloader.blocking(move |reloader| reloader.look_at_file(&plan, &file, policy)).await;
            let reloaded = match looked {
                Ok(FileProposal::Nothing(reloaded)) => Ok(reloaded),
                Ok(FileProposal::New(proposal)) => reloader.reload(index, *proposal).await,
                Err(error) => Err(error),
            };
            match &reloaded {
                Ok(Deployment { outcome: DeployOutcome::Tried | DeployOutcome::Runs, .. }) => place.is_done(),
                Ok(_) => {}
                Err(error) => reloader.note(&subject, Some(format!("keeping the previous version: {error}"))),
            }
            reloaded
        })
        .await
    }

    /// The proposal of a plugin's file. Blocks.
    fn look_at_file(&self, plan: &SubscriberPlan, file: &Path, policy: Policy) -> Result<FileProposal, ReloadError> {
        let wasm = source::read(&plan.label(), file).map_err(|error| ReloadError::Source(vec![error]))?;
        let component = Digest::of(&wasm);
        Ok(match self.proposal_now(plan, Some((file.to_owned().into(), wasm)), policy)? {
            Some(proposal) => FileProposal::New(proposal.into()),
            None => {
                let shown = self.shown();
                let decided = shown.0.subscribers.get(&plan.label());
                let runs = decided.filter(|decided| decided.component() == Some(component) && !decided.is_pinned);
                let (version, outcome) = match runs {
                    Some(decided) => (decided.newest(), DeployOutcome::Unchanged),
                    None => (source::version(plan, &component), DeployOutcome::Ignored),
                };
                FileProposal::Nothing(Deployment { version, outcome, notice: None })
            }
        })
    }

    /// The proposal of the topology and, if readable, of its component: the same at any time as at a start. Blocks.
    pub(super) fn proposal_now(
        &self,
        plan: &SubscriberPlan,
        named: Option<(Component, Vec<u8>)>,
        policy: Policy,
    ) -> Result<Option<Proposal>, ReloadError> {
        let name = plan.label();
        let component = named.as_ref().map(|(_, wasm)| Digest::of(wasm));
        let said = SourceDigests { component, settings: source::settings(plan) };
        let mut store = self.store();
        let (proposed, is_of_file) = match store.decided(&name) {
            None => (component, true),
            Some(decided) => (decided.proposed(said), decided.is_of_file(said)),
        };
        let Some(proposed) = proposed else {
            if store.decided(&name).is_some_and(|decided| decided.looked_at.is_none()) {
                store.decide(&name, |decided| decided.look_at(said))?;
            }
            return Ok(None);
        };
        let cause = named.as_ref().filter(|_| is_of_file).map(|(named, _)| cause(named));
        let wasm = match named {
            Some((_, wasm)) if component == Some(proposed) => wasm,
            _ => store.component(proposed).map_err(StoredVersionError::Store)?,
        };
        drop(store);
        let cause = cause.unwrap_or_else(|| super::OTHER_SETTINGS.to_owned());
        let spec = source::spec(plan, wasm).map_err(ReloadError::Source)?;
        Ok(Some(Proposal { spec, cause, said: Some(said), policy }))
    }

    /// The caller must hold [`Subject::turn`].
    pub(super) async fn reload(&self, index: usize, proposal: Proposal) -> Result<Deployment, ReloadError> {
        let subject = self.at(index)?;
        let (version, said, settings) = (proposal.spec.digest(), proposal.said, proposal.spec.settings());
        let name = subject.name.clone();
        let looked = self.blocking(move |reloader| reloader.look(&name, version, said)).await?;
        if let Some(outcome) = looked {
            // A deploy by hand also refreshes secrets. A trial that ended, or an end that was not stored, may have left
            // lanes with another version.
            let called = self.running(&subject)?.versions().called();
            let has_other_secrets = said.is_none() && called.settings.secrets_mark != settings.secrets_mark;
            let is_stale = has_other_secrets || !called.is_available;
            let aligned = self.align(index, is_stale).await?;
            if outcome == DeployOutcome::Runs {
                self.note(&subject, Some(format!("{} runs: it was asked for again", version.short())));
            }
            let outcome = match (outcome, aligned) {
                (DeployOutcome::Unchanged | DeployOutcome::OnTrial, Some(outcome)) => outcome,
                (outcome, _) => outcome,
            };
            return Ok(Deployment { version, outcome, notice: None });
        }
        let Proposal { spec, cause, said, policy } = proposal;
        // A component has up to 64 MiB, and the remaining room is reserved for work that frees some.
        if !self.shared.tree.engine().storage().takes_events {
            return Err(ReloadError::NoRoom { subscriber: subject.name.clone() });
        }
        let (subscriber, digest) = (&subject.name, version.short());
        tracing::info!(subscriber, digest, cause, "compiling a new version");
        self.note(&subject, Some(format!("compiling {digest}")));
        let decided_as = (cause.as_str(), self.shared.clock.now_ns());
        let (kept, wasm) = (VersionRecord::new(&spec, &subject.plan().config, decided_as), spec.wasm.clone());
        let compiled = self.blocking(move |reloader| Ok(reloader.shared.compiler.compile_beside(spec)?));
        let handler = self.unless_closing(compiled).await.inspect_err(|error| {
            self.note(&subject, Some(format!("{digest} is refused, keeping the previous version: {error}")));
        })?;
        let loses_ports = !handler.declares_ports() && self.running(&subject)?.versions().called().declares_ports;
        let notice = super::declares_no_outputs(version, &settings.ports).filter(|_| loses_ports);
        // Before the decision, so that also a version that starts after a crash has its snapshot.
        let no_snapshot = self.snapshot(&subject, version).await;
        let lanes = match policy {
            Policy::Canary { percent } => {
                Some(share(subject.lanes(), percent)).filter(|lanes| *lanes < subject.lanes())
            }
            Policy::Swap | Policy::Replace => None,
        };
        let name = subject.name.clone();
        let decided = self.blocking(move |reloader| {
            let component = kept.wasm;
            reloader.keep_one(component, &wasm)?;
            let mut store = reloader.store();
            let decided = store.decide(&name, |decided| {
                if let Some(said) = said {
                    decided.look_at(said);
                }
                match policy {
                    Policy::Replace => decided.replace(kept),
                    Policy::Swap | Policy::Canary { .. } => decided.try_version(kept, lanes),
                }
            });
            store.release(component);
            Ok(decided?)
        });
        decided.await.inspect_err(|error| {
            self.note(&subject, Some(format!("{digest} is not stored, keeping the previous version: {error}")));
        })?;
        let outcome = match policy {
            Policy::Replace => {
                let called = self.running(&subject)?.versions().run(handler).await;
                called.map_err(|error| not_called(subscriber, version, error))?;
                let but = no_snapshot.map(|trouble| format!("; {trouble}")).unwrap_or_default();
                self.note(&subject, Some(format!("{digest} runs{but}")));
                DeployOutcome::Runs
            }
            Policy::Swap | Policy::Canary { .. } => {
                let terms = terms(subject.plan().trial, lanes, Duration::ZERO);
                let trial = self.running(&subject)?.versions().run_on_trial(handler, terms).await;
                let trial = trial.map_err(|error| not_called(subscriber, version, error))?;
                self.note(&subject, no_snapshot);
                self.judge(index, trial);
                DeployOutcome::Tried
            }
        };
        tracing::info!(subscriber, digest, cause, ?outcome, "the new version is called from now on");
        if let Some(notice) = &notice {
            tracing::warn!(subscriber, "{notice}");
        }
        Ok(Deployment { version, outcome, notice })
    }

    /// The result for a version that needs no compilation. If it is the stable one while another is the candidate, the
    /// trial ends.
    fn look(
        &self,
        subscriber: &str,
        version: Digest,
        said: Option<SourceDigests>,
    ) -> Result<Option<DeployOutcome>, ReloadError> {
        let mut store = self.store();
        let now_ns = store.clock().now_ns();
        let Some(decided) = store.decided(subscriber) else { return Ok(None) };
        let (is_pinned, runs) = (decided.is_pinned, decided.runs(version));
        match (said, is_pinned) {
            (Some(_), true) => Ok(Some(DeployOutcome::Ignored)),
            (Some(said), false) if runs => {
                store.decide(subscriber, |decided| decided.look_at(said))?;
                Ok(Some(DeployOutcome::Unchanged))
            }
            (None, _) if runs && decided.tried.is_some() => Ok(Some(DeployOutcome::OnTrial)),
            (None, _) if runs => Ok(Some(DeployOutcome::Unchanged)),
            (None, true) => Err(ReloadError::Pinned { subscriber: subscriber.to_owned(), version: decided.proven }),
            (said, false) if decided.proven == version => {
                store.decide(subscriber, |decided| {
                    if let Some(said) = said {
                        decided.look_at(said);
                    }
                    decided.give_up_for_proven(now_ns);
                })?;
                Ok(Some(DeployOutcome::Runs))
            }
            (_, false) => Ok(None),
        }
    }

    /// A stored version, compiled in the background. Blocks.
    pub(super) fn kept(&self, plan: &SubscriberPlan, version: Digest) -> Result<C::Handler, StoredVersionError> {
        self.kept_by(plan, version, C::compile_beside)
    }

    /// A stored version, compiled in this way. Blocks.
    pub(super) fn kept_by(
        &self,
        plan: &SubscriberPlan,
        version: Digest,
        compile: fn(&C, PluginSpec) -> Result<C::Handler, RegisterError>,
    ) -> Result<C::Handler, StoredVersionError> {
        let spec = {
            let store = self.store();
            let decided = store.decided(&plan.label()).ok_or(StoredVersionError::Unknown { version })?;
            start::kept_spec(&store, plan, decided, version)?
        };
        compile(&self.shared.compiler, spec).map_err(StoredVersionError::Refused)
    }

    /// Loads the decided versions of subscribers whose lanes halt because they could not be loaded at the start.
    pub(crate) async fn load_unavailable(&self) {
        // What is being compiled runs by itself.
        let is_unavailable = |subject: &Subject| {
            self.running(subject)
                .map(|running| running.versions().called())
                .is_ok_and(|it| !it.is_available && !it.is_compiling)
        };
        for (index, subject) in self.all().into_iter().enumerate().filter(|(_, subject)| is_unavailable(subject)) {
            let loaded = async {
                let _turn = self.own_turn(&subject).await?;
                self.align(index, true).await
            };
            match loaded.await {
                Ok(_) => self.note(&subject, Some("the deployed version runs again".to_owned())),
                Err(error) => self.note(&subject, Some(format!("still halted: {error}"))),
            }
        }
    }

    /// Makes lanes call the decided version, if they call another one or if theirs is stale. Returns the result if
    /// there was something to do. The caller must hold [`Subject::turn`].
    async fn align(&self, index: usize, is_stale: bool) -> Result<Option<DeployOutcome>, ReloadError> {
        let subject = self.at(index)?;
        let running = self.running(&subject)?;
        let CurrentVersions { proven, tried, .. } = running.versions().called();
        let (plan, name) = (subject.plan(), subject.name.clone());
        let found = self.blocking(move |reloader| {
            let Some(decided) = reloader.store().decided(&name).cloned() else { return Ok(None) };
            let is_other = is_stale || proven != decided.proven.to_string();
            let new_proven = match is_other {
                true => Some(reloader.kept(&plan, decided.proven)?),
                false => None,
            };
            let wanted = decided.tried.map(|tried| (tried.version.to_string(), tried.lanes));
            let new_tried = match decided.tried.filter(|_| is_other || tried != wanted) {
                Some(tried) => Some((reloader.kept(&plan, tried.version)?, tried.lanes)),
                None => None,
            };
            let is_over = wanted.is_none() && tried.is_some() && new_proven.is_none();
            Ok(Some((decided, new_proven, new_tried, is_over)))
        });
        let Some((decided, new_proven, new_tried, is_over)) = found.await? else { return Ok(None) };
        let not_called = |error| not_called(&subject.name, decided.newest(), error);
        if is_over {
            running.versions().give_up_trial();
        }
        let versions = running.versions();
        let new_tried = new_tried.map(|(handler, lanes)| {
            let passed = decided.tried_for(decided.newest(), self.shared.clock.now_ns());
            (handler, terms(subject.plan().trial, lanes, passed))
        });
        let trial = match (new_proven, new_tried) {
            (None, None) => return Ok(None),
            (Some(handler), None) => {
                versions.run(handler).await.map_err(not_called)?;
                return Ok(Some(DeployOutcome::Runs));
            }
            (None, Some((candidate, terms))) => versions.run_on_trial(candidate, terms).await,
            (Some(handler), Some(candidate)) => versions.run_with_trial(handler, candidate).await,
        };
        let trial = trial.map_err(not_called)?;
        self.note(&subject, None);
        self.judge(index, trial);
        Ok(Some(DeployOutcome::Tried))
    }
}

pub(crate) fn not_called(subscriber: &str, version: Digest, error: ApplyError) -> ReloadError {
    ReloadError::NotCalled { subscriber: subscriber.to_owned(), version, error }
}

/// The number of lanes of a share: at least one.
fn share(lanes: u32, percent: u32) -> u32 {
    let share = (u64::from(lanes) * u64::from(percent.min(100))).div_ceil(100);
    u32::try_from(share).unwrap_or(lanes).clamp(1, lanes.max(1))
}
