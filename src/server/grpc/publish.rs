//! Events in: one call, or a stream of them that is pipelined.
//!
//! Promises: the answers of a stream come in the order of its requests; after the first refusal nothing more of it is
//! published. It holds because a request is not even read before its predecessor has been admitted and polled once,
//! when [`Publisher::publish_admitted`] refuses it or hands its events to the engine, and because what the engine
//! refuses later shuts the stream's fence: what is behind it in the engine by then is not stored.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::time::{Instant, Sleep};
use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Code, Request, Response, Status, Streaming};

use super::stream::{AnswerStream, Source};
use super::{authorized, deadline};
use crate::access::Verb;
use crate::api::AddressedEvent;
use crate::api::v1;
use crate::api::v1::publisher_service_server::PublisherService;
use crate::dispatch::{Admission, PublishError, Publisher};
use crate::engine::{Engine, Fence};
use crate::server::auth::{Caller, Names};
use crate::server::calls::{Calls, StreamCall};
use crate::server::room::ByteBudget;
use crate::server::usage::Share;
use crate::server::{bounds, refusal};

pub(super) struct Publishing<E> {
    pub(super) publisher: Publisher<E>,
    pub(super) closing: CancellationToken,
    /// Calls that are under way; shutdown waits for them.
    pub(super) calls: Calls,
    /// For requests that wait for room in their topics.
    pub(super) waiting: ByteBudget,
    pub(super) names: Arc<dyn Names>,
}

#[tonic::async_trait]
impl<E: Engine> PublisherService for Publishing<E> {
    type PublishStreamStream = AnswerStream<Pipeline<E>>;

    async fn publish(&self, request: Request<v1::PublishRequest>) -> Result<Response<v1::PublishResponse>, Status> {
        if self.closing.is_cancelled() {
            return Err(refusal::shutting_down().into());
        }
        let _call = self.calls.token();
        let caller = authorized::caller(request.extensions())?.clone();
        let v1::PublishRequest { topic, events, numbering } = request.into_inner();
        let bytes = events.iter().map(Bytes::len).sum();
        let _share = caller.publishing(bytes).await?;
        let admission = self.admitted(bytes, self.publisher.admit(&topic, events.len())).await?;
        let published =
            self.publisher.publish_admitted(&topic, &events, numbering.map(Into::into), admission, None).await;
        let published = published.map_err(|error| refusal::publish(&error))?;
        Ok(Response::new(published.into()))
    }

    async fn publish_together(
        &self,
        request: Request<v1::PublishTogetherRequest>,
    ) -> Result<Response<v1::PublishResponse>, Status> {
        if self.closing.is_cancelled() {
            return Err(refusal::shutting_down().into());
        }
        let _call = self.calls.token();
        let caller = authorized::caller(request.extensions())?.clone();
        let v1::PublishTogetherRequest { events, numbering } = request.into_inner();
        let events: Vec<_> = events.into_iter().map(Into::into).collect();
        let bytes = events.iter().map(|event: &AddressedEvent| event.event.len()).sum();
        let _share = caller.publishing(bytes).await?;
        let admission = self.admitted(bytes, self.publisher.admit_together(&events)).await?;
        let published = self.publisher.publish_together_admitted(&events, numbering.map(Into::into), admission).await;
        let published = published.map_err(|error| refusal::publish(&error))?;
        Ok(Response::new(published.into()))
    }

    async fn publish_stream(
        &self,
        request: Request<Streaming<v1::PublishStreamRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        let deadline = deadline::deadline(&request);
        let caller = authorized::caller(request.extensions())?.clone();
        let pipeline = Pipeline::new(self, caller, request.into_inner(), deadline);
        Ok(Response::new(AnswerStream::new(pipeline)))
    }
}

impl<E> Publishing<E> {
    /// Waits for room, unless as much waits as may, or the bus is on its way down: nothing has happened then.
    async fn admitted(
        &self,
        bytes: usize,
        admission: impl Future<Output = AdmissionResult>,
    ) -> Result<Admission, Status> {
        tokio::select! {
            biased;
            admitted = admission_within(&self.waiting, bytes, admission) => admitted,
            () = self.closing.cancelled() => Err(refusal::shutting_down().into()),
        }
    }
}

/// Room in a topic, waited for only where there is room for the request meanwhile.
async fn admission_within(
    waiting: &ByteBudget,
    bytes: usize,
    admission: impl Future<Output = AdmissionResult>,
) -> Result<Admission, Status> {
    let mut admission = pin!(admission);
    let at_once = std::future::poll_fn(|cx| Poll::Ready(admission.as_mut().poll(cx))).await;
    let admitted = match at_once {
        Poll::Ready(admitted) => admitted,
        Poll::Pending => {
            let _room = waiting.try_take(bytes as u64).ok_or_else(refusal::too_many_wait)?;
            admission.await
        }
    };
    admitted.map_err(|error| refusal::publish(&error).into())
}

type AdmissionResult = Result<Admission, PublishError>;
/// With the share of its principal, for as long as it is published.
type AdmittedRequest = (Admission, Option<Share>);
type AdmissionFuture = Pin<Box<dyn Future<Output = Result<AdmittedRequest, Status>> + Send>>;
type Answer = Result<v1::PublishResponse, Status>;

/// The requests of a stream that are not answered yet.
pub(super) struct Pipeline<E> {
    publisher: Publisher<E>,
    caller: Caller,
    names: Arc<dyn Names>,
    waiting: ByteBudget,
    requests: Streaming<v1::PublishStreamRequest>,
    topic: String,
    fence: Fence,
    /// The next request, which waits for room in its topic: nothing behind it is read before it has some.
    admitting: Option<(AdmissionFuture, v1::PublishStreamRequest)>,
    slots: VecDeque<Slot>,
    bytes: usize,
    /// No more requests are read; after the answers the stream ends, with the status if there is one.
    ended: Option<Result<(), Status>>,
    deadline: Option<Pin<Box<Sleep>>>,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    call: StreamCall,
}

/// One request.
struct Slot {
    bytes: usize,
    state: State,
}

enum State {
    Running(Pin<Box<dyn Future<Output = Answer> + Send>>),
    Done(Answer),
}

impl Slot {
    fn poll(&mut self, cx: &mut Context<'_>) {
        if let State::Running(running) = &mut self.state
            && let Poll::Ready(answer) = running.as_mut().poll(cx)
        {
            self.state = State::Done(answer);
        }
    }

    fn is_refused(&self) -> bool {
        matches!(self.state, State::Done(Err(_)))
    }
}

impl<E: Engine> Pipeline<E> {
    fn new(
        service: &Publishing<E>,
        caller: Caller,
        requests: Streaming<v1::PublishStreamRequest>,
        deadline: Option<Instant>,
    ) -> Self {
        Self {
            publisher: service.publisher.clone(),
            caller,
            names: service.names.clone(),
            waiting: service.waiting.clone(),
            requests,
            topic: String::new(),
            fence: Fence::default(),
            admitting: None,
            slots: VecDeque::new(),
            bytes: 0,
            ended: None,
            deadline: deadline.map(|at| Box::pin(tokio::time::sleep_until(at))),
            closing: Box::pin(service.closing.clone().cancelled_owned()),
            call: service.calls.stream(),
        }
    }

    fn has_room(&self) -> bool {
        self.slots.is_empty()
            || (self.slots.len() < bounds::PIPELINE_REQUESTS_MAX && self.bytes < bounds::PIPELINE_BYTES_MAX)
    }

    fn admit(&mut self, mut request: v1::PublishStreamRequest) {
        if !request.topic.is_empty() {
            self.topic = std::mem::take(&mut request.topic);
        }
        let (publisher, topic, events) = (self.publisher.clone(), self.topic.clone(), request.events.len());
        let (waiting, bytes) = (self.waiting.clone(), request.events.iter().map(Bytes::len).sum());
        let judged = self.caller.check_topic(&*self.names, Verb::Publish, &topic);
        let caller = self.caller.clone();
        let admission = Box::pin(async move {
            judged?;
            let share = caller.publishing(bytes).await?;
            Ok((admission_within(&waiting, bytes, publisher.admit(&topic, events)).await?, share))
        });
        self.admitting = Some((admission, request));
    }

    fn begin(
        &mut self,
        request: v1::PublishStreamRequest,
        admitted: Result<AdmittedRequest, Status>,
        cx: &mut Context<'_>,
    ) {
        let (publisher, topic, events) = (self.publisher.clone(), self.topic.clone(), request.events);
        let (numbering, fence) = (request.numbering.map(Into::into), Some(self.fence.clone()));
        let bytes = events.iter().map(Bytes::len).sum();
        let running = Box::pin(async move {
            let (admission, _share) = admitted?;
            let published = publisher.publish_admitted(&topic, &events, numbering, admission, fence).await;
            published.map(Into::into).map_err(|error| refusal::publish(&error).into())
        });
        let mut slot = Slot { bytes, state: State::Running(running) };
        slot.poll(cx);
        if slot.is_refused() {
            self.ended = Some(Ok(()));
        }
        self.bytes += bytes;
        self.slots.push_back(slot);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Answer>> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Some(Err(refusal::deadline().into())));
        }
        for slot in &mut self.slots {
            slot.poll(cx);
        }
        if self.ended.is_none() && self.slots.iter().any(Slot::is_refused) {
            self.ended = Some(Ok(()));
        }
        while self.ended.is_none() && self.has_room() {
            if self.closing.as_mut().poll(cx).is_ready() {
                self.ended = Some(Err(refusal::shutting_down().into()));
                break;
            }
            if let Some((mut admission, request)) = self.admitting.take() {
                match admission.as_mut().poll(cx) {
                    Poll::Ready(admitted) => self.begin(request, admitted, cx),
                    Poll::Pending => {
                        self.admitting = Some((admission, request));
                        break;
                    }
                }
                continue;
            }
            match Pin::new(&mut self.requests).poll_next(cx) {
                Poll::Ready(Some(Ok(request))) => self.admit(request),
                Poll::Ready(Some(Err(status))) if status.code() == Code::OutOfRange => {
                    self.ended = Some(Err(refusal::oversize(status.message()).into()));
                }
                Poll::Ready(Some(Err(status))) => self.ended = Some(Err(status)),
                Poll::Ready(None) => self.ended = Some(Ok(())),
                Poll::Pending => break,
            }
        }
        match self.slots.pop_front() {
            Some(Slot { bytes, state: State::Done(answer) }) => {
                self.bytes -= bytes;
                Poll::Ready(Some(answer))
            }
            Some(running) => {
                self.slots.push_front(running);
                Poll::Pending
            }
            None => match self.ended.take() {
                Some(Ok(())) => Poll::Ready(None),
                Some(Err(status)) => Poll::Ready(Some(Err(status))),
                None => Poll::Pending,
            },
        }
    }
}

impl<E: Engine> Source for Pipeline<E> {
    type Item = v1::PublishResponse;

    async fn next(&mut self) -> Option<Answer> {
        std::future::poll_fn(|cx| {
            let waker = self.call.asked(cx);
            let polled = self.poll(&mut Context::from_waker(&waker));
            if polled.is_ready() {
                self.call.has_answered();
            }
            polled
        })
        .await
    }
}
