//! The log in a simulated world: a seed makes a whole history, several lives of one log on one disk, step by step.
//!
//! Injected: what `faults.rs` says of the disk; wall clocks that jump by hours and by years, either way; kills, clean
//! ends and losses of the power at any moment, also during a start; settings and options that change; producers that
//! send again; lanes with several owners.
//!
//! Promised, and checked against an exact model (`model.rs`) after each step and each start:
//! - What was acknowledged under [`Durability::Sync`](wattle::log::Durability), or shown outside, is there byte for
//!   byte, in its place, until it may expire (`expiry.rs`). Units are whole or absent, what is there is the beginning
//!   of what was written, and what was lost never comes back.
//! - What comes again is answered with the place of the first one, and is not stored twice. Refused are only producers
//!   that are forgotten, or may have been, and what a guard refuses.
//! - States of keys follow each other as their lifecycle says, ends are remembered for as long as it says by trusted
//!   time, and what is out of order is held, once and up to the bound, or is in the topic that it is diverted to, once
//!   (`lives.rs`); behind a refusal nothing of its stream is stored.
//! - Watermarks, epochs and append times only grow. After a failure of the disk nothing is acknowledged in that life,
//!   and reads go on. Want of room is no failure.
//! - A start never fails, unless the disk does. Damage to what was durable is refused, or costs reads of its own block
//!   only, with the name of the file; or it does no harm (`damage.rs`).
//!
//! Not promised: under `Os` and `Interval` the end of what was acknowledged may be lost, but only the end. Not
//! simulated: threads, and so races (there the log's own threads are run by `journal`); what the tail has in memory,
//! which nobody outside can see.
//!
//! `WATTLE_SIM_SEED=n` runs one seed and prints its steps. `WATTLE_SIM_SEEDS` says how many are run, from
//! `WATTLE_SIM_FIRST` on, `WATTLE_SIM_FAILURES` after how many failures to stop (1), `WATTLE_SIM_THREADS` on how many
//! threads. `cargo xtask sim` runs many.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test waits for its own tasks and threads, and may look at the time")]

mod check;
mod damage;
mod expiry;
mod faults;
mod guards;
mod history;
mod lives;
mod model;
mod notes;
mod plan;
mod random;
mod start;
mod steps;
mod trouble;
mod trust;
mod world;
