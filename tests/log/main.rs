//! Engines: what each promises, what the journal promises when disk, process or machine fail, and the formats on disk.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]
#![allow(clippy::disallowed_methods, reason = "a test waits for its own tasks and threads, and may look at the time")]

mod conformance;
mod engine;
mod formats;
mod journal;
