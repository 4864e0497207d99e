//! Engines: what each promises, what the journal promises when disk, process or machine fail, and the formats on disk.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

mod conformance;
mod engine;
mod formats;
mod journal;
