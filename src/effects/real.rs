//! The real disk and clock.

use std::fs::{DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::{Clock, Disk, DiskFile, Space, system};

/// A folder of the file system.
pub struct DiskFolder {
    path: PathBuf,
    /// Open as long as the folder is in use: [`Disk::sync_all`] through it reports every failed write since then,
    /// whichever handle wrote it.
    folder: File,
}

impl DiskFolder {
    /// Opens a folder; creates it and its parents if necessary, durably.
    ///
    /// # Errors
    /// I/O errors.
    pub fn create(path: &Path) -> io::Result<Self> {
        create_private(path)?;
        sync_parents(path, &mut |parent| File::open(parent)?.sync_all())?;
        Ok(Self { path: path.to_owned(), folder: File::open(path)? })
    }
}

/// Data may be confidential: only the owner can access it.
pub const FOLDER_MODE: u32 = 0o700;
/// As [`FOLDER_MODE`], for files.
pub const FILE_MODE: u32 = 0o600;

/// Creates a new folder that only this user can access.
///
/// # Errors
/// I/O errors; `AlreadyExists` if it exists.
pub fn create_new_private(folder: &Path) -> io::Result<()> {
    DirBuilder::new().mode(FOLDER_MODE).create(folder)
}

/// Creates a folder and its parents, if missing, that only this user can access.
///
/// # Errors
/// I/O errors.
pub fn create_private(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)
}

/// Writes and syncs a file that only this user can access, replacing its content.
///
/// # Errors
/// I/O errors.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use io::Write as _;
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes the names of a folder and of all its parents durable: otherwise a power failure could remove them together
/// with everything inside. Existing folders are included, because an earlier start may have created them and died.
fn sync_parents(path: &Path, sync: &mut dyn FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    for parent in std::path::absolute(path)?.ancestors().skip(1) {
        match sync(parent) {
            // this process has created nothing in an inaccessible folder; some file systems cannot sync folders
            Err(error) if is_not_ours(&error) => {}
            synced => synced?,
        }
    }
    Ok(())
}

fn is_not_ours(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem, Unsupported};
    matches!(error.kind(), InvalidInput | PermissionDenied | ReadOnlyFilesystem | Unsupported)
}

impl Disk for DiskFolder {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        Ok(std::fs::metadata(self.path.join(name))?.len())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.path.join(name))?;
        Ok(Box::new(RealFile(file)))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create_new(true).mode(FILE_MODE);
        Ok(Box::new(RealFile(options.open(self.path.join(name)).map_err(as_full)?)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to)).map_err(as_full)
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.folder.sync_all()
    }

    fn sync_all(&self) -> io::Result<()> {
        system::sync_all(&self.folder, &self.path)
    }

    fn space(&self) -> io::Result<Space> {
        let found = rustix::fs::fstatvfs(&self.folder)?;
        // blocks reserved for the superuser are available only to it
        let free = if rustix::process::geteuid().is_root() { found.f_bfree } else { found.f_bavail };
        Ok(Space { total_bytes: found.f_blocks * found.f_frsize, free_bytes: free * found.f_frsize })
    }
}

/// A quota that is used up, and a limit on the size of files (`ulimit -f`), are a full disk to those who write: an
/// operator can make room, and nothing is lost meanwhile.
fn as_full(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => io::Error::new(io::ErrorKind::StorageFull, error),
        _ => error,
    }
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn read_at(&self, mut buffer: &mut [u8], mut position: u64) -> io::Result<usize> {
        let mut total = 0;
        while !buffer.is_empty() {
            match self.0.read_at(buffer, position) {
                Ok(0) => break,
                Ok(count) => {
                    total += count;
                    position += count as u64;
                    buffer = buffer.get_mut(count..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(total)
    }

    fn read_bytes(&self, position: u64, length: usize) -> io::Result<Bytes> {
        let mut buffer = Vec::with_capacity(length); // not filled with zeroes first
        while buffer.len() < length {
            let at = position + buffer.len() as u64;
            match rustix::io::pread(&self.0, rustix::buffer::spare_capacity(&mut buffer), at) {
                Ok(0) => break,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        buffer.truncate(length); // the allocator may have provided more
        Ok(buffer.into())
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, position).map_err(as_full)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn start_writing(&self, position: u64, length: u64) {
        system::start_writing(&self.0, position, length);
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        system::allocate(&self.0, length).map_err(as_full)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }
}

/// The machine's clock.
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock of the machine")]
    fn now_ns(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
    }

    fn elapsed_ns(&self) -> u64 {
        system::elapsed().as_nanos() as u64
    }
}

/// 64 unpredictable random bits.
pub fn random() -> u64 {
    // The standard library seeds its hashers from the operating system.
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_all_folders_are_made_durable_also_where_they_are_there() {
        let home = tempfile::TempDir::new().unwrap();
        let path = home.path().join("a/b/log");
        for start in 0..2 {
            DiskFolder::create(&path).unwrap();
            let mut synced = Vec::new();
            let mut sync = |parent: &Path| {
                synced.push(parent.to_owned());
                Ok(())
            };
            sync_parents(&path, &mut sync).unwrap();
            let expected = [home.path().join("a/b"), home.path().join("a"), home.path().to_owned()];
            assert_eq!(synced[..3], expected, "start {start}");
            assert_eq!(synced.last().map(PathBuf::as_path), Some(Path::new("/")));
        }
    }

    #[test]
    fn a_folder_that_may_not_be_looked_into_stops_no_start_and_a_disk_that_fails_does() {
        let refuse = |code: i32| sync_parents(Path::new("/a/b"), &mut |_| Err(io::Error::from_raw_os_error(code)));
        assert!(refuse(13).is_ok(), "EACCES");
        assert!(refuse(22).is_ok(), "EINVAL: it cannot be synced at all");
        assert!(refuse(5).is_err(), "EIO");
    }
}
