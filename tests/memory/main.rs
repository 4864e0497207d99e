//! What the process holds in memory. Each test runs in a process of its own, so that nothing else moves the number.

#![cfg(target_os = "linux")]
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

mod alone;
mod dispatch;
mod floods;
mod plugins;
