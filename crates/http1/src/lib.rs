//! HTTP/1.1 as a gateway speaks it, towards endpoints and with clients, over connections that have no
//! task of their own and keep no memory while nothing comes.
//!
//! A gateway holds two connections for every answer under way, and scrapes thousands of endpoints once
//! a second. What a connection keeps for itself is paid that often; see
//! [ADR 15](../../../docs/adr/0015-http1-to-endpoints.md) and
//! [ADR 16](../../../docs/adr/0016-http1-from-clients.md).
//!
//! - `connection`: [`Connection`], to an endpoint: one request and its answer at a time
//! - `downstream`: [`Downstream`], from a client: likewise
//! - `head`: an answer's head, and what it says of the body to come
//! - `body`: where a body's pieces and its end are in what was read
//! - `room`: where all of a thread read to
//!
//! Requests to endpoints are written as they are: whoever sends one has made its head. Nothing here
//! waits for longer than its caller does, and nothing retries.

mod body;
mod connection;
mod downstream;
mod head;
mod room;

pub use connection::Connection;
pub use downstream::{Answer, BadHead, Downstream, HeadLimits, Unfinished};
pub use head::is_bodiless;

use std::io;

/// Why there is no answer, or no more of a body. The connection is then fit for nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The peer has closed the connection before any byte of the request was sent.
    #[error("the connection was closed before the request was sent")]
    Unsent,
    /// The connection broke after the request was sent, and before any byte of its answer came.
    #[error("no byte of the answer came: {0}")]
    Unanswered(io::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer closed the connection before it had said all.
    #[error("the connection was closed early")]
    Closed,
    /// What the peer sent is no answer, or no body.
    #[error("what came makes no sense: {0}")]
    Malformed(#[from] Malformed),
}

/// What is wrong with a message.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    #[error(transparent)]
    Syntax(#[from] httparse::Error),
    #[error("its head has more than {} bytes", head::HEAD_BYTES_MAX)]
    HeadTooLong,
    #[error("a header's name or value is none")]
    Header,
    #[error("its target is none")]
    Target,
    #[error("it switches to another protocol unasked")]
    Upgrade,
    #[error("more than {} interim answers", connection::INTERIMS_MAX)]
    Interims,
    #[error("it has a transfer coding nobody asked for")]
    Coding,
    #[error("its length is no number, or two")]
    Length,
    #[error("a chunk's length is no number")]
    ChunkSize,
    #[error("the line with a chunk's length has more than {} bytes", body::SIZE_LINE_BYTES_MAX)]
    ChunkSizeTooLong,
    #[error("a chunk is longer than it says")]
    ChunkEnd,
    #[error("its trailers have more than {} bytes", head::HEAD_BYTES_MAX)]
    TrailersTooLong,
}

impl From<httparse::Error> for Error {
    fn from(error: httparse::Error) -> Self {
        Self::Malformed(error.into())
    }
}
