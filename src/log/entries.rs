//! The entries of lanes: key-value data that a lane stores, as of its last unit.
//!
//! ```text
//!   submitted ──> written ──> in the state store
//!   as the owner  as a new    as of the last checkpoint
//!   sees it       owner sees it
//! ```
//!
//! Promises: a lane reads its own submitted writes, in order; a new owner reads what was written before its
//! acquisition, and nothing else. Entries that did not change are not written again. Memory holds only changes since
//! the last checkpoint.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::store::{StoreError, StoreReader, StoreSnapshot};
use super::{Lane, Log, LogInner};
use crate::model::{EntryPage, LaneId, LaneWrite, PageBudget};

/// Minimum number of entries to read in one round, however few are asked for: some may be deleted.
const PAGE_MIN: usize = 64;
/// Entries that are removed under one lock.
const COMMITTED_AT_ONCE: usize = 512;

/// The changes of a lane's entries that are in memory.
#[derive(Debug, Default)]
pub(super) struct EntryChanges {
    state: Mutex<PendingEntries>,
}

#[derive(Debug, Default)]
struct PendingEntries {
    /// Number of units submitted by this owner and all earlier ones.
    units: u64,
    /// The owner whose units are accepted.
    owner: u64,
    /// With the number of their unit.
    handed_in: BTreeMap<Bytes, (u64, Option<Bytes>)>,
    /// With the end position of their unit in the journal.
    written: BTreeMap<Bytes, (u64, Option<Bytes>)>,
}

impl EntryChanges {
    fn state(&self) -> MutexGuard<'_, PendingEntries> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the writes of a submitted unit. Returns its number, or `None` if the lane has another owner by now.
    pub(super) fn hand_in(&self, owner: u64, writes: &[LaneWrite]) -> Option<u64> {
        let mut state = self.state();
        if state.owner != owner {
            return None;
        }
        state.units += 1;
        let unit = state.units;
        for write in writes {
            state.handed_in.insert(write.key.clone(), (unit, write.value.clone()));
        }
        Some(unit)
    }

    /// The unit was written and ends at this position.
    pub(super) fn written(&self, unit: u64, position: u64, writes: Vec<LaneWrite>) {
        let mut state = self.state();
        for write in writes {
            if let Entry::Occupied(handed_in) = state.handed_in.entry(write.key.clone())
                && handed_in.get().0 <= unit
            {
                handed_in.remove();
            }
            state.written.insert(write.key, (position, write.value));
        }
    }

    /// The unit was refused, and no unit was submitted after it.
    pub(super) fn withdraw(&self, unit: u64) {
        self.state().handed_in.retain(|_, (of, _)| *of != unit);
    }

    /// The lane has a new owner: pending writes of the old one will be refused.
    pub(super) fn acquired(&self, owner: u64) {
        let mut state = self.state();
        state.owner = owner;
        state.handed_in.clear();
    }

    /// Everything before a position is in the store.
    pub(super) fn committed(&self, position: u64) {
        let mut from = Bound::Unbounded;
        loop {
            // In parts, because lanes wait for the lock. Entries that are not removed yet only hide equal ones in the
            // store.
            let mut state = self.state();
            let part = state.written.range::<Bytes, _>((from.as_ref(), Bound::Unbounded)).take(COMMITTED_AT_ONCE);
            let part: Vec<_> = part.map(|(key, (written, _))| (key.clone(), *written <= position)).collect();
            let Some((last, _)) = part.last() else { return };
            from = Bound::Excluded(last.clone());
            let stored = part.iter().filter(|(_, is_stored)| *is_stored);
            let removed: Vec<_> = stored.filter_map(|(key, _)| state.written.remove(key)).collect();
            drop(state);
            drop(removed);
        }
    }

    fn get(&self, key: &[u8]) -> Option<Option<Bytes>> {
        let state = self.state();
        let found = state.handed_in.get(key).or_else(|| state.written.get(key));
        found.map(|(_, value)| value.clone())
    }

    /// The first changes in a range: at least `count` if there are that many.
    fn range(&self, range: Range<'_>, count: usize) -> ChangePage {
        let state = self.state();
        let mut changes = ChangePage::default();
        // submitted writes take precedence over written ones
        for of in [&state.written, &state.handed_in] {
            changes.take(of.range::<[u8], _>(range).map(|(key, (_, value))| (key, value)), count);
        }
        changes
    }
}

type Range<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// The first changes in a range; `None` is a deleted key.
#[derive(Debug, Default)]
struct ChangePage {
    by_key: BTreeMap<Bytes, Option<Bytes>>,
    /// Changes are known up to this key; `None`: all of them.
    to: Option<Bytes>,
}

impl ChangePage {
    fn take<'a>(&mut self, changes: impl Iterator<Item = (&'a Bytes, &'a Option<Bytes>)>, count: usize) {
        let mut taken = 0;
        for (key, value) in changes.take(count) {
            taken += 1;
            self.by_key.insert(key.clone(), value.clone());
            if taken == count && self.to.as_ref().is_none_or(|to| key < to) {
                self.to = Some(key.clone());
            }
        }
    }
}

/// Reads the entries of a lane. Cheap to clone.
#[derive(Clone)]
pub struct LaneEntries {
    shared: Arc<LogInner>,
    lane: Arc<Lane>,
    frozen: Option<Arc<EntriesSnapshot>>,
}

/// All entries at one moment: the changes since the last checkpoint, over the store as it was just after. A checkpoint
/// between the two reads adds only what is among the changes, because the lane submits nothing meanwhile.
struct EntriesSnapshot {
    changed: BTreeMap<Bytes, Option<Bytes>>,
    stored: StoreSnapshot,
}

/// Why an entry cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the entries of a lane cannot be read: {words}")]
pub struct EntriesError {
    words: Arc<str>,
    is_passing: bool,
}

impl EntriesError {
    /// Whether the same read may succeed later: the stored data is intact.
    pub fn is_passing(&self) -> bool {
        self.is_passing
    }
}

impl From<StoreError> for EntriesError {
    fn from(error: StoreError) -> Self {
        Self { words: error.to_string().into(), is_passing: error.is_passing() }
    }
}

/// Borrowed access to the entries of a lane.
pub(super) struct EntryReader<'s> {
    pub(super) shared: &'s LogInner,
    pub(super) lane: &'s Lane,
}

impl EntryReader<'_> {
    /// The change since the last checkpoint; `None` if the store has the current value.
    pub(super) fn in_memory(&self, key: &[u8]) -> Option<Option<Bytes>> {
        self.lane.changed.get(key)
    }

    /// As [`LaneEntries::get`].
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EntriesError> {
        // memory first: an entry that has left memory is in the store by then
        match self.in_memory(key) {
            Some(value) => Ok(value),
            None => self.stored(|entries| entries.get(self.lane.id, key)),
        }
    }

    /// Reads the store. After a failed checkpoint the store must be reopened; readers never do that, because its
    /// duration grows with the store.
    fn stored<T>(&self, look: impl Fn(&StoreReader) -> Result<T, StoreError>) -> Result<T, EntriesError> {
        Ok(look(&self.shared.entries)?)
    }
}

impl LaneEntries {
    fn look(&self) -> EntryReader<'_> {
        EntryReader { shared: &self.shared, lane: &self.lane }
    }

    /// The value of a key. May read from the disk.
    ///
    /// # Errors
    /// [`EntriesError`]: the disk does not return what was written.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EntriesError> {
        match &self.frozen {
            None => self.look().get(key),
            Some(frozen) => match frozen.changed.get(key) {
                Some(value) => Ok(value.clone()),
                None => Ok(frozen.stored.get(self.lane.id, key)?),
            },
        }
    }

    /// The entries from `from` on and before `until`, in key order, within the budget. May read from the disk.
    ///
    /// # Errors
    /// As [`LaneEntries::get`].
    pub fn range(&self, from: Bound<&[u8]>, until: &[u8], mut budget: PageBudget) -> Result<EntryPage, EntriesError> {
        let until = Bound::Excluded(until);
        let mut page = EntryPage::default();
        if let (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(until)) = (from, until)
            && from >= until
        {
            page.is_last = true;
            return Ok(page);
        }
        let mut from = from.map(<[u8]>::to_vec);
        let mut at_once = 0;
        while budget.entries > 0 {
            let range = (from.as_ref().map(Vec::as_slice), until);
            // Most stored entries have not been deleted; if one was, many may have been.
            let round = PageBudget { entries: budget.entries.max(at_once), ..budget };
            at_once = PAGE_MIN;
            // memory first, as in `get`
            let changes = match &self.frozen {
                Some(frozen) => {
                    let mut changes = ChangePage::default();
                    changes.take(frozen.changed.range::<[u8], _>(range), round.entries);
                    changes
                }
                None => self.lane.changed.range(range, round.entries),
            };
            let stored = match &self.frozen {
                Some(frozen) => frozen.stored.range(self.lane.id, range, round)?,
                None => self.look().stored(|entries| entries.range(self.lane.id, range, round))?,
            };
            let stored_to = stored.entries.last().map(|(key, _)| key.clone()).filter(|_| !stored.is_last);
            // keys after the end of either part belong to the next round
            let to = changes.to.into_iter().chain(stored_to).min();
            let is_known = |key: &Bytes| to.as_ref().is_none_or(|to| key <= to);
            let stored = stored.entries.into_iter().map(|(key, value)| (key, Some(value)));
            let mut known: BTreeMap<_, _> = stored.filter(|(key, _)| is_known(key)).collect();
            known.extend(changes.by_key.into_iter().filter(|(key, _)| is_known(key)));
            for (key, value) in known.into_iter().filter_map(|(key, value)| Some((key, value?))) {
                if !page.take(&mut budget, &key, &value, || (key.clone(), value.clone())) {
                    return Ok(page);
                }
            }
            match to {
                Some(to) => from = Bound::Excluded(to.to_vec()),
                None => {
                    page.is_last = true;
                    break;
                }
            }
        }
        Ok(page)
    }

    /// The entries as they are now, independent of later units. To be called by the lane itself between two units. Its
    /// duration grows with the changes since the last checkpoint, not with the store.
    ///
    /// # Errors
    /// As [`LaneEntries::get`].
    pub fn frozen(&self) -> Result<Self, EntriesError> {
        // memory first, as in `get`
        let changed = self.lane.changed.range((Bound::Unbounded, Bound::Unbounded), usize::MAX).by_key;
        let stored = self.look().stored(StoreReader::pinned)?;
        let frozen = Some(Arc::new(EntriesSnapshot { changed, stored }));
        Ok(Self { shared: self.shared.clone(), lane: self.lane.clone(), frozen })
    }
}

impl Log {
    /// A reader of a lane's entries.
    pub fn entries(&self, id: LaneId) -> LaneEntries {
        LaneEntries { shared: self.shared.clone(), lane: self.lane(id), frozen: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &'static str, value: &'static str) -> Vec<LaneWrite> {
        vec![LaneWrite::put(key.as_bytes(), value.as_bytes())]
    }

    fn get(changed: &EntryChanges, key: &str) -> Option<String> {
        changed.get(key.as_bytes()).flatten().map(|value| String::from_utf8(value.to_vec()).unwrap())
    }

    #[test]
    fn a_lane_reads_what_it_handed_in_and_the_next_owner_what_was_written() {
        let changed = EntryChanges::default();
        changed.acquired(1);
        let first = changed.hand_in(1, &put("a", "1")).unwrap();
        changed.hand_in(1, &put("a", "2")).unwrap();
        assert_eq!(get(&changed, "a").unwrap(), "2");
        changed.written(first, 10, put("a", "1"));
        assert_eq!(get(&changed, "a").unwrap(), "2", "the second one is still on its way");
        changed.acquired(2);
        assert_eq!(get(&changed, "a").unwrap(), "1", "the second one is refused");
        assert_eq!(changed.hand_in(1, &put("a", "3")), None);
        assert_eq!(get(&changed, "a").unwrap(), "1");
        changed.committed(9);
        assert_eq!(get(&changed, "a").unwrap(), "1");
        changed.committed(10);
        assert_eq!(changed.get(b"a"), None, "the store knows it");
    }

    #[test]
    fn exactly_what_is_in_the_store_goes_however_much_that_is() {
        let changed = EntryChanges::default();
        changed.acquired(1);
        let key = |number: u64| Bytes::from(format!("{number:08}"));
        let last = 3 * COMMITTED_AT_ONCE as u64;
        for number in 0..=last {
            let writes = vec![LaneWrite::put(key(number), "")];
            let unit = changed.hand_in(1, &writes).unwrap();
            changed.written(unit, number % 2, writes);
        }
        changed.committed(0);
        for number in 0..=last {
            assert_eq!(changed.get(&key(number)).is_some(), number % 2 == 1, "{number}");
        }
    }
}
