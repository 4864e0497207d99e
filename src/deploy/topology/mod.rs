//! The running topology, at a start and live.
//!
//! Promises: all or nothing: an error in any part of a topology changes nothing, and a loss of data is refused unless
//! it is allowed. Relies on: `versions` for the plugins of new subscribers. Must not know: which files propose.

pub(super) mod adopt;
pub(super) mod alone;
pub(super) mod apply;
pub(super) mod changes;
pub(super) mod collect;
pub(super) mod error;
pub(super) mod garbage;
pub(super) mod start;
