//! `wattle tail`: events of a topic, as JSON lines.

use std::io::{BufWriter, Write};
use std::time::Duration;

use serde::Serialize;

use super::{Failure, Outcome, ServerArg, args, block_on};
use crate::client::{Read, Received, Start};
use crate::model::json::{self, Members};
use crate::model::{Event, Time};

/// Print events of a topic, one JSON object on each line
///
/// `event` is the event in the CloudEvents JSON format; beside it is where it is. Reading changes nothing for any
/// subscriber.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle tail orders                              everything that is there
  wattle tail orders --follow                     everything from now on
  wattle tail orders --from 10m --type order.paid what came in the last ten minutes
  wattle tail parcels --key order-17 --count 1 | jq .event.data")]
pub(super) struct Args {
    /// The topic: namespace/name, or name alone where only one namespace has it
    topic: String,

    /// Where to begin: `start`, `end`, an offset (in every partition), an RFC 3339 time, or how long ago, such as 10m
    /// [default: start, or end with --follow]
    #[arg(long, value_parser = start, value_name = "WHERE")]
    from: Option<Start>,

    /// Only this partition; may be given several times
    #[arg(long, value_name = "NUMBER")]
    partition: Vec<u32>,

    /// Only events with this ordering key
    #[arg(long, allow_hyphen_values = true)]
    key: Option<String>,

    /// Only events of this type
    #[arg(long, allow_hyphen_values = true)]
    r#type: Option<String>,

    /// Go on at the end, and print events as they come
    #[arg(short, long)]
    follow: bool,

    /// Stop after this many events
    #[arg(short = 'n', long, value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    #[command(flatten)]
    server: ServerArg,
}

pub(super) fn start(text: &str) -> Result<Start, String> {
    match text {
        "start" => return Ok(Start::Earliest),
        "end" => return Ok(Start::Latest),
        _ => {}
    }
    if let Ok(offset) = text.parse() {
        return Ok(Start::Offset(offset));
    }
    let time = Time::parse(text).and_then(|time| jiff::Timestamp::new(time.second(), time.nanosecond() as i32).ok());
    if let Some(time) = time {
        return Ok(Start::Time(time));
    }
    let ago: Duration = args::duration(text).map_err(|_| {
        "write `start`, `end`, an offset such as 42, a time such as 2026-01-31T12:00:00Z, or how long ago, such as 10m"
    })?;
    jiff::Timestamp::now().checked_sub(ago).map(Start::Time).map_err(|_| "that is too long ago".to_owned())
}

/// A line.
#[derive(Serialize)]
struct Line<'a> {
    topic: &'a str,
    partition: u32,
    offset: u64,
    epoch: u32,
    append_time: String,
    key: &'a str,
    event: Members,
}

pub(super) fn run(args: &Args) -> Outcome {
    let default = if args.follow { Start::Latest } else { Start::Earliest };
    let read = Read {
        topic: args.topic.clone(),
        partitions: args.partition.clone(),
        start: args.from.clone().unwrap_or(default),
        follow: args.follow,
        key: args.key.clone(),
        r#type: args.r#type.clone(),
        limit: args.count,
    };
    block_on(async {
        let mut reading = args.server.connect().await?.read(read).await?;
        let mut out = BufWriter::new(std::io::stdout());
        while let Some(events) = reading.next().await? {
            for event in &events {
                print(&mut out, &args.topic, event)?;
            }
            out.flush()?;
        }
        Ok(())
    })
}

fn print(out: &mut impl Write, topic: &str, received: &Received) -> Result<(), Failure> {
    let (partition, offset) = (received.partition, received.offset);
    let event = Event::decode(&received.event).map_err(|error| {
        Failure::failed(format!("the event at partition {partition}, offset {offset} of {topic}: {error}"))
    })?;
    let line = Line {
        topic,
        partition,
        offset,
        epoch: received.epoch,
        append_time: received.append_time.to_string(),
        key: &received.key,
        event: json::to_json(&event),
    };
    serde_json::to_writer(&mut *out, &line).map_err(std::io::Error::from)?;
    Ok(writeln!(out)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_a_word_an_offset_a_time_or_how_long_ago() {
        assert_eq!(start("start"), Ok(Start::Earliest));
        assert_eq!(start("end"), Ok(Start::Latest));
        assert_eq!(start("17"), Ok(Start::Offset(17)));
        let time = "2026-01-31T12:00:00Z";
        assert_eq!(start(time), Ok(Start::Time(time.parse().unwrap())));
        assert!(matches!(start("10m"), Ok(Start::Time(_))));
        for wrong in ["", "-1", "yesterday", "2026-01-31", "10"] {
            assert!(matches!(start(wrong), Err(_) | Ok(Start::Offset(10))), "{wrong:?}");
        }
    }
}
