//! `wattle plan` and `wattle apply`: changes of the topology that runs.

use std::io::{self, Write};
use std::path::PathBuf;

use serde_json::json;

use super::words::plain;
use super::{Exit, Failure, Outcome, Output, ServerArg, block_on, components, say};
use crate::dispatch::{Change, Changes, Node, What};
use crate::reload::Proposal;

/// Show what applying changed topologies would do to what runs
///
/// Nothing happens. Everything that is not listed goes on as it is. Exits with 78 where the topologies cannot be applied, also
/// where that would lose something and --allow-loss is not there.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle plan topologies/orders.yaml
  wattle plan topologies/ --output json")]
pub(super) struct PlanArgs {
    /// Topology files, or folders of them; together they are what is to run
    #[arg(required = true, value_name = "TOPOLOGY")]
    topologies: Vec<PathBuf>,

    /// As `apply --allow-loss`: what would be lost is shown, and no reason to fail
    #[arg(long)]
    allow_loss: bool,

    #[command(flatten)]
    server: ServerArg,

    /// How it is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Have topologies take the place of those that run, live
///
/// All or nothing, and durable: what was applied is what runs, also after the next start, unless the files of that have changed.
/// What stays as it is does not pause; what changes ends the events that it is at first, and where its plugin is refused
/// nothing is applied. Plugins are run as they were built, from their files on the machine of the bus.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle apply topologies/orders.yaml
  wattle apply topologies/ --allow-loss")]
pub(super) struct ApplyArgs {
    /// Topology files, or folders of them; together they are what is to run
    #[arg(required = true, value_name = "TOPOLOGY")]
    topologies: Vec<PathBuf>,

    /// Also where that loses something, such as events of a topic that is removed, or beyond a shorter retention
    #[arg(long)]
    allow_loss: bool,

    #[command(flatten)]
    server: ServerArg,

    /// How it is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// What files propose, all of their problems having been printed.
pub(super) fn proposal(topologies: &[PathBuf]) -> Result<Proposal, Failure> {
    let (plan, components) = components::rooted(topologies, components::built)?;
    Ok(Proposal::of(&plan, &components))
}

pub(super) fn plan(args: &PlanArgs) -> Outcome {
    let proposal = proposal(&args.topologies)?;
    let changes = block_on(async { Ok(args.server.connect().await?.changes(proposal).await?) })?;
    print(&changes, args.output)?;
    let may_be = changes.refusals.is_empty() && (args.allow_loss || changes.losses.is_empty());
    if may_be { Ok(()) } else { Err(Failure::silent(Exit::BadConfiguration)) }
}

pub(super) fn apply(args: &ApplyArgs) -> Outcome {
    let proposal = proposal(&args.topologies)?;
    let changes = block_on(async { Ok(args.server.connect().await?.apply(proposal, args.allow_loss).await?) })?;
    let is_empty = changes.is_empty();
    print(&Changes { changes, ..Changes::default() }, args.output)?;
    if args.output == Output::Text && !is_empty {
        say("applied");
    }
    Ok(())
}

fn print(changes: &Changes, output: Output) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    match output {
        Output::Json => writeln!(out, "{}", shown(changes)),
        Output::Text => write!(out, "{}", text(changes)),
    }
}

/// Changes for programs.
pub(super) fn shown(Changes { changes, refusals, losses }: &Changes) -> serde_json::Value {
    let change = |change: &Change| {
        let node = match change.node {
            Node::Topic => "topic",
            Node::Subscriber => "subscriber",
        };
        let Change { name, was, what, words, .. } = change;
        json!({ "node": node, "name": name, "was": was, "what": word(*what), "words": words })
    };
    json!({
        "changes": changes.iter().map(change).collect::<Vec<_>>(),
        "refusals": refusals,
        "losses": losses,
    })
}

fn word(what: What) -> &'static str {
    match what {
        What::Added => "added",
        What::Removed => "removed",
        What::Changed => "changed",
        What::Moved => "moved",
        What::Renamed => "renamed",
    }
}

/// Changes for people: a line for each node, and what is to be known about it below.
pub(super) fn text(Changes { changes, refusals, losses }: &Changes) -> String {
    let mut lines = Vec::new();
    for Change { node, name, was, what, words } in changes {
        let sign = match what {
            What::Added => '+',
            What::Removed => '-',
            What::Changed | What::Moved | What::Renamed => '~',
        };
        let node = match node {
            Node::Topic => "topic",
            Node::Subscriber => "subscriber",
        };
        let was = was.as_ref().map(|was| format!("{was} -> ")).unwrap_or_default();
        lines.push(format!("{sign} {node} {}: {}", plain(&format!("{was}{name}")), word(*what)));
        lines.extend(words.iter().map(|words| format!("    {}", plain(words))));
    }
    if lines.is_empty() {
        lines.push("nothing changes".to_owned());
    }
    lines.extend(losses.iter().map(|loss| format!("needs --allow-loss: {}", plain(loss))));
    lines.extend(refusals.iter().map(|refusal| format!("refused: {}", plain(refusal))));
    lines.into_iter().map(|line| line + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_a_line_and_what_is_refused_is_last() {
        let change = |node, name: &str, what| Change {
            node,
            name: name.into(),
            was: (what == What::Renamed).then(|| "shop/old".into()),
            what,
            words: vec!["so".into()],
        };
        let changes = Changes {
            changes: vec![
                change(Node::Topic, "shop/a", What::Removed),
                change(Node::Subscriber, "shop/b", What::Moved),
                change(Node::Subscriber, "shop/c", What::Renamed),
            ],
            refusals: vec!["no".into()],
            losses: vec!["a has 2 events".into()],
        };
        let expected = "- topic shop/a: removed\n    so\n~ subscriber shop/b: moved\n    so\n~ subscriber shop/old -> shop/c: \
                        renamed\n    so\nneeds --allow-loss: a has 2 events\nrefused: no\n";
        assert_eq!(text(&changes), expected);
        assert_eq!(text(&Changes::default()), "nothing changes\n");
    }
}
