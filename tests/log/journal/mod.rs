//! What the journal promises when the disk, the process or the machine lets it down.
//!
//! Frames are built here from the layout in the documentation, not with the code under test, so a change of the format
//! fails. Crashes are simulated on a disk in memory that loses any subset of what was not synced.

mod callers;
mod cold;
mod crashes;
mod damage;
mod failing_disk;
mod forgetting;
mod full_checkpoints;
mod inspection;
mod layout;
mod moves;
mod per_key;
mod recognition;
mod recovery_table;
mod retention;
mod shortage;
mod store_rows;
mod support;
mod tails;
mod unconsumed;
mod windows;
