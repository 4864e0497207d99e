//! A call: what goes in, what comes out, and what is said when it fails.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use wasmtime::{Trap, WasmBacktrace};

use super::answer;
use super::contract::wattle::plugin::types;
use super::limits::{Limits, crossing_bytes};
use super::logs::LogLevel;
use super::plugin::Shared;
use super::state::{State, Stop};
use super::store::{StateView, StateWrite};
use super::ticker::Slice;
use super::words;

/// Events that are handled in one call. What is equal for all of them is said once.
#[derive(Clone)]
pub struct Batch<'a> {
    /// The topic that they come from.
    pub topic: &'a str,
    /// Its partition.
    pub partition: u32,
    /// The content type of their data; "" when there is none.
    pub content_type: &'a str,
    /// The events, in order. At most `u32::MAX` of them.
    pub events: &'a [Event<'a>],
    /// What is only asked for when the plugin asks.
    pub context: Arc<dyn EventContext>,
    /// The state of the lane, as it is in front of the first of them.
    pub state: Arc<dyn StateView>,
}

/// One event of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
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
    /// The payload.
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
    /// The index of its port in [`PluginSpec::ports`](super::PluginSpec::ports).
    pub port: u32,
    /// Its ordering key; none: that of the event it answers.
    pub key: Option<String>,
    /// Its CloudEvents type; never empty.
    pub r#type: String,
    /// The content type of its data; that of the batch where the plugin did not say.
    pub content_type: String,
    /// Further attributes, as "name=value\n" lines with names that CloudEvents allows; "" for none.
    pub attributes: String,
    /// The payload.
    pub data: Vec<u8>,
}

/// The first event that was not handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its index.
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

/// Polls a call, and marks each time where it runs again, so that only running counts as its time.
pub(super) async fn in_slices<F: Future>(slice: &Slice, call: F) -> F::Output {
    let mut call = pin!(call);
    std::future::poll_fn(|context| {
        slice.begin();
        call.as_mut().poll(context)
    })
    .await
}

/// The batch as the contract's types, borrowing all of it.
pub(super) fn lowered<'a>(batch: &Batch<'a>) -> (types::Batch<'a>, Vec<types::Event<'a>>) {
    let info = types::Batch { topic: batch.topic, partition: batch.partition, content_type: batch.content_type };
    let events = batch.events.iter().map(|event| types::Event {
        key: event.key,
        type_: event.r#type,
        time: event.time_ns,
        attempt: event.attempt,
        data: event.data,
    });
    (info, events.collect())
}

/// Checks an answer, so that the rest of the bus can rely on it.
pub(super) fn checked(answer: types::Handled, batch: &Batch<'_>, plugin: &Shared) -> Result<Handled, CallError> {
    let terms = answer::Terms {
        events: batch.events.len(),
        content_type: batch.content_type,
        ports: &plugin.kind.ports,
        port_order: &plugin.port_order,
        output_bytes: plugin.kind.limits.output_bytes,
    };
    terms.check(answer)
}

/// What a failed call says.
pub(super) fn failed(error: &wasmtime::Error, state: &State, batch: &Batch<'_>, limits: &Limits) -> CallError {
    let Explanation { kind, message } = explain(error, state, limits.time);
    let event = match kind {
        // The sum of the answers of a batch, unless the batch is one event.
        CallErrorKind::OutputTooLarge | CallErrorKind::Protocol if batch.events.len() > 1 && has_returned(error) => {
            None
        }
        // No event is to blame, or all of them together: alone each has room.
        CallErrorKind::State => None,
        CallErrorKind::OutputTooLarge if !has_returned(error) => None,
        _ => state.event(),
    };
    let message = match kind {
        CallErrorKind::OutputTooLarge if has_returned(error) => {
            let most = crossing_bytes(limits);
            format!("{message}; a call may return {most} bytes")
        }
        _ => message,
    };
    CallError { event, kind, message, backtrace: words::backtrace(error) }
}

/// Whether the plugin had already returned: what failed was to read its answer, or something it handed over.
pub(super) fn has_returned(error: &wasmtime::Error) -> bool {
    !error.is::<Trap>() && !error.is::<Stop>() && !error.is::<WasmBacktrace>()
}

/// What happened, in words.
pub(super) struct Explanation {
    pub(super) kind: CallErrorKind,
    pub(super) message: String,
}

/// Finds out what happened from wasmtime's error and from what the instance did before.
pub(super) fn explain(error: &wasmtime::Error, state: &State, time: Duration) -> Explanation {
    let (kind, what) = if let Some(stop) = error.downcast_ref::<Stop>() {
        match stop {
            Stop::Timeout => (CallErrorKind::Timeout, format!("it ran longer than its limit of {time:?}")),
            Stop::Handles(_) => (CallErrorKind::Handles, stop.to_string()),
            Stop::Protocol(_) | Stop::Random(_) => (CallErrorKind::Protocol, stop.to_string()),
            Stop::StateOutside => (CallErrorKind::Protocol, stop.to_string()),
            Stop::State(_) => (CallErrorKind::State, stop.to_string()),
            Stop::StateOfCall => (CallErrorKind::OutputTooLarge, stop.to_string()),
            Stop::Exit | Stop::Files(_) => (CallErrorKind::Trap, stop.to_string()),
        }
    } else if let Some(trap) = error.downcast_ref::<Trap>() {
        match (trap, state.meter.refused()) {
            (Trap::StackOverflow, _) => (CallErrorKind::Stack, "its calls are nested too deeply for its stack".into()),
            (_, Some(refused)) => (CallErrorKind::Memory, refused.to_owned()),
            (Trap::UnreachableCodeReached, None) if state.log.panic().is_some() => {
                let panic = state.log.panic().unwrap_or_default();
                return Explanation { kind: CallErrorKind::Trap, message: format!("it {panic}") };
            }
            (Trap::UnreachableCodeReached, None) => (CallErrorKind::Trap, "it gave up (`unreachable`)".into()),
            (trap, None) => {
                let trap = trap.to_string();
                (CallErrorKind::Trap, format!("it trapped: {}", trap.trim_start_matches("wasm trap: ")))
            }
        }
    } else {
        let chain = words::error(error);
        if chain.contains(FUEL_EXHAUSTED) {
            (CallErrorKind::OutputTooLarge, "it handed over more data at once than is allowed".into())
        } else if let Some(refused) = state.meter.refused() {
            (CallErrorKind::Memory, refused.to_owned())
        } else if chain.contains(HANDLES_EXHAUSTED) {
            (CallErrorKind::Handles, "it has as many handles open as is allowed".into())
        } else {
            (CallErrorKind::Protocol, format!("it broke the contract: {chain}"))
        }
    };
    let said = state.log.last_words();
    let message = if said.is_empty() { what } else { format!("{what}; it said: {said}") };
    Explanation { kind, message }
}

/// How wasmtime says that too much was copied at once. Its error has no public type; a test holds us to the words.
const FUEL_EXHAUSTED: &str = "fuel allocated for hostcalls has been exhausted";

/// How wasmtime says that a component holds too many handles.
const HANDLES_EXHAUSTED: &str = "store handle limit exceeded";
