//! What this machine can do without a bus: writing and syncing, and the processor time that it takes.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::effects::{Disk, DiskFile};

/// Bytes of each group that a disk was given between two syncs.
#[derive(Debug, Clone, Default)]
pub(super) struct Groups(Arc<Mutex<Recorded>>);

#[derive(Debug, Default)]
struct Recorded {
    open: usize,
    closed: Vec<usize>,
}

impl Groups {
    /// What was recorded since the last time.
    pub(super) fn take(&self) -> Vec<usize> {
        let mut recorded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.open = 0;
        std::mem::take(&mut recorded.closed)
    }

    fn wrote(&self, bytes: usize) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).open += bytes;
    }

    fn synced(&self) {
        let mut recorded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let group = std::mem::take(&mut recorded.open);
        if group > 0 {
            recorded.closed.push(group);
        }
    }
}

/// A disk that records what it is given.
pub(super) struct Recording<D> {
    pub(super) disk: D,
    pub(super) groups: Groups,
}

struct RecordingFile {
    file: Box<dyn DiskFile>,
    groups: Groups,
}

impl<D: Disk> Recording<D> {
    fn recording(&self, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(RecordingFile { file, groups: self.groups.clone() })
    }
}

impl<D: Disk> Disk for Recording<D> {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.recording(self.disk.open(name)?))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.recording(self.disk.create(name)?))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.disk.sync_folder()
    }
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
        // What is written from here on may still be part of this sync; it is counted with the next one.
        self.groups.synced();
        self.file.sync()
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.file.truncate(length)
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).open(path)
}

/// Writes groups of these sizes to a new file, each with one write and one sync. Returns how long that takes.
pub(super) fn write_and_sync(path: &Path, groups: &[usize]) -> io::Result<Duration> {
    let bytes: Vec<u8> = (0..groups.iter().copied().max().unwrap_or(0)).map(|at| (at % 251) as u8).collect();
    let mut file = create(path)?;
    let began = Instant::now();
    for group in groups {
        file.write_all(bytes.get(..*group).unwrap_or_default())?;
        file.sync_data()?;
    }
    let took = began.elapsed();
    std::fs::remove_file(path)?;
    Ok(took)
}

/// Appends and syncs `bytes` bytes so often. Returns how long each took, in milliseconds.
pub(super) fn syncs(path: &Path, bytes: usize, count: usize) -> io::Result<Vec<f64>> {
    let bytes = vec![7; bytes];
    let mut file = create(path)?;
    let mut took = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        file.write_all(&bytes)?;
        file.sync_data()?;
        took.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    std::fs::remove_file(path)?;
    Ok(took)
}

/// Ticks of `/proc/self/stat` in a second: Linux shows all programs this number, whatever it uses itself.
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor time that this process has taken so far, on all its threads.
pub(super) fn processor_seconds() -> io::Result<f64> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "/proc/self/stat is not what Linux writes");
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name of the program, in brackets, may have spaces.
    let (_, rest) = stat.rsplit_once(") ").ok_or_else(malformed)?;
    let ticks = |index| rest.split(' ').nth(index).and_then(|field: &str| field.parse::<f64>().ok());
    let (user, system) = (ticks(11).ok_or_else(malformed)?, ticks(12).ok_or_else(malformed)?);
    Ok((user + system) / TICKS_PER_SECOND)
}

/// Memory of a process that is in RAM, in bytes.
pub(super) fn resident_bytes(pid: u32) -> io::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).and_then(|kib| kib.parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no VmRSS"))
}
