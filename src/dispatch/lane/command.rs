//! Commands to a running lane. It executes them between two calls, in one unit, and answers once that is durable.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::waiting::Waiter;
use crate::engine::{Hold, LaneWrite};
use crate::model::Offset;

/// Number of affected items, or why the command is refused.
pub(crate) type Answer = oneshot::Sender<Result<u64, Refusal>>;

/// A command to a lane.
#[derive(Debug)]
pub(crate) enum Command {
    /// Stop reading and calling.
    Pause(Answer),
    /// Continue, also after a halt.
    Resume(Answer),
    /// Make these waiting events due at once, and reset their attempts.
    Release(Vec<u64>, Answer),
    /// Drop these waiting events.
    Drop(Vec<u64>, Answer),
    /// Add these dead letters to the retry queue, in order, as far as there is room. Those done before count as taken;
    /// the number of the others is added to the counter.
    Redrive(Vec<Letter>, Arc<AtomicU64>, Answer),
    /// Mark these dead letters as done. Those done before do not count.
    Forget(Vec<Bytes>, Answer),
    /// Write these entries into the handler's state.
    Import(Vec<LaneWrite>, Answer),
    /// Move to another position.
    Seek(LaneSeek, Answer),
    /// Run a function while nothing changes; answers once the data that it saw is durable.
    Look(LaneQuery, Answer),
}

impl Command {
    /// The sender for its answer.
    pub(super) fn into_answer(self) -> Answer {
        match self {
            Self::Pause(answer) | Self::Resume(answer) => answer,
            Self::Release(_, answer) | Self::Drop(_, answer) => answer,
            Self::Redrive(_, _, answer) => answer,
            Self::Forget(_, answer) => answer,
            Self::Import(_, answer) => answer,
            Self::Seek(_, answer) => answer,
            Self::Look(_, answer) => answer,
        }
    }

    /// Whether the caller is gone or has timed out. Such a command is not started, so that nothing happens later than
    /// the caller expects.
    pub(super) fn is_given_up(&self) -> bool {
        let answer = match self {
            Self::Pause(answer) | Self::Resume(answer) => answer,
            Self::Release(_, answer) | Self::Drop(_, answer) => answer,
            Self::Redrive(_, _, answer) => answer,
            Self::Forget(_, answer) => answer,
            Self::Import(_, answer) => answer,
            Self::Seek(_, answer) => answer,
            Self::Look(_, answer) => answer,
        };
        answer.is_closed()
    }
}

/// A function that reads a lane's data; its argument is the lane's position.
pub(crate) struct LaneQuery(pub(crate) Box<dyn FnOnce(Offset) + Send>);

impl std::fmt::Debug for LaneQuery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Look")
    }
}

/// A dead letter that is redriven.
#[derive(Debug, Clone)]
pub(crate) struct Letter {
    /// The key under which the lane marks it as done.
    pub(crate) done: Bytes,
    /// Of the original event.
    pub(crate) waiter: Waiter,
    /// Of the original event.
    pub(crate) record: Bytes,
}

/// A seek of one lane.
#[derive(Debug)]
pub(crate) struct LaneSeek {
    pub(crate) to: Offset,
    /// Protects the events from `to` on from retention until the lane has moved, or refuses.
    pub(crate) hold: Option<Hold>,
    pub(crate) from: SeekFrom,
    /// Whether waiting events are dropped.
    pub(crate) drops_waiting: bool,
}

/// The state with which a lane continues.
#[derive(Debug)]
pub(crate) enum SeekFrom {
    Kept,
    Empty,
    /// From a snapshot, in parts.
    Snapshot(mpsc::Receiver<SnapshotPart>),
}

/// A part of a snapshot of a lane.
#[derive(Debug)]
pub(crate) enum SnapshotPart {
    /// Keys and values, in the order of the keys.
    Entries(Vec<(Bytes, Bytes)>),
    /// The end of the lane.
    End,
    /// The snapshot cannot be read.
    Broken(String),
}

/// Why a lane refuses a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A seek would leave waiting events behind.
    #[error(
        "{waiting} events of the lane wait for another attempt or are parked: release or drop them first \
         (`wattle parked`), or say that they may be dropped (`--drop-retry-queue`)"
    )]
    Waits { waiting: usize },
    /// The lane's events are shared, and nothing tells which later events were its own.
    #[error(
        "it shares its events with others (`queue_group: {group}`), and nothing tells which of the earlier ones were \
         its own"
    )]
    Shared { group: String },
    /// An interrupted seek has left an incomplete state.
    #[error(
        "the state of the lane is incomplete, since a seek was interrupted: repeat the seek, with a snapshot or with \
         `--state empty`"
    )]
    Broken,
    /// The imported state exceeds the limit.
    #[error(
        "the state of the lane would have {bytes} bytes and may have {max} (`state.max`): nothing of this part was \
         imported"
    )]
    StateFull {
        /// The resulting size.
        bytes: u64,
        max: u64,
    },
    /// The snapshot cannot be read completely.
    #[error("the snapshot cannot be read: {reason}")]
    Snapshot { reason: String },
    /// The lane has stopped.
    #[error("the lane does not run: {reason}")]
    Stopped { reason: String },
}
