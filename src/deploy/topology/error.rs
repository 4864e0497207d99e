//! Why a topology was not applied.

use crate::api::Digest;
use crate::deploy::error::{PluginError, not_uploaded};
use crate::deploy::record::error::StoreError;
use crate::deploy::record::proposal::ProposalError;
use crate::dispatch::{CollectError, PrepareError, StartError};

/// Maximum number of losses in a refusal, which must fit into the header of an answer.
const LOSSES_SAID: usize = 20;

/// Why a topology was not applied.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// It cannot be read: another release made it, or an item has changed.
    #[error("the topology cannot be read: {0}")]
    Unreadable(String),
    /// It is invalid on top of the applied topology.
    #[error("{}", .0.join("\n"))]
    Refused(Vec<String>),
    /// It would lose data without permission.
    #[error("this would lose data, so nothing was changed: {}; pass --allow-loss to confirm", first_of(.0))]
    Loss(Vec<String>),
    /// The applied topology is not the expected one.
    #[error(
        "the applied topology has changed, so nothing was changed: revision {is} is applied, not {expected}; {since}. \
         Run `wattle plan` again"
    )]
    Moved {
        /// The expected revision.
        expected: String,
        /// The applied revision.
        is: String,
        /// The changes in between, as a message.
        since: String,
    },
    /// The errors of all plugins.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Plugins(Vec<PluginError>),
    /// Its components were not uploaded, or were removed since.
    #[error("{}", not_uploaded(.0))]
    NotUploaded(Vec<Digest>),
    /// A new item cannot be prepared.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The disk has no room for its components.
    #[error("the disk has too little room for new versions of plugins, so nothing was changed: make room first")]
    NoRoom,
    /// It cannot be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The stored data of removed subscribers cannot be read.
    #[error(transparent)]
    Collect(#[from] CollectError),
    /// It was decided, but is only partly running.
    #[error("the topology is applied, but only partly running; restart the bus to finish: {0}")]
    Start(#[source] StartError),
    /// An earlier one was decided, but is only partly running.
    #[error("the last applied topology is only partly running: restart the bus first to finish it")]
    Unfinished,
    /// The bus is shutting down.
    #[error("the bus is shutting down")]
    Closed,
}

/// The first messages, and the number of the others.
pub(crate) fn first_of(words: &[String]) -> String {
    let (first, more) = words.split_at(words.len().min(LOSSES_SAID));
    let more = (!more.is_empty()).then(|| format!("and {} more, which `wattle plan` shows", more.len()));
    first.iter().cloned().chain(more).collect::<Vec<_>>().join("; ")
}

impl From<ProposalError> for TopologyError {
    fn from(error: ProposalError) -> Self {
        match error {
            ProposalError::Unreadable(why) => Self::Unreadable(why),
            ProposalError::Refused(why) => Self::Refused(why),
        }
    }
}
