//! What a topology file says, before anything is made of it: the one list of keys.
//!
//! The keys, their descriptions in editors, and what is not in this release yet are declared here and nowhere else.
//! Adding a key here is enough for it to be read, checked, suggested and documented; [`super::resolve`] gives it meaning.

use super::bounds::{
    ATTEMPTS_MAX, BACKOFF_FACTOR_MAX, BATCH_WAIT_MAX, CAPSULES_MAX, DEDUPE_COUNT_MAX, FORGET_MIN, HELD_MAX,
    LIFECYCLE_KEYS_MAX, LOG_LINES_MAX, MEMORY_BYTES_MAX, MEMORY_BYTES_MIN, OUTPUT_BYTES_MAX, OUTPUT_BYTES_MIN,
    PARTITIONS_MAX, TIME_MAX, TIME_MIN, WAITING_BYTES_MAX, WAITING_BYTES_MIN, WAITING_EVENTS_MAX,
};
use super::reader::{choice, keys};
use super::setting::Setting;
use super::values::{
    Condition, Count, Expression, Flag, Host, List, MS_MAX, Name, Named, Number, OrOff, OrRefuse, Period, Plugin,
    Ports, Rate, SchemaFile, Size, Start, Table, Url, Word,
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
        topics: Named<Topic>,
        /// What consumes topics, by name.
        subscribers: Named<Subscriber>,
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
        /// How many ordered parts the topic has. Default 1, of a topic that a subscriber publishes to: as many as the
        /// subscriber's own topic. Never changes once the topic is created.
        partitions: Count<1, PARTITIONS_MAX>,
        /// CEL for the ordering key, for example `data.order_id`. Events with the same key stay in order. Default: the
        /// event's `partitionkey`, else its subject, else its id.
        key: Expression,
        /// CEL for what makes two events the same, whoever sent them, for example `data.order_id + '/' + data.status`: what
        /// gives the same text as an event that is recognised (see `dedupe`) is not stored again. An event keeps its own id.
        /// For what `dedupe` is for. Default: `source` and `id` together.
        id: Expression,
        /// How long events are kept at least. Default 7 days.
        retention: Retention,
        /// How long a published event is recognised when it is published again: for 2 minutes unless this
        /// says otherwise, or not at all with `off`. For roots: what a plugin publishes is there once anyway. For topics whose
        /// subscribers share its events with `claim` as well, where it is said.
        dedupe: OrOff<Dedupe>,
        /// What is remembered of producers that number what they send. For roots.
        producers: Producers,
        /// How events are stored once they are no longer recent. Default `none`.
        compression: Compression,
        /// The file with a JSON Schema that the data of each event is to fit. What does not fit is refused: a publish, or the
        /// event whose handler made it. Data has to be JSON then; the schema can refer to itself only.
        schema: SchemaFile,
        /// The order of states that is possible per key; others are refused.
        lifecycle: Lifecycle,
        /// How many events may wait in front of the topic's slowest subscriber, all partitions together. When there are as many,
        /// `when_full` decides about what is published to a root, and a subscriber that publishes to the topic makes no more
        /// calls until there are fewer; what its last calls made may come on top. Default: as many as the disk takes.
        backlog: Many,
        /// What happens to a publish that finds the backlog full. For roots with a `backlog`. Default `reject`.
        when_full: WhenFull,
        /// The name that the topic had before, where it is renamed: its events and all that is kept of it stay. Says nothing
        /// once that is done.
        was: Name,
    }
}

keys! {
    /// How long events are kept at least: those past either bound go, the oldest first. What a subscriber has yet to
    /// process stays, unless `force` says otherwise.
    struct Retention {
        /// How old events may become. Default 7 days, and as old as they like where only `size` is given.
        age: Positive,
        /// How large the topic may become, divided evenly among its partitions. Default: as large as the disk is.
        size: Bytes,
        /// Whether events go even when a subscriber has yet to process them. Default false.
        force: Flag,
    }
}

keys! {
    /// How long an event that is published twice is recognised, by its `source` and `id` or what `id` says: until either bound is
    /// reached.
    struct Dedupe {
        /// Time during which it is recognised. Default 2m.
        window: Positive,
        /// How many later events of the topic it is recognised for, where that is reached first. Default: any number.
        count: Count<1, DEDUPE_COUNT_MAX>,
        /// In place of both: it is recognised for as long as the topic knows its key, by its `lifecycle`: until the end of the
        /// key's life is forgotten (`remember`). At most 256 events of each key; others are refused.
        per: Per,
    }
}

choice! {
    /// By what it ends that an event is recognised.
    enum Per {
        /// By its key.
        Key = "key",
    }
}

keys! {
    /// What is remembered of producers that number what they send, by which nothing is stored twice.
    struct Producers {
        /// After how long a producer is forgotten that sends nothing more. What it sends then is refused, until it begins anew; a
        /// producer has to say when it began (`began`). Default: never.
        forget: Forget,
    }
}

choice! {
    /// How events are stored once they are no longer recent.
    enum Compression {
        /// As they came. The default.
        None = "none",
        /// In blocks compressed by LZ4, where that makes them smaller.
        Lz4 = "lz4",
    }
}

keys! {
    /// A guard per key: only these orders of states are possible.
    struct Lifecycle {
        /// CEL for the state, for example `data.status`.
        state(required): Expression,
        /// States that a key may begin with.
        start(required): List<Word>,
        /// For each state, those that may follow. A key in a state that none follows has ended, and cannot begin again for
        /// as long as that is remembered.
        allow(required): Table<List<Word>>,
        /// Most keys of each partition that have begun and not ended; others cannot begin. Default 1000000.
        max: Count<1, LIFECYCLE_KEYS_MAX>,
        /// How long the end of a key is remembered. Default 30 days.
        remember: Positive,
        /// Most ends that each partition remembers; the oldest are forgotten first. Default 1000000.
        remember_max: Count<1, LIFECYCLE_KEYS_MAX>,
        /// Whether a key that has ended may begin again at once: then no end is remembered. Default false.
        restart: Flag,
        /// What happens to an event whose state may not follow that of its key now. Default `refuse`.
        out_of_order: OrRefuse<OutOfOrder>,
    }
}

keys! {
    /// Events whose state may not follow now are held until their key is in another state (`hold`): then they are judged
    /// again, in the order in which they came. Or they go to another topic instead (`divert`).
    struct OutOfOrder {
        /// How long an event is held; then it goes to the hidden topic `TOPIC@refused`.
        hold: Positive,
        /// Most events of each partition that are held; others are refused. Default 10000.
        max: Count<1, HELD_MAX>,
        /// The topic that takes them instead, each with its key and its id. Nothing else publishes to it, and it has as many
        /// partitions as this one.
        divert: Word,
    }
}

choice! {
    /// What happens to a publish that finds no room.
    enum WhenFull {
        /// It is refused, and told when to try again. The default.
        Reject = "reject",
        /// It waits until there is room, in its turn.
        Wait = "wait",
    }
}

keys! {
    /// Consumes one topic. Exactly one of `plugin`, `push` and `pull` says how.
    struct Subscriber {
        /// The topic whose events it gets.
        from(required): Word,
        /// What it runs: a plugin's source folder, a .wasm file, or name@digest.
        plugin: Plugin,
        /// Events are sent to a URL.
        push(later): Push,
        /// Events are fetched by a consumer outside.
        pull(later): Pull,
        /// Where the plugin's outputs go: topics by port, or a list of topics that are ports of the same name.
        to: Ports,
        /// CEL for true or false, for example `data.amount > 100`; events for which it is false are skipped. An event
        /// that lacks what it needs fails, so ask with `has(data.amount)` where that may be. Default: all events.
        when: Condition,
        /// What the plugin is told: texts, numbers, booleans, or `{ file: path }` for secrets.
        config: Table<Setting>,
        /// What the plugin may use.
        limits: Limits,
        /// What the plugin may reach.
        grants(later): Grants,
        /// What the plugin may keep.
        state: State,
        /// When a failed event is tried again.
        retry: Retry,
        /// What happens to an event after its last attempt.
        on_failure: OnFailure,
        /// Of how many events that failed for the last time a capsule is kept, the latest: a file with the event, what its
        /// plugin read and how it failed, with which `wattle capsule run` has the same failure anywhere. Default 10.
        capsules: Count<0, CAPSULES_MAX>,
        /// When the trial of a new version of the plugin ends, where it does not fail on an event that the version before handles.
        /// Changing it restarts nothing; a trial that goes on ends as it was said when it began.
        trial: Trial,
        /// How many events may wait for another attempt, or parked, while others go on.
        waiting: Waiting,
        /// What is promised about each event.
        delivery: Delivery,
        /// Most events per time, for example `100/s`, all partitions together. Default: as fast as it goes.
        rate: Rate,
        /// Most calls at the same time, all partitions together. Default: one for each partition.
        concurrency: Many,
        /// How events are grouped for one call.
        batch: Batch,
        /// Subscribers of the same topic with the same group share its events: each event goes to one of them.
        claim: Name,
        /// How long a member of a group that is paused or halted keeps what it has claimed and not begun; then it is the others'.
        /// Default 5m.
        claim_timeout: Positive,
        /// Where a new subscriber begins: earliest (all that is kept of its topic), latest (what comes from then on) or a time.
        /// Default earliest. Says nothing of one that is there already.
        start: Start,
        /// The name that the subscriber had before, where it is renamed: its place, its state and all that waits stay, and its
        /// dead letters come along. Says nothing once that is done.
        was: Name,
    }
}

keys! {
    /// Events are sent to a URL.
    struct Push {
        /// The address.
        url(required): Url,
    }
}

keys! {
    /// Events are fetched by a consumer outside.
    struct Pull {
        /// How long a consumer may take to confirm an event before it is given out again.
        ack: Positive,
    }
}

keys! {
    /// What a plugin may use.
    struct Limits {
        /// Memory of one instance. Default 64MiB.
        memory: Memory,
        /// Time per event. Default 1s.
        time: HandlerTime,
        /// Bytes of output per event. Default 1MiB.
        output: Output,
        /// Log lines per second that are logged, of all its instances together; how many are left out is said. Default 100.
        log: Count<1, LOG_LINES_MAX>,
    }
}

keys! {
    /// What a plugin may reach. With grants it is no longer deterministic.
    struct Grants {
        /// Hosts that it may call.
        http: List<Host>,
    }
}

keys! {
    /// What a plugin may keep, per partition.
    struct State {
        /// How long an entry is kept after its last change, in the time of events. Default: until it is deleted.
        ttl: Positive,
        /// Most bytes. Default 256MiB.
        max: Bytes,
    }
}

keys! {
    /// When a failed event is tried again.
    struct Retry {
        /// How often an event is tried, counting the first time. Default 5, and 1 with `delivery: at_most_once`.
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
        /// By what a pause is longer than the one before. Default 2.
        factor: Factor,
    }
}

choice! {
    /// What happens to an event after its last attempt.
    enum OnFailure {
        /// It goes to the topic `SUBSCRIBER.dead`, with the reason. The default.
        DeadLetter = "dead_letter",
        /// It and its successors with the same key wait until they are released. What the plugin rejects goes to
        /// `SUBSCRIBER.dead` all the same.
        Park = "park",
        /// The partition stops, also for what the plugin rejects: there are no dead letters.
        Halt = "halt",
    }
}

keys! {
    /// When the trial of a new version of the plugin ends: once it has handled `events` and `for` has passed, and in any case after
    /// `at_most`. Then it is proven. `wattle plugin promote` ends it at once.
    struct Trial {
        /// Events that the new version has to handle. Default 1000.
        events: Count<0, { u32::MAX }>,
        /// How long the trial lasts at least. Default 1m.
        time as "for": Period<0, MS_MAX>,
        /// How long it lasts at most, however few events there are. Default 1h.
        at_most: Positive,
    }
}

keys! {
    /// How many events may wait for another attempt, or parked, while others go on; for each partition. Once there is
    /// no room for another, the partition stops.
    struct Waiting {
        /// Most events. Default 10000.
        max: Count<1, WAITING_EVENTS_MAX>,
        /// Most bytes. Default 16MiB.
        size: Size<WAITING_BYTES_MIN, WAITING_BYTES_MAX>,
    }
}

choice! {
    /// What is promised about each event.
    enum Delivery {
        /// Its outputs, its position and its state are one change. The default for plugins.
        ExactlyOnce = "exactly_once",
        /// It may be handled again after a failure.
        AtLeastOnce = "at_least_once",
        /// It may be lost in a failure: it is tried once, by itself.
        AtMostOnce = "at_most_once",
    }
}

keys! {
    /// How events are grouped for one call.
    struct Batch {
        /// Most events of one call. Default 256, and 1 with `delivery: at_most_once`.
        max: Count<1, BATCH_EVENTS_MAX>,
        /// Most bytes of one call, unless one event alone has more. Default 1MiB.
        size: Size<1, { BATCH_BYTES_MAX as u64 }>,
        /// How long to wait for more events than there are. Default: not at all.
        wait: Period<1, { BATCH_WAIT_MAX.as_millis() as u64 }>,
    }
}
