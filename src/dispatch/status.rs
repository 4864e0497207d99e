//! What the running tree says of itself: one snapshot for the command line, the API and the tests.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::engine::Bounds;

/// Every node of the tree at about one moment, parents before children.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The topics.
    pub topics: Vec<TopicStatus>,
    /// The subscribers.
    pub subscribers: Vec<SubscriberStatus>,
}

/// A topic.
#[derive(Debug, Clone)]
pub struct TopicStatus {
    /// Full name (`namespace/name`).
    pub name: String,
    /// The subscriber that writes to it, by full name; `None` for a root.
    pub parent: Option<String>,
    /// It takes what that subscriber could not handle.
    pub is_dead_letters: bool,
    /// What each partition holds.
    pub partitions: Vec<Bounds>,
}

impl TopicStatus {
    /// Events that are kept, as lanes see them.
    pub fn events(&self) -> u64 {
        self.partitions.iter().map(|bounds| bounds.written - bounds.start).sum()
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
    /// Digest of the version that runs, hexadecimal.
    pub digest: String,
    /// Events that it has handled or given up since the start of the process.
    pub handled: u64,
    /// Events that it has emitted since the start of the process.
    pub emitted: u64,
    /// Calls that failed and were tried again since the start of the process.
    pub retried: u64,
    /// Events that went to dead letters since the start of the process.
    pub dead_lettered: u64,
    /// Events that are waiting for it.
    pub lag: u64,
    /// How its lanes are, one for each partition.
    pub lanes: Vec<LaneState>,
    /// The latest failure in words.
    pub last_failure: Option<String>,
}

/// How a lane is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneState {
    /// Handling or waiting for events.
    Running,
    /// Waiting to try a failed event again.
    Retrying,
    /// Stopped: the process is going down, or the engine has stopped.
    Stopped,
}

impl LaneState {
    fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Running,
            1 => Self::Retrying,
            _ => Self::Stopped,
        }
    }
}

/// What the lanes of a subscriber count. Nothing is decided by it.
#[derive(Debug, Default)]
pub(super) struct Counters {
    handled: AtomicU64,
    emitted: AtomicU64,
    retried: AtomicU64,
    dead_lettered: AtomicU64,
    lanes: Vec<AtomicU8>,
    last_failure: Mutex<Option<String>>,
}

impl Counters {
    pub(super) fn new(lanes: u32) -> Self {
        Self { lanes: (0..lanes).map(|_| AtomicU8::new(LaneState::Running as u8)).collect(), ..Self::default() }
    }

    pub(super) fn handled(&self, events: u64, emitted: u64) {
        self.handled.fetch_add(events, Ordering::Relaxed);
        self.emitted.fetch_add(emitted, Ordering::Relaxed);
    }

    pub(super) fn retried(&self) {
        self.retried.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn dead_lettered(&self) {
        self.handled.fetch_add(1, Ordering::Relaxed);
        self.dead_lettered.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failed(&self, words: &str) {
        *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(words.to_owned());
    }

    pub(super) fn set_lane(&self, partition: u32, state: LaneState) {
        if let Some(lane) = self.lanes.get(partition as usize) {
            lane.store(state as u8, Ordering::Relaxed);
        }
    }

    /// Puts the counts into a status.
    pub(super) fn read_into(&self, status: &mut SubscriberStatus) {
        status.handled = self.handled.load(Ordering::Relaxed);
        status.emitted = self.emitted.load(Ordering::Relaxed);
        status.retried = self.retried.load(Ordering::Relaxed);
        status.dead_lettered = self.dead_lettered.load(Ordering::Relaxed);
        let state = |lane: &AtomicU8| LaneState::from_number(lane.load(Ordering::Relaxed));
        status.lanes = self.lanes.iter().map(state).collect();
        status.last_failure = self.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
    }
}
