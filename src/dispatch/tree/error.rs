//! Errors of starting a tree.

use crate::engine::{ApplyError, SessionError};

/// Why a tree does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The engine refused the topics or subscribers of the topology.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A lane could not be acquired.
    #[error("cannot start `{subscriber}` on partition {partition}: {error}")]
    Lane {
        /// Full name of the subscriber.
        subscriber: String,
        /// Partition of the lane.
        partition: u32,
        error: SessionError,
    },
    /// The stored data of a lane cannot be read.
    #[error("cannot start `{subscriber}` on partition {partition}: its stored data cannot be read: {reason}")]
    Unreadable {
        /// Full name of the subscriber.
        subscriber: String,
        /// Partition of the lane.
        partition: u32,
        reason: String,
    },
    /// The number of handlers differs from the number of subscribers.
    #[error("{handlers} handlers for {subscribers} subscribers")]
    Handlers {
        /// Handlers passed by the caller.
        handlers: usize,
        /// Subscribers of the plan.
        subscribers: usize,
    },
}
