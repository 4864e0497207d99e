//! A stream that makes its next item when it is asked for it, and not before: nothing is buffered.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio_stream::Stream;
use tonic::Status;

/// What makes the items of a stream.
pub(super) trait Source: Send + Sized + 'static {
    /// An item.
    type Item: Send + 'static;

    /// The next item; `None` at the end. An error is the last item.
    fn next(&mut self) -> impl Future<Output = Option<Result<Self::Item, Status>>> + Send;
}

type Step<S> = Pin<Box<dyn Future<Output = (S, Option<Result<<S as Source>::Item, Status>>)> + Send>>;

/// The items of a [`Source`].
pub(super) struct Pull<S: Source> {
    step: Option<Step<S>>,
}

impl<S: Source> Pull<S> {
    pub(super) fn new(source: S) -> Self {
        Self { step: Some(Box::pin(step(source))) }
    }
}

async fn step<S: Source>(mut source: S) -> (S, Option<Result<S::Item, Status>>) {
    let item = source.next().await;
    (source, item)
}

impl<S: Source> Stream for Pull<S> {
    type Item = Result<S::Item, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(running) = &mut self.step else { return Poll::Ready(None) };
        let Poll::Ready((source, item)) = running.as_mut().poll(cx) else { return Poll::Pending };
        self.step = matches!(item, Some(Ok(_))).then(|| Box::pin(step(source)) as Step<S>);
        Poll::Ready(item)
    }
}
