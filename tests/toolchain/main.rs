//! `wattle new` and `wattle build` in every language: what is written builds, runs and is the same each time, and where
//! a tool is missing, the error says how to install it.
//!
//! A language whose tools are not on this machine is skipped, with a line on standard error that nothing swallows.
//! `cargo xtask test` installs them and requires them: there a language is skipped only where it is named.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]
#![allow(clippy::disallowed_methods, reason = "a test waits for its own tasks and threads, and may look at the time")]
#![allow(clippy::explicit_write, reason = "the test runner swallows what `eprintln!` writes")]

#[path = "../common/mod.rs"]
mod common;

mod building;
mod developing;
mod missing;
mod projects;
