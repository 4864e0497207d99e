//! `wattle pause`, `resume` and `seek`: the position of a subscriber, and whether it runs.

use std::io::Write;

use serde_json::json;

use super::table::Table;
use super::tree::plural;
use super::{ClientArgs, Exit, Failure, Outcome, Output, SubscriberArg, SubscriberArgs, block_on, say, tail};
use crate::api::{LaneState, Seek, SeekState, SeekTo};
use crate::client::{Client, Start};

/// Pause a subscriber
///
/// Calls in progress are finished first. It stays paused after a restart; its topic retains the events that it has
/// not handled.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle pause notify
  wattle pause shop/notify --server 127.0.0.1:7411")]
pub(super) struct PauseArgs {
    #[command(flatten)]
    of: SubscriberArgs,
}

/// Resume a paused or halted subscriber
///
/// An event for which it halted is retried; `wattle parked drop SUBSCRIBER --retry-queue --id ID` drops it.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle resume notify")]
pub(super) struct ResumeArgs {
    #[command(flatten)]
    of: SubscriberArgs,
}

/// Move a subscriber to another position in its topic
///
/// Events that are processed again produce their outputs again. Handler state is not moved: choose with --state
/// whether it is emptied, kept, or restored from a snapshot (`wattle state snapshot`).
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle seek notify --to earliest --dry-run                      what would happen
  wattle seek notify --to 2026-01-31T12:00:00Z                    everything since then, once more
  wattle seek totals --to earliest --state empty                  count everything again
  wattle seek totals --state 3                                    back to snapshot 3
  wattle seek notify --to latest --drop-retry-queue --partition 3   skip what is there")]
pub(super) struct SeekArgs {
    #[command(flatten)]
    subscriber: SubscriberArg,

    /// Target position: `earliest`, `latest`, OFFSET (in every partition), TIME (RFC 3339), or AGO such as 10m
    /// [default: the position of the snapshot given by --state]
    #[arg(long, value_parser = tail::start, value_name = "WHERE")]
    to: Option<Start>,

    /// Move only this partition
    #[arg(long, value_name = "NUMBER")]
    partition: Option<u32>,

    /// Handler state after the move, required if the handler has state: `empty`, `keep` (it may have seen events that
    /// are processed again), or the number of a snapshot
    #[arg(long, value_parser = state)]
    state: Option<SeekState>,

    /// Drop the events of the retry queue
    #[arg(long)]
    drop_retry_queue: bool,

    /// Show what would happen; change nothing
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    client: ClientArgs,
}

fn state(text: &str) -> Result<SeekState, String> {
    match (text, text.parse()) {
        ("empty", _) => Ok(SeekState::Empty),
        ("keep", _) => Ok(SeekState::Keep),
        (_, Ok(number)) => Ok(SeekState::Snapshot(number)),
        _ => Err("write `empty`, `keep`, or the number of a snapshot".to_owned()),
    }
}

pub(super) fn pause(args: &PauseArgs) -> Outcome {
    let SubscriberArgs { subscriber, client: ClientArgs { server, output } } = &args.of;
    block_on(async { Ok(server.connect().await?.pause(subscriber).await?) })?;
    let mut out = anstream::stdout().lock();
    match output {
        Output::Json => writeln!(out, "{}", json!({ "paused": true }))?,
        Output::Text => writeln!(out, "{subscriber} is paused until `wattle resume {subscriber}`")?,
    }
    Ok(())
}

pub(super) fn resume(args: &ResumeArgs) -> Outcome {
    let SubscriberArgs { subscriber, client: ClientArgs { server, output } } = &args.of;
    block_on(async { Ok(server.connect().await?.resume(subscriber).await?) })?;
    let mut out = anstream::stdout().lock();
    match output {
        Output::Json => writeln!(out, "{}", json!({ "paused": false }))?,
        Output::Text => writeln!(out, "{subscriber} is resumed")?,
    }
    Ok(())
}

pub(super) fn seek(args: &SeekArgs) -> Outcome {
    let to = match (&args.to, args.state) {
        (Some(Start::Earliest | Start::Positions(_)), _) => SeekTo::Start,
        (Some(Start::Latest), _) => SeekTo::End,
        (Some(Start::Offset(offset)), _) => SeekTo::Offset(*offset),
        (Some(Start::Time(time)), _) => SeekTo::Time(u64::try_from(time.as_nanosecond()).unwrap_or(0)),
        (None, Some(SeekState::Snapshot(_))) => SeekTo::Snapshot,
        (None, _) => return Err(Failure::new(Exit::Usage, "pass --to with the target position")),
    };
    let seek = Seek {
        to,
        partition: args.partition,
        state: args.state,
        drops_waiting: args.drop_retry_queue,
        dry_run: args.dry_run,
    };
    let (moved, standing) = block_on(async {
        let client = args.client.server.connect().await?;
        let moved = client.seek(&args.subscriber, seek).await?;
        let standing = StoppedPartitions::of(&client, &args.subscriber).await;
        Ok((moved, standing.only(args.partition)))
    })?;
    let mut out = anstream::stdout().lock();
    match args.client.output {
        Output::Json => {
            let lane =
                |lane: &crate::api::LaneMove| json!({ "partition": lane.partition, "from": lane.from, "to": lane.to });
            let moved: Vec<_> = moved.iter().map(lane).collect();
            let StoppedPartitions { halted, paused } = &standing;
            let line = json!({ "dry_run": args.dry_run, "partitions": moved, "halted": halted, "paused": paused });
            writeln!(out, "{line}")?;
        }
        Output::Text => {
            let mut table = Table::new(&["PARTITION", "FROM", "TO"], &[0, 1, 2]);
            for lane in &moved {
                table
                    .row(&mut out, [lane.partition.into(), lane.from, lane.to].iter().map(u64::to_string).collect())?;
            }
            table.end(&mut out)?;
            match args.dry_run {
                true => writeln!(out, "nothing was moved: that is what would happen without --dry-run")?,
                false => writeln!(out, "moved {}", plural(moved.len() as u64, "partition"))?,
            }
        }
    }
    drop(out);
    standing.say(&args.subscriber);
    Ok(())
}

/// Partitions of a subscriber that make no call until they are resumed, whatever else is done to them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct StoppedPartitions {
    halted: Vec<u32>,
    paused: Vec<u32>,
}

impl StoppedPartitions {
    /// Those of now; none where the bus does not say.
    pub(super) async fn of(client: &Client, subscriber: &str) -> Self {
        let tree = client.status().await.map(|status| status.tree).unwrap_or_default();
        let is_short = |name: &str| name.rsplit_once('/').is_some_and(|(_, short)| short == subscriber);
        let mut found = tree.subscribers.iter().filter(|of| of.name == subscriber || is_short(&of.name));
        found.next().map(|of| Self::in_lanes(&of.lanes)).unwrap_or_default()
    }

    fn in_lanes(lanes: &[LaneState]) -> Self {
        let are = |state: LaneState| (0..).zip(lanes).filter(|(_, lane)| **lane == state).map(|(at, _)| at).collect();
        Self { halted: are(LaneState::Halted), paused: are(LaneState::Paused) }
    }

    fn only(mut self, partition: Option<u32>) -> Self {
        self.halted.retain(|at| partition.is_none_or(|only| only == *at));
        self.paused.retain(|at| partition.is_none_or(|only| only == *at));
        self
    }

    fn words(&self, subscriber: &str) -> Option<String> {
        let are = [(&self.halted, "halted"), (&self.paused, "paused")];
        let are = are.into_iter().filter(|(lanes, _)| !lanes.is_empty());
        let are: Vec<_> = are.map(|(lanes, what)| format!("{} {what}", plural(lanes.len() as u64, "lane"))).collect();
        let goes_on = format!("`wattle resume {subscriber}` resumes it");
        (!are.is_empty()).then(|| format!("{subscriber} still has {}: {goes_on}", are.join(" and ")))
    }

    /// Says that nothing is handled there yet.
    pub(super) fn say(&self, subscriber: &str) {
        if let Some(words) = self.words(subscriber) {
            say(&words);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_that_stand_are_told_of_with_what_has_them_go_on() {
        let lanes = [LaneState::Halted, LaneState::Running, LaneState::Paused, LaneState::Halted];
        let standing = StoppedPartitions::in_lanes(&lanes);
        assert_eq!(standing, StoppedPartitions { halted: vec![0, 3], paused: vec![2] });
        let words = "s still has 2 lanes halted and 1 lane paused: `wattle resume s` resumes it";
        assert_eq!(standing.words("s").as_deref(), Some(words));
        assert_eq!(standing.only(Some(1)).words("s"), None);
    }
}
