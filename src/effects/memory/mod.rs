//! A disk in memory that can lose unsynced writes, for tests of crashes.
//!
//! ```text
//!   write ──> contents ── sync ──> synced          a process sees `contents`;
//!                │                    │            a crash leaves `synced`, and for each unsynced block that differs
//!                └──── crash: either ─┘            either version, or damage if a test requests it
//!
//!   create, remove, rename ──> names ── sync_folder ──> synced_names        the same for names, change by change
//! ```
//!
//! Promises:
//! - Any subset of unsynced blocks survives a crash, in any order; a block is old or new, never a mixture, unless
//!   [`MemoryDisk::after_crash_with`] is told to tear, zero or garble it.
//! - A new length survives or not, independently of the blocks, until it is synced.
//! - Creations, removals and renames survive or not, independently and atomically, until they are synced. Only changes
//!   of one name keep their order: if one is lost, so are the later ones.
//! - After a failed sync a block counts as clean, as in a page cache: a later successful sync, of the file or of
//!   everything, does not cover it. Only a new write does. Other files are not affected. Lengths and names are
//!   journaled by file systems: a later sync covers them.
//! - A failed write or allocation has done a part; if room is short, as much as there was room for.
//! - Room is counted in blocks; writes within a file's length need none. A hole reads as zeroes and takes room, so a
//!   longer length by [`DiskFile::truncate`] does as well. A file without a name keeps its room until its last handle
//!   is closed.
//! - Deterministic: questions come in a fixed order, and [`MemoryDisk::trace`] distinguishes runs.
//!
//! Must not know: the meaning of the bytes.

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
use folder::{NameChange, NameTable, Names};

use super::{Clock, Disk, DiskFile, Space};

/// A clock that is set by hand, in nanoseconds, for both times.
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

/// The unit that a disk writes atomically, in bytes: the smallest common sector.
pub const BLOCK_BYTES: usize = 512;

/// An operation on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// [`DiskFile::read_at`] of N bytes.
    Read(usize),
    /// [`DiskFile::write_at`] of N bytes.
    Write(usize),
    Sync,
    Truncate,
    /// [`DiskFile::allocate`] that makes the file N bytes longer.
    Allocate(usize),
    Create,
    Remove,
    Rename,
    SyncFolder,
    SyncAll,
}

/// Called before each operation, and can make it fail. Gets the file's name: before the operation, or its last one if
/// it has none any more; empty for [`Operation::SyncFolder`] and [`Operation::SyncAll`]. It may block; then the
/// operation does too.
pub type Fault = dyn Fn(&str, Operation) -> io::Result<()> + Send + Sync;

/// An unsynced change that a crash may lose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnsyncedChange<'a> {
    /// A change of the folder; for a rename, with the new name.
    Name {
        /// The name that is added or removed.
        name: &'a str,
        /// [`Operation::Create`], [`Operation::Remove`] or [`Operation::Rename`].
        change: Operation,
    },
    /// A block of a file.
    Block {
        /// The name of the file after the crash.
        name: &'a str,
        /// The index of the block, in units of [`BLOCK_BYTES`].
        block: usize,
    },
    /// A file's length. Asked after its blocks.
    Length {
        /// The name of the file after the crash.
        name: &'a str,
    },
}

/// The outcome of an unsynced change. Names and lengths are `Old` or else `New`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Survival {
    /// As written.
    New,
    /// As last synced.
    Old,
    /// The first N bytes of the new block, then the old one. More than a block means a whole block.
    Torn(u16),
    Zeroed,
    /// The new block with bit N flipped: bit 0 is the lowest of the first byte. Counted modulo the number of bits.
    Garbled(u16),
}

/// The disk. Cheap to clone: a handle.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<DiskState>>,
}

#[derive(Default)]
struct DiskState {
    /// Indices are stable: a file that nothing can find any more becomes empty.
    files: Vec<File>,
    /// Its files are indices into `files`.
    folder: NameTable,
    capacity_bytes: Option<u64>,
    fault: Option<Arc<Fault>>,
    trace: Trace,
}

/// A running hash of all operations.
#[derive(Clone, Copy, Default)]
struct Trace(u64);

impl Hasher for Trace {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl DiskState {
    /// A disk with these files, durable.
    fn durable(files: impl Iterator<Item = (String, Vec<u8>)>) -> Self {
        let (mut names, mut durable) = (Names::new(), Vec::new());
        for (name, contents) in files {
            durable.push(File::durable(&name, contents));
            names.insert(name, durable.len() - 1);
        }
        Self { files: durable, folder: NameTable::durable(names), ..Self::default() }
    }

    fn named(&self, name: &str) -> io::Result<usize> {
        self.folder.seen().get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn file(&mut self, file: usize) -> io::Result<&mut File> {
        self.files.get_mut(file).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change(&mut self, change: NameChange) {
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

    /// Frees the contents of files that no process can see any more, not even after a crash.
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

    /// Whether a file of this length has room to grow to `end`; the error is how far it can.
    fn fit(&self, length: usize, end: usize) -> Result<usize, usize> {
        let more = blocks(end).saturating_sub(blocks(length));
        if more == 0 {
            return Ok(end); // most writes: no room has to be counted
        }
        match self.free_blocks() {
            Some(free) if more > free => Err((blocks(length) + free) * BLOCK_BYTES),
            _ => Ok(end),
        }
    }
}

impl MemoryDisk {
    /// Calls `fault` before each operation from now on, instead of the previous one.
    pub fn set_fault(&self, fault: impl Fn(Operation) -> io::Result<()> + Send + Sync + 'static) {
        self.set_fault_on(move |_, operation| fault(operation));
    }

    /// As [`Self::set_fault`], with the name of the file: see [`Fault`].
    pub fn set_fault_on(&self, fault: impl Fn(&str, Operation) -> io::Result<()> + Send + Sync + 'static) {
        self.state().fault = Some(Arc::new(fault));
    }

    /// Removes the fault. Lack of room still fails.
    pub fn clear_fault(&self) {
        self.state().fault = None;
    }

    /// Limits the bytes in all files together, each rounded up to whole blocks; `None`, the default, is no limit. The
    /// limit may be less than the present use: then no file can grow. It survives a crash.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity_bytes = bytes;
    }

    /// The disk as found after a crash now. `keep` decides for each unsynced change whether it survives. This disk is
    /// not affected.
    #[must_use]
    pub fn after_crash(&self, mut keep: impl FnMut() -> bool) -> Self {
        self.after_crash_with(|_| if keep() { Survival::New } else { Survival::Old })
    }

    /// As [`Self::after_crash`], but `choose` is told the change, and can damage it. Order: changes of names as they
    /// were made, without those that follow a lost one of the same name; then for each remaining file, by name, its
    /// unsynced blocks and its length. `choose` must not use the disk.
    #[must_use]
    pub fn after_crash_with(&self, mut choose: impl FnMut(UnsyncedChange<'_>) -> Survival) -> Self {
        let state = self.state();
        let mut trace = state.trace;
        let mut choose = |unsynced: UnsyncedChange<'_>| {
            let survival = choose(unsynced);
            survival.hash(&mut trace);
            survival
        };
        let names = state.folder.crash(&mut choose);
        let left = names.into_iter().filter_map(|(name, file)| {
            let contents = state.files.get(file)?.crash(&name, &mut choose);
            Some((name, contents))
        });
        let after = DiskState { capacity_bytes: state.capacity_bytes, ..DiskState::durable(left) };
        Self { state: Arc::new(Mutex::new(DiskState { trace, ..after })) }
    }

    /// Flips the bits of `mask` in a durable byte, as bit rot does. Returns false if there is no such byte: it must be
    /// both synced and visible.
    pub fn damage(&self, name: &str, position: u64, mask: u8) -> bool {
        self.by_hand("damage", name, position, mask, |state, file| {
            let (file, position) = (state.file(file).ok()?, usize::try_from(position).ok()?);
            let (seen, synced) = (file.contents.get_mut(position)?, file.synced.get_mut(position)?);
            *seen ^= mask;
            *synced ^= mask;
            Some(())
        })
    }

    /// Removes a file durably, as an administrator would while no bus runs. Makes all other names durable. Returns
    /// false if there is no such file.
    pub fn remove_durably(&self, name: &str) -> bool {
        self.by_hand("remove", name, 0, 0, |state, _| {
            state.change(NameChange::Remove(name.to_owned()));
            state.sync_names();
            Some(())
        })
    }

    /// Truncates a file durably, as an administrator would while no bus runs. Returns false if there is no such file,
    /// or it is shorter than `length` bytes.
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

    /// A hash of every [`Operation`] so far in order, with the file's name, position, bytes and result; also of the
    /// initial content, the effects of crashes, and changes by hand. Equal traces mean equal runs. For reads, only the
    /// number of bytes is included, since the content follows from the rest. Do not store it: another build may hash
    /// differently.
    pub fn trace(&self) -> u64 {
        self.state().trace.finish()
    }

    /// Every file and its contents, as a process sees them.
    pub fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.state();
        let file = |file: &usize| state.files.get(*file).map(|file| file.contents.clone()).unwrap_or_default();
        state.folder.seen().iter().map(|(name, index)| (name.clone(), file(index))).collect()
    }

    /// A disk with these files, durable.
    pub fn with_contents(contents: BTreeMap<String, Vec<u8>>) -> Self {
        let mut trace = Trace::default();
        contents.hash(&mut trace);
        Self { state: Arc::new(Mutex::new(DiskState { trace, ..DiskState::durable(contents.into_iter()) })) }
    }

    fn state(&self) -> MutexGuard<'_, DiskState> {
        // Every change is completed under the lock, so a panic elsewhere leaves no partial change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs an operation: asks the fault, calls `act` with its answer, and records the result in the trace.
    fn run(
        &self,
        (name, operation): (&str, Operation),
        (bytes, position): (&[u8], u64),
        act: impl FnOnce(&mut DiskState, io::Result<()>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        // without the lock: the fault may block
        let fault = self.state().fault.clone();
        let answer = fault.map_or(Ok(()), |fault| fault(name, operation));
        let mut state = self.state();
        let result = act(&mut state, answer);
        (name, operation, bytes, position, result.as_ref().map_err(io::Error::kind)).hash(&mut state.trace);
        result
    }

    /// Changes a file by hand: not an operation, so the fault is not asked.
    fn by_hand(
        &self,
        what: &str,
        name: &str,
        position: u64,
        mask: u8,
        act: impl FnOnce(&mut DiskState, usize) -> Option<()>,
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

    fn length(&self, name: &str) -> io::Result<u64> {
        let mut state = self.state();
        let file = state.named(name)?;
        Ok(state.file(file)?.contents.len() as u64)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        let file = state.named(name)?;
        let opened = state.file(file)?;
        opened.handles += 1;
        opened.take_told(); // handles opened later do not get the error
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
            state.change(NameChange::Create(name.to_owned(), file));
            Ok(file)
        })?;
        Ok(self.handle(file))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let removed = self.run((name, Operation::Remove), (&[], 0), |state, answer| {
            answer?;
            state.named(name)?;
            state.change(NameChange::Remove(name.to_owned()));
            Ok(0)
        });
        removed.map(drop)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let renamed = self.run((from, Operation::Rename), (to.as_bytes(), 0), |state, answer| {
            answer?;
            state.named(from)?;
            if from != to {
                state.change(NameChange::Rename { from: from.to_owned(), to: to.to_owned() });
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
        act: impl FnOnce(&mut DiskState, io::Result<()>) -> io::Result<usize>,
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
