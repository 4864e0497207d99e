//! The `wattle` command, run as people and scripts run it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![cfg(unix)]

#[path = "../common"]
mod common {
    #![allow(unreachable_pub, dead_code, reason = "shared by several tests, each of which uses a part")]
    pub(crate) mod components;
    pub(crate) mod events;
    pub(crate) mod guests;
    pub(crate) mod random;
    pub(crate) mod trees;
}

mod applying;
mod bad_topologies;
mod bus;
mod capsules;
mod codes;
mod cut_off;
mod dev;
mod events;
mod fidelity;
mod log;
mod logging;
mod plugins;
mod scopes;
mod shadow;
mod silence;
mod standard_input;
mod status;
mod stopping;
mod strangers;
mod subscribers;
mod tailing;
mod terminal;
mod testing;
