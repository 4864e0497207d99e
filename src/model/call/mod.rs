//! A call: what a handler gets, what it answers, and how it fails. Handlers are Wasm plugins, functions of tests, and whatever
//! else can be given a batch.
//!
//! Promises: plain data and traits; an answer is about the events of its batch only.
//! Must not know: who calls, what is behind a handler, where state is stored.

mod handler;
mod settings;
mod state;

use std::sync::Arc;
use std::time::Duration;

pub use handler::{HandleError, Handler, InstanceError};
pub use settings::{Limits, PluginSettings};
pub use state::{Keys, NoState, Reads, STATE_READS_BYTES_MAX, StateError, StateRead, StateView, StateWrite};

/// Events that are handled in one call. What is equal for all of them is said once.
#[derive(Clone)]
pub struct Batch<'a> {
    /// The topic that they come from.
    pub topic: &'a str,
    pub partition: u32,
    /// The content type of their data; "" when there is none.
    pub content_type: &'a str,
    /// The events, in order. At most `u32::MAX` of them.
    pub events: &'a [CallEvent<'a>],
    /// What is only asked for when the plugin asks.
    pub context: Arc<dyn EventContext>,
    /// The state of the lane, as it is in front of the first of them.
    pub state: Arc<dyn StateView>,
}

/// One event of a batch.
#[derive(Clone, Copy, Debug)]
pub struct CallEvent<'a> {
    /// The ordering key.
    pub key: &'a str,
    /// The CloudEvents type.
    pub r#type: &'a str,
    /// When it was appended to its topic, in nanoseconds since 1970.
    pub time_ns: u64,
    /// The same by the time that state expires by, which does not follow a clock that jumps.
    pub trusted_time_ns: u64,
    /// Which attempt at it this is, from 1.
    pub attempt: u32,
    pub data: &'a [u8],
}

/// What a plugin may ask about the events of a call, and what it says. Answers must follow from the event alone.
pub trait EventContext: Send + Sync {
    /// The CloudEvents attributes of an event (`id`, `source`, `subject` when it has one, `time`, extensions) as
    /// "name=value\n" lines.
    fn attributes(&self, index: u32) -> String;

    /// What the event's random bytes follow from.
    fn seed(&self, index: u32) -> [u8; 32];

    /// A line that the plugin logged, while it was on this event or on none.
    fn log(&self, index: Option<u32>, level: LogLevel, context: &str, line: &str);
}

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// The flow of control.
    Trace,
    /// For whoever debugs the plugin.
    Debug,
    /// For whoever watches it run; also standard output.
    Info,
    /// Something looks wrong; also standard error.
    Warn,
    /// Something is wrong; also what a plugin calls critical.
    Error,
}

/// A usable answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handled {
    /// The outputs of the events that were handled, in order.
    pub outputs: Vec<Output>,
    /// What the events that were handled wrote to the state, in order of events; each event wrote a key once at the most.
    /// What the failed event wrote, and any after it, is not here.
    pub writes: Vec<StateWrite>,
    /// None: all events were handled. Otherwise those before it were, and it and all after it were not.
    pub failed: Option<Failure>,
}

/// An event that the plugin sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The index of the event that it answers.
    pub event: u32,
    /// The index of its port in [`PluginSettings::ports`].
    pub port: u32,
    /// Its ordering key; none: that of the event it answers.
    pub key: Option<String>,
    /// Its CloudEvents type; never empty.
    pub r#type: String,
    /// The content type of its data; that of the batch where the plugin did not say.
    pub content_type: String,
    /// Further attributes, as "name=value\n" lines with names that CloudEvents allows; "" for none.
    pub attributes: String,
    pub data: Vec<u8>,
}

/// The first event that was not handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub event: u32,
    /// What should become of it.
    pub action: Action,
    /// Why, in the plugin's or the host's words.
    pub reason: String,
}

/// What should become of an event that was not handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Try again, after this delay or after what the topology says.
    Retry(Option<Duration>),
    /// It will never work.
    Reject,
}

/// The call gave no usable answer: nothing of the batch was handled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CallError {
    /// The event that is to blame: the one that the plugin was on. None when that is not certain, and each event alone
    /// will show it; or when the kind is [`CallErrorKind::State`], and none is.
    pub event: Option<u32>,
    /// What kind of failure it was.
    pub kind: CallErrorKind,
    /// What happened, with what the plugin said last, for people.
    pub message: String,
    /// Where in the plugin it happened, innermost first, one function a line.
    pub backtrace: Option<String>,
}

/// How a call can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallErrorKind {
    /// The plugin trapped: a panic, a bad memory access, a division by zero, a call of exit.
    Trap,
    /// The event ran longer than its limit.
    Timeout,
    /// The instance was refused memory, and failed.
    Memory,
    /// Recursion used up the stack.
    Stack,
    /// Too many handles of the host are open.
    Handles,
    /// The answer is larger than the limit, or what the events of a call wrote to the state together.
    OutputTooLarge,
    /// The answer, or a request, is not what the contract says.
    Protocol,
    /// The state could not be read: no event's fault, not even of one that was alone. It may pass.
    State,
    /// The lease's instance was lost in an earlier call.
    Spent,
}

impl CallErrorKind {
    /// Its name in records and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            CallErrorKind::Trap => "trap",
            CallErrorKind::Timeout => "timeout",
            CallErrorKind::Memory => "memory",
            CallErrorKind::Stack => "stack",
            CallErrorKind::Handles => "handles",
            CallErrorKind::OutputTooLarge => "output_too_large",
            CallErrorKind::Protocol => "protocol",
            CallErrorKind::State => "state",
            CallErrorKind::Spent => "spent",
        }
    }
}
