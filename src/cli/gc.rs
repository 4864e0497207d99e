//! `wattle gc`: deletes data of removed topics and subscribers.

use std::io::{self, BufRead, IsTerminal, Write};

use serde_json::json;

use super::words::plain;
use super::{ClientArgs, Exit, Failure, Outcome, Output, block_on};
use crate::api::{Garbage, Node};

/// Delete data of removed topics and subscribers
///
/// A removed topic keeps its events, and a removed subscriber its position, state, retry queue, snapshots and
/// capsules, so that both continue if they are declared again. This command deletes that data; declared again, they
/// start empty. Disk space is freed within seconds. An interrupted run is completed by the next start or by running
/// it again. On a terminal, it shows what would be lost and asks for confirmation.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle gc --dry-run
  wattle gc --yes --allow-loss")]
pub(super) struct GcArgs {
    /// Show what would be deleted and lost; delete nothing. The exit code is that of a real run
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,

    /// Delete even if events, positions, state or snapshots are lost
    #[arg(long)]
    allow_loss: bool,

    /// Do not ask for confirmation
    #[arg(short, long)]
    yes: bool,

    #[command(flatten)]
    client: ClientArgs,
}

pub(super) fn run(args: &GcArgs) -> Outcome {
    let asks = !args.yes && io::stdin().is_terminal() && io::stderr().is_terminal();
    let mut allow_loss = args.allow_loss;
    if args.dry_run || asks {
        let garbage = block_on(async { Ok(args.client.server.connect().await?.garbage().await?) })?;
        let (names, losses) = words(&garbage);
        if args.dry_run {
            show(args.client.output, &garbage)?;
            let may_be = args.allow_loss || losses.is_empty();
            return if may_be { Ok(()) } else { Err(Failure::silent(Exit::Failed)) };
        }
        if !names.is_empty() {
            confirm(&names, &losses, &mut io::stdin().lock(), &mut anstream::stderr().lock())?;
            allow_loss = true; // what is lost was shown
        }
    }
    let forgotten = block_on(async { Ok(args.client.server.connect().await?.collect_garbage(allow_loss).await?) })?;
    let forgotten = words(&forgotten).0;
    let mut out = anstream::stdout().lock();
    match (args.client.output, forgotten.as_slice()) {
        (Output::Json, all) => writeln!(out, "{}", json!({ "deleted": all }))?,
        (Output::Text, []) => writeln!(out, "there is nothing to delete")?,
        (Output::Text, all) => all.iter().try_for_each(|name| writeln!(out, "{} deleted", plain(name)))?,
    }
    Ok(())
}

/// The names of removed nodes, and the losses.
fn words(garbage: &[Garbage]) -> (Vec<String>, Vec<String>) {
    let losses = garbage.iter().filter(|of| of.is_loss()).map(ToString::to_string);
    (garbage.iter().map(name).collect(), losses.collect())
}

/// A removed node in words that tell it apart: two subscribers of one name may have taken from different topics.
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
        (Output::Json, _) => writeln!(out, "{}", json!({ "would_delete": names, "losses": losses }))?,
        (Output::Text, []) => writeln!(out, "there is nothing to delete")?,
        (Output::Text, all) => {
            for of in all {
                writeln!(out, "{} would be deleted", plain(&name(of)))?;
                if of.is_loss() {
                    writeln!(out, "    needs --allow-loss: {}", plain(&of.to_string()))?;
                }
            }
        }
    }
    Ok(())
}

/// Asks for confirmation.
fn confirm(subscribers: &[String], losses: &[String], from: &mut dyn BufRead, to: &mut dyn Write) -> Outcome {
    subscribers.iter().try_for_each(|name| writeln!(to, "{} would be deleted", plain(name)))?;
    losses.iter().try_for_each(|loss| writeln!(to, "this would lose: {}", plain(loss)))?;
    write!(to, "delete this? [y/N] ")?;
    to.flush()?;
    let mut answer = String::new();
    from.read_line(&mut answer)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::new(Exit::Failed, "nothing was deleted: the answer was not `y`")),
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
            let expected = "t/a would be deleted\nthis would lose: its place\ndelete this? [y/N] ";
            assert_eq!(String::from_utf8(shown).unwrap(), expected);
        }
    }
}
