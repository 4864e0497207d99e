//! Every Unix.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Makes the files of a folder and their names durable, one by one. A write that failed before, of a file that was
/// closed since, is not reported: only Linux remembers it.
pub(in crate::effects) fn sync_all(folder: &File, path: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if !entry.file_type()?.is_file() {
            continue;
        }
        match File::open(entry.path()) {
            Ok(file) => file.sync_all()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {} // removed meanwhile
            Err(error) => return Err(error),
        }
    }
    folder.sync_all()
}

/// Does nothing: the system writes when it likes, and a sync takes longer.
pub(in crate::effects) fn start_writing(_: &File, _: u64, _: u64) {}

/// Makes a file this long, if it is shorter. No room is reserved: a later write may find none.
pub(in crate::effects) fn allocate(file: &File, length: u64) -> io::Result<()> {
    file.set_len(length.max(file.metadata()?.len()))
}

/// Time since some moment. On macOS it also counts while the machine is suspended; elsewhere it may not.
pub(in crate::effects) fn elapsed() -> Duration {
    let since = clock_gettime(ClockId::Monotonic);
    Duration::new(since.tv_sec as u64, since.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_a_folder_are_synced_and_one_that_cannot_be_is_an_error() {
        let home = tempfile::TempDir::new().unwrap();
        let folder = File::open(home.path()).unwrap();
        std::fs::write(home.path().join("a"), "a").unwrap();
        std::fs::create_dir(home.path().join("below")).unwrap();
        sync_all(&folder, home.path()).unwrap();
        assert!(sync_all(&folder, &home.path().join("missing")).is_err());
    }

    #[test]
    fn a_file_gets_longer_and_never_shorter() {
        let file = tempfile::tempfile().unwrap();
        for (length, expected) in [(0, 0), (100, 100), (7, 100), (101, 101)] {
            allocate(&file, length).unwrap();
            assert_eq!(file.metadata().unwrap().len(), expected);
        }
        start_writing(&file, 0, 101);
    }

    #[test]
    fn time_passes() {
        let before = elapsed();
        std::thread::sleep(Duration::from_millis(2));
        assert!(elapsed() >= before + Duration::from_millis(2));
    }
}
