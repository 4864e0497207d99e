//! Errors of operations on subscribers.

use std::io;

use crate::dispatch::{NameError, Refusal, WaitingError};
use crate::engine::ReadError;
use crate::model::Offset;

/// Why an operation failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ControlError {
    /// The name selects no subscriber.
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("subscriber `{subscriber}` has no partition {partition}: it has {partitions}, counted from 0")]
    UnknownPartition {
        subscriber: String,
        /// The requested partition.
        partition: u32,
        /// Number of partitions.
        partitions: u32,
    },
    /// The subscriber has no dead letters.
    #[error(
        "subscriber `{subscriber}` has no dead letters: it halts instead, since its topology says `on_failure: halt`"
    )]
    NoDeadLetters { subscriber: String },
    /// The subscriber has state, and the request does not say what to do with it.
    #[error(
        "subscriber `{subscriber}` has state: pass `--state empty` to delete it, `--state NUMBER` to restore a \
         snapshot (`wattle state snapshots {subscriber}` lists them), or `--state keep` to keep it although it may \
         reflect events that are delivered again"
    )]
    HasState { subscriber: String },
    /// A lane refused the command.
    #[error("partition {partition}: {refusal}")]
    Refused {
        /// The lane's partition.
        partition: u32,
        refusal: Refusal,
    },
    /// A snapshot could not be used.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The requested offset is after the end of the partition.
    #[error(
        "partition {partition} of `{subscriber}` ends at {end}, before offset {offset}: pass an offset up to {end}, \
         `end`, or another partition (`--partition`)"
    )]
    BeyondEnd {
        subscriber: String,
        /// Partition of the lane.
        partition: u32,
        /// The requested offset.
        offset: Offset,
        /// The end of the partition.
        end: Offset,
    },
    /// The operation failed after a part of it was done.
    #[error("{error}; {done} had done it before")]
    Partly {
        /// The part that was done: number and unit.
        done: String,
        error: Box<ControlError>,
    },
    /// Stored data cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// Stored data cannot be read at the moment; a retry may succeed.
    #[error("{0}")]
    UnreadableNow(String),
}

impl ControlError {
    /// Adds the number of items that were done before the error.
    pub(crate) fn after(self, done: u64, what: &str) -> Self {
        match done {
            0 => self,
            1 => Self::Partly { done: format!("1 {what}"), error: Box::new(self) },
            _ => Self::Partly { done: format!("{done} {what}s"), error: Box::new(self) },
        }
    }
}

impl From<ReadError> for ControlError {
    fn from(error: ReadError) -> Self {
        match error.is_passing() {
            true => Self::UnreadableNow(error.to_string()),
            false => Self::Unreadable(error.to_string()),
        }
    }
}

impl From<WaitingError> for ControlError {
    fn from(error: WaitingError) -> Self {
        match error {
            WaitingError::Read(error) => error.into(),
            malformed => Self::Unreadable(malformed.to_string()),
        }
    }
}

/// Why a snapshot was not taken, or cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The engine does not support snapshots.
    #[error("this engine keeps no snapshots")]
    Unsupported,
    /// Unknown snapshot.
    #[error(
        "subscriber `{subscriber}` has no snapshot {number}; `wattle state snapshots {subscriber}` lists its snapshots"
    )]
    Unknown {
        subscriber: String,
        /// The requested number.
        number: u64,
    },
    /// A seek to a snapshot's positions without a snapshot.
    #[error("no snapshot was named: name the position to continue from")]
    NoPosition,
    /// The disk is nearly full.
    #[error("the disk of the bus is nearly full, and a snapshot would take room from events")]
    NoRoom,
    /// The disk failed.
    #[error("the snapshot cannot be written: {0}")]
    Disk(String),
    /// The snapshot is unusable.
    #[error("snapshot {number} cannot be used: {reason}")]
    Unusable {
        /// Number of the snapshot.
        number: u64,
        reason: String,
    },
    /// Events after the snapshot are no longer stored.
    #[error(
        "snapshot {number} is from before offset {position} in partition {partition}, and events up to {start} are no \
         longer stored: the state lacks them, and they cannot be handled again; pass `--to` to continue nevertheless"
    )]
    Expired {
        /// Number of the snapshot.
        number: u64,
        /// Partition of the lane.
        partition: u32,
        /// Position of the lane.
        position: Offset,
        /// First stored offset.
        start: Offset,
    },
    /// The snapshot is ahead of the topic: events that it reflects are lost.
    #[error(
        "snapshot {number} is from before offset {position} in partition {partition}, which ends at {end}: events that \
         its state reflects were lost; pass `--to` to continue nevertheless"
    )]
    Ahead {
        /// Number of the snapshot.
        number: u64,
        /// Partition of the lane.
        partition: u32,
        /// Position of the lane.
        position: Offset,
        /// End of the partition.
        end: Offset,
    },
}

impl From<io::Error> for SnapshotError {
    fn from(error: io::Error) -> Self {
        Self::Disk(error.to_string())
    }
}

impl From<tokio::task::JoinError> for SnapshotError {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::Disk(error.to_string())
    }
}

impl From<ReadError> for SnapshotError {
    fn from(error: ReadError) -> Self {
        Self::Disk(error.to_string())
    }
}
