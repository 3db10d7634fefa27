//! An answer's head.

use std::mem::MaybeUninit;

use bytes::{Buf as _, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version, header};
use httparse::{Header, ParserConfig, Status};

use crate::{Error, Malformed, body::Framing};

/// Longest head and longest trailers of an answer. vLLM's heads have some 200 bytes.
pub(crate) const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Headers of an answer.
const HEADERS_MAX: usize = 100;

/// An answer's head, and what it says of what follows.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) response: Response<()>,
    pub(crate) framing: Framing,
    /// The connection can carry another request after this answer.
    pub(crate) persists: bool,
}

/// Takes a head off the bytes, once all of it is there.
pub(crate) fn take(unread: &mut Bytes, method: &Method) -> Result<Option<Head>, Error> {
    let mut room = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let config = ParserConfig::default();
    let status = config.parse_response_with_uninit_headers(&mut parsed, unread, &mut room)?;
    let Status::Complete(len) = status else {
        return if unread.len() < HEAD_BYTES_MAX {
            Ok(None)
        } else {
            Err(Malformed::HeadTooLong.into())
        };
    };
    let mut response = Response::new(());
    let code = parsed.code.unwrap_or_default();
    *response.status_mut() = StatusCode::from_u16(code).map_err(|_| httparse::Error::Status)?;
    *response.version_mut() = match parsed.version {
        Some(0) => Version::HTTP_10,
        _ => Version::HTTP_11,
    };
    *response.headers_mut() = header_map(parsed.headers, unread)?;
    unread.advance(len);
    let (framing, persists) = follow(&mut response, method)?;
    Ok(Some(Head { response, framing, persists }))
}

/// Takes trailers off the bytes, once all of them are there.
pub(crate) fn take_trailers(unread: &mut Bytes) -> Result<Option<HeaderMap>, Error> {
    let mut room = [httparse::EMPTY_HEADER; HEADERS_MAX];
    match httparse::parse_headers(unread, &mut room)? {
        Status::Complete((len, headers)) if len <= HEAD_BYTES_MAX => {
            let trailers = header_map(headers, unread)?;
            if !ends_lines_plainly(unread.get(..len).unwrap_or_default()) {
                return Err(httparse::Error::NewLine.into());
            }
            unread.advance(len);
            Ok(Some(trailers))
        }
        Status::Partial if unread.len() < HEAD_BYTES_MAX => Ok(None),
        Status::Complete(_) | Status::Partial => Err(Malformed::TrailersTooLong.into()),
    }
}

/// Whether every line ends as it should: where one ends without CR, others may see no end.
pub(crate) fn ends_lines_plainly(lines: &[u8]) -> bool {
    lines.split_inclusive(|byte| *byte == b'\n').all(|line| line.ends_with(b"\r\n"))
}

/// The values share what was read.
pub(crate) fn header_map(headers: &[Header<'_>], read: &Bytes) -> Result<HeaderMap, Malformed> {
    let mut map = HeaderMap::with_capacity(headers.len());
    for header in headers {
        let name = HeaderName::from_bytes(header.name.as_bytes());
        let value = HeaderValue::from_maybe_shared(read.slice_ref(header.value));
        let (Ok(name), Ok(value)) = (name, value) else { return Err(Malformed::Header) };
        map.append(name, value);
    }
    Ok(map)
}

/// What follows a head (RFC 9112, 6.3), and whether the connection persists (9.3). The head then says
/// no more of lengths than is true.
fn follow(response: &mut Response<()>, method: &Method) -> Result<(Framing, bool), Malformed> {
    let (version, status) = (response.version(), response.status());
    let headers = response.headers_mut();
    let (chunked, mut persists) = coding(version, headers)?;
    // An answer may have been put together on its way.
    let length = length(headers, true)?;
    if let Some(length) = length {
        // Once, though it may have been sent as a list.
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    let framing = match length {
        _ if is_bodiless(method, status) => Framing::Length(0),
        _ if chunked => Framing::ChunkSize,
        Some(length) => Framing::Length(length),
        None => {
            persists = false;
            Framing::UntilClose
        }
    };
    Ok((framing, persists))
}

/// Whether an answer to this method has no body, whatever its head says (RFC 9110, 6.4.1).
pub fn is_bodiless(method: &Method, status: StatusCode) -> bool {
    method == Method::HEAD
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Whether what follows comes in chunks, and whether the connection persists behind it. The head then
/// has one length at most.
pub(crate) fn coding(version: Version, headers: &mut HeaderMap) -> Result<(bool, bool), Malformed> {
    let mut persists = persists(version, headers);
    let chunked = is_chunked(headers)?;
    if chunked {
        if version == Version::HTTP_10 {
            return Err(Malformed::Coding);
        }
        // Who sends both lengths may mean to deceive somebody on the way.
        persists &= headers.remove(header::CONTENT_LENGTH).is_none();
    }
    Ok((chunked, persists))
}

fn persists(version: Version, headers: &HeaderMap) -> bool {
    let has = |wanted: &[u8]| {
        let values = headers.get_all(header::CONNECTION).iter();
        let mut options = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        options.any(|option| option.trim_ascii().eq_ignore_ascii_case(wanted))
    };
    match version {
        Version::HTTP_10 => has(b"keep-alive") && !has(b"close"),
        _ => !has(b"close"),
    }
}

fn is_chunked(headers: &HeaderMap) -> Result<bool, Malformed> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(false) };
    let plainly = coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
    if plainly && codings.next().is_none() { Ok(true) } else { Err(Malformed::Coding) }
}

/// The one length all say: each for itself, or in a list, should that be allowed.
pub(crate) fn length(headers: &HeaderMap, in_list: bool) -> Result<Option<u64>, Malformed> {
    let mut length = None;
    let values = headers.get_all(header::CONTENT_LENGTH).iter();
    let parts = |byte: &u8| in_list && *byte == b',';
    for said in values.flat_map(|value| value.as_bytes().split(parts)) {
        let said = said.trim_ascii();
        let digits = said.iter().all(u8::is_ascii_digit);
        let said = std::str::from_utf8(said).ok().filter(|_| digits);
        let said = said.and_then(|text| text.parse().ok()).ok_or(Malformed::Length)?;
        if length.is_some_and(|length| length != said) {
            return Err(Malformed::Length);
        }
        length = Some(said);
    }
    Ok(length)
}
