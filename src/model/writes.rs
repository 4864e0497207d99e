//! What a lane keeps for itself, beside its position: entries by key, which only it understands. How it changes them, and how
//! many are looked at at once.

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

/// Bytes of entries that are looked at in one go, unless one alone has more. Values have up to 1 MiB, and many lanes and callers
/// look at once.
const ENTRY_PAGE_BYTES: usize = 1 << 20;

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

/// How much of what a lane keeps is looked at in one go: whichever is reached first, but at least one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageBudget {
    /// Number of entries.
    pub entries: usize,
    /// Bytes of keys and values.
    pub bytes: usize,
}

impl PageBudget {
    /// At most this many entries, in as many bytes as a page may have.
    pub const fn of(entries: usize) -> Self {
        Self { entries, bytes: ENTRY_PAGE_BYTES }
    }
}

/// Entries of a range, from its first one on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntryPage {
    /// Keys and values, in the order of the keys.
    pub entries: Vec<(Bytes, Bytes)>,
    /// The range ends with them. Where it does not, there may be more behind the last one.
    pub is_last: bool,
}

impl EntryPage {
    /// Takes an entry, unless it is more than a budget has left: then this is not the last page.
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
