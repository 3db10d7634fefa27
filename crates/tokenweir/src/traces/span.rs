//! From a record to a span, in the words of OpenTelemetry's conventions for generative AI and HTTP.

use std::time::SystemTime;

use openai::Operation;
use opentelemetry::{
    InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId, Value,
    trace::{Event, SpanContext, SpanKind, Status, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use picker::{Finish, RequestRecord};
use tokio::time::Instant;

/// The span of a record, if it is to have one.
pub(super) fn of(record: &RequestRecord) -> Option<SpanData> {
    let context = &record.trace.as_ref()?.context;
    if !context.is_sampled() {
        return None;
    }
    let state = context.state.as_deref().and_then(|state| state.parse::<TraceState>().ok());
    let operation = operation(record);
    let name = match (operation, &record.request_model) {
        (Some(operation), Some(model)) => format!("{operation} {model}"),
        (Some(operation), None) => operation.to_owned(),
        (None, _) => record.method.clone(),
    };
    let mut events = SpanEvents::default();
    events.events = story(record);
    Some(SpanData {
        span_context: SpanContext::new(
            TraceId::from(context.trace_id),
            SpanId::from(context.span_id),
            TraceFlags::new(context.flags),
            false,
            state.unwrap_or_default(),
        ),
        parent_span_id: SpanId::from(context.parent_id.unwrap_or_default()),
        parent_span_is_remote: context.parent_id.is_some(),
        span_kind: SpanKind::Server,
        name: name.into(),
        start_time: record.start_time,
        end_time: record.start_time + record.started.elapsed(),
        attributes: attributes(record, operation),
        dropped_attributes_count: 0,
        events,
        links: SpanLinks::default(),
        status: status(record),
        instrumentation_scope: InstrumentationScope::builder("tokenweir")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build(),
    })
}

/// `gen_ai.operation.name` of a request.
fn operation(record: &RequestRecord) -> Option<&'static str> {
    match Operation::of(&record.method, &record.path) {
        Operation::ChatCompletions | Operation::Responses | Operation::Messages => Some("chat"),
        Operation::Completions => Some("text_completion"),
        Operation::Embeddings => Some("embeddings"),
        Operation::Tokenize | Operation::Other => None,
    }
}

/// What happened when.
fn story(record: &RequestRecord) -> Vec<Event> {
    let trace = record.trace.as_deref();
    let picked = record.queue.map(|after| record.started + after).filter(|_| record.attempts > 0);
    let first_byte = record.upstream_service_time.map(|after| record.started + after);
    let steps = [
        ("queue", trace.and_then(|trace| trace.queued)),
        ("pick", picked),
        ("connect", trace.and_then(|trace| trace.connected)),
        ("first_byte", first_byte),
        ("first_token", record.first_token),
        ("stream_end", record.last_token),
    ];
    let event = |(name, at)| Some(Event::new(name, wall(record, at?), Vec::new(), 0));
    steps.into_iter().filter_map(event).collect()
}

/// An instant as clocks on walls show it.
fn wall(record: &RequestRecord, at: Instant) -> SystemTime {
    record.start_time + at.saturating_duration_since(record.started)
}

/// The gateway's own faults and the endpoints' are errors; a client's are not, to a server.
fn status(record: &RequestRecord) -> Status {
    let is_broken = record.finish.as_ref().is_some_and(Finish::is_broken);
    if record.response_code >= 500 || is_broken {
        Status::error(error_type(record).unwrap_or_default())
    } else {
        Status::Unset
    }
}

/// Why it failed, in the gateway's words; an endpoint's own failure is known by its status code.
fn error_type(record: &RequestRecord) -> Option<String> {
    match &record.finish {
        Some(Finish::Complete(_)) | None => {
            (record.response_code >= 500).then(|| record.response_code.to_string())
        }
        Some(finish) => finish.name().map(std::borrow::Cow::into_owned),
    }
}

fn attributes(record: &RequestRecord, operation: Option<&'static str>) -> Vec<KeyValue> {
    let mut all = Attributes(Vec::with_capacity(32));
    all.add("http.request.method", Some(record.method.clone()));
    all.add("http.response.status_code", Some(i64::from(record.response_code)));
    all.add("url.scheme", Some("http"));
    all.add("url.path", Some(record.path.clone()));
    all.add("network.protocol.version", record.protocol.strip_prefix("HTTP/"));
    all.add("client.address", Some(record.downstream_remote.ip().to_string()));
    all.add("user_agent.original", record.user_agent.clone());
    let (address, port) = split(record);
    all.add("server.address", address);
    all.add("server.port", port);
    if let Some(operation) = operation {
        all.add("gen_ai.operation.name", Some(operation));
        all.add("gen_ai.provider.name", Some("vllm"));
        all.add("gen_ai.request.model", record.request_model.clone());
        let answered = record.target_model.as_ref().or(record.request_model.as_ref());
        let answered = answered.filter(|_| record.response_code == 200);
        all.add("gen_ai.response.model", answered.cloned());
        all.add("gen_ai.usage.input_tokens", record.usage.prompt_tokens.and_then(whole));
        all.add("gen_ai.usage.output_tokens", record.usage.completion_tokens.and_then(whole));
        all.add("gen_ai.usage.cache_read.input_tokens", record.usage.cached_tokens.and_then(whole));
        if let Some(Finish::Complete(Some(reason))) = &record.finish {
            let reasons = vec![opentelemetry::StringValue::from(reason.clone())];
            all.add("gen_ai.response.finish_reasons", Some(Value::Array(reasons.into())));
        }
    }
    all.add("error.type", error_type(record));
    all.add("tokenweir.ttft_seconds", record.ttft().map(|time| time.as_secs_f64()));
    all.add("tokenweir.tpot_seconds", record.tpot().map(|time| time.as_secs_f64()));
    all.add("tokenweir.route", record.route.as_deref().map(str::to_owned));
    all.add("tokenweir.pool", record.pool.as_ref().map(picker::PoolKey::label));
    all.add("tokenweir.policy", record.policy);
    all.add("tokenweir.reason", record.reason);
    all.add("tokenweir.attempts", Some(i64::from(record.attempts)));
    all.add("tokenweir.stream", Some(record.stream));
    all.add("tokenweir.request_id", Some(record.request_id.clone()));
    all.0
}

/// Pairs whose value is known.
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn add(&mut self, key: &'static str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.0.push(KeyValue::new(key, value));
        }
    }
}

/// The endpoint's host and port.
fn split(record: &RequestRecord) -> (Option<String>, Option<i64>) {
    let Some((host, port)) = record.upstream_host.as_deref().and_then(|at| at.rsplit_once(':'))
    else {
        return (None, None);
    };
    (Some(host.trim_matches(['[', ']']).to_owned()), port.parse().ok())
}

fn whole(tokens: u64) -> Option<i64> {
    i64::try_from(tokens).ok()
}

#[cfg(test)]
mod tests;
