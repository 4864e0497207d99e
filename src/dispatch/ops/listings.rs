//! Lists the retry queue and the state of a subscriber, page by page.

use bytes::Bytes;

use super::error::ControlError;
use super::places::without_positions;
use crate::api::{FailedEvent, Filter, ListPosition, StateEntry, StateFilter, StateOfPartition, StatePosition};
use crate::dispatch::lane::command::{Answer, Command};
use crate::dispatch::lane::state::{self};
use crate::dispatch::lane::waiting::{self, Waiter, WaitingError, now_ns};
use crate::dispatch::tree::Tree;
use crate::engine::Engine;
use crate::model::{EventView, Record};

/// Waiting events that a command to a lane names at most.
pub(super) const NUMBERS_MAX: usize = 1_000;
/// Maximum bytes of events in a page, unless a single event is larger: a page is one message.
const LISTING_BYTES: usize = 4 << 20;
/// State entries that are read at once; each may be as large as the limit for values allows.
const STATE_ENTRIES: usize = 32;
/// State entries that one page reads at most.
const STATE_LOOKED_AT_MAX: usize = 10_000;

impl Filter {
    pub(super) fn matches(&self, event: &FailedEvent) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
        // the reason as stored, and as counted
        let is_reason = |wanted: &String| {
            event.failure == *wanted
                || event.reason.contains(wanted.as_str())
                || without_positions(&event.reason).contains(wanted.as_str())
        };
        let last_ns = if event.failed_ns == 0 { event.since_ns } else { event.failed_ns };
        let age_ns = now_ns().saturating_sub(last_ns);
        is(&self.key, &event.key)
            && is(&self.id, &event.id)
            && self.partition.is_none_or(|partition| partition == event.partition)
            && self.reason.as_ref().is_none_or(is_reason)
            && self.older_than.is_none_or(|age| u128::from(age_ns) >= age.as_nanos())
            && (!self.parked || event.is_parked)
    }
}

/// A page of a listing.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// The events of the page.
    pub found: Vec<T>,
    /// Where the next page starts; `None` at the end.
    pub next: Option<ListPosition>,
}

/// A page of a state listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatePage {
    /// The entries of the page.
    pub found: Vec<StateOfPartition>,
    /// Where the next page starts; `None` at the end.
    pub next: Option<StatePosition>,
}

impl<E: Engine> Tree<E> {
    /// Waiting events of a subscriber, starting at `from`, at most `count`. A page may have fewer for its size. Reads
    /// from disk.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn waiting(
        &self,
        subscriber: &str,
        filter: &Filter,
        from: ListPosition,
        count: usize,
    ) -> Result<Page<FailedEvent>, ControlError> {
        let found = self.subscriber(subscriber)?;
        found.check(filter.partition)?;
        let (mut events, mut bytes) = (Vec::new(), 0);
        for partition in from.partition..found.partitions {
            if filter.partition.is_some_and(|only| only != partition) {
                continue;
            }
            let entries = self.entries(&found, partition)?;
            let mut number = if partition == from.partition { from.number } else { 0 };
            loop {
                let page = waiting::list(&entries, number, NUMBERS_MAX)?;
                let Some((last, _)) = page.last() else { break };
                let next = last + 1;
                for (at, waiter) in page {
                    let record = match waiting::record(&entries, at) {
                        Err(WaitingError::Malformed { .. }) => continue, // handled in the meantime
                        record => record?,
                    };
                    let Some(event) = failed_event(partition, at, waiter, record) else { continue };
                    if !filter.matches(&event) {
                        continue;
                    }
                    if is_full(events.len(), count, bytes, event.bytes()) {
                        return Ok(Page { found: events, next: Some(ListPosition { partition, number: at }) });
                    }
                    bytes += event.bytes();
                    events.push(event);
                }
                number = next;
            }
        }
        Ok(Page { found: events, next: None })
    }

    /// Makes waiting events due at once and resets their attempts; includes parked events. Returns their number.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn release(&self, subscriber: &str, filter: &Filter) -> Result<u64, ControlError> {
        self.tell_waiting(subscriber, filter, Command::Release).await
    }

    /// Drops waiting events. Returns their number.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn drop_waiting(&self, subscriber: &str, filter: &Filter) -> Result<u64, ControlError> {
        self.tell_waiting(subscriber, filter, Command::Drop).await
    }

    async fn tell_waiting(
        &self,
        subscriber: &str,
        filter: &Filter,
        command: fn(Vec<u64>, Answer) -> Command,
    ) -> Result<u64, ControlError> {
        let found = self.subscriber(subscriber)?;
        let (mut from, mut done) = (ListPosition::default(), 0);
        loop {
            let page =
                self.waiting(subscriber, filter, from, NUMBERS_MAX).map_err(|error| error.after(done, "event"))?;
            let mut rest = page.found.as_slice();
            while let Some(first) = rest.first() {
                let partition = first.partition;
                let count = rest.iter().take_while(|event| event.partition == partition).count();
                let (these, others) = rest.split_at(count);
                let numbers = these.iter().map(|event| event.number).collect();
                let told = self.tell(&found, partition, |answer| command(numbers, answer)).await;
                done += told.map_err(|error| error.after(done, "event"))?;
                rest = others;
            }
            match page.next {
                Some(next) => from = next,
                None => return Ok(done),
            }
        }
    }

    /// Whether a subscriber's handler has state, in one partition or in any.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn has_state(&self, subscriber: &str, partition: Option<u32>) -> Result<bool, ControlError> {
        let found = self.subscriber(subscriber)?;
        found.check(partition)?;
        for partition in (0..found.partitions).filter(|of| partition.is_none_or(|only| only == *of)) {
            if !state::list(&self.entries(&found, partition)?, None, 1)?.0.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The entries with this key in a subscriber's state. Since the keys of events determine the partition, several
    /// partitions may have one. Starts at partition `from`, and returns the partition to continue at if the page is
    /// full.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn state(
        &self,
        subscriber: &str,
        (bucket, key): (&str, &str),
        from: u32,
    ) -> Result<(Vec<StateOfPartition>, Option<u32>), ControlError> {
        let found = self.subscriber(subscriber)?;
        let (mut some, mut bytes) = (Vec::new(), 0);
        for partition in from..found.partitions {
            let Some(entry) = state::get(&self.entries(&found, partition)?, bucket, key)? else { continue };
            let size = entry.bucket.len() + entry.key.len() + entry.value.len();
            if is_full(some.len(), usize::MAX, bytes, size) {
                return Ok((some, Some(partition)));
            }
            bytes += size;
            some.push(StateOfPartition { partition, entry });
        }
        Ok((some, None))
    }

    /// A subscriber's state in a partition, after the entry `behind` (bucket and key): at most `count` entries, fewer
    /// if they are large. Empty at the end.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn list_state(
        &self,
        subscriber: &str,
        partition: u32,
        behind: Option<(&str, &str)>,
        count: usize,
    ) -> Result<Vec<StateEntry>, ControlError> {
        let found = self.subscriber(subscriber)?;
        let entries = self.entries(&found, partition)?;
        let behind = behind.map(|(bucket, key)| state::position_behind(bucket, key));
        Ok(state::list(&entries, behind.as_deref(), count)?.0)
    }

    /// A page of a subscriber's state, sorted by partition, bucket and key. It may have fewer entries than requested,
    /// or none, although more pages follow. Reads from disk.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn state_page(
        &self,
        subscriber: &str,
        filter: &StateFilter,
        from: StatePosition,
        count: usize,
    ) -> Result<StatePage, ControlError> {
        let found = self.subscriber(subscriber)?;
        found.check(filter.partition)?;
        let (mut entries, mut bytes, mut looked_at) = (Vec::new(), 0, 0);
        for partition in from.partition..found.partitions {
            if filter.partition.is_some_and(|only| only != partition) {
                continue;
            }
            let kept = self.entries(&found, partition)?;
            let is_begun = partition == from.partition && (&from.bucket, &from.key) != (&String::new(), &String::new());
            let mut behind = match (&filter.bucket, is_begun) {
                (_, true) => Some((from.bucket.clone(), from.key.clone())),
                (Some(bucket), false) => Some((bucket.clone(), String::new())),
                (None, false) => None,
            };
            'partition: loop {
                let position = behind.as_ref().map(|(bucket, key)| state::position_behind(bucket, key));
                let (page, is_last) = state::list(&kept, position.as_deref(), STATE_ENTRIES)?;
                for entry in page {
                    if filter.bucket.as_ref().is_some_and(|bucket| *bucket < entry.bucket) {
                        break 'partition;
                    }
                    let (bucket, key) = behind.clone().unwrap_or_default();
                    let size = entry.bucket.len() + entry.key.len() + entry.value.len();
                    if looked_at >= STATE_LOOKED_AT_MAX || is_full(entries.len(), count, bytes, size) {
                        return Ok(StatePage { found: entries, next: Some(StatePosition { partition, bucket, key }) });
                    }
                    looked_at += 1;
                    behind = Some((entry.bucket.clone(), entry.key.clone()));
                    if filter.bucket.as_ref().is_none_or(|bucket| *bucket == entry.bucket)
                        && entry.key.starts_with(&filter.prefix)
                    {
                        bytes += size;
                        entries.push(StateOfPartition { partition, entry });
                    }
                }
                if is_last {
                    break;
                }
            }
        }
        Ok(StatePage { found: entries, next: None })
    }

    /// Writes entries into a subscriber's state, and replaces existing ones. Returns their number.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn import_state(
        &self,
        subscriber: &str,
        partition: u32,
        entries: &[StateEntry],
    ) -> Result<u64, ControlError> {
        let found = self.subscriber(subscriber)?;
        let writes = entries.iter().map(state::write_of).collect();
        self.tell(&found, partition, |answer| Command::Import(writes, answer)).await
    }
}

/// Whether a page with this many entries and bytes has no room for another entry.
pub(super) fn is_full(entries: usize, entries_max: usize, bytes: usize, more_bytes: usize) -> bool {
    entries >= entries_max || (entries > 0 && bytes + more_bytes > LISTING_BYTES)
}

impl FailedEvent {
    /// What the retry queue says of an event; nothing of the event itself.
    pub(super) fn of(waiter: Waiter) -> Self {
        let Waiter { offset, append_time_ns, trusted_time_ns: _, attempts, since_ns, failed_ns, due_ns, .. } = waiter;
        let Waiter { is_parked, failure, reason, backtrace, digest, .. } = waiter;
        Self {
            offset,
            append_time_ns,
            attempts,
            since_ns,
            failed_ns,
            due_ns,
            is_parked,
            failure,
            reason,
            backtrace,
            digest,
            ..Self::default()
        }
    }

    /// Approximate size in a page.
    pub(super) fn bytes(&self) -> usize {
        let Self { reason, backtrace, .. } = self;
        let texts = self.key.len() + self.id.len() + reason.len() + backtrace.as_ref().map_or(0, String::len);
        std::mem::size_of::<Self>() + texts + self.event.len()
    }
}

fn failed_event(partition: u32, number: u64, waiter: Waiter, record: Bytes) -> Option<FailedEvent> {
    let parsed = Record::parse(&record).ok()?;
    let view = EventView::parse(parsed.event).ok()?;
    let (key, id) = (parsed.key.to_owned(), view.id.to_owned());
    let event = record.slice_ref(parsed.event);
    Some(FailedEvent { number, partition, key, id, event, ..FailedEvent::of(waiter) })
}
