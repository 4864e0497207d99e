//! Errors of the store of decisions.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::api::Digest;
use crate::model::units::{show_duration, show_size};

/// Why versions cannot be stored or found.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// An I/O error.
    #[error("cannot {what} in the folder of plugins: {error}")]
    Disk {
        /// What was attempted.
        what: &'static str,
        error: Arc<io::Error>,
    },
    /// The disk has no room for the component.
    #[error("the disk has too little room for another version of a plugin: make room first")]
    NoRoom,
    /// Too many uploads are not used.
    #[error(
        "uploaded components that nothing uses yet have {} of at most {}: apply or deploy them, or try again in {}, \
         when the oldest one is removed",
        show_size(*held),
        show_size(*max),
        show_duration(Duration::from_secs(wait.as_secs() + 1))
    )]
    UploadsFull {
        held: u64,
        max: u64,
        /// The time until the oldest one is removed.
        wait: Duration,
    },
    /// An earlier write failed, and the content of the disk is unknown.
    #[error(
        "a write to the folder of plugins failed ({reason}): no version is changed until the bus has been restarted"
    )]
    Poisoned { reason: String },
    /// The record is damaged.
    #[error(
        "the record of plugin versions is damaged ({why}): restore `plugins/record` of the data folder from a backup, \
         or remove it; then the files of the topology run as if for the first time"
    )]
    Damaged {
        /// What is wrong.
        why: String,
    },
    /// The values of variables are damaged.
    #[error(
        "the values of variables are damaged ({why}): restore `plugins/values` of the data folder from a backup; or \
         remove it with `plugins/topology` and `plugins/record`; then the files are applied as if for the first time"
    )]
    DamagedValues {
        /// What is wrong.
        why: String,
    },
    /// A later release wrote a record that this one cannot read.
    #[error(
        "`plugins/{file}` of the data folder was written by a later release: it has version {version}, which needs a \
         reader of version {reader}, and this release reads version {ours}. Start the release that wrote it, or a \
         later one; nothing was changed"
    )]
    Later {
        file: &'static str,
        version: u32,
        /// The earliest version of a reader.
        reader: u32,
        /// The version of this release.
        ours: u32,
    },
    /// A new record could not be parsed again.
    #[error(
        "the new content of `plugins/{file}` in the data folder could not be read again: {why}; nothing was changed"
    )]
    Unwritable { file: &'static str, why: String },
    /// The record of the applied topology is damaged.
    #[error(
        "the record of the applied topology is damaged ({why}): restore `plugins/topology` of the data folder from a \
         backup, or remove it; then the files are applied as if for the first time"
    )]
    DamagedTopology {
        /// What is wrong.
        why: String,
    },
    /// A component is missing or damaged.
    #[error("the stored component {wasm} is {what}")]
    Component {
        wasm: Digest,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl StoreError {
    /// Whether the reason is lack of room on the disk.
    pub(crate) fn is_for_room(&self) -> bool {
        match self {
            Self::NoRoom => true,
            Self::Disk { error, .. } => error.kind() == io::ErrorKind::StorageFull,
            _ => false,
        }
    }
}
