//! What people ask of a bus that runs, and what they tell it.
//!
//! Promises: what is looked at is looked at while the lanes run, without a pause; what changes something is done by the
//! lane itself between two calls, in one unit, and answered when that is durable. Who asks again after an answer that
//! was lost does no harm: a dead letter is redriven once.
//! Must not know: gRPC, the command line.

pub(super) mod collect;
mod committed;
pub(super) mod counted;
pub(super) mod error;
mod find;
pub(super) mod letters;
pub(super) mod listings;
pub(super) mod moving;
pub(super) mod pending;
mod places;
pub mod shadow;
pub mod snapshots;
pub mod trace;
pub(super) mod versions;
