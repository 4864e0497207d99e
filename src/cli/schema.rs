//! `wattle schema`: prints the JSON Schema of topology files.

use std::io::{self, Write};
use std::process::ExitCode;

use super::check::finish;
use super::load::EXIT_OK;

/// Prints the JSON Schema of topology files, for editors.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(args: &Args) -> ExitCode {
    finish(write(args, &mut anstream::stdout().lock()))
}

/// What [`run`] does, to anything that can be written to. Returns the exit code.
///
/// # Errors
///
/// Those of writing.
pub fn write(_: &Args, out: &mut dyn Write) -> io::Result<u8> {
    write!(out, "{}", crate::topology::schema())?;
    Ok(EXIT_OK)
}
