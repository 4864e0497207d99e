//! Entries of a handler's state.

use bytes::Bytes;

use super::times::{nanoseconds, timestamp};
use super::v1;

/// An entry of a handler's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateEntry {
    pub bucket: String,
    pub key: String,
    /// When it was written, trusted time, Unix nanoseconds.
    pub written_ns: u64,
    pub value: Bytes,
}

/// An entry of the state with its partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateOfPartition {
    pub partition: u32,
    pub entry: StateEntry,
}

/// Which entries of a subscriber's state are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateFilter {
    /// Of this partition.
    pub partition: Option<u32>,
    /// Of this bucket.
    pub bucket: Option<String>,
    /// Whose key begins so.
    pub prefix: String,
}

/// Where the next page of a listing of state begins: after an entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatePosition {
    pub partition: u32,
    pub bucket: String,
    /// Its key; where it is empty, at the beginning of the bucket.
    pub key: String,
}

impl From<StateOfPartition> for v1::StateEntry {
    fn from(StateOfPartition { partition, entry }: StateOfPartition) -> Self {
        let StateEntry { bucket, key, written_ns, value } = entry;
        Self { partition, bucket, key, write_time: Some(timestamp(written_ns)), value }
    }
}

impl From<v1::StateEntry> for StateOfPartition {
    fn from(entry: v1::StateEntry) -> Self {
        let v1::StateEntry { partition, bucket, key, write_time, value } = entry;
        let written_ns = write_time.as_ref().and_then(nanoseconds).unwrap_or(0);
        Self { partition, entry: StateEntry { bucket, key, written_ns, value } }
    }
}

impl From<StatePosition> for v1::StatePosition {
    fn from(StatePosition { partition, bucket, key }: StatePosition) -> Self {
        Self { partition, bucket, key }
    }
}

impl From<v1::StatePosition> for StatePosition {
    fn from(v1::StatePosition { partition, bucket, key }: v1::StatePosition) -> Self {
        Self { partition, bucket, key }
    }
}
