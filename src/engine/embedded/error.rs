//! Why a data folder could not be opened.

use std::io;
use std::path::PathBuf;

use crate::engine::catalogue::CatalogueError;
use crate::log::OpenError;

/// Why a data folder could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// Another process uses it.
    #[error(
        "the data folder {folder} belongs to another running bus: stop that one, or name another folder with --data"
    )]
    InUse { folder: PathBuf },
    /// It is not the data folder of a bus, and not empty.
    #[error(
        "{folder} is not the data folder of a bus, and not empty (it contains {found}): name a new folder with --data, \
         or an existing data folder; nothing was changed"
    )]
    NotOurs {
        folder: PathBuf,
        /// One of its entries.
        found: String,
    },
    /// It is the data folder of another user's bus.
    #[error(
        "the data folder {folder} belongs to another user (uid {owner}): run the bus as that user, or name another \
         folder with --data; nothing was changed"
    )]
    Stranger { folder: PathBuf, owner: u32 },
    /// An I/O error.
    #[error("cannot {what} {path}: {error}{advice}", advice = crate::log::advice(error))]
    Io {
        /// What was attempted.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The error of the file system.
        error: io::Error,
    },
    /// The journal could not be opened.
    #[error("in the data folder {folder}: {error}")]
    Log { folder: PathBuf, error: OpenError },
    /// This release cannot read the catalogue in the journal.
    #[error("in the data folder {folder}: {error}")]
    Catalogue { folder: PathBuf, error: CatalogueError },
}
