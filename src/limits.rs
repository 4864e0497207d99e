//! Bounds that several parts share, each with its reason; relations between them are asserted below. Bounds of one part
//! are in its own module: `server/bounds.rs` for connections, `topology/bounds.rs` for files, `wasm/limits.rs` for
//! plugins.

use std::time::Duration;

/// Largest encoded event in bytes. CloudEvents requires at least 64 KiB; 1 MiB is common for brokers.
pub const EVENT_BYTES_MAX: usize = 1 << 20;
/// Maximum events per publish call; larger batches do not reduce the overhead further.
pub const PUBLISH_EVENTS_MAX: usize = 10_000;
/// Longest name of a producer that numbers its events, in bytes: room for the names of a host and a program.
pub const PRODUCER_BYTES_MAX: usize = 255;
/// Largest gRPC message in bytes, in both directions: several events of the largest size.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;
/// Largest unit or append in bytes of records, which is one frame of the journal: the events of one message, and their
/// keys.
pub const UNIT_BYTES_MAX: usize = 32 << 20;

/// The largest accepted component. Python's is 18 MB; ten times its compile time is still bearable.
pub const COMPONENT_BYTES_MAX: u64 = 64 << 20;

/// Largest capsule of a failed event in bytes: the largest event and all recorded reads, both as text.
pub const CAPSULE_BYTES_MAX: usize = 16 << 20;
/// Maximum total bytes of capsules per subscriber.
pub const CAPSULES_BYTES_MAX: u64 = 64 << 20;
/// Capsules that wait to be written, each with its event: under many failures, the disk limits how many are recorded.
pub const CAPSULES_QUEUED_MAX: usize = 4;
const _: () = assert!(EVENT_BYTES_MAX * 4 / 3 < CAPSULE_BYTES_MAX && CAPSULE_BYTES_MAX as u64 <= CAPSULES_BYTES_MAX);

/// Bytes of events and recorded results that are held to compare two versions of a plugin.
pub const SHADOW_BYTES_MAX: usize = 256 << 20;

/// Maximum edit distance of a suggested spelling.
pub const SUGGESTION_EDITS_MAX: usize = 2;
/// Bytes of an unknown name that a message repeats; the longest full name of a topic is shorter.
pub const NAME_SHOWN_BYTES_MAX: usize = 255;

/// Bytes of producers' events that wait for the disk: some hundred syncs.
pub const PRODUCER_QUEUE_BYTES_MAX: usize = 64 << 20;
/// Bytes of lanes' units that wait for the disk: separate, so that producers cannot starve the tree.
pub const LANE_QUEUE_BYTES_MAX: usize = 64 << 20;
/// Submissions of each kind that wait for the disk.
pub const QUEUE_SUBMISSIONS_MAX: usize = 16 * 1024;
/// The pause that a refused producer is asked to make: a few large groups at the speed of a slow disk.
pub const PRODUCER_RETRY_AFTER: Duration = Duration::from_millis(50);

/// How long room is reserved for a large publish that was refused: longer than the pause that its producer is asked to
/// make, also over slow networks.
pub const PRODUCER_ROOM_LEFT_FOR: Duration = Duration::from_millis(250);
const _: () = assert!(PRODUCER_RETRY_AFTER.as_millis() * 4 <= PRODUCER_ROOM_LEFT_FOR.as_millis());

/// The pause that a producer is asked to make if the disk is full: an operator has to act.
pub const FULL_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Bytes of the recent part of the journal that stay in memory, for lanes that keep up and for moves into segments.
/// Data that is not moved yet never exceeds it.
pub const TAIL_BYTES_MAX: usize = 16 << 20;
/// Bytes of journal after which groups are moved into segments: a quarter of the recent part, so that appends continue
/// during a move.
pub const MOVE_BYTES: usize = 4 << 20;
/// The same with few partitions.
pub const MOVE_BYTES_MIN: usize = 512 << 10;
/// Bytes of journal after which a checkpoint is made: the cost of its syncs is then small. A start reads at most twice
/// as much, and the recent part.
pub const CHECKPOINT_BYTES: usize = 64 << 20;
/// Producers' numbers, cursors and entries that wait in memory for a checkpoint before one becomes due.
pub const CHECKPOINT_ENTRIES: usize = 64 << 10;
/// The same in bytes of lanes' entries.
pub const CHECKPOINT_ENTRIES_BYTES: usize = 8 << 20;
/// The same in bytes of identities: those of some 200,000 events, so that checkpoints are usually due for other
/// reasons.
pub const CHECKPOINT_IDENTITIES_BYTES: usize = 8 << 20;
/// Runs in the state store with fewer identities are merged when the next one is written: some MiB, which are rewritten
/// each time their number doubles.
pub const IDENTITIES_RUN_MAX: usize = 64 << 10;
/// Bits of the fingerprint of an identity in memory. With 10 million identities, one new event in 3,000 causes a
/// needless read of the state store, and each identity takes about 3 bytes.
pub const IDENTITIES_FINGERPRINT_BITS: u32 = 35;
/// Bytes of fingerprints in memory: those of some 80 million events. Identities beyond that are looked up in the state
/// store each time.
pub const IDENTITIES_FILTER_BYTES_MAX: usize = 256 << 20;
/// Producers with cached last numbers, counted per partition: some 100 bytes each. A call of another producer costs a
/// read of the state store.
pub const PRODUCERS_CACHED_MAX: usize = 100_000;
/// Maximum bytes of a group commit, so that small publishes do not wait long for their acks.
pub const GROUP_BYTES_MAX: usize = 2 << 20;
/// The same on the smallest disks, whose journal files are smaller still: a sync should cover more than one event.
pub const SMALL_GROUP_BYTES_MAX: usize = 64 << 10;
/// Bytes of frames that a calling thread writes itself instead of waking the appender's thread: encoding and writing
/// them takes a few tens of microseconds, about as long as waking it.
pub const CALLER_GROUP_BYTES_MAX: usize = 64 << 10;
/// Groups that a calling thread writes in succession, including those of other callers, before the appender's thread
/// takes over.
pub const CALLER_GROUPS_MAX: usize = 4;
/// Length of a journal file in bytes. A checkpoint frees about one.
pub const JOURNAL_FILE_BYTES: u64 = 64 << 20;
/// A journal file takes at most this part of a small disk.
pub const JOURNAL_FILE_PART: u64 = 32;
/// Spare journal files: one for the next roll, which also serves as a reserve when the disk is full. More would be
/// unused.
pub const SPARE_FILES_MAX: usize = 1;
/// Bytes per write while a spare file is filled with zeroes.
pub const SPARE_WRITE_BYTES: usize = 1 << 20;
/// Bytes at which a segment is closed: the unit of retention and of an index.
pub const SEGMENT_BYTES: u64 = 64 << 20;
/// Bytes per write to a segment: few calls, little memory.
pub const SEGMENT_WRITE_BYTES: usize = 512 << 10;
/// Minimum bytes of a segment for which writeback is started: smaller parts would write the same pages repeatedly.
pub const SEGMENT_BEGIN_BYTES: u64 = 64 << 10;
/// A page of the system's cache in bytes.
pub const PAGE_BYTES: u64 = 4096;
/// Segments that stay open from their first write to the sync of the checkpoint: this many syncs take some tens of
/// milliseconds.
pub const UNSYNCED_FILES_MAX: usize = 256;
/// How often writeback of a part of the moved segments is started, while there is more.
pub const SEGMENTS_BEGUN_EVERY: Duration = Duration::from_millis(10);
/// One part of the backlog that each step starts.
pub const SEGMENTS_BEGUN_PART: u64 = 16;
/// Minimum bytes per step: what a disk writes within a millisecond.
pub const SEGMENTS_BEGUN_AT_ONCE_BYTES: u64 = 128 << 10;
/// Bytes that may wait for these steps.
pub const SEGMENTS_BEGUN_LATER_BYTES_MAX: u64 = 8 << 20;
/// A segment is closed after this part of a retention (in age or size), so that the oldest part can be removed.
pub const RETENTION_PARTS: u32 = 8;
/// The minimum age at which a segment is closed.
pub const SEGMENT_AGE_MIN: Duration = Duration::from_secs(1);
/// Bytes of events in a block of a segment: the unit of reads, checksums and compression, and the loss by one damaged
/// byte.
pub const BLOCK_BYTES: usize = 64 << 10;
/// Bytes per cold read: several blocks.
pub const COLD_READ_BYTES: usize = 512 << 10;
/// The same with too many readers for that: a block of small events, with the heads of its runs.
pub const COLD_READ_BYTES_MIN: usize = BLOCK_BYTES + (4 << 10);
/// Bytes of the cache for cold reads: a large window for each of 64 readers, or a block for each of some 500.
pub const COLD_CACHE_BYTES: usize = 32 << 20;
/// Segments that are cached open for reading. Well below the 256 descriptors of the tightest systems.
pub const OPEN_SEGMENTS_MAX: usize = 32;
/// Bytes of the state store's cache.
pub const STATE_CACHE_BYTES: usize = 4 << 20;
/// How often expiry is checked, and everything that waits is checkpointed.
pub const RETENTION_EVERY: Duration = Duration::from_secs(10);
/// Pause before a checkpoint that found no room is repeated.
pub const CHECKPOINT_RETRY_AFTER: Duration = Duration::from_millis(200);
/// The same if reopening the state store takes long.
pub const CHECKPOINT_RETRY_MAX: Duration = Duration::from_secs(5);
/// Pause before a read that found no descriptor is repeated.
pub const DESCRIPTOR_RETRY_AFTER: Duration = Duration::from_millis(100);
/// How often the free space of the disk is checked, by time and by bytes written.
pub const SPACE_LOOK_EVERY: Duration = Duration::from_millis(100);
/// See [`SPACE_LOOK_EVERY`].
pub const SPACE_LOOK_BYTES: u64 = 1 << 20;
/// Each of the three reserves of disk space is this part of the disk, but at most [`SPACE_RESERVE_BYTES_MAX`].
pub const SPACE_RESERVE_PART: u64 = 64;
/// See [`SPACE_RESERVE_PART`].
pub const SPACE_RESERVE_BYTES_MAX: u64 = 64 << 20;
/// A wall clock that jumps ahead by more than this is not believed until it is confirmed.
pub const CLOCK_JUMP_MAX: Duration = Duration::from_secs(24 * 3600);
/// Trusted time runs faster or slower by one part in N to approach the wall clock, which bounds the error of a
/// duration. A correction of three minutes takes five hours.
pub const CLOCK_MELTS_PART: u64 = 100;
/// How often an idle bus records the time, so that the next start does not count that time as downtime.
pub const CLOCK_NOTED_EVERY: Duration = Duration::from_secs(3600);
/// How long the appender waits for room before it checks again whether the log still works.
pub const ROOM_LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often it checks while the log is closing: five seconds in all, enough for room that becomes free while the
/// process waits to end.
pub const CLOSE_LOOKS_MAX: u32 = 100;
/// Groups that are written and not durable: the backlog behind a disk that hangs.
pub const UNSYNCED_GROUPS_MAX: usize = 16 * 1024;
/// How long units of lanes may stay unsynced if no outside reader waits for them and nothing else causes a sync. After
/// a power failure within that time their events are handled again; no client has seen their outputs.
pub const SYNC_AFTER: Duration = Duration::from_millis(5);
/// Idle time after which the engine writes a mark, which tells the next start what was durable.
pub const IDLE_MARK_AFTER: Duration = Duration::from_millis(200);

/// The shortest pause that a handler may request: other events get a turn between immediate retries.
pub const RETRY_PAUSE_MIN: Duration = Duration::from_millis(10);
/// The longest pause that a handler may request, unless the topology's own are longer. The events of the key wait
/// meanwhile; for later times there is `delay`.
pub const RETRY_PAUSE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Maximum events per handler call: measurements show nearly all of the gain at 16.
pub const BATCH_EVENTS_MAX: u32 = 256;
/// Bytes of records per handler call, unless a single event is larger.
pub const BATCH_BYTES_MAX: usize = 1 << 20;

/// Expired entries of a handler's state that are checked between two batches, or twice as many as the batch wrote, so
/// that this keeps up.
pub const STATE_SWEEP_ENTRIES: usize = 1024;
/// Entries that one unit deletes when a state is cleared.
pub const SEEK_WRITES_MAX: usize = 10_000;
/// The first pause before a failed lane is restarted. It doubles each time.
pub const LANE_RESTART_MIN: Duration = Duration::from_millis(100);
/// The longest pause if the fault may be permanent: each start reads the lane's entries.
pub const LANE_RESTART_MAX: Duration = Duration::from_secs(60);
/// The longest pause if the fault is temporary, such as a full disk.
pub const LANE_LOOK_MAX: Duration = Duration::from_secs(1);
/// How long a command to a lane that cannot be restarted waits for an answer.
pub const LANE_ANSWERS_WITHIN: Duration = Duration::from_secs(1);
/// Identities that a queue group remembers per partition, regardless of its topic's `dedupe`: about 1 GiB on the disk.
pub const CLAIM_IDENTITIES_MAX: u64 = 10_000_000;
/// Maximum rows of removed topics that a checkpoint deletes: some ten milliseconds.
pub const GONE_ROWS: usize = 10_000;
/// The same in bytes: large rows are read as they are deleted.
pub const GONE_BYTES: usize = 16 << 20;
/// Removed topics whose rows a checkpoint deletes: some ten kinds of rows each.
pub const GONE_TOPICS: usize = 100;
/// Producers per topic that a checkpoint scans for those to forget: about a millisecond.
pub const PRODUCERS_LOOKED_AT: usize = 1024;
/// Maximum rows of a topic's producers, one per partition, that a checkpoint deletes.
pub const PRODUCERS_FORGOTTEN_ROWS: usize = 16 * 1024;
/// Commands that wait for a lane.
pub const LANE_COMMANDS_MAX: usize = 16;
/// Maximum delay of an event.
pub const DELAY_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
/// How many events that wait for a confirmation of the clock are counted: each has to be read.
pub const AWAITS_CLOCK_COUNTED: usize = 256;
/// How often the clock is checked while an event waits, because it may be set.
pub const DELAY_LOOK_EVERY: Duration = Duration::from_secs(1);
/// Minimum time between two deliveries of due events, unless more were due already. Under thousands per second, several
/// share a unit, and each is late by a few tenths of a millisecond at most.
pub const DELAYED_UNITS_APART: Duration = Duration::from_micros(100);
/// How long a publish with an unknown result may be repeated. A client that repeats for half of this has time for the
/// last attempt, and default topics deduplicate for twice as long.
pub const RETRIED_FOR: Duration = Duration::from_secs(60);

const _: () = assert!(EVENT_BYTES_MAX < MESSAGE_BYTES_MAX);
const _: () =
    assert!(MESSAGE_BYTES_MAX + PUBLISH_EVENTS_MAX * 1100 <= UNIT_BYTES_MAX, "keys, heads and lengths fit too");
const _: () = assert!(UNIT_BYTES_MAX <= PRODUCER_QUEUE_BYTES_MAX && UNIT_BYTES_MAX <= LANE_QUEUE_BYTES_MAX);
const _: () = assert!((UNIT_BYTES_MAX as u64) < JOURNAL_FILE_BYTES);
const _: () =
    assert!(CHECKPOINT_BYTES as u64 <= JOURNAL_FILE_BYTES, "checkpoints give files back as fast as they fill");
const _: () = assert!(MOVE_BYTES + 2 * GROUP_BYTES_MAX <= TAIL_BYTES_MAX, "groups come in meanwhile");
const _: () = assert!(BLOCK_BYTES < COLD_READ_BYTES_MIN && COLD_READ_BYTES_MIN <= COLD_READ_BYTES);
const _: () = assert!(COLD_READ_BYTES as u64 <= SEGMENT_BYTES && COLD_READ_BYTES <= COLD_CACHE_BYTES);
const _: () = assert!(BATCH_BYTES_MAX >= EVENT_BYTES_MAX);
/// Bytes of events whose data is read on a shared thread: some milliseconds.
pub const DATA_READ_AT_ONCE_BYTES_MAX: usize = 256 << 10;
/// Events that a subscriber passes to a slow `when` before it checks for commands: at most half a second. See
/// [`SLOW_READ_BYTES_MAX`].
pub const SLOW_READ_EVENTS_MAX: u32 = 16;
/// See [`SLOW_READ_EVENTS_MAX`].
pub const SLOW_READ_BYTES_MAX: usize = 256 << 10;
