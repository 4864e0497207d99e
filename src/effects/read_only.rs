//! A read-only view of a folder: writes to its files stay in memory.
//!
//! For readers whose libraries write a little whenever they open a file, as databases do. It works on a read-only file
//! system, and changes nothing on a writable one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Disk, DiskFile, Space};

/// Bytes that are copied into memory when one of them is written.
const PAGE_BYTES: usize = 4096;

/// A read-only view of a folder.
pub struct ReadOnlyFolder {
    path: PathBuf,
}

impl ReadOnlyFolder {
    /// Opens an existing folder.
    ///
    /// # Errors
    /// I/O errors.
    pub fn open(path: &Path) -> io::Result<Self> {
        std::fs::read_dir(path)?;
        Ok(Self { path: path.to_owned() })
    }
}

fn not_written<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}

impl Disk for ReadOnlyFolder {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        Ok(std::fs::metadata(self.path.join(name))?.len())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = File::open(self.path.join(name))?;
        let length = file.metadata()?.len();
        let pages = Mutex::new(Pages { written: BTreeMap::new(), length, on_disk: length });
        Ok(Box::new(ReadOnlyFile { file, pages }))
    }

    fn create(&self, _: &str) -> io::Result<Box<dyn DiskFile>> {
        not_written()
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        not_written()
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        not_written()
    }

    fn sync_folder(&self) -> io::Result<()> {
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(())
    }

    fn space(&self) -> io::Result<Space> {
        let found = rustix::fs::statvfs(&self.path)?;
        Ok(Space { total_bytes: found.f_blocks * found.f_frsize, free_bytes: found.f_bavail * found.f_frsize })
    }
}

struct ReadOnlyFile {
    file: File,
    pages: Mutex<Pages>,
}

/// The differences from the file on the disk.
struct Pages {
    /// By number.
    written: BTreeMap<u64, Box<[u8]>>,
    length: u64,
    /// Length of the part of the file on the disk that is still valid.
    on_disk: u64,
}

impl ReadOnlyFile {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A page with its changes, zeroes after the end.
    fn page<'p>(&self, pages: &'p mut Pages, number: u64) -> io::Result<&'p mut [u8]> {
        let Pages { written, on_disk, .. } = pages;
        let page = match written.entry(number) {
            std::collections::btree_map::Entry::Occupied(page) => page.into_mut(),
            std::collections::btree_map::Entry::Vacant(place) => {
                let mut page = vec![0; PAGE_BYTES];
                let begin = number * PAGE_BYTES as u64;
                let length = usize::try_from(on_disk.saturating_sub(begin)).unwrap_or(usize::MAX).min(PAGE_BYTES);
                self.read_file(page.get_mut(..length).unwrap_or_default(), begin)?;
                place.insert(page.into())
            }
        };
        Ok(page)
    }

    fn read_file(&self, mut buffer: &mut [u8], mut position: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.file.read_at(buffer, position) {
                Ok(0) => break,
                Ok(count) => {
                    position += count as u64;
                    buffer = buffer.get_mut(count..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Splits a range by pages: the page number, the range in the page, and the range in the input.
fn pieces(position: u64, length: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = position + done as u64;
        let inside = (at % PAGE_BYTES as u64) as usize;
        let count = (PAGE_BYTES - inside).min(length - done);
        let piece = (at / PAGE_BYTES as u64, inside..inside + count, done..done + count);
        done += count;
        (count > 0).then_some(piece)
    })
}

impl DiskFile for ReadOnlyFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let pages = self.pages();
        let length = usize::try_from(pages.length.saturating_sub(position)).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = buffer.get_mut(..length).unwrap_or_default();
        buffer.fill(0);
        let stored = usize::try_from(pages.on_disk.saturating_sub(position)).unwrap_or(usize::MAX).min(length);
        self.read_file(buffer.get_mut(..stored).unwrap_or_default(), position)?;
        if pages.written.is_empty() {
            return Ok(length);
        }
        for (number, inside, place) in pieces(position, length) {
            if let Some((from, to)) =
                pages.written.get(&number).and_then(|page| page.get(inside)).zip(buffer.get_mut(place))
            {
                to.copy_from_slice(from);
            }
        }
        Ok(length)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let mut pages = self.pages();
        for (number, inside, place) in pieces(position, bytes.len()) {
            let page = self.page(&mut pages, number)?;
            if let Some((to, from)) = page.get_mut(inside).zip(bytes.get(place)) {
                to.copy_from_slice(from);
            }
        }
        pages.length = pages.length.max(position + bytes.len() as u64);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.pages().length)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        let mut pages = self.pages();
        pages.length = pages.length.max(length);
        Ok(())
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let mut pages = self.pages();
        let (number, inside) = (length / PAGE_BYTES as u64, (length % PAGE_BYTES as u64) as usize);
        drop(pages.written.split_off(&(number + u64::from(inside > 0))));
        if inside > 0 && length < pages.length {
            self.page(&mut pages, number)?.get_mut(inside..).unwrap_or_default().fill(0);
        }
        pages.length = length;
        pages.on_disk = pages.on_disk.min(length);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effects::{DiskFolder, MemoryDisk};

    #[test]
    fn what_is_written_is_read_again_and_nothing_is_changed() {
        let home = tempfile::tempdir().unwrap();
        let stored: Vec<u8> = (0..10_000_u32).map(|at| at as u8 | 1).collect();
        std::fs::write(home.path().join("file"), &stored).unwrap();
        let folder = ReadOnlyFolder::open(home.path()).unwrap();
        let (file, model) = (folder.open("file").unwrap(), MemoryDisk::default().create("file").unwrap());
        model.write_at(&stored, 0).unwrap();
        let mut state = 3_u64;
        let mut next = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for step in 0..3_000_u64 {
            let (at, length) = (next(30_000), next(9_000));
            match next(20) {
                0 => [&file, &model].map(|of| of.truncate(at).unwrap()),
                1 => [&file, &model].map(|of| of.allocate(at).unwrap()),
                2..8 => [&file, &model].map(|of| of.write_at(&vec![step as u8; length as usize], at).unwrap()),
                _ => {
                    let read = |of: &dyn DiskFile| of.read_bytes(at, length as usize).unwrap();
                    assert_eq!(read(&*file), read(&*model), "step {step}");
                    [(), ()]
                }
            };
            assert_eq!(file.length().unwrap(), model.length().unwrap(), "step {step}");
        }
        file.sync().unwrap();
        assert_eq!(std::fs::read(home.path().join("file")).unwrap(), stored);
        assert!(folder.create("other").is_err() && folder.remove("file").is_err());
        assert_eq!(folder.list().unwrap(), DiskFolder::create(home.path()).unwrap().list().unwrap());
    }
}
