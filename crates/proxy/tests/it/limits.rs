//! Limits of client connections: each ends in a clear answer where there is somebody to read it,
//! and in a count.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use openai::{ErrorShape, error_body};
use picker::Finish;
use proxy::Limits;
use tokio::{io::AsyncReadExt, net::TcpStream, sync::Notify, task::JoinSet};

use crate::{
    fake::{Fake, LAST_CHUNK, STREAM_HEAD, TOKEN, chunk},
    setting::{Setting, Setup, check_left, completion, fast_sim, slow_sim, soon, until},
    wire::{Ended, get, post, post_with},
};

/// A time that is over soon, and long enough for a request on a busy machine.
const SHORT: Duration = Duration::from_millis(300);
/// More than the buffers between two programs can hold.
const LARGE_BYTES: usize = 32 << 20;

fn reached(setting: &Setting, limit: &str) -> u64 {
    setting.metric("tokenweir_limits_reached_total", &[&format!("{limit:?}")])
}

async fn limited(change: impl FnOnce(&mut Limits)) -> (sim::Running, Setting) {
    let server = fast_sim().await;
    let setting = Setup::new(&[server.addr()]).limits(change).start();
    (server, setting)
}

/// These bytes are no head that could be served: the answer says so as the gateway's answers do.
async fn check_unread(bytes: &[u8], code: u16, reason: &'static str) {
    let (server, setting) = Setting::with_sim().await;
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
    let mut wire = setting.wire().await;
    wire.try_send(bytes).await;
    let reply = wire.answer().await;
    assert_eq!((reply.code, reply.ended), (code, Ended::Clean), "{shown}: {reply:?}");
    assert_eq!(reply.header("x-tokenweir-reason"), Some(reason), "{shown}");
    assert_eq!(reply.header("connection"), Some("close"), "{shown}");
    let request_id = reply.header("x-request-id").map(str::to_owned);
    let message = reply.json()["error"]["message"].as_str().expect("a message").to_owned();
    assert_eq!(reply.body, error_body(ErrorShape::OpenAi, code, &message), "{shown}");
    let record = setting.record(1).await;
    assert_eq!(record.finish, Some(Finish::Refused(reason)), "{shown}");
    assert_eq!((record.response_code, record.method.as_str()), (code, "-"), "{shown}");
    assert_eq!(request_id, Some(record.request_id), "{shown}");
    assert_eq!(setting.metric("tokenweir_refusals_total", &[reason]), 1, "{shown}");
    assert_eq!(server.handle().requests(), 0, "{shown}");
    setting.check_serves().await;
}

#[tokio::test]
async fn a_head_that_cannot_be_read_is_refused_as_everything_else_is() {
    for bytes in [
        &b"GET / HTTP/9.9\r\nHost: test.com\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\nHost test.com\r\n\r\n",
        b"G\xc3\x89T / HTTP/1.1\r\nHost: test.com\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00",
        b"GET / HTTP/1.1\r\nHost: test.com\r\nX-A: b\r\n folded\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: test.com\r\nContent-Length: 5, 6\r\n\r\n",
    ] {
        check_unread(bytes, 400, "malformed_head").await;
    }
    check_unread(&get(&format!("/{}", "p".repeat(1 << 17))), 414, "too_large").await;
    let many = "X-A: b\r\n".repeat(1000);
    check_unread(&post_with("/v1/completions", &many, b"{}"), 431, "too_large").await;
    let long = format!("X-A: {}\r\n", "b".repeat(1 << 20));
    check_unread(&post_with("/v1/completions", &long, b"{}"), 431, "too_large").await;
}

#[tokio::test]
async fn an_endpoints_own_bare_refusal_passes_as_it_is() {
    for code in ["400 Bad Request", "414 URI Too Long", "431 Request Header Fields Too Large"] {
        let fake = Fake::answering(format!("HTTP/1.1 {code}\r\ncontent-length: 0\r\n\r\n")).await;
        let setting = Setup::new(&[fake.addr]).start();
        let mut wire = setting.wire().await;
        for _ in 0..2 {
            wire.send(&get("/v1/models")).await;
            let reply = wire.answer().await;
            assert_eq!((reply.body.len(), reply.header("x-tokenweir-reason")), (0, None));
            assert!(code.starts_with(&reply.code.to_string()));
        }
    }
}

#[tokio::test]
async fn a_body_that_looks_like_a_refusal_passes_as_it_is() {
    let body = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    let passed = Arc::new(Notify::new());
    let head_passed = Arc::clone(&passed);
    let fake = Fake::start(move |mut conn| {
        let (head, head_passed) = (head.clone(), Arc::clone(&head_passed));
        async move {
            conn.request().await;
            conn.send(&head).await;
            head_passed.notified().await;
            conn.send(body).await;
        }
    })
    .await;
    let setting = Setup::new(&[fake.addr]).start();
    let mut wire = setting.wire().await;
    wire.send(&get("/v1/models")).await;
    wire.so_far(|reply| reply.code == 200).await;
    passed.notify_one();
    assert_eq!(wire.answer().await.text(), body);
}

#[tokio::test]
async fn a_first_byte_alone_says_nothing_yet() {
    let (_server, setting) = Setting::with_sim().await;
    for (rest, code) in [("/v1/completions", 200), ("HTTP/9.9\r\n\r\n", 400)] {
        let request = post(rest, &completion(false, 1));
        let mut wire = setting.wire().await;
        wire.send(&request[..1]).await;
        // All on one thread: when this is answered, what came before it has been read.
        setting.check_serves().await;
        wire.send(&request[1..]).await;
        let reply = wire.answer().await;
        assert_eq!(reply.code, code);
        let reason = (code == 400).then_some("malformed_head");
        assert_eq!(reply.header("x-tokenweir-reason"), reason);
    }
}

/// A large body, of which nothing is read, and all that the client hears when it has sent it.
async fn heard_after(bytes: &[u8], setting: &Setting) -> Vec<u8> {
    let mut wire = setting.wire().await;
    wire.send(bytes).await;
    let mut stream = wire.into_stream();
    let mut heard = Vec::new();
    soon("an end", stream.read_to_end(&mut heard)).await.expect("no reset");
    heard
}

#[tokio::test]
async fn a_client_that_sends_on_hears_why_it_is_refused() {
    let server = fast_sim().await;
    let setting =
        Setup::new(&[server.addr()]).pool(|pool| pool.delivery.body_bytes_max = 1000).start();
    // More than the buffers of two sockets hold.
    let large = "x".repeat(12 << 20);
    let said = heard_after(&post("/v1/completions", &large), &setting).await;
    assert!(said.starts_with(b"HTTP/1.1 413 "), "{:?}", String::from_utf8_lossy(&said));
    let head = "POST /v1/completions HTTP/9.9\r\n\r\n";
    let said = heard_after(format!("{head}{large}").as_bytes(), &setting).await;
    assert!(said.starts_with(b"HTTP/1.1 400 "), "{:?}", String::from_utf8_lossy(&said));
}

#[tokio::test]
async fn a_head_that_does_not_come_is_told_so() {
    let (_server, setting) = limited(|limits| limits.header_read_timeout = SHORT).await;
    for (nth, again) in [(1, false), (2, true)] {
        let mut wire = setting.wire().await;
        if again {
            wire.send(&get("/v1/models")).await;
            assert_eq!(wire.answer().await.code, 200);
        }
        wire.send(b"POST /v1/compl").await;
        let reply = wire.answer().await;
        assert_eq!((reply.code, reply.ended), (408, Ended::Clean));
        assert_eq!(reply.header("x-tokenweir-reason"), Some("header_timeout"));
        assert_eq!(wire.closed().await, b"");
        assert_eq!(reached(&setting, "header-timeout"), nth);
    }
    let records = setting.records();
    let late = Some(Finish::Refused("header_timeout"));
    assert_eq!(records.iter().filter(|record| record.finish == late).count(), 2);
}

#[tokio::test]
async fn a_connection_without_requests_is_closed_and_counted() {
    let (_server, setting) = limited(|limits| limits.connection_idle_timeout = SHORT).await;
    let mut wire = setting.wire().await;
    wire.send(&get("/v1/models")).await;
    assert_eq!(wire.answer().await.code, 200);
    assert_eq!(wire.closed().await, b"");
    assert_eq!(reached(&setting, "connection-idle-timeout"), 1);
    assert_eq!(setting.records().len(), 1, "nobody was refused");
}

#[tokio::test]
async fn an_old_connection_is_closed_after_an_answer_that_says_so() {
    let (_server, setting) = limited(|limits| limits.connection_age_max = SHORT).await;
    let mut wire = setting.wire().await;
    let mut answers = 0;
    loop {
        wire.send(&get("/v1/models")).await;
        let reply = wire.answer().await;
        assert_eq!((reply.code, reply.ended), (200, Ended::Clean));
        answers += 1;
        if reply.header("connection") == Some("close") {
            break;
        }
    }
    assert_eq!(wire.closed().await, b"");
    assert_eq!(reached(&setting, "connection-age"), 1);
    assert_eq!(setting.records().len(), answers, "no request was lost");
}

/// An HTTP/2 client whose streams may hold this much unread.
async fn http2(
    setting: &Setting,
    window_bytes: u32,
) -> (http2::SendRequest<Full<Bytes>>, JoinSet<()>) {
    let stream = TcpStream::connect(setting.addr).await.expect("the proxy listens");
    let (sender, driven) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(window_bytes)
        .initial_connection_window_size(1 << 24)
        .handshake(TokioIo::new(stream))
        .await
        .expect("a handshake");
    let mut connection = JoinSet::new();
    connection.spawn(async move { drop(driven.await) });
    (sender, connection)
}

async fn asked(
    sender: &mut http2::SendRequest<Full<Bytes>>,
    stream: bool,
    tokens: u32,
) -> Response<Incoming> {
    let request = Request::post("http://test.com/v1/completions")
        .header("content-type", "application/json")
        .body(Full::new(completion(stream, tokens).into()))
        .expect("a request");
    soon("a response", sender.send_request(request)).await.expect("a response")
}

#[tokio::test]
async fn an_old_http_2_connection_finishes_its_streams_and_closes() {
    let server = slow_sim().await;
    let setting =
        Setup::new(&[server.addr()]).limits(|limits| limits.connection_age_max = SHORT).start();
    let (mut sender, mut connection) = http2(&setting, 1 << 20).await;
    let response = asked(&mut sender, true, 30).await;
    until("the connection's age reached", || reached(&setting, "connection-age") == 1).await;
    let body = soon("the body", response.into_body().collect()).await.expect("a whole body");
    let text = String::from_utf8(body.to_bytes().to_vec()).expect("text");
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    soon("the connection closed", connection.join_next()).await;
}

#[tokio::test]
async fn an_idle_http_2_connection_is_closed() {
    let (_server, setting) = limited(|limits| limits.connection_idle_timeout = SHORT).await;
    let (mut sender, mut connection) = http2(&setting, 1 << 20).await;
    let body = asked(&mut sender, false, 1).await.into_body();
    soon("the body", body.collect()).await.expect("a whole body");
    soon("the connection closed", connection.join_next()).await;
    assert_eq!(reached(&setting, "connection-idle-timeout"), 1);
}

/// A stream of more than anybody buffers.
async fn large() -> Fake {
    let piece = chunk(&TOKEN.repeat(400));
    Fake::start(move |mut conn| {
        let piece = piece.clone();
        async move {
            conn.request().await;
            conn.send(STREAM_HEAD).await;
            for _ in 0..LARGE_BYTES / piece.len() {
                if !conn.send(&piece).await {
                    return;
                }
            }
            conn.send(LAST_CHUNK).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_client_that_stops_reading_gives_its_claim_back() {
    let fake = large().await;
    let setting = Setup::new(&[fake.addr]).limits(|limits| limits.write_timeout = SHORT).start();
    let mut wire = setting.wire().await;
    wire.send(&post("/v1/completions", &completion(true, 9))).await;
    check_left(&setting.record(1).await);
    assert_eq!(reached(&setting, "write-timeout"), 1);
    assert_eq!(setting.in_flight(), 0);
    until("no connection left", || setting.connections.running() == 1).await;
    drop(wire);
}

#[tokio::test]
async fn a_client_that_knows_no_chunks_and_stops_reading_sees_a_reset() {
    let fake = large().await;
    let setting = Setup::new(&[fake.addr]).limits(|limits| limits.write_timeout = SHORT).start();
    let request = post("/v1/completions", &completion(true, 9));
    let request = String::from_utf8(request).expect("text").replace("HTTP/1.1", "HTTP/1.0");
    let mut wire = setting.wire().await;
    wire.send(request.as_bytes()).await;
    check_left(&setting.record(1).await);
    until("no connection left", || setting.connections.running() == 1).await;
    let mut said = Vec::new();
    let read = wire.into_stream().read_to_end(&mut said).await;
    let error = read.expect_err("no clean end");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_all_of_it() {
    let fake = large().await;
    let setting = Setup::new(&[fake.addr])
        .limits(|limits| limits.write_timeout = Duration::from_secs(5))
        .start();
    let mut wire = setting.wire().await;
    wire.send(&post("/v1/completions", &completion(true, 9))).await;
    let mut stream = wire.into_stream();
    let mut piece = vec![0; 2 << 20];
    for _ in 0..4 {
        soon("a piece", stream.read_exact(&mut piece)).await.expect("the answer goes on");
        // Nothing for a while that is shorter than the limit.
        tokio::time::sleep(SHORT).await;
    }
    assert_eq!(reached(&setting, "write-timeout"), 0);
    drop(stream);
    setting.record(1).await;
}

#[tokio::test]
async fn an_http_2_stream_nobody_reads_is_reset_and_its_neighbours_go_on() {
    let fake = large().await;
    let setting = Setup::new(&[fake.addr]).limits(|limits| limits.write_timeout = SHORT).start();
    let (mut sender, _connection) = http2(&setting, 1 << 16).await;
    let mut unread = asked(&mut sender, true, 9).await;
    check_left(&setting.record(1).await);
    assert_eq!((reached(&setting, "write-timeout"), setting.in_flight()), (1, 0));
    let mut read = 0;
    let cut = loop {
        match soon("a frame", unread.frame()).await.expect("no clean end") {
            Ok(frame) => read += frame.into_data().map_or(0, |data| data.len()),
            Err(cut) => break cut,
        }
    };
    assert!(read <= 1 << 16, "{read} {cut}");

    let mut neighbour = asked(&mut sender, true, 9).await;
    let mut read = 0;
    while read < LARGE_BYTES / 2 {
        let frame = soon("a frame", neighbour.frame()).await.expect("more").expect("data");
        read += frame.into_data().map_or(0, |data| data.len());
    }
    assert_eq!(setting.metric("tokenweir_connections_total", &["accepted"]), 1);
}

#[tokio::test]
async fn as_many_requests_as_one_http_2_connection_may_have_are_counted() {
    let server = slow_sim().await;
    let setting =
        Setup::new(&[server.addr()]).limits(|limits| limits.http2_streams_max = 3).start();
    let (mut sender, _connection) = http2(&setting, 1 << 20).await;
    let first = asked(&mut sender, false, 1).await;
    soon("the body", first.into_body().collect()).await.expect("a body");
    assert_eq!(reached(&setting, "http2-streams"), 0);
    let mut requests = JoinSet::new();
    for _ in 0..9 {
        let mut sender = sender.clone();
        requests.spawn(async move {
            let response = asked(&mut sender, true, 5).await;
            response.into_body().collect().await.expect("a whole body");
        });
    }
    while let Some(done) = soon("all answers", requests.join_next()).await {
        done.expect("an answer: those above the limit wait for their turn");
    }
    assert!(reached(&setting, "http2-streams") > 0);
    setting.record(10).await;
}
