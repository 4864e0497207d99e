//! Claims in the format of an earlier release, with the members' lanes. They are read once, and then stored by the
//! keeper.
//!
//! ```text
//! entry  07, u64 big endian: first offset    u64 little endian: offset after the last one of a run of this member
//! entry  07                                  u64 little endian: before it, every event is claimed
//! ```

use std::collections::BTreeMap;
use std::ops::Bound;

use super::super::entries::{CLAIM, end_of, number_of};
use crate::engine::{Entries, PageBudget, ReadError};
use crate::model::Offset;

/// The claims of the members.
#[derive(Debug, Default)]
pub(super) struct FormerClaims {
    /// Ranges by first offset: the offset after the last one, and the member.
    pub(super) ranges: BTreeMap<Offset, (Offset, usize)>,
    pub(super) floor: Offset,
}

impl FormerClaims {
    /// Whether a member's lane has such entries.
    pub(super) fn is_in(entries: &impl Entries) -> Result<bool, ReadError> {
        Ok(!entries.range(Bound::Included(&[CLAIM]), &end_of(CLAIM), PageBudget::of(1))?.entries.is_empty())
    }

    /// Reads the entries of a member's lane. Whether there were any.
    pub(super) fn read(&mut self, member: usize, entries: &impl Entries) -> Result<bool, ReadError> {
        let value = |value: &[u8]| Some(u64::from_le_bytes(value.get(..8)?.try_into().ok()?));
        if let Some(floor) = entries.get(&[CLAIM])?.as_deref().and_then(value) {
            self.floor = self.floor.max(floor);
        }
        let mut from = vec![CLAIM];
        loop {
            let page = entries.range(Bound::Excluded(&from), &end_of(CLAIM), PageBudget::of(1_000))?.entries;
            let Some((last, _)) = page.last() else { return Self::is_in(entries) };
            from = last.to_vec();
            let ranges = page.iter().filter_map(|(key, end)| number_of(key).zip(value(end)));
            self.ranges.extend(ranges.map(|(first, end)| (first, (end, member))));
        }
    }

    /// First offset without a claim.
    pub(super) fn end(&self) -> Offset {
        self.ranges.values().map(|(end, _)| *end).max().unwrap_or(0)
    }

    /// Unclaimed runs between two offsets, by their ends.
    pub(super) fn unclaimed(&self, floor: Offset, end: Offset) -> BTreeMap<Offset, Offset> {
        let (mut runs, mut at) = (BTreeMap::new(), floor);
        for (first, (behind, _)) in &self.ranges {
            if *first > at {
                runs.insert((*first).min(end), at);
            }
            at = at.max(*behind);
        }
        runs
    }
}
