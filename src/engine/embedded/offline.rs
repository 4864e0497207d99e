//! A data folder that no bus uses, to be looked at and, where somebody says so, repaired.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{EmbeddedError, Folder};
use crate::effects::Disk;
use crate::log;
pub use crate::log::{FrameInfo, Inspection, Repaired};

/// Why nothing came of it.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// The folder cannot be had.
    #[error(transparent)]
    Folder(#[from] EmbeddedError),
    /// There is no log in it.
    #[error("{0} is not the data folder of a bus: there is no folder `log` in it")]
    NoLog(PathBuf),
    /// The log was not repaired.
    #[error(transparent)]
    Repair(#[from] log::RepairError),
}

/// A data folder, for as long as nobody else has it.
pub struct OfflineFolder {
    folder: PathBuf,
    held: Folder,
}

impl OfflineFolder {
    /// Takes a folder that exists.
    ///
    /// # Errors
    /// [`OfflineError`], among others where a bus is running on it.
    pub fn open(folder: &Path) -> Result<Self, OfflineError> {
        if !Folder::has_log(folder)? {
            return Err(OfflineError::NoLog(folder.to_owned()));
        }
        Ok(Self { folder: folder.to_owned(), held: Folder::take(folder)? })
    }

    /// A folder that exists, only to be looked at: it may be one in which nothing can be written.
    ///
    /// # Errors
    /// [`OfflineError`], among others where a bus is running on it.
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

    /// Reads everything there is and says what is wrong with it.
    ///
    /// # Errors
    /// [`OfflineError`] where it cannot even be opened.
    pub fn verify(&self) -> Result<Inspection, OfflineError> {
        log::verify(self.disk()).map_err(|error| self.error(error))
    }

    /// Tells of the frames that are in the journal alone, until `each` has enough. Where that ended, and why, where it
    /// was not the end of the file.
    ///
    /// # Errors
    /// As [`Self::verify`].
    pub fn dump(&self, each: &mut dyn FnMut(&FrameInfo) -> bool) -> Result<(u64, Option<String>), OfflineError> {
        log::dump(self.disk(), each).map_err(|error| self.error(error))
    }

    /// Gives up everything in the journal from a position on.
    ///
    /// # Errors
    /// [`OfflineError`].
    pub fn repair(&self, truncate_at: u64) -> Result<Repaired, OfflineError> {
        Ok(log::repair(self.disk(), truncate_at)?)
    }
}
