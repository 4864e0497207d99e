//! Why a tree does not start.

use crate::engine::{ApplyError, SessionError};

/// Why a tree does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The engine refused what the topology wants.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A lane could not be acquired.
    #[error("cannot start `{subscriber}` on partition {partition}: {error}")]
    Lane {
        /// The subscriber's full name.
        subscriber: String,
        /// The partition.
        partition: u32,
        /// Why.
        error: SessionError,
    },
    /// What a lane keeps cannot be read.
    #[error("cannot start `{subscriber}` on partition {partition}: its stored data cannot be read: {reason}")]
    Unreadable {
        /// The subscriber's full name.
        subscriber: String,
        /// The partition.
        partition: u32,
        /// Why.
        reason: String,
    },
    /// The caller gave another number of handlers than there are subscribers.
    #[error("{handlers} handlers for {subscribers} subscribers")]
    Handlers {
        /// How many were given.
        handlers: usize,
        /// How many are needed.
        subscribers: usize,
    },
}
