//! Tokens are counted on every answer, whatever the client asked for.

use openai::Usage;
use picker::Finish;

use crate::{
    fake::{Fake, json_answer},
    setting::{MODEL, Setting, Setup, until},
    wire::{Ended, post},
};

/// The counts of one request: what the endpoint counted, in the record and in the metrics.
async fn check_counted(path: &str, body: &str) {
    let (server, setting) = Setting::with_sim().await;
    let reply = setting.ask(&post(path, body)).await;
    assert_eq!((reply.code, reply.ended), (200, Ended::Clean), "{path} {body}: {reply:?}");
    let handle = server.handle();
    until("seven tokens counted by the endpoint", || handle.generation_tokens() == 7).await;
    let record = setting.record(1).await;
    let Usage { prompt_tokens, completion_tokens, .. } = record.usage;
    assert_eq!(prompt_tokens, Some(handle.prompt_tokens()), "{path} {body}");
    assert_eq!(completion_tokens, Some(7), "{path} {body}");
    assert!(handle.prompt_tokens() > 0);
    assert!(matches!(record.finish, Some(Finish::Complete(Some(_)))), "{:?}", record.finish);

    let label = format!("llmproxy_model=\"{MODEL}\"");
    for (name, count) in [
        ("asm_llm_proxy_prompt_tokens", handle.prompt_tokens()),
        ("asm_llm_proxy_completion_tokens", 7),
    ] {
        assert_eq!(setting.metric(name, &[&label]), count, "{name}");
    }
    let streamed = body.contains(r#""stream":true"#);
    assert_eq!(record.stream, streamed);
    assert_eq!(record.ttft().is_some(), streamed, "{path} {body}");
    assert_eq!(record.tpot().is_some(), streamed, "{path} {body}");
    let count = setting.metric("tokenweir_time_to_first_token_seconds_count", &[]);
    assert_eq!(count, u64::from(streamed));
}

const STREAMS: [&str; 5] = [
    "",
    r#","stream":true"#,
    r#","stream":true,"stream_options":{"include_usage":false}"#,
    r#","stream":true,"stream_options":{"include_usage":true}"#,
    r#","stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}"#,
];

#[tokio::test]
async fn completions_are_counted() {
    for stream in STREAMS {
        let body = format!(r#"{{"model":"{MODEL}","prompt":"Say this","max_tokens":7{stream}}}"#);
        check_counted("/v1/completions", &body).await;
    }
}

#[tokio::test]
async fn chats_are_counted() {
    for stream in STREAMS {
        let messages = r#""messages":[{"role":"user","content":"Say this"}]"#;
        let body = format!(r#"{{"model":"{MODEL}",{messages},"max_tokens":7{stream}}}"#);
        check_counted("/v1/chat/completions", &body).await;
    }
}

#[tokio::test]
async fn responses_are_counted() {
    for stream in &STREAMS[..2] {
        let body =
            format!(r#"{{"model":"{MODEL}","input":"Say this","max_output_tokens":7{stream}}}"#);
        check_counted("/v1/responses", &body).await;
    }
}

#[tokio::test]
async fn messages_are_counted() {
    for stream in &STREAMS[..2] {
        let messages = r#""messages":[{"role":"user","content":"Say this"}]"#;
        let body = format!(r#"{{"model":"{MODEL}",{messages},"max_tokens":7{stream}}}"#);
        check_counted("/v1/messages", &body).await;
    }
}

#[tokio::test]
async fn escapes_in_a_path_hide_nothing() {
    let answer = r#"{"model":"m","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7}}"#;
    let fake = Fake::answering(json_answer("200 OK", answer)).await;
    let setting = Setup::new(&[fake.addr]).start();
    for path in ["/v1/%63ompletions", "/v1%2Fcompletions", "/v1/completions%0A?a=b"] {
        let before = setting.records().len();
        let reply = setting.ask(&post(path, r#"{"model":"m","prompt":"x"}"#)).await;
        assert_eq!((reply.code, reply.text().as_str()), (200, answer), "{path}");
        let record = setting.record(before + 1).await;
        assert_eq!(record.usage.completion_tokens, Some(7), "{path}");
        assert_eq!(record.request_model.as_deref(), Some("m"), "{path}");
        let sent = fake.seen().pop().expect("a request");
        assert!(sent.starts_with(&format!("POST {path} HTTP/1.1\r\n")), "{sent}");
        let twice = setting.ask(&post(path, r#"{"model":"m","model":"n"}"#)).await;
        assert_eq!(twice.header("x-tokenweir-reason"), Some("invalid_body"), "{path}");
    }
}

#[tokio::test]
async fn errors_cost_no_tokens() {
    let (_server, setting) = Setting::with_sim().await;
    for body in [r#"{"model":"unknown","prompt":"x"}"#, r#"{"prompt":""}"#, "[]"] {
        assert!(setting.ask(&post("/v1/completions", body)).await.code >= 400);
    }
    setting.record(3).await;
    for record in setting.records() {
        assert_eq!(record.usage, Usage::default());
    }
    assert_eq!(setting.metric("asm_llm_proxy_prompt_tokens", &[]), 0);
}

#[tokio::test]
async fn names_that_clients_make_up_never_become_labels() {
    let (_server, setting) = Setting::with_sim().await;
    let body = r#"{"model":"made-up","prompt":"x"}"#;
    assert_eq!(setting.ask(&post("/v1/completions", body)).await.code, 404);
    setting.record(1).await;
    let page = setting.view.metrics_text();
    assert!(!page.contains("made-up") && page.contains("other"), "{page}");
}
