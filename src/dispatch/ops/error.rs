//! Why what was asked of a subscriber is not done.

use std::io;

use crate::dispatch::{Refusal, WaitingError};
use crate::engine::ReadError;
use crate::model::Offset;

/// Why something was not done.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ControlError {
    /// No subscriber of that name.
    #[error(
        "there is no subscriber `{subscriber}`; {}",
        nearest.as_ref().map_or("`wattle status` lists them".to_owned(), |name| format!("did you mean `{name}`?"))
    )]
    UnknownSubscriber {
        /// What was asked for.
        subscriber: String,
        /// The nearest name that exists.
        nearest: Option<String>,
    },
    /// A short name that several namespaces have.
    #[error("`{subscriber}` is the name of several subscribers: say which, as one of {}", candidates.join(", "))]
    AmbiguousSubscriber {
        /// What was asked for.
        subscriber: String,
        /// The full names.
        candidates: Vec<String>,
    },
    /// It has no such partition.
    #[error("subscriber `{subscriber}` has no partition {partition}: it has {partitions}, counted from 0")]
    UnknownPartition {
        /// The subscriber.
        subscriber: String,
        /// What was asked for.
        partition: u32,
        /// How many it has.
        partitions: u32,
    },
    /// It keeps no dead letters.
    #[error(
        "subscriber `{subscriber}` has no dead letters: it halts instead, since its topology says `on_failure: halt`"
    )]
    NoDeadLetters {
        /// The subscriber.
        subscriber: String,
    },
    /// It has state, and the request does not say what to do with it.
    #[error(
        "subscriber `{subscriber}` has state: pass `--state empty` to delete it, `--state NUMBER` to restore a \
         snapshot (`wattle state snapshots {subscriber}` lists them), or `--state keep` to keep it although it may \
         reflect events that are delivered again"
    )]
    HasState {
        /// The subscriber.
        subscriber: String,
    },
    /// A lane does not do it.
    #[error("partition {partition}: {refusal}")]
    Refused {
        /// The lane's partition.
        partition: u32,
        /// Why.
        refusal: Refusal,
    },
    /// A snapshot.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// It would go on where there is nothing yet.
    #[error(
        "partition {partition} of `{subscriber}` ends at {end}, before offset {offset}: pass an offset up to {end}, \
         `end`, or another partition (`--partition`)"
    )]
    BeyondEnd {
        /// The subscriber.
        subscriber: String,
        /// The partition.
        partition: u32,
        /// What was asked for.
        offset: Offset,
        /// Behind its last event.
        end: Offset,
    },
    /// Some of the lanes, or of the events, did what they were told before one did not.
    #[error("{error}; {done} had done it before")]
    Partly {
        /// How many, and of what.
        done: String,
        /// Why not all.
        error: Box<ControlError>,
    },
    /// What is stored cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// What is stored cannot be read at the moment; the same read may succeed later.
    #[error("{0}")]
    UnreadableNow(String),
}

impl ControlError {
    /// This, where that number of something had done it before.
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

/// Why a snapshot was not taken, or not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The engine has nowhere to keep any.
    #[error("this engine keeps no snapshots")]
    Unsupported,
    /// There is none of that number.
    #[error(
        "subscriber `{subscriber}` has no snapshot {number}; `wattle state snapshots {subscriber}` lists its snapshots"
    )]
    Unknown {
        /// The subscriber.
        subscriber: String,
        /// What was asked for.
        number: u64,
    },
    /// No snapshot was named whose position could be gone back to.
    #[error("no snapshot was named: name the position to continue from")]
    NoPosition,
    /// The disk is nearly full.
    #[error("the disk of the bus is nearly full, and a snapshot would take room from events")]
    NoRoom,
    /// The disk failed.
    #[error("the snapshot cannot be written: {0}")]
    Disk(String),
    /// What is there cannot be used.
    #[error("snapshot {number} cannot be used: {reason}")]
    Unusable {
        /// Its number.
        number: u64,
        /// Why.
        reason: String,
    },
    /// Events that came after it are gone.
    #[error(
        "snapshot {number} is from before offset {position} in partition {partition}, and events up to {start} are no \
         longer stored: the state lacks them, and they cannot be handled again; pass `--to` to continue nevertheless"
    )]
    Expired {
        /// Its number.
        number: u64,
        /// The partition.
        partition: u32,
        /// Where the lane was.
        position: Offset,
        /// What is kept begins here.
        start: Offset,
    },
    /// Events that it knows are gone.
    #[error(
        "snapshot {number} is from before offset {position} in partition {partition}, which ends at {end}: events that \
         its state reflects were lost; pass `--to` to continue nevertheless"
    )]
    Ahead {
        /// Its number.
        number: u64,
        /// The partition.
        partition: u32,
        /// Where the lane was.
        position: Offset,
        /// What there is ends here.
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
