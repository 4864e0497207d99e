//! Events without an offset in their topic yet: held and delayed ones.
//!
//! ```text
//!   held: by partition and key, in arrival order per key ──> delayed: in the order of their due times
//! ```
//!
//! Promises: listings read the lanes' data while the lanes run, page by page; no lane waits. A page is bounded in
//! events and in bytes, and so is the number of entries read for it: a page may have fewer events than requested, or
//! none, although more follow. An event that leaves during a listing may or may not be listed; all others are, exactly
//! once.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::topic::Topic;
use crate::api::{PendingEvent, PendingFilter, PendingKind};
use crate::dispatch::lane::delay::{due_of, since_of};
use crate::dispatch::lane::entries::{DELAYED, HELD, end_of};
use crate::dispatch::lane::held::{HeldValue, entry_key};
use crate::dispatch::rules::guards::{self, TopicGuard};
use crate::engine::{Engine, Entries, PageBudget, ReadError};
use crate::model::guard::{key_hash, why_not};
use crate::model::{EventView, LaneId, Offset, PartitionId, Record, TopicId, partition_of};
use crate::topology::TopicIndex;

/// Maximum bytes of events in a page, unless a single event is larger.
const PAGE_BYTES: usize = 4 << 20;
/// Entries that are read at once.
const READ_AT_ONCE: PageBudget = PageBudget::of(256);
/// Maximum number of entries read for one page, and of their bytes, including entries that the filter excludes.
const LOOKED_AT_MAX: usize = 10_000;
const LOOKED_AT_BYTES_MAX: usize = 64 << 20;
/// Time limit for lanes to store newly published events at the beginning of a listing; usually they already have.
const TAKEN_IN_WITHIN: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingPage {
    /// The events of the page.
    pub events: Vec<PendingEvent>,
    /// Where the next page starts; `None` at the end.
    pub next: Option<Bytes>,
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum PendingError {
    /// The position is not from an earlier page.
    #[error("is not what an earlier page of this listing said")]
    Position,
    /// Stored data cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// A lane that stores held or delayed events.
struct HiddenLane {
    kind: PendingKind,
    lane: LaneId,
    /// The hidden partition that it reads.
    hidden: PartitionId,
}

/// A topic, and the lanes with its held and delayed events, in listing order.
struct PendingTopic {
    name: String,
    partitions: u32,
    guard: Option<TopicGuard>,
    keepers: Vec<HiddenLane>,
    /// `None` for a topic whose events never wait.
    topic: Option<TopicId>,
}

/// Continuation of a listing: the index of a keeper, its partition, and the key of the last listed entry.
struct Position {
    partition: u32,
    behind: Vec<u8>,
}

impl Position {
    fn encode(&self) -> Bytes {
        [&self.partition.to_be_bytes(), self.behind.as_slice()].concat().into()
    }

    fn parse(encoded: &[u8]) -> Result<Self, PendingError> {
        let (partition, behind) = encoded.split_first_chunk().ok_or(PendingError::Position)?;
        match behind.first() {
            Some(&(HELD | DELAYED)) if behind.len() <= 1 + 3 * size_of::<u64>() => {
                Ok(Self { partition: u32::from_be_bytes(*partition), behind: behind.to_vec() })
            }
            _ => Err(PendingError::Position),
        }
    }
}

impl HiddenLane {
    /// First byte of the keys of its entries.
    fn first_byte(&self) -> u8 {
        match self.kind {
            PendingKind::Held => HELD,
            PendingKind::Delayed => DELAYED,
        }
    }

    /// The range of its entries that may have this key.
    fn range(&self, key: Option<&str>) -> (Vec<u8>, Vec<u8>) {
        match (self.kind, key) {
            (PendingKind::Held, Some(key)) => {
                let hash = key_hash(key);
                (entry_key(&hash, 0), [entry_key(&hash, Offset::MAX), vec![0]].concat())
            }
            _ => (vec![self.first_byte()], end_of(self.first_byte()).to_vec()),
        }
    }
}

impl<E: Engine> Topic<E> {
    /// Its held and delayed events, starting after an earlier page, at most `count`. A page may have fewer, for
    /// its size or because of the filter, although more follow.
    ///
    /// # Errors
    /// [`PendingError`].
    pub async fn pending(
        &self,
        filter: PendingFilter,
        from: Option<Bytes>,
        count: usize,
    ) -> Result<PendingPage, PendingError> {
        let from = from.map(|from| Position::parse(&from)).transpose()?;
        let mut found = self.find_pending();
        let key = filter.key.as_ref();
        found.keepers.retain(|keeper| {
            let has_key = |key: &String| partition_of(key, found.partitions) == keeper.lane.partition;
            filter.kind.is_none_or(|kind| kind == keeper.kind)
                && (keeper.kind == PendingKind::Delayed || key.is_none_or(has_key))
        });
        if from.is_none() {
            taken_in(self.tree.engine(), &found).await;
        }
        let engine = self.tree.engine().clone();
        let listed = tokio::task::spawn_blocking(move || list(&engine, &found, filter.key.as_deref(), from, count));
        listed.await.unwrap_or_else(|error| Err(ReadError::Storage(error.to_string().into()).into()))
    }

    fn find_pending(&self) -> PendingTopic {
        let (running, partitions) = (&self.running, self.partitions());
        let mut found = PendingTopic {
            name: self.name().to_owned(),
            partitions,
            guard: self.guard.clone(),
            keepers: Vec::new(),
            topic: None,
        };
        // hidden topics of refused events have none
        let Some(index) =
            running.numbers.topics.iter().take(running.plan.topics.len()).position(|n| *n == self.number())
        else {
            return found;
        };
        found.topic = Some(self.number());
        let holder = running.timers.get(index).and_then(|timer| timer.as_ref()?.held.as_ref());
        let held = holder.iter().flat_map(|holder| {
            (0..partitions).map(|partition| HiddenLane {
                kind: PendingKind::Held,
                lane: LaneId { subscriber: holder.subscriber, partition },
                hidden: PartitionId { topic: holder.topic, partition },
            })
        });
        let delayed = running.numbered().delayed(TopicIndex(index as u32)).map(|(hidden, subscriber)| HiddenLane {
            kind: PendingKind::Delayed,
            lane: LaneId { subscriber, partition: 0 },
            hidden: PartitionId { topic: hidden, partition: 0 },
        });
        found.keepers = held.chain(delayed).collect();
        found
    }
}

/// Waits briefly until the lanes have stored all events of the hidden topics: a client that has received the answer
/// to its publish finds its event.
async fn taken_in<E: Engine>(engine: &E, found: &PendingTopic) {
    let until = Instant::now() + TAKEN_IN_WITHIN;
    let ends = found.keepers.iter().map(|keeper| engine.bounds(keeper.hidden).unwrap_or_default().durable);
    for (keeper, end) in found.keepers.iter().zip(ends.collect::<Vec<_>>()) {
        while engine.position(keeper.lane).is_some_and(|position| position < end) && Instant::now() < until {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Reads a page from disk.
fn list<E: Engine>(
    engine: &E,
    found: &PendingTopic,
    key: Option<&str>,
    from: Option<Position>,
    count: usize,
) -> Result<PendingPage, PendingError> {
    let (mut events, mut bytes, mut looked_at, mut looked_at_bytes) = (Vec::new(), 0, 0, 0);
    let begins = |keeper: &HiddenLane| {
        let is_it = |from: &Position| {
            from.behind.first() == Some(&keeper.first_byte()) && from.partition == keeper.lane.partition
        };
        from.as_ref().is_none_or(is_it)
    };
    for (number, keeper) in found.keepers.iter().skip_while(|keeper| !begins(keeper)).enumerate() {
        let Some(entries) = engine.entries(keeper.lane) else { continue };
        let (first, until) = keeper.range(key);
        let here = from.as_ref().filter(|_| number == 0).map(|from| from.behind.clone());
        let mut behind = here.unwrap_or_else(|| vec![keeper.first_byte()]);
        let mut why = HoldReasons::new(engine, found, keeper);
        loop {
            let bound = if behind < first { Bound::Included(&*first) } else { Bound::Excluded(&*behind) };
            let page = entries.range(bound, &until, READ_AT_ONCE)?;
            let is_last = page.is_last || page.entries.is_empty();
            for (at, value) in page.entries {
                let next = || Position { partition: keeper.lane.partition, behind: behind.clone() }.encode();
                if looked_at >= LOOKED_AT_MAX || looked_at_bytes > LOOKED_AT_BYTES_MAX {
                    return Ok(PendingPage { events, next: Some(next()) });
                }
                (looked_at, looked_at_bytes) = (looked_at + 1, looked_at_bytes + value.len());
                let event = pending(found, keeper, &at, &value);
                if let Some(event) = event.filter(|event| key.is_none_or(|key| key == event.key)) {
                    let size = event.event.len() + event.key.len() + size_of::<PendingEvent>();
                    if !events.is_empty() && (events.len() >= count || bytes + size > PAGE_BYTES) {
                        return Ok(PendingPage { events, next: Some(next()) });
                    }
                    bytes += size;
                    events.push(why.explain(event)?);
                }
                behind = at.to_vec();
            }
            if is_last {
                break;
            }
        }
    }
    Ok(PendingPage { events, next: None })
}

/// A stored event, still without the reason for which it is held.
fn pending(found: &PendingTopic, keeper: &HiddenLane, at: &[u8], value: &Bytes) -> Option<PendingEvent> {
    let (since_ns, due_ns, record) = match keeper.kind {
        PendingKind::Held => {
            let HeldValue { due_ns, since_ns, record } = HeldValue::parse(value)?;
            (since_ns, Some(due_ns).filter(|_| found.guard.is_some()), record)
        }
        PendingKind::Delayed => (since_of(at), due_of(at), value.clone()),
    };
    let parsed = Record::parse(&record).ok()?;
    let view = parsed.view().ok()?;
    Some(PendingEvent {
        kind: keeper.kind,
        topic: found.name.clone(),
        partition: partition_of(parsed.key, found.partitions),
        key: parsed.key.to_owned(),
        id: view.id.to_owned(),
        r#type: view.r#type.to_owned(),
        state: None,
        since_ns,
        due_ns,
        reason: String::new(),
        event: record.slice_ref(parsed.event),
    })
}

/// Determines why events are held; consecutive events of a key share the lookup.
struct HoldReasons<'a, E: Engine> {
    engine: &'a E,
    /// `None` for delayed events, which have no such reason.
    guard: Option<Option<&'a TopicGuard>>,
    states: Option<E::Entries>,
    /// The stored state of the previous key.
    known: Option<(String, Option<Bytes>)>,
}

impl<'a, E: Engine> HoldReasons<'a, E> {
    fn new(engine: &'a E, found: &'a PendingTopic, keeper: &HiddenLane) -> Self {
        let guard = (keeper.kind == PendingKind::Held).then_some(found.guard.as_ref());
        let place = found.topic.map(|topic| PartitionId { topic, partition: keeper.lane.partition });
        Self { engine, guard, states: place.and_then(|place| engine.states(place)), known: None }
    }

    fn explain(&mut self, event: PendingEvent) -> Result<PendingEvent, ReadError> {
        let (Some(guard), Ok(view)) = (self.guard, EventView::parse(&event.event)) else { return Ok(event) };
        let Some(guard) = guard else {
            return Ok(PendingEvent {
                reason: "its topic has no lifecycle now: it is about to follow".to_owned(),
                ..event
            });
        };
        let state: Arc<str> = match guards::state_of(&guard.plan, &view, Some(&event.key)) {
            Ok(state) => state,
            Err(unknown) => return Ok(PendingEvent { reason: unknown.to_string(), ..event }),
        };
        if self.known.as_ref().is_none_or(|(key, _)| *key != event.key) {
            let stored = self.states.as_ref().map(|states| states.get(&key_hash(&event.key))).transpose()?.flatten();
            self.known = Some((event.key.clone(), stored));
        }
        let stored = self.known.as_ref().and_then(|(_, stored)| stored.as_deref());
        let why = why_not(&guard.plan.lifecycle, stored, &state, self.engine.trusted_now_ns());
        let reason = why.map_or_else(|| "it may follow now, and is about to".to_owned(), |why| why.to_string());
        Ok(PendingEvent { state: Some(state.as_ref().to_owned()), reason, ..event })
    }
}
