//! `wattle completions`: completions for a shell, also of the names that a running bus has.
//!
//! The script that is printed has this binary called at each completion, with [`VARIABLE`] set. Names of topics and
//! subscribers are asked of the bus then, within a moment: where there is none, there are none.

use std::ffi::OsStr;
use std::io::Write;
use std::time::Duration;

use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{Bash, Elvish, EnvCompleter, Fish, Powershell, Zsh};
use clap_complete::{CompleteEnv, Shell};

use super::{Failure, Outcome, ServerArg, block_on};
use crate::api::Snapshot;
use crate::client::Patience;

/// By which a call for completions is known.
const VARIABLE: &str = "WATTLE_COMPLETE";
/// The deadline for the bus's answer: completion runs at an interactive prompt.
const WITHIN: Duration = Duration::from_millis(500);

/// Print a shell completion script
///
/// It completes commands, options, and names of topics and subscribers, which it gets from the bus that the line, the
/// environment, or the current profile names.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  echo 'source <(wattle completions bash)' >> ~/.bashrc
  echo 'source <(wattle completions zsh)' >> ~/.zshrc
  wattle completions fish > ~/.config/fish/completions/wattle.fish")]
pub(super) struct CompletionsArgs {
    /// Shell that the script is for
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> Outcome {
    let shell: &dyn EnvCompleter = match args.shell {
        Shell::Bash => &Bash,
        Shell::Elvish => &Elvish,
        Shell::Fish => &Fish,
        Shell::PowerShell => &Powershell,
        Shell::Zsh => &Zsh,
        other => return Err(Failure::failed(format!("there are no completions for {other}"))),
    };
    let mut script = Vec::new();
    shell.write_registration(VARIABLE, "wattle", "wattle", "wattle", &mut script)?;
    // Names of files where this program has nothing to propose, which the script for bash leaves out.
    let script = String::from_utf8_lossy(&script).replace("-o bashdefault", "-o bashdefault -o default");
    Ok(std::io::stdout().lock().write_all(script.as_bytes())?)
}

/// Answers a shell that asks for completions. Whether one did.
pub(super) fn answer(command: fn() -> clap::Command) -> bool {
    let answered =
        CompleteEnv::with_factory(|| with_names(command(), "")).var(VARIABLE).try_complete(std::env::args_os(), None);
    // Completion has no place to print an error.
    answered.unwrap_or(true)
}

/// The command with completion of names: only root topics for `publish`.
fn with_names(command: clap::Command, name: &str) -> clap::Command {
    let names: fn(&Snapshot) -> Vec<&str> = if name == "publish" { roots } else { topics };
    let command = command.mut_args(|argument| match argument.get_id().as_str() {
        "topic" => argument.add(ArgValueCompleter::new(move |begun: &OsStr| complete(begun, names))),
        "subscriber" => argument.add(ArgValueCompleter::new(|begun: &OsStr| complete(begun, subscribers))),
        _ => argument,
    });
    command.mut_subcommands(|command| {
        let name = command.get_name().to_owned();
        with_names(command, &name)
    })
}

fn topics(tree: &Snapshot) -> Vec<&str> {
    tree.topics.iter().map(|topic| topic.name.as_str()).collect()
}

fn roots(tree: &Snapshot) -> Vec<&str> {
    let roots = tree.topics.iter().filter(|topic| topic.parent.is_none() && topic.diverted_from.is_none());
    roots.map(|topic| topic.name.as_str()).collect()
}

fn subscribers(tree: &Snapshot) -> Vec<&str> {
    tree.subscribers.iter().map(|subscriber| subscriber.name.as_str()).collect()
}

/// The names that begin as the word does that is completed.
fn complete(begun: &OsStr, names: fn(&Snapshot) -> Vec<&str>) -> Vec<CompletionCandidate> {
    let (Some(begun), Some(tree)) = (begun.to_str(), tree()) else { return Vec::new() };
    let found = shown(&names(&tree), begun.contains('/'));
    found.into_iter().filter(|name| name.starts_with(begun)).map(CompletionCandidate::new).collect()
}

/// Names in their shortest unambiguous form; with the namespace where the typed prefix has one.
fn shown(names: &[&str], in_full: bool) -> Vec<String> {
    let short = |name: &str| name.rsplit_once('/').map_or(name.to_owned(), |(_, short)| short.to_owned());
    let shown = names.iter().map(|name| {
        let is_clear = names.iter().filter(|other| short(other) == short(name)).count() == 1;
        if is_clear && !in_full { short(name) } else { (*name).to_owned() }
    });
    shown.collect()
}

/// What the bus has.
fn tree() -> Option<Snapshot> {
    let words: Vec<String> = std::env::args().collect();
    let server = ServerArg::of_unfinished(&words)?;
    let asked = async {
        let asked = async { server.connect_for(Patience::of(Some(WITHIN))).await?.status().await };
        Ok(tokio::time::timeout(WITHIN, asked).await.ok().and_then(Result::ok))
    };
    block_on(asked).ok().flatten().map(|status| status.tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_where_that_is_clear() {
        let names = ["shop/orders", "shop/log", "other/log"];
        assert_eq!(shown(&names, false), ["orders", "shop/log", "other/log"]);
        assert_eq!(shown(&names, true), names);
    }
}
