//! The disk, the clock and randomness, behind one small interface, so that a simulation can stand in for them.
//!
//! Promises: nothing else in the bus that decides what is kept reads the disk or the wall clock in another way.
//! Must not know: what is written, or why.

mod looked_at;
pub mod memory;
mod real;
mod watched;

use std::io;

use bytes::Bytes;

pub use looked_at::LookedAt;
pub use memory::{ManualClock, MemoryDisk};
pub use real::{
    DiskFolder, FILE_MODE, FOLDER_MODE, SystemClock, create_new_private, create_private, random, write_private,
};
pub use watched::Watched;

/// A folder of files.
pub trait Disk: Send + Sync + 'static {
    /// Names of the files in it, in no order.
    ///
    /// # Errors
    /// As the file system says.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens a file that exists, for reading and writing.
    ///
    /// # Errors
    /// As the file system says; `NotFound` where there is none.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Creates a file that does not exist, empty.
    ///
    /// # Errors
    /// As the file system says; `AlreadyExists` where there is one.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Removes a file.
    ///
    /// # Errors
    /// As the file system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Gives a file another name, in place of the file that may have had it.
    ///
    /// # Errors
    /// As the file system says; `NotFound` where there is none.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Makes creations, removals and renames durable.
    ///
    /// # Errors
    /// As the file system says. Whether they are durable is unknown then: do not try again.
    fn sync_folder(&self) -> io::Result<()>;

    /// Makes everything durable that was written to any file of the folder, also to files that are closed again, with
    /// their lengths and names: one call, however many files there are (`syncfs`).
    ///
    /// # Errors
    /// As the file system says, also of writes since the call before. Whether earlier writes are durable is unknown
    /// then, for ever: do not try again.
    fn sync_all(&self) -> io::Result<()>;

    /// How much room there is.
    ///
    /// # Errors
    /// As the file system says.
    fn space(&self) -> io::Result<Space>;
}

/// Room on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes of the whole file system.
    pub total_bytes: u64,
    /// Bytes that this process may still fill.
    pub free_bytes: u64,
}

/// A file. Positions and lengths are in bytes.
pub trait DiskFile: Send + Sync + 'static {
    /// Reads into all of `buffer` from `position`, less only at the end of the file. Returns how many bytes.
    ///
    /// # Errors
    /// As the file system says.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;

    /// Reads `length` bytes from `position`, less only at the end of the file.
    ///
    /// # Errors
    /// As the file system says.
    fn read_bytes(&self, position: u64, length: usize) -> io::Result<Bytes> {
        let mut buffer = vec![0; length];
        let count = self.read_at(&mut buffer, position)?;
        buffer.truncate(count);
        Ok(buffer.into())
    }

    /// Writes all of `bytes` at `position`.
    ///
    /// # Errors
    /// As the file system says; any part may have been written then.
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()>;

    /// Makes what was written durable, with the length (`fdatasync`).
    ///
    /// # Errors
    /// As the file system says. Whether earlier writes are durable is unknown then, for ever: do not try again.
    fn sync(&self) -> io::Result<()>;

    /// Lets the disk begin to write what was just written there: a hint, which promises nothing.
    fn start_writing(&self, _position: u64, _length: u64) {}

    /// Length of the file.
    ///
    /// # Errors
    /// As the file system says.
    fn length(&self) -> io::Result<u64>;

    /// Makes the file at least `length` long and takes room for all of it, zeroes where nothing was written: writes
    /// within it do not fail for want of room then, on file systems that write in place.
    ///
    /// # Errors
    /// As the file system says; `StorageFull` where there is no room.
    fn allocate(&self, length: u64) -> io::Result<()>;

    /// Cuts the file off at `length`.
    ///
    /// # Errors
    /// As the file system says.
    fn truncate(&self, length: u64) -> io::Result<()>;
}

/// The wall clock.
pub trait Clock: Send + Sync + 'static {
    /// Unix time in nanoseconds. May jump either way.
    fn now_ns(&self) -> u64;

    /// Time since some fixed moment in front of this process, in nanoseconds. Never jumps, and counts on while the
    /// machine is suspended.
    fn elapsed_ns(&self) -> u64;
}
