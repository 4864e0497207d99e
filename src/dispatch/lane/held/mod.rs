//! Held events: events whose transition is not allowed yet. They are held until it is, or until they expire.
//!
//! ```text
//!   publish, outputs ── the guard ──> `T`
//!                           │          │ keys with held events are judged again
//!                           v          v
//!                       `T@held` ──> entries by key and arrival ── allowed ──> `T`
//!                       a hidden                                └─ expired ──> `T@refused`
//!                       topic
//! ```
//!
//! The guard puts such an event into the hidden topic `T@held`, in the partition that its key has in `T`. It is
//! appended to `T` when its transition is allowed, as if it had been published then.
//!
//! Promises: each event goes to `T` or to `T@refused`, exactly once, also across crashes. Of the held events of a key,
//! the first allowed one goes, then again the first allowed one. An event that is allowed when it is published does not
//! wait for held ones. The guard (`model/guard/mod.rs`) limits their number, and is told of each that leaves. A topic
//! without a lifecycle takes all events that are still held for it, in arrival order per key. Relies on: the engine's
//! units, like any lane; only events of a topic change the states of its keys. Memory: offset, state and time per held
//! event (`HeldEvents`); records are read when an event leaves.

mod book;

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::batch::Unreadable;
use super::command::Command;
use super::entries::{HELD, HELD_UNTIL, end_of};
use super::error::LaneError;
use super::hidden::{self, after, put, refuse};
use super::supervisor::SupervisedLane;
use crate::dispatch::rules::guards::{self, TopicGuard};
use crate::engine::{Engine, Entries, Guard, LaneWrite, PageBudget, ReadBudget, Session, SessionError, Unit};
use crate::limits;
use crate::model::guard::{key_hash, may_follow};
use crate::model::{Chunk, Offset, PartitionId, Record};
use crate::topology::OutOfOrder;
use book::{HeldEvent, HeldEvents, KeyHash};

/// Suffix of the hidden topic of delayed events. Names in a topology cannot contain it.
pub(crate) const SUFFIX: &str = "@held";
/// Consequence of a failing lane, for the log.
pub(crate) const FAILS: &str = "held events are not judged again";

/// Limits of one page of entries.
const PAGE: PageBudget = PageBudget { entries: limits::BATCH_EVENTS_MAX as usize, bytes: limits::BATCH_BYTES_MAX };

/// Parts of a held lane in addition to those of all hidden lanes.
pub(crate) struct HeldParts<E: Engine> {
    /// Stored states of the partition's keys.
    pub(crate) states: E::Entries,
    /// The partition of the topic.
    pub(crate) place: PartitionId,
    /// `None` if the topic no longer has a lifecycle.
    pub(crate) guard: Option<TopicGuard>,
}

/// The parts of a held lane.
pub(crate) type HeldLaneParts<E> = hidden::HiddenLaneParts<E, HeldParts<E>>;

/// The lane that holds the events of a partition.
pub(crate) struct HeldLane<E: Engine> {
    parts: Box<HeldLaneParts<E>>,
    position: Offset,
    book: HeldEvents,
    /// Keys that have to be judged again.
    moved: BTreeSet<KeyHash>,
    /// Up to where the topic's partition was searched for keys with held events.
    looked: Offset,
}

/// Entry key of a held event.
pub(crate) fn entry_key(hash: &KeyHash, offset: Offset) -> Vec<u8> {
    [&[HELD], hash.as_slice(), &offset.to_be_bytes()].concat()
}

/// Key and offset of an entry.
fn parse_entry_key(key: &[u8]) -> Option<(KeyHash, Offset)> {
    let (hash, offset) = key.strip_prefix(&[HELD])?.split_first_chunk()?;
    Some((*hash, Offset::from_be_bytes(offset.try_into().ok()?)))
}

/// Flag in the expiry time, which is before 2262: the arrival time follows. Entries of earlier releases do not have
/// one.
const HAS_SINCE: u64 = 1 << 63;

/// Entry value of a held event: `u64` expiry time, with [`HAS_SINCE`] `u64` arrival time, then the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeldValue {
    /// Expiry time, trusted time.
    pub(crate) due_ns: u64,
    /// Arrival time, by the clock of the bus.
    pub(crate) since_ns: Option<u64>,
    pub(crate) record: Bytes,
}

impl HeldValue {
    pub(crate) fn parse(value: &Bytes) -> Option<Self> {
        let (due_ns, rest) = value.split_first_chunk()?;
        let due_ns = u64::from_le_bytes(*due_ns);
        if due_ns & HAS_SINCE == 0 {
            return Some(Self { due_ns, since_ns: None, record: value.slice_ref(rest) });
        }
        let (since_ns, rest) = rest.split_first_chunk()?;
        let since_ns = Some(u64::from_le_bytes(*since_ns));
        Some(Self { due_ns: due_ns & !HAS_SINCE, since_ns, record: value.slice_ref(rest) })
    }

    fn encode(due_ns: u64, since_ns: u64, record: &[u8]) -> Vec<u8> {
        [&(due_ns | HAS_SINCE).to_le_bytes(), since_ns.to_le_bytes().as_slice(), record].concat()
    }
}

impl<E: Engine> SupervisedLane for HeldLane<E> {
    type Parts = HeldLaneParts<E>;

    fn load(parts: Box<HeldLaneParts<E>>) -> Result<Self, (LaneError, Box<HeldLaneParts<E>>)> {
        let position = parts.session.next_offset();
        let mut lane = Self { parts, position, book: HeldEvents::default(), moved: BTreeSet::new(), looked: 0 };
        match lane.read() {
            Ok(()) => Ok(lane),
            Err(error) => Err((error, lane.parts)),
        }
    }

    async fn run(mut self, _: Option<Command>) -> (LaneError, Box<HeldLaneParts<E>>) {
        let ended = self.work().await.map_or_else(|error| error, |()| LaneError::Stopped);
        (ended, self.parts)
    }
}

impl<E: Engine> HeldLane<E> {
    /// Loads the held events, and schedules all keys to be judged again.
    fn read(&mut self) -> Result<(), LaneError> {
        self.looked = self.parts.engine.bounds(self.parts.own.place).unwrap_or_default().written;
        let mut from = Bound::Included(vec![HELD]);
        loop {
            let from_ref = from.as_ref().map(Vec::as_slice);
            let found = self.parts.entries.range(from_ref, &end_of(HELD), PAGE)?.entries;
            let Some((last, _)) = found.last() else { break };
            from = Bound::Excluded(last.to_vec());
            for (key, value) in &found {
                let Some(((key, offset), held)) = parse_entry_key(key).zip(HeldValue::parse(value)) else {
                    continue;
                };
                let HeldValue { due_ns, record, .. } = held;
                let state = self.state_of(offset, &record)?;
                self.book.put(HeldEvent { key, offset, due_ns, state });
            }
        }
        self.moved = self.book.keys().copied().collect();
        self.tell();
        self.parts.seen.set_failure(None);
        Ok(())
    }

    /// The state of an event if the lifecycle contains it. Without a lifecycle, all events have the same state.
    fn state_of(&self, offset: Offset, record: &[u8]) -> Result<Option<Arc<str>>, LaneError> {
        let Some(guard) = &self.parts.own.guard else { return Ok(Some("".into())) };
        let parse = || {
            let record = Record::parse(record)?;
            Ok((record.key, record.view()?))
        };
        let (key, view) = parse().map_err(|error| Unreadable::new(offset, error))?;
        Ok(guards::state_of(&guard.plan, &view, Some(key)).ok())
    }

    /// When the first event expires; never if the topic has no lifecycle.
    fn next_ns(&self) -> Option<u64> {
        self.book.next_ns().filter(|_| self.parts.own.guard.is_some())
    }

    fn tell(&self) {
        self.parts.seen.set_count(self.book.count());
        self.parts.seen.set_next(self.next_ns());
    }

    /// Deletes entries of earlier releases, which also indexed events by time.
    async fn forget_times(&mut self) -> Result<(), LaneError> {
        loop {
            let times = self.parts.entries.range(Bound::Included(&[HELD_UNTIL]), &end_of(HELD_UNTIL), PAGE)?.entries;
            if times.is_empty() {
                return Ok(());
            }
            let writes = times.into_iter().map(|(key, _)| LaneWrite::delete(key)).collect();
            let unit = Unit { consumed_to: self.position, writes, ..Unit::default() };
            self.parts.session.commit(unit).await?;
        }
    }

    /// Works until it is stopped or fails.
    async fn work(&mut self) -> Result<(), LaneError> {
        let budget = ReadBudget { events: limits::BATCH_EVENTS_MAX, bytes: limits::BATCH_BYTES_MAX };
        self.forget_times().await?;
        loop {
            if self.parts.stop.is_cancelled() {
                return Ok(self.parts.session.flush().await?);
            }
            if let Some(hash) = self.moved.pop_first() {
                self.judge_again(hash).await?;
                continue;
            }
            let now_ns = self.parts.engine.trusted_now_ns();
            let pause = self.next_ns().map(|due_ns| Duration::from_nanos(due_ns.saturating_sub(now_ns)));
            // Considers all transitions so far before anything expires.
            if pause == Some(Duration::ZERO) && !self.look_through(budget).await? {
                self.give_up(now_ns).await?;
                continue;
            }
            let pause = pause.map(|pause| pause.min(limits::DELAY_LOOK_EVERY));
            let (engine, place, looked) = (self.parts.engine.clone(), self.parts.own.place, self.looked);
            tokio::select! {
                biased;
                () = self.parts.stop.cancelled() => {}
                chunks = self.parts.session.read(budget) => self.take_in(&chunks?).await?,
                () = after(pause) => {}
                came = engine.wait_durable(place, looked), if self.book.count() > 0 => {
                    came.map_err(SessionError::from)?;
                    self.look_through(budget).await?;
                }
            }
        }
    }

    /// Stores newly held events.
    async fn take_in(&mut self, chunks: &[Chunk]) -> Result<(), LaneError> {
        let Some(last) = chunks.last() else { return Ok(()) };
        if self.book.count() == 0 {
            // read before their states, so that later transitions are searched
            self.looked = self.parts.engine.bounds(self.parts.own.place).unwrap_or_default().written;
        }
        let period = match self.parts.own.guard.as_ref().map(|guard| guard.plan.out_of_order) {
            Some(OutOfOrder::Hold(hold)) => hold.period,
            Some(OutOfOrder::Refuse | OutOfOrder::Divert) | None => Duration::ZERO,
        };
        let period_ns = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
        let mut writes = Vec::new();
        for held in chunks.iter().flat_map(Chunk::iter) {
            let (offset, due_ns) = (held.offset, held.trusted_time_ns.saturating_add(period_ns).min(HAS_SINCE - 1));
            let record = Record::parse(held.record).map_err(|error| Unreadable::new(offset, error))?;
            let key = key_hash(record.key);
            let value = HeldValue::encode(due_ns, held.append_time_ns, held.record);
            writes.push(LaneWrite::put(entry_key(&key, offset), value));
            let state = self.state_of(offset, held.record)?;
            self.book.put(HeldEvent { key, offset, due_ns, state });
            self.moved.insert(key);
        }
        // Before the position: once a reader sees the position, it sees the held events.
        self.tell();
        self.position = last.end_offset();
        let unit = Unit { consumed_to: self.position, writes, ..Unit::default() };
        Ok(self.parts.session.commit(unit).await?)
    }

    /// Searches new events of the topic for keys with held events. Whether there were any.
    async fn look_through(&mut self, budget: ReadBudget) -> Result<bool, LaneError> {
        let read = self.parts.engine.read(self.parts.own.place, self.looked, budget).await;
        let chunks = read.map_err(SessionError::from)?;
        for stored in chunks.iter().flat_map(|chunk| chunk.iter()) {
            let record = Record::parse(stored.record).map_err(|error| Unreadable::new(self.looked, error))?;
            let hash = key_hash(record.key);
            if self.book.has(&hash) {
                self.moved.insert(hash);
            }
        }
        if let Some(last) = chunks.last() {
            self.looked = last.end_offset();
        }
        Ok(!self.moved.is_empty() || !chunks.is_empty())
    }

    /// Appends the events of a key that are allowed now.
    async fn judge_again(&mut self, hash: KeyHash) -> Result<(), LaneError> {
        let mut most = limits::BATCH_EVENTS_MAX as usize;
        let all = BTreeSet::from(["".into()]);
        while self.book.has(&hash) && !self.parts.stop.is_cancelled() {
            let stored = self.parts.own.states.get(&hash)?;
            let lifecycle = self.parts.own.guard.as_ref().map(|guard| guard.plan.lifecycle.clone());
            let mut next = match &lifecycle {
                Some(lifecycle) => may_follow(lifecycle, stored.as_deref(), self.parts.engine.trusted_now_ns()),
                None => Some(&all),
            };
            let mut unit = Unit { consumed_to: self.position, ..Unit::default() };
            let mut gone: Vec<HeldEvent> = Vec::new();
            while let Some(may) = next.filter(|_| gone.len() < most) {
                let Some(held) = self.book.take_first(&hash, may) else { break };
                let record = self.record_of(&held)?;
                if !gone.is_empty() && unit.emits.bytes() + record.len() > limits::BATCH_BYTES_MAX {
                    self.book.put(held);
                    break;
                }
                let key = Record::parse(&record).map_err(|error| Unreadable::new(held.offset, error))?.key;
                let slice = put(&mut unit.emits, self.parts.own.place, &record);
                if let Some((lifecycle, state)) = lifecycle.as_ref().zip(held.state.as_ref()) {
                    unit.emits.guard_last(slice, Guard::new(key, state.clone(), gone.len() as u32));
                    next = lifecycle.follows(state);
                }
                unit.writes.push(LaneWrite::delete(entry_key(&hash, held.offset)));
                gone.push(held);
            }
            if gone.is_empty() {
                break;
            }
            unit.emits.release(self.parts.own.place, gone.len() as u32);
            match self.parts.session.commit(unit).await {
                Ok(()) => self.went().await?,
                // The state has changed in the meantime: the search finds that event and judges the key again.
                Err(SessionError::Guard(refused)) if refused.is_for_its_event() => {
                    gone.into_iter().for_each(|held| self.book.put(held));
                    most = refused.of as usize;
                    if most == 0 {
                        break;
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The record of a held event.
    fn record_of(&self, held: &HeldEvent) -> Result<Bytes, LaneError> {
        let value = self.parts.entries.get(&entry_key(&held.key, held.offset))?;
        Ok(value.as_ref().and_then(HeldValue::parse).map(|held| held.record).unwrap_or_default())
    }

    /// Moves expired events to the refused topic.
    async fn give_up(&mut self, now_ns: u64) -> Result<(), LaneError> {
        let (mut unit, mut count) = (Unit { consumed_to: self.position, ..Unit::default() }, 0);
        let refused = self.parts.own.guard.as_ref().map(|guard| guard.refused);
        while let Some(refused) = refused.filter(|_| count < limits::BATCH_EVENTS_MAX) {
            let Some(held) = self.book.take_late(now_ns) else { break };
            let record = self.record_of(&held)?;
            if count > 0 && unit.emits.bytes() + record.len() > limits::BATCH_BYTES_MAX {
                self.book.put(held);
                break;
            }
            let why = "its state could not follow that of its key for as long as it was held";
            refuse(&mut unit.emits, refused, &record, why).map_err(|error| Unreadable::new(held.offset, error))?;
            unit.writes.push(LaneWrite::delete(entry_key(&held.key, held.offset)));
            count += 1;
        }
        unit.emits.release(self.parts.own.place, count);
        self.parts.session.commit(unit).await?;
        self.went().await
    }

    /// Lowers the count only after the events are in their topic.
    async fn went(&mut self) -> Result<(), LaneError> {
        self.parts.session.flush().await?;
        self.tell();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_an_event_is_a_promise_also_of_those_of_earlier_versions() {
        let value = HeldValue::encode(0x0203, 0x0405, b"record");
        let head: String = value[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((head.as_str(), &value[16..]), ("03020000000000800504000000000000", &b"record"[..]));
        let record = Bytes::from_static(b"record");
        let held = |since_ns| HeldValue { due_ns: 0x0203, since_ns, record: record.clone() };
        assert_eq!(HeldValue::parse(&value.into()), Some(held(Some(0x0405))));
        let before = [0x0203_u64.to_le_bytes().as_slice(), b"record"].concat();
        assert_eq!(HeldValue::parse(&before.into()), Some(held(None)));
    }
}
