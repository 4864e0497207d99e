//! What can go wrong between a client and a bus, in two questions: may it be tried again, and has anything happened.

use std::error::Error;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::trouble::Trouble;
use crate::api::{ERROR_DOMAIN, reason};
use crate::model::units::show_duration;

/// Why a call failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// The address makes no sense.
    #[error(
        "`{server}` is not the address of a bus: {why}; write it as host:port or host, such as 127.0.0.1:7411, with \
         https:// before it if the bus speaks TLS"
    )]
    Address {
        /// The given text.
        server: String,
        /// Why it is invalid.
        why: String,
    },
    /// What the client was given does not allow a connection. Nothing was sent.
    #[error("cannot connect to {server}: {why}")]
    Options {
        /// The given address.
        server: String,
        /// What cannot be used, and what to do.
        why: String,
    },
    /// The two sides do not agree on TLS, or one does not trust the other.
    #[error("cannot connect to {server} securely: {why}")]
    Tls {
        /// Where it is.
        server: String,
        /// What happened, and what to do.
        why: String,
    },
    /// No process answers there.
    #[error("cannot reach a bus at {server}: {why}; is `wattle run` or `wattle dev` running there?")]
    Unreachable {
        /// Where it was sought.
        server: String,
        /// What the network says.
        why: String,
    },
    /// What answers there is no bus.
    #[error("what answers at {server} is no Wattle bus: {why}")]
    NoBus {
        /// Where it was sought.
        server: String,
        /// How it is known.
        why: String,
    },
    /// Nothing came from there for too long, not even progress.
    #[error(
        "no answer from the bus at {server} for {}, and no progress; --timeout says how long to wait",
        show_duration(*after)
    )]
    Silent {
        /// Where it is.
        server: String,
        /// How long it was waited for.
        after: Duration,
        /// It was of a call that changes nothing.
        is_read: bool,
    },
    /// The connection broke, and with it the knowledge of what happened to the call.
    #[error("lost the connection to the bus at {server}: {why}")]
    Lost {
        /// Where it is.
        server: String,
        /// What the network says.
        why: String,
        /// It was of a call that changes nothing.
        is_read: bool,
    },
    /// The bus refused.
    #[error("{}", .0.message)]
    Refused(Refusal),
}

/// What the bus said when it refused.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The gRPC code.
    pub code: Code,
    /// The stable reason, one of [`crate::api::reason`]; empty where the bus gave none.
    pub reason: String,
    pub message: String,
    /// When the same call may succeed.
    pub retry_after: Option<Duration>,
    /// The refused call may have had its effect all the same.
    pub outcome_unknown: bool,
    /// Fields of the request that are to blame, such as `events[3]`.
    pub fields: Vec<String>,
}

impl ClientError {
    /// What a status says of a call that changes nothing.
    pub(super) fn of_read(server: &str, status: &Status) -> Self {
        match Self::from_status(server, status) {
            Self::Lost { server, why, .. } => Self::Lost { server, why, is_read: true },
            Self::Silent { server, after, .. } => Self::Silent { server, after, is_read: true },
            Self::Refused(refused) => Self::Refused(Refusal { outcome_unknown: false, ..refused }),
            error => error,
        }
    }

    /// What a failure to connect says.
    pub(super) fn of_connect(server: &str, status: &Status) -> Self {
        match status.source().and_then(|source| source.downcast_ref::<Trouble>()) {
            Some(_) => Self::from_status(server, status),
            None => Self::Unreachable { server: server.to_owned(), why: words(status) },
        }
    }

    /// What a status says.
    pub(super) fn from_status(server: &str, status: &Status) -> Self {
        let server_name = || server.to_owned();
        match status.source().and_then(|source| source.downcast_ref()) {
            Some(Trouble::Silent(after)) => {
                return Self::Silent { server: server_name(), after: *after, is_read: false };
            }
            Some(Trouble::Stranger(stranger)) => {
                return Self::NoBus { server: server_name(), why: stranger.to_string() };
            }
            Some(Trouble::Tls(why)) => return Self::Tls { server: server_name(), why: why.clone() },
            Some(Trouble::Options(why)) => return Self::Options { server: server_name(), why: why.clone() },
            None => {}
        }
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == ERROR_DOMAIN);
        // A bus gives its reasons with these.
        if info.is_none() && status.code() == Code::Unimplemented {
            let why = "it speaks gRPC and does not know the called method, or it is of another release";
            return Self::NoBus { server: server_name(), why: why.to_owned() };
        }
        let from_the_network =
            matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled);
        if info.is_none() && from_the_network {
            return Self::Lost { server: server_name(), why: words(status), is_read: false };
        }
        let outcome = info.and_then(|info| info.metadata.get(reason::OUTCOME));
        Self::Refused(Refusal {
            code: status.code(),
            reason: info.map(|info| info.reason.clone()).unwrap_or_default(),
            message: status.message().to_owned(),
            retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
            outcome_unknown: outcome.is_some_and(|outcome| outcome == reason::OUTCOME_UNKNOWN)
                || status.code() == Code::DeadlineExceeded,
            fields: details
                .bad_request()
                .map(|bad| bad.field_violations.iter().map(|violation| violation.field.clone()).collect())
                .unwrap_or_default(),
        })
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Address { .. } | Self::Options { .. } | Self::Tls { .. } | Self::NoBus { .. } => false,
            Self::Unreachable { .. } | Self::Lost { .. } | Self::Silent { .. } => true,
            Self::Refused(refused) => {
                matches!(refused.code, Code::Unavailable | Code::DeadlineExceeded) || refused.retry_after.is_some()
            }
        }
    }

    /// Whether it is sure that nothing happened.
    pub fn has_no_side_effects(&self) -> bool {
        match self {
            Self::Address { .. }
            | Self::Options { .. }
            | Self::Tls { .. }
            | Self::Unreachable { .. }
            | Self::NoBus { .. } => true,
            Self::Lost { is_read, .. } | Self::Silent { is_read, .. } => *is_read,
            Self::Refused(refused) => !refused.outcome_unknown,
        }
    }

    /// Whether a topology was refused as invalid, or since it would lose data.
    pub fn is_of_topology(&self) -> bool {
        let reasons = [reason::TOPOLOGY_REFUSED, reason::PLUGIN_REFUSED, reason::WOULD_LOSE];
        matches!(self, Self::Refused(refused) if reasons.contains(&refused.reason.as_str()))
    }

    /// Whether nothing happened, since another change came after the caller's last look.
    pub fn is_conflict(&self) -> bool {
        let reasons = [reason::TOPOLOGY_MOVED, reason::VERSION_MOVED];
        matches!(self, Self::Refused(refused) if reasons.contains(&refused.reason.as_str()))
    }

    /// Whether no bus was reached, so that nothing happened.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Tls { .. } | Self::NoBus { .. } => true,
            Self::Lost { is_read, .. } | Self::Silent { is_read, .. } => *is_read,
            Self::Address { .. } | Self::Options { .. } | Self::Refused(_) => false,
        }
    }

    /// Whether the caller may not do that, or the bus does not know who calls. Nothing happened.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Refused(Refusal { code: Code::Unauthenticated | Code::PermissionDenied, .. }))
    }

    /// Whether the bus does not know who calls, or no longer accepts that.
    pub fn is_unauthenticated(&self) -> bool {
        matches!(self, Self::Refused(Refusal { code: Code::Unauthenticated, .. }))
    }
}

/// The innermost cause, which names what really happened ("connection refused").
pub(super) fn words(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    match innermost.downcast_ref::<Status>() {
        Some(status) => status.message().to_owned(),
        None => innermost.to_string(),
    }
}
