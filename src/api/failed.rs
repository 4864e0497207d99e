//! Events that a subscriber has not handled: in its retry queue, and its dead letters.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::times::{nanoseconds, timestamp};
use super::v1;
use crate::model::Offset;

/// Which events are meant: those of which all that is said is true.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this key.
    pub key: Option<String>,
    /// With this id.
    pub id: Option<String>,
    /// Whose failure is of this kind, or whose reason has this text in it.
    pub reason: Option<String>,
    /// Whose last attempt failed at least so long ago; of an event that was never tried, that waits for at least so
    /// long.
    pub older_than: Option<Duration>,
    /// Of this partition of the subscriber's input.
    pub partition: Option<u32>,
    /// Only parked ones. No dead letter is.
    pub parked: bool,
}

/// An event that a subscriber has not handled: in its retry queue, or a dead letter.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FailedEvent {
    /// Where it is listed: a number in the retry queue of its lane, or the offset of the dead letter.
    pub number: u64,
    /// The partition of the subscriber's input that it is of.
    pub partition: u32,
    /// Its ordering key.
    pub key: String,
    /// Its CloudEvents id.
    pub id: String,
    /// Its offset in the partition that the subscriber consumes.
    pub offset: Offset,
    /// When it was appended there, engine time, Unix nanoseconds.
    pub append_time_ns: u64,
    /// Attempts so far; none where it only waits for its key.
    pub attempts: u32,
    /// When it came into the retry queue, Unix nanoseconds.
    pub since_ns: u64,
    /// When its last attempt failed, Unix nanoseconds; 0 where there was none.
    pub failed_ns: u64,
    /// When the next attempt is due, Unix nanoseconds.
    pub due_ns: u64,
    /// It waits until it is released.
    pub is_parked: bool,
    /// Why its last attempt failed; empty where there was none.
    pub failure: String,
    /// The same in words.
    pub reason: String,
    /// Where in the plugin that was.
    pub backtrace: Option<String>,
    /// The version that failed, hexadecimal digest.
    pub digest: String,
    /// The event, untouched, in the CloudEvents protobuf format.
    pub event: Bytes,
    /// The partition of the dead-letter topic, for a dead letter.
    pub dead_partition: Option<u32>,
}

/// Where the next page begins: a partition, and a number in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ListPosition {
    pub partition: u32,
    /// The number or offset.
    pub number: u64,
}

/// Why dead letters failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reason {
    /// The kind of the failure.
    pub failure: String,
    /// The first line of the reason without places in the data, or the beginning of it; empty for all others of this
    /// kind.
    pub words: String,
}

/// How many failed for one reason, and when.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// How many.
    pub count: u64,
    /// When the first of them did, Unix nanoseconds.
    pub first_ns: u64,
    /// When the last of them did, Unix nanoseconds.
    pub last_ns: u64,
}

/// Dead letters by why they failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reasons(BTreeMap<Reason, Times>);

/// Progress of an operation on dead letters. It covers the letters that were there at its beginning, so that it
/// ends although redriven events may fail again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LetterProgress {
    /// The next one to look at.
    pub at: ListPosition,
    /// Behind the last one, of each partition of their topic.
    pub ends: Vec<Offset>,
}

/// Some dead letters that something was done to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LettersPart {
    /// How many.
    pub count: u64,
    /// Where to continue; `None`: all are done.
    pub next: Option<LetterProgress>,
}

/// Reasons that are told apart. Who looks at more of them looks at a listing.
const REASONS_MAX: usize = 100;

impl Reasons {
    /// Counts some more.
    pub fn add(&mut self, reason: Reason, more: Times) {
        let has_room = self.0.len() < REASONS_MAX || self.0.contains_key(&reason);
        let reason = if has_room { reason } else { Reason { words: String::new(), ..reason } };
        let times = self.0.entry(reason).or_insert(Times { count: 0, first_ns: u64::MAX, last_ns: 0 });
        times.count += more.count;
        times.first_ns = times.first_ns.min(more.first_ns);
        times.last_ns = times.last_ns.max(more.last_ns);
    }

    /// Each with how many and when, the most frequent first.
    pub fn by_count(&self) -> Vec<(&Reason, Times)> {
        let mut reasons: Vec<_> = self.0.iter().map(|(reason, times)| (reason, *times)).collect();
        reasons.sort_by_key(|(_, times)| std::cmp::Reverse(times.count));
        reasons
    }

    /// How many there are altogether.
    pub fn total(&self) -> u64 {
        self.0.values().map(|times| times.count).sum()
    }
}

impl IntoIterator for Reasons {
    type Item = (Reason, Times);
    type IntoIter = std::collections::btree_map::IntoIter<Reason, Times>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

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
        let set = |time_ns: u64| (time_ns > 0).then(|| timestamp(time_ns));
        Self {
            number: event.number,
            partition: event.partition,
            offset: event.offset,
            key: event.key,
            id: event.id,
            attempts: event.attempts,
            append_time: set(event.append_time_ns),
            waiting_since: event.dead_partition.is_none().then(|| timestamp(event.since_ns)),
            failed_time: set(event.failed_ns),
            due_time: set(event.due_ns).filter(|_| !event.is_parked),
            is_parked: event.is_parked,
            failure: event.failure,
            reason: event.reason,
            backtrace: event.backtrace,
            digest: event.digest,
            event: event.event,
            dead_partition: event.dead_partition,
        }
    }
}

impl From<v1::FailedEvent> for FailedEvent {
    fn from(event: v1::FailedEvent) -> Self {
        let time = |time: Option<prost_types::Timestamp>| time.as_ref().and_then(nanoseconds).unwrap_or(0);
        Self {
            number: event.number,
            partition: event.partition,
            offset: event.offset,
            key: event.key,
            id: event.id,
            attempts: event.attempts,
            append_time_ns: time(event.append_time),
            since_ns: time(event.waiting_since),
            failed_ns: time(event.failed_time),
            due_ns: time(event.due_time),
            is_parked: event.is_parked,
            failure: event.failure,
            reason: event.reason,
            backtrace: event.backtrace,
            digest: event.digest,
            event: event.event,
            dead_partition: event.dead_partition,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(failure: &str, words: &str) -> Reason {
        Reason { failure: failure.into(), words: words.into() }
    }

    fn at(time_ns: u64) -> Times {
        Times { count: 1, first_ns: time_ns, last_ns: time_ns }
    }

    #[test]
    fn reasons_are_counted_and_the_most_frequent_is_first() {
        let mut reasons = Reasons::default();
        for (failure, words, time_ns) in [("trap", "a", 5), ("reject", "b", 9), ("reject", "b", 7)] {
            reasons.add(reason(failure, words), at(time_ns));
        }
        let both = (&reason("reject", "b"), Times { count: 2, first_ns: 7, last_ns: 9 });
        assert_eq!(reasons.by_count(), [both, (&reason("trap", "a"), at(5))]);
        assert_eq!(reasons.total(), 3);
    }

    #[test]
    fn however_many_reasons_there_are_they_are_bounded_and_all_are_counted() {
        let mut reasons = Reasons::default();
        for number in 0..10_000 {
            reasons.add(reason(if number % 2 == 0 { "reject" } else { "trap" }, &number.to_string()), at(number));
        }
        assert_eq!((reasons.total(), reasons.by_count().len()), (10_000, REASONS_MAX + 2));
        assert!(reasons.by_count()[0].0.words.is_empty(), "those that found no room");
    }
}
