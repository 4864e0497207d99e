//! The files of the journal: names, heads, lookup by position, and reuse.
//!
//! ```text
//! journal-<position of the first frame, 16 hexadecimal digits>
//!    0  8 bytes  magic      "WATTLEJ1"
//!    8  u64      position   of the first frame, as in the name
//!   16  u32      checksum   CRC32C of bytes 0..16
//!   20  12 bytes 0
//!   32  frames, one after the other; none spans two files
//!       after them, old content: zeroes, or frames of an earlier use, which belong to other positions
//!
//! spare-<number>: preallocated, for the next journal file
//! ```
//!
//! ```text
//!          begin: head written, synced, then renamed          everything in it is checkpointed: renamed
//!   spare ────────────────────────────────────────> journal ────────────────────────────────────────────> spare
//! ```
//!
//! Positions count frames' bytes only, so a file's frames are at `file head + position - first position`.
//!
//! Promises: a file gets a journal's name only after its head is durable. All room of a file is allocated, and was
//! written once, before its first frame: so a sync writes frames and no metadata.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::failed_sync;
use crate::effects::{Disk, DiskFile};
use crate::limits;

/// Bytes of a file before its frames.
pub(super) const FILE_HEAD_BYTES: u64 = 32;
const MAGIC: &[u8; 8] = b"WATTLEJ1";
const PREFIX: &str = "journal-";
const SPARE_PREFIX: &str = "spare-";

/// A file of the journal.
pub(super) struct JournalFile {
    /// The position of its first frame.
    pub(super) first_position: u64,
    pub(super) file: Box<dyn DiskFile>,
}

/// The files by their first position, and the spare ones.
pub(super) struct Files {
    disk: Arc<dyn Disk>,
    /// Length of a new file.
    file_bytes: u64,
    state: Mutex<FileSet>,
}

struct FileSet {
    files: BTreeMap<u64, Arc<JournalFile>>,
    /// Names of spare files; the last one is used next.
    spares: Vec<String>,
    next_spare: u64,
}

/// The name of the file whose first frame is at `first_position`.
pub(super) fn file_name(first_position: u64) -> String {
    format!("{PREFIX}{first_position:016x}")
}

/// The position in a file's name; `None` if it is not a journal file.
pub(super) fn position_of_name(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX).filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok().filter(|position| file_name(*position) == name)
}

fn spare_number(name: &str) -> Option<u64> {
    name.strip_prefix(SPARE_PREFIX)?.parse().ok()
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
    /// The offset in the file of a position of the journal.
    pub(super) fn at(&self, position: u64) -> u64 {
        FILE_HEAD_BYTES + (position - self.first_position)
    }

    pub(super) fn write(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.file.write_at(bytes, self.at(position))
    }

    pub(super) fn read(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buffer, self.at(position))
    }
}

impl Files {
    /// The files of a journal: `files` as recovery found them, and the names of all files in the folder.
    pub(super) fn new(disk: Arc<dyn Disk>, file_bytes: u64, files: Vec<JournalFile>, names: &[String]) -> Self {
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| spare_number(name)).collect();
        numbers.sort_unstable();
        let next_spare = numbers.last().map_or(0, |last| last + 1);
        let spares = numbers.iter().map(|number| format!("{SPARE_PREFIX}{number}")).collect();
        let files = files.into_iter().map(|file| (file.first_position, Arc::new(file))).collect();
        Self { disk, file_bytes, state: Mutex::new(FileSet { files, spares, next_spare }) }
    }

    fn state(&self) -> MutexGuard<'_, FileSet> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins the file whose first frame is at `first_position`, durably. Everything before that position must be
    /// durable.
    ///
    /// # Errors
    /// I/O errors; see [`is_passing`](super::is_passing) for those after which a repetition may succeed.
    pub(super) fn begin(&self, first_position: u64) -> io::Result<Arc<JournalFile>> {
        let spare = self.state().spares.pop(); // taken out of the list, so that no other thread removes it
        let name = match spare {
            Some(name) => name,
            None => self.make_spare(false)?,
        };
        let begun = self.begin_as(&name, first_position);
        if begun.is_err() {
            self.state().spares.push(name);
        }
        begun
    }

    fn begin_as(&self, name: &str, first_position: u64) -> io::Result<Arc<JournalFile>> {
        let file = self.disk.open(name)?;
        file.allocate(FILE_HEAD_BYTES + self.file_bytes)?; // a file from an earlier setting may be shorter
        file.write_at(&encode_head(first_position), 0)?;
        file.sync().map_err(failed_sync)?;
        self.disk.rename(name, &file_name(first_position))?;
        self.disk.sync_folder().map_err(failed_sync)?;
        // Reopened by its new name, for a disk that traces names. The file has begun, so a failure here must not fail
        // the call.
        let renamed = self.disk.open(&file_name(first_position));
        let file = Arc::new(JournalFile { first_position, file: renamed.unwrap_or(file) });
        self.state().files.insert(first_position, file.clone());
        Ok(file)
    }

    /// Allocates one more file; `is_written` also writes all of it, which takes some time.
    fn make_spare(&self, is_written: bool) -> io::Result<String> {
        let mut state = self.state();
        let name = format!("{SPARE_PREFIX}{}", state.next_spare);
        state.next_spare += 1;
        drop(state);
        let made = self.fill(&name, is_written);
        if made.is_err() {
            drop(self.disk.remove(&name)); // an incomplete file is useless and takes room
        }
        made.map(|()| name)
    }

    fn fill(&self, name: &str, is_written: bool) -> io::Result<()> {
        let file = self.disk.create(name)?;
        file.allocate(FILE_HEAD_BYTES + self.file_bytes)?;
        if is_written {
            let zeroes = vec![0; limits::SPARE_WRITE_BYTES.min(self.file_bytes as usize)];
            let mut at = 0;
            while at < self.file_bytes {
                let length = (zeroes.len() as u64).min(self.file_bytes - at) as usize;
                file.write_at(zeroes.get(..length).unwrap_or_default(), at)?;
                at += length as u64;
            }
            file.sync()?;
        }
        Ok(())
    }

    /// Makes sure that there is a spare file.
    ///
    /// # Errors
    /// I/O errors.
    pub(super) fn keep_a_spare(&self) -> io::Result<()> {
        let has_none = self.state().spares.is_empty();
        if has_none {
            let name = self.make_spare(true)?;
            self.state().spares.push(name);
        }
        Ok(())
    }

    /// Removes the spare files, which frees their room. Returns false if there were none.
    pub(super) fn give_up_spares(&self) -> bool {
        let spares = std::mem::take(&mut self.state().spares);
        spares.iter().filter(|name| self.disk.remove(name).is_ok()).count() > 0
    }

    /// Frees the files before a position, whose content is in segments and the state store: they become spare files, or
    /// are removed if there are enough of those.
    ///
    /// # Errors
    /// I/O errors.
    pub(super) fn recycle(&self, position: u64) -> io::Result<()> {
        loop {
            let mut state = self.state();
            let mut files = state.files.keys().copied();
            let (Some(first), Some(next)) = (files.next(), files.next()) else { return Ok(()) };
            drop(files);
            if next > position {
                return Ok(());
            }
            let name = file_name(first);
            if state.spares.len() >= limits::SPARE_FILES_MAX {
                drop(state);
                self.disk.remove(&name)?;
                self.state().files.remove(&first);
                continue;
            }
            let spare = format!("{SPARE_PREFIX}{}", state.next_spare);
            state.next_spare += 1;
            drop(state);
            self.disk.rename(&name, &spare)?;
            let mut state = self.state();
            state.files.remove(&first);
            state.spares.push(spare);
        }
    }

    /// Length in bytes of a new file.
    pub(super) fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// The first position of the file after the one that contains `position`.
    pub(super) fn next_position(&self, position: u64) -> Option<u64> {
        self.state().files.range(position + 1..).next().map(|(first, _)| *first)
    }

    /// The file that contains a position.
    pub(super) fn find(&self, position: u64) -> Option<Arc<JournalFile>> {
        let state = self.state();
        state.files.range(..=position).next_back().map(|(_, file)| file.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effects::MemoryDisk;

    #[test]
    fn a_name_and_its_position_are_one() {
        for position in [0, 1, 0xdead_beef, u64::MAX] {
            assert_eq!(position_of_name(&file_name(position)), Some(position));
        }
        for other in ["journal-", "journal-00000000000000zz", "journal-1", "LOCK", "journal-000000000000000A"] {
            assert_eq!(position_of_name(other), None, "{other}");
        }
    }

    fn names(disk: &MemoryDisk) -> Vec<String> {
        disk.contents().into_keys().collect()
    }

    #[test]
    fn files_are_used_again_and_again() {
        let disk = MemoryDisk::default();
        let files = Files::new(Arc::new(disk.clone()), 1_000, Vec::new(), &[]);
        files.begin(0).unwrap();
        files.begin(900).unwrap();
        files.recycle(899).unwrap();
        assert_eq!(names(&disk), [file_name(0), file_name(900)], "not all of the first is kept elsewhere");
        files.recycle(900).unwrap();
        assert_eq!(names(&disk), [file_name(900), "spare-2".to_owned()]);
        let third = files.begin(1_800).unwrap();
        assert_eq!(names(&disk), [file_name(900), file_name(1_800)]);
        assert_eq!(third.file.length().unwrap(), 1_032, "its room is that of the first");
        assert_eq!(files.find(1_799).unwrap().first_position, 900);
        files.keep_a_spare().unwrap();
        assert_eq!(names(&disk).len(), 3);
        assert!(files.give_up_spares());
        assert!(!files.give_up_spares());
        assert_eq!(names(&disk).len(), 2);
    }

    #[test]
    fn a_file_has_its_name_only_once_its_head_is_durable() {
        let disk = MemoryDisk::default();
        let files = Files::new(Arc::new(disk.clone()), 1_000, Vec::new(), &[]);
        let (at_rename, seen) = (disk.clone(), Arc::new(Mutex::new(None)));
        let found = seen.clone();
        disk.set_fault(move |operation| {
            if operation == crate::effects::memory::Operation::Rename {
                *found.lock().unwrap() = Some(at_rename.after_crash(|| false).contents());
            }
            Ok(())
        });
        // A crash loses names that are not durable; the contents under durable names can be examined.
        files.keep_a_spare().unwrap();
        disk.sync_folder().unwrap();
        files.begin(77).unwrap();
        let contents = seen.lock().unwrap().take().unwrap();
        assert_eq!(contents["spare-0"][..32], encode_head(77));
    }
}
