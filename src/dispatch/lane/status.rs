//! What the running tree says of itself: one snapshot for the command line, the API and the tests.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::open_letters::OpenLetters;
use super::versions::{Terms, Trial};
use super::waiting::now_ns;
use crate::engine::{Bounds, GuardCounts};
use crate::model::{Meter, Offset};

/// Every node of the tree at about one moment, parents before children.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The topics.
    pub topics: Vec<TopicStatus>,
    /// The subscribers.
    pub subscribers: Vec<SubscriberStatus>,
    /// How long the tree has run: what is counted since its start is counted since then.
    pub uptime: Duration,
}

/// A topic.
#[derive(Debug, Clone)]
pub struct TopicStatus {
    /// Full name (`namespace/name`).
    pub name: String,
    /// The subscriber that writes to it, by full name; `None` for a root.
    pub parent: Option<String>,
    /// The topic that diverts to it, by full name; `None` where none does.
    pub diverted_from: Option<String>,
    /// It takes what that subscriber could not handle.
    pub is_dead_letters: bool,
    /// Events that are to come later.
    pub delayed: u64,
    /// Those of them that are due by the machine's clock and wait until it is confirmed, counted up to
    /// [`crate::limits::AWAITS_CLOCK_COUNTED`].
    pub awaits_clock: u64,
    /// Why those do not come at the moment, where that is so.
    pub delay_failure: Option<String>,
    /// Keys whose lives go on and have ended, and events that are held, where it has a lifecycle.
    pub states: Option<GuardCounts>,
    /// Why those that are held are not judged again at the moment, where that is so.
    pub held_failure: Option<String>,
    /// What is published again within [`crate::limits::RETRIED_FOR`] is recognised and stored once.
    pub recognises_retries: bool,
    /// Events that came in within the last minute.
    pub events_per_minute: u64,
    /// What each partition holds.
    pub partitions: Vec<Bounds>,
}

impl TopicStatus {
    /// Events that are kept, as lanes see them.
    pub fn events(&self) -> u64 {
        self.partitions.iter().map(|bounds| bounds.written - bounds.start).sum()
    }

    /// Events that are held until their key is in another state.
    pub fn held(&self) -> u64 {
        self.states.map_or(0, |states| states.held)
    }
}

/// A subscriber.
#[derive(Debug, Clone, Default)]
pub struct SubscriberStatus {
    /// Full name (`namespace/name`).
    pub name: String,
    /// The topic that it consumes, by full name.
    pub from: String,
    /// Its ports and the topics behind them, by full name.
    pub to: Vec<(String, String)>,
    /// The topic of its dead letters, by full name.
    pub dead_letters: Option<String>,
    /// Digest of the proven version, hexadecimal: the one that runs, but where another is on trial.
    pub digest: String,
    /// The version that is on trial.
    pub on_trial: Option<OnTrial>,
    /// It is pinned: nothing takes the place of the version that runs.
    pub is_pinned: bool,
    /// Why what runs has other settings than those that are applied, and what to do, in words; `None` where it has them.
    pub other_settings: Option<String>,
    /// What became of the last reload, in words.
    pub reload: Option<String>,
    /// Events that it has handled or given up since the start of the process.
    pub handled: u64,
    /// Events that it has emitted since the start of the process.
    pub emitted: u64,
    /// Calls that failed and were tried again since the start of the process.
    pub retried: u64,
    /// Events that went to dead letters since the start of the process.
    pub dead_lettered: u64,
    /// Events that it has passed over, since its `when` does not want them or they are not its own in its group, since the start of
    /// the process.
    pub passed_over: u64,
    /// Events that its whole group leaves out, since one of their identity was given to it before, since the start of the process;
    /// counted where that was found out, by one member.
    pub repeated: u64,
    /// Events of its input that it has yet to look at.
    pub lag: u64,
    /// How old the oldest of those is, by trusted time; `None` where there are none, or that cannot be read at the moment.
    pub lag_age: Option<Duration>,
    /// Events that came into its input within the last minute.
    pub arrived_per_minute: u64,
    /// Events that it has handled or given up within the last minute.
    pub handled_per_minute: u64,
    /// Dead letters that are kept and were neither redriven nor dropped; `None` where they cannot be counted at the moment.
    pub open_dead_letters: Option<u64>,
    /// Events behind its position that wait for another attempt, for one of their key, or to be released.
    pub waiting: u64,
    /// How long the one has waited that has waited for the longest time.
    pub waiting_age: Option<Duration>,
    /// Those of them that wait to be released.
    pub parked: u64,
    /// How its lanes are, one for each partition.
    pub lanes: Vec<LaneState>,
    /// The latest failure in words.
    pub last_failure: Option<String>,
}

/// A version of a subscriber that is on trial.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OnTrial {
    /// Its digest, hexadecimal.
    pub digest: String,
    /// Lanes that call it.
    pub lanes: u32,
    /// Events that it has handled.
    pub handled: u64,
    /// Events that it has to handle before it can be proven.
    pub events: u64,
    /// How long it has been tried since the process began, or since it began in all lanes, at most `time`.
    pub lasted: Duration,
    /// How long it is tried at least.
    pub time: Duration,
    /// How long until it is proven at the latest, where it does not fail.
    pub ends_in: Duration,
}

impl OnTrial {
    /// How a trial goes; nothing of the version and of its lanes.
    pub(crate) fn of(trial: &Trial) -> Self {
        let Terms { events, time, .. } = trial.terms();
        let ends_in = trial.ends_at().saturating_duration_since(Instant::now());
        let lasted = trial.lasted().min(time);
        Self { handled: trial.handled(), events, lasted, time, ends_in, ..Self::default() }
    }
}

/// How a lane is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneState {
    /// Handling or waiting for events.
    Running,
    /// The same, and some events wait to be tried again.
    Retrying,
    /// Somebody told it to pause.
    Paused,
    /// An event failed for the last time, and its topology says that it halts then.
    Halted,
    /// As many events wait as may, so nothing more is read.
    Full,
    /// A topic that it publishes to is full, so it makes no call.
    Blocked,
    /// It cannot go on, and is started again after a pause: the latest failure says why.
    Failing,
    /// Stopped: the process is going down, or the engine has stopped.
    Stopped,
}

impl LaneState {
    fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Running,
            1 => Self::Retrying,
            2 => Self::Paused,
            3 => Self::Halted,
            4 => Self::Full,
            5 => Self::Blocked,
            6 => Self::Failing,
            _ => Self::Stopped,
        }
    }
}

/// What is seen of a lane.
#[derive(Debug, Default)]
struct Lane {
    state: AtomicU8,
    waiting: AtomicU64,
    parked: AtomicU64,
    active: AtomicU64,
    /// Since when the first of those that wait does, Unix nanoseconds; 0: none does.
    since_ns: AtomicU64,
    /// When an event was appended that had to be read for it, by its offset.
    read_time_of: Mutex<Option<(Offset, u64)>>,
}

/// What waits in a lane.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waits {
    /// How many events.
    pub(crate) events: u64,
    /// How many of them are parked.
    pub(crate) parked: u64,
    /// How many will be called by themselves or are being.
    pub(super) active: u64,
    /// Since when the first of them does, Unix nanoseconds; 0: none does.
    pub(crate) since_ns: u64,
}

/// What the lanes of a subscriber count. Nothing is decided by it.
#[derive(Debug)]
pub(crate) struct Counters {
    began: Instant,
    /// What is handled, by the time since then.
    rate: Meter,
    pub(crate) letters: OpenLetters,
    handled: AtomicU64,
    emitted: AtomicU64,
    retried: AtomicU64,
    dead_lettered: AtomicU64,
    passed_over: AtomicU64,
    repeated: AtomicU64,
    lanes: Vec<Lane>,
    last_failure: Mutex<Option<String>>,
}

impl Counters {
    pub(crate) fn new(lanes: u32) -> Self {
        Self {
            began: Instant::now(),
            rate: Meter::default(),
            letters: OpenLetters::default(),
            handled: AtomicU64::new(0),
            emitted: AtomicU64::new(0),
            retried: AtomicU64::new(0),
            dead_lettered: AtomicU64::new(0),
            passed_over: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            lanes: (0..lanes).map(|_| Lane::default()).collect(),
            last_failure: Mutex::new(None),
        }
    }

    fn elapsed_ns(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(crate) fn handled(&self, events: u64, emitted: u64) {
        self.handled.fetch_add(events, Ordering::Relaxed);
        self.rate.add(self.elapsed_ns(), events);
        self.emitted.fetch_add(emitted, Ordering::Relaxed);
    }

    /// What was counted as handled was refused.
    pub(super) fn not_handled(&self, events: u64, emitted: u64) {
        self.handled.fetch_sub(events, Ordering::Relaxed);
        self.rate.take_back(self.elapsed_ns(), events);
        self.emitted.fetch_sub(emitted, Ordering::Relaxed);
    }

    pub(super) fn retried(&self) {
        self.retried.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn dead_lettered(&self) {
        self.handled.fetch_add(1, Ordering::Relaxed);
        self.rate.add(self.elapsed_ns(), 1);
        self.dead_lettered.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self, words: &str) {
        *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(words.to_owned());
    }

    pub(crate) fn passed_over(&self, events: u64) {
        self.passed_over.fetch_add(events, Ordering::Relaxed);
    }

    /// Repetitions that its group leaves out.
    pub(super) fn repeated(&self, events: u64) {
        self.repeated.fetch_add(events, Ordering::Relaxed);
    }

    /// What was counted as passed over is read again.
    pub(super) fn not_passed_over(&self, events: u64) {
        self.passed_over.fetch_sub(events, Ordering::Relaxed);
    }

    /// How a lane is now. How it was.
    pub(super) fn set_lane(&self, partition: u32, state: LaneState) -> LaneState {
        let before = self.lanes.get(partition as usize).map(|lane| lane.state.swap(state as u8, Ordering::Relaxed));
        LaneState::from_number(before.unwrap_or_default())
    }

    /// What waits in a lane now.
    pub(super) fn set_waiting(&self, partition: u32, waits: Waits) {
        if let Some(lane) = self.lanes.get(partition as usize) {
            lane.waiting.store(waits.events, Ordering::Relaxed);
            lane.parked.store(waits.parked, Ordering::Relaxed);
            lane.since_ns.store(waits.since_ns, Ordering::Relaxed);
            lane.active.store(waits.active, Ordering::Release);
        }
    }

    /// When the event at an offset was appended, where that was read for a lane before.
    pub(crate) fn read_time_of(&self, partition: u32, offset: Offset) -> Option<u64> {
        let read = *self.lanes.get(partition as usize)?.read_time_of.lock().unwrap_or_else(PoisonError::into_inner);
        read.filter(|(of, _)| *of == offset).map(|(_, time_ns)| time_ns)
    }

    pub(crate) fn set_read_time_of(&self, partition: u32, offset: Offset, time_ns: u64) {
        if let Some(lane) = self.lanes.get(partition as usize) {
            *lane.read_time_of.lock().unwrap_or_else(PoisonError::into_inner) = Some((offset, time_ns));
        }
    }

    /// Whether no waiting event will be called without anybody's help.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.lanes.iter().all(|lane| lane.active.load(Ordering::Acquire) == 0)
    }

    /// Whether a lane does nothing more without anybody's help, although there may be events for it.
    pub(crate) fn stands_still(&self, partition: u32) -> bool {
        self.lanes.get(partition as usize).is_some_and(|lane| {
            match LaneState::from_number(lane.state.load(Ordering::Relaxed)) {
                LaneState::Paused | LaneState::Halted | LaneState::Failing | LaneState::Stopped => true,
                // room comes from those that are tried again, if there are any
                LaneState::Full => lane.active.load(Ordering::Acquire) == 0,
                LaneState::Running | LaneState::Retrying | LaneState::Blocked => false,
            }
        })
    }

    /// Puts the counts into a status.
    pub(crate) fn read_into(&self, status: &mut SubscriberStatus) {
        status.handled = self.handled.load(Ordering::Relaxed);
        status.emitted = self.emitted.load(Ordering::Relaxed);
        status.retried = self.retried.load(Ordering::Relaxed);
        status.dead_lettered = self.dead_lettered.load(Ordering::Relaxed);
        status.passed_over = self.passed_over.load(Ordering::Relaxed);
        status.repeated = self.repeated.load(Ordering::Relaxed);
        status.handled_per_minute = self.rate.per_minute(self.elapsed_ns());
        let since =
            self.lanes.iter().map(|lane| lane.since_ns.load(Ordering::Relaxed)).filter(|since_ns| *since_ns > 0);
        let now_ns = now_ns();
        status.waiting_age = since.min().map(|since_ns| Duration::from_nanos(now_ns.saturating_sub(since_ns)));
        status.waiting = self.lanes.iter().map(|lane| lane.waiting.load(Ordering::Relaxed)).sum();
        status.parked = self.lanes.iter().map(|lane| lane.parked.load(Ordering::Relaxed)).sum();
        let state = |lane: &Lane| LaneState::from_number(lane.state.load(Ordering::Relaxed));
        status.lanes = self.lanes.iter().map(state).collect();
        status.last_failure = self.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
    }
}
