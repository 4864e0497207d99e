//! The disk, the clock and randomness, behind small traits, so that a simulation can replace them; and the one place
//! where threads and untracked tasks start, except for the compiler's pool in `wasm`.
//!
//! Promises: all code that decides what is stored uses these for the disk and the wall clock. Must not know: the
//! meaning of the bytes.

pub mod memory;
mod read_only;
mod real;
mod system;
mod threads;
mod watched;

use std::io;

use bytes::Bytes;

pub use memory::{ManualClock, MemoryDisk};
pub use read_only::ReadOnlyFolder;
pub use real::{
    DiskFolder, FILE_MODE, FOLDER_MODE, SystemClock, create_new_private, create_private, random, write_private,
};
pub use threads::{task, thread};
pub use watched::WatchedDisk;

/// A folder of files.
pub trait Disk: Send + Sync + 'static {
    /// Names of the files, in any order.
    ///
    /// # Errors
    /// I/O errors.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Length of a file, without opening it where that is possible.
    ///
    /// # Errors
    /// I/O errors; `NotFound` if there is none.
    fn length(&self, name: &str) -> io::Result<u64> {
        self.open(name)?.length()
    }

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// I/O errors; `NotFound` if there is none.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Creates a new, empty file.
    ///
    /// # Errors
    /// I/O errors; `AlreadyExists` if there is one.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Removes a file.
    ///
    /// # Errors
    /// I/O errors.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Renames a file, and replaces an existing one with the new name.
    ///
    /// # Errors
    /// I/O errors; `NotFound` if there is none.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Makes creations, removals and renames durable.
    ///
    /// # Errors
    /// I/O errors. It is then unknown whether they are durable: do not repeat the call.
    fn sync_folder(&self) -> io::Result<()>;

    /// Makes all writes to files of the folder durable, also of closed files, with their lengths and names: one call
    /// for any number of files (`syncfs`).
    ///
    /// # Errors
    /// I/O errors, including those of writes since the last call. It is then unknown, for ever, whether earlier writes
    /// are durable: do not repeat the call.
    fn sync_all(&self) -> io::Result<()>;

    /// The room on the disk.
    ///
    /// # Errors
    /// I/O errors.
    fn space(&self) -> io::Result<Space>;
}

/// Room on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Size of the file system in bytes.
    pub total_bytes: u64,
    /// Bytes that this process can still use.
    pub free_bytes: u64,
}

/// A file. Positions and lengths are in bytes.
pub trait DiskFile: Send + Sync + 'static {
    /// Reads `buffer.len()` bytes from `position`, fewer only at the end of the file. Returns their number.
    ///
    /// # Errors
    /// I/O errors.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;

    /// Reads `length` bytes from `position`, fewer only at the end of the file.
    ///
    /// # Errors
    /// I/O errors.
    fn read_bytes(&self, position: u64, length: usize) -> io::Result<Bytes> {
        let mut buffer = vec![0; length];
        let count = self.read_at(&mut buffer, position)?;
        buffer.truncate(count);
        Ok(buffer.into())
    }

    /// Writes all of `bytes` at `position`.
    ///
    /// # Errors
    /// I/O errors; any part may then have been written.
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()>;

    /// Makes writes and the length durable (`fdatasync`).
    ///
    /// # Errors
    /// I/O errors. It is then unknown, for ever, whether earlier writes are durable: do not repeat the call.
    fn sync(&self) -> io::Result<()>;

    /// Starts the writeback of this range: a hint without a promise.
    fn start_writing(&self, _position: u64, _length: u64) {}

    /// Length of the file.
    ///
    /// # Errors
    /// I/O errors.
    fn length(&self) -> io::Result<u64>;

    /// Makes the file at least `length` long and allocates all of it, with zeroes: on file systems that write in place,
    /// later writes within it do not fail for lack of room.
    ///
    /// # Errors
    /// I/O errors; `StorageFull` if there is no room.
    fn allocate(&self, length: u64) -> io::Result<()>;

    /// Truncates the file to `length`.
    ///
    /// # Errors
    /// I/O errors.
    fn truncate(&self, length: u64) -> io::Result<()>;
}

/// The wall clock.
pub trait Clock: Send + Sync + 'static {
    /// Unix time in nanoseconds. May jump in either direction.
    fn now_ns(&self) -> u64;

    /// Time since some fixed moment before this process, in nanoseconds. Never jumps, and also counts while the machine
    /// is suspended.
    fn elapsed_ns(&self) -> u64;
}
