//! Claims as an earlier release kept them: each member's in its own lane. They are read once, and then the keeper's.
//!
//! ```text
//! entry  07, u64 big endian: first offset    u64 little endian: behind the last offset of a run that is this member's
//! entry  07                                  u64 little endian: in front of it, every event is somebody's
//! ```

use std::collections::BTreeMap;
use std::ops::Bound;

use super::super::entries::{CLAIM, end_of, number_of};
use crate::engine::{Entries, PageBudget, ReadError};
use crate::model::Offset;

/// What members have kept.
#[derive(Debug, Default)]
pub(super) struct Former {
    /// Ranges by their first offset: the offset behind the last one, and whose they are.
    pub(super) ranges: BTreeMap<Offset, (Offset, usize)>,
    pub(super) floor: Offset,
}

impl Former {
    /// Whether a member's lane has any of it.
    pub(super) fn is_in(entries: &impl Entries) -> Result<bool, ReadError> {
        Ok(!entries.range(Bound::Included(&[CLAIM]), &end_of(CLAIM), PageBudget::of(1))?.entries.is_empty())
    }

    /// Reads what a member's lane has. Whether that is anything.
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

    /// From here on nothing is claimed.
    pub(super) fn end(&self) -> Offset {
        self.ranges.values().map(|(end, _)| *end).max().unwrap_or(0)
    }

    /// Runs between two offsets that nobody has claimed, by their ends.
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
