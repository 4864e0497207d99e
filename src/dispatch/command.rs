//! What a lane can be told while it runs. It does so between two calls, in one unit, and answers when that is durable.

use bytes::Bytes;
use tokio::sync::oneshot;

use super::waiting::Waiter;
use crate::engine::LaneWrite;
use crate::model::Offset;

/// How many it was done to, or why not.
pub(super) type Answer = oneshot::Sender<Result<u64, Refusal>>;

/// Something that a lane is told.
#[derive(Debug)]
pub(super) enum Command {
    /// To read and call nothing more.
    Pause(Answer),
    /// To go on, also where it halted.
    Resume(Answer),
    /// To try these waiting events at once, as if for the first time.
    Release(Vec<u64>, Answer),
    /// To forget these waiting events.
    Drop(Vec<u64>, Answer),
    /// To take these dead letters in once more, in their order, as far as there is room for them.
    Redrive(Vec<Letter>, Answer),
    /// To remember that these dead letters are done.
    Forget(Vec<Bytes>, Answer),
    /// To keep these entries of its handler's state.
    Import(Vec<LaneWrite>, Answer),
    /// To go on somewhere else.
    Seek(Seek, Answer),
}

/// A dead letter that is to be handled once more.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    /// The key under which the lane notes that it is done.
    pub(super) done: Bytes,
    /// Of the original event.
    pub(super) waiter: Waiter,
    /// Of the original event.
    pub(super) record: Bytes,
}

/// Where a lane goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seek {
    pub(super) to: Offset,
    pub(super) empties_state: bool,
    /// Events that wait are forgotten.
    pub(super) drops_waiting: bool,
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
    /// It has stopped.
    #[error("the lane does not run: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}
