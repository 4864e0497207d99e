//! Why a version does not take the place of another.

use std::path::PathBuf;

use crate::deploy::record::error::StoreError;
use crate::dispatch::{ControlError, VersionError};
use crate::wasm::{COMPONENT_BYTES_MAX, Digest, RegisterError};

/// Why a subscriber's plugin cannot run.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// Its file cannot be read.
    #[error("subscriber `{subscriber}`: cannot read its plugin {}: {error}", path.display())]
    Unreadable {
        /// The subscriber.
        subscriber: String,
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Its file is much too large.
    #[error(
        "subscriber `{subscriber}`: its plugin {} has {bytes} bytes, at most {COMPONENT_BYTES_MAX} are accepted: build it \
         in release mode and strip debug information",
        path.display()
    )]
    TooLarge {
        /// The subscriber.
        subscriber: String,
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// It has none.
    #[error("subscriber `{subscriber}`: no plugin was given for it")]
    Missing {
        /// The subscriber.
        subscriber: String,
    },
    /// A secret of its configuration cannot be read.
    #[error(
        "subscriber `{subscriber}`: cannot read the secret of `config.{name}` from {}: {why}; put the secret into that \
         file, readable for this user only",
        path.display()
    )]
    Secret {
        /// The subscriber.
        subscriber: String,
        /// The key of the configuration.
        name: String,
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// What it is told is not what it declares.
    #[error("subscriber `{subscriber}`: `config:` is not what {} declares: {}", declares(deployed.as_deref()), .misfits.join("; "))]
    Config {
        /// The subscriber.
        subscriber: String,
        /// The component that declares it, in short, where that is the deployed one and not that of the file.
        deployed: Option<String>,
        /// Everything that does not fit, in words.
        misfits: Vec<String>,
    },
    /// The version that was decided on cannot run, and there is no other.
    #[error("subscriber `{subscriber}`: what was decided before cannot run: {error}")]
    Kept {
        /// The subscriber.
        subscriber: String,
        /// Why.
        error: KeptError,
    },
    /// The sandbox refuses it.
    #[error("subscriber `{subscriber}`: its plugin {} is refused: {error}", path.display())]
    Refused {
        /// The subscriber.
        subscriber: String,
        /// The file.
        path: PathBuf,
        /// Why.
        error: RegisterError,
    },
}

impl PluginError {
    /// Whether all that is the matter is a file that is not there.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self, Self::Unreadable { error, .. } if error.kind() == std::io::ErrorKind::NotFound)
    }
}

/// What declares a configuration, in words.
pub(super) fn declares(deployed: Option<&str>) -> String {
    deployed.map_or("its plugin".to_owned(), |component| {
        format!(
            "the deployed component {component}, which the subscriber goes on with and which is not that of its file,"
        )
    })
}

/// Why a version that is kept cannot run.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// No such version is kept.
    #[error("no version {version} is kept")]
    Unknown {
        /// What was asked for.
        version: Digest,
    },
    /// The topology connects other ports.
    #[error(
        "version {} has the ports `{has}`, and the topology connects `{topology}`: they are a part of the version, and \
         change with the topology", version.short()
    )]
    Ports {
        /// The version.
        version: Digest,
        /// Its ports.
        has: String,
        /// The topology's.
        topology: String,
    },
    /// A secret cannot be read.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Source(Vec<PluginError>),
    /// The component is not there.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The sandbox refuses it now.
    #[error(transparent)]
    Refused(RegisterError),
}

/// Why a version was not reloaded. What ran before runs on.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// There is no such subscriber.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The component does not fit.
    #[error("the plugin is refused: {0}")]
    Refused(#[from] RegisterError),
    /// Its file or its secrets cannot be read, or its component does not fit.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Source(Vec<PluginError>),
    /// Its subscriber is pinned.
    #[error(
        "subscriber `{subscriber}` is pinned to version {}: `wattle plugin pin {subscriber} --off` lets other versions \
         take its place", version.short()
    )]
    Pinned {
        /// The subscriber.
        subscriber: String,
        /// The version that it is pinned to.
        version: Digest,
    },
    /// Another version was decided on than what was looked at.
    #[error(
        "version {} of `{subscriber}` is there, and not {expected}: another change came first, so nothing was changed. Look again, \
         with `wattle plugin versions {subscriber}`", is.short()
    )]
    Moved {
        /// The subscriber.
        subscriber: String,
        /// The version that was looked at, or the start of it.
        expected: String,
        /// The one that was decided on last.
        is: Digest,
    },
    /// A later one took its place before its turn.
    #[error("a later version of the plugin of `{subscriber}` has come before this one had its turn")]
    Superseded {
        /// The subscriber.
        subscriber: String,
    },
    /// There is no version to go back to.
    #[error(
        "subscriber `{subscriber}` has no version before the one that runs; `wattle plugin versions {subscriber}` lists them"
    )]
    NoneBefore {
        /// The subscriber.
        subscriber: String,
    },
    /// Not exactly one version begins so.
    #[error(
        "{count} versions of `{subscriber}` begin with {prefix:?}; `wattle plugin versions {subscriber}` lists them"
    )]
    NotOne {
        /// The subscriber.
        subscriber: String,
        /// What was asked for.
        prefix: String,
        /// How many there are.
        count: usize,
    },
    /// A version is on trial, so that it is not clear which one is meant.
    #[error("subscriber `{subscriber}` has a version on trial: say which version it is pinned to")]
    OnTrial {
        /// The subscriber.
        subscriber: String,
    },
    /// No version is on trial.
    #[error("subscriber `{subscriber}` has no version on trial; `wattle plugin versions {subscriber}` lists them")]
    NoTrial {
        /// The subscriber.
        subscriber: String,
    },
    /// A version that is kept cannot run.
    #[error(transparent)]
    Kept(#[from] KeptError),
    /// What was decided cannot be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The disk has no room for another component.
    #[error("the disk has too little room to keep another version of the plugin of `{subscriber}`: make some first")]
    NoRoom {
        /// The subscriber.
        subscriber: String,
    },
    /// It was decided, and lanes call another one.
    #[error(
        "version {} of `{subscriber}` is decided on, and lanes do not call it ({error}): the next start runs it, and \
         `wattle plugin versions {subscriber}` says what was decided", version.short()
    )]
    NotCalled {
        /// The subscriber.
        subscriber: String,
        /// The version.
        version: Digest,
        /// Why.
        error: VersionError,
    },
    /// The bus is on its way down.
    #[error("the bus is shutting down")]
    Closed,
}
