//! Accepts connections: a bounded number, none that says nothing, and all of them can be cut.
//!
//! Promises: a handshake delays no other connection; whatever a peer speaks, and however slowly, it is cut when it has
//! said nothing useful for long ([`bounds`]). Must not know: what is served.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;
use tonic::body::Body;

use super::bounds;
use super::tls::{self, Tls};
use super::usage::Share;
use crate::access::CertificateNames;

/// Who is at the other end of a connection.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// The names in its certificate, which was checked; none where it has shown none.
    pub(super) certificate: Option<CertificateNames>,
    /// What its connection counts as of each principal with a limit.
    pub(super) shares: Mutex<Vec<Share>>,
}

/// Answers the requests of one connection.
pub(super) trait Serve: Clone + Send + Sync + 'static {
    fn answer(
        self,
        peer: Arc<Peer>,
        request: http::Request<Incoming>,
    ) -> impl Future<Output = http::Response<Body>> + Send + 'static;
}

/// Accepts connections and serves them, each in a task of its own.
pub(super) struct Listener<S> {
    pub(super) listener: TcpListener,
    /// Encrypts connections; without it they are in plain text.
    pub(super) tls: Option<Tls>,
    pub(super) service: S,
    /// Cancelled: nothing more is accepted, and connections end after the calls that are under way.
    pub(super) closing: CancellationToken,
    /// Cancelled: all connections fail.
    pub(super) cut: CancellationToken,
}

impl<S: Serve> Listener<S> {
    /// Accepts until the bus is closing; returns when all connections have ended.
    pub(super) async fn run(self) {
        let Self { listener, tls, service, closing, cut } = self;
        let places = Arc::new(Semaphore::new(bounds::CONNECTIONS_MAX));
        let protocols = protocols();
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = closing.cancelled() => break,
                accepted = accept(&listener, &places) => accepted,
            };
            let (stream, address, place) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(bounds::ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (service, protocols, closing, cut) = (service.clone(), protocols.clone(), closing.clone(), cut.clone());
            let tls = tls.clone();
            connections.spawn(async move {
                let _place = place;
                let secured = async {
                    match tls {
                        None => Ok((Transport::Plain(stream), None)),
                        Some(tls) => tls::handshake(&tls, stream)
                            .await
                            .map(|(stream, names)| (Transport::Tls(Box::new(stream)), names)),
                    }
                };
                let secured = tokio::select! {
                    secured = secured => secured,
                    () = cut.cancelled() => return,
                };
                match secured {
                    Ok((transport, certificate)) => {
                        let peer = Arc::new(Peer { address, certificate, shares: Mutex::default() });
                        serve(Connection::new(transport, &cut), peer, service, &protocols, closing).await;
                    }
                    Err(error) => tracing::debug!(%address, %error, "no TLS connection"),
                }
            });
        }
        // A listener that stays open holds clients that connect now until their deadlines.
        drop(listener);
        connections.close();
        connections.wait().await;
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, address) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, address, place))
}

/// HTTP/1 and HTTP/2, with their bounds. What neither limits by itself is the [`Connection`]'s.
fn protocols() -> auto::Builder<TokioExecutor> {
    let mut protocols = auto::Builder::new(TokioExecutor::new());
    protocols
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_headers(bounds::HEADERS_MAX)
        .max_buf_size(bounds::HEAD_BUFFER_BYTES);
    protocols
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(bounds::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(bounds::CONNECTION_WINDOW_BYTES)
        .max_frame_size(bounds::FRAME_BYTES)
        .max_concurrent_streams(bounds::STREAMS_PER_CONNECTION_MAX)
        .max_header_list_size(bounds::HEADER_BYTES)
        .max_pending_accept_reset_streams(bounds::PENDING_RESETS_MAX)
        .max_local_error_reset_streams(bounds::ERROR_RESETS_MAX)
        .keep_alive_interval(bounds::KEEPALIVE_AFTER)
        .keep_alive_timeout(bounds::KEEPALIVE_WITHIN);
    protocols
}

async fn serve<S: Serve, T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    connection: Connection<T>,
    peer: Arc<Peer>,
    service: S,
    protocols: &auto::Builder<TokioExecutor>,
    closing: CancellationToken,
) {
    let (requests, address) = (connection.requests.clone(), peer.address);
    let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
        // Streams of HTTP/2 are kept alive by pings.
        let request_under_way = (request.version() < http::Version::HTTP_2).then(|| requests.begin());
        let answer = service.clone().answer(peer.clone(), request);
        async move {
            let answer = answer.await;
            Ok::<_, std::convert::Infallible>(match request_under_way {
                None => answer,
                Some(request) => answer.map(|body| Body::new(CountedBody { body, _request: request })),
            })
        }
    });
    let mut serving = std::pin::pin!(protocols.serve_connection(connection, service));
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = closing.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%address, error, "a connection has failed");
    }
}

/// Requests of one HTTP/1 connection that are not answered to the end.
#[derive(Debug, Clone, Default)]
struct Requests(Arc<RequestCount>);

#[derive(Debug, Default)]
struct RequestCount {
    count: AtomicUsize,
    /// Whoever reads from the connection, and waits without a time limit as long as there are requests.
    reader: Mutex<Option<Waker>>,
}

impl Requests {
    fn begin(&self) -> RequestUnderWay {
        self.0.count.fetch_add(1, Ordering::SeqCst);
        RequestUnderWay(self.0.clone())
    }

    /// Whether there are any; then the reader is woken when there are none.
    fn are_under_way(&self, reader: &Waker) -> bool {
        if self.0.count.load(Ordering::SeqCst) == 0 {
            return false;
        }
        *self.0.reader.lock().unwrap_or_else(PoisonError::into_inner) = Some(reader.clone());
        self.0.count.load(Ordering::SeqCst) > 0
    }
}

struct RequestUnderWay(Arc<RequestCount>);

impl Drop for RequestUnderWay {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::SeqCst) == 1 {
            let reader = self.0.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
            reader.into_iter().for_each(Waker::wake);
        }
    }
}

/// The body of an answer, which ends its request.
struct CountedBody {
    body: Body,
    _request: RequestUnderWay,
}

impl http_body::Body for CountedBody {
    type Data = <Body as http_body::Body>::Data;
    type Error = <Body as http_body::Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// What a peer has to do next, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expectation {
    /// Say what it speaks: the first line of HTTP/1, or the preface of HTTP/2, of which these bytes have come.
    Greeting { bytes: usize },
    /// Nothing: a request is under way, or HTTP/2 asks by itself whether the peer is there.
    Nothing,
    /// Begin another request.
    Request,
    /// End the head of the request that it has begun.
    Head,
}

/// A connection that fails when its peer takes too long, or the bus cuts it.
struct Connection<T> {
    transport: TokioIo<T>,
    expected: Expectation,
    is_http2: bool,
    until: Pin<Box<Sleep>>,
    requests: Requests,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<T> Connection<T> {
    fn new(transport: T, cut: &CancellationToken) -> Self {
        Self {
            transport: TokioIo::new(transport),
            expected: Expectation::Greeting { bytes: 0 },
            is_http2: false,
            until: Box::pin(tokio::time::sleep(bounds::PREFACE_WITHIN)),
            requests: Requests::default(),
            cut: Box::pin(cut.clone().cancelled_owned()),
        }
    }

    fn expect(&mut self, expected: Expectation, within: Duration) {
        self.expected = expected;
        self.until.as_mut().reset(Instant::now() + within);
    }

    /// What is expected of a peer of HTTP/1, before it is read from.
    fn expect_request(&mut self, reader: &Waker) {
        match (self.requests.are_under_way(reader), self.expected) {
            (true, _) => self.expected = Expectation::Nothing,
            (false, Expectation::Nothing) => self.expect(Expectation::Request, bounds::IDLE_WITHIN),
            (false, Expectation::Greeting { .. } | Expectation::Request | Expectation::Head) => {}
        }
    }

    /// Takes note of bytes that have come.
    fn has_come(&mut self, come: &[u8]) {
        match self.expected {
            Expectation::Greeting { bytes } => {
                let rest = bounds::PREFACE.get(bytes..).unwrap_or_default();
                let is_preface = come.iter().zip(rest).all(|(come, expected)| come == expected);
                let bytes = bytes + come.len();
                self.expected = match is_preface {
                    true if bytes < bounds::PREFACE_BYTES => Expectation::Greeting { bytes },
                    true => Expectation::Nothing,
                    // The time of the greeting is that of its head, too.
                    false => Expectation::Head,
                };
                self.is_http2 = self.expected == Expectation::Nothing;
            }
            Expectation::Request => self.expect(Expectation::Head, bounds::HEAD_WITHIN),
            Expectation::Nothing | Expectation::Head => {}
        }
    }

    fn late(&self) -> io::Error {
        let what = match self.expected {
            Expectation::Greeting { .. } => "the client speaks neither HTTP/2 nor HTTP/1",
            Expectation::Head => "the client did not end the head of its request",
            Expectation::Request | Expectation::Nothing => "the client was idle",
        };
        io::Error::new(io::ErrorKind::TimedOut, what)
    }
}

impl<T: AsyncRead + Unpin> Read for Connection<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the bus is shutting down")));
        }
        if !self.is_http2 {
            self.expect_request(cx.waker());
        }
        if self.expected == Expectation::Nothing {
            return Pin::new(&mut self.transport).poll_read(cx, buffer);
        }
        let mut bytes = [std::mem::MaybeUninit::uninit(); SLOW_READ_BYTES];
        let room = buffer.remaining().min(SLOW_READ_BYTES);
        let mut come = ReadBuf::uninit(bytes.get_mut(..room).unwrap_or_default());
        let read = Pin::new(self.transport.inner_mut()).poll_read(cx, &mut come);
        match read {
            Poll::Ready(Ok(())) => {
                let come = come.filled();
                self.has_come(come);
                buffer.put_slice(come);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.until.as_mut().poll(cx).map(|()| Err(self.late())),
        }
    }
}

/// Bytes that are read at once while something is expected, on the stack.
const SLOW_READ_BYTES: usize = 8 << 10;

impl<T: AsyncWrite + Unpin> Write for Connection<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}

/// Calls the same method of either transport.
macro_rules! either {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Transport::Plain(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            Transport::Tls(stream) => {
                let $stream = Pin::new(&mut **stream);
                $call
            }
        }
    };
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_read(cx, buffer))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_write_vectored(cx, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    /// Answers everything with its path.
    #[derive(Clone)]
    struct Echo;

    impl Serve for Echo {
        fn answer(
            self,
            _: Arc<Peer>,
            request: http::Request<Incoming>,
        ) -> impl Future<Output = http::Response<Body>> + Send + 'static {
            let path = request.uri().path().to_owned();
            async move { http::Response::new(Body::new(http_body_util::Full::from(path))) }
        }
    }

    /// A client's end of a connection, which is served.
    fn connected() -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let cut = CancellationToken::new();
        let peer = Arc::new(Peer { address: ([127, 0, 0, 1], 1).into(), certificate: None, shares: Mutex::default() });
        tokio::spawn(async move {
            serve(Connection::new(ours, &cut), peer, Echo, &protocols(), CancellationToken::new()).await;
        });
        theirs
    }

    /// When the connection was closed, from now on.
    async fn closed_after(stream: &mut DuplexStream) -> Duration {
        let begin = Instant::now();
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(3_600), stream.read_to_end(&mut rest)).await.unwrap();
        begin.elapsed()
    }

    async fn ask(stream: &mut DuplexStream, path: &str) -> String {
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(path.as_bytes()) {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "{}", String::from_utf8_lossy(&answer));
        }
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_or_dribbles_is_cut_after_ten_seconds() {
        assert_eq!(closed_after(&mut connected()).await, bounds::PREFACE_WITHIN);

        let starts: [&[u8]; 4] = [b"GET / HTTP/1.1\r\n", b"P", b"PRI * HTTP/2.0\r\n", b"\x16\x03\x01"];
        for start in starts {
            let (mut stream, begin) = (connected(), Instant::now());
            stream.write_all(start).await.unwrap();
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let mut byte = [0];
                let read = tokio::time::timeout(Duration::from_millis(1), stream.read(&mut byte)).await;
                if matches!(read, Ok(Ok(0) | Err(_))) || stream.write_all(b"x").await.is_err() {
                    break;
                }
                // What is no HTTP may be answered with an error before.
                assert!(begin.elapsed() < bounds::PREFACE_WITHIN + Duration::from_secs(2), "{start:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_of_http_1_may_be_idle_for_longer_than_a_head_may_take() {
        let mut stream = connected();
        assert!(ask(&mut stream, "/a").await.starts_with("HTTP/1.1 200"));
        tokio::time::sleep(bounds::IDLE_WITHIN - Duration::from_secs(1)).await;
        assert!(ask(&mut stream, "/b").await.starts_with("HTTP/1.1 200"));
        assert_eq!(closed_after(&mut stream).await, bounds::IDLE_WITHIN);

        let mut stream = connected();
        ask(&mut stream, "/a").await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        stream.write_all(b"GET /").await.unwrap();
        assert_eq!(closed_after(&mut stream).await, bounds::HEAD_WITHIN);
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_request_is_answered_whole() {
        // It has fewer bytes than the preface of HTTP/2.
        let mut stream = connected();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        tokio::time::sleep(bounds::PREFACE_WITHIN * 2).await;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_connection_fails() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 10);
        let cut = CancellationToken::new();
        let peer = Arc::new(Peer { address: ([127, 0, 0, 1], 1).into(), certificate: None, shares: Mutex::default() });
        let connection = Connection::new(ours, &cut);
        tokio::spawn(async move { serve(connection, peer, Echo, &protocols(), CancellationToken::new()).await });
        ask(&mut theirs, "/a").await;
        cut.cancel();
        assert_eq!(closed_after(&mut theirs).await, Duration::ZERO);
    }
}
