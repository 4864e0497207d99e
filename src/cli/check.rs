//! `wattle check`: says everything that is wrong with topologies and access files.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::components::{self, PluginWorld};
use super::diagnostics::write_diagnostics;
use super::load::{EXIT_BAD_CONFIGURATION, EXIT_OK, EXIT_USAGE, World, load_with_access, refuse};
use super::{Exit, Failure, Outcome};
use crate::access::{self, Access};
use crate::topology::render::{self, Report};
use crate::topology::{Plan, Source, Surroundings, check, show};

/// Validate topology files and access files
///
/// Plugins that are built are checked too, as by a bus that is to run them. Files that begin with `wattle: access/v1`
/// are access files, each checked by itself with the keys that it names.
#[derive(Debug, Clone, clap::Args)]
pub struct CheckArgs {
    /// Topology files, checked together, access files, or directories of them; `-` reads standard input
    #[arg(required = true, value_name = "FILE|FOLDER")]
    pub paths: Vec<PathBuf>,

    /// Output format
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: CheckOutput,

    /// Print the topology with defaults and variables filled in
    #[arg(long)]
    pub show: bool,

    /// Fail on warnings
    #[arg(long)]
    pub deny_warnings: bool,
}

/// Output formats.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum CheckOutput {
    /// Text for people
    #[default]
    Text,
    /// JSON for programs
    Json,
}

/// Runs the command: 0 if the topologies are fine, 78 if they are not, 2 if there are none to read.
pub(super) fn run(args: &CheckArgs) -> Outcome {
    // Standard error is not locked: what is being compiled is said by another thread meanwhile.
    let (mut out, mut notices) = (anstream::stdout().lock(), anstream::stderr());
    finish(write(args, &mut out, &mut notices))
}

/// The outcome of a command that has printed its problems and ends with this exit code.
pub(super) fn finish(written: io::Result<u8>) -> Outcome {
    match written? {
        EXIT_OK => Ok(()),
        EXIT_USAGE => Err(Failure::silent(Exit::Usage)),
        EXIT_BAD_CONFIGURATION => Err(Failure::silent(Exit::BadConfiguration)),
        _ => Err(Failure::silent(Exit::Failed)),
    }
}

/// Writes what the command prints. Text has ANSI colours. Returns the exit code.
///
/// # Errors
///
/// Those of writing.
pub fn write(args: &CheckArgs, out: &mut dyn Write, notices: &mut dyn Write) -> io::Result<u8> {
    let sources = match load_with_access(&args.paths) {
        Ok(sources) => sources,
        Err(errors) => return refuse(&errors, notices),
    };
    let (access_files, topologies): (Vec<_>, Vec<_>) = sources.into_iter().partition(access::is_access_file);
    let (plan, mut diagnostics) = match topologies.as_slice() {
        [] => (None, Vec::new()),
        some => check(some, &PluginWorld::default().with_ports(some)),
    };
    let plugins = plan.as_ref().map(|plan| components::misfits(&topologies, plan)).unwrap_or_default();
    let mut rules = Vec::new();
    for (number, source) in (topologies.len() as u32..).zip(&access_files) {
        let (access, found) = access::check_numbered(number, source, &KeyFiles);
        diagnostics.extend(found);
        rules.extend(access.map(|access| good_access(source, &access)));
    }
    // Lines of the files are shown, and a token may be in them by mistake.
    let shown = topologies.iter().cloned().chain(access_files.iter().map(|file| access::masked(file).into_owned()));
    let sources: Vec<Source> = shown.collect();
    let bad = !plugins.is_empty() || diagnostics.iter().any(|diagnostic| args.deny_warnings || diagnostic.is_error());
    match args.output {
        CheckOutput::Json => {
            let report = render::report(&sources, &diagnostics, args.deny_warnings);
            let report = if bad { report.refused() } else { report };
            let effective = plan.as_ref().filter(|_| args.show).map(show);
            serde_json::to_writer(&mut *out, &CheckResult { report, plugins, effective })?;
            writeln!(out)?;
        }
        CheckOutput::Text => {
            write_diagnostics(&sources, &diagnostics, notices)?;
            plugins.iter().try_for_each(|why| writeln!(notices, "error: {why}"))?;
            if !bad {
                match (plan, args.show) {
                    (Some(plan), true) => write!(out, "{}", show(&plan))?,
                    (Some(plan), false) => writeln!(out, "{}", good(&topologies, &plan))?,
                    (None, _) => {}
                }
                if !args.show {
                    rules.iter().try_for_each(|good| writeln!(out, "{good}"))?;
                }
            }
        }
    }
    Ok(if bad { EXIT_BAD_CONFIGURATION } else { EXIT_OK })
}

#[derive(Serialize)]
struct CheckResult {
    #[serde(flatten)]
    report: Report,
    /// Why plugins that are built do not fit, each in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    plugins: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    effective: Option<String>,
}

/// The keys of issuers, which access files name.
struct KeyFiles;

impl access::Files for KeyFiles {
    fn text(&self, path: &Path, bytes_max: usize) -> Result<String, String> {
        World.text(path, bytes_max)
    }
}

fn count(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn good_access(source: &Source, access: &Access) -> String {
    let principals = count(access.principal_count(), "principal");
    format!("{}: ok ({principals}, {})", source.path.display(), count(access.rule_count(), "rule"))
}

fn good(sources: &[Source], plan: &Plan) -> String {
    let files = match sources {
        [only] => only.path.display().to_string(),
        many => count(many.len(), "file"),
    };
    let topics = plan.topics.iter().filter(|topic| topic.dead_letters_of.is_none()).count();
    let roots = plan.topics.iter().filter(|topic| topic.is_root()).count();
    let (topics, roots) = (count(topics, "topic"), count(roots, "root"));
    format!("{files}: ok ({topics} of which {roots}, {})", count(plan.subscribers.len(), "subscriber"))
}
