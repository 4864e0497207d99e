//! `wattle dead`: dead letters of a subscriber.

use std::io::Write;

use serde_json::json;

use super::{FailedEventArgs, FilterArgs, ListKind};
use crate::api::reason::UNKNOWN_SUBSCRIBER;
use crate::api::{Reason, SubscriberStatus, Times};
use crate::cli::moves::StoppedPartitions;
use crate::cli::table::Table;
use crate::cli::tree::plural;
use crate::cli::{ClientArgs, Failure, Outcome, Output, block_on, say};
use crate::client::{Client, ClientError};

/// List, redrive and drop dead letters
///
/// An event that a subscriber rejects, or that failed for the last time, goes to the topic SUBSCRIBER.dead. A redrive
/// handles it once more, by that subscriber only.
#[derive(Debug, Clone, clap::Args)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  wattle dead list
  wattle dead list validate
  wattle dead show validate --id o-17
  wattle dead redrive validate --reason trap
  wattle dead drop validate --older-than 30d"
)]
pub(in crate::cli) struct DeadArgs {
    #[command(subcommand)]
    command: DeadCommand,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum DeadCommand {
    List(ListLetters),
    Show(Show),
    Redrive(Redrive),
    Drop(Drop),
}

/// List open dead letters: neither redriven nor dropped
///
/// Without a subscriber, counts the open dead letters of all subscribers by reason, most frequent first. Reasons are
/// grouped by the first line of the message, without positions in the data (`line N column N`).
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle dead list
  wattle dead list validate
  wattle dead list validate --older-than 1d -n 20
  wattle dead list -o json | jq -r 'select(.failure == \"trap\") | [.subscriber, .count, .reason] | @tsv'")]
struct ListLetters {
    /// Subscriber, as NAMESPACE/NAME, or NAME if only one namespace has it [default: all]
    subscriber: Option<String>,

    /// Stop after N events
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    #[command(flatten)]
    filter: FilterArgs,

    #[command(flatten)]
    client: ClientArgs,
}

/// Show dead letters with event and failure
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle dead show validate --id o-17
  wattle dead show validate -o json | jq .event.data")]
struct Show {
    #[command(flatten)]
    of: FailedEventArgs,

    /// Stop after N events
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

/// Redrive dead letters: the subscriber handles them once more
///
/// Dead letters of a key keep their order, after events of the key that wait already. An event that fails again is a
/// new dead letter.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle dead redrive validate --id o-17
  wattle dead redrive validate --reason timeout
  wattle dead redrive validate --all")]
struct Redrive {
    #[command(flatten)]
    of: FailedEventArgs,

    /// Select every dead letter
    #[arg(long)]
    all: bool,
}

/// Drop dead letters from the list; they stay in their topic until its retention expires
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle dead drop validate --id o-17
  wattle dead drop validate --all")]
struct Drop {
    #[command(flatten)]
    of: FailedEventArgs,

    /// Select every dead letter
    #[arg(long)]
    all: bool,
}

pub(in crate::cli) fn run(args: &DeadArgs) -> Outcome {
    match &args.command {
        DeadCommand::List(list) => block_on(async {
            let ListLetters { subscriber, count, filter, client: ClientArgs { server, output } } = list;
            let (client, count) = (server.connect().await?, count.unwrap_or(u64::MAX));
            match subscriber {
                None => reasons(&client, filter, count, *output).await,
                Some(subscriber) => {
                    let mut letters = client.dead_letters(subscriber, filter.filter(false));
                    super::list(subscriber, &mut letters, ListKind::Dead, count, *output).await
                }
            }
        }),
        DeadCommand::Show(Show {
            of: FailedEventArgs { subscriber, filter, client: ClientArgs { server, output } },
            count,
        }) => block_on(async {
            let mut letters = server.connect().await?.dead_letters(subscriber, filter.filter(false));
            super::show(subscriber, &mut letters, ListKind::Dead, count.unwrap_or(u64::MAX), *output).await
        }),
        DeadCommand::Redrive(Redrive { of, all }) => {
            of.filter.check(*all, "dead letters")?;
            of.changed(block_on(redrive(of))?, ListKind::Dead, ("redriven", "redrove"))
        }
        DeadCommand::Drop(Drop { of, all }) => {
            of.filter.check(*all, "dead letters")?;
            of.changed(block_on(drop(of))?, ListKind::Dead, ("dropped", "dropped"))
        }
    }
}

/// Lists how many dead letters of every subscriber there are, by why they failed, with a bounded number of reasons.
async fn reasons(client: &Client, filter: &FilterArgs, count: u64, output: Output) -> Outcome {
    let status = client.status().await?;
    let has_some = |of: &&SubscriberStatus| of.dead_letters.is_some() && of.open_dead_letters != Some(0);
    let mut out = std::io::BufWriter::new(anstream::stdout());
    let header = ["SUBSCRIBER", "COUNT", "FIRST FAILED", "LAST FAILED", "REASON"];
    let (mut table, mut shown, mut left_out, mut letters, mut subscribers) = (Table::new(&header, &[1]), 0, 0, 0, 0);
    for SubscriberStatus { name, .. } in status.tree.subscribers.iter().filter(has_some) {
        let reasons = match client.count_dead_letters(name, filter.filter(false)).await {
            // the topology is another one by now
            Err(ClientError::Refused(refused)) if refused.reason == UNKNOWN_SUBSCRIBER => continue,
            reasons => reasons?,
        };
        letters += reasons.total();
        subscribers += u64::from(reasons.total() > 0);
        for (Reason { failure, words }, Times { count: times, first_ns, last_ns }) in reasons.by_count() {
            if shown == count {
                left_out += 1;
                continue;
            }
            shown += 1;
            match output {
                Output::Json => {
                    let (first, last) = (super::exact_time(first_ns), super::exact_time(last_ns));
                    let line = json!({
                        "subscriber": name, "failure": failure, "reason": words, "count": times,
                        "first_failed_time": first, "last_failed_time": last,
                    });
                    writeln!(out, "{line}")?;
                }
                Output::Text => {
                    let words = if words.is_empty() { "(others)" } else { words };
                    let reason = format!("{failure}: {words}");
                    let (first, last) = (super::time(first_ns), super::time(last_ns));
                    table.row(&mut out, vec![name.clone(), times.to_string(), first, last, reason])?;
                }
            }
        }
    }
    if output == Output::Text {
        table.end(&mut out)?;
        let more = if left_out > 0 { format!(", and {} more", plural(left_out, "reason")) } else { String::new() };
        match letters {
            0 => writeln!(out, "no dead letters")?,
            _ => writeln!(
                out,
                "{} of {}{more}: `wattle dead list SUBSCRIBER` lists them",
                plural(letters, "dead letter"),
                plural(subscribers, "subscriber")
            )?,
        }
    }
    Ok(out.flush()?)
}

async fn redrive(of: &FailedEventArgs) -> Result<u64, Failure> {
    let client = of.client.server.connect().await?;
    let (mut redriven, mut from, mut is_said) = (0, None, false);
    loop {
        let done = client.redrive(&of.subscriber, of.filter.filter(false), from).await?;
        redriven += done.count;
        match done.next {
            None => {
                if redriven > 0 {
                    StoppedPartitions::of(&client, &of.subscriber).await.say(&of.subscriber);
                }
                return Ok(redriven);
            }
            Some(next) if done.count == 0 && !is_said => {
                is_said = true;
                say(&format!(
                    "redrove {redriven} so far; the others wait until the subscriber has room for them: `wattle parked \
                     list {} \
                     --all` shows what waits there",
                    of.subscriber
                ));
                from = Some(next);
            }
            next => from = next,
        }
    }
}

async fn drop(of: &FailedEventArgs) -> Result<u64, Failure> {
    let client = of.client.server.connect().await?;
    let (mut dropped, mut from) = (0, None);
    loop {
        let done = client.drop_dead_letters(&of.subscriber, of.filter.filter(false), from).await?;
        dropped += done.count;
        match done.next {
            None => return Ok(dropped),
            next => from = next,
        }
    }
}
