//! Hot reload: another version of a plugin takes the place of the one that runs, and goes again where it is worse.
//!
//! ```text
//!   file, command ──> turn ──> compile beside ──> keep ──> decide ──> number ──> lanes, on trial ──> judge ──┬─> proven
//!                      │          │ refused        durable, in this order                                     └─> taken back
//!                      │          └─> the old one serves
//!                      └─ one at a time for each subscriber, one waits, the newest
//! ```
//!
//! Promises: what does not compile or does not fit changes nothing. A version is kept and decided on, durably, before any
//! lane calls it; after a crash at any moment what runs is what was decided. A file proposes once: what was taken back is not
//! tried again until the file changes. Reloading what runs already does nothing.
//! Relies on: [`Tree`] for the change between two calls and for the comparison, [`Store`] for what is durable.
//! Must not know: gRPC, the command line, how files are watched for.

mod record;
mod source;
mod start;
mod store;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{MutexGuard as Turn, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::dispatch::{ControlError, Handler, Terms, Tree, Trial, Verdict, VersionError};
use crate::effects::{Clock, SystemClock};
use crate::engine::Engine;
use crate::topology::{Plan, SubscriberPlan};
use crate::wasm::{Digest, Host, Plugin, PluginSpec, RegisterError};

use record::{Decided, Kept};
pub use source::{PluginError, register};
pub use start::{BeginError, Begun, Progress, begin};
pub use store::{Store, StoreError};

/// What makes handlers of components: the sandbox, or in tests something quicker.
pub trait Compile: Clone + Send + Sync + 'static {
    /// What it makes.
    type Handler: Handler;

    /// Compiles and checks a component, as quickly as it can. Blocks.
    ///
    /// # Errors
    /// When it does not fit.
    fn compile(&self, spec: PluginSpec) -> Result<Self::Handler, RegisterError>;

    /// The same beside handlers that run, which it gives way to.
    ///
    /// # Errors
    /// When it does not fit.
    fn compile_beside(&self, spec: PluginSpec) -> Result<Self::Handler, RegisterError>;
}

impl Compile for Host {
    type Handler = Plugin;

    fn compile(&self, spec: PluginSpec) -> Result<Plugin, RegisterError> {
        self.register(spec)
    }

    fn compile_beside(&self, spec: PluginSpec) -> Result<Plugin, RegisterError> {
        self.register_beside(spec)
    }
}

/// How new versions are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probation {
    /// Events that a version has to handle.
    pub events: u64,
    /// How long it is on trial at least.
    pub time: Duration,
}

impl Default for Probation {
    /// As many as a few batches have, and long enough for somebody to look.
    fn default() -> Self {
        Self { events: 1_000, time: Duration::from_secs(60) }
    }
}

/// How a version takes the place of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// All lanes call it, on trial.
    Swap,
    /// So many lanes of a hundred call it first, on trial, then all.
    Canary {
        /// How many of a hundred, rounded up.
        percent: u32,
    },
    /// All lanes call it, and it is not compared: for a version that is meant to refuse what the one before took.
    Replace,
}

/// What became of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is on trial.
    Tried,
    /// It runs.
    Runs,
    /// It ran already.
    Unchanged,
    /// It comes from a file that is as it was when it was decided about it, or its subscriber is pinned.
    Ignored,
}

/// A version that was asked for, and what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reloaded {
    /// The version.
    pub version: Digest,
    /// What became of it.
    pub outcome: Outcome,
}

/// The versions of a subscriber, in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The subscriber's full name.
    pub subscriber: String,
    /// The version that is proven.
    pub proven: Digest,
    /// The one on trial.
    pub tried: Option<Digest>,
    /// Nothing takes the place of the proven one.
    pub is_pinned: bool,
    /// How many versions are kept.
    pub kept: u64,
}

/// What a version is to its subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is proven, and runs.
    Proven,
    /// It is on trial.
    Tried,
    /// It was taken back.
    TakenBack,
    /// It is kept.
    Kept,
}

/// A version that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptVersion {
    /// The version.
    pub version: Digest,
    /// The hash of its component.
    pub wasm: Digest,
    /// What it is to its subscriber.
    pub standing: Standing,
    /// `rollback` goes back to it.
    pub is_next_back: bool,
    /// Where it came from, in words.
    pub cause: String,
    /// When it was decided on last, Unix nanoseconds.
    pub decided_ns: u64,
    /// Why it was taken back, where it was.
    pub taken_back: Option<String>,
}

/// Why a version that is kept cannot run.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// No such version is kept.
    #[error("no version {version} is kept")]
    Unknown {
        /// What was asked for.
        version: Digest,
    },
    /// The topology connects other ports.
    #[error(
        "version {} has the ports `{has}`, and the topology connects `{topology}`: they are a part of the version, and \
         change with the topology", version.short()
    )]
    Ports {
        /// The version.
        version: Digest,
        /// Its ports.
        has: String,
        /// The topology's.
        topology: String,
    },
    /// A secret is another than it was.
    #[error("version {} ran with other secrets than are in their files now", version.short())]
    Secrets {
        /// The version.
        version: Digest,
    },
    /// A secret cannot be read.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Source(Vec<PluginError>),
    /// The component is not there.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The sandbox refuses it now.
    #[error(transparent)]
    Refused(RegisterError),
}

/// Why a version was not reloaded. What ran before runs on.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// There is no such subscriber.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The component does not fit.
    #[error("the plugin is refused: {0}")]
    Refused(#[from] RegisterError),
    /// Its file or its secrets cannot be read, or its component does not fit.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Source(Vec<PluginError>),
    /// Its subscriber is pinned.
    #[error(
        "subscriber `{subscriber}` is pinned to version {}: `wattle plugin pin {subscriber} --off` lets other versions \
         take its place", version.short()
    )]
    Pinned {
        /// The subscriber.
        subscriber: String,
        /// The version that it is pinned to.
        version: Digest,
    },
    /// A later one came in before its turn.
    #[error("a later version of the plugin of `{subscriber}` was asked for before this one had its turn")]
    Superseded {
        /// The subscriber.
        subscriber: String,
    },
    /// There is no version to go back to.
    #[error(
        "subscriber `{subscriber}` has no version before the one that runs; `wattle plugin versions {subscriber}` lists them"
    )]
    NoneBefore {
        /// The subscriber.
        subscriber: String,
    },
    /// Not exactly one version begins so.
    #[error(
        "{count} versions of `{subscriber}` begin with {prefix:?}; `wattle plugin versions {subscriber}` lists them"
    )]
    NotOne {
        /// The subscriber.
        subscriber: String,
        /// What was asked for.
        prefix: String,
        /// How many there are.
        count: usize,
    },
    /// A version is on trial, so that it is not clear which one is meant.
    #[error("subscriber `{subscriber}` has a version on trial: say which version it is pinned to")]
    OnTrial {
        /// The subscriber.
        subscriber: String,
    },
    /// A version that is kept cannot run.
    #[error(transparent)]
    Kept(#[from] KeptError),
    /// What was decided cannot be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Lanes cannot be told.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// The bus is on its way down.
    #[error("the bus is shutting down")]
    Closed,
}

/// Where a version from a file came from, in words.
fn cause_of_file(path: &Path) -> String {
    format!("file {}", path.display())
}

/// The versions of a running tree. Cheap to clone.
pub struct Reloader<E, C> {
    shared: Arc<Shared<E, C>>,
}

impl<E, C> Clone for Reloader<E, C> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

struct Shared<E, C> {
    tree: Tree<E>,
    compiler: C,
    store: Mutex<Store>,
    subjects: Vec<Subject>,
    probation: Probation,
    tasks: TaskTracker,
    closing: CancellationToken,
    runtime: Handle,
}

/// A subscriber whose plugin can be reloaded.
struct Subject {
    name: String,
    plan: SubscriberPlan,
    lanes: u32,
    /// Whose turn it is to change its versions.
    turn: tokio::sync::Mutex<()>,
    /// The number of the newest reload that was asked for: those that wait behind it are not worth doing any more.
    newest: watch::Sender<u64>,
}

impl Subject {
    /// Waits for the turn of a reload, unless a newer one comes.
    async fn turn(&self) -> Result<Turn<'_, ()>, ReloadError> {
        let mut mine = 0;
        self.newest.send_modify(|newest| {
            *newest += 1;
            mine = *newest;
        });
        let mut newest = self.newest.subscribe();
        tokio::select! {
            biased;
            turn = self.turn.lock() => Ok(turn),
            _ = newest.wait_for(|newest| *newest != mine) => {
                Err(ReloadError::Superseded { subscriber: self.name.clone() })
            }
        }
    }
}

/// A component that is to take the place of the one that runs.
struct Proposal {
    spec: PluginSpec,
    cause: String,
    /// It is what the file of the topology is now.
    is_file: bool,
    policy: Policy,
}

impl<E: Engine, C: Compile> Reloader<E, C> {
    /// Looks after the versions of a tree that was started with what [`begin`] gave. Tasks run on `runtime`.
    pub fn start(
        tree: Tree<E>,
        compiler: C,
        plan: &Plan,
        (store, notes): (Store, Vec<Option<String>>),
        probation: Probation,
        runtime: &Handle,
    ) -> Self {
        let subject = |plan_of: &SubscriberPlan| Subject {
            name: plan_of.label(),
            plan: plan_of.clone(),
            lanes: plan.topics.get(plan_of.from.0 as usize).map_or(1, |topic| topic.partitions),
            turn: tokio::sync::Mutex::new(()),
            newest: watch::Sender::new(0),
        };
        let shared = Shared {
            tree,
            compiler,
            store: Mutex::new(store),
            subjects: plan.subscribers.iter().map(subject).collect(),
            probation,
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            runtime: runtime.clone(),
        };
        let reloader = Self { shared: Arc::new(shared) };
        for (index, note) in (0..).zip(notes) {
            let Some(subject) = reloader.shared.subjects.get(index) else { continue };
            reloader.note(subject, note);
            if let Ok(Some(trial)) = reloader.shared.tree.trial(&subject.name) {
                reloader.judge(index, trial);
            }
        }
        reloader
    }

    /// Ends what it is at: what was decided is found again by the next start.
    pub async fn stop(&self) {
        self.shared.closing.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        // A change of the record is made whole or not at all.
        self.shared.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn subject(&self, subscriber: &str) -> Result<(usize, &Subject), ReloadError> {
        let name = self.shared.tree.full_name(subscriber)?;
        let found = self.shared.subjects.iter().enumerate().find(|(_, subject)| subject.name == name);
        found.ok_or_else(|| ControlError::UnknownSubscriber { subscriber: name }.into())
    }

    fn at(&self, index: usize) -> Result<&Subject, ReloadError> {
        self.shared.subjects.get(index).ok_or(ReloadError::Closed)
    }

    fn note(&self, subject: &Subject, note: Option<String>) {
        // It is one of the tree's own names.
        let _ = self.shared.tree.note_reload(&subject.name, note);
    }

    /// Does something to its end, also where whoever asked for it goes away.
    async fn whole<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ReloadError>> + Send + 'static,
    ) -> Result<T, ReloadError> {
        if self.shared.closing.is_cancelled() {
            return Err(ReloadError::Closed);
        }
        let task = self.shared.tasks.spawn_on(work, &self.shared.runtime);
        task.await.unwrap_or(Err(ReloadError::Closed))
    }

    /// Does what blocks.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, ReloadError> + Send + 'static,
    ) -> Result<T, ReloadError> {
        let reloader = self.clone();
        let done = self.shared.runtime.spawn_blocking(move || work(&reloader)).await;
        done.unwrap_or(Err(ReloadError::Closed))
    }

    /// Has a component take the place of the one that a subscriber runs; `cause` says where it came from.
    ///
    /// # Errors
    /// [`ReloadError`]; what ran before runs on.
    pub async fn deploy(
        &self,
        subscriber: &str,
        wasm: Vec<u8>,
        policy: Policy,
        cause: &str,
    ) -> Result<Reloaded, ReloadError> {
        let (index, _) = self.subject(subscriber)?;
        let (reloader, cause) = (self.clone(), cause.to_owned());
        self.whole(async move {
            let subject = reloader.at(index)?;
            let _turn = subject.turn().await?;
            let plan = subject.plan.clone();
            let spec = reloader.blocking(move |_| source::spec(&plan, wasm).map_err(ReloadError::Source)).await?;
            reloader.reload(index, Proposal { spec, cause, is_file: false, policy }).await
        })
        .await
    }

    /// Has the file of a subscriber's plugin looked at, which may have changed.
    ///
    /// # Errors
    /// [`ReloadError`]; what ran before runs on.
    pub async fn propose(&self, subscriber: &str, file: &Path, policy: Policy) -> Result<Reloaded, ReloadError> {
        let (index, _) = self.subject(subscriber)?;
        let (reloader, file) = (self.clone(), file.to_owned());
        self.whole(async move {
            let subject = reloader.at(index)?;
            let _turn = subject.turn().await?;
            let (plan, cause) = (subject.plan.clone(), cause_of_file(&file));
            let read =
                reloader.blocking(move |_| source::spec_of_file(&plan, &file).map_err(ReloadError::Source)).await;
            let reloaded = match read {
                Ok(spec) => reloader.reload(index, Proposal { spec, cause, is_file: true, policy }).await,
                Err(error) => Err(error),
            };
            if let Err(error) = &reloaded {
                reloader.note(subject, Some(format!("the version before runs on: {error}")));
            }
            reloaded
        })
        .await
    }

    /// Whose turn it is calls this.
    async fn reload(&self, index: usize, proposal: Proposal) -> Result<Reloaded, ReloadError> {
        let subject = self.at(index)?;
        let version = proposal.spec.digest();
        let name = subject.name.clone();
        let looked = self.blocking(move |reloader| reloader.look(&name, version, proposal.is_file)).await?;
        if let Some(outcome) = looked {
            return Ok(Reloaded { version, outcome });
        }
        let Proposal { spec, cause, is_file, policy } = proposal;
        let (subscriber, digest) = (&subject.name, version.short());
        tracing::info!(subscriber, digest, cause, "compiling a new version");
        self.note(subject, Some(format!("compiling {digest}")));
        let (kept, wasm) = (Kept::new(&spec, &subject.plan.config, (&cause, SystemClock.now_ns())), spec.wasm.clone());
        let compiled = self.blocking(move |reloader| Ok(reloader.shared.compiler.compile_beside(spec)?)).await;
        let handler = compiled.inspect_err(|error| {
            self.note(subject, Some(format!("{digest} is refused, and the version before runs on: {error}")));
        })?;
        let lanes = match policy {
            Policy::Canary { percent } => Some(share(subject.lanes, percent)).filter(|lanes| *lanes < subject.lanes),
            Policy::Swap | Policy::Replace => None,
        };
        let name = subject.name.clone();
        let decided = self.blocking(move |reloader| {
            let mut store = reloader.store();
            store.keep(kept.wasm, &wasm)?;
            store.decide(&name, |decided| {
                if is_file {
                    decided.seen = Some(kept.version);
                }
                match policy {
                    Policy::Replace => decided.replace(kept),
                    Policy::Swap | Policy::Canary { .. } => decided.try_version(kept, lanes),
                }
            })?;
            Ok(())
        });
        decided.await.inspect_err(|error| {
            self.note(subject, Some(format!("{digest} is not kept, and the version before runs on: {error}")));
        })?;
        let outcome = match policy {
            Policy::Replace => {
                self.shared.tree.run_version(subscriber, handler).await?;
                self.note(subject, Some(format!("{digest} runs")));
                Outcome::Runs
            }
            Policy::Swap | Policy::Canary { .. } => {
                let terms = Terms { events: self.shared.probation.events, lanes };
                let trial = self.shared.tree.try_version(subscriber, handler, terms).await?;
                self.note(subject, None);
                self.judge(index, trial);
                Outcome::Tried
            }
        };
        tracing::info!(subscriber, digest, cause, ?outcome, "the new version is called from now on");
        Ok(Reloaded { version, outcome })
    }

    /// What becomes of a version where nothing is to be done about it.
    fn look(&self, subscriber: &str, version: Digest, is_file: bool) -> Result<Option<Outcome>, ReloadError> {
        let mut store = self.store();
        let Some(decided) = store.decided(subscriber) else { return Ok(None) };
        let (is_pinned, is_seen, runs) = (decided.is_pinned, decided.seen == Some(version), decided.runs(version));
        match (is_file, is_pinned) {
            (true, true) => Ok(Some(Outcome::Ignored)),
            (true, false) if runs => {
                store.decide(subscriber, |decided| decided.seen = Some(version))?;
                Ok(Some(Outcome::Unchanged))
            }
            (true, false) if is_seen => Ok(Some(Outcome::Ignored)),
            (true, false) => Ok(None),
            (false, _) if runs => Ok(Some(Outcome::Unchanged)),
            (false, true) => Err(ReloadError::Pinned { subscriber: subscriber.to_owned(), version: decided.proven }),
            (false, false) => Ok(None),
        }
    }

    /// Goes back to the version before: from the one on trial to the proven one, or from that to the one that was proven
    /// before it. The version that runs then.
    ///
    /// # Errors
    /// [`ReloadError`]; what ran before runs on.
    pub async fn rollback(&self, subscriber: &str) -> Result<Digest, ReloadError> {
        const WHY: &str = "somebody went back from it";
        let (index, _) = self.subject(subscriber)?;
        let reloader = self.clone();
        self.whole(async move {
            let subject = reloader.at(index)?;
            let _turn = subject.turn.lock().await;
            let name = subject.name.clone();
            let (proven, back_to) = reloader
                .blocking(move |reloader| {
                    let store = reloader.store();
                    let none = || ReloadError::NoneBefore { subscriber: name.clone() };
                    let decided = store.decided(&name).ok_or_else(none)?;
                    match decided.tried {
                        Some(_) => Ok((decided.proven, None)),
                        None => Ok((decided.proven, Some(*decided.before.last().ok_or_else(none)?))),
                    }
                })
                .await?;
            let Some(version) = back_to else {
                let name = subject.name.clone();
                reloader
                    .blocking(move |reloader| Ok(reloader.store().decide(&name, |of| of.take_back_trial(WHY))?))
                    .await?;
                reloader.shared.tree.give_up_trial(&subject.name)?;
                reloader.note(subject, Some(format!("{} runs: {WHY}", proven.short())));
                return Ok(proven);
            };
            reloader
                .run_kept(index, version, move |decided| {
                    let _ = decided.take_back_proven(WHY);
                })
                .await?;
            Ok(version)
        })
        .await
    }

    /// Pins a subscriber to a version, which runs from then on: to the one whose digest begins so, or to the one that runs.
    ///
    /// # Errors
    /// [`ReloadError`]; what ran before runs on.
    pub async fn pin(&self, subscriber: &str, prefix: Option<&str>) -> Result<Digest, ReloadError> {
        let (index, _) = self.subject(subscriber)?;
        let (reloader, prefix) = (self.clone(), prefix.map(str::to_owned));
        self.whole(async move {
            let subject = reloader.at(index)?;
            let _turn = subject.turn.lock().await;
            let name = subject.name.clone();
            let (decided, version) = reloader
                .blocking(move |reloader| {
                    let unknown = || ControlError::UnknownSubscriber { subscriber: name.clone() };
                    let decided = reloader.store().decided(&name).cloned().ok_or_else(unknown)?;
                    let version = match prefix {
                        Some(prefix) => one(&decided, name, prefix)?,
                        None if decided.tried.is_some() => return Err(ReloadError::OnTrial { subscriber: name }),
                        None => decided.proven,
                    };
                    Ok((decided, version))
                })
                .await?;
            let pin = move |decided: &mut Decided| {
                decided.prove(version);
                decided.is_pinned = true;
            };
            if decided.proven == version && decided.tried.is_none() {
                let name = subject.name.clone();
                reloader.blocking(move |reloader| Ok(reloader.store().decide(&name, pin)?)).await?;
            } else {
                reloader.run_kept(index, version, pin).await?;
            }
            Ok(version)
        })
        .await
    }

    /// Lets other versions take the place of the one that a subscriber is pinned to.
    ///
    /// # Errors
    /// [`ReloadError`].
    pub async fn unpin(&self, subscriber: &str) -> Result<(), ReloadError> {
        let name = self.subject(subscriber)?.1.name.clone();
        let reloader = self.clone();
        self.whole(async move {
            let unpin = |decided: &mut Decided| decided.is_pinned = false;
            reloader.blocking(move |reloader| Ok(reloader.store().decide(&name, unpin)?)).await
        })
        .await
    }

    /// Runs a version that is kept, without a trial. Whose turn it is calls this.
    async fn run_kept(
        &self,
        index: usize,
        version: Digest,
        change: impl FnOnce(&mut Decided) + Send + 'static,
    ) -> Result<(), ReloadError> {
        let subject = self.at(index)?;
        let (plan, name) = (subject.plan.clone(), subject.name.clone());
        let handler = self
            .blocking(move |reloader| {
                let spec = {
                    let store = reloader.store();
                    let decided = store.decided(&name).ok_or(KeptError::Unknown { version })?;
                    start::kept_spec(&store, &plan, decided, version)?
                };
                let handler = reloader.shared.compiler.compile_beside(spec).map_err(KeptError::Refused)?;
                reloader.store().decide(&name, change)?;
                Ok(handler)
            })
            .await?;
        self.shared.tree.run_version(&subject.name, handler).await?;
        self.note(subject, Some(format!("{} runs: somebody said so", version.short())));
        tracing::info!(
            subscriber = subject.name,
            digest = version.short(),
            "a version that was kept is called from now on"
        );
        Ok(())
    }

    /// Every subscriber with its versions in short.
    pub fn list(&self) -> Vec<Summary> {
        let store = self.store();
        let summary = |subject: &Subject| {
            let decided = store.decided(&subject.name)?;
            Some(Summary {
                subscriber: subject.name.clone(),
                proven: decided.proven,
                tried: decided.tried.map(|tried| tried.version),
                is_pinned: decided.is_pinned,
                kept: decided.kept.len() as u64,
            })
        };
        self.shared.subjects.iter().filter_map(summary).collect()
    }

    /// The versions of a subscriber that are kept, the latest last.
    ///
    /// # Errors
    /// [`ReloadError::Control`].
    pub fn versions(&self, subscriber: &str) -> Result<Vec<KeptVersion>, ReloadError> {
        let (_, subject) = self.subject(subscriber)?;
        let store = self.store();
        let Some(decided) = store.decided(&subject.name) else { return Ok(Vec::new()) };
        let back_to = match decided.tried {
            Some(_) => Some(decided.proven),
            None => decided.before.last().copied(),
        };
        let version = |kept: &Kept| KeptVersion {
            version: kept.version,
            wasm: kept.wasm,
            standing: match () {
                () if decided.tried.is_some_and(|tried| tried.version == kept.version) => Standing::Tried,
                () if decided.proven == kept.version => Standing::Proven,
                () if kept.taken_back.is_some() => Standing::TakenBack,
                () => Standing::Kept,
            },
            is_next_back: back_to == Some(kept.version),
            cause: kept.cause.clone(),
            decided_ns: kept.decided_ns,
            taken_back: kept.taken_back.clone(),
        };
        Ok(decided.kept.iter().map(version).collect())
    }

    /// Has somebody wait for the end of a trial and see to it.
    fn judge(&self, index: usize, trial: Arc<Trial>) {
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
                        self.note(subject, Some(words));
                    }
                    Verdict::Open | Verdict::Enough => {}
                }
                tokio::select! {
                    changed = verdicts.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep_until(passes), if verdict == Verdict::Enough => {}
                }
            };
            match ended {
                Verdict::Failed(failure) => return self.take_back(subject, &failure.to_string()).await,
                Verdict::Enough => match self.passes(subject, &trial).await {
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

/// What became of a trial that had done enough.
enum Passed {
    Proven,
    Widened(Arc<Trial>),
    Over,
}

/// The version that begins so.
fn one(decided: &Decided, subscriber: String, prefix: String) -> Result<Digest, ReloadError> {
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

/// How many lanes a share is: one at least.
fn share(lanes: u32, percent: u32) -> u32 {
    let share = (u64::from(lanes) * u64::from(percent.min(100))).div_ceil(100);
    u32::try_from(share).unwrap_or(lanes).clamp(1, lanes.max(1))
}
