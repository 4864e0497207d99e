//! Stored events for readers, with shared memory.

use bytes::Bytes;

use super::identity::Offset;
use super::slices;

/// Consecutive events of a partition, shared and not copied.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// Offset of the first event.
    pub base_offset: Offset,
    /// Number of events.
    pub count: u32,
    /// When they were appended, engine time, Unix nanoseconds.
    pub append_time_ns: u64,
    /// The same by trusted time, the clock of ages and windows, which does not follow a clock that jumps.
    pub trusted_time_ns: u64,
    /// The recovery epoch in which they were appended.
    pub epoch: u32,
    /// The records, each after its length (u32, little endian).
    pub records: Bytes,
}

/// When an event was appended, trusted time in Unix nanoseconds, as far as memory knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeOf {
    /// Exactly at this time.
    At(u64),
    /// At this time or later: the exact time is only on the disk.
    NotBefore(u64),
}

/// One stored event.
#[derive(Debug, Clone, Copy)]
pub struct StoredEvent<'a> {
    pub offset: Offset,
    /// When it was appended, engine time, Unix nanoseconds.
    pub append_time_ns: u64,
    /// The same by trusted time.
    pub trusted_time_ns: u64,
    /// The recovery epoch in which it was appended.
    pub epoch: u32,
    /// Its record, to be parsed by [`crate::model::Record`].
    pub record: &'a [u8],
}

impl Chunk {
    /// The events in order.
    pub fn iter(&self) -> impl Iterator<Item = StoredEvent<'_>> {
        slices::records(&self.records).zip(self.base_offset..).map(|(record, offset)| StoredEvent {
            offset,
            append_time_ns: self.append_time_ns,
            trusted_time_ns: self.trusted_time_ns,
            epoch: self.epoch,
            record,
        })
    }

    /// The offset after the last event.
    pub fn end_offset(&self) -> Offset {
        self.base_offset + Offset::from(self.count)
    }

    /// Removes the events before `from`.
    #[must_use]
    pub fn starting_at(mut self, from: Offset) -> Self {
        let skip = from.saturating_sub(self.base_offset).min(u64::from(self.count));
        drop(self.split_front(skip as u32, usize::MAX));
        self
    }

    /// Removes and returns the first events: at most `events`, at least one, and at most `bytes` bytes of records
    /// unless the first one is larger.
    #[must_use]
    pub fn split_front(&mut self, events: u32, bytes: usize) -> Self {
        let (mut count, mut length) = (0, 0);
        for record in slices::records(&self.records).take(events as usize) {
            let next = length + slices::LENGTH_BYTES + record.len();
            if next > bytes && count > 0 {
                break;
            }
            (count, length) = (count + 1, next);
        }
        let front = Self { count, records: self.records.split_to(length), ..self.clone() };
        self.base_offset += Offset::from(count);
        self.count -= count;
        front
    }
}
