//! What changes versions, one at a time for each subscriber.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::runtime::Handle;
use tokio::sync::MutexGuard as Turn;
use tokio::sync::watch::Sender;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::record::{Decided, Kept};
use super::{
    Compile, KeptError, KeptVersion, Outcome, Policy, Probation, ReloadError, Reloaded, Standing, Store, Summary,
    cause_of_file, source, start, topology,
};
use crate::dispatch::{ControlError, Terms, Tree};
use crate::effects::{Clock, SystemClock};
use crate::engine::Engine;
use crate::topology::{Plan, SubscriberPlan};
use crate::wasm::{Digest, PluginSpec};

/// The versions of a running tree. Cheap to clone.
pub struct Reloader<E, C> {
    pub(super) shared: Arc<Shared<E, C>>,
}

impl<E, C> Clone for Reloader<E, C> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

pub(super) struct Shared<E, C> {
    pub(super) tree: Tree<E>,
    pub(super) compiler: C,
    store: Mutex<Store>,
    /// Every subscriber that ran since the start; none goes, so that each keeps its place.
    subjects: RwLock<Vec<Arc<Subject>>>,
    /// Whoever applies a topology has it.
    pub(super) applying: tokio::sync::Mutex<()>,
    /// A topology was decided that does not run as a whole.
    pub(super) is_unfinished: AtomicBool,
    /// Why what the files of the start say does not run.
    pub(super) files_refused: Mutex<Vec<String>>,
    /// The topology that runs.
    pub(super) topology: Sender<Arc<topology::Proposal>>,
    pub(super) probation: Probation,
    pub(super) tasks: TaskTracker,
    pub(super) closing: CancellationToken,
    pub(super) runtime: Handle,
}

/// A subscriber whose plugin can be reloaded.
pub(super) struct Subject {
    pub(super) name: String,
    /// What the topology says of it; changed by whose turn it is.
    of: RwLock<(SubscriberPlan, u32)>,
    /// Whose turn it is to change its versions.
    pub(super) turn: tokio::sync::Mutex<()>,
    /// The number of the newest reload that was asked for: those that wait behind it are not worth doing any more.
    newest: Sender<u64>,
}

impl Subject {
    fn new(plan: &Plan, subscriber: &SubscriberPlan) -> Self {
        Self {
            name: subscriber.label(),
            of: RwLock::new(Self::of(plan, subscriber)),
            turn: tokio::sync::Mutex::new(()),
            newest: Sender::new(0),
        }
    }

    /// What the topology says of a subscriber, and how many lanes it has.
    fn of(plan: &Plan, subscriber: &SubscriberPlan) -> (SubscriberPlan, u32) {
        (subscriber.clone(), plan[subscriber.from].partitions)
    }

    pub(super) fn plan(&self) -> SubscriberPlan {
        self.of.read().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    fn lanes(&self) -> u32 {
        self.of.read().unwrap_or_else(PoisonError::into_inner).1
    }

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
    /// Looks after the versions of a tree that was started with what [`super::begin`] gave. Tasks run on `runtime`.
    pub fn start(
        tree: Tree<E>,
        compiler: C,
        plan: &Plan,
        (store, notes): (Store, Vec<Option<String>>),
        probation: Probation,
        runtime: &Handle,
    ) -> Self {
        let subject = |subscriber: &SubscriberPlan| Arc::new(Subject::new(plan, subscriber));
        let applied = store.applied().map(|applied| Arc::new(applied.topology.clone()));
        let shared = Shared {
            tree,
            compiler,
            store: Mutex::new(store),
            subjects: RwLock::new(plan.subscribers.iter().map(subject).collect()),
            applying: tokio::sync::Mutex::new(()),
            is_unfinished: AtomicBool::new(false),
            files_refused: Mutex::default(),
            topology: Sender::new(applied.unwrap_or_default()),
            probation,
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            runtime: runtime.clone(),
        };
        let reloader = Self { shared: Arc::new(shared) };
        for (index, note) in (0..).zip(notes) {
            let Ok(subject) = reloader.at(index) else { continue };
            reloader.note(&subject, note);
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

    pub(super) fn store(&self) -> MutexGuard<'_, Store> {
        // A change of the record is made whole or not at all.
        self.shared.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every subscriber that ran since the start, in places that stay.
    pub(super) fn all(&self) -> Vec<Arc<Subject>> {
        self.shared.subjects.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Another plan runs, and this is to be said of those that it started, by name.
    pub(super) fn follow(&self, plan: &Plan, mut notes: BTreeMap<String, Option<String>>) {
        for subscriber in &plan.subscribers {
            let name = subscriber.label();
            let Some(note) = notes.remove(&name) else { continue };
            let (index, subject) = {
                let mut subjects = self.shared.subjects.write().unwrap_or_else(PoisonError::into_inner);
                let known = subjects.iter().position(|subject| subject.name == name);
                let index = known.unwrap_or_else(|| {
                    subjects.push(Arc::new(Subject::new(plan, subscriber)));
                    subjects.len() - 1
                });
                let Some(subject) = subjects.get(index).cloned() else { continue };
                (index, subject)
            };
            *subject.of.write().unwrap_or_else(PoisonError::into_inner) = Subject::of(plan, subscriber);
            self.note(&subject, note);
            if let Ok(Some(trial)) = self.shared.tree.trial(&name) {
                self.judge(index, trial);
            }
        }
    }

    pub(super) fn subject(&self, subscriber: &str) -> Result<(usize, Arc<Subject>), ReloadError> {
        let name = self.shared.tree.full_name(subscriber)?;
        let found = self.all().into_iter().enumerate().find(|(_, subject)| subject.name == name);
        found.ok_or_else(|| ControlError::UnknownSubscriber { subscriber: name, nearest: None }.into())
    }

    pub(super) fn at(&self, index: usize) -> Result<Arc<Subject>, ReloadError> {
        let subjects = self.shared.subjects.read().unwrap_or_else(PoisonError::into_inner);
        subjects.get(index).cloned().ok_or(ReloadError::Closed)
    }

    pub(super) fn note(&self, subject: &Subject, note: Option<String>) {
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

    /// Waits for what nothing hangs on yet, unless the bus stops.
    async fn unless_closing<T>(&self, wait: impl Future<Output = Result<T, ReloadError>>) -> Result<T, ReloadError> {
        tokio::select! {
            biased;
            done = wait => done,
            () = self.shared.closing.cancelled() => Err(ReloadError::Closed),
        }
    }

    /// Does what blocks.
    pub(super) async fn blocking<T: Send + 'static>(
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
            let _turn = reloader.unless_closing(subject.turn()).await?;
            let plan = subject.plan();
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
            let _turn = reloader.unless_closing(subject.turn()).await?;
            let (plan, cause) = (subject.plan(), cause_of_file(&file));
            let read =
                reloader.blocking(move |_| source::spec_of_file(&plan, &file).map_err(ReloadError::Source)).await;
            let reloaded = match read {
                Ok(spec) => reloader.reload(index, Proposal { spec, cause, is_file: true, policy }).await,
                Err(error) => Err(error),
            };
            if let Err(error) = &reloaded {
                reloader.note(&subject, Some(format!("the version before runs on: {error}")));
            }
            reloaded
        })
        .await
    }

    /// Whose turn it is calls this.
    async fn reload(&self, index: usize, proposal: Proposal) -> Result<Reloaded, ReloadError> {
        let subject = self.at(index)?;
        let version = proposal.spec.digest();
        let (name, is_file) = (subject.name.clone(), proposal.is_file);
        let looked = self.blocking(move |reloader| reloader.look(&name, version, is_file)).await?;
        match looked {
            Some(Outcome::Runs) => {
                // it is the proven one, beside which another was on trial
                self.shared.tree.give_up_trial(&subject.name)?;
                self.note(&subject, Some(format!("{} runs: its file is there again", version.short())));
                return Ok(Reloaded { version, outcome: Outcome::Runs });
            }
            Some(outcome) => return Ok(Reloaded { version, outcome }),
            None => {}
        }
        let Proposal { spec, cause, is_file, policy } = proposal;
        let (subscriber, digest) = (&subject.name, version.short());
        tracing::info!(subscriber, digest, cause, "compiling a new version");
        self.note(&subject, Some(format!("compiling {digest}")));
        let (kept, wasm) =
            (Kept::new(&spec, &subject.plan().config, (&cause, SystemClock.now_ns())), spec.wasm.clone());
        let compiled = self.blocking(move |reloader| Ok(reloader.shared.compiler.compile_beside(spec)?));
        let handler = self.unless_closing(compiled).await.inspect_err(|error| {
            self.note(&subject, Some(format!("{digest} is refused, and the version before runs on: {error}")));
        })?;
        // Before it is decided: also a version that a crash lets begin at the next start has it behind it.
        let no_snapshot = self.snapshot(&subject, version).await;
        let lanes = match policy {
            Policy::Canary { percent } => {
                Some(share(subject.lanes(), percent)).filter(|lanes| *lanes < subject.lanes())
            }
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
            self.note(&subject, Some(format!("{digest} is not kept, and the version before runs on: {error}")));
        })?;
        let outcome = match policy {
            Policy::Replace => {
                self.shared.tree.run_version(subscriber, handler).await?;
                let but = no_snapshot.map(|trouble| format!("; {trouble}")).unwrap_or_default();
                self.note(&subject, Some(format!("{digest} runs{but}")));
                Outcome::Runs
            }
            Policy::Swap | Policy::Canary { .. } => {
                let terms = Terms { events: self.shared.probation.events, lanes };
                let trial = self.shared.tree.try_version(subscriber, handler, terms).await?;
                self.note(&subject, no_snapshot);
                self.judge(index, trial);
                Outcome::Tried
            }
        };
        tracing::info!(subscriber, digest, cause, ?outcome, "the new version is called from now on");
        Ok(Reloaded { version, outcome })
    }

    /// What becomes of a version where nothing is to be compiled for it. Where it is the proven one, and another is on trial,
    /// that is decided to be over.
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
            (false, _) if runs => Ok(Some(Outcome::Unchanged)),
            (false, true) => Err(ReloadError::Pinned { subscriber: subscriber.to_owned(), version: decided.proven }),
            (_, false) if decided.proven == version => {
                store.decide(subscriber, |decided| decided.give_up_for_proven(is_file))?;
                Ok(Some(Outcome::Runs))
            }
            (_, false) => Ok(None),
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
                reloader.note(&subject, Some(format!("{} runs: {WHY}", proven.short())));
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
                    let unknown = || ControlError::UnknownSubscriber { subscriber: name.clone(), nearest: None };
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
        let (plan, name) = (subject.plan(), subject.name.clone());
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
        self.note(&subject, Some(format!("{} runs: somebody said so", version.short())));
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
        let runs = |subject: &Arc<Subject>| self.shared.tree.full_name(&subject.name).is_ok();
        self.all().iter().filter(|subject| runs(subject)).filter_map(|subject| summary(subject)).collect()
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
