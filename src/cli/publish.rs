//! `wattle publish`: events into a root topic, or into several at once.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::time::Instant;

use super::input::{self, Form, InputSource, Template, addressed, fresh_id};
use super::sending::{self, Sum, Watcher, blamed, without_number};
use super::signals::Interruption;
use super::tree::plural;
use super::{ClientArgs, Exit, Failure, Outcome, Output, args, block_on, say};
use crate::api::{AddressedEvent, Placement, PublishReceipt, TopicStatus};
use crate::client::ClientError;
use crate::limits;
use crate::model::event::{check_text, is_attribute_name};
use crate::model::units::show_duration;
use crate::model::{Attribute, EventError};

/// Publish events to a root topic
///
/// Publishes one event, whose data is the argument, or standard input without its last line end if there is no
/// argument or `-`. With --file, publishes one event per line: CloudEvents in JSON, or with --plain the data alone.
/// Returns when the events are durable.
///
/// An event with the source and id of an event that was published within the topic's `dedupe` window (default 2
/// minutes) is a duplicate and is not stored again, so an interrupted file of CloudEvents can be published again as a
/// whole within that time. Lines of --plain get new ids each time.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle publish orders '{\"order_id\":\"order-17\"}' --type order.created
  wattle publish orders '{\"order_id\":\"order-17\"}' --attribute delay=10m
  jq .order mail.json | wattle publish orders          one event
  wattle publish orders --file topologies/orders.ndjson
  tail -f access.log | wattle publish log --plain --type log.line    an event of each line
  wattle publish --together order-and-payment.ndjson")]
pub(super) struct PublishArgs {
    /// Topic, as NAMESPACE/NAME, or NAME if only one namespace has it
    #[arg(required_unless_present = "together")]
    topic: Option<String>,

    /// Data of the event: JSON if it parses as JSON, otherwise text; malformed JSON is refused. `-` reads standard
    /// input, the default if it is not a terminal. Data that begins with `-` goes after `--`
    #[arg(allow_negative_numbers = true)]
    data: Option<String>,

    /// Publish an event without data
    #[arg(long, conflicts_with_all = ["data", "file", "together", "plain", "text"])]
    empty: bool,

    /// Read events from a file, one per line; `-` reads standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["id", "data"])]
    file: Option<PathBuf>,

    /// Publish the events of a file to several topics atomically, all or none; `-` reads standard input
    ///
    /// Each line is `{"topic": "...", "event": {...}}` with a CloudEvent in JSON, as printed by `tail`.
    #[arg(long, value_name = "FILE", conflicts_with_all = OF_ONE_TOPIC)]
    together: Option<PathBuf>,

    /// Take each line of the file or of standard input as data instead of a CloudEvent in JSON
    #[arg(long, conflicts_with = "id")]
    plain: bool,

    /// Take the data as text even if it looks like JSON
    #[arg(long)]
    text: bool,

    /// Type of the event [default: wattle.message]
    #[arg(long, allow_hyphen_values = true)]
    r#type: Option<String>,

    /// Source of the event [default: /wattle/publish]
    #[arg(long, allow_hyphen_values = true)]
    source: Option<String>,

    /// Id of the event [default: random]
    #[arg(long, allow_hyphen_values = true)]
    id: Option<String>,

    /// Subject of the event
    #[arg(long, allow_hyphen_values = true)]
    subject: Option<String>,

    /// Ordering key: events with the same key stay in order
    #[arg(long, allow_hyphen_values = true)]
    key: Option<String>,

    /// Extension attribute; can be repeated. `delay=90s` or `deliverat=2026-01-31T08:00:00Z` delays the event
    #[arg(long = "attribute", value_name = "NAME=VALUE", value_parser = attribute)]
    attributes: Vec<(String, Attribute)>,

    /// If the outcome of publishing a single event is unknown, retry with the same id for this long. The event is
    /// stored once; nothing is retried if the topic does not recognise duplicates
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = try_for)]
    #[arg(conflicts_with_all = ["file", "together"])]
    try_for: Duration,

    #[command(flatten)]
    client: ClientArgs,
}

impl PublishArgs {
    /// Of everything but `--together`.
    fn topic(&self) -> &str {
        self.topic.as_deref().unwrap_or_default()
    }

    fn template(&self) -> Template {
        Template {
            r#type: self.r#type.clone().unwrap_or_else(|| "wattle.message".to_owned()),
            source: self.source.clone().unwrap_or_else(|| "/wattle/publish".to_owned()),
            subject: self.subject.clone(),
            key: self.key.clone(),
            attributes: self.attributes.clone(),
            is_text: self.text,
        }
    }

    /// An attribute that is given more than once.
    fn twice(&self) -> Option<&str> {
        let key = self.key.as_ref().map(|_| "partitionkey");
        let mut seen: BTreeSet<&str> = key.into_iter().collect();
        self.attributes.iter().map(|(name, _)| name.as_str()).find(|name| !seen.insert(name))
    }

    /// Attributes that a file of CloudEvents has itself.
    fn is_template_given(&self) -> bool {
        let is_any_given = [&self.r#type, &self.source, &self.subject, &self.key].into_iter().any(Option::is_some);
        is_any_given || self.text || !self.attributes.is_empty()
    }
}

/// Pause before the first attempt to publish an event again, and the longest one.
/// Arguments for the events of one topic.
const OF_ONE_TOPIC: [&str; 11] =
    ["topic", "id", "data", "file", "plain", "text", "type", "source", "subject", "key", "attributes"];
const TRIED_FIRST_AFTER: Duration = Duration::from_millis(100);
const TRIED_EVERY: Duration = Duration::from_secs(2);

/// How long to try again: no longer than topics are asked to recognise that.
fn try_for(given: &str) -> Result<Duration, String> {
    let most = limits::RETRIED_FOR / 2;
    let time = args::duration(given)?;
    if time > most { Err(format!("at most {}", show_duration(most))) } else { Ok(time) }
}

fn attribute(given: &str) -> Result<(String, Attribute), String> {
    match given.split_once('=') {
        Some((name, _)) if !is_attribute_name(name) => {
            Err("the name of an attribute is of lower-case letters and digits".to_owned())
        }
        Some((name @ ("id" | "source" | "type" | "subject" | "specversion" | "data" | "datacontenttype"), _)) => {
            Err(format!("`{name}` is not a further attribute: it has an option, or follows from the data"))
        }
        Some((name, value)) => {
            check_text(name, value).map_err(|error| error.to_string())?;
            let value = Attribute::of_text(name, value.to_owned()).map_err(|error| error.to_string())?;
            Ok((name.to_owned(), value))
        }
        None => Err("this is not NAME=VALUE".to_owned()),
    }
}

pub(super) fn run(args: &PublishArgs) -> Outcome {
    if args.file.is_some() && !args.plain && args.is_template_given() {
        let words = "--type, --source, --subject, --key, --attribute and --text are for single events and for --plain: \
            CloudEvents have \
             their own";
        return Err(Failure::new(super::Exit::Usage, words));
    }
    if let Some(name) = args.twice() {
        return Err(Failure::new(super::Exit::Usage, EventError::Twice(name.to_owned())));
    }
    match (&args.file, &args.together) {
        (Some(file), _) => block_on(many(args, &InputSource::from_argument(file))),
        (None, Some(file)) => block_on(together(args, &InputSource::from_argument(file))),
        (None, None) if args.plain && args.data.as_deref().is_some_and(|data| data != "-") => {
            let words = "--plain publishes an event of each line of --file, or of standard input (`-`): leave it out \
                where the data \
                         of one event is the argument, or write --text where that is a text whatever it looks like";
            Err(Failure::new(Exit::Usage, words))
        }
        (None, None) if args.plain => block_on(many(args, &InputSource::Stdin)),
        (None, None) => {
            let data = data(args)?;
            block_on(one(args, data))
        }
    }
}

/// The data of a single event; `None`: it has none.
fn data(args: &PublishArgs) -> Result<Option<String>, Failure> {
    let usage = |words: String| Err(Failure::new(Exit::Usage, words));
    let (label, data) = match args.data.as_deref() {
        _ if args.empty => return Ok(None),
        None if std::io::stdin().is_terminal() => {
            let words = "say what to publish: data, `-` for what is typed until Ctrl-D, --file for many events, or \
                --empty for an event \
                         without data";
            return usage(words.to_owned());
        }
        None | Some("-") => (InputSource::Stdin.label(), input::whole_input()?),
        Some(data) => ("data".to_owned(), data.to_owned()),
    };
    if data.is_empty() && args.data.as_deref() != Some("") {
        return usage(format!(
            "{label} is empty: --empty publishes an event without data, and '' one with an empty text"
        ));
    }
    match input::bad_data(&data) {
        Some(why) if !args.text => usage(format!("{label}:{why}")),
        _ => Ok(Some(data)),
    }
}

async fn one(args: &PublishArgs, data: Option<String>) -> Outcome {
    let id = args.id.clone().unwrap_or_else(fresh_id);
    let event = args.template().event(id.clone(), data.as_deref().unwrap_or_default());
    let mut event = event.map_err(|bad| Failure::new(Exit::Usage, bad.why))?;
    if data.is_none() {
        event.data = None;
        event.attributes.remove("datacontenttype");
    }
    let published = sent(args, &id, event.encode()).await?;
    match args.client.output {
        Output::Json => print_places(std::iter::repeat(args.topic()), &published, Some(&id))?,
        Output::Text => {
            for (index, Placement { partition, offset, is_duplicate }) in (0..).zip(&published.places) {
                if !is_duplicate && published.delayed.contains(&index) {
                    say(&format!("kept for {} until it is due, id {id}", args.topic()));
                    continue;
                }
                if !is_duplicate && published.held.contains(&index) {
                    say(&format!("held for {} until its key is in another state, id {id}", args.topic()));
                    continue;
                }
                let offset = offset.map(|offset| format!(", offset {offset}")).unwrap_or_default();
                if let Some(topic) = diverted(&published, index) {
                    say(&format!(
                        "diverted to {topic}, partition {partition}{offset}, id {id}: it may not follow in {}",
                        args.topic()
                    ));
                    continue;
                }
                let topic = args.topic();
                say(&match is_duplicate {
                    true => {
                        format!(
                            "already in {topic}, partition {partition}{offset}: the event with id {id} is not stored \
                             again"
                        )
                    }
                    false => format!("published to {topic}, partition {partition}{offset}, id {id}"),
                });
            }
        }
    }
    Ok(())
}

/// Publishes an event. Where it is not known whether it was stored, it is tried again with the same id, if the topic
/// stores that once.
async fn sent(args: &PublishArgs, id: &str, event: Bytes) -> Result<PublishReceipt, Failure> {
    let client = args.client.server.connect().await?;
    let mut error = match client.publish(args.topic(), vec![event.clone()]).await {
        Ok(published) => return Ok(published),
        Err(error) if error.has_no_side_effects() => return Err(without_number(error).into()),
        Err(error) => error,
    };
    let (end, mut pause) = (Instant::now() + args.try_for, TRIED_FIRST_AFTER);
    let mut hint = format!("`--id {id}` publishes it again and stores it once");
    while Instant::now() + pause < end {
        say(&format!("{error}; trying again, with the id {id}"));
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(TRIED_EVERY);
        match tokio::time::timeout_at(end, again(args, event.clone())).await {
            Ok(Ok(Some(published))) => return Ok(published),
            Ok(Ok(None)) => {
                "nothing is tried again, since that topic does not recognise what is published twice"
                    .clone_into(&mut hint);
                break;
            }
            Ok(Err(other)) if !other.is_retryable() => {
                error = other;
                break;
            }
            Ok(Err(other)) => error = other,
            Err(_) => break,
        }
    }
    let error = without_number(error);
    let words = format!("{error}; it is not known whether the event with the id {id} is in {}: {hint}", args.topic());
    Err(Failure::new(Exit::Unknown, words))
}

/// Publishes an event that was perhaps published before. `None` where that might store it twice.
async fn again(args: &PublishArgs, event: Bytes) -> Result<Option<PublishReceipt>, ClientError> {
    let client = args.client.server.connect().await?;
    let topics = client.topics().await?;
    let is_it = |topic: &&TopicStatus| {
        topic.name == args.topic() || topic.name.rsplit_once('/').is_some_and(|(_, name)| name == args.topic())
    };
    // Of several of that name the bus has refused the event.
    match topics.iter().find(is_it).is_some_and(|topic| topic.recognises_retries) {
        true => Ok(Some(client.publish(args.topic(), vec![event]).await?)),
        false => Ok(None),
    }
}

async fn together(args: &PublishArgs, source: &InputSource) -> Outcome {
    let client = args.client.server.connect().await?;
    let lines = addressed(source)?;
    let (numbers, events): (Vec<u64>, Vec<AddressedEvent>) = lines.into_iter().unzip();
    let topics: Vec<String> = events.iter().map(|event| event.topic.clone()).collect();
    let published = match client.publish_together(events, None).await {
        Ok(published) => published,
        Err(error) => {
            let line = blamed(&error).and_then(|index| numbers.get(index)).copied();
            let nothing = if error.has_no_side_effects() { "; nothing was published" } else { "" };
            let mut failure = Failure::from(without_number(error));
            if let Some(line) = line {
                failure.message = format!("{}:{line}: {}", source.label(), failure.message);
            }
            failure.message.push_str(nothing);
            return Err(failure);
        }
    };
    match args.client.output {
        Output::Json => print_places(topics.iter().map(String::as_str), &published, None)?,
        Output::Text => {
            let distinct = topics.iter().collect::<BTreeSet<_>>().len() as u64;
            let sum = Sum { events: topics.len() as u64, duplicates: published.duplicates() as u64 };
            say(&sum.words(&format!("{} at once", plural(distinct, "topic"))));
        }
    }
    Ok(())
}

async fn many(args: &PublishArgs, source: &InputSource) -> Outcome {
    let client = args.client.server.connect().await?;
    let form = if args.plain { Form::Plain(args.template()) } else { Form::CloudEvents };
    let mut watcher =
        Bar { bar: bar(source), places_of: (args.client.output == Output::Json).then(|| args.topic().to_owned()) };
    let interruption = Interruption::listen()?;
    let result = sending::publish(&client, args.topic(), source, form, interruption, &mut watcher).await;
    watcher.bar.finish_and_clear();
    say(&result?.words(args.topic()));
    Ok(())
}

/// A bar for a file, a count for input without a size; nothing where standard error is no terminal.
pub(super) fn bar(source: &InputSource) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match source.bytes() {
        Some(bytes) => (ProgressBar::new(bytes), "{bar:30} {bytes} of {total_bytes}, {msg}, {bytes_per_sec}"),
        None => (ProgressBar::new_spinner(), "{spinner} {msg}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

struct Bar {
    bar: ProgressBar,
    /// The topic, where places are printed.
    places_of: Option<String>,
}

impl Watcher for Bar {
    fn published(&mut self, events: u64, bytes: u64) {
        self.bar.set_position(bytes);
        self.bar.set_message(plural(events, "event"));
    }

    fn places(&mut self, published: &PublishReceipt) -> Result<(), Failure> {
        match &self.places_of {
            Some(topic) => print_places(std::iter::repeat(topic.as_str()), published, None),
            None => Ok(()),
        }
    }

    fn waits(&mut self, words: &str) {
        self.bar.suspend(|| say(words));
    }
}

/// The topic that has an event of a publish instead of its own.
fn diverted(published: &PublishReceipt, index: u32) -> Option<&str> {
    let at = published.diverted.binary_search_by_key(&index, |diverted| diverted.index).ok()?;
    published.diverted.get(at).map(|diverted| &*diverted.topic)
}

/// One line for each event; `topics` are theirs, and so is the `id` of a single one.
fn print_places<'a>(
    topics: impl Iterator<Item = &'a str>,
    published: &PublishReceipt,
    id: Option<&str>,
) -> Result<(), Failure> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for (index, (topic, Placement { partition, offset, is_duplicate })) in (0..).zip(topics.zip(&published.places)) {
        let mut place = json!({
            "topic": topic,
            "diverted_to": diverted(published, index),
            "partition": partition,
            "offset": offset,
            "epoch": published.epoch,
            "duplicate": is_duplicate,
            "delayed": published.delayed.binary_search(&index).is_ok(),
            "held": published.held.binary_search(&index).is_ok(),
        });
        if let (Some(id), Some(fields)) = (id, place.as_object_mut()) {
            fields.insert("id".to_owned(), id.into());
        }
        writeln!(out, "{place}")?;
    }
    Ok(out.flush()?)
}
