//! Which state an event brings to its key, by its topic's `lifecycle:`. Whether it may is decided where it gets its place.

use std::sync::Arc;

use super::keys;
use crate::model::EventView;
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
