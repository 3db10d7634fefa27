//! What a client of the server lives through.

use std::net::SocketAddr;

use sim::{Fleet, FleetError, Server, SimConfig};

use crate::wire::{Wire, exchange, get, post};

const PROMPT: &str = "Write as if you were a critic: San Francisco";

fn completion(model: &str, tokens: u32, stream: bool) -> Vec<u8> {
    let body = format!(
        r#"{{"model": "{model}", "prompt": "{PROMPT}", "max_tokens": {tokens}, "temperature": 0, "stream": {stream}}}"#
    );
    post("/v1/completions", &body)
}

#[tokio::test]
async fn an_answer_is_the_text_that_the_settings_foretell_streamed_or_not() {
    let config = SimConfig::fast();
    let server = Server::start(config.clone()).await.unwrap();
    let other = Server::start(config.clone()).await.unwrap();
    for model in ["tweet-summary", "/model/llama2", ""] {
        let expected = config.completion_text(model, PROMPT, 100);
        let plain = exchange(server.addr(), &completion(model, 100, false)).await;
        let plain: serde_json::Value = serde_json::from_str(&plain.body()).unwrap();
        assert_eq!(plain["choices"][0]["text"], expected.as_str(), "{model}");
        assert_eq!(plain["usage"]["completion_tokens"], 100);
        assert_eq!(plain["usage"]["prompt_tokens"], 14);
        let streamed = exchange(other.addr(), &completion(model, 100, true)).await.texts();
        assert_eq!((streamed.len(), streamed.concat()), (100, expected), "{model}");
    }
    assert_eq!(server.handle().generation_tokens(), 300);
    assert_eq!(server.handle().prompt_tokens(), 42);
}

#[tokio::test]
async fn a_chat_without_a_limit_ends_by_itself_and_with_ignore_eos_at_the_context() {
    let mut config = SimConfig::fast();
    config.profile.max_model_len = 1500;
    let server = Server::start(config).await.unwrap();
    let chat = |more: &str| {
        let body = format!(r#"{{"messages": [{{"role": "user", "content": "Hi"}}]{more}}}"#);
        post("/v1/chat/completions", &body)
    };
    for (more, reason, all) in [("", "stop", false), (r#", "ignore_eos": true"#, "length", true)] {
        let reply = exchange(server.addr(), &chat(more)).await;
        let reply: serde_json::Value = serde_json::from_str(&reply.body()).unwrap();
        assert_eq!(reply["choices"][0]["finish_reason"], reason);
        assert_eq!(reply["usage"]["total_tokens"] == 1500, all, "{reply}");
    }
}

#[tokio::test]
async fn the_load_header_tells_of_the_others_and_in_either_case() {
    let server = Server::start(SimConfig::default()).await.unwrap();
    let mut other = Wire::open(server.addr()).await;
    other.send(&completion("", 2000, true)).await;
    other.chunks(1).await;
    for format in ["TEXT", "text", "Json", "json"] {
        let head =
            format!("content-type: application/json\r\nendpoint-load-metrics-format: {format}");
        let request = String::from_utf8(completion("", 1, false)).unwrap();
        let request = request.replacen("content-type: application/json", &head, 1);
        let reply = exchange(server.addr(), request.as_bytes()).await;
        let told = reply.header("endpoint-load-metrics").expect("a load");
        let (form, told) = told.split_once(' ').expect("a form");
        assert_eq!(form, format.to_ascii_uppercase());
        let usage = if form == "JSON" {
            let told: serde_json::Value = serde_json::from_str(told).unwrap();
            assert_eq!(told["named_metrics"]["num_requests_waiting"], 0.0);
            told["named_metrics"]["kv_cache_usage_perc"].as_f64()
        } else {
            let (waiting, usage) = told.split_once(", ").expect("two values");
            assert_eq!(waiting, "named_metrics.num_requests_waiting=0.0");
            usage.strip_prefix("named_metrics.kv_cache_usage_perc=").and_then(|u| u.parse().ok())
        };
        assert!(usage.is_some_and(|usage| usage > 0.0 && usage < 0.5), "{usage:?}");
    }
}

#[tokio::test]
async fn a_streams_head_comes_before_the_request_is_scheduled() {
    // Steps of half a minute: nothing is scheduled to its end during the test.
    let config = SimConfig { speedup: 0.001, ..SimConfig::default() };
    let server = Server::start(config).await.unwrap();
    let mut wire = Wire::open(server.addr()).await;
    wire.send(&completion("", 10, true)).await;
    let head = wire.head().await;
    assert_eq!(head.code(), 200);
    assert_eq!(head.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert_eq!(server.handle().generation_tokens(), 0);
}

#[tokio::test]
async fn a_client_that_leaves_frees_its_place_streaming_or_not() {
    let server = Server::start(SimConfig { speedup: 20.0, ..SimConfig::default() }).await.unwrap();
    let handle = server.handle();
    for (round, stream) in [(1, true), (2, false)] {
        let mut wire = Wire::open(server.addr()).await;
        wire.send(&completion("", 4000, stream)).await;
        if stream {
            wire.chunks(3).await;
        } else {
            handle.until(|handle| handle.metrics().running == 1).await;
        }
        assert_eq!(handle.in_flight(), 1);
        drop(wire);
        handle.until(|handle| handle.metrics().running == 0 && handle.in_flight() == 0).await;
        assert_eq!((handle.aborted(), handle.live()), (round, 0));
    }
    assert!(handle.generation_tokens() < 8000);
}

#[tokio::test]
async fn a_slow_reader_does_not_slow_the_engine() {
    let server = Server::start(SimConfig::fast()).await.unwrap();
    let mut slow = Wire::open(server.addr()).await;
    slow.send(&completion("", 4000, true)).await;
    slow.head().await;
    // Nobody reads the 900 kB of this answer until another client has all of its own.
    let quick = exchange(server.addr(), &completion("", 4000, true)).await;
    assert_eq!(quick.texts().len(), 4000);
    server.handle().until(|handle| handle.metrics().finished_length == 2).await;
    assert_eq!(slow.answer().await.texts(), quick.texts());
}

#[tokio::test]
async fn a_connection_carries_many_requests() {
    let server = Server::start(SimConfig::fast()).await.unwrap();
    let mut wire = Wire::open(server.addr()).await;
    for stream in [false, true, false, true] {
        wire.send(&completion("sql-lora", 5, stream)).await;
        assert!(wire.answer().await.complete);
    }
    assert_eq!(server.handle().connections_total(), 1);
    assert_eq!(server.handle().requests(), 4);
}

#[tokio::test]
async fn a_burst_is_served_whole_and_its_load_is_seen() {
    let server = Server::start(SimConfig { speedup: 200.0, ..SimConfig::default() }).await.unwrap();
    let mut wires = Vec::new();
    for client in 0..40 {
        let mut wire = Wire::open(server.addr()).await;
        let prompt = "word ".repeat(400);
        let body =
            format!(r#"{{"prompt": "{client} {prompt}", "max_tokens": 150, "stream": true}}"#);
        wire.send(&post("/v1/completions", &body)).await;
        wires.push(wire);
    }
    server.handle().until(|h| h.metrics().waiting_capacity > 0 && h.metrics().running > 5).await;
    for wire in &mut wires {
        assert_eq!(wire.answer().await.texts().len(), 150);
    }
    let handle = server.handle();
    handle.until(|handle| handle.in_flight() == 0).await;
    assert_eq!((handle.live(), handle.aborted()), (0, 0));
    assert_eq!(handle.generation_tokens(), 40 * 150);
}

#[tokio::test]
async fn the_handle_shows_what_arrived() {
    let server = Server::start(SimConfig::fast()).await.unwrap();
    exchange(server.addr(), &completion("sql-lora", 5, false)).await;
    let seen = server.handle().last().unwrap();
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/v1/completions"));
    assert_eq!(seen.headers["host"], "test.com");
    assert!(seen.body.starts_with(br#"{"model": "sql-lora""#));
    for _ in 0..100 {
        exchange(server.addr(), &completion("", 1, false)).await;
    }
    assert_eq!(server.handle().recent().len(), sim::server::RECENT_MAX);
}

#[tokio::test]
async fn what_is_not_simulated_is_refused_in_words() {
    let server = Server::start(SimConfig::fast()).await.unwrap();
    // (fields, part of the message)
    for (fields, part) in [
        (r#""prompt": "x", "n": 2"#, "n=2 is not simulated"),
        (r#""prompt": ["x", "y"]"#, "a batch of 2 prompts is not simulated"),
        (r#""prompt": "x", "max_tokens": 4096"#, "you requested 4096 output tokens"),
        (r#""prompt": "x", "max_tokens": "many""#, "valid integer"),
    ] {
        let body = format!("{{{fields}}}");
        let reply = exchange(server.addr(), &post("/v1/completions", &body)).await;
        assert_eq!(reply.code(), 400, "{fields}");
        assert!(reply.body().contains(part), "{fields}: {}", reply.body());
    }
}

#[tokio::test]
async fn a_full_queue_is_told_in_vllms_words() {
    let config = SimConfig { speedup: 0.001, waiting_max: 0, ..SimConfig::default() };
    let server = Server::start(config).await.unwrap();
    let reply = exchange(server.addr(), &completion("", 5, true)).await;
    assert_eq!(reply.code(), 503);
    assert!(reply.body().starts_with(r#"{"error":{"message":"The engine is currently busy"#));
}

#[tokio::test]
async fn a_stopped_server_cuts_its_streams_and_frees_its_port() {
    let config = SimConfig::default();
    let server = Server::start(config.clone()).await.unwrap();
    let addr = server.addr();
    let mut wire = Wire::open(addr).await;
    wire.send(&completion("", 1000, true)).await;
    wire.chunks(1).await;
    server.stop().await;
    assert!(!wire.answer().await.complete);
    let again = Server::start_at(config, addr).await.unwrap();
    assert_eq!(exchange(again.addr(), &get("/health")).await.code(), 200);
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_new_one_is_not() {
    let server = Server::start(SimConfig::fast()).await.unwrap();
    let mut used = Wire::open(server.addr()).await;
    used.send(&get("/health")).await;
    assert_eq!(used.head().await.code(), 200);
    let unused = Wire::open(server.addr()).await;
    // Once everybody only waits, a paused clock jumps to the next timer, which is the server's.
    tokio::time::pause();
    used.closed().await;
    server.handle().until(|handle| handle.connections() == 1).await;
    drop(unused);
}

#[tokio::test]
async fn a_fleet_answers_with_one_voice_and_says_which_address_is_taken() {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let fleet = Fleet::bind(SimConfig::fast(), any, 3).await.unwrap();
    let addrs = fleet.addrs();
    let taken = Fleet::bind(SimConfig::fast(), addrs[0], 1).await.unwrap_err();
    assert!(matches!(taken, FleetError::Bind { addr, .. } if addr == addrs[0]));
    assert!(taken.to_string().contains(&addrs[0].to_string()), "{taken}");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let ask = async {
        let mut texts = Vec::new();
        for addr in &addrs {
            texts.push(exchange(*addr, &completion("", 20, true)).await.texts());
        }
        assert_eq!(texts[0].len(), 20);
        assert!(texts.iter().all(|text| *text == texts[0]));
        drop(stop);
    };
    let serve = fleet.run(async {
        let _ = stopped.await;
    });
    tokio::join!(serve, ask);
    let last = SocketAddr::from(([127, 0, 0, 1], 65_535));
    for (first, replicas) in [(any, 0), (last, 2), (any, 2000)] {
        let refused = Fleet::bind(SimConfig::fast(), first, replicas).await;
        assert!(matches!(refused, Err(FleetError::Count { .. })), "{first} {replicas}");
    }
}
