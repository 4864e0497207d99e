//! What a running bus promises: the tree over scripted handlers, versions of plugins and topologies, the API.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

#[path = "../common/mod.rs"]
mod common;

mod dispatch;
mod reload;
mod service;
