//! What changes versions, one at a time for each subscriber.

pub(crate) mod queue;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::runtime::Handle;
use tokio::sync::MutexGuard as Turn;
use tokio::sync::watch::Sender;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::deploy::compile::Compile;
use crate::deploy::error::ReloadError;
use crate::deploy::record::decided::Decided;
use crate::deploy::record::history::History;
use crate::deploy::record::proposal::Proposal;
use crate::deploy::record::store::{AllKept, Shown, Store};
use crate::deploy::reloader::queue::{Place, Queue};
use crate::deploy::secrets::SecretFolders;
use crate::dispatch::{ControlError, Tree};
use crate::engine::Engine;
use crate::topology::{Plan, SubscriberPlan};

/// The versions of a running tree. Cheap to clone.
pub struct Reloader<E, C> {
    pub(crate) shared: Arc<Shared<E, C>>,
}

impl<E, C> Clone for Reloader<E, C> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

pub(crate) struct Shared<E, C> {
    pub(crate) tree: Tree<E>,
    pub(crate) compiler: C,
    pub(crate) store: Mutex<Store>,
    pub(crate) shown: Shown,
    /// Every subscriber that ran since the start; none goes, so that each keeps its place.
    pub(crate) subjects: RwLock<Vec<Arc<Subject>>>,
    /// Whoever applies a topology has it.
    pub(crate) applying: tokio::sync::Mutex<()>,
    /// A topology was decided that does not run as a whole.
    pub(crate) is_unfinished: AtomicBool,
    /// What has changed of what is applied.
    pub(crate) history: Mutex<History>,
    /// Why what the files of the start say does not run.
    pub(crate) files_refused: Mutex<Vec<String>>,
    /// Below which topologies that are applied name secrets.
    pub(crate) secrets: RwLock<SecretFolders>,
    /// How often something was forgotten.
    pub(crate) forgotten: Sender<u64>,
    /// The topology that runs.
    pub(crate) topology: Sender<Arc<Proposal>>,
    pub(crate) tasks: TaskTracker,
    pub(crate) closing: CancellationToken,
    pub(crate) runtime: Handle,
}

tokio::task_local! {
    /// Cancelled when the caller is gone.
    static GONE: CancellationToken;
}

/// A subscriber whose plugin can be reloaded.
pub(crate) struct Subject {
    pub(crate) name: String,
    /// What the topology says of it; changed by whose turn it is.
    pub(crate) of: RwLock<(SubscriberPlan, u32)>,
    /// Whose turn it is to change its versions.
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// Reloads that wait for their turn.
    pub(crate) queue: Queue,
}

impl Subject {
    pub(super) fn new(plan: &Plan, subscriber: &SubscriberPlan) -> Self {
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

    pub(crate) fn plan(&self) -> SubscriberPlan {
        self.of.read().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Another topology says something of it that its lanes need not be started again for.
    pub(crate) fn follow(&self, plan: &Plan, subscriber: &SubscriberPlan) {
        *self.of.write().unwrap_or_else(PoisonError::into_inner) = Self::of(plan, subscriber);
    }

    pub(super) fn lanes(&self) -> u32 {
        self.of.read().unwrap_or_else(PoisonError::into_inner).1
    }
}

impl<E: Engine, C: Compile> Reloader<E, C> {
    /// Ends what it is at: what was decided is found again by the next start.
    pub async fn stop(&self) {
        self.shared.closing.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    /// What is kept, for those who only look: nobody waits for a disk.
    pub(crate) fn shown(&self) -> Arc<AllKept> {
        self.shared.shown.now()
    }

    /// What changes the record. It is locked for as long as that is written: not by those who only look, nor for components.
    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        // A change of the record is made whole or not at all.
        self.shared.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every subscriber that ran since the start, in places that stay.
    pub(crate) fn all(&self) -> Vec<Arc<Subject>> {
        self.shared.subjects.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn subject(&self, subscriber: &str) -> Result<(usize, Arc<Subject>), ReloadError> {
        let name = self.shared.tree.full_name(subscriber)?;
        let found = self.all().into_iter().enumerate().find(|(_, subject)| subject.name == name);
        found.ok_or_else(|| ControlError::UnknownSubscriber { subscriber: name, nearest: None }.into())
    }

    pub(crate) fn at(&self, index: usize) -> Result<Arc<Subject>, ReloadError> {
        let subjects = self.shared.subjects.read().unwrap_or_else(PoisonError::into_inner);
        subjects.get(index).cloned().ok_or(ReloadError::Closed)
    }

    pub(crate) fn note(&self, subject: &Subject, note: Option<String>) {
        // It is one of the tree's own names.
        let _ = self.shared.tree.note_reload(&subject.name, note);
    }

    /// Does something to its end, also where the caller goes away, unless it was not begun by then ([`Self::to_begin`]).
    pub(crate) async fn whole<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ReloadError>> + Send + 'static,
    ) -> Result<T, ReloadError> {
        self.detached(work).await.unwrap_or(Err(ReloadError::Closed))
    }

    /// Runs something as a task of its own, which knows whether its caller is gone. `None` where the bus is stopping.
    pub(crate) async fn detached<T: Send + 'static>(
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
    pub(crate) async fn to_begin<T>(
        &self,
        turn: impl Future<Output = Result<T, ReloadError>>,
    ) -> Result<T, ReloadError> {
        self.while_wanted(turn).await.unwrap_or(Err(ReloadError::Closed))
    }

    /// What is waited for before anything has begun; `None` where the bus stops or the caller is gone meanwhile, which nobody is
    /// told.
    pub(crate) async fn while_wanted<T>(&self, wait: impl Future<Output = T>) -> Option<T> {
        let gone = GONE.try_with(Clone::clone).unwrap_or_default();
        tokio::select! {
            biased;
            () = gone.cancelled() => None,
            done = wait => Some(done),
            () = self.shared.closing.cancelled() => None,
        }
    }

    /// Waits for what nothing hangs on yet, unless the bus stops.
    pub(crate) async fn unless_closing<T>(
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
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, ReloadError> + Send + 'static,
    ) -> Result<T, ReloadError> {
        let reloader = self.clone();
        let done = self.shared.runtime.spawn_blocking(move || work(&reloader)).await;
        done.unwrap_or(Err(ReloadError::Closed))
    }

    /// Refuses where the version that was decided on last does not begin so. Whose turn it is calls this.
    pub(crate) fn is_still(&self, subject: &Subject, expected: Option<&str>) -> Result<(), ReloadError> {
        let Some(expected) = expected else { return Ok(()) };
        let shown = self.shown();
        match shown.0.subscribers.get(&subject.name).map(Decided::newest) {
            Some(is) if !is.to_string().starts_with(expected) => {
                Err(ReloadError::Moved { subscriber: subject.name.clone(), expected: expected.to_owned(), is })
            }
            _ => Ok(()),
        }
    }

    /// Waits for the turn of a reload, unless one that was asked for later has taken place by then. Its subscriber may have
    /// gone meanwhile, or be called otherwise.
    pub(super) async fn turn_of<'a>(
        &self,
        subject: &'a Subject,
        place: &Place<'_>,
    ) -> Result<Turn<'a, ()>, ReloadError> {
        let superseded = || ReloadError::Superseded { subscriber: subject.name.clone() };
        let turn = place.turn(&subject.turn).await.ok_or_else(superseded)?;
        self.is_there(subject)?;
        Ok(turn)
    }

    /// As [`Self::turn_of`] for what does not wait for others of its kind.
    pub(crate) async fn own_turn<'a>(&self, subject: &'a Subject) -> Result<Turn<'a, ()>, ReloadError> {
        let turn = subject.turn.lock().await;
        self.is_there(subject)?;
        Ok(turn)
    }

    fn is_there(&self, subject: &Subject) -> Result<(), ReloadError> {
        Ok(self.shared.tree.full_name(&subject.name).map(drop)?)
    }
}
