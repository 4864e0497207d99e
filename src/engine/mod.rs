//! What keeps topics, cursors and state: the trait, and its implementations.
//!
//! A *session* per lane reads events and commits *units*: consumed events, outputs and what the lane keeps for itself
//! together, all or nothing. There is no ack, no nack and no publish outside the unit. What an engine promises:
//!
//! - A unit happens once. Its emits become visible once, in the order of commits for each source and target partition.
//! - Offsets of a partition strictly increase; gaps are allowed.
//! - `acquire` fences every earlier session of the lane: they can read, but what they commit is refused.
//! - Units of a session are committed in the order in which they were given. After [`SessionError`] the session is dead,
//!   unless it is [`SessionError::Guard`].
//! - Guards decide in the order in which events get their places, and once: nothing is ever judged again.
//! - [`Engine::append`] resolves when what it was given is as durable as the engine's setting promises. Reads through
//!   [`Engine::read`] never see anything less durable. Sessions may: inside the tree, a lost suffix is lost with all
//!   that was derived from it.
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

use crate::effects::Disk;
use crate::limits;
use crate::model::writes::LANE_KEY_BYTES_MAX;
pub use crate::model::{
    Aside, Chunk, Duplicate, EntryPage, Fence, Guard, GuardCounts, GuardReason, GuardRefused, LaneWrite, Lifecycle,
    Mark, PageBudget, ProducerUnknown, Retention, SetAside, SliceFull, Slices, Stored, TimeOf, TopicSettings,
};
use crate::model::{LaneId, Offset, PartitionId, SubscriberId, TopicId, VersionId};

/// What an engine can do, declared so that a topology that needs more is refused and never served with less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Outputs of one unit may go to several partitions and topics and still commit together with the cursor.
    pub atomic_across_partitions: bool,
    /// Largest unit or append in bytes of records.
    pub unit_bytes_max: usize,
    /// What was acknowledged survives the loss of the machine's memory.
    pub durable: bool,
}

/// What is to exist: every topic and subscriber by its full name (`namespace/name`), every plugin version by digest.
#[derive(Debug, Clone, Default)]
pub struct Blueprint {
    /// The topics.
    pub topics: Vec<TopicSpec>,
    /// The subscribers.
    pub subscribers: Vec<SubscriberSpec>,
    /// More of them, whose lanes only keep entries and read no events: none are kept for them.
    pub keepers: Vec<SubscriberSpec>,
    /// Digests of the plugins.
    pub versions: Vec<[u8; 32]>,
    /// What has another name from now on, before anything else is looked up.
    pub names: Names,
}

/// Names for what has a number already. A name that another number has is taken from it. Said again it changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// Of topics.
    pub topics: Vec<(TopicId, String)>,
    /// Of subscribers.
    pub subscribers: Vec<(SubscriberId, String)>,
}

/// A topic that has a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownTopic {
    /// Its number.
    pub number: TopicId,
    /// The full name that it has, or had last, where another topic has that by now.
    pub name: String,
    /// How many partitions it has.
    pub partitions: u32,
}

impl KnownTopic {
    /// The name by which it is gone for good, with all that is kept of it, once a [`Blueprint`] gives it that.
    pub fn gone_name(&self) -> String {
        catalogue::gone_name(&self.name, self.number)
    }
}

/// A topic that is to exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its full name.
    pub name: String,
    /// How many partitions; never changes once created.
    pub partitions: u32,
    /// How it keeps its events.
    pub settings: TopicSettings,
    /// Its guard, where it has one.
    pub lifecycle: Option<Arc<Lifecycle>>,
}

/// A subscriber that is to exist.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SubscriberSpec {
    /// Its full name.
    pub name: String,
    /// The full name of the topic that it consumes. Another topic makes another subscriber, from the start.
    pub from: String,
}

/// The numbers that stand for a blueprint's entries, in the blueprint's order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Numbers {
    /// One for each topic.
    pub topics: Vec<TopicId>,
    /// One for each subscriber.
    pub subscribers: Vec<SubscriberId>,
    /// One for each keeper.
    pub keepers: Vec<SubscriberId>,
    /// One for each version.
    pub versions: Vec<VersionId>,
    /// For each topic the name that it has for good where identities are made, whatever it is called: no other has it.
    pub topic_origins: Vec<Arc<str>>,
    /// The same for each subscriber; no other of its topic has it.
    pub subscriber_origins: Vec<Arc<str>>,
}

/// Why a blueprint was refused. Nothing of it was applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The number of partitions of a topic that exists.
    #[error(
        "topic `{topic}` has {existing} partitions and cannot have {wanted}: the number never changes, since keys \
         would move; set `partitions: {existing}`, or make a topic of another name"
    )]
    Partitions {
        /// The topic.
        topic: String,
        /// How many it has.
        existing: u32,
        /// How many were asked for.
        wanted: u32,
    },
    /// A subscriber of a topic that is not in the blueprint.
    #[error("subscriber `{subscriber}` consumes `{topic}`, which is not a topic")]
    UnknownTopic {
        /// The subscriber.
        subscriber: String,
        /// The topic.
        topic: String,
    },
    /// The engine has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// The engine takes nothing more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// It was shut down.
    #[error("the bus is shutting down")]
    Closed,
    /// The disk failed, and nothing can be promised any more.
    #[error("the bus has stopped, since its disk failed: {0}")]
    Poisoned(Arc<str>),
}

/// Why events were not appended.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// More is waiting for the disk than may; nothing was appended.
    #[error("the bus is taking in events faster than its disk; try again in {} ms", retry_after.as_millis())]
    Busy {
        /// When to try again.
        retry_after: Duration,
    },
    /// The disk is nearly full, and what is left is kept for what makes room again; nothing was appended.
    #[error(
        "the disk of the bus is nearly full: make room on it, or let retention remove events; until then nothing is taken \
         in"
    )]
    Full {
        /// When to try again.
        retry_after: Duration,
    },
    /// Larger than any unit may be; nothing was appended.
    #[error("{bytes} bytes of events are more than one append may have ({max}): publish them in smaller batches")]
    TooLarge {
        /// Size of what was to be appended.
        bytes: usize,
        /// Largest size.
        max: usize,
    },
    /// A guard refuses one of the events; nothing was appended.
    #[error("{}", .0.why)]
    Guard(GuardRefused),
    /// A topic does not know who numbered the events, and may have forgotten it; nothing was appended.
    #[error("the topic does not know the producer of these events, and may have forgotten it")]
    Producer(ProducerUnknown),
    /// An append in front of it, behind the same [`Fence`], was refused; nothing was appended.
    #[error("an earlier request of the same stream was refused, so this one was not taken either")]
    Fenced,
    /// A partition that no topic has; nothing was appended.
    #[error("partition {} of topic number {} does not exist", .0.partition, .0.topic)]
    UnknownPartition(PartitionId),
    /// The engine has stopped. What was on its way may or may not have been appended.
    #[error(transparent)]
    Stopped(#[from] Stopped),
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

    /// Whether it is sure that nothing was appended.
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

/// Why a session cannot go on.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SessionError {
    /// A later session owns the lane.
    #[error("another session owns the lane")]
    Fenced,
    /// A guard refuses one of the emits: nothing of the unit happened, and the session goes on.
    #[error("{}", .0.why)]
    Guard(GuardRefused),
    /// A unit that moves the cursor back and is no seek, is larger than [`Capabilities::unit_bytes_max`], or emits to a partition that
    /// does not exist: a fault of the caller.
    #[error("the unit is not acceptable: {0}")]
    Refused(String),
    /// Stored events cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The engine has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl SessionError {
    /// Whether it passes by itself: another session may do the same later.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Read(error) => error.is_passing(),
            Self::Guard(refused) => !refused.is_for_its_event(),
            Self::Fenced | Self::Refused(_) | Self::Stopped(_) => false,
        }
    }

    /// For a unit that emits to a partition that does not exist.
    fn unknown_target(partition: PartitionId) -> Self {
        let PartitionId { topic, partition } = partition;
        Self::Refused(format!("it emits to partition {partition} of topic number {topic}, which does not exist"))
    }
}

/// Why events cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// No such partition.
    #[error("there is no such partition")]
    UnknownPartition,
    /// It cannot be read at the moment, for want of room on the disk or of descriptors: the same may succeed later.
    #[error("what is stored cannot be read at the moment: {0}")]
    Passing(Arc<str>),
    /// The disk does not give back what was written, or does not answer.
    #[error("cannot read stored events: {0}")]
    Storage(Arc<str>),
}

impl ReadError {
    /// Whether the same read may succeed later, though nobody does anything about it.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Passing(_))
    }
}

/// How much to read at once: whichever is reached first, but at least one event.
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
    /// The lane has consumed everything below this offset.
    pub consumed_to: Offset,
    /// What it emits.
    pub emits: Slices,
    /// What it keeps from now on, or does not keep any more; of one key the last counts.
    pub writes: Vec<LaneWrite>,
    /// It moves its position to wherever that is, also back, and reads from there.
    pub is_seek: bool,
}

impl Unit {
    /// Whether any engine takes it, as far as its size goes.
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

/// Reads what a lane keeps for itself. Its owner sees what it has handed in.
pub trait Entries: Clone + Send + Sync + 'static {
    /// The value of a key. May read from a disk.
    ///
    /// # Errors
    /// [`ReadError::Storage`], [`ReadError::Passing`].
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ReadError>;

    /// The entries from `from` on and before `until`, in the order of their keys' bytes, as many as the budget allows: the
    /// last page says that it is. May read from a disk.
    ///
    /// # Errors
    /// [`ReadError::Storage`], [`ReadError::Passing`].
    fn range(&self, from: Bound<&[u8]>, until: &[u8], budget: PageBudget) -> Result<EntryPage, ReadError>;

    /// The entries as they are now, whatever is handed in later. To be called where the lane's owner hands nothing in
    /// meanwhile. Quick, however many there are; what is not kept any more still takes room until it is dropped.
    ///
    /// # Errors
    /// [`ReadError::Storage`], [`ReadError::Passing`], also later where the disk fails meanwhile.
    fn frozen(&self) -> Result<Self, ReadError>;
}

/// What a partition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    /// Offset of the first event that is kept.
    pub start: Offset,
    /// Behind the last event that lanes may see.
    pub written: Offset,
    /// Behind the last event that the outside may see.
    pub durable: Offset,
}

/// Behind the last event of a partition that is older, or more, than a retention keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Beyond {
    /// All before it are.
    pub surely: Offset,
    /// None behind it is.
    pub perhaps: Offset,
}

/// Events of a partition that stay where they are.
#[must_use = "they stay only as long as it is held"]
pub struct Hold {
    /// Offset of the first one.
    pub start: Offset,
    /// What keeps them, where they might go.
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
    /// It does.
    Serving,
    /// It does not, for good.
    Stopped(Stopped),
}

/// How many events of a topic the slowest of some subscribers has yet to consume.
pub type Unconsumed = Box<dyn Fn() -> u64 + Send + Sync>;

/// What keeps topics, cursors and state. Cheap to clone: a handle.
pub trait Engine: Clone + Send + Sync + 'static {
    /// A lane's owner.
    type Session: Session;
    /// A reader of what a lane keeps.
    type Entries: Entries;

    /// What this engine can do.
    fn capabilities(&self) -> Capabilities;

    /// Gives names as the blueprint says and creates what is in it and does not exist yet, all or nothing. What exists and is not in the blueprint
    /// stays as it is, with all its events, unless it is given the name of one that is gone for good: then it has no partitions
    /// and no lanes any more, and all that is kept of it goes in the time that follows, also after a restart. The blueprint's settings hold from then on, and its subscribers are those whose
    /// events stay until they have processed them.
    fn apply(&self, blueprint: &Blueprint) -> impl Future<Output = Result<Numbers, ApplyError>> + Send;

    /// Appends events from outside, all or nothing, and resolves when they are durable, or known to be from before: what
    /// the marks of `events` recognise is not appended again. Appends are decided on in the order in which they were first
    /// polled; where a guard refuses one, those behind it with the same [`Fence`] are [`AppendError::Fenced`].
    fn append(&self, events: Slices) -> impl Future<Output = Result<Appended, AppendError>> + Send;

    /// Becomes the owner of a lane, in place of whoever was.
    fn acquire(&self, lane: LaneId) -> impl Future<Output = Result<Self::Session, SessionError>> + Send;

    /// Events of a partition from `from` on, as far as they are durable; empty where there are none yet.
    fn read(
        &self,
        partition: PartitionId,
        from: Offset,
        budget: ReadBudget,
    ) -> impl Future<Output = Result<Vec<Chunk>, ReadError>> + Send;

    /// Resolves when the event at `offset` is durable (at once where it is), or when the engine stops.
    fn wait_durable(&self, partition: PartitionId, offset: Offset) -> impl Future<Output = Result<(), Stopped>> + Send;

    /// What a partition holds; `None` where there is no such partition.
    fn bounds(&self, partition: PartitionId) -> Option<Bounds>;

    /// What of a partition is beyond a retention by now, whether or not it is that of its topic, and whoever has yet to process
    /// it; `None` where there is no such partition. Looks at nothing but what is in memory, so it may not know exactly.
    fn beyond(&self, partition: PartitionId, retention: &Retention) -> Option<Beyond>;

    /// How many events were appended to a partition within the last minute of trusted time, as far as this process knows.
    fn appended_per_minute(&self, partition: PartitionId) -> u64;

    /// When the event at an offset, or the first one behind it that is kept, was appended, as far as that is in memory; `None`
    /// where there is none.
    fn time_of(&self, partition: PartitionId, offset: Offset) -> Option<TimeOf>;

    /// The same exactly, trusted time. May read from a disk.
    ///
    /// # Errors
    /// [`ReadError::Storage`], [`ReadError::Passing`].
    fn read_time_of(&self, partition: PartitionId, offset: Offset) -> Result<Option<u64>, ReadError>;

    /// As [`Self::bounds`], once all that is written by now is durable: a caller that has seen that an event was handled finds
    /// what came of it.
    fn durable_bounds(&self, partition: PartitionId) -> impl Future<Output = Result<Option<Bounds>, Stopped>> + Send {
        async move {
            let Some(Bounds { written, durable, .. }) = self.bounds(partition) else { return Ok(None) };
            if let Some(last) = written.checked_sub(1).filter(|last| *last >= durable) {
                self.wait_durable(partition, last).await?;
            }
            Ok(self.bounds(partition))
        }
    }

    /// The committed position of a lane: the offset of the next event that it has to consume. Whoever reads positions
    /// first and bounds then sees the outputs of every unit whose cursor it saw.
    fn position(&self, lane: LaneId) -> Option<Offset>;

    /// Counts what the slowest of some subscribers has yet to consume of a topic, as bounds and positions say it; nothing where
    /// there is no subscriber. Made once and asked often: an engine keeps it as cheap to ask as it can.
    fn unconsumed(&self, topic: TopicId, partitions: u32, readers: &[SubscriberId]) -> Unconsumed {
        let (engine, readers) = (self.clone(), readers.to_vec());
        Box::new(move || {
            let of_partition = |partition| {
                // Positions first: what is consumed meanwhile makes room, and never the other way round.
                let lanes = readers.iter().map(|reader| LaneId { subscriber: *reader, partition });
                let slowest = lanes.map(|lane| engine.position(lane).unwrap_or(0)).min()?;
                let bounds = engine.bounds(PartitionId { topic, partition })?;
                Some(bounds.written.saturating_sub(slowest.max(bounds.start)))
            };
            (0..partitions).filter_map(of_partition).sum()
        })
    }

    /// All topics but those that are gone for good ([`KnownTopic::gone_name`]), by number, whether or not anything that runs
    /// has them.
    fn topics(&self) -> Vec<KnownTopic>;

    /// Bytes that the events of a partition take, about; `None` where there is no such partition.
    fn bytes(&self, partition: PartitionId) -> Option<u64>;

    /// The number of the topic that has a name.
    fn topic(&self, name: &str) -> Option<TopicId>;

    /// The number of the subscriber of a topic that has a name.
    fn subscriber(&self, name: &str, from: TopicId) -> Option<SubscriberId>;

    /// The digest that a version's number stands for, however long ago it ran; `None` where there is no such version.
    fn digest(&self, version: VersionId) -> Option<[u8; 32]>;

    /// What a partition keeps of its keys' states; `None` where there is no such partition.
    fn states(&self, partition: PartitionId) -> Option<Self::Entries>;

    /// What a lane keeps; `None` where there is no such lane.
    fn entries(&self, lane: LaneId) -> Option<Self::Entries>;

    /// Keeps what a partition holds from now on, however short its retention is, until the hold is dropped: for whoever sends
    /// a lane back. `None` where there is no such partition.
    fn hold(&self, partition: PartitionId) -> Option<Hold>;

    /// Offset of the first event that was appended at or after a time; the end where there is none.
    fn offset_at_time(
        &self,
        partition: PartitionId,
        time_ns: u64,
    ) -> impl Future<Output = Result<Offset, ReadError>> + Send;

    /// The clock by which append times go, Unix nanoseconds. It may be set, also back; append times never go back.
    fn now_ns(&self) -> u64;

    /// Trusted time, Unix nanoseconds: what the age of events, windows and timers are measured by, as
    /// [`Stored::trusted_time_ns`] has it. It never goes back, goes on by what really passes, and does not follow a clock
    /// that jumps.
    fn trusted_now_ns(&self) -> u64;

    /// A folder for snapshots of what lanes keep, as durable as all else; `None` where the engine has none.
    fn snapshots(&self) -> Option<Arc<dyn Disk>>;

    /// How it is with what it keeps things on.
    fn storage(&self) -> Storage;

    /// Somebody says that the machine's clock is right: what waited for that may expire. Whether anything had waited.
    fn confirm_clock(&self) -> bool;

    /// Whether it serves, and every change of that.
    fn health(&self) -> tokio::sync::watch::Receiver<Health>;

    /// Makes everything that was accepted durable and stops. Later calls do nothing.
    fn close(&self) -> impl Future<Output = Result<(), Stopped>> + Send;
}

/// How it is with what an engine keeps things on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    /// There is room for events from outside, though perhaps for small publishes only: see [`Self::room`].
    pub takes_events: bool,
    /// There is room for what handlers emit; where there is not, their lanes wait.
    pub takes_outputs: bool,
    /// The clock has jumped ahead by so much, and nothing expires until [`Engine::confirm_clock`].
    pub clock_jumped: Option<Duration>,
    /// How much room there is; `None` where that is not known.
    pub room: Option<Room>,
    /// Events that are to be kept and cannot be read, since the file that has them is gone.
    pub missing: Vec<MissingEvents>,
}

impl Default for Storage {
    /// All is well, and it is not known how much room there is.
    fn default() -> Self {
        Self { takes_events: true, takes_outputs: true, clock_jumped: None, room: None, missing: Vec::new() }
    }
}

impl Storage {
    /// The largest publish that is taken, where that is less than a publish may be: larger ones are refused until there is room.
    pub fn publish_bytes_max(&self) -> Option<u64> {
        let most = self.room?.publish_bytes;
        (most < limits::MESSAGE_BYTES_MAX as u64).then_some(most)
    }
}

/// How much room there is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// What is left, beyond what was taken in already.
    pub left_bytes: u64,
    /// What of it is kept for handlers, and for what makes room again: publishes do not get it.
    pub reserve_bytes: u64,
    /// The largest publish that is taken.
    pub publish_bytes: u64,
}

/// Events of a file that is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingEvents {
    /// The path of the file.
    pub file: String,
    /// The full name of the topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// Offset of the first of them.
    pub first_offset: Offset,
    /// Offset of the last of them.
    pub last_offset: Offset,
}

/// Where an append went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the first event of each slice, of those that were not published before.
    pub base_offsets: Vec<Offset>,
    /// Those that were published before, in the order of slices and events.
    pub duplicates: Vec<Duplicate>,
    /// Those that went elsewhere, since their state may not follow now; in the same order.
    pub aside: Vec<SetAside>,
    /// The recovery epoch: an offset of another epoch may be another event.
    pub epoch: u32,
}

/// Where an event of an append is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Its partition.
    pub partition: u32,
    /// Its offset; `None` where it was published before, and only that is known.
    pub offset: Option<Offset>,
    /// It was published before.
    pub is_duplicate: bool,
}

impl Appended {
    /// The partition that took an event instead of its own.
    pub fn aside(&self, slice: usize, record: u32) -> Option<&SetAside> {
        let at = |set: &SetAside| (set.slice as usize, set.record);
        let found = self.aside.binary_search_by_key(&(slice, record), at).ok()?;
        self.aside.get(found)
    }

    /// Where an event is: the `record`-th one of the `slice`-th slice, which was for `partition`. Of one that went elsewhere,
    /// where it is there.
    pub fn place(&self, slice: usize, record: u32, partition: u32) -> Placement {
        let at = (slice, record);
        let base_offset = |slice: usize| self.base_offsets.get(slice).copied().unwrap_or(0);
        let place = |duplicate: &Duplicate| (duplicate.slice as usize, duplicate.record);
        let in_front = self.duplicates.partition_point(|duplicate| place(duplicate) < at);
        if let Some(first) = self.duplicates.get(in_front).filter(|duplicate| place(duplicate) == at) {
            return Placement { partition: first.partition, offset: first.offset, is_duplicate: true };
        }
        if let Some(SetAside { to, at: (slice, record), .. }) = self.aside(slice, record) {
            let offset = base_offset(*slice as usize) + Offset::from(*record);
            return Placement { partition: to.partition, offset: Some(offset), is_duplicate: false };
        }
        let set_before = |at: (usize, u32)| self.aside.partition_point(|set| (set.slice as usize, set.record) < at);
        let aside_in_front = set_before(at) - set_before((slice, 0));
        let of_slice = self.duplicates.partition_point(|duplicate| duplicate.slice < slice as u32);
        let offset = base_offset(slice) + Offset::from(record) - (in_front - of_slice + aside_in_front) as Offset;
        Placement { partition, offset: Some(offset), is_duplicate: false }
    }
}

/// The owner of a lane.
pub trait Session: Send + 'static {
    /// The lane's durable position when the session was acquired, then the position up to which it has read.
    fn next_offset(&self) -> Offset;

    /// The next events, waiting until there is one. Chunks are in order and never empty.
    fn read(&mut self, budget: ReadBudget) -> impl Future<Output = Result<Vec<Chunk>, SessionError>> + Send;

    /// Hands in the next unit. Resolves when the engine has taken it (not when it is written or durable), so units can
    /// be pipelined; a unit that fails later makes the next call fail. One whose emits are guarded is taken when its verdict
    /// is there; where that is [`SessionError::Guard`], nothing of it happened.
    fn commit(&mut self, unit: Unit) -> impl Future<Output = Result<(), SessionError>> + Send;

    /// Resolves when all units that were handed in before, by whichever session, are committed, and as durable as the
    /// engine's setting promises.
    fn sync(&mut self) -> impl Future<Output = Result<(), SessionError>> + Send;

    /// Resolves when all units that were handed in are committed.
    fn flush(&mut self) -> impl Future<Output = Result<(), SessionError>> + Send;
}
