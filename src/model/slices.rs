//! Records to append, grouped by partition in the layout of a journal frame, so that they are framed once.

use super::fence::Fence;
use super::guard::{DivertedRecord, Guard};
use super::identity::{EventId, Offset, PartitionId, ProducerId, TopicId};

/// Bytes of the length before each record.
pub(crate) const LENGTH_BYTES: usize = 4;

/// Records by partition; within a partition they are in the order of [`Slices::push`].
#[derive(Debug, Clone, Default)]
pub struct Slices {
    slices: Vec<Slice>,
    records_bytes: usize,
    /// Initial capacity of each slice in bytes.
    slice_room: usize,
    producer: Option<ProducerId>,
    began_ns: Option<u64>,
    released: Vec<(PartitionId, u32)>,
    fence: Option<Fence>,
}

/// How a record from outside is recognised when it is published again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Not at all.
    None,
    /// By the event's identity.
    Identity(EventId),
    /// By its number among all events of its producer, which only grows.
    Sequence(u64),
}

/// A record that was published before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Duplicate {
    /// The slice that contained it.
    pub slice: u32,
    /// Its index in the slice.
    pub record: u32,
    /// The partition of the first occurrence.
    pub partition: u32,
    /// The offset of the first occurrence, if known: numbers of producers are recognised longer than offsets are
    /// remembered.
    pub offset: Option<Offset>,
}

/// A topic does not know the producer of numbered records: it is new and did not state a recent start, or it was
/// forgotten. The append had no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerUnknown {
    /// A partition of the records.
    pub partition: PartitionId,
    /// Producers that started before this time may have been forgotten, Unix nanoseconds.
    pub since_ns: u64,
}

/// Records for one partition.
#[derive(Debug, Clone)]
pub(crate) struct Slice {
    pub(crate) partition: PartitionId,
    pub(crate) count: u32,
    /// Each record after its length (u32, little endian).
    pub(crate) records: Vec<u8>,
    /// One per record, or empty.
    pub(crate) identities: Vec<EventId>,
    /// One per record in ascending order, or empty.
    pub(crate) sequences: Vec<u64>,
    /// One per record, or empty.
    pub(crate) guards: Vec<Guard>,
    /// Identities that are known in this topic count as duplicates here.
    pub(crate) known_in: Option<TopicId>,
}

impl Slice {
    /// Removes the records with these indices, in ascending order. Returns the number of bytes removed.
    fn leave_out(&mut self, numbers: &[u32]) -> usize {
        let before = self.records.len();
        let mut left = Vec::with_capacity(before);
        let is_left = |number: usize| numbers.binary_search(&(number as u32)).is_err();
        for (_, record) in records(&self.records).enumerate().filter(|(number, _)| is_left(*number)) {
            left.extend_from_slice(&(record.len() as u32).to_le_bytes());
            left.extend_from_slice(record);
        }
        self.records = left;
        self.count -= numbers.len() as u32;
        retain_at(&mut self.identities, is_left);
        retain_at(&mut self.sequences, is_left);
        retain_at(&mut self.guards, is_left);
        before - self.records.len()
    }
}

fn retain_at<T>(values: &mut Vec<T>, keep: impl Fn(usize) -> bool) {
    let mut number = 0;
    values.retain(|_| {
        number += 1;
        keep(number - 1)
    });
}

/// The writer passed to [`Slices::push`] failed; the slices are unchanged.
#[derive(Debug, thiserror::Error)]
pub enum SliceFull<E> {
    /// The error of the writer.
    #[error(transparent)]
    Record(E),
    /// A record of 4 GiB or more.
    #[error("an event is larger than 4 GiB")]
    TooLarge,
}

impl Slices {
    /// Slices with capacity for `bytes` bytes over `partitions` partitions.
    pub fn with_room(bytes: usize, partitions: usize) -> Self {
        // with an uneven distribution a slice grows once
        let share = bytes / partitions.max(1);
        Self { slice_room: share + share / 8, ..Self::default() }
    }

    /// Adds one record, which `write` writes in place. Returns the index of its slice, and its index in the slice.
    ///
    /// # Errors
    /// The error of `write`; then nothing was added.
    pub fn push<E>(
        &mut self,
        partition: PartitionId,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(usize, u32), SliceFull<E>> {
        self.push_marked(partition, Mark::None, write)
    }

    /// As [`Slices::push`], for a record that must not be stored twice. All records must have the same kind of mark.
    ///
    /// # Errors
    /// As [`Slices::push`].
    #[inline]
    pub fn push_marked<E>(
        &mut self,
        partition: PartitionId,
        mark: Mark,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(usize, u32), SliceFull<E>> {
        // A unit has few partitions, and consecutive records mostly share one: a scan from the end is fastest.
        let index = match self.slices.iter().rposition(|slice| slice.partition == partition) {
            Some(index) => index,
            None => {
                let records = Vec::with_capacity(self.slice_room);
                let (identities, sequences, guards) = (Vec::new(), Vec::new(), Vec::new());
                self.slices.push(Slice { partition, count: 0, records, identities, sequences, guards, known_in: None });
                self.slices.len() - 1
            }
        };
        let Some(slice) = self.slices.get_mut(index) else { return Err(SliceFull::TooLarge) };
        let start = slice.records.len();
        slice.records.extend_from_slice(&[0; LENGTH_BYTES]);
        let result = match write(&mut slice.records) {
            Ok(()) => u32::try_from(slice.records.len() - start - LENGTH_BYTES).map_err(|_| SliceFull::TooLarge),
            Err(error) => Err(SliceFull::Record(error)),
        };
        match result {
            Ok(length) => {
                if let Some(head) = slice.records.get_mut(start..start + LENGTH_BYTES) {
                    head.copy_from_slice(&length.to_le_bytes());
                }
                match mark {
                    Mark::None => {}
                    Mark::Identity(identity) => slice.identities.push(identity),
                    Mark::Sequence(sequence) => slice.sequences.push(sequence),
                }
                let number = slice.count;
                slice.count += 1;
                self.records_bytes += LENGTH_BYTES + length as usize;
                Ok((index, number))
            }
            Err(error) => {
                slice.records.truncate(start);
                if slice.count == 0 {
                    self.slices.pop(); // it was added for this record, so it is the last one
                }
                Err(error)
            }
        }
    }

    /// Bytes of all records, including their lengths.
    pub fn bytes(&self) -> usize {
        self.records_bytes
    }

    /// Number of records.
    pub fn count(&self) -> usize {
        self.slices.iter().map(|slice| slice.count as usize).sum()
    }

    /// Whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.slices.is_empty()
    }

    /// The partition of each slice.
    pub fn partitions(&self) -> impl Iterator<Item = PartitionId> {
        self.slices.iter().map(|slice| slice.partition)
    }

    /// Sets the guard of the last record of this slice. Either all records of a partition have a guard or none.
    pub fn guard_last(&mut self, slice: usize, guard: Guard) {
        if let Some(slice) = self.slices.get_mut(slice) {
            slice.guards.push(guard);
        }
    }

    /// Treats records of a slice as duplicates if `topic` already has their identity.
    pub fn known_in(&mut self, slice: usize, topic: TopicId) {
        if let Some(slice) = self.slices.get_mut(slice) {
            slice.known_in = Some(topic);
        }
    }

    /// Whether any record has a guard.
    pub fn is_guarded(&self) -> bool {
        !self.released.is_empty() || self.slices.iter().any(|slice| !slice.guards.is_empty())
    }

    /// Records that `count` events are no longer held for a partition.
    pub fn release(&mut self, partition: PartitionId, count: u32) {
        self.released.push((partition, count));
    }

    pub(crate) fn released(&self) -> &[(PartitionId, u32)] {
        &self.released
    }

    /// Removes duplicates, and moves records to set aside into slices of their own at the end, recording their new
    /// places. Both lists are in the order of slices and records. `next_offset` returns the next offset of a partition.
    pub(crate) fn sort_out(
        &mut self,
        duplicates: &mut [Duplicate],
        aside: &mut [DivertedRecord],
        next_offset: impl FnMut(PartitionId) -> Offset,
    ) {
        if !aside.is_empty() {
            self.place_anew(duplicates, aside, next_offset);
        }
        for of_slice in aside.chunk_by_mut(|one, next| one.slice == next.slice) {
            let Some(from) = of_slice.first().and_then(|set| self.slices.get(set.slice as usize)) else { continue };
            let (mut sets, mut moved) = (of_slice.iter().peekable(), Vec::with_capacity(of_slice.len()));
            for (at, record) in records(&from.records).enumerate() {
                if sets.next_if(|set| set.record as usize == at).is_none() {
                    continue;
                }
                let mark = match (from.identities.get(at), from.sequences.get(at)) {
                    (Some(identity), _) => Mark::Identity(*identity),
                    (None, Some(sequence)) => Mark::Sequence(*sequence),
                    (None, None) => Mark::None,
                };
                moved.push((mark, record.to_vec()));
            }
            for (set, (mark, record)) in of_slice.iter_mut().zip(moved) {
                let pushed = self.push_marked(set.to, mark, |out| {
                    out.extend_from_slice(&record);
                    Ok::<_, std::convert::Infallible>(())
                });
                debug_assert!(pushed.is_ok(), "it was one of these records before");
                set.at = pushed.map_or((0, 0), |(slice, number)| (slice as u32, number));
            }
        }
        for slice in 0..self.slices.len() {
            let of_slice = |slice_of: u32| slice_of as usize == slice;
            let known = duplicates.iter().filter(|known| of_slice(known.slice)).map(|known| known.record);
            let set = aside.iter().filter(|set| of_slice(set.slice)).map(|set| set.record);
            let mut gone: Vec<u32> = known.chain(set).collect();
            gone.sort_unstable();
            if !gone.is_empty() {
                self.leave_out(slice, &gone);
            }
        }
    }

    /// Updates the offsets of duplicates that repeat records in these same slices: setting records aside changes the
    /// offsets of later ones.
    fn place_anew(
        &self,
        duplicates: &mut [Duplicate],
        aside: &[DivertedRecord],
        mut next_offset: impl FnMut(PartitionId) -> Offset,
    ) {
        // For each slice, the offset of its first new record, and the offset of each new record.
        let mut places: Vec<(Offset, Vec<Option<Offset>>)> = Vec::with_capacity(self.slices.len());
        for (number, slice) in (0..).zip(&self.slices) {
            let base = next_offset(slice.partition);
            let (mut next, mut offsets) = (base, Vec::new());
            for at in (0..slice.count).map(|record| (number, record)) {
                if duplicates.binary_search_by_key(&at, |known| (known.slice, known.record)).is_ok() {
                    continue;
                }
                let is_aside = aside.binary_search_by_key(&at, |set| (set.slice, set.record)).is_ok();
                offsets.push((!is_aside).then_some(next));
                next += Offset::from(!is_aside);
            }
            places.push((base, offsets));
        }
        for known in duplicates {
            let Some(slice) = self.slices.get(known.slice as usize) else { continue };
            let first = PartitionId { topic: slice.partition.topic, partition: known.partition };
            let here = self.slices.iter().position(|slice| slice.partition == first).and_then(|at| places.get(at));
            let (Some(offset), Some((base, offsets))) = (known.offset, here) else { continue };
            if let Some(at) = offset.checked_sub(*base) {
                known.offset = usize::try_from(at).ok().and_then(|at| offsets.get(at).copied().flatten());
            }
        }
    }

    /// Sets the producer of the records with [`Mark::Sequence`].
    pub fn set_producer(&mut self, producer: ProducerId) {
        self.producer = Some(producer);
    }

    /// Sets the start time that the producer states, Unix nanoseconds.
    pub fn set_began(&mut self, began_ns: u64) {
        self.began_ns = Some(began_ns);
    }

    pub(crate) fn began_ns(&self) -> Option<u64> {
        self.began_ns
    }

    pub(crate) fn producer(&self) -> Option<ProducerId> {
        self.producer
    }

    /// Sets the fence: the append is refused if an earlier one with the same fence was.
    pub fn set_fence(&mut self, fence: Fence) {
        self.fence = Some(fence);
    }

    pub(crate) fn fence(&self) -> Option<&Fence> {
        self.fence.as_ref()
    }

    /// Removes records of a slice; the indices ascend.
    pub(crate) fn leave_out(&mut self, slice: usize, numbers: &[u32]) {
        if let Some(slice) = self.slices.get_mut(slice) {
            self.records_bytes -= slice.leave_out(numbers);
        }
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Slice> {
        self.slices.iter()
    }
}

/// The records of a slice, without their lengths. Ends early if the bytes do; bytes from the disk have been verified
/// before.
#[inline]
pub(crate) fn records(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>()?;
        let (record, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        bytes = rest;
        Some(record)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TopicId;

    fn partition(number: u32) -> PartitionId {
        PartitionId { topic: TopicId(1), partition: number }
    }

    fn put(slices: &mut Slices, number: u32, record: &[u8]) -> (usize, u32) {
        slices
            .push(partition(number), |out| {
                out.extend_from_slice(record);
                Ok::<_, ()>(())
            })
            .unwrap()
    }

    #[test]
    fn records_keep_their_order_within_each_partition() {
        let mut slices = Slices::default();
        assert_eq!(put(&mut slices, 0, b"a"), (0, 0));
        assert_eq!(put(&mut slices, 1, b""), (1, 0));
        assert_eq!(put(&mut slices, 0, b"bc"), (0, 1));
        let all: Vec<Vec<&[u8]>> = slices.iter().map(|slice| records(&slice.records).collect()).collect();
        assert_eq!(all, [vec![&b"a"[..], b"bc"], vec![&b""[..]]]);
        assert_eq!((slices.count(), slices.bytes()), (3, 15));
    }

    #[test]
    fn what_is_left_out_is_gone_with_its_marks() {
        let mut slices = Slices::default();
        for number in 0..5u8 {
            let write = |out: &mut Vec<u8>| {
                out.push(number);
                Ok::<_, ()>(())
            };
            slices.push_marked(partition(0), Mark::Sequence(u64::from(number) * 10), write).unwrap();
        }
        slices.leave_out(0, &[0, 3]);
        let slice = slices.iter().next().unwrap();
        assert_eq!(records(&slice.records).collect::<Vec<_>>(), [[1], [2], [4]]);
        assert_eq!(slice.sequences, [10, 20, 40]);
        assert_eq!((slices.count(), slices.bytes()), (3, 15));
    }

    #[test]
    fn a_writer_that_fails_leaves_no_trace() {
        let mut slices = Slices::default();
        put(&mut slices, 0, b"a");
        for number in [0, 1] {
            let failed = slices.push(partition(number), |out| {
                out.extend_from_slice(b"half");
                Err(())
            });
            assert!(failed.is_err());
        }
        assert_eq!((slices.count(), slices.bytes(), slices.partitions().count()), (1, 5, 1));
        assert_eq!(put(&mut slices, 0, b"b"), (0, 1));
    }
}
