//! An answer on its way to a client.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Response, StatusCode, Version, header, response::Parts};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};

use super::Downstream;
use crate::head::is_bodiless;

/// A piece up to here is copied behind what goes before it: cheaper than to write from several
/// places. So much at most is taken of a body before what came before is written.
pub(super) const COPIED_BYTES_MAX: usize = 4 * 1024;
/// What a thread keeps to write from.
const KEPT_BYTES_MAX: usize = 64 * 1024;

thread_local! {
    /// Where every connection of a thread puts together what it writes at once. What the system does
    /// not take of it is copied to where there is just room for it.
    static OUT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Why an answer did not arrive whole. The connection is then fit for nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unfinished {
    #[error("the client has left")]
    Left,
    /// Its body broke off. What came of it is written, and its end is not.
    #[error("the answer was cut")]
    Cut,
}

/// An answer that is being written.
#[derive(Debug)]
pub struct Answer<B> {
    /// Not yet written.
    head: Option<Parts>,
    body: B,
    /// Writes the time, for the header `date`.
    date: fn(&mut Vec<u8>),
    coding: Coding,
    stage: Stage,
}

/// How a client knows where the body ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Coding {
    /// So many bytes are to come.
    Length(u64),
    Chunked,
    UntilClose,
    /// Whatever the head says, there is none.
    Bodiless,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    Open,
    /// All of it was taken and coded.
    Ended,
    Cut,
}

/// What is written and could not be yet: a head and what is copied, a large piece, what is behind it.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    pub(super) begin: Bytes,
    piece: Bytes,
    end: Bytes,
}

impl Unsent {
    pub(super) fn is_empty(&self) -> bool {
        self.begin.is_empty() && self.piece.is_empty() && self.end.is_empty()
    }

    fn advance(&mut self, mut wrote: usize) {
        for part in [&mut self.begin, &mut self.piece, &mut self.end] {
            let of_part = wrote.min(part.len());
            // Of what is empty then, nothing is kept.
            drop(part.split_to(of_part));
            wrote -= of_part;
        }
    }
}

impl<B> Answer<B> {
    /// `date` appends the time in the form of RFC 9110, 5.6.7; it is called if the answer does not say
    /// when it was made.
    pub fn new(response: Response<B>, date: fn(&mut Vec<u8>)) -> Self {
        let (head, body) = response.into_parts();
        Self { head: Some(head), body, date, coding: Coding::Bodiless, stage: Stage::Open }
    }

    /// Whether the connection's end is the answer's, as far as it is being written: a client then
    /// cannot tell one that was cut from a whole one, unless the connection is reset.
    pub fn ends_by_closing(&self) -> bool {
        self.coding == Coding::UntilClose
    }

    #[cfg(test)]
    pub(super) fn body(&self) -> &B {
        &self.body
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Downstream<S> {
    /// Writes an answer to its end. Nothing is taken of its body before what came before is written,
    /// but for small pieces that go out together.
    ///
    /// Whoever stops asking has cut the answer.
    pub fn poll_answer<B>(
        &mut self,
        context: &mut Context<'_>,
        answer: &mut Answer<B>,
    ) -> Poll<Result<(), Unfinished>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        loop {
            match self.poll_flush(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Unfinished::Left)),
                Poll::Pending => return self.poll_left(context).map(|()| Err(Unfinished::Left)),
            }
            match answer.stage {
                Stage::Open => {}
                Stage::Ended => return Poll::Ready(Ok(())),
                Stage::Cut => return Poll::Ready(Err(Unfinished::Cut)),
            }
            let mut out = OUT.take();
            out.clear();
            let waits = self.gather(context, answer, &mut out);
            let wrote = self.write_now(context, &out);
            if out.capacity() <= KEPT_BYTES_MAX {
                OUT.set(out);
            }
            if wrote.is_err() {
                return Poll::Ready(Err(Unfinished::Left));
            }
            if waits && self.unsent.is_empty() {
                return self.poll_left(context).map(|()| Err(Unfinished::Left));
            }
        }
    }

    /// Puts together what is written next; true if the body was asked for more than it has.
    fn gather<B>(
        &mut self,
        context: &mut Context<'_>,
        answer: &mut Answer<B>,
        out: &mut Vec<u8>,
    ) -> bool
    where
        B: Body<Data = Bytes> + Unpin,
    {
        if let Some(head) = answer.head.take() {
            answer.coding = self.begin(context, &head, &answer.body);
            self.write_head(out, &head, answer.coding, answer.date);
            if matches!(answer.coding, Coding::Bodiless | Coding::Length(0)) {
                answer.stage = Stage::Ended;
            }
        }
        while answer.stage == Stage::Open && out.len() < COPIED_BYTES_MAX {
            match Pin::new(&mut answer.body).poll_frame(context) {
                Poll::Pending => return true,
                Poll::Ready(None) => {
                    answer.end();
                    if answer.coding == Coding::Chunked {
                        out.extend_from_slice(b"0\r\n\r\n");
                    }
                }
                Poll::Ready(Some(Err(_))) => answer.stage = Stage::Cut,
                Poll::Ready(Some(Ok(frame))) => {
                    // There are no trailers: nobody has asked for any.
                    let Ok(mut piece) = frame.into_data() else { continue };
                    answer.code(&mut piece, out);
                    if piece.len() > COPIED_BYTES_MAX {
                        self.unsent.piece = piece;
                        self.unsent.end = Bytes::from_static(answer.behind());
                        return false;
                    }
                    if !piece.is_empty() {
                        out.extend_from_slice(&piece);
                        out.extend_from_slice(answer.behind());
                    }
                }
            }
        }
        false
    }

    /// How this answer's end is told; whether there may be another after it is then known.
    fn begin(
        &mut self,
        context: &mut Context<'_>,
        head: &Parts,
        body: &impl Body<Data = Bytes>,
    ) -> Coding {
        let coding = if is_bodiless(&self.method, head.status) {
            Coding::Bodiless
        } else if let Some(length) = body.size_hint().exact() {
            Coding::Length(length)
        } else if self.version == Version::HTTP_11 {
            Coding::Chunked
        } else {
            Coding::UntilClose
        };
        let closes = head.headers.get(header::CONNECTION).is_some_and(|value| value == "close");
        self.persists &=
            !closes && !self.last && coding != Coding::UntilClose && self.skip_body(context);
        coding
    }

    fn write_head(&self, out: &mut Vec<u8>, head: &Parts, coding: Coding, date: fn(&mut Vec<u8>)) {
        let version: &[u8] =
            if self.version == Version::HTTP_11 { b"HTTP/1.1 " } else { b"HTTP/1.0 " };
        let reason = head.status.canonical_reason().unwrap_or_default();
        for piece in [version, head.status.as_str().as_bytes(), b" ", reason.as_bytes(), b"\r\n"] {
            out.extend_from_slice(piece);
        }
        let mut dated = false;
        for (name, value) in &head.headers {
            let ours = match *name {
                header::CONNECTION | header::TRANSFER_ENCODING => true,
                // An answer that has no body may say how long it would be.
                header::CONTENT_LENGTH => {
                    coding != Coding::Bodiless || head.status == StatusCode::NO_CONTENT
                }
                _ => false,
            };
            if ours {
                continue;
            }
            dated |= *name == header::DATE;
            for piece in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                out.extend_from_slice(piece);
            }
        }
        match coding {
            Coding::Length(length) => {
                out.extend_from_slice(b"content-length: ");
                out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
                out.extend_from_slice(b"\r\n");
            }
            Coding::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
            Coding::UntilClose | Coding::Bodiless => {}
        }
        if !self.persists {
            out.extend_from_slice(b"connection: close\r\n");
        } else if self.version != Version::HTTP_11 {
            out.extend_from_slice(b"connection: keep-alive\r\n");
        }
        if !dated {
            out.extend_from_slice(b"date: ");
            date(out);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Writes this and what is unsent behind it, as much as the system takes now. Of what it does not
    /// take there is a copy.
    fn write_now(&mut self, context: &mut Context<'_>, out: &[u8]) -> io::Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        let stream = Pin::new(&mut self.stream);
        let wrote = if self.unsent.piece.is_empty() {
            stream.poll_write(context, out)
        } else {
            let Unsent { piece, end, .. } = &self.unsent;
            let slices = [IoSlice::new(out), IoSlice::new(piece), IoSlice::new(end)];
            stream.poll_write_vectored(context, &slices)
        };
        let taken = match wrote {
            Poll::Ready(wrote) => wrote?,
            Poll::Pending => 0,
        };
        self.unsent.begin = Bytes::copy_from_slice(out.get(taken..).unwrap_or_default());
        self.unsent.advance(taken.saturating_sub(out.len()));
        Ok(())
    }

    /// Writes what is left.
    pub(super) fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let Unsent { begin, piece, end } = &self.unsent;
            let slices = [IoSlice::new(begin), IoSlice::new(piece), IoSlice::new(end)];
            let wrote = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, &slices))?;
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unsent.advance(wrote);
        }
        Poll::Ready(Ok(()))
    }
}

impl<B: Body<Data = Bytes>> Answer<B> {
    /// What stands before a piece. Of a piece that is longer than the answer said, the rest is left
    /// out.
    fn code(&mut self, piece: &mut Bytes, out: &mut Vec<u8>) {
        match &mut self.coding {
            Coding::Length(left) => {
                piece.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= piece.len() as u64;
            }
            // An empty chunk would be the last.
            Coding::Chunked if !piece.is_empty() => {
                hexadecimal(piece.len(), out);
                out.extend_from_slice(b"\r\n");
            }
            Coding::Chunked | Coding::UntilClose | Coding::Bodiless => {}
        }
    }

    /// What stands behind a piece: also the answer's end, if it was the last.
    fn behind(&mut self) -> &'static [u8] {
        if self.coding == Coding::Length(0) || self.body.is_end_stream() {
            self.end();
        }
        match (self.coding, self.stage) {
            (Coding::Chunked, Stage::Ended) => b"\r\n0\r\n\r\n",
            (Coding::Chunked, _) => b"\r\n",
            _ => b"",
        }
    }

    /// The body has no more.
    fn end(&mut self) {
        self.stage = match self.coding {
            // It has said that more would come.
            Coding::Length(1..) => Stage::Cut,
            _ => Stage::Ended,
        };
    }
}

/// As `{:x}` writes it, but for the formatter, which every event would pass.
fn hexadecimal(number: usize, out: &mut Vec<u8>) {
    let digits = (usize::BITS - number.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        out.push(b"0123456789abcdef"[number >> (4 * place) & 15]);
    }
}
