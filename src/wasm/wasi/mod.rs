//! The part of WASI 0.2 that the runtimes of languages import, and the same of 0.3 as far as it is synchronous
//! (`v0_3`), as functions of the current event.
//!
//! No call blocks or reads the machine's state: so a replay gives the same outputs. That is why these are our own
//! small, synchronous implementations instead of the usual ones. Versions: a component of any 0.2.x is linked with
//! 0.2.12, one of any 0.3.x with 0.3.0.

#![allow(unreachable_pub, reason = "generated code re-exports the types of handles, which takes a `pub`")]

pub(super) mod cli;
pub(super) mod clocks;
pub(super) mod files;
pub(super) mod random;
pub(super) mod sockets;
pub(super) mod streams;
pub(super) mod v0_3;
