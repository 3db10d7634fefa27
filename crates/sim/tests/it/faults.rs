//! The ways to break a server, each seen from a client.

use http::StatusCode;
use sim::{Fault, Server, SimConfig};

use crate::wire::{Wire, exchange, get, post};

fn completion(stream: bool) -> Vec<u8> {
    let body = format!(r#"{{"prompt": "x", "max_tokens": 50, "stream": {stream}}}"#);
    post("/v1/completions", &body)
}

#[tokio::test]
async fn a_refusing_server_answers_at_once_and_looks_healthy() {
    let server = Server::start(SimConfig::fast()).await.unwrap();
    server.handle().set_fault(Fault::Status(StatusCode::INTERNAL_SERVER_ERROR));
    for stream in [true, false] {
        assert_eq!(exchange(server.addr(), &completion(stream)).await.code(), 500);
    }
    assert_eq!(exchange(server.addr(), &get("/health")).await.code(), 200);
    server.handle().set_fault(Fault::None);
    assert_eq!(exchange(server.addr(), &completion(false)).await.code(), 200);
}

#[tokio::test]
async fn a_hanging_server_gives_no_byte_until_its_client_leaves() {
    let server = Server::start(SimConfig::fast()).await.unwrap();
    server.handle().set_fault(Fault::Hang);
    let mut wire = Wire::open(server.addr()).await;
    wire.send(&completion(true)).await;
    server.handle().until(|handle| handle.requests() == 1).await;
    assert_eq!((server.handle().in_flight(), server.handle().live()), (1, 0));
    assert_eq!(exchange(server.addr(), &get("/health")).await.code(), 200);
    drop(wire);
    server.handle().until(|handle| handle.in_flight() == 0).await;
}

#[tokio::test]
async fn a_cut_stream_has_its_first_tokens_and_no_end() {
    let server = Server::start(SimConfig::fast()).await.unwrap();
    server.handle().set_fault(Fault::CutAfter(7));
    let reply = exchange(server.addr(), &completion(true)).await;
    assert_eq!((reply.code(), reply.complete), (200, false));
    assert!(reply.texts().len() <= 7);
    let plain = exchange(server.addr(), &completion(false)).await;
    assert_eq!(plain.code(), 0, "not one byte");
    server.handle().until(|handle| handle.in_flight() == 0).await;
}

#[tokio::test]
async fn a_dying_engine_ends_its_streams_politely() {
    let server = Server::start(SimConfig::fast()).await.unwrap();
    server.handle().set_fault(Fault::DieAfter(3));
    let reply = exchange(server.addr(), &completion(true)).await;
    assert!(reply.complete);
    assert_eq!(reply.texts().len(), 3);
    let error = &reply.chunks[3];
    assert!(error.starts_with(r#"data: {"error":{"message":"EngineCore encountered"#), "{error}");
    assert_eq!(reply.chunks.last().unwrap(), "data: [DONE]\n\n");
    assert_eq!(exchange(server.addr(), &completion(false)).await.code(), 500);
}

#[tokio::test]
async fn a_frozen_engine_looks_healthy_and_its_metrics_stand_still() {
    let server = Server::start(SimConfig { speedup: 20.0, ..SimConfig::default() }).await.unwrap();
    let mut wire = Wire::open(server.addr()).await;
    wire.send(&completion(true)).await;
    wire.chunks(2).await;
    server.handle().set_fault(Fault::Freeze);
    let before = server.handle().generation_tokens();
    assert_eq!(exchange(server.addr(), &get("/health")).await.code(), 200);
    assert_eq!(exchange(server.addr(), &get("/metrics")).await.code(), 200);
    assert_eq!(server.handle().generation_tokens(), before);
    server.handle().set_fault(Fault::None);
    assert_eq!(wire.answer().await.texts().len(), 50);
}

#[tokio::test]
async fn health_and_metrics_can_fail_alone() {
    let server = Server::start(SimConfig::fast()).await.unwrap();
    let handle = server.handle();
    handle.set_fault(Fault::Unhealthy);
    assert_eq!(exchange(server.addr(), &get("/health")).await.code(), 503);
    handle.set_fault(Fault::MetricsStatus(StatusCode::BAD_GATEWAY));
    assert_eq!(exchange(server.addr(), &get("/metrics")).await.code(), 502);
    handle.set_fault(Fault::MetricsGarbage);
    assert!(!exchange(server.addr(), &get("/metrics")).await.body().contains("# TYPE"));
    assert_eq!(exchange(server.addr(), &completion(false)).await.code(), 200);
}
