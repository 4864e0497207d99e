//! What several test programs share.

#![allow(unreachable_pub, dead_code, reason = "shared by several tests, each of which uses a part")]

pub(crate) mod components;
pub(crate) mod events;
pub(crate) mod guests;
pub(crate) mod mounted;
pub(crate) mod plugin_calls;
#[cfg(unix)]
pub(crate) mod process;
pub(crate) mod random;
pub(crate) mod states;
pub(crate) mod trees;
