//! Response bodies, and the answers the gateway gives itself.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use openai::{ErrorShape, error_body};
use picker::{OpenRecord, Refusal};

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
