//! A disk that records how much it is given between two syncs, so that a yardstick can do exactly the same.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use crate::effects::{Disk, DiskFile, Space};

/// Bytes of each group that a disk was given between two syncs, in their order.
#[derive(Debug, Clone, Default)]
pub(super) struct Groups(Arc<Mutex<Recorded>>);

#[derive(Debug, Default)]
struct Recorded {
    unsynced: usize,
    synced: Vec<usize>,
}

impl Groups {
    /// What was recorded since the last time.
    pub(super) fn take(&self) -> Vec<usize> {
        let mut recorded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.unsynced = 0;
        std::mem::take(&mut recorded.synced)
    }

    fn wrote(&self, bytes: usize) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).unsynced += bytes;
    }

    /// What is written from here on counts with the next sync, even where this one takes some of it along.
    fn syncs(&self) {
        let mut recorded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let group = std::mem::take(&mut recorded.unsynced);
        recorded.synced.push(group);
    }
}

/// A disk whose groups are recorded.
pub(super) struct Recording<D> {
    disk: D,
    groups: Groups,
}

impl<D: Disk> Recording<D> {
    pub(super) fn new(disk: D, groups: Groups) -> Self {
        Self { disk, groups }
    }

    fn file(&self, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(RecordingFile { file, groups: self.groups.clone() })
    }
}

impl<D: Disk> Disk for Recording<D> {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.file(self.disk.open(name)?))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.file(self.disk.create(name)?))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.disk.sync_folder()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.disk.sync_all()
    }

    fn space(&self) -> io::Result<Space> {
        self.disk.space()
    }
}

struct RecordingFile {
    file: Box<dyn DiskFile>,
    groups: Groups,
}

impl DiskFile for RecordingFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buffer, position)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.groups.wrote(bytes.len());
        self.file.write_at(bytes, position)
    }

    fn sync(&self) -> io::Result<()> {
        self.groups.syncs();
        self.file.sync()
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        self.file.allocate(length)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.file.truncate(length)
    }
}
