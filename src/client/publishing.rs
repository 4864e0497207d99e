//! Batches out, one after another, with several on their way.
//!
//! The order of the batches is the order in which they are published, also when the bus is busy for a while: its
//! refusal ends the stream, nothing behind the refused batch has been published then, and all of that is sent again on
//! a new stream. A connection that breaks is not tried again here, since it is unknown how much had been published;
//! where batches are numbered, their sender may simply continue.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::line::{self, NoTimeout, Patience};
use super::{Client, ClientError, Refusal};
use crate::api::times::timestamp;
use crate::api::v1;
use crate::api::{Numbering, PublishReceipt};
use crate::limits;

/// How much may be on its way.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub batches: usize,
    /// Bytes of events, unless one batch alone has more.
    pub bytes: usize,
}

impl Default for Window {
    /// Enough to keep the disk busy while answers travel.
    fn default() -> Self {
        Self { batches: 16, bytes: limits::MESSAGE_BYTES_MAX }
    }
}

/// A stream of batches to one topic.
///
/// No future of it is lost when it is dropped: calls in flight are stored here, and never started a second time.
pub struct Publishing {
    client: Client,
    topic: String,
    window: Window,
    /// Of the first event of all, where they are numbered.
    numbering: Option<Numbering>,
    stream: State,
    /// Sent or to be sent, not answered.
    unanswered: VecDeque<Vec<Bytes>>,
    unanswered_bytes: usize,
    /// Number and bytes of the batches on the current stream.
    handed_over: usize,
    handed_over_bytes: usize,
    answered_events: u64,
    /// Since when nothing more was answered, while something is unanswered.
    waiting_since: Instant,
    /// When anything came from the bus for the last time, or was first sent to it after that.
    sign_at: Instant,
    /// The latest refusal of a bus that is busy, where nothing was answered after it.
    busy: Option<ClientError>,
}

type Requests = mpsc::Sender<v1::PublishStreamRequest>;
type Answers = Streaming<v1::PublishResponse>;
type Opening = Pin<Box<dyn Future<Output = Result<tonic::Response<Answers>, Status>> + Send>>;

enum State {
    /// There is no stream; there may be one from then on.
    Closed(Instant),
    /// All that is unanswered is on its way, the head of the answer is awaited.
    Opening(Requests, Opening),
    Open(Requests, Box<Answers>),
}

fn bytes_of(batch: &[Bytes]) -> usize {
    batch.iter().map(Bytes::len).sum()
}

impl Publishing {
    pub(super) fn new(client: Client, topic: String, window: Window) -> Self {
        Self {
            client,
            topic,
            window,
            numbering: None,
            stream: State::Closed(Instant::now()),
            unanswered: VecDeque::new(),
            unanswered_bytes: 0,
            handed_over: 0,
            handed_over_bytes: 0,
            answered_events: 0,
            waiting_since: Instant::now(),
            sign_at: Instant::now(),
            busy: None,
        }
    }

    /// Numbers the events that will be sent, from `first_sequence` on and without gaps, as those of the producer of
    /// this name (1 to [`limits::PRODUCER_BYTES_MAX`] bytes, see [`Numbering`]).
    ///
    /// After an error that [`ClientError::is_retryable`] any call then continues where the stream broke: batches that
    /// were not answered is sent again with its numbers, and what of it had been published is not published a second
    /// time. A new process continues exactly by sending the same events from the same number on.
    #[must_use]
    pub fn numbered(mut self, producer: &str, first_sequence: u64) -> Self {
        self.numbering = Some(Numbering { producer: producer.to_owned(), first_sequence, began_ns: None });
        self
    }

    /// As [`Self::numbered`], of a producer that says when it began with its first number (Unix nanoseconds, the same
    /// each time it continues). Topics that forget producers need it.
    #[must_use]
    pub fn numbered_since(mut self, producer: &str, began_ns: u64, first_sequence: u64) -> Self {
        self.numbering = Some(Numbering { producer: producer.to_owned(), first_sequence, began_ns: Some(began_ns) });
        self
    }

    /// Events that are durable for sure, also after an error.
    pub fn answered_events(&self) -> u64 {
        self.answered_events
    }

    /// Batches that were sent, or are to be, and are not answered.
    pub fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    /// Why nothing more is taken at the moment, where the bus says that it is busy.
    pub fn busy(&self) -> Option<&ClientError> {
        self.busy.as_ref()
    }

    /// Sends a batch, waiting for answers first where the window is full. Returns the answers that have come meanwhile,
    /// in the order of the batches. The batch is taken in any case, also where this fails or is dropped.
    ///
    /// # Errors
    /// [`ClientError`]: the first refusal. Batches up to [`Self::answered_events`] are published. Of the rest, nothing
    /// is if [`ClientError::has_no_side_effects`] says so.
    pub async fn send(&mut self, batch: Vec<Bytes>) -> Result<Vec<PublishReceipt>, ClientError> {
        let mut answers = Vec::new();
        if self.unanswered.is_empty() {
            (self.waiting_since, self.sign_at) = (Instant::now(), Instant::now());
        }
        self.unanswered_bytes += bytes_of(&batch);
        self.unanswered.push_back(batch);
        while self.is_over_window() {
            answers.extend(self.answer().await?);
        }
        self.hand_over();
        // Nothing is sent before there is a stream, and the caller may not ask for answers for a while.
        while !matches!(self.stream, State::Open(..)) {
            answers.extend(self.answer().await?);
        }
        while let Some(answer) = self.now().await {
            answers.extend(answer?);
        }
        Ok(answers)
    }

    /// Waits for the next answer; for ever where nothing is on its way. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn answered(&mut self) -> Result<Option<PublishReceipt>, ClientError> {
        if self.unanswered.is_empty() {
            return std::future::pending().await;
        }
        self.answer().await
    }

    /// Waits for all answers.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn finish(&mut self) -> Result<Vec<PublishReceipt>, ClientError> {
        let mut answers = Vec::new();
        while !self.unanswered.is_empty() {
            answers.extend(self.answer().await?);
        }
        self.stream = State::Closed(Instant::now());
        Ok(answers)
    }

    /// Whether the next batch waits for answers before it is sent.
    pub fn is_over_window(&self) -> bool {
        self.unanswered.len() > 1
            && (self.unanswered.len() > self.window.batches || self.unanswered_bytes > self.window.bytes)
    }

    /// Puts onto the stream, where there is one, what the window allows and is not there yet.
    fn hand_over(&mut self) {
        let (State::Opening(requests, _) | State::Open(requests, _)) = &self.stream else { return };
        while let Some(batch) = self.unanswered.get(self.handed_over) {
            let bytes = self.handed_over_bytes + bytes_of(batch);
            if self.handed_over > 0 && (self.handed_over >= self.window.batches || bytes > self.window.bytes) {
                return;
            }
            // There is room for a whole window. Where the stream has ended, its answers say why.
            let _ = requests.try_send(self.request(self.handed_over, batch));
            self.handed_over += 1;
            self.handed_over_bytes = bytes;
        }
    }

    /// For the `index`-th of the batches that are not answered.
    fn request(&self, index: usize, batch: &[Bytes]) -> v1::PublishStreamRequest {
        let in_front = self.unanswered.iter().take(index).map(|batch| batch.len() as u64).sum::<u64>();
        let numbering = self.numbering.as_ref().map(|numbering| v1::Numbering {
            producer: numbering.producer.clone(),
            // Past the last number there is, the bus says so.
            first_sequence: numbering.first_sequence.saturating_add(self.answered_events + in_front),
            began: numbering.began_ns.map(timestamp),
        });
        // The topic of the first one on a stream holds for all.
        let topic = if self.handed_over == 0 { self.topic.clone() } else { String::new() };
        v1::PublishStreamRequest { topic, events: batch.to_vec(), numbering }
    }

    /// One step towards the next answer, or that answer, or the end of the patience with the bus: with one that says
    /// nothing, and with one that says that it is busy.
    async fn answer(&mut self) -> Result<Option<PublishReceipt>, ClientError> {
        let Patience { usual, busy, .. } = self.client.patience;
        let (since, patience) = match (&self.stream, &self.busy) {
            (State::Closed(_), None) => return self.step().await,
            (State::Closed(_), Some(_)) => (self.waiting_since, busy),
            (State::Opening(..) | State::Open(..), _) => (self.sign_at, usual),
        };
        let Some(patience) = patience else { return self.step().await };
        if let Ok(answer) = tokio::time::timeout_at(since + patience, self.step()).await {
            return answer;
        }
        // A caller that continues all the same does so on a new stream, with the whole timeout.
        let silent = ClientError::Silent { server: self.client.server.clone(), after: patience, is_read: false };
        let error = if matches!(self.stream, State::Closed(_)) { self.busy.take() } else { None };
        self.stream = State::Closed(Instant::now());
        (self.waiting_since, self.sign_at, self.busy) = (Instant::now(), Instant::now(), None);
        Err(error.unwrap_or(silent))
    }

    async fn step(&mut self) -> Result<Option<PublishReceipt>, ClientError> {
        self.hand_over();
        match &mut self.stream {
            State::Closed(until) => {
                tokio::time::sleep_until(*until).await;
                self.sign_at = Instant::now();
                self.open();
                Ok(None)
            }
            State::Opening(requests, opening) => match opening.await {
                Ok(answers) => {
                    self.stream = State::Open(requests.clone(), Box::new(answers.into_inner()));
                    Ok(None)
                }
                Err(status) => self.ended(&status).map(|()| None),
            },
            State::Open(_, answers) => match answers.message().await {
                Ok(Some(answer)) => Ok(Some(self.answered_by(answer))),
                Ok(None) => {
                    self.stream = State::Closed(Instant::now());
                    let why = "it ended the stream without answering everything".to_owned();
                    Err(ClientError::Lost { server: self.client.server.clone(), why, is_read: false })
                }
                Err(status) => self.ended(&status).map(|()| None),
            },
        }
    }

    /// What [`Self::answer`] gives without waiting.
    async fn now(&mut self) -> Option<Result<Option<PublishReceipt>, ClientError>> {
        if self.unanswered.is_empty() {
            return None;
        }
        let mut answer = std::pin::pin!(self.answer());
        std::future::poll_fn(|cx| {
            Poll::Ready(match answer.as_mut().poll(cx) {
                Poll::Ready(answer) => Some(answer),
                Poll::Pending => None,
            })
        })
        .await
    }

    /// Begins a stream with everything that is not answered.
    fn open(&mut self) {
        let (requests, receiver) = mpsc::channel(self.window.batches.max(1));
        let mut publisher = self.client.publisher.clone();
        // It may be quiet for as long as nothing is sent, so awaited answers are counted here.
        let requests_of = line::marked(NoTimeout, ReceiverStream::new(receiver));
        let opening = Box::pin(async move { publisher.publish_stream(requests_of).await });
        self.stream = State::Opening(requests, opening);
        (self.handed_over, self.handed_over_bytes) = (0, 0);
        self.hand_over();
    }

    fn answered_by(&mut self, answer: v1::PublishResponse) -> PublishReceipt {
        let batch = self.unanswered.pop_front().unwrap_or_default();
        let bytes = bytes_of(&batch);
        self.unanswered_bytes -= bytes;
        self.answered_events += batch.len() as u64;
        self.handed_over = self.handed_over.saturating_sub(1);
        self.handed_over_bytes = self.handed_over_bytes.saturating_sub(bytes);
        (self.waiting_since, self.sign_at, self.busy) = (Instant::now(), Instant::now(), None);
        answer.into()
    }

    /// The stream has ended with a refusal. A bus that is only busy is asked again, when it says.
    fn ended(&mut self, status: &Status) -> Result<(), ClientError> {
        self.stream = State::Closed(Instant::now());
        let error = self.client.failed(status);
        match &error {
            ClientError::Refused(Refusal { retry_after: Some(delay), .. }) => {
                self.stream = State::Closed(Instant::now() + *delay);
                self.busy = Some(error);
                Ok(())
            }
            _ => Err(error),
        }
    }
}
