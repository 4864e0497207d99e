//! `wattle status`: how a running bus is.

use std::io::Write;
use std::path::PathBuf;

use serde_json::json;

use super::changes;
use super::tree::{self, Shown, WARNING, plural};
use super::{Outcome, Output, ServerArg, block_on, topics, trials};
use crate::dispatch::{LaneState, SubscriberStatus};
use crate::engine::Storage;

/// Show the tree of a running bus with its counts
///
/// Events are those that are kept now; handled, emitted, retried, dead, passed over and repeated are counted since the bus was
/// started. Repeated are events that a group of subscribers (`claim`) leaves out, since it was given one of their identity before.
/// Behind are events that a subscriber has yet to look at; waiting those that it has looked at and not handled, some of them
/// parked until they are released (`wattle parked`). What is held for a topic, and what is to come to it, has no place in it yet
/// (`wattle pending`).
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle status
  wattle status --files topologies/orders.yaml
  wattle status -o json | jq '.subscribers[] | {name, lag}'")]
pub(super) struct Args {
    #[command(flatten)]
    server: ServerArg,

    /// Say how what runs differs from these topology files, or folders of them
    #[arg(long, num_args = 1.., value_name = "TOPOLOGY")]
    files: Vec<PathBuf>,

    /// For whom the result is
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(args: &Args) -> Outcome {
    let proposal = match args.files.as_slice() {
        [] => None,
        files => Some(changes::proposal(files)?),
    };
    let (status, drift) = block_on(async {
        let client = args.server.connect().await?;
        let drift = match proposal {
            Some(proposal) => Some(client.changes(proposal).await?),
            None => None,
        };
        Ok((client.status().await?, drift))
    })?;
    let mut out = anstream::stdout().lock();
    match args.output {
        Output::Json => {
            let status = json!({
                "version": status.version,
                "serving": status.serving.is_ok(),
                "reason": status.serving.as_ref().err(),
                "storage": status.storage.as_ref().map(storage),
                "files_refused": status.files_refused,
                "drift": drift.as_ref().map(changes::shown),
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
            for warning in status.storage.iter().flat_map(warnings) {
                writeln!(out, "{WARNING}{warning}{WARNING:#}")?;
            }
            for why in &status.files_refused {
                writeln!(out, "{WARNING}what the files of the start say does not run: {why}{WARNING:#}")?;
            }
            if let Some(drift) = &drift {
                match drift.is_empty() {
                    true => writeln!(out, "what runs is what the files say")?,
                    false => writeln!(
                        out,
                        "{WARNING}the files say something else, which `wattle apply` would run:{WARNING:#}"
                    )?,
                }
                if !drift.is_empty() {
                    write!(out, "{}", changes::text(drift))?;
                }
            }
            write!(out, "{}", tree::text(&status.tree, Shown::All))?;
            for subscriber in &status.tree.subscribers {
                writeln!(out, "{}", version(subscriber))?;
                if let Some(reload) = &subscriber.reload {
                    writeln!(out, "last reload of {}: {reload}", subscriber.name)?;
                }
                if let Some(failure) = &subscriber.last_failure {
                    writeln!(out, "last failure of {}: {failure}", subscriber.name)?;
                }
            }
        }
    }
    Ok(())
}

/// The version that a subscriber runs, and the one that is to take its place.
fn version(subscriber: &SubscriberStatus) -> String {
    let short = |digest: &str| digest.chars().take(16).collect::<String>();
    let proven = format!("version of {}: {}", subscriber.name, short(&subscriber.digest));
    match &subscriber.on_trial {
        None => proven,
        Some(trial) => format!(
            "{proven}, and {} on trial in {} of {}: {}",
            short(&trial.digest),
            trial.lanes,
            plural(subscriber.lanes.len() as u64, "lane"),
            trials::words(trial),
        ),
    }
}

fn storage(storage: &Storage) -> serde_json::Value {
    json!({
        "takes_events": storage.takes_events,
        "takes_outputs": storage.takes_outputs,
        "clock_jumped_seconds": storage.clock_jumped.map(|jumped| jumped.as_secs()),
    })
}

/// What is wrong with what the bus keeps things on, and what to do.
fn warnings(storage: &Storage) -> Vec<String> {
    let room = "make room on it, or shorten the retention of topics";
    let disk = match (storage.takes_events, storage.takes_outputs) {
        (_, false) => Some(format!("the disk is full: publishes are refused and handlers that emit wait; {room}")),
        (false, true) => Some(format!("the disk is nearly full: publishes are refused until there is room; {room}")),
        (true, true) => None,
    };
    let clock = storage.clock_jumped.map(|jumped| {
        format!(
            "the clock is ahead by {} of the time that has passed, or the bus was off: that does not count, and no event is \
             removed for its age, until somebody has looked at it: set it right if it is wrong, else say `wattle clock \
             confirm`",
            plural(jumped.as_secs() / 3600, "hour")
        )
    });
    disk.into_iter().chain(clock).collect()
}

fn subscriber(subscriber: &SubscriberStatus) -> serde_json::Value {
    let lane = |lane: &LaneState| match lane {
        LaneState::Running => "running",
        LaneState::Retrying => "retrying",
        LaneState::Paused => "paused",
        LaneState::Halted => "halted",
        LaneState::Full => "full",
        LaneState::Blocked => "blocked",
        LaneState::Failing => "failing",
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
        "passed_over": subscriber.passed_over,
        "repeated": subscriber.repeated,
        "waiting": subscriber.waiting,
        "parked": subscriber.parked,
        "lanes": subscriber.lanes.iter().map(lane).collect::<Vec<_>>(),
        "last_failure": subscriber.last_failure,
        "on_trial": subscriber.on_trial.as_ref().map(trials::json),
        "reload": subscriber.reload,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::dispatch::OnTrial;

    #[test]
    fn a_version_on_trial_is_shown_with_how_far_it_is() {
        let mut status =
            SubscriberStatus { name: "shop/a".into(), digest: "ab".repeat(32), ..SubscriberStatus::default() };
        assert_eq!(version(&status), "version of shop/a: abababababababab");
        status.lanes = vec![LaneState::Running; 4];
        let trial = OnTrial { digest: "cd".repeat(32), lanes: 1, handled: 7, events: 100, ..OnTrial::default() };
        status.on_trial = Some(OnTrial { ends_in: Duration::from_secs(40), ..trial });
        let words = "version of shop/a: abababababababab, and cdcdcdcdcdcdcdcd on trial in 1 of 4 lanes: 7 of 100 events, ends \
                     at the latest in 40 s";
        assert_eq!(version(&status), words);
    }

    #[test]
    fn what_is_wrong_with_the_storage_is_said_with_what_to_do() {
        let said = |takes_events, takes_outputs, jumped_hours: Option<u64>| {
            let clock_jumped = jumped_hours.map(|hours| Duration::from_secs(hours * 3600));
            warnings(&Storage { takes_events, takes_outputs, clock_jumped })
        };
        assert_eq!(said(true, true, None), Vec::<String>::new());
        let nearly = said(false, true, None).concat();
        assert!(nearly.contains("nearly full") && nearly.contains("make room"), "{nearly}");
        let full = said(false, false, None).concat();
        assert!(full.contains("handlers that emit wait") && full.contains("make room"), "{full}");
        let frozen = said(true, true, Some(48)).concat();
        assert!(frozen.contains("48 hours") && frozen.contains("wattle clock confirm"), "{frozen}");
        assert_eq!(said(false, false, Some(48)).len(), 2);
    }
}
