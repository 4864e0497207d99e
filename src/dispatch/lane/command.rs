//! What a lane can be told while it runs. It does so between two calls, in one unit, and answers when that is durable.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::waiting::Waiter;
use crate::engine::{Hold, LaneWrite};
use crate::model::Offset;

/// How many it was done to, or why not.
pub(crate) type Answer = oneshot::Sender<Result<u64, Refusal>>;

/// Something that a lane is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// To read and call nothing more.
    Pause(Answer),
    /// To go on, also where it halted.
    Resume(Answer),
    /// To try these waiting events at once, as if for the first time.
    Release(Vec<u64>, Answer),
    /// To forget these waiting events.
    Drop(Vec<u64>, Answer),
    /// To take these dead letters in once more, in their order, as far as there is room for them. Those that were done before count
    /// as taken; how many were not is added to the number beside.
    Redrive(Vec<Letter>, Arc<AtomicU64>, Answer),
    /// To remember that these dead letters are done. Those that were done before do not count.
    Forget(Vec<Bytes>, Answer),
    /// To keep these entries of its handler's state.
    Import(Vec<LaneWrite>, Answer),
    /// To go on somewhere else.
    Seek(Seek, Answer),
    /// To have somebody look while nothing changes, and say so once what there is to be seen is durable.
    Look(Look, Answer),
}

impl Command {
    /// Whom to answer.
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

    /// Whether nobody waits for it any more: the caller is gone, or was told that it is not done in time. It is not begun
    /// then, so that nothing happens later than anybody expects it.
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

/// Looks at a lane, which is at a position.
pub(crate) struct Look(pub(crate) Box<dyn FnOnce(Offset) + Send>);

impl std::fmt::Debug for Look {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Look")
    }
}

/// A dead letter that is to be handled once more.
#[derive(Debug, Clone)]
pub(crate) struct Letter {
    /// The key under which the lane notes that it is done.
    pub(crate) done: Bytes,
    /// Of the original event.
    pub(crate) waiter: Waiter,
    /// Of the original event.
    pub(crate) record: Bytes,
}

/// Where a lane goes on.
#[derive(Debug)]
pub(crate) struct Seek {
    pub(crate) to: Offset,
    /// What is there from `to` on stays until the lane is there, or does not go there.
    pub(crate) hold: Option<Hold>,
    pub(crate) from: SeekFrom,
    /// Events that wait are forgotten.
    pub(crate) drops_waiting: bool,
}

/// With which state a lane goes on.
#[derive(Debug)]
pub(crate) enum SeekFrom {
    /// As it is.
    Kept,
    /// None.
    Empty,
    /// That of a snapshot, which comes in parts.
    Snapshot(mpsc::Receiver<Restored>),
}

/// A part of what a lane kept.
#[derive(Debug)]
pub(crate) enum Restored {
    /// Keys and values, in the order of the keys.
    Entries(Vec<(Bytes, Bytes)>),
    /// That was all.
    End,
    /// It cannot be read.
    Broken(String),
}

/// Why a lane does not do as it is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Events wait that a seek would leave behind.
    #[error(
        "{waiting} events of the lane wait for another attempt or are parked: release or drop them first \
         (`wattle parked`), or say that they may be dropped (`--drop-waiting`)"
    )]
    Waits {
        /// How many.
        waiting: usize,
    },
    /// Its events are shared, and whose those behind it were is not known any more.
    #[error("it shares its events with others (`claim: {group}`): which of those behind it were its own is not known")]
    Shared {
        /// The group.
        group: String,
    },
    /// A seek with another state broke off: it has neither the one nor the other.
    #[error(
        "the state of the lane is not whole, since a seek broke off: do it again, with a snapshot or with `--state empty`"
    )]
    Broken,
    /// What is to be put into its handler's state does not fit.
    #[error(
        "the state of the lane would be {bytes} bytes and may be {max} (`state.max`): nothing of this part was put in"
    )]
    StateFull {
        /// How large it would be.
        bytes: u64,
        /// How large it may be.
        max: u64,
    },
    /// The snapshot could not be read to its end.
    #[error("the snapshot cannot be read: {reason}")]
    Snapshot {
        /// Why.
        reason: String,
    },
    /// It has stopped.
    #[error("the lane does not run: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}
