//! Why a topology was not applied.

use crate::deploy::error::PluginError;
use crate::deploy::record::error::StoreError;
use crate::deploy::record::proposal::ProposalError;
use crate::dispatch::{CollectError, PrepareError, StartError};

/// Losses that a refusal says one by one: it has to fit into the head of an answer.
const LOSSES_SAID: usize = 20;

/// Why a topology was not applied.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// It cannot be read: it was not made by this release, or not as it is now.
    #[error("the topology cannot be read: {0}")]
    Unreadable(String),
    /// It cannot be.
    #[error("{}", .0.join("\n"))]
    Refused(Vec<String>),
    /// It would lose something, and nobody said that it may.
    #[error("this would lose data, so nothing was changed: {}; say --allow-loss if that is meant", first_of(.0))]
    Loss(Vec<String>),
    /// Something else is applied than what was looked at.
    #[error(
        "what is applied has changed since it was looked at, so nothing was changed: revision {is} is applied, not {expected}; \
         {since}. Look again, with `wattle plan`"
    )]
    Moved {
        /// The revision that was looked at.
        expected: String,
        /// The one that is applied.
        is: String,
        /// What has changed, in words.
        since: String,
    },
    /// Plugins, all that do not fit.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Plugins(Vec<PluginError>),
    /// What is new cannot be there.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The disk has no room for the components that it brings.
    #[error("the disk has too little room to keep other versions of plugins, so nothing was changed: make some first")]
    NoRoom,
    /// It cannot be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is kept of subscribers that are gone.
    #[error(transparent)]
    Collect(#[from] CollectError),
    /// It was decided, and does not run as a whole.
    #[error("the topology is applied, and does not run as a whole before the bus is started again: {0}")]
    Start(#[source] StartError),
    /// One before was decided, and does not run as a whole.
    #[error("the topology that was applied before does not run as a whole: start the bus again first, which runs it")]
    Unfinished,
    /// The bus is on its way down.
    #[error("the bus is shutting down")]
    Closed,
}

/// The first of some words, and how many more there are.
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
