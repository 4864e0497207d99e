//! `wattle trace`: the lineage of an event.

use std::io::Write;

use serde_json::{Value, json};

use super::failed::{exact_time, time};
use super::tree::{BAD, FAINT, SUBSCRIBER, TOPIC, WARNING, branch, plural};
use super::words::plain;
use super::{ClientArgs, Outcome, Output, block_on, say, tail};
use crate::api::{Handling, Trace, TraceOutcome, TraceQuery, TracedEvent};
use crate::client::Start;

/// Characters of a digest that are enough to tell versions apart.
const DIGEST_SHOWN: usize = 12;

/// Show the lineage of an event: its ancestors, its descendants, and the outcome of each
///
/// If several events have the id, the latest is shown. Events that were handled without outputs, dropped from the
/// retry queue or skipped by a seek leave no record and look the same.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle trace o-17
  wattle trace o-17 --topic orders --since 2h
  wattle trace o-17 -o json | jq '.events[] | select(.handlings[].outcome == \"dead_lettered\")'")]
pub(super) struct TraceArgs {
    /// Id of the event
    #[arg(value_name = "EVENT-ID", allow_hyphen_values = true)]
    id: String,

    /// Topic of the event, as NAMESPACE/NAME, or NAME if only one namespace has it
    #[arg(long)]
    topic: Option<String>,

    /// Source of the event
    #[arg(long, allow_hyphen_values = true)]
    source: Option<String>,

    /// Consider only events appended since TIME (RFC 3339) or AGO such as 10m
    #[arg(long, value_parser = since, value_name = "TIME")]
    since: Option<jiff::Timestamp>,

    #[command(flatten)]
    client: ClientArgs,
}

fn since(text: &str) -> Result<jiff::Timestamp, String> {
    match tail::start(text) {
        Ok(Start::Time(time)) => Ok(time),
        _ => Err("write a time such as 2026-01-31T12:00:00Z, or how long ago, such as 10m".to_owned()),
    }
}

pub(super) fn run(args: &TraceArgs) -> Outcome {
    let of = TraceQuery {
        id: args.id.clone(),
        source: args.source.clone(),
        topic: args.topic.clone(),
        since_ns: args.since.map(|time| u64::try_from(time.as_nanosecond()).unwrap_or(0)),
    };
    let trace = block_on(async { Ok(args.client.server.connect().await?.trace(of).await?) })?;
    let mut out = anstream::stdout().lock();
    match args.client.output {
        Output::Json => writeln!(out, "{}", json(&trace))?,
        Output::Text => {
            for line in lines(&trace) {
                writeln!(out, "{line}")?;
            }
        }
    }
    if trace.is_cut {
        say("there may be more: too much would have had to be looked at or shown");
    }
    if trace.hidden_events + trace.hidden_handlings > 0 {
        let (events, outcomes) = (trace.hidden_events, trace.hidden_handlings);
        say(&format!("not shown without the right `inspect`: {events} events, and {outcomes} outcomes of these"));
    }
    Ok(())
}

fn word(outcome: TraceOutcome) -> &'static str {
    match outcome {
        TraceOutcome::NotYet => "not_yet",
        TraceOutcome::Handled => "handled",
        TraceOutcome::PassedOver => "filtered",
        TraceOutcome::Waiting => "retry_queue",
        TraceOutcome::Parked => "parked",
        TraceOutcome::DeadLetter => "dead_lettered",
        TraceOutcome::DeadLetterDone => "dead_letter_resolved",
    }
}

fn json(trace: &Trace) -> Value {
    let handling = |handling: &Handling| {
        json!({
            "subscriber": handling.subscriber,
            "outcome": word(handling.outcome),
            "outputs": handling.outputs,
            "attempts": handling.attempts,
            "digest": handling.digest,
            "failure": Some(&handling.failure).filter(|text| !text.is_empty()),
            "reason": Some(&handling.reason).filter(|text| !text.is_empty()),
            "due_time": handling.due_ns.and_then(exact_time),
        })
    };
    let event = |event: &TracedEvent| {
        json!({
            "topic": event.topic,
            "partition": event.partition,
            "offset": event.offset,
            "append_time": exact_time(event.append_time_ns),
            "key": event.key,
            "id": event.id,
            "source": event.source,
            "type": event.r#type,
            "parent": event.origin.as_ref().and_then(|origin| origin.parent),
            "made_by": event.origin.as_ref().map(|origin| json!({
                "subscriber": origin.subscriber,
                "digest": origin.digest,
                "is_dead_letter": origin.is_dead_letter,
            })),
            "handlings": event.handlings.iter().map(handling).collect::<Vec<_>>(),
        })
    };
    json!({
        "found": trace.found,
        "is_cut": trace.is_cut,
        "hidden_events": trace.hidden_events,
        "hidden_handlings": trace.hidden_handlings,
        "events": trace.events.iter().map(event).collect::<Vec<_>>(),
    })
}

/// The tree, with ANSI colours.
fn lines(trace: &Trace) -> Vec<String> {
    let mut lines = Vec::new();
    let Some(root) = trace.events.first() else { return lines };
    if let Some(origin) = &root.origin {
        let subscriber = origin.subscriber.as_deref().unwrap_or("a subscriber that is gone");
        lines.push(format!("{FAINT}what {} made this from is not kept any more{FAINT:#}", plain(subscriber)));
    }
    // Not recursive, since a path can be as long as the topology is deep.
    let mut rest = vec![Node { what: NodeContent::Event(0), first: String::new(), below: String::new() }];
    while let Some(Node { what, first, below }) = rest.pop() {
        let children: Vec<NodeContent> = match what {
            NodeContent::Event(index) => {
                let Some(event) = trace.events.get(index) else { continue };
                lines.push(format!("{FAINT}{first}{FAINT:#}{}", event_line(event, index == trace.found)));
                (0..event.handlings.len()).map(|handling| NodeContent::Handling(index, handling)).collect()
            }
            NodeContent::Handling(index, handling) => {
                let handling = trace.events.get(index).and_then(|event| event.handlings.get(handling));
                let Some(handling) = handling else { continue };
                lines.push(format!("{FAINT}{first}{FAINT:#}{}", handling_line(handling)));
                made_by(trace, index, &handling.subscriber)
            }
        };
        let count = children.len();
        for (number, what) in children.into_iter().enumerate().rev() {
            let (corner, trunk) = branch(number + 1 == count);
            rest.push(Node { what, first: format!("{below}{corner}"), below: format!("{below}{trunk}") });
        }
    }
    lines
}

struct Node {
    what: NodeContent,
    /// Lines and corners before it.
    first: String,
    /// The same for its children.
    below: String,
}

enum NodeContent {
    Event(usize),
    /// Of an event.
    Handling(usize, usize),
}

/// What a subscriber made of an event.
fn made_by(trace: &Trace, parent: usize, subscriber: &str) -> Vec<NodeContent> {
    let is_child = |event: &TracedEvent| {
        let origin = event.origin.as_ref();
        origin.is_some_and(|origin| origin.parent == Some(parent) && origin.subscriber.as_deref() == Some(subscriber))
    };
    let children = trace.events.iter().enumerate().filter(|(_, event)| is_child(event));
    children.map(|(index, _)| NodeContent::Event(index)).collect()
}

fn event_line(event: &TracedEvent, is_found: bool) -> String {
    let TracedEvent { topic, partition, offset, id, key, r#type, .. } = event;
    let style = if is_found { TOPIC.underline() } else { TOPIC };
    let (id, kind, key, at) = (plain(id), plain(r#type), plain(key), time(event.append_time_ns));
    format!("{style}{topic}{style:#} {partition}:{offset}  {id}  {kind}  key {key}  {FAINT}{at}{FAINT:#}")
}

fn handling_line(handling: &Handling) -> String {
    let name = handling.subscriber.split_once('/').map_or(handling.subscriber.as_str(), |(_, name)| name);
    let attempts = |attempts: u32| plural(attempts.into(), "attempt");
    let after = match handling.attempts {
        Some(count) => format!(" after {}", attempts(count)),
        None => String::new(),
    };
    let (words, style) = match handling.outcome {
        TraceOutcome::NotYet => ("not yet".to_owned(), FAINT),
        TraceOutcome::Handled => (format!("handled, {}", plural(handling.outputs, "output")), anstyle::Style::new()),
        TraceOutcome::PassedOver => ("filtered".to_owned(), FAINT),
        TraceOutcome::Waiting if handling.attempts == Some(0) => {
            ("waits for an earlier event of its key".to_owned(), WARNING)
        }
        TraceOutcome::Waiting => (format!("waits for another attempt{after}"), WARNING),
        TraceOutcome::Parked => (format!("parked{after}"), BAD),
        TraceOutcome::DeadLetter => (format!("dead letter{after}"), BAD),
        TraceOutcome::DeadLetterDone => (format!("dead letter{after}, which was redriven or dropped"), FAINT),
    };
    let mut line = format!("{SUBSCRIBER}{name}{SUBSCRIBER:#}  {style}{words}{style:#}");
    if !handling.reason.is_empty() {
        line += &format!(": {}", plain(&handling.reason));
    }
    if let Some(digest) = &handling.digest {
        line += &format!("  {FAINT}plugin {}{FAINT:#}", digest.get(..DIGEST_SHOWN).unwrap_or(digest));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Origin;

    fn event(topic: &str, id: &str, origin: Option<Origin>, handlings: Vec<Handling>) -> TracedEvent {
        let (topic, id, r#type, key) = (topic.to_owned(), id.to_owned(), "t".to_owned(), "k".to_owned());
        TracedEvent { topic, id, r#type, key, origin, handlings, ..TracedEvent::default() }
    }

    fn handling(
        subscriber: &str,
        outcome: TraceOutcome,
        outputs: u64,
        attempts: Option<u32>,
        reason: &str,
    ) -> Handling {
        let (digest, failure) = (Some("0123456789abcdef".to_owned()), String::new());
        let (subscriber, reason) = (subscriber.to_owned(), reason.to_owned());
        Handling { subscriber, outcome, outputs, attempts, digest, failure, reason, due_ns: None }
    }

    fn made_by(subscriber: &str, is_dead_letter: bool) -> Option<Origin> {
        Some(Origin { parent: Some(0), subscriber: Some(subscriber.to_owned()), digest: None, is_dead_letter })
    }

    fn text(trace: &Trace) -> String {
        anstream::adapter::strip_str(&lines(trace).join("\n")).to_string()
    }

    #[test]
    fn a_trace_is_a_tree_of_events_and_what_became_of_them() {
        let first = handling("shop/a", TraceOutcome::Handled, 1, None, "");
        let second = handling("shop/b", TraceOutcome::DeadLetter, 0, Some(3), "no\nluck");
        let root = event("shop/in", "one", None, vec![first, second]);
        let waiting = handling("shop/c", TraceOutcome::Waiting, 0, Some(0), "");
        let child = event("shop/out", "two", made_by("shop/a", false), vec![waiting]);
        let dead = event("shop/b.dead", "one", made_by("shop/b", true), Vec::new());
        let trace = Trace { events: vec![root, dead, child], found: 2, ..Trace::default() };
        let lines = [
            "shop/in 0:0  one  t  key k  ",
            "├─ a  handled, 1 output  plugin 0123456789ab",
            "│  └─ shop/out 0:0  two  t  key k  ",
            "│     └─ c  waits for an earlier event of its key  plugin 0123456789ab",
            "└─ b  dead letter after 3 attempts: no\\nluck  plugin 0123456789ab",
            "   └─ shop/b.dead 0:0  one  t  key k  ",
        ];
        assert_eq!(text(&trace), lines.join("\n"));
    }

    #[test]
    fn a_trace_whose_beginning_is_gone_says_so() {
        let mut orphan = made_by("shop/a", false);
        orphan.as_mut().unwrap().parent = None;
        let trace = Trace { events: vec![event("shop/out", "two", orphan, Vec::new())], ..Trace::default() };
        assert!(text(&trace).starts_with("what shop/a made this from is not kept any more\n"), "{}", text(&trace));
    }

    #[test]
    fn since_is_a_time_or_how_long_ago() {
        assert_eq!(since("2026-01-31T12:00:00Z"), Ok("2026-01-31T12:00:00Z".parse().unwrap()));
        assert!(since("10m").is_ok());
        for wrong in ["start", "end", "17", "soon"] {
            assert!(since(wrong).is_err(), "{wrong}");
        }
    }
}
