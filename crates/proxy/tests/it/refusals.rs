//! The gateway's own answers: status, reason and shape of each.

use std::time::Duration;

use picker::{Finish, Health};
use serde_json::Value;

use crate::{
    fake::Fake,
    setting::{Port, Setting, Setup, completion, fast_sim, soon},
    wire::{Ended, Reply, get, post, post_with},
};

/// A refusal as OpenAI's clients expect it.
pub(crate) fn check_shape(reply: &Reply, code: u16, reason: &str) {
    assert_eq!((reply.code, reply.header("x-tokenweir-reason")), (code, Some(reason)), "{reply:?}");
    assert_eq!(reply.ended, Ended::Clean);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert!(reply.header("x-request-id").is_some_and(|id| !id.is_empty()));
    let error = &reply.json()["error"];
    assert!(error["message"].as_str().is_some_and(|message| message.len() > 20), "{error}");
    assert!(error["type"].is_string());
    assert_eq!((&error["param"], &error["code"]), (&Value::Null, &code.into()));
    let comes_back =
        ["no_endpoints", "overloaded", "shed", "queue_full", "queue_timeout"].contains(&reason);
    assert_eq!(reply.header("retry-after").is_some(), comes_back);
}

/// The request is refused, and recorded as refused.
pub(crate) async fn check_refused(
    setting: &Setting,
    request: &[u8],
    code: u16,
    reason: &'static str,
) -> Reply {
    let before = setting.records().len();
    let reply = setting.ask(request).await;
    check_shape(&reply, code, reason);
    let record = setting.record(before + 1).await;
    assert_eq!(record.finish, Some(Finish::Refused(reason)));
    assert_eq!((record.response_code, record.bytes_sent), (code, reply.body.len() as u64));
    assert_eq!(Some(record.request_id.as_str()), reply.header("x-request-id"));
    reply
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_refused_and_reaches_no_endpoint() {
    let (server, setting) = Setting::with_sim().await;
    let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let long = format!(r#"{{"model":"{}"}}"#, "m".repeat(1 << 20));
    let bodies: [&[u8]; 19] = [
        b"",
        b" ",
        b"hello",
        b"[]",
        b"\"text\"",
        b"null",
        b"{",
        br#"{"model":"m","prompt":"#,
        br#"{"model":"m"}}"#,
        br#"{"model":"m"} {"model":"n"}"#,
        br#"{"model":1}"#,
        br#"{"model":["m"]}"#,
        br#"{"model":"m","model":"n"}"#,
        br#"{"model":"m","\u006dodel":"n"}"#,
        b"{\"model\":\"\xff\"}",
        b"{\"model\":\"m\0\"}",
        b"\0\0\0\0",
        deep.as_bytes(),
        long.as_bytes(),
    ];
    for body in bodies {
        let request = post_with("/v1/chat/completions", "", body);
        check_refused(&setting, &request, 400, "invalid_body").await;
    }
    assert_eq!(server.handle().requests(), 0);
    let refusals = setting.metric("tokenweir_refusals_total", &[r#"reason="invalid_body""#]);
    assert_eq!(refusals, bodies.len() as u64);
}

#[tokio::test]
async fn a_refusal_of_messages_has_anthropics_shape() {
    let (_server, setting) = Setting::with_sim().await;
    let reply = setting.ask(&post("/v1/messages", "[]")).await;
    assert_eq!((reply.code, reply.header("x-tokenweir-reason")), (400, Some("invalid_body")));
    let body = reply.json();
    assert_eq!(body["type"], "error");
    assert_eq!(body["error"]["type"], "invalid_request_error");
    assert!(body["error"]["message"].is_string());
}

fn small_bodies(pool: &mut picker::PoolSpec) {
    pool.delivery.body_bytes_max = 1000;
}

fn small(limits: &mut proxy::Limits) {
    limits.header_bytes_max = 2000;
    limits.headers_max = 20;
}

#[tokio::test]
async fn a_body_too_large_by_its_own_account_is_refused_unread() {
    let server = fast_sim().await;
    let setting = Setup::new(&[server.addr()]).pool(small_bodies).start();
    for (length, fits) in [(1000, true), (1001, false), (100_000_000_000_u64, false)] {
        let mut wire = setting.wire().await;
        let head = "POST /v1/completions HTTP/1.1\r\nHost: test.com\r\nContent-Length:";
        wire.send(format!("{head} {length}\r\n\r\n").as_bytes()).await;
        if fits {
            wire.send(&[b'x'; 1000]).await;
            check_shape(&wire.answer().await, 400, "invalid_body");
        } else {
            let reply = wire.answer().await;
            check_shape(&reply, 413, "too_large");
            assert_eq!(reply.header("connection"), Some("close"));
            assert_eq!(wire.closed().await, b"");
        }
    }
}

#[tokio::test]
async fn a_chunked_body_is_refused_where_it_becomes_too_large() {
    let server = fast_sim().await;
    let setting = Setup::new(&[server.addr()]).pool(small_bodies).start();
    let head = "POST /v1/completions HTTP/1.1\r\nHost: test.com\r\nTransfer-Encoding: chunked\r\n";
    for (chunks, fits) in [(10, true), (11, false)] {
        let chunk = format!("64\r\n{}\r\n", "x".repeat(100));
        let mut wire = setting.wire().await;
        wire.send(format!("{head}\r\n{}", chunk.repeat(chunks)).as_bytes()).await;
        if fits {
            wire.send(b"0\r\n\r\n").await;
            check_shape(&wire.answer().await, 400, "invalid_body");
        } else {
            check_shape(&wire.answer().await, 413, "too_large");
        }
    }
    assert_eq!(setting.record(2).await.finish, Some(Finish::Refused("too_large")));
}

#[tokio::test]
async fn a_head_too_large_is_refused() {
    let server = fast_sim().await;
    let setting = Setup::new(&[server.addr()]).limits(small).start();
    let many = "X-Many: 1\r\n".repeat(25);
    let long = format!("X: {}\r\n", "x".repeat(2000));
    let body = completion(false, 1);
    for headers in [many, long] {
        let request = post_with("/v1/completions", &headers, body.as_bytes());
        check_refused(&setting, &request, 431, "too_large").await;
    }
    let path = format!("/v1/models?{}", "x".repeat(2000));
    check_refused(&setting, &get(&path), 431, "too_large").await;
    assert_eq!(server.handle().requests(), 0);
    setting.check_serves().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_refused_in_time() {
    let server = fast_sim().await;
    let setting = Setup::new(&[server.addr()])
        .limits(|limits| limits.body_read_timeout = Duration::from_millis(50))
        .start();
    let mut wire = setting.wire().await;
    wire.send(&post("/v1/completions", &completion(false, 1))[..150]).await;
    let reply = wire.answer().await;
    check_shape(&reply, 408, "body_timeout");
    assert_eq!(wire.closed().await, b"");
}

#[tokio::test]
async fn a_request_without_a_route_is_refused() {
    let (server, setting) = Setting::with_sim().await;
    let request = post("/v1/completions", &completion(false, 1));
    for host in ["other.com", "test.com.evil.com", "xtest.com", "[::1]"] {
        let text = String::from_utf8_lossy(&request).replace("test.com", host);
        let reply = check_refused(&setting, text.as_bytes(), 404, "no_route").await;
        let message = reply.json()["error"]["message"].to_string();
        assert!(message.contains("/v1/completions"), "{message}");
    }
    assert_eq!(server.handle().requests(), 0);
    assert_eq!(setting.record(1).await.response_flags, "NR");
}

#[tokio::test]
async fn a_request_without_one_host_is_refused() {
    let (server, setting) = Setting::with_sim().await;
    let request =
        String::from_utf8_lossy(&post("/v1/completions", &completion(false, 1))).into_owned();
    let empty = request.replace("test.com", "");
    let two = request.replacen("\r\n", "\r\nHost: other.com\r\n", 1);
    let other = |host: &str| request.replace("test.com", host);
    for text in [empty, two, other("test.com, a"), other("a b/c@test.com"), other("test.com:80:80")]
    {
        check_refused(&setting, text.as_bytes(), 400, "invalid_host").await;
    }
    assert_eq!(server.handle().requests(), 0);
}

#[tokio::test]
async fn a_request_for_no_path_is_refused() {
    let (server, setting) = Setting::with_sim().await;
    for target in ["test.com", "test.com:443", "*"] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: test.com\r\n\r\n");
        let reply = check_refused(&setting, request.as_bytes(), 400, "malformed_head").await;
        let message = reply.json()["error"]["message"].to_string();
        assert!(message.contains("target"), "{message}");
    }
    assert_eq!(server.handle().requests(), 0);
    assert_eq!(setting.record(1).await.response_flags, "DPE");
}

#[tokio::test]
async fn a_tunnel_is_no_request() {
    let (server, setting) = Setting::with_sim().await;
    let connect = b"CONNECT test.com:443 HTTP/1.1\r\nHost: test.com:443\r\n\r\n";
    check_refused(&setting, connect, 404, "no_route").await;
    assert_eq!(server.handle().requests(), 0);
}

#[tokio::test]
async fn a_pool_without_a_ready_endpoint_refuses() {
    let request = post("/v1/completions", &completion(true, 1));
    let setting = Setup::new(&[]).start();
    let reply = check_refused(&setting, &request, 503, "no_endpoints").await;
    assert_eq!(reply.header("retry-after"), Some("1"));

    let (server, setting) = Setting::with_sim().await;
    let id = setting.view.members()[0].endpoint.spec.id.clone();
    setting.writer.health(&id, Health::Unready);
    check_refused(&setting, &request, 503, "no_endpoints").await;
    assert_eq!(server.handle().requests(), 0);
    setting.writer.health(&id, Health::Ready);
    assert_eq!(setting.ask(&request).await.code, 200);
}

#[tokio::test]
async fn endpoints_that_cannot_be_connected_to_are_named_unreachable() {
    let (one, other) = (Port::free(), Port::free());
    let setting = Setup::new(&[one.addr, other.addr]).start();
    let request = post("/v1/completions", &completion(true, 1));
    check_refused(&setting, &request, 502, "unreachable").await;
    let record = setting.record(1).await;
    assert_eq!((record.attempts, record.response_flags), (2, "UF"));
    assert_eq!(record.upstream_host, Some(other.addr.to_string()));
}

/// A request that may have had an effect.
fn unrepeatable() -> Vec<u8> {
    post("/v1/load_lora_adapter", r#"{"lora_name":"new","lora_path":"/new"}"#)
}

#[tokio::test]
async fn a_request_that_may_have_been_served_is_not_sent_twice() {
    let fake = Fake::start(|mut conn| async move {
        if conn.request().await.is_some() {
            conn.reset();
        }
    })
    .await;
    let server = fast_sim().await;
    let setting = Setup::new(&[fake.addr, server.addr()]).start();
    check_refused(&setting, &unrepeatable(), 502, "reset").await;
    assert_eq!(setting.record(1).await.attempts, 1);
    assert_eq!(fake.seen().len(), 1);
}

#[tokio::test]
async fn a_request_that_was_never_sent_goes_elsewhere_whatever_it_is() {
    let nobody = Port::free();
    let server = fast_sim().await;
    let setting = Setup::new(&[nobody.addr, server.addr()]).start();
    let reply = setting.ask(&unrepeatable()).await;
    assert_eq!(reply.code, 200, "{reply:?}");
    assert_eq!(setting.record(1).await.attempts, 2);
}

#[tokio::test]
async fn an_endpoint_that_does_not_speak_http_is_a_reset() {
    let fake = Fake::answering_and_closing("SSH-2.0-OpenSSH_9.6\r\n\r\n").await;
    let setting = Setup::new(&[fake.addr]).start();
    let request = post("/v1/completions", &completion(true, 1));
    check_refused(&setting, &request, 502, "reset").await;
}

#[tokio::test]
async fn a_route_has_a_timeout_for_the_whole_answer() {
    let fake = Fake::falling_silent_after("").await;
    let setting = Setup::new(&[fake.addr]).timeout(Duration::from_millis(50)).start();
    let request = post("/v1/completions", &completion(true, 1));
    check_refused(&setting, &request, 504, "route_timeout").await;
}

#[tokio::test]
async fn a_first_token_has_a_timeout_if_there_is_to_be_one() {
    let fake = Fake::falling_silent_after("").await;
    // The other has to be in time.
    let limit = Some(Duration::from_millis(500));
    let setting = Setup::new(&[fake.addr])
        .pool(move |pool| pool.delivery.first_token_timeout = limit)
        .start();
    let request = post("/v1/completions", &completion(true, 1));
    check_refused(&setting, &request, 504, "first_token_timeout").await;
    assert_eq!(fake.seen().len(), 1);

    let server = fast_sim().await;
    let setting = Setup::new(&[fake.addr, server.addr()])
        .pool(move |pool| pool.delivery.first_token_timeout = limit)
        .start();
    let reply = soon("an answer from the other", setting.ask(&request)).await;
    assert_eq!((reply.code, reply.ended), (200, Ended::Clean));
    assert_eq!(setting.record(1).await.attempts, 2);
}

#[tokio::test]
async fn a_long_host_or_path_does_not_make_a_long_refusal() {
    let (_server, setting) = Setting::with_sim().await;
    let text = String::from_utf8_lossy(&get(&format!("/{}", "p".repeat(30_000))))
        .replace("test.com", &"h".repeat(30_000));
    let reply = check_refused(&setting, text.as_bytes(), 404, "no_route").await;
    assert!(reply.body.len() < 1000, "{}", reply.body.len());
    let record = setting.record(1).await;
    assert!(record.authority.len() <= 1024 && record.path.len() <= 1024);
}

#[tokio::test]
async fn bodies_together_have_a_limit_and_give_their_room_back() {
    let server = fast_sim().await;
    let narrow = |limits: &mut proxy::Limits| limits.bodies_bytes_max = 256 * 1024;
    let setting = Setup::new(&[server.addr()]).limits(narrow).start();
    let head = "POST /v1/completions HTTP/1.1\r\nHost: test.com\r\nContent-Length: 400000\r\n\r\n";
    // One body holds the room by not ending; the next finds too little left.
    let mut first = setting.wire().await;
    first.send(head.as_bytes()).await;
    first.send(&vec![b' '; 200_000]).await;
    let refused = || async {
        let mut wire = setting.wire().await;
        wire.send(head.as_bytes()).await;
        wire.send(&vec![b' '; 399_999]).await;
        wire.answer().await
    };
    check_shape(&refused().await, 503, "overloaded");
    drop(first);
    let small = post("/v1/completions", &completion(false, 1));
    assert_eq!(setting.ask(&small).await.code, 200);
}

#[tokio::test]
async fn a_body_that_comes_in_one_piece_takes_room_too() {
    let server = fast_sim().await;
    let none = |limits: &mut proxy::Limits| limits.bodies_bytes_max = 0;
    let setting = Setup::new(&[server.addr()]).limits(none).start();
    let padded = |bytes: usize| completion(false, 1) + &" ".repeat(bytes);
    let mut wire = setting.wire().await;
    // What is not counted passes. Each makes more be read at once of what comes next.
    for bytes in [10, 20, 40, 60] {
        let header = format!("X: {}\r\n", "x".repeat(10_000));
        let small = post_with("/v1/completions", &header, padded(bytes * 1000).as_bytes());
        for _ in 0..3 {
            wire.send(&small).await;
            assert_eq!(wire.answer().await.code, 200);
        }
    }
    wire.send(&post("/v1/completions", &padded(80_000))).await;
    check_shape(&wire.answer().await, 503, "overloaded");
}
