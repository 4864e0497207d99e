//! How much a plugin may use, and what is fixed for all of them.
//!
//! What differs between plugins is in [`Limits`] and belongs to a version's digest. What is a property of the sandbox is
//! a constant here, each with its reason.

use std::time::Duration;

use crate::model::call::{Limits, STATE_READS_BYTES_MAX};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// The largest component that is accepted. Python's is 18 MB; ten times the compile time of that is still bearable.
pub const COMPONENT_BYTES_MAX: u64 = 64 * MIB;

/// The longest schema that a component may declare for its configuration, in bytes: one setting in a hundred words takes one.
pub(super) const CONFIG_SCHEMA_BYTES_MAX: usize = 64 << 10;

/// The largest function that is compiled, in bytes. Interpreters have some of 300 KiB. What the compiler takes for one grows
/// faster than its size, and it cannot be given up: see the test `functions_that_are_large_are_compiled_in_bounds`.
pub(super) const FUNCTION_BYTES_MAX: usize = 1 << 20;

/// How often a running plugin gives way to others, and the grain in which its time is counted. Giving way costs about
/// a microsecond, so that a shorter slice would cost more than it gains in fairness.
pub(super) const TICK: Duration = Duration::from_millis(2);

/// How long a new instance may take to start. Interpreters set up their runtime here.
pub(super) const INSTANTIATION_TIME: Duration = Duration::from_secs(5);

/// The stack of WebAssembly code, in bytes: wasmtime's own default. Deeper recursion is a trap.
pub(super) const STACK_BYTES: usize = 512 * 1024;

/// The stack of the fiber that a call runs on: WebAssembly's share, and as much again for the host functions at its end.
pub(super) const FIBER_STACK_BYTES: usize = 1024 * 1024;

const _: () = assert!(FIBER_STACK_BYTES >= 2 * STACK_BYTES, "host functions run at the end of the plugin's stack");

/// What one crossing from the plugin to the host may copy: a whole batch's results, one log line. The default of
/// wasmtime, 128 MiB, would let a plugin cost the bus twice its own memory.
pub(super) const CROSSING_BYTES: u64 = 8 * MIB;

/// What results weigh beyond their bytes when they cross: the records themselves.
pub(super) const CROSSING_SLACK_BYTES: u64 = MIB;

/// The elements of one table: functions that are called by pointer. Rust plugins have a hundred, C# 10,000.
pub(super) const TABLE_ELEMENTS: usize = 20_000;

/// The ports that a plugin may describe: each has to be connected by hand.
pub(super) const PORTS_MAX: usize = 1_000;

/// The longest name of a port, in bytes: no name of a topology is longer.
pub(super) const PORT_NAME_BYTES_MAX: usize = 120;

/// The outputs that one event may have. Each costs a frame in the journal, however small it is.
pub(super) const OUTPUTS_PER_EVENT_MAX: usize = 10_000;

/// Longer log lines are cut, with a note of how long they were.
pub(super) const LOG_LINE_BYTES_MAX: usize = 4 * 1024;

/// The random bytes that one request may ask for. Libraries ask for 32, and for 256 at most.
pub(super) const RANDOM_BYTES_MAX: u64 = MIB;

/// The longest name of a bucket, in bytes: it is repeated in each key on the disk.
pub const STATE_BUCKET_BYTES_MAX: usize = 64;

/// The longest key, in bytes: longer ones make the pages of a search tree nothing but keys.
pub const STATE_KEY_BYTES_MAX: usize = 1024;

/// The largest value, in bytes, as for events: what is larger is several values, of which each event changes a few.
pub const STATE_VALUE_BYTES_MAX: usize = 1 << 20;

/// What one event may write, in bytes of buckets, keys and values: several of the largest values.
pub(super) const STATE_EVENT_BYTES_MAX: usize = 4 << 20;

/// The keys that one event may write, as for outputs: each costs the bus something, however small it is.
pub(super) const STATE_EVENT_WRITES_MAX: usize = 10_000;

/// What one write costs the bus beyond its bytes, in bytes, until it is on the disk.
pub(super) const STATE_WRITE_BYTES: usize = 256;

/// What all events of a call may write together, with 256 bytes more for each key: it is held in memory, and becomes
/// one unit with the outputs. An event alone always fits; a call that does not is run again, event by event.
pub const STATE_CALL_BYTES_MAX: usize = 16 << 20;

/// The keys of a page of `list-keys`.
pub(super) const STATE_PAGE_KEYS: usize = 1_000;

/// The keys that one request of `batch` may name: nothing else runs on the thread until it is done.
pub(super) const STATE_BATCH_KEYS_MAX: usize = 1_000;

/// What one `get-many` may give, in bytes of values, so that no request costs the bus more than it costs the plugin.
pub(super) const STATE_BATCH_BYTES_MAX: usize = 4 << 20;

const _: () = assert!(STATE_BUCKET_BYTES_MAX + STATE_KEY_BYTES_MAX + STATE_VALUE_BYTES_MAX <= STATE_EVENT_BYTES_MAX);
const _: () = assert!(
    STATE_EVENT_BYTES_MAX + STATE_EVENT_WRITES_MAX * STATE_WRITE_BYTES <= STATE_CALL_BYTES_MAX,
    "an event alone is never the sum that is too large"
);
const _: () =
    assert!((STATE_VALUE_BYTES_MAX + STATE_KEY_BYTES_MAX) as u64 + MIB <= CROSSING_BYTES, "a bit more is refused");
const _: () = assert!(2 * STATE_BATCH_BYTES_MAX <= STATE_READS_BYTES_MAX);
const _: () = assert!(STATE_VALUE_BYTES_MAX <= STATE_BATCH_BYTES_MAX, "any one value can be had");

/// How far a read moves the monotonic clock, so that a loop that waits for it to move ends.
pub(super) const CLOCK_STEP_NS: u64 = 1_000;

/// An instance that grew past this share of its memory limit is replaced rather than used again: linear memory never
/// shrinks, so a leak ends here instead of in a failed event.
pub(super) fn memory_mark_bytes(limits: &Limits) -> u64 {
    limits.memory_bytes / 4 * 3
}

/// An instance that keeps more than this share of the handles that it may have is replaced, for the same reason.
pub(super) fn handles_mark(limits: &Limits) -> usize {
    usize::try_from(limits.handles / 4 * 3).unwrap_or(usize::MAX)
}

/// What one crossing may copy for a plugin with these limits: at least the results of a single event, always.
pub(super) fn crossing_bytes(limits: &Limits) -> usize {
    let bytes = limits.output_bytes.saturating_add(CROSSING_SLACK_BYTES).max(CROSSING_BYTES);
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
