//! How much may wait in a topic, and what happens to whoever brings more.
//!
//! ```text
//!   start        slowest position                     written
//!     │  consumed        │  unconsumed  + what is on its way │      <= backlog
//! ```
//!
//! A producer is refused, or waits for its turn and then for room, and its room is reserved until its events are durable, so
//! that producers together never bring more than there is room for; a little less, since what is written already counts twice
//! until then. A lane waits in front of a call, whose outputs nobody
//! knows beforehand: what one call of each lane makes may come on top.
//!
//! Cannot deadlock: room comes from those who take from the topic, and they wait for nothing but topics below. Whoever brings
//! events for several topics reserves room in all of them at once, and waits in one order.
//! Must not know: what an event is, how an engine keeps it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use crate::engine::{Engine, Numbers, UnconsumedCounter};
use crate::model::{SubscriberId, TopicId};
use crate::topology::{Plan, TopicPlan, WhenFull};

/// How soon it is looked again whether there is room.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(20);
/// What a producer that was refused is told to wait: handlers are slower than disks.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// The backlog of a topic.
pub(crate) struct Backlog {
    /// By it, everybody takes turns and locks in one order.
    number: TopicId,
    /// The topic's full name, which may become another one.
    topic: Mutex<String>,
    max_events: u64,
    when_full: WhenFull,
    /// Events that the slowest of those who take from it has yet to consume.
    unconsumed: RwLock<UnconsumedCounter>,
    /// Events that are on their way from outside.
    reserved: Mutex<u64>,
    /// Those who wait do so one behind the other.
    turn: tokio::sync::Mutex<()>,
}

/// A topic has no room for so many events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "topic `{topic}` has no room for {events} more: {waiting} events wait in it, and {max} may; try again in {} ms",
    retry_after.as_millis()
)]
pub struct BacklogFull {
    /// The topic's full name.
    pub topic: String,
    /// How many were brought.
    pub events: u64,
    /// How many wait or are on their way.
    pub waiting: u64,
    /// How many may.
    pub max: u64,
    /// When to try again.
    pub retry_after: Duration,
}

impl Backlog {
    /// That of a topic, where the topology bounds it.
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

    /// Others take from the topic from now on, which may be called otherwise.
    pub(crate) fn follow<E: Engine>(&self, engine: &E, topic: &TopicPlan, readers: &[SubscriberId]) {
        *self.topic.lock().unwrap_or_else(PoisonError::into_inner) = topic.label();
        let unconsumed = engine.unconsumed(self.number, topic.partitions, readers);
        *self.unconsumed.write().unwrap_or_else(PoisonError::into_inner) = unconsumed;
    }

    fn unconsumed(&self) -> u64 {
        (self.unconsumed.read().unwrap_or_else(PoisonError::into_inner))()
    }

    /// Whether a lane may make a call whose outputs come here.
    pub(crate) fn has_room(&self) -> bool {
        self.unconsumed() < self.max_events
    }

    fn reserved(&self) -> MutexGuard<'_, u64> {
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why there is no room for so many events beside those that are reserved. There always is where nothing waits: what is
    /// more than the backlog would never come in otherwise.
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

/// Those who take from each topic of a plan, by the topic.
pub(crate) fn readers(plan: &Plan, numbers: &Numbers) -> Vec<Vec<SubscriberId>> {
    let mut readers = vec![Vec::new(); plan.topics.len()];
    for (reader, number) in plan.subscribers.iter().zip(&numbers.subscribers) {
        if let Some(readers) = readers.get_mut(reader.from.0 as usize) {
            readers.push(*number);
        }
    }
    readers
}

/// Room that is reserved for events on their way; given back when it is dropped.
#[derive(Default)]
#[must_use = "it is given back at once"]
pub struct Admission {
    reserved: Vec<Wanted>,
    /// Its turn among the calls whose events may take long to be looked at.
    turn: Option<OwnedSemaphorePermit>,
}

impl Admission {
    /// With its turn.
    pub(super) fn with_turn(mut self, turn: OwnedSemaphorePermit) -> Self {
        self.turn = Some(turn);
        self
    }

    /// Gives its turn to the next one.
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

/// So many events for a topic.
pub(crate) type Wanted = (Arc<Backlog>, u64);

/// Reserves room in all of these topics at once, waiting for it as far as the topics say so. `look` says whether whoever
/// waits still may.
pub(crate) async fn admit<F: From<BacklogFull>>(
    mut wanted: Vec<Wanted>,
    look: impl Fn() -> Result<(), F>,
) -> Result<Admission, F> {
    wanted.sort_by_key(|(backlog, _)| backlog.number);
    let waits = |(backlog, _): &&Wanted| backlog.when_full == WhenFull::Wait;
    let mut turns = Vec::new();
    for (backlog, _) in wanted.iter().filter(waits) {
        // Nobody waits for a turn who is refused anyway.
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

/// How many are reserved in each of some topics.
type Reserved<'a> = Vec<MutexGuard<'a, u64>>;

/// Which topic has no room, those that refuse first.
fn check(wanted: &[Wanted]) -> Result<Reserved<'_>, (WhenFull, BacklogFull)> {
    let reserved: Reserved<'_> = wanted.iter().map(|(backlog, _)| backlog.reserved()).collect();
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

/// Reserves room in all of them, or says which one has none.
fn reserve(wanted: &[Wanted]) -> Result<(), (WhenFull, BacklogFull)> {
    for (reserved, (_, events)) in check(wanted)?.iter_mut().zip(wanted) {
        **reserved += *events;
    }
    Ok(())
}
