//! Why a version does not take the place of another.

use super::source::PluginError;
use super::store::StoreError;
use crate::dispatch::{ControlError, VersionError};
use crate::wasm::{Digest, RegisterError};

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
    /// A secret is another than it was.
    #[error("version {} ran with other secrets than are in their files now", version.short())]
    Secrets {
        /// The version.
        version: Digest,
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
    /// A later one came in before its turn.
    #[error("a later version of the plugin of `{subscriber}` was asked for before this one had its turn")]
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
    /// A version that is kept cannot run.
    #[error(transparent)]
    Kept(#[from] KeptError),
    /// What was decided cannot be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Lanes cannot be told.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// The bus is on its way down.
    #[error("the bus is shutting down")]
    Closed,
}
