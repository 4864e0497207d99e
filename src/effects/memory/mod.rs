//! A disk in memory that can lose what was not synced: for tests of what a crash leaves behind.
//!
//! ```text
//!   write ──> contents ── sync ──> synced          what a process sees is `contents`;
//!                │                    │            what a crash leaves is `synced`, and of every block that differs
//!                └──── crash: either ─┘            and was not synced, either; or, where a test asks for it, damage
//!
//!   create, remove, rename ──> names ── sync_folder ──> synced_names        the same with names, change by change
//! ```
//!
//! Promises:
//! - Any subset of unsynced blocks survives a crash, in any order; a block is old or new, never a mixture, unless
//!   [`MemoryDisk::after_crash_with`] is told to tear, zero or garble it.
//! - A new length survives or not, whatever becomes of the blocks, until it is synced.
//! - A creation, a removal and a rename survive or not, each for itself and a rename whole, until they are synced. Only
//!   changes of one name keep their order: what follows one that is lost is lost too.
//! - After a failed sync a block counts as clean, as a page cache has it: a later sync that succeeds, of the file or of
//!   everything, says nothing of it. Only writing it again does. Other files know nothing of it. Lengths and names are
//!   what a file system journals: of those a later sync does speak.
//! - A write or an allocation that fails has done a part, also for want of room: as much as there was room for.
//! - Room is counted in blocks; what lies below a file's length never needs any. A hole is zeroes and takes room, so a
//!   longer length by [`DiskFile::truncate`] does. A file without a name keeps its room until its last handle is gone.
//! - Whoever does the same gets the same: questions come in a fixed order, and [`MemoryDisk::trace`] tells runs apart.
//!
//! Must not know: what is written, or why.

mod file;
mod folder;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use file::{File, blocks};
use folder::{Change, Folder, Names};

use super::{Clock, Disk, DiskFile, Space};

/// A clock that stands where it is put, in nanoseconds: for both times.
#[derive(Debug, Default)]
pub struct ManualClock(pub AtomicU64);

impl Clock for ManualClock {
    fn now_ns(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn elapsed_ns(&self) -> u64 {
        self.now_ns()
    }
}

/// What a disk writes whole or not at all, in bytes: the sector of disks that promise least.
pub const BLOCK_BYTES: usize = 512;

/// What a disk is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// [`DiskFile::read_at`] of so many bytes.
    Read(usize),
    /// [`DiskFile::write_at`] of so many bytes.
    Write(usize),
    /// [`DiskFile::sync`].
    Sync,
    /// [`DiskFile::truncate`].
    Truncate,
    /// [`DiskFile::allocate`] that makes the file so many bytes longer.
    Allocate(usize),
    /// [`Disk::create`].
    Create,
    /// [`Disk::remove`].
    Remove,
    /// [`Disk::rename`].
    Rename,
    /// [`Disk::sync_folder`].
    SyncFolder,
    /// [`Disk::sync_all`].
    SyncAll,
}

/// Asked before each operation, which fails where it says so, with the name of the file: the one it had before, or had
/// last where it has none any more; empty for [`Operation::SyncFolder`] and [`Operation::SyncAll`]. It may also wait:
/// then so does whoever called.
pub type Fault = dyn Fn(&str, Operation) -> io::Result<()> + Send + Sync;

/// What a crash may take, because it was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsynced<'a> {
    /// A change of the folder. Of a rename it is the new name.
    Name {
        /// The name that appears or goes.
        name: &'a str,
        /// [`Operation::Create`], [`Operation::Remove`] or [`Operation::Rename`].
        change: Operation,
    },
    /// A block of a file.
    Block {
        /// The name under which the crash leaves the file.
        name: &'a str,
        /// Number of the block: it begins [`BLOCK_BYTES`] times as many bytes from the beginning.
        block: usize,
    },
    /// A file's length. Asked after its blocks.
    Length {
        /// The name under which the crash leaves the file.
        name: &'a str,
    },
}

/// What becomes of it. All but `Old` are `New` where it is no block that is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Survival {
    /// It is as it was written.
    New,
    /// It is as it was synced last.
    Old,
    /// So many bytes of the new block, then the old one. More than a block are a block.
    Torn(u16),
    /// The whole block is zeroes, neither old nor new.
    Zeroed,
    /// The new block, with the bit of this number flipped: bit 0 is the lowest of its first byte. Counted modulo its
    /// bits.
    Garbled(u16),
}

/// The disk. Cheap to clone: a handle.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// A file stays where it is, empty once nothing can find it any more.
    files: Vec<File>,
    /// Its files are indices into `files`.
    folder: Folder,
    capacity_bytes: Option<u64>,
    fault: Option<Arc<Fault>>,
    trace: Trace,
}

/// A hash of everything so far. What is hashed next goes on from it.
#[derive(Default, Clone, Copy)]
struct Trace(u64);

impl Hasher for Trace {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl State {
    /// A disk on which these files are durable.
    fn durable(files: impl Iterator<Item = (String, Vec<u8>)>) -> Self {
        let (mut names, mut durable) = (Names::new(), Vec::new());
        for (name, contents) in files {
            durable.push(File::durable(&name, contents));
            names.insert(name, durable.len() - 1);
        }
        Self { files: durable, folder: Folder::durable(names), ..Self::default() }
    }

    fn named(&self, name: &str) -> io::Result<usize> {
        self.folder.seen().get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn file(&mut self, file: usize) -> io::Result<&mut File> {
        self.files.get_mut(file).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change(&mut self, change: Change) {
        let names: Vec<String> = change.names().cloned().collect();
        for file in names.iter().filter_map(|name| self.folder.seen().get(name)) {
            if let Some(file) = self.files.get_mut(*file) {
                file.is_named = false;
            }
        }
        self.folder.change(change);
        for name in names {
            if let Some(file) = self.folder.seen().get(&name).and_then(|file| self.files.get_mut(*file)) {
                file.is_named = true;
                file.name = name.into();
            }
        }
    }

    fn sync_names(&mut self) {
        self.folder.sync();
        self.forget();
    }

    /// Frees the contents of files that nobody can see any more, not even after a crash.
    fn forget(&mut self) {
        let within_reach = self.folder.within_reach();
        for (index, file) in self.files.iter_mut().enumerate() {
            if !file.takes_room() && !file.contents.is_empty() && !within_reach.contains(&index) {
                *file = File::default();
            }
        }
    }

    fn free_blocks(&self) -> Option<usize> {
        let capacity = usize::try_from(self.capacity_bytes?).unwrap_or(usize::MAX) / BLOCK_BYTES;
        let lengths = self.files.iter().filter(|file| file.takes_room()).map(|file| file.contents.len());
        Some(capacity.saturating_sub(lengths.map(blocks).sum()))
    }

    /// `end`, where there is room for a file of this length to reach to it; if not, how far it can.
    fn fit(&self, length: usize, end: usize) -> Result<usize, usize> {
        let more = blocks(end).saturating_sub(blocks(length));
        if more == 0 {
            return Ok(end); // most writes: nothing is counted for them
        }
        match self.free_blocks() {
            Some(free) if more > free => Err((blocks(length) + free) * BLOCK_BYTES),
            _ => Ok(end),
        }
    }
}

impl MemoryDisk {
    /// Asks `fault` before each operation from now on, in place of whoever was asked before.
    pub fn set_fault(&self, fault: impl Fn(Operation) -> io::Result<()> + Send + Sync + 'static) {
        self.set_fault_on(move |_, operation| fault(operation));
    }

    /// The same, with the name of the file: see [`Fault`].
    pub fn set_fault_on(&self, fault: impl Fn(&str, Operation) -> io::Result<()> + Send + Sync + 'static) {
        self.state().fault = Some(Arc::new(fault));
    }

    /// Nothing fails any more, but for want of room.
    pub fn clear_fault(&self) {
        self.state().fault = None;
    }

    /// Room for so many bytes in all files together, each rounded up to whole blocks; `None`, as at first, is no limit.
    /// It may be less than is there: then nothing grows any more. It outlives a crash.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity_bytes = bytes;
    }

    /// The disk as it would be found after a crash at this moment. `keep` decides, one after the other, what of the
    /// unsynced survives. This disk goes on as if nothing had happened.
    #[must_use]
    pub fn after_crash(&self, mut keep: impl FnMut() -> bool) -> Self {
        self.after_crash_with(|_| if keep() { Survival::New } else { Survival::Old })
    }

    /// The same, where `choose` is told what it decides, and may do worse. It is asked of changes of names in the order
    /// in which they were made, but for those that follow a lost one of the same name; then of the files that are left,
    /// by name, of each its blocks and its length, as far as they are unsynced. It must not use the disk.
    #[must_use]
    pub fn after_crash_with(&self, mut choose: impl FnMut(Unsynced<'_>) -> Survival) -> Self {
        let state = self.state();
        let mut trace = state.trace;
        let mut choose = |unsynced: Unsynced<'_>| {
            let survival = choose(unsynced);
            survival.hash(&mut trace);
            survival
        };
        let names = state.folder.crash(&mut choose);
        let left = names.into_iter().filter_map(|(name, file)| {
            let contents = state.files.get(file)?.crash(&name, &mut choose);
            Some((name, contents))
        });
        let after = State { capacity_bytes: state.capacity_bytes, ..State::durable(left) };
        Self { state: Arc::new(Mutex::new(State { trace, ..after })) }
    }

    /// Flips the bits of `mask` in a byte that is durable, as age does. False if there is no such byte: it must be both
    /// synced and there to be seen.
    pub fn damage(&self, name: &str, position: u64, mask: u8) -> bool {
        self.by_hand("damage", name, position, mask, |state, file| {
            let (file, position) = (state.file(file).ok()?, usize::try_from(position).ok()?);
            let (seen, synced) = (file.contents.get_mut(position)?, file.synced.get_mut(position)?);
            *seen ^= mask;
            *synced ^= mask;
            Some(())
        })
    }

    /// Removes a file as somebody would who does it by hand, while nothing runs: no crash brings it back. Makes all
    /// other names durable. False if there is no such file.
    pub fn remove_durably(&self, name: &str) -> bool {
        self.by_hand("remove", name, 0, 0, |state, _| {
            state.change(Change::Remove(name.to_owned()));
            state.sync_names();
            Some(())
        })
    }

    /// Cuts a file off as somebody would who does it by hand: no crash brings back what is cut off. False if there is
    /// no such file, or it is shorter than `length` bytes.
    pub fn truncate_durably(&self, name: &str, length: u64) -> bool {
        self.by_hand("truncate", name, length, 0, |state, file| {
            let (file, length) = (state.file(file).ok()?, usize::try_from(length).ok()?);
            if file.contents.len() < length {
                return None;
            }
            file.truncate_durably(length);
            Some(())
        })
    }

    /// A hash of every [`Operation`] so far, in order: the file's name, where, which bytes, and what came of it; also
    /// of what the disk held at first, of what crashes left, and of what was done by hand. Two runs with the same
    /// traces did the same. Of bytes that were read only their number is in it: all that decides on them is. Nothing in
    /// it may be kept: another build may hash in another way.
    pub fn trace(&self) -> u64 {
        self.state().trace.finish()
    }

    /// Every file and its contents, as a process sees them.
    pub fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.state();
        let file = |file: &usize| state.files.get(*file).map(|file| file.contents.clone()).unwrap_or_default();
        state.folder.seen().iter().map(|(name, index)| (name.clone(), file(index))).collect()
    }

    /// A disk that holds these files, durably.
    pub fn with_contents(contents: BTreeMap<String, Vec<u8>>) -> Self {
        let mut trace = Trace::default();
        contents.hash(&mut trace);
        Self { state: Arc::new(Mutex::new(State { trace, ..State::durable(contents.into_iter()) })) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is made whole under the lock, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An operation, from the question whether it is to fail to the note of what came of it. `act` gets the answer.
    fn run(
        &self,
        (name, operation): (&str, Operation),
        (bytes, position): (&[u8], u64),
        act: impl FnOnce(&mut State, io::Result<()>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        // asked without the lock: the answer may take its time
        let fault = self.state().fault.clone();
        let answer = fault.map_or(Ok(()), |fault| fault(name, operation));
        let mut state = self.state();
        let result = act(&mut state, answer);
        (name, operation, bytes, position, result.as_ref().map_err(io::Error::kind)).hash(&mut state.trace);
        result
    }

    /// What is done to a file by hand, which is none of the disk's operations: nobody is asked.
    fn by_hand(
        &self,
        what: &str,
        name: &str,
        position: u64,
        mask: u8,
        act: impl FnOnce(&mut State, usize) -> Option<()>,
    ) -> bool {
        let mut state = self.state();
        let is_done = state.named(name).ok().and_then(|file| act(&mut state, file)).is_some();
        (what, name, position, mask, is_done).hash(&mut state.trace);
        is_done
    }

    fn handle(&self, file: usize) -> Box<dyn DiskFile> {
        Box::new(MemoryFile { disk: self.clone(), file })
    }
}

impl Disk for MemoryDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().folder.seen().keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        let file = state.named(name)?;
        let opened = state.file(file)?;
        opened.handles += 1;
        opened.take_told(); // who opens it later is not told
        drop(state);
        Ok(self.handle(file))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = self.run((name, Operation::Create), (&[], 0), |state, answer| {
            answer?;
            if state.named(name).is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let file = state.files.len();
            state.files.push(File::created());
            state.change(Change::Create(name.to_owned(), file));
            Ok(file)
        })?;
        Ok(self.handle(file))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let removed = self.run((name, Operation::Remove), (&[], 0), |state, answer| {
            answer?;
            state.named(name)?;
            state.change(Change::Remove(name.to_owned()));
            Ok(0)
        });
        removed.map(drop)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let renamed = self.run((from, Operation::Rename), (to.as_bytes(), 0), |state, answer| {
            answer?;
            state.named(from)?;
            if from != to {
                state.change(Change::Rename { from: from.to_owned(), to: to.to_owned() });
            }
            Ok(0)
        });
        renamed.map(drop)
    }

    fn sync_folder(&self) -> io::Result<()> {
        let synced = self.run(("", Operation::SyncFolder), (&[], 0), |state, answer| {
            answer?;
            state.sync_names();
            Ok(0)
        });
        synced.map(drop)
    }

    fn sync_all(&self) -> io::Result<()> {
        let synced = self.run(("", Operation::SyncAll), (&[], 0), |state, answer| {
            let sync = if answer.is_ok() { File::sync } else { File::fail_sync_all };
            state.files.iter_mut().for_each(sync);
            answer?;
            state.sync_names();
            Ok(0)
        });
        synced.map(drop)
    }

    fn space(&self) -> io::Result<Space> {
        let state = self.state();
        let total_bytes = state.capacity_bytes.unwrap_or(u64::MAX / 4);
        let free_bytes = state.free_blocks().map_or(total_bytes, |free| (free * BLOCK_BYTES) as u64);
        Ok(Space { total_bytes, free_bytes })
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    file: usize,
}

impl MemoryFile {
    fn run(
        &self,
        operation: Operation,
        bytes_at: (&[u8], u64),
        act: impl FnOnce(&mut State, io::Result<()>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let name = self.disk.state().file(self.file)?.name.clone();
        self.disk.run((&name, operation), bytes_at, act)
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if let Ok(file) = state.file(self.file) {
            file.handles = file.handles.saturating_sub(1);
            if !file.takes_room() {
                state.forget();
            }
        }
    }
}

fn index(position: u64) -> io::Result<usize> {
    usize::try_from(position).map_err(|_| io::ErrorKind::InvalidInput.into())
}

impl DiskFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.run(Operation::Read(buffer.len()), (&[], position), |state, answer| {
            answer?;
            let there = state.file(self.file)?.contents.get(index(position)?..).unwrap_or_default();
            let count = there.len().min(buffer.len());
            if let (Some(to), Some(from)) = (buffer.get_mut(..count), there.get(..count)) {
                to.copy_from_slice(from);
            }
            Ok(count)
        })
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let written = self.run(Operation::Write(bytes.len()), (bytes, position), |state, answer| {
            let start = index(position)?;
            let part = if answer.is_ok() { bytes } else { bytes.get(..bytes.len() / 2).unwrap_or_default() };
            let end = start.checked_add(part.len()).ok_or(io::ErrorKind::FileTooLarge)?;
            let length = state.file(self.file)?.contents.len();
            let (end, is_full) = match state.fit(length, end) {
                Ok(end) => (end, false),
                Err(end) => (end, true),
            };
            let part = part.get(..end.saturating_sub(start)).unwrap_or(part);
            state.file(self.file)?.write(part, start);
            answer?;
            if is_full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(part.len()) }
        });
        written.map(drop)
    }

    fn sync(&self) -> io::Result<()> {
        let synced = self.run(Operation::Sync, (&[], 0), |state, answer| {
            let file = state.file(self.file)?;
            let answer = match file.take_told() {
                true => Err(io::Error::other("a sync of the disk lost what was written here")),
                false => answer,
            };
            if answer.is_ok() {
                file.sync()
            } else {
                file.fail_sync()
            }
            answer.map(|()| 0)
        });
        synced.map(drop)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.state().file(self.file)?.contents.len() as u64)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        let more = index(length)?.saturating_sub(index(self.length()?)?);
        let allocated = self.run(Operation::Allocate(more), (&[], length), |state, answer| {
            let there = state.file(self.file)?.contents.len();
            let more = index(length)?.saturating_sub(there);
            let more = if answer.is_ok() { more } else { more / 2 };
            let fit = state.fit(there, there + more);
            let (Ok(end) | Err(end)) = fit;
            state.file(self.file)?.truncate(end);
            answer?;
            fit.map_err(|_| io::ErrorKind::StorageFull.into())
        });
        allocated.map(drop)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let truncated = self.run(Operation::Truncate, (&[], length), |state, answer| {
            answer?;
            let there = state.file(self.file)?.contents.len();
            let length = state.fit(there, index(length)?).map_err(|_| io::ErrorKind::StorageFull)?;
            state.file(self.file)?.truncate(length);
            Ok(0)
        });
        truncated.map(drop)
    }
}
