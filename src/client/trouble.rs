//! Why a call failed of which the bus said nothing.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tonic::{Code, Status};

use crate::model::units::show_duration;

/// Why a call failed of which the bus said nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Nothing came for so long.
    Silent(Duration),
    /// What answers is no bus.
    Stranger(Stranger),
    /// The two sides do not agree on TLS, or do not trust each other.
    Tls(String),
    /// What this client was given cannot be used, so nothing was sent.
    Options(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent(time) => write!(f, "nothing came for {}", show_duration(*time)),
            Self::Stranger(stranger) => write!(f, "{stranger}"),
            Self::Tls(why) | Self::Options(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Trouble {}

impl Trouble {
    pub(super) fn status(self) -> Status {
        let code = match self {
            Self::Silent(_) => Code::DeadlineExceeded,
            Self::Stranger(_) | Self::Tls(_) | Self::Options(_) => Code::Unavailable,
        };
        let mut status = Status::new(code, self.to_string());
        status.set_source(Arc::new(self));
        status
    }
}

/// What answers, where that is no bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Stranger {
    /// A server of web pages.
    #[error("it speaks HTTP and not gRPC")]
    Http,
    /// Anything else.
    #[error("it speaks something else than HTTP/2")]
    Other,
}

/// What is known to be wrong with the latest connection. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Finding(Arc<Mutex<Option<Trouble>>>);

impl Finding {
    pub(super) fn set(&self, trouble: Trouble) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(trouble);
    }

    /// Of a new connection nothing is known.
    pub(super) fn clear(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn get(&self) -> Option<Trouble> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
