//! The topology that runs, at a start and live.
//!
//! Promises: all or nothing: a problem in any part of a topology leaves everything as it is, and what would lose data is refused
//! unless that is allowed.
//! Relies on: `versions` for the plugins that new subscribers run.
//! Must not know: which files propose.

pub(super) mod adopt;
pub(super) mod alone;
pub(super) mod apply;
pub(super) mod changes;
pub(super) mod collect;
pub(super) mod error;
pub(super) mod garbage;
pub(super) mod start;
