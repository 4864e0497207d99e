//! The reason for an event's failure, as a lane stores it.

use std::borrow::Cow;
use std::time::Duration;

use crate::model::call::{CallError, CallErrorKind, EventVerdict, InstanceError};
use crate::model::event::ATTRIBUTE_VALUE_BYTES_MAX;
use crate::model::excerpt;

/// Maximum text of an attribute: the limit for readers, less the text's own header.
pub(super) const ATTRIBUTE_TEXT_BYTES_MAX: usize = ATTRIBUTE_VALUE_BYTES_MAX - 3;

/// The last failure of an event.
#[derive(Debug, Clone)]
pub(crate) struct LastFailure {
    /// `reject`, `retry`, `refused`, or the kind of a call's failure.
    pub(crate) kind: &'static str,
    pub(crate) reason: String,
    pub(crate) backtrace: Option<String>,
    /// Whether another attempt can succeed.
    pub(crate) may_pass: bool,
    /// The pause that the handler asked for.
    pub(crate) delay: Option<Duration>,
}

impl LastFailure {
    /// The kind of [`Self::of_condition`].
    pub(super) const OF_CONDITION: &str = "when";

    /// There was no instance to call.
    pub(super) fn of_instance(error: &InstanceError) -> Self {
        Self { kind: "instance", reason: error.to_string(), backtrace: None, may_pass: true, delay: None }
    }

    /// The subscriber's condition cannot be evaluated.
    pub(super) fn of_condition(reason: &str) -> Self {
        let reason = format!("its `when` has no answer: {reason}");
        Self { kind: Self::OF_CONDITION, reason, backtrace: None, may_pass: false, delay: None }
    }

    /// The handler says that the event is not done.
    pub(crate) fn of_verdict(verdict: &EventVerdict) -> Self {
        let (kind, reason, may_pass, delay) = match verdict {
            EventVerdict::Retry { after, reason } => ("retry", reason.clone(), true, *after),
            EventVerdict::Reject { reason } => ("reject", reason.clone(), false, None),
            EventVerdict::Done | EventVerdict::NotReached | EventVerdict::Pending => {
                ("retry", "the handler has not said what became of it".to_owned(), true, None)
            }
        };
        Self { kind, reason, backtrace: None, may_pass, delay }
    }

    /// What came of it cannot be committed.
    pub(super) fn refused(reason: String) -> Self {
        Self { kind: "refused", reason, backtrace: None, may_pass: false, delay: None }
    }

    /// A call with this event alone has failed.
    pub(crate) fn of_call(error: CallError) -> Self {
        let may_pass = error.kind != CallErrorKind::Protocol;
        Self { kind: error.kind.as_str(), reason: error.message, backtrace: error.backtrace, may_pass, delay: None }
    }
}

/// The text, cut to the limit of an attribute.
pub(super) fn cut(text: &str) -> Cow<'_, str> {
    match text {
        "" => "unknown".into(),
        text => excerpt(text, ATTRIBUTE_TEXT_BYTES_MAX),
    }
}
