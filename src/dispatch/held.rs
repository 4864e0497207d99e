//! Events whose state may not follow that of their key now: held until it may, or for as long as their topic says.
//!
//! ```text
//!   publish, outputs ── the guard ──> `T`
//!                           │          │ their keys: those of which something is held are judged again
//!                           v          v
//!                       `T@held` ──> entries by key and arrival ── may follow ──> `T`
//!                       a hidden     and by when they are given up ── too late ──> `T@refused`
//!                       topic
//! ```
//!
//! The guard puts such an event into the hidden topic `T@held`, in the partition that it would have in `T`, where the place
//! of its key is. It has its place in `T` only when it may follow: as if it had been published then.
//!
//! Promises: each event goes to `T` or to `T@refused`, once, however often the bus is killed meanwhile. Of a key, the first
//! one goes that may follow, then again the first that may. One that may follow when it is published does not wait for those.
//! How many are held is bounded by the guard (`model/guard.rs`), which is told of each that goes.
//! Relies on: the engine's units, as any lane; that only events of a topic change the states of its keys.
//! Memory: the hashes of keys of which something is held.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::batch::Unreadable;
use super::command::Command;
use super::delay::{after, put, refuse};
use super::entries::{HELD, HELD_UNTIL, end_of};
use super::guards;
use super::lane::LaneError;
use super::supervisor::{Supervised, SupervisedParts};
use crate::engine::{Engine, Entries, Guard, LaneWrite, PageBudget, ReadBudget, Session, SessionError, Unit};
use crate::limits;
use crate::model::guard::{in_order, key_hash};
use crate::model::{Chunk, Offset, PartitionId, Record, TopicId};
use crate::topology::{LifecyclePlan, OutOfOrder};

/// What is behind the name of a topic in that of its hidden topic. No name in a topology has it.
pub(super) const SUFFIX: &str = "@held";

/// Entries that are looked at together.
const PAGE: PageBudget = PageBudget { entries: limits::BATCH_EVENTS_MAX as usize, bytes: limits::BATCH_BYTES_MAX };

/// The hash of a key.
type KeyHash = [u8; 16];

/// What is seen of the events that a topic holds.
#[derive(Debug)]
pub(super) struct Holding {
    /// By partition, how many, and when the first one is given up; `u64::MAX`: none.
    partitions: Vec<(AtomicU64, AtomicU64)>,
}

impl Holding {
    pub(super) fn new(partitions: u32) -> Self {
        Self { partitions: (0..partitions).map(|_| (AtomicU64::new(0), AtomicU64::new(u64::MAX))).collect() }
    }

    /// How many are held.
    pub(super) fn count(&self) -> u64 {
        self.partitions.iter().map(|(count, _)| count.load(Ordering::Acquire)).sum()
    }

    /// When the first one is given up, engine time.
    pub(super) fn next_ns(&self) -> Option<u64> {
        let next = self.partitions.iter().map(|(_, next)| next.load(Ordering::Acquire)).min();
        next.filter(|next_ns| *next_ns != u64::MAX)
    }

    fn set_count(&self, partition: u32, count: u64) {
        if let Some((of, _)) = self.partitions.get(partition as usize) {
            of.store(count, Ordering::Release);
        }
    }

    fn set_next(&self, partition: u32, next_ns: Option<u64>) {
        if let Some((_, of)) = self.partitions.get(partition as usize) {
            of.store(next_ns.unwrap_or(u64::MAX), Ordering::Release);
        }
    }
}

/// What a lane is made of.
pub(super) struct Parts<E: Engine> {
    pub(super) engine: E,
    pub(super) session: E::Session,
    /// What it keeps.
    pub(super) entries: E::Entries,
    /// What the partition keeps of its keys' states.
    pub(super) states: E::Entries,
    /// What the topic is called.
    pub(super) name: String,
    /// The partition of the topic.
    pub(super) partition: PartitionId,
    pub(super) lifecycle: LifecyclePlan,
    /// What takes those that are given up.
    pub(super) refused: TopicId,
    pub(super) seen: Arc<Holding>,
    pub(super) stop: CancellationToken,
}

/// Who holds the events of a partition.
pub(super) struct HeldLane<E: Engine> {
    parts: Box<Parts<E>>,
    position: Offset,
    /// How many events of each key are held.
    keys: BTreeMap<KeyHash, u32>,
    /// Those that are to be judged again.
    moved: BTreeSet<KeyHash>,
    /// Up to where the topic's partition was looked through for keys, as long as anything is held.
    looked: Offset,
    /// When the first one is given up.
    next_ns: Option<u64>,
}

fn by_key(hash: &KeyHash, offset: Offset) -> Vec<u8> {
    [&[HELD], hash.as_slice(), &offset.to_be_bytes()].concat()
}

fn by_time(due_ns: u64, hash: &KeyHash, offset: Offset) -> Vec<u8> {
    [&[HELD_UNTIL], due_ns.to_be_bytes().as_slice(), hash, &offset.to_be_bytes()].concat()
}

/// When it is given up, its key and its offset.
fn parse_by_time(key: &[u8]) -> Option<(u64, KeyHash, Offset)> {
    let (due_ns, rest) = key.strip_prefix(&[HELD_UNTIL])?.split_first_chunk()?;
    let (hash, offset) = rest.split_first_chunk()?;
    Some((u64::from_be_bytes(*due_ns), *hash, Offset::from_be_bytes(offset.try_into().ok()?)))
}

/// What is held of an event: when it is given up, and its record.
fn parse_held(value: &Bytes) -> Option<(u64, Bytes)> {
    let (due_ns, _) = value.split_first_chunk()?;
    Some((u64::from_le_bytes(*due_ns), value.slice(size_of::<u64>()..)))
}

/// An event that is held, with the state that it brings.
struct Waiting {
    offset: Offset,
    state: Arc<str>,
}

impl<E: Engine> Supervised for HeldLane<E> {
    type Parts = Parts<E>;

    fn load(parts: Box<Parts<E>>) -> Result<Self, (LaneError, Box<Parts<E>>)> {
        let position = parts.session.next_offset();
        let (keys, moved) = (BTreeMap::new(), BTreeSet::new());
        let mut lane = Self { parts, position, keys, moved, looked: 0, next_ns: None };
        match lane.read() {
            Ok(()) => Ok(lane),
            Err(error) => Err((error, lane.parts)),
        }
    }

    async fn run(mut self, _: Option<Command>) -> (LaneError, Box<Parts<E>>) {
        let ended = self.work().await.map_or_else(|error| error, |()| LaneError::Stopped);
        (ended, self.parts)
    }
}

impl<E: Engine> SupervisedParts for Parts<E> {
    type Session = E::Session;

    fn set_session(&mut self, session: E::Session) {
        self.session = session;
    }

    fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Nobody tells it anything.
    fn told(&mut self) -> impl Future<Output = Command> + Send {
        std::future::pending()
    }

    fn log(&self, error: &LaneError, is_over: bool) {
        let (topic, partition) = (&self.name, self.partition.partition);
        match is_over {
            true => tracing::error!(topic, partition, %error, "what is held is not judged again"),
            false => tracing::error!(topic, partition, %error, "what is held is not judged again; that is tried again"),
        }
    }

    fn show(&self, _: &LaneError, _: bool) {}
}

impl<E: Engine> HeldLane<E> {
    /// Reads what is kept of it: everything that it holds is judged again.
    fn read(&mut self) -> Result<(), LaneError> {
        self.looked = self.parts.engine.bounds(self.parts.partition).unwrap_or_default().written;
        let mut from = Bound::Included(vec![HELD_UNTIL]);
        loop {
            let from_ref = from.as_ref().map(Vec::as_slice);
            let found = self.parts.entries.range(from_ref, &end_of(HELD_UNTIL), PAGE)?.entries;
            let Some((last, _)) = found.last() else { break };
            from = Bound::Excluded(last.to_vec());
            for (_, hash, _) in found.iter().filter_map(|(key, _)| parse_by_time(key)) {
                *self.keys.entry(hash).or_default() += 1;
            }
        }
        self.moved = self.keys.keys().copied().collect();
        self.look()?;
        self.tell();
        Ok(())
    }

    fn count(&self) -> u64 {
        self.keys.values().copied().map(u64::from).sum()
    }

    fn tell(&self) {
        self.parts.seen.set_count(self.parts.partition.partition, self.count());
        self.parts.seen.set_next(self.parts.partition.partition, self.next_ns);
    }

    /// Finds out when the first one is given up.
    fn look(&mut self) -> Result<(), LaneError> {
        let first =
            self.parts.entries.range(Bound::Included(&[HELD_UNTIL]), &end_of(HELD_UNTIL), PageBudget::of(1))?.entries;
        self.next_ns = first.first().and_then(|(key, _)| parse_by_time(key)).map(|(due_ns, ..)| due_ns);
        Ok(())
    }

    /// Works until it is told to stop or cannot go on.
    async fn work(&mut self) -> Result<(), LaneError> {
        let budget = ReadBudget { events: limits::BATCH_EVENTS_MAX, bytes: limits::BATCH_BYTES_MAX };
        loop {
            if self.parts.stop.is_cancelled() {
                return Ok(self.parts.session.flush().await?);
            }
            if let Some(hash) = self.moved.pop_first() {
                self.judge_again(hash).await?;
                continue;
            }
            let now_ns = self.parts.engine.trusted_now_ns();
            let pause = self.next_ns.map(|due_ns| Duration::from_nanos(due_ns.saturating_sub(now_ns)));
            // What has changed by now is seen before anything is given up.
            if pause == Some(Duration::ZERO) && !self.look_through(budget).await? {
                self.give_up(now_ns).await?;
                continue;
            }
            let pause = pause.map(|pause| pause.min(limits::DELAY_LOOK_EVERY));
            let (engine, partition, looked) = (self.parts.engine.clone(), self.parts.partition, self.looked);
            tokio::select! {
                biased;
                () = self.parts.stop.cancelled() => {}
                chunks = self.parts.session.read(budget) => self.take_in(&chunks?).await?,
                () = after(pause) => {}
                came = engine.wait_durable(partition, looked), if !self.keys.is_empty() => {
                    came.map_err(SessionError::from)?;
                    self.look_through(budget).await?;
                }
            }
        }
    }

    /// Takes in events that were put aside.
    async fn take_in(&mut self, chunks: &[Chunk]) -> Result<(), LaneError> {
        let Some(last) = chunks.last() else { return Ok(()) };
        if self.keys.is_empty() {
            // before their states are looked at: what comes later is looked through
            self.looked = self.parts.engine.bounds(self.parts.partition).unwrap_or_default().written;
        }
        let mut writes = Vec::new();
        for held in chunks.iter().flat_map(Chunk::iter) {
            let record = Record::parse(held.record).map_err(|error| Unreadable::new(held.offset, error))?;
            let hash = key_hash(record.key);
            let period = match self.parts.lifecycle.out_of_order {
                OutOfOrder::Hold(hold) => hold.period,
                OutOfOrder::Refuse | OutOfOrder::Divert => Duration::ZERO,
            };
            let period_ns = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
            let due_ns = held.trusted_time_ns.saturating_add(period_ns);
            self.next_ns = Some(self.next_ns.map_or(due_ns, |next_ns| next_ns.min(due_ns)));
            let value = [due_ns.to_le_bytes().as_slice(), held.record].concat();
            writes.push(LaneWrite::put(by_key(&hash, held.offset), value));
            writes.push(LaneWrite::put(by_time(due_ns, &hash, held.offset), Vec::new()));
            *self.keys.entry(hash).or_default() += 1;
            self.moved.insert(hash);
        }
        // Before the position: whoever sees that all was read sees that something is held.
        self.tell();
        self.position = last.end_offset();
        let unit = Unit { consumed_to: self.position, writes, ..Unit::default() };
        Ok(self.parts.session.commit(unit).await?)
    }

    /// Looks which keys that something is held of have come by in the topic. Whether any has.
    async fn look_through(&mut self, budget: ReadBudget) -> Result<bool, LaneError> {
        let read = self.parts.engine.read(self.parts.partition, self.looked, budget).await;
        let chunks = read.map_err(SessionError::from)?;
        for stored in chunks.iter().flat_map(|chunk| chunk.iter()) {
            let record = Record::parse(stored.record).map_err(|error| Unreadable::new(self.looked, error))?;
            let hash = key_hash(record.key);
            if self.keys.contains_key(&hash) {
                self.moved.insert(hash);
            }
        }
        if let Some(last) = chunks.last() {
            self.looked = last.end_offset();
        }
        Ok(!self.moved.is_empty() || !chunks.is_empty())
    }

    /// What is held of a key, in the order in which it came, as far as the lifecycle knows its states.
    fn waiting(&self, hash: &KeyHash) -> Result<Vec<Waiting>, LaneError> {
        let (mut from, until) = (Bound::Included(by_key(hash, 0)), by_key(hash, Offset::MAX));
        let mut waiting = Vec::new();
        loop {
            let from_ref = from.as_ref().map(Vec::as_slice);
            let found = self.parts.entries.range(from_ref, &until, PAGE)?.entries;
            let Some((last, _)) = found.last() else { return Ok(waiting) };
            from = Bound::Excluded(last.to_vec());
            for (key, value) in &found {
                let offset = key.last_chunk().map_or(0, |offset| Offset::from_be_bytes(*offset));
                let Some((_, record)) = parse_held(value) else { continue };
                let parse = || {
                    let record = Record::parse(&record)?;
                    Ok((record.key, record.view()?))
                };
                let (key, view) = parse().map_err(|error| Unreadable::new(offset, error))?;
                if let Ok(state) = guards::state_of(&self.parts.lifecycle, &view, Some(key)) {
                    waiting.push(Waiting { offset, state });
                }
            }
        }
    }

    /// Gives those events of a key their places that may follow now.
    async fn judge_again(&mut self, hash: KeyHash) -> Result<(), LaneError> {
        let mut most = limits::BATCH_EVENTS_MAX as usize;
        while self.keys.contains_key(&hash) && !self.parts.stop.is_cancelled() {
            let stored = self.parts.states.get(&hash)?;
            let waiting = self.waiting(&hash)?;
            let (lifecycle, now_ns) = (&self.parts.lifecycle.lifecycle, self.parts.engine.trusted_now_ns());
            let states = waiting.iter().map(|waiting| waiting.state.as_ref());
            let order = in_order(lifecycle, stored.as_deref(), states, now_ns);
            let mut unit = Unit { consumed_to: self.position, ..Unit::default() };
            let mut gone = 0;
            for Waiting { offset, state } in order.into_iter().filter_map(|at| waiting.get(at)).take(most) {
                let Some((due_ns, record)) =
                    self.parts.entries.get(&by_key(&hash, *offset))?.as_ref().and_then(parse_held)
                else {
                    break;
                };
                if gone > 0 && unit.emits.bytes() + record.len() > limits::BATCH_BYTES_MAX {
                    break;
                }
                let key = Record::parse(&record).map_err(|error| Unreadable::new(*offset, error))?.key;
                let slice = put(&mut unit.emits, self.parts.partition, &record);
                unit.emits.guard_last(slice, Guard::new(key, state.clone(), gone));
                unit.writes.push(LaneWrite::delete(by_key(&hash, *offset)));
                unit.writes.push(LaneWrite::delete(by_time(due_ns, &hash, *offset)));
                gone += 1;
            }
            if gone == 0 {
                break;
            }
            unit.emits.release(self.parts.partition, gone);
            match self.parts.session.commit(unit).await {
                Ok(()) => self.went(&[(hash, gone)]).await?,
                // Its state has changed just now: that event is seen, and looked at then.
                Err(SessionError::Guard(refused)) if refused.is_for_its_event() && refused.of == 0 => break,
                Err(SessionError::Guard(refused)) if refused.is_for_its_event() => most = refused.of as usize,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Gives up what has been held for as long as it may.
    async fn give_up(&mut self, now_ns: u64) -> Result<(), LaneError> {
        let until = by_time(now_ns.saturating_add(1), &[0; 16], 0);
        let late = self.parts.entries.range(Bound::Included(&[HELD_UNTIL]), &until, PAGE)?.entries;
        let (mut unit, mut gone) = (Unit { consumed_to: self.position, ..Unit::default() }, Vec::new());
        for (key, _) in &late {
            let Some((_, hash, offset)) = parse_by_time(key) else { continue };
            let held = self.parts.entries.get(&by_key(&hash, offset))?;
            let Some((_, record)) = held.as_ref().and_then(parse_held) else { continue };
            if !gone.is_empty() && unit.emits.bytes() + record.len() > limits::BATCH_BYTES_MAX {
                break;
            }
            let why = "its state could not follow that of its key for as long as it was held";
            refuse(&mut unit.emits, self.parts.refused, &record, why)
                .map_err(|error| Unreadable::new(offset, error))?;
            unit.writes.push(LaneWrite::delete(by_key(&hash, offset)));
            unit.writes.push(LaneWrite::delete(key.clone()));
            gone.push((hash, 1));
        }
        unit.emits.release(self.parts.partition, gone.len() as u32);
        self.parts.session.commit(unit).await?;
        self.went(&gone).await
    }

    /// So many events of keys are held no longer.
    async fn went(&mut self, gone: &[(KeyHash, u32)]) -> Result<(), LaneError> {
        for (hash, gone) in gone {
            if let Some(held) = self.keys.get_mut(hash) {
                *held = held.saturating_sub(*gone);
                if *held == 0 {
                    self.keys.remove(hash);
                }
            }
        }
        // What is counted no longer is in its topic.
        self.parts.session.flush().await?;
        self.look()?;
        self.tell();
        Ok(())
    }
}
