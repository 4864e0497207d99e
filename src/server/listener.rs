//! Accepts connections: a bounded number, none that says nothing, and all of them can be cut.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, PollSemaphore, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::bounds;

/// Connections as they come.
pub(super) struct Incoming {
    listener: TcpListener,
    permits: PollSemaphore,
    permit: Option<OwnedSemaphorePermit>,
    pause: Option<Pin<Box<Sleep>>>,
    cut: CancellationToken,
}

impl Incoming {
    /// Accepts from `listener`. When `cut` is cancelled, all connections fail.
    pub(super) fn new(listener: TcpListener, cut: CancellationToken) -> Self {
        let permits = PollSemaphore::new(std::sync::Arc::new(tokio::sync::Semaphore::new(bounds::CONNECTIONS_MAX)));
        Self { listener, permits, permit: None, pause: None, cut }
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        if self.permit.is_none() {
            self.permit = ready!(self.permits.poll_acquire(cx));
        }
        match ready!(self.listener.poll_accept(cx)) {
            Ok((stream, peer)) => {
                let permit = self.permit.take();
                Poll::Ready(Some(Connection::new(stream, peer, permit, &self.cut)))
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                self.pause = Some(Box::pin(tokio::time::sleep(bounds::ACCEPT_PAUSE)));
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

pub(super) struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    /// Until the preface has come: how many bytes of it are still missing, and until when.
    preface: Option<(usize, Pin<Box<Sleep>>)>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Connection {
    fn new(
        stream: TcpStream,
        peer: SocketAddr,
        permit: Option<OwnedSemaphorePermit>,
        cut: &CancellationToken,
    ) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let within = Box::pin(tokio::time::sleep(bounds::PREFACE_WITHIN));
        let cut = Box::pin(cut.clone().cancelled_owned());
        Ok(Self { stream, peer, preface: Some((bounds::PREFACE_BYTES, within)), cut, _permit: permit })
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        TcpConnectInfo { local_addr: self.stream.local_addr().ok(), remote_addr: Some(self.peer) }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the bus is shutting down")));
        }
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Some((missing, within)) = &mut self.preface {
            *missing = missing.saturating_sub(buffer.filled().len() - before);
            if *missing == 0 {
                self.preface = None;
            } else if within.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not speak HTTP/2")));
            }
        }
        result
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
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

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
