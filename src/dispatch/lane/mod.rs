//! A lane: the one owner of a (subscriber, partition). It reads, calls, commits, in order.
//!
//! ```text
//!           ┌─ not for it (`when`, `queue_group`): skipped, in one unit with the event before it
//!           │
//!   read ───┼─ an earlier event of its key waits: into the retry queue
//!           │
//!           └─ call(events[at..]) ─┬─ a verdict for each event: commit those that are done; the others into the retry
//!                                  │  queue, or dead letters (`settlement`)
//!                                  └─ trapped at k: call(events[at..k]) again, then k alone
//!
//!   an event of the retry queue is due ── call it ─┬─ handled: commit; the next one of its key is due
//!                                                  ├─ failed: a longer pause
//!                                                  └─ for the last time: dead letter, parked, or the lane halts
//! ```
//!
//! Promises: every event ends once, as handled, skipped, dropped or a dead letter, in the order of its key; a failing
//! key delays no other key. Position, outputs, state, retry queue and the flags of the lane (paused, halted) are one
//! unit. An event is only blamed for a trap or a timeout if it ran alone; a failure that the handler itself reports is
//! believed.
//!
//! If the retry queue has no room for an event that has to wait, the lane reads nothing more until there is room. If a
//! topic that it publishes to is full, it makes no call.

mod alarm;
pub(super) mod batch;
mod call;
pub mod capsule;
mod chores;
pub(super) mod claims;
pub(super) mod command;
pub(super) mod delay;
pub(super) mod done;
pub(super) mod entries;
pub(super) mod error;
pub(super) mod failure;
mod failures;
pub(super) mod flow;
pub(super) mod held;
pub(super) mod hidden;
mod obey;
pub(super) mod open_letters;
pub(super) mod outputs;
pub(super) mod parts;
mod probation;
mod reading;
mod retry;
mod seek;
mod settle;
mod settlement;
mod sharing;
pub(super) mod state;
pub mod status;
pub(super) mod supervisor;
pub(super) mod together;
mod turns;
pub(super) mod versions;
pub(super) mod waiting;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use crate::api::LaneState;
use crate::engine::{Entries, Session, Unit};
use crate::model::Offset;
use crate::topology::Delivery;
use batch::BatchEvent;
use chores::Chores;
use command::{Command, Refusal};
use entries::TOLD;
use error::LaneError;
use failure::LastFailure;
use parts::LaneParts;
use reading::{EventSpan, ReadBatch, ReadEvents};
use sharing::Membership;
use state::HandlerState;
use status::RetryQueueStatus;
use supervisor::SupervisedLane;
use together::EventsPerUnit;
use versions::CurrentVersion;
use waiting::{Waiter, WaitingError, WaitingSet};

pub(super) struct Lane<S, K> {
    parts: Box<LaneParts<S, K>>,
    taken: CurrentVersion,
    waiting: WaitingSet,
    state: Arc<HandlerState<K>>,
    /// Every event before it is done, or in the retry queue.
    position: Offset,
    told: LaneFlags,
    /// An event that has to wait was read, and the retry queue has no room.
    is_full: bool,
    /// It waits for room in a topic that it publishes to.
    is_blocked: bool,
    /// The position is ahead of the calls: with at-most-once delivery it is committed before the call.
    is_ahead: bool,
    /// Waiting events were called last, so new events are next.
    is_reads_turn: bool,
    /// Number of events per unit while guards refuse some.
    together: EventsPerUnit,
    /// State of its membership in a claim group.
    part: Membership,
    chores: Chores,
    /// Calls that were made so far.
    calls: u64,
}

/// Durable flags of a lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct LaneFlags {
    is_paused: bool,
    /// An event finally failed, and the topology says that the lane halts then.
    is_halted: bool,
    /// A seek was interrupted, and its state is incomplete.
    is_broken: bool,
}

const PAUSED: &[u8] = &[TOLD, b'p', b'a', b'u', b's', b'e', b'd'];
const HALTED: &[u8] = &[TOLD, b'h', b'a', b'l', b't', b'e', b'd'];
const BROKEN: &[u8] = &[TOLD, b'b', b'r', b'o', b'k', b'e', b'n'];

/// Why a lane abandons its current work.
enum LeaveReason {
    /// The lane ends.
    Ends(LaneError),
    /// The lane was moved, so the events that it has read are not the next ones.
    Moved,
}

impl<E: Into<LaneError>> From<E> for LeaveReason {
    fn from(error: E) -> Self {
        Self::Ends(error.into())
    }
}

/// Progress of a lane in the events that it has read.
struct Progress {
    /// Index of the next event.
    at: usize,
    /// These run alone, to find out which one fails.
    alone: Range<usize>,
}

impl Progress {
    /// End index of the next call, out of `total` events.
    fn end(&self, total: usize) -> usize {
        match self.at {
            at if at < self.alone.start => self.alone.start,
            at if at < self.alone.end => at + 1,
            _ => total,
        }
    }
}

/// Origin of the called events.
enum CallSource<'p> {
    /// Newly read events.
    Read(&'p [EventSpan]),
    /// Waiting events with these numbers.
    Waiting(&'p [(u64, Waiter)]),
}

impl<'p> CallSource<'p> {
    /// The part of some of the events.
    fn part(&self, events: Range<usize>) -> (&'p [EventSpan], &'p [(u64, Waiter)]) {
        match self {
            Self::Read(places) => (places.get(events).unwrap_or_default(), &[]),
            Self::Waiting(waiters) => (&[], waiters.get(events).unwrap_or_default()),
        }
    }
}

impl LaneError {
    /// Whether the error is transient.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Session(error) => error.is_passing(),
            Self::Read(error) | Self::Waiting(WaitingError::Read(error)) => error.is_passing(),
            Self::Stopped | Self::Unreadable(_) | Self::Waiting(WaitingError::Malformed { .. }) => false,
        }
    }
}

/// Stored data that is read when a lane is loaded.
struct StoredLane<K> {
    waiting: WaitingSet,
    state: HandlerState<K>,
    told: LaneFlags,
    /// Since when it is paused or halted.
    since: Option<Bytes>,
    chores: Chores,
}

impl<K: Entries> StoredLane<K> {
    fn of<S: Session>(parts: &LaneParts<S, K>) -> Result<Self, LaneError> {
        let LaneParts { entries, policy, backoff, .. } = parts;
        let (paused, halted) = (entries.get(PAUSED)?, entries.get(HALTED)?);
        let state = HandlerState::load(entries.clone(), policy.state)?;
        Ok(Self {
            waiting: WaitingSet::load(entries, policy.retry_queue, backoff.longest_asked(), parts.now_ns())?,
            chores: Chores::load(entries, state.is_behind())?,
            state,
            told: LaneFlags {
                is_paused: paused.is_some(),
                is_halted: halted.is_some(),
                is_broken: entries.get(BROKEN)?.is_some(),
            },
            since: paused.or(halted),
        })
    }
}

impl<S: Session, K: Entries> SupervisedLane for Lane<S, K> {
    type Parts = LaneParts<S, K>;

    fn load(parts: Box<LaneParts<S, K>>) -> Result<Self, (LaneError, Box<LaneParts<S, K>>)> {
        let StoredLane { waiting, state, told, since, chores } = match StoredLane::of(&parts) {
            Ok(loaded) => loaded,
            Err(error) => return Err((error, parts)),
        };
        if told.is_broken {
            parts.counters.failed(&Refusal::Broken.to_string());
        }
        let (position, taken) = (parts.session.next_offset(), CurrentVersion::of(&parts.roster, parts.partition));
        let (is_full, is_blocked, is_ahead, is_reads_turn) = (false, false, false, false);
        let (state, part, together) = (Arc::new(state), Membership::default(), EventsPerUnit::default());
        let mut lane = Self {
            parts,
            taken,
            waiting,
            state,
            position,
            told,
            is_full,
            is_blocked,
            is_ahead,
            is_reads_turn,
            together,
            part,
            chores,
            calls: 0,
        };
        lane.tell_unavailable();
        if !lane.works() {
            lane.stood(since.as_deref());
        }
        lane.show();
        Ok(lane)
    }

    async fn run(mut self, told: Option<Command>) -> (LaneError, Box<LaneParts<S, K>>) {
        let mut left = match told {
            Some(command) => self.obey(command).await,
            None => Ok(()),
        };
        let ended = loop {
            match left {
                Ok(()) | Err(LeaveReason::Moved) => left = self.turn().await,
                Err(LeaveReason::Ends(error)) => break error,
            }
        };
        let ended = match ended {
            LaneError::Stopped => {
                self.parts.session.flush().await.map_or_else(LaneError::from, |()| LaneError::Stopped)
            }
            error => error,
        };
        (ended, self.parts)
    }
}

impl<S: Session, K: Entries> Lane<S, K> {
    /// Whether it may read and call.
    fn works(&self) -> bool {
        self.told == LaneFlags::default() && self.is_available()
    }

    /// Whether the version that it took can be called at all.
    fn is_available(&self) -> bool {
        self.taken.version.unavailable.is_none()
    }

    /// A version that cannot be called was replaced.
    fn becomes_available(&mut self) {
        self.take_version();
        self.tell_unavailable();
        if self.works() {
            self.goes_on();
        }
    }

    /// Reports why the version that it took cannot be called, unless that ends by itself.
    fn tell_unavailable(&self) {
        if let Some(reason) = self.taken.version.unavailable.as_ref().filter(|_| !self.taken.version.is_compiling) {
            self.parts.counters.failed(reason);
        }
    }

    /// Updates the status.
    fn show(&self) {
        let state = match self.told {
            LaneFlags { is_paused: true, .. } => LaneState::Paused,
            LaneFlags { is_halted: true, .. } | LaneFlags { is_broken: true, .. } => LaneState::Halted,
            _ if self.taken.version.is_compiling => LaneState::Compiling,
            _ if !self.is_available() => LaneState::Halted,
            _ if self.is_blocked => LaneState::Blocked,
            _ if self.is_full => LaneState::Full,
            _ if self.waiting.active_keys() > 0 => LaneState::Retrying,
            _ => LaneState::Running,
        };
        let counters = &self.parts.counters;
        let active = if self.works() { self.waiting.active_keys() } else { 0 } + usize::from(self.is_ahead);
        let waiting = RetryQueueStatus {
            events: self.waiting.len() as u64,
            parked: self.waiting.parked() as u64,
            active: active as u64,
            since_ns: self.waiting.since_ns().unwrap_or(0),
        };
        counters.set_waiting(self.parts.partition, waiting);
        counters.set_lane(self.parts.partition, state);
    }

    /// Brings every read event to its end, or into the retry queue.
    async fn process(&mut self, mut reading: ReadEvents) -> Result<(), LeaveReason> {
        self.share(&mut reading).await?;
        let ReadEvents { held, places, passed_over, end } = reading;
        let held = Arc::new(held);
        let events = held.iter().map(BatchEvent::parse).collect::<Result<Vec<_>, _>>()?;
        if events.is_empty() {
            self.parts.counters.passed_over(passed_over);
            self.commit(Unit { consumed_to: end, ..Unit::default() }).await?;
        }
        let read = ReadBatch { held: &held, places: &places, events: &events };
        let mut progress = Progress { at: 0, alone: 0..0 };
        while let Some((event, place)) = read.at(progress.at) {
            if self.parts.stop.is_cancelled() {
                return Err(LaneError::Stopped.into());
            }
            if !self.works() {
                // it was paused or halted in the meantime: unfinished events are read again when it continues
                self.seek_to_position().await?;
                return Err(LeaveReason::Moved);
            }
            match &place.unanswered {
                _ if self.waiting.holds(event.key) => self.join(read, &mut progress).await?,
                Some(reason) => self.fail_read(read, LastFailure::of_condition(reason), &mut progress).await?,
                None if !self.has_room_below() => self.wait_for_room_below().await?,
                None => self.call_from(read, &mut progress).await?,
            }
        }
        self.sweep(held.last()).await?;
        Ok(())
    }

    /// The position after these events. Counts the skipped events among them; call it before the commit, so that a
    /// reader of the position sees the count.
    fn consume(&self, places: &[EventSpan]) -> Offset {
        self.parts.counters.passed_over(self.passed_over_with(places));
        places.last().map_or(self.position, |place| place.end)
    }

    /// Number of skipped events consumed with these. Those before the position were counted already.
    fn passed_over_with(&self, places: &[EventSpan]) -> u64 {
        places.iter().filter(|place| place.end > self.position).map(|place| place.passed_over).sum()
    }

    /// Puts the event at `progress.at` into the retry queue, since its key waits, and also the following events with
    /// waiting keys.
    async fn join(&mut self, read: ReadBatch<'_>, progress: &mut Progress) -> Result<(), LeaveReason> {
        let rest = || read.held.iter().zip(read.events).skip(progress.at);
        let Some((first, event)) = rest().next() else { return Ok(()) };
        while !self.waiting.has_room(first.bytes()) && self.waiting.holds(event.key) {
            self.wait_for_room(event.offset).await?;
        }
        self.is_full = false;
        let (mut writes, mut joined) = (Vec::new(), 0);
        for (held, event) in rest() {
            // its key may have become free while it waited for room
            if !self.waiting.holds(event.key) || !self.waiting.has_room(held.bytes()) {
                break;
            }
            let times = (event.append_time_ns, event.trusted_time_ns);
            let waiter = Waiter::new(event.offset, times, self.parts.now_ns());
            writes.extend(self.waiting.add(event.key, &waiter, held.record.clone(), Instant::now()));
            joined += 1;
        }
        self.show();
        if joined > 0 {
            let consumed_to = self.consume(read.places_of(progress.at, joined));
            self.commit(Unit { consumed_to, writes, ..Unit::default() }).await?;
        }
        progress.at += joined;
        Ok(())
    }

    /// Does other tasks until the retry queue may have room.
    async fn wait_for_room(&mut self, offset: Offset) -> Result<(), LeaveReason> {
        if !self.is_full {
            let (subscriber, partition, waiting) = (&*self.parts.subscriber, self.parts.partition, self.waiting.len());
            tracing::warn!(
                subscriber,
                partition,
                offset,
                waiting,
                "retry queue full; lane paused until some of its events are handled, released or dropped"
            );
            self.is_full = true;
            self.show();
        }
        self.next(false).await?;
        if !self.works() {
            self.is_full = false;
            self.seek_to_position().await?;
            return Err(LeaveReason::Moved);
        }
        Ok(())
    }

    fn delivers_once_at_most(&self) -> bool {
        self.parts.policy.delivery == Delivery::AtMostOnce
    }

    async fn commit(&mut self, unit: Unit) -> Result<(), LaneError> {
        self.position = unit.consumed_to;
        Ok(self.parts.session.commit(unit).await?)
    }

    /// Reads again from the first event without any progress.
    async fn seek_to_position(&mut self) -> Result<(), LaneError> {
        self.commit(Unit { consumed_to: self.position, is_seek: true, ..Unit::default() }).await
    }
}
