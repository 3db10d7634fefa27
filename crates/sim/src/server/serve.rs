//! From a request to an answer: the table of paths and what stands behind each.

use std::future::pending;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderName, HeaderValue, SERVER, VARY,
};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::Value;

use super::admin;
use super::answer::Answer;
use super::ask::{Against, Ask, Operation, fields, parse};
use super::body::{Cut, Ending, EventStream, ReplyBody};
use super::errors::{ApiError, Dialect};
use super::exposition;
use super::fault::Fault;
use super::observe::{Handle, InFlight, Seen};
use super::{Shared, prompt, wall};
use crate::engine::{Rejected, RequestId};
use crate::tokens::{block_content, piece_texts};

/// Bytes of a request's body. vLLM has no bound; a 128k-token prompt is about half a megabyte.
const BODY_BYTES_MAX: usize = 32 << 20;
/// What a plain answer is.
const JSON: &str = "application/json";
/// The header that asks for the server's load, and the one that tells it.
const ORCA_FORMAT: &str = "endpoint-load-metrics-format";
const ORCA: HeaderName = HeaderName::from_static("endpoint-load-metrics");

#[derive(Clone, Copy, Debug)]
enum Route {
    Text(Operation),
    Models,
    Tokenize,
    CountTokens,
    Empty,
    Version,
    Load,
    Metrics,
    LoadAdapter,
    UnloadAdapter,
}

/// (path, method, what stands behind it)
const ROUTES: [(&str, &str, Route); 14] = [
    ("/v1/completions", "POST", Route::Text(Operation::Completions)),
    ("/v1/chat/completions", "POST", Route::Text(Operation::Chat)),
    ("/v1/responses", "POST", Route::Text(Operation::Responses)),
    ("/v1/messages", "POST", Route::Text(Operation::Messages)),
    ("/v1/messages/count_tokens", "POST", Route::CountTokens),
    ("/v1/models", "GET", Route::Models),
    ("/tokenize", "POST", Route::Tokenize),
    ("/health", "GET", Route::Empty),
    ("/ping", "GET", Route::Empty),
    ("/version", "GET", Route::Version),
    ("/load", "GET", Route::Load),
    ("/metrics", "GET", Route::Metrics),
    ("/v1/load_lora_adapter", "POST", Route::LoadAdapter),
    ("/v1/unload_lora_adapter", "POST", Route::UnloadAdapter),
];

/// Paths that vLLM leaves out of its HTTP metrics.
const UNCOUNTED: [&str; 5] = ["/metrics", "/health", "/load", "/ping", "/version"];

/// What an answer is made of besides date and server.
struct Reply {
    status: StatusCode,
    before_length: Option<(HeaderName, HeaderValue)>,
    content_type: Option<&'static str>,
    body: ReplyBody,
    length: Option<usize>,
}

impl Reply {
    fn whole(content_type: Option<&'static str>, body: impl Into<Bytes>) -> Reply {
        let body = body.into();
        Reply {
            status: StatusCode::OK,
            before_length: None,
            content_type,
            length: Some(body.len()),
            body: ReplyBody::whole(body),
        }
    }

    fn json(body: String) -> Reply {
        Reply::whole(Some(JSON), body)
    }

    fn error(error: &ApiError, dialect: Dialect) -> Reply {
        let allow = error.allow.map(|allow| (ALLOW, HeaderValue::from_static(allow)));
        let reply = Reply::json(error.body(dialect));
        Reply { status: error.status, before_length: allow, ..reply }
    }

    /// The headers in uvicorn's order.
    fn into_response(self) -> Response<ReplyBody> {
        let mut response = Response::new(self.body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if let Ok(date) = HeaderValue::try_from(wall::http_date(wall::since_epoch())) {
            headers.insert(DATE, date);
        }
        headers.insert(SERVER, HeaderValue::from_static("uvicorn"));
        if let Some((name, value)) = self.before_length {
            headers.insert(name, value);
        }
        if let Some(length) = self.length {
            headers.insert(CONTENT_LENGTH, length.into());
        }
        if let Some(content_type) = self.content_type {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        headers.insert(VARY, HeaderValue::from_static("Origin"));
        response
    }
}

/// Why there is no reply to give: an error, or an order to cut the connection.
enum Failure {
    Error(ApiError),
    Cut,
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Failure {
        Failure::Error(error)
    }
}

/// Goes along with a response whose connection ends with it: the fault to set then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Afterwards(pub(super) Fault);

/// Answers one request. Dropping the future takes the request out of the engine.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Cut> {
    let path = request.uri().path();
    if path == admin::PATH {
        return Ok(switch(shared, request).await);
    }
    let method = request.method().clone();
    let found = ROUTES.iter().find(|(known, _, _)| *known == path);
    let handler = found.map_or("none", |(known, _, _)| known);
    let dialect =
        if path.starts_with("/v1/messages") { Dialect::Anthropic } else { Dialect::OpenAi };
    let outcome = match found {
        None => Err(ApiError::unknown_path().into()),
        Some((_, allowed, _)) if *allowed != method.as_str() => {
            Err(ApiError::wrong_method(allowed).into())
        }
        Some((path, _, route)) => Box::pin(answer(shared, request, path, *route)).await,
    };
    let reply = match outcome {
        Ok(reply) => reply,
        Err(Failure::Error(error)) => Reply::error(&error, dialect),
        Err(Failure::Cut) => return Err(Cut),
    };
    if !UNCOUNTED.contains(&handler) {
        shared.watch.answered(handler, &method, reply.status);
    }
    Ok(reply.into_response())
}

/// The fault told or set. What would cut the answer off is left to the connection.
async fn switch(shared: &Arc<Shared>, request: Request<Incoming>) -> Response<ReplyBody> {
    match admin::answer(&Handle(Arc::clone(shared)), request).await {
        Err(error) => Reply::error(&error, Dialect::OpenAi).into_response(),
        Ok(told) if told.afterwards => {
            let mut response = Reply::json(told.json()).into_response();
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            response.extensions_mut().insert(Afterwards(told.fault));
            response
        }
        Ok(told) => Reply::json(told.json()).into_response(),
    }
}

async fn answer(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
    path: &str,
    route: Route,
) -> Result<Reply, Failure> {
    match route {
        Route::Text(operation) => text(shared, request, operation).await,
        Route::Models => {
            Ok(Reply::json(shared.models.list(wall::since_epoch(), || shared.fresh_id())))
        }
        Route::Tokenize => {
            let (_, body) = read(request).await?;
            Ok(tokenize(shared, &body)?)
        }
        Route::CountTokens => {
            let (_, body) = read(request).await?;
            Ok(count_tokens(shared, &body)?)
        }
        Route::Empty if path == "/health" && shared.watch.fault() == Fault::Unhealthy => {
            let reply = Reply::whole(None, "");
            Ok(Reply { status: StatusCode::SERVICE_UNAVAILABLE, ..reply })
        }
        Route::Empty => Ok(Reply::whole(None, "")),
        Route::Version => Ok(Reply::json(r#"{"version":"0.32.0"}"#.to_owned())),
        // vLLM counts only when asked to on its command line.
        Route::Load => Ok(Reply::json(r#"{"server_load":0}"#.to_owned())),
        Route::Metrics => metrics(shared).await,
        Route::LoadAdapter => {
            let (_, body) = read(request).await?;
            let value = parse(&body)?;
            let (name, path) = (required(&value, "lora_name")?, required(&value, "lora_path")?);
            shared.models.load(name, path)?;
            let done = format!("Success: LoRA adapter '{name}' added successfully.");
            Ok(Reply::whole(None, done))
        }
        Route::UnloadAdapter => {
            let (_, body) = read(request).await?;
            let value = parse(&body)?;
            let name = required(&value, "lora_name")?;
            shared.host.forget_adapter(shared.models.unload(name)?);
            let done = format!("Success: LoRA adapter '{name}' removed successfully.");
            Ok(Reply::whole(None, done))
        }
    }
}

fn required<'a>(value: &'a Value, name: &str) -> Result<&'a str, ApiError> {
    let text = fields(value)?.text(name)?;
    text.ok_or_else(|| ApiError::missing(&format!("body.{name}"), value))
}

/// Headers and body of a request that must be JSON.
async fn read(request: Request<Incoming>) -> Result<(HeaderMap, Bytes), ApiError> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, BODY_BYTES_MAX).collect().await;
    let body = body.map_err(|_| ApiError::body_too_large())?.to_bytes();
    let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|value| value.split(';').next()).unwrap_or("").trim();
    if !essence.eq_ignore_ascii_case(JSON) {
        return Err(ApiError::content_type());
    }
    Ok((head.headers, body))
}

/// The four ways to ask for text.
async fn text(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
    operation: Operation,
) -> Result<Reply, Failure> {
    let in_flight = InFlight::new(shared);
    let (method, uri) = (request.method().clone(), request.uri().to_string());
    let (headers, body) = read(request).await?;
    let seen = Seen { method, path: uri, headers: headers.clone(), body: body.clone() };
    let number = shared.watch.saw(seen);
    let config = &shared.config;
    let ending = match shared.watch.fault() {
        Fault::Status(status) => return Err(ApiError::injected(status).into()),
        Fault::StatusShare(status, share) if share.has(config.seed, number) => {
            return Err(ApiError::injected(status).into());
        }
        Fault::Hang => pending().await,
        Fault::CutAfter(tokens) => Ending::CutAfter(tokens),
        Fault::DieAfter(tokens) => Ending::DieAfter(tokens),
        _ => Ending::Whole,
    };
    let against = Against { models: &shared.models, profile: &config.profile, seed: config.seed };
    let ask = Ask::read(operation, &headers, &body, &against)?;
    drop(body);
    let answer = Answer::new(&ask, wall::since_epoch(), || shared.fresh_id());
    let stream = ask.stream;
    let ticket =
        shared.host.offer(engine_request(shared, ask)).map_err(|rejected| match rejected {
            Rejected::QueueFull => ApiError::busy(),
            Rejected::TooLong => ApiError::bad_request(rejected.to_string()),
        })?;
    if stream {
        let body = ReplyBody::events(EventStream::new(answer, ticket, ending, in_flight));
        return Ok(Reply {
            status: StatusCode::OK,
            before_length: None,
            content_type: Some("text/event-stream; charset=utf-8"),
            body,
            length: None,
        });
    }
    ticket.finished().await;
    match ending {
        Ending::CutAfter(_) => return Err(Failure::Cut),
        Ending::DieAfter(_) => return Err(ApiError::engine_dead().into()),
        Ending::Whole => {}
    }
    let reply = Reply::json(answer.whole());
    Ok(Reply { before_length: orca(shared, operation, &headers), ..reply })
}

/// What the engine has to know about a request: no token, only how many and which blocks are equal to which.
fn engine_request(shared: &Shared, ask: Ask) -> crate::engine::Request {
    let prompt_tokens = u32::try_from(ask.prompt.len()).unwrap_or(u32::MAX);
    let mut tokens = ask.prompt;
    ask.origin.push_tokens(&mut tokens, ask.output);
    crate::engine::Request {
        // The host names it.
        id: RequestId(0),
        adapter: ask.adapter,
        salt: ask.salt,
        prompt_tokens,
        output_tokens: ask.output,
        max_tokens: ask.max_tokens,
        finish: ask.finish,
        content: block_content(&tokens, shared.config.profile.block_tokens),
    }
}

/// The load header of plain completions and chats, if the request names a format that vLLM knows.
fn orca(
    shared: &Shared,
    operation: Operation,
    headers: &HeaderMap,
) -> Option<(HeaderName, HeaderValue)> {
    if !matches!(operation, Operation::Completions | Operation::Chat) {
        return None;
    }
    let (waiting, usage) = shared.host.load();
    let (waiting, usage) = (python_float(f64::from(waiting)), python_float(usage));
    let value = match headers.get(ORCA_FORMAT)?.to_str().ok()?.to_ascii_lowercase().as_str() {
        "text" => format!(
            "TEXT named_metrics.num_requests_waiting={waiting}, named_metrics.kv_cache_usage_perc={usage}"
        ),
        "json" => format!(
            r#"JSON {{"named_metrics": {{"num_requests_waiting": {waiting}, "kv_cache_usage_perc": {usage}}}}}"#
        ),
        _ => return None,
    };
    Some((ORCA, HeaderValue::try_from(value).ok()?))
}

/// A number as Python writes it: its exponents have two digits.
fn python_float(value: f64) -> String {
    let plain = format!("{value:?}");
    match plain.split_once("e-") {
        Some((digits, exponent)) => format!("{digits}e-{exponent:0>2}"),
        None => plain,
    }
}

async fn metrics(shared: &Shared) -> Result<Reply, Failure> {
    const TEXT: &str = "text/plain; version=1.0.0; charset=utf-8";
    match shared.watch.fault() {
        Fault::MetricsHang => pending().await,
        Fault::MetricsSlow(time) => {
            tokio::time::sleep(time).await;
            Ok(Reply::whole(Some(TEXT), exposition::write(shared)))
        }
        Fault::MetricsFrozen => {
            let page = shared.watch.frozen_page();
            let page = page.unwrap_or_else(|| exposition::write(shared).into());
            Ok(Reply::whole(Some(TEXT), page))
        }
        Fault::MetricsGarbage => {
            Ok(Reply::whole(Some(TEXT), "vllm:num_requests_running{ 12 \n\u{0}\n"))
        }
        Fault::MetricsStatus(status) => Err(ApiError::injected(status).into()),
        _ => Ok(Reply::whole(Some(TEXT), exposition::write(shared))),
    }
}

fn tokenize(shared: &Shared, body: &[u8]) -> Result<Reply, ApiError> {
    let value = parse(body)?;
    let fields = fields(&value)?;
    shared.models.resolve(fields.text("model")?)?;
    let chat = fields.get("messages").is_some();
    let operation = if chat { Operation::Chat } else { Operation::Completions };
    let tokens = prompt::tokens(operation, &fields)?;
    let wants_texts = fields.get("return_token_strs").and_then(Value::as_bool).unwrap_or(false);
    let texts = match fields.get("prompt").and_then(Value::as_str) {
        Some(text) if wants_texts => Value::from(piece_texts(text)),
        _ => Value::Null,
    };
    let (count, limit) = (tokens.len(), shared.config.profile.max_model_len);
    let tokens = Value::from(tokens);
    Ok(Reply::json(format!(
        r#"{{"count":{count},"max_model_len":{limit},"tokens":{tokens},"token_strs":{texts}}}"#
    )))
}

fn count_tokens(shared: &Shared, body: &[u8]) -> Result<Reply, ApiError> {
    let value = parse(body)?;
    let fields = fields(&value)?;
    shared.models.resolve(fields.text("model")?)?;
    let count = prompt::tokens(Operation::Messages, &fields)?.len();
    Ok(Reply::json(format!(
        r#"{{"input_tokens":{count},"context_management":{{"original_input_tokens":{count}}}}}"#
    )))
}
