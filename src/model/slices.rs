//! Records on their way in, grouped by partition as a frame of the journal wants them, so that they are framed once.

use super::identity::PartitionId;

/// Bytes of the length in front of each record.
pub(crate) const LENGTH_BYTES: usize = 4;

/// Records for partitions; the order within a partition is the order of [`Slices::push`].
#[derive(Debug, Default, Clone)]
pub struct Slices {
    slices: Vec<Slice>,
    records_bytes: usize,
}

/// Records for one partition.
#[derive(Debug, Clone)]
pub(crate) struct Slice {
    pub(crate) partition: PartitionId,
    pub(crate) count: u32,
    /// Each record behind its length (u32, little endian).
    pub(crate) records: Vec<u8>,
}

/// The writer given to [`Slices::push`] failed; the slices are as before.
#[derive(Debug, thiserror::Error)]
pub enum SliceFull<E> {
    /// As the writer said.
    #[error(transparent)]
    Record(E),
    /// A record of 4 GiB or more.
    #[error("an event is larger than 4 GiB")]
    TooLarge,
}

impl Slices {
    /// Adds one record, written by `write` in place. Says where it went: the index of its slice, and of the record
    /// within that.
    ///
    /// # Errors
    /// What `write` returns; nothing was added then.
    pub fn push<E>(
        &mut self,
        partition: PartitionId,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(usize, u32), SliceFull<E>> {
        // A unit has few partitions, and successive records mostly the same one: from the back, a scan is fastest.
        let index = match self.slices.iter().rposition(|slice| slice.partition == partition) {
            Some(index) => index,
            None => {
                self.slices.push(Slice { partition, count: 0, records: Vec::new() });
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
                let number = slice.count;
                slice.count += 1;
                self.records_bytes += LENGTH_BYTES + length as usize;
                Ok((index, number))
            }
            Err(error) => {
                slice.records.truncate(start);
                if slice.count == 0 {
                    self.slices.pop(); // it was made for this record, so it is the last one
                }
                Err(error)
            }
        }
    }

    /// Bytes of all records, with their lengths.
    pub fn bytes(&self) -> usize {
        self.records_bytes
    }

    /// Number of records.
    pub fn count(&self) -> usize {
        self.slices.iter().map(|slice| slice.count as usize).sum()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.slices.is_empty()
    }

    /// The partitions, one for each slice.
    pub fn partitions(&self) -> impl Iterator<Item = PartitionId> {
        self.slices.iter().map(|slice| slice.partition)
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Slice> {
        self.slices.iter()
    }
}

/// The records of a slice, without their lengths. Ends early where the bytes do; what is read from disk has been
/// checked before.
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
