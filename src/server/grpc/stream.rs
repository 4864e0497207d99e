//! Streams of answers, and requests that come in parts.
//!
//! Promises: an answer is made when the transport asks for it: nothing is buffered. A caller that sends nothing for
//! long is refused.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio_stream::Stream;
use tonic::{Status, Streaming};

use crate::server::{bounds, refusal};

/// What makes the items of a stream.
pub(super) trait Source: Send + Sized + 'static {
    type Item: Send + 'static;

    /// The next item; `None` at the end. An error is the last item.
    fn next(&mut self) -> impl Future<Output = Option<Result<Self::Item, Status>>> + Send;
}

type Step<S> = Pin<Box<dyn Future<Output = (S, Option<Result<<S as Source>::Item, Status>>)> + Send>>;

/// The items of a [`Source`].
pub(super) struct AnswerStream<S: Source> {
    step: Option<Step<S>>,
}

impl<S: Source> AnswerStream<S> {
    pub(super) fn new(source: S) -> Self {
        Self { step: Some(Box::pin(step(source))) }
    }
}

async fn step<S: Source>(mut source: S) -> (S, Option<Result<S::Item, Status>>) {
    let item = source.next().await;
    (source, item)
}

impl<S: Source> Stream for AnswerStream<S> {
    type Item = Result<S::Item, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(running) = &mut self.step else { return Poll::Ready(None) };
        let Poll::Ready((source, item)) = running.as_mut().poll(cx) else { return Poll::Pending };
        self.step = matches!(item, Some(Ok(_))).then(|| Box::pin(step(source)) as Step<S>);
        Poll::Ready(item)
    }
}

/// The next message of a call that comes in parts; `None` at the end.
pub(super) async fn next_part<T>(parts: &mut Streaming<T>) -> Result<Option<T>, Status> {
    match tokio::time::timeout(bounds::SILENCE_MAX, parts.message()).await {
        Ok(part) => part,
        Err(_) => Err(refusal::silence(bounds::SILENCE_MAX).into()),
    }
}
