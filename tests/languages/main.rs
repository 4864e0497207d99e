//! The SDKs of all languages: the conformance probe of each (`sdk/probe/README.md`) gives on a real bus what the one in
//! Rust gives, and the libraries pass their own tests.
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

#[path = "../cli/bus.rs"]
#[allow(dead_code, reason = "what the tests of commands need of a bus is more")]
mod bus;
#[path = "../common/mod.rs"]
mod common;
#[path = "../toolchain/projects.rs"]
#[allow(dead_code, reason = "new projects are tested there")]
mod projects;

mod conformance;
mod libraries;
mod probes;
mod reload;
