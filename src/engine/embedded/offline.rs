//! Offline access to a data folder: verification, listing and repair.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{EmbeddedError, Folder};
use crate::effects::Disk;
use crate::log;
pub use crate::log::{FrameInfo, Inspection, RepairSummary};

/// Why an offline operation failed.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// The folder cannot be opened.
    #[error(transparent)]
    Folder(#[from] EmbeddedError),
    /// It contains no log.
    #[error("{0} is not the data folder of a bus: there is no folder `log` in it")]
    NoLog(PathBuf),
    /// The log was not repaired.
    #[error(transparent)]
    Repair(#[from] log::RepairError),
}

/// A data folder to which this process has exclusive access.
pub struct OfflineFolder {
    folder: PathBuf,
    held: Folder,
}

impl OfflineFolder {
    /// Opens an existing folder.
    ///
    /// # Errors
    /// [`OfflineError`], also if a bus is running on it.
    pub fn open(folder: &Path) -> Result<Self, OfflineError> {
        if !Folder::has_log(folder)? {
            return Err(OfflineError::NoLog(folder.to_owned()));
        }
        Ok(Self { folder: folder.to_owned(), held: Folder::take(folder)? })
    }

    /// Opens an existing folder read-only: it may be on a read-only file system.
    ///
    /// # Errors
    /// [`OfflineError`], also if a bus is running on it.
    pub fn look(folder: &Path) -> Result<Self, OfflineError> {
        if !Folder::has_log(folder)? {
            return Err(OfflineError::NoLog(folder.to_owned()));
        }
        Ok(Self { folder: folder.to_owned(), held: Folder::look(folder)? })
    }

    fn disk(&self) -> &Arc<dyn Disk> {
        &self.held.disk
    }

    fn error(&self, error: log::OpenError) -> OfflineError {
        EmbeddedError::Log { folder: self.folder.clone(), error }.into()
    }

    /// Reads everything and reports damage.
    ///
    /// # Errors
    /// [`OfflineError`] if the log cannot be opened.
    pub fn verify(&self) -> Result<Inspection, OfflineError> {
        log::verify(self.disk()).map_err(|error| self.error(error))
    }

    /// Calls `each` for the frames after the last checkpoint, until it returns false. Returns the position of the end
    /// and, if an incomplete frame begins there, its error.
    ///
    /// # Errors
    /// As [`Self::verify`].
    pub fn dump(&self, each: &mut dyn FnMut(&FrameInfo) -> bool) -> Result<(u64, Option<String>), OfflineError> {
        log::dump(self.disk(), each).map_err(|error| self.error(error))
    }

    /// Removes everything in the journal from a position on.
    ///
    /// # Errors
    /// [`OfflineError`].
    pub fn repair(&self, truncate_at: u64) -> Result<RepairSummary, OfflineError> {
        Ok(log::repair(self.disk(), truncate_at)?)
    }
}
