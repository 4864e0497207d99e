//! The file format of snapshots.
//!
//! ```text
//! snapshot v1, little endian
//!   head     8 bytes "wattlesn", u32 version (1)
//!   blocks   u8 kind, u32 length, content, u32 CRC32C of all that
//!     1 about     JSON: subscriber, time, positions of the lanes; the first block
//!     2 lane      u32 partition; its entries follow
//!     3 entries   each u16 key length, u32 value length, key, value
//!     4 end       u64 entries, u64 bytes of keys and values; the last block
//! ```
//!
//! Promises: a file gets its name only when it is complete and durable; damaged files are detected and refused. Must
//! not know: the meaning of an entry.

use std::io;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use serde::{Deserialize, Serialize};

use crate::api::SnapshotCause;
use crate::effects::{Disk, DiskFile};
use crate::model::{Offset, SubscriberId};

const MAGIC: &[u8; 8] = b"wattlesn";
const VERSION: u32 = 1;
const HEAD_BYTES: u64 = 12;
const ABOUT: u8 = 1;
const LANE: u8 = 2;
const ENTRIES: u8 = 3;
const END: u8 = 4;
/// Kind and length.
const BLOCK_HEAD_BYTES: usize = 5;
const CHECKSUM_BYTES: usize = 4;
const END_BYTES: usize = 16;
/// Size of entries at which a block is written.
const BLOCK_BYTES: usize = 256 << 10;
/// Maximum size of a block: the largest entry added to a nearly full block. A larger one is damaged.
const BLOCK_BYTES_MAX: usize = crate::limits::UNIT_BYTES_MAX + BLOCK_BYTES;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("the disk failed: {0}")]
    Disk(#[from] io::Error),
    #[error("it is damaged at byte {position}")]
    Damaged { position: u64 },
    #[error("it is of version {0}, and this release knows version {VERSION}")]
    Version(u32),
}

/// Content of the first block. New fields need a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SnapshotHeader {
    /// Full name of the subscriber.
    pub(super) subscriber: String,
    /// Unix nanoseconds.
    pub(super) taken_ns: u64,
    /// Hexadecimal digest of the version that ran.
    pub(super) digest: String,
    /// Why the snapshot was taken.
    pub(super) note: String,
    /// Origin of the snapshot.
    #[serde(default)]
    pub(super) by: SnapshotCause,
    /// Positions of the lanes, by partition.
    pub(super) positions: Vec<Offset>,
}

/// Size of a file's content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) entries: u64,
    /// Of keys and values.
    pub(super) bytes: u64,
}

/// File name of a subscriber's snapshot.
pub(super) fn name_of(subscriber: SubscriberId, number: u64) -> String {
    format!("{subscriber}-{number}.snapshot")
}

/// The number of a subscriber's snapshot, from its file name.
pub(super) fn number_of(subscriber: SubscriberId, name: &str) -> Option<u64> {
    let number = name.strip_suffix(".snapshot")?.split_once('-')?.1.parse().ok()?;
    (name_of(subscriber, number) == name).then_some(number)
}

/// Writes a file, which gets its name when it is finished.
pub(super) struct Writer {
    disk: Arc<dyn Disk>,
    file: Box<dyn DiskFile>,
    name: String,
    position: u64,
    block: Vec<u8>,
    size: Size,
}

/// Name of an unfinished file.
fn unfinished(name: &str) -> String {
    format!("{name}.new")
}

impl Writer {
    /// Begins a file; removes an unfinished one of the same name.
    pub(super) fn create(disk: Arc<dyn Disk>, name: &str, about: &SnapshotHeader) -> io::Result<Self> {
        match disk.remove(&unfinished(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = disk.create(&unfinished(name))?;
        let mut head = MAGIC.to_vec();
        head.put_u32_le(VERSION);
        file.write_at(&head, 0)?;
        let (name, block, size) = (name.to_owned(), Vec::new(), Size::default());
        let mut writer = Self { disk, file, name, position: HEAD_BYTES, block, size };
        writer.put(ABOUT, &serde_json::to_vec(about)?)?;
        Ok(writer)
    }

    fn put(&mut self, kind: u8, bytes: &[u8]) -> io::Result<()> {
        let mut block = Vec::with_capacity(BLOCK_HEAD_BYTES + bytes.len() + CHECKSUM_BYTES);
        block.put_u8(kind);
        block.put_u32_le(u32::try_from(bytes.len()).map_err(io::Error::other)?);
        block.put_slice(bytes);
        let sum = crc32c::crc32c(&block);
        block.put_u32_le(sum);
        self.file.write_at(&block, self.position)?;
        self.position += block.len() as u64;
        Ok(())
    }

    /// Starts the entries of a partition's lane.
    pub(super) fn lane(&mut self, partition: u32) -> io::Result<()> {
        self.flush()?;
        self.put(LANE, &partition.to_le_bytes())
    }

    /// Adds an entry of the lane.
    pub(super) fn entry(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.block.put_u16_le(u16::try_from(key.len()).map_err(io::Error::other)?);
        self.block.put_u32_le(u32::try_from(value.len()).map_err(io::Error::other)?);
        self.block.put_slice(key);
        self.block.put_slice(value);
        self.size.entries += 1;
        self.size.bytes += (key.len() + value.len()) as u64;
        if self.block.len() >= BLOCK_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        let block = std::mem::take(&mut self.block);
        if block.is_empty() { Ok(()) } else { self.put(ENTRIES, &block) }
    }

    /// Makes the file complete and durable.
    pub(super) fn finish(mut self) -> io::Result<Size> {
        self.flush()?;
        let mut end = self.size.entries.to_le_bytes().to_vec();
        end.put_u64_le(self.size.bytes);
        self.put(END, &end)?;
        self.file.sync()?;
        self.disk.rename(&unfinished(&self.name), &self.name)?;
        self.disk.sync_folder()?;
        Ok(self.size)
    }

    /// Removes the unfinished file.
    pub(super) fn abandon(self) {
        if let Err(error) = self.disk.remove(&unfinished(&self.name)) {
            tracing::warn!(%error, name = self.name, "a snapshot that was not finished stays");
        }
    }
}

/// A part of a file's content.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FilePart {
    /// Start of the entries of a partition's lane.
    Lane(u32),
    /// Keys and values.
    Entries(Vec<(Bytes, Bytes)>),
}

/// Reads a file.
pub(super) struct Reader {
    file: Box<dyn DiskFile>,
    position: u64,
    length: u64,
    size: Size,
}

impl Reader {
    /// Opens a file and reads its first block.
    pub(super) fn open(disk: &dyn Disk, name: &str) -> Result<(Self, SnapshotHeader), FileError> {
        let file = disk.open(name)?;
        let mut head = file.read_bytes(0, HEAD_BYTES as usize)?;
        if head.len() < HEAD_BYTES as usize || head.split_to(MAGIC.len()) != MAGIC.as_slice() {
            return Err(FileError::Damaged { position: 0 });
        }
        let version = head.get_u32_le();
        if version != VERSION {
            return Err(FileError::Version(version));
        }
        let length = file.length()?;
        let mut reader = Self { file, position: HEAD_BYTES, length, size: Size::default() };
        let about = match reader.block()? {
            (ABOUT, about) => serde_json::from_slice(&about).ok(),
            _ => None,
        };
        Ok((reader, about.ok_or(FileError::Damaged { position: HEAD_BYTES })?))
    }

    fn block(&mut self) -> Result<(u8, Bytes), FileError> {
        let damaged = FileError::Damaged { position: self.position };
        let head = self.file.read_bytes(self.position, BLOCK_HEAD_BYTES)?;
        let Some((kind, mut length)) = head.split_first().filter(|_| head.len() == BLOCK_HEAD_BYTES) else {
            return Err(damaged);
        };
        let length = length.get_u32_le() as usize;
        if length > BLOCK_BYTES_MAX {
            return Err(damaged);
        }
        let block = self.file.read_bytes(self.position, BLOCK_HEAD_BYTES + length + CHECKSUM_BYTES)?;
        let (Some(body), Some(mut sum)) =
            (block.get(..BLOCK_HEAD_BYTES + length), block.get(BLOCK_HEAD_BYTES + length..))
        else {
            return Err(damaged);
        };
        if sum.len() != CHECKSUM_BYTES || sum.get_u32_le() != crc32c::crc32c(body) {
            return Err(damaged);
        }
        self.position += block.len() as u64;
        Ok((*kind, block.slice(BLOCK_HEAD_BYTES..BLOCK_HEAD_BYTES + length)))
    }

    /// The next part; `None` after the end block, which must be at the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<FilePart>, FileError> {
        let damaged = FileError::Damaged { position: self.position };
        match self.block()? {
            (LANE, mut partition) if partition.len() == 4 => Ok(Some(FilePart::Lane(partition.get_u32_le()))),
            (ENTRIES, block) => {
                let entries = entries(block).ok_or(damaged)?;
                self.size.entries += entries.len() as u64;
                self.size.bytes += entries.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum::<u64>();
                Ok(Some(FilePart::Entries(entries)))
            }
            (END, end) if size(&end) == Some(self.size) && self.position == self.length => Ok(None),
            _ => Err(damaged),
        }
    }

    /// The size of the content according to the end block, without reading the rest.
    pub(super) fn size(&self) -> Result<Size, FileError> {
        let block_bytes = (BLOCK_HEAD_BYTES + END_BYTES + CHECKSUM_BYTES) as u64;
        let position = self.length.saturating_sub(block_bytes).max(self.position);
        let (file, length) = (&self.file, self.length);
        let damaged = || FileError::Damaged { position };
        let block = file.read_bytes(position, usize::try_from(length - position).map_err(|_| damaged())?)?;
        let end = block.get(BLOCK_HEAD_BYTES..BLOCK_HEAD_BYTES + END_BYTES).filter(|_| block.first() == Some(&END));
        end.and_then(size).ok_or_else(damaged)
    }
}

fn size(mut end: &[u8]) -> Option<Size> {
    let size = Size { entries: end.try_get_u64_le().ok()?, bytes: end.try_get_u64_le().ok()? };
    end.is_empty().then_some(size)
}

fn entries(mut block: Bytes) -> Option<Vec<(Bytes, Bytes)>> {
    let mut entries = Vec::new();
    while !block.is_empty() {
        let key = usize::from(block.try_get_u16_le().ok()?);
        let value = block.try_get_u32_le().ok()? as usize;
        if block.len() < key.checked_add(value)? {
            return None;
        }
        entries.push((block.split_to(key), block.split_to(value)));
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effects::MemoryDisk;

    fn about() -> SnapshotHeader {
        let (subscriber, digest, note) = ("shop/totals".to_owned(), "07".repeat(32), "by hand".to_owned());
        SnapshotHeader { subscriber, taken_ns: 7, digest, note, by: SnapshotCause::Deploy, positions: vec![3, 9] }
    }

    fn written(disk: &Arc<dyn Disk>) -> Size {
        let mut writer = Writer::create(disk.clone(), "1-1.snapshot", &about()).unwrap();
        writer.lane(0).unwrap();
        writer.entry(b"a", b"1").unwrap();
        writer.entry(b"b", &vec![7; BLOCK_BYTES]).unwrap();
        writer.entry(b"c", b"").unwrap();
        writer.lane(1).unwrap();
        assert!(disk.open("1-1.snapshot").is_err(), "it has no name yet");
        writer.finish().unwrap()
    }

    fn read(disk: &dyn Disk) -> Result<Vec<FilePart>, FileError> {
        let (mut reader, _) = Reader::open(disk, "1-1.snapshot")?;
        let mut parts = Vec::new();
        while let Some(part) = reader.next()? {
            parts.push(part);
        }
        Ok(parts)
    }

    #[test]
    fn what_is_written_is_read() {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
        let size = written(&disk);
        assert_eq!(size, Size { entries: 3, bytes: BLOCK_BYTES as u64 + 4 });
        let (reader, found) = Reader::open(&*disk, "1-1.snapshot").unwrap();
        assert_eq!((found, reader.size().unwrap()), (about(), size));
        let parts = read(&*disk).unwrap();
        let keys = |part: &FilePart| match part {
            FilePart::Lane(partition) => format!("lane {partition}"),
            FilePart::Entries(entries) => entries.iter().map(|(key, _)| String::from_utf8_lossy(key)).collect(),
        };
        assert_eq!(parts.iter().map(keys).collect::<Vec<_>>(), ["lane 0", "ab", "c", "lane 1"]);
        assert_eq!(disk.list().unwrap(), ["1-1.snapshot"]);
    }

    #[test]
    fn damage_anywhere_is_found() {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
        written(&disk);
        let file = disk.open("1-1.snapshot").unwrap();
        let length = file.length().unwrap();
        let near_the_ends = (0..300).chain(length - 300..length);
        for at in near_the_ends.chain((300..length - 300).step_by(9_973)) {
            let byte = file.read_bytes(at, 1).unwrap();
            file.write_at(&[byte[0] ^ 0x10], at).unwrap();
            assert!(read(&*disk).is_err(), "byte {at}");
            file.write_at(&byte, at).unwrap();
        }
        assert!(read(&*disk).is_ok());
        for shorter in [0, 5, 12, 100, length - 1, length - 29] {
            let whole = file.read_bytes(0, length as usize).unwrap();
            file.truncate(shorter).unwrap();
            assert!(read(&*disk).is_err(), "{shorter} bytes");
            file.write_at(&whole, 0).unwrap();
        }
        file.write_at(&[0], length).unwrap();
        assert!(read(&*disk).is_err(), "longer than its end");
    }

    #[test]
    fn the_version_is_a_promise() {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
        written(&disk);
        let file = disk.open("1-1.snapshot").unwrap();
        assert_eq!(&file.read_bytes(0, 12).unwrap()[..], b"wattlesn\x01\0\0\0");
        file.write_at(&[2], 8).unwrap();
        assert!(matches!(read(&*disk), Err(FileError::Version(2))));
    }

    #[test]
    fn a_name_has_one_form() {
        let subscriber = SubscriberId(7);
        assert_eq!(number_of(subscriber, &name_of(subscriber, 12)), Some(12));
        for other in ["7-012.snapshot", "8-12.snapshot", "7-12.snapshot.new", "7-.snapshot", "7-12"] {
            assert_eq!(number_of(subscriber, other), None, "{other}");
        }
    }
}
