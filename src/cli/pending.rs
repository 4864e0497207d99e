//! `wattle pending`: events of a topic that have no place in it yet.

use std::io::Write;

use serde_json::json;
use serde_json::value::RawValue;

use super::failed::{exact_time, time};
use super::table::Table;
use super::tree::plural;
use super::words::json_out;
use super::{ClientArgs, Failure, Outcome, Output, block_on};
use crate::api::{PendingEvent, PendingFilter, PendingKind};
use crate::model::Event;
use crate::model::json::{member, members, to_json};

/// List held and delayed events of a topic
///
/// An event is held while its state may not follow that of its key, in a topic with `out_of_order: { hold: ... }`: it
/// is appended when it may follow, or goes to `TOPIC@refused` when its time is over. An event with the attribute
/// `deliverat` or `delay` is delayed. `UNTIL` is the time of one or the other.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle pending orders
  wattle pending orders --held --key order-17
  wattle pending orders --delayed -n 10
  wattle pending orders -o json | jq -r .reason | sort | uniq -c")]
pub(super) struct PendingArgs {
    /// Topic, as NAMESPACE/NAME, or NAME if only one namespace has it
    topic: String,

    /// List only held events
    #[arg(long)]
    held: bool,

    /// List only delayed events
    #[arg(long, conflicts_with = "held")]
    delayed: bool,

    /// List only events with this ordering key
    #[arg(long, allow_hyphen_values = true)]
    key: Option<String>,

    /// Stop after N events
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    #[command(flatten)]
    client: ClientArgs,
}

pub(super) fn run(args: &PendingArgs) -> Outcome {
    let kind = match (args.held, args.delayed) {
        (true, _) => Some(PendingKind::Held),
        (_, true) => Some(PendingKind::Delayed),
        _ => None,
    };
    block_on(list(args, PendingFilter { kind, key: args.key.clone() }))
}

async fn list(args: &PendingArgs, filter: PendingFilter) -> Outcome {
    let mut events = args.client.server.connect().await?.pending(&args.topic, filter);
    let header = ["ID", "KEY", "PARTITION", "TYPE", "IS", "STATE", "SINCE", "UNTIL", "REASON"];
    let (mut out, mut table) = (std::io::BufWriter::new(anstream::stdout()), Table::new(&header, &[2]));
    let (mut held, mut delayed, most) = (0, 0, args.count.unwrap_or(u64::MAX));
    while let Some(event) = if held + delayed < most { events.next().await? } else { None } {
        match event.kind {
            PendingKind::Held => held += 1,
            PendingKind::Delayed => delayed += 1,
        }
        match args.client.output {
            // as it is: what takes styles out takes characters of data out as well
            Output::Json => writeln!(json_out(), "{}", json(&event)?)?,
            Output::Text => table.row(&mut out, row(&event))?,
        }
    }
    let has_more = held + delayed == most && events.next().await?.is_some();
    if args.client.output == Output::Text {
        table.end(&mut out)?;
        let more = if has_more { ", and there are more" } else { "" };
        writeln!(out, "{} held, {delayed} to come{more}", plural(held, "event"))?;
    }
    Ok(out.flush()?)
}

fn is(kind: PendingKind) -> &'static str {
    match kind {
        PendingKind::Held => "held",
        PendingKind::Delayed => "to come",
    }
}

fn row(event: &PendingEvent) -> Vec<String> {
    let shown = |time_ns: Option<u64>| time_ns.map(time).unwrap_or_default();
    vec![
        event.id.clone(),
        event.key.clone(),
        event.partition.to_string(),
        event.r#type.clone(),
        is(event.kind).to_owned(),
        event.state.clone().unwrap_or_default(),
        shown(event.since_ns),
        shown(event.due_ns),
        event.reason.clone(),
    ]
}

/// An event for programs.
fn json(event: &PendingEvent) -> Result<Box<RawValue>, Failure> {
    let decoded =
        Event::decode(&event.event).map_err(|error| Failure::failed(format!("the event {}: {error}", event.id)))?;
    let mut fields = members(json!({
        "topic": event.topic,
        "partition": event.partition,
        "kind": match event.kind { PendingKind::Held => "held", PendingKind::Delayed => "delayed" },
        "key": event.key,
        "id": event.id,
        "type": event.r#type,
        "state": event.state,
        "since_time": event.since_ns.and_then(exact_time),
        "due_time": event.due_ns.and_then(exact_time),
        "reason": Some(&event.reason).filter(|reason| !reason.is_empty()),
    }));
    fields.insert("event".to_owned(), member(&to_json(&decoded)));
    Ok(member(&fields))
}
