//! The one translation of what went wrong inside into what gRPC says of it.
//!
//! Promises: every error of a floor below has a code, a stable reason and words; what is worth trying again says when;
//! what is the fault of a field names the field. A new error does not compile until it has all that.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::api::{ERROR_DOMAIN, reason};
use crate::deploy::{CompareError, PluginError, ReloadError, TopologyError};
use crate::dispatch::publish::{EventRefused, NumberingRefused};
use crate::dispatch::shadow::ShadowError;
use crate::dispatch::{
    BacklogFull, CollectError, ControlError, PendingError, PrepareError, PublishError, Refusal as LaneRefusal,
    SnapshotError, TraceError,
};
use crate::engine::{AppendError, ApplyError, GuardReason, ReadError, SessionError, Stopped};
use crate::limits;
use crate::model::Offset;

/// A status under construction.
struct Refusal {
    code: Code,
    message: String,
    details: ErrorDetails,
}

impl Refusal {
    fn new(code: Code, reason: &str, error: &impl ToString) -> Self {
        Self::with(code, reason, error, [])
    }

    fn with<const N: usize>(code: Code, reason: &str, error: &impl ToString, metadata: [(&str, String); N]) -> Self {
        let metadata: HashMap<String, String> =
            metadata.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, metadata);
        Self { code, message: error.to_string(), details }
    }

    fn field(mut self, field: impl Into<String>) -> Self {
        self.details.add_bad_request_violation(field, self.message.clone());
        self
    }

    fn status(self) -> Status {
        Status::with_error_details(self.code, self.message, self.details)
    }
}

/// What is wrong with what is no time.
pub(super) const TIME: &str = "is not a time after 1970 with 0 to 999,999,999 nanoseconds";

/// Why a read was refused or ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadRefused {
    /// A partition that the topic does not have.
    #[error("topic `{topic}` has no partition {partition}: it has {partitions}, counted from 0")]
    UnknownPartition { topic: String, partition: u32, partitions: u32 },
    /// A field that makes no sense.
    #[error("{field} {what}")]
    Field { field: &'static str, what: &'static str },
    /// Events in front of the position are gone.
    #[error(
        "partition {partition} begins at offset {start}: what was at {offset} is no longer kept; read from the earliest"
    )]
    Expired { partition: u32, offset: Offset, start: Offset },
    /// The position does not exist yet, or not any more.
    #[error(
        "partition {partition} ends at offset {end}, in front of {offset}: either events at the end were lost, or the \
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
    Stopped(#[from] Stopped),
}

/// A refused publish.
pub(super) fn publish(error: &PublishError) -> Status {
    match error {
        PublishError::UnknownTopic { topic, .. } => {
            Refusal::with(Code::NotFound, reason::UNKNOWN_TOPIC, error, [("topic", topic.clone())]).status()
        }
        PublishError::AmbiguousTopic { .. } => {
            Refusal::new(Code::InvalidArgument, reason::AMBIGUOUS_TOPIC, error).field("topic").status()
        }
        PublishError::NotARoot { topic, parent } => {
            let metadata = [("topic", topic.clone()), ("parent", parent.clone())];
            Refusal::with(Code::FailedPrecondition, reason::NOT_A_ROOT, error, metadata).status()
        }
        PublishError::Diverted { topic, from } => {
            let metadata = [("topic", topic.clone()), ("diverted_from", from.clone())];
            Refusal::with(Code::FailedPrecondition, reason::NOT_A_ROOT, error, metadata).status()
        }
        PublishError::Addressed { index, error: of_topic } => {
            let status = publish(of_topic);
            let mut details = status.get_error_details();
            details.add_bad_request_violation(format!("events[{index}]"), error.to_string());
            Status::with_error_details(status.code(), error.to_string(), details)
        }
        PublishError::Event { index, topic, error: why } => {
            let reason = match why {
                EventRefused::Event(_) => reason::INVALID_EVENT,
                EventRefused::TooLarge { .. } => reason::EVENT_TOO_LARGE,
                EventRefused::Schema(_) => reason::SCHEMA_MISMATCH,
                EventRefused::Record(_) | EventRefused::Key(_) => reason::INVALID_KEY,
                EventRefused::Id(_) => reason::INVALID_ID,
                EventRefused::Delay(_) => reason::INVALID_DELAY,
                EventRefused::State(_) => reason::INVALID_STATE,
                EventRefused::Lifecycle(_) => reason::LIFECYCLE,
            };
            let code = match why {
                EventRefused::Lifecycle(GuardReason::Order { .. }) => Code::FailedPrecondition,
                EventRefused::Lifecycle(
                    GuardReason::Full { .. } | GuardReason::HeldFull { .. } | GuardReason::Recognised { .. },
                ) => Code::ResourceExhausted,
                EventRefused::Lifecycle(GuardReason::Unreadable(_)) => Code::Internal,
                _ => Code::InvalidArgument,
            };
            let metadata = [("index", index.to_string()), ("topic", topic.clone())];
            Refusal::with(code, reason, error, metadata).field(format!("events[{index}]")).status()
        }
        PublishError::TooMany { .. } => {
            Refusal::new(Code::InvalidArgument, reason::TOO_MANY_EVENTS, error).field("events").status()
        }
        PublishError::Numbering(why) => {
            let field = match why {
                NumberingRefused::Producer { .. } => "numbering.producer",
                NumberingRefused::Exhausted { .. } => "numbering.first_sequence",
                NumberingRefused::Ahead { .. } => "numbering.began",
            };
            Refusal::new(Code::InvalidArgument, reason::INVALID_NUMBERING, error).field(field).status()
        }
        PublishError::ProducerUnknown { topic, producer, .. } => {
            let metadata = [("topic", topic.clone()), ("producer", producer.clone())];
            let refusal = Refusal::with(Code::FailedPrecondition, reason::PRODUCER_UNKNOWN, error, metadata);
            refusal.field("numbering.began").status()
        }
        PublishError::Backlog(BacklogFull { topic, retry_after, .. }) => {
            let metadata = [("topic", topic.clone())];
            let mut refusal = Refusal::with(Code::ResourceExhausted, reason::BACKLOG_FULL, error, metadata);
            refusal.details.set_retry_info(Some(*retry_after));
            refusal.status()
        }
        PublishError::Append(append) => match append {
            AppendError::Busy { retry_after } | AppendError::Full { retry_after } => {
                let reason = match append {
                    AppendError::Full { .. } => reason::DISK_FULL,
                    _ => reason::BUSY,
                };
                let mut refusal = Refusal::new(Code::ResourceExhausted, reason, error);
                refusal.details.set_retry_info(Some(*retry_after));
                refusal.status()
            }
            AppendError::TooLarge { .. } => {
                Refusal::new(Code::InvalidArgument, reason::TOO_LARGE, error).field("events").status()
            }
            // The publisher names partitions of topics that it has looked up: a fault of the bus.
            AppendError::UnknownPartition(_) => Refusal::new(Code::Internal, reason::UNKNOWN_PARTITION, error).status(),
            // The publisher says which event it is.
            AppendError::Guard(_) => Refusal::new(Code::FailedPrecondition, reason::LIFECYCLE, error).status(),
            AppendError::Producer(_) => {
                Refusal::new(Code::FailedPrecondition, reason::PRODUCER_UNKNOWN, error).status()
            }
            // The first refusal ends the stream, so nobody is told of those behind it.
            AppendError::Fenced => Refusal::new(Code::Aborted, reason::STREAM_REFUSED, error).status(),
            AppendError::Stopped(stopped) => self::stopped(stopped),
        },
    }
}

/// A capsule, or a component, that is not there.
pub(super) fn unknown_capsule(reason: &'static str, what: &str) -> Status {
    let words = format!("there is no {what}, or not any more; `wattle capsule list` lists what there is");
    Refusal::new(Code::NotFound, reason, &words).status()
}

/// A capsule, or a component, that cannot be read.
pub(super) fn unreadable_capsule(error: &std::io::Error) -> Status {
    Refusal::new(Code::DataLoss, reason::UNREADABLE, &format!("what is kept cannot be read: {error}")).status()
}

/// Something that a subscriber was not told, or does not do.
pub(super) fn control(error: &ControlError) -> Status {
    match error {
        ControlError::UnknownSubscriber { subscriber, .. } => {
            let metadata = [("subscriber", subscriber.clone())];
            Refusal::with(Code::NotFound, reason::UNKNOWN_SUBSCRIBER, error, metadata).status()
        }
        ControlError::AmbiguousSubscriber { .. } => {
            Refusal::new(Code::InvalidArgument, reason::AMBIGUOUS_SUBSCRIBER, error).field("subscriber").status()
        }
        ControlError::UnknownPartition { .. } => {
            Refusal::new(Code::InvalidArgument, reason::UNKNOWN_PARTITION, error).field("partition").status()
        }
        ControlError::BeyondEnd { partition, offset, .. } => {
            let metadata = [("partition", partition.to_string()), ("offset", offset.to_string())];
            Refusal::with(Code::FailedPrecondition, reason::POSITION_BEYOND_END, error, metadata).status()
        }
        ControlError::NoDeadLetters { .. } => {
            Refusal::new(Code::FailedPrecondition, reason::NO_DEAD_LETTERS, error).status()
        }
        ControlError::HasState { .. } => Refusal::new(Code::FailedPrecondition, reason::HAS_STATE, error).status(),
        ControlError::Refused { partition, refusal } => match refusal {
            LaneRefusal::Waits { .. } => {
                let metadata = [("partition", partition.to_string())];
                Refusal::with(Code::FailedPrecondition, reason::EVENTS_WAIT, error, metadata).status()
            }
            LaneRefusal::Shared { .. } => {
                let metadata = [("partition", partition.to_string())];
                Refusal::with(Code::FailedPrecondition, reason::EVENTS_SHARED, error, metadata).status()
            }
            LaneRefusal::Broken => {
                let metadata = [("partition", partition.to_string())];
                Refusal::with(Code::FailedPrecondition, reason::BROKEN_STATE, error, metadata).status()
            }
            LaneRefusal::StateFull { .. } => Refusal::new(Code::FailedPrecondition, reason::STATE_FULL, error).status(),
            LaneRefusal::Snapshot { .. } => Refusal::new(Code::DataLoss, reason::UNUSABLE_SNAPSHOT, error).status(),
            LaneRefusal::Stopped { .. } => {
                let metadata = [
                    ("partition", partition.to_string()),
                    (reason::OUTCOME, reason::OUTCOME_UNKNOWN.to_owned()), // it may have been told before
                ];
                Refusal::with(Code::Unavailable, reason::LANE_STOPPED, error, metadata).status()
            }
        },
        ControlError::Partly { error: first, .. } => {
            let status = control(first);
            let mut details = status.get_error_details();
            if let Some(info) = details.error_info().cloned() {
                let mut metadata = info.metadata;
                metadata.insert(reason::OUTCOME.to_owned(), reason::OUTCOME_UNKNOWN.to_owned());
                details.set_error_info(info.reason, info.domain, metadata);
            }
            Status::with_error_details(status.code(), error.to_string(), details)
        }
        ControlError::Snapshot(snapshot) => self::snapshot(snapshot),
        ControlError::Unreadable(_) => Refusal::new(Code::DataLoss, reason::UNREADABLE, error).status(),
        ControlError::UnreadableNow(_) => unreadable_now(error),
    }
}

/// What is stored cannot be read at the moment.
fn unreadable_now(error: &impl ToString) -> Status {
    let mut refusal = Refusal::new(Code::Unavailable, reason::UNREADABLE, error);
    refusal.details.set_retry_info(Some(limits::FULL_RETRY_AFTER));
    refusal.status()
}

/// A snapshot that was not taken, or not used.
fn snapshot(error: &SnapshotError) -> Status {
    match error {
        SnapshotError::Unsupported => Refusal::new(Code::Unimplemented, reason::NO_SNAPSHOTS, error).status(),
        SnapshotError::Unknown { number, .. } => {
            Refusal::with(Code::NotFound, reason::UNKNOWN_SNAPSHOT, error, [("number", number.to_string())]).status()
        }
        SnapshotError::NoPosition => {
            Refusal::new(Code::InvalidArgument, reason::INVALID_ARGUMENT, error).field("to").status()
        }
        SnapshotError::NoRoom => {
            let mut refusal = Refusal::new(Code::ResourceExhausted, reason::DISK_FULL, error);
            refusal.details.set_retry_info(Some(limits::FULL_RETRY_AFTER));
            refusal.status()
        }
        SnapshotError::Disk(_) => Refusal::new(Code::Internal, reason::SNAPSHOT_FAILED, error).status(),
        SnapshotError::Unusable { .. } => Refusal::new(Code::DataLoss, reason::UNUSABLE_SNAPSHOT, error).status(),
        SnapshotError::Expired { .. } | SnapshotError::Ahead { .. } => {
            Refusal::new(Code::FailedPrecondition, reason::UNUSABLE_SNAPSHOT, error).status()
        }
    }
}

/// A lineage that was not given.
pub(super) fn trace(error: &TraceError) -> Status {
    match error {
        TraceError::Topic(error) => publish(error),
        TraceError::NotFound { id, .. } => {
            Refusal::with(Code::NotFound, reason::UNKNOWN_EVENT, error, [("id", id.clone())]).status()
        }
        TraceError::NotReached { id, .. } => {
            Refusal::with(Code::ResourceExhausted, reason::TOO_FAR_BACK, error, [("id", id.clone())]).status()
        }
        TraceError::Unreadable(_) => Refusal::new(Code::DataLoss, reason::UNREADABLE, error).status(),
        TraceError::Stopped(stopped) => self::stopped(stopped),
    }
}

/// Events that have no place yet, not listed.
pub(super) fn pending(error: &PendingError) -> Status {
    match error {
        PendingError::Topic(error) => publish(error),
        PendingError::Position => field("page_token", error),
        PendingError::Read(ReadError::Passing(_)) => unreadable_now(error),
        PendingError::Read(ReadError::Storage(_) | ReadError::UnknownPartition) => {
            Refusal::new(Code::DataLoss, reason::UNREADABLE, error).status()
        }
    }
}

/// A version that was not reloaded.
pub(super) fn plugin(error: &ReloadError) -> Status {
    match error {
        ReloadError::Control(error) => control(error),
        ReloadError::Refused(_) => Refusal::new(Code::InvalidArgument, reason::PLUGIN_REFUSED, error).status(),
        ReloadError::Source(errors) if errors.iter().any(|error| matches!(error, PluginError::Config { .. })) => {
            Refusal::new(Code::InvalidArgument, reason::PLUGIN_REFUSED, error).status()
        }
        ReloadError::Source(_) => Refusal::new(Code::FailedPrecondition, reason::PLUGIN_UNREADABLE, error).status(),
        ReloadError::Pinned { version, .. } => {
            let metadata = [("version", version.to_string())];
            Refusal::with(Code::FailedPrecondition, reason::PINNED, error, metadata).status()
        }
        ReloadError::Moved { is, .. } => {
            let metadata = [("version", is.to_string())];
            Refusal::with(Code::Aborted, reason::VERSION_MOVED, error, metadata).status()
        }
        ReloadError::Superseded { .. } => Refusal::new(Code::Aborted, reason::SUPERSEDED, error).status(),
        ReloadError::NoneBefore { .. } => {
            Refusal::new(Code::FailedPrecondition, reason::NO_VERSION_BEFORE, error).status()
        }
        ReloadError::NotOne { count: 0, .. } => Refusal::new(Code::NotFound, reason::UNKNOWN_VERSION, error).status(),
        ReloadError::NotOne { .. } => {
            Refusal::new(Code::InvalidArgument, reason::AMBIGUOUS_VERSION, error).field("version").status()
        }
        ReloadError::OnTrial { .. } => Refusal::new(Code::FailedPrecondition, reason::VERSION_ON_TRIAL, error).status(),
        ReloadError::NoTrial { .. } => Refusal::new(Code::FailedPrecondition, reason::NO_TRIAL, error).status(),
        ReloadError::Kept(_) => Refusal::new(Code::FailedPrecondition, reason::VERSION_UNUSABLE, error).status(),
        ReloadError::NoRoom { .. } => {
            let mut refusal = Refusal::new(Code::ResourceExhausted, reason::DISK_FULL, error);
            refusal.details.set_retry_info(Some(limits::FULL_RETRY_AFTER));
            refusal.status()
        }
        ReloadError::Store(_) | ReloadError::NotCalled { .. } => {
            // a write may have happened although it failed; and what was decided runs at the next start
            let unknown = [(reason::OUTCOME, reason::OUTCOME_UNKNOWN.to_owned())];
            Refusal::with(Code::Internal, reason::VERSIONS_FAILED, error, unknown).status()
        }
        ReloadError::Closed => stopped(&Stopped::Closed),
    }
}

/// Versions that were not compared.
pub(super) fn compare(error: &CompareError) -> Status {
    match error {
        CompareError::Reload(error) => plugin(error),
        CompareError::Thread(_) => Refusal::new(Code::ResourceExhausted, reason::BUSY, error).status(),
        CompareError::Shadow(error) => match error {
            ShadowError::Control(error) => control(error),
            ShadowError::Stopped(stopped) => self::stopped(stopped),
            ShadowError::TooLarge { .. } => Refusal::new(Code::ResourceExhausted, reason::TOO_LARGE, error).status(),
            ShadowError::Read(_) | ShadowError::Unreadable(_) => {
                Refusal::new(Code::DataLoss, reason::UNREADABLE, error).status()
            }
            ShadowError::Instance(_) => {
                Refusal::new(Code::FailedPrecondition, reason::VERSION_UNUSABLE, error).status()
            }
        },
    }
}

/// A comparison over events that come goes on already.
pub(super) fn follows_already() -> Status {
    let words = "another comparison over events that come goes on: end that one first";
    Refusal::new(Code::ResourceExhausted, reason::BUSY, &words).status()
}

/// A topology that was not applied.
pub(super) fn topology(error: &TopologyError) -> Status {
    let unknown = || [(reason::OUTCOME, reason::OUTCOME_UNKNOWN.to_owned())];
    match error {
        TopologyError::Unreadable(_) | TopologyError::Refused(_) => {
            Refusal::new(Code::InvalidArgument, reason::TOPOLOGY_REFUSED, error).field("topology").status()
        }
        TopologyError::NoRoom => {
            let mut refusal = Refusal::new(Code::ResourceExhausted, reason::DISK_FULL, error);
            refusal.details.set_retry_info(Some(limits::FULL_RETRY_AFTER));
            refusal.status()
        }
        TopologyError::Unfinished => Refusal::new(Code::FailedPrecondition, reason::TOPOLOGY_FAILED, error).status(),
        TopologyError::Moved { is, .. } => {
            let metadata = [("revision", is.clone())];
            Refusal::with(Code::Aborted, reason::TOPOLOGY_MOVED, error, metadata).status()
        }
        TopologyError::Loss(_) => Refusal::new(Code::FailedPrecondition, reason::WOULD_LOSE, error).status(),
        TopologyError::Plugins(_) => Refusal::new(Code::InvalidArgument, reason::PLUGIN_REFUSED, error).status(),
        TopologyError::Prepare(PrepareError::Apply(ApplyError::Stopped(stopped)))
        | TopologyError::Prepare(PrepareError::Begin { error: SessionError::Stopped(stopped), .. }) => {
            self::stopped(stopped)
        }
        TopologyError::Prepare(PrepareError::Apply(_)) => {
            Refusal::new(Code::InvalidArgument, reason::TOPOLOGY_REFUSED, error).field("topology").status()
        }
        TopologyError::Prepare(PrepareError::Begin { .. }) => {
            Refusal::new(Code::Internal, reason::TOPOLOGY_FAILED, error).status()
        }
        TopologyError::Collect(CollectError::Apply(ApplyError::Stopped(stopped)))
        | TopologyError::Collect(CollectError::Lane { error: SessionError::Stopped(stopped), .. }) => {
            self::stopped(stopped)
        }
        TopologyError::Store(_) | TopologyError::Start(_) | TopologyError::Collect(_) => {
            Refusal::with(Code::Internal, reason::TOPOLOGY_FAILED, error, unknown()).status()
        }
        TopologyError::Closed => stopped(&Stopped::Closed),
    }
}

/// A field of a request that makes no sense.
pub(super) fn field(field: impl Into<String>, what: impl std::fmt::Display) -> Status {
    let field = field.into();
    let words = format!("{field} {what}");
    Refusal::new(Code::InvalidArgument, reason::INVALID_ARGUMENT, &words).field(field).status()
}

/// The engine has stopped. What was on its way may or may not have happened.
pub(super) fn stopped(stopped: &Stopped) -> Status {
    let reason = match stopped {
        Stopped::Closed => reason::SHUTTING_DOWN,
        Stopped::Poisoned(_) => reason::STORAGE_FAILED,
    };
    let unknown = [(reason::OUTCOME, reason::OUTCOME_UNKNOWN.to_owned())];
    Refusal::with(Code::Unavailable, reason, stopped, unknown).status()
}

/// The bus is on its way down, and what was asked for was not begun.
pub(super) fn shutting_down() -> Status {
    Refusal::new(Code::Unavailable, reason::SHUTTING_DOWN, &Stopped::Closed).status()
}

/// A message larger than messages may be. The transport calls that OUT_OF_RANGE, gRPC at large RESOURCE_EXHAUSTED.
pub(super) fn oversize(words: &str) -> Status {
    Refusal::new(Code::ResourceExhausted, reason::TOO_LARGE, &words).status()
}

/// A caller has said nothing for so long, in the middle of what it sends. Nothing has happened.
pub(super) fn silence(time: Duration) -> Status {
    let words = format!("nothing came in for {} s, and others wait", time.as_secs());
    Refusal::new(Code::Aborted, reason::TOO_SLOW, &words).status()
}

/// Requests that wait for room in their topics have used up the memory for that, so this one is refused, though its topic waits.
pub(super) fn too_many_wait() -> Status {
    let words = "as much waits for room in its topics as may: try again later";
    let mut refusal = Refusal::new(Code::ResourceExhausted, reason::BACKLOG_FULL, &words);
    refusal.details.set_retry_info(Some(limits::FULL_RETRY_AFTER));
    refusal.status()
}

/// The caller's time is over.
pub(super) fn deadline() -> Status {
    Status::deadline_exceeded("the deadline of the call is over")
}

/// A refused read.
pub(super) fn read(error: &ReadRefused) -> Status {
    let at = |partition: &u32, offset: &Offset| [("partition", partition.to_string()), ("offset", offset.to_string())];
    match error {
        ReadRefused::UnknownPartition { .. } => {
            Refusal::new(Code::InvalidArgument, reason::UNKNOWN_PARTITION, error).field("partitions").status()
        }
        ReadRefused::Field { field, .. } => {
            Refusal::new(Code::InvalidArgument, reason::INVALID_ARGUMENT, error).field(*field).status()
        }
        ReadRefused::Expired { partition, offset, .. } => {
            Refusal::with(Code::FailedPrecondition, reason::POSITION_EXPIRED, error, at(partition, offset)).status()
        }
        ReadRefused::BeyondEnd { partition, offset, .. } => {
            Refusal::with(Code::FailedPrecondition, reason::POSITION_BEYOND_END, error, at(partition, offset)).status()
        }
        ReadRefused::Lost { partition, offset, .. } => {
            Refusal::with(Code::DataLoss, reason::POSITION_LOST, error, at(partition, offset)).status()
        }
        ReadRefused::Read(ReadError::UnknownPartition) => {
            Refusal::new(Code::InvalidArgument, reason::UNKNOWN_PARTITION, error).field("partitions").status()
        }
        ReadRefused::Read(ReadError::Passing(_)) => unreadable_now(error),
        ReadRefused::Read(ReadError::Storage(_)) => Refusal::new(Code::DataLoss, reason::UNREADABLE, error).status(),
        ReadRefused::Stopped(stopped) => self::stopped(stopped),
    }
}
