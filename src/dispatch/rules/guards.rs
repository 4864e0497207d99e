//! Which state an event brings to its key, by its topic's `lifecycle:`. Whether it may is decided where it gets its place.

use std::sync::Arc;

use super::keys;
use crate::dispatch::rules::names::shown;
use crate::engine::{Diversion, Guard};
use crate::model::{EventView, PartitionId, TopicId};
use crate::topology::{LifecyclePlan, OutOfOrder};

/// Why an event brings no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateUnknown {
    /// The expression has no answer.
    #[error("the lifecycle of the topic cannot tell its state: {0}")]
    NoState(String),
    /// It is another one.
    #[error("`{state}` is no state of the topic's lifecycle, which has {known}")]
    NotOne {
        /// The state.
        state: String,
        /// Those that there are.
        known: String,
    },
}

/// The state that an event with this ordering key brings.
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

/// The guard of a topic, and the topics beside it.
#[derive(Debug, Clone)]
pub struct TopicGuard {
    pub(crate) plan: LifecyclePlan,
    /// The hidden topic of events that are held until they may follow.
    pub(crate) held: TopicId,
    /// The hidden topic of events that are given up after their producer's request was answered.
    pub(crate) refused: TopicId,
    /// The topic that takes what may not follow, with its full name, if it says so.
    pub(crate) diverted: Option<(TopicId, Arc<str>)>,
}

impl TopicGuard {
    /// By what a record of a partition is judged that brings a state.
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
