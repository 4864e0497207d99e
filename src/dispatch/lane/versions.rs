//! Which version of its handler each lane of a subscriber calls, and whether a new one keeps its place.
//!
//! ```text
//!                try_version                      enough events went well, and time: pass
//!   proven A ───────────────> proven A, trial B ───────────────────> B is passing ───────> proven B
//!                                │  ^   │                    hold      │       pass: that is durable
//!                   try_version C └──┘   │                             │
//!                                       └── B failed on an event       └── release: that could not be kept; what B
//!                                           that A then handled:           failed on meanwhile counts now
//!                                           back to A, at once
//! ```
//!
//! Promises: a lane looks here in front of each call and never within one, so a change comes between two batches. What was
//! handled is committed under the version that did it. Whoever ends a trial first has ended it: once it has passed nobody
//! fails it, and once it has failed every lane calls the proven version again, whether or not anybody else knows yet. While its
//! end is being written lanes call both, and the trial cannot fail.
//!
//! Must not know: where versions come from, which one somebody decided on.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::model::call::{Batch, HandleError, Handled, Handler, PluginSettings};
use crate::model::{Offset, VersionId};

type Answering<'a> = Pin<Box<dyn Future<Output = Result<Handled, HandleError>> + Send + 'a>>;

/// A handler of a type that is not said, so that one of another type can take its place.
pub(crate) trait Calls: Send + Sync {
    fn handle<'a>(&'a self, batch: Batch<'a>) -> Answering<'a>;
}

impl<H: Handler> Calls for H {
    fn handle<'a>(&'a self, batch: Batch<'a>) -> Answering<'a> {
        Box::pin(Handler::handle(self, batch))
    }
}

/// A version that can be called.
#[derive(Clone)]
pub(crate) struct Version {
    pub(crate) handler: Arc<dyn Calls>,
    /// In the engine's catalogue.
    pub(crate) number: VersionId,
    /// Hexadecimal.
    pub(crate) digest: Arc<str>,
    /// Of its component, if it has one.
    pub(super) wasm_digest: Option<[u8; 32]>,
    pub(crate) settings: Arc<PluginSettings>,
    pub(super) state_version: u32,
    pub(crate) declares_ports: bool,
}

impl Version {
    pub(crate) fn new<H: Handler>(handler: H, number: VersionId) -> Self {
        let (digest, wasm_digest) = (hex(&handler.digest()).into(), handler.wasm_digest());
        let (settings, state_version) = (handler.settings(), handler.state_version());
        let declares_ports = handler.declares_ports();
        Self { handler: Arc::new(handler), number, digest, wasm_digest, settings, state_version, declares_ports }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How a new version is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Events that it has to handle before it can pass.
    pub events: u64,
    /// Only the first so many lanes call it; `None` for all.
    pub lanes: Option<u32>,
    /// How long it is tried at least.
    pub time: Duration,
    /// How long it is tried at most, also where it handles fewer events.
    pub at_most: Duration,
    /// How much of that had passed when this process began to try it. It is tried for `time` all the same.
    pub passed: Duration,
}

/// How a trial goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Open,
    /// It has handled as many events as it had to, and goes on until somebody lets it pass.
    Enough,
    /// It passes once that is durable. Until then it is still called; where writing that fails, its verdict meanwhile counts.
    Passing(Option<Box<Verdict>>),
    /// It failed where the proven version did not, and is not called any more.
    Failed(TrialFailure),
    /// It goes on, and a lane waits for somebody to say with which version.
    Asks(TrialFailure),
    /// It is over for another reason: it has passed, or another version took its place.
    Over,
}

/// What a new version failed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrialFailure {
    /// The partition of the subscriber's topic.
    pub partition: u32,
    /// The event's offset there.
    pub offset: Offset,
    /// The event's CloudEvents id.
    pub event: String,
    /// Why, in words.
    pub reason: String,
}

impl std::fmt::Display for TrialFailure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { partition, offset, event, reason } = self;
        write!(formatter, "event {event} (partition {partition}, offset {offset}): {reason}")
    }
}

/// A new version beside the one that it is to replace, which is asked about each event that the new one fails on.
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

    /// The digest of the version that is tried, hexadecimal.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// How it is tried.
    pub fn terms(&self) -> Terms {
        self.terms
    }

    /// Events that the new version has handled.
    pub fn handled(&self) -> u64 {
        self.handled.load(Ordering::Relaxed)
    }

    /// How long this process has tried it.
    pub fn lasted(&self) -> Duration {
        self.began.elapsed()
    }

    /// When it may pass.
    pub fn passes_at(&self) -> Instant {
        self.began + self.terms.time
    }

    /// When it passes also where it has handled too few events.
    pub fn ends_at(&self) -> Instant {
        let Terms { time, at_most, passed, .. } = self.terms;
        self.began + time.max(at_most.saturating_sub(passed))
    }

    /// It has lasted long enough, however few events there were. Not where a lane waits for somebody to decide.
    pub fn has_lasted(&self) {
        self.turn(Verdict::Enough);
    }

    /// How it goes, and every change of that.
    pub fn verdict(&self) -> watch::Receiver<Verdict> {
        self.verdict.subscribe()
    }

    pub(super) fn add_handled(&self, events: u64) {
        let before = self.handled.fetch_add(events, Ordering::Relaxed);
        if before < self.terms.events && before + events >= self.terms.events {
            self.turn(Verdict::Enough);
        }
    }

    /// A lane waits for somebody to decide.
    pub(super) fn ask(&self, failure: TrialFailure) {
        self.turn(Verdict::Asks(failure));
    }

    /// Whether it was not over before.
    fn turn(&self, to: Verdict) -> bool {
        self.verdict.send_if_modified(|verdict| {
            let goes_on = match verdict {
                Verdict::Open => true,
                // what a lane asks is more than that there were enough
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

/// A version on trial.
#[derive(Clone)]
pub(crate) struct OnTrial {
    pub(crate) version: Version,
    pub(crate) trial: Arc<Trial>,
}

/// What lanes call.
#[derive(Clone)]
pub(crate) struct Assignment {
    pub(crate) proven: Version,
    pub(crate) on_trial: Option<OnTrial>,
}

impl Assignment {
    /// What a lane calls.
    fn of_lane(&self, partition: u32) -> (&Version, Option<&Arc<Trial>>) {
        match &self.on_trial {
            Some(OnTrial { version, trial }) if trial.terms.lanes.is_none_or(|lanes| partition < lanes) => {
                (version, Some(trial))
            }
            _ => (&self.proven, None),
        }
    }
}

/// The versions of a subscriber.
pub(crate) struct Roster {
    /// Counts changes, so that a lane that looks and finds none takes no lock.
    generation: AtomicU64,
    assignment: Mutex<Arc<Assignment>>,
    /// What became of the last reload, in words.
    note: Mutex<Option<String>>,
}

impl Roster {
    pub(crate) fn new(proven: Version, on_trial: Option<(Version, Terms)>) -> Self {
        let on_trial = on_trial.map(|(version, terms)| {
            let trial = Arc::new(Trial::new(&version, terms));
            OnTrial { version, trial }
        });
        let assignment = Mutex::new(Arc::new(Assignment { proven, on_trial }));
        Self { generation: AtomicU64::new(0), assignment, note: Mutex::new(None) }
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Assignment>> {
        self.assignment.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What lanes call from now on.
    pub(crate) fn assignment(&self) -> Arc<Assignment> {
        self.lock().clone()
    }

    fn set(&self, locked: &mut MutexGuard<'_, Arc<Assignment>>, assignment: Assignment) {
        **locked = Arc::new(assignment);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Another version is the proven one.
    pub(crate) fn replace(&self, proven: Version) {
        let mut locked = self.lock();
        locked.end_trial();
        self.set(&mut locked, Assignment { proven, on_trial: None });
    }

    /// A version is tried, in place of another that may have been.
    pub(crate) fn try_version(&self, version: Version, terms: Terms) -> Arc<Trial> {
        let mut locked = self.lock();
        locked.end_trial();
        let trial = Arc::new(Trial::new(&version, terms));
        let on_trial = Some(OnTrial { version, trial: trial.clone() });
        let proven = locked.proven.clone();
        self.set(&mut locked, Assignment { proven, on_trial });
        trial
    }

    /// No version is tried any more.
    pub(crate) fn give_up(&self) {
        let mut locked = self.lock();
        locked.end_trial();
        let proven = locked.proven.clone();
        self.set(&mut locked, Assignment { proven, on_trial: None });
    }

    /// A trial that has done enough cannot fail from here on, until it is let go or over. False where it has not, or is over.
    pub(crate) fn hold(&self, trial: &Arc<Trial>) -> bool {
        self.hold_if(trial, |verdict| *verdict == Verdict::Enough)
    }

    /// As [`Self::hold`], whether or not it has done enough.
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

    /// A trial that was held can fail again, and has failed where it did meanwhile.
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

    /// A version that is on trial is proven. False where the trial was over before.
    pub(crate) fn pass(&self, trial: &Arc<Trial>) -> bool {
        let mut locked = self.lock();
        let Some(on_trial) = locked.is_tried(trial) else { return false };
        let proven = on_trial.version.clone();
        trial.turn(Verdict::Over);
        self.set(&mut locked, Assignment { proven, on_trial: None });
        true
    }

    /// A version that is on trial in some lanes is tried in all. None where the trial was over before.
    pub(crate) fn widen(&self, trial: &Arc<Trial>) -> Option<Arc<Trial>> {
        let mut locked = self.lock();
        let version = locked.is_tried(trial)?.version.clone();
        trial.turn(Verdict::Over);
        let wide = Arc::new(Trial::new(&version, Terms { lanes: None, passed: Duration::ZERO, ..trial.terms }));
        let (proven, on_trial) = (locked.proven.clone(), Some(OnTrial { version, trial: wide.clone() }));
        self.set(&mut locked, Assignment { proven, on_trial });
        Some(wide)
    }

    /// A version that is on trial has failed where the proven one did not. Nothing where the trial was over before.
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

    fn is_tried(&self, trial: &Arc<Trial>) -> Option<&OnTrial> {
        self.on_trial.as_ref().filter(|on_trial| Arc::ptr_eq(&on_trial.trial, trial))
    }
}

/// What a lane calls, as it was when it last looked.
pub(crate) struct Taken {
    generation: u64,
    pub(crate) version: Version,
    pub(crate) proven: Version,
    /// The version is on trial.
    pub(crate) trial: Option<Arc<Trial>>,
}

impl Taken {
    pub(crate) fn of(roster: &Roster, partition: u32) -> Self {
        // The count first: what is changed in between is seen now, and looked at once more.
        let generation = roster.generation.load(Ordering::Acquire);
        let assignment = roster.assignment();
        let (version, trial) = assignment.of_lane(partition);
        Self { generation, version: version.clone(), proven: assignment.proven.clone(), trial: trial.cloned() }
    }

    /// Whether there may be something else to call by now.
    pub(super) fn is_stale(&self, roster: &Roster) -> bool {
        self.generation != roster.generation.load(Ordering::Acquire)
    }

    /// The proven version alone.
    pub(super) fn without_trial(&self) -> Self {
        let Self { generation, proven, .. } = self;
        Self { generation: *generation, version: proven.clone(), proven: proven.clone(), trial: None }
    }

    /// What the version on trial has written is not what the proven one understands, so that it cannot be asked.
    pub(super) fn changes_state(&self) -> bool {
        self.trial.is_some() && self.version.state_version != self.proven.state_version
    }
}
