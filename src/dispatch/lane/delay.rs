//! Delayed events: a durable timer queue for each topic.
//!
//! ```text
//!   deliverat, delay                    a lane of its own
//!   publish, outputs ──> `T@delayed` ──────────────────────> entries by time ── due ──> `T`
//!                        a hidden topic, one partition       06 due offset since partition, offset, append time
//! ```
//!
//! An event with the attribute `deliverat` (a time) or `delay` (a duration such as `90s` after its append) waits
//! outside its topic, and is appended to it when it is due; events due at the same time in arrival order. It is not
//! changed. If the topic's lifecycle refuses it then, it goes to `T@refused`, with the reason.
//!
//! Trusted time decides when an event is due: a clock that jumps forward delivers nothing early, and one that is set
//! back delivers nothing late. If the wall clock was set back by up to a day, an event with `deliverat` waits for it as
//! well.
//!
//! Promises: each event is delivered once, never earlier than the error of trusted time allows, also across crashes.
//! Waiting events use disk and no memory: only the next due time is in memory. Relies on: the engine's units, like any
//! lane; the engine's trusted time.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::alarm::Alarm;
use super::batch::{BatchEvent, Unreadable};
use super::command::Command;
use super::entries::{DELAYED, TOLD, end_of};
use super::error::LaneError;
use super::hidden::{self, put, refuse};
use super::supervisor::SupervisedLane;
use super::together::EventsPerUnit;
use crate::dispatch::rules::delay::{When, when_of_stored};
use crate::dispatch::rules::guards::{self, TopicGuard};
use crate::dispatch::rules::keys;
use crate::engine::{
    Engine, Entries, Guard, LaneWrite, PageBudget, ReadBudget, ReadError, Session, SessionError, Slices, Unit,
};
use crate::limits;
use crate::model::{EventView, Offset, PartitionId, Record, Retention, TopicId, partition_of};
use crate::topology::KeyExpression;

/// Events only pass through the hidden topic.
pub(crate) const RETENTION: Retention =
    Retention { age: Some(Duration::from_secs(3600)), partition_bytes: None, force: false };
/// Consequence of a failing lane, for the log.
pub(crate) const FAILS: &str = "delayed events are not delivered";
/// Number of waiting events, a u64 in little endian.
const COUNT: &[u8] = &[TOLD, b'c', b'o', b'u', b'n', b't'];

/// Number of waiting events in a lane's entries.
pub(crate) fn waiting(entries: &impl Entries) -> Result<u64, ReadError> {
    let count = entries.get(COUNT)?;
    Ok(count.and_then(|count| Some(u64::from_le_bytes(count.get(..8)?.try_into().ok()?))).unwrap_or(0))
}

/// Parts of a delay lane in addition to those of all hidden lanes.
pub(crate) struct DelayParts {
    pub(crate) topic: TopicId,
    pub(crate) partitions: u32,
    pub(crate) guard: Option<TopicGuard>,
    /// The topic's `id:`, if it detects duplicates for as long as their key is known.
    pub(crate) per_key: Option<Option<KeyExpression>>,
    /// Number of events that are due by the wall clock, but not by trusted time, up to a limit.
    pub(crate) awaits_clock: Arc<AtomicU64>,
}

/// The parts of a delay lane.
pub(crate) type DelayLaneParts<E> = hidden::HiddenLaneParts<E, DelayParts>;

/// The delay queue of a topic.
pub(crate) struct DelayLane<E: Engine> {
    parts: Box<DelayLaneParts<E>>,
    position: Offset,
    count: u64,
    /// When the first event is due.
    next_ns: Option<u64>,
    /// The time of the last delivery.
    delivered_ns: u64,
    /// No entry is before this key. A search from further ahead would have to pass all entries deleted since the last
    /// checkpoint, possibly very many.
    front: Vec<u8>,
    /// Number of deliveries per unit while the guard refuses some.
    together: EventsPerUnit,
}

fn entry_key(due_ns: u64, offset: Offset) -> Vec<u8> {
    let mut key = Vec::with_capacity(17);
    key.push(DELAYED);
    key.extend_from_slice(&due_ns.to_be_bytes());
    key.extend_from_slice(&offset.to_be_bytes());
    key
}

/// Entry key of a delayed event: its order, then its arrival time by the clock of the bus. Entries of earlier releases
/// have no arrival time.
fn since_key(due_ns: u64, offset: Offset, since_ns: Option<u64>) -> Vec<u8> {
    let mut key = entry_key(due_ns, offset);
    key.extend(since_ns.iter().flat_map(|since_ns| since_ns.to_be_bytes()));
    key
}

fn number_at(key: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(*key.get(at..)?.first_chunk()?))
}

/// When the first event is delivered, if the last delivery covered `delivered_ns`. Events left over from then are
/// delivered at once.
fn delivers_at(due_ns: u64, delivered_ns: u64) -> u64 {
    const APART_NS: u64 = limits::DELAYED_UNITS_APART.as_nanos() as u64;
    if due_ns <= delivered_ns { due_ns } else { due_ns.max(delivered_ns.saturating_add(APART_NS)) }
}

/// Waits until this time. Checks the clock repeatedly, since it may be confirmed meanwhile.
async fn reach(at_ns: Option<u64>, now_ns: u64, alarm: &mut Alarm) {
    let Some(at_ns) = at_ns else { return std::future::pending().await };
    let (pause, look) = (Duration::from_nanos(at_ns.saturating_sub(now_ns)), limits::DELAY_LOOK_EVERY);
    match pause > look + look / 100 {
        true => tokio::time::sleep(look).await,
        false => alarm.wait(at_ns, pause).await,
    }
}

/// When an event is due.
pub(crate) fn due_of(key: &[u8]) -> Option<u64> {
    number_at(key, 1)
}

/// When it arrived.
pub(crate) fn since_of(key: &[u8]) -> Option<u64> {
    number_at(key, 17)
}

impl<E: Engine> SupervisedLane for DelayLane<E> {
    type Parts = DelayLaneParts<E>;

    fn load(parts: Box<DelayLaneParts<E>>) -> Result<Self, (LaneError, Box<DelayLaneParts<E>>)> {
        let position = parts.session.next_offset();
        let mut lane = Self {
            parts,
            position,
            count: 0,
            next_ns: None,
            delivered_ns: 0,
            front: vec![DELAYED],
            together: EventsPerUnit::default(),
        };
        match lane.read() {
            Ok(()) => Ok(lane),
            Err(error) => Err((error, lane.parts)),
        }
    }

    async fn run(mut self, _: Option<Command>) -> (LaneError, Box<DelayLaneParts<E>>) {
        let ended = self.work().await.map_or_else(|error| error, |()| LaneError::Stopped);
        (ended, self.parts)
    }
}

impl<E: Engine> DelayLane<E> {
    /// Loads the count and the first due time.
    fn read(&mut self) -> Result<(), LaneError> {
        self.count = waiting(&self.parts.entries)?;
        self.look()?;
        self.parts.seen.set_count(self.count);
        self.parts.seen.set_failure(None);
        Ok(())
    }

    /// Finds out when the first event is due.
    fn look(&mut self) -> Result<(), LaneError> {
        let first = self.parts.entries.range(Bound::Included(&self.front), &end_of(DELAYED), PageBudget::of(1))?;
        self.next_ns = first.entries.first().and_then(|(key, _)| due_of(key));
        Ok(())
    }

    /// Works until it is stopped or fails.
    async fn work(&mut self) -> Result<(), LaneError> {
        let budget = ReadBudget { events: limits::BATCH_EVENTS_MAX, bytes: limits::BATCH_BYTES_MAX };
        let (mut counts_from, mut alarm) = (Instant::now(), Alarm::default());
        loop {
            self.parts.seen.set_next(self.next_ns);
            let now_ns = self.parts.engine.trusted_now_ns();
            let at_ns = self.next_ns.map(|due_ns| delivers_at(due_ns, self.delivered_ns));
            if at_ns.is_some_and(|at_ns| at_ns <= now_ns) && !self.parts.stop.is_cancelled() {
                self.deliver(now_ns).await?;
                continue;
            }
            if Instant::now() >= counts_from {
                self.parts.own.awaits_clock.store(self.count_early(now_ns)?, Ordering::Release);
                counts_from = Instant::now() + limits::DELAY_LOOK_EVERY;
            }
            tokio::select! {
                biased;
                () = self.parts.stop.cancelled() => return Ok(self.parts.session.flush().await?),
                () = reach(at_ns, now_ns, &mut alarm) => {}
                chunks = self.parts.session.read(budget) => self.take_in(&BatchEvent::all(&chunks?)).await?,
            }
        }
    }

    /// Number of events that are due by the wall clock but not by trusted time, among the first ones.
    fn count_early(&self, now_ns: u64) -> Result<u64, LaneError> {
        let wall_ns = self.parts.engine.now_ns();
        if self.next_ns.is_none_or(|next_ns| next_ns > wall_ns) {
            return Ok(0); // the usual case
        }
        let (mut from, until) = (entry_key(now_ns.saturating_add(1), 0), entry_key(wall_ns.saturating_add(1), 0));
        let mut count = 0;
        while count < limits::AWAITS_CLOCK_COUNTED && from < until {
            let budget = PageBudget::of(limits::AWAITS_CLOCK_COUNTED - count);
            let page = self.parts.entries.range(Bound::Included(&from), &until, budget)?;
            count += page.entries.len();
            match page.entries.last() {
                Some((last, _)) if !page.is_last => from = [last.as_ref(), &[0]].concat(),
                _ => break,
            }
        }
        Ok(count as u64)
    }

    /// Stores newly delayed events.
    async fn take_in(&mut self, held: &[BatchEvent]) -> Result<(), LaneError> {
        let Some(last) = held.last() else { return Ok(()) };
        let mut writes = Vec::with_capacity(held.len() + 1);
        for held in held {
            let parsed = held.parse()?;
            let due_ns = when_of_stored(&parsed.view).due_ns(held.trusted_time_ns);
            self.next_ns = Some(self.next_ns.map_or(due_ns, |next_ns| next_ns.min(due_ns)));
            let key = since_key(due_ns, held.offset, Some(held.append_time_ns));
            if key < self.front {
                self.front.clone_from(&key);
            }
            writes.push(LaneWrite::put(key, held.record.clone()));
        }
        self.count += held.len() as u64;
        let unit = Unit { consumed_to: last.offset + 1, writes, ..Unit::default() };
        // Before the position: once a reader sees the position, it sees the waiting events.
        self.parts.seen.set_count(self.count);
        self.commit(unit).await
    }

    /// Appends due events to their topic.
    async fn deliver(&mut self, now_ns: u64) -> Result<(), LaneError> {
        let until = entry_key(now_ns.saturating_add(1), 0);
        let budget = PageBudget { entries: self.together.most(), bytes: limits::BATCH_BYTES_MAX };
        let mut due = self.parts.entries.range(Bound::Included(&self.front), &until, budget)?.entries;
        let front = due.last().map(|(last, _)| last.to_vec());
        let put_back = self.put_back(&mut due, now_ns)?;
        let mut refused: BTreeMap<usize, String> = BTreeMap::new();
        loop {
            let mut unit = Unit { consumed_to: self.position, writes: put_back.clone(), ..Unit::default() };
            for (index, (key, record)) in due.iter().enumerate() {
                if !refused.contains_key(&index)
                    && let Err(why) = self.place(&mut unit.emits, index, record)?
                {
                    refused.insert(index, why);
                }
                if let Some(why) = refused.get(&index) {
                    self.refuse(&mut unit.emits, record, why)?;
                }
                unit.writes.push(LaneWrite::delete(key.clone()));
            }
            let count = self.count;
            self.count = count.saturating_sub(due.len() as u64);
            match self.commit(unit).await {
                Ok(()) => break,
                Err(LaneError::Session(SessionError::Guard(guard))) if guard.is_for_its_event() => {
                    self.count = count;
                    // the events after it go with the next unit
                    let at = guard.of as usize;
                    due.truncate(at + 1);
                    self.together.refused(at);
                    refused.insert(at, guard.why.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        if refused.is_empty() {
            self.together.passed(due.len());
        }
        // Lowers the count only after the events are in their topic.
        self.parts.session.flush().await?;
        self.parts.seen.set_count(self.count);
        self.delivered_ns = now_ns;
        self.front = front.unwrap_or(std::mem::take(&mut self.front));
        self.look()
    }

    /// Removes events that are due only because the wall clock was set back: they wait for it.
    fn put_back(&self, due: &mut Vec<(Bytes, Bytes)>, now_ns: u64) -> Result<Vec<LaneWrite>, LaneError> {
        let wall_ns = self.parts.engine.now_ns();
        let is_right = wall_ns >= now_ns;
        let is_far_off = Duration::from_nanos(now_ns.saturating_sub(wall_ns)) > limits::CLOCK_JUMP_MAX;
        let (mut writes, mut left) = (Vec::new(), Vec::with_capacity(due.len()));
        if is_right || is_far_off {
            return Ok(writes);
        }
        for (key, record) in due.drain(..) {
            let when = when_of_stored(&self.parse(&record)?.1);
            match (when, number_at(&key, 9)) {
                (When::At(time_ns), Some(offset)) if time_ns > wall_ns => {
                    let due_ns = now_ns.saturating_add(time_ns - wall_ns);
                    writes.push(LaneWrite::put(since_key(due_ns, offset, since_of(&key)), record));
                    writes.push(LaneWrite::delete(key));
                }
                _ => left.push((key, record)),
            }
        }
        *due = left;
        Ok(writes)
    }

    /// Appends a due event to its topic, or returns why not.
    fn place(&self, emits: &mut Slices, index: usize, record: &[u8]) -> Result<Result<(), String>, LaneError> {
        let (parsed, view) = self.parse(record)?;
        let partition = partition_of(parsed.key, self.parts.own.partitions);
        let partition = PartitionId { topic: self.parts.own.topic, partition };
        let Some(guard) = &self.parts.own.guard else {
            put(emits, partition, record);
            return Ok(Ok(()));
        };
        let id = self.parts.own.per_key.as_ref().map(|id| keys::identity(id.as_ref(), &view, parsed.key)).transpose();
        let id = match id {
            Ok(id) => id,
            Err(why) => return Ok(Err(why)),
        };
        Ok(match guards::state_of(&guard.plan, &view, Some(parsed.key)) {
            Ok(state) => {
                let slice = put(emits, partition, record);
                let guard = guard.of(partition.partition, parsed.key, state, index as u32);
                emits.guard_last(slice, id.into_iter().fold(guard, Guard::recognised_by));
                Ok(())
            }
            Err(unknown) => Err(unknown.to_string()),
        })
    }

    /// Moves a due event that its topic refuses to the hidden topic of refused events, since its producer can no longer
    /// be told.
    fn refuse(&self, emits: &mut Slices, record: &[u8], why: &str) -> Result<(), LaneError> {
        let Some(guard) = &self.parts.own.guard else { return Ok(()) };
        Ok(refuse(emits, guard.refused, record, why).map_err(|error| Unreadable::new(self.position, error))?)
    }

    fn parse<'r>(&self, record: &'r [u8]) -> Result<(Record<'r>, EventView<'r>), LaneError> {
        let parse = || {
            let record = Record::parse(record)?;
            Ok((record, record.view()?))
        };
        Ok(parse().map_err(|error| Unreadable::new(self.position, error))?)
    }

    async fn commit(&mut self, mut unit: Unit) -> Result<(), LaneError> {
        self.position = unit.consumed_to;
        unit.writes.push(LaneWrite::put(COUNT, self.count.to_le_bytes().to_vec()));
        Ok(self.parts.session.commit(unit).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_NS: u64 = 1_800_000_000_000_000_000;

    #[test]
    fn units_are_apart_unless_more_was_due_already() {
        let apart = limits::DELAYED_UNITS_APART.as_nanos() as u64;
        assert_eq!(delivers_at(NOW_NS, 0), NOW_NS, "the first one");
        assert_eq!(delivers_at(NOW_NS, NOW_NS), NOW_NS, "it was left, or has come after its time");
        assert_eq!(delivers_at(NOW_NS + 1, NOW_NS), NOW_NS + apart);
        assert_eq!(delivers_at(NOW_NS + 2 * apart, NOW_NS), NOW_NS + 2 * apart);
    }

    #[test]
    fn entries_are_in_the_order_of_their_times_and_then_of_their_arrival() {
        let keys = [entry_key(5, 9), since_key(6, 1, Some(7)), entry_key(256, 0), since_key(256, 1, Some(3))];
        assert!(keys.is_sorted());
        assert_eq!(keys.each_ref().map(|key| due_of(key)), [Some(5), Some(6), Some(256), Some(256)]);
        assert_eq!(keys.each_ref().map(|key| since_of(key)), [None, Some(7), None, Some(3)]);
    }
}
