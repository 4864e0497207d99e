//! The log: the one order of everything that happens, durable in groups, kept in segments.
//!
//! ```text
//!   producers ─┐  submissions   ┌──────────┐ one write per group  ┌────────┐ one fdatasync for what is written
//!              ├───────────────>│ appender ├──────── journal ────>│ syncer ├───> acks, reads from outside
//!   lanes ─────┘  (bounded)     └────┬─────┘                      └───┬────┘
//!                                    │ into each partition's recent   │ what is durable
//!                                    v part, where lanes read         v
//!                                  tail ─────────────────────> ┌──────────────┐ one sync, one commit
//!                                    ^                         │ checkpointer ├───> segments, state store
//!                                    └─ memory is given back ──┴──────┬───────┘     where everybody else reads
//!                                                                     └ journal files are used again
//! ```
//!
//! Promises:
//! - A unit is one frame: all of it happens or nothing.
//! - `checkpointed <= durable <= written`, all only grow, and an ack comes after what it promises.
//! - What recovery accepts is made durable before anything else is done with it.
//! - After a failed write or sync nothing is acked any more: the log is poisoned. A full disk is no failure: it passes.
//! - Memory is bounded by bytes: queues, the tail, what is cached.
//! - Nothing that is damaged is served, reset or removed: whoever needs it is told what and where.
//!
//! Relies on: the disk and the clocks of [`crate::effects`].
//! Must not know: names, topologies, what is inside a record, who reads.

mod appender;
mod block;
mod checkpointer;
mod clock;
mod closing;
mod cold;
mod cold_cache;
mod files;
mod filter;
mod frame;
mod gone;
mod guards;
mod holds;
mod identities;
mod inspect;
mod kept;
mod partition;
mod producers;
mod queue;
mod recovery;
mod sealed;
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

pub use clock::Frozen;
pub use cold::{ColdError, ColdReader};
pub use gone::GoneTopic;
pub use holds::Held;
pub use inspect::{FrameInfo, Inspection, RepairError, Repaired, dump, repair, verify};
pub use kept::{EntriesError, LaneEntries};
pub use partition::{Partition, Recent};
pub use queue::{Acquired, NotPlaced, Placed, Refused, Ticket};
pub use recovery::{Damage, MissingSegment};
pub use sealed::WindowOptions;
pub use space::{Room, SpaceLevel};
pub use threads::Stepper;
pub use unconsumed::Unconsumed;

use crate::effects::{Clock, Disk};
use crate::limits;
use crate::model::{Chunk, LaneId, Lifecycle, Offset, PartitionId, Retention, SubscriberId, TopicId, TopicSettings};
use appender::Appender;
use checkpointer::{CheckpointError, Checkpointer, Turn};
use clock::TrustedClock;
use closing::Closing;
use cold_cache::ColdCache;
use files::Files;
use queue::Queue;
use sealed::{Hashing, Sealed};
use seat::Seat;
use segment::{OpenSegments, is_out_of_descriptors};
use sequencer::Sequencer;
use space::SpaceWatch;
use syncer::Syncer;
use tail::Tail;
use walk::Walk;

/// When what was appended counts as durable, and so is acked and shown outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// When `fdatasync` has returned for it.
    Sync,
    /// When it is written; `fdatasync` follows within the interval. The loss of the machine loses at most that.
    Interval(Duration),
    /// When it is written; the operating system writes it to the disk when it likes.
    Os,
}

/// How the log behaves.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// See there.
    pub durability: Durability,
    /// Length in bytes of a journal file; less where the disk is small.
    pub file_bytes: u64,
    /// Bytes of the recent part of the journal that stay in memory: readers find it there, and a checkpoint as well.
    pub recent_bytes_max: usize,
    /// Bytes of journal after which they go into segments.
    pub move_bytes: usize,
    /// Bytes of journal after which a checkpoint is made.
    pub checkpoint_bytes: usize,
    /// From where the frames of a new journal are counted: a number that no producer can guess, below 2^63.
    pub first_sequence: u64,
    /// How identities that were published are kept.
    pub windows: WindowOptions,
    /// There are no threads: a [`Stepper`] does everything, when it is told to. For simulations.
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
        // a new number at each start, that nobody outside knows
        Hashing { seed: self.first_sequence, options: self.windows }
    }
}

/// What runs, as far as the log has to know it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// How topics keep their events. Those that are not here keep everything.
    pub topics: HashMap<TopicId, TopicSettings>,
    /// The live subscribers of each topic: what they have yet to process stays.
    pub readers: HashMap<TopicId, Vec<SubscriberId>>,
    /// The guards of topics that have one.
    pub lifecycles: HashMap<TopicId, Arc<Lifecycle>>,
    /// Topics that are gone for good: nothing of them stays.
    pub gone: BTreeMap<TopicId, GoneTopic>,
}

/// Why the log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk says no.
    #[error("cannot {what} {name}: {error}{}", advice(error))]
    Disk {
        /// What was tried.
        what: &'static str,
        /// The file.
        name: String,
        /// What the file system said.
        error: io::Error,
    },
    /// What is on the disk is not what was written. Nothing was changed.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// A thread could not be started.
    #[error("cannot start a thread of the log: {0}")]
    Thread(io::Error),
}

/// What to do about what the file system said, to follow it.
pub(crate) fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull => "; make room on the disk, nothing was lost",
        _ => "",
    }
}

/// Whether the log still works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// It does.
    Working,
    /// It was closed, everything is durable.
    Closed,
    /// A write or sync failed: nothing can be promised any more.
    Poisoned(Arc<str>),
}

/// What a lane is in the log.
#[derive(Debug)]
pub struct Lane {
    id: LaneId,
    /// Everything below is consumed, by units that are written.
    position: AtomicU64,
    /// How often the lane was acquired. A session with a lower number is fenced.
    owner: AtomicU64,
    /// What it keeps, as far as it changed since the last checkpoint.
    changed: kept::Changed,
    counts: unconsumed::Counts,
}

/// What the log told at its opening of what it holds.
#[derive(Debug, Default)]
pub struct Replay {
    /// The catalogue entries, in their order.
    pub catalogue: Vec<Bytes>,
    /// How many frames behind the last checkpoint were accepted.
    pub frames: u64,
    /// Bytes at the end of the journal that had not been written whole, and are void.
    pub void_bytes: u64,
}

/// The log. Dropping the last handle closes it.
pub struct Log {
    shared: Arc<Shared>,
    /// None where everything is done by a [`Stepper`].
    seat: Option<Arc<Seat>>,
    syncer: Arc<Syncer>,
    threads: Mutex<Option<threads::Threads>>,
}

/// What the appender, the syncer, the checkpointer and the readers share.
pub(crate) struct Shared {
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
    /// What lanes keep, as of the last checkpoint.
    entries: store::Entries,
    /// The identities that are in the store.
    sealed: RwLock<Arc<Sealed>>,
    /// By topic: producers that were last seen before this time may be gone from the store, or are about to be.
    forgotten: Mutex<BTreeMap<TopicId, u64>>,
    checkpointer: Mutex<Checkpointer>,
    /// How many checkpoints were made, counted before anything that they hold is taken from memory.
    checkpoints: AtomicU64,
    /// Of guarded partitions.
    oldest_ends: Mutex<HashMap<PartitionId, guards::Oldest>>,
    trusted: TrustedClock,
    /// Of the start.
    missing: Vec<MissingSegment>,
    condition: watch::Sender<Condition>,
    closing: Closing,
    epoch: u32,
}

/// What a sync says when it fails. However it failed, it is not tried again, also where it says that the disk is full: the
/// next one may succeed though what this one was for is lost.
fn failed_sync(error: io::Error) -> io::Error {
    io::Error::other(format!("a sync failed: {error}"))
}

/// Whether what failed may succeed later: it found no room on the disk, or no descriptor for another open file. What it was
/// about can be done once more then, from its beginning.
fn is_passing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::StorageFull || is_out_of_descriptors(error)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn is_poisoned(&self) -> bool {
        matches!(*self.condition.borrow(), Condition::Poisoned(_))
    }

    /// A write or sync failed: from here on nothing is acked. The first reason stays.
    fn poison(&self, reason: &str) {
        self.queue.close(); // first, so that nothing is taken in that is then forgotten
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

    fn sealed(&self) -> Arc<Sealed> {
        self.sealed.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_sealed(&self, sealed: Arc<Sealed>) {
        *self.sealed.write().unwrap_or_else(PoisonError::into_inner) = sealed;
    }

    fn settings(&self) -> Arc<Settings> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets the disk begin to write a part of what was moved. Whether there is more.
    fn begin_writing(&self) -> bool {
        !self.is_poisoned() && lock(&self.checkpointer).begin_writing()
    }

    /// Moves what is written into segments, and makes a checkpoint where one is due or asked for, giving up spare room where
    /// the disk is full. False where the disk is full all the same, or descriptors are short, or the log has stopped.
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
                    // Lanes read on meanwhile.
                    if let Err(CheckpointError::Disk { .. } | CheckpointError::Store(_)) = checkpointer.settle(self) {
                        continue; // which says what it is
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
    /// Opens the log in a folder, recovers what is there, and starts its threads.
    ///
    /// # Errors
    /// [`OpenError`]. Where it is [`OpenError::Damaged`], nothing in the journal or the segments was changed.
    pub fn open(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, options: LogOptions) -> Result<(Self, Replay), OpenError> {
        let (shared, appender, syncer, replay) = Self::recover(disk, clock, options)?;
        let seat = Arc::new(Seat::new(shared.clone(), appender));
        let threads =
            threads::Threads::start(shared.clone(), seat.clone(), syncer.clone()).map_err(OpenError::Thread)?;
        Ok((Self { shared, seat: Some(seat), syncer, threads: Mutex::new(Some(threads)) }, replay))
    }

    /// Opens the log without threads: nothing happens but what the [`Stepper`] is told to do, always in the same way.
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
    ) -> Result<(Arc<Shared>, Appender, Arc<Syncer>, Replay), OpenError> {
        let total_bytes = disk.space().map_or(u64::MAX, |space| space.total_bytes);
        // A small disk has small files, and checkpoints that make use of them.
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
        let shared = Arc::new(Shared {
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
            closing: Closing::default(),
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

    /// What runs from now on.
    pub fn configure(&self, settings: Settings) {
        let goes = settings.gone.len() > self.shared.settings().gone.len();
        *self.shared.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
        if goes {
            self.shared.tail.ask();
        }
    }

    /// A partition; it comes into being when first asked for.
    pub fn partition(&self, id: PartitionId) -> Arc<Partition> {
        self.shared.partition(id)
    }

    /// Resolves when the event at `offset` is durable, when `stopped` says so, or when something changed: look again.
    pub async fn wait_durable(&self, partition: &Partition, offset: Offset, stopped: impl Fn() -> bool) {
        partition.wait_durable(offset, stopped, || self.syncer.hurry()).await;
    }

    /// Behind the last event of a partition that is beyond a retention by now: surely, and perhaps.
    pub fn beyond(&self, id: PartitionId, retention: &Retention) -> (Offset, Offset) {
        self.partition(id).beyond(retention, self.trusted_now_ns())
    }

    /// How many events were appended to a partition within the last minute, of those that this process has appended or replayed.
    pub fn appended_per_minute(&self, id: PartitionId) -> u64 {
        self.partition(id).appended_per_minute(self.trusted_now_ns())
    }

    /// Keeps what a partition holds from now on, however short its retention is, until that is dropped.
    pub fn hold(&self, id: PartitionId) -> Held {
        let partition = self.shared.partition(id);
        self.shared.holds.hold(id, || partition.start())
    }

    /// A lane; it comes into being when first asked for.
    pub fn lane(&self, id: LaneId) -> Arc<Lane> {
        self.shared.lane(id)
    }

    /// The recovery epoch of what is appended from now on.
    pub fn epoch(&self) -> u32 {
        self.shared.epoch
    }

    /// Whether the log works, and every change of that.
    pub fn condition(&self) -> watch::Receiver<Condition> {
        self.shared.condition.subscribe()
    }

    /// The clock by which append times go, Unix nanoseconds.
    pub fn now_ns(&self) -> u64 {
        self.shared.clock.now_ns()
    }

    /// Trusted time, Unix nanoseconds: what ages and windows are measured by. It never goes back, and does not follow a
    /// clock that jumps.
    pub fn trusted_now_ns(&self) -> u64 {
        self.shared.trusted.now().trusted_ns
    }

    /// Who may write so many bytes more, as far as room on the disk goes. Looks at the disk.
    pub fn space(&self, bytes: usize) -> SpaceLevel {
        self.shared.space.level_now(&self.shared, bytes)
    }

    /// How much the disk had left at the last look.
    pub fn room(&self) -> Option<Room> {
        self.shared.space.room()
    }

    /// Segments that were not there at the start, of those whose events are still to be kept.
    pub fn missing(&self) -> Vec<MissingSegment> {
        let is_kept = |missing: &&MissingSegment| missing.end_offset > self.partition(missing.partition).start();
        self.shared.missing.iter().filter(is_kept).cloned().collect()
    }

    /// Whether nothing is removed for its age, since the clock is far ahead.
    pub fn frozen(&self) -> Option<Frozen> {
        self.shared.trusted.frozen()
    }

    /// Somebody says that the machine's clock is right: what waited for that expires. Whether anything had waited.
    pub fn confirm_clock(&self) -> bool {
        // at once, and not with the next checkpoint: what is confirmed is the clock as it is now, not as it may jump till then
        let has_waited = self.shared.trusted.confirm();
        self.shared.tail.ask();
        has_waited
    }

    /// A reader of what is no longer in memory.
    pub fn cold_reader(&self) -> ColdReader {
        ColdReader::new(self.shared.clone())
    }

    /// Bytes of segments that are kept for those who read what is no longer in memory.
    pub fn cold_bytes(&self) -> usize {
        self.shared.cold_cache.bytes()
    }

    /// Events of a partition from the disk, as [`ColdReader::read`] has them, for whoever was told [`Recent::Cold`]. Empty
    /// where they have expired meanwhile: look again.
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

    /// Takes nothing more, writes and syncs what was taken, makes a last checkpoint and ends the threads. Blocks until it
    /// has. Where the disk is full that is given up after a few seconds: what was not acknowledged by then is not stored.
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

/// Reads what lies between the checkpoint and the end of the journal once more, and takes it in.
fn replay(
    shared: &Shared,
    appender: &mut Appender,
    from: u64,
    end: &frame::Link,
    catalogue: &mut Vec<Bytes>,
) -> io::Result<()> {
    let mut position = from;
    let error = |error: walk::WalkError| match error {
        walk::WalkError::Disk(error) => error,
        walk::WalkError::Frame(error) => io::Error::other(format!("what was read before is not there: {error}")),
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
