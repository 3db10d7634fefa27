//! The bytes of a client's connection.

use std::{
    io::{self, IoSlice},
    net::Shutdown,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use openai::{ErrorShape, error_body};
use picker::{Refusal, RequestRecord};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::{Proxy, downstream::Watch, head::Peer};

/// How an HTTP/2 connection begins.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Longest of hyper's own answers.
const BARE_BYTES_MAX: usize = 256;

/// A client's connection. It tells its [`Watch`] what passes, and gives the gateway's own answer
/// where hyper would refuse a head without a word.
#[derive(Debug)]
pub(crate) struct ClientStream {
    stream: TcpStream,
    proxy: Proxy,
    peer: Peer,
    watch: Arc<Watch>,
    /// Something was read, and it was not HTTP/2.
    http1: bool,
    /// Something was read.
    begun: bool,
    /// The client takes nothing at the moment.
    blocked: bool,
}

impl ClientStream {
    pub(crate) fn new(stream: TcpStream, proxy: Proxy, peer: Peer, watch: Arc<Watch>) -> Self {
        Self { stream, proxy, peer, watch, http1: false, begun: false, blocked: false }
    }

    fn came(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if !self.begun {
            self.begun = true;
            if bytes.starts_with(HTTP2_PREFACE) {
                self.watch.speaks_http2();
            }
            self.http1 = !HTTP2_PREFACE.starts_with(bytes) && !bytes.starts_with(HTTP2_PREFACE);
        }
        self.watch.bytes_came();
    }

    /// hyper's own answers have no body and nothing but what framing needs; ours go instead.
    fn answers_bare(&mut self, bytes: &[u8]) -> bool {
        let Some(refusal) = bare_refusal(bytes) else { return false };
        let answer = refuse_unread(&self.proxy, &self.peer, &refusal);
        // The end of the connection: nothing else is on its way, so there is room for it.
        say(&self.stream, &answer);
        true
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
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, buf);
        if read.is_ready() {
            this.came(buf.filled().get(before..).unwrap_or_default());
        }
        read
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.http1 && this.answers_bare(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.wrote(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let [only] = slices
            && this.http1
            && this.answers_bare(only)
        {
            return Poll::Ready(Ok(only.len()));
        }
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

impl Drop for ClientStream {
    /// A head that did not come in time is answered when it is given up.
    fn drop(&mut self) {
        if self.http1 && self.watch.head_was_late() {
            let late = Refusal::HeaderTimeout(self.watch.limits.header_read_timeout);
            say(&self.stream, &refuse_unread(&self.proxy, &self.peer, &late));
        }
    }
}

/// Answers a connection there is no room for, as far as that takes no waiting.
pub(crate) fn turn_away(stream: &TcpStream) {
    say(stream, &answer(&Refusal::TooManyConnections));
    let _ = SockRef::from(stream).shutdown(Shutdown::Write);
}

/// Writes what there is room for: whoever does not read does not hear.
fn say(stream: &TcpStream, bytes: &[u8]) {
    let _ = SockRef::from(stream).send(bytes);
}

/// The refusal that stands for one of hyper's own answers. All others have a request id.
fn bare_refusal(bytes: &[u8]) -> Option<Refusal> {
    let rest = bytes.strip_prefix(b"HTTP/1.1 4")?;
    let head = bytes.len() <= BARE_BYTES_MAX && bytes.ends_with(b"\r\n\r\n");
    let ours = bytes.windows(REQUEST_ID.len()).any(|window| window == REQUEST_ID);
    if !head || ours {
        return None;
    }
    match rest.get(..2)? {
        b"00" => Some(Refusal::MalformedHead),
        b"14" => Some(Refusal::PathTooLong),
        b"31" => Some(Refusal::HeadersTooLarge),
        _ => None,
    }
}

const REQUEST_ID: &[u8] = b"x-request-id";

/// The answer to a head that could not be read, with its record written.
fn refuse_unread(proxy: &Proxy, peer: &Peer, refusal: &Refusal) -> Bytes {
    let mut record = RequestRecord::new(peer.remote, peer.local);
    for text in [&mut record.method, &mut record.path, &mut record.authority] {
        "-".clone_into(text);
    }
    let answer = answer(refusal);
    record.refuse(refusal, answer.len());
    drop(proxy.picker().open(record));
    answer
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
