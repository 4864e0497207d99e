//! `wattle bench`: whole paths, each as a ratio to a yardstick of the same run.
//!
//! A figure of a machine says little about the bus; how far the bus stays behind what this machine can do at all, measured in
//! the same minute, does. Repetitions of both sides take turns, and medians are compared.

mod backlog;
mod bed;
mod handle;
mod latency;
mod publish;
mod yardstick;

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Failure, Outcome, Output, say};

/// Measure whole paths of the bus against yardsticks on this machine
///
/// Use a release build, and a machine that does nothing else.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle bench publish
  wattle bench latency --events 20000 -o json
  wattle bench all")]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum What {
    /// Durable publish through gRPC, against writing and syncing the same bytes in the same groups
    Publish(publish::Args),
    /// Processor time per event and handler through the tree, against calling the same plugins in a bare loop
    Handle(handle::Args),
    /// From publish to the last of three levels at a steady rate, against one sync
    Latency(latency::Args),
    /// Memory with a backlog, against idle
    Backlog(backlog::Args),
    /// All of them, as they are without arguments
    All(Common),
}

/// What all of them take.
#[derive(Debug, Clone, clap::Args)]
struct Common {
    /// How often each side is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,

    /// Folder for what is written; its file system is what is measured
    #[arg(long, default_value = ".wattle/bench", value_name = "FOLDER")]
    data: PathBuf,

    /// Folder of the example plugins
    #[arg(long, default_value = "plugins", value_name = "FOLDER")]
    plugins: PathBuf,

    /// For whom the result is
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// What was measured: medians.
#[derive(Debug, Clone, Serialize)]
struct Figure {
    /// What it is about.
    name: String,
    unit: &'static str,
    bus: f64,
    yardstick: f64,
    /// Of the bus to the yardstick.
    ratio: f64,
    /// What the project wants, in words.
    aim: &'static str,
}

pub(super) fn run(args: &Args) -> Outcome {
    if cfg!(debug_assertions) {
        say("this is a debug build: its figures say nothing about the bus");
    }
    let (figures, common) = match &args.what {
        What::Publish(args) => (publish::run(args)?, &args.common),
        What::Handle(args) => (handle::run(args)?, &args.common),
        What::Latency(args) => (latency::run(args)?, &args.common),
        What::Backlog(args) => (backlog::run(args)?, &args.common),
        What::All(common) => {
            let mut figures = publish::run(&publish::Args::with(common.clone()))?;
            figures.extend(handle::run(&handle::Args::with(common.clone()))?);
            figures.extend(latency::run(&latency::Args::with(common.clone()))?);
            figures.extend(backlog::run(&backlog::Args::with(common.clone()))?);
            (figures, common)
        }
    };
    print(&figures, common.output)
}

fn print(figures: &[Figure], output: Output) -> Outcome {
    let mut out = std::io::stdout().lock();
    if output == Output::Json {
        serde_json::to_writer(&mut out, figures).map_err(std::io::Error::from)?;
        return Ok(writeln!(out)?);
    }
    let width = figures.iter().map(|figure| figure.name.chars().count()).max().unwrap_or(0);
    writeln!(out, "{:width$}  {:>12}  {:>12}  {:<8}  {:>6}  AIM", "", "BUS", "YARDSTICK", "UNIT", "RATIO")?;
    for Figure { name, unit, bus, yardstick, ratio, aim } in figures {
        let (bus, yardstick) = (number(*bus), number(*yardstick));
        writeln!(out, "{name:width$}  {bus:>12}  {yardstick:>12}  {unit:<8}  {ratio:>6.2}  {aim}")?;
    }
    Ok(())
}

/// Three significant digits, or all that are in front of the point.
fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        medium if medium >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value below which this part of the others lies.
fn quantile(values: &[f64], part: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * part).round() as usize).copied().unwrap_or(f64::NAN)
}

/// A folder that is there while it is measured.
struct Scratch(PathBuf);

impl Scratch {
    fn new(parent: &Path, name: &str) -> Result<Self, Failure> {
        let folder = parent.join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder)
            .map_err(|error| Failure::failed(format!("cannot create {}: {error}", folder.display())))?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            say(&format!("cannot remove {}: {error}", self.0.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_sorted_values() {
        let values = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert_eq!((median(&values), quantile(&values, 0.99), quantile(&values, 0.0)), (3.0, 5.0, 1.0));
        assert!(median(&[]).is_nan());
    }
}
