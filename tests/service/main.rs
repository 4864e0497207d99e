//! The service and its client over a real connection.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod bad_input;
mod bed;
mod duplicates;
mod publishing;
mod reading;
mod stopping;
mod storage;
