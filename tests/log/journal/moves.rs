//! What a move asks of the disk.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wattle::effects::memory::Operation;
use wattle::effects::{Disk, DiskFile, MemoryDisk, Space};
use wattle::log::{Durability, Log, LogOptions};
use wattle::model::PartitionId;

use super::support::{P, Ticks, options, slices};

/// How often segments are opened or made, written, begun to be written to the disk, and asked how long they are.
#[derive(Debug, Default)]
struct Asked {
    opened: AtomicUsize,
    written: AtomicUsize,
    begun: AtomicUsize,
    measured: AtomicUsize,
}

impl Asked {
    fn take(&self) -> [usize; 4] {
        [&self.opened, &self.written, &self.begun, &self.measured].map(|count| count.swap(0, Ordering::Relaxed))
    }
}

struct Counting(MemoryDisk, Arc<Asked>);

impl Counting {
    fn file(&self, name: &str, file: io::Result<Box<dyn DiskFile>>) -> io::Result<Box<dyn DiskFile>> {
        let file = file?;
        if !name.starts_with("segment-") {
            return Ok(file);
        }
        self.1.opened.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(CountingFile(file, self.1.clone())))
    }
}

impl Disk for Counting {
    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.file(name, self.0.open(name))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.file(name, self.0.create(name))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.0.sync_folder()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn space(&self) -> io::Result<Space> {
        self.0.space()
    }
}

struct CountingFile(Box<dyn DiskFile>, Arc<Asked>);

impl DiskFile for CountingFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.0.read_at(buffer, position)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.1.written.fetch_add(1, Ordering::Relaxed);
        self.0.write_at(bytes, position)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn start_writing(&self, position: u64, length: u64) {
        self.1.begun.fetch_add(1, Ordering::Relaxed);
        self.0.start_writing(position, length);
    }

    fn length(&self) -> io::Result<u64> {
        self.1.measured.fetch_add(1, Ordering::Relaxed);
        self.0.length()
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        self.0.allocate(length)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.0.truncate(length)
    }
}

#[test]
fn the_disk_begins_to_write_a_segment_by_bytes_and_not_with_each_move() {
    const PARTITIONS: u32 = 1_000;
    let asked = Arc::new(Asked::default());
    let disk = Counting(MemoryDisk::default(), asked.clone());
    let options = LogOptions { recent_bytes_max: 0, checkpoint_bytes: 1 << 30, ..options() };
    let (log, _, mut stepper) = Log::open_stepped(Arc::new(disk), Arc::new(Ticks::default()), options).unwrap();
    let partition = |partition| PartitionId { topic: P.topic, partition };
    let mut step = |log: &Log, events: &[(PartitionId, &[u8])]| {
        drop(log.append(slices(events)).unwrap());
        stepper.append();
        stepper.sync();
        assert!(stepper.move_out());
        asked.take()
    };
    let small: Vec<(PartitionId, &[u8])> =
        (0..PARTITIONS).map(|number| (partition(number), [7; 2_000].as_slice())).collect();
    for round in 0..10 {
        assert_eq!(step(&log, &small), [1_000, 1_000, 0, 0], "in round {round} each has little");
    }
    // one has much, by and by
    let much = [7; 30_000];
    let begun: usize = (0..20).map(|_| step(&log, &[(partition(0), &much)])[2]).sum();
    assert!((6..=10).contains(&begun), "600 KB are begun in parts of 64 KiB: {begun}");
    assert_eq!(step(&log, &[(partition(1), &[7; 100_000])]), [1, 1, 1, 0], "much at once");
}

/// How often segments, the folder, and everything are synced.
fn syncs_of(disk: &MemoryDisk) -> Arc<[AtomicUsize; 3]> {
    let counts: Arc<[AtomicUsize; 3]> = Arc::default();
    let count = counts.clone();
    disk.set_fault_on(move |name, operation| {
        let at = match operation {
            Operation::Sync if name.starts_with("segment-") => 0,
            Operation::SyncFolder => 1,
            Operation::SyncAll => 2,
            _ => return Ok(()),
        };
        count[at].fetch_add(1, Ordering::Relaxed);
        Ok(())
    });
    counts
}

#[test]
fn a_checkpoint_syncs_the_segments_that_changed_and_everything_only_where_they_are_many() {
    let take = |counts: &[AtomicUsize; 3]| [0, 1, 2].map(|at: usize| counts[at].swap(0, Ordering::Relaxed));
    for durability in [Durability::Sync, Durability::Os] {
        let disk = MemoryDisk::default();
        let options = LogOptions { durability, ..options() };
        let (log, _, mut stepper) =
            Log::open_stepped(Arc::new(disk.clone()), Arc::new(Ticks::default()), options).unwrap();
        let partition = |partition| PartitionId { topic: P.topic, partition };
        let mut checkpoint = |partitions: u32| {
            let events: Vec<(PartitionId, &[u8])> =
                (0..partitions).map(|number| (partition(number), b"x".as_slice())).collect();
            drop(log.append(slices(&events)).unwrap());
            stepper.append();
            stepper.sync();
            let counts = syncs_of(&disk);
            assert!(stepper.checkpoint());
            take(&counts)
        };
        if durability == Durability::Os {
            assert_eq!(checkpoint(3), [0, 0, 1], "the journal may not be durable either");
            continue;
        }
        assert_eq!(checkpoint(3), [3, 1, 0], "three, and their names");
        assert_eq!(checkpoint(2), [2, 0, 0], "two of them, whose names are durable");
        assert_eq!(checkpoint(1_000), [0, 0, 1]);
        assert_eq!(checkpoint(5), [5, 0, 0], "as before");
    }
}
