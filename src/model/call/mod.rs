//! A call: the inputs of a handler, its answer, and its errors. Handlers are Wasm plugins, functions in tests, and
//! anything else that can process a batch.
//!
//! Promises: plain data and traits; an answer concerns only the events of its batch. Must not know: who calls, how a
//! handler is implemented, where state is stored.

mod handler;
mod settings;
mod state;

use std::sync::Arc;
use std::time::Duration;

pub use handler::{HandleError, Handler, InstanceError};
pub use settings::{Limits, PluginSettings};
pub use state::{Keys, NoState, Reads, STATE_READS_BYTES_MAX, StateError, StateRead, StateView, StateWrite};

/// The events of one call, with their common properties.
#[derive(Clone)]
pub struct Batch<'a> {
    pub topic: &'a str,
    pub partition: u32,
    /// The content type of their data; "" when there is none.
    pub content_type: &'a str,
    /// The events, in order. At most `u32::MAX` of them.
    pub events: &'a [CallEvent<'a>],
    /// Data that is computed only if the plugin asks for it.
    pub context: Arc<dyn EventContext>,
    /// The state of the lane before the first of them.
    pub state: Arc<dyn StateView>,
}

/// One event of a batch.
#[derive(Debug, Clone, Copy)]
pub struct CallEvent<'a> {
    /// The ordering key.
    pub key: &'a str,
    /// The CloudEvents type.
    pub r#type: &'a str,
    /// When it was appended to its topic, in nanoseconds since 1970.
    pub time_ns: u64,
    /// The same by the clock of state expiry, which does not follow a clock that jumps.
    pub trusted_time_ns: u64,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    pub data: &'a [u8],
}

/// Information about the events of a call that a plugin may request, and its log. Answers must depend on the event
/// alone.
pub trait EventContext: Send + Sync {
    /// The CloudEvents attributes of an event (`id`, `source`, `subject` when it has one, `time`, extensions) as
    /// "name=value\n" lines.
    fn attributes(&self, index: u32) -> String;

    /// The seed of the event's random bytes.
    fn seed(&self, index: u32) -> [u8; 32];

    /// Logs a line of the plugin; `index` is the current event, if any.
    fn log(&self, index: Option<u32>, level: LogLevel, context: &str, line: &str);
}

/// The level of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// The flow of control.
    Trace,
    /// For debugging the plugin.
    Debug,
    /// For monitoring the plugin; also standard output.
    Info,
    /// Something looks wrong; also standard error.
    Warn,
    /// Something is wrong; also the critical level of plugins.
    Error,
}

/// A usable answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handled {
    /// What became of each event, in the order of the batch: as many as it has events.
    pub verdicts: Vec<EventVerdict>,
    /// The outputs of the events that are done, in the order of those.
    pub outputs: Vec<Output>,
    /// What the events that are done wrote to the state, in the order of those; each event wrote a key once at the
    /// most.
    pub writes: Vec<StateWrite>,
}

/// What became of one event of a batch.
///
/// Events of different keys may end in any order. An event that is done although an earlier one of its key is not
/// is called again after that one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventVerdict {
    /// It was handled: its outputs and writes are in the answer.
    Done,
    /// The attempt failed, and another one may not.
    Retry {
        /// How long to wait before it; what the topology says where this is not given.
        after: Option<Duration>,
        /// Why, in the handler's or the host's words.
        reason: String,
    },
    /// It can never succeed.
    Reject {
        /// Why, in the handler's or the host's words.
        reason: String,
    },
    /// The handler did not come to it. It is called again, and no attempt is counted.
    NotReached,
    /// The handler still has it. It waits in the retry queue, with the later events of its key, and is called
    /// again after a pause; no attempt is counted.
    Pending,
}

impl Handled {
    /// All events are done, and there is nothing else to say.
    pub fn done(events: usize) -> Self {
        Self::in_order(events, None)
    }

    /// The answer of a handler that takes one event after the other and ends at the first failure.
    pub fn in_order(events: usize, failed: Option<Failure>) -> Self {
        let mut verdicts = vec![EventVerdict::Done; events];
        if let Some(Failure { event, action, reason }) = failed {
            let rest = verdicts.get_mut(event as usize..).unwrap_or_default();
            rest.fill(EventVerdict::NotReached);
            if let Some(verdict) = rest.first_mut() {
                *verdict = match action {
                    Action::Retry(after) => EventVerdict::Retry { after, reason },
                    Action::Reject => EventVerdict::Reject { reason },
                };
            }
        }
        Self { verdicts, outputs: Vec::new(), writes: Vec::new() }
    }

    /// No event comes again for its own sake: what has no end has failed.
    pub fn end(&mut self) {
        for verdict in &mut self.verdicts {
            if let EventVerdict::NotReached | EventVerdict::Pending = verdict {
                let reason = "the handler has not said what became of it, and it is delivered at most once".to_owned();
                *verdict = EventVerdict::Retry { after: None, reason };
            }
        }
    }

    /// The first event that is not done, with what became of it.
    pub fn unfinished(&self) -> Option<(usize, &EventVerdict)> {
        self.verdicts.iter().enumerate().find(|(_, verdict)| **verdict != EventVerdict::Done)
    }

    /// The first event that failed.
    pub fn failure(&self) -> Option<Failure> {
        (0..).zip(&self.verdicts).find_map(|(event, verdict)| match verdict {
            EventVerdict::Retry { after, reason } => {
                Some(Failure { event, action: Action::Retry(*after), reason: reason.clone() })
            }
            EventVerdict::Reject { reason } => Some(Failure { event, action: Action::Reject, reason: reason.clone() }),
            EventVerdict::Done | EventVerdict::NotReached | EventVerdict::Pending => None,
        })
    }

    /// Whether it is an answer to a batch of this many events: a verdict for each, and outputs and writes in
    /// order, of events that are done.
    ///
    /// # Errors
    /// In words: the handler broke the contract.
    pub fn check(&self, events: usize) -> Result<(), CallError> {
        let verdicts = self.verdicts.len();
        if verdicts != events {
            return Err(CallError::protocol(format!("it answered {verdicts} verdicts for {events} events")));
        }
        self.check_events("output", self.outputs.iter().map(|output| output.event))?;
        self.check_events("write", self.writes.iter().map(|write| write.event))
    }

    fn check_events(&self, what: &str, events: impl Iterator<Item = u32>) -> Result<(), CallError> {
        let mut last = 0;
        for event in events {
            if event < last {
                return Err(CallError::protocol(format!("a {what} of event {event} comes after one of event {last}")));
            }
            if event > last || last == 0 {
                if self.verdicts.get(event as usize) != Some(&EventVerdict::Done) {
                    return Err(CallError::protocol(format!("there is a {what} of event {event}, which is not done")));
                }
                last = event;
            }
        }
        Ok(())
    }
}

/// An event that the plugin sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The index of its event.
    pub event: u32,
    /// The index of its port in [`PluginSettings::ports`].
    pub port: u32,
    /// Its ordering key; `None`: that of its event.
    pub key: Option<String>,
    /// Its CloudEvents type; never empty.
    pub r#type: String,
    /// The content type of its data; by default that of the batch.
    pub content_type: String,
    /// Further attributes, as "name=value\n" lines with names that CloudEvents allows; "" for none.
    pub attributes: String,
    pub data: Vec<u8>,
}

/// How an event failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub event: u32,
    /// The required action.
    pub action: Action,
    /// The reason, as a message of the plugin or the host.
    pub reason: String,
}

/// What to do with an event that was not handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Retry after this delay, or after the topology's.
    Retry(Option<Duration>),
    /// It can never succeed.
    Reject,
}

/// The call gave no usable answer: nothing of the batch was handled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CallError {
    /// The event to blame, which was the current one. `None` if that is uncertain, in which case separate calls will
    /// show it; or for [`CallErrorKind::State`], for which no event is to blame.
    pub event: Option<u32>,
    /// The kind of failure.
    pub kind: CallErrorKind,
    /// The error and the plugin's last output, as a message.
    pub message: String,
    /// The plugin's stack, innermost first, one function per line.
    pub backtrace: Option<String>,
}

impl CallError {
    /// The handler broke the contract, and no single event is to blame.
    fn protocol(words: String) -> Self {
        let message = format!("it broke the contract: {words}");
        Self { event: None, kind: CallErrorKind::Protocol, message, backtrace: None }
    }
}

/// How a call can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
    /// The answer, or all writes of the call to the state, exceed a limit.
    OutputTooLarge,
    /// The answer, or a request, violates the contract.
    Protocol,
    /// The state could not be read: no event is to blame. It may be temporary.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(verdicts: &[EventVerdict], outputs: &[u32]) -> Handled {
        let output = |event: &u32| Output {
            event: *event,
            port: 0,
            key: None,
            r#type: "t".into(),
            content_type: String::new(),
            attributes: String::new(),
            data: Vec::new(),
        };
        Handled { verdicts: verdicts.to_vec(), outputs: outputs.iter().map(output).collect(), writes: Vec::new() }
    }

    #[test]
    fn an_answer_in_order_is_done_a_failure_and_what_was_not_reached() {
        use EventVerdict::{Done, NotReached, Reject};
        let failed = Failure { event: 1, action: Action::Reject, reason: "no".into() };
        let handled = Handled::in_order(4, Some(failed.clone()));
        assert_eq!(handled.verdicts, [Done, Reject { reason: "no".into() }, NotReached, NotReached]);
        assert_eq!((handled.failure(), handled.unfinished().map(|(at, _)| at)), (Some(failed), Some(1)));
        assert_eq!(Handled::in_order(2, None), Handled::done(2));
        let beyond = Failure { event: 9, action: Action::Reject, reason: String::new() };
        assert_eq!(Handled::in_order(2, Some(beyond)), Handled::done(2), "no event of the batch");
    }

    #[test]
    fn an_answer_has_a_verdict_for_each_event_and_outputs_of_those_that_are_done() {
        use EventVerdict::{Done, Pending};
        let wrong = |verdicts: &[EventVerdict], outputs: &[u32]| match answer(verdicts, outputs).check(2) {
            Ok(()) => String::new(),
            Err(error) => {
                assert_eq!((error.kind, error.event), (CallErrorKind::Protocol, None));
                error.message
            }
        };
        assert_eq!(wrong(&[Done, Done], &[0, 0, 1]), "");
        assert_eq!(wrong(&[Pending, Done], &[1, 1]), "");
        assert!(wrong(&[Done], &[]).contains("1 verdicts for 2 events"));
        assert!(wrong(&[Done, Done, Done], &[]).contains("3 verdicts for 2 events"));
        assert!(wrong(&[Done, Done], &[1, 0]).contains("of event 0 comes after one of event 1"));
        assert!(wrong(&[Done, Pending], &[0, 1]).contains("of event 1, which is not done"));
        assert!(wrong(&[Pending, Done], &[0]).contains("of event 0, which is not done"));
        assert!(wrong(&[Done, Done], &[2]).contains("of event 2, which is not done"));
    }
}
