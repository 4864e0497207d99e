//! The entries of a lane: key-value data that only the lane interprets. Changes of them, and limits of reads.

use bytes::Bytes;

/// A change of one entry of a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneWrite {
    /// Its key, at most [`LANE_KEY_BYTES_MAX`] bytes. Entries are sorted by the bytes of their keys.
    pub key: Bytes,
    /// Its value; `None` deletes the entry.
    pub value: Option<Bytes>,
}

/// Longest key of an entry in bytes: the handler's key, the name of its bucket, and a prefix.
pub const LANE_KEY_BYTES_MAX: usize = 2048;

/// Bytes of entries in one page, unless a single entry is larger. Values have up to 1 MiB, and many lanes and callers
/// read at once.
const ENTRY_PAGE_BYTES: usize = 1 << 20;

impl LaneWrite {
    /// Sets an entry.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self { key: key.into(), value: Some(value.into()) }
    }

    /// Deletes an entry.
    pub fn delete(key: impl Into<Bytes>) -> Self {
        Self { key: key.into(), value: None }
    }

    /// Bytes of its key and value.
    pub fn bytes(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// Limits of a page of entries: it ends at the first that is reached, but contains at least one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageBudget {
    /// Number of entries.
    pub entries: usize,
    /// Bytes of keys and values.
    pub bytes: usize,
}

impl PageBudget {
    /// At most this many entries, and the bytes of one page.
    pub const fn of(entries: usize) -> Self {
        Self { entries, bytes: ENTRY_PAGE_BYTES }
    }
}

/// The first entries of a range.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntryPage {
    /// Keys and values, in key order.
    pub entries: Vec<(Bytes, Bytes)>,
    /// The range has no more entries. If false, there may be more.
    pub is_last: bool,
}

impl EntryPage {
    /// Adds an entry within the budget. Returns false if it does not fit: then this is not the last page.
    pub(crate) fn take(
        &mut self,
        budget: &mut PageBudget,
        key: &[u8],
        value: &[u8],
        own: impl FnOnce() -> (Bytes, Bytes),
    ) -> bool {
        let bytes = key.len() + value.len();
        let fits = budget.entries > 0 && (bytes <= budget.bytes || self.entries.is_empty());
        if fits {
            self.entries.push(own());
            *budget = PageBudget { entries: budget.entries - 1, bytes: budget.bytes.saturating_sub(bytes) };
        }
        fits
    }
}
