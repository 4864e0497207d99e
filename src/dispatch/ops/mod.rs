//! Operations on a running bus.
//!
//! Promises: queries read while the lanes run, without pausing them; changes are made by the lane itself between two
//! calls, in one unit, and answered once they are durable. Repeating an operation after a lost answer does no harm: a
//! dead letter is redriven once. Must not know: gRPC, the command line.

pub(super) mod collect;
mod committed;
pub(super) mod counted;
pub(super) mod error;
pub(super) mod failed;
pub(super) mod letters;
pub(super) mod moving;
pub(super) mod pending;
mod places;
pub(super) mod retry_queue;
pub mod shadow;
pub mod snapshots;
pub(super) mod state;
pub(super) mod subscriber;
pub(super) mod topic;
pub mod trace;
pub(super) mod versions;
