//! The versions that the lanes of a subscriber call, and the verdict on a candidate.
//!
//! ```text
//!                try_version                      enough events and time: pass
//!   stable A ───────────────> stable A, candidate B ───────────────────> B is passing ───────> stable B
//!                                │  ^   │                    hold      │       pass: it is durable
//!                   try_version C └──┘   │                             │
//!                                       └── B failed on an event       └── release: it could not be stored;
//!                                           that A then handled:           failures of B in the meantime
//!                                           back to A, at once             count now
//! ```
//!
//! Promises: a lane checks for changes before each call and never within one, so a change takes effect between two
//! batches. Events are committed under the version that handled them. The first end of a trial is final: after a pass
//! it cannot fail, and after a failure every lane calls the stable version again at once. While its end is being
//! stored, lanes call both, and the trial cannot fail.
//!
//! Must not know: where versions come from, who decides.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::model::call::{Batch, HandleError, Handled, Handler, PluginSettings};
use crate::model::{Offset, VersionId};

type HandlerFuture<'a> = Pin<Box<dyn Future<Output = Result<Handled, HandleError>> + Send + 'a>>;

/// A handler with its type erased, so that a handler of another type can replace it.
pub(crate) trait DynHandler: Send + Sync {
    fn handle<'a>(&'a self, batch: Batch<'a>) -> HandlerFuture<'a>;
}

impl<H: Handler> DynHandler for H {
    fn handle<'a>(&'a self, batch: Batch<'a>) -> HandlerFuture<'a> {
        Box::pin(Handler::handle(self, batch))
    }
}

/// A version that can be called.
#[derive(Clone)]
pub(crate) struct Version {
    pub(crate) handler: Arc<dyn DynHandler>,
    /// In the engine's catalogue.
    pub(crate) number: VersionId,
    /// Digest of the version, hexadecimal.
    pub(crate) digest: Arc<str>,
    /// Of its component, if it has one.
    pub(super) wasm_digest: Option<[u8; 32]>,
    pub(crate) settings: Arc<PluginSettings>,
    pub(super) state_version: u32,
    pub(crate) declares_ports: bool,
    /// Why it cannot be called, if so.
    pub(crate) unavailable: Option<Arc<str>>,
    /// Whether it cannot be called because it is still being compiled.
    pub(crate) is_compiling: bool,
}

impl Version {
    pub(crate) fn new<H: Handler>(handler: H, number: VersionId) -> Self {
        let (digest, wasm_digest) = (hex(&handler.digest()).into(), handler.wasm_digest());
        let (settings, state_version) = (handler.settings(), handler.state_version());
        let (declares_ports, is_compiling) = (handler.declares_ports(), handler.is_compiling());
        let unavailable = handler.unavailable().map(Into::into);
        let handler = Arc::new(handler);
        Self {
            handler,
            number,
            digest,
            wasm_digest,
            settings,
            state_version,
            declares_ports,
            unavailable,
            is_compiling,
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The terms of a trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Events that the candidate has to handle before it can pass.
    pub events: u64,
    /// Only this number of lanes call it, from the first on; `None` for all.
    pub lanes: Option<u32>,
    /// Minimum duration of the trial.
    pub time: Duration,
    /// Maximum duration, even if it handles fewer events.
    pub at_most: Duration,
    /// The part of `at_most` that had passed when this process began the trial. The minimum `time` starts anew.
    pub passed: Duration,
}

/// State of a trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// In progress.
    Open,
    /// It has met its terms, and continues until it is promoted.
    Enough,
    /// It passes once that is durable, and is still called until then. If storing it fails, the verdict inside counts.
    Passing(Option<Box<Verdict>>),
    /// It failed where the stable version did not, and is no longer called.
    Failed(TrialFailure),
    /// In progress, while a lane waits for an operator to choose a version.
    Asks(TrialFailure),
    /// Over for another reason: it was promoted or replaced.
    Over,
}

/// The failure that ended a trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrialFailure {
    /// The partition of the subscriber's topic.
    pub partition: u32,
    /// The event's offset there.
    pub offset: Offset,
    /// The event's CloudEvents id.
    pub event: String,
    /// The reason, in words.
    pub reason: String,
}

impl std::fmt::Display for TrialFailure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { partition, offset, event, reason } = self;
        write!(formatter, "event {event} (partition {partition}, offset {offset}): {reason}")
    }
}

/// A candidate that runs next to the stable version, which is called for each event that the candidate fails on.
#[derive(Debug)]
pub struct Trial {
    version: Arc<str>,
    terms: Terms,
    began: Instant,
    handled: AtomicU64,
    verdict: watch::Sender<Verdict>,
}

impl Trial {
    fn new(version: &Version, terms: Terms) -> Self {
        let verdict = if terms.events == 0 { Verdict::Enough } else { Verdict::Open };
        Self {
            version: version.digest.clone(),
            terms,
            began: Instant::now(),
            handled: AtomicU64::new(0),
            verdict: watch::Sender::new(verdict),
        }
    }

    /// Hexadecimal digest of the candidate.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The terms under which this version was deployed.
    pub fn terms(&self) -> Terms {
        self.terms
    }

    /// Events that the candidate has handled.
    pub fn handled(&self) -> u64 {
        self.handled.load(Ordering::Relaxed)
    }

    /// Duration of the trial in this process.
    pub fn lasted(&self) -> Duration {
        self.began.elapsed()
    }

    /// When it may pass.
    pub fn passes_at(&self) -> Instant {
        self.began + self.terms.time
    }

    /// When it passes even with too few events.
    pub fn ends_at(&self) -> Instant {
        let Terms { time, at_most, passed, .. } = self.terms;
        self.began + time.max(at_most.saturating_sub(passed))
    }

    /// Marks it as long enough, whatever the number of events, unless a lane waits for an operator.
    pub fn has_lasted(&self) {
        self.turn(Verdict::Enough);
    }

    /// The verdict, and its changes.
    pub fn verdict(&self) -> watch::Receiver<Verdict> {
        self.verdict.subscribe()
    }

    pub(super) fn add_handled(&self, events: u64) {
        let before = self.handled.fetch_add(events, Ordering::Relaxed);
        if before < self.terms.events && before + events >= self.terms.events {
            self.turn(Verdict::Enough);
        }
    }

    /// A lane waits for an operator to choose a version.
    pub(super) fn ask(&self, failure: TrialFailure) {
        self.turn(Verdict::Asks(failure));
    }

    /// Sets the verdict. False if the trial was over.
    fn turn(&self, to: Verdict) -> bool {
        self.verdict.send_if_modified(|verdict| {
            let goes_on = match verdict {
                Verdict::Open => true,
                // a lane's question takes precedence over met terms
                Verdict::Enough | Verdict::Asks(_) => to != Verdict::Enough,
                Verdict::Passing(_) if to == Verdict::Over => true,
                Verdict::Passing(meanwhile) => {
                    let has_failed = meanwhile.as_deref().is_some_and(|it| matches!(it, Verdict::Failed(_)));
                    if to != Verdict::Enough && !has_failed {
                        *meanwhile = Some(Box::new(to.clone()));
                    }
                    false
                }
                Verdict::Failed(_) | Verdict::Over => false,
            };
            if goes_on {
                *verdict = to;
            }
            goes_on
        })
    }
}

/// A candidate with its trial.
#[derive(Clone)]
pub(crate) struct Candidate {
    pub(crate) version: Version,
    pub(crate) trial: Arc<Trial>,
}

impl Candidate {
    fn of((version, terms): (Version, Terms)) -> Self {
        Self { trial: Arc::new(Trial::new(&version, terms)), version }
    }
}

/// The versions that lanes call.
#[derive(Clone)]
pub(crate) struct Assignment {
    pub(crate) proven: Version,
    pub(crate) on_trial: Option<Candidate>,
}

impl Assignment {
    /// The version that a lane calls, and its trial.
    fn of_lane(&self, partition: u32) -> (&Version, Option<&Arc<Trial>>) {
        match &self.on_trial {
            Some(Candidate { version, trial }) if trial.terms.lanes.is_none_or(|lanes| partition < lanes) => {
                (version, Some(trial))
            }
            _ => (&self.proven, None),
        }
    }
}

/// The versions of a subscriber.
pub(crate) struct VersionSlot {
    /// Counts changes, so that an unchanged roster is checked without a lock.
    generation: AtomicU64,
    /// Wakes lanes that wait for a change.
    changed: Notify,
    assignment: Mutex<Arc<Assignment>>,
    /// Result of the last deploy, in words.
    note: Mutex<Option<String>>,
}

impl VersionSlot {
    pub(crate) fn new(proven: Version, on_trial: Option<(Version, Terms)>) -> Self {
        let on_trial = on_trial.map(Candidate::of);
        let assignment = Mutex::new(Arc::new(Assignment { proven, on_trial }));
        Self { generation: AtomicU64::new(0), changed: Notify::new(), assignment, note: Mutex::new(None) }
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Assignment>> {
        self.assignment.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The versions that lanes call from now on.
    pub(crate) fn assignment(&self) -> Arc<Assignment> {
        self.lock().clone()
    }

    fn set(&self, locked: &mut MutexGuard<'_, Arc<Assignment>>, assignment: Assignment) {
        **locked = Arc::new(assignment);
        self.generation.fetch_add(1, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Waits until lanes call other versions than the taken ones.
    pub(super) async fn changes(&self, generation: u64) {
        loop {
            // before the look, so that no change is missed in between
            let changed = self.changed.notified();
            if self.generation.load(Ordering::Acquire) != generation {
                return;
            }
            changed.await;
        }
    }

    /// Replaces the stable version, and ends a trial.
    pub(crate) fn replace(&self, proven: Version) {
        let mut locked = self.lock();
        locked.end_trial();
        self.set(&mut locked, Assignment { proven, on_trial: None });
    }

    /// Starts a trial, which replaces a current one.
    pub(crate) fn try_version(&self, version: Version, terms: Terms) -> Arc<Trial> {
        let mut locked = self.lock();
        let proven = locked.proven.clone();
        self.try_beside(&mut locked, proven, version, terms)
    }

    /// Replaces the stable version and starts a trial, in one step: no lane calls the one without the other.
    pub(crate) fn replace_both(&self, proven: Version, candidate: Version, terms: Terms) -> Arc<Trial> {
        self.try_beside(&mut self.lock(), proven, candidate, terms)
    }

    fn try_beside(
        &self,
        locked: &mut MutexGuard<'_, Arc<Assignment>>,
        proven: Version,
        version: Version,
        terms: Terms,
    ) -> Arc<Trial> {
        locked.end_trial();
        let candidate = Candidate::of((version, terms));
        let trial = candidate.trial.clone();
        self.set(locked, Assignment { proven, on_trial: Some(candidate) });
        trial
    }

    /// Ends the trial.
    pub(crate) fn give_up(&self) {
        let mut locked = self.lock();
        locked.end_trial();
        let proven = locked.proven.clone();
        self.set(&mut locked, Assignment { proven, on_trial: None });
    }

    /// Protects a trial that has met its terms from failing, until it is released or over. False if it has not met
    /// them, or is over.
    pub(crate) fn hold(&self, trial: &Arc<Trial>) -> bool {
        self.hold_if(trial, |verdict| *verdict == Verdict::Enough)
    }

    /// Like [`Self::hold`], whether or not the terms are met.
    pub(crate) fn hold_now(&self, trial: &Arc<Trial>) -> bool {
        self.hold_if(trial, |verdict| matches!(verdict, Verdict::Open | Verdict::Enough | Verdict::Asks(_)))
    }

    fn hold_if(&self, trial: &Arc<Trial>, may: impl FnOnce(&Verdict) -> bool) -> bool {
        let locked = self.lock();
        locked.is_tried(trial).is_some()
            && trial.verdict.send_if_modified(|verdict| {
                let is_held = may(verdict);
                if is_held {
                    let before = std::mem::replace(verdict, Verdict::Passing(None));
                    *verdict = Verdict::Passing(Some(Box::new(before)).filter(|before| **before != Verdict::Enough));
                }
                is_held
            })
    }

    /// Ends the protection of [`Self::hold`]; a failure in the meantime takes effect now.
    pub(crate) fn release(&self, trial: &Arc<Trial>) {
        let mut locked = self.lock();
        if locked.is_tried(trial).is_none() {
            return;
        }
        let mut has_failed = false;
        trial.verdict.send_if_modified(|verdict| {
            let Verdict::Passing(meanwhile) = verdict else { return false };
            *verdict = meanwhile.take().map_or(Verdict::Enough, |meanwhile| *meanwhile);
            if *verdict == Verdict::Open && trial.handled() >= trial.terms.events {
                *verdict = Verdict::Enough;
            }
            has_failed = matches!(verdict, Verdict::Failed(_));
            true
        });
        if has_failed {
            let proven = locked.proven.clone();
            self.set(&mut locked, Assignment { proven, on_trial: None });
        }
    }

    /// Promotes the candidate to the stable version. False if the trial is over.
    pub(crate) fn pass(&self, trial: &Arc<Trial>) -> bool {
        let mut locked = self.lock();
        let Some(on_trial) = locked.is_tried(trial) else { return false };
        let proven = on_trial.version.clone();
        trial.turn(Verdict::Over);
        self.set(&mut locked, Assignment { proven, on_trial: None });
        true
    }

    /// Extends a trial from some lanes to all. `None` if the trial is over.
    pub(crate) fn widen(&self, trial: &Arc<Trial>) -> Option<Arc<Trial>> {
        let mut locked = self.lock();
        let version = locked.is_tried(trial)?.version.clone();
        trial.turn(Verdict::Over);
        let wide = Arc::new(Trial::new(&version, Terms { lanes: None, passed: Duration::ZERO, ..trial.terms }));
        let (proven, on_trial) = (locked.proven.clone(), Some(Candidate { version, trial: wide.clone() }));
        self.set(&mut locked, Assignment { proven, on_trial });
        Some(wide)
    }

    /// The candidate has failed where the stable version did not. No effect if the trial is over.
    pub(crate) fn fail(&self, trial: &Arc<Trial>, failure: TrialFailure) {
        let mut locked = self.lock();
        if locked.is_tried(trial).is_some() && trial.turn(Verdict::Failed(failure)) {
            let proven = locked.proven.clone();
            self.set(&mut locked, Assignment { proven, on_trial: None });
        }
    }

    pub(crate) fn note(&self) -> Option<String> {
        self.note.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_note(&self, note: Option<String>) {
        *self.note.lock().unwrap_or_else(PoisonError::into_inner) = note;
    }
}

impl Assignment {
    fn end_trial(&self) {
        if let Some(on_trial) = &self.on_trial {
            on_trial.trial.turn(Verdict::Over);
        }
    }

    fn is_tried(&self, trial: &Arc<Trial>) -> Option<&Candidate> {
        self.on_trial.as_ref().filter(|on_trial| Arc::ptr_eq(&on_trial.trial, trial))
    }
}

/// The version that a lane calls, as of its last check.
pub(crate) struct CurrentVersion {
    pub(super) generation: u64,
    pub(crate) version: Version,
    pub(crate) proven: Version,
    /// The trial, if the version is a candidate.
    pub(crate) trial: Option<Arc<Trial>>,
}

impl CurrentVersion {
    pub(crate) fn of(roster: &VersionSlot, partition: u32) -> Self {
        // The generation first: a change in between is seen, and checked once more.
        let generation = roster.generation.load(Ordering::Acquire);
        let assignment = roster.assignment();
        let (version, trial) = assignment.of_lane(partition);
        Self { generation, version: version.clone(), proven: assignment.proven.clone(), trial: trial.cloned() }
    }

    /// Whether the roster may have changed.
    pub(super) fn is_stale(&self, roster: &VersionSlot) -> bool {
        self.generation != roster.generation.load(Ordering::Acquire)
    }

    /// The same without the candidate.
    pub(super) fn without_trial(&self) -> Self {
        let Self { generation, proven, .. } = self;
        Self { generation: *generation, version: proven.clone(), proven: proven.clone(), trial: None }
    }

    /// Whether the candidate's state is incompatible with the stable version, so that the latter cannot be called.
    pub(super) fn changes_state(&self) -> bool {
        self.trial.is_some() && self.version.state_version != self.proven.state_version
    }
}
