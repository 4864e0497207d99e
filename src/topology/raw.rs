//! What a topology file says, before anything is made of it: the one list of keys.
//!
//! The keys, their descriptions in editors, and unsupported keys are declared here and nowhere else. Adding a key here
//! is enough for it to be read, checked, suggested and documented; [`super::resolve`] gives it meaning.

use super::bounds::{
    ATTEMPTS_MAX, BACKOFF_FACTOR_MAX, BATCH_WAIT_MAX, CAPSULES_MAX, DEDUPE_COUNT_MAX, FORGET_MIN, HELD_MAX,
    LIFECYCLE_KEYS_MAX, LOG_LINES_MAX, MEMORY_BYTES_MAX, MEMORY_BYTES_MIN, OUTPUT_BYTES_MAX, OUTPUT_BYTES_MIN,
    PARTITIONS_MAX, TIME_MAX, TIME_MIN, WAITING_BYTES_MAX, WAITING_BYTES_MIN, WAITING_EVENTS_MAX,
};
use super::reader::{choice, keys};
use super::setting::Setting;
use super::values::{
    ByQuantity, ConditionValue, Count, ExpressionValue, Flag, Host, List, MS_MAX, Name, NamedTable, Number, OrOff,
    OrRefuse, Period, Plugin, Ports, RateValue, SchemaFile, Size, StartValue, Table, Url, Word,
};
use crate::limits::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX};

/// A duration that is not zero.
type Positive = Period<1, MS_MAX>;
type HandlerTime = Period<{ TIME_MIN.as_millis() as u64 }, { TIME_MAX.as_millis() as u64 }>;
type Memory = Size<MEMORY_BYTES_MIN, MEMORY_BYTES_MAX>;
type Output = Size<OUTPUT_BYTES_MIN, OUTPUT_BYTES_MAX>;
type Bytes = Size<1, { u64::MAX }>;
type Forget = Period<{ FORGET_MIN.as_millis() as u64 }, MS_MAX>;
type Many = Count<1, { u32::MAX }>;
type Factor = Number<1_000, { BACKOFF_FACTOR_MAX as u32 * 1_000 }>;

keys! {
    /// Topics, and who subscribes to what. Together they form trees: each topic and each subscriber has at most one
    /// parent.
    struct Topology {
        /// The version of this file's format: `v1`.
        wattle(required): Version,
        /// The namespace. Files with the same name are one namespace.
        name(required): Name,
        /// Durable, partitioned logs of events, by name.
        topics: NamedTable<Topic>,
        /// What consumes topics, by name.
        subscribers: NamedTable<Subscriber>,
    }
}

choice! {
    /// Versions of the format.
    enum Version {
        /// The format that this schema describes.
        V1 = "v1",
    }
}

keys! {
    /// A named, durable, partitioned log of events.
    struct Topic {
        /// Number of partitions. Default 1, or that of the source topic if the topic is the output of a subscriber.
        /// Cannot be changed later.
        partitions: Count<1, PARTITIONS_MAX>,
        /// CEL for the ordering key, for example `data.order_id`. Events with the same key stay in order. Default:
        /// the `partitionkey` of the event, else its subject, else its id.
        key: ExpressionValue,
        /// CEL for the identity of an event, for example `data.order_id + '/' + data.status`: an event with the same
        /// text as a recognised one (see `dedupe`) is not stored again. Events keep their own ids. Allowed where
        /// `dedupe` is. Default: `source` and `id` together.
        id: ExpressionValue,
        /// Minimum time for which events are retained. Default 7 days.
        retention: ByQuantity<Retention>,
        /// How long a published event is recognised when it is published again. Default 2 minutes; `off` recognises
        /// nothing. For roots, since plugins never publish twice; also for topics with a queue group (`queue_group`),
        /// if declared.
        dedupe: OrOff<Dedupe>,
        /// Settings of producers that number their events. For roots.
        producers: Producers,
        /// Compression of older events. Default `none`.
        compression: Compression,
        /// File with a JSON Schema for the data of each event. Events that do not conform are refused on publish, or
        /// fail the event whose handler emitted them. Data must be JSON; the schema can only refer to itself.
        schema: SchemaFile,
        /// Allowed state transitions per key; others are refused.
        lifecycle: Lifecycle,
        /// Maximum number of events not yet consumed by the slowest subscriber, over all partitions. At the maximum,
        /// `when_full` applies to publishes, and subscribers that emit to the topic pause; outputs of calls in
        /// progress may exceed it. Default: unlimited.
        backlog: Many,
        /// Behaviour of a publish when the backlog is full. For roots with a `backlog`. Default `reject`.
        when_full: WhenFull,
        /// Former name of a renamed topic, which keeps its events and data. Has no effect after the rename.
        renamed_from formerly "was": Name,
    }
}

keys! {
    /// Retention of events: the oldest are deleted when either bound is exceeded. Events not yet consumed by a
    /// subscriber stay, unless `force` is set.
    struct Retention {
        /// Maximum age. Default 7 days, or unlimited if only `size` is given.
        age: Positive,
        /// Maximum size of the topic, divided evenly among its partitions. Default: unlimited.
        size: Bytes,
        /// Delete events even if a subscriber has not consumed them. Default false.
        force: Flag,
    }
}

keys! {
    /// How long a repeated event is recognised, by `source` and `id` or by `id` of the topic: until either bound is
    /// reached.
    struct Dedupe {
        /// Time for which an event is recognised. Default 2m.
        window: Positive,
        /// Number of later events of the topic for which an event is recognised. Default: unlimited.
        count: Count<1, DEDUPE_COUNT_MAX>,
        /// Alternative to both: events are recognised while the topic knows their key by its `lifecycle`, until the
        /// end of the key is forgotten (`remember`). At most 256 events per key; others are refused.
        per: Per,
    }
}

choice! {
    /// Units of recognition.
    enum Per {
        /// The key of the event.
        Key = "key",
    }
}

keys! {
    /// Settings of producers that number their events, which makes their publishes idempotent.
    struct Producers {
        /// Time after which an idle producer is forgotten. Its later events are refused until it starts anew, and
        /// producers must send their start time (`began`). Default: never.
        forget: Forget,
    }
}

choice! {
    /// Compression of older events.
    enum Compression {
        /// No compression. The default.
        None = "none",
        /// LZ4 blocks, where that makes them smaller.
        Lz4 = "lz4",
    }
}

keys! {
    /// Guard per key: only these state transitions are possible.
    struct Lifecycle {
        /// CEL for the state, for example `data.status`.
        state(required): ExpressionValue,
        /// States in which a key may start.
        start(required): List<Word>,
        /// The states that may follow each state. A key in a state without followers has ended, and cannot start
        /// again while its end is remembered.
        allow(required): Table<List<Word>>,
        /// Maximum number of active keys per partition; others cannot start. Default 1000000.
        max: Count<1, LIFECYCLE_KEYS_MAX>,
        /// Time for which the end of a key is remembered. Default 30 days.
        remember: Positive,
        /// Maximum number of remembered ends per partition; the oldest are forgotten first. Default 1000000.
        remember_max: Count<1, LIFECYCLE_KEYS_MAX>,
        /// Allow ended keys to start again at once; no ends are remembered. Default false.
        restart: Flag,
        /// Handling of an event whose state may not follow the state of its key. Default `refuse`.
        out_of_order: OrRefuse<OutOfOrder>,
    }
}

keys! {
    /// Handling of events out of order: they are held until their key has another state and then judged again in
    /// append order (`hold`), or they go to another topic (`divert`).
    struct OutOfOrder {
        /// Maximum time for which an event is held; then it goes to the hidden topic `TOPIC@refused`.
        hold: Positive,
        /// Maximum number of held events per partition; others are refused. Default 10000.
        max: Count<1, HELD_MAX>,
        /// Target topic; events keep their key and id. Nothing else publishes to it, and it has the same number of
        /// partitions.
        divert: Word,
    }
}

choice! {
    /// Behaviour of a publish when the backlog is full.
    enum WhenFull {
        /// Refuse, with a retry delay. The default.
        Reject = "reject",
        /// Wait for room, in order of arrival.
        Wait = "wait",
    }
}

keys! {
    /// Consumer of one topic. Exactly one of `plugin`, `push` and `pull` is required.
    struct Subscriber {
        /// Source topic.
        from(required): Word,
        /// Plugin: a source folder, a .wasm file, or name@digest.
        plugin: Plugin,
        /// Push events to a URL.
        push(later): Push,
        /// Let an external consumer fetch events.
        pull(later): Pull,
        /// Output topics by port, or a list of topics that are ports of the same name.
        to: Ports,
        /// CEL for true or false, for example `data.amount > 100`; events for which it is false are filtered. An
        /// event on which it fails, such as for a missing field, fails; use `has(data.amount)`. Default: all events.
        when: ConditionValue,
        /// Configuration of the plugin: texts, numbers, booleans, or `{ file: path }` for secrets.
        config: Table<Setting>,
        /// Resource limits of the plugin.
        limits: Limits,
        /// Permissions of the plugin.
        grants(later): Grants,
        /// State of the plugin.
        state: State,
        /// Retries of failed events.
        retry: Retry,
        /// Handling of an event after its last attempt.
        on_failure: OnFailure,
        /// Number of capsules to keep, the newest ones: a capsule records an event that failed for the last time, the
        /// state that the plugin read, and the failure, for `wattle capsule run`. Default 10.
        capsules: Count<0, CAPSULES_MAX>,
        /// Trial of a new plugin version. A change restarts nothing and does not affect a trial in progress.
        trial: Trial,
        /// Limits of the retry queue: events that wait for another attempt or are parked, while other keys continue.
        retry_queue formerly "waiting": RetryQueue,
        /// Delivery guarantee.
        delivery: Delivery,
        /// Maximum rate, for example `100/s`, over all partitions. Default: unlimited.
        rate: RateValue,
        /// Maximum number of concurrent calls, over all partitions. Default: one per partition.
        concurrency: Many,
        /// Batching of events.
        batch: Batch,
        /// Queue group: each event goes to one of the subscribers of the topic with the same group.
        queue_group formerly "claim": Name,
        /// Time for which a paused or halted member of the group keeps the events that were assigned to it and are
        /// not in progress; then other members get them. Default 5m.
        queue_group_timeout formerly "claim_timeout": Positive,
        /// Start position of a new subscriber: earliest (all retained events), latest (only new events) or a time.
        /// Default earliest. No effect on an existing subscriber.
        start: StartValue,
        /// Former name of a renamed subscriber, which keeps its position, state, retry queue and dead letters. Has no
        /// effect after the rename.
        renamed_from formerly "was": Name,
    }
}

keys! {
    /// Push events to a URL.
    struct Push {
        /// Where events are sent: http or https.
        url(required): Url,
    }
}

keys! {
    /// Let an external consumer fetch events.
    struct Pull {
        /// Time in which a consumer must confirm an event before it is delivered again.
        ack: Positive,
    }
}

keys! {
    /// Resource limits of a plugin.
    struct Limits {
        /// Memory per instance. Default 64MiB.
        memory: Memory,
        /// Time per event. Default 1s.
        time: HandlerTime,
        /// Bytes of output per event. Default 1MiB.
        output: Output,
        /// Maximum number of log lines per second, over all instances; the number of dropped lines is logged. Default
        /// 100.
        log: Count<1, LOG_LINES_MAX>,
    }
}

keys! {
    /// Permissions of a plugin. With grants it is no longer deterministic.
    struct Grants {
        /// Allowed hosts.
        http: List<Host>,
    }
}

keys! {
    /// State of a plugin, per partition.
    struct State {
        /// Time to live of an entry after its last change, in event time. Default: unlimited.
        ttl: Positive,
        /// Maximum size in bytes. Default 256MiB.
        max: Bytes,
    }
}

keys! {
    /// Retries of failed events.
    struct Retry {
        /// Maximum number of attempts, including the first. Default 5, and 1 with `delivery: at_most_once`.
        attempts: Count<1, ATTEMPTS_MAX>,
        /// Pauses between attempts.
        backoff: Backoff,
    }
}

keys! {
    /// Pauses between attempts: `initial`, then `factor` times longer each time, up to `max`.
    struct Backoff {
        /// The first pause. Default 100ms.
        initial: Positive,
        /// The longest pause. Default 30s.
        max: Positive,
        /// Factor between consecutive pauses. Default 2.
        factor: Factor,
    }
}

choice! {
    /// Handling of an event after its last attempt.
    enum OnFailure {
        /// The event goes to the topic `SUBSCRIBER.dead`, with the reason. The default.
        DeadLetter = "dead_letter",
        /// The event and later events of its key wait until they are released. Rejected events still go to
        /// `SUBSCRIBER.dead`.
        Park = "park",
        /// The partition halts, also on rejected events: there are no dead letters.
        Halt = "halt",
    }
}

keys! {
    /// When the trial of a new plugin version ends: after `events` handled events and the time `for`, and in any case
    /// after `at_most`. Then the candidate is stable. `wattle plugin promote` ends a trial at once.
    struct Trial {
        /// Number of events that the candidate has to handle. Default 1000.
        events: Count<0, { u32::MAX }>,
        /// Minimum duration. Default 1m.
        time as "for": Period<0, MS_MAX>,
        /// Maximum duration, however few events there are. Default 1h.
        at_most: Positive,
    }
}

keys! {
    /// Limits of the retry queue, per partition: events that wait for another attempt or are parked, while other keys
    /// continue. When it is full, the partition pauses.
    struct RetryQueue {
        /// Maximum number of events. Default 10000.
        max: Count<1, WAITING_EVENTS_MAX>,
        /// Maximum size. Default 16MiB.
        size: Size<WAITING_BYTES_MIN, WAITING_BYTES_MAX>,
    }
}

choice! {
    /// Delivery guarantee.
    enum Delivery {
        /// Outputs, position and state are one atomic change. The default for plugins.
        ExactlyOnce = "exactly_once",
        /// An event may be handled again after a failure.
        AtLeastOnce = "at_least_once",
        /// An event may be lost in a failure: it has one attempt, alone in its call.
        AtMostOnce = "at_most_once",
    }
}

keys! {
    /// Batching of events.
    struct Batch {
        /// Maximum number of events per call. Default 256, and 1 with `delivery: at_most_once`.
        max: Count<1, BATCH_EVENTS_MAX>,
        /// Maximum size of a call, unless one event alone is larger. Default 1MiB.
        size: Size<1, { BATCH_BYTES_MAX as u64 }>,
        /// Time to wait for more events. Default: none.
        wait: Period<1, { BATCH_WAIT_MAX.as_millis() as u64 }>,
    }
}
