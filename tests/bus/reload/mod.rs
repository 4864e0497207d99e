//! Versions of plugins: which one runs, also after a crash, a bad file, and a thousand reloads.

mod applying;
mod bad_plugins;
pub(crate) mod bed;
mod collecting;
mod compiling;
mod crashes;
mod deciding;
mod declared;
mod door;
mod full;
mod halting;
mod random_changes;
mod records;
mod renaming;
mod scoping;
mod snapshots;
mod starting;
mod trials;
mod under_load;
mod uploading;
mod versions;
