//! A lane: the one owner of a (subscriber, partition). It reads, calls, commits, in order.
//!
//! ```text
//!           ┌─ not for it (`when`): passed over
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
//! Promises: every event has its end once, as handled, passed over or a dead letter, in the order of its key; a failing key
//! holds up nobody else. Position, outputs, state, waiting set and what the lane was told are one unit. An event is only
//! blamed for what happened when it ran alone; a handler's own word for a failure is taken as it is.
//!
//! Where the waiting set has no room for an event that has to wait, the lane reads nothing more until there is some. Where a
//! topic that it publishes to is full, it makes no call.

mod obey;
mod probation;
mod seek;

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::backlog::{self, Backlog};
use super::batch::{Context, Held, Parsed, Unreadable};
use super::capsule::{Recorder, Source};
use super::claims::Claims;
use super::command::{Command, Refusal};
use super::entries::TOLD;
use super::flow::{Backoff, Flow, Permit};
use super::handler::HandleError;
use super::outputs::{Emitter, Fit, LastFailure, cut};
use super::state::LaneState as HandlerState;
use super::status::{Counters, LaneState};
use super::versions::{Roster, Taken};
use super::waiting::{GONE_BYTES, Waiter, WaitingError, WaitingSet, gone, kept, now_ns, record};
use super::when;
use crate::engine::{Entries, LaneWrite, ReadBudget, ReadError, Session, SessionError, Unit};
use crate::limits;
use crate::model::Offset;
use crate::topology::{BatchPlan, Condition, Delivery, OnFailure, StatePlan, SubscriberPlan, Waiting};
use crate::wasm::{Action, Batch, CallErrorKind, Event, Handled};

/// What a lane does about events, as its topology says.
#[derive(Debug, Clone)]
pub(super) struct Policy {
    pub(super) when: Option<Condition>,
    pub(super) on_failure: OnFailure,
    pub(super) delivery: Delivery,
    pub(super) waiting: Waiting,
    pub(super) batch: BatchPlan,
    pub(super) state: StatePlan,
    pub(super) claim: Option<String>,
}

impl Policy {
    pub(super) fn of(plan: &SubscriberPlan) -> Self {
        let SubscriberPlan { when, on_failure, delivery, waiting, batch, state, claim, .. } = plan;
        Self {
            when: when.clone(),
            on_failure: *on_failure,
            delivery: *delivery,
            waiting: *waiting,
            batch: *batch,
            state: *state,
            claim: claim.clone(),
        }
    }
}

/// What a lane is made of.
pub(super) struct Parts<S, K> {
    pub(super) session: S,
    pub(super) entries: K,
    pub(super) roster: Arc<Roster>,
    pub(super) emitter: Emitter,
    pub(super) backoff: Backoff,
    pub(super) policy: Policy,
    /// With whom it shares events.
    pub(super) claims: Option<Arc<Claims>>,
    pub(super) flow: Arc<Flow>,
    /// Of the topics that it publishes to, as far as they have bounds.
    pub(super) children: Vec<Arc<Backlog>>,
    pub(super) partition: u32,
    pub(super) subscriber: Arc<str>,
    pub(super) counters: Arc<Counters>,
    pub(super) recorder: Recorder,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) stop: CancellationToken,
}

/// A lane.
pub(super) struct Lane<S, K> {
    parts: Parts<S, K>,
    taken: Taken,
    waiting: WaitingSet,
    state: Arc<HandlerState<K>>,
    /// Everything in front of it is done, or waits.
    position: Offset,
    told: Told,
    /// An event that has to wait was read, and there is no room for it.
    is_full: bool,
    /// It waits for room in a topic that it publishes to.
    is_blocked: bool,
    /// The position is ahead of what was called: an event that is delivered once at most is taken before it is.
    is_ahead: bool,
    /// Its number among those it shares with.
    member: usize,
    /// Of the events that were read, those that are somebody else's.
    lost: HashSet<Offset>,
    /// Where the search for state that has expired goes on, and how many events ago it was looked for.
    sweep: (Option<Vec<u8>>, u32),
}

/// What a lane was told to be, durably.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Told {
    is_paused: bool,
    /// An event failed for the last time, and the topology says that the lane halts then.
    is_halted: bool,
    /// A seek with another state broke off, so that its state is not whole.
    is_broken: bool,
}

const PAUSED: &[u8] = &[TOLD, b'p', b'a', b'u', b's', b'e', b'd'];
const HALTED: &[u8] = &[TOLD, b'h', b'a', b'l', b't', b'e', b'd'];
const BROKEN: &[u8] = &[TOLD, b'b', b'r', b'o', b'k', b'e', b'n'];

/// Why a lane ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum LaneError {
    /// It was told to.
    #[error("stopped")]
    Stopped,
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error(transparent)]
    Waiting(#[from] WaitingError),
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why a lane leaves what it is at.
enum Leave {
    /// It ends.
    Ends(LaneError),
    /// It was moved: what it has read is not what comes next.
    Moved,
}

impl<E: Into<LaneError>> From<E> for Leave {
    fn from(error: E) -> Self {
        Self::Ends(error.into())
    }
}

/// Where a lane is in the events that it has read.
struct Progress {
    /// The next event.
    at: usize,
    /// These run alone, so that it is certain which one fails.
    alone: Range<usize>,
}

impl Progress {
    /// The end of the next call, out of `total` events.
    fn end(&self, total: usize) -> usize {
        match self.at {
            at if at < self.alone.start => self.alone.start,
            at if at < self.alone.end => at + 1,
            _ => total,
        }
    }
}

/// Whose events are called.
enum Of {
    /// They were just read: `held[first..]`.
    Read,
    /// They wait, with these numbers.
    Waiting(Vec<(u64, Waiter)>),
}

impl<S: Session, K: Entries> Lane<S, K> {
    /// A lane as it was left.
    pub(super) fn load(parts: Parts<S, K>) -> Result<Self, LaneError> {
        let waiting = WaitingSet::load(&parts.entries, parts.policy.waiting, parts.backoff.retry.max)?;
        let state = Arc::new(HandlerState::load(parts.entries.clone(), parts.policy.state)?);
        let is_told = |key| Ok::<_, ReadError>(parts.entries.get(key)?.is_some());
        let told = Told { is_paused: is_told(PAUSED)?, is_halted: is_told(HALTED)?, is_broken: is_told(BROKEN)? };
        if told.is_broken {
            parts.counters.failed(&Refusal::Broken.to_string());
        }
        let position = parts.session.next_offset();
        let member = match &parts.claims {
            Some(claims) => claims.join(position, &parts.entries)?,
            None => 0,
        };
        let taken = Taken::of(&parts.roster, parts.partition);
        let (is_full, is_blocked, is_ahead, sweep, lost) = (false, false, false, (None, 0), HashSet::new());
        let lane =
            Self { parts, taken, waiting, state, position, told, is_full, is_blocked, is_ahead, member, lost, sweep };
        lane.show();
        Ok(lane)
    }

    /// Runs until it is told to stop or cannot go on.
    pub(super) async fn run(mut self) -> Result<(), LaneError> {
        let ended = loop {
            match self.turn().await {
                Ok(()) | Err(Leave::Moved) => {}
                Err(Leave::Ends(error)) => break error,
            }
        };
        self.parts.counters.set_lane(self.parts.partition, LaneState::Stopped);
        match ended {
            LaneError::Stopped => Ok(self.parts.session.flush().await?),
            error => Err(error),
        }
    }

    /// Whether it may read and call.
    fn works(&self) -> bool {
        self.told == Told::default()
    }

    /// Lets everybody see how it is.
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
        counters.set_waiting(self.parts.partition, self.waiting.len(), self.waiting.parked(), active);
        counters.set_lane(self.parts.partition, state);
    }

    /// Waits for whatever is next, and does it.
    async fn turn(&mut self) -> Result<(), Leave> {
        let held = match self.next(true).await? {
            Some(held) => self.more(held).await?,
            None => return Ok(()),
        };
        let ended = self.process(Arc::new(held)).await;
        if std::mem::take(&mut self.is_ahead) {
            // Written first: whoever sees that nothing is on its way sees what came of it.
            self.parts.session.flush().await?;
            self.show();
        }
        ended
    }

    /// Whether a call may be made: there is room for what it emits.
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
            let Parts { stop, commands, .. } = &mut self.parts;
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

    /// When the next waiting event is called, where that may be: at once, or when there may be room for what it emits.
    fn next_retry(&mut self) -> Option<Instant> {
        let due = self.waiting.next_due().filter(|_| self.works())?;
        let is_free = due > Instant::now() || self.has_room_below();
        Some(if is_free { due } else { Instant::now() + backlog::LOOK_EVERY })
    }

    /// Waits for events to be read, where it may, or for something else that is to be done, and does that.
    async fn next(&mut self, reads: bool) -> Result<Option<Vec<Held>>, Leave> {
        let (works, due) = (self.works(), self.next_retry());
        let budget = ReadBudget {
            events: self.parts.flow.most(self.parts.policy.batch.max_events),
            bytes: self.parts.policy.batch.max_bytes,
        };
        let Parts { session, stop, commands, .. } = &mut self.parts;
        tokio::select! {
            biased;
            () = stop.cancelled() => return Err(LaneError::Stopped.into()),
            Some(command) = commands.recv() => self.obey(command).await?,
            () = until(due) => if self.has_room_below() {
                self.retry().await?;
                // Written first: whoever sees that nothing waits sees what came of it.
                self.parts.session.flush().await?;
            },
            chunks = session.read(budget), if works && reads => return Ok(Some(Held::all(&chunks?))),
        }
        self.show();
        Ok(None)
    }

    /// Waits for more events than were read, as long as the topology says.
    async fn more(&mut self, mut held: Vec<Held>) -> Result<Vec<Held>, Leave> {
        let BatchPlan { max_events, max_bytes, wait } = self.parts.policy.batch;
        let Some(wait) = wait else { return Ok(held) };
        let deadline = Instant::now() + wait;
        let most = self.parts.flow.most(max_events) as usize;
        loop {
            let bytes: usize = held.iter().map(Held::bytes).sum();
            if held.len() >= most || bytes >= max_bytes {
                return Ok(held);
            }
            let budget = ReadBudget { events: (most - held.len()) as u32, bytes: max_bytes - bytes };
            let due = self.next_retry();
            let Parts { session, stop, commands, .. } = &mut self.parts;
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(LaneError::Stopped.into()),
                Some(command) = commands.recv() => self.obey(command).await?,
                () = until(due) => if self.has_room_below() {
                    self.retry().await?;
                    self.parts.session.flush().await?;
                    self.show();
                },
                () = tokio::time::sleep_until(deadline) => return Ok(held),
                chunks = session.read(budget) => held.extend(Held::all(&chunks?)),
            }
            if !self.works() {
                return Ok(held);
            }
        }
    }

    /// Brings every event that was read to its end, or into the waiting set.
    async fn process(&mut self, held: Arc<Vec<Held>>) -> Result<(), Leave> {
        let events = held.iter().map(Held::parse).collect::<Result<Vec<_>, _>>()?;
        self.share(&events).await?;
        let mut progress = Progress { at: 0, alone: 0..0 };
        while let Some(event) = events.get(progress.at) {
            if self.parts.stop.is_cancelled() {
                return Err(LaneError::Stopped.into());
            }
            if !self.works() {
                // it was paused or halted in between: events that are not done are read again when it goes on
                self.seek_to_position().await?;
                return Err(Leave::Moved);
            }
            match self.passes(event) {
                Ok(true) | Err(_) if self.waiting.holds(event.key) => self.join(&held, &events, &mut progress).await?,
                Ok(true) if !self.has_room_below() => self.wait_for_room_below().await?,
                Ok(true) => self.call_from(&held, &events, &mut progress).await?,
                Ok(false) => {
                    let passed = events.iter().skip(progress.at).take_while(|event| self.is_passed_over(event)).count();
                    let last = events.get(progress.at + passed - 1).unwrap_or(event);
                    self.parts.counters.passed_over(passed as u64);
                    self.commit(Unit { consumed_to: last.offset + 1, ..Unit::default() }).await?;
                    progress.at += passed;
                }
                Err(reason) => {
                    let failure = LastFailure::of_condition(&reason);
                    self.fail_read(&held, event, failure, &mut progress).await?;
                }
            }
        }
        self.sweep(held.last()).await?;
        Ok(())
    }

    /// Claims those of some events that it may handle, and learns which of them are somebody else's.
    async fn share(&mut self, events: &[Parsed<'_>]) -> Result<(), Leave> {
        let Some(claims) = self.parts.claims.clone() else { return Ok(()) };
        self.lost.clear();
        let wanted = events.iter().filter(|event| !self.is_passed_over(event)).map(|event| event.offset);
        let claimed = claims.claim(self.member, self.position, wanted);
        self.lost = claimed.lost;
        if !claimed.writes.is_empty() {
            self.tell(claimed.writes).await?;
        }
        Ok(())
    }

    fn passes(&self, event: &Parsed<'_>) -> Result<bool, String> {
        if self.lost.contains(&event.offset) {
            return Ok(false);
        }
        match &self.parts.policy.when {
            None => Ok(true),
            Some(condition) => when::passes(condition, &event.view, Some(event.key)),
        }
    }

    fn is_passed_over(&self, event: &Parsed<'_>) -> bool {
        matches!(self.passes(event), Ok(false))
    }

    /// The event at `progress.at` waits behind those of its key, and so do as many as follow of which that is true as well.
    async fn join(&mut self, held: &[Held], events: &[Parsed<'_>], progress: &mut Progress) -> Result<(), Leave> {
        let rest = || held.iter().zip(events).skip(progress.at);
        let Some((first, event)) = rest().next() else { return Ok(()) };
        while !self.waiting.has_room(first.bytes()) && self.waiting.holds(event.key) {
            self.wait_for_room(event.offset).await?;
        }
        self.is_full = false;
        let mut unit = Unit { consumed_to: event.offset, ..Unit::default() };
        let mut joined = 0;
        for (held, event) in rest() {
            // its turn may have come while it waited for room
            let waits = self.waiting.holds(event.key) && !self.is_passed_over(event);
            if !waits || !self.waiting.has_room(held.bytes()) {
                break;
            }
            let waiter = Waiter::new(event.offset, event.append_time_ns);
            unit.writes.extend(self.waiting.add(event.key, &waiter, held.record.clone(), Instant::now()));
            unit.consumed_to = event.offset + 1;
            joined += 1;
        }
        self.show();
        if joined > 0 {
            self.commit(unit).await?;
        }
        progress.at += joined;
        Ok(())
    }

    /// Does what else there is to do until the waiting set may have room.
    async fn wait_for_room(&mut self, offset: Offset) -> Result<(), Leave> {
        if !self.is_full {
            let (subscriber, partition, waiting) = (&*self.parts.subscriber, self.parts.partition, self.waiting.len());
            tracing::warn!(
                subscriber,
                partition,
                offset,
                waiting,
                "as many events wait as may: the lane stands still until some of them are handled, released or dropped"
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

    /// Calls as many events from `progress.at` on as can go together.
    async fn call_from(
        &mut self,
        held: &Arc<Vec<Held>>,
        events: &[Parsed<'_>],
        progress: &mut Progress,
    ) -> Result<(), Leave> {
        let rest = events.get(progress.at..progress.end(events.len())).unwrap_or_default();
        // The contract says the content type once for all events of a call.
        let content_type = rest.first().and_then(|event| event.view.content_type).unwrap_or_default();
        let goes_along = |event: &&Parsed<'_>| {
            event.view.content_type.unwrap_or_default() == content_type
                && !self.waiting.holds(event.key)
                && self.passes(event) == Ok(true)
        };
        let sizes = held.iter().skip(progress.at).map(Held::bytes);
        let fits = fitting(sizes, self.parts.policy.batch.max_bytes);
        let run = rest.get(..rest.iter().take(fits).take_while(goes_along).count()).unwrap_or_default();
        // Whoever is stopped while it waits for its turn has lost nothing.
        let permit = self.admit(run.len()).await?;
        if self.delivers_once_at_most()
            && let Some(last) = run.last()
        {
            // The position first, durably: whatever becomes of the call, it is not made again.
            self.is_ahead = true;
            self.show();
            self.commit(Unit { consumed_to: last.offset + 1, ..Unit::default() }).await?;
            self.parts.session.sync().await?;
        }
        match self.call(permit, held, progress.at, run, 1).await {
            Ok(handled) => {
                let (done, failure) = self.settle(run, handled, &Of::Read).await?;
                progress.at += done;
                match (failure, run.get(done)) {
                    (Some(failure), Some(event)) => self.fail_read(held, event, failure, progress).await,
                    _ => Ok(()),
                }
            }
            Err(HandleError::Instance(error)) => {
                let failure = LastFailure::of_instance(&error);
                if let Some(first) = run.first()
                    && self.proven_handles(held, progress.at, first, &failure, &Of::Read, 1).await?
                {
                    progress.at += 1;
                    return Ok(());
                }
                if self.delivers_once_at_most()
                    && let Some(first) = run.first()
                {
                    // nothing was called: it may still be
                    self.position = first.offset;
                    self.seek_to_position().await?;
                    self.without_instance(&error.to_string()).await?;
                    return Err(Leave::Moved);
                }
                self.without_instance(&error.to_string()).await
            }
            Err(HandleError::Call(error)) if error.kind == CallErrorKind::State => {
                self.without_instance(&error.message).await
            }
            Err(HandleError::Call(error)) => match (error.event, run) {
                (Some(k), _) if run.len() > 1 && (k as usize) < run.len() => {
                    let blamed = progress.at + k as usize;
                    progress.alone = blamed..blamed + 1;
                    Ok(())
                }
                (_, [alone]) => {
                    let failure = LastFailure::of_call(error);
                    self.fail_read(held, alone, failure, progress).await
                }
                _ => {
                    progress.alone = progress.at..progress.at + run.len();
                    Ok(())
                }
            },
        }
    }

    /// Nothing could be called, or the state not be read. No event is to blame, so none may be given up for it.
    async fn without_instance(&mut self, error: &str) -> Result<(), Leave> {
        tracing::error!(subscriber = &*self.parts.subscriber, partition = self.parts.partition, %error, "no call");
        self.parts.counters.failed(error);
        let until = Instant::now() + self.parts.backoff.retry.max;
        loop {
            let Parts { stop, commands, .. } = &mut self.parts;
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(LaneError::Stopped.into()),
                Some(command) = commands.recv() => self.obey(command).await?,
                () = tokio::time::sleep_until(until) => return Ok(()),
            }
            self.show();
        }
    }

    fn delivers_once_at_most(&self) -> bool {
        self.parts.policy.delivery == Delivery::AtMostOnce
    }

    /// Waits for the turn of a call with so many events.
    async fn admit(&mut self, events: usize) -> Result<Option<Permit>, LaneError> {
        tokio::select! {
            biased;
            () = self.parts.stop.cancelled() => Err(LaneError::Stopped),
            permit = self.parts.flow.admit(events as u32) => Ok(permit),
        }
    }

    async fn call(
        &mut self,
        permit: Option<Permit>,
        held: &Arc<Vec<Held>>,
        first: usize,
        run: &[Parsed<'_>],
        attempt: u32,
    ) -> Result<Handled, HandleError> {
        self.take_version();
        self.call_taken(permit, held, first, run, attempt).await
    }

    /// Calls the version that was called before.
    async fn call_taken(
        &mut self,
        permit: Option<Permit>,
        held: &Arc<Vec<Held>>,
        first: usize,
        run: &[Parsed<'_>],
        attempt: u32,
    ) -> Result<Handled, HandleError> {
        let events: Vec<Event<'_>> = run
            .iter()
            .enumerate()
            .map(|(index, event)| Event {
                key: event.key,
                r#type: event.view.r#type,
                time_ns: event.append_time_ns,
                attempt: if index == 0 { attempt } else { 1 },
                data: event.view.data.unwrap_or_default(),
            })
            .collect();
        let context = Context {
            subscriber: self.parts.subscriber.clone(),
            origin: self.parts.emitter.origin.clone(),
            held: held.clone(),
            first,
        };
        let batch = Batch {
            topic: &self.parts.emitter.from,
            partition: self.parts.partition,
            content_type: run.first().and_then(|event| event.view.content_type).unwrap_or_default(),
            events: &events,
            context: Arc::new(context),
            state: self.parts.recorder.begin(&self.state, run),
        };
        let handled = self.taken.version.handler.handle(batch).await;
        drop(permit);
        handled
    }

    /// Commits what was handled. How many events that were, and why the next one failed, where it did.
    async fn settle(
        &mut self,
        run: &[Parsed<'_>],
        handled: Handled,
        of: &Of,
    ) -> Result<(usize, Option<LastFailure>), Leave> {
        let (mut slices, mut fit) = self.parts.emitter.emit(run, &handled.outputs);
        let time_ns = |event: u32| run.get(event as usize).map_or(0, |event| event.append_time_ns);
        let (mut state, mut too_much) = self.state.entries_of(&handled.writes, time_ns)?;
        if let Some((event, _)) = too_much
            && self.remove_expired(time_ns(event)).await?
        {
            (state, too_much) = self.state.entries_of(&handled.writes, time_ns)?;
        }
        if let Some((event, reason)) = too_much {
            let is_first = match &fit {
                Fit::All => true,
                Fit::UpTo(other) | Fit::Refused(other, _) => event <= *other,
            };
            if is_first {
                let in_front = handled.outputs.iter().filter(|output| output.event < event);
                let in_front: Vec<_> = in_front.cloned().collect();
                (slices, _) = self.parts.emitter.emit(run, &in_front);
                fit = Fit::Refused(event, reason);
            }
        }
        let done_by_handler = handled.failed.as_ref().map_or(run.len(), |failed| failed.event as usize);
        let mut done = match &fit {
            Fit::All => done_by_handler,
            Fit::UpTo(event) | Fit::Refused(event, _) => (*event as usize).min(done_by_handler),
        };
        // Outputs and state are bounded each; a unit has both, and notes of the lane's own.
        let written = |done: usize| -> usize {
            let writes = state.iter().filter(|(event, _)| (*event as usize) < done);
            let size = if state.is_empty() { 0 } else { HandlerState::<K>::SIZE_ENTRY_BYTES };
            let gone = if let Of::Waiting(_) = of { done * GONE_BYTES } else { 0 };
            writes.map(|(_, write)| write.bytes()).sum::<usize>() + size + gone
        };
        while done > 0 && slices.bytes() + written(done) > limits::UNIT_BYTES_MAX {
            if done == 1 {
                let (bytes, max) = (slices.bytes() + written(1), limits::UNIT_BYTES_MAX);
                let reason = format!("its outputs and its state are {bytes} bytes together, a unit may have {max}");
                fit = Fit::Refused(0, reason);
                done = 0;
                break;
            }
            done /= 2;
            let in_front: Vec<_> =
                handled.outputs.iter().filter(|output| (output.event as usize) < done).cloned().collect();
            (slices, _) = self.parts.emitter.emit(run, &in_front);
            fit = Fit::UpTo(done as u32);
        }
        while let Some(last) = done.checked_sub(1).and_then(|last| run.get(last)) {
            let of_done = |(event, write): &(u32, LaneWrite)| ((*event as usize) < done).then(|| write.clone());
            let mut writes: Vec<LaneWrite> = state.iter().filter_map(of_done).collect();
            let (position, size) = (self.position, self.state.size());
            self.state.account(&mut writes)?;
            // Counted first, so that whoever sees the position has seen it counted.
            let emitted = slices.count() as u64;
            self.parts.counters.handled(done as u64, emitted);
            let consumed_to = match of {
                Of::Read => last.offset + 1,
                Of::Waiting(waiters) => {
                    writes.extend(waiters.iter().take(done).flat_map(|(number, _)| gone(*number)));
                    self.position
                }
            };
            match self.commit(Unit { consumed_to, emits: slices, writes, ..Unit::default() }).await {
                Ok(()) => {
                    if let Of::Waiting(waiters) = of {
                        waiters.iter().take(done).for_each(|(number, _)| drop(self.waiting.remove(*number)));
                    }
                    if let Some(trial) = &self.taken.trial {
                        trial.add_handled(done as u64);
                    }
                    break;
                }
                Err(LaneError::Session(SessionError::Guard(refused))) if refused.is_for_its_event() => {
                    // nothing of it happened: what is in front of that event is handed in without it
                    self.parts.counters.not_handled(done as u64, emitted);
                    (self.position, done) = (position, (refused.of as usize).min(done - 1));
                    self.state.set_size(size);
                    let in_front = handled.outputs.iter().filter(|output| output.event < refused.of);
                    let in_front: Vec<_> = in_front.cloned().collect();
                    (slices, _) = self.parts.emitter.emit(run, &in_front);
                    fit = Fit::Refused(refused.of, refused.why.to_string());
                }
                Err(error) => return Err(error.into()),
            }
        }
        let failure = match (fit, handled.failed) {
            (Fit::Refused(_, reason), _) => {
                Some(LastFailure { kind: "refused", reason, backtrace: None, may_pass: false, delay: None })
            }
            (Fit::UpTo(_), _) | (Fit::All, None) => None,
            (Fit::All, Some(failed)) => {
                let (kind, may_pass, delay) = match failed.action {
                    Action::Retry(delay) => ("retry", true, delay),
                    Action::Reject => ("reject", false, None),
                };
                Some(LastFailure { kind, reason: failed.reason, backtrace: None, may_pass, delay })
            }
        };
        Ok((done, failure))
    }

    /// The first attempt at an event that was just read has failed: the one at `progress.at`.
    async fn fail_read(
        &mut self,
        held: &Arc<Vec<Held>>,
        event: &Parsed<'_>,
        failure: LastFailure,
        progress: &mut Progress,
    ) -> Result<(), Leave> {
        if self.proven_handles(held, progress.at, event, &failure, &Of::Read, 1).await? {
            progress.at += 1;
            return Ok(());
        }
        let Some(record) = held.get(progress.at).map(|held| held.record.clone()) else { return Ok(()) };
        let end = self.end_of_attempt(event, &failure, 1);
        if !matches!(end, End::GivenUp) {
            // The event is in the set whatever its end is, so there has to be room.
            while !self.waiting.has_room(record.len()) {
                self.wait_for_room(event.offset).await?;
            }
            self.is_full = false;
        }
        let waiter = self.waiter_of(event, &failure, 1, &end);
        let mut unit = Unit { consumed_to: event.offset + 1, ..Unit::default() };
        match end {
            End::GivenUp => {
                unit.emits = self.parts.emitter.dead_letter(event, &failure, 1);
                self.parts.counters.dead_lettered();
            }
            End::Again(pause) => {
                self.parts.counters.retried();
                unit.writes = self.waiting.add(event.key, &waiter, record, Instant::now() + pause);
            }
            End::Parked => unit.writes = self.waiting.add(event.key, &waiter, record, Instant::now()),
            End::Halts => {
                unit.writes = self.waiting.add(event.key, &waiter, record, Instant::now());
                unit.writes.push(self.halt());
            }
        }
        self.show();
        self.commit(unit).await?;
        progress.at += 1;
        Ok(())
    }

    /// Calls what is due.
    async fn retry(&mut self) -> Result<(), Leave> {
        let most = self.parts.flow.most(self.parts.policy.batch.max_events);
        let numbers = self.waiting.take_due(Instant::now(), most as usize);
        let mut waiters = Vec::with_capacity(numbers.len());
        let mut held = Vec::with_capacity(numbers.len());
        let mut bytes = 0;
        for number in numbers {
            let waiter = super::waiting::get(&self.parts.entries, number)?;
            let record = record(&self.parts.entries, number)?;
            bytes += record.len();
            if bytes > self.parts.policy.batch.max_bytes && !held.is_empty() {
                break;
            }
            held.push(Held { offset: waiter.offset, append_time_ns: waiter.append_time_ns, record });
            waiters.push((number, waiter));
        }
        let held = Arc::new(held);
        let events = held.iter().map(Held::parse).collect::<Result<Vec<_>, _>>()?;
        let content_type = events.first().and_then(|event| event.view.content_type).unwrap_or_default();
        if let (Some(event), Some(first)) = (events.first(), waiters.first()) {
            let (number, waiter) = first;
            // It is asked again: what waited for its key was not asked, and another topology may ask for something else.
            match self.passes(event) {
                Ok(true) => {}
                Ok(false) => {
                    self.parts.counters.passed_over(1);
                    let writes = self.waiting.remove(*number).into_iter().flatten().collect();
                    return Ok(self.commit(Unit { consumed_to: self.position, writes, ..Unit::default() }).await?);
                }
                Err(reason) => {
                    let failure = LastFailure::of_condition(&reason);
                    let attempts = waiter.attempts + 1;
                    return self.fail_waiting(first, (&held, 0), event, failure, attempts).await;
                }
            }
        }
        let goes_along = |event: &&Parsed<'_>| {
            event.view.content_type.unwrap_or_default() == content_type && self.passes(event) == Ok(true)
        };
        let mut count = events.iter().take_while(goes_along).count();
        // Where a call of several breaks, they are called one by one.
        loop {
            let run = events.get(..count).unwrap_or_default();
            let Some((_, first)) = waiters.first() else { return Ok(()) };
            let attempts = first.attempts + 1;
            let permit = self.admit(run.len()).await?;
            if self.delivers_once_at_most() {
                // Gone first, durably: whatever becomes of the call, it is not made again.
                let called = waiters.iter().take(run.len());
                self.tell(called.flat_map(|(number, _)| gone(*number)).collect()).await?;
            }
            match self.call(permit, &held, 0, run, attempts).await {
                Ok(handled) => {
                    let of = Of::Waiting(waiters.iter().take(count).cloned().collect());
                    let (done, failure) = self.settle(run, handled, &of).await?;
                    let attempts = if done == 0 { attempts } else { 1 };
                    return match (failure, run.get(done), waiters.get(done)) {
                        (Some(failure), Some(event), Some(waiter)) => {
                            self.fail_waiting(waiter, (&held, done), event, failure, attempts).await
                        }
                        _ => Ok(()),
                    };
                }
                Err(HandleError::Instance(error)) => {
                    if self.delivers_once_at_most() {
                        let called = waiters.iter().zip(held.iter()).take(run.len());
                        let writes = called.flat_map(|((number, waiter), held)| kept(*number, waiter, &held.record));
                        self.tell(writes.collect()).await?;
                    }
                    let failure = LastFailure::of_instance(&error);
                    if let (Some(event), Some(waiter)) = (run.first(), waiters.first())
                        && self
                            .proven_handles(&held, 0, event, &failure, &Of::Waiting(vec![waiter.clone()]), attempts)
                            .await?
                    {
                        return Ok(());
                    }
                    return self.without_instance(&error.to_string()).await;
                }
                Err(HandleError::Call(error)) if error.kind == CallErrorKind::State => {
                    return self.without_instance(&error.message).await;
                }
                Err(HandleError::Call(_)) if count > 1 => count = 1,
                Err(HandleError::Call(error)) => {
                    let failure = LastFailure::of_call(error);
                    return match (events.first(), waiters.first()) {
                        (Some(event), Some(waiter)) => {
                            self.fail_waiting(waiter, (&held, 0), event, failure, attempts).await
                        }
                        _ => Ok(()),
                    };
                }
            }
        }
    }

    /// An attempt at a waiting event has failed.
    async fn fail_waiting(
        &mut self,
        waiting: &(u64, Waiter),
        (held, at): (&Arc<Vec<Held>>, usize),
        event: &Parsed<'_>,
        failure: LastFailure,
        attempts: u32,
    ) -> Result<(), Leave> {
        let of = Of::Waiting(vec![waiting.clone()]);
        if self.proven_handles(held, at, event, &failure, &of, attempts).await? {
            return Ok(());
        }
        let (number, before) = waiting;
        let record = held.get(at).map(|held| held.record.clone()).unwrap_or_default();
        let end = self.end_of_attempt(event, &failure, attempts);
        let number = *number;
        let waiter = Waiter { since_ns: before.since_ns, ..self.waiter_of(event, &failure, attempts, &end) };
        let mut unit = Unit { consumed_to: self.position, ..Unit::default() };
        if self.delivers_once_at_most() {
            // it was taken out in front of the call
            unit.writes.extend(kept(number, &waiter, &record));
        }
        match end {
            End::GivenUp => {
                unit.emits = self.parts.emitter.dead_letter(event, &failure, attempts);
                unit.writes.extend(self.waiting.remove(number).into_iter().flatten());
                self.parts.counters.dead_lettered();
            }
            End::Again(pause) => {
                self.parts.counters.retried();
                unit.writes.extend(self.waiting.update(number, &waiter, Instant::now() + pause));
            }
            End::Parked => unit.writes.extend(self.waiting.update(number, &waiter, Instant::now())),
            End::Halts => {
                unit.writes.extend(self.waiting.update(number, &waiter, Instant::now()));
                unit.writes.push(self.halt());
            }
        }
        Ok(self.commit(unit).await?)
    }

    fn halt(&mut self) -> LaneWrite {
        self.told.is_halted = true;
        LaneWrite::put(HALTED, "")
    }

    fn waiter_of(&self, event: &Parsed<'_>, failure: &LastFailure, attempts: u32, end: &End) -> Waiter {
        let now = now_ns();
        let pause = if let End::Again(pause) = end { *pause } else { Duration::ZERO };
        Waiter {
            offset: event.offset,
            append_time_ns: event.append_time_ns,
            attempts,
            since_ns: now,
            failed_ns: now,
            due_ns: now.saturating_add(u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX)),
            is_parked: matches!(end, End::Parked),
            failure: failure.kind.to_owned(),
            reason: cut(&failure.reason).to_owned(),
            backtrace: failure.backtrace.as_deref().map(|backtrace| cut(backtrace).to_owned()),
            digest: self.parts.emitter.digest.clone(),
        }
    }

    /// What comes of an attempt that failed.
    fn end_of_attempt(&self, event: &Parsed<'_>, failure: &LastFailure, attempts: u32) -> End {
        let Parts { subscriber, partition, counters, backoff, .. } = &self.parts;
        let (subscriber, id, reason) = (&**subscriber, event.view.id, &failure.reason);
        counters.failed(&format!("event {id}: {reason}"));
        let offset = event.offset;
        if failure.may_pass && attempts < backoff.retry.attempts {
            tracing::warn!(subscriber, partition, offset, event = id, attempts, %reason, "will try again");
            return End::Again(failure.delay.unwrap_or_else(|| backoff.pause(offset, attempts)));
        }
        self.parts.recorder.save(
            event,
            failure,
            attempts,
            Source {
                subscriber,
                origin: &self.parts.emitter.origin,
                topic: &self.parts.emitter.from,
                partition: *partition,
                digest: &self.parts.emitter.digest,
                wasm_digest: self.taken.version.wasm_digest,
            },
        );
        match self.on_failure(event, failure) {
            OnFailure::Halt => {
                tracing::error!(subscriber, partition, offset, event = id, attempts, %reason, "the lane halts");
                End::Halts
            }
            // what the handler itself calls hopeless does not get better by being looked at
            OnFailure::Park if failure.kind != "reject" => {
                tracing::warn!(subscriber, partition, offset, event = id, attempts, %reason, "parked");
                End::Parked
            }
            OnFailure::Park | OnFailure::DeadLetter => {
                tracing::warn!(subscriber, partition, offset, event = id, attempts, %reason, "given up");
                End::GivenUp
            }
        }
    }

    /// Now and then, removes state that has expired.
    async fn sweep(&mut self, last: Option<&Held>) -> Result<(), Leave> {
        let Some(last) = last.filter(|_| self.parts.policy.state.ttl.is_some()) else { return Ok(()) };
        self.sweep.1 += 1;
        if self.sweep.1 < limits::STATE_SWEEP_BATCHES {
            return Ok(());
        }
        let expired = self.state.expired(self.sweep.0.as_deref(), limits::STATE_SWEEP_ENTRIES, last.append_time_ns)?;
        self.sweep = (expired.next, 0);
        self.forget_state(expired.writes).await
    }

    /// Removes all state that has expired by a time. Whether there was any.
    async fn remove_expired(&mut self, time_ns: u64) -> Result<bool, Leave> {
        if !self.state.may_have_expired(time_ns) {
            return Ok(false);
        }
        let (mut behind, mut oldest_ns, mut removed) = (None, u64::MAX, false);
        loop {
            let expired = self.state.expired(behind.as_deref(), limits::STATE_SWEEP_ENTRIES, time_ns)?;
            oldest_ns = oldest_ns.min(expired.oldest_ns);
            removed |= !expired.writes.is_empty();
            self.forget_state(expired.writes).await?;
            behind = expired.next;
            if behind.is_none() {
                self.state.looked_through(oldest_ns);
                return Ok(removed);
            }
        }
    }

    /// Commits writes that delete state, by themselves.
    async fn forget_state(&mut self, mut writes: Vec<LaneWrite>) -> Result<(), Leave> {
        if !writes.is_empty() {
            self.state.account(&mut writes)?;
            self.commit(Unit { consumed_to: self.position, writes, ..Unit::default() }).await?;
        }
        Ok(())
    }

    async fn commit(&mut self, unit: Unit) -> Result<(), LaneError> {
        self.position = unit.consumed_to;
        Ok(self.parts.session.commit(unit).await?)
    }

    /// Reads again from where it has not done anything yet.
    async fn seek_to_position(&mut self) -> Result<(), LaneError> {
        self.commit(Unit { consumed_to: self.position, is_seek: true, ..Unit::default() }).await
    }
}

/// What comes of an attempt that failed.
enum End {
    /// Another attempt, after a pause.
    Again(Duration),
    /// Dead letter.
    GivenUp,
    /// It waits until it is released.
    Parked,
    /// The lane halts in front of all others.
    Halts,
}

/// How many of some events go into one call by their bytes: at least one.
fn fitting(sizes: impl Iterator<Item = usize>, max_bytes: usize) -> usize {
    let mut bytes = 0;
    let fits = |size: &usize| {
        bytes += size;
        bytes <= max_bytes
    };
    sizes.take_while(fits).count().max(1)
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
