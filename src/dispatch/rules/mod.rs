//! The topology's rules for a single event. Pure: the same result for a producer, a lane and an operator.

pub(super) mod audit;
pub(super) mod delay;
pub(super) mod guards;
pub(super) mod keys;
pub(super) mod names;
pub(super) mod when;
