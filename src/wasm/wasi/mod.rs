//! The part of WASI 0.2 that the runtimes of languages import, as functions of the current event.
//!
//! No call blocks, none looks at the machine: that is what makes a replay give the same outputs. So these are our own,
//! small and synchronous, instead of the usual ones. Versions: a component's 0.2.x finds 0.2.12 here, whatever its x is.

#![allow(unreachable_pub, reason = "generated code re-exports the types of handles, which takes a `pub`")]

pub(super) mod cli;
pub(super) mod clocks;
pub(super) mod files;
pub(super) mod random;
pub(super) mod streams;
