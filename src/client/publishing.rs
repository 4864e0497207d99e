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
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{Client, ClientError};
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
pub struct Publishing {
    client: Client,
    topic: String,
    window: Window,
    stream: Option<Open>,
    /// Sent or to be sent again, not answered.
    unanswered: VecDeque<Vec<Bytes>>,
    unanswered_bytes: usize,
    answered_events: u64,
    busy_since: Option<Instant>,
}

struct Open {
    requests: mpsc::Sender<v1::PublishStreamRequest>,
    answers: Streaming<v1::PublishStreamResponse>,
}

impl Publishing {
    pub(super) fn new(client: Client, topic: String, window: Window) -> Self {
        Self {
            client,
            topic,
            window,
            stream: None,
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
        match &self.stream {
            Some(open) => {
                let request = v1::PublishStreamRequest { topic: String::new(), events: batch };
                // Where the stream has ended, its answers say why.
                let _ = open.requests.send(request).await;
            }
            None => self.open().await?,
        }
        while let Some(answer) = self.ready_answer().await {
            answers.extend(self.take(answer).await?);
        }
        Ok(answers)
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
        self.stream = None;
        Ok(answers)
    }

    /// Begins a stream with everything that is not answered.
    async fn open(&mut self) -> Result<(), ClientError> {
        let capacity = self.unanswered.len().max(self.window.batches);
        let (requests, receiver) = mpsc::channel(capacity);
        let mut topic = Some(self.topic.clone());
        for batch in &self.unanswered {
            let request = v1::PublishStreamRequest { topic: topic.take().unwrap_or_default(), events: batch.clone() };
            // There is room for all of them.
            let _ = requests.try_send(request);
        }
        let answers = self.client.publisher.clone().publish_stream(ReceiverStream::new(receiver)).await;
        let answers = answers.map_err(|status| self.client.failed(&status))?.into_inner();
        self.stream = Some(Open { requests, answers });
        Ok(())
    }

    async fn answer(&mut self) -> Result<Option<Published>, ClientError> {
        let Some(open) = &mut self.stream else {
            self.open().await?;
            return Ok(None);
        };
        let answer = open.answers.message().await;
        self.take(answer).await
    }

    /// An answer that is there already.
    async fn ready_answer(&mut self) -> Option<Result<Option<v1::PublishStreamResponse>, tonic::Status>> {
        let open = self.stream.as_mut().filter(|_| !self.unanswered.is_empty())?;
        std::future::poll_fn(|cx| {
            Poll::Ready(match Pin::new(&mut open.answers).poll_next(cx) {
                Poll::Ready(answer) => Some(answer.transpose()),
                Poll::Pending => None,
            })
        })
        .await
    }

    async fn take(
        &mut self,
        answer: Result<Option<v1::PublishStreamResponse>, tonic::Status>,
    ) -> Result<Option<Published>, ClientError> {
        match answer {
            Ok(Some(v1::PublishStreamResponse { epoch, partitions, offsets })) => {
                let batch = self.unanswered.pop_front().unwrap_or_default();
                self.unanswered_bytes -= batch.iter().map(Bytes::len).sum::<usize>();
                self.answered_events += batch.len() as u64;
                self.busy_since = None;
                Ok(Some(Published { epoch, places: partitions.into_iter().zip(offsets).collect() }))
            }
            Ok(None) => {
                self.stream = None;
                let why = "it ended the stream without answering everything".to_owned();
                Err(ClientError::Lost { server: self.client.server.clone(), why })
            }
            Err(status) => {
                self.stream = None;
                let error = self.client.failed(&status);
                let since = *self.busy_since.get_or_insert_with(Instant::now);
                match &error {
                    ClientError::Refused(refused) if since.elapsed() < BUSY_MAX => match refused.retry_after {
                        Some(delay) => {
                            tokio::time::sleep(delay).await;
                            self.open().await?;
                            Ok(None)
                        }
                        None => Err(error),
                    },
                    _ => Err(error),
                }
            }
        }
    }
}
