//! What a running bus promises: the tree over scripted handlers, versions of plugins and topologies, the API.

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

mod access;
mod dispatch;
mod reload;
mod service;
