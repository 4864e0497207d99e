//! The `wattle` program, run as people and scripts run it; killed, and on disks that fail.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]
#![allow(clippy::disallowed_methods, reason = "a test waits for its own tasks and threads, and may look at the time")]

#[path = "../common/mod.rs"]
mod common;

mod applying;
mod bad_topologies;
mod bus;
mod capsules;
mod codes;
mod cut_off;
mod dev;
mod events;
#[cfg(target_os = "linux")]
mod faults;
mod fidelity;
mod help;
mod kill;
mod log;
mod logging;
mod plugins;
mod profiles;
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
mod upgrading;
mod uploading;
