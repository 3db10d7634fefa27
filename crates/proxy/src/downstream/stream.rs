//! The bytes of a client's connection.

use std::{
    io::{self, IoSlice},
    net::Shutdown,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use openai::{ErrorShape, error_body};
use picker::Refusal;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::Watch;

/// A client's connection. It tells its [`Watch`] when the client takes nothing.
#[derive(Debug)]
pub(crate) struct ClientStream {
    /// Read before, and to be read again.
    begun: Bytes,
    stream: TcpStream,
    watch: Arc<Watch>,
    /// The client takes nothing at the moment.
    blocked: bool,
}

impl ClientStream {
    pub(crate) fn new(stream: TcpStream, watch: Arc<Watch>) -> Self {
        Self { begun: Bytes::new(), stream, watch, blocked: false }
    }

    /// The same with these bytes, which it has given before, in front.
    pub(crate) fn behind(self, begun: Bytes) -> Self {
        Self { begun, ..self }
    }

    /// Whether to close it is to be no end, but a reset.
    pub(crate) fn reset_on_close(&self, resets: bool) -> io::Result<()> {
        SockRef::from(&self.stream).set_linger(resets.then_some(Duration::ZERO))
    }

    fn wrote(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let blocked = written.is_pending();
        if blocked != self.blocked {
            self.blocked = blocked;
            self.watch.blocked(blocked);
        }
        written
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.begun.is_empty() {
            return Pin::new(&mut this.stream).poll_read(context, buf);
        }
        let now = this.begun.len().min(buf.remaining());
        buf.put_slice(this.begun.get(..now).unwrap_or_default());
        this.begun.advance(now);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.wrote(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(context, slices);
        this.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

/// Answers a connection there is no room for, as far as that takes no waiting.
pub(crate) fn turn_away(stream: &TcpStream) {
    // There is room for it: nothing was written before.
    let _ = SockRef::from(stream).send(&answer(&Refusal::TooManyConnections));
    let _ = SockRef::from(stream).shutdown(Shutdown::Write);
}

/// A refusal as bytes, after which the connection ends.
fn answer(refusal: &Refusal) -> Bytes {
    let wire = refusal.wire();
    let status = http::StatusCode::from_u16(wire.status).unwrap_or_default();
    let body = error_body(ErrorShape::OpenAi, wire.status, &refusal.to_string());
    let retry = wire.retry_after.map(|seconds| format!("retry-after: {seconds}\r\n"));
    let head = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: application/json\r\nx-tokenweir-reason: {}\r\n{}\
         connection: close\r\ncontent-length: {}\r\n\r\n",
        wire.status,
        status.canonical_reason().unwrap_or_default(),
        wire.reason,
        retry.unwrap_or_default(),
        body.len(),
    );
    [head.as_bytes(), &body].concat().into()
}
