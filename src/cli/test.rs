//! `wattle test`: runs the cases of test files, and reports differences from the expected results.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use super::diagnostics::write_diagnostics;
use super::load::{World, load_tests, refuse};
use super::words::plain;
use super::{Exit, Failure, Outcome, args, components, run, say};
use crate::app::capsules;
use crate::app::cases::{
    CallMode, CaseError, CaseResult, DiffLine, LoadedTopology, Mismatch, Partitions, TestBed, compare, differences,
};
use crate::telemetry::{self, LogFormat};
use crate::toolchain;
use crate::topology::cases::{self, Case, CaseInput};
use crate::topology::{Plan, Source, render};
use crate::wasm;

/// Lines of a difference that are shown around what differs.
const CONTEXT_LINES: usize = 3;

/// Run the tests of topologies
///
/// Tests are cases in files that end with .test.yaml: input events for a topology or one of its subscribers, and the
/// expected results. They run through the real plugins, which are built first if the topology names their source.
/// Data is kept in memory and delays are skipped. `wattle schema --tests` prints the JSON Schema of these files.
///
/// Each case runs a second time, with every event in a call of its own and by other instances. It fails if anything
/// comes out differently, since the result of an event may depend only on the event and on the state: not on random
/// numbers with a seed per instance, the order of a hash map, or variables that outlive an event.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle test topologies/
  wattle test topologies/orders.yaml --filter refused
  wattle test topologies/orders.test.yaml --output junit > tests.xml

A test file topologies/orders.test.yaml for topologies/orders.yaml:
  cases:
    - name: an order whose sum is wrong is refused
      subscriber: validate
      events:
        - data: { order_id: o-1, status: created, currency: EUR, customer: { email: a@b.test }, items: [], \
        total_cents: 5 }
      expect:
        outputs:
          orders.refused: [{ key: o-1, has: { order_id: o-1 } }]")]
pub(super) struct TestArgs {
    /// Test files, topologies that have one, or directories of those
    #[arg(value_name = "FILE|FOLDER", default_value = ".")]
    paths: Vec<PathBuf>,

    /// Run only cases whose name contains TEXT
    #[arg(short, long, value_name = "TEXT")]
    filter: Option<String>,

    /// Output format
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: TestOutput,

    /// Timeout of a case
    #[arg(long, default_value = "1m", value_parser = args::duration, value_name = "TIME")]
    timeout: Duration,

    /// Run each case only once, without the comparison with a second run
    #[arg(long)]
    once: bool,

    /// Directory of compiled plugins, at most 1.5 GiB [default: wattle/code in your cache directory]
    #[arg(long, value_name = "FOLDER")]
    cache: Option<PathBuf>,

    /// Print log lines, also those of plugins
    #[arg(long)]
    logs: bool,
}

/// Output formats.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum TestOutput {
    /// Text for people
    #[default]
    Text,
    /// JSON for programs
    Json,
    /// JUnit XML, for CI systems
    Junit,
}

/// A file with its cases.
struct Tests {
    file: PathBuf,
    topologies: Vec<PathBuf>,
    plan: Plan,
    /// With their lines.
    cases: Vec<(usize, Case)>,
}

/// How the cases went.
#[derive(Debug, Serialize)]
struct Report {
    ok: bool,
    passed: usize,
    failed: usize,
    cases: Vec<CaseReport>,
}

#[derive(Debug, Serialize)]
struct CaseReport {
    name: String,
    file: String,
    line: usize,
    ok: bool,
    took_ms: u128,
    /// Why it has no result.
    error: Option<String>,
    mismatches: Vec<MismatchReport>,
}

#[derive(Debug, Serialize)]
struct MismatchReport {
    what: String,
    compared: Comparison,
    diff: Vec<String>,
}

/// What a result is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Comparison {
    /// What the case expects.
    Expected,
    /// The result of the same case before.
    FirstRun,
}

impl Comparison {
    /// The two sides of a difference.
    fn sides(self) -> (&'static str, &'static str) {
        match self {
            Self::Expected => ("expected", "found"),
            Self::FirstRun => ("first run", "second run"),
        }
    }
}

pub(super) fn run(args: &TestArgs) -> Outcome {
    if args.logs {
        telemetry::start(LogFormat::default()).map_err(|error| Failure::new(Exit::Usage, error))?;
    }
    let mut tests = read(args)?;
    if let Some(filter) = &args.filter {
        for file in &mut tests {
            file.cases.retain(|(_, case)| case.name.contains(filter.as_str()));
        }
        tests.retain(|file| !file.cases.is_empty());
        if tests.is_empty() {
            return Err(Failure::failed(format!("no case has `{filter}` in its name (--filter)")));
        }
    }
    let mut built = BTreeMap::new();
    let bed = bed(args)?;
    let mut reports = Vec::new();
    for Tests { file, topologies, plan, cases } in tests {
        let components = components(&plan, &mut built)?;
        components::hold(&topologies, &plan, &components)?;
        let loaded = bed.load(plan, &components).map_err(|errors| {
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            Failure::new(Exit::BadConfiguration, errors.join("\n"))
        })?;
        for (line, case) in cases {
            let began = Instant::now();
            let running = CaseRun { bed: &bed, loaded: &loaded, case: &case, timeout: args.timeout };
            let (error, mismatches) = match running.outcome(args.once) {
                Ok(mismatches) => (None, mismatches),
                Err(error) => (Some(error), Vec::new()),
            };
            reports.push(CaseReport {
                name: case.name,
                file: file.display().to_string(),
                line,
                ok: error.is_none() && mismatches.is_empty(),
                took_ms: began.elapsed().as_millis(),
                error,
                mismatches,
            });
        }
    }
    let failed = reports.iter().filter(|case| !case.ok).count();
    let report = Report { ok: failed == 0, passed: reports.len() - failed, failed, cases: reports };
    match args.output {
        TestOutput::Text => report.write_text()?,
        TestOutput::Json => {
            let mut out = anstream::stdout().lock();
            let text = serde_json::to_string(&report).map_err(Failure::failed)?;
            writeln!(out, "{text}")?;
        }
        TestOutput::Junit => report.write_junit()?,
    }
    if report.ok { Ok(()) } else { Err(Failure::silent(Exit::Failed)) }
}

/// Sets up the sandbox, with the folder for compiled plugins.
fn bed(args: &TestArgs) -> Result<TestBed, Failure> {
    if let Some(folder) = &args.cache {
        let unusable = |error| {
            let folder = folder.display();
            Failure::new(Exit::Usage, format!("compiled plugins cannot be kept in {folder} (--cache): {error}"))
        };
        wasm::check_cache(folder).map_err(unusable)?;
    }
    TestBed::new(args.cache.clone().or_else(args::code_cache)).map_err(run::refused)
}

/// A case and what it runs on.
struct CaseRun<'a> {
    bed: &'a TestBed,
    loaded: &'a LoadedTopology,
    case: &'a Case,
    timeout: Duration,
}

impl CaseRun<'_> {
    /// What of the case is not as expected, with one partition for every topic and with as many as they have; and what
    /// a second run has differently.
    fn outcome(&self, once: bool) -> Result<Vec<MismatchReport>, String> {
        let first = self.run(Partitions::One, CallMode::Batches).map_err(|error| error.to_string())?;
        let mut mismatches = self.compared(&first, "");
        if mismatches.is_empty() && self.is_partitioned() {
            const OTHERWISE: &str = "it comes out otherwise with as many partitions as the topology has (where that is \
                                     meant, say `partitions: 1`): ";
            let run = self.run(Partitions::AsPlanned, CallMode::Batches);
            let partitioned = run.map_err(|error| format!("{OTHERWISE}{error}"))?;
            mismatches = self.compared(&partitioned, OTHERWISE);
        }
        if !once {
            const AGAIN: &str = "it comes out otherwise when it runs again, with each event in a call of its own and \
                                 by other instances (`--once` does not compare): ";
            let second = self.run(Partitions::One, CallMode::Alone).map_err(|error| format!("{AGAIN}{error}"))?;
            let found = differences(self.loaded.plan(), &first, &second).into_iter();
            mismatches.extend(found.map(|mismatch| MismatchReport::of(mismatch, Comparison::FirstRun, AGAIN)));
        }
        Ok(mismatches)
    }

    fn is_partitioned(&self) -> bool {
        let has_partitions = matches!(self.case.given, CaseInput::Events { .. }) && self.loaded.is_partitioned();
        has_partitions && !self.case.one_partition
    }

    fn run(&self, partitions: Partitions, mode: CallMode) -> Result<CaseResult, CaseFault> {
        match &self.case.given {
            CaseInput::Capsule { path } => Ok(self.bed.replay(self.loaded, &capsules::read(path)?, mode)?),
            CaseInput::Events { .. } => Ok(self.bed.run(self.loaded, self.case, (partitions, mode), self.timeout)?),
        }
    }

    fn compared(&self, happened: &CaseResult, head: &str) -> Vec<MismatchReport> {
        let mismatches = compare(self.loaded.plan(), &self.case.expected, happened).into_iter();
        mismatches.map(|mismatch| MismatchReport::of(mismatch, Comparison::Expected, head)).collect()
    }
}

/// Why a case has no result.
#[derive(Debug, thiserror::Error)]
enum CaseFault {
    #[error(transparent)]
    Capsule(#[from] capsules::ReadError),
    #[error(transparent)]
    Case(#[from] CaseError),
}

/// Reads test files and their topologies. Everything that is wrong with any of them has been printed.
fn read(args: &TestArgs) -> Result<Vec<Tests>, Failure> {
    let sources = match load_tests(&args.paths) {
        Ok(sources) => sources,
        Err(errors) => {
            let code = refuse(&errors, &mut anstream::stderr())?;
            let exit = if code == Exit::Usage as u8 { Exit::Usage } else { Exit::BadConfiguration };
            return Err(Failure::silent(exit));
        }
    };
    let (mut tests, mut is_bad) = (Vec::new(), false);
    for (number, source) in (0..).zip(&sources) {
        let (file, mut diagnostics) = cases::read(number, source, &World);
        let mut read = None;
        if let Some(file) = file {
            // What is wrong with a topology is printed there.
            match components::plan(&file.topologies) {
                Ok(plan) => match file.resolve(&plan) {
                    Ok(cases) => read = Some((file.topologies.clone(), plan, cases)),
                    Err(errors) => diagnostics.extend(errors),
                },
                Err(_) => is_bad = true,
            }
        }
        is_bad |= diagnostics.iter().any(|diagnostic| diagnostic.is_error());
        write_diagnostics(&sources, &diagnostics, &mut anstream::stderr().lock())?;
        if let Some((topologies, plan, cases)) = read {
            tests.push(Tests { file: source.path.clone(), topologies, plan, cases: with_lines(source, cases) });
        }
    }
    if is_bad { Err(Failure::silent(Exit::BadConfiguration)) } else { Ok(tests) }
}

fn with_lines(source: &Source, cases: Vec<Case>) -> Vec<(usize, Case)> {
    cases.into_iter().map(|case| (render::line(source, case.span), case)).collect()
}

/// The component of every subscriber; each source folder is built once.
fn components(plan: &Plan, built: &mut BTreeMap<PathBuf, Result<PathBuf, String>>) -> Result<Vec<PathBuf>, Failure> {
    let components = components::of(plan, |folder| {
        let build = || {
            say(&format!("building {}", folder.display()));
            toolchain::build_folder(folder, &mut |_| {}).map(|built| built.wasm).map_err(|error| error.to_string())
        };
        built.entry(folder.to_owned()).or_insert_with(build).clone()
    });
    // As for `dev`: a folder that does not build is the work's failure.
    components.map_err(|failure| Failure { exit: Exit::Failed, ..failure })
}

impl MismatchReport {
    /// `head` comes before what differs.
    fn of(mismatch: Mismatch, compared: Comparison, head: &str) -> Self {
        let lines = mismatch.diff;
        let differs = |line: &DiffLine| !matches!(line, DiffLine::Same(_));
        let near = |at: usize| {
            let from = at.saturating_sub(CONTEXT_LINES);
            lines.iter().skip(from).take(at - from + 1 + CONTEXT_LINES).any(differs)
        };
        let (mut diff, mut is_cut) = (Vec::new(), false);
        for (at, line) in lines.iter().enumerate() {
            if !near(at) {
                is_cut = true;
                continue;
            }
            if std::mem::take(&mut is_cut) {
                diff.push("  …".to_owned());
            }
            diff.push(match line {
                DiffLine::Same(text) => format!("  {text}"),
                DiffLine::Missing(text) => format!("- {text}"),
                DiffLine::Extra(text) => format!("+ {text}"),
            });
        }
        if is_cut {
            diff.push("  …".to_owned());
        }
        Self { what: format!("{head}{}", mismatch.what), compared, diff }
    }
}

fn coloured(colour: AnsiColor) -> Style {
    Style::new().fg_color(Some(colour.into()))
}

impl Report {
    fn write_text(&self) -> Outcome {
        let mut out = anstream::stdout().lock();
        let (good, bad) = (coloured(AnsiColor::Green), coloured(AnsiColor::Red));
        for file in self.cases.chunk_by(|one, next| one.file == next.file) {
            let Some(first) = file.first() else { continue };
            writeln!(out, "{}", first.file)?;
            for case in file {
                if case.ok {
                    writeln!(out, "  {good}ok{good:#}      {}", case.name)?;
                    continue;
                }
                writeln!(out, "  {bad}FAILED{bad:#}  {}", case.name)?;
                writeln!(out, "          {}:{}", case.file, case.line)?;
                for line in case.error.iter().flat_map(|error| error.lines()) {
                    writeln!(out, "          {}", plain(line))?;
                }
                for MismatchReport { what, compared, diff } in &case.mismatches {
                    let (what, (one, other)) = (plain(what), compared.sides());
                    writeln!(out, "          {what} ({bad}- {one}{bad:#}, {good}+ {other}{good:#}):")?;
                    for line in diff {
                        let style = match line.get(..1) {
                            Some("-") => bad,
                            Some("+") => good,
                            _ => Style::new(),
                        };
                        writeln!(out, "            {style}{}{style:#}", plain(line))?;
                    }
                }
            }
        }
        let failed = if self.failed > 0 { bad } else { Style::new() };
        writeln!(out, "\n{} passed, {failed}{} failed{failed:#}", self.passed, self.failed)?;
        Ok(())
    }

    fn write_junit(&self) -> Outcome {
        let mut out = anstream::stdout().lock();
        writeln!(out, r#"<?xml version="1.0" encoding="UTF-8"?>"#)?;
        writeln!(out, r#"<testsuites tests="{}" failures="{}">"#, self.cases.len(), self.failed)?;
        for file in self.cases.chunk_by(|one, next| one.file == next.file) {
            let Some(first) = file.first() else { continue };
            let failed = file.iter().filter(|case| !case.ok).count();
            let name = escaped(&first.file);
            writeln!(out, r#"  <testsuite name="{name}" tests="{}" failures="{failed}">"#, file.len())?;
            for case in file {
                let seconds = Duration::from_millis(u64::try_from(case.took_ms).unwrap_or(u64::MAX)).as_secs_f64();
                let (case_name, line) = (escaped(&case.name), case.line);
                let head = format!(
                    r#"    <testcase classname="{name}" name="{case_name}" file="{name}" line="{line}" time="{seconds:.3}""#
                );
                if case.ok {
                    writeln!(out, "{head}/>")?;
                    continue;
                }
                let whats =
                    case.error.iter().cloned().chain(case.mismatches.iter().map(|mismatch| mismatch.what.clone()));
                let message = escaped(&whats.collect::<Vec<_>>().join("; "));
                writeln!(out, "{head}>\n      <failure message=\"{message}\">")?;
                for MismatchReport { what, diff, .. } in &case.mismatches {
                    writeln!(out, "{}:\n{}", escaped(what), escaped(&diff.join("\n")))?;
                }
                writeln!(out, "</failure>\n    </testcase>")?;
            }
            writeln!(out, "  </testsuite>")?;
        }
        writeln!(out, "</testsuites>")?;
        Ok(())
    }
}

/// A text in XML, also in an attribute. What XML cannot hold is replaced.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(char),
            char if char.is_control() || matches!(char, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            char => escaped.push(char),
        }
    }
    escaped
}
