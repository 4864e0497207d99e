//! The tree's promises, held against scripted handlers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

#[path = "../common"]
mod common {
    #![allow(unreachable_pub, dead_code, reason = "shared by several tests, each of which uses a part")]
    pub(crate) mod events;
    pub(crate) mod mounted;
    pub(crate) mod random;
    pub(crate) mod trees;
}

mod applying;
mod backlogs;
mod bed;
mod claiming;
mod clocks;
mod conditions;
mod crashes;
mod cut_off;
mod delays;
mod expiring;
mod failing;
mod fidelity;
mod flowing;
mod guards;
mod lives;
mod losses;
mod model;
mod pace;
mod parking;
mod pending;
mod per_key;
mod pressure;
mod promises;
mod publishing;
mod refused;
mod reloading;
mod renaming;
mod schemas;
mod script;
mod shadow;
mod shortage;
mod snapshots;
mod state;
mod status;
mod stopping;
mod together;
mod tracing;
mod waiting;
