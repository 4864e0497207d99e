//! Moving a subscriber to another position.

use super::times::{INVALID_TIME, nanoseconds, timestamp};
use super::v1;
use super::v1::seek_request;
use crate::model::Offset;

/// What becomes of the state of a handler whose subscriber is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeekState {
    /// It stays as it is, though it may know events that come again.
    Keep,
    /// It is emptied.
    Empty,
    /// It is that of the snapshot with this number, and of the events that waited then, those wait again that do not
    /// come again.
    Snapshot(u64),
}

/// The target position of a seek.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeekTo {
    /// At the first event that is kept.
    Start,
    /// Behind the last one.
    End,
    /// At this offset of each partition, which it has to have or end at.
    Offset(Offset),
    /// At the first event that was appended at or after this time, Unix nanoseconds.
    Time(u64),
    /// Where it was when the snapshot was taken whose state it gets.
    Snapshot,
}

/// How a subscriber is to be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seek {
    /// Where to.
    pub to: SeekTo,
    /// Only this partition; `None` for all.
    pub partition: Option<u32>,
    /// What becomes of its handler's state; `None`: the seek is refused where there is any.
    pub state: Option<SeekState>,
    /// Events that wait are forgotten.
    pub drops_waiting: bool,
    /// Nothing is done: only what would be.
    pub dry_run: bool,
}

/// How a lane was moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneMove {
    pub partition: u32,
    /// Where it was.
    pub from: Offset,
    /// Where it is.
    pub to: Offset,
}

impl From<LaneMove> for v1::seek_response::Moved {
    fn from(LaneMove { partition, from, to }: LaneMove) -> Self {
        Self { partition, from, to }
    }
}

impl From<v1::seek_response::Moved> for LaneMove {
    fn from(v1::seek_response::Moved { partition, from, to }: v1::seek_response::Moved) -> Self {
        Self { partition, from, to }
    }
}

impl Seek {
    /// The request to move a subscriber so.
    pub(crate) fn request(self, subscriber: String) -> v1::SeekRequest {
        let Self { to, partition, state, drops_waiting, dry_run } = self;
        let to = match to {
            SeekTo::Start => Some(seek_request::To::Start(seek_request::Start {})),
            SeekTo::End => Some(seek_request::To::End(seek_request::End {})),
            SeekTo::Offset(offset) => Some(seek_request::To::Offset(offset)),
            SeekTo::Time(time_ns) => Some(seek_request::To::Time(timestamp(time_ns))),
            SeekTo::Snapshot => None,
        };
        let (state, snapshot) = match state {
            None => (v1::SeekState::Unspecified, 0),
            Some(SeekState::Keep) => (v1::SeekState::Keep, 0),
            Some(SeekState::Empty) => (v1::SeekState::Empty, 0),
            Some(SeekState::Snapshot(number)) => (v1::SeekState::Snapshot, number),
        };
        v1::SeekRequest {
            subscriber,
            to,
            partition,
            state: state.into(),
            drops_retry_queue: drops_waiting,
            dry_run,
            snapshot,
        }
    }
}

impl TryFrom<&v1::SeekRequest> for Seek {
    /// A field, and what is wrong with it.
    type Error = (&'static str, &'static str);

    fn try_from(request: &v1::SeekRequest) -> Result<Self, Self::Error> {
        let state = match v1::SeekState::try_from(request.state) {
            Ok(v1::SeekState::Unspecified) => None,
            Ok(v1::SeekState::Keep) => Some(SeekState::Keep),
            Ok(v1::SeekState::Empty) => Some(SeekState::Empty),
            Ok(v1::SeekState::Snapshot) => Some(SeekState::Snapshot(request.snapshot)),
            Err(_) => return Err(("state", "is not a known value")),
        };
        let to = match &request.to {
            None if matches!(state, Some(SeekState::Snapshot(_))) => SeekTo::Snapshot,
            None => return Err(("to", "is missing: name the position to continue from")),
            Some(seek_request::To::Start(_)) => SeekTo::Start,
            Some(seek_request::To::End(_)) => SeekTo::End,
            Some(seek_request::To::Offset(offset)) => SeekTo::Offset(*offset),
            Some(seek_request::To::Time(time)) => SeekTo::Time(nanoseconds(time).ok_or(("time", INVALID_TIME))?),
        };
        let v1::SeekRequest { partition, drops_retry_queue: drops_waiting, dry_run, .. } = *request;
        Ok(Self { to, partition, state, drops_waiting, dry_run })
    }
}
