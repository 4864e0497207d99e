//! Failed events, in a retry queue or as dead letters: which of them a filter selects, and pages of them.

use super::places::without_positions;
use crate::api::{FailedEvent, Filter, ListPosition};
use crate::dispatch::lane::waiting::Waiter;

/// Maximum bytes of events in a page, unless a single event is larger: a page is one message.
const LISTING_BYTES: usize = 4 << 20;

impl Filter {
    pub(super) fn matches(&self, event: &FailedEvent, now_ns: u64) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
        // the reason as stored, and as counted
        let is_reason = |wanted: &String| {
            event.failure == *wanted
                || event.reason.contains(wanted.as_str())
                || without_positions(&event.reason).contains(wanted.as_str())
        };
        let last_ns = if event.failed_ns == 0 { event.since_ns } else { event.failed_ns };
        let age_ns = now_ns.saturating_sub(last_ns);
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
