//! `wattle pause`, `resume` and `seek`: where a subscriber is, and whether it goes on.

use std::io::Write;

use serde_json::json;

use super::table::Table;
use super::tree::plural;
use super::{Exit, Failure, Outcome, Output, ServerArg, block_on, say, tail};
use crate::api::{LaneState, Seek, SeekState, SeekTo};
use crate::client::{Client, Start};

/// Have a subscriber read and call nothing more until it is resumed
///
/// What it is at is ended first. It stays paused after a restart; what comes meanwhile waits in its topic, which keeps it
/// for as long as it has not been handled.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle pause notify
  wattle pause shop/notify --server 127.0.0.1:7411")]
pub(super) struct PauseArgs {
    #[command(flatten)]
    of: Of,
}

/// Have a subscriber go on that was paused or has halted
///
/// An event that it halted for is tried again; `wattle parked drop SUBSCRIBER --waiting --id ID` gives that event up.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle resume notify")]
pub(super) struct ResumeArgs {
    #[command(flatten)]
    of: Of,
}

#[derive(Debug, Clone, clap::Args)]
struct Of {
    /// The subscriber: namespace/name, or name alone where only one namespace has it
    subscriber: String,

    #[command(flatten)]
    server: ServerArg,

    /// For whom the result is
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Move a subscriber to another place in its topic
///
/// What it emits for events that come again is emitted again. What its handler keeps does not go back with it: say whether
/// that is emptied, stays, or goes back to a snapshot (`wattle state snapshot`).
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle seek notify --to start --dry-run                      what would happen
  wattle seek notify --to 2026-01-31T12:00:00Z                 everything since then, once more
  wattle seek totals --to start --state empty                  count everything again
  wattle seek totals --state 3                                 back to snapshot 3, and on from there
  wattle seek notify --to end --drop-waiting --partition 3     give up what is there")]
pub(super) struct SeekArgs {
    /// The subscriber: namespace/name, or name alone where only one namespace has it
    subscriber: String,

    /// Where it goes on: `start`, `end`, an offset (in every partition), an RFC 3339 time, or how long ago, such as 10m
    /// [default: with the number of a snapshot, where it was then]
    #[arg(long, value_parser = tail::start, value_name = "WHERE")]
    to: Option<Start>,

    /// Only this partition
    #[arg(long, value_name = "NUMBER")]
    partition: Option<u32>,

    /// What becomes of what its handler keeps; needed where it keeps anything: `empty`, `keep` (though it may know events that
    /// come again), or the number of a snapshot
    #[arg(long, value_parser = state)]
    state: Option<SeekState>,

    /// Forget events that wait for another attempt or are parked
    #[arg(long)]
    drop_waiting: bool,

    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    server: ServerArg,

    /// For whom the result is
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
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
    let Of { subscriber, server, output } = &args.of;
    block_on(async { Ok(server.connect().await?.pause(subscriber).await?) })?;
    let mut out = anstream::stdout().lock();
    match output {
        Output::Json => writeln!(out, "{}", json!({ "paused": true }))?,
        Output::Text => writeln!(out, "{subscriber} is paused until `wattle resume {subscriber}`")?,
    }
    Ok(())
}

pub(super) fn resume(args: &ResumeArgs) -> Outcome {
    let Of { subscriber, server, output } = &args.of;
    block_on(async { Ok(server.connect().await?.resume(subscriber).await?) })?;
    let mut out = anstream::stdout().lock();
    match output {
        Output::Json => writeln!(out, "{}", json!({ "paused": false }))?,
        Output::Text => writeln!(out, "{subscriber} goes on")?,
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
        (None, _) => return Err(Failure::new(Exit::Usage, "say with --to where the subscriber goes on")),
    };
    let seek = Seek {
        to,
        partition: args.partition,
        state: args.state,
        drops_waiting: args.drop_waiting,
        dry_run: args.dry_run,
    };
    let (moved, standing) = block_on(async {
        let client = args.server.connect().await?;
        let moved = client.seek(&args.subscriber, seek).await?;
        let standing = Standing::of(&client, &args.subscriber).await;
        Ok((moved, standing.only(args.partition)))
    })?;
    let mut out = anstream::stdout().lock();
    match args.output {
        Output::Json => {
            let lane =
                |lane: &crate::api::Moved| json!({ "partition": lane.partition, "from": lane.from, "to": lane.to });
            let moved: Vec<_> = moved.iter().map(lane).collect();
            let Standing { halted, paused } = &standing;
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
pub(super) struct Standing {
    halted: Vec<u32>,
    paused: Vec<u32>,
}

impl Standing {
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
        let goes_on = format!("`wattle resume {subscriber}` has it go on");
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
        let standing = Standing::in_lanes(&lanes);
        assert_eq!(standing, Standing { halted: vec![0, 3], paused: vec![2] });
        let words = "s still has 2 lanes halted and 1 lane paused: `wattle resume s` has it go on";
        assert_eq!(standing.words("s").as_deref(), Some(words));
        assert_eq!(standing.only(Some(1)).words("s"), None);
    }
}
