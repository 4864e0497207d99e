//! Why what was decided cannot be stored or found.

use std::io;
use std::sync::Arc;

use crate::wasm::Digest;

/// Why versions cannot be kept or found.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The disk.
    #[error("cannot {what} in the folder of plugins: {error}")]
    Disk {
        /// What was to be done.
        what: &'static str,
        /// Why not.
        error: Arc<io::Error>,
    },
    /// The disk has no room for another component.
    #[error("the disk has too little room to keep another version of a plugin: make some first")]
    NoRoom,
    /// A write before failed, and what is on the disk is not known.
    #[error(
        "a write to the folder of plugins failed ({reason}): no version is changed until the bus has been restarted"
    )]
    Poisoned {
        /// Why.
        reason: String,
    },
    /// The record is not as it was written.
    #[error(
        "the record of plugin versions is damaged ({why}): put back `plugins/record` of the data folder from a backup, or \
         remove it, and the files of the topology are run as if for the first time"
    )]
    Damaged {
        /// What is wrong.
        why: String,
    },
    /// The values of variables are not as they were written.
    #[error(
        "the values of variables are damaged ({why}): put back `plugins/values` of the data folder from a backup; or remove it \
         with `plugins/topology` and `plugins/record`, and what the files say is applied as if for the first time"
    )]
    DamagedValues {
        /// What is wrong.
        why: String,
    },
    /// A later release wrote a record, and says that this one cannot read it.
    #[error(
        "`plugins/{file}` of the data folder was written by a later release: it is of version {version}, for readers of version \
         {reader} on, and this release reads version {ours}. Start the release that wrote it, or a later one; nothing was changed"
    )]
    Later {
        /// Which file.
        file: &'static str,
        /// Its version.
        version: u32,
        /// Of which version a reader has to be.
        reader: u32,
        /// Of which version this one is.
        ours: u32,
    },
    /// A record would not be read as it is to be.
    #[error(
        "`plugins/{file}` of the data folder could not be read again as it is now to be: {why}; nothing was changed"
    )]
    Unwritable {
        /// Which file.
        file: &'static str,
        /// Why.
        why: String,
    },
    /// The topology that was applied is not as it was written.
    #[error(
        "the record of the topology that was applied is damaged ({why}): put back `plugins/topology` of the data folder from \
         a backup, or remove it, and what the files say is applied as if for the first time"
    )]
    DamagedTopology {
        /// What is wrong.
        why: String,
    },
    /// A component is missing or is not as it was written.
    #[error("the component {wasm} that is kept is {what}")]
    Component {
        /// Its hash.
        wasm: Digest,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl StoreError {
    /// Whether the disk had no room for it.
    pub(crate) fn is_for_room(&self) -> bool {
        match self {
            Self::NoRoom => true,
            Self::Disk { error, .. } => error.kind() == io::ErrorKind::StorageFull,
            _ => false,
        }
    }
}
