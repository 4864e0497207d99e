//! Limits of plugins.
//!
//! Limits that differ between plugins are in [`Limits`] and belong to a version's digest. Properties of the sandbox are
//! constants here, each with its reason.

use std::time::Duration;

use crate::model::call::{Limits, STATE_READS_BYTES_MAX};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// The longest configuration schema of a component, in bytes: some sixty settings with a hundred words each.
pub(super) const CONFIG_SCHEMA_BYTES_MAX: usize = 64 << 10;

/// The largest function that is compiled, in bytes. Interpreters have some of 300 KiB. Compile time grows faster than
/// the size of a function, and cannot be interrupted: see the test `functions_that_are_large_are_compiled_in_bounds`.
pub(super) const FUNCTION_BYTES_MAX: usize = 1 << 20;

/// A function of this size is a large one: compiling 48 KiB of jumps takes 0.1 s of a processor, 160 KiB 0.6 s, 500 KiB
/// 4 s.
pub(super) const LARGE_FUNCTION_BYTES: usize = 128 << 10;

/// The bytes of all large functions of a component: at the worst about a minute of a processor, while later deploys
/// wait. Interpreters have one or two of them.
pub(super) const LARGE_FUNCTIONS_BYTES_MAX: usize = 4 << 20;

/// How often a running plugin yields, and the resolution of its time. A yield costs about a microsecond, so a shorter
/// slice would cost more than it gains in fairness.
pub(super) const TICK: Duration = Duration::from_millis(2);

/// How long a new instance may take to start. Interpreters initialise their runtime then.
pub(super) const INSTANTIATION_TIME: Duration = Duration::from_secs(5);

/// The stack of WebAssembly code, in bytes: wasmtime's default. Deeper recursion is a trap.
pub(super) const STACK_BYTES: usize = 512 * 1024;

/// The stack of the fiber on which a call runs: WebAssembly's share, and as much again for host functions at its end.
pub(super) const FIBER_STACK_BYTES: usize = 1024 * 1024;

const _: () = assert!(FIBER_STACK_BYTES >= 2 * STACK_BYTES, "host functions run at the end of the plugin's stack");

/// Maximum bytes copied in one crossing from the plugin to the host: the results of a batch, or one log line. The
/// default of wasmtime, 128 MiB, would let a plugin use twice its own memory in the bus.
pub(super) const CROSSING_BYTES: u64 = 8 * MIB;

/// The size of result records in a crossing, in addition to their bytes.
pub(super) const CROSSING_SLACK_BYTES: u64 = MIB;

/// Maximum elements of a table: functions that are called by pointer. Rust plugins have a hundred, C# 10,000.
pub(super) const TABLE_ELEMENTS: usize = 20_000;

/// Maximum ports of a plugin: each has to be connected by hand.
pub(super) const PORTS_MAX: usize = 1_000;

/// The longest name of a port, in bytes: no name in a topology is longer.
pub(super) const PORT_NAME_BYTES_MAX: usize = 120;

/// Maximum outputs of one event: even a small output has a cost in the journal.
pub(super) const OUTPUTS_PER_EVENT_MAX: usize = 10_000;

/// Longer log lines are truncated, with a note about their length.
pub(super) const LOG_LINE_BYTES_MAX: usize = 4 * 1024;

/// Maximum random bytes per request. Libraries ask for 32, and for 256 at most.
pub(super) const RANDOM_BYTES_MAX: u64 = MIB;

/// The longest name of a bucket, in bytes: it is repeated in each key on the disk.
pub const STATE_BUCKET_BYTES_MAX: usize = 64;

/// The longest key, in bytes: with longer ones, the pages of a search tree would contain only keys.
pub const STATE_KEY_BYTES_MAX: usize = 1024;

/// The largest value, in bytes, as for events: larger data should be split into values, of which each event changes a
/// few.
pub const STATE_VALUE_BYTES_MAX: usize = 1 << 20;

/// Maximum writes of one event, in bytes of buckets, keys and values: several of the largest values.
pub(super) const STATE_EVENT_BYTES_MAX: usize = 4 << 20;

/// Maximum keys that one event may write, as for outputs: each has a cost for the bus.
pub(super) const STATE_EVENT_WRITES_MAX: usize = 10_000;

/// The cost of one write in addition to its bytes, in bytes, until it is on the disk.
pub(super) const STATE_WRITE_BYTES: usize = 256;

/// Maximum writes of all events of a call together, with 256 bytes more per key: they are held in memory, and become
/// one unit with the outputs. A single event always fits; a larger call is repeated event by event.
pub const STATE_CALL_BYTES_MAX: usize = 16 << 20;

/// The keys per page of `list-keys`.
pub(super) const STATE_PAGE_KEYS: usize = 1_000;

/// Maximum keys per `batch` request: nothing else runs on the thread until it is done.
pub(super) const STATE_BATCH_KEYS_MAX: usize = 1_000;

/// Maximum bytes of values that a `get-many` returns, so that no request costs the bus more than the plugin.
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

/// How far each read advances the monotonic clock, so that a loop that waits for it ends.
pub(super) const CLOCK_STEP_NS: u64 = 1_000;

/// An instance above this share of its memory limit is replaced instead of reused: linear memory never shrinks, so this
/// ends a leak before an event fails.
pub(super) fn memory_mark_bytes(limits: &Limits) -> u64 {
    limits.memory_bytes / 4 * 3
}

/// An instance with more than this share of its maximum handles is replaced, for the same reason.
pub(super) fn handles_mark(limits: &Limits) -> usize {
    usize::try_from(limits.handles / 4 * 3).unwrap_or(usize::MAX)
}

/// Maximum bytes of one crossing for a plugin with these limits: at least the results of a single event.
pub(super) fn crossing_bytes(limits: &Limits) -> usize {
    let bytes = limits.output_bytes.saturating_add(CROSSING_SLACK_BYTES).max(CROSSING_BYTES);
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
