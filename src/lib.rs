//! Wattle: an event bus whose subscribers are WebAssembly plugins.
//!
//! A YAML *topology* declares topics and their subscribers; it must form a tree. Subscribers are sandboxed Wasm
//! components, functions from one event to the events that follow from it. Outputs, cursor and state commit together,
//! so processing is exactly once inside the tree.
//!
//! It is not a cluster, not a job scheduler, and not a database for queries. `ARCHITECTURE.md` is the map; the floors
//! that it draws, and that `tests/house/floors.rs` keeps, are the order of the modules below: each may use those under
//! it and never those above.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests of a module end with their tasks"))]

pub mod access;
pub mod api;
pub mod app;
pub mod bench;
pub mod cli;
pub mod client;
pub mod deploy;
pub mod dispatch;
pub mod effects;
pub mod engine;
pub mod limits;
pub mod log;
pub mod model;
pub mod server;
pub mod telemetry;
pub mod toolchain;
pub mod topology;
pub mod wasm;
