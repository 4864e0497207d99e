//! What every call of a client passes: how long it may take without a sign of the bus, and whether what answers is a
//! bus.
//!
//! ```text
//!   a call ──> Line ──> Channel ──> Wire ──> TCP
//!              │ no answer and no progress for too long: Silent
//!              │ an answer that is not gRPC: a stranger
//!                                   └ the first bytes are not those of HTTP/2: a stranger
//! ```
//!
//! Progress is a part of the request that was taken, or a part of the answer that came. A call that may take as long as
//! it takes says so ([`NoTimeout`]), and one for which the bus compiles says that ([`CompileRequest`]); nothing else
//! can leave this out.

use crate::model::units::show_duration;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::{fmt, io};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use super::address::Address;

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

/// Why a call failed of which the bus said nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Nothing came for so long.
    Silent(Duration),
    /// What answers is no bus.
    Stranger(Stranger),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent(time) => write!(f, "nothing came for {}", show_duration(*time)),
            Self::Stranger(stranger) => write!(f, "{stranger}"),
        }
    }
}

impl std::error::Error for Trouble {}

impl Trouble {
    pub(super) fn status(self) -> Status {
        let code = match self {
            Self::Silent(_) => Code::DeadlineExceeded,
            Self::Stranger(_) => Code::Unavailable,
        };
        let mut status = Status::new(code, self.to_string());
        status.set_source(Arc::new(self));
        status
    }
}

/// What answers, where that is no bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Stranger {
    /// A server of web pages.
    #[error("it speaks HTTP and not gRPC")]
    Http,
    /// A server that wants to be spoken to in TLS.
    #[error("it speaks TLS, which the bus does not")]
    Tls,
    /// Anything else.
    #[error("it speaks something else than HTTP/2")]
    Other,
}

/// The bytes of the head of a frame of HTTP/2: three of its length, one of its kind, one of flags, four of its stream.
const FRAME_HEAD_BYTES: usize = 9;
/// The kind that a server has to begin with.
const SETTINGS: u8 = 4;

/// What the first bytes from a server say of it: nothing yet, that it speaks HTTP/2, or that it is a stranger.
fn judge(head: &[u8]) -> Option<Result<(), Stranger>> {
    match head {
        [] => None,
        // Of TLS: an alert, or a handshake.
        [0x15 | 0x16, ..] => Some(Err(Stranger::Tls)),
        [b'H', ..] => Some(Err(Stranger::Http)),
        // No server has settings of 64 KiB.
        [first, ..] if *first > 0 => Some(Err(Stranger::Other)),
        [0, _, _, kind, ..] if *kind != SETTINGS => Some(Err(Stranger::Other)),
        [0, _, _, _, _, 0, 0, 0, 0, ..] => Some(Ok(())),
        _ if head.len() < FRAME_HEAD_BYTES => None,
        _ => Some(Err(Stranger::Other)),
    }
}

/// The kind of server by its first bytes, of the latest connection.
type SharedStranger = Arc<Mutex<Option<Stranger>>>;

/// A connection whose first bytes are looked at. It fails where they are those of a stranger.
struct Wire {
    stream: TcpStream,
    /// As long as it is not known who that is.
    head: Option<Vec<u8>>,
    found: SharedStranger,
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let Some(head) = &mut self.head else { return Poll::Ready(Ok(())) };
        head.extend(buffer.filled().iter().skip(before).take(FRAME_HEAD_BYTES - head.len()));
        match judge(head) {
            None => {}
            Some(Ok(())) => self.head = None,
            Some(Err(stranger)) => {
                *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(stranger);
                return Poll::Ready(Err(io::Error::other(stranger)));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Connects to the first of a host's addresses that takes it. Each has its share of the time, so that one that swallows
/// everything keeps nobody from the next.
async fn reach(address: &Address, within: Duration) -> io::Result<TcpStream> {
    let end = Instant::now() + within;
    let late = || io::Error::new(io::ErrorKind::TimedOut, format!("it took more than {}", show_duration(within)));
    let found = tokio::time::timeout_at(end, tokio::net::lookup_host((address.host(), address.port()))).await;
    let addresses: Vec<_> = found.map_err(|_| late())??.collect();
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name stands for no address");
    for (index, to) in addresses.iter().enumerate() {
        let share = end.saturating_duration_since(Instant::now()) / u32::try_from(addresses.len() - index).unwrap_or(1);
        failed = match tokio::time::timeout(share, TcpStream::connect(to)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => error,
            Err(_) => late(),
        };
    }
    Err(failed)
}

/// Makes connections.
#[derive(Clone)]
struct Connector {
    address: Address,
    within: Duration,
    found: SharedStranger,
}

impl Service<http::Uri> for Connector {
    type Response = TokioIo<Wire>;
    type Error = io::Error;
    type Future = BoxFuture<TokioIo<Wire>, io::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let Self { address, within, found } = self.clone();
        Box::pin(async move {
            let stream = reach(&address, within).await?;
            *found.lock().unwrap_or_else(PoisonError::into_inner) = None;
            Ok(TokioIo::new(Wire { stream, head: Some(Vec::new()), found }))
        })
    }
}

/// The way of all calls to the bus.
#[derive(Debug, Clone)]
pub(super) struct Line {
    channel: Channel,
    patience: Patience,
    found: SharedStranger,
}

impl Line {
    /// Connects; takes no longer than `within`.
    pub(super) async fn connect(
        endpoint: &Endpoint,
        address: Address,
        within: Duration,
        patience: Patience,
    ) -> Result<Self, tonic::transport::Error> {
        let found = SharedStranger::default();
        let connector = Connector { address, within, found: found.clone() };
        Ok(Self { channel: endpoint.connect_with_connector(connector).await?, patience, found })
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
        let found = &self.found;
        self.channel.poll_ready(cx).map_err(|error| failed(found, error))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (patience, found, taken) = (self.patience_with(&request), self.found.clone(), LastReadTime::default());
        let request = request.map(|body| Body::new(TimedBody { body, taken: taken.clone() }));
        let answer = self.channel.call(request);
        Box::pin(async move {
            let answer = unless_silent(answer, patience, &taken).await?.map_err(|error| failed(&found, error))?;
            check_grpc(&answer).map_err(Trouble::status)?;
            Ok(answer.map(|body| Answer { body, silence: patience.map(Silence::new) }))
        })
    }
}

fn failed(found: &SharedStranger, error: impl Into<tonic::codegen::StdError>) -> Status {
    match *found.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(stranger) => Trouble::Stranger(stranger).status(),
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

    #[test]
    fn the_first_bytes_of_a_server_tell_strangers_from_a_bus() {
        let settings = [0, 0, 18, SETTINGS, 0, 0, 0, 0, 0, 1];
        for count in 1..FRAME_HEAD_BYTES {
            assert_eq!(judge(&settings[..count]), None, "{count}");
        }
        assert_eq!(judge(&settings[..FRAME_HEAD_BYTES]), Some(Ok(())));
        assert_eq!(judge(&settings), Some(Ok(())));
        for (said, stranger) in [
            (&b"HTTP/1.1 400 Bad Request\r\n"[..], Stranger::Http),
            (b"\x15\x03\x01\x00\x02\x02\x46", Stranger::Tls),
            (b"\x15", Stranger::Tls),
            (b"SSH-2.0-OpenSSH_9.9\r\n", Stranger::Other),
            (b"-ERR unknown command\r\n", Stranger::Other),
            (b"\x4a\0\0\0\x0a8.4.0", Stranger::Other),
            (b"\0\0\0\0", Stranger::Other),
            (b"\0\0\x12\x04\0\0\0\0\x01", Stranger::Other),
        ] {
            assert_eq!(judge(said), Some(Err(stranger)), "{said:?}");
        }
    }

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
