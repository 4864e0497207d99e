//! The log: one total order of all changes, made durable in groups and stored in segments.
//!
//! ```text
//!   producers ─┐  submissions   ┌──────────┐ one write per group  ┌────────┐ one fdatasync for what is written
//!              ├───────────────>│ appender ├──────── journal ────>│ syncer ├───> acks, reads from outside
//!   lanes ─────┘  (bounded)     └────┬─────┘                      └───┬────┘
//!                                    │ into each partition's recent   │ what is durable
//!                                    v part, where lanes read         v
//!                                  tail ─────────────────────> ┌──────────────┐ one sync, one commit
//!                                    ^                         │ checkpointer ├───> segments, state store
//!                                    └─ memory is freed ───────┴──────┬───────┘     where all other readers read
//!                                                                     └ journal files are reused
//! ```
//!
//! Promises:
//! - A unit is one frame: it happens as a whole or not at all.
//! - `checkpointed <= durable <= written`, all three only grow, and an ack is sent after its promise is fulfilled.
//! - Recovery makes everything that it accepts durable before any other use.
//! - After a failed write or sync nothing is acked any more: the log is poisoned. A full disk is not a failure: the log
//!   waits for room.
//! - Memory is bounded in bytes: queues, the tail, caches.
//! - Damaged data is never served, reset or removed: a reader gets an error that says what is damaged and where.
//!
//! Relies on: the disk and the clocks of [`crate::effects`]. Must not know: names, topologies, the content of records,
//! who reads.

mod appender;
mod block;
mod checkpointer;
mod clock;
mod closing;
mod cold;
mod cold_cache;
mod entries;
mod files;
mod filter;
mod frame;
mod gone;
mod guards;
mod holds;
mod identities;
mod inspect;
mod partition;
mod producers;
mod queue;
mod recovery;
mod runs;
mod seat;
mod segment;
mod segments;
mod sequencer;
mod space;
mod store;
mod syncer;
mod tail;
mod threads;
mod unconsumed;
mod unsynced;
mod walk;
mod window;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

pub use clock::ClockJump;
pub use cold::{ColdError, ColdReader};
pub use entries::{EntriesError, LaneEntries};
pub use gone::RemovedTopic;
pub use holds::PartitionHold;
pub use inspect::{FrameInfo, Inspection, RepairError, RepairSummary, dump, repair, verify};
pub use partition::{Partition, RecentRead};
pub use queue::{AppendRefusal, LaneOwnership, SlicePlaces, SubmitError, Ticket};
pub use recovery::{Damage, MissingSegment};
pub use runs::WindowOptions;
pub use space::{Room, SpaceLevel};
pub use threads::Stepper;
pub use unconsumed::UnconsumedCount;

use crate::effects::{Clock, Disk};
use crate::limits;
use crate::model::{Chunk, LaneId, Lifecycle, Offset, PartitionId, Retention, SubscriberId, TopicId, TopicSettings};
use appender::Appender;
use checkpointer::{CheckpointError, Checkpointer, Turn};
use clock::TrustedClock;
use closing::CloseState;
use cold_cache::ColdCache;
use files::Files;
use queue::Queue;
use runs::{Hashing, StoredRuns};
use seat::Seat;
use segment::{OpenSegments, is_out_of_descriptors};
use sequencer::Sequencer;
use space::SpaceWatch;
use syncer::Syncer;
use tail::Tail;
use walk::Walk;

/// When appended events count as durable, and so are acked and visible to outside readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// When `fdatasync` has returned.
    Sync,
    /// When written; `fdatasync` follows within the interval. A machine failure loses at most that much.
    Interval(Duration),
    /// When written; the operating system decides when it reaches the disk.
    Os,
}

/// How the log behaves.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// When appended events count as durable.
    pub durability: Durability,
    /// Length of a journal file in bytes; smaller on a small disk.
    pub file_bytes: u64,
    /// Bytes of the recent part of the journal that stay in memory, for readers and for checkpoints.
    pub recent_bytes_max: usize,
    /// Bytes of journal after which groups are moved into segments.
    pub move_bytes: usize,
    /// Bytes of journal after which a checkpoint is made.
    pub checkpoint_bytes: usize,
    /// The first sequence number of a new journal: unpredictable for producers, below 2^63.
    pub first_sequence: u64,
    /// How published identities are stored.
    pub windows: WindowOptions,
    /// No threads: a [`Stepper`] does each step on request. For simulations.
    pub is_stepped: bool,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Sync,
            file_bytes: limits::JOURNAL_FILE_BYTES,
            recent_bytes_max: limits::TAIL_BYTES_MAX,
            move_bytes: limits::MOVE_BYTES,
            checkpoint_bytes: limits::CHECKPOINT_BYTES,
            first_sequence: 1,
            windows: WindowOptions::default(),
            is_stepped: false,
        }
    }
}

impl LogOptions {
    fn hashing(&self) -> Hashing {
        // a new number at each start, unknown outside of the process
        Hashing { seed: self.first_sequence, options: self.windows }
    }
}

/// The part of the running topology that the log needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Settings of topics. A topic without settings keeps everything.
    pub topics: HashMap<TopicId, TopicSettings>,
    /// The live subscribers of each topic: events that they have not processed are kept.
    pub readers: HashMap<TopicId, Vec<SubscriberId>>,
    /// The guards of topics that have one.
    pub lifecycles: HashMap<TopicId, Arc<Lifecycle>>,
    /// Topics that are removed for good: all of their data is deleted.
    pub gone: BTreeMap<TopicId, RemovedTopic>,
}

/// Why the log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// An I/O error.
    #[error("cannot {what} {name}: {error}{}", advice(error))]
    Disk {
        /// What was attempted.
        what: &'static str,
        name: String,
        /// The error of the file system.
        error: io::Error,
    },
    /// The data on the disk is not what was written. Nothing was changed.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// A thread could not be started.
    #[error("cannot start a thread of the log: {0}")]
    Thread(io::Error),
}

/// Advice that follows the file system's error.
pub(crate) fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull => "; make room on the disk, nothing was lost",
        _ => "",
    }
}

/// Whether the log works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The log accepts and acknowledges submissions.
    Working,
    /// The log was closed; everything is durable.
    Closed,
    /// A write or sync failed: nothing can be promised any more.
    Poisoned(Arc<str>),
}

/// A lane's state in the log.
#[derive(Debug)]
pub struct Lane {
    id: LaneId,
    /// Everything before this offset is consumed by written units.
    position: AtomicU64,
    /// How many times the lane was acquired. A session with a lower number is fenced.
    owner: AtomicU64,
    /// Its entries, as far as they changed since the last checkpoint.
    changed: entries::EntryChanges,
    counts: unconsumed::Counts,
}

/// What the log contains beyond its partitions, reported when it is opened.
#[derive(Debug, Default)]
pub struct Replay {
    /// The catalogue entries, in order.
    pub catalogue: Vec<Bytes>,
    /// Number of frames after the last checkpoint that were accepted.
    pub frames: u64,
    /// Bytes at the end of the journal that were not completely written and are discarded.
    pub void_bytes: u64,
}

/// The log. Dropping the last handle closes it.
pub struct Log {
    shared: Arc<LogInner>,
    /// `None` if a [`Stepper`] does each step.
    seat: Option<Arc<Seat>>,
    syncer: Arc<Syncer>,
    threads: Mutex<Option<threads::Threads>>,
}

/// State that the appender, the syncer, the checkpointer and the readers share.
pub(crate) struct LogInner {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    partitions: RwLock<HashMap<PartitionId, Arc<Partition>>>,
    lanes: RwLock<HashMap<LaneId, Arc<Lane>>>,
    files: Files,
    open_segments: OpenSegments,
    cold_cache: ColdCache,
    queue: Queue,
    tail: Tail,
    space: SpaceWatch,
    holds: holds::Holds,
    settings: RwLock<Arc<Settings>>,
    /// Entries of lanes, as of the last checkpoint.
    entries: store::StoreReader,
    /// The identities in the store.
    sealed: RwLock<Arc<StoredRuns>>,
    /// By topic: producers that were last seen before this time may be missing in the store, now or soon.
    forgotten: Mutex<BTreeMap<TopicId, u64>>,
    checkpointer: Mutex<Checkpointer>,
    /// Number of checkpoints, incremented before anything in them is removed from memory.
    checkpoints: AtomicU64,
    /// Of guarded partitions.
    oldest_ends: Mutex<HashMap<PartitionId, guards::OldestEnds>>,
    trusted: TrustedClock,
    /// As found at the start.
    missing: Vec<MissingSegment>,
    condition: watch::Sender<Condition>,
    closing: CloseState,
    epoch: u32,
}

/// The error of a failed sync. A sync is never repeated, even if its error says that the disk is full: the next one may
/// succeed although the data of this one is lost.
fn failed_sync(error: io::Error) -> io::Error {
    io::Error::other(format!("a sync failed: {error}"))
}

/// Whether a failed operation may be repeated from its beginning: the disk was full, or no descriptor was left for
/// another file.
fn is_passing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::StorageFull || is_out_of_descriptors(error)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LogInner {
    fn is_poisoned(&self) -> bool {
        matches!(*self.condition.borrow(), Condition::Poisoned(_))
    }

    /// A write or sync failed: nothing is acked from here on. The first reason is kept.
    fn poison(&self, reason: &str) {
        self.queue.close(); // first, so that no submission is accepted and then lost
        self.tail.close();
        let poisoned = self.condition.send_if_modified(|condition| {
            let works = *condition == Condition::Working;
            if works {
                *condition = Condition::Poisoned(reason.into());
            }
            works
        });
        if poisoned {
            tracing::error!(reason, "the log cannot be written: nothing is acknowledged any more");
            self.wake_all();
        }
    }

    /// Wakes every reader, so that it sees that the log has stopped.
    fn wake_all(&self) {
        for partition in self.partitions.read().unwrap_or_else(PoisonError::into_inner).values() {
            partition.wake_all();
        }
    }

    fn partition(&self, id: PartitionId) -> Arc<Partition> {
        if let Some(partition) = self.partitions.read().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return partition.clone();
        }
        let mut partitions = self.partitions.write().unwrap_or_else(PoisonError::into_inner);
        partitions.entry(id).or_insert_with(|| Arc::new(Partition::default())).clone()
    }

    fn lane(&self, id: LaneId) -> Arc<Lane> {
        if let Some(lane) = self.lanes.read().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return lane.clone();
        }
        let mut lanes = self.lanes.write().unwrap_or_else(PoisonError::into_inner);
        lanes.entry(id).or_insert_with(|| Arc::new(Lane::new(id, 0))).clone()
    }

    fn sealed(&self) -> Arc<StoredRuns> {
        self.sealed.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_sealed(&self, sealed: Arc<StoredRuns>) {
        *self.sealed.write().unwrap_or_else(PoisonError::into_inner) = sealed;
    }

    fn settings(&self) -> Arc<Settings> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Starts the writeback of a part of the moved data. Returns whether more is left.
    fn begin_writing(&self) -> bool {
        !self.is_poisoned() && lock(&self.checkpointer).begin_writing()
    }

    /// Moves written groups into segments, and makes a checkpoint if one is due or requested. Removes spare files if
    /// the disk is full. Returns false if the disk is still full, if descriptors are short, or if the log has stopped.
    fn checkpoint(&self, turn: Turn) -> bool {
        let mut checkpointer = lock(&self.checkpointer);
        loop {
            if self.is_poisoned() {
                return false;
            }
            let turned = catch_unwind(AssertUnwindSafe(|| checkpointer.turn(self, turn)));
            match turned {
                Ok(Ok(())) => {
                    self.found_room(true);
                    return true;
                }
                Ok(Err(CheckpointError::Full)) if self.files.give_up_spares() => {}
                Ok(Err(CheckpointError::Full | CheckpointError::Descriptors)) => {
                    // The store stays readable for lanes.
                    if let Err(CheckpointError::Disk { .. } | CheckpointError::Store(_)) = checkpointer.settle(self) {
                        continue; // the next turn reports the error
                    }
                    self.found_room(false);
                    return false;
                }
                Ok(Err(error)) => self.poison(&format!("a checkpoint failed: {error}")),
                Err(_) => self.poison("a checkpoint panicked"),
            }
        }
    }
}

impl Log {
    /// Opens the log in a folder, recovers its content, and starts its threads.
    ///
    /// # Errors
    /// [`OpenError`]. In the case of [`OpenError::Damaged`], nothing in the journal or the segments was changed.
    pub fn open(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, options: LogOptions) -> Result<(Self, Replay), OpenError> {
        let (shared, appender, syncer, replay) = Self::recover(disk, clock, options)?;
        let seat = Arc::new(Seat::new(shared.clone(), appender));
        let threads =
            threads::Threads::start(shared.clone(), seat.clone(), syncer.clone()).map_err(OpenError::Thread)?;
        Ok((Self { shared, seat: Some(seat), syncer, threads: Mutex::new(Some(threads)) }, replay))
    }

    /// Opens the log without threads: only the [`Stepper`] does something, and always in the same way.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open_stepped(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        options: LogOptions,
    ) -> Result<(Self, Replay, Stepper), OpenError> {
        let options = LogOptions { is_stepped: true, ..options };
        let (shared, appender, syncer, replay) = Self::recover(disk, clock, options)?;
        let stepper = Stepper::new(shared.clone(), appender, syncer.clone());
        Ok((Self { shared, seat: None, syncer, threads: Mutex::new(None) }, replay, stepper))
    }

    fn recover(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        options: LogOptions,
    ) -> Result<(Arc<LogInner>, Appender, Arc<Syncer>, Replay), OpenError> {
        let total_bytes = disk.space().map_or(u64::MAX, |space| space.total_bytes);
        // A small disk gets small files, and checkpoints that are frequent enough for them.
        let part_bytes = total_bytes / limits::JOURNAL_FILE_PART;
        let file_bytes = options.file_bytes.min(part_bytes);
        let checkpoint_bytes = options.checkpoint_bytes.min(usize::try_from(part_bytes).unwrap_or(usize::MAX));
        let move_bytes = options.move_bytes.min(checkpoint_bytes);
        let options = LogOptions { file_bytes, move_bytes, checkpoint_bytes, ..options };
        let recovered = recovery::recover(&disk, &options, file_bytes)?;
        let mut contents = recovered.contents;
        let entries = recovered.store.entries();
        let hashing = options.hashing();
        let checkpointer = Checkpointer::new(recovered.store, &contents, &options);
        let sequencer = Sequencer::load(&contents, hashing);
        let partition = |(id, extent): (&PartitionId, &store::Extent)| {
            let segments = contents.segments.get(id).map(|all| all.as_slice().into()).unwrap_or_default();
            (*id, Arc::new(Partition::recovered(*extent, segments)))
        };
        let lane = |(id, position): (&LaneId, &Offset)| (*id, Arc::new(Lane::new(*id, *position)));
        let missing = recovery::missing_segments(disk.as_ref(), &contents).map_err(|error| OpenError::Disk {
            what: "list",
            name: "the log's folder".to_owned(),
            error,
        })?;
        let shared = Arc::new(LogInner {
            partitions: RwLock::new(contents.partitions.iter().map(partition).collect()),
            lanes: RwLock::new(contents.cursors.iter().map(lane).collect()),
            files: recovered.files,
            open_segments: OpenSegments::default(),
            cold_cache: ColdCache::new(limits::COLD_CACHE_BYTES),
            queue: Queue::new(),
            tail: Tail::new(&options, &recovered.link),
            space: SpaceWatch::new(),
            holds: holds::Holds::default(),
            settings: RwLock::default(),
            entries,
            sealed: RwLock::new(checkpointer.sealed()),
            forgotten: Mutex::new(std::mem::take(&mut contents.forgotten)),
            checkpointer: Mutex::new(checkpointer),
            checkpoints: AtomicU64::new(0),
            oldest_ends: Mutex::default(),
            trusted: TrustedClock::open(clock.clone(), recovered.clock),
            missing,
            condition: watch::Sender::new(Condition::Working),
            closing: CloseState::default(),
            epoch: recovered.link.epoch,
            disk,
            clock,
        });
        let syncer = Arc::new(Syncer::new(recovered.link.position, options.durability, options.is_stepped));
        let missing = || OpenError::Disk {
            what: "find",
            name: files::file_name(recovered.link.position),
            error: io::ErrorKind::NotFound.into(),
        };
        let file = shared.files.find(recovered.link.position).ok_or_else(missing)?;
        let from = contents.checkpoint.link;
        let mut appender = Appender::new(shared.clone(), syncer.clone(), options, file, from, sequencer, hashing);
        // before the replay, which may make checkpoints
        recovery::remove_leftovers(shared.disk.as_ref(), &contents).map_err(|error| OpenError::Disk {
            what: "clean up",
            name: "the log's folder".to_owned(),
            error,
        })?;
        let mut catalogue = std::mem::take(&mut contents.catalogue);
        replay(&shared, &mut appender, from.position, &recovered.link, &mut catalogue)
            .map_err(|error| OpenError::Disk { what: "replay", name: "the journal".to_owned(), error })?;
        let replay = Replay { catalogue, frames: recovered.frames, void_bytes: recovered.void_bytes };
        Ok((shared, appender, syncer, replay))
    }

    /// Applies the settings of a new topology.
    pub fn configure(&self, settings: Settings) {
        let goes = settings.gone.len() > self.shared.settings().gone.len();
        *self.shared.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
        if goes {
            self.shared.tail.ask();
        }
    }

    /// The state of a partition; created on first use.
    pub fn partition(&self, id: PartitionId) -> Arc<Partition> {
        self.shared.partition(id)
    }

    /// Resolves when the event at `offset` is durable, when `stopped` says so, or when something changed: look again.
    pub async fn wait_durable(&self, partition: &Partition, offset: Offset, stopped: impl Fn() -> bool) {
        partition.wait_durable(offset, stopped, || self.syncer.hurry()).await;
    }

    /// The offsets after the last event that certainly, and that possibly, is outside of a retention now.
    pub fn beyond(&self, id: PartitionId, retention: &Retention) -> (Offset, Offset) {
        self.partition(id).beyond(retention, self.trusted_now_ns())
    }

    /// Number of events appended to a partition within the last minute, of those that this process has appended or
    /// replayed.
    pub fn appended_per_minute(&self, id: PartitionId) -> u64 {
        self.partition(id).appended_per_minute(self.trusted_now_ns())
    }

    /// Protects the present events of a partition from expiry until the hold is dropped.
    pub fn hold(&self, id: PartitionId) -> PartitionHold {
        let partition = self.shared.partition(id);
        self.shared.holds.hold(id, || partition.start())
    }

    /// The state of a lane; created on first use.
    pub fn lane(&self, id: LaneId) -> Arc<Lane> {
        self.shared.lane(id)
    }

    /// The recovery epoch of events that are appended now.
    pub fn epoch(&self) -> u32 {
        self.shared.epoch
    }

    /// Watches the condition of the log.
    pub fn condition(&self) -> watch::Receiver<Condition> {
        self.shared.condition.subscribe()
    }

    /// The clock of append times, Unix nanoseconds.
    pub fn now_ns(&self) -> u64 {
        self.shared.clock.now_ns()
    }

    /// Trusted time, Unix nanoseconds: the clock of ages and windows. It never goes back, and does not follow a clock
    /// that jumps.
    pub fn trusted_now_ns(&self) -> u64 {
        self.shared.trusted.now().trusted_ns
    }

    /// Which writers may write `bytes` more, given the room on the disk. Reads the state of the disk.
    pub fn space(&self, bytes: usize) -> SpaceLevel {
        self.shared.space.level_now(&self.shared, bytes)
    }

    /// The room on the disk at the last look.
    pub fn room(&self) -> Option<Room> {
        self.shared.space.room()
    }

    /// Segments that were missing or truncated at the start and contain events that are still retained.
    pub fn missing(&self) -> Vec<MissingSegment> {
        let is_kept = |missing: &&MissingSegment| missing.end_offset > self.partition(missing.partition).start();
        self.shared.missing.iter().filter(is_kept).cloned().collect()
    }

    /// `Some` while nothing expires by age because the machine's clock is far ahead.
    pub fn frozen(&self) -> Option<ClockJump> {
        self.shared.trusted.frozen()
    }

    /// Confirms that the machine's clock is right: expiry resumes. Returns whether that made a difference.
    pub fn confirm_clock(&self) -> bool {
        // now, not with the next checkpoint: the clock is confirmed as it is, not as it may jump until then
        let has_waited = self.shared.trusted.confirm();
        self.shared.tail.ask();
        has_waited
    }

    /// A reader of events that are no longer in memory.
    pub fn cold_reader(&self) -> ColdReader {
        ColdReader::new(self.shared.clone())
    }

    /// Bytes in the cache of segment reads.
    pub fn cold_bytes(&self) -> usize {
        self.shared.cold_cache.bytes()
    }

    /// Events of a partition from the disk, as [`ColdReader::read`], for a reader that got [`RecentRead::Cold`]. Empty
    /// if they have expired in the meantime: look again.
    ///
    /// # Errors
    /// [`ColdError`].
    pub fn read_cold(
        &self,
        reader: &mut ColdReader,
        partition: PartitionId,
        from: Offset,
        end: Offset,
        events: u32,
        bytes: usize,
    ) -> Result<Vec<Chunk>, ColdError> {
        match reader.read(partition, from, end, events, bytes) {
            Err(_) if self.partition(partition).start() > from => Ok(Vec::new()),
            read => read,
        }
    }

    /// Closes the log: accepts nothing more, writes and syncs what was accepted, makes a last checkpoint and ends the
    /// threads. Blocks until that is done. On a full disk it gives up after a few seconds: requests that were not
    /// acknowledged by then are not stored.
    pub fn close(&self) {
        self.shared.queue.close();
        if let Some(threads) = lock(&self.threads).take() {
            threads.join(&self.shared);
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.close();
    }
}

/// Reads the journal from the checkpoint to its end again, and applies its frames.
fn replay(
    shared: &LogInner,
    appender: &mut Appender,
    from: u64,
    end: &frame::Link,
    catalogue: &mut Vec<Bytes>,
) -> io::Result<()> {
    let mut position = from;
    let error = |error: walk::WalkError| match error {
        walk::WalkError::Disk(error) => error,
        walk::WalkError::Frame(error) => io::Error::other(format!("the second read of the journal failed: {error}")),
    };
    while position < end.position {
        let Some(file) = shared.files.find(position) else { return Err(io::ErrorKind::NotFound.into()) };
        let file_end = shared.files.next_position(position).unwrap_or(end.position);
        let mut walk = Walk::new(&file);
        while position < file_end {
            let (bytes, link, entries) = walk.run(position, file_end).map_err(error)?;
            position = link.position;
            catalogue.extend(entries);
            appender.replay(bytes, link)?;
        }
    }
    appender.replayed();
    Ok(())
}
