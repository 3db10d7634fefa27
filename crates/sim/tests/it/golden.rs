//! The server beside recordings of vLLM 0.32: every recorded request is sent as it was, and the answer must have the
//! same status, headers, fields and order of fields; errors must be the same bytes.

use std::path::PathBuf;

use sim::{Running, Server, SimConfig};

use crate::wire::{Reply, exchange, recorded};

/// Fields whose text is vLLM's and not the model's.
const FIXED: [&str; 15] = [
    "object",
    "finish_reason",
    "type",
    "role",
    "owned_by",
    "status",
    "stop_reason",
    "service_tier",
    "truncation",
    "tool_choice",
    "system_fingerprint",
    "reason",
    "detail",
    "version",
    "parent",
];

fn file(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/http").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

async fn server() -> Running {
    let mut config = SimConfig::fast();
    // That of the recorded server.
    config.profile.max_model_len = 2048;
    Server::start(config).await.expect("a free port")
}

/// JSON with numbers as 0, texts as S unless their field is one of [`FIXED`], and runs of equal items as one.
fn shape(json: &str) -> String {
    let mut out = String::new();
    let mut key = String::new();
    let mut rest = json;
    while let Some(first) = rest.chars().next() {
        if first == '"' {
            let mut escaped = false;
            let end = rest[1..]
                .find(|c| {
                    let ends = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    ends
                })
                .expect("a string ends")
                + 2;
            let text = &rest[..end];
            rest = &rest[end..];
            if rest.starts_with(':') {
                text.trim_matches('"').clone_into(&mut key);
                out.push_str(text);
            } else if FIXED.contains(&key.as_str()) {
                out.push_str(text);
            } else {
                out.push('S');
            }
        } else if first == '-' || first.is_ascii_digit() {
            let end = rest.find(|c: char| !"+-.0123456789eE".contains(c)).unwrap_or(rest.len());
            out.push('0');
            rest = &rest[end..];
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    for item in ["0", "S"] {
        let pair = format!("{item},{item}");
        while out.contains(&pair) {
            out = out.replace(&pair, item);
        }
    }
    out
}

/// The shapes of a stream's events; of equal ones in a row, one.
fn event_shapes(reply: &Reply) -> Vec<String> {
    let mut shapes: Vec<String> = reply.chunks.iter().map(|chunk| shape(chunk)).collect();
    shapes.dedup();
    shapes
}

/// Header names in order, with values but for those that a date or a body decides.
fn headers(reply: &Reply) -> Vec<String> {
    let show = |(name, value): &(String, String)| match name.as_str() {
        "date" | "content-length" => name.clone(),
        _ => format!("{name}: {value}"),
    };
    reply.headers.iter().map(show).collect()
}

async fn check(server: &Running, name: &str) {
    let request = file(&format!("{name}.req"));
    let expected = recorded(&file(&format!("{name}.resp")), request.starts_with(b"HEAD"));
    let got = exchange(server.addr(), &request).await;
    assert!(got.complete, "{name}: {got:?}");
    assert_eq!(got.status, expected.status, "{name}: {}", got.body());
    assert_eq!(headers(&got), headers(&expected), "{name}");
    if got.header("transfer-encoding").is_some() {
        assert_eq!(event_shapes(&got), event_shapes(&expected), "{name}");
        assert!(got.chunks.iter().all(|c| c.ends_with("\n\n") && c.matches("\n\n").count() == 1));
    } else if got.code() >= 400 || got.header("content-type").is_none() {
        assert_eq!(got.body(), expected.body(), "{name}");
        assert_eq!(got.header("content-length"), expected.header("content-length"), "{name}");
    } else {
        assert_eq!(shape(&got.body()), shape(&expected.body()), "{name}");
    }
}

#[tokio::test]
async fn plain_answers_have_the_recorded_fields() {
    let server = server().await;
    for name in [
        "completions-base-model",
        "completions-token-ids-prompt",
        "completions-max-tokens-absent",
        "completions-cache-salt",
        "completions-unknown-field",
        "chat",
        "chat-max-completion-tokens",
        "chat-content-parts",
        "chat-base-model-system",
        "responses",
        "messages",
        "messages-count-tokens",
        "tokenize-chat",
        "tokenize-prompt",
        "request-id-header",
        "request-id-header-chat",
        "request-id-field",
        "data-parallel-rank-0",
        "data-parallel-rank-word",
        "expect-100-continue",
        "chunked-request-body",
        "connection-close",
        "get-health",
        "get-ping",
        "get-version",
        "get-load",
        "get-models",
    ] {
        check(&server, name).await;
    }
}

#[tokio::test]
async fn streams_have_the_recorded_events() {
    let server = server().await;
    for name in [
        "completions-stream",
        "completions-stream-usage",
        "completions-stream-usage-continuous",
        "chat-stream",
        "chat-stream-usage",
        "chat-stream-usage-continuous",
        "responses-stream",
        "messages-stream",
        "orca-text-stream",
    ] {
        check(&server, name).await;
    }
}

#[tokio::test]
async fn errors_are_the_recorded_bytes() {
    let server = server().await;
    for name in [
        "error-body-shorter-than-length",
        "error-chat-messages-empty",
        "error-chat-roles",
        "error-content-encoding-gzip",
        "error-content-type",
        "error-duplicate-model-key",
        "error-embeddings",
        "error-empty-body",
        "error-invalid-utf8",
        "error-json-array",
        "error-malformed-json",
        "error-max-tokens-negative",
        "error-max-tokens-too-large",
        "error-max-tokens-too-large-chat",
        "error-max-tokens-zero",
        "error-model-404",
        "error-model-404-chat",
        "error-model-404-stream",
        "error-model-absent",
        "error-model-empty",
        "error-model-number",
        "error-n-zero",
        "error-no-content-type",
        "error-prompt-absent",
        "error-prompt-empty",
        "error-stream-options-without-stream",
        "error-temperature",
        "error-token-id-range",
        "error-too-long",
        "error-too-long-chat",
        "error-too-long-stream",
        "data-parallel-rank-7",
        "responses-error-model",
        "messages-error-model",
        "messages-error-too-long",
        "get-not-found",
        "get-completions-405",
        "head-health",
        "orca-text-error",
    ] {
        check(&server, name).await;
    }
}

#[tokio::test]
async fn adapters_come_and_go_as_recorded() {
    let server = server().await;
    for name in [
        "lora-load",
        "lora-load-again",
        "lora-models-after-load",
        "lora-completion",
        "lora-unload",
        "lora-unload-again",
        "lora-completion-after-unload",
        "lora-load-bad-path",
    ] {
        check(&server, name).await;
    }
}

#[tokio::test]
async fn the_load_header_is_the_recorded_one_and_comes_only_when_asked_for() {
    let server = server().await;
    for name in ["orca-text", "orca-json", "orca-text-chat", "orca-bad-format"] {
        check(&server, name).await;
    }
}
