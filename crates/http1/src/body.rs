//! Where a body's pieces are, and where it ends.

use bytes::{Buf as _, Bytes};
use http_body::{Frame, SizeHint};
use httparse::Status;

use crate::{
    Error, Malformed,
    head::{ends_lines_plainly, take_trailers},
};

/// Longest line with a chunk's length.
pub(crate) const SIZE_LINE_BYTES_MAX: usize = 4 * 1024;

/// What comes next of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// So many bytes, which are the last.
    Length(u64),
    /// Bytes until the connection ends.
    UntilClose,
    /// The line with a chunk's length.
    ChunkSize,
    /// So much of a chunk, then its end.
    Chunk(u64),
    Trailers,
    /// Nothing: the body is whole.
    Ended,
}

/// What was found.
#[derive(Debug)]
pub(crate) enum Found {
    Frame(Frame<Bytes>),
    /// More has to be read first.
    Nothing,
    End,
}

impl Framing {
    pub(crate) fn is_ended(self) -> bool {
        matches!(self, Self::Length(0) | Self::Ended)
    }

    pub(crate) fn size_hint(self) -> SizeHint {
        match self {
            Self::Length(length) => SizeHint::with_exact(length),
            Self::Ended => SizeHint::with_exact(0),
            Self::UntilClose | Self::ChunkSize | Self::Chunk(_) | Self::Trailers => {
                SizeHint::default()
            }
        }
    }

    /// Takes the next piece off the bytes, as large as it is there.
    pub(crate) fn take(&mut self, unread: &mut Bytes) -> Result<Found, Error> {
        let found = self.find(unread)?;
        if unread.is_empty() {
            // What is empty would otherwise keep what it was a part of.
            *unread = Bytes::new();
        }
        Ok(found)
    }

    fn find(&mut self, unread: &mut Bytes) -> Result<Found, Error> {
        loop {
            match self {
                Self::Length(0) | Self::Ended => return Ok(Found::End),
                Self::Length(left) | Self::Chunk(left @ 1..) => {
                    let piece = piece(*left, unread);
                    *left -= piece.len() as u64;
                    return Ok(found(piece));
                }
                Self::UntilClose => return Ok(found(piece(u64::MAX, unread))),
                Self::ChunkSize => match chunk_size(unread)? {
                    None => return Ok(Found::Nothing),
                    Some(0) => *self = Self::Trailers,
                    Some(size) => *self = Self::Chunk(size),
                },
                Self::Chunk(0) => match unread.get(..2) {
                    Some(b"\r\n") => {
                        unread.advance(2);
                        *self = Self::ChunkSize;
                    }
                    None if unread.first().is_none_or(|first| *first == b'\r') => {
                        return Ok(Found::Nothing);
                    }
                    _ => return Err(Malformed::ChunkEnd.into()),
                },
                Self::Trailers => {
                    let Some(trailers) = take_trailers(unread)? else { return Ok(Found::Nothing) };
                    *self = Self::Ended;
                    if !trailers.is_empty() {
                        return Ok(Found::Frame(Frame::trailers(trailers)));
                    }
                }
            }
        }
    }

    /// The connection has ended, and all that was read is taken.
    pub(crate) fn close(&mut self) -> Result<(), Error> {
        match self {
            Self::UntilClose | Self::Length(0) | Self::Ended => {
                *self = Self::Ended;
                Ok(())
            }
            Self::Length(_) | Self::ChunkSize | Self::Chunk(_) | Self::Trailers => {
                Err(Error::Closed)
            }
        }
    }
}

/// What is there of so many bytes.
fn piece(left: u64, unread: &mut Bytes) -> Bytes {
    let here = usize::try_from(left).map_or(unread.len(), |left| left.min(unread.len()));
    unread.split_to(here)
}

fn found(piece: Bytes) -> Found {
    if piece.is_empty() { Found::Nothing } else { Found::Frame(Frame::data(piece)) }
}

fn chunk_size(unread: &mut Bytes) -> Result<Option<u64>, Malformed> {
    // A line without a digit would be read as 0, which ends the body.
    if unread.first().is_some_and(|first| !first.is_ascii_hexdigit()) {
        return Err(Malformed::ChunkSize);
    }
    // A parser of 16 digits would take more of them for too large a number.
    let zeros = unread.iter().take_while(|byte| **byte == b'0').count();
    let counts = unread.get(zeros).is_some_and(u8::is_ascii_hexdigit);
    unread.advance(if counts { zeros } else { zeros.saturating_sub(1) });
    match httparse::parse_chunk_size(unread) {
        Ok(Status::Complete((len, size))) => {
            if len > SIZE_LINE_BYTES_MAX {
                return Err(Malformed::ChunkSizeTooLong);
            }
            if !ends_lines_plainly(unread.get(..len).unwrap_or_default()) {
                return Err(Malformed::ChunkSize);
            }
            unread.advance(len);
            Ok(Some(size))
        }
        Ok(Status::Partial) if unread.len() < SIZE_LINE_BYTES_MAX => Ok(None),
        Ok(Status::Partial) => Err(Malformed::ChunkSizeTooLong),
        Err(_) => Err(Malformed::ChunkSize),
    }
}
