//! Errors of reloads.

use std::path::PathBuf;

use crate::api::{Component, Digest};
use crate::deploy::record::error::StoreError;
use crate::dispatch::{ControlError, NameError};
use crate::engine::ApplyError;
use crate::limits::COMPONENT_BYTES_MAX;
use crate::wasm::RegisterError;

/// Maximum number of components that an error names.
const NAMED_MAX: usize = 8;

/// Why a subscriber's plugin cannot run.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// Its file cannot be read.
    #[error("subscriber `{subscriber}`: cannot read its plugin {}: {error}", path.display())]
    Unreadable { subscriber: String, path: PathBuf, error: std::io::Error },
    /// Its file is too large.
    #[error(
        "subscriber `{subscriber}`: its plugin {} has {bytes} bytes, at most {COMPONENT_BYTES_MAX} are accepted: build \
         it in release mode and strip debug information",
        path.display()
    )]
    TooLarge { subscriber: String, path: PathBuf, bytes: u64 },
    /// There is none.
    #[error("subscriber `{subscriber}`: no plugin was given for it")]
    Missing { subscriber: String },
    /// A secret of its configuration cannot be read.
    #[error(
        "subscriber `{subscriber}`: cannot read the secret of `config.{name}` from {}: {why}; put the secret into that \
         file, readable for this user only",
        path.display()
    )]
    Secret {
        subscriber: String,
        /// The key of the configuration.
        name: String,
        path: PathBuf,
        why: String,
    },
    /// The configuration does not match the schema that the component declares.
    #[error(
        "subscriber `{subscriber}`: `config:` does not match the schema of {}: {}",
        declares(deployed.as_deref()),
        .misfits.join("; ")
    )]
    Config {
        subscriber: String,
        /// The component that declares the schema, abbreviated, if it is the deployed one and not that of the file.
        deployed: Option<String>,
        /// All mismatches, as messages.
        misfits: Vec<String>,
    },
    /// The decided version cannot run, and there is no other.
    #[error("subscriber `{subscriber}`: the deployed version cannot run: {error}")]
    Kept { subscriber: String, error: StoredVersionError },
    /// The sandbox refuses it.
    #[error("subscriber `{subscriber}`: its plugin {component} is refused: {error}")]
    Refused { subscriber: String, component: Component, error: RegisterError },
    /// Its component was uploaded, and cannot be read.
    #[error("subscriber `{subscriber}`: cannot read its plugin: {error}")]
    Stored { subscriber: String, error: StoreError },
}

impl PluginError {
    /// Whether the only problem is a missing file.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self, Self::Unreadable { error, .. } if error.kind() == std::io::ErrorKind::NotFound)
    }
}

/// Which components are missing, as a message: not all of them, because it must fit into a header.
pub(super) fn not_uploaded(components: &[Digest]) -> String {
    let named: Vec<_> = components.iter().take(NAMED_MAX).map(Digest::short).collect();
    let more = components.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!(
        "component {}{more} is not stored on this bus, or not any more: upload it, as `wattle apply` and `wattle \
         plugin deploy` do, and try again",
        named.join(", ")
    )
}

/// What declares a schema, in words.
pub(super) fn declares(deployed: Option<&str>) -> String {
    deployed.map_or("its plugin".to_owned(), |component| {
        format!(
            "the deployed component {component}, which the subscriber goes on with and which is not that of its file,"
        )
    })
}

/// Why a stored version cannot run.
#[derive(Debug, thiserror::Error)]
pub enum StoredVersionError {
    /// There is no such version.
    #[error("no version {version} is kept")]
    Unknown {
        /// The requested version.
        version: Digest,
    },
    /// The topology connects other ports.
    #[error(
        "version {} has the ports `{has}`, and the topology connects `{topology}`: they are a part of the version, and \
         change with the topology", version.short()
    )]
    Ports { version: Digest, has: String, topology: String },
    /// A secret cannot be read.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Source(Vec<PluginError>),
    /// The component is missing.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The sandbox refuses it now.
    #[error(transparent)]
    Refused(RegisterError),
    /// The candidate cannot run, and the state is of a version that the stable one does not read.
    #[error("its candidate {}, which has another state version, cannot run either: {why}", candidate.short())]
    StateOfCandidate { candidate: Digest, why: String },
}

impl StoredVersionError {
    /// Whether the version can run again without another decision, once its secret or its component is repaired.
    pub(crate) fn is_repairable(&self) -> bool {
        match self {
            Self::Source(_) | Self::Store(_) | Self::Refused(_) | Self::StateOfCandidate { .. } => true,
            Self::Unknown { .. } | Self::Ports { .. } => false,
        }
    }
}

/// Why a version was not reloaded. The previous version continues to run.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The subscriber does not exist.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The component is refused.
    #[error("the plugin is refused: {0}")]
    Refused(#[from] RegisterError),
    /// Its file or its secrets cannot be read, or its component does not match.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Source(Vec<PluginError>),
    /// Components were not uploaded, or were removed since.
    #[error("{}", not_uploaded(.components))]
    NotUploaded { components: Vec<Digest> },
    /// Other bytes came than were announced.
    #[error(
        "the uploaded component has the digest {}, not {}: it was damaged on its way or changed while it was read; \
         upload it again",
        is.short(),
        component.short()
    )]
    OtherDigest {
        /// The announced digest.
        component: Digest,
        is: Digest,
    },
    /// Its subscriber is pinned.
    #[error(
        "subscriber `{subscriber}` is pinned to version {}: `wattle plugin pin {subscriber} --off` lets other versions \
         take its place", version.short()
    )]
    Pinned {
        subscriber: String,
        /// The version to which it is pinned.
        version: Digest,
    },
    /// The last decided version is not the expected one.
    #[error(
        "the last version of `{subscriber}` is {}, not {expected}: another change came first, so nothing was changed. \
         Check `wattle plugin versions {subscriber}`", is.short()
    )]
    Moved {
        subscriber: String,
        /// The expected version, or a prefix of it.
        expected: String,
        /// The version that was decided last.
        is: Digest,
    },
    /// A later one succeeded first.
    #[error("superseded by a later deploy of `{subscriber}`")]
    Superseded { subscriber: String },
    /// There is no version to return to.
    #[error(
        "subscriber `{subscriber}` has no version before the running one; `wattle plugin versions {subscriber}` lists \
         them"
    )]
    NoneBefore { subscriber: String },
    /// The prefix does not match exactly one version.
    #[error(
        "{count} versions of `{subscriber}` begin with {prefix:?}; `wattle plugin versions {subscriber}` lists them"
    )]
    NotOne {
        subscriber: String,
        prefix: String,
        /// The number of matches.
        count: usize,
    },
    /// There is a candidate, so the intended version is ambiguous.
    #[error("subscriber `{subscriber}` has a candidate: name the version to pin")]
    OnTrial { subscriber: String },
    /// There is no candidate.
    #[error("subscriber `{subscriber}` has no candidate; `wattle plugin versions {subscriber}` lists them")]
    NoTrial { subscriber: String },
    /// A stored version cannot run.
    #[error(transparent)]
    Kept(#[from] StoredVersionError),
    /// The decision cannot be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The disk has no room for the component.
    #[error("the disk has too little room for another version of the plugin of `{subscriber}`: make room first")]
    NoRoom { subscriber: String },
    /// It was decided, but lanes call another one.
    #[error(
        "version {} of `{subscriber}` is decided on, and lanes do not call it ({error}): the next start runs it, and \
         `wattle plugin versions {subscriber}` says what was decided", version.short()
    )]
    NotCalled { subscriber: String, version: Digest, error: ApplyError },
    /// The bus is shutting down.
    #[error("the bus is shutting down")]
    Closed,
}

impl From<NameError> for ReloadError {
    fn from(error: NameError) -> Self {
        Self::Control(error.into())
    }
}
