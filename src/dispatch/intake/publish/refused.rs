//! Errors of publishing.

use std::time::Duration;

use crate::dispatch::BacklogFull;
use crate::dispatch::rules::delay::DelayRefusal;
use crate::dispatch::rules::guards::StateUnknown;
use crate::dispatch::rules::names::NameError;
use crate::engine::{AppendError, GuardReason};
use crate::model::{EventError, RecordError};
use crate::topology::Misfit;

/// A time in Unix nanoseconds, formatted for people.
fn time(time_ns: u64) -> String {
    let seconds = i64::try_from(time_ns / 1_000_000_000).ok();
    let time = seconds.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.map_or_else(|| format!("{time_ns} ns after 1970"), |time| time.to_string())
}

/// Why a numbering is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NumberingRefusal {
    /// The producer's name is empty or too long.
    #[error("the name of a producer has 1 to {max} bytes, and this one has {bytes}")]
    Producer { bytes: usize, max: usize },
    /// The sequence numbers exceed 64 bits.
    #[error("{count} events from number {first_sequence} on are more than there are numbers: they end at {}", u64::MAX)]
    Exhausted {
        /// Number of the first event.
        first_sequence: u64,
        /// Number of events.
        count: usize,
    },
    /// The producer claims to begin in the future.
    #[error(
        "the producer's `began` is {} s ahead of the clock of the bus, more than clocks may differ",
        ahead.as_secs()
    )]
    Ahead {
        /// How far ahead of the bus's clock.
        ahead: Duration,
    },
}

/// Why no event of a call was published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The name selects no topic.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The topic is not a root; only roots accept events from outside.
    #[error("topic `{topic}` is an output of subscriber `{parent}`; only root topics accept publishes")]
    NotARoot { topic: String, parent: String },
    /// The topic belongs to the bus.
    #[error("only the bus writes to topic `{topic}`: it can be read, and nothing can be published to it")]
    Internal { topic: String },
    /// The topic only accepts events that another topic diverts to it.
    #[error("topic `{topic}` takes what `{from}` diverts to it, and nothing else: publish to `{from}`")]
    Diverted {
        topic: String,
        /// The diverting topic.
        from: String,
    },
    /// An event of a call to several topics has no valid topic.
    #[error("event {index}: {error}")]
    Addressed {
        /// Index of the event.
        index: usize,
        /// The error of its topic.
        error: Box<PublishError>,
    },
    /// An event is not acceptable.
    #[error("event {index} for `{topic}`: {error}")]
    Event {
        /// Index of the event.
        index: usize,
        /// The full name of its topic.
        topic: String,
        error: EventRefusal,
    },
    /// More events than one call may have.
    #[error("{count} events in one call: at most {max} are accepted")]
    TooMany {
        /// Events of the call.
        count: usize,
        max: usize,
    },
    /// The numbering is not acceptable.
    #[error(transparent)]
    Numbering(#[from] NumberingRefusal),
    /// The topic does not know the producer, possibly because it has forgotten it.
    #[error(
        "topic `{topic}` does not know producer `{producer}`, which says {}: producers last seen before {} are \
         forgotten, so its duplicates cannot be recognised. Begin again, with a `began` of now and numbers from 1 \
         on; events that were sent before and not answered may be stored",
        began_ns.map_or("not when it began".to_owned(), |began_ns| format!("that it began at {}", time(began_ns))),
        time(*since_ns)
    )]
    ProducerUnknown {
        /// The full name of the topic.
        topic: String,
        /// The name of the producer.
        producer: String,
        /// When it says that it began, Unix nanoseconds.
        began_ns: Option<u64>,
        /// Producers that began before this may have been forgotten, Unix nanoseconds.
        since_ns: u64,
    },
    /// The backlog of a topic is full.
    #[error(transparent)]
    Backlog(#[from] BacklogFull),
    /// The engine refused the append.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Why an event is not acceptable.
#[derive(Debug, thiserror::Error)]
pub enum EventRefusal {
    /// Not a CloudEvent.
    #[error(transparent)]
    Event(#[from] EventError),
    /// The key is too long.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The event is too large.
    #[error("{bytes} bytes are more than an event may have ({max})")]
    TooLarge { bytes: usize, max: usize },
    /// The data does not match the topic's `schema:`.
    #[error("its data does not fit the topic's schema: {0}")]
    Schema(#[from] Misfit),
    /// The topic's `key:` expression yields no key.
    #[error("the topic's key expression gives no key: {0}")]
    Key(String),
    /// The topic's `id:` expression yields no text.
    #[error("the topic's `id` expression gives nothing that it could be recognised by: {0}")]
    Id(String),
    /// The state cannot be determined, or is not part of the topic's lifecycle.
    #[error(transparent)]
    State(#[from] StateUnknown),
    /// The topic's lifecycle refuses the event.
    #[error(transparent)]
    Lifecycle(GuardReason),
    /// The requested delay is not acceptable.
    #[error(transparent)]
    Delay(#[from] DelayRefusal),
}
