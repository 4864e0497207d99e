//! `wattle schema`: prints the JSON Schema of topology files, of test files, and of access files.

use std::io::{self, Write};

use super::Outcome;
use super::check::finish;
use super::load::EXIT_OK;

/// Print the JSON Schema of topology files, for editors
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct SchemaArgs {
    /// Print the schema of test files instead
    #[arg(long)]
    pub tests: bool,

    /// Print the schema of access files instead
    #[arg(long, conflicts_with = "tests")]
    pub access: bool,
}

/// Runs the command.
pub(super) fn run(args: &SchemaArgs) -> Outcome {
    finish(write(args, &mut anstream::stdout().lock()))
}

/// Writes what the command prints. Returns the exit code.
///
/// # Errors
///
/// Those of writing.
pub fn write(args: &SchemaArgs, out: &mut dyn Write) -> io::Result<u8> {
    let schema = match (args.tests, args.access) {
        (_, true) => crate::access::schema(),
        (true, false) => crate::topology::cases::schema(),
        (false, false) => crate::topology::schema(),
    };
    write!(out, "{schema}")?;
    Ok(EXIT_OK)
}
