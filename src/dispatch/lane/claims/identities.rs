//! Identities of the events that a group has received: an event with a known identity is a duplicate within the topic's
//! `dedupe` window.
//!
//! ```text
//! entry  07 04, 16 bytes identity                        little endian: u64 time, u64 offset of the first event
//!        07 05, u64 big endian: time, 16 bytes identity  nothing
//! ```
//!
//! The first event of an identity is stored with its offset, so that it is no duplicate of itself when it is returned
//! and claimed again. Memory: only the number of identities. Must not know: who claims.

use std::collections::HashMap;
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;

use super::super::entries::CLAIM;
use crate::engine::{Entries, LaneWrite, PageBudget, ReadError};
use crate::limits;
use crate::model::{Dedupe, EventId, Offset};

const IDENTITY: u8 = 4;
const BY_TIME: u8 = 5;

/// An event that a member wants, with its identity if its topic has deduplication.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClaimRequest {
    pub(crate) offset: Offset,
    pub(crate) identity: Option<EventId>,
}

impl From<Offset> for ClaimRequest {
    fn from(offset: Offset) -> Self {
        Self { offset, identity: None }
    }
}

/// The time window of stored identities.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) now_ns: u64,
    pub(super) length: Duration,
    pub(super) count: u64,
}

impl Window {
    pub(super) fn new(dedupe: Dedupe, now_ns: u64) -> Self {
        let count = dedupe.count.map_or(limits::CLAIM_IDENTITIES_MAX, u64::from);
        Self { now_ns, length: dedupe.window, count: count.min(limits::CLAIM_IDENTITIES_MAX) }
    }

    fn has(&self, time_ns: u64) -> bool {
        Duration::from_nanos(self.now_ns.saturating_sub(time_ns)) < self.length
    }
}

/// Time and offset of the first event with an identity.
#[derive(Debug, Clone, Copy)]
struct First {
    time_ns: u64,
    offset: Offset,
}

impl First {
    fn decode(value: &[u8]) -> Option<Self> {
        let (time, offset) = value.get(..16)?.split_at(8);
        Some(Self {
            time_ns: u64::from_le_bytes(time.try_into().ok()?),
            offset: u64::from_le_bytes(offset.try_into().ok()?),
        })
    }
}

fn key(identity: EventId) -> Bytes {
    [&[CLAIM, IDENTITY][..], &identity.0.to_be_bytes()].concat().into()
}

fn by_time(time_ns: u64, identity: EventId) -> Bytes {
    [&[CLAIM, BY_TIME][..], &time_ns.to_be_bytes(), &identity.0.to_be_bytes()].concat().into()
}

/// The known identities of some events, and the changes.
#[derive(Default)]
pub(super) struct KnownIdentities {
    firsts: HashMap<EventId, First>,
    window: Option<Window>,
    /// Number of identities.
    pub(super) count: u64,
    pub(super) writes: Vec<LaneWrite>,
}

impl KnownIdentities {
    /// Looks up the identities of some events, and expired ones to delete: twice as many as may be added.
    pub(super) fn look(
        entries: &impl Entries,
        window: Option<Window>,
        count: u64,
        wanted: &[ClaimRequest],
    ) -> Result<Self, ReadError> {
        let mut known = Self { window, count, ..Self::default() };
        let Some(window) = window else { return Ok(known) };
        for identity in wanted.iter().filter_map(|wanted| wanted.identity) {
            if let Some(first) = entries.get(&key(identity))?.as_deref().and_then(First::decode) {
                known.firsts.insert(identity, first);
            }
        }
        let most = 2 * wanted.len();
        let oldest = entries.range(Bound::Included(&[CLAIM, BY_TIME]), &[CLAIM, BY_TIME + 1], PageBudget::of(most))?;
        for (at, _) in oldest.entries {
            let numbers = at.get(2..).and_then(|rest| rest.split_at_checked(8));
            let Some((time, identity)) = numbers else { continue };
            let (Ok(time), Ok(identity)) = (time.try_into(), identity.try_into()) else { continue };
            let identity = EventId(u128::from_be_bytes(identity));
            if window.has(u64::from_be_bytes(time)) && known.count <= window.count {
                break;
            }
            known.writes.push(LaneWrite::delete(at));
            known.writes.push(LaneWrite::delete(key(identity)));
            known.firsts.remove(&identity);
            known.count = known.count.saturating_sub(1);
        }
        Ok(known)
    }

    /// Whether an event is a duplicate. Otherwise it is stored as the first one.
    pub(super) fn is_given(&mut self, wanted: ClaimRequest) -> bool {
        let (Some(window), Some(identity)) = (self.window, wanted.identity) else { return false };
        let first = self.firsts.get(&identity).copied();
        if let Some(first) = first {
            if first.offset == wanted.offset {
                return false;
            }
            if window.has(first.time_ns) {
                return true;
            }
            self.writes.push(LaneWrite::delete(by_time(first.time_ns, identity)));
        } else {
            self.count += 1;
        }
        let now = First { time_ns: window.now_ns, offset: wanted.offset };
        self.firsts.insert(identity, now);
        let value = [now.time_ns, now.offset].map(u64::to_le_bytes).concat();
        self.writes.push(LaneWrite::put(key(identity), value));
        self.writes.push(LaneWrite::put(by_time(now.time_ns, identity), ""));
        false
    }
}
