//! Which state an event brings to its key, by its topic's `lifecycle:`. Whether it may is decided where it gets its place.

use std::sync::Arc;

use super::keys;
use crate::engine::Aside;
use crate::model::{EventView, PartitionId, TopicId};
use crate::topology::LifecyclePlan;

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
pub(super) fn state_of(
    plan: &LifecyclePlan,
    event: &EventView<'_>,
    key: Option<&str>,
) -> Result<Arc<str>, StateUnknown> {
    let state = keys::with_fields(event, key, |fields| plan.state.evaluate(fields));
    let state = state.map_err(|error| StateUnknown::NoState(error.to_string()))?;
    plan.lifecycle.state(&state).ok_or_else(|| {
        let known: Vec<_> = plan.lifecycle.states().into_iter().map(|known| format!("`{known}`")).collect();
        StateUnknown::NotOne { state: super::publish::shown(&state), known: known.join(", ") }
    })
}

/// Where an event of a partition goes where its state may not follow now; `held` is the hidden topic for that.
pub(super) fn aside(plan: &LifecyclePlan, held: Option<TopicId>, partition: u32) -> Option<Aside> {
    let (topic, hold) = held.zip(plan.hold)?;
    Some(Aside { to: PartitionId { topic, partition }, max: hold.max })
}
