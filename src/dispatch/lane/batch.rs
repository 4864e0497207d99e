//! Events on their way into a handler. They are copied once from the engine's chunks, which are shared: a lane may keep
//! a few events for long, and would keep megabytes alive for a few bytes.

use std::sync::Arc;

use bytes::Bytes;

use crate::engine::{Chunk, StoredEvent};
use crate::model::call::{CallEvent, EventContext, LogLevel};
use crate::model::{EventView, Offset, Record, RecordError};

/// An event that a lane has read.
pub(crate) struct BatchEvent {
    pub(crate) offset: Offset,
    pub(crate) append_time_ns: u64,
    pub(crate) trusted_time_ns: u64,
    pub(crate) record: Bytes,
}

/// A parsed event.
#[derive(Clone, Copy)]
pub(crate) struct ParsedEvent<'a> {
    pub(crate) offset: Offset,
    pub(crate) append_time_ns: u64,
    pub(crate) trusted_time_ns: u64,
    pub(crate) key: &'a str,
    pub(crate) view: EventView<'a>,
}

/// A stored event that cannot be read, because of damage or a bug. The lane stops, since it cannot continue without
/// losing the event.
#[derive(Debug, thiserror::Error)]
#[error("the event at offset {offset} cannot be read: {error}")]
pub(crate) struct Unreadable {
    offset: Offset,
    error: RecordError,
}

impl Unreadable {
    pub(crate) fn new(offset: Offset, error: RecordError) -> Self {
        Self { offset, error }
    }
}

impl BatchEvent {
    /// The events of some chunks.
    pub(crate) fn all(chunks: &[Chunk]) -> Vec<Self> {
        Self::copies(&chunks.iter().flat_map(Chunk::iter).collect::<Vec<_>>())
    }

    /// Copies these events into one allocation.
    pub(super) fn copies(events: &[StoredEvent<'_>]) -> Vec<Self> {
        let mut records = Vec::with_capacity(events.iter().map(|stored| stored.record.len()).sum());
        events.iter().for_each(|stored| records.extend_from_slice(stored.record));
        let mut rest = Bytes::from(records);
        events
            .iter()
            .map(|stored| Self {
                offset: stored.offset,
                append_time_ns: stored.append_time_ns,
                trusted_time_ns: stored.trusted_time_ns,
                record: rest.split_to(stored.record.len()),
            })
            .collect()
    }

    /// Size of its record.
    pub(crate) fn bytes(&self) -> usize {
        self.record.len()
    }

    pub(crate) fn parse(&self) -> Result<ParsedEvent<'_>, Unreadable> {
        ParsedEvent::parse(self.offset, (self.append_time_ns, self.trusted_time_ns), &self.record)
    }
}

impl<'a> ParsedEvent<'a> {
    /// Parses a stored event without a copy.
    pub(crate) fn of(stored: &StoredEvent<'a>) -> Result<Self, Unreadable> {
        Self::parse(stored.offset, (stored.append_time_ns, stored.trusted_time_ns), stored.record)
    }

    fn parse(
        offset: Offset,
        (append_time_ns, trusted_time_ns): (u64, u64),
        record: &'a [u8],
    ) -> Result<Self, Unreadable> {
        let parse = || {
            let record = Record::parse(record)?;
            Ok((record.key, record.view()?))
        };
        let (key, view) = parse().map_err(|error| Unreadable { offset, error })?;
        Ok(Self { offset, append_time_ns, trusted_time_ns, key, view })
    }
}

/// The events of a call in the form for its handler; `attempt` is that of the first one.
pub(crate) fn call_events<'a>(run: &'a [ParsedEvent<'a>], attempt: u32) -> Vec<CallEvent<'a>> {
    let attempts = std::iter::once(attempt).chain(std::iter::repeat(1));
    let of = |(event, attempt): (&'a ParsedEvent<'a>, u32)| CallEvent {
        key: event.key,
        r#type: event.view.r#type,
        time_ns: event.append_time_ns,
        trusted_time_ns: event.trusted_time_ns,
        attempt,
        data: event.view.data.unwrap_or_default(),
    };
    run.iter().zip(attempts).map(of).collect()
}

/// The content type of the first event: all events of a call have the same.
pub(crate) fn content_type<'a>(run: &[ParsedEvent<'a>]) -> &'a str {
    run.first().and_then(|event| event.view.content_type).unwrap_or_default()
}

/// Answers a handler's queries about the events of one call.
pub(crate) struct Context {
    pub(crate) subscriber: Arc<str>,
    /// The subscriber's original name.
    pub(crate) origin: Arc<str>,
    pub(crate) held: Arc<Vec<BatchEvent>>,
    /// Index in `held` of the call's first event.
    pub(crate) first: usize,
}

impl Context {
    fn event(&self, index: u32) -> Option<ParsedEvent<'_>> {
        self.held.get(self.first + index as usize)?.parse().ok()
    }
}

/// Appends a value as a single line; line breaks become spaces.
fn put_line(lines: &mut String, name: &str, value: &str) {
    lines.push_str(name);
    lines.push('=');
    lines.extend(value.chars().map(|char| if char.is_control() { ' ' } else { char }));
    lines.push('\n');
}

/// Seed of the random bytes of an event.
pub(crate) fn seed(origin: &str, event: Option<&EventView<'_>>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(origin.as_bytes());
    if let Some(event) = event {
        // CloudEvents requires the pair of source and id to be unique; none of the three contains a zero byte
        for part in [event.source, event.id] {
            hasher.update(&[0]);
            hasher.update(part.as_bytes());
        }
    }
    *hasher.finalize().as_bytes()
}

impl EventContext for Context {
    fn attributes(&self, index: u32) -> String {
        let mut lines = String::new();
        if let Some(event) = self.event(index) {
            put_line(&mut lines, "id", event.view.id);
            put_line(&mut lines, "source", event.view.source);
            for (name, value) in event.view.attributes_once() {
                match value.as_text() {
                    Some(text) => put_line(&mut lines, name, text),
                    None => put_line(&mut lines, name, &value.to_owned().to_string()),
                }
            }
        }
        lines
    }

    fn seed(&self, index: u32) -> [u8; 32] {
        seed(&self.origin, self.event(index).as_ref().map(|event| &event.view))
    }

    fn log(&self, index: Option<u32>, level: LogLevel, context: &str, line: &str) {
        let event = index.and_then(|index| self.event(index));
        let (subscriber, id) = (&*self.subscriber, event.map_or("", |event| event.view.id));
        macro_rules! log {
            ($level:ident) => {
                tracing::event!(
                    target: "wattle::plugin", tracing::Level::$level, subscriber, event = id, context, "{line}"
                )
            };
        }
        match level {
            LogLevel::Trace => log!(TRACE),
            LogLevel::Debug => log!(DEBUG),
            LogLevel::Info => log!(INFO),
            LogLevel::Warn => log!(WARN),
            LogLevel::Error => log!(ERROR),
        }
    }
}
