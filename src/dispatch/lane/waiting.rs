//! The retry queue of a lane: events before its position that are not done. Each blocks its key.
//!
//! ```text
//!            fails, may pass              becomes due            passes, or is given up
//!   position ────────────────> waiting ─────────────────> called ──────────────────────> gone, next of its key
//!      │  its key waits         ^  │ last attempt, `park`
//!      └────────────────────────┘  └──────────────────────> parked, until it is released
//! ```
//!
//! Promises: events of a key keep their order; only the first event of a key is called, or several from the front if
//! none of them has been tried. The queue stores the records, so that retention does not matter. The queue is as
//! durable as the lane's position: both change in one unit. Events and their bytes are limited; callers check for room
//! before adding.
//!
//! Memory: a few words per event; records are read when they are called. Must not know: sessions, handlers, topics.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::entries::{RECORD, TOLD, WAITING, end_of, number_of, numbered};
use crate::engine::{Entries, LaneWrite, PageBudget, ReadError};
use crate::model::{Offset, Record};
use crate::topology::RetryQueue;

/// Entries that are read at once when a lane starts.
const PAGE: usize = 256;
/// Upper bound of the numbers given out so far, a u64 in little endian. Entries are removed, and a caller may still use
/// the number of a removed one, so numbers are never reused.
const NUMBERS: &[u8] = &[TOLD, b'n', b'u', b'm', b'b', b'e', b'r', b's'];
/// Numbers that are reserved at once.
const NUMBERS_RESERVED: u64 = 1_000;

/// A waiting event as it is stored. New fields need a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Waiter {
    /// Its offset in the partition that the lane consumes.
    pub offset: Offset,
    /// Its append time there, engine time, Unix nanoseconds.
    pub append_time_ns: u64,
    /// Its append time, trusted time; 0 if an early release stored it, which had no trusted time.
    #[serde(default)]
    pub trusted_time_ns: u64,
    /// Attempts so far; 0 if it only waits for its key.
    #[serde(default)]
    pub attempts: u32,
    /// When it entered the queue, Unix nanoseconds.
    #[serde(default)]
    pub since_ns: u64,
    /// When its last attempt failed, Unix nanoseconds; 0 if there was none.
    #[serde(default)]
    pub failed_ns: u64,
    /// When the next attempt is due, Unix nanoseconds.
    #[serde(default)]
    pub due_ns: u64,
    /// It waits until an operator releases it.
    #[serde(default)]
    pub is_parked: bool,
    /// Kind of its last failure; empty if there was none.
    #[serde(default)]
    pub failure: String,
    /// Reason of the last failure, in words.
    #[serde(default)]
    pub reason: String,
    /// Stack of the plugin at that failure.
    #[serde(default)]
    pub backtrace: Option<String>,
    /// Hexadecimal digest of the version that failed.
    #[serde(default)]
    pub digest: String,
}

impl Waiter {
    /// An event that has not been tried, and waits for its key since `since_ns`.
    pub(crate) fn new(offset: Offset, (append_time_ns, trusted_time_ns): (u64, u64), since_ns: u64) -> Self {
        Self {
            offset,
            append_time_ns,
            trusted_time_ns,
            attempts: 0,
            since_ns,
            failed_ns: 0,
            due_ns: 0,
            is_parked: false,
            failure: String::new(),
            reason: String::new(),
            backtrace: None,
            digest: String::new(),
        }
    }
}

impl Waiter {
    /// Due after a pause that begins at `now_ns`.
    pub(super) fn after(self, pause: Duration, now_ns: u64) -> Self {
        Self { due_ns: now_ns.saturating_add(u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX)), ..self }
    }

    /// The time by which the handler's state expires.
    pub(crate) fn trusted_time_ns(&self) -> u64 {
        if self.trusted_time_ns == 0 { self.append_time_ns } else { self.trusted_time_ns }
    }

    /// Whether the lane may have halted because of its last attempt: any other failed attempt is followed by a pause,
    /// unless the topology disables pauses.
    pub(super) fn may_have_halted(&self) -> bool {
        !self.is_parked && self.failed_ns > 0 && self.due_ns <= self.failed_ns
    }
}

/// An entry that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WaitingError {
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The content is not of this release.
    #[error("what is kept of a waiting event (number {number}) cannot be understood: {reason}")]
    Malformed {
        /// Number of the snapshot.
        number: u64,
        reason: String,
    },
}

/// In-memory data of an event.
#[derive(Debug)]
struct WaiterSummary {
    key: Arc<str>,
    attempts: u32,
    is_parked: bool,
    since_ns: u64,
    due: Instant,
    bytes: u64,
}

/// The retry queue.
#[derive(Debug)]
pub(crate) struct WaitingSet {
    known: BTreeMap<u64, WaiterSummary>,
    /// By key, in order.
    queues: HashMap<Arc<str>, VecDeque<u64>>,
    /// The first unparked event of each key, by due time.
    due: BTreeSet<(Instant, u64)>,
    next_number: u64,
    /// Numbers below it are reserved.
    reserved: u64,
    parked: usize,
    bytes: u64,
    bound: RetryQueue,
}

pub(super) fn decode(number: u64, value: &[u8]) -> Result<Waiter, WaitingError> {
    serde_json::from_slice(value).map_err(|error| WaitingError::Malformed { number, reason: error.to_string() })
}

fn encode(waiter: &Waiter) -> Vec<u8> {
    serde_json::to_vec(waiter).unwrap_or_default() // it has no map with non-string keys
}

/// Waiting events of a lane with their numbers, starting at a number: at most `count`, fewer if they are large. Empty
/// at the end.
///
/// # Errors
/// [`WaitingError`].
pub(crate) fn list(entries: &impl Entries, from: u64, count: usize) -> Result<Vec<(u64, Waiter)>, WaitingError> {
    let page = entries.range(Bound::Included(&numbered(WAITING, from)), &end_of(WAITING), PageBudget::of(count))?;
    page.entries
        .iter()
        .map(|(key, value)| {
            let number = number_of(key).unwrap_or(0);
            Ok((number, decode(number, value)?))
        })
        .collect()
}

/// A waiting event.
pub(crate) fn get(entries: &impl Entries, number: u64) -> Result<Waiter, WaitingError> {
    let value = entries.get(&numbered(WAITING, number))?;
    let value = value.ok_or_else(|| WaitingError::Malformed { number, reason: "it is missing".to_owned() })?;
    decode(number, &value)
}

/// The record of a waiting event.
pub(crate) fn record(entries: &impl Entries, number: u64) -> Result<Bytes, WaitingError> {
    let record = entries.get(&numbered(RECORD, number))?;
    record.ok_or_else(|| WaitingError::Malformed { number, reason: "its record is missing".to_owned() })
}

/// The writes that store an event.
pub(crate) fn kept(number: u64, waiter: &Waiter, record: &[u8]) -> [LaneWrite; 2] {
    // a copy, since the record may be part of the batch in which it arrived
    let record = Bytes::copy_from_slice(record);
    [LaneWrite::put(numbered(WAITING, number), encode(waiter)), LaneWrite::put(numbered(RECORD, number), record)]
}

/// Size of the writes that delete an event: two keys.
pub(super) const GONE_BYTES: usize = 2 * 9;

/// The writes that delete an event.
pub(crate) fn gone(number: u64) -> [LaneWrite; 2] {
    [LaneWrite::delete(numbered(WAITING, number)), LaneWrite::delete(numbered(RECORD, number))]
}

impl WaitingSet {
    fn new(bound: RetryQueue) -> Self {
        Self {
            known: BTreeMap::new(),
            queues: HashMap::new(),
            due: BTreeSet::new(),
            next_number: 0,
            reserved: 0,
            parked: 0,
            bytes: 0,
            bound,
        }
    }

    /// Loads the queue from a lane's entries. An interrupted pause continues with its remaining time, but never longer
    /// than the whole pause or than `longest`, whatever the clock says, which says `now_ns`.
    pub(crate) fn load(
        entries: &impl Entries,
        bound: RetryQueue,
        longest: Duration,
        now_ns: u64,
    ) -> Result<Self, WaitingError> {
        let (mut set, now) = (Self::new(bound), Instant::now());
        loop {
            let page = list(entries, set.next_number, PAGE)?;
            if page.is_empty() {
                let reserved = entries.get(NUMBERS)?;
                let reserved = reserved.and_then(|value| Some(u64::from_le_bytes(value.get(..8)?.try_into().ok()?)));
                set.reserved = reserved.unwrap_or(0);
                set.next_number = set.next_number.max(set.reserved);
                return Ok(set);
            }
            for (number, waiter) in page {
                let record = record(entries, number)?;
                let malformed =
                    |error: crate::model::RecordError| WaitingError::Malformed { number, reason: error.to_string() };
                let key = Record::parse(&record).map_err(malformed)?.key;
                let (left, whole) =
                    (waiter.due_ns.saturating_sub(now_ns), waiter.due_ns.saturating_sub(waiter.failed_ns));
                let pause = Duration::from_nanos(left.min(whole)).min(longest);
                set.insert(number, key, &waiter, record.len(), now + pause);
            }
        }
    }

    fn insert(&mut self, number: u64, key: &str, waiter: &Waiter, record_bytes: usize, due: Instant) {
        let key: Arc<str> = match self.queues.get_key_value(key) {
            Some((key, _)) => key.clone(),
            None => key.into(),
        };
        let bytes = record_bytes as u64;
        self.bytes += bytes;
        self.parked += usize::from(waiter.is_parked);
        let queue = self.queues.entry(key.clone()).or_default();
        queue.push_back(number);
        if queue.len() == 1 && !waiter.is_parked {
            self.due.insert((due, number));
        }
        let Waiter { attempts, is_parked, since_ns, .. } = *waiter;
        let known = WaiterSummary { key, attempts, is_parked, since_ns, due, bytes };
        self.known.insert(number, known);
        self.next_number = self.next_number.max(number + 1);
    }

    /// Whether events of a key have to wait.
    pub(crate) fn holds(&self, key: &str) -> bool {
        self.queues.contains_key(key)
    }

    /// Whether an event is the first one of its key.
    pub(super) fn is_first(&self, number: u64) -> bool {
        let key = self.known.get(&number).map(|known| &known.key);
        key.and_then(|key| self.queues.get(key)).and_then(VecDeque::front) == Some(&number)
    }

    /// Whether an event is still in the queue.
    pub(crate) fn contains(&self, number: u64) -> bool {
        self.known.contains_key(&number)
    }

    /// The numbers of all events in the queue.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        self.known.keys().copied().collect()
    }

    /// Number of events in the queue.
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    /// When the oldest event entered the queue, Unix nanoseconds.
    pub(crate) fn since_ns(&self) -> Option<u64> {
        self.known.first_key_value().map(|(_, known)| known.since_ns)
    }

    /// Number of keys with an event that will be called without an operator.
    pub(super) fn active_keys(&self) -> usize {
        self.due.len()
    }

    /// Number of parked events.
    pub(crate) fn parked(&self) -> usize {
        self.parked
    }

    /// Whether an event with a record of this size may be added. An empty queue always has room.
    pub(crate) fn has_room(&self, record_bytes: usize) -> bool {
        self.known.is_empty()
            || (self.known.len() < self.bound.max_events as usize
                && self.bytes + record_bytes as u64 <= self.bound.max_bytes)
    }

    /// Adds an event after all others of its key. Returns the writes for it.
    pub(crate) fn add(&mut self, key: &str, waiter: &Waiter, record: Bytes, due: Instant) -> Vec<LaneWrite> {
        let number = self.next_number;
        self.insert(number, key, waiter, record.len(), due);
        let mut writes = kept(number, waiter, &record).to_vec();
        if number >= self.reserved {
            self.reserved = number + NUMBERS_RESERVED;
            writes.push(LaneWrite::put(NUMBERS, self.reserved.to_le_bytes().to_vec()));
        }
        writes
    }

    /// Updates an event after an attempt, a park or a release. Returns the write for it.
    pub(super) fn update(&mut self, number: u64, waiter: &Waiter, due: Instant) -> Option<LaneWrite> {
        let known = self.known.get_mut(&number)?;
        self.due.remove(&(known.due, number));
        self.parked = self.parked - usize::from(known.is_parked) + usize::from(waiter.is_parked);
        (known.attempts, known.is_parked, known.due) = (waiter.attempts, waiter.is_parked, due);
        let is_first = self.queues.get(&known.key).and_then(VecDeque::front) == Some(&number);
        if is_first && !waiter.is_parked {
            self.due.insert((due, number));
        }
        Some(LaneWrite::put(numbered(WAITING, number), encode(waiter)))
    }

    /// Removes an event. Returns the writes for it. The next event of its key is due at once.
    pub(crate) fn remove(&mut self, number: u64) -> Option<[LaneWrite; 2]> {
        let known = self.known.remove(&number)?;
        self.bytes -= known.bytes;
        self.parked -= usize::from(known.is_parked);
        self.due.remove(&(known.due, number));
        if let Some(queue) = self.queues.get_mut(&known.key) {
            match queue.front() {
                Some(first) if *first == number => drop(queue.pop_front()),
                _ => queue.retain(|other| *other != number),
            }
            match queue.front() {
                None => drop(self.queues.remove(&known.key)),
                Some(next) => {
                    if let Some(next_known) = self.known.get(next).filter(|next| !next.is_parked) {
                        self.due.insert((next_known.due, *next));
                    }
                }
            }
        }
        Some(gone(number))
    }

    /// When the next event is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// The events to call now: a single one that was tried before, or up to `most` untried ones of a key, from its
    /// front.
    pub(super) fn take_due(&self, now: Instant, most: usize) -> Vec<u64> {
        let Some((_, first)) = self.due.first().filter(|(due, _)| *due <= now) else { return Vec::new() };
        let Some(known) = self.known.get(first).filter(|known| known.attempts == 0) else { return vec![*first] };
        let queue = self.queues.get(&known.key).into_iter().flatten();
        let is_fresh =
            |number: &&u64| self.known.get(number).is_some_and(|known| known.attempts == 0 && !known.is_parked);
        queue.take_while(is_fresh).take(most.max(1)).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiter(attempts: u32) -> Waiter {
        serde_json::from_str(&format!(r#"{{"offset":1,"append_time_ns":2,"attempts":{attempts}}}"#)).unwrap()
    }

    fn set(max_events: u32) -> WaitingSet {
        WaitingSet::new(RetryQueue { max_events, max_bytes: 100 })
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_of_a_key_is_called_and_then_the_next() {
        let (mut set, now) = (set(9), Instant::now());
        let later = now + Duration::from_secs(1);
        set.add("a", &waiter(1), Bytes::from_static(b"12"), later);
        set.add("a", &waiter(0), Bytes::from_static(b"12"), now);
        set.add("a", &waiter(0), Bytes::from_static(b"12"), now);
        set.add("b", &waiter(0), Bytes::from_static(b"12"), now);
        assert_eq!(set.take_due(now, 9), [3], "a's first is not due, and holds up the others");
        set.remove(3);
        assert!(!set.holds("b") && set.holds("a"));
        assert_eq!(set.next_due(), Some(later));
        assert_eq!(set.take_due(later, 9), [0], "alone, since it was tried before");
        set.remove(0);
        assert_eq!(set.take_due(now, 9), [1, 2]);
        assert_eq!(set.take_due(now, 1), [1]);
        set.remove(1);
        set.remove(2);
        assert_eq!((set.len(), set.bytes, set.active_keys()), (0, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_parked_event_holds_its_key_until_it_is_released() {
        let (mut set, now) = (set(9), Instant::now());
        set.add("a", &waiter(1), Bytes::new(), now);
        set.add("a", &waiter(0), Bytes::new(), now);
        let mut parked = waiter(3);
        parked.is_parked = true;
        set.update(0, &parked, now).unwrap();
        assert_eq!((set.active_keys(), set.parked(), set.next_due()), (0, 1, None));
        assert!(set.holds("a"));
        set.update(0, &waiter(0), now).unwrap();
        assert_eq!(set.take_due(now, 9), [0, 1]);
    }

    #[test]
    fn it_is_bounded_and_never_without_room_for_one() {
        let now = Instant::now();
        let mut set = set(2);
        assert!(set.has_room(1_000), "however large");
        set.add("a", &waiter(0), vec![0; 60].into(), now);
        assert!(set.has_room(40) && !set.has_room(41));
        set.add("b", &waiter(0), vec![0; 1].into(), now);
        assert!(!set.has_room(1), "two are as many as it may have");
    }

    #[test]
    fn what_is_kept_survives_its_encoding_and_later_fields() {
        let mut kept = waiter(7);
        kept.backtrace = Some("in a".into());
        assert_eq!(decode(1, &encode(&kept)).unwrap(), kept);
        assert!(decode(1, br#"{"offset":1,"append_time_ns":2,"of_a_later_release":[]}"#).is_ok());
        assert!(decode(1, b"{").is_err());
    }
}
