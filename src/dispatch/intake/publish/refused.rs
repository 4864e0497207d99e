//! Why nothing of a call was published.

use std::time::Duration;

use crate::dispatch::BacklogFull;
use crate::dispatch::rules::delay::DelayRefused;
use crate::dispatch::rules::guards::StateUnknown;
use crate::engine::{AppendError, GuardReason};
use crate::model::{EventError, RecordError};
use crate::topology::Misfit;

/// A time, Unix nanoseconds, as people read it.
fn time(time_ns: u64) -> String {
    let seconds = i64::try_from(time_ns / 1_000_000_000).ok();
    let time = seconds.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.map_or_else(|| format!("{time_ns} ns after 1970"), |time| time.to_string())
}

/// Why a numbering is not acceptable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NumberingRefused {
    /// The producer has no name, or one that is too long.
    #[error("the name of a producer has 1 to {max} bytes, and this one has {bytes}")]
    Producer {
        /// How many it has.
        bytes: usize,
        /// How many it may have.
        max: usize,
    },
    /// The numbers do not fit into 64 bits.
    #[error("{count} events from number {first_sequence} on are more than there are numbers: they end at {}", u64::MAX)]
    Exhausted {
        /// Number of the first event.
        first_sequence: u64,
        /// How many events there are.
        count: usize,
    },
    /// The producer says that it has yet to begin.
    #[error(
        "the producer's `began` is {} s ahead of the clock of the bus, more than clocks may differ",
        ahead.as_secs()
    )]
    Ahead {
        /// By how much.
        ahead: Duration,
    },
}

/// Why nothing of a call was published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// No topic of that name.
    #[error(
        "there is no topic `{topic}`{}",
        nearest.as_ref().map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
    )]
    UnknownTopic {
        /// What was asked for.
        topic: String,
        /// The nearest name that exists.
        nearest: Option<String>,
    },
    /// A short name that several namespaces have.
    #[error("`{topic}` is the name of several topics: say which, as one of {}", candidates.join(", "))]
    AmbiguousTopic {
        /// What was asked for.
        topic: String,
        /// The full names.
        candidates: Vec<String>,
    },
    /// Only roots take events from outside.
    #[error("topic `{topic}` is written by subscriber `{parent}`: publish to a root, or subscribe something else")]
    NotARoot {
        /// The topic.
        topic: String,
        /// The subscriber.
        parent: String,
    },
    /// The topic takes only what another topic diverts to it.
    #[error("topic `{topic}` takes what `{from}` diverts to it, and nothing else: publish to `{from}`")]
    Diverted {
        /// The topic.
        topic: String,
        /// The other one.
        from: String,
    },
    /// One of the events of a call to several topics has none.
    #[error("event {index}: {error}")]
    Addressed {
        /// Which one, from 0.
        index: usize,
        /// What is wrong with its topic.
        error: Box<PublishError>,
    },
    /// One of the events is not acceptable.
    #[error("event {index} for `{topic}`: {error}")]
    Event {
        /// Which one, from 0.
        index: usize,
        /// The full name of its topic.
        topic: String,
        /// Why.
        error: EventRefused,
    },
    /// More events than a call may have.
    #[error("{count} events in one call: at most {max} are accepted")]
    TooMany {
        /// How many there were.
        count: usize,
        /// How many are accepted.
        max: usize,
    },
    /// The events cannot have these numbers.
    #[error(transparent)]
    Numbering(#[from] NumberingRefused),
    /// The topic does not know the producer: it may have forgotten it.
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
        /// Who began before this may have been forgotten, Unix nanoseconds.
        since_ns: u64,
    },
    /// A topic has as many events waiting as may.
    #[error(transparent)]
    Backlog(#[from] BacklogFull),
    /// The engine did not take them.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Why an event is not acceptable.
#[derive(Debug, thiserror::Error)]
pub enum EventRefused {
    /// It is not a CloudEvent.
    #[error(transparent)]
    Event(#[from] EventError),
    /// Its key is too long.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// It is too large.
    #[error("{bytes} bytes are more than an event may have ({max})")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// Largest size.
        max: usize,
    },
    /// Its data is not what the topic's `schema:` says.
    #[error("its data does not fit the topic's schema: {0}")]
    Schema(#[from] Misfit),
    /// The topic's `key:` does not give a key for it.
    #[error("the topic's key expression gives no key: {0}")]
    Key(String),
    /// The topic's `id:` does not give a text for it.
    #[error("the topic's `id` expression gives nothing that it could be recognised by: {0}")]
    Id(String),
    /// Its state cannot be told, or is none of the topic's lifecycle.
    #[error(transparent)]
    State(#[from] StateUnknown),
    /// The topic's lifecycle refuses it.
    #[error(transparent)]
    Lifecycle(GuardReason),
    /// It cannot come later as it says.
    #[error(transparent)]
    Delay(#[from] DelayRefused),
}
