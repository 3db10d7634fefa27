use std::{net::SocketAddr, time::Duration};

use openai::Usage;
use picker::{RequestTrace, Sampling, TraceContext};

use super::*;

/// A request that took its time at every step, on a clock that stands still.
fn record(sampling: Sampling) -> RequestRecord {
    let here = SocketAddr::from(([127, 0, 0, 1], 4000));
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let context = TraceContext::begin(Some(parent), Some("vendor=1"), sampling, (1, 2));
    let record = RequestRecord::new(here, here);
    let after = |millis| record.started + Duration::from_millis(millis);
    let trace = RequestTrace { context, queued: Some(after(1)), connected: Some(after(3)) };
    RequestRecord {
        method: "POST".into(),
        path: "/v1/chat/completions".into(),
        request_model: Some("tweet-summary".into()),
        target_model: Some("tweet-summary-1".into()),
        policy: Some("predicted"),
        reason: Some("prefix"),
        upstream_host: Some("10.0.0.1:8000".into()),
        attempts: 1,
        response_code: 200,
        stream: true,
        queue: Some(Duration::from_millis(2)),
        upstream_service_time: Some(Duration::from_millis(4)),
        first_token: Some(after(5)),
        last_token: Some(after(9)),
        usage: Usage { prompt_tokens: Some(7), completion_tokens: Some(3), cached_tokens: None },
        finish: Some(Finish::Complete(Some("stop".into()))),
        trace: Some(Box::new(trace)),
        ..record
    }
}

const SAMPLING: Sampling = Sampling { parent_based: true, ratio: 1.0 };

fn attribute(span: &SpanData, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|pair| pair.key.as_str() == key);
    found.map(|pair| pair.value.to_string())
}

#[tokio::test(start_paused = true)]
async fn a_span_tells_the_requests_story_in_the_conventions_words() {
    let record = record(SAMPLING);
    tokio::time::advance(Duration::from_millis(10)).await;
    let span = of(&record).unwrap();
    assert_eq!(span.name, "chat tweet-summary");
    assert_eq!(span.span_context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(span.span_context.trace_state().header(), "vendor=1");
    assert_eq!(span.parent_span_id.to_string(), "00f067aa0ba902b7");
    assert_eq!(span.end_time, record.start_time + Duration::from_millis(10));
    let millis =
        |event: &Event| event.timestamp.duration_since(span.start_time).unwrap().as_millis();
    let told: Vec<_> =
        span.events.iter().map(|event| (event.name.to_string(), millis(event))).collect();
    let steps = ["queue", "pick", "connect", "first_byte", "first_token", "stream_end"];
    let expected = steps.map(str::to_owned).into_iter().zip([1, 2, 3, 4, 5, 9]);
    assert_eq!(told, expected.collect::<Vec<_>>());
    for (key, value) in [
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.request.model", "tweet-summary"),
        ("gen_ai.response.model", "tweet-summary-1"),
        ("gen_ai.usage.input_tokens", "7"),
        ("gen_ai.usage.output_tokens", "3"),
        ("gen_ai.response.finish_reasons", "[\"stop\"]"),
        ("server.address", "10.0.0.1"),
        ("server.port", "8000"),
        ("http.response.status_code", "200"),
        ("tokenweir.policy", "predicted"),
    ] {
        assert_eq!(attribute(&span, key).as_deref(), Some(value), "{key}");
    }
    assert_eq!(attribute(&span, "gen_ai.usage.cache_read.input_tokens"), None, "absent is absent");
    assert_eq!(span.status, Status::Unset);
}

#[tokio::test(start_paused = true)]
async fn what_ended_badly_is_an_error_and_says_why() {
    let cut = RequestRecord { finish: Some(Finish::EndpointGone), ..record(SAMPLING) };
    let span = of(&cut).unwrap();
    assert_eq!(span.status, Status::error("endpoint_gone"));
    assert_eq!(attribute(&span, "error.type").as_deref(), Some("endpoint_gone"));

    let failed = RequestRecord {
        response_code: 500,
        finish: Some(Finish::Complete(None)),
        ..record(SAMPLING)
    };
    let span = of(&failed).unwrap();
    assert_eq!(span.status, Status::error("500"), "an endpoint's own failure");
    assert_eq!(attribute(&span, "error.type").as_deref(), Some("500"));

    let mut refused = record(SAMPLING);
    refused.refuse(&picker::Refusal::HeadersTooLarge, 0);
    refused.attempts = 0;
    let span = of(&refused).unwrap();
    assert_eq!(span.status, Status::Unset, "a client's mistake is none of the server");
    assert_eq!(attribute(&span, "error.type").as_deref(), Some("too_large"));
    assert!(span.events.iter().all(|event| event.name != "pick"), "nothing was picked");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_not_sampled_has_no_span() {
    let never = Sampling { parent_based: false, ratio: 0.0 };
    assert!(of(&record(never)).is_none());
    assert!(of(&RequestRecord { trace: None, ..record(SAMPLING) }).is_none());
}
