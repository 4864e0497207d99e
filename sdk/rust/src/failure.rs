//! What a handler says about an event that it cannot handle.

use std::error::Error;
use std::fmt::Display;
use std::time::Duration;

use crate::contract::wattle::plugin::types;

/// The event was not handled.
///
/// `?` turns any error into a rejection: a handler that depends on its event alone fails the same way the next time.
/// Where that is not so, say [`OrFail::or_retry`].
// Not an `Error` itself: only so may every `Error` become one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Try again, after this delay or after what the topology says.
    Retry {
        /// None: what the topology says.
        after: Option<Duration>,
        /// Why, for whoever looks at it later.
        reason: String,
    },
    /// It will never work: give it to the dead letters now.
    Reject {
        /// Why, for whoever looks at it later.
        reason: String,
    },
}

impl Failure {
    /// It will never work.
    pub fn reject(reason: impl Into<String>) -> Failure {
        Failure::Reject { reason: reason.into() }
    }

    /// Try again, when the topology says.
    pub fn retry(reason: impl Into<String>) -> Failure {
        Failure::Retry { after: None, reason: reason.into() }
    }

    /// Try again after this delay. It is kept in milliseconds.
    pub fn retry_after(after: Duration, reason: impl Into<String>) -> Failure {
        Failure::Retry { after: Some(after), reason: reason.into() }
    }

    /// Says which event of the batch it is about.
    pub(crate) fn of(self, event: u32) -> types::Failure {
        let (action, reason) = match self {
            Failure::Reject { reason } => (types::Action::Reject, reason),
            Failure::Retry { after, reason } => {
                let after_ms = after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
                (types::Action::Retry(after_ms), reason)
            }
        };
        types::Failure { event, action, reason }
    }
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        let mut reason = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            reason.push_str(": ");
            reason.push_str(&cause.to_string());
            source = cause.source();
        }
        Failure::Reject { reason }
    }
}

/// Turns an error, or nothing where something was needed, into a [`Failure`] with words of one's own.
pub trait OrFail<T> {
    /// It will never work.
    ///
    /// # Errors
    /// When `self` holds no value.
    fn or_reject(self, context: impl Display) -> Result<T, Failure>;

    /// Try again.
    ///
    /// # Errors
    /// When `self` holds no value.
    fn or_retry(self, context: impl Display) -> Result<T, Failure>;
}

impl<T, E: Display> OrFail<T> for Result<T, E> {
    fn or_reject(self, context: impl Display) -> Result<T, Failure> {
        self.map_err(|error| Failure::reject(format!("{context}: {error}")))
    }

    fn or_retry(self, context: impl Display) -> Result<T, Failure> {
        self.map_err(|error| Failure::retry(format!("{context}: {error}")))
    }
}

impl<T> OrFail<T> for Option<T> {
    fn or_reject(self, context: impl Display) -> Result<T, Failure> {
        self.ok_or_else(|| Failure::reject(context.to_string()))
    }

    fn or_retry(self, context: impl Display) -> Result<T, Failure> {
        self.ok_or_else(|| Failure::retry(context.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_mark_rejects_with_the_whole_chain_of_causes() {
        fn parse() -> Result<u8, Failure> {
            Ok("300".parse::<u8>()?)
        }
        assert_eq!(parse(), Err(Failure::reject("number too large to fit in target type")));
    }

    #[test]
    fn words_of_ones_own_come_before_the_cause() {
        assert_eq!("x".parse::<u8>().or_retry("stock level"), {
            Err(Failure::retry("stock level: invalid digit found in string"))
        });
        assert_eq!(None::<u8>.or_reject("no sku"), Err(Failure::reject("no sku")));
    }
}
