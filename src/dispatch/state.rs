//! The state of a lane's handler: its view during a call, and its writes on their way into a unit.
//!
//! ```text
//! entry  01, bucket, 00, key   (no bucket's name has a zero byte in it)
//! value  u64 little endian: trusted time of the event that wrote it, Unix nanoseconds; then the handler's value
//! entry  04 "state"            u64 little endian: bytes of all keys and values
//! ```
//!
//! Promises: what a handler reads is what units before wrote; a write that would make the state larger than it may be
//! fails its event, and nothing of that event is kept. What has expired is not seen, and goes when it is come across.

use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes};

use super::entries::{STATE, TOLD, end_of};
use crate::engine::{Entries, LaneWrite, ReadError};
use crate::topology::StatePlan;
use crate::wasm::{StateError, StateView, StateWrite};

/// The entry with the size of the state.
const SIZE: &[u8] = &[TOLD, b's', b't', b'a', b't', b'e'];
const TIME_BYTES: usize = 8;

/// The state of a lane.
#[derive(Debug)]
pub(super) struct LaneState<K> {
    entries: K,
    ttl: Option<Duration>,
    bytes_max: u64,
    /// Bytes of all keys and values that are kept.
    bytes: AtomicU64,
    /// Nothing in it expires in front of this time.
    expires_ns: AtomicU64,
}

fn entry_key(bucket: &str, key: &str) -> Vec<u8> {
    let mut entry = Vec::with_capacity(2 + bucket.len() + key.len());
    entry.push(STATE);
    entry.extend_from_slice(bucket.as_bytes());
    entry.push(0);
    entry.extend_from_slice(key.as_bytes());
    entry
}

/// An entry of the state, for whoever looks from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateEntry {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// When it was written, trusted time, Unix nanoseconds.
    pub written_ns: u64,
    /// The value.
    pub value: Bytes,
}

impl StateEntry {
    pub(super) fn parse(key: &[u8], value: &Bytes) -> Option<Self> {
        let (bucket, key) = std::str::from_utf8(key.get(1..)?).ok()?.split_once('\0')?;
        let written_ns = u64::from_le_bytes(value.get(..TIME_BYTES)?.try_into().ok()?);
        let (bucket, key, value) = (bucket.to_owned(), key.to_owned(), value.slice(TIME_BYTES..));
        Some(Self { bucket, key, written_ns, value })
    }
}

/// Where a listing of the state goes on.
pub(super) fn position_behind(bucket: &str, key: &str) -> Vec<u8> {
    entry_key(bucket, key)
}

/// Entries of a lane's state behind a position, at most so many.
pub(super) fn list(entries: &impl Entries, behind: Option<&[u8]>, count: usize) -> Result<Vec<StateEntry>, ReadError> {
    let from = behind.map_or(Bound::Included([STATE].as_slice()), Bound::Excluded);
    let page = entries.range(from, &end_of(STATE), count)?;
    Ok(page.iter().filter_map(|(key, value)| StateEntry::parse(key, value)).collect())
}

/// What is under a key of a lane's state.
pub(super) fn get(entries: &impl Entries, bucket: &str, key: &str) -> Result<Option<StateEntry>, ReadError> {
    let entry = entry_key(bucket, key);
    Ok(entries.get(&entry)?.and_then(|value| StateEntry::parse(&entry, &value)))
}

/// An entry of the state as a lane keeps it.
pub(super) fn write_of(entry: &StateEntry) -> LaneWrite {
    let mut value = Vec::with_capacity(TIME_BYTES + entry.value.len());
    value.put_u64_le(entry.written_ns);
    value.extend_from_slice(&entry.value);
    LaneWrite::put(entry_key(&entry.bucket, &entry.key), value)
}

/// Writes, each with the index of its event.
pub(super) type OfEvents = Vec<(u32, LaneWrite)>;

/// What of a part of the state has expired.
pub(super) struct Expired {
    /// What deletes it.
    pub(super) writes: Vec<LaneWrite>,
    /// Where to go on; none at the end.
    pub(super) next: Option<Vec<u8>>,
    /// When the oldest of what has not expired was written.
    pub(super) oldest_ns: u64,
}

impl<K: Entries> LaneState<K> {
    /// Bytes of the entry with its size.
    pub(super) const SIZE_ENTRY_BYTES: usize = SIZE.len() + 8;

    /// Of a lane with these entries.
    pub(super) fn load(entries: K, plan: StatePlan) -> Result<Self, ReadError> {
        let size = entries.get(SIZE)?;
        let bytes = size.and_then(|size| Some(u64::from_le_bytes(size.get(..8)?.try_into().ok()?))).unwrap_or(0);
        Ok(Self { entries, ttl: plan.ttl, bytes_max: plan.max_bytes, bytes: bytes.into(), expires_ns: 0.into() })
    }

    fn is_expired(&self, written_ns: u64, time_ns: u64) -> bool {
        self.ttl.is_some() && self.expiry(written_ns) <= time_ns
    }

    /// What the events of a call wrote, as entries, as far as they fit: where one does not, its event and why. `time_ns`
    /// says when an event was appended.
    pub(super) fn entries_of(
        &self,
        writes: &[StateWrite],
        time_ns: impl Fn(u32) -> u64,
    ) -> Result<(OfEvents, Option<(u32, String)>), ReadError> {
        let (mut made, mut bytes) = (Vec::with_capacity(writes.len()), self.bytes.load(Ordering::Relaxed));
        let size = |write: &StateWrite| {
            let value_bytes = write.value.as_ref().map_or(0, |value| TIME_BYTES + value.len());
            (2 + write.bucket.len() + write.key.len() + value_bytes) as u64
        };
        // mostly there is room for all of it, whatever it replaces
        let has_room = bytes.saturating_add(writes.iter().map(size).sum()) <= self.bytes_max;
        // within a call, an event may write what one in front of it wrote
        let mut sizes: std::collections::HashMap<Vec<u8>, u64> = std::collections::HashMap::new();
        for write in writes {
            let key = entry_key(&write.bucket, &write.key);
            let before = match sizes.get(&key) {
                Some(size) => *size,
                None if has_room => 0,
                None => self.entries.get(&key)?.map_or(0, |value| (key.len() + value.len()) as u64),
            };
            let value = write.value.as_ref().map(|value| {
                let mut kept = Vec::with_capacity(TIME_BYTES + value.len());
                let written_ns = time_ns(write.event);
                self.expires_ns.fetch_min(self.expiry(written_ns), Ordering::Relaxed);
                kept.put_u64_le(written_ns);
                kept.extend_from_slice(value);
                Bytes::from(kept)
            });
            let size = value.as_ref().map_or(0, |value| (key.len() + value.len()) as u64);
            let after = (bytes + size).saturating_sub(before);
            if !has_room && size > before && after > self.bytes_max {
                let reason = format!(
                    "the state would have {after} bytes, and may have {}: delete what is not needed, or raise `state.max`",
                    self.bytes_max
                );
                made.retain(|(event, _)| *event < write.event);
                return Ok((made, Some((write.event, reason))));
            }
            bytes = after;
            sizes.insert(key.clone(), size);
            made.push((write.event, LaneWrite { key: key.into(), value }));
        }
        Ok((made, None))
    }

    /// Bytes of all keys and values that are kept.
    pub(super) fn size(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How many there may be.
    pub(super) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// What was handed in last did not happen: the size is what it was.
    pub(super) fn set_size(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// Adds the new size to the writes of a unit, which is handed in next.
    pub(super) fn account(&self, writes: &mut Vec<LaneWrite>) -> Result<(), ReadError> {
        let mut bytes = self.bytes.load(Ordering::Relaxed);
        let mut sizes: std::collections::HashMap<Bytes, u64> = std::collections::HashMap::new();
        for write in writes.iter().filter(|write| write.key.first() == Some(&STATE)) {
            let before = match sizes.get(&write.key) {
                Some(size) => *size,
                None => self.entries.get(&write.key)?.map_or(0, |value| (write.key.len() + value.len()) as u64),
            };
            let size = write.value.as_ref().map_or(0, |value| (write.key.len() + value.len()) as u64);
            bytes = (bytes + size).saturating_sub(before);
            sizes.insert(write.key.clone(), size);
        }
        if !sizes.is_empty() {
            self.bytes.store(bytes, Ordering::Relaxed);
            writes.push(LaneWrite::put(SIZE, bytes.to_le_bytes().to_vec()));
        }
        Ok(())
    }

    /// Whether something may have expired by a time.
    pub(super) fn may_have_expired(&self, time_ns: u64) -> bool {
        self.ttl.is_some() && time_ns >= self.expires_ns.load(Ordering::Relaxed)
    }

    /// All of it was looked through, and the oldest of what is left was written at a time. So a state that is full is not
    /// looked through for each event.
    pub(super) fn looked_through(&self, oldest_ns: u64) {
        self.expires_ns.store(self.expiry(oldest_ns), Ordering::Relaxed);
    }

    /// It may have something in it that expires at any time.
    pub(super) fn forget_expiry(&self) {
        self.expires_ns.store(0, Ordering::Relaxed);
    }

    fn expiry(&self, written_ns: u64) -> u64 {
        let ttl_ns = self.ttl.map_or(u64::MAX, |ttl| u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX));
        written_ns.saturating_add(ttl_ns)
    }

    /// Entries that have expired by a time, from a position on.
    pub(super) fn expired(&self, behind: Option<&[u8]>, count: usize, time_ns: u64) -> Result<Expired, ReadError> {
        let found = list(&self.entries, behind, count)?;
        let next = found.last().filter(|_| found.len() == count).map(|last| entry_key(&last.bucket, &last.key));
        let is_gone = |entry: &&StateEntry| self.is_expired(entry.written_ns, time_ns);
        let (gone, left): (Vec<_>, Vec<_>) = found.iter().partition(is_gone);
        let writes = gone.iter().map(|entry| LaneWrite::delete(entry_key(&entry.bucket, &entry.key))).collect();
        let oldest_ns = left.iter().map(|entry| entry.written_ns).min().unwrap_or(u64::MAX);
        Ok(Expired { writes, next, oldest_ns })
    }
}

fn trouble(error: ReadError) -> StateError {
    StateError(error.to_string())
}

impl<K: Entries> StateView for LaneState<K> {
    fn get(&self, bucket: &str, key: &str, time_ns: u64) -> Result<Option<Bytes>, StateError> {
        let found = get(&self.entries, bucket, key).map_err(trouble)?;
        Ok(found.filter(|found| !self.is_expired(found.written_ns, time_ns)).map(|found| found.value))
    }

    fn keys(&self, bucket: &str, after: Option<&str>, count: usize, time_ns: u64) -> Result<Vec<String>, StateError> {
        let mut keys = Vec::new();
        let mut from = entry_key(bucket, after.unwrap_or_default());
        let mut until = entry_key(bucket, "");
        if let Some(last) = until.last_mut() {
            *last = 1; // behind the zero byte
        }
        let mut is_first = after.is_none();
        while keys.len() < count {
            // a key may be empty only in thought, so the first bound is as good as any
            let bound = if is_first { Bound::Included(from.as_slice()) } else { Bound::Excluded(from.as_slice()) };
            let page = self.entries.range(bound, &until, count).map_err(trouble)?;
            is_first = false;
            let is_last = page.len() < count;
            for (entry, value) in &page {
                let found = StateEntry::parse(entry, value);
                if let Some(found) = found.filter(|found| !self.is_expired(found.written_ns, time_ns))
                    && keys.len() < count
                {
                    keys.push(found.key);
                }
            }
            match page.last() {
                Some((last, _)) if !is_last => from = last.to_vec(),
                _ => break,
            }
        }
        Ok(keys)
    }

    fn has_expired(&self, _: &str, written_ns: u64, time_ns: u64) -> bool {
        self.is_expired(written_ns, time_ns)
    }
}
