//! The state of a lane's handler: the view during a call, and its writes on their way into a unit.
//!
//! ```text
//! entry  01, bucket, 00, key   (bucket names have no zero byte)
//! value  u64 little endian: trusted time of the event that wrote it, Unix nanoseconds; then the handler's value
//! entry  04 "state"            u64 little endian: bytes of all keys and values
//! ```
//!
//! Promises: a handler reads the writes of earlier units; a write that would exceed the limit fails its event, and none
//! of that event's writes is stored. Expired entries are invisible, do not count against the limit when room is needed,
//! and get removed (see [`expiry`]). An entry is read at most once per unit.

pub(crate) mod expiry;

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{BufMut, Bytes};

use super::entries::{STATE, TOLD, end_of};
use crate::api::StateEntry;
use crate::engine::{Entries, LaneWrite, PageBudget, ReadError};
use crate::model::call::{Keys, StateError, StateView, StateWrite};
use crate::topology::StatePlan;
use expiry::Expiry;
pub(crate) use expiry::{ExpiryEstimate, Step};

/// The entry with the size of the state.
const SIZE: &[u8] = &[TOLD, b's', b't', b'a', b't', b'e'];
const TIME_BYTES: usize = 8;
/// Maximum number of pages that one listing of keys reads, each at most a megabyte: it blocks its thread.
const PAGES_PER_LOOK: usize = 4;
/// Maximum size of cached keys of reads: a few hundred keys, in each of many lanes.
const READ_BYTES_MAX: usize = 64 << 10;

/// The state of a lane.
#[derive(Debug)]
pub(crate) struct HandlerState<K> {
    entries: K,
    bytes_max: u64,
    /// Bytes of all stored keys and values.
    bytes: AtomicU64,
    expiry: Mutex<Expiry>,
    read: Mutex<ReadCache>,
    /// Number of entries written since the last query.
    written: AtomicUsize,
}

/// The entry of a key before a unit changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PriorEntry {
    /// Of key and value.
    bytes: u64,
    written_ns: u64,
}

impl PriorEntry {
    fn of(key: &[u8], value: &[u8]) -> Self {
        Self { bytes: (key.len() + value.len()) as u64, written_ns: time_of(value).unwrap_or(0) }
    }
}

/// Reads since the last unit, by entry key.
#[derive(Debug, Default)]
struct ReadCache {
    before: HashMap<Vec<u8>, Option<PriorEntry>>,
    bytes: usize,
}

impl ReadCache {
    fn forget(&mut self) {
        self.before.clear();
        self.bytes = 0;
    }
}

/// The values before writes were accounted for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SizeBefore {
    bytes: u64,
    is_unmarked: bool,
}

/// When a value was written.
fn time_of(value: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(value.get(..TIME_BYTES)?.try_into().ok()?))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes of an entry that count against the limit.
pub(crate) fn entry_bytes(bucket: &str, key: &str, value: &[u8]) -> u64 {
    (2 + bucket.len() + key.len() + TIME_BYTES + value.len()) as u64
}

/// The reason for refusing an event that would exceed the limit.
pub(crate) fn too_large(bytes: u64, bytes_max: u64) -> String {
    format!(
        "the state would have {bytes} bytes, and may have {bytes_max}: delete what is not needed, or raise `state.max`"
    )
}

fn entry_key(bucket: &str, key: &str) -> Vec<u8> {
    let mut entry = Vec::with_capacity(2 + bucket.len() + key.len());
    entry.push(STATE);
    entry.extend_from_slice(bucket.as_bytes());
    entry.push(0);
    entry.extend_from_slice(key.as_bytes());
    entry
}

impl StateEntry {
    pub(crate) fn parse(key: &[u8], value: &Bytes) -> Option<Self> {
        let (bucket, key) = std::str::from_utf8(key.get(1..)?).ok()?.split_once('\0')?;
        let written_ns = time_of(value)?;
        let (bucket, key, value) = (bucket.to_owned(), key.to_owned(), value.slice(TIME_BYTES..));
        Some(Self { bucket, key, written_ns, value })
    }
}

/// The position of a listing after an entry.
pub(crate) fn position_behind(bucket: &str, key: &str) -> Vec<u8> {
    entry_key(bucket, key)
}

/// Entries of a lane's state after a position: at most `count`, fewer if they are large. Also returns whether they are
/// the last.
pub(crate) fn list(
    entries: &impl Entries,
    behind: Option<&[u8]>,
    count: usize,
) -> Result<(Vec<StateEntry>, bool), ReadError> {
    let from = behind.map_or(Bound::Included([STATE].as_slice()), Bound::Excluded);
    let page = entries.range(from, &end_of(STATE), PageBudget::of(count))?;
    Ok((page.entries.iter().filter_map(|(key, value)| StateEntry::parse(key, value)).collect(), page.is_last))
}

/// The entry of a key in a lane's state.
pub(crate) fn get(entries: &impl Entries, bucket: &str, key: &str) -> Result<Option<StateEntry>, ReadError> {
    let entry = entry_key(bucket, key);
    Ok(entries.get(&entry)?.and_then(|value| StateEntry::parse(&entry, &value)))
}

/// Bytes of all keys and values of a lane's state.
pub(crate) fn size_of(entries: &impl Entries) -> Result<u64, ReadError> {
    let size = entries.get(SIZE)?;
    Ok(size.and_then(|size| Some(u64::from_le_bytes(size.get(..8)?.try_into().ok()?))).unwrap_or(0))
}

/// The write that stores an entry of the state.
pub(crate) fn write_of(entry: &StateEntry) -> LaneWrite {
    let mut value = Vec::with_capacity(TIME_BYTES + entry.value.len());
    value.put_u64_le(entry.written_ns);
    value.extend_from_slice(&entry.value);
    LaneWrite::put(entry_key(&entry.bucket, &entry.key), value)
}

/// Writes with the index of their event.
pub(crate) type EventWrites = Vec<(u32, LaneWrite)>;

impl<K: Entries> HandlerState<K> {
    /// Maximum size of the entries that [`Self::account`] adds to a unit, in addition to [`Self::unit_bytes`] of each
    /// write.
    pub(crate) const NOTES_BYTES: usize = SIZE.len() + 8 + expiry::MARK_BYTES;

    /// Loads the state of a lane with these entries.
    pub(crate) fn load(entries: K, plan: StatePlan) -> Result<Self, ReadError> {
        let bytes = size_of(&entries)?;
        let nanoseconds = |ttl: Duration| u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX);
        let expiry = Mutex::new(Expiry::load(&entries, plan.ttl.map(nanoseconds))?);
        Ok(Self {
            entries,
            bytes_max: plan.max_bytes,
            bytes: bytes.into(),
            expiry,
            read: Mutex::default(),
            written: 0.into(),
        })
    }

    fn is_expired(&self, written_ns: u64, time_ns: u64) -> bool {
        lock(&self.expiry).has_expired(written_ns, time_ns)
    }

    /// The entry of a key before the unit.
    fn before(&self, key: &[u8]) -> Result<Option<PriorEntry>, ReadError> {
        if let Some(before) = lock(&self.read).before.get(key) {
            return Ok(*before);
        }
        let before = self.entries.get(key)?.map(|value| PriorEntry::of(key, &value));
        self.has_read(key, before);
        Ok(before)
    }

    fn has_read(&self, key: &[u8], before: Option<PriorEntry>) {
        let mut read = lock(&self.read);
        if read.bytes + key.len() <= READ_BYTES_MAX && read.before.insert(key.to_vec(), before).is_none() {
            read.bytes += key.len();
        }
    }

    /// The writes of a call's events as entries, as far as they fit; otherwise also the first event that does not fit,
    /// and why. `time_ns` returns the append time of an event.
    pub(crate) fn entries_of(
        &self,
        writes: &[StateWrite],
        time_ns: impl Fn(u32) -> u64,
    ) -> Result<(EventWrites, Option<(u32, String)>), ReadError> {
        let (mut made, mut bytes) = (Vec::with_capacity(writes.len()), self.bytes.load(Ordering::Relaxed));
        let size = |write: &StateWrite| {
            let value_bytes = write.value.as_ref().map_or(0, |value| TIME_BYTES + value.len());
            (2 + write.bucket.len() + write.key.len() + value_bytes) as u64
        };
        // usually there is room for everything, without looking at replaced entries
        let has_room = bytes.saturating_add(writes.iter().map(size).sum()) <= self.bytes_max;
        // within a call, an event may overwrite the writes of an earlier one
        let mut sizes: HashMap<Vec<u8>, u64> = HashMap::new();
        for write in writes {
            let key = entry_key(&write.bucket, &write.key);
            let before = match sizes.get(&key) {
                Some(size) => *size,
                None if has_room => 0,
                None => self.before(&key)?.map_or(0, |before| before.bytes),
            };
            let value = write.value.as_ref().map(|value| {
                let mut kept = Vec::with_capacity(TIME_BYTES + value.len());
                kept.put_u64_le(time_ns(write.event));
                kept.extend_from_slice(value);
                Bytes::from(kept)
            });
            let size = value.as_ref().map_or(0, |value| (key.len() + value.len()) as u64);
            let after = (bytes + size).saturating_sub(before);
            if !has_room && size > before && after > self.bytes_max {
                let reason = too_large(after, self.bytes_max);
                made.retain(|(event, _)| *event < write.event);
                return Ok((made, Some((write.event, reason))));
            }
            bytes = after;
            sizes.insert(key.clone(), size);
            made.push((write.event, LaneWrite { key: key.into(), value }));
        }
        Ok((made, None))
    }

    /// Bytes of all stored keys and values.
    pub(crate) fn size(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Maximum size of a write in a unit, with the index entries that it changes.
    pub(crate) fn unit_bytes(&self, write: &LaneWrite) -> usize {
        write.bytes() + lock(&self.expiry).bytes(&write.key)
    }

    /// Reverts the last accounting, since its unit was not committed.
    pub(crate) fn take_back(&self, accounted: SizeBefore) {
        self.bytes.store(accounted.bytes, Ordering::Relaxed);
        lock(&self.expiry).set_unmarked(accounted.is_unmarked);
    }

    /// Adds the derived entries to the writes of the next unit: the new size, and the expiry index.
    pub(crate) fn account(&self, writes: &mut Vec<LaneWrite>) -> Result<SizeBefore, ReadError> {
        let mut expiry = lock(&self.expiry);
        let mut bytes = self.bytes.load(Ordering::Relaxed);
        let accounted = SizeBefore { bytes, is_unmarked: expiry.is_unmarked() };
        // entries before and after; the last write of a key counts
        let mut changed: BTreeMap<&Bytes, (Option<PriorEntry>, Option<PriorEntry>)> = BTreeMap::new();
        for LaneWrite { key, value } in writes.iter().filter(|write| write.key.first() == Some(&STATE)) {
            let after = value.as_ref().map(|value| PriorEntry::of(key, value));
            match changed.get_mut(key) {
                Some((_, last)) => *last = after,
                None => drop(changed.insert(key, (self.before(key)?, after))),
            }
        }
        lock(&self.read).forget();
        if changed.is_empty() {
            return Ok(accounted);
        }
        self.written.fetch_add(changed.len(), Ordering::Relaxed);
        let mut more = Vec::new();
        for (key, (before, after)) in changed {
            let size = |of: Option<PriorEntry>| of.map_or(0, |of| of.bytes);
            bytes = (bytes + size(after)).saturating_sub(size(before));
            expiry.change(key, before, after, &mut more);
        }
        more.push(LaneWrite::put(SIZE, bytes.to_le_bytes().to_vec()));
        more.extend(expiry.mark());
        self.bytes.store(bytes, Ordering::Relaxed);
        writes.append(&mut more);
        Ok(accounted)
    }

    /// Number of entries written since the last call.
    pub(crate) fn take_written(&self) -> usize {
        self.written.swap(0, Ordering::Relaxed)
    }

    /// Whether the expiry index has work that does not depend on events.
    pub(crate) fn is_behind(&self) -> bool {
        lock(&self.expiry).is_behind()
    }

    /// Whether there may be entries that have expired at a time.
    pub(crate) fn may_make_room(&self, time_ns: u64) -> bool {
        lock(&self.expiry).may_make_room(time_ns)
    }

    /// The next step of removing entries that have expired at a time; with `all` to the nanosecond. `None` if there is
    /// nothing to do. The caller commits it, with the accounting.
    pub(crate) fn expire(&self, time_ns: u64, all: bool) -> Result<Option<Step>, ReadError> {
        lock(&self.expiry).step(&self.entries, (time_ns, all), |key| self.before(key))
    }
}

fn trouble(error: ReadError) -> StateError {
    StateError(error.to_string())
}

impl<K: Entries> StateView for HandlerState<K> {
    fn get(&self, bucket: &str, key: &str, time_ns: u64) -> Result<Option<Bytes>, StateError> {
        let entry = entry_key(bucket, key);
        let value = self.entries.get(&entry).map_err(trouble)?;
        self.has_read(&entry, value.as_ref().map(|value| PriorEntry::of(&entry, value)));
        let is_there = |value: &Bytes| time_of(value).is_some_and(|written_ns| !self.is_expired(written_ns, time_ns));
        Ok(value.filter(is_there).map(|value| value.slice(TIME_BYTES..)))
    }

    fn keys(&self, bucket: &str, after: Option<&str>, count: usize, time_ns: u64) -> Result<Keys, StateError> {
        let mut found = Keys { keys: Vec::new(), looked_to: after.map(str::to_owned) };
        let mut from = entry_key(bucket, after.unwrap_or_default());
        let mut until = entry_key(bucket, "");
        if let Some(last) = until.last_mut() {
            *last = 1; // after the zero byte
        }
        let mut is_first = after.is_none();
        for _ in 0..PAGES_PER_LOOK {
            let more = count - found.keys.len();
            if more == 0 {
                break;
            }
            // real keys are not empty, so the bound does not matter for the first page
            let bound = if is_first { Bound::Included(from.as_slice()) } else { Bound::Excluded(from.as_slice()) };
            let page = self.entries.range(bound, &until, PageBudget::of(more)).map_err(trouble)?;
            is_first = false;
            for StateEntry { key, written_ns, .. } in
                page.entries.iter().filter_map(|(entry, value)| StateEntry::parse(entry, value))
            {
                found.looked_to = Some(key.clone());
                if !self.is_expired(written_ns, time_ns) {
                    found.keys.push(key);
                }
            }
            match page.entries.last() {
                Some((last, _)) if !page.is_last => from = last.to_vec(),
                _ => {
                    found.looked_to = None;
                    break;
                }
            }
        }
        Ok(found)
    }

    fn has_expired(&self, _: &str, written_ns: u64, time_ns: u64) -> bool {
        self.is_expired(written_ns, time_ns)
    }
}

#[cfg(test)]
mod tests;
