//! The command line: one module per command.

pub mod build;
pub mod new;
mod scaffold;
