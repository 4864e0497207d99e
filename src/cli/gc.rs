//! `wattle gc`: what is kept of topics and subscribers that are gone.

use std::io::{self, BufRead, IsTerminal, Write};

use serde_json::json;

use super::words::plain;
use super::{Exit, Failure, Outcome, Output, ServerArg, block_on};
use crate::api::{Garbage, Node};

/// Forget what is kept of topics and subscribers that are gone
///
/// A topic that was taken out of the topology keeps its events, and a subscriber its place, its state and what waits; both go
/// on with them when they come back. From here on they are new when they do: nothing of the old events, of what was
/// recognised, of states and positions is there. Snapshots and capsules go as well. The disk is given back within seconds. What
/// breaks off is gone on with by the next start, or by this once more. On a terminal it shows what would be lost, and asks.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle gc --dry-run
  wattle gc --yes --allow-loss")]
pub(super) struct Args {
    /// Say what would be forgotten, and what would be lost by that; nothing happens. Exits as it would without this
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,

    /// Also where there are events, places, state, or snapshots
    #[arg(long)]
    allow_loss: bool,

    /// Do not ask, also on a terminal
    #[arg(short, long)]
    yes: bool,

    #[command(flatten)]
    server: ServerArg,

    /// For whom the result is
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(args: &Args) -> Outcome {
    let asks = !args.yes && io::stdin().is_terminal() && io::stderr().is_terminal();
    let mut allow_loss = args.allow_loss;
    if args.dry_run || asks {
        let garbage = block_on(async { Ok(args.server.connect().await?.garbage().await?) })?;
        let (names, losses) = words(&garbage);
        if args.dry_run {
            show(args.output, &garbage)?;
            let may_be = args.allow_loss || losses.is_empty();
            return if may_be { Ok(()) } else { Err(Failure::silent(Exit::Failed)) };
        }
        if !names.is_empty() {
            confirm(&names, &losses, &mut io::stdin().lock(), &mut anstream::stderr().lock())?;
            allow_loss = true; // what is lost was shown
        }
    }
    let forgotten = block_on(async { Ok(args.server.connect().await?.collect_garbage(allow_loss).await?) })?;
    let forgotten = words(&forgotten).0;
    let mut out = anstream::stdout().lock();
    match (args.output, forgotten.as_slice()) {
        (Output::Json, all) => writeln!(out, "{}", json!({ "forgotten": all }))?,
        (Output::Text, []) => writeln!(out, "there is nothing to forget")?,
        (Output::Text, all) => all.iter().try_for_each(|name| writeln!(out, "{} is forgotten", plain(name)))?,
    }
    Ok(())
}

/// What is gone by name, and what is lost with it.
fn words(garbage: &[Garbage]) -> (Vec<String>, Vec<String>) {
    let losses = garbage.iter().filter(|of| of.is_loss()).map(ToString::to_string);
    (garbage.iter().map(name).collect(), losses.collect())
}

/// What is gone, so that it is told apart: two subscribers of one name took from different topics.
fn name(of: &Garbage) -> String {
    match (of.node, &of.from) {
        (Node::Topic, _) => format!("topic {}", of.name),
        (Node::Subscriber, Some(from)) => format!("{} (from {from})", of.name),
        (Node::Subscriber, None) => of.name.clone(),
    }
}

/// Each once, with what would be lost with it.
fn show(output: Output, garbage: &[Garbage]) -> Outcome {
    let mut out = anstream::stdout().lock();
    let (names, losses) = words(garbage);
    match (output, garbage) {
        (Output::Json, _) => writeln!(out, "{}", json!({ "would_forget": names, "losses": losses }))?,
        (Output::Text, []) => writeln!(out, "there is nothing to forget")?,
        (Output::Text, all) => {
            for of in all {
                writeln!(out, "{} would be forgotten", plain(&name(of)))?;
                if of.is_loss() {
                    writeln!(out, "    needs --allow-loss: {}", plain(&of.to_string()))?;
                }
            }
        }
    }
    Ok(())
}

/// Asks whether that is meant.
fn confirm(subscribers: &[String], losses: &[String], from: &mut dyn BufRead, to: &mut dyn Write) -> Outcome {
    subscribers.iter().try_for_each(|name| writeln!(to, "{} would be forgotten", plain(name)))?;
    losses.iter().try_for_each(|loss| writeln!(to, "this would lose: {}", plain(loss)))?;
    write!(to, "forget that? [y/N] ")?;
    to.flush()?;
    let mut answer = String::new();
    from.read_line(&mut answer)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::new(Exit::Failed, "nothing was forgotten: the answer was not `y`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_is_yes_and_what_would_be_lost_is_shown_first() {
        for (answer, is_yes) in [("y\n", true), (" YES \n", true), ("n\n", false), ("\n", false), ("", false)] {
            let mut shown = Vec::new();
            let asked = confirm(&["t/a".into()], &["its place".into()], &mut answer.as_bytes(), &mut shown);
            assert_eq!(asked.is_ok(), is_yes, "{answer:?}");
            let expected = "t/a would be forgotten\nthis would lose: its place\nforget that? [y/N] ";
            assert_eq!(String::from_utf8(shown).unwrap(), expected);
        }
    }
}
