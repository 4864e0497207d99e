//! What changes versions, one at a time for each subscriber.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::MutexGuard as Turn;
use tokio::sync::watch::Sender;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::queue::{Place, Queue};
use super::record::{Decided, Kept, Said};
use super::revision::History;
use super::secrets::SecretFolders;
use super::store::{AllKept, Shown, StoreError};
use super::{
    Compile, KeptError, KeptVersion, Outcome, Policy, ReloadError, Reloaded, Standing, Store, Summary, Unpinned,
    cause_of_file, source, start, terms,
};
use crate::dispatch::{Called, ControlError, SubscriberStatus, Tree, VersionError};
use crate::effects::{Clock, SystemClock};
use crate::engine::Engine;
use crate::model::call::Handler as _;
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
    shown: Shown,
    /// Every subscriber that ran since the start; none goes, so that each keeps its place.
    subjects: RwLock<Vec<Arc<Subject>>>,
    /// Whoever applies a topology has it.
    pub(super) applying: tokio::sync::Mutex<()>,
    /// A topology was decided that does not run as a whole.
    pub(super) is_unfinished: AtomicBool,
    /// What has changed of what is applied.
    pub(super) history: Mutex<History>,
    /// Why what the files of the start say does not run.
    pub(super) files_refused: Mutex<Vec<String>>,
    /// Below which topologies that are applied name secrets.
    pub(super) secrets: RwLock<SecretFolders>,
    /// How often something was forgotten.
    pub(super) forgotten: Sender<u64>,
    /// The topology that runs.
    pub(super) topology: Sender<Arc<super::Proposal>>,
    pub(super) tasks: TaskTracker,
    pub(super) closing: CancellationToken,
    pub(super) runtime: Handle,
}

tokio::task_local! {
    /// Cancelled when the caller is gone.
    static GONE: CancellationToken;
}

/// A subscriber whose plugin can be reloaded.
pub(super) struct Subject {
    pub(super) name: String,
    /// What the topology says of it; changed by whose turn it is.
    of: RwLock<(SubscriberPlan, u32)>,
    /// Whose turn it is to change its versions.
    pub(super) turn: tokio::sync::Mutex<()>,
    /// Reloads that wait for their turn.
    queue: Queue,
}

impl Subject {
    fn new(plan: &Plan, subscriber: &SubscriberPlan) -> Self {
        Self {
            name: subscriber.label(),
            of: RwLock::new(Self::of(plan, subscriber)),
            turn: tokio::sync::Mutex::new(()),
            queue: Queue::default(),
        }
    }

    /// What the topology says of a subscriber, and how many lanes it has.
    fn of(plan: &Plan, subscriber: &SubscriberPlan) -> (SubscriberPlan, u32) {
        (subscriber.clone(), plan[subscriber.from].partitions)
    }

    pub(super) fn plan(&self) -> SubscriberPlan {
        self.of.read().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Another topology says something of it that its lanes need not be started again for.
    pub(super) fn follow(&self, plan: &Plan, subscriber: &SubscriberPlan) {
        *self.of.write().unwrap_or_else(PoisonError::into_inner) = Self::of(plan, subscriber);
    }

    fn lanes(&self) -> u32 {
        self.of.read().unwrap_or_else(PoisonError::into_inner).1
    }
}

/// A component that is to take the place of the one that runs.
struct Proposal {
    spec: PluginSpec,
    cause: String,
    /// What proposes it, where that is a file or the topology.
    said: Option<Said>,
    policy: Policy,
}

/// What a file proposes.
enum Looked {
    Nothing(Reloaded),
    New(Box<Proposal>),
}

impl<E: Engine, C: Compile> Reloader<E, C> {
    /// Looks after the versions of a tree that was started with what [`super::begin`] gave. Tasks run on `runtime`.
    pub fn start(
        tree: Tree<E>,
        compiler: C,
        plan: &Plan,
        (store, notes): (Store, Vec<Option<String>>),
        runtime: &Handle,
    ) -> Self {
        let subject = |subscriber: &SubscriberPlan| Arc::new(Subject::new(plan, subscriber));
        let applied = store.topology().map(|(plan, components)| Arc::new(super::Proposal::of(&plan, &components)));
        let shared = Shared {
            tree,
            compiler,
            shown: store.shown(),
            store: Mutex::new(store),
            subjects: RwLock::new(plan.subscribers.iter().map(subject).collect()),
            applying: tokio::sync::Mutex::new(()),
            is_unfinished: AtomicBool::new(false),
            history: Mutex::default(),
            files_refused: Mutex::default(),
            secrets: RwLock::default(),
            forgotten: Sender::default(),
            topology: Sender::new(applied.unwrap_or_default()),
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
        reloader.go_on_forgetting();
        reloader
    }

    /// Ends what it is at: what was decided is found again by the next start.
    pub async fn stop(&self) {
        self.shared.closing.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    /// What is kept, for those who only look: nobody waits for a disk.
    pub(super) fn shown(&self) -> Arc<AllKept> {
        self.shared.shown.now()
    }

    /// Keeps the components of what changes, durably: all of them, or none. Blocks; others may use the store meanwhile.
    pub(super) fn keep(&self, changes: &[(String, start::Change)]) -> Result<(), StoreError> {
        for (at, (component, wasm)) in start::components(changes).enumerate() {
            if let Err(error) = self.keep_one(component, wasm) {
                start::components(changes).take(at).for_each(|(component, _)| self.store().release(component));
                return Err(error);
            }
        }
        Ok(())
    }

    /// Nothing is decided on what was to change.
    pub(super) fn release(&self, changes: &[(String, start::Change)]) {
        start::components(changes).for_each(|(component, _)| self.store().release(component));
    }

    fn keep_one(&self, component: Digest, wasm: &[u8]) -> Result<(), StoreError> {
        let shelf = self.store().announce(component)?;
        let put = shelf.put(component, wasm);
        self.store().kept(component, put)
    }

    /// What changes the record. It is locked for as long as that is written: not by those who only look, nor for components.
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
            let Some(note) = notes.remove(&name) else {
                if let Some(subject) = self.all().iter().find(|subject| subject.name == name) {
                    subject.follow(plan, subscriber);
                }
                continue;
            };
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
            subject.follow(plan, subscriber);
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

    /// Does something to its end, also where the caller goes away, unless it was not begun by then ([`Self::to_begin`]).
    pub(super) async fn whole<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ReloadError>> + Send + 'static,
    ) -> Result<T, ReloadError> {
        self.detached(work).await.unwrap_or(Err(ReloadError::Closed))
    }

    /// Runs something as a task of its own, which knows whether its caller is gone. `None` where the bus is stopping.
    pub(super) async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        if self.shared.closing.is_cancelled() {
            return None;
        }
        let gone = CancellationToken::new();
        let _caller = gone.clone().drop_guard();
        self.shared.tasks.spawn_on(GONE.scope(gone, work), &self.shared.runtime).await.ok()
    }

    /// Waits for a turn, unless the bus stops or the caller is gone: nothing begins that nobody waits for any more.
    pub(super) async fn to_begin<T>(
        &self,
        turn: impl Future<Output = Result<T, ReloadError>>,
    ) -> Result<T, ReloadError> {
        self.while_wanted(turn).await.unwrap_or(Err(ReloadError::Closed))
    }

    /// What is waited for before anything has begun; `None` where the bus stops or the caller is gone meanwhile, which nobody is
    /// told.
    pub(super) async fn while_wanted<T>(&self, wait: impl Future<Output = T>) -> Option<T> {
        let gone = GONE.try_with(Clone::clone).unwrap_or_default();
        tokio::select! {
            biased;
            () = gone.cancelled() => None,
            done = wait => Some(done),
            () = self.shared.closing.cancelled() => None,
        }
    }

    /// Waits for what nothing hangs on yet, unless the bus stops.
    pub(super) async fn unless_closing<T>(
        &self,
        wait: impl Future<Output = Result<T, ReloadError>>,
    ) -> Result<T, ReloadError> {
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

    /// Refuses where the version that was decided on last does not begin so. Whose turn it is calls this.
    pub(super) fn is_still(&self, subject: &Subject, expected: Option<&str>) -> Result<(), ReloadError> {
        let Some(expected) = expected else { return Ok(()) };
        let shown = self.shown();
        match shown.0.subscribers.get(&subject.name).map(Decided::newest) {
            Some(is) if !is.to_string().starts_with(expected) => {
                Err(ReloadError::Moved { subscriber: subject.name.clone(), expected: expected.to_owned(), is })
            }
            _ => Ok(()),
        }
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
        self.deploy_if(subscriber, wasm, policy, cause, None).await
    }

    /// As [`Self::deploy`], where the version that was decided on last, on trial or proven, begins so.
    ///
    /// # Errors
    /// [`ReloadError`], [`ReloadError::Moved`] where it is another one.
    pub async fn deploy_if(
        &self,
        subscriber: &str,
        wasm: Vec<u8>,
        policy: Policy,
        cause: &str,
        expected: Option<String>,
    ) -> Result<Reloaded, ReloadError> {
        let (index, _) = self.subject(subscriber)?;
        let (reloader, cause) = (self.clone(), cause.to_owned());
        self.whole(async move {
            let subject = reloader.at(index)?;
            let place = subject.queue.join();
            let _turn = reloader.to_begin(reloader.turn_of(&subject, &place)).await?;
            reloader.is_still(&subject, expected.as_deref())?;
            let plan = subject.plan();
            let spec = reloader.blocking(move |_| source::spec(&plan, wasm).map_err(ReloadError::Source)).await?;
            let reloaded = reloader.reload(index, Proposal { spec, cause, said: None, policy }).await?;
            place.is_done();
            Ok(reloaded)
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
            let place = subject.queue.join();
            let _turn = reloader.to_begin(reloader.turn_of(&subject, &place)).await?;
            let plan = subject.plan();
            let looked = reloader.blocking(move |reloader| reloader.look_at_file(&plan, &file, policy)).await;
            let reloaded = match looked {
                Ok(Looked::Nothing(reloaded)) => Ok(reloaded),
                Ok(Looked::New(proposal)) => reloader.reload(index, *proposal).await,
                Err(error) => Err(error),
            };
            match &reloaded {
                Ok(Reloaded { outcome: Outcome::Tried | Outcome::Runs, .. }) => place.is_done(),
                Ok(_) => {}
                Err(error) => reloader.note(&subject, Some(format!("the version before runs on: {error}"))),
            }
            reloaded
        })
        .await
    }

    /// What the file of a plugin proposes. Blocks.
    fn look_at_file(&self, plan: &SubscriberPlan, file: &Path, policy: Policy) -> Result<Looked, ReloadError> {
        let wasm = source::read(&plan.label(), file).map_err(|error| ReloadError::Source(vec![error]))?;
        let component = Digest::of(&wasm);
        Ok(match self.proposal_now(plan, Some((file, wasm)), policy)? {
            Some(proposal) => Looked::New(proposal.into()),
            None => {
                let shown = self.shown();
                let decided = shown.0.subscribers.get(&plan.label());
                let runs = decided.filter(|decided| decided.component() == Some(component) && !decided.is_pinned);
                let (version, outcome) = match runs {
                    Some(decided) => (decided.newest(), Outcome::Unchanged),
                    None => (source::version(plan, &component), Outcome::Ignored),
                };
                Looked::Nothing(Reloaded { version, outcome, notice: None })
            }
        })
    }

    /// What is proposed by the topology, and by a file where that can be read: the same at any time, as at a start. Blocks.
    fn proposal_now(
        &self,
        plan: &SubscriberPlan,
        file: Option<(&Path, Vec<u8>)>,
        policy: Policy,
    ) -> Result<Option<Proposal>, ReloadError> {
        let name = plan.label();
        let component = file.as_ref().map(|(_, wasm)| Digest::of(wasm));
        let said = Said { component, settings: source::settings(plan) };
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
        let cause = file.as_ref().filter(|_| is_of_file).map(|(path, _)| cause_of_file(path));
        let wasm = match file {
            Some((_, wasm)) if component == Some(proposed) => wasm,
            _ => store.component(proposed).map_err(KeptError::Store)?,
        };
        drop(store);
        let cause = cause.unwrap_or_else(|| super::OTHER_SETTINGS.to_owned());
        let spec = source::spec(plan, wasm).map_err(ReloadError::Source)?;
        Ok(Some(Proposal { spec, cause, said: Some(said), policy }))
    }

    /// Waits for the turn of a reload, unless one that was asked for later has taken place by then. Its subscriber may have
    /// gone meanwhile, or be called otherwise.
    async fn turn_of<'a>(&self, subject: &'a Subject, place: &Place<'_>) -> Result<Turn<'a, ()>, ReloadError> {
        let superseded = || ReloadError::Superseded { subscriber: subject.name.clone() };
        let turn = place.turn(&subject.turn).await.ok_or_else(superseded)?;
        self.is_there(subject)?;
        Ok(turn)
    }

    /// As [`Self::turn_of`] for what does not wait for others of its kind.
    pub(super) async fn own_turn<'a>(&self, subject: &'a Subject) -> Result<Turn<'a, ()>, ReloadError> {
        let turn = subject.turn.lock().await;
        self.is_there(subject)?;
        Ok(turn)
    }

    fn is_there(&self, subject: &Subject) -> Result<(), ReloadError> {
        Ok(self.shared.tree.full_name(&subject.name).map(drop)?)
    }

    /// Whose turn it is calls this.
    async fn reload(&self, index: usize, proposal: Proposal) -> Result<Reloaded, ReloadError> {
        let subject = self.at(index)?;
        let (version, said, settings) = (proposal.spec.digest(), proposal.said, proposal.spec.settings());
        let name = subject.name.clone();
        let looked = self.blocking(move |reloader| reloader.look(&name, version, said)).await?;
        if let Some(outcome) = looked {
            // With secrets of the day where they are asked for by hand; and a trial that ended, or an end that was not kept, may
            // have left lanes with another version.
            let called = self.shared.tree.called(&subject.name)?;
            let is_stale = said.is_none() && called.settings.secrets_mark != settings.secrets_mark;
            let aligned = self.align(index, is_stale).await?;
            if outcome == Outcome::Runs {
                self.note(&subject, Some(format!("{} runs: it was asked for again", version.short())));
            }
            let outcome = match (outcome, aligned) {
                (Outcome::Unchanged | Outcome::OnTrial, Some(outcome)) => outcome,
                (outcome, _) => outcome,
            };
            return Ok(Reloaded { version, outcome, notice: None });
        }
        let Proposal { spec, cause, said, policy } = proposal;
        // A component takes up to 64 MiB, and what is left is for what makes room again.
        if !self.shared.tree.engine().storage().takes_events {
            return Err(ReloadError::NoRoom { subscriber: subject.name.clone() });
        }
        let (subscriber, digest) = (&subject.name, version.short());
        tracing::info!(subscriber, digest, cause, "compiling a new version");
        self.note(&subject, Some(format!("compiling {digest}")));
        let (kept, wasm) =
            (Kept::new(&spec, &subject.plan().config, (&cause, SystemClock.now_ns())), spec.wasm.clone());
        let compiled = self.blocking(move |reloader| Ok(reloader.shared.compiler.compile_beside(spec)?));
        let handler = self.unless_closing(compiled).await.inspect_err(|error| {
            self.note(&subject, Some(format!("{digest} is refused, and the version before runs on: {error}")));
        })?;
        let loses_ports = !handler.declares_ports() && self.shared.tree.called(&subject.name)?.declares_ports;
        let notice = super::declares_no_outputs(version, &settings.ports).filter(|_| loses_ports);
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
            self.note(&subject, Some(format!("{digest} is not kept, and the version before runs on: {error}")));
        })?;
        let outcome = match policy {
            Policy::Replace => {
                let called = self.shared.tree.run_version(subscriber, handler).await;
                called.map_err(|error| not_called(subscriber, version, error))?;
                let but = no_snapshot.map(|trouble| format!("; {trouble}")).unwrap_or_default();
                self.note(&subject, Some(format!("{digest} runs{but}")));
                Outcome::Runs
            }
            Policy::Swap | Policy::Canary { .. } => {
                let terms = terms(subject.plan().trial, lanes, Duration::ZERO);
                let trial = self.shared.tree.try_version(subscriber, handler, terms).await;
                let trial = trial.map_err(|error| not_called(subscriber, version, error))?;
                self.note(&subject, no_snapshot);
                self.judge(index, trial);
                Outcome::Tried
            }
        };
        tracing::info!(subscriber, digest, cause, ?outcome, "the new version is called from now on");
        if let Some(notice) = &notice {
            tracing::warn!(subscriber, "{notice}");
        }
        Ok(Reloaded { version, outcome, notice })
    }

    /// What becomes of a version where nothing is to be compiled for it. Where it is the proven one, and another is on trial,
    /// that is decided to be over.
    fn look(&self, subscriber: &str, version: Digest, said: Option<Said>) -> Result<Option<Outcome>, ReloadError> {
        let mut store = self.store();
        let Some(decided) = store.decided(subscriber) else { return Ok(None) };
        let (is_pinned, runs) = (decided.is_pinned, decided.runs(version));
        match (said, is_pinned) {
            (Some(_), true) => Ok(Some(Outcome::Ignored)),
            (Some(said), false) if runs => {
                store.decide(subscriber, |decided| decided.look_at(said))?;
                Ok(Some(Outcome::Unchanged))
            }
            (None, _) if runs && decided.tried.is_some() => Ok(Some(Outcome::OnTrial)),
            (None, _) if runs => Ok(Some(Outcome::Unchanged)),
            (None, true) => Err(ReloadError::Pinned { subscriber: subscriber.to_owned(), version: decided.proven }),
            (said, false) if decided.proven == version => {
                store.decide(subscriber, |decided| {
                    if let Some(said) = said {
                        decided.look_at(said);
                    }
                    decided.give_up_for_proven();
                })?;
                Ok(Some(Outcome::Runs))
            }
            (_, false) => Ok(None),
        }
    }

    /// Goes back to the version before: from the one on trial to the proven one, or from that to the one that was proven
    /// before it. The version that runs then.
    ///
    /// # Errors
    /// [`ReloadError`]; what ran before runs on, but for [`ReloadError::NotCalled`].
    pub async fn rollback(&self, subscriber: &str) -> Result<Digest, ReloadError> {
        self.rollback_if(subscriber, None).await
    }

    /// As [`Self::rollback`], where the version that was decided on last begins so.
    ///
    /// # Errors
    /// [`ReloadError`], [`ReloadError::Moved`] where it is another one.
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
            let change = move |decided: &mut Decided| match is_trial {
                true => decided.take_back_trial(WHY),
                false => drop(decided.take_back_proven(WHY)),
            };
            reloader.run_kept(index, version, WHY, change).await?;
            Ok(version)
        })
        .await
    }

    /// Pins a subscriber to a version, which runs from then on: to the one whose digest begins so, or to the one that runs.
    ///
    /// # Errors
    /// [`ReloadError`]; what ran before runs on.
    pub async fn pin(&self, subscriber: &str, prefix: Option<&str>) -> Result<Digest, ReloadError> {
        self.pin_if(subscriber, prefix, None).await
    }

    /// As [`Self::pin`], where the version that was decided on last begins so.
    ///
    /// # Errors
    /// [`ReloadError`], [`ReloadError::Moved`] where it is another one.
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
                    let unknown = || ControlError::UnknownSubscriber { subscriber: name.clone(), nearest: None };
                    let decided = reloader.store().decided(&name).cloned().ok_or_else(unknown)?;
                    match prefix {
                        Some(prefix) => one(&decided, name, prefix),
                        None if decided.tried.is_some() => Err(ReloadError::OnTrial { subscriber: name }),
                        None => Ok(decided.proven),
                    }
                })
                .await?;
            let pin = move |decided: &mut Decided| {
                decided.prove(version);
                decided.is_pinned = true;
            };
            reloader.run_kept(index, version, "it was pinned by hand", pin).await?;
            Ok(version)
        })
        .await
    }

    /// Lets other versions take the place of the one that a subscriber is pinned to. What its file and the topology say, and did
    /// not say before it was pinned, is tried at once, as the next start would.
    ///
    /// # Errors
    /// [`ReloadError`]; it is pinned then.
    pub async fn unpin(&self, subscriber: &str) -> Result<Unpinned, ReloadError> {
        let (index, _) = self.subject(subscriber)?;
        let reloader = self.clone();
        self.whole(async move {
            let subject = reloader.at(index)?;
            let _turn = reloader.to_begin(reloader.own_turn(&subject)).await?;
            let (name, unpin) = (subject.name.clone(), |decided: &mut Decided| decided.is_pinned = false);
            reloader.blocking(move |reloader| Ok(reloader.store().decide(&name, unpin)?)).await?;
            let (plan, file) = (subject.plan(), reloader.file_of(&subject.name));
            let proposed = reloader.blocking(move |reloader| {
                let read = |file| source::read(&plan.label(), file).ok().map(|wasm| (file, wasm));
                reloader.proposal_now(&plan, file.as_deref().and_then(read), Policy::Swap)
            });
            let tried = match proposed.await {
                Ok(Some(proposal)) => Box::pin(reloader.reload(index, proposal)).await.map(Some),
                Ok(None) => Ok(None),
                Err(error) => Err(error),
            };
            Ok(match tried {
                Ok(tried) => {
                    let is_tried = |it: &Reloaded| matches!(it.outcome, Outcome::Tried | Outcome::Runs);
                    Unpinned { tries: tried.filter(is_tried).map(|it| it.version), refused: None }
                }
                Err(error) => {
                    reloader.note(&subject, Some(format!("the version before runs on: {error}")));
                    Unpinned { tries: None, refused: Some(error.to_string()) }
                }
            })
        })
        .await
    }

    /// The file of a subscriber's plugin, as it is applied.
    fn file_of(&self, subscriber: &str) -> Option<PathBuf> {
        self.shown().1.as_ref()?.components_by_name().remove(subscriber)
    }

    /// Adds what was decided to what is known of subscribers that run.
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

    /// Runs a version that is kept, without a trial, whatever lanes call now. Whose turn it is calls this.
    async fn run_kept(
        &self,
        index: usize,
        version: Digest,
        why: &'static str,
        change: impl FnOnce(&mut Decided) + Send + 'static,
    ) -> Result<(), ReloadError> {
        let subject = self.at(index)?;
        let Called { proven, tried, .. } = self.shared.tree.called(&subject.name)?;
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
            Some(handler) => self.shared.tree.run_version(&subject.name, handler).await.map_err(not_called)?,
            None if tried.is_some() => {
                self.shared.tree.give_up_trial(&subject.name).map_err(|error| not_called(error.into()))?;
            }
            None => return Ok(()),
        }
        self.note(&subject, Some(format!("{} runs: {why}", version.short())));
        tracing::info!(
            subscriber = subject.name,
            digest = version.short(),
            "a version that was kept is called from now on"
        );
        Ok(())
    }

    /// A version that is kept, compiled beside what runs. Blocks.
    fn kept(&self, plan: &SubscriberPlan, version: Digest) -> Result<C::Handler, KeptError> {
        let spec = {
            let store = self.store();
            let decided = store.decided(&plan.label()).ok_or(KeptError::Unknown { version })?;
            start::kept_spec(&store, plan, decided, version)?
        };
        self.shared.compiler.compile_beside(spec).map_err(KeptError::Refused)
    }

    /// Has lanes call what was decided, where they call something else; where what they call is stale, anew. What became of that,
    /// if something did. Whose turn it is calls this.
    async fn align(&self, index: usize, is_stale: bool) -> Result<Option<Outcome>, ReloadError> {
        let (subject, tree) = (self.at(index)?, &self.shared.tree);
        let Called { proven, tried, .. } = tree.called(&subject.name)?;
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
            tree.give_up_trial(&subject.name).map_err(|error| not_called(error.into()))?;
        }
        let mut outcome = None;
        if let Some(handler) = new_proven {
            tree.run_version(&subject.name, handler).await.map_err(not_called)?;
            outcome = Some(Outcome::Runs);
        }
        if let Some((handler, lanes)) = new_tried {
            let passed = decided.tried_for(decided.newest(), SystemClock.now_ns());
            let terms = terms(subject.plan().trial, lanes, passed);
            let trial = tree.try_version(&subject.name, handler, terms).await.map_err(not_called)?;
            self.note(&subject, None);
            self.judge(index, trial);
            outcome = Some(Outcome::Tried);
        }
        Ok(outcome)
    }

    /// Every subscriber with its versions in short.
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
        let runs = |subject: &Arc<Subject>| self.shared.tree.full_name(&subject.name).is_ok();
        self.all().iter().filter(|subject| runs(subject)).filter_map(|subject| summary(subject)).collect()
    }

    /// How many reloads of a subscriber are under way or wait for their turn.
    ///
    /// # Errors
    /// [`ReloadError::Control`].
    pub fn waiting(&self, subscriber: &str) -> Result<usize, ReloadError> {
        Ok(self.subject(subscriber)?.1.queue.len())
    }

    /// The versions of a subscriber that are kept, the latest last.
    ///
    /// # Errors
    /// [`ReloadError::Control`].
    pub fn versions(&self, subscriber: &str) -> Result<Vec<KeptVersion>, ReloadError> {
        let (_, subject) = self.subject(subscriber)?;
        let shown = self.shown();
        let Some(decided) = shown.0.subscribers.get(&subject.name) else { return Ok(Vec::new()) };
        let on_trial = self.shared.tree.on_trial(&subject.name)?;
        let trial = |kept: &Kept| on_trial.clone().filter(|trial| trial.digest == kept.version.to_string());
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
            trial: trial(kept),
        };
        Ok(decided.kept.iter().map(version).collect())
    }
}

fn not_called(subscriber: &str, version: Digest, error: VersionError) -> ReloadError {
    ReloadError::NotCalled { subscriber: subscriber.to_owned(), version, error }
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
