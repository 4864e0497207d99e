//! The files of the journal: their names, their heads, and which of them holds a position.
//!
//! ```text
//! journal-<position of the first frame, 16 hexadecimal digits>
//!    0  8 bytes  magic      "WATTLEJ1"
//!    8  u64      position   of the first frame, as in the name
//!   16  u32      checksum   CRC32C of bytes 0..16
//!   20  12 bytes 0
//!   32  frames, one behind the other; none spans two files
//! ```
//!
//! Positions count frames' bytes only, so a file's frames are at `file head + position - first position`.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use crate::effects::{Disk, DiskFile};

/// Bytes of a file in front of its frames.
pub(super) const FILE_HEAD_BYTES: u64 = 32;
const MAGIC: &[u8; 8] = b"WATTLEJ1";
const PREFIX: &str = "journal-";

/// A file of the journal.
pub(super) struct JournalFile {
    /// The position of its first frame.
    pub(super) first_position: u64,
    pub(super) file: Box<dyn DiskFile>,
}

/// The files by their first position.
#[derive(Default)]
pub(super) struct Files {
    files: RwLock<BTreeMap<u64, Arc<JournalFile>>>,
}

/// The name of the file whose first frame is at a position.
pub(super) fn file_name(first_position: u64) -> String {
    format!("{PREFIX}{first_position:016x}")
}

/// The position in a file's name; `None` for files that are not the journal's.
pub(super) fn position_of_name(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX).filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok().filter(|position| file_name(*position) == name)
}

/// The head of a file.
pub(super) fn encode_head(first_position: u64) -> [u8; FILE_HEAD_BYTES as usize] {
    let mut head = [0; FILE_HEAD_BYTES as usize];
    let (magic, rest) = head.split_at_mut(8);
    magic.copy_from_slice(MAGIC);
    let (position, rest) = rest.split_at_mut(8);
    position.copy_from_slice(&first_position.to_le_bytes());
    let checksum = crc32c::crc32c_append(crc32c::crc32c(magic), position);
    let (sum, _) = rest.split_at_mut(4);
    sum.copy_from_slice(&checksum.to_le_bytes());
    head
}

impl JournalFile {
    /// Creates a file durably, with its head and its name.
    pub(super) fn create(disk: &dyn Disk, first_position: u64) -> io::Result<Self> {
        let file = disk.create(&file_name(first_position))?;
        file.write_at(&encode_head(first_position), 0)?;
        file.sync()?;
        disk.sync_folder()?;
        Ok(Self { first_position, file })
    }

    /// Where a position of the journal is in the file.
    fn at(&self, position: u64) -> u64 {
        FILE_HEAD_BYTES + (position - self.first_position)
    }

    pub(super) fn write(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.file.write_at(bytes, self.at(position))
    }

    pub(super) fn read(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buffer, self.at(position))
    }

    pub(super) fn truncate(&self, position: u64) -> io::Result<()> {
        self.file.truncate(self.at(position))
    }
}

impl Files {
    pub(super) fn new(files: Vec<JournalFile>) -> Self {
        let files = files.into_iter().map(|file| (file.first_position, Arc::new(file))).collect();
        Self { files: RwLock::new(files) }
    }

    pub(super) fn insert(&self, file: Arc<JournalFile>) {
        self.files.write().unwrap_or_else(PoisonError::into_inner).insert(file.first_position, file);
    }

    /// The file that a position lies in, and the first position of the next file.
    pub(super) fn find(&self, position: u64) -> Option<(Arc<JournalFile>, Option<u64>)> {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        let (_, file) = files.range(..=position).next_back()?;
        let next = files.range(position + 1..).next().map(|(first, _)| *first);
        Some((file.clone(), next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_its_position_are_one() {
        for position in [0, 1, 0xdead_beef, u64::MAX] {
            assert_eq!(position_of_name(&file_name(position)), Some(position));
        }
        for other in ["journal-", "journal-00000000000000zz", "journal-1", "LOCK", "journal-000000000000000A"] {
            assert_eq!(position_of_name(other), None, "{other}");
        }
    }
}
