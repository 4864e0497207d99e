//! The service and its client over a real connection.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "../common"]
mod common {
    #![allow(unreachable_pub, dead_code, reason = "shared by several tests, each of which uses a part")]
    pub(crate) mod events;
    pub(crate) mod random;
    pub(crate) mod trees;
}

mod bad_input;
mod bed;
mod budgets;
mod duplicates;
mod fuzz;
mod ports;
mod publishing;
mod reading;
mod stopping;
mod storage;
mod streams;
mod subscribers;
