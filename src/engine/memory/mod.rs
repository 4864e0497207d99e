//! An engine in memory: the reference model of the conformance suite, and a fast replacement in tests.
//!
//! Everything is written and durable at once, and nothing expires. Memory grows with the appended events. Its time
//! begins at zero and follows tokio's clock, so a test can stop it.

mod lane;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::catalogue::Catalogue;
use super::{
    AppendError, AppendReceipt, ApplyError, Blueprint, Capabilities, CatalogueTopic, Chunk, Engine, Health, Hold,
    LaneWrite, Numbers, ReadBudget, ReadError, Retention, RetentionBounds, SessionError, Slices, StopReason, TimeOf,
};
use crate::api::{Bounds, Storage};
use crate::effects::{Disk, MemoryDisk};
use crate::limits;
use crate::model::{
    DivertedRecord, Duplicate, EventId, Fence, Guard, GuardJudge, GuardRefusal, GuardStates, LaneId, Lifecycle, Offset,
    PartitionId, ProducerId, SubscriberId, TopicId, TopicSettings, VersionId, keeper_of,
};
pub use lane::{MemoryEntries, MemorySession};

/// The engine. Cheap to clone.
#[derive(Clone)]
pub struct MemoryEngine {
    shared: Arc<MemoryInner>,
}

struct MemoryInner {
    state: Mutex<State>,
    /// Notified when events are appended or the engine closes.
    changed: Notify,
    health: watch::Sender<Health>,
    began: Instant,
    snapshots: Arc<MemoryDisk>,
    entries_read: AtomicU64,
}

#[derive(Default)]
struct State {
    catalogue: Catalogue,
    partitions: HashMap<PartitionId, Vec<Chunk>>,
    lanes: HashMap<LaneId, Lane>,
    clock_ns: u64,
    /// The clock moves only through [`MemoryEngine::hold_clock`].
    is_clock_held: bool,
    settings: HashMap<TopicId, TopicSettings>,
    lifecycles: HashMap<TopicId, Arc<Lifecycle>>,
    /// Published identities, by topic. Windows are limited by count only, not by time.
    recognised: HashMap<TopicId, PublishedIdentities>,
    /// The last number of each producer in each partition, and its offset.
    producers: Sequences,
}

type Sequences = HashMap<(PartitionId, ProducerId), (u64, Offset)>;

/// The identities of one topic.
#[derive(Clone, Default)]
struct PublishedIdentities {
    places: HashMap<EventId, (u32, Offset)>,
    /// Oldest first.
    order: VecDeque<EventId>,
}

#[derive(Default)]
struct Lane {
    position: Offset,
    entries: BTreeMap<Bytes, Bytes>,
    /// Number of times that it was acquired: a session with an older number is fenced.
    owner: u64,
}

impl Default for MemoryEngine {
    fn default() -> Self {
        let (health, _) = watch::channel(Health::Serving);
        let (state, changed, began) = (Mutex::default(), Notify::new(), Instant::now());
        let (snapshots, entries_read) = (Arc::new(MemoryDisk::default()), AtomicU64::new(0));
        Self { shared: Arc::new(MemoryInner { state, changed, health, began, snapshots, entries_read }) }
    }
}

impl MemoryEngine {
    /// The disk for snapshots.
    pub fn snapshot_disk(&self) -> MemoryDisk {
        MemoryDisk::clone(&self.shared.snapshots)
    }

    /// Stops the clock at this time, Unix nanoseconds, until the next call: all appends get this time. Time never goes
    /// back.
    pub fn hold_clock(&self, time_ns: u64) {
        let mut state = self.shared.state();
        state.clock_ns = state.clock_ns.max(time_ns);
        state.is_clock_held = true;
    }

    /// Number of reads of lanes' entries, including reads of missing keys.
    pub fn entries_read(&self) -> u64 {
        self.shared.entries_read.load(Ordering::Relaxed)
    }
}

impl State {
    /// Deletes all data of a topic.
    fn forget(&mut self, topic: TopicId, subscribers: &[SubscriberId]) {
        self.partitions.retain(|partition, _| partition.topic != topic);
        let keeper = keeper_of(PartitionId { topic, partition: 0 }).subscriber;
        self.lanes.retain(|lane, _| lane.subscriber != keeper && !subscribers.contains(&lane.subscriber));
        self.settings.remove(&topic);
        self.lifecycles.remove(&topic);
        self.recognised.remove(&topic);
        self.producers.retain(|(partition, _), _| partition.topic != topic);
    }

    fn end(&self, partition: PartitionId) -> Option<Offset> {
        Some(self.partitions.get(&partition)?.last().map_or(0, Chunk::end_offset))
    }

    /// The first target of these records that does not exist.
    fn unknown_target(&self, records: &Slices) -> Option<PartitionId> {
        records.partitions().find(|to| !self.partitions.contains_key(to))
    }

    /// Finds duplicates and records the other identities.
    fn judge(&mut self, events: &Slices) -> Vec<Duplicate> {
        let mut duplicates = Vec::new();
        for (slice, records) in (0..).zip(events.iter()) {
            let id = records.partition;
            let mut offset = self.end(id).unwrap_or(0);
            // records that were set aside are known in their other topic
            let elsewhere: Vec<_> = records.guards.first().into_iter().flat_map(Guard::elsewhere).collect();
            let dedupe = self.settings.get(&id.topic).and_then(|settings| settings.dedupe);
            let recognised = self.recognised.entry(id.topic).or_default();
            while let Some(dedupe) = dedupe
                && dedupe.count.is_some_and(|count| recognised.order.len() > count as usize)
                && let Some(oldest) = recognised.order.pop_front()
            {
                recognised.places.remove(&oldest);
            }
            for record in 0..records.count {
                let first = if let Some(producer) = events.producer() {
                    let sequence = records.sequences.get(record as usize).copied().unwrap_or(0);
                    let mut reached = elsewhere.iter().filter_map(|aside| self.producers.get(&(*aside, producer)));
                    let is_aside = reached.any(|(reached, _)| sequence <= *reached);
                    match self.producers.get(&(id, producer)) {
                        Some((last, at)) if sequence <= *last => {
                            Some((id.partition, (sequence == *last).then_some(*at)))
                        }
                        _ if is_aside => Some((id.partition, None)),
                        _ => {
                            self.producers.insert((id, producer), (sequence, offset));
                            None
                        }
                    }
                } else {
                    let identity = records.identities.get(record as usize).filter(|_| dedupe.is_some());
                    let aside = elsewhere.iter().map(|aside| aside.topic).chain(records.known_in);
                    let mut recognised_aside = aside.filter_map(|aside| self.recognised.get(&aside));
                    let is_aside = identity
                        .is_some_and(|identity| recognised_aside.any(|aside| aside.places.contains_key(identity)));
                    let recognised = self.recognised.entry(id.topic).or_default();
                    identity.and_then(|identity| {
                        if is_aside {
                            return Some((id.partition, None));
                        }
                        let known = recognised.places.get(identity).copied();
                        if known.is_none() {
                            recognised.places.insert(*identity, (id.partition, offset));
                            recognised.order.push_back(*identity);
                        }
                        known.map(|(partition, at)| (partition, Some(at)))
                    })
                };
                match first {
                    Some((partition, offset)) => {
                        duplicates.push(Duplicate { slice, record, partition, offset });
                    }
                    None => offset += 1,
                }
            }
        }
        duplicates
    }

    /// Judges guarded records that are no duplicates, and stores the changed entries. Returns the records to set aside.
    fn guard(
        &mut self,
        events: &Slices,
        duplicates: &mut Vec<Duplicate>,
        now_ns: u64,
    ) -> Result<Vec<DivertedRecord>, GuardRefusal> {
        if !events.is_guarded() {
            return Ok(Vec::new());
        }
        let mut judge = GuardJudge::new(&*self, now_ns);
        let (lifecycle_of, end) = (|topic| self.lifecycles.get(&topic), |id| self.end(id).unwrap_or(0));
        let aside = judge.judge_all(events, lifecycle_of, duplicates, end)?;
        for (partition, writes) in judge.writes() {
            let kept = &mut self.lanes.entry(keeper_of(partition)).or_default().entries;
            for LaneWrite { key, value } in writes {
                match value {
                    Some(value) => kept.insert(key, value),
                    None => kept.remove(&key),
                };
            }
        }
        Ok(aside)
    }

    /// Records identities again after some records were set aside, which changes offsets.
    fn note_again(&mut self, events: &Slices, before: (HashMap<TopicId, PublishedIdentities>, Sequences)) {
        (self.recognised, self.producers) = before;
        for slice in events.iter().filter(|slice| slice.count > 0) {
            let (id, base) = (slice.partition, self.end(slice.partition).unwrap_or(0));
            if self.settings.get(&id.topic).is_some_and(|settings| settings.dedupe.is_some()) {
                let recognised = self.recognised.entry(id.topic).or_default();
                for (identity, offset) in slice.identities.iter().zip(base..) {
                    recognised.places.insert(*identity, (id.partition, offset));
                    recognised.order.push_back(*identity);
                }
            }
            if let (Some(producer), Some(last)) = (events.producer(), slice.sequences.last()) {
                self.producers.insert((id, producer), (*last, base + Offset::from(slice.count) - 1));
            }
        }
    }

    fn append(&mut self, events: Slices, now_ns: u64) -> Vec<Offset> {
        if !self.is_clock_held {
            self.clock_ns = now_ns.max(self.clock_ns + 1);
        }
        let append_time_ns = self.clock_ns;
        let slices = events.iter();
        slices
            .map(|slice| {
                let base_offset = self.end(slice.partition).unwrap_or(0);
                if slice.count == 0 {
                    return base_offset; // all of it was published before
                }
                let records = Bytes::copy_from_slice(&slice.records);
                let (count, trusted_time_ns) = (slice.count, append_time_ns);
                let chunk = Chunk { base_offset, count, append_time_ns, trusted_time_ns, epoch: 1, records };
                self.partitions.entry(slice.partition).or_default().push(chunk);
                base_offset
            })
            .collect()
    }

    fn read(&self, partition: PartitionId, from: Offset, mut budget: ReadBudget) -> Option<Vec<Chunk>> {
        let chunks = self.partitions.get(&partition)?;
        budget.events = budget.events.max(1);
        let first = chunks.partition_point(|chunk| chunk.end_offset() <= from);
        let mut read: Vec<Chunk> = Vec::new();
        for chunk in chunks.iter().skip(first) {
            if budget.events == 0 || (budget.bytes == 0 && !read.is_empty()) {
                break;
            }
            let mut chunk = chunk.clone().starting_at(from);
            let front = chunk.split_front(budget.events, budget.bytes);
            if !read.is_empty() && front.records.len() > budget.bytes {
                break;
            }
            budget.events -= front.count;
            budget.bytes = budget.bytes.saturating_sub(front.records.len());
            read.push(front);
            if chunk.count > 0 {
                break;
            }
        }
        Some(read)
    }
}

impl GuardStates for State {
    fn get(&self, partition: PartitionId, key: &[u8]) -> Result<Option<Bytes>, Arc<str>> {
        Ok(self.lanes.get(&keeper_of(partition)).and_then(|kept| kept.entries.get(key)).cloned())
    }
}

impl MemoryInner {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is completed under the lock, so a panic elsewhere leaves no partial change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ns(&self) -> u64 {
        let state = self.state();
        if state.is_clock_held {
            return state.clock_ns;
        }
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn serving(&self) -> Result<(), StopReason> {
        match &*self.health.borrow() {
            Health::Serving => Ok(()),
            Health::Stopped(stopped) => Err(stopped.clone()),
        }
    }

    /// Resolves with the first `Some` of `look`, which is called again after each change.
    async fn wait<T>(&self, mut look: impl FnMut(&State) -> Option<T>) -> Result<T, StopReason> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable(); // before the check: a change between the two would be missed
            self.serving()?;
            if let Some(found) = look(&self.state()) {
                return Ok(found);
            }
            changed.await;
        }
    }
}

impl Engine for MemoryEngine {
    type Session = MemorySession;
    type Entries = MemoryEntries;

    fn capabilities(&self) -> Capabilities {
        Capabilities { atomic_across_partitions: true, unit_bytes_max: limits::UNIT_BYTES_MAX, durable: false }
    }

    async fn apply(&self, blueprint: &Blueprint) -> Result<Numbers, ApplyError> {
        self.shared.serving()?;
        let mut state = self.shared.state();
        let mut next = state.catalogue.clone();
        let (numbers, _) = next.apply(blueprint)?;
        for (topic, subscribers) in next.gone() {
            state.forget(topic, &subscribers);
        }
        state.catalogue = next;
        for (topic, number) in blueprint.topics.iter().zip(&numbers.topics) {
            for partition in 0..topic.partitions {
                state.partitions.entry(PartitionId { topic: *number, partition }).or_default();
            }
            state.settings.insert(*number, topic.settings);
            match &topic.lifecycle {
                Some(lifecycle) => drop(state.lifecycles.insert(*number, lifecycle.clone())),
                None => drop(state.lifecycles.remove(number)),
            }
        }
        Ok(numbers)
    }

    async fn append(&self, mut events: Slices) -> Result<AppendReceipt, AppendError> {
        self.shared.serving()?;
        if events.bytes() > limits::UNIT_BYTES_MAX {
            return Err(AppendError::TooLarge { bytes: events.bytes(), max: limits::UNIT_BYTES_MAX });
        }
        let now_ns = self.shared.now_ns();
        let (base_offsets, duplicates, aside) = {
            let mut state = self.shared.state();
            if let Some(unknown) = state.unknown_target(&events) {
                return Err(AppendError::UnknownPartition(unknown));
            }
            if events.fence().is_some_and(Fence::is_shut) {
                return Err(AppendError::Fenced);
            }
            // cloning is acceptable in a model
            let before = events.is_guarded().then(|| (state.recognised.clone(), state.producers.clone()));
            let mut duplicates = state.judge(&events);
            let judged = state.guard(&events, &mut duplicates, now_ns);
            let aside = match (judged, before) {
                (Ok(mut aside), before) => {
                    events.sort_out(&mut duplicates, &mut aside, |id| state.end(id).unwrap_or(0));
                    if let Some(before) = before.filter(|_| !aside.is_empty()) {
                        state.note_again(&events, before);
                    }
                    aside
                }
                (Err(refused), before) => {
                    if let Some(before) = before {
                        (state.recognised, state.producers) = before;
                    }
                    events.fence().into_iter().for_each(Fence::shut);
                    return Err(AppendError::Guard(refused));
                }
            };
            (state.append(events, now_ns), duplicates, aside)
        };
        self.shared.changed.notify_waiters();
        Ok(AppendReceipt { base_offsets, duplicates, aside, epoch: 1 })
    }

    async fn acquire(&self, lane: LaneId) -> Result<MemorySession, SessionError> {
        self.shared.serving()?;
        let mut state = self.shared.state();
        let partition = state.catalogue.input(lane).ok_or(ReadError::UnknownPartition)?;
        let entry = state.lanes.entry(lane).or_default();
        entry.owner += 1;
        let (owner, next_offset) = (entry.owner, entry.position);
        Ok(MemorySession { shared: self.shared.clone(), lane, partition, owner, next_offset })
    }

    async fn read(&self, partition: PartitionId, from: Offset, budget: ReadBudget) -> Result<Vec<Chunk>, ReadError> {
        self.shared.state().read(partition, from, budget).ok_or(ReadError::UnknownPartition)
    }

    async fn wait_durable(&self, partition: PartitionId, offset: Offset) -> Result<(), StopReason> {
        self.shared.wait(|state| (state.end(partition)? > offset).then_some(())).await
    }

    fn bounds(&self, partition: PartitionId) -> Option<Bounds> {
        let end = self.shared.state().end(partition)?;
        Some(Bounds { start: 0, written: end, durable: end })
    }

    fn beyond(&self, partition: PartitionId, retention: &Retention) -> Option<RetentionBounds> {
        let now_ns = self.shared.now_ns();
        let state = self.shared.state();
        let chunks = state.partitions.get(&partition)?;
        let mut bytes: u64 = chunks.iter().map(|chunk| chunk.records.len() as u64).sum();
        let mut is_beyond = |chunk: &Chunk| {
            let age_ns = now_ns.saturating_sub(chunk.trusted_time_ns);
            let is_old = retention.age.is_some_and(|age| u128::from(age_ns) > age.as_nanos());
            let is_much = retention.partition_bytes.is_some_and(|max| bytes > max);
            bytes -= chunk.records.len() as u64;
            is_old || is_much
        };
        let last = chunks.iter().take_while(|chunk| is_beyond(chunk)).last();
        let end = last.map_or(0, Chunk::end_offset);
        Some(RetentionBounds { surely: end, perhaps: end })
    }

    fn appended_per_minute(&self, partition: PartitionId) -> u64 {
        let since_ns = self.shared.now_ns().saturating_sub(60_000_000_000);
        let state = self.shared.state();
        let Some(chunks) = state.partitions.get(&partition) else { return 0 };
        let before = chunks.partition_point(|chunk| chunk.trusted_time_ns < since_ns);
        chunks.iter().skip(before).map(|chunk| u64::from(chunk.count)).sum()
    }

    fn time_of(&self, partition: PartitionId, offset: Offset) -> Option<TimeOf> {
        let state = self.shared.state();
        let chunks = state.partitions.get(&partition)?;
        let first = chunks.partition_point(|chunk| chunk.end_offset() <= offset);
        Some(TimeOf::At(chunks.get(first)?.trusted_time_ns))
    }

    fn read_time_of(&self, partition: PartitionId, offset: Offset) -> Result<Option<u64>, ReadError> {
        let time = self.time_of(partition, offset);
        Ok(time.map(|(TimeOf::At(time_ns) | TimeOf::NotBefore(time_ns))| time_ns))
    }

    fn hold(&self, partition: PartitionId) -> Option<Hold> {
        // nothing expires
        self.bounds(partition).map(|bounds| Hold { start: bounds.start, _held: None })
    }

    fn position(&self, lane: LaneId) -> Option<Offset> {
        let state = self.shared.state();
        state.catalogue.input(lane)?;
        Some(state.lanes.get(&lane).map_or(0, |lane| lane.position))
    }

    fn topics(&self) -> Vec<CatalogueTopic> {
        self.shared.state().catalogue.topics()
    }

    fn bytes(&self, partition: PartitionId) -> Option<u64> {
        let state = self.shared.state();
        Some(state.partitions.get(&partition)?.iter().map(|chunk| chunk.records.len() as u64).sum())
    }

    fn topic(&self, name: &str) -> Option<TopicId> {
        self.shared.state().catalogue.topic(name)
    }

    fn subscriber(&self, name: &str, from: TopicId) -> Option<SubscriberId> {
        self.shared.state().catalogue.subscriber(name, from)
    }

    fn digest(&self, version: VersionId) -> Option<[u8; 32]> {
        self.shared.state().catalogue.digest(version)
    }

    fn states(&self, partition: PartitionId) -> Option<MemoryEntries> {
        self.shared.state().end(partition)?;
        Some(MemoryEntries { shared: self.shared.clone(), lane: keeper_of(partition), frozen: None })
    }

    fn entries(&self, lane: LaneId) -> Option<MemoryEntries> {
        self.shared.state().catalogue.input(lane)?;
        Some(MemoryEntries { shared: self.shared.clone(), lane, frozen: None })
    }

    async fn offset_at_time(&self, partition: PartitionId, time_ns: u64) -> Result<Offset, ReadError> {
        let state = self.shared.state();
        let chunks = state.partitions.get(&partition).ok_or(ReadError::UnknownPartition)?;
        let first = chunks.iter().find(|chunk| chunk.append_time_ns >= time_ns);
        Ok(first.map_or_else(|| chunks.last().map_or(0, Chunk::end_offset), |chunk| chunk.base_offset))
    }

    fn now_ns(&self) -> u64 {
        self.shared.now_ns()
    }

    fn trusted_now_ns(&self) -> u64 {
        self.shared.now_ns() // always right
    }

    fn snapshots(&self) -> Option<Arc<dyn Disk>> {
        Some(self.shared.snapshots.clone())
    }

    fn storage(&self) -> Storage {
        Storage::default()
    }

    fn confirm_clock(&self) -> bool {
        false
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.shared.health.subscribe()
    }

    async fn close(&self) -> Result<(), StopReason> {
        self.shared.health.send_if_modified(|health| {
            let serving = *health == Health::Serving;
            *health = Health::Stopped(StopReason::Closed);
            serving
        });
        self.shared.changed.notify_waiters();
        Ok(())
    }
}
