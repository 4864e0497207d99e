//! Marks of dead letters that are done: redriven or dropped. They are entries of lanes.

use std::ops::Bound;

use bytes::Bytes;

use super::entries::DONE;
use crate::dispatch::lane::entries::end_of;
use crate::engine::{Entries, PageBudget, ReadError};
use crate::model::Offset;

/// Marks that are read at once.
const NOTES_AT_ONCE: usize = 1_000;

/// The key of the mark of a dead letter.
pub(crate) fn done_key(dead_partition: u32, offset: Offset) -> Bytes {
    let mut key = Vec::with_capacity(13);
    key.push(DONE);
    key.extend_from_slice(&dead_partition.to_be_bytes());
    key.extend_from_slice(&offset.to_be_bytes());
    key.into()
}

/// Partition and offset of the dead letter that a mark is for.
pub(super) fn done_of(key: &[u8]) -> Option<(u32, Offset)> {
    let (partition, offset) = key.strip_prefix(&[DONE])?.split_at_checked(4)?;
    Some((u32::from_be_bytes(partition.try_into().ok()?), u64::from_be_bytes(offset.try_into().ok()?)))
}

/// Calls `each` with the partition and offset of every marked dead letter.
pub(crate) fn read_done(entries: &impl Entries, mut each: impl FnMut(u32, Offset)) -> Result<(), ReadError> {
    let mut from = Bound::Included(Bytes::from_static(&[DONE]));
    loop {
        let page = entries.range(from.as_ref().map(Bytes::as_ref), &end_of(DONE), PageBudget::of(NOTES_AT_ONCE))?;
        for (partition, offset) in page.entries.iter().filter_map(|(key, _)| done_of(key)) {
            each(partition, offset);
        }
        match page.entries.into_iter().next_back() {
            Some((last, _)) if !page.is_last => from = Bound::Excluded(last),
            _ => return Ok(()),
        }
    }
}
