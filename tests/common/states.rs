//! The state of a lane in memory.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use wattle::model::call::{Keys, StateError, StateView, StateWrite};

/// By bucket and key: the value, and when it was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryState {
    pub entries: BTreeMap<(String, String), (Bytes, u64)>,
    /// How long a value stays; none: for ever.
    pub ttl_ns: Option<u64>,
}

impl MemoryState {
    /// The default bucket with these entries.
    pub fn of(entries: &[(&str, &str)]) -> MemoryState {
        let entry = |(key, value): &(&str, &str)| {
            (("default".to_owned(), (*key).to_owned()), (Bytes::copy_from_slice(value.as_bytes()), 0))
        };
        MemoryState { entries: entries.iter().map(entry).collect(), ttl_ns: None }
    }

    /// What a commit does: `times_ns` are those of the call's events.
    pub fn apply(&mut self, writes: &[StateWrite], times_ns: &[u64]) {
        for write in writes {
            let place = (write.bucket.clone(), write.key.clone());
            match &write.value {
                Some(value) => {
                    self.entries.insert(place, (value.clone(), times_ns[write.event as usize]));
                }
                None => {
                    self.entries.remove(&place);
                }
            }
        }
    }
}

impl StateView for MemoryState {
    fn get(&self, bucket: &str, key: &str, time_ns: u64) -> Result<Option<Bytes>, StateError> {
        let entry = self.entries.get(&(bucket.to_owned(), key.to_owned()));
        let entry = entry.filter(|(_, written_ns)| !self.has_expired(bucket, *written_ns, time_ns));
        Ok(entry.map(|(value, _)| value.clone()))
    }

    fn keys(&self, bucket: &str, after: Option<&str>, count: usize, time_ns: u64) -> Result<Keys, StateError> {
        let start = match after {
            Some(after) => Bound::Excluded((bucket.to_owned(), after.to_owned())),
            None => Bound::Included((bucket.to_owned(), String::new())),
        };
        let entries = self.entries.range((start, Bound::Unbounded)).take_while(|((of, _), _)| of == bucket);
        let entries = entries.filter(|(_, (_, written_ns))| !self.has_expired(bucket, *written_ns, time_ns));
        Ok(Keys::first(&mut entries.map(|((_, key), _)| key.clone()), count))
    }

    fn has_expired(&self, _: &str, written_ns: u64, time_ns: u64) -> bool {
        self.ttl_ns.is_some_and(|ttl_ns| time_ns >= written_ns.saturating_add(ttl_ns))
    }
}

/// A disk that does not answer.
pub struct Unreadable;

impl StateView for Unreadable {
    fn get(&self, _: &str, _: &str, _: u64) -> Result<Option<Bytes>, StateError> {
        Err(StateError("the disk does not answer".to_owned()))
    }

    fn keys(&self, _: &str, _: Option<&str>, _: usize, _: u64) -> Result<Keys, StateError> {
        Err(StateError("the disk does not answer".to_owned()))
    }
}
