//! Events from lines: CloudEvents in JSON, or plain data; and from there to a topic, with several batches on their way.
//!
//! Lines are read and parsed on a thread of their own, a bounded number ahead. An event is sent as soon as it is there: a
//! slow source is not held back until a batch is full.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::Failure;
use super::tree::plural;
use crate::client::{Client, ClientError, Publishing, Window};
use crate::dispatch::{Addressed, Published};
use crate::effects::random;
use crate::limits;
use crate::model::event::Data;
use crate::model::{Attribute, Event, EventView, json};

/// Events of one batch, and their bytes.
const BATCH_EVENTS: usize = 1_000;
const BATCH_BYTES: usize = 1 << 20;
/// Events that are read ahead.
const AHEAD_EVENTS: usize = 4 * BATCH_EVENTS;
/// Longest line in bytes: an event of the largest size whose data is escaped or in base64.
const LINE_BYTES_MAX: u64 = 4 * limits::EVENT_BYTES_MAX as u64;

/// What an event has beside its data.
#[derive(Debug, Clone)]
pub(super) struct Template {
    pub(super) r#type: String,
    pub(super) source: String,
    pub(super) subject: Option<String>,
    pub(super) key: Option<String>,
    pub(super) attributes: Vec<(String, String)>,
}

impl Template {
    /// An event with this data, which is JSON if it can be read as such, else text.
    pub(super) fn event(&self, id: String, data: &str) -> Event {
        let is_json = serde_json::from_str::<serde::de::IgnoredAny>(data).is_ok();
        let (content_type, data) = match is_json {
            true => ("application/json", Data::Binary(Bytes::copy_from_slice(data.as_bytes()))),
            false => ("text/plain", Data::Text(data.to_owned())),
        };
        let mut event = Event {
            id,
            source: self.source.clone(),
            r#type: self.r#type.clone(),
            data: Some(data),
            ..Event::default()
        };
        let content_type = Some(content_type.to_owned());
        for (name, value) in
            [("datacontenttype", &content_type), ("subject", &self.subject), ("partitionkey", &self.key)]
        {
            if let Some(value) = value {
                event.attributes.insert(name.to_owned(), Attribute::String(value.clone()));
            }
        }
        let more = self.attributes.iter().cloned();
        event.attributes.extend(more.map(|(name, value)| (name, Attribute::String(value))));
        event
    }
}

/// An id that no other event has: 128 random bits.
pub(super) fn fresh_id() -> String {
    format!("{:016x}{:016x}", random(), random())
}

/// What a line is.
#[derive(Debug, Clone)]
pub(super) enum Form {
    /// A CloudEvent in the JSON format.
    CloudEvents,
    /// The data of an event.
    Plain(Template),
}

/// Where lines come from.
#[derive(Debug, Clone)]
pub(super) enum Source {
    File(PathBuf),
    Stdin,
}

impl Source {
    /// A path, or `-` for standard input.
    pub(super) fn from_argument(path: &Path) -> Self {
        if path == Path::new("-") { Self::Stdin } else { Self::File(path.to_owned()) }
    }

    /// What messages call it.
    pub(super) fn label(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Stdin => "standard input".to_owned(),
        }
    }

    /// Its size in bytes, where that is known.
    pub(super) fn bytes(&self) -> Option<u64> {
        match self {
            Self::File(path) => std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file).map(|file| file.len()),
            Self::Stdin => None,
        }
    }

    fn open(&self) -> Result<Box<dyn BufRead + Send>, Failure> {
        Ok(match self {
            Self::File(path) => {
                let file = std::fs::File::open(path)
                    .map_err(|error| Failure::failed(format!("cannot read {}: {error}", path.display())))?;
                Box::new(BufReader::with_capacity(256 << 10, file))
            }
            Self::Stdin => Box::new(BufReader::new(std::io::stdin())),
        })
    }
}

/// An event of a line.
struct Parsed {
    line: u64,
    event: Bytes,
    /// Length of the line.
    bytes: u64,
}

/// A line that is no event.
struct BadLine {
    line: u64,
    why: String,
}

/// Reads lines until their end, or the first bad one, or until nobody wants them.
fn read(mut lines: Box<dyn BufRead + Send>, form: &Form, to: &mpsc::Sender<Result<Parsed, BadLine>>) {
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        let parsed = match lines.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut text) {
            Ok(0) => return,
            Ok(bytes) if bytes as u64 == LINE_BYTES_MAX && text.last() != Some(&b'\n') => {
                Err(format!("the line is longer than {LINE_BYTES_MAX} bytes, and no event is"))
            }
            Ok(bytes) => match std::str::from_utf8(&text) {
                Ok(text) if text.trim().is_empty() => continue,
                Ok(text) => parse(text.trim(), form).map(|event| Parsed { line, event, bytes: bytes as u64 }),
                Err(_) => Err("it is not UTF-8".to_owned()),
            },
            Err(error) => Err(format!("it cannot be read: {error}")),
        };
        let is_last = parsed.is_err();
        if to.blocking_send(parsed.map_err(|why| BadLine { line, why })).is_err() || is_last {
            return;
        }
    }
}

fn parse(line: &str, form: &Form) -> Result<Bytes, String> {
    let event = match form {
        Form::CloudEvents => json::from_json(line).map_err(|error| error.to_string())?,
        Form::Plain(template) => template.event(fresh_id(), line),
    };
    let encoded = event.encode();
    EventView::parse(&encoded).map_err(|error| error.to_string())?;
    Ok(encoded)
}

/// What happens while lines are published.
pub(super) trait Watcher {
    /// So many events are durable, of so many bytes of lines.
    fn published(&mut self, events: u64, bytes: u64);

    /// They are there.
    ///
    /// # Errors
    /// Of writing that down; publishing stops then.
    fn places(&mut self, published: &Published) -> Result<(), Failure>;
}

/// How many events were durable in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sum {
    /// All of them.
    pub(super) events: u64,
    /// Those of them that had been published before.
    pub(super) duplicates: u64,
}

impl Sum {
    /// What was done, in words.
    pub(super) fn words(self, topic: &str) -> String {
        let new = plural(self.events - self.duplicates, "event");
        match self.duplicates {
            0 => format!("published {new} to {topic}"),
            1 => format!("published {new} to {topic}; 1 more had been published before and is there once"),
            more => format!("published {new} to {topic}; {more} more had been published before and are there once"),
        }
    }
}

/// The event of a refused request that is to blame.
pub(super) fn blamed(error: &ClientError) -> Option<usize> {
    let index = |field: &String| field.strip_prefix("events[")?.strip_suffix(']')?.parse::<usize>().ok();
    match error {
        ClientError::Refused(refused) => refused.fields.iter().find_map(index),
        _ => None,
    }
}

/// A line with an event and its topic; what else `tail` says of it is nothing to a publish.
#[derive(Deserialize)]
struct AddressedLine {
    topic: String,
    event: serde_json::Value,
}

/// All events of a file that has their topics, each with the number of its line.
///
/// # Errors
/// The first line that is no such event, or more lines than one publish may have.
pub(super) fn addressed(source: &Source) -> Result<Vec<(u64, Addressed)>, Failure> {
    let bad =
        |line: u64, why: String| Failure::failed(format!("{}:{line}: {why}; nothing was published", source.label()));
    let (mut lines, mut all) = (source.open()?, Vec::new());
    for line in 1.. {
        let mut text = Vec::new();
        let read = lines.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut text);
        if read.map_err(|error| bad(line, format!("it cannot be read: {error}")))? == 0 {
            break;
        }
        if text.trim_ascii().is_empty() {
            continue;
        }
        if all.len() >= limits::PUBLISH_EVENTS_MAX {
            return Err(bad(line, format!("one commit has at most {} events", limits::PUBLISH_EVENTS_MAX)));
        }
        let shape = "it is not `{\"topic\": \"…\", \"event\": {…}}`";
        let parsed: AddressedLine =
            serde_json::from_slice(&text).map_err(|error| bad(line, format!("{shape}: {error}")))?;
        if parsed.topic.is_empty() {
            return Err(bad(line, "its topic has no name".to_owned()));
        }
        let event = parse(&parsed.event.to_string(), &Form::CloudEvents).map_err(|why| bad(line, why))?;
        all.push((line, Addressed { topic: parsed.topic, event }));
    }
    Ok(all)
}

/// Publishes every line, in order.
///
/// # Errors
/// The first line that is no event, or that the bus refuses; what is in front of it has been published then.
pub(super) async fn publish(
    client: &Client,
    topic: &str,
    source: &Source,
    form: Form,
    watcher: &mut dyn Watcher,
) -> Result<Sum, Failure> {
    let (sender, mut lines) = mpsc::channel(AHEAD_EVENTS);
    let opened = source.open()?;
    let reading = std::thread::Builder::new().name("lines".to_owned()).spawn(move || read(opened, &form, &sender));
    reading.map_err(|error| Failure::failed(format!("cannot start a thread: {error}")))?;

    let publishing = client.publishing(topic, Window::default());
    let mut way = Way { publishing, lines: VecDeque::new(), bytes: 0, duplicates: 0 };
    let (mut ready, mut bad) = (Vec::new(), None);
    while bad.is_none() {
        let read = tokio::select! {
            read = lines.recv_many(&mut ready, BATCH_EVENTS) => read,
            answer = way.publishing.answered() => {
                let answer = answer.map_err(|error| way.failed(source, error))?;
                way.take(answer, watcher)?;
                continue;
            }
        };
        if read == 0 {
            break;
        }
        let mut batch = Vec::new();
        let mut batch_bytes = 0;
        for line in ready.drain(..) {
            match line {
                Ok(Parsed { line, event, bytes }) => {
                    if batch_bytes + event.len() > BATCH_BYTES && !batch.is_empty() {
                        way.send(source, std::mem::take(&mut batch), watcher).await?;
                        batch_bytes = 0;
                    }
                    batch_bytes += event.len();
                    way.lines.push_back((line, bytes));
                    batch.push(event);
                }
                Err(line) => bad = Some(line),
            }
        }
        if !batch.is_empty() {
            way.send(source, batch, watcher).await?;
        }
    }
    let answers = way.publishing.finish().await.map_err(|error| way.failed(source, error))?;
    way.take(answers, watcher)?;
    match bad {
        Some(BadLine { line, why }) => Err(way.stopped_at(source, line, &why)),
        None => Ok(Sum { events: way.publishing.answered_events(), duplicates: way.duplicates }),
    }
}

/// Events on their way.
struct Way {
    publishing: Publishing,
    /// Of those that are not answered: the number of the line, and its length.
    lines: VecDeque<(u64, u64)>,
    /// Of those that are answered.
    bytes: u64,
    /// Those of them that had been published before.
    duplicates: u64,
}

impl Way {
    async fn send(&mut self, source: &Source, batch: Vec<Bytes>, watcher: &mut dyn Watcher) -> Result<(), Failure> {
        let answers = self.publishing.send(batch).await.map_err(|error| self.failed(source, error))?;
        self.take(answers, watcher)
    }

    fn take(&mut self, answers: impl IntoIterator<Item = Published>, watcher: &mut dyn Watcher) -> Result<(), Failure> {
        for answer in answers {
            let answered = self.lines.drain(..answer.places.len().min(self.lines.len()));
            self.bytes += answered.map(|(_, bytes)| bytes).sum::<u64>();
            self.duplicates += answer.duplicates() as u64;
            watcher.places(&answer)?;
            watcher.published(self.publishing.answered_events(), self.bytes);
        }
        Ok(())
    }

    fn failed(&self, source: &Source, error: ClientError) -> Failure {
        // The refused batch is the first that was not answered.
        if let Some((line, _)) = blamed(&error).and_then(|index| self.lines.get(index)) {
            return self.stopped_at(source, *line, &error.to_string());
        }
        let published = plural(self.publishing.answered_events(), "event");
        let rest = if error.has_no_side_effects() { "" } else { ", and perhaps more" };
        let mut failure = Failure::from(error);
        failure.message = format!("{}; {published} had been published{rest}", failure.message);
        failure
    }

    fn stopped_at(&self, source: &Source, line: u64, why: &str) -> Failure {
        let published = plural(self.publishing.answered_events(), "event");
        Failure::failed(format!("{}:{line}: {why}; {published} in front of it had been published", source.label()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &'static str, form: &Form) -> Vec<Result<(u64, String), (u64, String)>> {
        let (sender, mut receiver) = mpsc::channel(100);
        read(Box::new(text.as_bytes()), form, &sender);
        drop(sender);
        let mut all = Vec::new();
        while let Some(line) = receiver.blocking_recv() {
            let id = |event: &Bytes| Event::decode(event).unwrap().id;
            all.push(line.map(|line| (line.line, id(&line.event))).map_err(|line| (line.line, line.why)));
        }
        all
    }

    #[test]
    fn lines_are_events_up_to_the_first_that_is_none() {
        let text = "\n{\"specversion\":\"1.0\",\"id\":\"a\",\"source\":\"/s\",\"type\":\"t\"}\n\n{\n{}\n";
        let lines = lines(text, &Form::CloudEvents);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0], Ok((2, "a".to_owned())));
        let (line, why) = lines[1].clone().unwrap_err();
        assert_eq!(line, 4);
        assert!(why.contains("not JSON"), "{why}");
    }

    #[test]
    fn plain_lines_are_json_or_text_and_all_different_events() {
        let template = Template {
            r#type: "t".into(),
            source: "/s".into(),
            subject: None,
            key: Some("k".into()),
            attributes: Vec::new(),
        };
        let json = template.event("1".into(), "{\"a\":1}");
        assert_eq!(json.attributes["datacontenttype"], Attribute::String("application/json".into()));
        let text = template.event("1".into(), "{a}");
        assert_eq!(text.data, Some(Data::Text("{a}".into())));
        assert_eq!(text.attributes["partitionkey"], Attribute::String("k".into()));
        let ids: Vec<String> =
            lines("a\na\n", &Form::Plain(template)).into_iter().map(|line| line.unwrap().1).collect();
        assert_ne!(ids[0], ids[1]);
    }
}
