//! The command line: one module for each command.
//!
//! Promises: events and results on standard output, everything else on standard error; every failure is a line that
//! says what, where and what to do; exit codes are those of [`Exit`]; `NO_COLOR` is honoured. Must not know: how
//! anything is done; commands parse, call the floor below, and print.

mod args;
mod bench;
mod build;
mod capsule;
mod changes;
pub mod check;
mod clock;
mod completions;
mod components;
mod connection;
mod dev;
mod diagnostics;
mod failed;
mod gc;
pub mod graph;
mod input;
mod live;
pub mod load;
mod log;
mod moves;
mod new;
mod pending;
mod plugin;
mod pretty;
mod profile;
mod publish;
mod reader;
mod run;
pub mod schema;
mod sending;
mod shadow;
mod signals;
mod state;
mod status;
mod table;
mod tail;
mod test;
mod token;
mod topics;
mod trace;
mod tree;
mod trials;
mod uploads;
mod words;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::client::{ClientError, Refusal};
use connection::ServerArg;

/// How a command ended, as its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Ok = 0,
    Failed = 1,
    /// Wrong usage, also the name of a file that cannot be read.
    Usage = 2,
    /// There is no bus where one was expected. Nothing happened.
    Unreachable = 3,
    /// The connection or the bus ended in the middle: the request may have been executed or not.
    Unknown = 4,
    /// The target was changed by another client since it was looked at. Nothing happened.
    Conflict = 5,
    /// The bus does not know who calls, or does not allow it. Nothing happened.
    Denied = 6,
    /// The configuration is wrong: `EX_CONFIG` of BSD's sysexits.
    BadConfiguration = 78,
    /// Interrupted twice: 128 + SIGINT.
    Interrupted = 130,
    /// Told twice to terminate: 128 + SIGTERM.
    Terminated = 143,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A command's failure, ready to be shown.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
    /// Everything was printed already.
    is_printed: bool,
    /// The refusal of the bus, if it is one.
    refused: Option<Box<Refusal>>,
}

impl Failure {
    fn new(exit: Exit, message: impl ToString) -> Self {
        Self { exit, message: message.to_string(), is_printed: false, refused: None }
    }

    fn failed(message: impl ToString) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// A file that the command line names cannot be read.
    fn unreadable(path: &Path, error: &io::Error) -> Self {
        Self::new(Exit::Usage, format!("cannot read {}: {error}", path.display()))
    }

    /// The failure in a line of JSON.
    fn json(&self) -> serde_json::Value {
        let refused = self.refused.as_deref();
        let code = match (refused, self.exit) {
            (Some(refused), _) => upper_case(&format!("{:?}", refused.code)),
            (None, exit) => upper_case(&format!("{exit:?}")),
        };
        let retry_after = refused.and_then(|refused| refused.retry_after);
        serde_json::json!({ "error": {
            "code": code,
            "exit_code": self.exit as u8,
            "message": self.message,
            "reason": refused.map(|refused| &refused.reason).filter(|reason| !reason.is_empty()),
            "fields": refused.map(|refused| refused.fields.as_slice()).unwrap_or_default(),
            "retry_after_ms": retry_after.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        } })
    }

    /// Whether the files that were named are the reason, and not the machine.
    fn is_of_files(&self) -> bool {
        matches!(self.exit, Exit::Usage | Exit::BadConfiguration)
    }

    /// Everything was printed.
    fn silent(exit: Exit) -> Self {
        Self::printed(exit, String::new())
    }

    /// Everything was printed, of which this is the first message.
    fn printed(exit: Exit, message: String) -> Self {
        Self { exit, message, is_printed: true, refused: None }
    }
}

/// How a caller says who it is.
const CREDENTIALS: &str = "--token-file (or WATTLE_TOKEN), --client-cert and `wattle profile` say who calls";

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let exit = match &error {
            ClientError::Address { .. } | ClientError::Options { .. } => Exit::Usage,
            error if error.is_unreachable() => Exit::Unreachable,
            error if error.is_denied() => Exit::Denied,
            error if error.is_conflict() => Exit::Conflict,
            error if !error.has_no_side_effects() => Exit::Unknown,
            _ => Exit::Failed,
        };
        let message = match exit {
            Exit::Unknown => format!("{error}; what was asked for may have happened or not"),
            Exit::Denied if error.is_unauthenticated() => format!("{error}; {CREDENTIALS}"),
            _ => error.to_string(),
        };
        let refused = match error {
            ClientError::Refused(refused) => Some(refused.into()),
            _ => None,
        };
        Self { refused, ..Self::new(exit, message) }
    }
}

impl From<io::Error> for Failure {
    /// Of writing results. A reader that stops is no failure.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::silent(Exit::Ok),
            _ => Self::failed(format!("cannot write the result: {error}")),
        }
    }
}

/// `NotFound` as `NOT_FOUND`.
fn upper_case(name: &str) -> String {
    let mut shown = String::with_capacity(name.len() + 4);
    for (at, char) in name.char_indices() {
        if at > 0 && char.is_uppercase() {
            shown.push('_');
        }
        shown.extend(char.to_uppercase());
    }
    shown
}

type Outcome = Result<(), Failure>;

const GROUPS: &str = "\
Run:
  run          Run the bus
  dev          Build and run topologies during development
Topologies:
  check        Validate topology files and access files
  graph        Draw topologies
  schema       Print the JSON Schema of topology files
  plan         Preview the changes that `apply` would make
  apply        Apply topologies to the running bus
  gc           Delete data of removed topics and subscribers
Plugins:
  new          Create a plugin project
  build        Build plugins
  test         Run the tests of topologies
  plugin       Deploy and roll back plugin versions
Events:
  publish      Publish events
  tail         Print events of a topic
  trace        Show the lineage of an event
Failures:
  capsule      List and reproduce recorded failures
Data directories:
  log          Inspect or repair an offline data directory
Running bus:
  topics       List topics
  pending      List held and delayed events of a topic
  status       Show topics and subscribers with lag and counters
  clock        Confirm the clock after a jump
Subscribers:
  dead         List, redrive and drop dead letters
  parked       List, release and drop parked events
  pause        Pause a subscriber
  resume       Resume a paused or halted subscriber
  seek         Move a subscriber to another position
  state        Inspect, export, import and snapshot handler state
Other:
  profile      Manage connections to buses by name
  token        Create tokens for callers
  bench        Run benchmarks with yardsticks
  completions  Print a shell completion script
  help         Show the help of a command
";

/// An event bus whose subscribers are WebAssembly plugins
#[derive(Debug, Parser)]
#[command(
    name = "wattle",
    version,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    help_template = "{about-with-newline}\n{usage-heading} {usage}\n\n{before-help}Options:\n{options}{after-help}",
    before_help = GROUPS,
    after_help = "`wattle help COMMAND` or `wattle COMMAND --help` shows details and examples.

Exit codes: 0 success, 1 failure, 2 wrong usage or an unreadable file, 3 bus unreachable, 4 outcome unknown, \
5 conflict, 6 not allowed, 78 bad configuration. With `-o json`, errors are JSON on standard error as well."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    Dev(dev::DevArgs),
    Check(check::CheckArgs),
    Graph(graph::GraphArgs),
    Schema(schema::SchemaArgs),
    Plan(changes::PlanArgs),
    Apply(changes::ApplyArgs),
    Gc(gc::GcArgs),
    New(new::NewArgs),
    Build(build::BuildArgs),
    Test(test::TestArgs),
    Plugin(plugin::PluginArgs),
    Publish(publish::PublishArgs),
    Tail(tail::TailArgs),
    Trace(trace::TraceArgs),
    Capsule(capsule::CapsuleArgs),
    Log(log::LogArgs),
    Topics(topics::TopicsArgs),
    Pending(pending::PendingArgs),
    Status(status::StatusArgs),
    Clock(clock::ClockArgs),
    Dead(failed::dead::DeadArgs),
    Parked(failed::parked::ParkedArgs),
    Pause(moves::PauseArgs),
    Resume(moves::ResumeArgs),
    Seek(moves::SeekArgs),
    State(state::StateArgs),
    Profile(profile::ProfileArgs),
    Token(token::TokenArgs),
    Bench(bench::BenchArgs),
    Completions(completions::CompletionsArgs),
}

/// The whole command line, for whatever goes through all commands.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the command that the process was called with.
pub fn main() -> ExitCode {
    if completions::answer(command) {
        return Exit::Ok.into();
    }
    let parsed = Cli::command().try_get_matches().map(|matches| (wants_json(&matches), matches));
    let parsed = parsed.and_then(|(is_json, matches)| Ok((is_json, Cli::from_arg_matches(&matches)?)));
    let (is_json, cli) = parsed.unwrap_or_else(|error| without_wrong_tips(error).exit());
    let outcome = match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Dev(args) => dev::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Graph(args) => graph::run(&args),
        Command::Schema(args) => schema::run(&args),
        Command::Plan(args) => changes::plan(&args),
        Command::Apply(args) => changes::apply(&args),
        Command::Gc(args) => gc::run(&args),
        Command::New(args) => new::run(&args),
        Command::Build(args) => build::run(&args, components::plan_of),
        Command::Test(args) => test::run(&args),
        Command::Plugin(args) => plugin::run(&args),
        Command::Publish(args) => publish::run(&args),
        Command::Tail(args) => tail::run(&args),
        Command::Trace(args) => trace::run(&args),
        Command::Capsule(args) => capsule::run(&args),
        Command::Log(args) => log::run(&args),
        Command::Topics(args) => topics::run(&args),
        Command::Pending(args) => pending::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Clock(args) => clock::run(&args),
        Command::Dead(args) => failed::dead::run(&args),
        Command::Parked(args) => failed::parked::run(&args),
        Command::Pause(args) => moves::pause(&args),
        Command::Resume(args) => moves::resume(&args),
        Command::Seek(args) => moves::seek(&args),
        Command::State(args) => state::run(&args),
        Command::Profile(args) => profile::run(&args),
        Command::Token(args) => token::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Completions(args) => completions::run(&args),
    };
    match outcome {
        Ok(()) => Exit::Ok.into(),
        Err(failure) => {
            if is_json && !failure.message.is_empty() {
                let mut line = String::new();
                failure.json().to_string().chars().for_each(|character| words::push_json(&mut line, character));
                let _ = writeln!(io::stderr(), "{line}"); // it may be closed
            } else if !failure.is_printed {
                say_error(&failure.message);
            }
            failure.exit.into()
        }
    }
}

/// Whether the command is to print JSON.
fn wants_json(matches: &ArgMatches) -> bool {
    let command = std::iter::successors(Some(matches), |matches| Some(matches.subcommand()?.1)).last();
    let is_json = |matches: &ArgMatches| {
        let given = matches.try_get_raw("output").ok().flatten().and_then(|mut given| given.next_back());
        given.is_some_and(|given| given == "json") && matches.value_source("output") == Some(ValueSource::CommandLine)
    };
    command.is_some_and(is_json)
}

/// Wrong usage, in words. To pass an option that is not there as a value (`-- --all`) is no advice: it would be taken
/// for a name, and another command might act on it.
fn without_wrong_tips(mut error: clap::Error) -> clap::Error {
    if let Some(ContextValue::StyledStrs(tips)) = error.remove(ContextKind::Suggested) {
        let tips: Vec<_> = tips.into_iter().filter(|tip| !tip.to_string().contains("as a value")).collect();
        if !tips.is_empty() {
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
        }
    }
    error
}

/// Prints an error.
fn say_error(message: &str) {
    let style = anstyle::Style::new().bold().fg_color(Some(anstyle::AnsiColor::Red.into()));
    // There is nobody to tell that standard error is closed.
    let _ = writeln!(anstream::stderr(), "{style}error{style:#}: {}", words::lines(message));
}

/// Prints a notice.
fn say(message: &str) {
    crate::telemetry::say(&words::lines(message));
}

/// How results are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// Text for people
    #[default]
    Text,
    /// JSON for programs; lists have one line per item
    Json,
}

/// The arguments of a command that asks a bus and prints the answer.
#[derive(Debug, Clone, clap::Args)]
struct ClientArgs {
    #[command(flatten)]
    server: ServerArg,

    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// The subscriber of a command. It reads as its text.
#[derive(Debug, Clone, clap::Args)]
struct SubscriberArg {
    /// Subscriber, as NAMESPACE/NAME, or NAME if only one namespace has it
    subscriber: String,
}

impl std::ops::Deref for SubscriberArg {
    type Target = str;

    fn deref(&self) -> &str {
        &self.subscriber
    }
}

impl std::fmt::Display for SubscriberArg {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str(&self.subscriber)
    }
}

/// The arguments of a command that asks a bus about one subscriber.
#[derive(Debug, Clone, clap::Args)]
struct SubscriberArgs {
    #[command(flatten)]
    subscriber: SubscriberArg,

    #[command(flatten)]
    client: ClientArgs,
}

/// Runs what a client command does.
fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::failed(format!("cannot start: {error}")))?.block_on(future)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn only_an_output_that_is_asked_for_makes_errors_json() {
        let wants = |arguments: &[&str]| wants_json(&Cli::command().try_get_matches_from(arguments).unwrap());
        assert!(wants(&["wattle", "status", "-o", "json"]) && wants(&["wattle", "plugin", "list", "--output=json"]));
        for arguments in [&["wattle", "status"][..], &["wattle", "tail", "log"], &["wattle", "schema"]] {
            assert!(!wants(arguments), "{arguments:?}");
        }
        assert_eq!(["NotFound", "Failed"].map(upper_case), ["NOT_FOUND", "FAILED"]);
    }

    #[test]
    fn every_command_is_in_one_group_and_every_group_has_only_commands() {
        let listed: Vec<&str> = GROUPS
            .lines()
            .filter_map(|line| line.strip_prefix("  "))
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        let mut command = Cli::command();
        command.build();
        let mut names: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
        let mut sorted = listed.clone();
        sorted.sort_unstable();
        names.sort_unstable();
        assert_eq!(sorted, names);
    }
}
