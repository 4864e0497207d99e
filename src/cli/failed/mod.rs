//! Events that a subscriber has not handled, for every command that shows some: which ones, and how they look.

use std::io::Write;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use serde_json::{Value, json};

use super::pretty::pretty;
use super::table::Table;
use super::tree::plural;
use super::words::json_out;
use super::{ClientArgs, Exit, Failure, Outcome, Output, SubscriberArg, args};
use crate::api::{FailedEvent, Filter};
use crate::client::{FailedEvents, Listing};
use crate::model::json::{Members, member, to_json};
use crate::model::{self, Event};

pub(super) mod dead;
pub(super) mod parked;

/// Events of a subscriber, and the bus.
#[derive(Debug, Clone, clap::Args)]
struct FailedEventArgs {
    #[command(flatten)]
    subscriber: SubscriberArg,

    #[command(flatten)]
    filter: FilterArgs,

    #[command(flatten)]
    client: ClientArgs,
}

impl FailedEventArgs {
    /// Prints how many events were changed, by a key of JSON and a verb; refuses an id that none of them has.
    fn changed(&self, count: u64, what: ListKind, (key, verb): (&str, &str)) -> Outcome {
        self.filter.found(count, &self.subscriber, what)?;
        let mut out = anstream::stdout().lock();
        match self.client.output {
            Output::Json => writeln!(out, "{}", json!({ key: count }))?,
            Output::Text => {
                let noun = if what == ListKind::Dead { "dead letter" } else { "event" };
                writeln!(out, "{verb} {}", plural(count, noun))?;
            }
        }
        Ok(())
    }
}

/// Which events.
#[derive(Debug, Clone, clap::Args)]
struct FilterArgs {
    /// Select only events with this ordering key
    #[arg(long, allow_hyphen_values = true)]
    key: Option<String>,

    /// Select only the event with this id
    #[arg(long, allow_hyphen_values = true, value_parser = NonEmptyStringValueParser::new())]
    id: Option<String>,

    /// Select only events whose kind of failure is TEXT or whose reason contains TEXT
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, value_parser = NonEmptyStringValueParser::new())]
    reason: Option<String>,

    /// Select only events whose last attempt failed at least this long ago, such as 2h
    #[arg(long, value_parser = args::duration, value_name = "TIME")]
    older_than: Option<Duration>,

    /// Select only events of this partition of the subscriber's topic
    #[arg(long, value_name = "NUMBER")]
    partition: Option<u32>,
}

impl FilterArgs {
    fn filter(&self, parked: bool) -> Filter {
        let Self { key, id, reason, older_than, partition } = self.clone();
        Filter { key, id, reason, older_than, partition, parked }
    }

    /// Refuses an id that none of them has.
    fn found(&self, count: u64, subscriber: &str, what: ListKind) -> Result<(), Failure> {
        let Some(id) = self.id.as_ref().filter(|_| count == 0) else { return Ok(()) };
        let has_more = FilterArgs { id: None, ..self.clone() }.filter(false) != Filter::default();
        let more = if has_more { " and all else that was asked for" } else { "" };
        Err(Failure::failed(format!(
            "no {} of {subscriber} has the id `{id}`{more}: `wattle {} {subscriber}` lists those that there are",
            what.word(),
            what.listing()
        )))
    }

    /// Refuses to change all events without `--all`.
    pub(super) fn check(&self, all: bool, what: &str) -> Result<(), Failure> {
        // Every event is older than no time at all.
        let older_than = self.older_than.filter(|age| *age > Duration::ZERO);
        if all || (Filter { older_than, ..self.filter(false) }) != Filter::default() {
            return Ok(());
        }
        let words = format!(
            "say which {what} with --key, --id, --reason, --older-than or --partition, or --all for every one of them"
        );
        Err(Failure::new(Exit::Usage, words))
    }
}

/// A Unix time in nanoseconds, to the second; empty for none.
pub(super) fn time(time_ns: u64) -> String {
    let seconds = jiff::Timestamp::from_second((time_ns / 1_000_000_000) as i64).unwrap_or_default();
    if time_ns == 0 { String::new() } else { seconds.to_string() }
}

/// The same in full, for programs.
pub(super) fn exact_time(time_ns: u64) -> Option<String> {
    let time = jiff::Timestamp::from_nanosecond(i128::from(time_ns)).unwrap_or_default();
    (time_ns > 0).then(|| time.to_string())
}

/// Kinds of lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListKind {
    /// Events that are parked.
    Parked,
    /// Events that wait, parked or not.
    Waiting,
    /// Dead letters.
    Dead,
}

impl ListKind {
    /// The whole retry queue, or only parked events.
    pub(super) fn waiting(all: bool) -> Self {
        if all { Self::Waiting } else { Self::Parked }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Parked => "parked event",
            Self::Waiting => "event",
            Self::Dead => "dead letter",
        }
    }

    /// The command that lists them.
    fn listing(self) -> &'static str {
        match self {
            Self::Dead => "dead list",
            Self::Parked | Self::Waiting => "parked list --all",
        }
    }
}

/// The fields about an event, without the event.
fn json(subscriber: &str, event: &FailedEvent) -> Value {
    let mut value = json!({
        "subscriber": subscriber,
        "partition": event.partition,
        "offset": event.offset,
        "key": event.key,
        "id": event.id,
        "attempts": event.attempts,
        "failure": event.failure,
        "reason": event.reason,
        "append_time": exact_time(event.append_time_ns),
        "failed_time": exact_time(event.failed_ns),
        "digest": event.digest,
    });
    let more = match event.dead_partition {
        Some(partition) => json!({ "dead_partition": partition, "dead_offset": event.number }),
        None => json!({
            "number": event.number,
            "state": state(event),
            "waiting_since": exact_time(event.since_ns),
            "due_time": exact_time(event.due_ns),
        }),
    };
    if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
        value.extend(more);
    }
    value
}

/// The same, with the event and the backtrace.
fn whole(subscriber: &str, event: &FailedEvent) -> Result<Members, Failure> {
    let decoded =
        Event::decode(&event.event).map_err(|error| Failure::failed(format!("the event {}: {error}", event.id)))?;
    let mut members = model::json::members(json(subscriber, event));
    let backtrace = event.backtrace.as_ref().map(|text| text.lines().collect::<Vec<_>>());
    members.insert("backtrace".to_owned(), member(&backtrace));
    members.insert("event".to_owned(), member(&to_json(&decoded)));
    Ok(members)
}

/// What a waiting event waits for.
fn state(event: &FailedEvent) -> &'static str {
    match event {
        _ if event.is_parked => "parked",
        _ if event.attempts > 0 => "retrying",
        _ => "waiting for its key",
    }
}

fn row(event: &FailedEvent) -> Vec<String> {
    let last_ns = if event.failed_ns == 0 { event.since_ns } else { event.failed_ns };
    let reason = match event.failure.as_str() {
        "" => String::new(),
        failure => format!("{failure}: {}", event.reason),
    };
    let mut row = vec![event.id.clone(), event.key.clone(), event.partition.to_string(), event.attempts.to_string()];
    row.push(time(last_ns));
    if event.dead_partition.is_none() {
        row.push(state(event).to_owned());
    }
    row.push(reason);
    row
}

/// Lists at most `count` events, and their number.
pub(super) async fn list(
    subscriber: &str,
    events: &mut Listing<FailedEvents>,
    what: ListKind,
    count: u64,
    output: Output,
) -> Result<(), Failure> {
    let header: &[&str] = if what == ListKind::Dead {
        &["ID", "KEY", "PARTITION", "ATTEMPTS", "FAILED", "REASON"]
    } else {
        &["ID", "KEY", "PARTITION", "ATTEMPTS", "SINCE", "STATE", "REASON"]
    };
    let mut out = std::io::BufWriter::new(anstream::stdout());
    let mut table = Table::new(header, &[2, 3]);
    let (mut found, mut parked) = (0, 0);
    while let Some(event) = if found < count { events.next().await? } else { None } {
        found += 1;
        parked += u64::from(event.is_parked);
        match output {
            Output::Json => writeln!(out, "{}", json(subscriber, &event))?,
            Output::Text => table.row(&mut out, row(&event))?,
        }
    }
    let has_more = found == count && events.next().await?.is_some();
    if output == Output::Text {
        table.end(&mut out)?;
        let more = if has_more { ", and there are more" } else { "" };
        match (found, what) {
            (0, _) => writeln!(out, "no {}s", what.word())?,
            (_, ListKind::Waiting) => writeln!(out, "{}, {parked} of them parked{more}", plural(found, what.word()))?,
            (_, ListKind::Parked | ListKind::Dead) => writeln!(out, "{}{more}", plural(found, what.word()))?,
        }
    }
    Ok(out.flush()?)
}

/// Shows at most `count` events whole.
pub(super) async fn show(
    subscriber: &str,
    events: &mut Listing<FailedEvents>,
    what: ListKind,
    count: u64,
    output: Output,
) -> Result<(), Failure> {
    // as it is: what takes styles out takes characters of data out as well
    let mut out = std::io::BufWriter::new(json_out());
    let mut found = 0;
    while let Some(event) = if found < count { events.next().await? } else { None } {
        found += 1;
        let value = whole(subscriber, &event)?;
        match output {
            Output::Json => writeln!(out, "{}", member(&value))?,
            Output::Text => writeln!(out, "{}", pretty(&value))?,
        }
    }
    out.flush()?;
    if found == 0 {
        return Err(Failure::failed(format!(
            "no such {}: `wattle {} {subscriber}` lists those that there are",
            what.word(),
            what.listing()
        )));
    }
    Ok(())
}
