//! `wattle status`: how a running bus is.

use std::io::Write;

use serde_json::json;

use super::tree::{self, Shown};
use super::{Outcome, Output, ServerArg, block_on, topics};
use crate::dispatch::{LaneState, SubscriberStatus};

/// Show the tree of a running bus with its counts
///
/// Events are those that are kept now; handled, emitted, retried and dead are counted since the bus was started.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle status
  wattle status -o json | jq '.subscribers[] | {name, lag}'")]
pub(super) struct Args {
    #[command(flatten)]
    server: ServerArg,

    /// For whom the result is
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(args: &Args) -> Outcome {
    let status = block_on(async { Ok(args.server.connect().await?.status().await?) })?;
    let mut out = anstream::stdout().lock();
    match args.output {
        Output::Json => {
            let status = json!({
                "version": status.version,
                "serving": status.serving.is_ok(),
                "reason": status.serving.as_ref().err(),
                "topics": status.tree.topics.iter().map(topics::json).collect::<Vec<_>>(),
                "subscribers": status.tree.subscribers.iter().map(subscriber).collect::<Vec<_>>(),
            });
            writeln!(out, "{status}")?;
        }
        Output::Text => {
            let state = match &status.serving {
                Ok(()) => "serving".to_owned(),
                Err(reason) => format!("not serving: {reason}"),
            };
            writeln!(out, "wattle {} at {}: {state}", status.version, args.server.server)?;
            write!(out, "{}", tree::text(&status.tree, Shown::All))?;
            for subscriber in &status.tree.subscribers {
                if let Some(failure) = &subscriber.last_failure {
                    writeln!(out, "last failure of {}: {failure}", subscriber.name)?;
                }
            }
        }
    }
    Ok(())
}

fn subscriber(subscriber: &SubscriberStatus) -> serde_json::Value {
    let lane = |lane: &LaneState| match lane {
        LaneState::Running => "running",
        LaneState::Retrying => "retrying",
        LaneState::Stopped => "stopped",
    };
    let port = |(port, topic): &(String, String)| json!({ "port": port, "topic": topic });
    json!({
        "name": subscriber.name,
        "from": subscriber.from,
        "to": subscriber.to.iter().map(port).collect::<Vec<_>>(),
        "dead_letters": subscriber.dead_letters,
        "digest": subscriber.digest,
        "handled": subscriber.handled,
        "emitted": subscriber.emitted,
        "retried": subscriber.retried,
        "dead_lettered": subscriber.dead_lettered,
        "lag": subscriber.lag,
        "lanes": subscriber.lanes.iter().map(lane).collect::<Vec<_>>(),
        "last_failure": subscriber.last_failure,
    })
}
