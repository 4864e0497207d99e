//! What is asked of subscribers in the contract's words, and back.

use crate::dispatch::{
    FailedEvent, Filter, LetterProgress, ListPosition, Moved, Reason, SnapshotInfo, StateEntry, StateOfPartition,
    StatePosition, TakenBy, Times, Waiter,
};

use super::times::{nanoseconds, timestamp};
use super::v1;

impl From<Filter> for v1::FailedFilter {
    fn from(filter: Filter) -> Self {
        let Filter { key, id, reason, older_than, partition, parked } = filter;
        // no event is older than the longest duration there is
        let older_than = older_than.map(|age| age.try_into().unwrap_or(LONGEST));
        Self { key, id, reason, older_than, partition, parked }
    }
}

/// The longest duration that protobuf has.
const LONGEST: prost_types::Duration = prost_types::Duration { seconds: 315_576_000_000, nanos: 999_999_999 };

impl TryFrom<v1::FailedFilter> for Filter {
    type Error = &'static str;

    fn try_from(filter: v1::FailedFilter) -> Result<Self, &'static str> {
        let v1::FailedFilter { key, id, reason, older_than, partition, parked } = filter;
        let older_than = older_than.map(TryInto::try_into).transpose().map_err(|_| "is less than nothing")?;
        Ok(Self { key, id, reason, older_than, partition, parked })
    }
}

impl From<ListPosition> for v1::ListPosition {
    fn from(ListPosition { partition, number }: ListPosition) -> Self {
        Self { partition, number }
    }
}

impl From<v1::ListPosition> for ListPosition {
    fn from(v1::ListPosition { partition, number }: v1::ListPosition) -> Self {
        Self { partition, number }
    }
}

impl From<LetterProgress> for v1::DeadLetterProgress {
    fn from(LetterProgress { at, ends }: LetterProgress) -> Self {
        Self { at: Some(at.into()), ends }
    }
}

impl From<v1::DeadLetterProgress> for LetterProgress {
    fn from(v1::DeadLetterProgress { at, ends }: v1::DeadLetterProgress) -> Self {
        Self { at: at.map(Into::into).unwrap_or_default(), ends }
    }
}

impl From<(Reason, Times)> for v1::count_dead_letters_response::Reason {
    fn from((reason, times): (Reason, Times)) -> Self {
        let (Reason { failure, words: reason }, Times { count, first_ns, last_ns }) = (reason, times);
        let (first_failed_time, last_failed_time) = (Some(timestamp(first_ns)), Some(timestamp(last_ns)));
        Self { failure, reason, count, first_failed_time, last_failed_time }
    }
}

impl From<v1::count_dead_letters_response::Reason> for (Reason, Times) {
    fn from(counted: v1::count_dead_letters_response::Reason) -> Self {
        let v1::count_dead_letters_response::Reason { failure, reason, count, first_failed_time, last_failed_time } =
            counted;
        let time = |time: Option<prost_types::Timestamp>| time.as_ref().and_then(nanoseconds).unwrap_or(0);
        let times = Times { count, first_ns: time(first_failed_time), last_ns: time(last_failed_time) };
        (Reason { failure, words: reason }, times)
    }
}

impl From<FailedEvent> for v1::FailedEvent {
    fn from(event: FailedEvent) -> Self {
        let FailedEvent { number, partition, key, id, waiter, event, dead_partition } = event;
        let set = |time_ns: u64| (time_ns > 0).then(|| timestamp(time_ns));
        Self {
            number,
            partition,
            offset: waiter.offset,
            key,
            id,
            attempts: waiter.attempts,
            append_time: set(waiter.append_time_ns),
            waiting_since: dead_partition.is_none().then(|| timestamp(waiter.since_ns)),
            failed_time: set(waiter.failed_ns),
            due_time: set(waiter.due_ns).filter(|_| !waiter.is_parked),
            is_parked: waiter.is_parked,
            failure: waiter.failure,
            reason: waiter.reason,
            backtrace: waiter.backtrace,
            digest: waiter.digest,
            event,
            dead_partition,
        }
    }
}

impl From<v1::FailedEvent> for FailedEvent {
    fn from(event: v1::FailedEvent) -> Self {
        let time = |time: Option<prost_types::Timestamp>| time.as_ref().and_then(nanoseconds).unwrap_or(0);
        let waiter = Waiter {
            offset: event.offset,
            append_time_ns: time(event.append_time),
            trusted_time_ns: 0, // which is nobody's business outside
            attempts: event.attempts,
            since_ns: time(event.waiting_since),
            failed_ns: time(event.failed_time),
            due_ns: time(event.due_time),
            is_parked: event.is_parked,
            failure: event.failure,
            reason: event.reason,
            backtrace: event.backtrace,
            digest: event.digest,
        };
        Self {
            number: event.number,
            partition: event.partition,
            key: event.key,
            id: event.id,
            waiter,
            event: event.event,
            dead_partition: event.dead_partition,
        }
    }
}

impl From<StateOfPartition> for v1::StateEntry {
    fn from(StateOfPartition { partition, entry }: StateOfPartition) -> Self {
        let StateEntry { bucket, key, written_ns, value } = entry;
        Self { partition, bucket, key, write_time: Some(timestamp(written_ns)), value }
    }
}

impl From<v1::StateEntry> for StateOfPartition {
    fn from(entry: v1::StateEntry) -> Self {
        let v1::StateEntry { partition, bucket, key, write_time, value } = entry;
        let written_ns = write_time.as_ref().and_then(nanoseconds).unwrap_or(0);
        Self { partition, entry: StateEntry { bucket, key, written_ns, value } }
    }
}

impl From<StatePosition> for v1::StatePosition {
    fn from(StatePosition { partition, bucket, key }: StatePosition) -> Self {
        Self { partition, bucket, key }
    }
}

impl From<v1::StatePosition> for StatePosition {
    fn from(v1::StatePosition { partition, bucket, key }: v1::StatePosition) -> Self {
        Self { partition, bucket, key }
    }
}

impl From<SnapshotInfo> for v1::Snapshot {
    fn from(snapshot: SnapshotInfo) -> Self {
        let SnapshotInfo { number, taken_ns, digest, note, by, positions, entries, bytes } = snapshot;
        let (take_time, is_of_deploy) = (Some(timestamp(taken_ns)), by == TakenBy::Deploy);
        Self { number, take_time, digest, note, positions, entries, bytes, is_of_deploy }
    }
}

impl From<v1::Snapshot> for SnapshotInfo {
    fn from(snapshot: v1::Snapshot) -> Self {
        let v1::Snapshot { number, take_time, digest, note, positions, entries, bytes, is_of_deploy } = snapshot;
        let taken_ns = take_time.as_ref().and_then(nanoseconds).unwrap_or(0);
        let by = if is_of_deploy { TakenBy::Deploy } else { TakenBy::Hand };
        Self { number, taken_ns, digest, note, by, positions, entries, bytes }
    }
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
