//! vLLM's error answers: three shapes of body, one table of causes.

use http::StatusCode;
use serde_json::Value;

/// An answer that is an error.
#[derive(Debug)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) allow: Option<&'static str>,
    body: Body,
}

#[derive(Debug)]
enum Body {
    /// FastAPI's own.
    Detail(&'static str),
    /// vLLM's.
    Error { message: String, kind: &'static str, param: Option<String> },
}

/// Whose errors a path speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    OpenAi,
    Anthropic,
}

impl ApiError {
    fn detail(status: StatusCode, detail: &'static str) -> ApiError {
        ApiError { status, allow: None, body: Body::Detail(detail) }
    }

    fn error(
        status: StatusCode,
        kind: &'static str,
        param: Option<&str>,
        message: impl Into<String>,
    ) -> ApiError {
        let param = param.map(str::to_owned);
        ApiError { status, allow: None, body: Body::Error { message: message.into(), kind, param } }
    }

    pub(super) fn unknown_path() -> ApiError {
        ApiError::detail(StatusCode::NOT_FOUND, "Not Found")
    }

    pub(super) fn wrong_method(allow: &'static str) -> ApiError {
        let error = ApiError::detail(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
        ApiError { allow: Some(allow), ..error }
    }

    /// The body is not text.
    pub(super) fn not_utf8() -> ApiError {
        ApiError::detail(StatusCode::BAD_REQUEST, "There was an error parsing the body")
    }

    /// The body is longer than this server takes; vLLM takes any.
    pub(super) fn body_too_large() -> ApiError {
        ApiError::detail(StatusCode::PAYLOAD_TOO_LARGE, "Request body too large")
    }

    pub(super) fn content_type() -> ApiError {
        let message =
            "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed";
        ApiError::error(StatusCode::BAD_REQUEST, "Bad Request", None, message)
    }

    /// Pydantic's complaint about one place of the body.
    pub(super) fn validation(
        kind: &str,
        place: &str,
        text: &str,
        input: &str,
        more: &str,
    ) -> ApiError {
        let message = format!(
            "1 validation error:\n  {{'type': '{kind}', 'loc': '{place}', 'msg': '{text}', 'input': '{input}'{more}}}"
        );
        ApiError::error(StatusCode::BAD_REQUEST, "Bad Request", Some(place), message)
    }

    pub(super) fn missing(place: &str, input: &Value) -> ApiError {
        ApiError::validation("missing", place, "Field required", &python_repr(input), "")
    }

    /// A value that vLLM read but will not have.
    pub(super) fn parameter(name: &str, message: impl Into<String>) -> ApiError {
        ApiError::error(StatusCode::BAD_REQUEST, "BadRequestError", Some(name), message)
    }

    pub(super) fn bad_request(message: impl Into<String>) -> ApiError {
        ApiError::error(StatusCode::BAD_REQUEST, "BadRequestError", None, message)
    }

    pub(super) fn unknown_model(model: &str, base: &str) -> ApiError {
        let message = format!("The model `{model}` does not exist. Valid aliases: {base}.");
        ApiError::error(StatusCode::NOT_FOUND, "NotFoundError", Some("model"), message)
    }

    pub(super) fn adapter_loaded(name: &str) -> ApiError {
        let message = format!(
            "The lora adapter '{name}' has already been loaded. If you want to load the adapter in place, set \
             'load_inplace' to True."
        );
        ApiError::error(StatusCode::BAD_REQUEST, "InvalidUserInput", None, message)
    }

    pub(super) fn adapter_unknown(name: &str) -> ApiError {
        let message = format!("The lora adapter '{name}' cannot be found.");
        ApiError::error(StatusCode::NOT_FOUND, "NotFoundError", None, message)
    }

    pub(super) fn adapter_path(name: &str, path: &str) -> ApiError {
        let message = format!("Loading lora {name} failed: No adapter found for {path}");
        ApiError::error(StatusCode::NOT_FOUND, "NotFoundError", None, message)
    }

    /// The queue is at its maximum.
    pub(super) fn busy() -> ApiError {
        let message = "The engine is currently busy and cannot accept new requests. Please try again later or on a \
                       different instance.";
        ApiError::error(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable", None, message)
    }

    /// The engine's process is gone.
    pub(super) fn engine_dead() -> ApiError {
        ApiError::error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalServerError",
            None,
            "EngineCore encountered an issue. See stack trace (above) for the root cause.",
        )
    }

    /// The fleet has no server of this index.
    pub(super) fn no_server(index: &str, servers: usize) -> ApiError {
        let message = format!(
            "no server has the index {index:?}; there are 0 to {}",
            servers.saturating_sub(1)
        );
        ApiError::error(StatusCode::NOT_FOUND, "NotFoundError", None, message)
    }

    /// What a test asked for.
    pub(super) fn injected(status: StatusCode) -> ApiError {
        let kind = status.canonical_reason().unwrap_or("Error");
        ApiError::error(status, kind, None, "injected fault")
    }

    /// The JSON to send.
    pub(super) fn body(&self, dialect: Dialect) -> String {
        match &self.body {
            Body::Detail(detail) => format!(r#"{{"detail":{}}}"#, quote(detail)),
            Body::Error { message, kind, .. } if dialect == Dialect::Anthropic => {
                let (kind, message) = (quote(kind), quote(message));
                format!(r#"{{"type":"error","error":{{"type":{kind},"message":{message}}}}}"#)
            }
            Body::Error { message, kind, param } => {
                let param = param.as_deref().map_or("null".to_owned(), quote);
                let (kind, message, code) = (quote(kind), quote(message), self.status.as_u16());
                format!(
                    r#"{{"error":{{"message":{message},"type":{kind},"param":{param},"code":{code}}}}}"#
                )
            }
        }
    }
}

/// A JSON string.
pub(super) fn quote(text: &str) -> String {
    Value::from(text).to_string()
}

/// A value as vLLM shows it in a complaint.
pub(super) fn python_repr(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Array(items) => format!("<list of {} items>", items.len()),
        Value::Object(fields) => format!("<dict of {} items>", fields.len()),
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
    }
}
