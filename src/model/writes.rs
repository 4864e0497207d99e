//! What a lane changes of what it keeps for itself, beside its position: entries by key, which only it understands.

use bytes::Bytes;

/// The change of one entry of a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneWrite {
    /// Its key, at most [`LANE_KEY_BYTES_MAX`] bytes. Entries are in the order of their keys' bytes.
    pub key: Bytes,
    /// Its value; `None` where it is no more.
    pub value: Option<Bytes>,
}

/// Longest key of an entry in bytes: a handler's own, its bucket's name, and what tells it from others.
pub const LANE_KEY_BYTES_MAX: usize = 2048;

impl LaneWrite {
    /// An entry is there, in place of what may have been.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self { key: key.into(), value: Some(value.into()) }
    }

    /// An entry is no more.
    pub fn delete(key: impl Into<Bytes>) -> Self {
        Self { key: key.into(), value: None }
    }

    /// Bytes of its key and value.
    pub fn bytes(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}
