//! Every bound and default of a topology, each with its reason.
//!
//! Bounds protect those who check files of others: a hostile file costs at most tens of milliseconds and
//! about 16 MiB before it is refused. They are far above what a topology that people maintain by hand needs.

use std::time::Duration;

use crate::limits;

/// Longest text of one file, in bytes. 10,000 topics with 10,000 subscribers are about 2 MiB.
pub const TEXT_BYTES_MAX: usize = 4 << 20;

/// Most YAML nodes that are written out in one file: about 50 ms to parse, in a table of 5 MiB. 10,000 topics
/// with 10,000 subscribers have about 150,000; more of everything goes into several files.
pub const NODES_MAX: usize = 250_000;

/// Most uses of anchors (`*name`) in one file.
pub const ALIASES_MAX: usize = 1_000;

/// Most nodes that the uses of anchors stand for, were they written out: what a "billion laughs" file multiplies.
pub const ALIASED_NODES_MAX: u64 = 50_000;

/// Deepest nesting of mappings and lists, through anchors too. The deepest a topology needs is 6.
pub const DEPTH_MAX: u32 = 32;

/// Nesting at which the YAML scanner itself gives up. It looks ahead of the events that [`DEPTH_MAX`] is counted on, so
/// it is a little higher, to let ours speak first.
pub(crate) const SCANNER_DEPTH_MAX: usize = 64;
const _: () = assert!(SCANNER_DEPTH_MAX > DEPTH_MAX as usize);

/// Longest name of a namespace, topic, subscriber or port, in bytes. With `/` and `.dead` a full name stays below the
/// 255 bytes that file systems and other message systems allow.
pub const NAME_BYTES_MAX: usize = 120;
const _: () = assert!(2 * NAME_BYTES_MAX + "/.dead".len() <= 255);

/// Ending of the name of the topic with a subscriber's dead letters.
pub const DEAD_LETTERS_SUFFIX: &str = ".dead";

/// Longest CEL expression, in bytes: the compiler of expressions is not linear.
pub const EXPRESSION_BYTES_MAX: usize = 4 << 10;

/// Deepest nesting of an expression: each level is a few calls on the stack of its evaluation.
pub const EXPRESSION_DEPTH_MAX: usize = 96;

/// Longest JSON Schema of a topic's data, in bytes: it compiles in some milliseconds. Generated ones have some ten KiB.
pub const DATA_SCHEMA_BYTES_MAX: usize = 256 << 10;

/// Most errors, and most warnings, that one check reports. More are not read, and each takes a few hundred bytes.
pub const PROBLEMS_MAX: usize = 1_000;

/// Most edits between an unknown name and a suggestion for it.
pub(crate) const SUGGESTION_EDITS_MAX: usize = 2;

/// Most suggestions that one check computes: each compares with every known name.
pub(crate) const SUGGESTIONS_MAX: usize = 64;

/// Most cycles that are reported among vertices that all reach each other; breaking those shows the rest.
pub(crate) const CYCLES_REPORTED_MAX: usize = 8;

/// Events that a new version of a plugin has to handle before its trial can end: a few batches.
pub const TRIAL_EVENTS_DEFAULT: u32 = 1_000;
/// How long a trial lasts at least: long enough for people to look.
pub const TRIAL_TIME_DEFAULT: Duration = Duration::from_secs(60);
/// How long a trial lasts at most, however few events there are: a topic that is quiet for that long tells nothing
/// more.
pub const TRIAL_AT_MOST_DEFAULT: Duration = Duration::from_secs(60 * 60);

/// Most patterns in the schema of a plugin's configuration: each is compiled on its own.
pub(crate) const CONFIG_PATTERNS_MAX: usize = 100;
/// Most bytes of one of them, compiled: a million characters and sets are enough for a value, and take milliseconds.
pub(crate) const CONFIG_PATTERN_BYTES_MAX: usize = 1 << 20;

/// Partitions of a topic that does not say.
pub const PARTITIONS_DEFAULT: u32 = 1;

/// Most partitions of a topic: each is a lane per subscriber.
pub const PARTITIONS_MAX: u32 = 1_024;

/// Age up to which events are kept of a topic that bounds neither age nor size: time to find a mistake after a weekend
/// and to run its events again, and an end to what the disk has to hold.
pub const RETENTION_AGE_DEFAULT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Time during which a root that does not say recognises events: longer than a producer keeps trying to get rid of one
/// whose outcome it does not know.
pub const DEDUPE_WINDOW_DEFAULT: Duration = Duration::from_secs(2 * 60);
/// Most later events for which an event is recognised: each takes some 3 bytes of memory and 44 of the disk, for every
/// root.
pub const DEDUPE_COUNT_MAX: u32 = 1_000_000_000;

/// The shortest time after which producers may be forgotten: the clock of a new producer may be late by as much.
pub const FORGET_MIN: Duration = Duration::from_secs(60 * 60);

/// Memory of one plugin instance that does not say, in bytes.
pub const MEMORY_BYTES_DEFAULT: u64 = 64 << 20;
/// Least memory of a plugin instance, in bytes: below it the runtimes of most languages do not start.
pub const MEMORY_BYTES_MIN: u64 = 1 << 20;
/// Most memory of a plugin instance, in bytes: what a 32-bit Wasm memory can address.
pub const MEMORY_BYTES_MAX: u64 = 4 << 30;

/// Time per event for a plugin that does not say.
pub const TIME_DEFAULT: Duration = Duration::from_secs(1);
/// Least time per event: deadlines are kept to about this.
pub const TIME_MIN: Duration = Duration::from_millis(1);
/// Most time per event. Longer work belongs outside of a handler.
pub const TIME_MAX: Duration = Duration::from_secs(60 * 60);

/// Output per event for a plugin that does not say, in bytes.
pub const OUTPUT_BYTES_DEFAULT: u64 = 1 << 20;
/// Least output per event, in bytes.
pub const OUTPUT_BYTES_MIN: u64 = 1;
/// Most output per event, in bytes: a unit with it still has to fit into memory a few times.
pub const OUTPUT_BYTES_MAX: u64 = 1 << 30;

/// Log lines per second for a plugin that does not say: as many as people can follow.
pub const LOG_LINES_DEFAULT: u32 = 100;
/// Most log lines per second: more than that is data, and belongs into a topic.
pub const LOG_LINES_MAX: u32 = 100_000;
const _: () = assert!(LOG_LINES_DEFAULT <= LOG_LINES_MAX);

/// Attempts per event, counting the first.
pub const ATTEMPTS_DEFAULT: u32 = 5;
/// Most attempts per event.
pub const ATTEMPTS_MAX: u32 = 1_000;

/// Pause before the second attempt.
pub const BACKOFF_INITIAL_DEFAULT: Duration = Duration::from_millis(100);
/// Longest pause between attempts.
pub const BACKOFF_MAX_DEFAULT: Duration = Duration::from_secs(30);
/// By what the pause grows with each attempt.
pub const BACKOFF_FACTOR_DEFAULT: f64 = 2.0;
/// Most that the pause may grow by.
pub const BACKOFF_FACTOR_MAX: f64 = 100.0;

/// Capsules that are kept of a subscriber that does not say: enough to see the problem and to try a fix.
pub const CAPSULES_DEFAULT: u32 = 10;
/// Most capsules of a subscriber: each is a file.
pub const CAPSULES_MAX: u32 = 1_000;
const _: () = assert!(CAPSULES_DEFAULT <= CAPSULES_MAX);

/// Events of a lane that may wait for another attempt, or parked: more means that something is broken for everybody,
/// and then it is better that the lane stands still.
pub const WAITING_EVENTS_DEFAULT: u32 = 10_000;
/// Most events that may wait: each is looked at when its key comes again, so something is remembered of all.
pub const WAITING_EVENTS_MAX: u32 = 1_000_000;
const _: () = assert!(WAITING_EVENTS_DEFAULT <= WAITING_EVENTS_MAX);
/// Bytes of a lane's events that may wait, of a subscriber that does not say.
pub const WAITING_BYTES_DEFAULT: u64 = 16 << 20;
/// Least bytes that may wait: room for the largest event, or a key that fails with one could never step aside.
pub const WAITING_BYTES_MIN: u64 = limits::EVENT_BYTES_MAX as u64;
/// Most bytes that may wait: what one lane may ask of a machine.
pub const WAITING_BYTES_MAX: u64 = 1 << 30;
const _: () = assert!(WAITING_BYTES_MIN <= WAITING_BYTES_DEFAULT && WAITING_BYTES_DEFAULT <= WAITING_BYTES_MAX);

/// How long a member of a group that is paused or halted keeps what it has claimed and not begun: longer than a deploy
/// or a look at what is wrong takes, and short enough for those events to be done before their callers give up.
pub const QUEUE_GROUP_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5 * 60);

/// Longest that a call waits for more events. Longer waits are for timers, not for lanes.
pub const BATCH_WAIT_MAX: Duration = Duration::from_secs(60 * 60);

/// Bytes of state that a plugin may keep per partition, where it does not say.
pub const STATE_BYTES_DEFAULT: u64 = 256 << 20;

/// Longest duration anywhere in a topology: a hundred years, which leaves room to add such durations up.
pub const DURATION_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
/// Keys of each partition whose lifecycle may have begun and not ended.
pub const LIFECYCLE_KEYS_DEFAULT: u32 = 1_000_000;
/// The most that a topology may allow: each is an entry on the disk.
pub const LIFECYCLE_KEYS_MAX: u32 = 1_000_000_000;
/// How long the end of a key's lifecycle is remembered: longer than anybody sends an event again on purpose.
pub const REMEMBER_DEFAULT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Ends of each partition that are remembered: some 120 bytes of the disk for each.
pub const REMEMBERED_DEFAULT: u32 = 1_000_000;
/// Events of each partition that are held until their key is in another state.
pub const HELD_DEFAULT: u32 = 10_000;
/// Most events that may be held: something in memory is remembered of all.
pub const HELD_MAX: u32 = 1_000_000;
const _: () = assert!(HELD_DEFAULT <= HELD_MAX);
