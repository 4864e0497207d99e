//! Moving a subscriber to another position.

use super::v1;
use crate::model::Offset;

/// What becomes of the state of a handler whose subscriber is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeekState {
    /// It stays as it is, though it may know events that come again.
    Keep,
    /// It is emptied.
    Empty,
    /// It is that of the snapshot with this number, and of the events that waited then, those wait again that do not come again.
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
pub struct Move {
    /// Where to.
    pub to: SeekTo,
    /// Only this partition; `None` for all.
    pub partition: Option<u32>,
    /// What becomes of its handler's state.
    pub state: SeekState,
    /// Events that wait are forgotten.
    pub drops_waiting: bool,
    /// Nothing is done: only what would be.
    pub dry_run: bool,
}

/// How a lane was moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// Its partition.
    pub partition: u32,
    /// Where it was.
    pub from: Offset,
    /// Where it is.
    pub to: Offset,
}

impl From<Moved> for v1::seek_response::Moved {
    fn from(Moved { partition, from, to }: Moved) -> Self {
        Self { partition, from, to }
    }
}

impl From<v1::seek_response::Moved> for Moved {
    fn from(v1::seek_response::Moved { partition, from, to }: v1::seek_response::Moved) -> Self {
        Self { partition, from, to }
    }
}
