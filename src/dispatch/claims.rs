//! Subscribers that share the events of a topic (`claim: GROUP`): each event is for one of them.
//!
//! ```text
//! entry  07, u64 big endian: first offset    u64 little endian: behind the last offset of a run that is this member's
//! entry  07                                  u64 little endian: in front of it, every event is somebody's
//! ```
//!
//! A lane claims what it has read and may handle; what another one of its group has claimed it passes over. Who comes first
//! gets an event, so the one that has time gets more of them.
//!
//! Promises: an event is given to one member and never to another, also after a restart: what a lane claims is committed with
//! its entries and durable before it is called. What was claimed stays with its member, however long that is paused.
//! Memory: a range for each run of events, dropped once every member is past it.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::entries::{CLAIM, end_of, number_of, numbered};
use crate::engine::{Entries, LaneWrite, ReadError};
use crate::model::Offset;

/// Who has which events of a partition.
#[derive(Debug, Default)]
pub(super) struct Claims {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Ranges by their first offset: the offset behind the last one, and whose they are.
    ranges: BTreeMap<Offset, (Offset, usize)>,
    /// Up to where each member has come.
    positions: Vec<Offset>,
    /// In front of it every event is somebody's, whoever that was.
    floor: Offset,
}

/// What became of a lane's wish.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claimed {
    /// The offsets that are somebody else's.
    pub(super) lost: HashSet<Offset>,
    /// What the lane keeps for it, durably, before it does anything with the others.
    pub(super) writes: Vec<LaneWrite>,
}

impl State {
    fn owner(&self, offset: Offset) -> Option<usize> {
        let (_, (end, member)) = self.ranges.range(..=offset).next_back()?;
        (offset < *end).then_some(*member)
    }
}

impl Claims {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another member, who has come to a position, with what its lane keeps. Its number. All are there before any of them
    /// claims.
    pub(super) fn join(&self, position: Offset, entries: &impl Entries) -> Result<usize, ReadError> {
        let mut state = self.state();
        let member = state.positions.len();
        state.positions.push(position);
        let value = |value: &[u8]| Some(u64::from_le_bytes(value.get(..8)?.try_into().ok()?));
        if let Some(floor) = entries.get(&[CLAIM])?.as_deref().and_then(value) {
            state.floor = state.floor.max(floor);
        }
        let mut from = vec![CLAIM];
        loop {
            let page = entries.range(Bound::Excluded(&from), &end_of(CLAIM), 1_000)?;
            let Some((last, _)) = page.last() else { return Ok(member) };
            from = last.to_vec();
            for (key, end) in &page {
                if let Some((first, end)) = number_of(key).zip(value(end)) {
                    state.ranges.insert(first, (end, member));
                }
            }
        }
    }

    /// A member that has come to a position wants events, which ascend.
    pub(super) fn claim(&self, member: usize, position: Offset, wanted: impl Iterator<Item = Offset>) -> Claimed {
        let mut state = self.state();
        let mut claimed = Claimed { lost: HashSet::new(), writes: Vec::new() };
        // the range that grows, where there is one
        let mut grown: Option<Offset> = None;
        let mut changed: BTreeMap<Offset, Offset> = BTreeMap::new();
        for offset in wanted {
            match state.owner(offset) {
                Some(owner) if owner == member => {}
                Some(_) => drop(claimed.lost.insert(offset)),
                // of those that are not its own, somebody had them before anybody can remember
                None if offset < state.floor => drop(claimed.lost.insert(offset)),
                None => {
                    let in_front = offset.checked_sub(1).filter(|before| state.owner(*before) == Some(member));
                    let first = grown
                        .filter(|first| state.ranges.get(first).is_some_and(|(end, _)| *end == offset))
                        .or_else(|| {
                            in_front
                                .and_then(|before| state.ranges.range(..=before).next_back().map(|(first, _)| *first))
                        })
                        .unwrap_or(offset);
                    state.ranges.insert(first, (offset + 1, member));
                    changed.insert(first, offset + 1);
                    grown = Some(first);
                }
            }
        }
        if let Some(known) = state.positions.get_mut(member) {
            *known = position.max(*known);
        }
        let passed = state.positions.iter().copied().min().unwrap_or(0);
        if !changed.is_empty() {
            claimed.writes.extend(changed.into_iter().map(|(first, end)| put(&numbered(CLAIM, first), end)));
            claimed.writes.extend(self.forget(&mut state, member, passed));
        }
        claimed
    }

    /// Drops a member's ranges that every member is past. What is to be written for it.
    fn forget(&self, state: &mut State, member: usize, passed: Offset) -> Vec<LaneWrite> {
        let gone = state.ranges.range(..passed).filter(|(_, (end, of))| *end <= passed && *of == member);
        let gone: Vec<Offset> = gone.map(|(first, _)| *first).collect();
        if gone.is_empty() {
            return Vec::new();
        }
        state.floor = state.floor.max(passed);
        let mut writes = vec![put(&[CLAIM], state.floor)];
        for first in gone {
            state.ranges.remove(&first);
            writes.push(LaneWrite::delete(numbered(CLAIM, first)));
        }
        writes
    }
}

fn put(key: &[u8], offset: Offset) -> LaneWrite {
    LaneWrite::put(key.to_vec(), offset.to_le_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[derive(Clone, Default)]
    struct Kept(std::sync::Arc<Mutex<BTreeMap<Bytes, Bytes>>>);

    impl Kept {
        fn apply(&self, writes: Vec<LaneWrite>) {
            let mut kept = self.0.lock().unwrap();
            for LaneWrite { key, value } in writes {
                match value {
                    Some(value) => drop(kept.insert(key, value)),
                    None => drop(kept.remove(&key)),
                }
            }
        }

        fn len(&self) -> usize {
            self.0.lock().unwrap().len()
        }
    }

    impl Entries for Kept {
        fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
            Ok(self.0.lock().unwrap().get(key).cloned())
        }

        fn range(&self, from: Bound<&[u8]>, until: &[u8], count: usize) -> Result<Vec<(Bytes, Bytes)>, ReadError> {
            let kept = self.0.lock().unwrap();
            let range = kept.range::<[u8], _>((from, Bound::Excluded(until)));
            Ok(range.take(count).map(|(key, value)| (key.clone(), value.clone())).collect())
        }

        fn frozen(&self) -> Result<Self, ReadError> {
            Ok(self.clone())
        }
    }

    fn lost(claimed: &Claimed) -> Vec<Offset> {
        let mut lost: Vec<_> = claimed.lost.iter().copied().collect();
        lost.sort_unstable();
        lost
    }

    fn group(kept: &[Kept], positions: &[Offset]) -> Claims {
        let claims = Claims::default();
        for (kept, position) in kept.iter().zip(positions) {
            claims.join(*position, kept).unwrap();
        }
        claims
    }

    #[test]
    fn who_comes_first_gets_it_also_after_a_restart() {
        let kept = [Kept::default(), Kept::default()];
        let claims = group(&kept, &[0, 0]);
        let first = claims.claim(0, 0, [0, 1, 4].into_iter());
        assert_eq!((lost(&first), first.writes.len()), (vec![], 2), "two runs");
        let second = claims.claim(1, 0, 0..6);
        assert_eq!(lost(&second), [0, 1, 4]);
        kept[0].apply(first.writes);
        kept[1].apply(second.writes);
        assert!(claims.claim(0, 0, [0, 1, 4].into_iter()).writes.is_empty(), "they are its own already");
        let again = group(&kept, &[0, 0]);
        assert_eq!(lost(&again.claim(1, 0, 0..6)), [0, 1, 4]);
        assert_eq!(lost(&again.claim(0, 0, 0..6)), [2, 3, 5]);
    }

    #[test]
    fn a_run_that_goes_on_is_one_range() {
        let kept = [Kept::default(), Kept::default()];
        let claims = group(&kept, &[0, 0]);
        for batch in 0..10 {
            kept[0].apply(claims.claim(0, batch * 10, batch * 10..(batch + 1) * 10).writes);
        }
        assert_eq!(kept[0].len(), 1);
        assert_eq!(lost(&claims.claim(1, 0, 0..100)).len(), 100);
    }

    #[test]
    fn what_all_are_past_is_forgotten_and_still_nobodys_to_take() {
        let kept = [Kept::default(), Kept::default()];
        let claims = group(&kept, &[0, 0]);
        for batch in 0..50 {
            // they take turns
            for member in [0, 1] {
                let from = (2 * batch + member as u64) * 3;
                kept[member].apply(claims.claim(member, from, from..from + 3).writes);
            }
        }
        assert!(kept[0].len() <= 4 && kept[1].len() <= 4, "{} {}", kept[0].len(), kept[1].len());
        let newcomer = [kept[0].clone(), kept[1].clone(), Kept::default()];
        let claims = group(&newcomer, &[300, 300, 0]);
        assert_eq!(lost(&claims.claim(2, 0, 0..300)).len(), 300, "all of them were somebody's");
        assert!(claims.claim(2, 300, 300..303).lost.is_empty());
    }
}
