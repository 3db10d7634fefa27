//! A request's body, as it comes.

use std::{error::Error as _, future::poll_fn, io, sync::Arc};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};

use super::Client;

/// The body of a request whose head has come.
#[derive(Debug)]
pub(crate) enum RequestBody {
    Http1(Arc<Client>),
    Http2(Incoming),
}

/// Why there is no more of a body.
#[derive(Debug)]
pub(crate) struct BrokenOff {
    pub(crate) why: String,
    /// Its client has left, and has not framed it badly.
    pub(crate) has_left: bool,
}

impl RequestBody {
    /// What is to come at least.
    pub(crate) fn left(&self) -> u64 {
        match self {
            Self::Http1(client) => client.lock().body_left().unwrap_or(0),
            Self::Http2(body) => body.size_hint().lower(),
        }
    }

    pub(crate) fn is_ended(&self) -> bool {
        match self {
            Self::Http1(client) => client.lock().is_body_ended(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    /// The next piece; `None` after the last. Dropping the future loses nothing.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>, BrokenOff> {
        let body = match self {
            Self::Http1(client) => {
                let piece = poll_fn(|context| client.lock().poll_body(context)).await;
                return Ok(piece.transpose()?);
            }
            Self::Http2(body) => body,
        };
        while let Some(frame) = body.frame().await {
            if let Ok(piece) = frame?.into_data() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }

    /// Reads more behind what there is, as much as there is room for if it can; how much it was, 0 at
    /// the end. Dropping the future loses nothing.
    pub(crate) async fn read_into(&mut self, body: &mut BytesMut) -> Result<usize, BrokenOff> {
        if let Self::Http1(client) = self {
            return Ok(poll_fn(|context| client.lock().poll_body_into(context, body)).await?);
        }
        let piece = self.piece().await?.unwrap_or_default();
        body.extend_from_slice(&piece);
        Ok(piece.len())
    }
}

impl From<http1::Error> for BrokenOff {
    fn from(error: http1::Error) -> Self {
        match error {
            http1::Error::Malformed(malformed) => {
                Self { why: malformed.to_string(), has_left: false }
            }
            error => Self { why: error.to_string(), has_left: true },
        }
    }
}

impl From<hyper::Error> for BrokenOff {
    fn from(error: hyper::Error) -> Self {
        let mut cause = error.source();
        let mut has_left = true;
        while let Some(inner) = cause {
            if let Some(io) = inner.downcast_ref::<io::Error>() {
                has_left =
                    !matches!(io.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData);
                break;
            }
            cause = inner.source();
        }
        Self { why: error.to_string(), has_left }
    }
}
