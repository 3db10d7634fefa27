//! A request's head: what routing and the log want of it.
//!
//! - `outgoing`: the head that is sent on

use std::net::SocketAddr;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header,
    request::Parts,
    uri::{Authority, PathAndQuery},
};
use openai::Operation;
use picker::{
    RECORD_TEXT_BYTES_MAX, Refusal, RequestRecord, RequestTrace, RouteQuery, Sampling, TraceContext,
};
use scheduling::hash_bytes;

use crate::Limits;

mod outgoing;

pub(crate) use outgoing::{Outgoing, remove_hop_by_hop};

/// The request's name in logs, ours and the endpoint's.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Name of an InferenceObjective: as the Endpoint Picker called it, and as llm-d does.
static OBJECTIVE: [HeaderName; 2] = [
    HeaderName::from_static("x-gateway-inference-objective"),
    HeaderName::from_static("x-llm-d-inference-objective"),
];
/// Whose a request is, likewise.
static FAIRNESS_ID: [HeaderName; 2] = [
    HeaderName::from_static("x-gateway-inference-fairness-id"),
    HeaderName::from_static("x-llm-d-inference-fairness-id"),
];
/// Where Anthropic's clients have their key.
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Longest request id taken from a client, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Who sent a request, and to which of our addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) remote: SocketAddr,
    pub(crate) local: SocketAddr,
    /// The Gateway's port, by which routes are found.
    pub(crate) port: u16,
}

/// A request's head and what was read from it once.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) parts: Parts,
    pub(crate) peer: Peer,
    pub(crate) operation: Operation,
    pub(crate) request_id: HeaderValue,
    /// Its span, where traces are exported; elsewhere what the client says of traces is passed on as it is.
    pub(crate) trace: Option<Box<TraceContext>>,
    authority: String,
    host: String,
    /// The path for routes, where it is not as the client wrote it.
    plain_path: Option<String>,
    /// How long its headers' names are, one bit each: many are looked for that few requests have.
    name_lengths: u64,
}

impl Head {
    pub(crate) fn new(mut parts: Parts, peer: Peer, traces: Option<Sampling>) -> Self {
        add_path(&mut parts);
        let operation = Operation::of(parts.method.as_str(), parts.uri.path());
        let authority = authority(&parts);
        let host = host(&authority);
        let request_id = request_id(&parts.headers);
        let trace = traces.map(|sampling| Box::new(trace(&parts.headers, sampling)));
        let plain_path = unescaped(parts.uri.path());
        let lengths = parts.headers.keys().map(length_bit);
        let name_lengths = lengths.fold(0, |all, length| all | length);
        Self {
            parts,
            peer,
            operation,
            request_id,
            trace,
            authority,
            host,
            plain_path,
            name_lengths,
        }
    }

    pub(crate) fn check(&self, limits: &Limits) -> Result<(), Refusal> {
        let headers = &self.parts.headers;
        let bytes: usize = headers.iter().map(|(k, v)| k.as_str().len() + v.len()).sum();
        let bytes = bytes + self.parts.uri.path_and_query().map_or(0, |p| p.as_str().len());
        if headers.len() > limits.headers_max || bytes > limits.header_bytes_max {
            return Err(Refusal::HeadersTooLarge);
        }
        if !self.asks_for_path() {
            return Err(Refusal::InvalidTarget);
        }
        if !self.names_host() {
            return Err(Refusal::InvalidHost);
        }
        if self.parts.method == Method::CONNECT {
            // A tunnel is no inference request, whatever its route.
            let host = self.host.clone();
            return Err(Refusal::NoRoute { host, path: "CONNECT".to_owned() });
        }
        Ok(())
    }

    /// A path, or `*` for the server as a whole. Nothing but CONNECT names only a host.
    fn asks_for_path(&self) -> bool {
        let Parts { method, uri, .. } = &self.parts;
        let target = uri.path_and_query().map_or("", PathAndQuery::as_str);
        target.starts_with('/')
            || (target == "*" && method == Method::OPTIONS)
            || method == Method::CONNECT
    }

    /// One host, which the target may name in the header's place; the header has to be well formed all the same.
    fn names_host(&self) -> bool {
        let Parts { uri, version, headers, .. } = &self.parts;
        let mut hosts = headers.get_all(header::HOST).iter();
        let unused = hosts.next().filter(|host| uri.authority().is_some() && !host.is_empty());
        let may_be_absent = *version != Version::HTTP_11;
        hosts.next().is_none()
            && unused.is_none_or(|host| is_host(&lossy(host)))
            && (is_host(&self.authority) || (may_be_absent && self.authority.is_empty()))
    }

    /// Whether sending it twice can do no harm, should the first sending have arrived.
    pub(crate) fn may_repeat(&self) -> bool {
        self.operation != Operation::Other || self.parts.method.is_idempotent()
    }

    /// Name of the objective the request is for.
    pub(crate) fn objective(&self) -> Option<&str> {
        OBJECTIVE.iter().find_map(|name| self.said(name)).and_then(|name| name.to_str().ok())
    }

    /// Whose the request is: who it says, else whoever has its key; 0 if it has none. Keys are
    /// hashed, for they are nobody's to read.
    pub(crate) fn flow(&self) -> u64 {
        let named = FAIRNESS_ID.iter().find_map(|name| self.said(name)).map(HeaderValue::as_bytes);
        let key = || {
            let bearer =
                self.said(&header::AUTHORIZATION).and_then(|value| bearer(value.as_bytes()));
            bearer.or_else(|| self.said(&X_API_KEY).map(HeaderValue::as_bytes))
        };
        // Different beginnings: nobody gets into another's flow by taking its key for a name.
        let flow = named.map(|name| hash_bytes(1, name)).or_else(|| Some(hash_bytes(2, key()?)));
        flow.map_or(0, |flow| flow.max(1))
    }

    /// The host as the client named it.
    fn authority_bytes(&self) -> &[u8] {
        match self.parts.uri.authority() {
            Some(_) => self.authority.as_bytes(),
            None => self.parts.headers.get(header::HOST).map_or(b"", HeaderValue::as_bytes),
        }
    }

    /// A header, unless it is empty.
    fn said(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.value(name).filter(|value| !value.is_empty())
    }

    /// A header, the first of several.
    pub(crate) fn value(&self, name: &HeaderName) -> Option<&HeaderValue> {
        let may_be_there = self.name_lengths & length_bit(name) != 0;
        may_be_there.then(|| self.parts.headers.get(name)).flatten()
    }

    pub(crate) fn record(&self) -> RequestRecord {
        let text = |name| self.value(name).map(|value| clipped(&lossy(value)));
        RequestRecord {
            method: self.parts.method.as_str().to_owned(),
            // Without the query: keys are sent there, too.
            path: clipped(self.parts.uri.path()),
            protocol: if self.parts.version == Version::HTTP_2 {
                "HTTP/2"
            } else if self.parts.version == Version::HTTP_10 {
                "HTTP/1.0"
            } else {
                "HTTP/1.1"
            },
            authority: clipped(&self.authority),
            user_agent: text(&header::USER_AGENT),
            x_forwarded_for: text(&X_FORWARDED_FOR),
            request_id: lossy(&self.request_id),
            trace: self.trace.as_deref().map(|context| {
                let context = context.clone();
                Box::new(RequestTrace { context, queued: None, connected: None })
            }),
            ..RequestRecord::new(self.peer.remote, self.peer.local)
        }
    }
}

impl RouteQuery for Head {
    fn port(&self) -> u16 {
        self.peer.port
    }

    fn host(&self) -> &str {
        &self.host
    }

    fn path(&self) -> &str {
        self.plain_path.as_deref().unwrap_or_else(|| self.parts.uri.path())
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.parts.headers.get(name)?.to_str().ok()
    }
}

fn length_bit(name: &HeaderName) -> u64 {
    1 << (name.as_str().len() % 64)
}

/// A URI may go from its host to its query: its path is `/` then. HTTP/2 sends paths alone, and none is without one.
fn add_path(parts: &mut Parts) {
    let target = parts.uri.path_and_query().map_or("", PathAndQuery::as_str);
    if !target.starts_with('?') || parts.version == Version::HTTP_2 {
        return;
    }
    let path = format!("/{target}").parse().ok();
    let mut uri = parts.uri.clone().into_parts();
    uri.path_and_query = path;
    if let Ok(uri) = Uri::from_parts(uri) {
        parts.uri = uri;
    }
}

/// The path with nothing escaped that need not be, if it has escapes: RFC 3986, 6.2.2.2.
fn unescaped(path: &str) -> Option<String> {
    let (before, mut rest) = path.split_once('%')?;
    let mut plain = before.to_owned();
    loop {
        let escaped = rest.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let needless = escaped.map(char::from).filter(|character| {
            character.is_ascii_alphanumeric() || ['-', '.', '_', '~'].contains(character)
        });
        plain.push(needless.unwrap_or('%'));
        rest = rest.get(needless.map_or(0, |_| 2)..).unwrap_or_default();
        let Some((before, after)) = rest.split_once('%') else { break };
        plain.push_str(before);
        rest = after;
    }
    plain.push_str(rest);
    Some(plain)
}

/// A name or an address, with a port or without: RFC 9110, 7.2.
fn is_host(text: &str) -> bool {
    let Ok(authority) = text.parse::<Authority>() else { return false };
    let host = authority.host();
    // With a user it does not begin with the host.
    let port = text.strip_prefix(host).map(|rest| rest.strip_prefix(':').unwrap_or(rest));
    let is_number = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    !host.is_empty() && port.is_some_and(is_number)
}

fn authority(parts: &Parts) -> String {
    let from_uri = parts.uri.authority().map(|authority| {
        let text = authority.as_str();
        text.rsplit_once('@').map_or(text, |(_userinfo, host)| host).to_owned()
    });
    from_uri.or_else(|| parts.headers.get(header::HOST).map(lossy)).unwrap_or_default()
}

/// The host without port and trailing dot, lower case.
fn host(authority: &str) -> String {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        Some(_) | None => authority,
    };
    host.trim_end_matches('.').to_ascii_lowercase()
}

fn request_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(X_REQUEST_ID).filter(|id| {
        let bytes = id.as_bytes();
        !bytes.is_empty()
            && bytes.len() <= REQUEST_ID_BYTES_MAX
            && bytes.iter().all(u8::is_ascii_graphic)
    });
    given.cloned().unwrap_or_else(new_request_id)
}

pub(crate) fn new_request_id() -> HeaderValue {
    let id = uuid::Uuid::new_v4().hyphenated();
    HeaderValue::from_str(id.encode_lower(&mut uuid::Uuid::encode_buffer()))
        .unwrap_or(HeaderValue::from_static("-"))
}

/// The request's span: under the client's, if it names one and only one.
fn trace(headers: &HeaderMap, sampling: Sampling) -> TraceContext {
    let mut parents = headers.get_all(TRACEPARENT).iter();
    let parent = parents.next().filter(|_| parents.next().is_none());
    let states = headers.get_all(TRACESTATE).iter().filter_map(|state| state.to_str().ok());
    let state = states.collect::<Vec<_>>().join(",");
    TraceContext::begin(
        parent.and_then(|parent| parent.to_str().ok()),
        Some(&*state).filter(|state| !state.is_empty()),
        sampling,
        (fastrand::u128(..), fastrand::u64(..)),
    )
}

/// The token of an `Authorization` header.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then(|| token.trim_ascii())
        .filter(|token| !token.is_empty())
}

fn lossy(value: &HeaderValue) -> String {
    // Nearly all are plain, which is quickly seen.
    let plain = value.to_str().map(str::to_owned);
    plain.unwrap_or_else(|_| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// Text for a record, bounded.
fn clipped(text: &str) -> String {
    let end = text.floor_char_boundary(RECORD_TEXT_BYTES_MAX);
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
