//! The one translation of errors inside into refusals of calls.
//!
//! Promises: every error of a floor below has a class, a stable reason and a message; if a retry can succeed, it says
//! when; if a field is at fault, it names the field. A new error does not compile until it has all that. Must not know:
//! protocols. [`super::grpc`] renders a status.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::access::{Identity, Resource, Unauthenticated, Verb};
use crate::api::reason;
use crate::deploy::{CompareError, PluginError, ReloadError, StoreError, TopologyError};
use crate::dispatch::publish::{EventRefusal, NumberingRefusal};
use crate::dispatch::shadow::ShadowError;
use crate::dispatch::{
    BacklogFull, CollectError, ControlError, NameError, NameKind, PendingError, PrepareError, PublishError,
    Refusal as LaneRefusal, SnapshotError, TraceError,
};
use crate::engine::{AppendError, ApplyError, GuardReason, ReadError, SessionError, StopReason};
use crate::limits;
use crate::model::Offset;

/// The kind of a refusal: what a caller can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// The request cannot be right, whatever the state of the bus.
    Invalid,
    /// The request names something that does not exist.
    NotFound,
    /// The state of the bus does not allow it; it has to change first.
    Precondition,
    /// A quota or a resource is used up.
    Exhausted,
    /// The caller has not shown who it is, or not so that it can be believed.
    Unauthenticated,
    /// The caller may not do that.
    Forbidden,
    /// Another change came first: look again, then repeat.
    Conflict,
    /// The bus does not serve this at the moment.
    Unavailable,
    /// The time of the caller is over.
    TimedOut,
    /// This bus cannot do it at all.
    Unsupported,
    /// A fault of the bus.
    Internal,
    /// Stored data is lost or damaged.
    DataLoss,
}

/// Why a call is refused, in no protocol's terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) class: Class,
    /// One of [`reason`].
    pub(super) reason: &'static str,
    pub(super) message: String,
    /// Fields of the request that are to blame.
    pub(super) fields: Vec<String>,
    /// Names and values for programs.
    pub(super) metadata: BTreeMap<&'static str, String>,
    /// When the same call may succeed.
    pub(super) retry_after: Option<Duration>,
    /// It may have been done all the same.
    pub(super) is_outcome_unknown: bool,
}

impl Refusal {
    fn new(class: Class, reason: &'static str, error: &impl ToString) -> Self {
        Self::with(class, reason, error, [])
    }

    fn with<const N: usize>(
        class: Class,
        reason: &'static str,
        error: &impl ToString,
        metadata: [(&'static str, String); N],
    ) -> Self {
        let (fields, metadata) = (Vec::new(), metadata.into());
        let message = error.to_string();
        Self { class, reason, message, fields, metadata, retry_after: None, is_outcome_unknown: false }
    }

    fn field(mut self, field: impl Into<String>) -> Self {
        self.fields.push(field.into());
        self
    }

    fn retry_after(self, time: Duration) -> Self {
        Self { retry_after: Some(time), ..self }
    }

    fn outcome_unknown(self) -> Self {
        Self { is_outcome_unknown: true, ..self }
    }
}

/// Why a read was refused or ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadRefusal {
    /// A partition that the topic does not have.
    #[error("topic `{topic}` has no partition {partition}: it has {partitions}, counted from 0")]
    UnknownPartition { topic: String, partition: u32, partitions: u32 },
    /// A field that makes no sense.
    #[error("{field} {what}")]
    Field { field: &'static str, what: &'static str },
    /// Events before the position are gone.
    #[error(
        "partition {partition} begins at offset {start}: offset {offset} is no longer retained; read from the earliest"
    )]
    Expired { partition: u32, offset: Offset, start: Offset },
    /// The position does not exist yet, or not any more.
    #[error(
        "offset {offset} is past the end of partition {partition} (next offset: {end}): either events at the end were \
         lost, or the \
         position is of another topic; read from the latest"
    )]
    BeyondEnd { partition: u32, offset: Offset, end: Offset },
    /// Another event is where the last one was.
    #[error(
        "the event in front of offset {offset} in partition {partition} is not the one that was read (epoch {epoch}, \
         not {expected}): events were lost when the bus or its machine died, and others took their place; what was \
         derived from the lost ones has to be undone, then read from an earlier position"
    )]
    Lost { partition: u32, offset: Offset, expected: u32, epoch: u32 },
    /// The engine does not give them.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The engine has stopped.
    #[error(transparent)]
    Stopped(#[from] StopReason),
}

/// A name that selects no topic or subscriber.
pub(super) fn name(error: &NameError) -> Refusal {
    let (NameError::Unknown { kind, .. } | NameError::Ambiguous { kind, .. }) = error;
    let (field, unknown, ambiguous) = match kind {
        NameKind::Topic => ("topic", reason::UNKNOWN_TOPIC, reason::AMBIGUOUS_TOPIC),
        NameKind::Subscriber => ("subscriber", reason::UNKNOWN_SUBSCRIBER, reason::AMBIGUOUS_SUBSCRIBER),
    };
    match error {
        NameError::Unknown { name, .. } => Refusal::with(Class::NotFound, unknown, error, [(field, name.clone())]),
        NameError::Ambiguous { .. } => Refusal::new(Class::Invalid, ambiguous, error).field(field),
    }
}

/// A refused publish.
pub(super) fn publish(error: &PublishError) -> Refusal {
    match error {
        PublishError::Name(error) => name(error),
        PublishError::NotARoot { topic, parent } => {
            let metadata = [("topic", topic.clone()), ("parent", parent.clone())];
            Refusal::with(Class::Precondition, reason::NOT_A_ROOT, error, metadata)
        }
        PublishError::Internal { topic } => {
            Refusal::with(Class::Precondition, reason::NOT_A_ROOT, error, [("topic", topic.clone())])
        }
        PublishError::Diverted { topic, from } => {
            let metadata = [("topic", topic.clone()), ("diverted_from", from.clone())];
            Refusal::with(Class::Precondition, reason::NOT_A_ROOT, error, metadata)
        }
        PublishError::Addressed { index, error: of_topic } => {
            let refusal = Refusal { message: error.to_string(), ..publish(of_topic) };
            refusal.field(format!("events[{index}]"))
        }
        PublishError::Event { index, topic, error: why } => {
            let reason = match why {
                EventRefusal::Event(_) => reason::INVALID_EVENT,
                EventRefusal::TooLarge { .. } => reason::EVENT_TOO_LARGE,
                EventRefusal::Schema(_) => reason::SCHEMA_MISMATCH,
                EventRefusal::Record(_) | EventRefusal::Key(_) => reason::INVALID_KEY,
                EventRefusal::Id(_) => reason::INVALID_ID,
                EventRefusal::Delay(_) => reason::INVALID_DELAY,
                EventRefusal::State(_) => reason::INVALID_STATE,
                EventRefusal::Lifecycle(_) => reason::LIFECYCLE,
            };
            let class = match why {
                EventRefusal::Lifecycle(GuardReason::Order { .. }) => Class::Precondition,
                EventRefusal::Lifecycle(
                    GuardReason::Full { .. } | GuardReason::HeldFull { .. } | GuardReason::Recognised { .. },
                ) => Class::Exhausted,
                EventRefusal::Lifecycle(GuardReason::Unreadable(_)) => Class::Internal,
                _ => Class::Invalid,
            };
            let metadata = [("index", index.to_string()), ("topic", topic.clone())];
            Refusal::with(class, reason, error, metadata).field(format!("events[{index}]"))
        }
        PublishError::TooMany { .. } => Refusal::new(Class::Invalid, reason::TOO_MANY_EVENTS, error).field("events"),
        PublishError::Numbering(why) => {
            let field = match why {
                NumberingRefusal::Producer { .. } => "numbering.producer",
                NumberingRefusal::Exhausted { .. } => "numbering.first_sequence",
                NumberingRefusal::Ahead { .. } => "numbering.began",
            };
            Refusal::new(Class::Invalid, reason::INVALID_NUMBERING, error).field(field)
        }
        PublishError::ProducerUnknown { topic, producer, .. } => {
            let metadata = [("topic", topic.clone()), ("producer", producer.clone())];
            Refusal::with(Class::Precondition, reason::PRODUCER_UNKNOWN, error, metadata).field("numbering.began")
        }
        PublishError::Backlog(BacklogFull { topic, retry_after, .. }) => {
            let metadata = [("topic", topic.clone())];
            Refusal::with(Class::Exhausted, reason::BACKLOG_FULL, error, metadata).retry_after(*retry_after)
        }
        PublishError::Append(append) => match append {
            AppendError::Busy { retry_after } | AppendError::Full { retry_after } => {
                let reason = match append {
                    AppendError::Full { .. } => reason::DISK_FULL,
                    _ => reason::BUSY,
                };
                Refusal::new(Class::Exhausted, reason, error).retry_after(*retry_after)
            }
            AppendError::TooLarge { .. } => Refusal::new(Class::Invalid, reason::TOO_LARGE, error).field("events"),
            // The publisher names partitions of topics that it has looked up: a fault of the bus.
            AppendError::UnknownPartition(_) => Refusal::new(Class::Internal, reason::UNKNOWN_PARTITION, error),
            // The publisher says which event it is.
            AppendError::Guard(_) => Refusal::new(Class::Precondition, reason::LIFECYCLE, error),
            AppendError::Producer(_) => Refusal::new(Class::Precondition, reason::PRODUCER_UNKNOWN, error),
            // The first refusal ends the stream, so later ones are not reported.
            AppendError::Fenced => Refusal::new(Class::Conflict, reason::STREAM_REFUSED, error),
            AppendError::Stopped(stopped) => self::stopped(stopped),
        },
    }
}

/// A capsule, or a component, that is not there.
pub(super) fn unknown_capsule(reason: &'static str, what: &str) -> Refusal {
    let words = format!("there is no {what}; `wattle capsule list` lists the stored ones");
    Refusal::new(Class::NotFound, reason, &words)
}

/// A capsule, or a component, that cannot be read.
pub(super) fn unreadable_capsule(error: &std::io::Error) -> Refusal {
    Refusal::new(Class::DataLoss, reason::UNREADABLE, &format!("the stored file cannot be read: {error}"))
}

/// Something that a subscriber was not told, or does not do.
pub(super) fn control(error: &ControlError) -> Refusal {
    match error {
        ControlError::Name(error) => name(error),
        ControlError::UnknownPartition { .. } => {
            Refusal::new(Class::Invalid, reason::UNKNOWN_PARTITION, error).field("partition")
        }
        ControlError::BeyondEnd { partition, offset, .. } => {
            let metadata = [("partition", partition.to_string()), ("offset", offset.to_string())];
            Refusal::with(Class::Precondition, reason::POSITION_BEYOND_END, error, metadata)
        }
        ControlError::NoDeadLetters { .. } => Refusal::new(Class::Precondition, reason::NO_DEAD_LETTERS, error),
        ControlError::HasState { .. } => Refusal::new(Class::Precondition, reason::HAS_STATE, error),
        ControlError::Refused { partition, refusal } => match refusal {
            LaneRefusal::Waits { .. } => {
                let metadata = [("partition", partition.to_string())];
                Refusal::with(Class::Precondition, reason::EVENTS_WAIT, error, metadata)
            }
            LaneRefusal::Shared { .. } => {
                let metadata = [("partition", partition.to_string())];
                Refusal::with(Class::Precondition, reason::EVENTS_SHARED, error, metadata)
            }
            LaneRefusal::Broken => {
                let metadata = [("partition", partition.to_string())];
                Refusal::with(Class::Precondition, reason::BROKEN_STATE, error, metadata)
            }
            LaneRefusal::StateFull { .. } => Refusal::new(Class::Precondition, reason::STATE_FULL, error),
            LaneRefusal::Snapshot { .. } => Refusal::new(Class::DataLoss, reason::UNUSABLE_SNAPSHOT, error),
            LaneRefusal::Stopped { .. } => {
                let metadata = [("partition", partition.to_string())];
                // It may have been told before.
                Refusal::with(Class::Unavailable, reason::LANE_STOPPED, error, metadata).outcome_unknown()
            }
        },
        ControlError::Partly { error: first, .. } => {
            Refusal { message: error.to_string(), ..control(first) }.outcome_unknown()
        }
        ControlError::Snapshot(snapshot) => self::snapshot(snapshot),
        ControlError::Unreadable(_) => Refusal::new(Class::DataLoss, reason::UNREADABLE, error),
        ControlError::UnreadableNow(_) => unreadable_now(error),
    }
}

/// Stored data cannot be read at the moment.
fn unreadable_now(error: &impl ToString) -> Refusal {
    Refusal::new(Class::Unavailable, reason::UNREADABLE, error).retry_after(limits::FULL_RETRY_AFTER)
}

/// A snapshot that was not taken, or not used.
fn snapshot(error: &SnapshotError) -> Refusal {
    match error {
        SnapshotError::Unsupported => Refusal::new(Class::Unsupported, reason::NO_SNAPSHOTS, error),
        SnapshotError::Unknown { number, .. } => {
            Refusal::with(Class::NotFound, reason::UNKNOWN_SNAPSHOT, error, [("number", number.to_string())])
        }
        SnapshotError::NoPosition => Refusal::new(Class::Invalid, reason::INVALID_ARGUMENT, error).field("to"),
        SnapshotError::NoRoom => {
            Refusal::new(Class::Exhausted, reason::DISK_FULL, error).retry_after(limits::FULL_RETRY_AFTER)
        }
        SnapshotError::Disk(_) => Refusal::new(Class::Internal, reason::SNAPSHOT_FAILED, error),
        SnapshotError::Unusable { .. } => Refusal::new(Class::DataLoss, reason::UNUSABLE_SNAPSHOT, error),
        SnapshotError::Expired { .. } | SnapshotError::Ahead { .. } => {
            Refusal::new(Class::Precondition, reason::UNUSABLE_SNAPSHOT, error)
        }
    }
}

/// A lineage that was not given.
pub(super) fn trace(error: &TraceError) -> Refusal {
    match error {
        TraceError::Topic(error) => name(error),
        TraceError::NotFound { id, .. } => {
            Refusal::with(Class::NotFound, reason::UNKNOWN_EVENT, error, [("id", id.clone())])
        }
        TraceError::NotReached { id, .. } => {
            Refusal::with(Class::Exhausted, reason::TOO_FAR_BACK, error, [("id", id.clone())])
        }
        TraceError::Unreadable(_) => Refusal::new(Class::DataLoss, reason::UNREADABLE, error),
        TraceError::Stopped(stopped) => self::stopped(stopped),
    }
}

/// Events that have no place yet, not listed.
pub(super) fn pending(error: &PendingError) -> Refusal {
    match error {
        PendingError::Position => field("page_token", error),
        PendingError::Read(ReadError::Passing(_)) => unreadable_now(error),
        PendingError::Read(ReadError::Storage(_) | ReadError::UnknownPartition) => {
            Refusal::new(Class::DataLoss, reason::UNREADABLE, error)
        }
    }
}

/// A version that was not reloaded.
pub(super) fn plugin(error: &ReloadError) -> Refusal {
    match error {
        ReloadError::Control(error) => control(error),
        ReloadError::Refused(_) => Refusal::new(Class::Invalid, reason::PLUGIN_REFUSED, error),
        ReloadError::Source(errors) if errors.iter().any(|error| matches!(error, PluginError::Config { .. })) => {
            Refusal::new(Class::Invalid, reason::PLUGIN_REFUSED, error)
        }
        ReloadError::Source(_) => Refusal::new(Class::Precondition, reason::PLUGIN_UNREADABLE, error),
        ReloadError::Pinned { version, .. } => {
            let metadata = [("version", version.to_string())];
            Refusal::with(Class::Precondition, reason::PINNED, error, metadata)
        }
        ReloadError::Moved { is, .. } => {
            let metadata = [("version", is.to_string())];
            Refusal::with(Class::Conflict, reason::VERSION_MOVED, error, metadata)
        }
        ReloadError::Superseded { .. } => Refusal::new(Class::Conflict, reason::SUPERSEDED, error),
        ReloadError::NoneBefore { .. } => Refusal::new(Class::Precondition, reason::NO_VERSION_BEFORE, error),
        ReloadError::NotOne { count: 0, .. } => Refusal::new(Class::NotFound, reason::UNKNOWN_VERSION, error),
        ReloadError::NotOne { .. } => Refusal::new(Class::Invalid, reason::AMBIGUOUS_VERSION, error).field("version"),
        ReloadError::OnTrial { .. } => Refusal::new(Class::Precondition, reason::VERSION_ON_TRIAL, error),
        ReloadError::NoTrial { .. } => Refusal::new(Class::Precondition, reason::NO_TRIAL, error),
        ReloadError::Kept(_) => Refusal::new(Class::Precondition, reason::VERSION_UNUSABLE, error),
        ReloadError::NoRoom { .. } => {
            Refusal::new(Class::Exhausted, reason::DISK_FULL, error).retry_after(limits::FULL_RETRY_AFTER)
        }
        ReloadError::NotUploaded { .. } => Refusal::new(Class::NotFound, reason::UNKNOWN_COMPONENT, error),
        ReloadError::OtherDigest { .. } => {
            Refusal::new(Class::Invalid, reason::DIGEST_MISMATCH, error).field("begin.component")
        }
        ReloadError::Store(StoreError::UploadsFull { wait, .. }) => {
            Refusal::new(Class::Exhausted, reason::UPLOADS_FULL, error).retry_after(*wait)
        }
        ReloadError::Store(StoreError::NoRoom) => {
            Refusal::new(Class::Exhausted, reason::DISK_FULL, error).retry_after(limits::FULL_RETRY_AFTER)
        }
        ReloadError::Store(_) | ReloadError::NotCalled { .. } => {
            // a write may have happened although it failed; and the decided version runs at the next start
            Refusal::new(Class::Internal, reason::VERSIONS_FAILED, error).outcome_unknown()
        }
        ReloadError::Closed => stopped(&StopReason::Closed),
    }
}

/// Versions that were not compared.
pub(super) fn compare(error: &CompareError) -> Refusal {
    match error {
        CompareError::Reload(error) => plugin(error),
        CompareError::Thread(_) => Refusal::new(Class::Exhausted, reason::BUSY, error),
        CompareError::Shadow(error) => match error {
            ShadowError::Control(error) => control(error),
            ShadowError::Stopped(stopped) => self::stopped(stopped),
            ShadowError::TooLarge { .. } => Refusal::new(Class::Exhausted, reason::TOO_LARGE, error),
            ShadowError::Read(_) | ShadowError::Unreadable(_) => {
                Refusal::new(Class::DataLoss, reason::UNREADABLE, error)
            }
            ShadowError::Instance(_) => Refusal::new(Class::Precondition, reason::VERSION_UNUSABLE, error),
        },
    }
}

/// A comparison over future events is already running.
pub(super) fn follows_already() -> Refusal {
    let words = "another comparison over future events is running: end that one first";
    Refusal::new(Class::Exhausted, reason::BUSY, &words)
}

/// A topology that was not applied.
pub(super) fn topology(error: &TopologyError) -> Refusal {
    match error {
        TopologyError::Unreadable(_) | TopologyError::Refused(_) => {
            Refusal::new(Class::Invalid, reason::TOPOLOGY_REFUSED, error).field("topology")
        }
        TopologyError::NoRoom => {
            Refusal::new(Class::Exhausted, reason::DISK_FULL, error).retry_after(limits::FULL_RETRY_AFTER)
        }
        TopologyError::NotUploaded(_) => Refusal::new(Class::NotFound, reason::UNKNOWN_COMPONENT, error),
        TopologyError::Unfinished => Refusal::new(Class::Precondition, reason::TOPOLOGY_FAILED, error),
        TopologyError::Moved { is, .. } => {
            let metadata = [("revision", is.clone())];
            Refusal::with(Class::Conflict, reason::TOPOLOGY_MOVED, error, metadata)
        }
        TopologyError::Loss(_) => Refusal::new(Class::Precondition, reason::WOULD_LOSE, error),
        TopologyError::Plugins(_) => Refusal::new(Class::Invalid, reason::PLUGIN_REFUSED, error),
        TopologyError::Prepare(PrepareError::Apply(ApplyError::Stopped(stopped)))
        | TopologyError::Prepare(PrepareError::Begin { error: SessionError::Stopped(stopped), .. }) => {
            self::stopped(stopped)
        }
        TopologyError::Prepare(PrepareError::Apply(_)) => {
            Refusal::new(Class::Invalid, reason::TOPOLOGY_REFUSED, error).field("topology")
        }
        TopologyError::Prepare(PrepareError::Begin { .. }) => {
            Refusal::new(Class::Internal, reason::TOPOLOGY_FAILED, error)
        }
        TopologyError::Collect(CollectError::Apply(ApplyError::Stopped(stopped)))
        | TopologyError::Collect(CollectError::Lane { error: SessionError::Stopped(stopped), .. }) => {
            self::stopped(stopped)
        }
        TopologyError::Store(_) | TopologyError::Start(_) | TopologyError::Collect(_) => {
            Refusal::new(Class::Internal, reason::TOPOLOGY_FAILED, error).outcome_unknown()
        }
        TopologyError::Closed => stopped(&StopReason::Closed),
    }
}

/// There is no such route.
pub(super) fn unknown_route() -> Refusal {
    Refusal::new(Class::NotFound, reason::UNKNOWN_ROUTE, &"the bus has no such route")
}

/// The route takes other methods.
pub(super) fn unknown_method() -> Refusal {
    Refusal::new(Class::Invalid, reason::UNKNOWN_METHOD, &"the route does not take this method")
}

/// A principal uses as much as it may.
pub(super) fn over_limit(name: &str, limit: &str, retry_after: Duration) -> Refusal {
    let words = format!("`{name}` may have {limit}, as the access file says: try again later");
    Refusal::new(Class::Exhausted, reason::OVER_LIMIT, &words).retry_after(retry_after)
}

/// A request has come past the judge: a fault of the bus.
pub(super) fn unjudged() -> Refusal {
    Refusal::new(Class::Internal, reason::FORBIDDEN, &"nobody has judged this request, which is a fault of the bus")
}

/// Credentials that are not those of anybody.
pub(super) fn unauthenticated(error: &Unauthenticated) -> Refusal {
    Refusal::new(Class::Unauthenticated, reason::UNAUTHENTICATED, error)
}

/// The caller has shown nothing, and somebody has to be known.
pub(super) fn anonymous() -> Refusal {
    let words = "the bus has to know who calls: send a token (`authorization: Bearer TOKEN`), or show a certificate";
    Refusal::new(Class::Unauthenticated, reason::UNAUTHENTICATED, &words)
}

/// The caller may not do that; `None`: not to anything.
pub(super) fn forbidden(who: &Identity, verb: Verb, what: Option<Resource<'_>>) -> Refusal {
    if who.is_anonymous() {
        return anonymous();
    }
    let (words, name) = match what {
        Some(Resource::Topic(name)) => (format!("{verb} for topic `{name}`"), Some(name)),
        Some(Resource::Subscriber(name)) => (format!("{verb} for subscriber `{name}`"), Some(name)),
        Some(Resource::Namespace(name)) => (format!("{verb} for all of namespace `{name}`"), Some(name)),
        Some(Resource::Bus) => (format!("{verb} for the bus as a whole"), None),
        None => (format!("{verb} for anything"), None),
    };
    let words = format!("`{}` does not have the right {words}: a rule of the access file has to give it", who.name());
    let mut refusal = Refusal::with(Class::Forbidden, reason::FORBIDDEN, &words, [("verb", verb.to_string())]);
    refusal.metadata.extend(name.map(|name| ("resource", name.to_owned())));
    refusal
}

/// A field of a request that makes no sense.
pub(super) fn field(field: impl Into<String>, what: impl std::fmt::Display) -> Refusal {
    let field = field.into();
    let words = format!("{field} {what}");
    Refusal::new(Class::Invalid, reason::INVALID_ARGUMENT, &words).field(field)
}

/// The engine has stopped. Calls in flight may or may not have had an effect.
pub(super) fn stopped(stopped: &StopReason) -> Refusal {
    let reason = match stopped {
        StopReason::Closed => reason::SHUTTING_DOWN,
        StopReason::Poisoned(_) => reason::STORAGE_FAILED,
    };
    Refusal::new(Class::Unavailable, reason, stopped).outcome_unknown()
}

/// The bus is shutting down, and the call has not started.
pub(super) fn shutting_down() -> Refusal {
    Refusal::new(Class::Unavailable, reason::SHUTTING_DOWN, &StopReason::Closed)
}

/// A message larger than messages may be.
pub(super) fn oversize(words: &str) -> Refusal {
    Refusal::new(Class::Exhausted, reason::TOO_LARGE, &words)
}

/// A caller has said nothing for so long, in the middle of what it sends. Nothing has happened.
pub(super) fn silence(time: Duration) -> Refusal {
    let words = format!("nothing came in for {} s, and others wait", time.as_secs());
    Refusal::new(Class::Conflict, reason::TOO_SLOW, &words)
}

/// Requests that wait for room in their topics have used up the memory for that, so this one is refused, though its
/// topic waits.
pub(super) fn too_many_wait() -> Refusal {
    let words = "as much waits for room in its topics as may: try again later";
    Refusal::new(Class::Exhausted, reason::BACKLOG_FULL, &words).retry_after(limits::FULL_RETRY_AFTER)
}

/// The caller's time is over.
pub(super) fn deadline() -> Refusal {
    Refusal::new(Class::TimedOut, reason::DEADLINE_EXCEEDED, &"the deadline of the call is over")
}

/// A refused read.
pub(super) fn read(error: &ReadRefusal) -> Refusal {
    let at = |partition: &u32, offset: &Offset| [("partition", partition.to_string()), ("offset", offset.to_string())];
    match error {
        ReadRefusal::UnknownPartition { .. } => {
            Refusal::new(Class::Invalid, reason::UNKNOWN_PARTITION, error).field("partitions")
        }
        ReadRefusal::Field { field, .. } => Refusal::new(Class::Invalid, reason::INVALID_ARGUMENT, error).field(*field),
        ReadRefusal::Expired { partition, offset, .. } => {
            Refusal::with(Class::Precondition, reason::POSITION_EXPIRED, error, at(partition, offset))
        }
        ReadRefusal::BeyondEnd { partition, offset, .. } => {
            Refusal::with(Class::Precondition, reason::POSITION_BEYOND_END, error, at(partition, offset))
        }
        ReadRefusal::Lost { partition, offset, .. } => {
            Refusal::with(Class::DataLoss, reason::POSITION_LOST, error, at(partition, offset))
        }
        ReadRefusal::Read(ReadError::UnknownPartition) => {
            Refusal::new(Class::Invalid, reason::UNKNOWN_PARTITION, error).field("partitions")
        }
        ReadRefusal::Read(ReadError::Passing(_)) => unreadable_now(error),
        ReadRefusal::Read(ReadError::Storage(_)) => Refusal::new(Class::DataLoss, reason::UNREADABLE, error),
        ReadRefusal::Stopped(stopped) => self::stopped(stopped),
    }
}
