//! The recent part of the journal in memory, shared by readers and used to make the next checkpoint.
//!
//! ```text
//!   in segments .......................... not yet ....................... written
//!   kept while there is room for it        never dropped: the checkpointer reads it here, not from the disk
//! ```
//!
//! Promises: bounded in bytes, both the part that is not in segments and the part without a checkpoint. At a bound the
//! appender waits, and with it its callers.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::LogOptions;
use super::frame::Link;
use super::producers::{of_whole_topics, whole};
use super::store::LastSequence;
use super::syncer::Ends;
use super::window::Batch;
use crate::limits;
use crate::model::{LaneId, LaneWrite, Offset, PartitionId, ProducerId, TopicId};

/// A written group.
#[derive(Clone)]
pub(super) struct Group {
    pub(super) bytes: Bytes,
    /// The link of the frame after it.
    pub(super) end: Link,
    /// Its end offsets in its partitions.
    pub(super) ends: Ends,
    /// Its other changes, until it is moved.
    pub(super) changes: Arc<GroupChanges>,
    /// The identities of its events, for deduplication.
    pub(super) identities: Arc<[(TopicId, Batch)]>,
}

/// The changes of a group other than events, in order.
#[derive(Debug, Default)]
pub(super) struct GroupChanges {
    pub(super) cursors: Vec<(LaneId, Offset)>,
    /// Of lanes, and of partitions of topics under their keepers.
    pub(super) entries: Vec<(LaneId, LaneWrite)>,
    pub(super) producers: Vec<((PartitionId, ProducerId), LastSequence)>,
    pub(super) catalogue: Vec<Bytes>,
}

impl GroupChanges {
    /// Adds the last numbers of a producer for whole topics.
    pub(super) fn add_numbers(
        &mut self,
        numbers: impl Iterator<Item = (PartitionId, u64)>,
        producer: ProducerId,
        trusted_ns: u64,
        began_ns: u64,
    ) {
        let of_topics = of_whole_topics(numbers, trusted_ns, began_ns);
        self.producers.extend(of_topics.into_iter().map(|(topic, last)| ((whole(topic), producer), last)));
    }
}

/// Why the checkpointer was woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wake {
    /// A move is due, or the appender waits for room.
    Full,
    /// A checkpoint was requested.
    Asked,
    /// It is time to check for expired segments.
    Time,
    /// The log closes.
    Closing,
}

pub(super) struct Tail {
    state: Mutex<TailState>,
    changed: Condvar,
    bytes_max: usize,
    move_bytes_max: usize,
    /// The bytes without a checkpoint beyond which the appender waits.
    uncommitted_bytes_max: usize,
}

#[derive(Default)]
struct TailState {
    groups: VecDeque<Group>,
    bytes: usize,
    /// The number of first groups that are in segments.
    moved: usize,
    /// The bytes at which a move is due.
    move_bytes: usize,
    /// Bytes of groups that are not in segments.
    waiting_bytes: usize,
    /// Bytes of groups in segments without a checkpoint.
    uncommitted_bytes: usize,
    /// Everything before this position may be acked and shown outside.
    settled: u64,
    /// The appender waits for room.
    is_short: bool,
    is_asked: bool,
    is_closing: bool,
}

impl Tail {
    /// `end` is the link after the accepted frames of recovery.
    pub(super) fn new(options: &LogOptions, end: &Link) -> Self {
        let move_bytes = worth_a_move(0, options.move_bytes);
        let state = Mutex::new(TailState { settled: end.position, move_bytes, ..TailState::default() });
        Self {
            state,
            changed: Condvar::new(),
            bytes_max: options.recent_bytes_max,
            move_bytes_max: options.move_bytes,
            uncommitted_bytes_max: options.checkpoint_bytes.saturating_mul(2),
        }
    }

    fn state(&self) -> MutexGuard<'_, TailState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of journal that are not in segments.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.state().waiting_bytes
    }

    /// Whether there is room for `bytes` more. A group that is alone always has room.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        let mut state = self.state();
        let has_room = !self.is_full(&state, bytes);
        if !has_room {
            state.is_short = true;
            self.changed.notify_all();
        }
        has_room
    }

    /// As [`Self::has_room`], but independent of concurrent moves and without waking the checkpointer.
    pub(super) fn has_room_for_long(&self, bytes: usize) -> bool {
        let state = self.state();
        !self.is_full(&state, bytes) && state.waiting_bytes + state.uncommitted_bytes <= self.uncommitted_bytes_max
    }

    fn is_full(&self, state: &TailState, bytes: usize) -> bool {
        let is_much = state.waiting_bytes > 0 && state.waiting_bytes + bytes > self.bytes_max;
        is_much || state.uncommitted_bytes > self.uncommitted_bytes_max
    }

    /// Waits for room, at most for `patience`.
    pub(super) fn wait_for_room(&self, bytes: usize, patience: Duration) {
        let state = self.state();
        let is_full = |state: &mut TailState| {
            state.is_short = self.is_full(state, bytes);
            state.is_short && !state.is_closing
        };
        drop(self.changed.wait_timeout_while(state, patience, is_full).unwrap_or_else(PoisonError::into_inner));
    }

    /// Adds a written group.
    pub(super) fn push(&self, group: Group) {
        let mut state = self.state();
        state.bytes += group.bytes.len();
        state.waiting_bytes += group.bytes.len();
        state.groups.push_back(group);
        self.drop_old(&mut state);
    }

    /// Everything before a position may be acked and shown outside. Under `os` and `interval` the appender reports
    /// this, and later the syncer with an earlier position.
    pub(super) fn set_settled(&self, position: u64) {
        let mut state = self.state();
        state.settled = state.settled.max(position);
        if self.due(&state) {
            self.changed.notify_all();
        }
    }

    /// The groups to move next: settled and not in segments, in order.
    pub(super) fn waiting(&self) -> Vec<Group> {
        let state = self.state();
        let waiting = state.groups.iter().skip(state.moved);
        waiting.take_while(|group| group.end.position <= state.settled).cloned().collect()
    }

    /// The first `count` waiting groups are in segments of `partitions` partitions and visible to readers there.
    pub(super) fn moved(&self, count: usize, partitions: usize) {
        let mut state = self.state();
        state.move_bytes = worth_a_move(partitions, self.move_bytes_max);
        let moved = state.moved;
        let mut bytes = 0;
        for group in state.groups.iter_mut().skip(moved).take(count) {
            bytes += group.bytes.len();
            group.changes = Arc::default(); // the checkpointer has taken them
        }
        state.moved += count;
        state.waiting_bytes -= bytes;
        state.uncommitted_bytes += bytes;
        self.drop_old(&mut state);
        self.changed.notify_all();
    }

    /// Bytes in segments without a checkpoint.
    pub(super) fn uncommitted_bytes(&self) -> usize {
        self.state().uncommitted_bytes
    }

    /// A checkpoint covers everything in segments.
    pub(super) fn committed(&self) {
        self.state().uncommitted_bytes = 0;
        self.changed.notify_all();
    }

    fn drop_old(&self, state: &mut TailState) {
        while state.bytes > self.bytes_max
            && state.moved > 0
            && let Some(group) = state.groups.pop_front()
        {
            state.bytes -= group.bytes.len();
            state.moved -= 1;
            for end in group.ends.iter() {
                end.partition.forget(end.offset);
            }
        }
    }

    fn due(&self, state: &TailState) -> bool {
        let has_waiting = || state.groups.get(state.moved).is_some_and(|group| group.end.position <= state.settled);
        (state.waiting_bytes >= state.move_bytes || state.is_short) && has_waiting()
            || state.is_short && state.uncommitted_bytes > self.uncommitted_bytes_max
    }

    /// Blocks the checkpointer until there is work, at most for `patience`.
    pub(super) fn wait_for_work(&self, patience: Duration) -> Wake {
        let is_idle = |state: &mut TailState| !(self.due(state) || state.is_asked || state.is_closing);
        let waited = self.changed.wait_timeout_while(self.state(), patience, is_idle);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.is_closing {
            Wake::Closing
        } else if std::mem::take(&mut state.is_asked) {
            Wake::Asked
        } else if self.due(&state) {
            Wake::Full
        } else {
            Wake::Time
        }
    }

    /// Blocks the checkpointer for `pause`, unless the log closes.
    pub(super) fn pause(&self, pause: Duration) {
        let waited = self.changed.wait_timeout_while(self.state(), pause, |state| !state.is_closing);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Requests a checkpoint.
    pub(super) fn ask(&self) {
        self.state().is_asked = true;
        self.changed.notify_all();
    }

    /// Ends the waits of the checkpointer and the appender.
    pub(super) fn close(&self) {
        self.state().is_closing = true;
        self.changed.notify_all();
    }
}

/// The bytes at which a move is due, given the number of partitions that the last one wrote. Each partition costs a
/// write, so many partitions need larger moves; small moves leave processor and disk free for acks. A setting above the
/// default is used as it is.
fn worth_a_move(partitions: usize, most: usize) -> usize {
    match most {
        0..=limits::MOVE_BYTES => partitions.saturating_mul(limits::BLOCK_BYTES).max(limits::MOVE_BYTES_MIN).min(most),
        _ => most,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_settled_stays_so_whoever_speaks_last() {
        let options = LogOptions { recent_bytes_max: 100, move_bytes: 10, ..LogOptions::default() };
        let start = Link::first(1);
        let tail = Tail::new(&options, &start);
        let group = |position| Group {
            bytes: Bytes::from_static(&[0; 60]),
            end: Link { position, ..start },
            ends: Vec::new().into(),
            changes: Arc::default(),
            identities: Arc::default(),
        };
        tail.push(group(60));
        tail.push(group(120));
        tail.set_settled(120); // by the appender
        tail.set_settled(60); // by the syncer, which is later
        assert!(!tail.has_room(60));
        assert_eq!(tail.wait_for_work(Duration::from_secs(60)), Wake::Full, "only the checkpointer frees room");
        assert_eq!(tail.waiting().len(), 2);
    }
}
