//! One connection: a request, its answer, the next request.

use std::{
    fmt,
    future::poll_fn,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use http::{Method, Response};
use http_body::{Body, Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use crate::{
    Error, Malformed,
    body::{Found, Framing},
    head, room,
};

/// Interim answers (such as `103 Early Hints`) before the one that counts.
pub(crate) const INTERIMS_MAX: usize = 16;
/// A body up to here is copied behind its head: cheaper than to write from two places.
const COPIED_BYTES_MAX: usize = 4 * 1024;

/// A connection to an endpoint. It is driven by whoever waits for something of it, and closed when dropped.
pub struct Connection<S = TcpStream> {
    stream: S,
    /// Not yet sent of the request.
    head: Bytes,
    body: Bytes,
    /// Read, and not yet taken.
    unread: Bytes,
    /// What is to come of the answer under way.
    framing: Framing,
    /// A further request may follow when it has come.
    persists: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub fn new(stream: S) -> Self {
        let (head, body, unread) = (Bytes::new(), Bytes::new(), Bytes::new());
        Self { stream, head, body, unread, framing: Framing::Ended, persists: true }
    }

    /// Sends a request, and waits for the head of its answer. Dropping the future leaves the
    /// connection fit for nothing, as does a failure.
    ///
    /// `head` is the request's, with all that HTTP/1.1 wants, the empty line at its end included.
    /// Where the answer comes before the request is sent, the rest of it is sent while the answer is
    /// read.
    pub async fn send(
        &mut self,
        method: &Method,
        mut head: Vec<u8>,
        body: Bytes,
    ) -> Result<Response<()>, Error> {
        if body.len() <= COPIED_BYTES_MAX {
            head.extend_from_slice(&body);
        } else {
            self.body = body;
        }
        self.head = head.into();
        self.persists = false;
        let mut unsent = true;
        let mut answered = false;
        let mut interims = 0;
        poll_fn(|context| {
            let sent = self.poll_send(context, &mut unsent);
            if unsent && matches!(sent, Poll::Ready(Err(_))) {
                return Poll::Ready(Err(Error::Unsent));
            }
            loop {
                if let Some(head) = head::take(&mut self.unread, method)? {
                    if head.response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
                        return Poll::Ready(Err(Malformed::Upgrade.into()));
                    }
                    if !head.response.status().is_informational() {
                        (self.framing, self.persists) = (head.framing, head.persists);
                        return Poll::Ready(Ok(head.response));
                    }
                    interims += 1;
                    if interims > INTERIMS_MAX {
                        return Poll::Ready(Err(Malformed::Interims.into()));
                    }
                    continue;
                }
                let read = ready!(self.poll_read(context));
                if matches!(read, Ok(1..)) {
                    answered = true;
                    continue;
                }
                // An endpoint may refuse a request without reading it: its answer was worth a look.
                let broken = match (sent, read) {
                    (Poll::Ready(Err(error)), _) | (_, Err(error)) => Some(error),
                    (_, Ok(_)) => None,
                };
                return Poll::Ready(Err(match (unsent, answered, broken) {
                    (true, ..) => Error::Unsent,
                    (_, false, error) => Error::Unanswered(
                        error.unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into()),
                    ),
                    (.., Some(error)) => error.into(),
                    (.., None) => Error::Closed,
                }));
            }
        })
        .await
    }

    /// Whether it can carry another request, as far as its own end knows.
    pub fn is_reusable(&self) -> bool {
        // Bytes nobody asked for would be taken for the next answer.
        self.persists && self.is_end_stream() && self.is_sent() && self.unread.is_empty()
    }

    /// Resolves when an idle connection has become unfit: the peer has closed it, or spoken unasked.
    pub fn poll_unfit(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.is_reusable() {
            ready!(self.poll_read(context)).ok();
            self.persists = false;
        }
        Poll::Ready(())
    }

    fn is_sent(&self) -> bool {
        self.head.is_empty() && self.body.is_empty()
    }

    /// Sends what is left of the request; `unsent` turns false with the first byte.
    fn poll_send(&mut self, context: &mut Context<'_>, unsent: &mut bool) -> Poll<io::Result<()>> {
        while !self.is_sent() {
            let stream = Pin::new(&mut self.stream);
            let wrote = if self.body.is_empty() {
                stream.poll_write(context, &self.head)
            } else {
                let slices = [IoSlice::new(&self.head), IoSlice::new(&self.body)];
                stream.poll_write_vectored(context, &slices)
            };
            let wrote = ready!(wrote)?;
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *unsent = false;
            let of_head = wrote.min(self.head.len());
            self.head.advance(of_head);
            self.body.advance(wrote - of_head);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads what has come behind what was not yet taken; how much it was, 0 at the peer's end.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let unread = &mut self.unread;
        room::read(&mut self.stream, context, |read| {
            *unread = if unread.is_empty() {
                Bytes::copy_from_slice(read)
            } else {
                [unread, read].concat().into()
            };
            read.len()
        })
    }
}

/// The answer whose head has come.
impl<S: AsyncRead + AsyncWrite + Unpin> Body for Connection<S> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        if !this.is_sent() && matches!(this.poll_send(context, &mut true), Poll::Ready(Err(_))) {
            // The answer may still be whole.
            this.persists = false;
            (this.head, this.body) = (Bytes::new(), Bytes::new());
        }
        loop {
            match this.framing.take(&mut this.unread) {
                Ok(Found::Frame(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(Found::End) => return Poll::Ready(None),
                Ok(Found::Nothing) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            if ready!(this.poll_read(context))? == 0 {
                this.framing.close()?;
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.framing.is_ended()
    }

    fn size_hint(&self) -> SizeHint {
        self.framing.size_hint()
    }
}

/// Without a word of what passes: it may be a prompt.
impl<S> fmt::Debug for Connection<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { framing, persists, .. } = self;
        let mut debug = formatter.debug_struct("Connection");
        debug.field("framing", framing).field("persists", persists).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
