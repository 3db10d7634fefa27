//! One client's connection: a request, its answer, the next request.
//!
//! - `head`: a request's head, and what it says of the body to come
//! - `answer`: an answer on its way

use std::{
    fmt, io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{Method, Version, request::Parts};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};

use crate::{
    Error,
    body::{Found, Framing},
    room,
};

mod answer;
mod head;

pub use answer::{Answer, Unfinished};
pub use head::{BadHead, HeadLimits};

use answer::Unsent;

/// What is read of further requests while one is at work. A client that has sent more is not seen to
/// leave before something is written to it.
const AHEAD_BYTES_MAX: usize = 32 * 1024;
/// What is read of a body nobody wanted, so that the connection can be kept.
const SKIPPED_BYTES_MAX: u64 = 64 * 1024;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A client's connection. It is driven by whoever waits for something of it, and closed when dropped.
///
/// What it is asked for, it is asked for in turn: a head, the body, the answer; then the next head.
pub struct Downstream<S> {
    stream: S,
    limits: HeadLimits,
    /// Read, and not yet taken.
    unread: Bytes,
    /// So much of it has no end of a head.
    searched: usize,
    /// What is to come of the body of the request under way.
    framing: Framing,
    /// Its sender waits to be told to go on with the body.
    expects: bool,
    method: Method,
    version: Version,
    /// A further request may follow after the answer.
    persists: bool,
    /// None is to follow, whatever the client wishes.
    last: bool,
    unsent: Unsent,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Downstream<S> {
    pub fn new(stream: S, limits: HeadLimits) -> Self {
        Self {
            stream,
            limits,
            unread: Bytes::new(),
            searched: 0,
            framing: Framing::Ended,
            expects: false,
            method: Method::GET,
            version: Version::HTTP_11,
            persists: true,
            last: false,
            unsent: Unsent::default(),
        }
    }

    /// Whether the client begins with these bytes. What was read stays to be read.
    pub fn poll_begins(&mut self, context: &mut Context<'_>, with: &[u8]) -> Poll<bool> {
        loop {
            if self.unread.starts_with(with) {
                return Poll::Ready(true);
            }
            if !with.starts_with(&self.unread) {
                return Poll::Ready(false);
            }
            if self.is_done() || !matches!(ready!(self.poll_read(context)), Ok(1..)) {
                return Poll::Ready(false);
            }
        }
    }

    /// The head of the next request; `None` if there is none, because the client has left, or because
    /// no more are taken.
    pub fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Parts>, BadHead>> {
        loop {
            if self.may_have_head()
                && let Some(parts) = self.take_head()?
            {
                return Poll::Ready(Ok(Some(parts)));
            }
            if self.is_done() {
                return Poll::Ready(Ok(None));
            }
            if !matches!(ready!(self.poll_read(context)), Ok(1..)) {
                let begun = !self.unread.is_empty();
                return Poll::Ready(if begun { self.take_head() } else { Ok(None) });
            }
        }
    }

    /// The next piece of the request's body, as large as it is there; `None` after the last. Its sender
    /// is told to go on, should it wait for that.
    pub fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        loop {
            match self.framing.take(&mut self.unread) {
                Ok(Found::Frame(frame)) => {
                    // Trailers are nobody's business.
                    let Ok(piece) = frame.into_data() else { continue };
                    return Poll::Ready(Some(Ok(piece)));
                }
                Ok(Found::End) => return Poll::Ready(None),
                Ok(Found::Nothing) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            self.go_on(context)?;
            if ready!(self.poll_read(context))? == 0 {
                return Poll::Ready(Some(Err(Error::Closed)));
            }
        }
    }

    /// Reads more of the body behind what there is of it, without a copy where its length is known; how
    /// much it was, 0 at its end.
    ///
    /// As much is read at once as `body` has room for.
    pub fn poll_body_into(
        &mut self,
        context: &mut Context<'_>,
        body: &mut BytesMut,
    ) -> Poll<Result<usize, Error>> {
        if let Framing::Length(left @ 1..) = &mut self.framing
            && self.unread.is_empty()
            && self.unsent.is_empty()
            && !self.expects
        {
            let room = (body.capacity() - body.len()).max(1) as u64;
            let mut room = body.limit(usize::try_from(room.min(*left)).unwrap_or(usize::MAX));
            let read = ready!(pin!(self.stream.read_buf(&mut room)).poll(context))?;
            *left -= read as u64;
            return Poll::Ready(if read == 0 { Err(Error::Closed) } else { Ok(read) });
        }
        let Some(piece) = ready!(self.poll_body(context)) else { return Poll::Ready(Ok(0)) };
        let piece = piece?;
        body.extend_from_slice(&piece);
        Poll::Ready(Ok(piece.len()))
    }

    /// What is left of the body, if that is known.
    pub fn body_left(&self) -> Option<u64> {
        self.framing.size_hint().exact()
    }

    pub fn is_body_ended(&self) -> bool {
        self.framing.is_ended()
    }

    /// Resolves when the client has left. It is asked for while an answer is made: requests that come
    /// meanwhile are kept.
    pub fn poll_left(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.framing.is_ended() && self.unread.len() < AHEAD_BYTES_MAX {
            if !matches!(ready!(self.poll_read(context)), Ok(1..)) {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }

    /// Takes no further request than the one under way, or than the one that has begun.
    pub fn finish(&mut self) {
        self.last = true;
    }

    /// Takes what comes for no request any more: what is answered now is the end.
    pub fn give_up(&mut self) {
        (self.method, self.version) = (Method::GET, Version::HTTP_11);
        (self.framing, self.persists, self.expects) = (Framing::UntilClose, false, false);
    }

    /// Whether another request may follow after the answer.
    pub fn persists(&self) -> bool {
        self.persists && !self.last
    }

    /// Read, and not yet taken.
    pub fn unread(&self) -> &[u8] {
        &self.unread
    }

    /// Whether more has come than was answered, or is still to come. To close the connection at once
    /// may then take the answer from its client.
    pub fn is_spoken_to(&self) -> bool {
        !self.framing.is_ended() || !self.unread.is_empty()
    }

    /// Throws away what comes, up to so many bytes or to the client's end, after the client was told
    /// that nothing more is said.
    pub fn poll_drain(&mut self, context: &mut Context<'_>, left: &mut usize) -> Poll<()> {
        if ready!(Pin::new(&mut self.stream).poll_shutdown(context)).is_err() {
            return Poll::Ready(());
        }
        while *left > 0 {
            let read = ready!(room::read(&mut self.stream, context, <[u8]>::len));
            match read {
                Ok(read @ 1..) => *left = left.saturating_sub(read),
                Ok(0) | Err(_) => return Poll::Ready(()),
            }
        }
        Poll::Ready(())
    }

    /// The stream, and what was read of it and not yet taken.
    pub fn into_parts(self) -> (S, Bytes) {
        (self.stream, self.unread)
    }

    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// Whether the next head may be whole, or too long.
    fn may_have_head(&mut self) -> bool {
        // Empty lines before it are nothing (RFC 9112, 2.2).
        while let [b'\n', ..] | [b'\r', b'\n', ..] = &*self.unread {
            let line = if self.unread.starts_with(b"\n") { 1 } else { 2 };
            self.unread.advance(line);
            self.searched = 0;
        }
        let (searched, len) = (self.searched, self.unread.len());
        // At first it is read however much there is: what is no head is then seen at once.
        len > 0
            && (searched == 0
                || len > self.limits.bytes_max
                || head::may_end(&self.unread, searched))
    }

    fn take_head(&mut self) -> Result<Option<Parts>, BadHead> {
        match head::take(&mut self.unread, self.limits) {
            Ok(Some(head)) => {
                self.searched = 0;
                (self.framing, self.expects) = (head.framing, head.expects);
                self.persists = head.persists;
                self.method.clone_from(&head.parts.method);
                self.version = head.parts.version;
                Ok(Some(head.parts))
            }
            Ok(None) => {
                self.searched = self.unread.len();
                Ok(None)
            }
            Err(bad) => {
                self.give_up();
                Err(bad)
            }
        }
    }

    fn is_done(&self) -> bool {
        self.last && self.unread.is_empty()
    }

    /// Tells a client that waits for it to send the body.
    fn go_on(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if std::mem::take(&mut self.expects) && self.unread.is_empty() {
            self.unsent.begin = Bytes::from_static(CONTINUE);
        }
        match self.poll_flush(context) {
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    /// Takes what has come of the body, if that is all of it and not much; false if it is not.
    fn skip_body(&mut self, context: &mut Context<'_>) -> bool {
        let mut skipped = 0;
        while !self.framing.is_ended() {
            let left = self.body_left().unwrap_or(0);
            if self.expects || left.saturating_add(skipped) > SKIPPED_BYTES_MAX {
                return false;
            }
            match self.poll_body(context) {
                Poll::Ready(Some(Ok(piece))) => skipped += piece.len() as u64,
                Poll::Ready(None) => {}
                Poll::Ready(Some(Err(_))) | Poll::Pending => return false,
            }
        }
        true
    }

    /// Reads what has come behind what was not yet taken; how much it was, 0 at the client's end.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let unread = &mut self.unread;
        room::read(&mut self.stream, context, |read| {
            *unread = if unread.is_empty() {
                Bytes::copy_from_slice(read)
            } else {
                // Not copied anew, as long as nothing of it is held elsewhere.
                let mut grown = BytesMut::from(std::mem::take(unread));
                grown.extend_from_slice(read);
                grown.freeze()
            };
            read.len()
        })
    }
}

/// Without a word of what passes: it may be a prompt.
impl<S> fmt::Debug for Downstream<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { framing, persists, .. } = self;
        let mut debug = formatter.debug_struct("Downstream");
        debug.field("framing", framing).field("persists", persists).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
