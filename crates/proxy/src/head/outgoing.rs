//! The request as it is sent on.
//!
//! For HTTP/1.1 its head is written as it goes over the wire: what most endpoints speak needs no map
//! of headers in between.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header, uri::PathAndQuery,
};
use http_body_util::Full;
use openai::Operation;
use tokio::time::Instant;

use super::{Head, TRACEPARENT, TRACESTATE, X_FORWARDED_FOR, X_FORWARDED_PROTO, X_REQUEST_ID};
use crate::{access_log::ip, explain::X_TOKENWEIR_EXPLAIN, load};

/// Longest address as text, in bytes.
const ADDRESS_BYTES_MAX: usize = 48;
/// Room for a usual head: it is made larger where it has to be.
const HEAD_BYTES: usize = 1024;

/// A request on its way to one endpoint.
#[derive(Debug)]
pub(crate) struct Outgoing<'a> {
    pub(crate) head: &'a Head,
    pub(crate) body: &'a Bytes,
    /// The endpoint is to tell its load along with the answer.
    pub(crate) asks_load: bool,
    /// When there was a connection to send it on, for its span, if it gets one.
    pub(crate) connected: Option<Instant>,
}

impl Outgoing<'_> {
    pub(crate) fn note_connected(&mut self) {
        self.connected = self.head.trace.as_ref().map(|_| Instant::now());
    }

    /// The head as bytes, up to the body.
    pub(crate) fn http1(&self) -> Vec<u8> {
        let parts = &self.head.parts;
        let mut out = Vec::with_capacity(HEAD_BYTES);
        let target = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        for piece in [parts.method.as_str(), " ", target, " HTTP/1.1\r\n"] {
            out.extend_from_slice(piece.as_bytes());
        }
        let mut line = |name: &HeaderName, value: &[u8]| {
            for piece in [name.as_str().as_bytes(), b": ", value, b"\r\n"] {
                out.extend_from_slice(piece);
            }
        };
        line(&header::HOST, self.head.authority_bytes());
        // HTTP/2 cuts cookies into fields as it likes; HTTP/1.1 has one for all (RFC 9113, 8.2.3).
        let mut cookies = Vec::new();
        self.lines(|name, value| {
            if *name != header::COOKIE {
                return line(name, value);
            }
            if !cookies.is_empty() {
                cookies.extend_from_slice(b"; ");
            }
            cookies.extend_from_slice(value);
        });
        if !cookies.is_empty() {
            line(&header::COOKIE, &cookies);
        }
        let usually_has_body = [Method::POST, Method::PUT, Method::PATCH].contains(&parts.method);
        if usually_has_body || !self.body.is_empty() {
            line(&header::CONTENT_LENGTH, itoa::Buffer::new().format(self.body.len()).as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        out
    }

    pub(crate) fn http2(&self) -> Request<Full<Bytes>> {
        let Head { parts, authority, peer, .. } = self.head;
        let mut headers = HeaderMap::with_capacity(parts.headers.len() + 4);
        self.lines(|name, value| {
            if let Ok(value) = HeaderValue::from_bytes(value) {
                headers.append(name, value);
            }
        });
        let mut uri = http::uri::Parts::default();
        uri.path_and_query = parts.uri.path_and_query().cloned();
        uri.scheme = Some(http::uri::Scheme::HTTP);
        // A client that names no host means the address it has connected to.
        let authority = authority.parse().or_else(|_| peer.local.to_string().parse());
        uri.authority = authority.ok();
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = headers;
        request
    }

    /// Every header but host and length, which each version says in its own way.
    fn lines(&self, mut line: impl FnMut(&HeaderName, &[u8])) {
        let head = self.head;
        let headers = &head.parts.headers;
        let named = connection_options(headers);
        // A compressed answer could not be counted; vLLM never compresses.
        let counted = head.operation != Operation::Other;
        let mut says_proto = false;
        for (name, value) in headers {
            let dropped = is_hop_by_hop(name)
                || self.says_itself(name)
                || (counted && name == header::ACCEPT_ENCODING)
                || named.contains(name);
            if !dropped {
                says_proto |= name == X_FORWARDED_PROTO;
                line(name, value.as_bytes());
            }
        }
        line(&X_REQUEST_ID, head.request_id.as_bytes());
        line(&X_FORWARDED_FOR, &self.forwarded_for());
        if !says_proto {
            line(&X_FORWARDED_PROTO, b"http");
        }
        if let Some(trace) = &head.trace {
            line(&TRACEPARENT, trace.traceparent().as_bytes());
        }
        if self.asks_load {
            let (name, value) = load::ASKING;
            line(&name, value.as_bytes());
        }
    }

    /// What the gateway says in the client's place, or keeps to itself.
    fn says_itself(&self, name: &HeaderName) -> bool {
        if *name == TRACEPARENT || *name == TRACESTATE {
            // The request's span is the endpoint's parent. The client's state goes with it if its
            // trace does.
            let trace = self.head.trace.as_ref();
            return trace.is_some_and(|trace| *name == TRACEPARENT || trace.parent_id.is_none());
        }
        *name == header::HOST
            || *name == header::CONTENT_LENGTH
            || *name == header::EXPECT
            || *name == X_REQUEST_ID
            || *name == X_FORWARDED_FOR
            || *name == X_TOKENWEIR_EXPLAIN
            || (self.asks_load && *name == load::ASKING.0)
    }

    /// Every line the client sent, and the client itself.
    fn forwarded_for(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(ADDRESS_BYTES_MAX);
        for before in self.head.parts.headers.get_all(X_FORWARDED_FOR) {
            all.extend_from_slice(before.as_bytes());
            all.push(b',');
        }
        ip(self.head.peer.remote.ip(), &mut all);
        all
    }
}

/// Removes what concerns one connection only: RFC 9110, 7.6.1, and what `Connection` names.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let mut found = connection_options(headers);
    found.extend(headers.keys().filter(|name| is_hop_by_hop(name)).cloned());
    for name in &found {
        headers.remove(name);
    }
}

/// The headers that `Connection` says concern this connection only.
fn connection_options(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(header::CONNECTION).iter();
    let options = values.filter_map(|value| value.to_str().ok());
    let options = options.flat_map(|value| value.split(','));
    options.filter_map(|option| option.trim().parse().ok()).collect()
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}
