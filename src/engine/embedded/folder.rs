//! The data folder: its ownership, and exclusive access to it.
//!
//! ```text
//!   missing or empty ─────────────────────> marked, then used
//!   marked, or recognised by its content ─> used
//!   anything else ────────────────────────> refused; nothing is changed
//! ```
//!
//! A folder of an earlier release has no mark: it is recognised by its log, and then marked. The mark is written before
//! everything else, so that a start that was interrupted leaves a recognisable folder.
//!
//! Promises: nothing is written into a folder of another program or user. Only the owner can read its content.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::EmbeddedError;
use crate::effects::{Disk, DiskFolder, FILE_MODE, FOLDER_MODE, ReadOnlyFolder, write_private};

/// The folder inside the data folder that holds the log.
pub(super) const LOG_FOLDER: &str = "log";
/// Its name in releases in which it contained only the journal.
const EARLIER_LOG_FOLDER: &str = "journal";
/// Locked while a bus owns the data folder.
const LOCK_FILE: &str = "lock";
/// Marks a data folder.
const MARK_FILE: &str = "wattle-data";
const MARK: &str = "This is the data folder of a Wattle bus. Everything in it belongs together.\n";
/// Entries that a file system creates in its root folder.
const OF_FILE_SYSTEMS: [&str; 1] = ["lost+found"];
/// Permission bits of group and others.
const OTHERS: u32 = 0o077;

/// A data folder to which this process has exclusive access.
pub(super) struct Folder {
    /// The log in it.
    pub(super) disk: Arc<dyn Disk>,
    pub(super) lock: Option<File>,
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> EmbeddedError + use<> {
    let path = path.to_owned();
    move |error| EmbeddedError::Io { what, path, error }
}

impl Folder {
    /// Whether it contains a log. An error if that cannot be read: this user may lack the permission.
    pub(super) fn has_log(folder: &Path) -> Result<bool, EmbeddedError> {
        for log in [LOG_FOLDER, EARLIER_LOG_FOLDER] {
            match fs::metadata(folder.join(log)) {
                Ok(found) if found.is_dir() => return Ok(true),
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("look into", folder)(error));
                }
                Ok(_) | Err(_) => {}
            }
        }
        Ok(false)
    }

    pub(super) fn take(folder: &Path) -> Result<Self, EmbeddedError> {
        let is_marked = is_marked(folder)?;
        let home = DiskFolder::create(folder).map_err(failed("create", folder))?;
        keep_private(folder);
        if !is_marked {
            let mark = folder.join(MARK_FILE);
            write_private(&mark, MARK.as_bytes()).map_err(failed("write", &mark))?;
            home.sync_folder().map_err(failed("sync", folder))?;
        }
        let lock_path = folder.join(LOCK_FILE);
        let options = OpenOptions::new().create(true).write(true).truncate(false).mode(FILE_MODE).open(&lock_path);
        let lock = options.map_err(failed("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(EmbeddedError::InUse { folder: folder.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(failed("lock", &lock_path)(error)),
        }
        let (log, earlier) = (folder.join(LOG_FOLDER), folder.join(EARLIER_LOG_FOLDER));
        if earlier.is_dir() && !log.exists() {
            home.rename(EARLIER_LOG_FOLDER, LOG_FOLDER).map_err(failed("rename", &earlier))?;
            home.sync_folder().map_err(failed("sync", folder))?;
        }
        let disk = DiskFolder::create(&log).map_err(failed("create", &log))?;
        Ok(Self { disk: Arc::new(disk), lock: Some(lock) })
    }

    /// Opens a folder read-only: nothing in it is written, so it may be on a read-only file system.
    pub(super) fn look(folder: &Path) -> Result<Self, EmbeddedError> {
        let lock_path = folder.join(LOCK_FILE);
        let lock = match File::open(&lock_path) {
            // no bus was ever started on it, or the folder is a copy
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            lock => Some(lock.map_err(failed("open", &lock_path))?),
        };
        match lock.as_ref().map(File::try_lock_shared) {
            None | Some(Ok(())) => {}
            Some(Err(TryLockError::WouldBlock)) => return Err(EmbeddedError::InUse { folder: folder.to_owned() }),
            Some(Err(TryLockError::Error(error))) => return Err(failed("lock", &lock_path)(error)),
        }
        let log = [LOG_FOLDER, EARLIER_LOG_FOLDER].map(|name| folder.join(name));
        let log = log.iter().find(|path| path.is_dir()).unwrap_or(&log[0]);
        let disk = ReadOnlyFolder::open(log).map_err(failed("read", log))?;
        Ok(Self { disk: Arc::new(disk), lock })
    }
}

/// Whether a folder has our mark. An error if it is neither ours nor empty.
fn is_marked(folder: &Path) -> Result<bool, EmbeddedError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        entries => entries.map_err(failed("look into", folder))?,
    };
    let names = entries.map(|entry| Ok(entry?.file_name()));
    let names: Vec<_> = names.collect::<io::Result<_>>().map_err(failed("look into", folder))?;
    let has = |wanted: &str| names.iter().any(|name| name == wanted);
    let is_marked = has(MARK_FILE);
    let is_known = has(LOCK_FILE) && Folder::has_log(folder)? || has_files_of_log(folder);
    if !is_marked && !is_known {
        let is_free = |name: &OsStr| OF_FILE_SYSTEMS.iter().any(|of| name == *of);
        return match names.iter().find(|name| !is_free(name)) {
            None => Ok(false),
            Some(found) => Err(EmbeddedError::NotOurs {
                folder: folder.to_owned(),
                found: found.to_string_lossy().chars().take(64).collect(),
            }),
        };
    }
    let owner = fs::metadata(folder).map_err(failed("look into", folder))?.uid();
    if owner != rustix::process::geteuid().as_raw() {
        return Err(EmbeddedError::Stranger { folder: folder.to_owned(), owner });
    }
    Ok(is_marked)
}

/// Whether it contains files of a log: a folder that was copied without its lock.
fn has_files_of_log(folder: &Path) -> bool {
    let files = [LOG_FOLDER, EARLIER_LOG_FOLDER].iter().filter_map(|log| fs::read_dir(folder.join(log)).ok());
    let mut names = files.flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.any(|name| name == "state" || name.starts_with("journal-"))
}

/// Makes an existing folder accessible only to its owner.
fn keep_private(folder: &Path) {
    let mode = fs::metadata(folder).map(|found| found.mode()).unwrap_or(FOLDER_MODE);
    if mode & OTHERS == 0 {
        return;
    }
    if let Err(error) = fs::set_permissions(folder, Permissions::from_mode(FOLDER_MODE)) {
        let folder: PathBuf = folder.to_owned();
        tracing::warn!(folder = %folder.display(), %error, "other users can read the data folder");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    fn is_refused(folder: &Path) -> bool {
        let before: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        let refused = matches!(Folder::take(folder), Err(EmbeddedError::NotOurs { .. }));
        let after: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(!refused || before == after, "nothing is changed where it is refused");
        refused
    }

    #[test]
    fn a_folder_that_is_new_empty_or_ours_is_taken_and_no_other_one() {
        let home = tempfile::tempdir().unwrap();
        let new = home.path().join("a/b");
        for _ in 0..2 {
            drop(Folder::take(&new).unwrap());
            assert_eq!([mode(&new), mode(&new.join(LOG_FOLDER))], [FOLDER_MODE; 2]);
            assert_eq!([mode(&new.join(LOCK_FILE)), mode(&new.join(MARK_FILE))], [FILE_MODE; 2]);
        }
        let mounted = home.path().join("mounted");
        fs::create_dir_all(mounted.join("lost+found")).unwrap();
        fs::set_permissions(&mounted, Permissions::from_mode(0o755)).unwrap();
        drop(Folder::take(&mounted).unwrap());
        assert_eq!(mode(&mounted), FOLDER_MODE, "only its owner can read it");

        for names in [&["passwd"][..], &["lock"], &["lock", "data/"], &["log/"], &["log/", "log/messages"], &[".git/"]]
        {
            let folder = tempfile::tempdir().unwrap();
            for name in names {
                match name.strip_suffix('/') {
                    Some(name) => fs::create_dir(folder.path().join(name)).unwrap(),
                    None => fs::write(folder.path().join(name), "").unwrap(),
                }
            }
            assert!(is_refused(folder.path()), "{names:?}");
        }
        assert!(matches!(is_marked(Path::new("/etc")), Err(EmbeddedError::NotOurs { .. })));
    }

    #[test]
    fn a_folder_of_an_earlier_release_is_known_by_its_log_and_marked() {
        for names in [&["lock", "log/"][..], &["lock", "journal/"], &["log/", "log/journal-0000000000000000"]] {
            let folder = tempfile::tempdir().unwrap();
            for name in names {
                match name.strip_suffix('/') {
                    Some(name) => fs::create_dir(folder.path().join(name)).unwrap(),
                    None => fs::write(folder.path().join(name), "").unwrap(),
                }
            }
            drop(Folder::take(folder.path()).unwrap());
            assert!(is_marked(folder.path()).unwrap(), "{names:?}");
        }
    }

    #[test]
    fn a_start_that_broke_off_at_once_has_left_a_folder_of_ours() {
        let folder = tempfile::tempdir().unwrap();
        write_private(&folder.path().join(MARK_FILE), b"").unwrap();
        drop(Folder::take(folder.path()).unwrap());
    }
}
