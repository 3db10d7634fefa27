//! A model that some endpoints do not have, as while an adapter is loaded at one after the other.

use std::net::SocketAddr;

use picker::Finish;
use sim::Running;

use crate::{
    fake::{Fake, json_answer},
    setting::{MODEL, Setting, Setup, completion, fast_sim},
    wire::{Wire, post},
};

/// What vLLM 0.32.0, its Anthropic interface, and vLLM 0.8.5 say of a model they do not have.
const UNKNOWN: [&str; 3] = [
    r#"{"error":{"message":"The model `a` does not exist. Valid aliases: b.","type":"NotFoundError","param":"model","code":404}}"#,
    r#"{"type":"error","error":{"type":"NotFoundError","message":"The model `a` does not exist. Valid aliases: b."}}"#,
    r#"{"object":"error","message":"The model `a` does not exist.","type":"NotFoundError","param":null,"code":404}"#,
];

fn completion_of(model: &str) -> Vec<u8> {
    post("/v1/completions", &completion(false, 1).replace(MODEL, model))
}

async fn load_adapter(server: &Running, name: &str) {
    let mut wire = Wire::open(server.addr()).await;
    let body = format!(r#"{{"lora_name":"{name}","lora_path":"/adapters/{name}"}}"#);
    wire.send(&post("/v1/load_lora_adapter", &body)).await;
    assert_eq!(wire.answer().await.code, 200);
}

fn moves(setting: &Setting) -> u64 {
    setting.metric("tokenweir_retries_total", &["outcome=\"model_not_found\""])
}

/// The endpoint answers with this that it has no such model, and another one is asked instead.
async fn check_passed_over(unknown: &str) {
    let fake = Fake::answering(json_answer("404 Not Found", unknown)).await;
    let server = fast_sim().await;
    let setting = Setup::new(&[fake.addr, server.addr()]).start();
    for nth in 1..=4 {
        let reply = setting.ask(&post("/v1/completions", &completion(nth % 2 == 1, 3))).await;
        assert_eq!(reply.code, 200, "{reply:?}");
        let record = setting.record(nth).await;
        assert_eq!(record.upstream_host, Some(server.addr().to_string()));
        assert_eq!(record.finish, Some(Finish::Complete(Some("length".into()))));
        assert_eq!(record.attempts, if nth == 1 { 2 } else { 1 }, "it is remembered");
    }
    assert_eq!((fake.seen().len(), moves(&setting)), (1, 1));
}

#[tokio::test]
async fn an_endpoint_without_the_model_is_passed_over_and_not_asked_again() {
    for unknown in UNKNOWN {
        check_passed_over(unknown).await;
    }
}

#[tokio::test]
async fn an_adapter_that_one_endpoint_has_is_found() {
    let servers = [fast_sim().await, fast_sim().await, fast_sim().await];
    load_adapter(&servers[2], "only-here").await;
    let addrs: Vec<SocketAddr> = servers.iter().map(Running::addr).collect();
    let setting = Setup::new(&addrs).start();
    for _ in 0..6 {
        let reply = setting.ask(&completion_of("only-here")).await;
        assert_eq!((reply.code, &reply.json()["model"]), (200, &"only-here".into()));
    }
    assert_eq!(moves(&setting), 2, "each of the others was asked once");
    // Of another model nothing is known.
    let reply = setting.ask(&completion_of(MODEL)).await;
    assert_eq!(reply.header("x-tokenweir-endpoint"), Some(addrs[0].to_string().as_str()));
}

#[tokio::test]
async fn a_model_that_nobody_has_gets_the_last_endpoints_answer() {
    let (first, second) = (fast_sim().await, fast_sim().await);
    let setting = Setup::new(&[first.addr(), second.addr()]).start();
    let reply = setting.ask(&completion_of("nowhere")).await;
    assert_eq!((reply.code, &reply.json()["error"]["param"]), (404, &"model".into()));
    assert_eq!(reply.header("x-tokenweir-endpoint"), Some(second.addr().to_string().as_str()));
    assert_eq!(reply.header("x-tokenweir-reason"), None);
    let record = setting.record(1).await;
    assert_eq!((record.attempts, record.response_code), (2, 404));
    assert_eq!(setting.ask(&completion_of("nowhere")).await.code, 404);
    assert_eq!(setting.record(2).await.attempts, 1, "nobody is asked who has just said no");
}

#[tokio::test]
async fn models_an_endpoint_does_not_have_are_not_held_against_it() {
    let fake = Fake::answering(json_answer("404 Not Found", UNKNOWN[0])).await;
    let setting = Setup::new(&[fake.addr]).start();
    for nth in 1..=8 {
        let reply = setting.ask(&completion_of(&format!("model-{nth}"))).await;
        assert_eq!((reply.code, reply.text().as_str()), (404, UNKNOWN[0]));
        assert_eq!(setting.record(nth).await.attempts, 1);
    }
    assert_eq!((setting.trouble(fake.addr), fake.seen().len()), (None, 8));
}

#[tokio::test]
async fn what_an_endpoint_did_not_have_is_forgotten_when_the_pool_changes() {
    let (first, second) = (fast_sim().await, fast_sim().await);
    let setting = Setup::new(&[first.addr(), second.addr()]).start();
    load_adapter(&second, "adapter").await;
    assert_eq!(setting.ask(&completion_of("adapter")).await.code, 200);
    load_adapter(&first, "adapter").await;
    setting.change(|pool| pool.delivery.attempts_max = 1);
    let mut answered = Vec::new();
    for _ in 0..2 {
        let reply = setting.ask(&completion_of("adapter")).await;
        assert_eq!(reply.code, 200);
        answered.push(reply.header("x-tokenweir-endpoint").map(str::to_owned));
    }
    assert!(answered.contains(&Some(first.addr().to_string())), "{answered:?}");
    assert_eq!(moves(&setting), 1);
}

fn moves_for_the_operation(setting: &Setting) -> u64 {
    setting.metric("tokenweir_retries_total", &["outcome=\"operation_not_found\""])
}

#[tokio::test]
async fn a_wrong_server_at_an_endpoints_address_is_passed_over_and_not_asked_again() {
    let page =
        "HTTP/1.1 404 Not Found\r\ncontent-type: text/html\r\ncontent-length: 9\r\n\r\nnot found";
    for answer in [page.to_owned(), json_answer("404 Not Found", r#"{"detail":"Not Found"}"#)] {
        let fake = Fake::answering(answer).await;
        let server = fast_sim().await;
        let setting = Setup::new(&[fake.addr, server.addr()]).start();
        for nth in 1..=6 {
            let reply = setting.ask(&post("/v1/completions", &completion(nth % 2 == 0, 3))).await;
            assert_eq!(reply.code, 200, "{reply:?}");
            assert_eq!(setting.record(nth).await.attempts, if nth == 1 { 2 } else { 1 });
        }
        assert_eq!((fake.seen().len(), moves_for_the_operation(&setting)), (1, 1));
    }
}

#[tokio::test]
async fn what_no_endpoint_knows_is_held_against_none() {
    let not_found = || Fake::answering(json_answer("404 Not Found", r#"{"detail":"Not Found"}"#));
    let (first, second) = (not_found().await, not_found().await);
    let setting = Setup::new(&[first.addr, second.addr]).start();
    for nth in 1..=4 {
        let reply = setting.ask(&post("/v1/completions", &completion(false, 3))).await;
        assert_eq!((reply.code, &reply.json()["detail"]), (404, &"Not Found".into()));
        assert_eq!(setting.record(nth).await.attempts, 2);
    }
    assert_eq!((first.seen().len(), second.seen().len()), (4, 4));
}
