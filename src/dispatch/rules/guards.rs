//! The state that an event brings to its key under its topic's `lifecycle:`. Whether the transition is allowed is
//! decided when the event is appended.

use std::sync::Arc;

use super::keys;
use crate::dispatch::rules::names::shown;
use crate::engine::{Diversion, Guard};
use crate::model::{EventView, PartitionId, TopicId};
use crate::topology::{LifecyclePlan, OutOfOrder};

/// Why an event has no valid state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateUnknown {
    /// The expression yields no state.
    #[error("the lifecycle of the topic cannot tell its state: {0}")]
    NoState(String),
    /// The state is not part of the lifecycle.
    #[error("`{state}` is no state of the topic's lifecycle, which has {known}")]
    NotOne {
        state: String,
        /// The states of the lifecycle.
        known: String,
    },
}

/// The state of an event with this ordering key.
///
/// # Errors
/// [`StateUnknown`].
pub(crate) fn state_of(
    plan: &LifecyclePlan,
    event: &EventView<'_>,
    key: Option<&str>,
) -> Result<Arc<str>, StateUnknown> {
    let state = keys::with_fields(event, key, |fields| plan.state.evaluate(fields));
    let state = state.map_err(|error| StateUnknown::NoState(error.to_string()))?;
    plan.lifecycle.state(&state).ok_or_else(|| {
        let known: Vec<_> = plan.lifecycle.states().into_iter().map(|known| format!("`{known}`")).collect();
        StateUnknown::NotOne { state: shown(&state), known: known.join(", ") }
    })
}

/// The guard of a topic, with its hidden topics.
#[derive(Debug, Clone)]
pub struct TopicGuard {
    pub(crate) plan: LifecyclePlan,
    /// The hidden topic of events that are held until their transition is allowed.
    pub(crate) held: TopicId,
    /// The hidden topic of events that are refused after their publish request was answered.
    pub(crate) refused: TopicId,
    /// The topic to which events out of order are diverted, with its full name.
    pub(crate) diverted: Option<(TopicId, Arc<str>)>,
}

impl TopicGuard {
    /// The guard for a record of a partition that brings a state.
    pub(crate) fn of(&self, partition: u32, key: &str, state: Arc<str>, of: u32) -> Guard {
        let at = |topic| PartitionId { topic, partition };
        let aside = match (self.plan.out_of_order, &self.diverted) {
            (OutOfOrder::Hold(hold), _) => Some(Diversion { to: at(self.held), held_max: Some(hold.max) }),
            (OutOfOrder::Divert, Some((topic, _))) => Some(Diversion { to: at(*topic), held_max: None }),
            (OutOfOrder::Divert | OutOfOrder::Refuse, _) => None,
        };
        Guard::new(key, state, of).or_aside(aside).with_held_in(at(self.held))
    }
}
