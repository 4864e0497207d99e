//! `wattle topics`: the topics of a running bus.

use std::io::Write;

use serde_json::json;

use super::words::plain;
use super::{ClientArgs, Outcome, Output, block_on};
use crate::api::TopicStatus;

/// List the topics of a bus, parents before children
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle topics
  wattle topics -o json | jq '.[] | select(.parent == null and .diverted_from == null) | .name'")]
pub(super) struct TopicsArgs {
    #[command(flatten)]
    client: ClientArgs,
}

pub(super) fn run(args: &TopicsArgs) -> Outcome {
    let topics = block_on(async { Ok(args.client.server.connect().await?.topics().await?) })?;
    let mut out = anstream::stdout().lock();
    match args.client.output {
        Output::Json => {
            let topics: Vec<_> = topics.iter().map(json).collect();
            writeln!(out, "{}", json!(topics))?;
        }
        Output::Text => {
            let width = topics.iter().map(|topic| topic.name.chars().count()).max().unwrap_or(0).max(5);
            writeln!(out, "{:width$}  PARTITIONS       EVENTS  WRITTEN BY", "TOPIC")?;
            for topic in &topics {
                let diverted = topic.diverted_from.as_ref().map(|from| format!("{from}, out of order"));
                let parent = topic.parent.as_ref().or(diverted.as_ref()).map_or("producers", String::as_str);
                let dead = if topic.is_dead_letters { " (dead letters)" } else { "" };
                let (name, partitions, events) = (plain(&topic.name), topic.partitions.len(), topic.events());
                let parent = plain(parent);
                writeln!(out, "{name:width$}  {partitions:>10} {events:>12}  {parent}{dead}")?;
            }
        }
    }
    Ok(())
}

/// A topic for programs.
pub(super) fn json(topic: &TopicStatus) -> serde_json::Value {
    let partitions: Vec<_> = topic
        .partitions
        .iter()
        .map(|bounds| json!({ "start": bounds.start, "written": bounds.written, "durable": bounds.durable }))
        .collect();
    json!({
        "name": topic.name,
        "parent": topic.parent,
        "diverted_from": topic.diverted_from,
        "dead_letters": topic.is_dead_letters,
        "delayed": topic.delayed,
        "awaits_clock": topic.awaits_clock,
        "delay_failure": topic.delay_failure,
        "held_failure": topic.held_failure,
        "keys": topic.states.map(|keys| json!({ "living": keys.living, "ended": keys.ended, "held": keys.held })),
        "events": topic.events(),
        "events_per_minute": topic.events_per_minute,
        "partitions": partitions,
    })
}
