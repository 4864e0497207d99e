//! The command line: one module for each command.

pub mod build;
pub mod check;
pub mod graph;
pub mod load;
pub mod new;
mod scaffold;
pub mod schema;
