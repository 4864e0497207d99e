//! The engine of a single machine: implements the trait with the journal of [`crate::log`].
//!
//! Promises: a unit is one journal frame; lanes read *written* events, outside readers *durable* ones. Relies on: the
//! log for order, durability and retention, `engine::catalogue` for numbers.

mod error;
mod folder;
pub mod offline;
mod session;

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::catalogue::{Catalogue, numbers_by_name};
use super::{
    AppendError, AppendReceipt, ApplyError, Blueprint, Capabilities, CatalogueTopic, Chunk, Engine, Health, Hold,
    Numbers, ReadBudget, ReadError, Retention, RetentionBounds, SessionError, Slices, StopReason, TimeOf,
    UnconsumedCounter,
};
use crate::api::{Bounds, MissingEvents, Room, Storage};
use crate::effects::{Clock, Disk, DiskFolder, SystemClock, random};
use crate::log::{
    AppendRefusal, ColdError, ColdReader, Condition, LaneEntries, Log, MissingSegment, RecentRead, RemovedTopic,
    Settings, SlicePlaces, SpaceLevel, SubmitError,
};
pub use crate::log::{Durability, LogOptions};
use crate::model::{LaneId, Offset, PartitionId, SubscriberId, TopicId, VersionId, keeper_of};
use crate::{effects, limits};
pub use error::EmbeddedError;
use folder::{Folder, LOG_FOLDER};
pub use session::EmbeddedSession;

/// The folder for snapshots of lanes' entries.
const SNAPSHOTS_FOLDER: &str = "snapshots";

/// What recovery found in the data folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovery {
    /// Number of accepted frames of the journal.
    pub frames: u64,
    /// Bytes at its end that were not completely written; nothing in them was acknowledged.
    pub void_bytes: u64,
    /// The epoch of this start.
    pub epoch: u32,
}

/// The engine. Cheap to clone.
#[derive(Clone)]
pub struct EmbeddedEngine {
    shared: Arc<EmbeddedInner>,
}

struct EmbeddedInner {
    log: Log,
    condition: watch::Receiver<Condition>,
    health: watch::Sender<Health>,
    durability: Durability,
    /// Replaced as a whole, so that lookups do not wait for each other.
    catalogue: RwLock<Arc<Catalogue>>,
    /// Topics that were already removed for good when the engine was opened.
    gone_before: BTreeSet<TopicId>,
    /// Held from the read of the catalogue until its new entries are durable: one blueprint at a time.
    applying: tokio::sync::Mutex<()>,
    recovery: Recovery,
    snapshots: Option<Arc<dyn Disk>>,
    /// The path of the log for messages.
    log_folder: PathBuf,
    /// Ends with the log.
    _watching: JoinHandle<()>,
    /// Locked as long as the engine exists.
    _lock: Option<File>,
}

impl EmbeddedEngine {
    /// Opens a data folder, or creates it. Blocks on the disk; starts a task on the current tokio runtime that watches
    /// the log's condition.
    ///
    /// # Errors
    /// [`EmbeddedError`]. A damaged journal is refused, never repaired by guessing.
    pub fn open(folder: &Path, durability: Durability) -> Result<Self, EmbeddedError> {
        Self::open_by(folder, durability, Arc::new(SystemClock))
    }

    /// As [`Self::open`], with a clock of the caller.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_by(folder: &Path, durability: Durability, clock: Arc<dyn Clock>) -> Result<Self, EmbeddedError> {
        let Folder { disk, lock } = Folder::take(folder)?;
        let path = folder.join(SNAPSHOTS_FOLDER);
        let snapshots = DiskFolder::create(&path).map_err(|error| EmbeddedError::Io {
            what: "create",
            path: path.clone(),
            error,
        })?;
        let options = LogOptions { durability, first_sequence: random() >> 1, ..LogOptions::default() };
        let kept = (Some(Arc::new(snapshots) as Arc<dyn Disk>), lock);
        Self::open_on(folder, disk, clock, options, kept)
    }

    /// Opens the engine on any disk and clock, such as simulated ones. Messages call the data folder `label`.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(
        label: &Path,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        options: LogOptions,
    ) -> Result<Self, EmbeddedError> {
        Self::open_on(label, disk, clock, options, (None, None))
    }

    fn open_on(
        folder: &Path,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        options: LogOptions,
        (snapshots, lock): (Option<Arc<dyn Disk>>, Option<File>),
    ) -> Result<Self, EmbeddedError> {
        let durability = options.durability;
        let folder = || folder.to_owned();
        let (log, replay) =
            Log::open(disk, clock, options).map_err(|error| EmbeddedError::Log { folder: folder(), error })?;
        let catalogue = Catalogue::replay(&replay.catalogue)
            .map_err(|error| EmbeddedError::Catalogue { folder: folder(), error })?;
        let recovery = Recovery { frames: replay.frames, void_bytes: replay.void_bytes, epoch: log.epoch() };
        let condition = log.condition();
        let health = watch::Sender::new(Health::Serving);
        let (mut changes, sender) = (condition.clone(), health.clone());
        let watching = effects::task(async move {
            while changes.changed().await.is_ok() {
                if let Some(stopped) = stopped(&changes.borrow_and_update()) {
                    sender.send_replace(Health::Stopped(stopped));
                    return;
                }
            }
        });
        Ok(Self {
            shared: Arc::new(EmbeddedInner {
                log,
                condition,
                health,
                durability,
                gone_before: catalogue.gone().into_keys().collect(),
                catalogue: RwLock::new(Arc::new(catalogue)),
                applying: tokio::sync::Mutex::new(()),
                recovery,
                snapshots,
                log_folder: folder().join(LOG_FOLDER),
                _watching: watching,
                _lock: lock,
            }),
        })
        .inspect(Self::tell_missing)
    }

    /// Logs which files are missing or truncated, and what to do. All other events are served: refusing to start would
    /// not restore them.
    fn tell_missing(&self) {
        for MissingEvents { file, topic, partition, first_offset, last_offset, is_truncated } in self.shared.missing() {
            let what = if is_truncated { "truncated" } else { "missing" };
            tracing::error!(
                file,
                topic,
                partition,
                first_offset,
                last_offset,
                "a file of events is {what}: stop the bus and put it back; all other events are served. If it is \
                 lost, `wattle seek SUBSCRIBER --to {} --partition {partition}` moves a subscriber past it",
                last_offset + 1
            );
        }
    }

    /// What recovery found in the data folder.
    pub fn recovery(&self) -> Recovery {
        self.shared.recovery
    }
}

fn stopped(condition: &Condition) -> Option<StopReason> {
    match condition {
        Condition::Working => None,
        Condition::Closed => Some(StopReason::Closed),
        Condition::Poisoned(reason) => Some(StopReason::Poisoned(reason.clone())),
    }
}

impl EmbeddedInner {
    fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn has_stopped(&self) -> Option<StopReason> {
        stopped(&self.condition.borrow())
    }

    /// Events whose file is missing or truncated.
    fn missing(&self) -> Vec<MissingEvents> {
        let missing = self.log.missing();
        if missing.is_empty() {
            return Vec::new();
        }
        let topics: HashMap<TopicId, String> =
            self.catalogue().topics().into_iter().map(|topic| (topic.number, topic.name)).collect();
        let named = |MissingSegment { file, partition, base_offset, end_offset, is_truncated }| MissingEvents {
            file: self.log_folder.join(file).display().to_string(),
            topic: topics.get(&partition.topic).cloned().unwrap_or_else(|| partition.topic.to_string()),
            partition: partition.partition,
            first_offset: base_offset,
            last_offset: end_offset.saturating_sub(1),
            is_truncated,
        };
        missing.into_iter().map(named).collect()
    }

    /// The reason why a submission was refused or its ticket closed: waits for the log to report it.
    async fn stopped(&self) -> StopReason {
        let mut condition = self.condition.clone();
        let changed = condition.wait_for(|condition| *condition != Condition::Working).await;
        changed.ok().and_then(|condition| stopped(&condition)).unwrap_or(StopReason::Closed)
    }

    /// The first target of these records that does not exist.
    fn unknown_target(&self, records: &Slices) -> Option<PartitionId> {
        let catalogue = self.catalogue();
        records.partitions().find(|to| !catalogue.has(*to))
    }

    async fn apply(&self, blueprint: &Blueprint) -> Result<Numbers, ApplyError> {
        let _one_at_a_time = self.applying.lock().await;
        if let Some(stopped) = self.has_stopped() {
            return Err(stopped.into());
        }
        let mut next = Catalogue::clone(&self.catalogue());
        let (numbers, entry) = next.apply(blueprint)?;
        if let Some(entry) = entry
            && self.log.catalogue(entry).await.is_err()
        {
            return Err(self.stopped().await.into());
        }
        let gone = next.gone().into_iter().map(|(topic, readers)| {
            let is_closed = self.gone_before.contains(&topic);
            (topic, RemovedTopic { readers, is_closed })
        });
        let settings = Settings { gone: gone.collect(), ..settings(blueprint, &numbers) };
        *self.catalogue.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        self.log.configure(settings);
        Ok(numbers)
    }

    /// Events between `from` and `end` of a partition, from memory or the disk, or later ones if those have expired;
    /// empty only if there are none.
    async fn read(
        &self,
        cold: &mut Option<ColdReader>,
        id: PartitionId,
        from: Offset,
        end: Offset,
        budget: ReadBudget,
    ) -> Result<Vec<Chunk>, ReadError> {
        let partition = self.log.partition(id);
        loop {
            let start = partition.start();
            let from = from.max(start);
            match partition.recent(from, end, budget.events, budget.bytes) {
                RecentRead::Chunks(chunks) => {
                    *cold = None; // frees its window, which a lane that has caught up does not need
                    return Ok(chunks);
                }
                RecentRead::AtEnd => return Ok(Vec::new()),
                RecentRead::Cold => {
                    let mut reader = cold.take().unwrap_or_else(|| self.log.cold_reader());
                    let read = tokio::task::spawn_blocking(move || {
                        let chunks = reader.read(id, from, end, budget.events, budget.bytes);
                        (reader, chunks)
                    });
                    let (reader, chunks) = read.await.map_err(|error| ReadError::Storage(error.to_string().into()))?;
                    *cold = Some(reader);
                    match chunks {
                        // they expired between the check and the read
                        Ok(chunks) if chunks.is_empty() && partition.start() > start => {}
                        Err(_) if partition.start() > start => {}
                        Err(error) if error.is_passing() && self.has_stopped().is_none() => {
                            tracing::warn!(%error, "a read of stored events failed and is tried again");
                            tokio::time::sleep(limits::DESCRIPTOR_RETRY_AFTER).await;
                        }
                        chunks => return chunks.map_err(|error| storage(&error)),
                    }
                }
            }
        }
    }
}

/// The settings of a blueprint, by number.
fn settings(blueprint: &Blueprint, numbers: &Numbers) -> Settings {
    let mut settings = Settings::default();
    for (topic, number) in blueprint.topics.iter().zip(&numbers.topics) {
        settings.topics.insert(*number, topic.settings);
        if let Some(lifecycle) = &topic.lifecycle {
            settings.lifecycles.insert(*number, lifecycle.clone());
        }
    }
    let topics = numbers_by_name(blueprint, numbers);
    for (subscriber, number) in blueprint.subscribers.iter().zip(&numbers.subscribers) {
        if let Some(topic) = topics.get(subscriber.from.as_str()) {
            settings.readers.entry(*topic).or_default().push(*number);
        }
    }
    settings
}

fn storage(error: &ColdError) -> ReadError {
    ReadError::Storage(error.to_string().into())
}

impl Engine for EmbeddedEngine {
    type Session = EmbeddedSession;
    type Entries = LaneEntries;

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            atomic_across_partitions: true,
            unit_bytes_max: limits::UNIT_BYTES_MAX,
            durable: self.shared.durability == Durability::Sync,
        }
    }

    async fn apply(&self, blueprint: &Blueprint) -> Result<Numbers, ApplyError> {
        // In a separate task: if it were cancelled half-way, its numbers would be in the journal and assigned again.
        let (shared, blueprint) = (self.shared.clone(), blueprint.clone());
        let applied = effects::task(async move { shared.apply(&blueprint).await }).await;
        applied.unwrap_or(Err(ApplyError::Stopped(StopReason::Closed))) // the runtime is shutting down
    }

    async fn append(&self, events: Slices) -> Result<AppendReceipt, AppendError> {
        if events.bytes() > limits::UNIT_BYTES_MAX {
            return Err(AppendError::TooLarge { bytes: events.bytes(), max: limits::UNIT_BYTES_MAX });
        }
        if let Some(unknown) = self.shared.unknown_target(&events) {
            return Err(AppendError::UnknownPartition(unknown));
        }
        let placed = match self.shared.log.append(events) {
            Ok(ticket) => ticket.await,
            Err(SubmitError::Busy) => return Err(AppendError::Busy { retry_after: limits::PRODUCER_RETRY_AFTER }),
            Err(SubmitError::Full) => return Err(AppendError::Full { retry_after: limits::FULL_RETRY_AFTER }),
            Err(SubmitError::Stopped) => return Err(self.shared.stopped().await.into()),
        };
        match placed {
            Ok(Err(AppendRefusal::Guard(refused))) => Err(AppendError::Guard(refused)),
            Ok(Err(AppendRefusal::Producer(unknown))) => Err(AppendError::Producer(unknown)),
            Ok(Err(AppendRefusal::Fenced)) => Err(AppendError::Fenced),
            Ok(Ok(SlicePlaces { base_offsets, duplicates, aside })) => {
                Ok(AppendReceipt { base_offsets, duplicates, aside, epoch: self.shared.log.epoch() })
            }
            Err(_) => Err(self.shared.stopped().await.into()),
        }
    }

    async fn acquire(&self, lane: LaneId) -> Result<EmbeddedSession, SessionError> {
        let partition = self.shared.catalogue().input(lane).ok_or(ReadError::UnknownPartition)?;
        let Ok(acquired) = self.shared.log.acquire(lane).await else { return Err(self.shared.stopped().await.into()) };
        Ok(EmbeddedSession {
            shared: self.shared.clone(),
            partition,
            next_offset: acquired.position,
            consumed_to: acquired.position,
            lane: acquired,
            cold: None,
        })
    }

    async fn read(&self, partition: PartitionId, from: Offset, budget: ReadBudget) -> Result<Vec<Chunk>, ReadError> {
        if !self.shared.catalogue().has(partition) {
            return Err(ReadError::UnknownPartition);
        }
        let end = self.shared.log.partition(partition).durable();
        self.shared.read(&mut None, partition, from, end, budget).await
    }

    async fn wait_durable(&self, partition: PartitionId, offset: Offset) -> Result<(), StopReason> {
        let partition = self.shared.log.partition(partition);
        loop {
            if partition.durable() > offset {
                return Ok(());
            }
            if let Some(stopped) = self.shared.has_stopped() {
                return Err(stopped);
            }
            self.shared.log.wait_durable(&partition, offset, || self.shared.has_stopped().is_some()).await;
        }
    }

    fn bounds(&self, partition: PartitionId) -> Option<Bounds> {
        if !self.shared.catalogue().has(partition) {
            return None;
        }
        let partition = self.shared.log.partition(partition);
        // durable first, so that it never exceeds written
        let durable = partition.durable();
        Some(Bounds { start: partition.start(), written: partition.written(), durable })
    }

    fn beyond(&self, partition: PartitionId, retention: &Retention) -> Option<RetentionBounds> {
        let has = self.shared.catalogue().has(partition);
        has.then(|| self.shared.log.beyond(partition, retention))
            .map(|(surely, perhaps)| RetentionBounds { surely, perhaps })
    }

    fn appended_per_minute(&self, partition: PartitionId) -> u64 {
        let has = self.shared.catalogue().has(partition);
        if has { self.shared.log.appended_per_minute(partition) } else { 0 }
    }

    fn time_of(&self, partition: PartitionId, offset: Offset) -> Option<TimeOf> {
        let has = self.shared.catalogue().has(partition);
        has.then(|| self.shared.log.partition(partition).time_of(offset))?
    }

    fn read_time_of(&self, partition: PartitionId, offset: Offset) -> Result<Option<u64>, ReadError> {
        match self.time_of(partition, offset) {
            None => return Ok(None),
            Some(TimeOf::At(time_ns)) => return Ok(Some(time_ns)),
            Some(TimeOf::NotBefore(_)) => {}
        }
        let (log, end) = (&self.shared.log, self.shared.log.partition(partition).written());
        let read = log.read_cold(&mut log.cold_reader(), partition, offset, end, 1, 1);
        match read {
            Ok(chunks) => Ok(chunks.first().map(|chunk| chunk.trusted_time_ns)),
            Err(error) if error.is_passing() => Err(ReadError::Passing(error.to_string().into())),
            Err(error) => Err(storage(&error)),
        }
    }

    fn hold(&self, partition: PartitionId) -> Option<Hold> {
        let held = self.bounds(partition).map(|_| self.shared.log.hold(partition))?;
        Some(Hold { start: held.from(), _held: Some(Box::new(held)) })
    }

    fn position(&self, lane: LaneId) -> Option<Offset> {
        self.shared.catalogue().input(lane)?;
        Some(self.shared.log.lane(lane).position())
    }

    fn unconsumed(&self, topic: TopicId, partitions: u32, readers: &[SubscriberId]) -> UnconsumedCounter {
        let unconsumed = self.shared.log.unconsumed(topic, partitions, readers);
        Box::new(move || unconsumed.count())
    }

    fn topics(&self) -> Vec<CatalogueTopic> {
        self.shared.catalogue().topics()
    }

    fn bytes(&self, partition: PartitionId) -> Option<u64> {
        self.shared.catalogue().has(partition).then(|| self.shared.log.partition(partition).bytes())
    }

    fn topic(&self, name: &str) -> Option<TopicId> {
        self.shared.catalogue().topic(name)
    }

    fn subscriber(&self, name: &str, from: TopicId) -> Option<SubscriberId> {
        self.shared.catalogue().subscriber(name, from)
    }

    fn digest(&self, version: VersionId) -> Option<[u8; 32]> {
        self.shared.catalogue().digest(version)
    }

    fn states(&self, partition: PartitionId) -> Option<LaneEntries> {
        let has = self.shared.catalogue().has(partition);
        has.then(|| self.shared.log.entries(keeper_of(partition)))
    }

    fn entries(&self, lane: LaneId) -> Option<LaneEntries> {
        self.shared.catalogue().input(lane)?;
        Some(self.shared.log.entries(lane))
    }

    async fn offset_at_time(&self, partition: PartitionId, time_ns: u64) -> Result<Offset, ReadError> {
        if !self.shared.catalogue().has(partition) {
            return Err(ReadError::UnknownPartition);
        }
        let end = self.shared.log.partition(partition).durable();
        loop {
            let mut reader = self.shared.log.cold_reader();
            let found = tokio::task::spawn_blocking(move || reader.offset_at_time(partition, time_ns, end)).await;
            match found.map_err(|error| ReadError::Storage(error.to_string().into()))? {
                Err(error) if error.is_passing() && self.shared.has_stopped().is_none() => {
                    tokio::time::sleep(limits::DESCRIPTOR_RETRY_AFTER).await;
                }
                found => return found.map_err(|error| storage(&error)),
            }
        }
    }

    fn now_ns(&self) -> u64 {
        self.shared.log.now_ns()
    }

    fn trusted_now_ns(&self) -> u64 {
        self.shared.log.trusted_now_ns()
    }

    fn snapshots(&self) -> Option<Arc<dyn Disk>> {
        self.shared.snapshots.clone()
    }

    fn storage(&self) -> Storage {
        let level = self.shared.log.space(0);
        Storage {
            takes_events: level == SpaceLevel::Ample,
            takes_outputs: level != SpaceLevel::Critical,
            clock_jumped: self.shared.log.frozen().map(|frozen| frozen.skew),
            room: self.shared.log.room().map(|crate::log::Room { left_bytes, reserve_bytes, publish_bytes }| Room {
                left_bytes,
                reserve_bytes,
                publish_bytes,
            }),
            missing: self.shared.missing(),
        }
    }

    fn confirm_clock(&self) -> bool {
        self.shared.log.confirm_clock()
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.shared.health.subscribe()
    }

    async fn close(&self) -> Result<(), StopReason> {
        let shared = self.shared.clone();
        let closed = tokio::task::spawn_blocking(move || shared.log.close()).await;
        match (closed, self.shared.stopped().await) {
            (Ok(()), StopReason::Closed) => Ok(()),
            (_, stopped) => Err(stopped),
        }
    }
}
