//! The expiry index of a handler's state: an entry for each key, in the order of write times, so that expired entries
//! are found without a search.
//!
//! ```text
//! entry  08, u64 time, bucket, 00, key     big endian; no value
//! entry  04 "expiry"                       u8: phase of the index, if there is one
//!                                            0: being deleted; 1: complete up to the key that follows; 2: complete
//!
//!          `ttl` removed                   all deleted, no `ttl`
//!   (any) ──────────────> deleting (0) ───────────────────────────> none
//!                              │ all deleted, a `ttl`                  │ a `ttl`, keys without index entries
//!                              └────────────> building (1) <───────────┘
//!                                                  │ at the last key
//!                                                  └──────────────> complete (2): expired entries are removed
//! ```
//!
//! The index has write times, not expiry times, so that a changed `ttl` needs no new index; it has a resolution of
//! [`STEP_NS`], so that frequent writes of a key do not add an entry each. A state without an index (from an earlier
//! release, or from a time without a `ttl`) gets one page by page, while the lane works.
//!
//! Promises: a step is bounded in entries and bytes. Entries are removed only after checking the time in their value.
//! Time is that of events: a lane without events removes nothing.

use std::ops::Bound;
use std::time::Duration;

use bytes::{BufMut, Bytes};

use super::super::entries::{STATE, TOLD, WRITTEN, end_of};
use super::{PriorEntry, time_of};
use crate::engine::{Entries, LaneWrite, PageBudget, ReadError};
use crate::limits::STATE_SWEEP_ENTRIES;

/// Phase of the index.
const MARK: &[u8] = &[TOLD, b'e', b'x', b'p', b'i', b'r', b'y'];
const GOES: u8 = 0;
const COMES: u8 = 1;
const IS_COMPLETE: u8 = 2;
/// Size of the mark in a unit.
pub(super) const MARK_BYTES: usize = MARK.len() + 1;
/// Size of an index entry in addition to its key.
const TIME_BYTES: usize = 8;
/// Bytes of values after which a step ends.
const VALUE_BYTES: u64 = 1 << 20;
/// Bytes of keys and values after which an estimate ends.
const LOOK_BYTES: u64 = 64 << 20;
/// Entries that one step reads.
const PAGE: PageBudget = PageBudget::of(STATE_SWEEP_ENTRIES);

/// Resolution of index times in nanoseconds, about a second: a key gets a new index entry only if it is written in
/// another step, and is removed at most that long after its expiry, or earlier if room is needed.
const STEP_NS: u64 = 1 << 30;

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// There is no index.
    None,
    /// The index is being deleted.
    Goes,
    /// The index has the keys up to this one.
    Comes(Vec<u8>),
    Complete,
}

/// State of the expiry index.
#[derive(Debug)]
pub(super) struct Expiry {
    ttl_ns: Option<u64>,
    phase: Phase,
    /// The stored mark is out of date.
    is_unmarked: bool,
    /// No index entry is before this key. A search from further ahead would have to pass all entries deleted since the
    /// last checkpoint, possibly very many.
    front: Vec<u8>,
    /// No remaining entry was written before this time.
    oldest_ns: u64,
    /// Where to continue within the current time step, and the oldest write time of the entries that stay in it.
    rest: Option<(Vec<u8>, u64)>,
}

/// Result of a step.
pub(crate) struct Step {
    /// Writes to be committed.
    pub(crate) writes: Vec<LaneWrite>,
    /// Number of entries read.
    pub(crate) looked_at: usize,
}

/// The index entry of a key with this write time.
fn entry(written_ns: u64, key: &[u8]) -> Vec<u8> {
    let mut entry = since(written_ns);
    entry.extend_from_slice(key.get(1..).unwrap_or_default());
    entry
}

/// The beginning of the index entries of a time.
fn since(written_ns: u64) -> Vec<u8> {
    let mut entry = vec![WRITTEN];
    entry.put_u64(written_ns / STEP_NS);
    entry
}

/// The key of an index entry.
fn key_of(entry: &[u8]) -> Vec<u8> {
    let mut key = vec![STATE];
    key.extend_from_slice(entry.get(1 + TIME_BYTES..).unwrap_or_default());
    key
}

/// Earliest write time of an index entry's time step.
fn begin_of(entry: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(entry.get(1..=TIME_BYTES)?.try_into().ok()?) * STEP_NS)
}

impl Expiry {
    /// Loads the index of a lane, for the current `ttl`.
    pub(super) fn load(entries: &impl Entries, ttl_ns: Option<u64>) -> Result<Self, ReadError> {
        let mark = entries.get(MARK)?;
        let known = mark.as_deref().and_then(|mark| mark.split_first());
        let (phase, is_unmarked) = match (ttl_ns, known) {
            (None, None) => (Phase::None, false),
            (None, Some((how, _))) => (Phase::Goes, *how != GOES),
            (Some(_), Some((&IS_COMPLETE, _))) => (Phase::Complete, false),
            (Some(_), Some((&COMES, key))) => (Phase::Comes(key.to_vec()), false),
            (Some(_), Some(_)) => (Phase::Goes, false),
            (Some(_), None) => {
                let first = entries.range(Bound::Included(&[STATE]), &end_of(STATE), PageBudget::of(1))?;
                let phase = if first.entries.is_empty() { Phase::Complete } else { Phase::Comes(vec![STATE]) };
                (phase, true)
            }
        };
        Ok(Self { ttl_ns, phase, is_unmarked, front: vec![WRITTEN], oldest_ns: 0, rest: None })
    }

    /// Whether an entry written at one time has expired at another.
    pub(super) fn has_expired(&self, written_ns: u64, time_ns: u64) -> bool {
        self.ttl_ns.is_some_and(|ttl_ns| written_ns.saturating_add(ttl_ns) <= time_ns)
    }

    /// Maximum size of the index changes for one key.
    pub(super) fn bytes(&self, key: &[u8]) -> usize {
        if self.ttl_ns.is_some() { 2 * (TIME_BYTES + key.len()) } else { 0 }
    }

    /// The write of the mark, if the stored one is out of date.
    pub(super) fn mark(&mut self) -> Option<LaneWrite> {
        std::mem::take(&mut self.is_unmarked).then(|| match &self.phase {
            Phase::None => LaneWrite::delete(MARK),
            Phase::Goes => LaneWrite::put(MARK, vec![GOES]),
            Phase::Comes(key) => {
                let mut mark = vec![COMES];
                mark.extend_from_slice(key);
                LaneWrite::put(MARK, mark)
            }
            Phase::Complete => LaneWrite::put(MARK, vec![IS_COMPLETE]),
        })
    }

    /// Whether the mark has to be written.
    pub(super) fn is_unmarked(&self) -> bool {
        self.is_unmarked
    }

    /// Restores the flag after a failed commit.
    pub(super) fn set_unmarked(&mut self, is_unmarked: bool) {
        self.is_unmarked = is_unmarked;
    }

    /// Adds the index changes for a changed key.
    pub(super) fn change(
        &mut self,
        key: &[u8],
        before: Option<PriorEntry>,
        after: Option<PriorEntry>,
        writes: &mut Vec<LaneWrite>,
    ) {
        if !matches!(self.phase, Phase::Comes(_) | Phase::Complete) {
            return;
        }
        let entered = |of: Option<PriorEntry>| of.map(|of| entry(of.written_ns, key));
        let (old, new) = (entered(before), entered(after));
        if let Some(after) = after {
            self.oldest_ns = self.oldest_ns.min(after.written_ns);
        }
        if let Some(new) = &new
            && *new < self.front
        {
            self.front.clone_from(new);
        }
        if old != new {
            writes.extend(old.map(LaneWrite::delete));
            writes.extend(new.map(|new| LaneWrite::put(new, Bytes::new())));
        }
    }

    /// Whether there is work that does not depend on events.
    pub(super) fn is_behind(&self) -> bool {
        matches!(self.phase, Phase::Goes | Phase::Comes(_))
    }

    /// Whether removing expired entries may make room.
    pub(super) fn may_make_room(&self, time_ns: u64) -> bool {
        self.ttl_ns.is_some() && (self.is_behind() || self.has_expired(self.oldest_ns, time_ns))
    }

    /// The next step; `None` if there is nothing to do. With `all`, also removes expired entries of the current time
    /// step. `value` returns the entry of a key.
    pub(super) fn step(
        &mut self,
        entries: &impl Entries,
        (time_ns, all): (u64, bool),
        value: impl Fn(&[u8]) -> Result<Option<PriorEntry>, ReadError>,
    ) -> Result<Option<Step>, ReadError> {
        match (&self.phase, self.ttl_ns) {
            (Phase::Goes, _) => self.go(entries).map(Some),
            (Phase::Comes(from), _) => {
                let from = from.clone();
                self.come(entries, &from).map(Some)
            }
            (Phase::Complete, Some(ttl_ns)) => {
                let Some(last_ns) = time_ns.checked_sub(ttl_ns) else { return Ok(None) };
                match self.remove(entries, last_ns, &value)? {
                    None if all => self.remove_rest(entries, last_ns, &value),
                    step => Ok(step),
                }
            }
            (Phase::None | Phase::Complete, _) => Ok(None),
        }
    }

    /// Deletes index entries, which are not maintained.
    fn go(&mut self, entries: &impl Entries) -> Result<Step, ReadError> {
        let page = entries.range(Bound::Included(&self.front), &end_of(WRITTEN), PAGE)?;
        let mut writes: Vec<_> = page.entries.iter().map(|(entry, _)| LaneWrite::delete(entry.clone())).collect();
        if let Some((last, _)) = page.entries.last() {
            self.front = last.to_vec();
        }
        if page.is_last {
            self.front = vec![WRITTEN];
            self.phase = if self.ttl_ns.is_some() { Phase::Comes(vec![STATE]) } else { Phase::None };
            self.is_unmarked = true;
        }
        writes.extend(self.mark());
        Ok(Step { writes, looked_at: page.entries.len() })
    }

    /// Adds index entries for the next keys.
    fn come(&mut self, entries: &impl Entries, from: &[u8]) -> Result<Step, ReadError> {
        let page = entries.range(Bound::Excluded(from), &end_of(STATE), PAGE)?;
        let made = page.entries.iter().filter_map(|(key, value)| Some(entry(time_of(value)?, key)));
        let mut writes: Vec<_> = made.map(|entry| LaneWrite::put(entry, Bytes::new())).collect();
        self.phase = match page.entries.last() {
            Some((last, _)) if !page.is_last => Phase::Comes(last.to_vec()),
            _ => Phase::Complete,
        };
        self.is_unmarked = true;
        writes.extend(self.mark());
        Ok(Step { writes, looked_at: page.entries.len() })
    }

    /// Removes entries of time steps that have expired entirely, up to a time.
    fn remove(
        &mut self,
        entries: &impl Entries,
        last_ns: u64,
        value: &impl Fn(&[u8]) -> Result<Option<PriorEntry>, ReadError>,
    ) -> Result<Option<Step>, ReadError> {
        let until = since(last_ns.saturating_add(1));
        if until <= self.front {
            return Ok(None);
        }
        let page = entries.range(Bound::Included(&self.front), &until, PAGE)?;
        if page.entries.is_empty() {
            // the next entry needs no search before its time
            let first = entries.range(Bound::Included(&until), &end_of(WRITTEN), PageBudget::of(1))?;
            let first = first.entries.into_iter().next().map(|(first, _)| first.to_vec());
            self.oldest_ns = self.oldest_ns.max(first.as_deref().and_then(begin_of).unwrap_or(u64::MAX));
            self.front = first.unwrap_or_else(|| end_of(WRITTEN).to_vec());
            return Ok(None);
        }
        let looked = look(&page.entries, last_ns, value)?;
        self.front = looked.behind;
        Ok(Some(looked.step))
    }

    /// Removes expired entries of the current time step.
    fn remove_rest(
        &mut self,
        entries: &impl Entries,
        last_ns: u64,
        value: &impl Fn(&[u8]) -> Result<Option<PriorEntry>, ReadError>,
    ) -> Result<Option<Step>, ReadError> {
        if self.oldest_ns > last_ns {
            return Ok(None);
        }
        let next_ns = (last_ns / STEP_NS + 1).saturating_mul(STEP_NS);
        let (from, oldest_ns) = self.rest.take().unwrap_or_else(|| (self.front.clone(), next_ns));
        let page = entries.range(Bound::Included(&from), &since(next_ns), PAGE)?;
        let looked = look(&page.entries, last_ns, value)?;
        let oldest_ns = oldest_ns.min(looked.oldest_ns);
        if page.is_last && looked.step.looked_at == page.entries.len() {
            self.oldest_ns = oldest_ns;
        } else {
            self.rest = Some((looked.behind, oldest_ns));
        }
        Ok(Some(looked.step))
    }
}

/// Estimates how many entries of some lanes would expire with another `ttl`; reads a bounded number of entries.
pub(crate) struct ExpiryEstimate {
    /// Entries written at this time or before have expired already.
    expired_ns: Option<u64>,
    /// Entries written at this time or before would expire.
    expires_ns: u64,
    entries_left: usize,
    bytes_left: u64,
    /// Number of keys.
    pub(crate) expired: u64,
    /// Whether all entries were read.
    pub(crate) is_all: bool,
}

impl ExpiryEstimate {
    /// For a shorter `ttl`, or the first one.
    pub(crate) fn new(entries_max: usize, (before, after): (Option<Duration>, Duration), now_ns: u64) -> Self {
        let since = |ttl: Duration| now_ns.checked_sub(u64::try_from(ttl.as_nanos()).ok()?);
        Self {
            expired_ns: before.and_then(since),
            expires_ns: since(after).unwrap_or(0),
            entries_left: entries_max,
            bytes_left: LOOK_BYTES,
            expired: 0,
            is_all: true,
        }
    }

    /// Adds the entries of a lane.
    pub(crate) fn at(&mut self, entries: &impl Entries) -> Result<(), ReadError> {
        let is_complete = entries.get(MARK)?.is_some_and(|mark| mark.first() == Some(&IS_COMPLETE));
        let (from, until) = match is_complete {
            true => (self.expired_ns.map_or(vec![WRITTEN], since), since(self.expires_ns.saturating_add(STEP_NS))),
            false => (vec![STATE], end_of(STATE).to_vec()),
        };
        let mut from = Bound::Included(from);
        loop {
            if self.entries_left == 0 || self.bytes_left == 0 {
                self.is_all = false;
                return Ok(());
            }
            let budget = PageBudget::of(self.entries_left.min(STATE_SWEEP_ENTRIES));
            let page = entries.range(from.as_ref().map(Vec::as_slice), &until, budget)?;
            for (key, value) in &page.entries {
                self.entries_left = self.entries_left.saturating_sub(1);
                self.bytes_left = self.bytes_left.saturating_sub((key.len() + value.len()) as u64);
                // an index has the time to the second
                let written_ns = if is_complete { begin_of(key) } else { time_of(value) };
                let expires = |written_ns| {
                    written_ns <= self.expires_ns && self.expired_ns.is_none_or(|expired_ns| written_ns > expired_ns)
                };
                self.expired += u64::from(written_ns.is_some_and(expires));
            }
            match page.entries.last() {
                Some((last, _)) if !page.is_last => from = Bound::Excluded(last.to_vec()),
                _ => return Ok(()),
            }
        }
    }
}

/// Index entries after removing those up to a time.
struct IndexScan {
    step: Step,
    /// Position after the last one read.
    behind: Vec<u8>,
    /// Oldest write time of the remaining entries.
    oldest_ns: u64,
}

fn look(
    entered: &[(Bytes, Bytes)],
    last_ns: u64,
    value: impl Fn(&[u8]) -> Result<Option<PriorEntry>, ReadError>,
) -> Result<IndexScan, ReadError> {
    let step = Step { writes: Vec::new(), looked_at: 0 };
    let (mut looked, mut bytes) = (IndexScan { step, behind: Vec::new(), oldest_ns: u64::MAX }, 0);
    for (entered, _) in entered {
        if bytes > VALUE_BYTES {
            break;
        }
        let key = key_of(entered);
        let found = value(&key)?;
        bytes += found.map_or(0, |found| found.bytes);
        looked.step.looked_at += 1;
        looked.behind = [entered.as_ref(), &[0]].concat();
        match found {
            Some(found) if entry(found.written_ns, &key) == *entered && found.written_ns > last_ns => {
                looked.oldest_ns = looked.oldest_ns.min(found.written_ns);
            }
            // its index entry is deleted with it
            Some(found) if entry(found.written_ns, &key) == *entered => looked.step.writes.push(LaneWrite::delete(key)),
            // the value was written in another time step, and has another index entry
            _ => looked.step.writes.push(LaneWrite::delete(entered.clone())),
        }
    }
    Ok(looked)
}
