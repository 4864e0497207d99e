//! Segments: the files of one partition's events, their names, their index, and reads from them.
//!
//! ```text
//! segment-<topic, 8 hexadecimal digits>-<partition, 8>-<base offset, 16>
//!   blocks, one after the other, in the format of `block.rs`; a block is large only if a single event is
//!   the state store has its length: bytes after that come from a checkpoint that was not committed
//!
//! index-<as the segment>, next to a sealed segment; derived: it may be deleted and is then rebuilt
//!    0  8 bytes  magic      "WATTLEI1"
//!    8  u64      number of bytes of the segment that it covers
//!   16  u32      number of entries
//!   20  u32      checksum   CRC32C of bytes 0..20 and of the entries
//!   24  per entry: u64 base offset, u64 append time of the first event, u64 position of the block
//! ```
//!
//! Promises: an index only says where to look; the block at that position identifies itself. A damaged block loses its
//! own events only: the blocks around it are found.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, BufMut, Bytes};

use super::block::{BLOCK_HEAD_BYTES, BlockError, BlockHead};
use crate::effects::{Disk, DiskFile};
use crate::limits;
use crate::model::{Offset, PartitionId, TopicId};

const SEGMENT_PREFIX: &str = "segment-";
const INDEX_PREFIX: &str = "index-";
const INDEX_MAGIC: &[u8; 8] = b"WATTLEI1";
const INDEX_HEAD_BYTES: usize = 24;
const INDEX_ENTRY_BYTES: usize = 24;

/// Identifies a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SegmentId {
    pub(super) partition: PartitionId,
    pub(super) base_offset: Offset,
}

impl SegmentId {
    /// The lowest identifier.
    pub(super) const FIRST: Self = Self { partition: PartitionId { topic: TopicId(0), partition: 0 }, base_offset: 0 };

    fn suffix(self) -> String {
        let PartitionId { topic, partition } = self.partition;
        format!("{:08x}-{partition:08x}-{:016x}", topic.0, self.base_offset)
    }

    /// The name of its file.
    pub(super) fn file_name(self) -> String {
        format!("{SEGMENT_PREFIX}{}", self.suffix())
    }

    pub(super) fn damaged(self, byte: u64, error: BlockError) -> SegmentError {
        SegmentError::Damaged { name: self.file_name(), byte, error }
    }

    /// The name of its index's file.
    pub(super) fn index_name(self) -> String {
        format!("{INDEX_PREFIX}{}", self.suffix())
    }

    /// The segment of a file name; `None` for other files.
    pub(super) fn of_file_name(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(SEGMENT_PREFIX)?.split('-');
        let (topic, partition, base) = (parts.next()?, parts.next()?, parts.next()?);
        let id = Self {
            partition: PartitionId {
                topic: TopicId(u32::from_str_radix(topic, 16).ok()?),
                partition: u32::from_str_radix(partition, 16).ok()?,
            },
            base_offset: u64::from_str_radix(base, 16).ok()?,
        };
        (id.file_name() == name).then_some(id)
    }
}

/// A segment's row in the state store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentMeta {
    pub(super) base_offset: Offset,
    /// The offset after its last event.
    pub(super) end_offset: Offset,
    /// Its length in bytes.
    pub(super) bytes: u64,
    /// Append time of the first event, engine time, Unix nanoseconds.
    pub(super) first_time_ns: u64,
    /// Append time of the last event.
    pub(super) last_time_ns: u64,
    /// Trusted time of the first event, Unix nanoseconds. This and the next field determine the segment's age.
    pub(super) first_trusted_ns: u64,
    /// Trusted time of the last event.
    pub(super) last_trusted_ns: u64,
    /// No events are appended to it any more.
    pub(super) is_sealed: bool,
}

/// The position of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IndexEntry {
    pub(super) base_offset: Offset,
    pub(super) first_time_ns: u64,
    pub(super) position: u64,
}

/// An open segment.
pub(super) struct SegmentFile {
    id: SegmentId,
    file: Box<dyn DiskFile>,
    index: Mutex<Index>,
}

#[derive(Default)]
struct Index {
    entries: Vec<IndexEntry>,
    /// Bytes of the segment that it covers.
    covered: u64,
    /// The offset after the last covered block.
    end_offset: Offset,
}

/// Why events of a segment cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum SegmentError {
    #[error("{name} cannot be read: {error}")]
    Disk { name: String, error: io::Error },
    #[error(
        "{name} is damaged at byte {byte}: {error}. The events there are lost unless you restore the file from a copy; \
         all others can be read"
    )]
    Damaged { name: String, byte: u64, error: BlockError },
}

impl SegmentFile {
    /// Opens a segment with the length in `meta`.
    pub(super) fn open(disk: &dyn Disk, partition: PartitionId, meta: &SegmentMeta) -> Result<Self, SegmentError> {
        let id = SegmentId { partition, base_offset: meta.base_offset };
        let name = id.file_name();
        let file = disk.open(&name).map_err(|error| SegmentError::Disk { name, error })?;
        let empty = Index { end_offset: meta.base_offset, ..Index::default() };
        let stored = if meta.is_sealed { read_index(disk, id, meta) } else { None };
        let is_stored = stored.is_some();
        let segment = Self { id, file, index: Mutex::new(stored.unwrap_or(empty)) };
        if meta.is_sealed && !is_stored {
            segment.cover(meta)?;
            segment.store_index(disk);
        }
        Ok(segment)
    }

    fn disk_error(&self, error: io::Error) -> SegmentError {
        SegmentError::Disk { name: self.id.file_name(), error }
    }

    fn damaged(&self, byte: u64, error: BlockError) -> SegmentError {
        self.id.damaged(byte, error)
    }

    /// `length` bytes from a position on, or fewer at the end of the file.
    pub(super) fn read(&self, position: u64, length: usize) -> Result<Bytes, SegmentError> {
        self.file.read_bytes(position, length).map_err(|error| self.disk_error(error))
    }

    /// The position of the block that contains an offset, or of the last block before it.
    pub(super) fn locate(&self, offset: Offset, meta: &SegmentMeta) -> Result<u64, SegmentError> {
        self.search(meta, |entry| entry.base_offset <= offset)
    }

    /// The position of the last block that begins before a time, or of the first block.
    pub(super) fn locate_time(&self, time_ns: u64, meta: &SegmentMeta) -> Result<u64, SegmentError> {
        self.search(meta, |entry| entry.first_time_ns < time_ns)
    }

    fn search(&self, meta: &SegmentMeta, is_before: impl Fn(&IndexEntry) -> bool) -> Result<u64, SegmentError> {
        self.cover(meta)?;
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let behind = index.entries.partition_point(is_before);
        Ok(index.entries.get(behind.saturating_sub(1)).map_or(0, |entry| entry.position))
    }

    /// Extends the index to the whole segment by reading block heads.
    fn cover(&self, meta: &SegmentMeta) -> Result<(), SegmentError> {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        while index.covered < meta.bytes {
            let at = index.covered;
            let head = match BlockHead::parse(&self.read(at, BLOCK_HEAD_BYTES)?) {
                Ok(head) if self.belongs(&head, at, &index, meta) => Some((at, head)),
                _ => self.next_block(at, &index, meta)?,
            };
            let Some((position, head)) = head else {
                index.covered = meta.bytes; // the rest is damaged: a read there returns an error
                break;
            };
            let (base_offset, first_time_ns) = (head.base_offset, head.first_time_ns);
            index.entries.push(IndexEntry { base_offset, first_time_ns, position });
            index.covered = position + head.block_bytes();
            index.end_offset = head.end_offset();
        }
        Ok(())
    }

    fn belongs(&self, head: &BlockHead, at: u64, index: &Index, meta: &SegmentMeta) -> bool {
        head.partition == self.id.partition
            && head.base_offset >= index.end_offset
            && head.end_offset() <= meta.end_offset
            && at + head.block_bytes() <= meta.bytes
    }

    /// The next block after a damaged one.
    fn next_block(
        &self,
        from: u64,
        index: &Index,
        meta: &SegmentMeta,
    ) -> Result<Option<(u64, BlockHead)>, SegmentError> {
        let rest = self.read(from, usize::try_from(meta.bytes - from).unwrap_or(usize::MAX))?;
        let found = memchr::memmem::find_iter(&rest, b"WTLB").find_map(|at| {
            let head = BlockHead::parse(rest.get(at..)?).ok()?;
            let position = from + at as u64;
            // A damaged block may contain an event that imitates a head, so the whole block is verified.
            let body = rest.get(at + BLOCK_HEAD_BYTES..)?.get(..head.block_bytes() as usize - BLOCK_HEAD_BYTES)?;
            let is_whole = || head.chunks(Bytes::copy_from_slice(body)).is_ok();
            (at > 0 && self.belongs(&head, position, index, meta) && is_whole()).then_some((position, head))
        });
        Ok(found)
    }

    /// Reads the whole segment. Returns each damage with the number of events lost by it.
    pub(super) fn verify(&self, meta: &SegmentMeta) -> Result<Vec<(u64, SegmentError)>, SegmentError> {
        let (mut damage, mut at, mut expected) = (Vec::new(), 0, meta.base_offset);
        while at < meta.bytes {
            let index = Index { end_offset: expected, ..Index::default() };
            let head = BlockHead::parse(&self.read(at, BLOCK_HEAD_BYTES)?);
            let head = head.and_then(|head| match self.belongs(&head, at, &index, meta) {
                true if head.base_offset == expected => Ok(head),
                _ => Err(BlockError::Misplaced),
            });
            let head = match head {
                Ok(head) => head,
                Err(error) => {
                    let next = self.next_block(at, &index, meta)?;
                    let (position, end) =
                        next.map_or((meta.bytes, meta.end_offset), |(position, head)| (position, head.base_offset));
                    damage.push((end - expected, self.damaged(at, error)));
                    (at, expected) = (position, end);
                    continue;
                }
            };
            let length = usize::try_from(head.block_bytes()).unwrap_or(usize::MAX) - BLOCK_HEAD_BYTES;
            if let Err(error) = head.chunks(self.read(at + BLOCK_HEAD_BYTES as u64, length)?) {
                damage.push((u64::from(head.count), self.damaged(at, error)));
            }
            (at, expected) = (at + head.block_bytes(), head.end_offset());
        }
        if expected < meta.end_offset {
            damage.push((meta.end_offset - expected, self.damaged(at, BlockError::Short)));
        }
        Ok(damage)
    }

    /// Stores the index, so that the next open need not build it. A failure is harmless.
    fn store_index(&self, disk: &dyn Disk) {
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = Vec::with_capacity(INDEX_HEAD_BYTES + index.entries.len() * INDEX_ENTRY_BYTES);
        bytes.put_slice(INDEX_MAGIC);
        bytes.put_u64_le(index.covered);
        bytes.put_u32_le(index.entries.len() as u32);
        bytes.put_u32_le(0);
        for entry in &index.entries {
            bytes.put_u64_le(entry.base_offset);
            bytes.put_u64_le(entry.first_time_ns);
            bytes.put_u64_le(entry.position);
        }
        drop(index);
        if let Some(sum) = index_checksum(&bytes)
            && let Some(space) = bytes.get_mut(20..INDEX_HEAD_BYTES)
        {
            space.copy_from_slice(&sum.to_le_bytes());
        }
        let name = self.id.index_name();
        let written = disk.create(&name).or_else(|_| disk.open(&name)).and_then(|file| file.write_at(&bytes, 0));
        if let Err(error) = written {
            tracing::debug!(name, %error, "an index was not stored");
        }
    }
}

fn index_checksum(bytes: &[u8]) -> Option<u32> {
    let head = crc32c::crc32c(bytes.get(..20)?);
    Some(crc32c::crc32c_append(head, bytes.get(INDEX_HEAD_BYTES..)?))
}

/// The stored index of a sealed segment; `None` if there is no matching one.
fn read_index(disk: &dyn Disk, id: SegmentId, meta: &SegmentMeta) -> Option<Index> {
    let file = disk.open(&id.index_name()).ok()?;
    let mut head = file.read_bytes(0, INDEX_HEAD_BYTES).ok()?;
    if head.len() < INDEX_HEAD_BYTES || head.split_to(8) != INDEX_MAGIC[..] {
        return None;
    }
    let (covered, count, sum) = (head.get_u64_le(), head.get_u32_le() as usize, head.get_u32_le());
    if covered != meta.bytes || count as u64 > meta.bytes / BLOCK_HEAD_BYTES as u64 {
        return None;
    }
    let bytes = file.read_bytes(0, INDEX_HEAD_BYTES + count * INDEX_ENTRY_BYTES).ok()?;
    if bytes.len() < INDEX_HEAD_BYTES + count * INDEX_ENTRY_BYTES || index_checksum(&bytes) != Some(sum) {
        return None;
    }
    let mut rest = bytes.slice(INDEX_HEAD_BYTES..);
    let entry = |_| IndexEntry {
        base_offset: rest.get_u64_le(),
        first_time_ns: rest.get_u64_le(),
        position: rest.get_u64_le(),
    };
    Some(Index { entries: (0..count).map(entry).collect(), covered, end_offset: meta.end_offset })
}

/// A cache of open segments, in the order of their last use.
#[derive(Default)]
pub(super) struct OpenSegments {
    /// The most recent one last.
    open: Mutex<Vec<(SegmentId, Arc<SegmentFile>)>>,
}

impl OpenSegments {
    /// A segment, opened unless it is cached.
    pub(super) fn get(
        &self,
        disk: &dyn Disk,
        partition: PartitionId,
        meta: &SegmentMeta,
    ) -> Result<Arc<SegmentFile>, SegmentError> {
        let id = SegmentId { partition, base_offset: meta.base_offset };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = open.iter().rposition(|(known, _)| *known == id) {
            let found = open.remove(at);
            open.push(found.clone());
            return Ok(found.1);
        }
        drop(open); // other readers continue meanwhile
        let segment = match SegmentFile::open(disk, partition, meta) {
            Err(SegmentError::Disk { error, .. }) if is_out_of_descriptors(&error) => {
                self.clear();
                SegmentFile::open(disk, partition, meta)?
            }
            opened => opened?,
        };
        let segment = Arc::new(segment);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= limits::OPEN_SEGMENTS_MAX {
            open.remove(0);
        }
        open.push((id, segment.clone()));
        Ok(segment)
    }

    /// Closes all segments because descriptors are short. Readers keep theirs until they finish.
    pub(super) fn clear(&self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Closes a segment that is removed.
    pub(super) fn close(&self, id: SegmentId) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).retain(|(known, _)| *known != id);
    }
}

/// Whether the process or the machine has reached its limit of open files.
pub(super) fn is_out_of_descriptors(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_its_segment_are_one() {
        let id = SegmentId { partition: PartitionId { topic: TopicId(0xab), partition: 3 }, base_offset: u64::MAX };
        assert_eq!(id.file_name(), "segment-000000ab-00000003-ffffffffffffffff");
        assert_eq!(SegmentId::of_file_name(&id.file_name()), Some(id));
        for other in ["segment-", "segment-ab-3-0", &id.index_name(), "segment-000000AB-00000003-ffffffffffffffff"] {
            assert_eq!(SegmentId::of_file_name(other), None, "{other}");
        }
    }
}
