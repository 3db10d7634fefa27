//! The load that an endpoint tells along with its answer.

use std::net::SocketAddr;

use picker::Desired;
use scheduling::Policy;

use crate::{
    fake::{Fake, LAST_CHUNK, STREAM_HEAD, TOKEN, chunk, json_answer},
    setting::{Setting, Setup, completion, fast_sim},
    wire::{Reply, get, post, post_with},
};

const TOLD: &str =
    "TEXT named_metrics.num_requests_waiting=3.0, named_metrics.kv_cache_usage_perc=0.75";

/// A proxy whose policy goes by what the endpoint says.
fn listening_to(endpoint: SocketAddr) -> Setting {
    let setting = Setup::new(&[endpoint]).start();
    let mut desired = Desired::clone(&setting.view.desired());
    desired.pools[0].policy = Policy::QueueKv;
    setting.writer.apply(desired);
    setting
}

/// The KV use on which the latest decision went; none if the endpoint had not told.
fn kv_usage_seen(setting: &Setting) -> Option<f64> {
    let decision = setting.view.decisions().remove(0);
    let mut terms = decision.candidates[0].1.terms();
    terms.find(|term| term.name == "kv").map(|term| term.value)
}

async fn complete(setting: &Setting, headers: &str) -> Reply {
    let body = completion(false, 1);
    setting.ask(&post_with("/v1/completions", headers, body.as_bytes())).await
}

fn telling(status: &str, told: &str) -> String {
    let told = format!("endpoint-load-metrics: {told}\r\ncontent-type");
    json_answer(status, "{}").replacen("content-type", &told, 1)
}

/// Whether a request of these asked for the load, and in which format.
fn asked(seen: &[String]) -> Vec<&str> {
    let lines = seen.iter().flat_map(|request| request.lines());
    lines.filter_map(|line| line.strip_prefix("endpoint-load-metrics-format: ")).collect()
}

#[tokio::test]
async fn the_gateway_asks_for_the_load_and_decides_by_it_without_the_clients_notice() {
    let fake = Fake::answering(telling("200 OK", TOLD)).await;
    let setting = listening_to(fake.addr);
    let reply = complete(&setting, "").await;
    assert_eq!((reply.code, reply.header("endpoint-load-metrics")), (200, None));
    assert_eq!(asked(&fake.seen()), ["TEXT"]);
    assert_eq!(kv_usage_seen(&setting), None);
    let reply = complete(&setting, "").await;
    assert_eq!((reply.code, reply.header("endpoint-load-metrics")), (200, None));
    assert_eq!(kv_usage_seen(&setting), Some(0.75));
}

#[tokio::test]
async fn a_simulated_server_tells_as_vllm_does() {
    let server = fast_sim().await;
    let setting = listening_to(server.addr());
    let reply = complete(&setting, "").await;
    assert_eq!((reply.code, reply.header("endpoint-load-metrics")), (200, None));
    let headers = server.handle().last().expect("a request").headers;
    assert_eq!(headers["endpoint-load-metrics-format"], "TEXT");
    complete(&setting, "").await;
    assert_eq!(kv_usage_seen(&setting), Some(0.0));
}

#[tokio::test]
async fn what_a_client_asks_for_is_its_own_and_heard_on_the_way() {
    let told =
        r#"JSON {"named_metrics": {"num_requests_waiting": 1.0, "kv_cache_usage_perc": 0.5}}"#;
    let fake = Fake::answering(telling("200 OK", told)).await;
    let setting = listening_to(fake.addr);
    let reply = complete(&setting, "Endpoint-Load-Metrics-Format: JSON\r\n").await;
    assert_eq!(reply.header("endpoint-load-metrics"), Some(told));
    assert_eq!(asked(&fake.seen()), ["JSON"]);
    complete(&setting, "").await;
    assert_eq!(kv_usage_seen(&setting), Some(0.5));
}

#[tokio::test]
async fn answers_that_never_tell_are_not_asked() {
    let stream = format!("{STREAM_HEAD}{}{LAST_CHUNK}", chunk(&format!("{TOKEN}data: [DONE]\n\n")));
    let fake = Fake::answering(stream).await;
    let setting = listening_to(fake.addr);
    assert_eq!(setting.ask(&post("/v1/completions", &completion(true, 1))).await.code, 200);
    assert_eq!(asked(&fake.seen()), [""; 0]);
    let fake = Fake::answering(json_answer("200 OK", "{}")).await;
    let setting = listening_to(fake.addr);
    for request in [
        get("/v1/models"),
        post("/v1/embeddings", "{}"),
        post("/v1/responses", "{}"),
        post("/v1/messages", "{}"),
        post("/tokenize", "{}"),
    ] {
        assert_eq!(setting.ask(&request).await.code, 200);
    }
    assert_eq!((fake.seen().len(), asked(&fake.seen())), (5, vec![]));
}

#[tokio::test]
async fn what_makes_no_sense_or_comes_with_an_error_is_not_heard() {
    let long = format!("{TOLD}{}", ", x=1".repeat(10_000));
    for (status, told) in [
        ("200 OK", "TEXT named_metrics.num_requests_waiting=NaN"),
        ("200 OK", "garbage \u{e9}"),
        ("200 OK", ""),
        ("200 OK", &long),
        ("404 Not Found", TOLD),
        ("500 Internal Server Error", TOLD),
    ] {
        let fake = Fake::answering(telling(status, told)).await;
        let setting = listening_to(fake.addr);
        for _ in 0..2 {
            let reply = complete(&setting, "").await;
            assert_eq!(reply.code.to_string(), status[..3]);
            assert_eq!(reply.header("endpoint-load-metrics"), None);
            assert_eq!(kv_usage_seen(&setting), None, "{status} {told:.80}");
        }
    }
}
