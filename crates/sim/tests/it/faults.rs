//! The ways to break a server, each seen from a client.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use http::StatusCode;
use serde_json::Value;
use sim::{Fault, Fleet, Handle, Server, SimConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::wire::{Wire, exchange, get, post};

fn completion(stream: bool) -> Vec<u8> {
    let body = format!(r#"{{"prompt": "x", "max_tokens": 50, "stream": {stream}}}"#);
    post("/v1/completions", &body)
}

#[tokio::test]
async fn a_server_that_fails_answers_at_once_and_looks_healthy() {
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

async fn is_refused(addr: SocketAddr) -> bool {
    let connected = TcpStream::connect(addr).await;
    connected.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

async fn page(addr: SocketAddr) -> String {
    exchange(addr, &get("/metrics")).await.body()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

#[tokio::test]
async fn a_server_that_refuses_cuts_its_connections_and_comes_back_on_its_port() {
    let server = Server::start(SimConfig { speedup: 20.0, ..SimConfig::default() }).await.unwrap();
    let handle = server.handle();
    let mut wire = Wire::open(server.addr()).await;
    wire.send(&completion(true)).await;
    wire.chunks(2).await;
    handle.set_fault(Fault::Refuse);
    handle.until(Handle::settled).await;
    assert!(!wire.answer().await.complete);
    assert!(is_refused(server.addr()).await);
    assert_eq!((handle.connections(), handle.in_flight(), handle.live()), (0, 0, 0));
    let before = handle.metrics().prompt_tokens;
    assert!(before > 0);
    // Refused twice is refused.
    handle.set_fault(Fault::Refuse);
    handle.until(Handle::settled).await;
    assert!(is_refused(server.addr()).await);
    handle.set_fault(Fault::None);
    handle.until(Handle::settled).await;
    assert_eq!(exchange(server.addr(), &completion(false)).await.code(), 200);
    assert!(handle.metrics().prompt_tokens > before, "counters go on");
}

#[tokio::test]
async fn a_server_broken_before_it_runs_is_broken_when_it_runs() {
    let server = Server::bind(SimConfig::fast(), ([127, 0, 0, 1], 0).into()).await.unwrap();
    let (addr, handle) = (server.addr(), server.handle());
    handle.set_fault(Fault::Refuse);
    let test = async {
        handle.until(Handle::settled).await;
        assert!(is_refused(addr).await);
        handle.set_fault(Fault::None);
        handle.until(Handle::settled).await;
        assert_eq!(exchange(addr, &completion(false)).await.code(), 200);
    };
    server.run(test).await;
    assert!(is_refused(addr).await);
}

#[tokio::test]
async fn a_port_taken_meanwhile_is_tried_again() {
    let server = Server::start(SimConfig::fast()).await.unwrap();
    let handle = server.handle();
    handle.set_fault(Fault::Refuse);
    handle.until(Handle::settled).await;
    let thief = TcpListener::bind(server.addr()).await.unwrap();
    handle.set_fault(Fault::None);
    // The thief accepts, not the server.
    let (wire, accepted) = tokio::join!(TcpStream::connect(server.addr()), thief.accept());
    assert!(wire.is_ok() && accepted.is_ok() && !handle.settled());
    drop((wire, accepted, thief));
    handle.until(Handle::settled).await;
    assert_eq!(exchange(server.addr(), &completion(false)).await.code(), 200);
}

#[tokio::test]
async fn a_crashed_server_comes_back_cold() {
    let server = Server::start(SimConfig::fast()).await.unwrap();
    let (addr, handle) = (server.addr(), server.handle());
    let prompt = "the same long prompt ".repeat(40);
    let long = post(
        "/v1/completions",
        &format!(r#"{{"prompt": "{prompt}", "max_tokens": 5, "model": "sql-lora"}}"#),
    );
    assert_eq!(exchange(addr, &long).await.code(), 200);
    assert_eq!(exchange(addr, &long).await.code(), 200);
    assert!(handle.metrics().prefix_hits > 0);
    let load = r#"{"lora_name": "new", "lora_path": "/somewhere/new"}"#;
    assert_eq!(exchange(addr, &post("/v1/load_lora_adapter", load)).await.code(), 200);
    // One that is in the middle of its answer is lost.
    handle.set_fault(Fault::Freeze);
    let mut wire = Wire::open(addr).await;
    wire.send(&long).await;
    handle.until(|handle| handle.live() == 1).await;

    handle.set_fault(Fault::Crash(Duration::from_millis(50)));
    handle.until(Handle::settled).await;
    wire.closed().await;
    assert_eq!((handle.live(), handle.in_flight(), handle.connections()), (0, 0, 0));
    handle.until(|handle| handle.fault() == Fault::None && handle.settled()).await;

    let page = page(addr).await;
    assert!(
        page.contains("vllm:prompt_tokens_total{engine=\"0\",model_name=\"/model/llama2\"} 0.0")
    );
    assert!(!page.contains("/v1/completions"), "answers are counted anew");
    assert!(!page.contains("sql-lora"));
    let models = exchange(addr, &get("/v1/models")).await.body();
    assert!(models.contains("\"sql-lora\"") && !models.contains("\"new\""), "{models}");
    assert_eq!(exchange(addr, &long).await.code(), 200);
    assert_eq!(handle.metrics().prefix_hits, 0, "the cache was empty");
    assert_eq!(exchange(addr, &long).await.code(), 200);
    assert!(handle.metrics().prefix_hits > 0);
    assert_eq!(handle.requests(), 5, "the handle counts on");
}

#[tokio::test(start_paused = true)]
async fn a_crashed_server_is_away_as_long_as_it_was_told() {
    let server = Server::start(SimConfig::fast()).await.unwrap();
    let began = Instant::now();
    server.handle().set_fault("crash".parse().unwrap());
    server.handle().until(Handle::settled).await;
    assert!(is_refused(server.addr()).await);
    server.handle().until(|handle| handle.fault() == Fault::None && handle.settled()).await;
    assert!(began.elapsed() >= Duration::from_secs(5));
    assert!(began.elapsed() < Duration::from_secs(6));
}

#[tokio::test]
async fn a_crash_that_is_over_at_once_has_happened() {
    let server = Server::start(SimConfig::fast()).await.unwrap();
    assert_eq!(exchange(server.addr(), &completion(false)).await.code(), 200);
    server.handle().set_fault(Fault::Crash(Duration::from_hours(1)));
    server.handle().set_fault(Fault::None);
    server.handle().until(Handle::settled).await;
    assert_eq!(server.handle().generation_tokens(), 0);
    assert_eq!(exchange(server.addr(), &completion(false)).await.code(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_stall_ends_by_itself_and_only_if_it_is_still_there() {
    let server = Server::start(SimConfig::fast()).await.unwrap();
    let handle = server.handle();
    let began = Instant::now();
    handle.set_fault(Fault::FreezeFor(Duration::from_secs(30)));
    assert_eq!(exchange(server.addr(), &completion(false)).await.code(), 200);
    assert!(began.elapsed() >= Duration::from_secs(30));
    assert_eq!(handle.fault(), Fault::None);
    handle.set_fault(Fault::FreezeFor(Duration::from_secs(30)));
    handle.set_fault(Fault::Unhealthy);
    tokio::time::advance(Duration::from_mins(1)).await;
    assert_eq!(exchange(server.addr(), &get("/health")).await.code(), 503);
}

#[tokio::test]
async fn a_share_of_the_requests_fails_and_the_same_ones_for_equal_seeds() {
    let mut failures = Vec::new();
    for seed in [1, 1, 2] {
        let server = Server::start(SimConfig { seed, ..SimConfig::fast() }).await.unwrap();
        server.handle().set_fault("status:503@0.4".parse().unwrap());
        let mut codes = Vec::new();
        let body = r#"{"prompt": "x", "max_tokens": 1}"#;
        for _ in 0..40 {
            codes.push(exchange(server.addr(), &post("/v1/completions", body)).await.code());
        }
        let failed = codes.iter().filter(|code| **code == 503).count();
        assert!((8..=24).contains(&failed), "{failed} of 40");
        assert!(codes.iter().all(|code| [200, 503].contains(code)), "{codes:?}");
        assert_eq!(exchange(server.addr(), &get("/health")).await.code(), 200);
        failures.push(codes);
    }
    assert_eq!(failures[0], failures[1]);
    assert_ne!(failures[0], failures[2]);
}

#[tokio::test(start_paused = true)]
async fn slow_metrics_come_late() {
    let server = Server::start(SimConfig::fast()).await.unwrap();
    server.handle().set_fault(Fault::MetricsSlow(Duration::from_secs(30)));
    let began = Instant::now();
    assert_eq!(exchange(server.addr(), &get("/health")).await.code(), 200);
    assert!(began.elapsed() < Duration::from_secs(30));
    assert!(page(server.addr()).await.contains("vllm:num_requests_running"));
    assert!(began.elapsed() >= Duration::from_secs(30));
}

#[tokio::test]
async fn frozen_metrics_repeat_themselves_while_the_engine_goes_on() {
    let server = Server::start(SimConfig::fast()).await.unwrap();
    assert_eq!(exchange(server.addr(), &completion(false)).await.code(), 200);
    server.handle().set_fault(Fault::MetricsFrozen);
    let frozen = page(server.addr()).await;
    assert!(frozen.contains("vllm:generation_tokens_total"));
    assert_eq!(exchange(server.addr(), &completion(false)).await.code(), 200);
    assert_eq!(page(server.addr()).await, frozen);
    server.handle().set_fault(Fault::None);
    assert_ne!(page(server.addr()).await, frozen);
}

#[tokio::test]
async fn metrics_can_get_the_old_names_and_back() {
    let server = Server::start(SimConfig::fast()).await.unwrap();
    let old = |page: &str| {
        (page.contains("vllm:gpu_cache_usage_perc"), page.contains("vllm:kv_cache_usage_perc"))
    };
    assert_eq!(old(&page(server.addr()).await), (false, true));
    server.handle().set_fault(Fault::MetricsOld);
    assert_eq!(old(&page(server.addr()).await), (true, false));
    server.handle().set_fault(Fault::None);
    assert_eq!(old(&page(server.addr()).await), (false, true));
}

#[tokio::test]
async fn a_fault_is_told_and_set_over_http() {
    let server = Server::start(SimConfig::fast()).await.unwrap();
    let addr = server.addr();
    let told = exchange(addr, &get("/admin/fault")).await;
    assert_eq!((told.code(), told.body().as_str()), (200, r#"{"fault":"none"}"#));
    for (body, fault) in [
        ("stall\n", Fault::Freeze),
        (r#"{"fault":"reset:5"}"#, Fault::CutAfter(5)),
        ("metrics-hang", Fault::MetricsHang),
        ("none", Fault::None),
    ] {
        let told = exchange(addr, &post("/admin/fault", body)).await;
        assert_eq!((told.code(), told.body()), (200, format!(r#"{{"fault":"{fault}"}}"#)));
        assert_eq!(server.handle().fault(), fault);
    }
    for body in ["", "stal", "{", r#"{"fault":5}"#, r#"{"fault":"stal"}"#, &"x".repeat(5000)] {
        let told = exchange(addr, &post("/admin/fault", body)).await;
        assert_eq!(told.code(), if body.len() > 4096 { 413 } else { 400 }, "{body}");
        let message = &json(&told.body())["error"]["message"];
        assert!(body.len() > 4096 || message.as_str().unwrap().contains("metrics-slow:SECONDS"));
    }
    let told = exchange(addr, b"DELETE /admin/fault HTTP/1.1\r\nhost: test.com\r\n\r\n").await;
    assert_eq!((told.code(), told.header("allow")), (405, Some("GET, POST")));
    assert!(!page(addr).await.contains("/admin"), "vLLM has no such path");
}

#[tokio::test]
async fn a_server_that_is_told_to_refuse_or_crash_answers_first() {
    let server = Server::start(SimConfig::fast()).await.unwrap();
    for (body, shown) in [("refuse", "refuse"), ("crash", "crash:5")] {
        let told = exchange(server.addr(), &post("/admin/fault", body)).await;
        assert_eq!((told.code(), told.body()), (200, format!(r#"{{"fault":"{shown}"}}"#)));
        assert_eq!(told.header("connection"), Some("close"));
        let gone = |handle: &Handle| handle.fault().to_string() == shown && handle.settled();
        server.handle().until(gone).await;
        assert!(is_refused(server.addr()).await);
        server.handle().set_fault(Fault::None);
        server.handle().until(Handle::settled).await;
        assert_eq!(exchange(server.addr(), &get("/health")).await.code(), 200);
    }
}

#[tokio::test]
async fn a_fleet_is_broken_and_watched_from_one_address() {
    let local = ([127, 0, 0, 1], 0).into();
    let fleet = Fleet::bind(SimConfig::fast(), local, 3).await.unwrap();
    let fleet = fleet.controlled_at(local).await.unwrap();
    let (addrs, control) = (fleet.addrs(), fleet.control_addr().unwrap());
    let faults = |reply: &str| -> Vec<String> {
        let servers = json(reply)["servers"].as_array().unwrap().clone();
        servers.iter().map(|server| server["fault"].as_str().unwrap().to_owned()).collect()
    };
    let test = async {
        assert_eq!(exchange(addrs[1], &completion(false)).await.code(), 200);
        let told = exchange(control, &post("/faults/1", "refuse")).await;
        assert_eq!(told.code(), 200);
        let expected = serde_json::json!({
            "index": 1, "addr": addrs[1].to_string(), "fault": "refuse", "running": 0, "waiting": 0,
            "kv_cache_usage": 0.0, "requests": 1
        });
        assert_eq!(json(&told.body()), expected);
        assert!(is_refused(addrs[1]).await, "the answer waits until it is so");
        let page = exchange(control, &get("/faults")).await.body();
        assert_eq!(faults(&page), ["none", "refuse", "none"]);
        let told = exchange(control, &post("/faults", r#"{"fault":"crash"}"#)).await;
        assert_eq!(faults(&told.body()), ["crash:5"; 3]);
        for addr in &addrs {
            assert!(is_refused(*addr).await);
        }
        assert_eq!(faults(&exchange(control, &post("/faults", "none")).await.body()), ["none"; 3]);
        for addr in &addrs {
            assert_eq!(exchange(*addr, &get("/health")).await.code(), 200);
        }
        for (request, code) in [
            (get("/faults/2"), 200),
            (get("/faults/3"), 404),
            (get("/faults/"), 404),
            (get("/faulty"), 404),
            (get("/"), 404),
            (post("/faults/3", "stall"), 404),
            (post("/faults/0", "stal"), 400),
            (b"PUT /faults HTTP/1.1\r\nhost: test.com\r\n\r\n".to_vec(), 405),
        ] {
            let what = String::from_utf8_lossy(&request).into_owned();
            assert_eq!(exchange(control, &request).await.code(), code, "{what}");
        }
    };
    fleet.run(test).await;
    assert!(is_refused(control).await);
}
