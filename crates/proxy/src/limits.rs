//! Every limit of the data plane that is not a pool's own, with its default.

use std::time::Duration;

/// How much the proxy takes, holds and waits.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Client connections open at once.
    pub connections_max: usize,
    /// A request's header names and values together.
    pub header_bytes_max: usize,
    pub headers_max: usize,
    /// What all requests' bodies may take together; small ones are not counted.
    pub bodies_bytes_max: usize,
    /// Time for a request's head to arrive, from its first byte on; for a connection's first head,
    /// from the connection on.
    pub header_read_timeout: Duration,
    /// Time for a request's body to arrive.
    pub body_read_timeout: Duration,
    /// How long a client connection may be without a request.
    pub connection_idle_timeout: Duration,
    /// How old a client connection becomes, less up to a tenth by chance: then it ends after the
    /// requests that it has.
    pub connection_age_max: Duration,
    /// How long a client may take nothing of an answer that is there for it.
    pub write_timeout: Duration,
    /// Concurrent streams of one HTTP/2 client connection.
    pub http2_streams_max: u32,
    pub connect_timeout: Duration,
    /// vLLM closes idle connections after 5 s; ours are given up before.
    pub upstream_idle_timeout: Duration,
    /// Idle connections kept for one endpoint.
    pub upstream_idle_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 20_000,
            header_bytes_max: 64 * 1024,
            headers_max: 100,
            bodies_bytes_max: 1024 * 1024 * 1024,
            header_read_timeout: Duration::from_secs(30),
            body_read_timeout: Duration::from_mins(2),
            connection_idle_timeout: Duration::from_secs(75),
            connection_age_max: Duration::from_hours(1),
            write_timeout: Duration::from_mins(1),
            http2_streams_max: 256,
            connect_timeout: Duration::from_secs(2),
            upstream_idle_timeout: Duration::from_secs(4),
            upstream_idle_max: 256,
        }
    }
}
