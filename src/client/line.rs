//! What every call of a client passes: who calls, how long it may take without a sign of the bus, and whether what
//! answers is a bus.
//!
//! ```text
//!   a call ──> Line ──> Channel ──> Wire ──> TCP, or TLS over it
//!              │ it gets the token                │ another side that cannot be trusted
//!              │ no answer and no progress for too long: Silent
//!              │ an answer that is not gRPC: a stranger
//!                                   └ the first bytes are not those of HTTP/2: a stranger
//! ```
//!
//! Progress is a part of the request that was taken, or a part of the answer that came. A call that may take as long as
//! it takes says so ([`NoTimeout`]), and one for which the bus compiles says that ([`CompileRequest`]); nothing else
//! can leave this out.

use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::secret::Token;
use super::trouble::{Finding, Stranger, Trouble};
use super::wire::{Connector, Target};

/// How long a bus may take without an answer or progress; `None`: as long as it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// In a call of the usual kind.
    pub usual: Option<Duration>,
    /// In a call for which it compiles plugins.
    pub compiling: Option<Duration>,
    /// In a publish of many batches, where it says that it is too busy to take more.
    pub busy: Option<Duration>,
}

impl Default for Patience {
    /// As long as it takes, but for a bus that is busy.
    fn default() -> Self {
        Self { usual: None, compiling: None, busy: Some(BUSY_MAX) }
    }
}

/// How long a bus may be busy by default.
const BUSY_MAX: Duration = Duration::from_secs(60);

impl Patience {
    /// The same for everything.
    pub fn of(time: Option<Duration>) -> Self {
        Self { usual: time, compiling: time, busy: time }
    }
}

/// Marks a request whose answer may take as long as it takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct NoTimeout;

/// Marks a request for which the bus compiles plugins.
#[derive(Debug, Clone, Copy)]
pub(super) struct CompileRequest;

/// A request with a mark.
pub(super) fn marked<T>(mark: impl Clone + Send + Sync + 'static, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(mark);
    request
}

/// The way of all calls to the bus.
#[derive(Debug, Clone)]
pub(super) struct Line {
    channel: Channel,
    patience: Patience,
    target: Arc<Target>,
    finding: Finding,
}

impl Line {
    /// Connects. A failure without a [`Trouble`] is one of the network.
    pub(super) async fn connect(endpoint: &Endpoint, target: Target, patience: Patience) -> Result<Self, Status> {
        let (target, finding) = (Arc::new(target), Finding::default());
        let connector = Connector { target: target.clone(), finding: finding.clone() };
        let channel = endpoint.connect_with_connector(connector).await.map_err(|error| failed(&finding, error))?;
        Ok(Self { channel, patience, target, finding })
    }

    /// How long a request may go without an answer or progress.
    fn patience_with<T>(&self, request: &http::Request<T>) -> Option<Duration> {
        let extensions = request.extensions();
        if extensions.get::<NoTimeout>().is_some() {
            return None;
        }
        if extensions.get::<CompileRequest>().is_some() { self.patience.compiling } else { self.patience.usual }
    }
}

/// What answers with something that is not gRPC is a stranger, unless it is a gateway that does not reach the bus.
fn check_grpc<T>(answer: &http::Response<T>) -> Result<(), Trouble> {
    let kind = answer.headers().get(http::header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let is_gateway = matches!(answer.status().as_u16(), 502..=504);
    if kind.starts_with("application/grpc") || is_gateway { Ok(()) } else { Err(Trouble::Stranger(Stranger::Http)) }
}

impl Service<http::Request<Body>> for Line {
    type Response = http::Response<Answer>;
    type Error = Status;
    type Future = BoxFuture<http::Response<Answer>, Status>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        let finding = &self.finding;
        self.channel.poll_ready(cx).map_err(|error| failed(finding, error))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let (patience, finding, taken) = (self.patience_with(&request), self.finding.clone(), LastReadTime::default());
        if let Some(token) = self.target.token.as_ref().and_then(Token::header) {
            request.headers_mut().insert(http::header::AUTHORIZATION, token);
        }
        let request = request.map(|body| Body::new(TimedBody { body, taken: taken.clone() }));
        let answer = self.channel.call(request);
        Box::pin(async move {
            let answer = unless_silent(answer, patience, &taken).await?.map_err(|error| failed(&finding, error))?;
            check_grpc(&answer).map_err(Trouble::status)?;
            Ok(answer.map(|body| Answer { body, silence: patience.map(Silence::new) }))
        })
    }
}

fn failed(finding: &Finding, error: impl Into<tonic::codegen::StdError>) -> Status {
    match finding.get() {
        Some(trouble) => trouble.status(),
        None => Status::from_error(error.into()),
    }
}

/// When the latest part of a request was taken.
type LastReadTime = Arc<OnceLock<Mutex<Instant>>>;

fn note(taken: &LastReadTime) {
    let now = Instant::now();
    *taken.get_or_init(|| Mutex::new(now)).lock().unwrap_or_else(PoisonError::into_inner) = now;
}

fn latest(taken: &LastReadTime) -> Option<Instant> {
    taken.get().map(|at| *at.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Waits for the head of an answer while there is progress.
async fn unless_silent<T>(
    answer: impl Future<Output = T>,
    patience: Option<Duration>,
    taken: &LastReadTime,
) -> Result<T, Status> {
    let Some(patience) = patience else { return Ok(answer.await) };
    let (mut answer, mut since) = (std::pin::pin!(answer), Instant::now());
    loop {
        if let Ok(answer) = tokio::time::timeout_at(since + patience, &mut answer).await {
            return Ok(answer);
        }
        match latest(taken) {
            Some(at) if at > since => since = at,
            _ => return Err(Trouble::Silent(patience).status()),
        }
    }
}

/// The request's body; the time of each read of it is recorded.
struct TimedBody {
    body: Body,
    taken: LastReadTime,
}

impl http_body::Body for TimedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        note(&self.taken);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// How long nothing has come, counted while something is waited for: a caller that takes its time is not the bus's
/// silence.
struct Silence {
    patience: Duration,
    over: Pin<Box<Sleep>>,
    is_waiting: bool,
}

impl Silence {
    fn new(patience: Duration) -> Self {
        Self { patience, over: Box::pin(tokio::time::sleep(patience)), is_waiting: false }
    }
}

/// The answer's body, unless there is no progress for too long.
pub(super) struct Answer {
    body: Body,
    silence: Option<Silence>,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let frame = Pin::new(&mut this.body).poll_frame(cx);
        let Some(silence) = &mut this.silence else { return frame };
        if frame.is_ready() {
            silence.is_waiting = false;
            return frame;
        }
        if !std::mem::replace(&mut silence.is_waiting, true) {
            silence.over.as_mut().reset(Instant::now() + silence.patience);
        }
        ready!(silence.over.as_mut().poll(cx));
        Poll::Ready(Some(Err(Trouble::Silent(silence.patience).status())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;

    use super::*;

    fn silent(status: &Status) -> bool {
        use std::error::Error;
        matches!(status.source().and_then(|source| source.downcast_ref()), Some(Trouble::Silent(_)))
    }

    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_waited_for_as_long_as_something_is_sent() {
        let (taken, begin) = (LastReadTime::default(), Instant::now());
        let sending = async {
            for _ in 0..10 {
                tokio::time::sleep(PATIENCE - Duration::from_secs(1)).await;
                note(&taken);
            }
            std::future::pending::<()>().await;
        };
        let status = unless_silent(sending, Some(PATIENCE), &taken).await.unwrap_err();
        assert!(silent(&status), "{status:?}");
        assert_eq!(begin.elapsed(), 10 * (PATIENCE - Duration::from_secs(1)) + PATIENCE);
        let day = tokio::time::sleep(Duration::from_secs(86_400));
        assert!(unless_silent(day, None, &taken).await.is_ok(), "who has time waits");
    }

    /// An answer whose parts come after these pauses, and then nothing more.
    fn answer(pauses: Vec<Duration>, patience: Option<Duration>) -> Answer {
        struct Parts(Vec<Pin<Box<Sleep>>>);
        impl http_body::Body for Parts {
            type Data = Bytes;
            type Error = Status;
            fn poll_frame(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
                let Some(next) = self.0.first_mut() else { return Poll::Pending };
                ready!(next.as_mut().poll(cx));
                drop(self.0.remove(0));
                Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
            }
        }
        let begin = Instant::now();
        let mut at = begin;
        let parts = pauses.into_iter().map(|pause| {
            at += pause;
            Box::pin(tokio::time::sleep_until(at))
        });
        Answer { body: Body::new(Parts(parts.collect())), silence: patience.map(Silence::new) }
    }

    async fn next(answer: &mut Answer) -> Option<Result<Frame<Bytes>, Status>> {
        std::future::poll_fn(|cx| Pin::new(&mut *answer).poll_frame(cx)).await
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_in_parts_may_take_as_long_as_they_come() {
        let mut parts = answer(vec![PATIENCE - Duration::from_secs(1); 5], Some(PATIENCE));
        for _ in 0..5 {
            assert!(next(&mut parts).await.unwrap().is_ok());
        }
        let begin = Instant::now();
        assert!(silent(&next(&mut parts).await.unwrap().err().unwrap()));
        assert_eq!(begin.elapsed(), PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_takes_its_time_is_not_the_silence_of_the_bus() {
        let mut parts = answer(vec![Duration::from_secs(1), 5 * PATIENCE], Some(PATIENCE));
        assert!(next(&mut parts).await.unwrap().is_ok());
        tokio::time::sleep(5 * PATIENCE - Duration::from_secs(5)).await; // its reader is paused
        assert!(next(&mut parts).await.unwrap().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_time_is_waited_for() {
        let mut parts = answer(vec![Duration::from_secs(86_400)], None);
        assert!(next(&mut parts).await.unwrap().is_ok());
    }
}
