//! `wattle plugin shadow`: what another version of a plugin would do with events that are kept, or that come.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use serde_json::json;
use serde_json::value::RawValue;

use super::pretty::pretty;
use super::signals::Signals;
use super::tree::plural;
use super::words::{json_out, plain};
use super::{ClientArgs, Exit, Failure, Outcome, Output, SubscriberArg, args, block_on, say, state};
use crate::api::{Cost, Difference, DifferenceKind, ShadowRange, ShadowReport, ShadowResult, StateOfPartition};
use crate::app::cases::{DiffLine, diff_lines};
use crate::model::Event;
use crate::model::json::{Members, member, members, to_json};
use crate::model::units::{show_duration, show_rough_size};

/// Compare a component with the running version over recent events
///
/// Reports differences of outputs, state writes and failures, and what both cost. Nothing is changed. The running
/// version is first compared with itself and with its recorded outputs; events on which it differs from itself show
/// that it is not deterministic and do not count.
///
/// The state before the last events is not known: both versions start with empty state, with an export (`wattle state
/// export`), or with a snapshot, from its position. With --live they start at the position of the subscriber with its
/// current state, and process new events without slowing it down.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle plugin shadow validate target/wasm32-wasip2/release/validate.wasm
  wattle plugin shadow totals totals.wasm --last 10000 --state before.ndjson
  wattle plugin shadow totals totals.wasm --state 3
  wattle plugin shadow totals totals.wasm --live --for 10m
  wattle plugin shadow validate validate.wasm --fail-on-diff && wattle plugin deploy validate validate.wasm")]
pub(super) struct ShadowArgs {
    #[command(flatten)]
    subscriber: SubscriberArg,

    /// Component file
    file: PathBuf,

    /// Compare the last N events of all partitions; with a snapshot, the first N after it
    #[arg(long, default_value_t = 1_000, value_name = "EVENTS", conflicts_with = "live")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    last: u32,

    /// State before the first event: `empty`, the number of a snapshot, or a file written by `wattle state export`
    #[arg(long, default_value = EMPTY, value_name = "empty|NUMBER|FILE", conflicts_with = "live")]
    state: PathBuf,

    /// Compare new events after the running version has handled them; Ctrl-C ends with the report so far
    #[arg(long)]
    live: bool,

    /// With --live: stop after N events
    #[arg(long, value_name = "EVENTS", requires = "live", value_parser = clap::value_parser!(u64).range(1..))]
    events: Option<u64>,

    /// With --live: stop after this time, such as 10m
    #[arg(long = "for", value_name = "TIME", requires = "live", value_parser = args::duration)]
    time: Option<Duration>,

    /// Exit with 1 if the versions differ or if this is unknown: no event was compared, the running version is not
    /// deterministic, or the comparison ended early
    #[arg(long)]
    fail_on_diff: bool,

    /// With --fail-on-diff: ignore events on which the running version differs from itself
    #[arg(long, requires = "fail_on_diff")]
    allow_nondeterministic: bool,

    #[command(flatten)]
    client: ClientArgs,
}

/// No state at all.
const EMPTY: &str = "empty";

pub(super) fn run(args: &ShadowArgs) -> Outcome {
    let wasm = std::fs::read(&args.file).map_err(|error| Failure::unreadable(&args.file, &error))?;
    let over = over(args)?;
    let mut signals = if args.live { Some(Signals::listen()?) } else { None };
    let report = block_on(async {
        let client = args.client.server.connect().await?;
        if args.live {
            say("comparing events as they come; Ctrl-C ends it with the report so far");
        }
        let enough = async {
            match &mut signals {
                Some(signals) => signals.first().await,
                None => std::future::pending().await,
            }
        };
        Ok(client.shadow(&args.subscriber, wasm.into(), over, enough).await?)
    })?;
    let mut out = anstream::stdout().lock();
    match args.client.output {
        Output::Json => writeln!(json_out(), "{}", as_json(&report))?,
        Output::Text => write(&mut out, &report)?,
    }
    match not_shown_equal(args, &report) {
        Some(why) if args.fail_on_diff => Err(Failure::failed(format!("not shown to do the same: {why}"))),
        _ => Ok(()),
    }
}

/// Why the new version is not shown to do the same as the running one.
fn not_shown_equal(args: &ShadowArgs, report: &ShadowReport) -> Option<String> {
    let events = |count: u64| plural(count, "event");
    let missed = report.not_reached > report.compared && args.events.is_none_or(|asked| report.events < asked);
    match report {
        ShadowReport { differing: 1.., .. } => Some(format!("it differs with {}", events(report.differing))),
        ShadowReport { broke_off: Some(why), .. } => Some(format!("the comparison broke off: {why}")),
        ShadowReport { is_superseded: true, .. } => Some("the comparison ended early".to_owned()),
        ShadowReport { not_deterministic: 1.., .. } if !args.allow_nondeterministic => Some(format!(
            "the running version differs from itself with {}; --allow-nondeterministic leaves these out",
            events(report.not_deterministic)
        )),
        ShadowReport { compared: 0, .. } => Some("no event was compared".to_owned()),
        ShadowReport { compared, not_reached, .. } if missed => {
            Some(format!("{} compared, and {} not reached", events(*compared), events(*not_reached)))
        }
        _ => None,
    }
}

/// The events, and the state before them.
fn over(args: &ShadowArgs) -> Result<ShadowRange, Failure> {
    let (events, number) = (args.last, args.state.to_str().and_then(|text| text.parse().ok()));
    Ok(match number {
        _ if args.live => ShadowRange::Coming { events: args.events, time: args.time },
        Some(snapshot) => ShadowRange::Behind { snapshot, events },
        None if args.state == Path::new(EMPTY) => ShadowRange::Last { events, state: Vec::new() },
        None => ShadowRange::Last { events, state: entries(&args.state)? },
    })
}

fn entries(path: &Path) -> Result<Vec<StateOfPartition>, Failure> {
    let file = File::open(path)
        .map_err(|error| Failure::new(Exit::Usage, format!("cannot read {}: {error} (--state)", path.display())))?;
    state::read(BufReader::new(file)).map_err(|why| Failure::failed(format!("{}: {why}", path.display())))
}

fn per_event(cost: &Cost, events: u64) -> String {
    let took = cost.took / u32::try_from(events.max(1)).unwrap_or(u32::MAX);
    let took = Duration::from_micros(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    let memory = cost.memory_peak_bytes.map(|bytes| format!(", {} of memory", show_rough_size(bytes)));
    let failed = if cost.failed > 0 { format!(", {} failed", plural(cost.failed, "event")) } else { String::new() };
    format!("{} for an event{}{failed}", show_duration(took), memory.unwrap_or_default())
}

fn write(out: &mut impl Write, report: &ShadowReport) -> io::Result<()> {
    writeln!(out, "{} compared", plural(report.events, "event"))?;
    let left_out = [
        (report.passed_over, "filtered by `when`"),
        (report.waiting, "that wait"),
        (report.not_its_own, "that may be another's of its group"),
        (report.not_reached, "that had come and were not reached"),
    ];
    for (count, what) in left_out.into_iter().filter(|(count, _)| *count > 0) {
        writeln!(out, "  and {} left out {what}", plural(count, "event"))?;
    }
    if let Some(why) = &report.broke_off {
        writeln!(out, "  broke off: {}", plain(why))?;
    }
    if report.is_superseded {
        writeln!(out, "  ended early: another version is stable by now, or the subscriber is another one")?;
    }
    if report.events == 0 {
        return Ok(());
    }
    writeln!(out, "running: {}", per_event(&report.running, report.events))?;
    writeln!(out, "new:     {}", per_event(&report.other, report.events))?;
    let ShadowReport { differing, outputs, state, failures, .. } = report;
    match differing {
        0 if report.compared == 0 => writeln!(out, "whether the new version differs is not known")?,
        0 => writeln!(out, "the new version does not differ")?,
        count => writeln!(
            out,
            "the new version differs with {}: outputs with {outputs}, state with {state}, failures with {failures}",
            plural(*count, "event")
        )?,
    }
    if report.not_deterministic > 0 {
        let count = plural(report.not_deterministic, "event");
        writeln!(out, "the running version is not deterministic: it differs from itself with {count}")?;
    }
    if report.not_as_recorded > 0 {
        let count = plural(report.not_as_recorded, "event");
        writeln!(out, "the running version does something else today than what it recorded with {count}")?;
    }
    if report.over_other_state > 0 {
        let count = plural(report.over_other_state, "event");
        writeln!(out, "over the state that there was, the running version did something else with {count}")?;
    }
    for difference in &report.shown {
        write_difference(out, difference)?;
    }
    let all = report.differing + report.not_deterministic + report.not_as_recorded + report.over_other_state;
    let more = all.saturating_sub(report.shown.len() as u64);
    if more > 0 && !report.shown.is_empty() {
        writeln!(out, "\nand {} more", plural(more, "difference"))?;
    }
    Ok(())
}

fn kind(kind: DifferenceKind) -> (&'static str, &'static str) {
    match kind {
        DifferenceKind::NotDeterministic => ("not_deterministic", "the running version, from itself in other batches"),
        DifferenceKind::NotAsRecorded => ("not_as_recorded", "the running version, from what it recorded"),
        DifferenceKind::OverOtherState => {
            ("over_other_state", "the running version, from what it recorded over other state")
        }
        DifferenceKind::OtherVersion => ("other_version", "the new version, from the running one"),
    }
}

fn write_difference(out: &mut impl Write, difference: &Difference) -> io::Result<()> {
    let Difference { partition, offset, id, key, running, other, .. } = difference;
    let (id, key) = (plain(id), plain(key));
    writeln!(out, "\nevent {id} (key {key}, partition {partition}, offset {offset}): {}", kind(difference.kind).1)?;
    let text = |seen: &ShadowResult| pretty(&seen_json(seen));
    let (before, after) = (text(running), text(other));
    let colour = |colour: AnsiColor| Style::new().fg_color(Some(colour.into()));
    for line in diff_lines(&before, &after) {
        let (sign, style, text) = match line {
            DiffLine::Same(text) => (' ', Style::new(), text),
            DiffLine::Missing(text) => ('-', colour(AnsiColor::Red), text),
            DiffLine::Extra(text) => ('+', colour(AnsiColor::Green), text),
        };
        writeln!(out, "  {style}{sign} {text}{style:#}")?;
    }
    Ok(())
}

fn seen_json(seen: &ShadowResult) -> Members {
    let mut fields = Members::new();
    if let Some((kind, reason)) = &seen.failure {
        fields.insert("failure".to_owned(), member(&json!({ "kind": kind, "reason": reason })));
    }
    let outputs = seen.outputs.values().map(|output| {
        let event = Event::decode(&output.event).ok().map(|event| to_json(&event));
        Members::from([
            ("topic".to_owned(), member(&output.topic)),
            ("key".to_owned(), member(&output.key)),
            ("event".to_owned(), member(&event)),
        ])
    });
    fields.insert("outputs".to_owned(), member(&outputs.collect::<Vec<_>>()));
    let writes = seen.writes.iter().map(|((bucket, key), value)| {
        let value = value.as_ref().map(|value| String::from_utf8_lossy(value).into_owned());
        json!({ "bucket": bucket, "key": key, "value": value })
    });
    fields.insert("writes".to_owned(), member(&writes.collect::<Vec<_>>()));
    fields
}

fn as_json(report: &ShadowReport) -> Box<RawValue> {
    let cost = |cost: &Cost| {
        let took_us = u64::try_from(cost.took.as_micros()).unwrap_or(u64::MAX);
        json!({
            "calls": cost.calls, "failed": cost.failed, "took_us": took_us,
            "memory_peak_bytes": cost.memory_peak_bytes,
        })
    };
    let shown = report.shown.iter().map(|difference| {
        let mut fields = members(json!({
            "partition": difference.partition, "offset": difference.offset, "id": difference.id, "key": difference.key,
            "kind": kind(difference.kind).0,
        }));
        fields.insert("running".to_owned(), member(&seen_json(&difference.running)));
        fields.insert("new".to_owned(), member(&seen_json(&difference.other)));
        fields
    });
    let mut fields = members(json!({
        "events": report.events,
        "filtered": report.passed_over,
        "retry_queue": report.waiting,
        "not_its_own": report.not_its_own,
        "not_reached": report.not_reached,
        "is_superseded": report.is_superseded,
        "broke_off": report.broke_off,
        "compared": report.compared,
        "held_against_record": report.held_against_record,
        "not_deterministic": report.not_deterministic,
        "not_as_recorded": report.not_as_recorded,
        "over_other_state": report.over_other_state,
        "differing": report.differing,
        "outputs": report.outputs,
        "state": report.state,
        "failures": report.failures,
        "running": cost(&report.running),
        "new": cost(&report.other),
    }));
    fields.insert("shown".to_owned(), member(&shown.collect::<Vec<_>>()));
    member(&fields)
}
