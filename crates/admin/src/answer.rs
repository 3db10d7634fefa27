//! Responses: text, JSON, and the refusals that say what to do instead.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::{Either, Full, channel::Channel};
use serde::Serialize;
use serde_json::json;

/// Whole, or to be continued for as long as there is news.
pub(crate) type Answer = Response<Either<Full<Bytes>, Channel<Bytes>>>;

/// For browsers: take the content for what it says it is, keep none of it, show it in no frame; run, load and ask nothing but
/// what is here, and make no code of text.
const HEADERS: [(HeaderName, HeaderValue); 3] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
             connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
             require-trusted-types-for 'script'",
        ),
    ),
];

pub(crate) fn of(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Either::Left(Full::new(body.into())));
    *answer.status_mut() = status;
    mark(&mut answer, content_type);
    answer
}

/// Server-sent events as the body brings them.
pub(crate) fn events(body: Channel<Bytes>) -> Answer {
    let mut answer = Response::new(Either::Right(body));
    mark(&mut answer, "text/event-stream");
    answer
}

fn mark(answer: &mut Answer, content_type: &'static str) {
    answer.headers_mut().extend(HEADERS);
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
}

pub(crate) fn text(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    of(status, "text/plain; charset=utf-8", text)
}

/// For people, too: spread over lines.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    json_of(status, serde_json::to_vec_pretty(value))
}

/// Long lists of numbers, which only programs read.
pub(crate) fn numbers(value: &impl Serialize) -> Answer {
    json_of(StatusCode::OK, serde_json::to_vec(value))
}

fn json_of(status: StatusCode, written: serde_json::Result<Vec<u8>>) -> Answer {
    match written {
        Ok(mut body) => {
            body.push(b'\n');
            of(status, "application/json", body)
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

pub(crate) fn refusal(status: StatusCode, message: &str) -> Answer {
    json(status, &json!({ "error": { "message": message, "code": status.as_u16() } }))
}

pub(crate) fn not_found(path: &str, paths: &[&str]) -> Answer {
    let message = format!("there is no {path:?} here");
    let status = StatusCode::NOT_FOUND;
    let error = json!({ "message": message, "code": status.as_u16() });
    json(status, &json!({ "error": error, "paths": paths }))
}

pub(crate) fn not_allowed(allow: &'static str) -> Answer {
    let message = format!("use {allow}");
    let mut answer = refusal(StatusCode::METHOD_NOT_ALLOWED, &message);
    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    answer
}
