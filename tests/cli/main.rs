//! The `wattle` command, run as people and scripts run it.
#![cfg(unix)]

mod bus;
mod codes;
mod dev;
mod events;
mod stopping;
