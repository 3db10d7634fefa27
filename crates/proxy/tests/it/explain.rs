//! The decision, told to a client that asks for it.

use picker::Desired;
use scheduling::Policy;
use serde_json::{Value, json};

use crate::{
    fake::{Fake, json_answer},
    setting::{Port, Setting, Setup, completion, fast_sim},
    wire::{Reply, post, post_with},
};

const ASK: &str = "X-Tokenweir-Explain: 1\r\n";

fn asking(stream: bool) -> Vec<u8> {
    post_with("/v1/completions", ASK, completion(stream, 2).as_bytes())
}

fn decision(reply: &Reply) -> Value {
    let text = reply.header("x-tokenweir-decision").unwrap_or_else(|| panic!("none: {reply:?}"));
    serde_json::from_str(text).expect("JSON")
}

fn use_policy(setting: &Setting, policy: Policy) {
    let mut desired = Desired::clone(&setting.view.desired());
    desired.pools[0].policy = policy;
    setting.writer.apply(desired);
}

#[tokio::test]
async fn a_client_that_asks_is_told_the_decision_streamed_or_not() {
    let (server, other) = (fast_sim().await, fast_sim().await);
    let addrs = [server.addr(), other.addr()].map(|addr| addr.to_string());
    for stream in [false, true] {
        let setting = Setup::new(&[server.addr(), other.addr()]).start();
        let reply = setting.ask(&asking(stream)).await;
        assert_eq!(reply.code, 200);
        let mut told = decision(&reply);
        let waited = told["queue_ms"].take().as_f64().expect("a number");
        let record = setting.record(1).await;
        let queue_ms = record.queue.expect("a pick").as_secs_f64() * 1e3;
        assert!((waited - queue_ms).abs() < 0.001, "{waited} {queue_ms}");
        assert!(record.decision.is_none(), "told and forgotten");
        let expected = json!({
            "policy": "round-robin", "reason": "turn", "queue_ms": null, "endpoint": addrs[0],
            "candidates": [
                { "endpoint": addrs[0], "cost": 0.0, "terms": { "turn": 0.0 } },
                { "endpoint": addrs[1], "cost": 1.0, "terms": { "turn": 1.0 } },
            ],
        });
        assert_eq!(told, expected);
        let headers = server.handle().last().expect("a request").headers;
        assert!(!headers.contains_key("x-tokenweir-explain"), "{headers:?}");
    }
}

#[tokio::test]
async fn predicted_tells_seconds() {
    let (_server, setting) = Setting::with_sim().await;
    use_policy(&setting, Policy::Predicted);
    let told = decision(&setting.ask(&asking(false)).await);
    assert_eq!((&told["policy"], &told["cost_unit"]), (&json!("predicted"), &json!("seconds")));
    let candidate = &told["candidates"][0];
    let terms = candidate["terms"].as_object().expect("terms");
    assert!(terms.contains_key("prefill"), "{told}");
    let sum: f64 = terms.values().filter_map(Value::as_f64).sum();
    assert!((candidate["cost"].as_f64().expect("a cost") - sum).abs() < 1e-5, "{told}");
}

#[tokio::test]
async fn nobody_else_is_told() {
    let server = fast_sim().await;
    let setting = Setup::new(&[server.addr()]).start();
    for headers in ["", "X-Tokenweir-Explain: 0\r\n", "X-Tokenweir-Explain: true\r\n"] {
        let body = completion(false, 1);
        let reply = setting.ask(&post_with("/v1/completions", headers, body.as_bytes())).await;
        assert_eq!((reply.code, reply.header("x-tokenweir-decision")), (200, None));
    }
    let setting = Setup::new(&[server.addr()]).no_endpoint_header().start();
    let reply = setting.ask(&asking(false)).await;
    assert_eq!((reply.code, reply.header("x-tokenweir-decision")), (200, None));
    let headers = server.handle().last().expect("a request").headers;
    assert!(!headers.contains_key("x-tokenweir-explain"), "{headers:?}");
}

#[tokio::test]
async fn when_another_endpoint_answers_the_decision_is_still_the_picks() {
    let (gone, server) = (Port::free(), fast_sim().await);
    let setting = Setup::new(&[gone.addr, server.addr()]).start();
    let reply = setting.ask(&asking(true)).await;
    assert_eq!(decision(&reply)["endpoint"], json!(gone.addr.to_string()));
    assert_eq!(reply.header("x-tokenweir-endpoint"), Some(server.addr().to_string().as_str()));
}

#[tokio::test]
async fn errors_tell_the_decision_if_there_was_one() {
    let gone = Port::free();
    let setting = Setup::new(&[gone.addr]).start();
    let reply = setting.ask(&asking(false)).await;
    assert_eq!((reply.code, reply.header("x-tokenweir-reason")), (502, Some("unreachable")));
    assert_eq!(decision(&reply)["reason"], "only");
    assert_eq!(
        setting.ask(&post("/v1/completions", "{}")).await.header("x-tokenweir-decision"),
        None
    );
    let reply = setting.ask(&post_with("/v1/completions", ASK, b"[]")).await;
    assert_eq!((reply.code, reply.header("x-tokenweir-decision")), (400, None));

    let fake = Fake::answering(json_answer("404 Not Found", "{}")).await;
    let setting = Setup::new(&[fake.addr]).start();
    let reply = setting.ask(&asking(false)).await;
    assert_eq!((reply.code, &decision(&reply)["reason"]), (404, &json!("only")));
}
