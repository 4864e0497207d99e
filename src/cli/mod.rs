//! The command line: one module for each command.

pub mod check;
pub mod graph;
pub mod load;
pub mod schema;
