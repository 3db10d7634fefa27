//! Why the gateway itself answers a request, and how that reads on the wire.

use std::time::Duration;

/// The gateway's own answers: one table of status, reason and blame.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    #[error("{0}")]
    InvalidBody(String),
    #[error("the request body is larger than {limit_bytes} bytes; send a shorter prompt")]
    BodyTooLarge { limit_bytes: usize },
    #[error("the request headers are larger than the gateway takes; send fewer or shorter headers")]
    HeadersTooLarge,
    #[error("the request's path is longer than the gateway takes; send a shorter one")]
    PathTooLong,
    #[error("this is no HTTP/1.1 request, or its head is broken; check what sends it")]
    MalformedHead,
    #[error("the request's head did not arrive within {0:?}; send it without pauses")]
    HeaderTimeout(Duration),
    #[error(
        "the gateway has no connection to give; retry shortly, and raise its limit of open files"
    )]
    Exhausted,
    #[error("the gateway has as many connections as it may; retry shortly")]
    TooManyConnections,
    #[error(
        "the request's target is neither a path nor a URI; send a path that begins with a slash"
    )]
    InvalidTarget,
    #[error(
        "the request names no host, several, or what is none; send one Host header, with a name and no more than a port"
    )]
    InvalidHost,
    #[error("too many large request bodies are on their way; retry shortly")]
    Overloaded,
    #[error("the request body did not arrive within {0:?}; send it without pauses")]
    BodyTimeout(Duration),
    #[error(
        "no route for host {host:?} and path {path:?}; check the Host header and the routes' hosts"
    )]
    NoRoute { host: String, path: String },
    #[error("{pool} has no ready endpoint; retry shortly, and check its endpoints' /health")]
    NoEndpoints { pool: String },
    #[error(
        "every endpoint of {pool} is saturated, and a request of this priority does not wait; retry later"
    )]
    Shed { pool: String, retry_after: Duration },
    #[error("as many requests wait for {pool} as may; retry later")]
    QueueFull { pool: String, retry_after: Duration },
    #[error("no endpoint of {pool} was free within {waited:?}; retry later")]
    QueueTimeout { pool: String, waited: Duration, retry_after: Duration },
    #[error("the route leads to {pool}, which does not exist; create it or correct the route")]
    PoolNotFound { pool: String },
    #[error("none of {tried} endpoint(s) tried could be connected to; retry shortly")]
    Unreachable { tried: u32 },
    #[error("the endpoint closed the connection before it answered; retry the request")]
    Reset,
    #[error("the endpoint sent no first token in time; retry the request")]
    FirstTokenTimeout,
    #[error("the endpoint fell silent; retry the request")]
    IdleTimeout,
    #[error("the request's timeout of {0:?} ran out before the endpoint answered")]
    RouteTimeout(Duration),
    #[error("the gateway is shutting down; retry on a new connection")]
    Draining,
    #[error("the gateway failed on this request, which is a bug; retry, and report it")]
    Panicked,
}

/// Who a failure is held against.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    Client,
    Gateway,
    Endpoint,
}

/// How a refusal reads on the wire and in the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Wire {
    pub status: u16,
    /// Value of `x-tokenweir-reason`.
    pub reason: &'static str,
    pub fault: Fault,
    /// Envoy's response flag.
    pub flag: &'static str,
    /// Seconds for `Retry-After`.
    pub retry_after: Option<u32>,
}

impl Refusal {
    /// The one table from refusals to HTTP.
    pub fn wire(&self) -> Wire {
        let (status, reason, fault, flag) = match self {
            Self::InvalidBody(_) => (400, "invalid_body", Fault::Client, "-"),
            Self::BodyTooLarge { .. } => (413, "too_large", Fault::Client, "-"),
            Self::HeadersTooLarge => (431, "too_large", Fault::Client, "-"),
            Self::PathTooLong => (414, "too_large", Fault::Client, "-"),
            Self::MalformedHead | Self::InvalidTarget => {
                (400, "malformed_head", Fault::Client, "DPE")
            }
            Self::HeaderTimeout(_) => (408, "header_timeout", Fault::Client, "-"),
            Self::InvalidHost => (400, "invalid_host", Fault::Client, "-"),
            Self::Overloaded | Self::Exhausted | Self::TooManyConnections => {
                (503, "overloaded", Fault::Gateway, "UO")
            }
            Self::BodyTimeout(_) => (408, "body_timeout", Fault::Client, "-"),
            Self::NoRoute { .. } => (404, "no_route", Fault::Client, "NR"),
            Self::NoEndpoints { .. } | Self::PoolNotFound { .. } => {
                (503, "no_endpoints", Fault::Gateway, "UH")
            }
            Self::Shed { .. } => (429, "shed", Fault::Gateway, "UO"),
            Self::QueueFull { .. } => (429, "queue_full", Fault::Gateway, "UO"),
            Self::QueueTimeout { .. } => (503, "queue_timeout", Fault::Gateway, "UO"),
            Self::Unreachable { .. } => (502, "unreachable", Fault::Endpoint, "UF"),
            Self::Reset => (502, "reset", Fault::Endpoint, "UC"),
            Self::FirstTokenTimeout => (504, "first_token_timeout", Fault::Endpoint, "UT"),
            Self::IdleTimeout => (504, "idle_timeout", Fault::Endpoint, "UT"),
            Self::RouteTimeout(_) => (504, "route_timeout", Fault::Endpoint, "UT"),
            Self::Draining => (503, "draining", Fault::Gateway, "-"),
            Self::Panicked => (500, "panicked", Fault::Gateway, "-"),
        };
        let retry_after = match self {
            Self::NoEndpoints { .. }
            | Self::PoolNotFound { .. }
            | Self::Overloaded
            | Self::Exhausted
            | Self::TooManyConnections => Some(1),
            Self::Shed { retry_after, .. }
            | Self::QueueFull { retry_after, .. }
            | Self::QueueTimeout { retry_after, .. } => Some(whole_seconds(*retry_after)),
            _ => None,
        };
        Wire { status, reason, fault, flag, retry_after }
    }
}

/// What `Retry-After` can say: whole seconds, and never that now is a good time.
fn whole_seconds(time: Duration) -> u32 {
    let up = u64::from(time.subsec_nanos() > 0);
    u32::try_from(time.as_secs().saturating_add(up)).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests;
