//! A lane: the one owner of a (subscriber, partition). It reads, calls, commits, in order.
//!
//! ```text
//!           ┌─ not for it (`when`, `queue_group`): passed over, with what is called around it
//!           │
//!   read ───┼─ its key waits: into the waiting set
//!           │
//!           └─ call(events[at..]) ─┬─ all handled: commit
//!                                  ├─ failed at k: commit in front; k into the waiting set, to be tried again
//!                                  └─ trapped at k: call(events[at..k]) again, then k alone
//!
//!   a waiting event is due ── call it alone ─┬─ handled: commit; the next one of its key is due
//!                                            ├─ failed: a longer pause
//!                                            └─ for the last time: dead letter, parked, or the lane halts
//! ```
//!
//! Promises: every event has its end once, as handled, passed over or a dead letter, in the order of its key; a failing
//! key holds up nobody else. Position, outputs, state, waiting set and what the lane was told are one unit. An event is
//! only blamed for what happened when it ran alone; a handler's own word for a failure is taken as it is.
//!
//! Where the waiting set has no room for an event that has to wait, the lane reads nothing more until there is some.
//! Where a topic that it publishes to is full, it makes no call.

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
pub(super) mod versions;
pub(super) mod waiting;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::LaneState;
use crate::dispatch::apart;
use crate::dispatch::intake::backlog::{self, Backlog};
use crate::engine::{Chunk, Entries, ReadBudget, Session, SessionError, Unit};
use crate::limits;
use crate::model::Offset;
use crate::topology::{BatchPlan, Condition, Delivery, OnFailure, RetryQueue, StatePlan, SubscriberPlan};
use batch::{Held, Unreadable};
use capsule::Recorder;
use chores::Chores;
use claims::Share;
use command::{Command, Refusal};
use entries::TOLD;
use error::LaneError;
use failure::LastFailure;
use flow::{Backoff, Flow};
use outputs::Emitter;
use reading::{Place, Read, Reading};
use sharing::{Part, claims_end};
use state::LaneState as HandlerState;
use status::{Counters, Waits};
use supervisor::{Supervised, SupervisedParts};
use together::Together;
use versions::{Roster, Taken};
use waiting::{Waiter, WaitingError, WaitingSet};

/// How a lane treats events, from its topology.
#[derive(Debug, Clone)]
pub(super) struct Policy {
    pub(super) when: Option<Condition>,
    pub(super) on_failure: OnFailure,
    pub(super) delivery: Delivery,
    pub(super) retry_queue: RetryQueue,
    pub(super) batch: BatchPlan,
    pub(super) state: StatePlan,
    pub(super) queue_group: Option<String>,
    pub(super) queue_group_timeout: Duration,
}

impl Policy {
    pub(super) fn of(plan: &SubscriberPlan) -> Self {
        let SubscriberPlan {
            when,
            on_failure,
            delivery,
            retry_queue,
            batch,
            state,
            queue_group,
            queue_group_timeout,
            ..
        } = plan;
        Self {
            when: when.clone(),
            on_failure: *on_failure,
            delivery: *delivery,
            retry_queue: *retry_queue,
            batch: *batch,
            state: *state,
            queue_group: queue_group.clone(),
            queue_group_timeout: *queue_group_timeout,
        }
    }
}

/// Returns the first stored offset of a partition of dead letters.
pub(super) type Starts = Arc<dyn Fn(u32) -> Offset + Send + Sync>;

/// The engine's clock of append times, Unix nanoseconds.
pub(super) type WallClock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The parts of a lane.
pub(super) struct Parts<S, K> {
    pub(super) session: S,
    pub(super) entries: K,
    pub(super) roster: Arc<Roster>,
    pub(super) emitter: Emitter,
    pub(super) backoff: Backoff,
    pub(super) policy: Policy,
    /// Its membership in a claim group.
    pub(super) share: Option<Share<S, K>>,
    pub(super) flow: Arc<Flow>,
    /// Backlogs of the topics that it publishes to, if they are limited.
    pub(super) children: Vec<Arc<Backlog>>,
    /// Start offsets of its dead-letter topic, if it has one.
    pub(super) letters: Option<Starts>,
    pub(super) partition: u32,
    pub(super) subscriber: Arc<str>,
    pub(super) clock: WallClock,
    pub(super) counters: Arc<Counters>,
    pub(super) recorder: Recorder,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) stop: CancellationToken,
}

pub(super) struct Lane<S, K> {
    parts: Box<Parts<S, K>>,
    taken: Taken,
    waiting: WaitingSet,
    state: Arc<HandlerState<K>>,
    /// Every event before it is done, or in the retry queue.
    position: Offset,
    told: Told,
    /// An event that has to wait was read, and the retry queue has no room.
    is_full: bool,
    /// It waits for room in a topic that it publishes to.
    is_blocked: bool,
    /// The position is ahead of the calls: with at-most-once delivery it is committed before the call.
    is_ahead: bool,
    /// Waiting events were called last, so new events are next.
    is_reads_turn: bool,
    /// Number of events per unit while guards refuse some.
    together: Together,
    /// State of its membership in a claim group.
    part: Part,
    chores: Chores,
    /// Calls that were made so far.
    calls: u64,
}

/// Durable flags of a lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Told {
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
enum Leave {
    /// The lane ends.
    Ends(LaneError),
    /// The lane was moved, so the events that it has read are not the next ones.
    Moved,
}

impl<E: Into<LaneError>> From<E> for Leave {
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
enum Of<'p> {
    /// Newly read events.
    Read(&'p [Place]),
    /// Waiting events with these numbers.
    Waiting(&'p [(u64, Waiter)]),
}

impl<'p> Of<'p> {
    /// The part of some of the events.
    fn part(&self, events: Range<usize>) -> (&'p [Place], &'p [(u64, Waiter)]) {
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
struct Loaded<K> {
    waiting: WaitingSet,
    state: HandlerState<K>,
    told: Told,
    /// Since when it is paused or halted.
    since: Option<Bytes>,
    chores: Chores,
}

impl<K: Entries> Loaded<K> {
    fn of<S: Session>(parts: &Parts<S, K>) -> Result<Self, LaneError> {
        let Parts { entries, policy, backoff, .. } = parts;
        let (paused, halted) = (entries.get(PAUSED)?, entries.get(HALTED)?);
        let state = HandlerState::load(entries.clone(), policy.state)?;
        Ok(Self {
            waiting: WaitingSet::load(entries, policy.retry_queue, backoff.longest_asked(), parts.now_ns())?,
            chores: Chores::load(entries, state.is_behind())?,
            state,
            told: Told {
                is_paused: paused.is_some(),
                is_halted: halted.is_some(),
                is_broken: entries.get(BROKEN)?.is_some(),
            },
            since: paused.or(halted),
        })
    }
}

impl<S: Session, K: Entries> Supervised for Lane<S, K> {
    type Parts = Parts<S, K>;

    fn load(parts: Box<Parts<S, K>>) -> Result<Self, (LaneError, Box<Parts<S, K>>)> {
        let Loaded { waiting, state, told, since, chores } = match Loaded::of(&parts) {
            Ok(loaded) => loaded,
            Err(error) => return Err((error, parts)),
        };
        if told.is_broken {
            parts.counters.failed(&Refusal::Broken.to_string());
        }
        let (position, taken) = (parts.session.next_offset(), Taken::of(&parts.roster, parts.partition));
        let (is_full, is_blocked, is_ahead, is_reads_turn) = (false, false, false, false);
        let (state, part, together) = (Arc::new(state), Part::default(), Together::default());
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
        if !lane.works() {
            lane.stood(since.as_deref());
        }
        lane.show();
        Ok(lane)
    }

    async fn run(mut self, told: Option<Command>) -> (LaneError, Box<Parts<S, K>>) {
        let mut left = match told {
            Some(command) => self.obey(command).await,
            None => Ok(()),
        };
        let ended = loop {
            match left {
                Ok(()) | Err(Leave::Moved) => left = self.turn().await,
                Err(Leave::Ends(error)) => break error,
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

impl<S, K> Parts<S, K> {
    /// The time that is stored with an event, Unix nanoseconds; never 0, which stands for no time there.
    fn now_ns(&self) -> u64 {
        (self.clock)().max(1)
    }
}

impl<S: Session, K: Entries> SupervisedParts for Parts<S, K> {
    type Session = S;

    fn set_session(&mut self, session: S) {
        self.session = session;
    }

    fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    async fn told(&mut self) -> Command {
        match self.commands.recv().await {
            Some(command) => command,
            None => std::future::pending().await,
        }
    }

    fn log(&self, error: &LaneError, is_over: bool) {
        let (subscriber, partition) = (&*self.subscriber, self.partition);
        match is_over {
            true => tracing::error!(subscriber, partition, %error, "the lane has stopped"),
            false => tracing::error!(subscriber, partition, %error, "the lane cannot go on; it is started again"),
        }
    }

    fn show(&self, error: &LaneError, is_over: bool) {
        if !matches!(error, LaneError::Stopped | LaneError::Session(SessionError::Stopped(_))) {
            self.counters.failed(&error.to_string());
        }
        self.counters.set_lane(self.partition, if is_over { LaneState::Stopped } else { LaneState::Failing });
    }
}

impl<S: Session, K: Entries> Lane<S, K> {
    /// Whether it may read and call.
    fn works(&self) -> bool {
        self.told == Told::default()
    }

    /// Updates the status.
    fn show(&self) {
        let state = match self.told {
            Told { is_paused: true, .. } => LaneState::Paused,
            Told { is_halted: true, .. } | Told { is_broken: true, .. } => LaneState::Halted,
            _ if self.is_blocked => LaneState::Blocked,
            _ if self.is_full => LaneState::Full,
            _ if self.waiting.active_keys() > 0 => LaneState::Retrying,
            _ => LaneState::Running,
        };
        let counters = &self.parts.counters;
        let active = if self.works() { self.waiting.active_keys() } else { 0 } + usize::from(self.is_ahead);
        let waiting = Waits {
            events: self.waiting.len() as u64,
            parked: self.waiting.parked() as u64,
            active: active as u64,
            since_ns: self.waiting.since_ns().unwrap_or(0),
        };
        counters.set_waiting(self.parts.partition, waiting);
        counters.set_lane(self.parts.partition, state);
    }

    /// Waits for the next task, and does it.
    async fn turn(&mut self) -> Result<(), Leave> {
        self.run_errands().await?;
        let reading = match self.next(true).await? {
            Some(reading) => self.more(reading).await?,
            None => return Ok(()),
        };
        let ended = self.process(reading).await;
        if std::mem::take(&mut self.is_ahead) {
            // Flushes first: once the status shows that nothing is in progress, the results are visible.
            self.parts.session.flush().await?;
            self.show();
        }
        ended
    }

    /// Whether a call may be made: the topics of its outputs have room.
    fn has_room_below(&mut self) -> bool {
        let has_room = self.parts.children.iter().all(|child| child.has_room());
        if self.is_blocked == has_room {
            self.is_blocked = !has_room;
            self.show();
        }
        has_room
    }

    /// Waits until a call may be made.
    async fn wait_for_room_below(&mut self) -> Result<(), Leave> {
        while !self.has_room_below() {
            let Parts { stop, commands, .. } = &mut *self.parts;
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(LaneError::Stopped.into()),
                Some(command) = commands.recv() => self.obey(command).await?,
                () = tokio::time::sleep(backlog::LOOK_EVERY) => {}
            }
            if !self.works() {
                self.is_blocked = false;
                self.seek_to_position().await?;
                return Err(Leave::Moved);
            }
        }
        Ok(())
    }

    /// When the next waiting event may be called: when it is due, or when its outputs may have room.
    fn next_retry(&mut self) -> Option<Instant> {
        let due = self.waiting.next_due().filter(|_| self.works())?;
        let is_free = due > Instant::now() || self.has_room_below();
        Some(if is_free { due } else { Instant::now() + backlog::LOOK_EVERY })
    }

    /// Calls due events, if possible. New events are next then, so that neither starves the other.
    async fn retry_what_is_due(&mut self) -> Result<(), Leave> {
        if self.has_room_below() {
            self.is_reads_turn = true;
            self.retry().await?;
            if self.waiting.active_keys() == 0 {
                // Flushes first: once the status shows that nothing waits, the results are visible.
                self.parts.session.flush().await?;
            }
        }
        Ok(())
    }

    /// When due events take precedence over new events, and when they are handled after them.
    fn turns(&mut self) -> (Option<Instant>, Option<Instant>) {
        let due = self.next_retry();
        if self.is_reads_turn { (None, due) } else { (due, None) }
    }

    /// Waits for events, if it may read, or for another task, and does that.
    async fn next(&mut self, reads: bool) -> Result<Option<Reading>, Leave> {
        let (works, (first, later)) = (self.works(), self.turns());
        let chores = self.chores.due().filter(|_| works);
        let budget = self.budget(ReadBudget {
            events: self.parts.flow.most(self.parts.policy.batch.max_events),
            bytes: self.parts.policy.batch.max_bytes,
        });
        let left = self.keeps_claims_for().filter(|_| !works);
        let Parts { session, stop, commands, share, .. } = &mut *self.parts;
        tokio::select! {
            biased;
            () = stop.cancelled() => return Err(LaneError::Stopped.into()),
            Some(command) = commands.recv() => self.obey(command).await?,
            () = claims_end(left) => self.give_back().await?,
            () = Share::is_given_back(share), if works && reads => {}
            () = until(first) => self.retry_what_is_due().await?,
            chunks = session.read(budget), if works && reads => {
                let mut reading = Reading::default();
                self.take(&mut reading, &chunks?)?;
                return Ok(Some(reading));
            }
            () = until(later) => self.retry_what_is_due().await?,
            () = until(chores) => self.do_chores().await?,
        }
        self.show();
        Ok(None)
    }

    /// The read budget: a small one if conditions take long to evaluate, so that commands are executed soon.
    fn budget(&self, budget: ReadBudget) -> ReadBudget {
        match &self.parts.policy.when {
            Some(when) if when.takes_long() => ReadBudget {
                events: budget.events.min(limits::SLOW_READ_EVENTS_MAX),
                bytes: budget.bytes.min(limits::SLOW_READ_BYTES_MAX),
            },
            _ => budget,
        }
    }

    /// Adds newly read events.
    fn take(&mut self, reading: &mut Reading, chunks: &[Chunk]) -> Result<(), Unreadable> {
        self.is_reads_turn = false;
        let when = self.parts.policy.when.as_ref();
        apart::run(when.is_some_and(Condition::takes_long), || reading.take(chunks, when))
    }

    /// Waits for more events, for the time that the topology allows, if the lane handles any of those read so far.
    async fn more(&mut self, mut reading: Reading) -> Result<Reading, Leave> {
        let BatchPlan { max_events, max_bytes, wait } = self.parts.policy.batch;
        let Some(wait) = wait.filter(|_| !reading.held.is_empty()) else { return Ok(reading) };
        let deadline = Instant::now() + wait;
        let most = self.parts.flow.most(max_events) as usize;
        loop {
            let (events, bytes) = (reading.held.len(), reading.bytes());
            if events >= most || bytes >= max_bytes {
                return Ok(reading);
            }
            let budget = self.budget(ReadBudget { events: (most - events) as u32, bytes: max_bytes - bytes });
            let (first, later) = self.turns();
            let Parts { session, stop, commands, .. } = &mut *self.parts;
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(LaneError::Stopped.into()),
                Some(command) = commands.recv() => self.obey(command).await?,
                () = until(first) => {
                    self.retry_what_is_due().await?;
                    self.show();
                }
                () = tokio::time::sleep_until(deadline) => return Ok(reading),
                chunks = session.read(budget) => self.take(&mut reading, &chunks?)?,
                () = until(later) => {
                    self.retry_what_is_due().await?;
                    self.show();
                }
            }
            if !self.works() {
                return Ok(reading);
            }
        }
    }

    /// Brings every read event to its end, or into the retry queue.
    async fn process(&mut self, mut reading: Reading) -> Result<(), Leave> {
        self.share(&mut reading).await?;
        let Reading { held, places, passed_over, end } = reading;
        let held = Arc::new(held);
        let events = held.iter().map(Held::parse).collect::<Result<Vec<_>, _>>()?;
        if events.is_empty() {
            self.parts.counters.passed_over(passed_over);
            self.commit(Unit { consumed_to: end, ..Unit::default() }).await?;
        }
        let read = Read { held: &held, places: &places, events: &events };
        let mut progress = Progress { at: 0, alone: 0..0 };
        while let Some((event, place)) = read.at(progress.at) {
            if self.parts.stop.is_cancelled() {
                return Err(LaneError::Stopped.into());
            }
            if !self.works() {
                // it was paused or halted in the meantime: unfinished events are read again when it continues
                self.seek_to_position().await?;
                return Err(Leave::Moved);
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
    fn consume(&self, places: &[Place]) -> Offset {
        self.parts.counters.passed_over(self.passed_over_with(places));
        places.last().map_or(self.position, |place| place.end)
    }

    /// Number of skipped events consumed with these. Those before the position were counted already.
    fn passed_over_with(&self, places: &[Place]) -> u64 {
        places.iter().filter(|place| place.end > self.position).map(|place| place.passed_over).sum()
    }

    /// Puts the event at `progress.at` into the retry queue, since its key waits, and also the following events with
    /// waiting keys.
    async fn join(&mut self, read: Read<'_>, progress: &mut Progress) -> Result<(), Leave> {
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
    async fn wait_for_room(&mut self, offset: Offset) -> Result<(), Leave> {
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
            return Err(Leave::Moved);
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

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
