//! Bodies pass byte for byte, in both directions, but for what the gateway is to change.

use std::collections::BTreeMap;

use picker::{ModelSpec, TargetModel};
use sim::Handle;

use crate::{
    setting::{MODEL, Setting, Setup, fast_sim},
    wire::{Ended, Reply, Wire, post, post_with},
};

const CHAT: &str =
    r#""model":"/model/llama2","max_tokens":5,"messages":[{"role":"user","content":"Hi"}]"#;
const PROMPT: &str = r#""model":"/model/llama2","max_tokens":5,"prompt":"Say this""#;

/// What differs between two equal servers: the time, and the names they make up.
fn normalised(reply: &Reply) -> String {
    let mut text = reply.text();
    for key in [r#""created":"#, r#""created_at":"#, r#""msg_"#] {
        let mut parts = text.split(key);
        let first = parts.next().unwrap_or_default().to_owned();
        text = parts.fold(first, |text, part| {
            let rest = part.trim_start_matches(|c: char| c.is_ascii_hexdigit());
            format!("{text}{key}{rest}")
        });
    }
    text
}

/// The headers but for the time and the gateway's own.
fn endpoint_headers(reply: &Reply) -> BTreeMap<String, String> {
    let own = ["date", "x-request-id", "x-tokenweir-endpoint"];
    reply.headers.iter().filter(|(name, _)| !own.contains(&name.as_str())).cloned().collect()
}

/// Asked through the gateway, an endpoint's answer is the one it gives when asked itself.
async fn check_same(path: &str, body: &str) {
    let direct = fast_sim().await;
    let (_server, setting) = Setting::with_sim().await;
    let request = post_with(path, "x-request-id: same\r\n", body.as_bytes());
    let mut wire = Wire::open(direct.addr()).await;
    wire.send(&request).await;
    let expected = wire.answer().await;
    let reply = setting.ask(&request).await;
    assert_eq!(reply.code, expected.code, "{path} {body}");
    assert_eq!((reply.ended, expected.ended), (Ended::Clean, Ended::Clean), "{path} {body}");
    assert_eq!(normalised(&reply), normalised(&expected), "{path} {body}");
    assert!(!reply.body.is_empty());
    assert_eq!(endpoint_headers(&reply), endpoint_headers(&expected), "{path} {body}");
}

#[tokio::test]
async fn a_streamed_completion_is_the_endpoints_own() {
    for options in [
        "",
        r#","stream_options":null"#,
        r#","stream_options":{}"#,
        r#","stream_options":{"include_usage":false}"#,
        r#","stream_options":{"include_usage":true}"#,
        r#","stream_options":{"include_usage":false,"continuous_usage_stats":true}"#,
        r#","stream_options":{"include_usage":true,"continuous_usage_stats":true}"#,
    ] {
        check_same("/v1/completions", &format!(r#"{{{PROMPT},"stream":true{options}}}"#)).await;
        check_same("/v1/chat/completions", &format!(r#"{{{CHAT},"stream":true{options}}}"#)).await;
    }
}

#[tokio::test]
async fn a_plain_answer_is_the_endpoints_own() {
    check_same("/v1/completions", &format!("{{{PROMPT}}}")).await;
    check_same("/v1/chat/completions", &format!("{{{CHAT}}}")).await;
    check_same("/tokenize", r#"{"model":"/model/llama2","prompt":"Say this"}"#).await;
    check_same("/v1/messages/count_tokens", &format!("{{{CHAT}}}")).await;
}

#[tokio::test]
async fn messages_and_responses_are_the_endpoints_own() {
    let input = r#""model":"/model/llama2","max_output_tokens":5,"input":"Say this""#;
    for stream in ["", r#","stream":true"#] {
        check_same("/v1/messages", &format!("{{{CHAT}{stream}}}")).await;
        check_same("/v1/responses", &format!("{{{input}{stream}}}")).await;
    }
}

#[tokio::test]
async fn the_endpoints_refusals_are_its_own() {
    check_same("/v1/completions", r#"{"model":"unknown","prompt":"Say this"}"#).await;
    check_same("/v1/completions", r#"{"model":"/model/llama2"}"#).await;
    check_same("/v1/completions", &format!(r#"{{{PROMPT},"stream_options":1}}"#)).await;
    check_same("/v1/messages", r#"{"model":"/model/llama2","messages":[]}"#).await;
    check_same("/v1/nothing", "{}").await;
}

/// The body that an endpoint got for `body`.
async fn body_at_endpoint(setting: &Setting, handle: &Handle, body: &str) -> String {
    let reply = setting.ask(&post("/v1/completions", body)).await;
    assert_eq!(reply.code, 200, "{reply:?}");
    let seen = handle.last().expect("a request").body;
    String::from_utf8(seen.to_vec()).expect("text")
}

/// Fields no gateway knows, spelt as no program writes them.
const STRANGE: &str = "\"zeta\" : 1e5,\r\n\t\"a\":[1.0, 1, {\"model\":\"inner\"}],\"\\u0061\":\"\\ud83d\\ude00 \u{e9}\", \"prompt\":\"hi\",\"max_tokens\":2";

#[tokio::test]
async fn a_body_reaches_the_endpoint_as_it_was_written() {
    let (server, setting) = Setting::with_sim().await;
    let body = format!(" {{{STRANGE}, \"model\":\"{MODEL}\"}}\n");
    assert_eq!(body_at_endpoint(&setting, server.handle(), &body).await, body);
}

#[tokio::test]
async fn a_streaming_body_is_asked_for_usage_and_otherwise_left_alone() {
    let (server, setting) = Setting::with_sim().await;
    let body = format!("{{{STRANGE}, \"model\":\"{MODEL}\",\"stream\":true }}");
    let expected = format!(
        "{{{STRANGE}, \"model\":\"{MODEL}\",\"stream\":true ,\"stream_options\":{{\"include_usage\":true}}}}"
    );
    assert_eq!(body_at_endpoint(&setting, server.handle(), &body).await, expected);
    let asking = r#""stream":true,"stream_options":{"include_usage":true}"#;
    let body = format!("{{{STRANGE},{asking}}}");
    assert_eq!(body_at_endpoint(&setting, server.handle(), &body).await, body);
}

fn model(model: Option<&str>, targets: &[(&str, u32)]) -> ModelSpec {
    let targets =
        targets.iter().map(|(name, weight)| TargetModel { name: (*name).into(), weight: *weight });
    ModelSpec { model: model.map(str::to_owned), priority: 0, targets: targets.collect() }
}

#[tokio::test]
async fn a_models_name_alone_is_exchanged_for_its_targets() {
    let server = fast_sim().await;
    let models = vec![model(Some("ch\"at"), &[("sql-lora", 1)])];
    let setting = Setup::new(&[server.addr()]).models(models).start();
    let body = format!("{{{STRANGE}, \"model\" : \"c\\u0068\\\"at\" }}");
    let expected = format!("{{{STRANGE}, \"model\" : \"sql-lora\" }}");
    assert_eq!(body_at_endpoint(&setting, server.handle(), &body).await, expected);
    let record = setting.record(1).await;
    assert_eq!(record.request_model.as_deref(), Some("ch\"at"));
    assert_eq!(record.target_model.as_deref(), Some("sql-lora"));

    let untouched = format!("{{{STRANGE}, \"model\":\"{MODEL}\"}}");
    assert_eq!(body_at_endpoint(&setting, server.handle(), &untouched).await, untouched);
    assert_eq!(setting.record(2).await.target_model, None);
}

#[tokio::test]
async fn a_request_without_a_model_is_logged_with_the_answers() {
    let (server, setting) = Setting::with_sim().await;
    for body in [format!("{{{STRANGE}}}"), format!(r#"{{{STRANGE},"model":""}}"#)] {
        assert_eq!(body_at_endpoint(&setting, server.handle(), &body).await, body);
    }
    for nth in [1, 2] {
        assert_eq!(setting.record(nth).await.request_model.as_deref(), Some(MODEL));
    }
}

#[tokio::test]
async fn targets_get_requests_by_their_weights() {
    let server = fast_sim().await;
    let targets = [("sql-lora", 3), ("tweet-summary", 1), ("sql-lora-1", 0)];
    let setting = Setup::new(&[server.addr()]).models(vec![model(None, &targets)]).start();
    let mut wire = setting.wire().await;
    for _ in 0..60 {
        wire.send(&post("/v1/completions", r#"{"model":"any","prompt":"hi","max_tokens":1}"#))
            .await;
        assert_eq!(wire.answer().await.code, 200);
    }
    let mut counts = BTreeMap::<String, usize>::new();
    for seen in server.handle().recent() {
        let body: serde_json::Value = serde_json::from_slice(&seen.body).expect("JSON");
        *counts.entry(body["model"].as_str().expect("a name").to_owned()).or_default() += 1;
    }
    let (often, seldom) = (counts["sql-lora"], counts["tweet-summary"]);
    assert_eq!(often + seldom, 60, "{counts:?}");
    assert!((33..=57).contains(&often), "three in four: {counts:?}");
}

#[tokio::test]
async fn an_answer_of_many_events_a_packet_and_of_torn_events_passes_unchanged() {
    use crate::fake::{Fake, LAST_CHUNK, STREAM_HEAD, TOKEN, chunk};
    let comment = ": keep-alive\n\n";
    let odd = "event: odd\r\nid: 7\r\ndata: {\"x\":1}\r\n\r\n";
    let whole = format!("{comment}{TOKEN}{odd}{TOKEN}{TOKEN}data: [DONE]\n\n");
    let chunks: String = whole.as_bytes().chunks(7).fold(String::new(), |text, piece| {
        text + &chunk(std::str::from_utf8(piece).expect("ASCII"))
    });
    for body in [chunks, chunk(&whole)] {
        let fake = Fake::answering(format!("{STREAM_HEAD}{body}{LAST_CHUNK}")).await;
        let setting = Setup::new(&[fake.addr]).start();
        let request = post("/v1/completions", &format!(r#"{{{PROMPT},"stream":true}}"#));
        let reply = setting.ask(&request).await;
        assert_eq!((reply.text(), reply.ended), (whole.clone(), Ended::Clean));
    }
}

#[tokio::test]
async fn a_stream_that_loses_its_usage_loses_its_length_too() {
    use crate::fake::{Fake, TOKEN};
    let usage =
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}\n\n";
    let done = "data: [DONE]\n\n";
    let length = TOKEN.len() + usage.len() + done.len();
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {length}");
    let fake = Fake::answering(format!("{head}\r\n\r\n{TOKEN}{usage}{done}")).await;
    let setting = Setup::new(&[fake.addr]).start();
    let reply =
        setting.ask(&post("/v1/completions", &format!(r#"{{{PROMPT},"stream":true}}"#))).await;
    assert_eq!((reply.text(), reply.ended), (format!("{TOKEN}{done}"), Ended::Clean));
    assert_eq!(setting.record(1).await.usage.completion_tokens, Some(1));
}

#[tokio::test]
async fn an_opaque_answer_passes_unchanged() {
    use crate::fake::Fake;
    let body = "\u{1}\u{2}not JSON";
    let length = body.len();
    let head = "HTTP/1.1 203 Odd\r\ncontent-type: application/octet-stream\r\ncontent-encoding: br";
    let fake = Fake::answering(format!("{head}\r\ncontent-length: {length}\r\n\r\n{body}")).await;
    let setting = Setup::new(&[fake.addr]).start();
    let reply = setting.ask(&post("/v1/completions", &format!("{{{PROMPT}}}"))).await;
    assert_eq!((reply.code, reply.text()), (203, body.to_owned()));
    assert_eq!(reply.header("content-encoding"), Some("br"));
    assert_eq!(reply.header("content-length"), Some(length.to_string().as_str()));
}
