//! Plugins in their sandboxes: what they are given and may do, what they keep, and which components are refused.

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

mod components;
mod fidelity;
mod isolation;
mod isolation_in_a_tree;
mod messaging;
mod plugins;
mod registration;
mod scaffold;
mod shadow;
mod state;
