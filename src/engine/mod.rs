//! The engine trait, which stores topics, cursors and state, and its implementations.
//!
//! A *session* of a lane reads events and commits *units*: consumed events, outputs and the lane's own entries,
//! atomically. There is no ack, no nack and no publish outside of the unit. An engine promises:
//!
//! - A unit happens once. Its outputs become visible once, in commit order for each source and target partition.
//! - Offsets of a partition strictly increase; gaps are allowed.
//! - `acquire` fences every earlier session of the lane: it can read, but its commits are refused.
//! - Units of a session are committed in the order in which they were submitted. After a [`SessionError`] the session
//!   is dead, except after [`SessionError::Guard`].
//! - Guards decide once, in the order in which events get their offsets.
//! - [`Engine::append`] resolves when the events are as durable as the engine's setting promises. Reads through
//!   [`Engine::read`] never return less durable events. Sessions may: inside the tree, a lost suffix is lost together
//!   with everything derived from it.
//!
//! Must not know: YAML, plugins, gRPC. Only `embedded` may know the log.

mod catalogue;
pub mod embedded;
pub mod memory;

use std::future::Future;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::api::{Bounds, Placement, Storage};
use crate::effects::Disk;
use crate::limits;
use crate::model::writes::LANE_KEY_BYTES_MAX;
pub use crate::model::{
    Chunk, Diversion, DivertedRecord, Duplicate, EntryPage, Fence, Guard, GuardCounts, GuardReason, GuardRefusal,
    LaneWrite, Lifecycle, Mark, PageBudget, ProducerUnknown, Retention, SliceFull, Slices, StoredEvent, TimeOf,
    TopicSettings,
};
use crate::model::{LaneId, Offset, PartitionId, SubscriberId, TopicId, VersionId};

/// What an engine can do: a topology that needs more is refused, never served with less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Outputs of one unit may go to several partitions and topics and still commit together with the cursor.
    pub atomic_across_partitions: bool,
    /// Largest unit or append, in bytes of records.
    pub unit_bytes_max: usize,
    /// Acknowledged events survive the loss of the machine's memory.
    pub durable: bool,
}

/// The desired topics and subscribers by full name (`namespace/name`), and plugin versions by digest.
#[derive(Debug, Clone, Default)]
pub struct Blueprint {
    pub topics: Vec<TopicSpec>,
    pub subscribers: Vec<SubscriberSpec>,
    /// Further subscribers whose lanes only store entries and read no events: retention does not wait for them.
    pub keepers: Vec<SubscriberSpec>,
    /// Digests of the plugins.
    pub versions: Vec<[u8; 32]>,
    /// NameChanges, applied before all lookups.
    pub names: NameChanges,
}

/// New names of numbers. A name that another number has is taken from it. Idempotent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameChanges {
    pub topics: Vec<(TopicId, String)>,
    pub subscribers: Vec<(SubscriberId, String)>,
}

/// A topic in the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogueTopic {
    pub number: TopicId,
    /// Its full name, or its last one if another topic has that name now.
    pub name: String,
    /// Number of partitions.
    pub partitions: u32,
}

impl CatalogueTopic {
    /// The name that marks it as removed for good: a [`Blueprint`] that gives it this name deletes all of its data.
    pub fn gone_name(&self) -> String {
        catalogue::gone_name(&self.name, self.number)
    }
}

/// A desired topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its full name.
    pub name: String,
    /// Number of partitions; fixed after creation.
    pub partitions: u32,
    /// Its retention, deduplication and other settings.
    pub settings: TopicSettings,
    /// Its guard, if it has one.
    pub lifecycle: Option<Arc<Lifecycle>>,
}

/// A desired subscriber.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SubscriberSpec {
    /// Its full name.
    pub name: String,
    /// The full name of the topic that it consumes. With another topic it is another subscriber, which begins at the
    /// start.
    pub from: String,
}

/// The numbers of a blueprint's items, in the blueprint's order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Of each topic.
    pub topics: Vec<TopicId>,
    /// Of each subscriber.
    pub subscribers: Vec<SubscriberId>,
    /// Of each keeper.
    pub keepers: Vec<SubscriberId>,
    /// Of each version.
    pub versions: Vec<VersionId>,
    /// The origin of each topic: a permanent, unique name, used in identities.
    pub topic_origins: Vec<Arc<str>>,
    /// The origin of each subscriber: permanent, and unique among those of its topic.
    pub subscriber_origins: Vec<Arc<str>>,
}

/// Why a blueprint was refused. Nothing was applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A different number of partitions than the existing topic has.
    #[error(
        "topic `{topic}` has {existing} partitions and cannot have {wanted}: the number never changes, since keys \
         would move; set `partitions: {existing}`, or make a topic of another name"
    )]
    Partitions {
        topic: String,
        /// The existing number.
        existing: u32,
        /// The requested number.
        wanted: u32,
    },
    /// A subscriber of a topic that is not in the blueprint.
    #[error("subscriber `{subscriber}` consumes `{topic}`, which is not a topic")]
    UnknownTopic { subscriber: String, topic: String },
    /// The engine has stopped.
    #[error(transparent)]
    Stopped(#[from] StopReason),
}

/// The engine has stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    /// It was shut down.
    #[error("the bus is shutting down")]
    Closed,
    /// The disk failed: nothing can be promised any more.
    #[error("the bus has stopped because its disk failed: {0}")]
    Poisoned(Arc<str>),
}

/// Why events were not appended.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// The queue is full; nothing was appended.
    #[error("the disk of the bus is slower than its producers; try again in {} ms", retry_after.as_millis())]
    Busy {
        /// How long to wait before a repetition.
        retry_after: Duration,
    },
    /// The disk is nearly full, and the rest is reserved for work that frees room; nothing was appended.
    #[error(
        "the disk of the bus is nearly full: make room on it, or let retention remove events; until then publishes \
         are refused"
    )]
    Full {
        /// How long to wait before a repetition.
        retry_after: Duration,
    },
    /// Larger than a unit may be; nothing was appended.
    #[error("{bytes} bytes of events are more than one append may have ({max}): publish them in smaller batches")]
    TooLarge {
        /// Size of the append.
        bytes: usize,
        /// Largest size.
        max: usize,
    },
    /// A guard refuses one of the events; nothing was appended.
    #[error("{}", .0.why)]
    Guard(GuardRefusal),
    /// A topic does not know the producer that numbered the events, and may have forgotten it; nothing was appended.
    #[error("the topic does not know the producer of these events, and may have forgotten it")]
    Producer(ProducerUnknown),
    /// An earlier append with the same [`Fence`] was refused; nothing was appended.
    #[error("an earlier request of the same stream was refused, so this one was not accepted either")]
    Fenced,
    /// A partition that does not exist; nothing was appended.
    #[error("partition {} of topic number {} does not exist", .0.partition, .0.topic)]
    UnknownPartition(PartitionId),
    /// The engine has stopped. Appends in progress may or may not have happened.
    #[error(transparent)]
    Stopped(#[from] StopReason),
}

impl AppendError {
    /// Whether the same append may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Busy { .. } | Self::Full { .. } => true,
            Self::TooLarge { .. } | Self::UnknownPartition(_) | Self::Guard(_) | Self::Producer(_) | Self::Fenced => {
                false
            }
            Self::Stopped(_) => true,
        }
    }

    /// Whether it is certain that nothing was appended.
    pub fn has_no_side_effects(&self) -> bool {
        match self {
            Self::Busy { .. }
            | Self::Full { .. }
            | Self::TooLarge { .. }
            | Self::UnknownPartition(_)
            | Self::Guard(_)
            | Self::Producer(_)
            | Self::Fenced => true,
            Self::Stopped(_) => false,
        }
    }
}

/// Why a session failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SessionError {
    /// A later session owns the lane.
    #[error("another session owns the lane")]
    Fenced,
    /// A guard refuses one of the outputs: the unit did not happen, and the session continues.
    #[error("{}", .0.why)]
    Guard(GuardRefusal),
    /// A faulty unit: it moves the cursor back without being a seek, is larger than [`Capabilities::unit_bytes_max`],
    /// or emits to a partition that does not exist.
    #[error("the unit is not acceptable: {0}")]
    Refused(String),
    /// Stored events cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The engine has stopped.
    #[error(transparent)]
    Stopped(#[from] StopReason),
}

impl SessionError {
    /// Whether another session may succeed later without any action.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Read(error) => error.is_passing(),
            Self::Guard(refused) => !refused.is_for_its_event(),
            Self::Fenced | Self::Refused(_) | Self::Stopped(_) => false,
        }
    }

    /// The error for a unit that emits to a partition that does not exist.
    fn unknown_target(partition: PartitionId) -> Self {
        let PartitionId { topic, partition } = partition;
        Self::Refused(format!("it emits to partition {partition} of topic number {topic}, which does not exist"))
    }
}

/// Why events cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The partition does not exist.
    #[error("there is no such partition")]
    UnknownPartition,
    /// A temporary lack of room or descriptors: a repetition may succeed.
    #[error("stored data cannot be read at the moment: {0}")]
    Passing(Arc<str>),
    /// The disk does not return what was written, or does not answer.
    #[error("cannot read stored events: {0}")]
    Storage(Arc<str>),
}

impl ReadError {
    /// Whether the same read may succeed later without any action.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Passing(_))
    }
}

/// Limits of one read: it ends at the first that is reached, but returns at least one event.
#[derive(Debug, Clone, Copy)]
pub struct ReadBudget {
    /// Number of events.
    pub events: u32,
    /// Bytes of records.
    pub bytes: usize,
}

/// The atomic change of a lane.
#[derive(Debug, Default)]
pub struct Unit {
    /// The lane has consumed everything before this offset.
    pub consumed_to: Offset,
    pub emits: Slices,
    /// Entries that it sets or deletes; the last write of a key counts.
    pub writes: Vec<LaneWrite>,
    /// Moves the position to `consumed_to`, also backwards, and reads from there.
    pub is_seek: bool,
}

impl Unit {
    /// Checks the limits that hold for all engines.
    fn check(&self) -> Result<(), SessionError> {
        let writes: usize = self.writes.iter().map(LaneWrite::bytes).sum();
        let (bytes, max) = (self.emits.bytes() + writes, limits::UNIT_BYTES_MAX);
        if bytes > max {
            return Err(SessionError::Refused(format!("{bytes} bytes of outputs and entries, at most {max}")));
        }
        match self.writes.iter().map(|write| write.key.len()).max() {
            Some(length) if length > LANE_KEY_BYTES_MAX => {
                Err(SessionError::Refused(format!("a key of {length} bytes, at most {LANE_KEY_BYTES_MAX}")))
            }
            _ => Ok(()),
        }
    }
}

/// Reads the entries of a lane. The owner sees its own submitted writes.
pub trait Entries: Clone + Send + Sync + 'static {
    /// The value of a key. May read from a disk.
    ///
    /// # Errors
    /// [`ReadError::Storage`], [`ReadError::Passing`].
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ReadError>;

    /// The entries from `from` on and before `until`, in byte order of their keys, within the budget. The page states
    /// whether it is the last one. May read from a disk.
    ///
    /// # Errors
    /// [`ReadError::Storage`], [`ReadError::Passing`].
    fn range(&self, from: Bound<&[u8]>, until: &[u8], budget: PageBudget) -> Result<EntryPage, ReadError>;

    /// The entries as they are now, independent of later units. The lane's owner must not submit anything during the
    /// call. Quick for any number of entries; deleted ones take room until the copy is dropped.
    ///
    /// # Errors
    /// [`ReadError::Storage`], [`ReadError::Passing`]; later reads can fail as well.
    fn frozen(&self) -> Result<Self, ReadError>;
}

/// Offsets that bound the events outside of a retention (too old or too many).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetentionBounds {
    /// All events before it are outside.
    pub surely: Offset,
    /// No event from it on is outside.
    pub perhaps: Offset,
}

/// Protects events of a partition from expiry.
#[must_use = "they stay only as long as it is held"]
pub struct Hold {
    /// The offset of the first one.
    pub start: Offset,
    /// The engine's hold, if events can expire.
    _held: Option<Box<dyn Send + Sync>>,
}

impl std::fmt::Debug for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hold").field("start", &self.start).finish_non_exhaustive()
    }
}

/// Whether the engine serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Accepting work.
    Serving,
    /// Stopped, permanently.
    Stopped(StopReason),
}

/// Returns the number of events of a topic that the slowest of some subscribers has not consumed.
pub type UnconsumedCounter = Box<dyn Fn() -> u64 + Send + Sync>;

/// A store of topics, cursors and state. A handle: cheap to clone.
pub trait Engine: Clone + Send + Sync + 'static {
    /// The owner of a lane.
    type Session: Session;
    /// A reader of a lane's entries.
    type Entries: Entries;

    /// What this engine can do.
    fn capabilities(&self) -> Capabilities;

    /// Applies renames and creates missing items, atomically. Existing items that are not in the blueprint stay, with
    /// all their events. Exception: a topic that is renamed to its [`CatalogueTopic::gone_name`] loses its partitions
    /// and lanes, and its data is deleted in the background, also after a restart. The blueprint's settings replace the
    /// previous ones, and retention waits for its subscribers.
    fn apply(&self, blueprint: &Blueprint) -> impl Future<Output = Result<Numbers, ApplyError>> + Send;

    /// Appends events from outside, atomically. Resolves when they are durable, or known as duplicates by the marks of
    /// `events`. Appends are decided in the order in which they were first polled. After one that a guard refuses,
    /// later ones with the same [`Fence`] get [`AppendError::Fenced`].
    fn append(&self, events: Slices) -> impl Future<Output = Result<AppendReceipt, AppendError>> + Send;

    /// Becomes the owner of a lane and replaces the previous owner.
    fn acquire(&self, lane: LaneId) -> impl Future<Output = Result<Self::Session, SessionError>> + Send;

    /// Durable events of a partition from `from` on; empty if there are none yet.
    fn read(
        &self,
        partition: PartitionId,
        from: Offset,
        budget: ReadBudget,
    ) -> impl Future<Output = Result<Vec<Chunk>, ReadError>> + Send;

    /// Resolves when the event at `offset` is durable, or when the engine stops.
    fn wait_durable(
        &self,
        partition: PartitionId,
        offset: Offset,
    ) -> impl Future<Output = Result<(), StopReason>> + Send;

    /// The offsets of a partition; `None` if it does not exist.
    fn bounds(&self, partition: PartitionId) -> Option<Bounds>;

    /// The events of a partition that are outside of a given retention, whether or not subscribers have processed them;
    /// `None` if there is no such partition. Reads only memory, so the result can be a range.
    fn beyond(&self, partition: PartitionId, retention: &Retention) -> Option<RetentionBounds>;

    /// Number of events appended to a partition within the last minute of trusted time, as far as this process knows.
    fn appended_per_minute(&self, partition: PartitionId) -> u64;

    /// When the event at an offset (or the first retained one after it) was appended, as far as memory knows; `None` if
    /// there is none.
    fn time_of(&self, partition: PartitionId, offset: Offset) -> Option<TimeOf>;

    /// As [`Self::time_of`], but exact, in trusted time. May read from a disk.
    ///
    /// # Errors
    /// [`ReadError::Storage`], [`ReadError::Passing`].
    fn read_time_of(&self, partition: PartitionId, offset: Offset) -> Result<Option<u64>, ReadError>;

    /// As [`Self::bounds`], after everything written until now is durable: a caller that knows that an event was
    /// handled finds its outputs.
    fn durable_bounds(
        &self,
        partition: PartitionId,
    ) -> impl Future<Output = Result<Option<Bounds>, StopReason>> + Send {
        async move {
            let Some(Bounds { written, durable, .. }) = self.bounds(partition) else { return Ok(None) };
            if let Some(last) = written.checked_sub(1).filter(|last| *last >= durable) {
                self.wait_durable(partition, last).await?;
            }
            Ok(self.bounds(partition))
        }
    }

    /// The committed position of a lane: the next offset to consume. A caller that reads positions before bounds sees
    /// the outputs of every unit whose position it saw.
    fn position(&self, lane: LaneId) -> Option<Offset>;

    /// Returns a counter of the events of a topic that the slowest of some subscribers has not consumed; 0 without
    /// subscribers. Reading the counter should be as cheap as the engine can make it.
    fn unconsumed(&self, topic: TopicId, partitions: u32, readers: &[SubscriberId]) -> UnconsumedCounter {
        let (engine, readers) = (self.clone(), readers.to_vec());
        Box::new(move || {
            let of_partition = |partition| {
                // Positions first: a concurrent change can then only make the count too small, never negative.
                let lanes = readers.iter().map(|reader| LaneId { subscriber: *reader, partition });
                let slowest = lanes.map(|lane| engine.position(lane).unwrap_or(0)).min()?;
                let bounds = engine.bounds(PartitionId { topic, partition })?;
                Some(bounds.written.saturating_sub(slowest.max(bounds.start)))
            };
            (0..partitions).filter_map(of_partition).sum()
        })
    }

    /// All topics that are not gone ([`CatalogueTopic::gone_name`]), by number, whether or not the running topology
    /// contains them.
    fn topics(&self) -> Vec<CatalogueTopic>;

    /// Approximate bytes of a partition's events; `None` if it does not exist.
    fn bytes(&self, partition: PartitionId) -> Option<u64>;

    /// The number of the topic with this name.
    fn topic(&self, name: &str) -> Option<TopicId>;

    /// The number of the subscriber of a topic with this name.
    fn subscriber(&self, name: &str, from: TopicId) -> Option<SubscriberId>;

    /// The digest of a version, however old; `None` if there is no such version.
    fn digest(&self, version: VersionId) -> Option<[u8; 32]>;

    /// The entries of a partition with the states of its keys; `None` if there is no such partition.
    fn states(&self, partition: PartitionId) -> Option<Self::Entries>;

    /// The entries of a lane; `None` if it does not exist.
    fn entries(&self, lane: LaneId) -> Option<Self::Entries>;

    /// Protects the present events of a partition from expiry until the hold is dropped, for a seek back. `None` if
    /// there is no such partition.
    fn hold(&self, partition: PartitionId) -> Option<Hold>;

    /// The offset of the first event that was appended at or after a time; the end if there is none.
    fn offset_at_time(
        &self,
        partition: PartitionId,
        time_ns: u64,
    ) -> impl Future<Output = Result<Offset, ReadError>> + Send;

    /// The clock of append times, Unix nanoseconds. It may be set, also back; append times never go back.
    fn now_ns(&self) -> u64;

    /// Trusted time, Unix nanoseconds: the clock of ages, windows and timers, and of [`StoredEvent::trusted_time_ns`].
    /// It never goes back, advances with the time that really passes, and does not follow a clock that jumps.
    fn trusted_now_ns(&self) -> u64;

    /// A folder for snapshots of lanes' entries, as durable as all else; `None` if the engine has none.
    fn snapshots(&self) -> Option<Arc<dyn Disk>>;

    /// The state of the disk and the clock.
    fn storage(&self) -> Storage;

    /// Confirms that the machine's clock is right: expiry resumes. Returns whether that made a difference.
    fn confirm_clock(&self) -> bool;

    /// Watches the engine's health.
    fn health(&self) -> tokio::sync::watch::Receiver<Health>;

    /// Makes everything that was accepted durable, and stops. Later calls do nothing.
    fn close(&self) -> impl Future<Output = Result<(), StopReason>> + Send;
}

/// The result of an append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendReceipt {
    /// The offset of the first new event of each slice.
    pub base_offsets: Vec<Offset>,
    /// Events that were published before, in the order of slices and events.
    pub duplicates: Vec<Duplicate>,
    /// Events that were set aside in another topic because their state may not follow now; in the same order.
    pub aside: Vec<DivertedRecord>,
    /// The recovery epoch: in another epoch, an offset may denote another event.
    pub epoch: u32,
}

impl AppendReceipt {
    /// Where an event was set aside, if it was.
    pub fn aside(&self, slice: usize, record: u32) -> Option<&DivertedRecord> {
        let at = |set: &DivertedRecord| (set.slice as usize, set.record);
        let found = self.aside.binary_search_by_key(&(slice, record), at).ok()?;
        self.aside.get(found)
    }

    /// The place of record `record` of slice `slice`, which was for `partition`. For an event that was set aside, its
    /// place there.
    pub fn place(&self, slice: usize, record: u32, partition: u32) -> Placement {
        let at = (slice, record);
        let base_offset = |slice: usize| self.base_offsets.get(slice).copied().unwrap_or(0);
        let place = |duplicate: &Duplicate| (duplicate.slice as usize, duplicate.record);
        let in_front = self.duplicates.partition_point(|duplicate| place(duplicate) < at);
        if let Some(first) = self.duplicates.get(in_front).filter(|duplicate| place(duplicate) == at) {
            return Placement { partition: first.partition, offset: first.offset, is_duplicate: true };
        }
        if let Some(DivertedRecord { to, at: (slice, record), .. }) = self.aside(slice, record) {
            let offset = base_offset(*slice as usize) + Offset::from(*record);
            return Placement { partition: to.partition, offset: Some(offset), is_duplicate: false };
        }
        let set_before = |at: (usize, u32)| self.aside.partition_point(|set| (set.slice as usize, set.record) < at);
        let aside_before = set_before(at) - set_before((slice, 0));
        let of_slice = self.duplicates.partition_point(|duplicate| duplicate.slice < slice as u32);
        let offset = base_offset(slice) + Offset::from(record) - (in_front - of_slice + aside_before) as Offset;
        Placement { partition, offset: Some(offset), is_duplicate: false }
    }
}

/// The owner of a lane.
pub trait Session: Send + 'static {
    /// At first the lane's committed position, then the position up to which the session has read.
    fn next_offset(&self) -> Offset;

    /// Waits for the next events. Chunks are in order and never empty.
    fn read(&mut self, budget: ReadBudget) -> impl Future<Output = Result<Vec<Chunk>, SessionError>> + Send;

    /// Submits the next unit. Resolves when the engine has accepted it (not when it is written or durable), so units
    /// can be pipelined; if a unit fails later, the next call fails. A unit with guarded outputs is accepted with its
    /// verdict; after [`SessionError::Guard`] it has no effect.
    fn commit(&mut self, unit: Unit) -> impl Future<Output = Result<(), SessionError>> + Send;

    /// Resolves when all units submitted before, by any session, are committed and as durable as the engine's setting
    /// promises.
    fn sync(&mut self) -> impl Future<Output = Result<(), SessionError>> + Send;

    /// Resolves when all units submitted before are committed.
    fn flush(&mut self) -> impl Future<Output = Result<(), SessionError>> + Send;
}
