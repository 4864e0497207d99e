//! Changes versions, one at a time per subscriber.

pub(crate) mod queue;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::runtime::Handle;
use tokio::sync::MutexGuard as Turn;
use tokio::sync::watch::Sender;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::Proposal;
use crate::deploy::compile::Compile;
use crate::deploy::error::ReloadError;
use crate::deploy::record::decided::Decisions;
use crate::deploy::record::history::History;
use crate::deploy::record::store::{Store, StoreContent, StoreView};
use crate::deploy::reloader::queue::{Queue, QueuePlace};
use crate::deploy::secrets::SecretFolders;
use crate::dispatch::{NameError, Subscriber, Tree};
use crate::effects::Clock;
use crate::engine::Engine;
use crate::topology::{Plan, SubscriberPlan};

/// The versions of a running tree. Cheap to clone.
pub struct Reloader<E, C> {
    pub(crate) shared: Arc<ReloaderInner<E, C>>,
}

impl<E, C> Clone for Reloader<E, C> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

pub(crate) struct ReloaderInner<E, C> {
    pub(crate) tree: Tree<E>,
    pub(crate) compiler: C,
    /// The clock of the store.
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) store: Mutex<Store>,
    pub(crate) shown: StoreView,
    /// Every subscriber since the start; none is removed, so that indices are stable.
    pub(crate) subjects: RwLock<Vec<Arc<Subject>>>,
    /// Held while a topology is applied.
    pub(crate) applying: tokio::sync::Mutex<()>,
    /// A topology was decided that is only partly running.
    pub(crate) is_unfinished: AtomicBool,
    /// The history of the applied topology.
    pub(crate) history: Mutex<History>,
    /// Why the files of the start are not applied.
    pub(crate) files_refused: Mutex<Vec<String>>,
    /// The folders for secrets of applied topologies.
    pub(crate) secrets: RwLock<SecretFolders>,
    /// Number of deletions.
    pub(crate) forgotten: Sender<u64>,
    /// The running topology.
    pub(crate) topology: Sender<Arc<Proposal>>,
    pub(crate) tasks: TaskTracker,
    pub(crate) closing: CancellationToken,
    pub(crate) runtime: Handle,
}

tokio::task_local! {
    /// Cancelled when the caller has gone.
    static GONE: CancellationToken;
}

/// A subscriber whose plugin can be reloaded.
pub(crate) struct Subject {
    pub(crate) name: String,
    /// Its declaration; changed while holding `turn`.
    pub(crate) of: RwLock<(SubscriberPlan, u32)>,
    /// Held while its versions are changed.
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// The queue of reloads.
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

    /// The declaration of a subscriber, and its number of lanes.
    fn of(plan: &Plan, subscriber: &SubscriberPlan) -> (SubscriberPlan, u32) {
        (subscriber.clone(), plan[subscriber.from].partitions)
    }

    pub(crate) fn plan(&self) -> SubscriberPlan {
        self.of.read().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Takes over a declaration that does not require its lanes to restart.
    pub(crate) fn follow(&self, plan: &Plan, subscriber: &SubscriberPlan) {
        *self.of.write().unwrap_or_else(PoisonError::into_inner) = Self::of(plan, subscriber);
    }

    pub(super) fn lanes(&self) -> u32 {
        self.of.read().unwrap_or_else(PoisonError::into_inner).1
    }
}

impl<E: Engine, C: Compile> Reloader<E, C> {
    /// Ends the running work: decisions are stored, and the next start continues.
    pub async fn stop(&self) {
        self.shared.closing.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    /// The stored data, for readers: without waiting for the disk.
    pub(crate) fn shown(&self) -> Arc<StoreContent> {
        self.shared.shown.now()
    }

    /// The store, for changes of the record. Locked while that is written: not by readers, nor for components.
    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        // A change of the record is completed or not made.
        self.shared.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every subscriber since the start, with stable indices.
    pub(crate) fn all(&self) -> Vec<Arc<Subject>> {
        self.shared.subjects.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn subject(&self, subscriber: &str) -> Result<(usize, Arc<Subject>), ReloadError> {
        let name = self.shared.tree.subscriber(subscriber)?.name();
        let found = self.all().into_iter().enumerate().find(|(_, subject)| subject.name == name);
        found.ok_or_else(|| NameError::gone(&name).into())
    }

    pub(crate) fn at(&self, index: usize) -> Result<Arc<Subject>, ReloadError> {
        let subjects = self.shared.subjects.read().unwrap_or_else(PoisonError::into_inner);
        subjects.get(index).cloned().ok_or(ReloadError::Closed)
    }

    pub(crate) fn note(&self, subject: &Subject, note: Option<String>) {
        // Its subscriber may have been removed meanwhile.
        if let Ok(running) = self.running(subject) {
            running.versions().note_reload(note);
        }
    }

    /// Completes `work` even if the caller goes away, unless it has not begun ([`Self::to_begin`]).
    pub(crate) async fn whole<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ReloadError>> + Send + 'static,
    ) -> Result<T, ReloadError> {
        self.detached(work).await.unwrap_or(Err(ReloadError::Closed))
    }

    /// Runs a task that knows whether its caller has gone. `None` if the bus is stopping.
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

    /// Waits to begin, unless the bus stops or the caller has gone: abandoned work does not begin.
    pub(crate) async fn to_begin<T>(
        &self,
        turn: impl Future<Output = Result<T, ReloadError>>,
    ) -> Result<T, ReloadError> {
        self.while_wanted(turn).await.unwrap_or(Err(ReloadError::Closed))
    }

    /// Waits before work has begun; `None` if the bus stops or the caller goes meanwhile.
    pub(crate) async fn while_wanted<T>(&self, wait: impl Future<Output = T>) -> Option<T> {
        let gone = GONE.try_with(Clone::clone).unwrap_or_default();
        tokio::select! {
            biased;
            () = gone.cancelled() => None,
            done = wait => Some(done),
            () = self.shared.closing.cancelled() => None,
        }
    }

    /// Waits for something without side effects, unless the bus stops.
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

    /// Runs blocking work.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, ReloadError> + Send + 'static,
    ) -> Result<T, ReloadError> {
        let reloader = self.clone();
        let done = self.shared.runtime.spawn_blocking(move || work(&reloader)).await;
        done.unwrap_or(Err(ReloadError::Closed))
    }

    /// Checks that the last decided version begins with `expected`. The caller must hold [`Subject::turn`].
    pub(crate) fn is_still(&self, subject: &Subject, expected: Option<&str>) -> Result<(), ReloadError> {
        let Some(expected) = expected else { return Ok(()) };
        let shown = self.shown();
        match shown.0.subscribers.get(&subject.name).map(Decisions::newest) {
            Some(is) if !is.to_string().starts_with(expected) => {
                Err(ReloadError::Moved { subscriber: subject.name.clone(), expected: expected.to_owned(), is })
            }
            _ => Ok(()),
        }
    }

    /// Waits for the turn of a reload, unless a later one succeeds first. Its subscriber may have been removed or
    /// renamed meanwhile.
    pub(super) async fn turn_of<'a>(
        &self,
        subject: &'a Subject,
        place: &QueuePlace<'_>,
    ) -> Result<Turn<'a, ()>, ReloadError> {
        let superseded = || ReloadError::Superseded { subscriber: subject.name.clone() };
        let turn = place.turn(&subject.turn).await.ok_or_else(superseded)?;
        self.is_there(subject)?;
        Ok(turn)
    }

    /// As [`Self::turn_of`], for work that is not queued with reloads.
    pub(crate) async fn own_turn<'a>(&self, subject: &'a Subject) -> Result<Turn<'a, ()>, ReloadError> {
        let turn = subject.turn.lock().await;
        self.is_there(subject)?;
        Ok(turn)
    }

    fn is_there(&self, subject: &Subject) -> Result<(), ReloadError> {
        self.running(subject).map(drop)
    }

    /// The running subscriber. It stays that one as long as the caller holds [`Subject::turn`].
    pub(crate) fn running(&self, subject: &Subject) -> Result<Subscriber<E>, ReloadError> {
        Ok(self.shared.tree.subscriber(&subject.name)?)
    }
}
