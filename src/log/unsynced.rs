//! Segments that were written since the last checkpoint, and their sync.
//!
//! Promises: a checkpoint waits only for its own segments, not for writes of other programs. Each file stays open from
//! its first write to its sync, which reports every failed write in between. Beyond [`limits::UNSYNCED_FILES_MAX`]
//! files, or if descriptors are short, the files are closed, and one sync of the whole file system is used: it also
//! reports all failures, but waits for other programs as well.
//!
//! Writeback starts before the sync, in small parts: a sync of the journal, on which acks depend, also waits for other
//! data that the disk was given before.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;

use super::segment::{OpenSegments, SegmentId, is_out_of_descriptors};
use crate::effects::{Disk, DiskFile};
use crate::limits;

pub(super) struct UnsyncedSegments {
    files: BTreeMap<SegmentId, UnsyncedFile>,
    /// Some files were closed: only a sync of the file system reports their failed writes.
    needs_all: bool,
    /// The setting requires that for each checkpoint.
    needs_all_always: bool,
    /// Some files have names that are not durable.
    has_names: bool,
    /// The file whose writeback was started last.
    begun_last: Option<SegmentId>,
}

struct UnsyncedFile {
    /// `None`: it was closed.
    file: Option<Box<dyn DiskFile>>,
    /// Writeback was started for everything before this position.
    begun: u64,
    end: u64,
}

impl UnsyncedFile {
    /// Bytes whose writeback is worth starting. The last, incomplete page will be written again.
    fn to_begin(&self) -> u64 {
        let bytes = (self.end & !(limits::PAGE_BYTES - 1)).saturating_sub(self.begun);
        if self.file.is_some() && bytes >= limits::SEGMENT_BEGIN_BYTES { bytes } else { 0 }
    }

    fn begin(&mut self) -> u64 {
        let bytes = self.to_begin();
        if let Some(file) = self.file.as_ref().filter(|_| bytes > 0) {
            file.start_writing(self.begun, bytes);
            self.begun += bytes;
        }
        bytes
    }

    fn write(&mut self, file: &dyn DiskFile, bytes: &[u8], start: u64, is_last: bool) -> io::Result<()> {
        file.write_at(bytes, start)?;
        self.end = start + bytes.len() as u64;
        if is_last && file.length()? > self.end {
            file.truncate(self.end)?; // left by a checkpoint that was not committed
        }
        Ok(())
    }
}

impl UnsyncedSegments {
    /// `needs_all`: a checkpoint must sync more than segments, because the journal itself may not be durable.
    pub(super) fn new(needs_all: bool) -> Self {
        let (files, has_names) = (BTreeMap::new(), false);
        Self { files, needs_all, needs_all_always: needs_all, has_names, begun_last: None }
    }

    /// Writes to a segment after its first `start` bytes.
    ///
    /// # Errors
    /// I/O errors.
    pub(super) fn write(
        &mut self,
        disk: &dyn Disk,
        readers: &OpenSegments,
        id: SegmentId,
        bytes: &[u8],
        (start, is_last): (u64, bool),
    ) -> io::Result<()> {
        let file = match self.files.get_mut(&id).and_then(|known| known.file.take()) {
            Some(file) => file,
            None => match self.open(disk, id, start) {
                Err(error) if is_out_of_descriptors(&error) => {
                    readers.clear(); // readers reopen theirs
                    self.close();
                    self.open(disk, id, start)?
                }
                opened => opened?,
            },
        };
        if !self.files.contains_key(&id) && self.files.len() >= limits::UNSYNCED_FILES_MAX {
            self.close();
        }
        let entry = self.files.entry(id).or_insert(UnsyncedFile { file: None, begun: start, end: start });
        let written = entry.write(file.as_ref(), bytes, start, is_last);
        // also after a failure: anything that was written must be synced
        entry.file = Some(file);
        if self.needs_all {
            entry.begin();
            entry.file = None;
        }
        written
    }

    fn open(&mut self, disk: &dyn Disk, id: SegmentId, start: u64) -> io::Result<Box<dyn DiskFile>> {
        let name = id.file_name();
        match disk.open(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && start == 0 => {
                self.has_names = true;
                disk.create(&name)
            }
            opened => opened,
        }
    }

    /// Closes the files: from now on only a sync of the file system reports failures.
    fn close(&mut self) {
        self.files.values_mut().for_each(|file| file.file = None);
        self.needs_all = true;
    }

    /// Bytes whose writeback can be started.
    pub(super) fn to_begin(&self) -> u64 {
        self.files.values().map(UnsyncedFile::to_begin).sum()
    }

    /// Starts the writeback of about this many bytes.
    pub(super) fn begin(&mut self, bytes: u64) {
        let mut begun = 0;
        // round-robin
        let behind = self.begun_last.map_or(Bound::Unbounded, Bound::Excluded);
        let up_to = self.begun_last.map_or(Bound::Excluded(SegmentId::FIRST), Bound::Included);
        for range in [(behind, Bound::Unbounded), (Bound::Unbounded, up_to)] {
            for (id, file) in self.files.range_mut(range) {
                if begun >= bytes {
                    return;
                }
                begun += file.begin();
                self.begun_last = Some(*id);
            }
        }
    }

    /// Makes all of it durable.
    ///
    /// # Errors
    /// I/O errors: nothing of it is durable then, and the sync must not be repeated.
    pub(super) fn sync(&mut self, disk: &dyn Disk) -> io::Result<()> {
        if self.needs_all {
            disk.sync_all()?;
        } else {
            let files = || self.files.values().filter_map(|known| Some((known.file.as_ref()?, known)));
            for (file, known) in files().filter(|(_, known)| known.end > known.begun) {
                file.start_writing(known.begun, known.end - known.begun); // starts all files before the first wait
            }
            files().try_for_each(|(file, _)| file.sync())?;
            if self.has_names {
                disk.sync_folder()?;
            }
        }
        *self = Self::new(self.needs_all_always);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::model::{PartitionId, TopicId};

    /// The writeback requests that a disk got: position and length.
    #[derive(Clone, Default)]
    struct WritebackRequests(Arc<Mutex<Vec<(u64, u64)>>>);

    impl DiskFile for WritebackRequests {
        fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
            Ok(0)
        }

        fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
            Ok(())
        }

        fn sync(&self) -> io::Result<()> {
            Ok(())
        }

        fn start_writing(&self, position: u64, length: u64) {
            self.0.lock().unwrap().push((position, length));
        }

        fn length(&self) -> io::Result<u64> {
            Ok(0)
        }

        fn allocate(&self, _: u64) -> io::Result<()> {
            Ok(())
        }

        fn truncate(&self, _: u64) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_disk_begins_to_write_a_part_at_a_time_and_each_file_in_its_turn() {
        const KIB: u64 = 1 << 10;
        let mut unsynced = UnsyncedSegments::new(false);
        let begun: Vec<WritebackRequests> = (0..4).map(|_| WritebackRequests::default()).collect();
        for (number, file) in (0..).zip(&begun) {
            let id = SegmentId { partition: PartitionId { topic: TopicId(1), partition: number }, base_offset: 0 };
            // the last file has only a little
            let end = if number == 3 { 63 * KIB } else { 100 * KIB + 7 };
            unsynced.files.insert(id, UnsyncedFile { file: Some(Box::new(file.clone())), begun: 0, end });
        }
        let take = || begun.iter().map(|file| std::mem::take(&mut *file.0.lock().unwrap())).collect::<Vec<_>>();
        let whole = vec![(0, 100 * KIB)]; // whole pages: the rest will be written again
        assert_eq!(unsynced.to_begin(), 300 * KIB);
        unsynced.begin(1);
        assert_eq!(take(), [whole.clone(), vec![], vec![], vec![]]);
        // the first file has more data already, but waits for the others
        unsynced.files.values_mut().next().unwrap().end = 200 * KIB;
        unsynced.begin(1);
        assert_eq!(take(), [vec![], whole.clone(), vec![], vec![]]);
        unsynced.begin(500 * KIB);
        assert_eq!(take(), [vec![(100 * KIB, 100 * KIB)], vec![], whole, vec![]]);
        assert_eq!(unsynced.to_begin(), 0);
    }
}
