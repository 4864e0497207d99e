//! Batches out, one after another, with several on their way.
//!
//! The order of the batches is the order in which they are published, also when the bus is busy for a while: its refusal
//! ends the stream, nothing behind the refused batch has been published then, and all of that is sent again on a new
//! stream. A connection that breaks is not tried again here, since nobody knows what had been published.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{Client, ClientError, Refused};
use crate::dispatch::Published;
use crate::limits;
use crate::rpc::v1;

/// How long a bus may stay too busy to take anything before that becomes the caller's problem.
const BUSY_MAX: Duration = Duration::from_secs(60);

/// How much may be on its way.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Batches.
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
/// No future of it is lost when it is dropped: what is under way is kept here, and never begun a second time.
pub struct Publishing {
    client: Client,
    topic: String,
    window: Window,
    stream: State,
    /// Sent or to be sent, not answered.
    unanswered: VecDeque<Vec<Bytes>>,
    unanswered_bytes: usize,
    answered_events: u64,
    busy_since: Option<Instant>,
}

type Requests = mpsc::Sender<v1::PublishStreamRequest>;
type Answers = Streaming<v1::PublishStreamResponse>;
type Opening = Pin<Box<dyn Future<Output = Result<tonic::Response<Answers>, Status>> + Send>>;

enum State {
    /// There is no stream; there may be one from then on.
    Closed(Instant),
    /// All that is unanswered is on its way, the head of the answer is awaited.
    Opening(Requests, Opening),
    Open(Requests, Box<Answers>),
}

impl Publishing {
    pub(super) fn new(client: Client, topic: String, window: Window) -> Self {
        Self {
            client,
            topic,
            window,
            stream: State::Closed(Instant::now()),
            unanswered: VecDeque::new(),
            unanswered_bytes: 0,
            answered_events: 0,
            busy_since: None,
        }
    }

    /// Events that are durable for sure, also after an error.
    pub fn answered_events(&self) -> u64 {
        self.answered_events
    }

    /// Sends a batch, waiting for answers first where the window is full. Returns the answers that have come meanwhile, in
    /// the order of the batches.
    ///
    /// # Errors
    /// [`ClientError`]: the first refusal. Batches up to [`Self::answered_events`] are published. Of the rest, nothing is
    /// if [`ClientError::has_no_side_effects`] says so.
    pub async fn send(&mut self, batch: Vec<Bytes>) -> Result<Vec<Published>, ClientError> {
        let mut answers = Vec::new();
        let bytes: usize = batch.iter().map(Bytes::len).sum();
        while !self.unanswered.is_empty()
            && (self.unanswered.len() >= self.window.batches || self.unanswered_bytes + bytes > self.window.bytes)
        {
            answers.extend(self.answer().await?);
        }
        self.unanswered_bytes += bytes;
        self.unanswered.push_back(batch.clone());
        if let State::Opening(requests, _) | State::Open(requests, _) = &self.stream {
            let request = v1::PublishStreamRequest { topic: String::new(), events: batch };
            // There is room for a whole window. Where the stream has ended, its answers say why.
            let _ = requests.try_send(request);
        }
        // Nothing travels before there is a stream, and nobody may ask for answers for a while.
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
    pub async fn answered(&mut self) -> Result<Option<Published>, ClientError> {
        if self.unanswered.is_empty() {
            return std::future::pending().await;
        }
        self.answer().await
    }

    /// Waits for all answers.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn finish(&mut self) -> Result<Vec<Published>, ClientError> {
        let mut answers = Vec::new();
        while !self.unanswered.is_empty() {
            answers.extend(self.answer().await?);
        }
        self.stream = State::Closed(Instant::now());
        Ok(answers)
    }

    /// One step towards the next answer, or that answer.
    async fn answer(&mut self) -> Result<Option<Published>, ClientError> {
        match &mut self.stream {
            State::Closed(until) => {
                tokio::time::sleep_until(*until).await;
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
                    Err(ClientError::Lost { server: self.client.server.clone(), why })
                }
                Err(status) => self.ended(&status).map(|()| None),
            },
        }
    }

    /// What [`Self::answer`] gives without waiting.
    async fn now(&mut self) -> Option<Result<Option<Published>, ClientError>> {
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
        let (requests, receiver) = mpsc::channel(self.unanswered.len().max(self.window.batches));
        let mut topic = Some(self.topic.clone());
        for batch in &self.unanswered {
            let request = v1::PublishStreamRequest { topic: topic.take().unwrap_or_default(), events: batch.clone() };
            // There is room for all of them.
            let _ = requests.try_send(request);
        }
        let mut publisher = self.client.publisher.clone();
        let opening = Box::pin(async move { publisher.publish_stream(ReceiverStream::new(receiver)).await });
        self.stream = State::Opening(requests, opening);
    }

    fn answered_by(&mut self, answer: v1::PublishStreamResponse) -> Published {
        let batch = self.unanswered.pop_front().unwrap_or_default();
        self.unanswered_bytes -= batch.iter().map(Bytes::len).sum::<usize>();
        self.answered_events += batch.len() as u64;
        self.busy_since = None;
        let v1::PublishStreamResponse { epoch, partitions, offsets } = answer;
        Published { epoch, places: partitions.into_iter().zip(offsets).collect() }
    }

    /// The stream has ended with a refusal. A bus that is only busy is asked again, when it says.
    fn ended(&mut self, status: &Status) -> Result<(), ClientError> {
        self.stream = State::Closed(Instant::now());
        let error = self.client.failed(status);
        let since = *self.busy_since.get_or_insert_with(Instant::now);
        match &error {
            ClientError::Refused(Refused { retry_after: Some(delay), .. }) if since.elapsed() < BUSY_MAX => {
                self.stream = State::Closed(Instant::now() + *delay);
                Ok(())
            }
            _ => Err(error),
        }
    }
}
