//! Connections to a bus, plain or in TLS, and what their first bytes say of who answers.
//!
//! Promises: a connection is made within its time, TLS included; where something is wrong that has a name, it is found
//! ([`Finding`]); a token does not leave this machine in plain text. Must not know: calls.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;
use tonic::codegen::{BoxFuture, Service, http};

use super::address::Address;
use super::secret::Token;
use super::tls::{self, TlsOptions};
use super::trouble::{Finding, Stranger, Trouble};
use crate::model::units::show_duration;

/// Where a connection goes, and as whom.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) address: Address,
    /// How long a connection may take.
    pub(super) within: Duration,
    /// `None`: plain text.
    pub(super) tls: Option<TlsOptions>,
    pub(super) token: Option<Token>,
}

impl Target {
    /// What a failure of the transport means; `None`: nothing but that the connection broke.
    fn trouble(&self, error: &io::Error) -> Option<Trouble> {
        let inner = error.get_ref()?;
        match (inner.downcast_ref(), inner.downcast_ref(), &self.tls) {
            (Some(trouble), _, _) => Some(Trouble::clone(trouble)),
            (None, Some(error), Some(tls)) => Some(tls.trouble(&self.address, error)),
            _ => None,
        }
    }

    /// Reads the files that a connection needs.
    fn load(&self) -> Result<Option<Arc<ClientConfig>>, Trouble> {
        let config = self.tls.as_ref().map(TlsOptions::load).transpose().map_err(Trouble::Options)?;
        self.token.as_ref().map_or(Ok(()), Token::load).map_err(Trouble::Options)?;
        Ok(config)
    }

    async fn connect(self: &Arc<Self>) -> io::Result<Stream> {
        let end = Instant::now() + self.within;
        let target = self.clone();
        let config = tokio::task::spawn_blocking(move || target.load()).await?.map_err(io::Error::other)?;
        let stream = self.reach(end).await?;
        let Some(config) = config else { return Ok(Either::Left(stream)) };
        let name = tls::server_name(&self.address).map_err(|why| io::Error::other(Trouble::Options(why)))?;
        let hint = format!("if it is a bus without TLS, write http://{}", self.address);
        let Ok(shaken) = timeout_at(end, TlsConnector::from(config).connect(name, stream)).await else {
            let why = format!("it did not answer in TLS within {}; {hint}", show_duration(self.within));
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        };
        let stream = shaken.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                io::Error::new(error.kind(), format!("it closed the connection when TLS began; {hint}"))
            }
            _ => error,
        })?;
        match stream.get_ref().1.alpn_protocol() {
            Some(tls::HTTP2) => Ok(Either::Right(stream)),
            _ => Err(io::Error::other(Trouble::Stranger(Stranger::Http))),
        }
    }

    /// Connects to the first of a host's addresses that takes it. Each has its share of the time, so that one that
    /// never answers leaves time for the next.
    async fn reach(&self, end: Instant) -> io::Result<TcpStream> {
        let (address, within) = (&self.address, self.within);
        let late = || io::Error::new(io::ErrorKind::TimedOut, format!("it took more than {}", show_duration(within)));
        let found = timeout_at(end, tokio::net::lookup_host((address.host(), address.port()))).await;
        let addresses: Vec<_> = found.map_err(|_| late())??.collect();
        let is_readable = self.token.is_some() && self.tls.is_none();
        if is_readable && let Some(other) = addresses.iter().find(|to| !to.ip().to_canonical().is_loopback()) {
            let why = format!("a token would be readable on the way to {other}: use https://{address}");
            return Err(io::Error::other(Trouble::Options(why)));
        }
        let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name stands for no address");
        for (index, to) in addresses.iter().enumerate() {
            let left = end.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(addresses.len() - index).unwrap_or(1);
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
}

/// The bytes of the head of a frame of HTTP/2: three of its length, one of its kind, one of flags, four of its stream.
const FRAME_HEAD_BYTES: usize = 9;
/// The kind that a server has to begin with.
const SETTINGS: u8 = 4;

/// What the first bytes from a server say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judgement {
    Http2,
    /// It speaks TLS to a client that speaks plain text.
    Tls,
    Stranger(Stranger),
}

/// What the first bytes from a server say of it; `None`: nothing yet.
fn judge(head: &[u8]) -> Option<Judgement> {
    match head {
        [] => None,
        // Of TLS: an alert, or a handshake.
        [0x15 | 0x16, ..] => Some(Judgement::Tls),
        [b'H', ..] => Some(Judgement::Stranger(Stranger::Http)),
        // No server has settings of 64 KiB.
        [first, ..] if *first > 0 => Some(Judgement::Stranger(Stranger::Other)),
        [0, _, _, kind, ..] if *kind != SETTINGS => Some(Judgement::Stranger(Stranger::Other)),
        [0, _, _, _, _, 0, 0, 0, 0, ..] => Some(Judgement::Http2),
        _ if head.len() < FRAME_HEAD_BYTES => None,
        _ => Some(Judgement::Stranger(Stranger::Other)),
    }
}

type Stream = Either<TcpStream, TlsStream<TcpStream>>;

/// A connection whose first bytes are looked at. It fails where they are those of a stranger.
pub(super) struct Wire {
    stream: Stream,
    target: Arc<Target>,
    /// As long as it is not known who that is.
    head: Option<Vec<u8>>,
    /// A failure to write, as long as it is not known what the other side has said before.
    failure: Option<io::Error>,
    finding: Finding,
}

impl Wire {
    fn found(&self, trouble: Trouble) -> io::Error {
        self.finding.set(trouble.clone());
        io::Error::other(trouble)
    }

    /// A failure, of which its cause is kept: with TLS 1.3, a bus that does not accept a client says so here.
    fn failed(&self, error: io::Error) -> io::Error {
        match self.target.trouble(&error) {
            Some(trouble) => self.found(trouble),
            None => error,
        }
    }

    /// Writes. Who does not accept this client says why and closes the connection; where writing fails before anything
    /// was read, that is read first. It is there: the failure came after it.
    fn poll_write_with<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut Stream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let failure = match self.failure.take() {
            Some(failure) => failure,
            None => match ready!(write(Pin::new(&mut self.stream), cx)) {
                Ok(written) => return Poll::Ready(Ok(written)),
                Err(error) if self.head.is_none() => return Poll::Ready(Err(self.failed(error))),
                Err(error) => error,
            },
        };
        let mut bytes = [0; FRAME_HEAD_BYTES];
        let mut rest = ReadBuf::new(&mut bytes);
        Poll::Ready(Err(match Pin::new(&mut self.stream).poll_read(cx, &mut rest) {
            Poll::Ready(Ok(())) => self.look_at(rest.filled()).err().unwrap_or(failure),
            Poll::Ready(Err(why)) if self.target.trouble(&why).is_some() => self.failed(why),
            Poll::Ready(Err(_)) => self.failed(failure),
            Poll::Pending => {
                self.failure = Some(failure);
                return Poll::Pending;
            }
        }))
    }

    /// Fails where the first bytes, of which these are the next, are not those of a bus.
    fn look_at(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(head) = &mut self.head else { return Ok(()) };
        head.extend(bytes.iter().take(FRAME_HEAD_BYTES - head.len()));
        match judge(head) {
            None => {}
            Some(Judgement::Http2) => self.head = None,
            Some(Judgement::Stranger(stranger)) => return Err(self.found(Trouble::Stranger(stranger))),
            Some(Judgement::Tls) => {
                let address = &self.target.address;
                let why = format!("it speaks TLS, and this client plain text; if it is a bus, write https://{address}");
                return Err(self.found(Trouble::Tls(why)));
            }
        }
        Ok(())
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer)).map_err(|error| self.failed(error))?;
        Poll::Ready(self.look_at(buffer.filled().get(before..).unwrap_or_default()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write_with(cx, |stream, cx| stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, |stream, cx| stream.poll_write_vectored(cx, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Makes connections.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) target: Arc<Target>,
    pub(super) finding: Finding,
}

impl Service<http::Uri> for Connector {
    type Response = TokioIo<Wire>;
    type Error = io::Error;
    type Future = BoxFuture<TokioIo<Wire>, io::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let Self { target, finding } = self.clone();
        Box::pin(async move {
            finding.clear();
            let stream = target.connect().await.inspect_err(|error| {
                if let Some(trouble) = target.trouble(error) {
                    finding.set(trouble);
                }
            })?;
            Ok(TokioIo::new(Wire { stream, target, head: Some(Vec::new()), failure: None, finding }))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_of_a_server_tell_strangers_from_a_bus() {
        let settings = [0, 0, 18, SETTINGS, 0, 0, 0, 0, 0, 1];
        for count in 1..FRAME_HEAD_BYTES {
            assert_eq!(judge(&settings[..count]), None, "{count}");
        }
        assert_eq!(judge(&settings[..FRAME_HEAD_BYTES]), Some(Judgement::Http2));
        assert_eq!(judge(&settings), Some(Judgement::Http2));
        for (said, judgement) in [
            (&b"HTTP/1.1 400 Bad Request\r\n"[..], Judgement::Stranger(Stranger::Http)),
            (b"\x15\x03\x01\x00\x02\x02\x46", Judgement::Tls),
            (b"\x15", Judgement::Tls),
            (b"SSH-2.0-OpenSSH_9.9\r\n", Judgement::Stranger(Stranger::Other)),
            (b"-ERR unknown command\r\n", Judgement::Stranger(Stranger::Other)),
            (b"\x4a\0\0\0\x0a8.4.0", Judgement::Stranger(Stranger::Other)),
            (b"\0\0\0\0", Judgement::Stranger(Stranger::Other)),
            (b"\0\0\x12\x04\0\0\0\0\x01", Judgement::Stranger(Stranger::Other)),
        ] {
            assert_eq!(judge(said), Some(judgement), "{said:?}");
        }
    }
}
