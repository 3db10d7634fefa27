//! Response bodies, and the answers the gateway gives itself.

use std::{
    cell::Cell,
    pin::Pin,
    task::{Context, Poll},
    time::SystemTime,
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use jiff::{Timestamp, fmt::rfc2822::DateTimePrinter};
use openai::{ErrorShape, error_body};
use picker::{OpenRecord, Refusal, wall_clock};

use crate::{
    explain::explain,
    head::X_REQUEST_ID,
    relay::{Cut, Relay},
};

const X_TOKENWEIR_REASON: HeaderName = HeaderName::from_static("x-tokenweir-reason");

/// The body of any response: the gateway's own, or an endpoint's on its way through.
#[derive(Debug)]
pub(crate) enum ReplyBody {
    Own(Full<Bytes>),
    Relay(Box<Relay>),
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match self.get_mut() {
            Self::Own(body) => Pin::new(body)
                .poll_frame(context)
                .map(|frame| frame.map(|frame| frame.map_err(|never| match never {}))),
            Self::Relay(relay) => Pin::new(&mut **relay).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(body) => body.is_end_stream(),
            Self::Relay(relay) => relay.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(body) => body.size_hint(),
            Self::Relay(relay) => relay.size_hint(),
        }
    }
}

/// Answers a request in the gateway's own name and writes its record.
pub(crate) fn refuse(
    refusal: &Refusal,
    shape: ErrorShape,
    request_id: &HeaderValue,
    record: &mut OpenRecord,
) -> Response<ReplyBody> {
    let wire = refusal.wire();
    let body = error_body(shape, wire.status, &refusal.to_string());
    let decision = record.get().and_then(|record| {
        record.refuse(refusal, body.len());
        record.decision.take()
    });
    drop(record.take());
    let mut response = Response::new(ReplyBody::Own(Full::new(body)));
    *response.status_mut() = StatusCode::from_u16(wire.status).unwrap_or_default();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(X_TOKENWEIR_REASON, HeaderValue::from_static(wire.reason));
    headers.insert(X_REQUEST_ID, request_id.clone());
    if let Some(decision) = decision {
        explain(headers, &decision);
    }
    if let Some(seconds) = wire.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    let ends_connection = matches!(
        refusal,
        Refusal::Draining
            | Refusal::BodyTooLarge { .. }
            | Refusal::BodyTimeout(_)
            // Where its body ends is in doubt.
            | Refusal::MalformedHead
            | Refusal::InvalidTarget
    );
    if ends_connection {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Bytes of a date: RFC 9110, 5.6.7.
const DATE_BYTES: usize = 29;

thread_local! {
    /// The last second that was asked for, and how it is written.
    static DATE: Cell<(i64, [u8; DATE_BYTES])> = const { Cell::new((i64::MIN, [0; DATE_BYTES])) };
}

/// Writes the time for the header `date`.
pub(crate) fn date(out: &mut Vec<u8>) {
    let now = wall_clock().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let (mut second, mut text) = DATE.get();
    if second != now {
        let said = Timestamp::from_second(now)
            .and_then(|now| DateTimePrinter::new().timestamp_to_rfc9110_string(&now));
        // A time beyond all calendars is told as the last one that was not.
        if let Some(said) = said.ok().and_then(|said| said.into_bytes().try_into().ok()) {
            (second, text) = (now, said);
            DATE.set((second, text));
        }
    }
    out.extend_from_slice(&text);
}
