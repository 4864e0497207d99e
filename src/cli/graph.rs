//! `wattle graph`: draws topologies.

use std::io::{self, Write};
use std::path::PathBuf;

use super::Outcome;
use super::check::finish;
use super::diagnostics::write_diagnostics;
use super::load::{EXIT_BAD_CONFIGURATION, EXIT_OK, World, load, refuse};
use crate::topology::{check, draw};

/// Draw topologies
#[derive(Debug, Clone, clap::Args)]
pub struct GraphArgs {
    /// Topology files or directories
    #[arg(required = true, value_name = "FILE|FOLDER")]
    pub paths: Vec<PathBuf>,

    /// Output format
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: Format,
}

/// What to draw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Tree of lines
    #[default]
    Text,
    /// Graphviz DOT
    Dot,
    /// Mermaid, for Markdown
    Mermaid,
    /// SVG, for browsers
    Svg,
    /// JSON for programs
    Json,
}

/// Runs the command: 0, or as `check` does where there is nothing to draw.
pub(super) fn run(args: &GraphArgs) -> Outcome {
    // Standard error is not locked: what is being compiled is said by another thread meanwhile.
    let (mut out, mut notices) = (anstream::stdout().lock(), anstream::stderr());
    finish(write(args, &mut out, &mut notices))
}

/// Writes what the command prints. Text has ANSI colours. Returns the exit code.
///
/// # Errors
///
/// Those of writing.
pub fn write(args: &GraphArgs, out: &mut dyn Write, notices: &mut dyn Write) -> io::Result<u8> {
    let sources = match load(&args.paths) {
        Ok(sources) => sources,
        Err(errors) => return refuse(&errors, notices),
    };
    let (plan, diagnostics) = check(&sources, &World);
    write_diagnostics(&sources, &diagnostics, notices)?;
    let Some(plan) = plan else { return Ok(EXIT_BAD_CONFIGURATION) };
    let drawn = match args.format {
        Format::Text => draw::text(&plan, true),
        Format::Dot => draw::dot(&plan),
        Format::Mermaid => draw::mermaid(&plan),
        Format::Svg => draw::svg(&plan),
        Format::Json => draw::json(&plan),
    };
    write!(out, "{drawn}")?;
    Ok(EXIT_OK)
}
