//! Versions of plugins: which one runs, also after a crash, a bad file, and a thousand reloads.

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
    pub(crate) mod random;
    pub(crate) mod trees;
}

mod applying;
mod bad_plugins;
mod bed;
mod collecting;
mod crashes;
mod deciding;
mod declared;
mod door;
mod full;
mod random_changes;
mod records;
mod renaming;
mod scoping;
mod snapshots;
mod starting;
mod trials;
mod under_load;
mod versions;
