//! `wattle parked`: events that wait in front of a subscriber.

use std::io::Write;

use serde_json::json;

use super::failed::{self, FilterArgs, Listed};
use super::moves::Standing;
use super::tree::plural;
use super::{Outcome, Output, ServerArg, block_on};

/// Look at events that are parked, release them or drop them
///
/// A subscriber whose topology says `on_failure: park` parks an event that failed for the last time: it and its successors
/// of the same key wait until it is released or dropped, and all other keys go on.
#[derive(Debug, Clone, clap::Args)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  wattle parked list inventory
  wattle parked show inventory --id o-17
  wattle parked release inventory --reason 'no connection'
  wattle parked drop inventory --key order-17"
)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Command {
    List(List),
    Show(Show),
    /// Have parked events tried at once, as if for the first time
    ///
    /// The events behind them of the same key go on after them.
    #[command(after_help = "Examples:
  wattle parked release inventory --id o-17
  wattle parked release inventory --reason 'no connection'
  wattle parked release inventory --all")]
    Release(Change),
    /// Forget parked events: they are never handled
    ///
    /// The events behind them of the same key go on.
    #[command(after_help = "Examples:
  wattle parked drop inventory --id o-17
  wattle parked drop inventory --key order-17 --waiting    with what waits behind them
  wattle parked drop inventory --waiting --id o-18         one that is still tried, or halted its partition")]
    Drop(Change),
}

/// List parked events
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle parked list inventory
  wattle parked list inventory --all --key order-17
  wattle parked list inventory -o json | jq -r .reason | sort | uniq -c")]
struct List {
    /// The subscriber: namespace/name, or name alone where only one namespace has it
    subscriber: String,

    /// Also events that wait by themselves: for their next attempt, or for another event of their key
    #[arg(long)]
    all: bool,

    /// Stop after this many events
    #[arg(short = 'n', long, value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    #[command(flatten)]
    filter: FilterArgs,

    #[command(flatten)]
    server: ServerArg,

    /// For whom the result is; for programs, a line for each event
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Show parked events whole, with why they failed
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle parked show inventory --id o-17
  wattle parked show inventory --key order-17 --all -o json | jq .event.data")]
struct Show {
    /// The subscriber: namespace/name, or name alone where only one namespace has it
    subscriber: String,

    /// Also events that wait by themselves: for their next attempt, or for another event of their key
    #[arg(long)]
    all: bool,

    /// Stop after this many events
    #[arg(short = 'n', long, value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    #[command(flatten)]
    filter: FilterArgs,

    #[command(flatten)]
    server: ServerArg,

    /// For whom the result is; for programs, a line for each event
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// What is done to which events.
#[derive(Debug, Clone, clap::Args)]
struct Change {
    /// The subscriber: namespace/name, or name alone where only one namespace has it
    subscriber: String,

    /// Every parked event
    #[arg(long)]
    all: bool,

    /// Also events that wait by themselves: for their next attempt, or for another event of their key
    #[arg(long)]
    waiting: bool,

    #[command(flatten)]
    filter: FilterArgs,

    #[command(flatten)]
    server: ServerArg,

    /// For whom the result is
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(args: &Args) -> Outcome {
    match &args.command {
        Command::List(List { subscriber, all, count, filter, server, output }) => block_on(async {
            let mut events = server.connect().await?.waiting(subscriber, filter.filter(!all));
            failed::list(subscriber, &mut events, Listed::waiting(*all), count.unwrap_or(u64::MAX), *output).await
        }),
        Command::Show(Show { subscriber, all, count, filter, server, output }) => block_on(async {
            let mut events = server.connect().await?.waiting(subscriber, filter.filter(!all));
            failed::show(subscriber, &mut events, Listed::waiting(*all), count.unwrap_or(u64::MAX), *output).await
        }),
        Command::Release(change) => {
            let Change { subscriber, all, waiting, filter, server, output } = change;
            filter.check(*all, "parked events")?;
            let released = block_on(async {
                let client = server.connect().await?;
                let released = client.release(subscriber, filter.filter(!waiting)).await?;
                if released > 0 {
                    Standing::of(&client, subscriber).await.say(subscriber);
                }
                Ok(released)
            })?;
            filter.found(released, subscriber, Listed::waiting(*waiting))?;
            let mut out = anstream::stdout().lock();
            match output {
                Output::Json => writeln!(out, "{}", json!({ "released": released }))?,
                Output::Text => writeln!(out, "released {}", plural(released, "event"))?,
            }
            Ok(())
        }
        Command::Drop(change) => {
            let Change { subscriber, all, waiting, filter, server, output } = change;
            filter.check(*all, "parked events")?;
            let dropped = block_on(async {
                Ok(server.connect().await?.drop_waiting(subscriber, filter.filter(!waiting)).await?)
            })?;
            filter.found(dropped, subscriber, Listed::waiting(*waiting))?;
            let mut out = anstream::stdout().lock();
            match output {
                Output::Json => writeln!(out, "{}", json!({ "dropped": dropped }))?,
                Output::Text => writeln!(out, "dropped {}", plural(dropped, "event"))?,
            }
            Ok(())
        }
    }
}
