//! The bounds that several parts share, each with its reason; relations between them are asserted below. What only one door
//! has is beside it: `server/bounds.rs` for connections, `topology/bounds.rs` for files, `wasm/limits.rs` for plugins.

use std::time::Duration;

/// Largest event in bytes, encoded. CloudEvents asks for 64 KiB at least; 1 MiB is what brokers are used with.
pub const EVENT_BYTES_MAX: usize = 1 << 20;
/// Most events in one publish call; with less overhead there is nothing left to gain.
pub const PUBLISH_EVENTS_MAX: usize = 10_000;
/// Longest name of a producer that numbers its events, in bytes: room for a host name and what runs there.
pub const PRODUCER_BYTES_MAX: usize = 255;
/// Largest gRPC message in bytes, either way: several events of the largest size.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;
/// Largest unit or append in bytes of records: one frame of the journal. A message's worth, and the keys beside it.
pub const UNIT_BYTES_MAX: usize = 32 << 20;

/// Largest capsule of a failed event in bytes: the largest event and all reads that are remembered, both as text.
pub const CAPSULE_BYTES_MAX: usize = 16 << 20;
/// Bytes of capsules that are kept of one subscriber, however many it may have.
pub const CAPSULES_BYTES_MAX: u64 = 64 << 20;
/// Capsules that wait to be written, each with its event: a flood of failures makes as many as the disk takes.
pub const CAPSULES_QUEUED_MAX: usize = 4;
const _: () = assert!(EVENT_BYTES_MAX * 4 / 3 < CAPSULE_BYTES_MAX && CAPSULE_BYTES_MAX as u64 <= CAPSULES_BYTES_MAX);

/// Bytes of events, and of what is recorded of them, that are held to compare two versions of a plugin over them.
pub const SHADOW_BYTES_MAX: usize = 256 << 20;

/// Edits at which a name still counts as a misspelling of another.
pub const SUGGESTION_EDITS_MAX: usize = 2;
/// Bytes of an unknown name that a message repeats; the longest full name of a topic has fewer.
pub const NAME_SHOWN_BYTES_MAX: usize = 255;

/// Bytes of producers' events that wait for the disk: some hundred syncs' worth.
pub const PRODUCER_QUEUE_BYTES_MAX: usize = 64 << 20;
/// Bytes of lanes' units that wait for the disk. A budget of their own, so that producers cannot starve the tree.
pub const LANE_QUEUE_BYTES_MAX: usize = 64 << 20;
/// Submissions of each kind that wait for the disk.
pub const QUEUE_SUBMISSIONS_MAX: usize = 16 * 1024;
/// What a producer that was refused is told to wait: a few large groups at the speed of a slow disk.
pub const PRODUCER_RETRY_AFTER: Duration = Duration::from_millis(50);

/// How long room is left for a large publish that found none: it is told to come back sooner than that, over slow networks too.
pub const PRODUCER_ROOM_LEFT_FOR: Duration = Duration::from_millis(250);
const _: () = assert!(PRODUCER_RETRY_AFTER.as_millis() * 4 <= PRODUCER_ROOM_LEFT_FOR.as_millis());

/// What a producer is told to wait where the disk is full: somebody has to do something about it.
pub const FULL_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Bytes of the recent part of the journal that stay in memory, for lanes that keep up and for what goes into segments next:
/// what is not there yet fills it at the most.
pub const TAIL_BYTES_MAX: usize = 16 << 20;
/// Bytes of journal after which they go into segments: a quarter, so that the next ones come in meanwhile.
pub const MOVE_BYTES: usize = 4 << 20;
/// The same where it is of few partitions.
pub const MOVE_BYTES_MIN: usize = 512 << 10;
/// Bytes of journal after which a checkpoint is made: enough for its syncs not to matter. Twice as many, and what is in
/// memory, is what a start has to read at the most.
pub const CHECKPOINT_BYTES: usize = 64 << 20;
/// Numbers of producers, positions and entries that wait for a checkpoint: it is made when there are more, since they
/// wait in memory.
pub const CHECKPOINT_ENTRIES: usize = 64 << 10;
/// The same in bytes of what lanes keep.
pub const CHECKPOINT_ENTRIES_BYTES: usize = 8 << 20;
/// The same in bytes of identities: those of some 200,000 events, so that a checkpoint is mostly made for other reasons.
pub const CHECKPOINT_IDENTITIES_BYTES: usize = 8 << 20;
/// Identities up to which runs in the state store are joined when the next one is written: some MiB, that are written
/// again each time that their number doubles.
pub const IDENTITIES_RUN_MAX: usize = 64 << 10;
/// Bits of the fingerprint of an identity in memory. With so many, one new event in 3,000 costs a needless look into the
/// state store where 10 million are recognised, and each takes about 3 bytes.
pub const IDENTITIES_FINGERPRINT_BITS: u32 = 35;
/// Bytes of such fingerprints in memory: of some 80 million events. What is older than those is looked for in the state
/// store each time.
pub const IDENTITIES_FILTER_BYTES_MAX: usize = 256 << 20;
/// Producers that number their events, by partition, whose last number is in memory: some 100 bytes each. A call of another
/// one costs a look into the state store.
pub const PRODUCERS_CACHED_MAX: usize = 100_000;
/// Bytes that one group commit writes at the most, so that acks of small publishes do not wait for long.
pub const GROUP_BYTES_MAX: usize = 2 << 20;
/// The same on the smallest disks, whose journal files are smaller still: a sync has to be for more than one event.
pub const SMALL_GROUP_BYTES_MAX: usize = 64 << 10;
/// Bytes of frames that a caller writes itself in place of waking the appender's thread: encoding and writing them takes a few
/// tens of microseconds, no longer than to wake it would.
pub const CALLER_GROUP_BYTES_MAX: usize = 64 << 10;
/// Groups that a caller writes one after another, those of others as well, before the appender's thread takes over.
pub const CALLER_GROUPS_MAX: usize = 4;
/// Length in bytes of a journal file. A checkpoint lets about one go.
pub const JOURNAL_FILE_BYTES: u64 = 64 << 20;
/// The part of a small disk that one journal file takes at the most.
pub const JOURNAL_FILE_PART: u64 = 32;
/// Spare journal files: one for the next, and their room is what a full disk falls back on. More would not be used.
pub const SPARE_FILES_MAX: usize = 1;
/// Bytes of zeroes that are written at once to make a spare file.
pub const SPARE_WRITE_BYTES: usize = 1 << 20;
/// Bytes at which a segment is closed: what retention removes at once, and what an index covers.
pub const SEGMENT_BYTES: u64 = 64 << 20;
/// Bytes that are written to a segment at once: few calls, little memory.
pub const SEGMENT_WRITE_BYTES: usize = 512 << 10;
/// Bytes of a segment that the disk is told to begin to write at once: less would be the same pages again and again.
pub const SEGMENT_BEGIN_BYTES: u64 = 64 << 10;
/// A page of the system's cache in bytes.
pub const PAGE_BYTES: u64 = 4096;
/// Segments that stay open from their first write to the checkpoint that syncs them: that many syncs take some tens of
/// milliseconds.
pub const UNSYNCED_FILES_MAX: usize = 256;
/// How often the disk is told to begin to write a part of the segments that were moved, while there is more.
pub const SEGMENTS_BEGUN_EVERY: Duration = Duration::from_millis(10);
/// The part of them.
pub const SEGMENTS_BEGUN_PART: u64 = 16;
/// The least of it in bytes: what a disk writes within a millisecond.
pub const SEGMENTS_BEGUN_AT_ONCE_BYTES: u64 = 128 << 10;
/// Bytes that may wait for that.
pub const SEGMENTS_BEGUN_LATER_BYTES_MAX: u64 = 8 << 20;
/// Parts of a retention (in age or size) after which a segment is closed, so that the oldest part can go.
pub const RETENTION_PARTS: u32 = 8;
/// The shortest time after which a segment is closed for its age.
pub const SEGMENT_AGE_MIN: Duration = Duration::from_secs(1);
/// Bytes of events in a block of a segment: what is read, checked and decompressed at once, and what one damaged byte costs.
pub const BLOCK_BYTES: usize = 64 << 10;
/// Bytes that a cold read takes from the disk at once: several blocks.
pub const COLD_READ_BYTES: usize = 512 << 10;
/// The same where so many read that there is no room for that: a block of small events, with the heads of its parts.
pub const COLD_READ_BYTES_MIN: usize = BLOCK_BYTES + (4 << 10);
/// Bytes of segments that are kept for all who read what is no longer in memory: a large window for each of 64 that are
/// behind, or a block for each of some 500.
pub const COLD_CACHE_BYTES: usize = 32 << 20;
/// Segments that are kept open for reading. Well below the 256 descriptors that the tightest systems give.
pub const OPEN_SEGMENTS_MAX: usize = 32;
/// Bytes of the state store that are cached.
pub const STATE_CACHE_BYTES: usize = 4 << 20;
/// How often it is looked what may expire, and all that waits is checkpointed.
pub const RETENTION_EVERY: Duration = Duration::from_secs(10);
/// How soon a checkpoint that found no room is tried again.
pub const CHECKPOINT_RETRY_AFTER: Duration = Duration::from_millis(200);
/// The same where opening the state store again takes long.
pub const CHECKPOINT_RETRY_MAX: Duration = Duration::from_secs(5);
/// How soon a read that found no descriptor for its file is tried again.
pub const DESCRIPTOR_RETRY_AFTER: Duration = Duration::from_millis(100);
/// How often it is looked how much room the disk has, by time and by bytes written.
pub const SPACE_LOOK_EVERY: Duration = Duration::from_millis(100);
/// See [`SPACE_LOOK_EVERY`].
pub const SPACE_LOOK_BYTES: u64 = 1 << 20;
/// The part of the disk that is each of the three reserves in front of it being full, where that is not more than
/// [`SPACE_RESERVE_BYTES_MAX`].
pub const SPACE_RESERVE_PART: u64 = 64;
/// See [`SPACE_RESERVE_PART`].
pub const SPACE_RESERVE_BYTES_MAX: u64 = 64 << 20;
/// A wall clock that jumps ahead by more than this is not believed until somebody confirms it.
pub const CLOCK_JUMP_MAX: Duration = Duration::from_secs(24 * 3600);
/// By one part in so many trusted time goes faster or slower than time, to come nearer to the wall clock: so much a duration
/// may be wrong. Three minutes are taken over within five hours.
pub const CLOCK_MELTS_PART: u64 = 100;
/// A bus in which nothing happens notes the time this often, so that the next start does not take it to have been off.
pub const CLOCK_NOTED_EVERY: Duration = Duration::from_secs(3600);
/// How long the appender waits for room before it looks again whether the log still works.
pub const ROOM_LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often it looks again where the log is told to close: five seconds. Room that is made at all while the end of the
/// process is waited for is made by then.
pub const CLOSE_LOOKS_MAX: u32 = 100;
/// Groups that are written and not durable: what a disk that hangs lets pile up.
pub const UNSYNCED_GROUPS_MAX: usize = 16 * 1024;
/// How long units of lanes that no reader outside waits for stay without a sync, if nothing else asks for one. After a loss of
/// power within that time their events are handled once more; no client has seen their outputs.
pub const SYNC_AFTER: Duration = Duration::from_millis(5);
/// After this long without work the engine writes a mark, which tells the next start what was durable.
pub const IDLE_MARK_AFTER: Duration = Duration::from_millis(200);

/// The shortest pause that a handler may ask for: an event that it gives back at once, again and again, has others called
/// between.
pub const RETRY_PAUSE_MIN: Duration = Duration::from_millis(10);
/// The longest pause that a handler may ask for, unless the topology's own are longer: the events of the key stand still
/// meanwhile, and what is to be later than that is an event with `delay`.
pub const RETRY_PAUSE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Events that one call of a handler gets at the most: PLUGINS measurements show nearly all gain at 16 already.
pub const BATCH_EVENTS_MAX: u32 = 256;
/// Bytes of records that one call of a handler gets, unless one event alone has more.
pub const BATCH_BYTES_MAX: usize = 1 << 20;

/// Entries of a handler's state that are looked at between two batches because they have expired, or twice as many as the
/// batch wrote, so that this keeps up.
pub const STATE_SWEEP_ENTRIES: usize = 1024;
/// Entries that one unit deletes when a state is emptied.
pub const SEEK_WRITES_MAX: usize = 10_000;
/// The pause before a lane that could not go on is started again, at first. It doubles each time.
pub const LANE_RESTART_MIN: Duration = Duration::from_millis(100);
/// The longest one, where the fault may stay: each start reads what the lane keeps.
pub const LANE_RESTART_MAX: Duration = Duration::from_secs(60);
/// The longest one where the fault passes by itself: so soon a lane goes on once there is room.
pub const LANE_LOOK_MAX: Duration = Duration::from_secs(1);
/// How long who tells something to a lane that cannot be started again waits for an answer.
pub const LANE_ANSWERS_WITHIN: Duration = Duration::from_secs(1);
/// Identities that a group of subscribers remembers per partition, whatever its topic's `dedupe` says: about 1 GiB on the disk.
pub const CLAIM_IDENTITIES_MAX: u64 = 10_000_000;
/// Rows of topics that are gone for good that a checkpoint removes at the most: some ten milliseconds of it.
pub const GONE_ROWS: usize = 10_000;
/// Bytes of such rows: large ones are read as they are removed.
pub const GONE_BYTES: usize = 16 << 20;
/// Topics that are gone for good of which a checkpoint removes rows: it looks for some ten kinds of each.
pub const GONE_TOPICS: usize = 100;
/// Producers of a topic that each checkpoint looks at to find those that are to be forgotten: a millisecond of it.
pub const PRODUCERS_LOOKED_AT: usize = 1024;
/// Rows of a topic's producers, one for each partition, that a checkpoint removes at the most.
pub const PRODUCERS_FORGOTTEN_ROWS: usize = 16 * 1024;
/// Commands that wait for a lane.
pub const LANE_COMMANDS_MAX: usize = 16;
/// How far away an event that is to come later may be.
pub const DELAY_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
/// Of those that wait for the clock to be confirmed so many are counted: each is read for that.
pub const AWAITS_CLOCK_COUNTED: usize = 256;
/// How often the clock is looked at while one waits, since it may be set.
pub const DELAY_LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long after a delivery of what is due the next one begins at the earliest, unless more was due already. Where thousands
/// come due in a second they go in units of several, and each is late by no more than a few tenths of a millisecond.
pub const DELAYED_UNITS_APART: Duration = Duration::from_micros(100);
/// How long a publish may be made again of which it is not known what became of it: who tries for half of this has time for
/// the last attempt, and as topics are by default they recognise what is published twice for twice as long.
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
/// Bytes of events whose data is read on a thread that serves others as well: some milliseconds.
pub const DATA_READ_AT_ONCE_BYTES_MAX: usize = 256 << 10;
/// Events and bytes of them that a subscriber asks a slow `when` about before it looks for commands: at most half a second.
pub const SLOW_READ_EVENTS_MAX: u32 = 16;
/// See [`SLOW_READ_EVENTS_MAX`].
pub const SLOW_READ_BYTES_MAX: usize = 256 << 10;
