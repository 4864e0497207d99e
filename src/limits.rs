//! The bounds that several parts share, each with its reason; relations between them are asserted below. What only one door
//! has is beside it: `server/bounds.rs` for connections, `topology/bounds.rs` for files, `wasm/limits.rs` for plugins.

use std::time::Duration;

/// Largest event in bytes, encoded. CloudEvents asks for 64 KiB at least; 1 MiB is what brokers are used with.
pub const EVENT_BYTES_MAX: usize = 1 << 20;
/// Most events in one publish call; with less overhead there is nothing left to gain.
pub const PUBLISH_EVENTS_MAX: usize = 10_000;
/// Largest gRPC message in bytes, either way: several events of the largest size.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;
/// Largest unit or append in bytes of records: one frame of the journal. A message's worth, and the keys beside it.
pub const UNIT_BYTES_MAX: usize = 32 << 20;

/// Edits at which a name still counts as a misspelling of another.
pub const SUGGESTION_EDITS_MAX: usize = 2;
/// Bytes of an unknown name that a message repeats; the longest full name of a topic has fewer.
pub const NAME_SHOWN_BYTES_MAX: usize = 255;

/// Bytes of producers' events that wait for the disk: some hundred syncs' worth.
pub const PRODUCER_QUEUE_BYTES_MAX: usize = 64 << 20;
/// Bytes of lanes' units that wait for the disk. A budget of their own, so that producers cannot starve the tree.
pub const LANE_QUEUE_BYTES_MAX: usize = 64 << 20;
/// Submissions of either kind that wait for the disk.
pub const QUEUE_SUBMISSIONS_MAX: usize = 16 * 1024;
/// What a producer that was refused is told to wait: a few large groups at the speed of a slow disk.
pub const PRODUCER_RETRY_AFTER: Duration = Duration::from_millis(50);

/// Bytes of the recent part of the journal that stay in memory for lanes that keep up.
pub const TAIL_BYTES_MAX: usize = 32 << 20;
/// Bytes that one group commit writes at the most, so that acks of small publishes do not wait for long.
pub const GROUP_BYTES_MAX: usize = 2 << 20;
/// Size in bytes at which a journal file is closed and the next one begun.
pub const JOURNAL_FILE_BYTES: u64 = 64 << 20;
/// Bytes of journal between two entries of a partition in the sparse index: what a cold read skips at the most.
pub const INDEX_STRIDE_BYTES: u64 = 256 << 10;
/// Bytes that a cold read takes from the disk at once.
pub const COLD_READ_BYTES: usize = 256 << 10;
/// Groups that are written and not durable: what a disk that hangs lets pile up.
pub const UNSYNCED_GROUPS_MAX: usize = 16 * 1024;
/// After this long without work the engine writes a mark, which tells the next start what was durable.
pub const IDLE_MARK_AFTER: Duration = Duration::from_millis(200);

/// Events that one call of a handler gets at the most: PLUGINS measurements show nearly all gain at 16 already.
pub const BATCH_EVENTS_MAX: u32 = 256;
/// Bytes of records that one call of a handler gets, unless one event alone has more.
pub const BATCH_BYTES_MAX: usize = 1 << 20;

const _: () = assert!(EVENT_BYTES_MAX < MESSAGE_BYTES_MAX);
const _: () =
    assert!(MESSAGE_BYTES_MAX + PUBLISH_EVENTS_MAX * 1100 <= UNIT_BYTES_MAX, "keys, heads and lengths fit too");
const _: () = assert!(UNIT_BYTES_MAX <= PRODUCER_QUEUE_BYTES_MAX && UNIT_BYTES_MAX <= LANE_QUEUE_BYTES_MAX);
const _: () = assert!((UNIT_BYTES_MAX as u64) < JOURNAL_FILE_BYTES);
const _: () = assert!(BATCH_BYTES_MAX >= EVENT_BYTES_MAX);
