//! A disk that reports its operations, for benchmarks that repeat them without the bus.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::memory::Operation;
use super::{Disk, DiskFile, Space};

/// Called before each operation, with the name under which the file was opened, if there is one.
type Watcher = dyn Fn(&str, Operation) + Send + Sync;

/// A disk with a watcher.
pub struct WatchedDisk<D> {
    disk: D,
    watcher: Arc<Watcher>,
}

impl<D: Disk> WatchedDisk<D> {
    /// Reports the operations on `disk` to `watcher`.
    pub fn new(disk: D, watcher: impl Fn(&str, Operation) + Send + Sync + 'static) -> Self {
        Self { disk, watcher: Arc::new(watcher) }
    }

    fn file(&self, name: &str, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(WatchedFile { file, name: name.to_owned(), watcher: self.watcher.clone() })
    }
}

impl<D: Disk> Disk for WatchedDisk<D> {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        self.disk.length(name)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.file(name, self.disk.open(name)?))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        (self.watcher)(name, Operation::Create);
        Ok(self.file(name, self.disk.create(name)?))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        (self.watcher)(name, Operation::Remove);
        self.disk.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        (self.watcher)(from, Operation::Rename);
        self.disk.rename(from, to)
    }

    fn sync_folder(&self) -> io::Result<()> {
        (self.watcher)("", Operation::SyncFolder);
        self.disk.sync_folder()
    }

    fn sync_all(&self) -> io::Result<()> {
        (self.watcher)("", Operation::SyncAll);
        self.disk.sync_all()
    }

    fn space(&self) -> io::Result<Space> {
        self.disk.space()
    }
}

struct WatchedFile {
    file: Box<dyn DiskFile>,
    name: String,
    watcher: Arc<Watcher>,
}

impl DiskFile for WatchedFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        (self.watcher)(&self.name, Operation::Read(buffer.len()));
        self.file.read_at(buffer, position)
    }

    fn read_bytes(&self, position: u64, length: usize) -> io::Result<Bytes> {
        (self.watcher)(&self.name, Operation::Read(length));
        self.file.read_bytes(position, length)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        (self.watcher)(&self.name, Operation::Write(bytes.len()));
        self.file.write_at(bytes, position)
    }

    fn start_writing(&self, position: u64, length: u64) {
        self.file.start_writing(position, length);
    }

    fn sync(&self) -> io::Result<()> {
        (self.watcher)(&self.name, Operation::Sync);
        self.file.sync()
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        (self.watcher)(&self.name, Operation::Allocate(usize::try_from(length).unwrap_or(usize::MAX)));
        self.file.allocate(length)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        (self.watcher)(&self.name, Operation::Truncate);
        self.file.truncate(length)
    }
}
