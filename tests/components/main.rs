//! Nothing that a component says of itself costs the host more than a bound: names, sections, ports, reasons.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

#[path = "../common"]
mod common {
    #![allow(unreachable_pub, dead_code, reason = "shared by several tests, each of which uses a part")]
    pub(crate) mod components;
    pub(crate) mod guests;
    pub(crate) mod plugin_calls;
}

mod compiling;
mod fuzz;
mod names;
