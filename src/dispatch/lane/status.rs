//! Status of a running tree: one snapshot for the command line, the API and the tests.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::open_letters::OpenLetters;
use super::versions::{Terms, Trial};
use crate::api::{LaneState, SubscriberStatus, TrialStatus};
use crate::model::{Meter, Offset};

impl TrialStatus {
    /// The progress of a trial, without the version and its lanes.
    pub(crate) fn of(trial: &Trial) -> Self {
        let Terms { events, time, .. } = trial.terms();
        let ends_in = trial.ends_at().saturating_duration_since(Instant::now());
        let lasted = trial.lasted().min(time);
        Self { handled: trial.handled(), events, lasted, time, ends_in, ..Self::default() }
    }
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
            7 => Self::Compiling,
            _ => Self::Stopped,
        }
    }
}

/// Visible state of a lane.
#[derive(Debug, Default)]
struct LaneStatus {
    state: AtomicU8,
    waiting: AtomicU64,
    parked: AtomicU64,
    active: AtomicU64,
    /// When the oldest waiting event entered the queue, Unix nanoseconds; 0: none.
    since_ns: AtomicU64,
    /// Append time of an event that was read from disk for it, by offset.
    read_time_of: Mutex<Option<(Offset, u64)>>,
}

/// The retry queue of a lane.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RetryQueueStatus {
    /// Number of events.
    pub(crate) events: u64,
    /// Number of parked events.
    pub(crate) parked: u64,
    /// Number of keys with events that will be called without an operator, or are being called.
    pub(super) active: u64,
    /// When the oldest event entered the queue, Unix nanoseconds; 0: none.
    pub(crate) since_ns: u64,
}

/// Counters of a subscriber's lanes. No decision depends on them.
#[derive(Debug)]
pub(crate) struct Counters {
    began: Instant,
    /// Handled events per minute.
    rate: Meter,
    pub(crate) letters: OpenLetters,
    handled: AtomicU64,
    emitted: AtomicU64,
    retried: AtomicU64,
    dead_lettered: AtomicU64,
    passed_over: AtomicU64,
    repeated: AtomicU64,
    lanes: Vec<LaneStatus>,
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
            lanes: (0..lanes).map(|_| LaneStatus::default()).collect(),
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

    /// Reverts a count of handled events whose unit was refused.
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

    /// Counts duplicates that its group skips.
    pub(super) fn repeated(&self, events: u64) {
        self.repeated.fetch_add(events, Ordering::Relaxed);
    }

    /// Reverts a count of skipped events that are read again.
    pub(super) fn not_passed_over(&self, events: u64) {
        self.passed_over.fetch_sub(events, Ordering::Relaxed);
    }

    /// Sets the state of a lane. Returns the previous one.
    pub(super) fn set_lane(&self, partition: u32, state: LaneState) -> LaneState {
        let before = self.lanes.get(partition as usize).map(|lane| lane.state.swap(state as u8, Ordering::Relaxed));
        LaneState::from_number(before.unwrap_or_default())
    }

    /// Sets the retry queue of a lane.
    pub(super) fn set_waiting(&self, partition: u32, waits: RetryQueueStatus) {
        if let Some(lane) = self.lanes.get(partition as usize) {
            lane.waiting.store(waits.events, Ordering::Relaxed);
            lane.parked.store(waits.parked, Ordering::Relaxed);
            lane.since_ns.store(waits.since_ns, Ordering::Relaxed);
            lane.active.store(waits.active, Ordering::Release);
        }
    }

    /// Append time of the event at an offset, if it was read from disk before.
    pub(crate) fn read_time_of(&self, partition: u32, offset: Offset) -> Option<u64> {
        let read = *self.lanes.get(partition as usize)?.read_time_of.lock().unwrap_or_else(PoisonError::into_inner);
        read.filter(|(of, _)| *of == offset).map(|(_, time_ns)| time_ns)
    }

    pub(crate) fn set_read_time_of(&self, partition: u32, offset: Offset, time_ns: u64) {
        if let Some(lane) = self.lanes.get(partition as usize) {
            *lane.read_time_of.lock().unwrap_or_else(PoisonError::into_inner) = Some((offset, time_ns));
        }
    }

    /// Whether no waiting event will be called without an operator.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.lanes.iter().all(|lane| lane.active.load(Ordering::Acquire) == 0)
    }

    /// Whether a lane does nothing without an operator, although there may be events for it.
    pub(crate) fn stands_still(&self, partition: u32) -> bool {
        self.lanes.get(partition as usize).is_some_and(|lane| {
            match LaneState::from_number(lane.state.load(Ordering::Relaxed)) {
                LaneState::Paused | LaneState::Halted | LaneState::Failing | LaneState::Stopped => true,
                // retries make room, if there are any
                LaneState::Full => lane.active.load(Ordering::Acquire) == 0,
                LaneState::Running | LaneState::Retrying | LaneState::Blocked | LaneState::Compiling => false,
            }
        })
    }

    /// Copies the counters into a status, at this time in Unix nanoseconds.
    pub(crate) fn read_into(&self, status: &mut SubscriberStatus, now_ns: u64) {
        status.handled = self.handled.load(Ordering::Relaxed);
        status.emitted = self.emitted.load(Ordering::Relaxed);
        status.retried = self.retried.load(Ordering::Relaxed);
        status.dead_lettered = self.dead_lettered.load(Ordering::Relaxed);
        status.passed_over = self.passed_over.load(Ordering::Relaxed);
        status.repeated = self.repeated.load(Ordering::Relaxed);
        status.handled_per_minute = self.rate.per_minute(self.elapsed_ns());
        let since =
            self.lanes.iter().map(|lane| lane.since_ns.load(Ordering::Relaxed)).filter(|since_ns| *since_ns > 0);
        status.waiting_age = since.min().map(|since_ns| Duration::from_nanos(now_ns.saturating_sub(since_ns)));
        status.waiting = self.lanes.iter().map(|lane| lane.waiting.load(Ordering::Relaxed)).sum();
        status.parked = self.lanes.iter().map(|lane| lane.parked.load(Ordering::Relaxed)).sum();
        let state = |lane: &LaneStatus| LaneState::from_number(lane.state.load(Ordering::Relaxed));
        status.lanes = self.lanes.iter().map(state).collect();
        status.last_failure = self.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
    }
}
