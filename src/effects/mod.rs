//! The disk, the clock and randomness, behind one small interface, so that a simulation can stand in for them.
//!
//! Promises: nothing else in the bus that decides what is kept reads the disk or the wall clock in another way.
//! Must not know: what is written, or why.

pub mod memory;
mod real;

use std::io;

pub use memory::MemoryDisk;
pub use real::{DiskFolder, SystemClock, random};

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

    /// Makes creations and removals durable.
    ///
    /// # Errors
    /// As the file system says.
    fn sync_folder(&self) -> io::Result<()>;
}

/// A file. Positions and lengths are in bytes.
pub trait DiskFile: Send + Sync + 'static {
    /// Reads into all of `buffer` from `position`, less only at the end of the file. Returns how many bytes.
    ///
    /// # Errors
    /// As the file system says.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;

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

    /// Length of the file.
    ///
    /// # Errors
    /// As the file system says.
    fn length(&self) -> io::Result<u64>;

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
}
