//! A request's head, and what it says of the body to come.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri, Version, header, request::Parts};
use httparse::{Header, Status};

use crate::{
    Malformed,
    body::Framing,
    head::{coding, header_map, length},
};

/// So many headers are read without making room for them first.
const USUAL_HEADERS_MAX: usize = 100;
/// Longest target: what the type for it can hold.
const TARGET_BYTES_MAX: usize = u16::MAX as usize - 1;

/// How much of a head is read.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    pub bytes_max: usize,
    /// Fewer than 100 are taken for 100.
    pub headers_max: usize,
}

/// Why a request's head cannot be read. What follows it cannot, either.
#[derive(Debug, thiserror::Error)]
pub enum BadHead {
    #[error("the head makes no sense: {0}")]
    Malformed(#[from] Malformed),
    #[error("the head is longer, or has more headers, than is read")]
    TooLarge,
    #[error("the target has more than {TARGET_BYTES_MAX} bytes")]
    TargetTooLong,
}

impl From<httparse::Error> for BadHead {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::TooManyHeaders => Self::TooLarge,
            error => Self::Malformed(error.into()),
        }
    }
}

/// A request's head, and what it says of what follows.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) parts: Parts,
    pub(super) framing: Framing,
    /// Its sender waits to be told to go on with the body.
    pub(super) expects: bool,
    /// Another request may follow.
    pub(super) persists: bool,
}

/// Takes a head off the bytes, once all of it is there.
pub(super) fn take(unread: &mut Bytes, limits: HeadLimits) -> Result<Option<Head>, BadHead> {
    let mut room = [const { MaybeUninit::uninit() }; USUAL_HEADERS_MAX];
    let parsed = match parse(unread, &mut room) {
        Err(BadHead::TooLarge) if limits.headers_max > USUAL_HEADERS_MAX => {
            parse(unread, &mut vec![MaybeUninit::uninit(); limits.headers_max])?
        }
        parsed => parsed?,
    };
    let Some((parts, len)) = parsed.filter(|(_, len)| *len <= limits.bytes_max) else {
        return if unread.len() > limits.bytes_max { Err(BadHead::TooLarge) } else { Ok(None) };
    };
    // Of what is empty then, nothing is kept.
    drop(unread.split_to(len));
    Ok(Some(follow(parts)?))
}

/// Whether a head may have ended at or behind this place: an empty line did.
pub(super) fn may_end(unread: &[u8], from: usize) -> bool {
    let seen = unread.get(from.saturating_sub(2)..).unwrap_or_default();
    let mut lines = seen.split(|byte| *byte == b'\n');
    lines.next();
    // What follows the last line's end is no line yet.
    lines.next_back();
    lines.any(|line| matches!(line, [] | [b'\r']))
}

fn parse<'a>(
    unread: &'a Bytes,
    room: &mut [MaybeUninit<Header<'a>>],
) -> Result<Option<(Parts, usize)>, BadHead> {
    let mut parsed = httparse::Request::new(&mut []);
    let status = parsed.parse_with_uninit_headers(unread, room)?;
    let Status::Complete(len) = status else { return Ok(None) };
    let target = parsed.path.unwrap_or_default();
    if target.len() > TARGET_BYTES_MAX {
        return Err(BadHead::TargetTooLong);
    }
    let (mut parts, ()) = Request::new(()).into_parts();
    let method = parsed.method.unwrap_or_default();
    parts.method = Method::from_bytes(method.as_bytes()).map_err(|_| httparse::Error::Token)?;
    let target = Uri::from_maybe_shared(unread.slice_ref(target.as_bytes()));
    parts.uri = target.map_err(|_| Malformed::Target)?;
    parts.version = match parsed.version {
        Some(0) => Version::HTTP_10,
        _ => Version::HTTP_11,
    };
    parts.headers = header_map(parsed.headers, unread)?;
    Ok(Some((parts, len)))
}

/// What follows a head (RFC 9112, 6.3), and whether the connection persists (9.3).
fn follow(mut parts: Parts) -> Result<Head, Malformed> {
    let (version, headers) = (parts.version, &mut parts.headers);
    let (chunked, persists) = coding(version, headers)?;
    let framing = match length(headers, false)? {
        _ if chunked => Framing::ChunkSize,
        length => Framing::Length(length.unwrap_or(0)),
    };
    let expects = version == Version::HTTP_11 && !framing.is_ended() && waits(headers);
    Ok(Head { parts, framing, expects, persists })
}

fn waits(headers: &HeaderMap) -> bool {
    let expected = headers.get(header::EXPECT);
    expected.is_some_and(|expected| expected.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}
