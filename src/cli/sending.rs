//! Events of lines to a topic, with several batches on their way.
//!
//! Promises: an event is sent as soon as its line is read, so that a slow source is not delayed until a batch is full;
//! the order of the lines is the order in which they are published. Where the bus takes nothing for a while, that is
//! reported with the number of events published so far. A failure names the line to blame.
//!
//! Relies on `input` for events, which are read a bounded number ahead, and on the client for the window of batches.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::input::{BadLine, BadText, Form, InputSource, ParsedLine, at, read};
use super::signals::Interruption;
use super::tree::plural;
use super::{Exit, Failure};
use crate::api::PublishReceipt;
use crate::client::{Client, ClientError, Publishing, Window};
use crate::effects;

/// Events of one batch, and their bytes.
const BATCH_EVENTS: usize = 1_000;
const BATCH_BYTES: usize = 1 << 20;
/// Events that are read ahead.
const AHEAD_EVENTS: usize = 4 * BATCH_EVENTS;
/// How long nothing is answered before that is said.
const WAIT_SAID_AFTER: Duration = Duration::from_secs(2);

/// What happens while lines are published.
pub(super) trait Watcher {
    /// Reports that N events are durable, of N bytes of lines.
    fn published(&mut self, events: u64, bytes: u64);

    /// They are there.
    ///
    /// # Errors
    /// Of writing that down; publishing stops then.
    fn places(&mut self, published: &PublishReceipt) -> Result<(), Failure>;

    /// Nothing was answered for a while; in words.
    fn waits(&mut self, words: &str);
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
    /// The result in words.
    pub(super) fn words(self, topic: &str) -> String {
        let new = plural(self.events - self.duplicates, "event");
        match self.duplicates {
            0 => format!("published {new} to {topic}"),
            1 => format!("published {new} to {topic}; 1 was there already and is not stored again"),
            more => format!("published {new} to {topic}; {more} were there already and are not stored again"),
        }
    }
}

/// The event of a refused request that is to blame.
pub(super) fn blamed(error: &ClientError) -> Option<usize> {
    match error {
        ClientError::Refused(refused) => refused.fields.iter().find_map(|field| index_of(field)),
        _ => None,
    }
}

fn index_of(field: &str) -> Option<usize> {
    field.strip_prefix("events[")?.strip_suffix(']')?.parse().ok()
}

/// Why, without the number that the event has in a request: the caller names the event itself, or there is only one.
pub(super) fn without_number(mut error: ClientError) -> ClientError {
    if let (Some(index), ClientError::Refused(refused)) = (blamed(&error), &mut error) {
        let rest = refused.message.strip_prefix(&format!("event {index}"));
        let rest = rest.and_then(|rest| rest.strip_prefix(": ").or(rest.strip_prefix(" for ")));
        if let Some(rest) = rest.map(str::to_owned) {
            refused.message = rest;
        }
    }
    error
}

/// Publishes every line, in order, until interrupted.
///
/// # Errors
/// The first line that is no event, or that the bus refuses; the lines before it have been published.
pub(super) async fn publish(
    client: &Client,
    topic: &str,
    source: &InputSource,
    form: Form,
    interruption: Interruption,
    watcher: &mut dyn Watcher,
) -> Result<Sum, Failure> {
    let (sender, mut lines) = mpsc::channel(AHEAD_EVENTS);
    let opened = source.open()?;
    let reading = effects::thread("lines", move || read(opened, &form, &sender));
    reading.map_err(|error| Failure::failed(format!("cannot start a thread: {error}")))?;

    let publishing = client.publishing(topic, Window::default());
    let attention = Attention { interruption, since: Instant::now(), is_said: false };
    let mut way = Pipeline { publishing, attention, source, lines: VecDeque::new(), bytes: 0, duplicates: 0 };
    let (mut ready, mut bad) = (Vec::new(), None);
    while bad.is_none() {
        let read = tokio::select! {
            read = lines.recv_many(&mut ready, BATCH_EVENTS) => read,
            answered = way.answered(watcher) => {
                answered?;
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
                Ok(ParsedLine { line, event, bytes }) => {
                    if batch_bytes + event.len() > BATCH_BYTES && !batch.is_empty() {
                        way.send(std::mem::take(&mut batch), watcher).await?;
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
            way.send(batch, watcher).await?;
        }
    }
    while way.publishing.unanswered() > 0 {
        way.answered(watcher).await?;
    }
    way.publishing.finish().await.map_err(|error| way.failed(error))?;
    match bad {
        Some(BadLine { line, bad }) => Err(way.stopped_at(line, &bad)),
        None => Ok(Sum { events: way.publishing.answered_events(), duplicates: way.duplicates }),
    }
}

/// What else may happen while a bus is waited for.
struct Attention {
    interruption: Interruption,
    /// Since when it is waited for.
    since: Instant,
    /// It was said that it is.
    is_said: bool,
}

enum WaitOutcome {
    Interrupted(Exit),
    /// It takes long.
    TakesLong,
}

impl Attention {
    fn begin(&mut self) {
        (self.since, self.is_said) = (Instant::now(), false);
    }

    async fn happened(&mut self, is_waiting: bool) -> WaitOutcome {
        tokio::select! {
            exit = self.interruption.came() => WaitOutcome::Interrupted(exit),
            () = tokio::time::sleep_until(self.since + WAIT_SAID_AFTER), if is_waiting && !self.is_said => {
                self.is_said = true;
                WaitOutcome::TakesLong
            }
        }
    }
}

/// Events on their way.
struct Pipeline<'a> {
    publishing: Publishing,
    attention: Attention,
    source: &'a InputSource,
    /// Of lines without an answer yet: the number of the line, and its length.
    lines: VecDeque<(u64, u64)>,
    /// Of answered lines.
    bytes: u64,
    /// Those of them that had been published before.
    duplicates: u64,
}

impl Pipeline<'_> {
    /// Sends a batch once there is room for it.
    async fn send(&mut self, batch: Vec<Bytes>, watcher: &mut dyn Watcher) -> Result<(), Failure> {
        if self.publishing.unanswered() == 0 {
            self.attention.begin();
        }
        // The batch is taken, also where the sending is left off: what is left of it is done with the next answer.
        let sent = tokio::select! {
            sent = self.publishing.send(batch) => Ok(sent),
            happened = self.attention.happened(true) => Err(happened),
        };
        match sent {
            Ok(answers) => {
                let answers = answers.map_err(|error| self.failed(error))?;
                self.take(answers, watcher)?;
            }
            Err(happened) => self.happened(&happened, watcher)?,
        }
        while self.publishing.is_over_window() {
            self.answered(watcher).await?;
        }
        Ok(())
    }

    /// Waits for the next answer, or for what else may happen; for ever where nothing is on its way. Nothing is lost
    /// when the future is dropped.
    async fn answered(&mut self, watcher: &mut dyn Watcher) -> Result<(), Failure> {
        let is_waiting = self.publishing.unanswered() > 0;
        let answer = tokio::select! {
            answer = self.publishing.answered() => Ok(answer),
            happened = self.attention.happened(is_waiting) => Err(happened),
        };
        match answer {
            Ok(answer) => {
                let answer = answer.map_err(|error| self.failed(error))?;
                self.take(answer, watcher)
            }
            Err(happened) => self.happened(&happened, watcher),
        }
    }

    fn happened(&self, happened: &WaitOutcome, watcher: &mut dyn Watcher) -> Result<(), Failure> {
        let published = plural(self.publishing.answered_events(), "event");
        match happened {
            WaitOutcome::Interrupted(exit) => {
                let rest = if self.publishing.unanswered() > 0 { ", and perhaps more" } else { "" };
                Err(Failure::new(*exit, format!("interrupted: {published} had been published{rest}")))
            }
            WaitOutcome::TakesLong => {
                let why = self.publishing.busy().map(|busy| format!(": {busy}")).unwrap_or_default();
                watcher.waits(&format!("waiting for the bus, {published} published so far{why}"));
                Ok(())
            }
        }
    }

    fn take(
        &mut self,
        answers: impl IntoIterator<Item = PublishReceipt>,
        watcher: &mut dyn Watcher,
    ) -> Result<(), Failure> {
        for answer in answers {
            self.attention.begin();
            let answered = self.lines.drain(..answer.places.len().min(self.lines.len()));
            self.bytes += answered.map(|(_, bytes)| bytes).sum::<u64>();
            self.duplicates += answer.duplicates() as u64;
            watcher.places(&answer)?;
            watcher.published(self.publishing.answered_events(), self.bytes);
        }
        Ok(())
    }

    fn failed(&self, error: ClientError) -> Failure {
        // The refused batch is the first that was not answered.
        if let Some((line, _)) = blamed(&error).and_then(|index| self.lines.get(index)) {
            return self.stopped_at(*line, &without_number(error).to_string().into());
        }
        let published = plural(self.publishing.answered_events(), "event");
        let rest = if error.has_no_side_effects() { "" } else { ", and perhaps more" };
        let mut failure = Failure::from(error);
        failure.message = format!("{}; {published} had been published{rest}", failure.message);
        failure
    }

    fn stopped_at(&self, line: u64, bad: &BadText) -> Failure {
        let published = plural(self.publishing.answered_events(), "event");
        Failure::failed(format!("{}; {published} before it had been published", at(self.source, line, bad)))
    }
}
