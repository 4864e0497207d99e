//! Segments that were written since the last checkpoint, and making them durable.
//!
//! Promises: a checkpoint waits for its own segments and for nothing that other programs write. Each file stays open from its
//! first write to its sync, which is told of every write that failed in between. Where that would be more files than
//! [`limits::UNSYNCED_FILES_MAX`], or descriptors are short, they are closed, and one sync is for the whole file system: it is
//! told of all of them too, and waits for other programs as well.
//!
//! The disk begins to write them before that, evenly: a sync of the journal, for which producers wait, also waits for whatever
//! else the disk was given by then.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;

use super::segment::{OpenSegments, SegmentId, is_out_of_descriptors};
use crate::effects::{Disk, DiskFile};
use crate::limits;

pub(super) struct Unsynced {
    files: BTreeMap<SegmentId, UnsyncedFile>,
    /// Some were closed: only a sync of everything is told of their failed writes.
    needs_all: bool,
    /// It needs that each time.
    needs_all_always: bool,
    /// Some have names that are not durable.
    has_names: bool,
    /// Which one the disk was told of last.
    begun_last: Option<SegmentId>,
}

struct UnsyncedFile {
    /// None: it was closed.
    file: Option<Box<dyn DiskFile>>,
    /// The disk was told to begin to write what lies before it.
    begun: u64,
    end: u64,
}

impl UnsyncedFile {
    /// Bytes that are worth to be begun. What is behind the last page is written to again.
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
            file.truncate(self.end)?; // left from a checkpoint that never was
        }
        Ok(())
    }
}

impl Unsynced {
    /// `needs_all`: what a checkpoint speaks of is more than segments, since the journal itself may not be durable.
    pub(super) fn new(needs_all: bool) -> Self {
        let (files, has_names) = (BTreeMap::new(), false);
        Self { files, needs_all, needs_all_always: needs_all, has_names, begun_last: None }
    }

    /// Adds to a segment, behind its first `start` bytes.
    ///
    /// # Errors
    /// As the file system says.
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
                    readers.clear(); // readers open theirs again
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
        // also where it failed: whatever was written is to be synced
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

    /// From now on only a sync of everything is told of what fails.
    fn close(&mut self) {
        self.files.values_mut().for_each(|file| file.file = None);
        self.needs_all = true;
    }

    /// Bytes that the disk can be told to begin to write.
    pub(super) fn to_begin(&self) -> u64 {
        self.files.values().map(UnsyncedFile::to_begin).sum()
    }

    /// Lets the disk begin to write about this many bytes.
    pub(super) fn begin(&mut self, bytes: u64) {
        let mut begun = 0;
        // each in its turn
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
    /// As the file system says: none of it is durable then, and it must not be tried again.
    pub(super) fn sync(&mut self, disk: &dyn Disk) -> io::Result<()> {
        if self.needs_all {
            disk.sync_all()?;
        } else {
            let files = || self.files.values().filter_map(|known| Some((known.file.as_ref()?, known)));
            for (file, known) in files().filter(|(_, known)| known.end > known.begun) {
                file.start_writing(known.begun, known.end - known.begun); // all at once
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

    /// What the disk was told to begin to write: position and length.
    #[derive(Clone, Default)]
    struct Begun(Arc<Mutex<Vec<(u64, u64)>>>);

    impl DiskFile for Begun {
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
        let mut unsynced = Unsynced::new(false);
        let begun: Vec<Begun> = (0..4).map(|_| Begun::default()).collect();
        for (number, file) in (0..).zip(&begun) {
            let id = SegmentId { partition: PartitionId { topic: TopicId(1), partition: number }, base_offset: 0 };
            // the last one has little
            let end = if number == 3 { 63 * KIB } else { 100 * KIB + 7 };
            unsynced.files.insert(id, UnsyncedFile { file: Some(Box::new(file.clone())), begun: 0, end });
        }
        let take = || begun.iter().map(|file| std::mem::take(&mut *file.0.lock().unwrap())).collect::<Vec<_>>();
        let whole = vec![(0, 100 * KIB)]; // whole pages: what is behind them is written to again
        assert_eq!(unsynced.to_begin(), 300 * KIB);
        unsynced.begin(1);
        assert_eq!(take(), [whole.clone(), vec![], vec![], vec![]]);
        // the first one has more already, and waits for the others
        unsynced.files.values_mut().next().unwrap().end = 200 * KIB;
        unsynced.begin(1);
        assert_eq!(take(), [vec![], whole.clone(), vec![], vec![]]);
        unsynced.begin(500 * KIB);
        assert_eq!(take(), [vec![(100 * KIB, 100 * KIB)], vec![], whole, vec![]]);
        assert_eq!(unsynced.to_begin(), 0);
    }
}
