//! Limits the unconsumed events of a topic (`backlog`), and holds back producers that exceed it.
//!
//! ```text
//!   start        slowest position                     written
//!     │  consumed        │  unconsumed  + being published     │      <= backlog
//! ```
//!
//! A producer is refused, or queues and then waits for room. Its room stays reserved until its events are durable, so
//! that concurrent producers together never exceed the limit; they may fall slightly short of it, since written but not
//! yet durable events count twice. A lane waits before a call, since the number of its outputs is not known in advance:
//! the outputs of one call per lane may exceed the limit.
//!
//! Cannot deadlock: subscribers of the topic free the room, and they wait only for topics further down the tree. A call
//! with events for several topics reserves room in all of them at once, and locks them in one order. Must not know:
//! what an event is, how an engine stores it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use crate::engine::{Engine, Numbers, UnconsumedCounter};
use crate::model::{SubscriberId, TopicId};
use crate::topology::{Plan, TopicPlan, WhenFull};

/// Interval at which a waiting producer checks for room.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Retry delay reported to refused producers. Longer than a disk write, since room depends on handlers.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// The backlog of a topic.
pub(crate) struct Backlog {
    /// Defines the order in which calls queue and lock.
    number: TopicId,
    /// The topic's full name, which a rename changes.
    topic: Mutex<String>,
    max_events: u64,
    when_full: WhenFull,
    /// Events that the slowest subscriber has not consumed.
    unconsumed: RwLock<UnconsumedCounter>,
    /// Events of producers that are being published.
    reserved: Mutex<u64>,
    /// Queue of the waiting producers.
    turn: tokio::sync::Mutex<()>,
}

/// A topic has no room for the events of a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "topic `{topic}` has no room for {events} more: {waiting} events wait in it, and {max} may; try again in {} ms",
    retry_after.as_millis()
)]
pub struct BacklogFull {
    /// The topic's full name.
    pub topic: String,
    /// Events of the call.
    pub events: u64,
    /// Unconsumed and reserved events.
    pub waiting: u64,
    pub max: u64,
    /// Suggested retry delay.
    pub retry_after: Duration,
}

impl Backlog {
    /// The backlog of a topic, if the topology sets a limit.
    pub(crate) fn of<E: Engine>(
        engine: &E,
        topic: &TopicPlan,
        number: TopicId,
        readers: &[SubscriberId],
    ) -> Option<Arc<Self>> {
        let bound = topic.backlog?;
        Some(Arc::new(Self {
            number,
            topic: Mutex::new(topic.label()),
            max_events: bound.max_events,
            when_full: bound.when_full,
            unconsumed: RwLock::new(engine.unconsumed(number, topic.partitions, readers)),
            reserved: Mutex::new(0),
            turn: tokio::sync::Mutex::new(()),
        }))
    }

    /// Changes the subscribers and the name of the topic.
    pub(crate) fn follow<E: Engine>(&self, engine: &E, topic: &TopicPlan, readers: &[SubscriberId]) {
        *self.topic.lock().unwrap_or_else(PoisonError::into_inner) = topic.label();
        let unconsumed = engine.unconsumed(self.number, topic.partitions, readers);
        *self.unconsumed.write().unwrap_or_else(PoisonError::into_inner) = unconsumed;
    }

    fn unconsumed(&self) -> u64 {
        (self.unconsumed.read().unwrap_or_else(PoisonError::into_inner))()
    }

    /// Whether a lane may make a call whose outputs go to this topic.
    pub(crate) fn has_room(&self) -> bool {
        self.unconsumed() < self.max_events
    }

    fn reserved(&self) -> MutexGuard<'_, u64> {
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The error for `events` more events in addition to the reserved ones; `None` if there is room. An empty backlog
    /// accepts any number, or a call larger than the limit would never succeed.
    fn refusal(&self, reserved: u64, events: u64) -> Option<BacklogFull> {
        let waiting = self.unconsumed() + reserved;
        let is_full = waiting > 0 && waiting + events > self.max_events;
        is_full.then(|| BacklogFull {
            topic: self.topic.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            events,
            waiting,
            max: self.max_events,
            retry_after: RETRY_AFTER,
        })
    }
}

/// The subscribers of each topic of a plan.
pub(crate) fn readers(plan: &Plan, numbers: &Numbers) -> Vec<Vec<SubscriberId>> {
    let mut readers = vec![Vec::new(); plan.topics.len()];
    for (reader, number) in plan.subscribers.iter().zip(&numbers.subscribers) {
        if let Some(readers) = readers.get_mut(reader.from.0 as usize) {
            readers.push(*number);
        }
    }
    readers
}

/// Room reserved for events that are being published; released on drop.
#[derive(Default)]
#[must_use = "it is given back at once"]
pub struct Admission {
    reserved: Vec<Reservation>,
    /// Permit for calls that take long to check.
    turn: Option<OwnedSemaphorePermit>,
}

impl Admission {
    /// Adds the permit.
    pub(super) fn with_turn(mut self, turn: OwnedSemaphorePermit) -> Self {
        self.turn = Some(turn);
        self
    }

    /// Releases the permit.
    pub(super) fn end_turn(&mut self) {
        self.turn = None;
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        for (backlog, events) in &self.reserved {
            let mut reserved = backlog.reserved();
            *reserved = reserved.saturating_sub(*events);
        }
    }
}

/// A number of events for a topic.
pub(crate) type Reservation = (Arc<Backlog>, u64);

/// Reserves room in all of these topics at once; waits for it if all full topics say `wait`. `look` is called while
/// waiting, and ends it with an error.
pub(crate) async fn admit<F: From<BacklogFull>>(
    mut wanted: Vec<Reservation>,
    look: impl Fn() -> Result<(), F>,
) -> Result<Admission, F> {
    wanted.sort_by_key(|(backlog, _)| backlog.number);
    let waits = |(backlog, _): &&Reservation| backlog.when_full == WhenFull::Wait;
    let mut turns = Vec::new();
    for (backlog, _) in wanted.iter().filter(waits) {
        // A call that is refused anyway does not queue.
        if let Err((WhenFull::Reject, refusal)) = check(&wanted) {
            return Err(refusal.into());
        }
        turns.push(backlog.turn.lock().await);
    }
    loop {
        look()?;
        match reserve(&wanted) {
            Ok(()) => break,
            Err((WhenFull::Reject, refusal)) => return Err(refusal.into()),
            Err((WhenFull::Wait, _)) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
    drop(turns);
    Ok(Admission { reserved: wanted, turn: None })
}

/// The locked reservations of several topics.
type LockedReservations<'a> = Vec<MutexGuard<'a, u64>>;

/// The first topic without room; topics that reject before topics that wait.
fn check(wanted: &[Reservation]) -> Result<LockedReservations<'_>, (WhenFull, BacklogFull)> {
    let reserved: LockedReservations<'_> = wanted.iter().map(|(backlog, _)| backlog.reserved()).collect();
    for when_full in [WhenFull::Reject, WhenFull::Wait] {
        for ((backlog, events), reserved) in wanted.iter().zip(&reserved) {
            if backlog.when_full == when_full
                && let Some(refusal) = backlog.refusal(**reserved, *events)
            {
                return Err((when_full, refusal));
            }
        }
    }
    Ok(reserved)
}

/// Reserves room in all topics, or returns one that has none.
fn reserve(wanted: &[Reservation]) -> Result<(), (WhenFull, BacklogFull)> {
    for (reserved, (_, events)) in check(wanted)?.iter_mut().zip(wanted) {
        **reserved += *events;
    }
    Ok(())
}
