//! A client that leaves takes its request with it, wherever that is.

use std::time::Duration;

use picker::Finish;
use sim::{Fault, Handle, Profile, Running, Server, SimConfig};

use crate::{
    fake::Fake,
    setting::{Setting, Setup, check_left, completion, slow_sim, soon, until},
    wire::{Wire, post},
};

/// Tokens whose making takes longer than any test.
const MANY: u32 = 3000;

async fn slow() -> (Running, Setting) {
    let server = slow_sim().await;
    let setting = Setup::new(&[server.addr()]).start();
    (server, setting)
}

async fn gone_from(handle: &Handle) {
    let gone = handle.until(|h| h.aborted() == 1 && h.in_flight() == 0 && h.live() == 0);
    soon("the request aborted at the endpoint", gone).await;
}

/// The first request's record says that its client left, and nothing is charged any more.
async fn check_recorded(setting: &Setting) {
    let record = setting.record(1).await;
    check_left(&record);
    assert_eq!(record.usage, openai::Usage::default(), "nobody has told");
    assert_eq!(setting.metric("tokenweir_client_disconnects_total", &[]), 1);
}

#[tokio::test]
async fn in_the_middle_of_a_stream() {
    let (server, setting) = slow().await;
    let mut wire = setting.wire().await;
    wire.send(&post("/v1/completions", &completion(true, MANY))).await;
    wire.so_far(|reply| reply.data().len() >= 2).await;
    assert_eq!((server.handle().live(), setting.in_flight()), (1, 1));
    drop(wire);
    gone_from(server.handle()).await;
    check_recorded(&setting).await;
    let record = setting.record(1).await;
    assert!(record.first_token.is_some() && record.bytes_sent > 0);
}

#[tokio::test]
async fn while_a_plain_answer_is_made() {
    let (server, setting) = slow().await;
    let mut wire = setting.wire().await;
    wire.send(&post("/v1/completions", &completion(false, MANY))).await;
    soon("the request at work", server.handle().until(|h| h.live() == 1)).await;
    drop(wire);
    gone_from(server.handle()).await;
    check_recorded(&setting).await;
}

#[tokio::test]
async fn behind_another_request() {
    for stream in [false, true] {
        let (server, setting) = slow().await;
        let mut wire = setting.wire().await;
        wire.send(&post("/v1/completions", &completion(stream, MANY))).await;
        soon("the request at work", server.handle().until(|h| h.live() == 1)).await;
        wire.send(&post("/v1/completions", &completion(stream, 1))).await;
        // All on one thread: when this is answered, what came before it has been read.
        setting.check_serves().await;
        drop(wire);
        gone_from(server.handle()).await;
        until("both records", || setting.records().len() == 2).await;
        check_left(&setting.records()[1]);
        assert_eq!(server.handle().requests(), 1, "the next was not begun");
    }
}

#[tokio::test]
async fn with_a_reset_instead_of_an_end() {
    let (server, setting) = slow().await;
    let mut wire = setting.wire().await;
    wire.send(&post("/v1/completions", &completion(true, MANY))).await;
    wire.so_far(|reply| !reply.data().is_empty()).await;
    let stream = wire.into_stream();
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("linger");
    drop(stream);
    gone_from(server.handle()).await;
    check_recorded(&setting).await;
}

#[tokio::test]
async fn while_the_request_waits_in_the_endpoints_queue() {
    let profile = Profile { max_num_seqs: 1, ..Profile::default() };
    let config = SimConfig { profile, ..SimConfig::default() };
    let server = Server::start(config).await.expect("a simulated server");
    let setting = Setup::new(&[server.addr()]).start();
    let request = post("/v1/completions", &completion(true, MANY));
    let mut first = setting.wire().await;
    first.send(&request).await;
    first.so_far(|reply| !reply.data().is_empty()).await;
    let mut second = setting.wire().await;
    second.send(&request).await;
    soon("both in the engine", server.handle().until(|h| h.live() == 2)).await;
    drop(second);
    let gone = server.handle().until(|h| h.aborted() == 1 && h.live() == 1 && h.in_flight() == 1);
    soon("the second request aborted", gone).await;
    until("the second request's claim back", || setting.in_flight() == 1).await;
    until("a record", || setting.records().len() == 1).await;
    check_left(&setting.records()[0]);
    drop(first);
}

#[tokio::test]
async fn before_the_endpoint_sent_a_byte() {
    let (server, setting) = slow().await;
    server.handle().set_fault(Fault::Hang);
    let mut wire = setting.wire().await;
    wire.send(&post("/v1/completions", &completion(true, 1))).await;
    soon("the request there", server.handle().until(|h| h.in_flight() == 1)).await;
    drop(wire);
    soon("the request gone", server.handle().until(|h| h.in_flight() == 0)).await;
    check_recorded(&setting).await;
}

#[tokio::test]
async fn while_sending_the_body() {
    let (server, setting) = slow().await;
    let mut wire = setting.wire().await;
    let request = post("/v1/completions", &completion(true, 1));
    wire.send(&request[..request.len() - 10]).await;
    drop(wire);
    check_recorded(&setting).await;
    assert_eq!(server.handle().requests(), 0);
}

#[tokio::test]
async fn while_sending_a_chunked_body() {
    let (server, setting) = slow().await;
    let mut wire = setting.wire().await;
    let head = "POST /v1/completions HTTP/1.1\r\nHost: test.com\r\nTransfer-Encoding: chunked\r\n";
    wire.send(format!("{head}\r\n5\r\n{{\"mod").as_bytes()).await;
    drop(wire);
    check_recorded(&setting).await;
    assert_eq!(server.handle().requests(), 0);
}

#[tokio::test]
async fn while_an_endpoint_is_being_connected_to() {
    // A full queue of connections: the next one is neither accepted nor refused.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let socket = socket2::SockRef::from(&listener);
    socket.listen(0).expect("a shorter queue");
    let addr = listener.local_addr().expect("address");
    let _queued = std::net::TcpStream::connect(addr).expect("place for one");
    let setting = Setup::new(&[addr])
        .limits(|limits| limits.connect_timeout = Duration::from_hours(1))
        .start();
    let mut wire = setting.wire().await;
    wire.send(&post("/v1/completions", &completion(true, 1))).await;
    until("the request charged", || setting.in_flight() == 1).await;
    drop(wire);
    check_recorded(&setting).await;
}

#[tokio::test]
async fn between_two_endpoints() {
    // The first refuses after it was told to, the second never answers.
    let first = Fake::answering("HTTP/1.1 503 Full\r\ncontent-length: 0\r\n\r\n").await;
    let second = Fake::falling_silent_after("").await;
    let setting = Setup::new(&[first.addr, second.addr]).start();
    let mut wire = setting.wire().await;
    wire.send(&post("/v1/completions", &completion(true, 1))).await;
    until("the second endpoint asked", || second.seen().len() == 1).await;
    drop(wire);
    check_recorded(&setting).await;
    assert_eq!(setting.record(1).await.attempts, 2);
}

#[tokio::test]
async fn many_at_once_leave_nothing_behind() {
    let (server, setting) = slow().await;
    let mut wires = Vec::new();
    for _ in 0..50 {
        let mut wire: Wire = setting.wire().await;
        wire.send(&post("/v1/completions", &completion(true, MANY))).await;
        wires.push(wire);
    }
    soon("all at work", server.handle().until(|h| h.live() == 50)).await;
    drop(wires);
    let gone = server.handle().until(|h| h.aborted() == 50 && h.in_flight() == 0);
    soon("all aborted", gone).await;
    setting.record(50).await;
    for record in setting.records() {
        check_left(&record);
    }
    until("no connection open", || server.handle().connections() == 0).await;
}

/// Leaves with a goodbye or with a reset.
fn leave(wire: Wire, reset: bool) {
    let stream = wire.into_stream();
    if reset {
        let socket = socket2::SockRef::from(&stream);
        socket.set_linger(Some(Duration::ZERO)).expect("linger");
    }
}

/// Nothing is charged, nothing runs, and the proxy serves.
async fn check_nothing_left(server: &Running, setting: &Setting) {
    until("no request in flight", || setting.in_flight() == 0).await;
    let idle = server.handle().until(|handle| handle.in_flight() == 0);
    soon("nothing runs at the endpoint", idle).await;
    until("no connection left", || setting.connections.running() == 1).await;
    setting.check_serves().await;
}

#[tokio::test]
async fn at_any_byte_of_a_request() {
    let (server, setting) = Setting::with_sim().await;
    let request = post("/v1/completions", &completion(true, 3));
    for sent in 0..request.len() {
        for reset in [false, true] {
            let mut wire = setting.wire().await;
            wire.send(&request[..sent]).await;
            leave(wire, reset);
        }
    }
    check_nothing_left(&server, &setting).await;
    assert_eq!(server.handle().requests(), 0, "no part of a request is one");
    for record in setting.records() {
        let one = record.path == "/v1/models" || record.finish == Some(Finish::ClientGone);
        assert!(one, "{record:?}");
    }
}

#[tokio::test]
async fn at_any_byte_of_an_answer() {
    let (server, setting) = Setting::with_sim().await;
    let request = post("/v1/completions", &completion(true, 3));
    let whole = setting.ask(&request).await.body.len();
    for read in (0..whole).step_by(17) {
        for reset in [false, true] {
            let mut wire = setting.wire().await;
            wire.send(&request).await;
            wire.so_far(|reply| reply.body.len() >= read).await;
            leave(wire, reset);
        }
    }
    check_nothing_left(&server, &setting).await;
}
