//! Answers the gateway gives itself, in the shape the client's library expects, and errors it
//! recognises.

use bytes::Bytes;

use crate::answer::AnswerReader;
use crate::operation::Operation;

/// What vLLM says to every request after SIGTERM, while its `/health` is still 200.
const SHUTDOWN_MESSAGE: &str = "cannot schedule new futures after shutdown";

/// How an error looks on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorShape {
    /// `{"error":{"message","type","param","code"}}`
    OpenAi,
    /// `{"type":"error","error":{"type","message"}}`
    Anthropic,
}

/// The body of an error answer that the gateway gives itself.
pub fn error_body(shape: ErrorShape, status: u16, message: &str) -> Bytes {
    Bytes::from(error_json(shape, status, message))
}

/// A server-sent event with an error object: ends a cut stream visibly, for no client takes it for
/// a token.
pub fn error_event(shape: ErrorShape, status: u16, message: &str) -> Bytes {
    let json = error_json(shape, status, message);
    Bytes::from(match shape {
        ErrorShape::OpenAi => format!("data: {json}\n\n"),
        ErrorShape::Anthropic => format!("event: error\ndata: {json}\n\n"),
    })
}

/// Whether `body` is vLLM's answer (with status 500) while it shuts down: the request never ran,
/// and every other request sent there meets the same fate within milliseconds.
pub fn is_shutdown_error(body: &[u8]) -> bool {
    let mut reader = AnswerReader::new(Operation::Other);
    reader.push(body);
    let error = reader.answer().error.as_ref();
    error.is_some_and(|error| error.message.contains(SHUTDOWN_MESSAGE))
}

/// Whether `body` is vLLM's answer (with status 404) that it has no model or adapter of the name in the request. Another
/// server, where that adapter is loaded, may have it.
pub fn is_model_error(body: &[u8]) -> bool {
    let mut reader = AnswerReader::new(Operation::Other);
    reader.push(body);
    let error = reader.answer().error.as_ref();
    error.is_some_and(|error| {
        let name = error.message.strip_prefix("The model `");
        name.is_some_and(|name| name.contains("` does not exist"))
    })
}

/// Whether `body` has an error in a shape that vLLM gives it. What is not even found there, such as an unknown path, has none.
pub fn is_error(body: &[u8]) -> bool {
    let mut reader = AnswerReader::new(Operation::Other);
    reader.push(body);
    reader.answer().error.is_some()
}

fn error_json(shape: ErrorShape, status: u16, message: &str) -> String {
    let message = quoted(message);
    match shape {
        ErrorShape::OpenAi => {
            let kind = openai_type(status);
            format!(
                r#"{{"error":{{"message":{message},"type":"{kind}","param":null,"code":{status}}}}}"#
            )
        }
        ErrorShape::Anthropic => {
            let kind = anthropic_type(status);
            format!(r#"{{"type":"error","error":{{"type":"{kind}","message":{message}}}}}"#)
        }
    }
}

/// `text` as a JSON string.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn openai_type(status: u16) -> &'static str {
    match status {
        401 => "AuthenticationError",
        403 => "PermissionDeniedError",
        404 => "NotFoundError",
        408 => "RequestTimeoutError",
        413 | 414 | 431 => "RequestTooLargeError",
        429 => "RateLimitError",
        502 => "BadGatewayError",
        503 => "ServiceUnavailableError",
        504 => "GatewayTimeoutError",
        400..=499 => "BadRequestError",
        _ => "InternalServerError",
    }
}

fn anthropic_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 | 414 | 431 => "request_too_large",
        429 => "rate_limit_error",
        503 | 529 => "overloaded_error",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    }
}

#[cfg(test)]
mod tests;
