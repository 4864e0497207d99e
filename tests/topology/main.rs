//! From the text of a topology to its plan, and everything that is refused on the way.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]
#![allow(clippy::disallowed_methods, reason = "a test waits for its own tasks and threads, and may look at the time")]

mod base;
mod cli;
mod diagnostics;
mod forest;
mod hostile;
mod kept;
mod plan;
