//! `wattle parked`: the retry queue of a subscriber.

use super::{FailedEventArgs, ListKind};
use crate::cli::moves::StoppedPartitions;
use crate::cli::{Outcome, block_on};

/// List, release and drop parked events
///
/// With `on_failure: park`, an event that failed for the last time is parked: it and later events of its key wait
/// until it is released or dropped, while all other keys continue.
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
pub(in crate::cli) struct ParkedArgs {
    #[command(subcommand)]
    command: ParkedCommand,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum ParkedCommand {
    /// List parked events
    #[command(after_help = "Examples:
  wattle parked list inventory
  wattle parked list inventory --all --key order-17
  wattle parked list inventory -o json | jq -r .reason | sort | uniq -c")]
    List(Listing),
    /// Show parked events with event and failure
    #[command(after_help = "Examples:
  wattle parked show inventory --id o-17
  wattle parked show inventory --key order-17 --all -o json | jq .event.data")]
    Show(Listing),
    /// Retry parked events at once, as if for the first time
    ///
    /// Later events of the same key follow.
    #[command(after_help = "Examples:
  wattle parked release inventory --id o-17
  wattle parked release inventory --reason 'no connection'
  wattle parked release inventory --all")]
    Release(Change),
    /// Drop parked events: they are never handled
    ///
    /// Later events of the same key continue.
    #[command(after_help = "Examples:
  wattle parked drop inventory --id o-17
  wattle parked drop inventory --key order-17 --retry-queue    with later events of the key
  wattle parked drop inventory --retry-queue --id o-18         an event that is still retried, or that halted its \
  partition")]
    Drop(Change),
}

#[derive(Debug, Clone, clap::Args)]
struct Listing {
    #[command(flatten)]
    of: FailedEventArgs,

    /// Include events of the retry queue that are not parked: they wait for their next attempt or for another event
    /// of their key
    #[arg(long)]
    all: bool,

    /// Stop after N events
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

/// A change, and its events.
#[derive(Debug, Clone, clap::Args)]
struct Change {
    #[command(flatten)]
    of: FailedEventArgs,

    /// Select every parked event
    #[arg(long)]
    all: bool,

    /// Include events of the retry queue that are not parked: they wait for their next attempt or for another event
    /// of their key
    #[arg(long)]
    retry_queue: bool,
}

pub(in crate::cli) fn run(args: &ParkedArgs) -> Outcome {
    match &args.command {
        ParkedCommand::List(Listing { of, all, count }) => block_on(async {
            let mut events = of.client.server.connect().await?.waiting(&of.subscriber, of.filter.filter(!all));
            let (what, count) = (ListKind::waiting(*all), count.unwrap_or(u64::MAX));
            super::list(&of.subscriber, &mut events, what, count, of.client.output).await
        }),
        ParkedCommand::Show(Listing { of, all, count }) => block_on(async {
            let mut events = of.client.server.connect().await?.waiting(&of.subscriber, of.filter.filter(!all));
            let (what, count) = (ListKind::waiting(*all), count.unwrap_or(u64::MAX));
            super::show(&of.subscriber, &mut events, what, count, of.client.output).await
        }),
        ParkedCommand::Release(Change { of, all, retry_queue }) => {
            of.filter.check(*all, "parked events")?;
            let released = block_on(async {
                let client = of.client.server.connect().await?;
                let released = client.release(&of.subscriber, of.filter.filter(!retry_queue)).await?;
                if released > 0 {
                    StoppedPartitions::of(&client, &of.subscriber).await.say(&of.subscriber);
                }
                Ok(released)
            })?;
            of.changed(released, ListKind::waiting(*retry_queue), ("released", "released"))
        }
        ParkedCommand::Drop(Change { of, all, retry_queue }) => {
            of.filter.check(*all, "parked events")?;
            let dropped = block_on(async {
                let client = of.client.server.connect().await?;
                Ok(client.drop_waiting(&of.subscriber, of.filter.filter(!retry_queue)).await?)
            })?;
            of.changed(dropped, ListKind::waiting(*retry_queue), ("dropped", "dropped"))
        }
    }
}
