//! What the topology says about one event. Pure: the same for a producer, a lane and an operator.

pub(super) mod delay;
pub(super) mod guards;
pub(super) mod keys;
pub(super) mod names;
pub(super) mod when;
