//! The data of a keeper, and its changes: unclaimed events, and the events that each member has claimed but not passed.
//!
//! ```text
//!                  floor              end
//!   ─────────────────┼──▒▒▒────▒▒──────┼─────────────>   ▒ unclaimed: runs, each an entry
//!   all is claimed                       unclaimed
//!
//! entry  07 00                           little endian: u64 end, floor, number of runs, number of identities
//!        07 01, u64 big endian: end      u64 little endian: first offset of an unclaimed run
//!        07 03                           u64 from, u64 until: the range with events that members have returned
//!        07 02, u32 and u64 big endian:  u64 little endian: end of a run that this member has claimed and not passed
//!               member, first offset
//! ```
//!
//! A run begins where a member skips an event that another one may want, so only such events add runs: if all members
//! take all events, there are none, also while one is paused. Runs are read on demand. Those before the floor, which is
//! the position of the slowest member, are never read again.
//!
//! Events that a member returns are unclaimed again. The other members have passed them, so each goes back once to
//! claim those that it wants. Other events in that range are no longer its own, or never were.
//!
//! Promises: the in-memory data and the entries change together, or not at all. Must not know: sessions, lanes.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};

use bytes::Bytes;

use super::super::entries::CLAIM;
use super::ClaimOutcome;
use super::former::FormerClaims;
use super::identities::{ClaimRequest, KnownIdentities, Window};
use crate::engine::{Entries, LaneWrite, PageBudget, ReadError};
use crate::model::{Offset, SubscriberId};

const MARK: &[u8] = &[CLAIM, 0];
const RUN: u8 = 1;
const OWN: u8 = 2;
const GIVEN_BACK: &[u8] = &[CLAIM, 3];
/// Entries that are read, or deleted, at once.
const PAGE: PageBudget = PageBudget::of(1_000);

/// Runs by one end, with the other end.
type RunsByEnd = BTreeMap<Offset, Offset>;

/// The claims in a partition.
#[derive(Debug, Default)]
pub(super) struct ClaimBook {
    /// From this offset on, nothing is claimed.
    pub(super) end: Offset,
    /// Before it, every event is claimed, or no member can claim it any more.
    pub(super) floor: Offset,
    /// Number of unclaimed runs.
    pub(super) runs: u64,
    /// Number of stored identities.
    pub(super) identities: u64,
    pub(super) members: Vec<Member>,
    /// The range that contains returned events.
    pub(super) given_back: Option<(Offset, Offset)>,
    /// Whether entries exist.
    is_kept: bool,
    pub(super) former: FormerClaims,
}

/// A member of the group.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) number: SubscriberId,
    /// Before it, all its own events are done or in its retry queue.
    pub(super) position: Offset,
    /// Runs that it has claimed, by first offset. Passed ones are removed with its next claim.
    pub(super) own: RunsByEnd,
}

impl Member {
    fn owns(&self, offset: Offset) -> bool {
        self.own.range(..=offset).next_back().is_some_and(|(_, end)| offset < *end)
    }
}

fn own_prefix(member: SubscriberId) -> Bytes {
    [&[CLAIM, OWN][..], &member.0.to_be_bytes()].concat().into()
}

fn own_key(member: SubscriberId, first: Offset) -> Bytes {
    [&own_prefix(member)[..], &first.to_be_bytes()].concat().into()
}

fn run_key(end: Offset) -> Bytes {
    [&[CLAIM, RUN][..], &end.to_be_bytes()].concat().into()
}

/// The number at the end of a key.
fn last_number(key: &[u8]) -> Option<u64> {
    key.last_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

fn number_at(value: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(value.get(at..at + 8)?.try_into().ok()?))
}

fn put(key: Bytes, value: Offset) -> LaneWrite {
    LaneWrite::put(key, value.to_le_bytes().to_vec())
}

/// The writes that turn runs into others.
fn changes(before: &RunsByEnd, now: &RunsByEnd, key: impl Fn(Offset) -> Bytes) -> Vec<LaneWrite> {
    let gone = before.keys().filter(|at| !now.contains_key(at)).map(|at| LaneWrite::delete(key(*at)));
    let new = now.iter().filter(|(at, other)| before.get(at) != Some(other)).map(|(at, other)| put(key(*at), *other));
    gone.chain(new).collect()
}

/// The events of a range that are left for a member: its claims that it has not passed, and unclaimed events. Returns
/// their number and the first of them; `None` if they are too scattered to be counted quickly.
pub(crate) fn left_for(
    entries: &impl Entries,
    member: SubscriberId,
    range: Range<Offset>,
) -> Result<Option<(u64, Option<Offset>)>, ReadError> {
    let (mut count, mut first) = (0, None);
    let mut add = |from: Offset, until: Offset| {
        let (from, until) = (from.max(range.start), until.min(range.end));
        if from < until {
            count += until - from;
            first = Some(first.map_or(from, |first: Offset| first.min(from)));
        }
    };
    let mark = entries.get(MARK)?;
    let number = |at| mark.as_ref().and_then(|mark| number_at(mark, at)).unwrap_or(0);
    let (end, floor) = (number(0), number(8));
    add(end, range.end);
    let from = run_key(floor.max(range.start).saturating_add(1));
    let runs = entries.range(Bound::Included(&from), &[CLAIM, RUN + 1], PAGE)?;
    for (key, value) in &runs.entries {
        let (until, from) = (last_number(key).unwrap_or(0), number_at(value, 0).unwrap_or(0));
        add(from.max(floor), until);
    }
    let after = own_prefix(SubscriberId(member.0.saturating_add(1)));
    let own = entries.range(Bound::Included(&own_prefix(member)), &after, PAGE)?;
    for (key, value) in &own.entries {
        add(last_number(key).unwrap_or(0), number_at(value, 0).unwrap_or(0));
    }
    Ok((runs.is_last && own.is_last).then_some((count, first)))
}

impl ClaimBook {
    pub(super) fn load(entries: &impl Entries) -> Result<Self, ReadError> {
        let mut book = Self::default();
        if let Some(mark) = entries.get(MARK)? {
            let number = |at| number_at(&mark, at).unwrap_or(0);
            (book.end, book.floor, book.runs, book.is_kept) = (number(0), number(8), number(16), true);
            book.identities = number(24);
        }
        if let Some(range) = entries.get(GIVEN_BACK)? {
            book.given_back = number_at(&range, 0).zip(number_at(&range, 8));
        }
        Ok(book)
    }

    /// Adds a member. Returns its index.
    pub(super) fn join(
        &mut self,
        entries: &impl Entries,
        number: SubscriberId,
        position: Offset,
    ) -> Result<usize, ReadError> {
        let mut own = RunsByEnd::new();
        let (mut from, until) = (own_prefix(number), own_prefix(SubscriberId(number.0.saturating_add(1))));
        loop {
            let page = entries.range(Bound::Excluded(&from), &until, PAGE)?.entries;
            let Some((last, _)) = page.last() else { break };
            from = last.clone();
            own.extend(page.iter().filter_map(|(key, end)| last_number(key).zip(number_at(end, 0))));
        }
        // a known subscriber gets the index that it had
        let known = self.members.iter().position(|member| member.number == number);
        let at = known.unwrap_or(self.members.len());
        let joined = Member { number, position, own };
        match self.members.get_mut(at) {
            Some(member) => *member = joined,
            None => self.members.push(joined),
        }
        Ok(at)
    }

    /// Adds a member's claims of an earlier release. Whether there were any.
    pub(super) fn join_former(&mut self, member: usize, entries: &impl Entries) -> Result<bool, ReadError> {
        match self.is_kept {
            true => FormerClaims::is_in(entries),
            false => self.former.read(member, entries),
        }
    }

    /// The writes before the first claim of the group; the last one marks them as complete.
    pub(super) fn begin(&mut self) -> Vec<LaneWrite> {
        if std::mem::replace(&mut self.is_kept, true) {
            return Vec::new();
        }
        let slowest = self.slowest();
        let former = std::mem::take(&mut self.former);
        self.floor = slowest.max(former.floor);
        self.end = former.end().max(self.floor);
        let unclaimed = former.unclaimed(self.floor, self.end);
        self.runs = unclaimed.len() as u64;
        let mut writes = changes(&RunsByEnd::new(), &unclaimed, run_key);
        for (first, (end, member)) in former.ranges {
            if let Some(member) = self.members.get_mut(member).filter(|member| end > member.position) {
                member.own.insert(first, end);
                writes.push(put(own_key(member.number, first), end));
            }
        }
        writes.push(self.mark());
        writes
    }

    fn slowest(&self) -> Offset {
        self.members.iter().map(|member| member.position).min().unwrap_or(0)
    }

    fn mark(&self) -> LaneWrite {
        LaneWrite::put(MARK, [self.end, self.floor, self.runs, self.identities].map(u64::to_le_bytes).concat())
    }

    /// The unclaimed runs before `end` that contain any of the offsets from `first` to `last`, by their ends.
    fn runs_over(&self, entries: &impl Entries, first: Offset, last: Offset) -> Result<RunsByEnd, ReadError> {
        let mut runs = RunsByEnd::new();
        if self.runs == 0 || first >= self.end {
            return Ok(runs);
        }
        let mut from = run_key(first);
        loop {
            let page = entries.range(Bound::Excluded(&from), &[CLAIM, RUN + 1], PAGE)?.entries;
            for (key, start) in &page {
                let Some((end, start)) = last_number(key).zip(number_at(start, 0)) else { continue };
                if start > last {
                    return Ok(runs);
                }
                runs.insert(end, start);
            }
            let Some((key, _)) = page.last() else { return Ok(runs) };
            from = key.clone();
        }
    }

    /// The deletions of some runs before an offset.
    fn runs_in_front(&self, entries: &impl Entries, floor: Offset) -> Result<Vec<LaneWrite>, ReadError> {
        if self.runs == 0 {
            return Ok(Vec::new());
        }
        let page = entries.range(Bound::Included(&[CLAIM, RUN]), &run_key(floor.saturating_add(1)), PAGE)?.entries;
        Ok(page.into_iter().map(|(key, _)| LaneWrite::delete(key)).collect())
    }

    /// A member at a position claims events, in ascending order. Returns the result and the writes.
    pub(super) fn claim(
        &mut self,
        entries: &impl Entries,
        member: usize,
        position: Offset,
        wanted: &[ClaimRequest],
        window: Option<Window>,
    ) -> Result<(ClaimOutcome, Vec<LaneWrite>), ReadError> {
        let mut claimed = ClaimOutcome::default();
        let (Some(first), Some(last)) = (wanted.first(), wanted.last()) else {
            self.moves(member, position);
            return Ok((claimed, Vec::new()));
        };
        let before = self.runs_over(entries, first.offset.max(self.floor), last.offset)?;
        let mut known = KnownIdentities::look(entries, window, self.identities, wanted)?;
        self.moves(member, position);
        let floor = self.floor.max(self.slowest());
        let mut writes = self.runs_in_front(entries, floor)?;
        let forgotten = writes.len() as u64;
        let Some(member) = self.members.get_mut(member) else { return Ok((claimed, Vec::new())) };
        let (own_before, mut runs) = (member.own.clone(), before.clone());
        member.own.retain(|_, end| *end > position);
        let mut is_changed = false;
        for wanted in wanted {
            let offset = &wanted.offset;
            let is_free = if member.owns(*offset) {
                continue;
            } else if *offset < self.floor {
                false
            } else if *offset >= self.end {
                if *offset > self.end {
                    runs.insert(*offset, self.end);
                }
                self.end = offset + 1;
                true
            } else {
                take(&mut runs, *offset)
            };
            is_changed |= is_free;
            if !is_free || known.is_given(*wanted) {
                claimed.lost.insert(*offset);
                claimed.repeated += u64::from(is_free);
                continue;
            }
            claimed.is_new = true;
            match member.own.range_mut(..offset).next_back() {
                Some((_, end)) if *end == *offset => *end += 1,
                _ => drop(member.own.insert(*offset, offset + 1)),
            }
        }
        if !is_changed {
            member.own = own_before;
            return Ok((claimed, Vec::new()));
        }
        let number = member.number;
        writes.extend(changes(&own_before, &member.own, |first| own_key(number, first)));
        writes.extend(changes(&before, &runs, run_key));
        self.runs = (self.runs + runs.len() as u64).saturating_sub(before.len() as u64 + forgotten);
        writes.append(&mut known.writes);
        self.identities = known.count;
        self.floor = floor;
        if self.given_back.is_some_and(|(_, until)| until <= floor) {
            self.given_back = None;
            writes.push(LaneWrite::delete(GIVEN_BACK));
        }
        writes.push(self.mark());
        Ok((claimed, writes))
    }

    /// A member at a position returns its claims from there on. Returns the writes, if there are any.
    pub(super) fn give_back(&mut self, member: usize, position: Offset) -> Vec<LaneWrite> {
        let Some(member) = self.members.get_mut(member) else { return Vec::new() };
        let (number, own) = (member.number, std::mem::take(&mut member.own));
        let mut writes: Vec<_> = own.keys().map(|first| LaneWrite::delete(own_key(number, *first))).collect();
        let given: RunsByEnd =
            own.iter().filter(|(_, end)| **end > position).map(|(first, end)| (*end, (*first).max(position))).collect();
        let hull = given.first_key_value().map(|(_, first)| *first).zip(given.last_key_value().map(|(end, _)| *end));
        let Some((from, until)) = hull else {
            member.own = own;
            return Vec::new();
        };
        writes.extend(changes(&RunsByEnd::new(), &given, run_key));
        self.runs += given.len() as u64;
        let range = self.given_back.map_or((from, until), |before| (before.0.min(from), before.1.max(until)));
        self.given_back = Some(range);
        writes.push(LaneWrite::put(GIVEN_BACK, [range.0, range.1].map(u64::to_le_bytes).concat()));
        writes.push(self.mark());
        writes
    }

    /// The range with returned events that a member at a position has passed, if there is one. Moves the member to its
    /// beginning, and returns the writes for that.
    pub(super) fn go_back(&mut self, member: usize, position: Offset) -> Option<((Offset, Offset), Vec<LaneWrite>)> {
        let range = self.given_back.filter(|(from, _)| *from < position)?;
        let member = self.members.get_mut(member)?;
        let before = std::mem::take(&mut member.own);
        // events that it has passed are done, so they must no longer be its own
        let rest = before.iter().filter(|(_, end)| **end > position);
        member.own = rest.map(|(first, end)| ((*first).max(position), *end)).collect();
        member.position = range.0;
        let number = member.number;
        Some((range, changes(&before, &member.own, |first| own_key(number, first))))
    }

    fn moves(&mut self, member: usize, position: Offset) {
        if let Some(member) = self.members.get_mut(member) {
            member.position = member.position.max(position);
        }
    }
}

/// Removes an offset from the run that contains it. Whether there was one.
fn take(runs: &mut RunsByEnd, offset: Offset) -> bool {
    let found = runs.range((Bound::Excluded(offset), Bound::Unbounded)).next();
    let Some((end, start)) = found.map(|(end, start)| (*end, *start)).filter(|(_, start)| *start <= offset) else {
        return false;
    };
    runs.remove(&end);
    if start < offset {
        runs.insert(offset, start);
    }
    if offset + 1 < end {
        runs.insert(end, offset + 1);
    }
    true
}

#[cfg(test)]
mod tests;
