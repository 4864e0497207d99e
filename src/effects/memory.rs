//! A disk in memory that can lose what was not synced: for tests of what a crash leaves behind.
//!
//! ```text
//!   write ──> contents ── sync ──> synced          what a process sees is `contents`;
//!                │                    │            what a crash leaves is `synced`, and of every block that differs
//!                └──── crash: either ─┘            and was not synced, either
//! ```
//!
//! Promises:
//! - Any subset of unsynced blocks survives a crash, in any order; a block is old or new, never a mixture.
//! - A new length, a creation and a removal survive or not, each for itself, until they are synced.
//! - After a failed sync a block counts as clean, as a page cache has it: a later sync that succeeds says nothing of it.
//!   Only writing it again does.
//! - A write that fails has written a part.
//!
//! Must not know: what is written, or why. Damage to what *was* synced is a test's to do, through [`Disk::open`].

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, DiskFile};

/// What a disk writes whole or not at all, in bytes: the sector of disks that promise least.
pub const BLOCK_BYTES: usize = 512;

/// What a disk is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// [`DiskFile::read_at`] of so many bytes.
    Read(usize),
    /// [`DiskFile::write_at`] of so many bytes.
    Write(usize),
    /// [`DiskFile::sync`].
    Sync,
    /// [`DiskFile::truncate`].
    Truncate,
    /// [`Disk::create`].
    Create,
    /// [`Disk::remove`].
    Remove,
    /// [`Disk::sync_folder`].
    SyncFolder,
}

/// Asked before each operation, which fails where it says so. It may also wait: then so does whoever called.
pub type Fault = dyn Fn(Operation) -> io::Result<()> + Send + Sync;

/// The disk. Cheap to clone: a handle.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    files: Vec<File>,
    /// The folder as a process sees it: indices into `files`.
    names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    fault: Option<Arc<Fault>>,
}

#[derive(Default, Clone)]
struct File {
    contents: Vec<u8>,
    synced: Vec<u8>,
    /// Blocks that the next sync makes durable.
    dirty: BTreeSet<usize>,
    /// Blocks of which a sync has failed.
    doubtful: BTreeSet<usize>,
}

/// The `block`-th block of some contents, shorter or empty where they end.
fn block_of(contents: &[u8], block: usize) -> &[u8] {
    let start = (block * BLOCK_BYTES).min(contents.len());
    let end = (start + BLOCK_BYTES).min(contents.len());
    contents.get(start..end).unwrap_or_default()
}

/// Writes `bytes` at `position`, with zeroes where the contents end in front of it.
fn write(contents: &mut Vec<u8>, bytes: &[u8], position: usize) {
    if bytes.is_empty() {
        return;
    }
    let end = position + bytes.len();
    if contents.len() < end {
        contents.resize(end, 0);
    }
    if let Some(place) = contents.get_mut(position..end) {
        place.copy_from_slice(bytes);
    }
}

impl File {
    fn write(&mut self, bytes: &[u8], position: usize) {
        write(&mut self.contents, bytes, position);
        for block in position / BLOCK_BYTES..(position + bytes.len()).div_ceil(BLOCK_BYTES) {
            self.dirty.insert(block);
            self.doubtful.remove(&block);
        }
    }

    fn sync(&mut self) {
        self.synced.resize(self.contents.len(), 0);
        for block in std::mem::take(&mut self.dirty) {
            write(&mut self.synced, block_of(&self.contents, block), block * BLOCK_BYTES);
        }
    }

    fn crash(&self, keep: &mut dyn FnMut() -> bool) -> Vec<u8> {
        let mut left = self.synced.clone();
        for block in self.dirty.union(&self.doubtful) {
            if keep() {
                write(&mut left, block_of(&self.contents, *block), block * BLOCK_BYTES);
            }
        }
        let length = if keep() { self.contents.len() } else { self.synced.len() };
        left.resize(length, 0);
        left
    }
}

impl MemoryDisk {
    /// Asks `fault` before each operation from now on, in place of whoever was asked before.
    pub fn set_fault(&self, fault: impl Fn(Operation) -> io::Result<()> + Send + Sync + 'static) {
        self.state().fault = Some(Arc::new(fault));
    }

    /// Nothing fails any more.
    pub fn clear_fault(&self) {
        self.state().fault = None;
    }

    /// The disk as it would be found after a crash at this moment. `keep` decides, one after the other, what of the
    /// unsynced survives. This disk goes on as if nothing had happened.
    #[must_use]
    pub fn after_crash(&self, mut keep: impl FnMut() -> bool) -> Self {
        let state = self.state();
        let mut names: BTreeSet<&String> = state.names.keys().collect();
        names.extend(state.synced_names.keys());
        let mut after = State::default();
        for name in names {
            let (seen, synced) = (state.names.get(name), state.synced_names.get(name));
            let found = if seen == synced || keep() { seen } else { synced };
            if let Some(file) = found.and_then(|file| state.files.get(*file)) {
                let contents = file.crash(&mut keep);
                after.names.insert(name.clone(), after.files.len());
                after.files.push(File { synced: contents.clone(), contents, ..File::default() });
            }
        }
        after.synced_names = after.names.clone();
        Self { state: Arc::new(Mutex::new(after)) }
    }

    /// Every file and its contents, as a process sees them.
    pub fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.state();
        let file = |file: &usize| state.files.get(*file).map(|file| file.contents.clone()).unwrap_or_default();
        state.names.iter().map(|(name, index)| (name.clone(), file(index))).collect()
    }

    /// A disk that holds these files, durably.
    pub fn with_contents(contents: BTreeMap<String, Vec<u8>>) -> Self {
        let mut state = State::default();
        for (name, contents) in contents {
            state.names.insert(name, state.files.len());
            state.files.push(File { synced: contents.clone(), contents, ..File::default() });
        }
        state.synced_names = state.names.clone();
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is made whole under the lock, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks what is to fail, without the lock: the answer may take its time.
    fn ask(&self, operation: Operation) -> io::Result<()> {
        let fault = self.state().fault.clone();
        fault.map_or(Ok(()), |fault| fault(operation))
    }
}

impl Disk for MemoryDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = self.state().names.get(name).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(MemoryFile { disk: self.clone(), file }))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.ask(Operation::Create)?;
        let mut state = self.state();
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = state.files.len();
        state.files.push(File::default());
        state.names.insert(name.to_owned(), file);
        drop(state);
        Ok(Box::new(MemoryFile { disk: self.clone(), file }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.ask(Operation::Remove)?;
        self.state().names.remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.ask(Operation::SyncFolder)?;
        let mut state = self.state();
        state.synced_names = state.names.clone();
        Ok(())
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    file: usize,
}

impl MemoryFile {
    fn with<T>(&self, act: impl FnOnce(&mut File) -> T) -> io::Result<T> {
        self.disk.state().files.get_mut(self.file).map(act).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn index(position: u64) -> io::Result<usize> {
    usize::try_from(position).map_err(|_| io::ErrorKind::InvalidInput.into())
}

impl DiskFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.disk.ask(Operation::Read(buffer.len()))?;
        let position = index(position)?;
        self.with(|file| {
            let there = file.contents.get(position..).unwrap_or_default();
            let count = there.len().min(buffer.len());
            for (to, from) in buffer.iter_mut().zip(there) {
                *to = *from;
            }
            count
        })
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let answer = self.disk.ask(Operation::Write(bytes.len()));
        let position = index(position)?;
        let part = if answer.is_ok() { bytes } else { bytes.get(..bytes.len() / 2).unwrap_or_default() };
        self.with(|file| file.write(part, position))?;
        answer
    }

    fn sync(&self) -> io::Result<()> {
        let answer = self.disk.ask(Operation::Sync);
        self.with(|file| match answer {
            Ok(()) => file.sync(),
            Err(_) => file.doubtful.append(&mut file.dirty),
        })?;
        answer
    }

    fn length(&self) -> io::Result<u64> {
        self.with(|file| file.contents.len() as u64)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.disk.ask(Operation::Truncate)?;
        let length = index(length)?;
        self.with(|file| {
            // what is cut off is zeroes from now on, also where the file grows again
            file.dirty.extend(length / BLOCK_BYTES..file.contents.len().div_ceil(BLOCK_BYTES));
            file.contents.resize(length, 0);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crashed(disk: &MemoryDisk, keep: bool) -> BTreeMap<String, Vec<u8>> {
        disk.after_crash(|| keep).contents()
    }

    fn disk_with(name: &str, bytes: &[u8]) -> (MemoryDisk, Box<dyn DiskFile>) {
        let disk = MemoryDisk::with_contents(BTreeMap::from([(name.to_owned(), bytes.to_vec())]));
        let file = disk.open(name).unwrap();
        (disk, file)
    }

    #[test]
    fn what_was_synced_survives_and_the_rest_may_be_lost() {
        let (disk, file) = disk_with("a", b"");
        file.write_at(b"one", 0).unwrap();
        assert_eq!(crashed(&disk, false)["a"], b"");
        assert_eq!(crashed(&disk, true)["a"], b"one");
        file.sync().unwrap();
        file.write_at(b"two", 3).unwrap();
        assert_eq!(crashed(&disk, false)["a"], b"one");
        assert_eq!(crashed(&disk, true)["a"], b"onetwo");
        assert_eq!(disk.contents()["a"], b"onetwo");
    }

    #[test]
    fn a_later_block_may_survive_without_an_earlier_one() {
        let (disk, file) = disk_with("a", b"");
        file.write_at(&[7; 2 * BLOCK_BYTES], 0).unwrap();
        let mut choices = [false, true, true].into_iter();
        let left = disk.after_crash(|| choices.next().unwrap()).contents();
        assert_eq!(left["a"], [[0; BLOCK_BYTES], [7; BLOCK_BYTES]].concat());
    }

    #[test]
    fn a_sync_after_a_failed_one_says_nothing_of_what_was_written_before() {
        let (disk, file) = disk_with("a", &[1; 4]);
        file.write_at(&[2; 4], 0).unwrap();
        disk.set_fault(|operation| if operation == Operation::Sync { Err(io::Error::other("EIO")) } else { Ok(()) });
        assert!(file.sync().is_err());
        disk.clear_fault();
        file.sync().unwrap();
        assert_eq!(crashed(&disk, false)["a"], [1; 4]);
        file.write_at(&[2; 4], 0).unwrap();
        file.sync().unwrap();
        assert_eq!(crashed(&disk, false)["a"], [2; 4]);
    }

    #[test]
    fn names_are_durable_once_the_folder_is_synced() {
        let (disk, _) = disk_with("old", b"x");
        disk.create("new").unwrap();
        disk.remove("old").unwrap();
        assert_eq!(crashed(&disk, false).into_keys().collect::<Vec<_>>(), ["old"]);
        assert_eq!(crashed(&disk, true).into_keys().collect::<Vec<_>>(), ["new"]);
        disk.sync_folder().unwrap();
        assert_eq!(crashed(&disk, false).into_keys().collect::<Vec<_>>(), ["new"]);
    }

    #[test]
    fn a_truncation_is_durable_once_it_is_synced() {
        let (disk, file) = disk_with("a", &[1; 700]);
        file.truncate(600).unwrap();
        assert_eq!(crashed(&disk, false)["a"], [1; 700]);
        assert_eq!(crashed(&disk, true)["a"], [1; 600]);
        file.sync().unwrap();
        assert_eq!(crashed(&disk, false)["a"], [1; 600]);
    }

    #[test]
    fn a_write_that_fails_has_written_a_part() {
        let (disk, file) = disk_with("a", b"");
        disk.set_fault(|_| Err(io::Error::other("EIO")));
        assert!(file.write_at(b"half", 0).is_err());
        assert_eq!(disk.contents()["a"], b"ha");
    }
}
