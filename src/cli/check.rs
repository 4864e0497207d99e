//! `wattle check`: says everything that is wrong with topologies.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::components::{self, Declared};
use super::load::{EXIT_BAD_CONFIGURATION, EXIT_FAILED, EXIT_OK, load, refuse};
use crate::topology::render::{self, Report, Style};
use crate::topology::{Diagnostic, Plan, Source, check, show};

/// Width of diagnostics, in columns, as of rustc where the terminal does not say.
pub(super) const WIDTH: usize = 140;

/// Checks topologies, and says everything that is wrong with them.
///
/// Plugins that are built are looked at as well, as a bus would that is to run them.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Topology files, or folders of them; all of them are checked together; `-` is standard input
    #[arg(required = true, value_name = "FILE|FOLDER")]
    pub paths: Vec<PathBuf>,

    /// How to say it: for people, or as one JSON object
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Output,

    /// Print the topology with its defaults and variables filled in
    #[arg(long)]
    pub show: bool,

    /// Fail on warnings too
    #[arg(long)]
    pub deny_warnings: bool,
}

/// For whom the result is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

/// Runs the command: 0 if the topologies are fine, 78 if they are not, 2 if there are none to read.
pub fn run(args: &Args) -> ExitCode {
    let (mut out, mut notices) = (anstream::stdout().lock(), anstream::stderr().lock());
    finish(write(args, &mut out, &mut notices))
}

/// The exit code of a command. A reader that stops reading, such as `head`, is no failure.
pub(super) fn finish(written: io::Result<u8>) -> ExitCode {
    match written {
        Ok(code) => ExitCode::from(code),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(EXIT_OK),
        Err(_) => ExitCode::from(EXIT_FAILED),
    }
}

/// What [`run`] does, to anything that can be written to. Text has ANSI colours. Returns the exit code.
///
/// # Errors
///
/// Those of writing.
pub fn write(args: &Args, out: &mut dyn Write, notices: &mut dyn Write) -> io::Result<u8> {
    let sources = match load(&args.paths) {
        Ok(sources) => sources,
        Err(errors) => return refuse(&errors, notices),
    };
    let (plan, diagnostics) = check(&sources, &Declared::default().with_ports(&sources));
    let plugins = plan.as_ref().map(|plan| components::misfits(&sources, plan)).unwrap_or_default();
    let bad = !plugins.is_empty() || diagnostics.iter().any(|diagnostic| args.deny_warnings || diagnostic.is_error());
    match args.output {
        Output::Json => {
            let report = render::report(&sources, &diagnostics, args.deny_warnings);
            let report = if bad { report.refused() } else { report };
            let effective = plan.as_ref().filter(|_| args.show).map(show);
            serde_json::to_writer(&mut *out, &Shown { report, plugins, effective })?;
            writeln!(out)?;
        }
        Output::Text => {
            write_diagnostics(&sources, &diagnostics, notices)?;
            plugins.iter().try_for_each(|why| writeln!(notices, "error: {why}"))?;
            if let Some(plan) = plan.filter(|_| !bad) {
                match args.show {
                    true => write!(out, "{}", show(&plan))?,
                    false => writeln!(out, "{}", good(&sources, &plan))?,
                }
            }
        }
    }
    Ok(if bad { EXIT_BAD_CONFIGURATION } else { EXIT_OK })
}

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    report: Report,
    /// Why plugins that are built do not fit, each in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    plugins: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    effective: Option<String>,
}

/// Writes diagnostics for people, and how many they are.
pub(super) fn write_diagnostics(
    sources: &[Source],
    diagnostics: &[Diagnostic],
    notices: &mut dyn Write,
) -> io::Result<()> {
    write!(notices, "{}", render::text(sources, diagnostics, Style { colour: true, width: WIDTH }))?;
    if let Some(summary) = render::summary(diagnostics) {
        writeln!(notices, "{summary}")?;
    }
    Ok(())
}

fn good(sources: &[Source], plan: &Plan) -> String {
    let count = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let files = match sources {
        [only] => only.path.display().to_string(),
        many => count(many.len(), "file"),
    };
    let topics = plan.topics.iter().filter(|topic| topic.dead_letters_of.is_none()).count();
    let roots = plan.topics.iter().filter(|topic| topic.is_root()).count();
    let (topics, roots) = (count(topics, "topic"), count(roots, "root"));
    format!("{files}: ok ({topics} of which {roots}, {})", count(plan.subscribers.len(), "subscriber"))
}
