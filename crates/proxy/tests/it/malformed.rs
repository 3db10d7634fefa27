//! Requests that are no HTTP, or only nearly: each harms its own connection at most.

use std::time::Duration;

use picker::Finish;

use crate::{
    setting::{Setting, Setup, check_left, completion, fast_sim, soon, until},
    wire::{Ended, Wire, get, post, post_with},
};

/// What the proxy says to these bytes before it closes; it must close, and go on serving.
async fn said_to(setting: &Setting, bytes: &[u8]) -> String {
    let mut wire = setting.wire().await;
    wire.try_send(bytes).await;
    let said = wire.closed().await;
    setting.check_serves().await;
    String::from_utf8_lossy(&said).into_owned()
}

/// The proxy refuses these bytes as a request, and no endpoint hears of them.
async fn check_not_http(bytes: &[u8]) {
    let (server, setting) = Setting::with_sim().await;
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
    let said = said_to(&setting, bytes).await;
    let ok = said.is_empty() || said.starts_with("HTTP/1.1 4");
    assert!(ok, "{shown:?} was answered {said:?}");
    assert_eq!(server.handle().requests(), 0, "{shown:?} reached the endpoint");
}

#[tokio::test]
async fn bytes_that_are_no_request_are_refused() {
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00"[..],
        b"\0\0\0\0\0\0\0\0\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /v1/models HTTP/9.9\r\nHost: test.com\r\n\r\n",
        b"GET /v1/models\r\nHost: test.com\r\n\r\n",
        b"G\xc3\x89T / HTTP/1.1\r\nHost: test.com\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost test.com\r\n\r\n",
        b"GET / HTTP/1.1\r\n: test.com\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: test.com\r\nX-A: a\0b\r\n\r\n",
        b"GET / HTTP/1.1\rHost: test.com\r\r",
        b"GET / HTTP/1.1\r\nHost: test.com\r\nX-A: a\rb\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: test.com\r\nX A: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: test.com\r\nX-A: b\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: test.com\r\nTransfer-Encoding : chunked\r\n\r\n",
        b"GET http:// HTTP/1.1\r\nHost: test.com\r\n\r\n",
    ] {
        check_not_http(bytes).await;
    }
}

#[tokio::test]
async fn frames_that_are_none_end_their_connection() {
    let (server, setting) = Setting::with_sim().await;
    for frames in [&b"no frames at all, and long enough to be some"[..], b"\0\0\0\0\0\0\0\0\0"] {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let said = said_to(&setting, &[preface, frames].concat()).await;
        assert!(!said.contains("HTTP/1.1") && said.len() < 200, "{said:?}");
    }
    assert_eq!(server.handle().requests(), 0);
}

#[tokio::test]
async fn bodies_of_two_lengths_are_refused() {
    let body = completion(false, 1);
    let smuggled = format!("0\r\n\r\n{}", String::from_utf8_lossy(&get("/smuggled")));
    for (headers, body) in [
        ("Content-Length: 5\r\n", body.as_str()),
        ("Transfer-Encoding: identity, chunked\r\nContent-Length: 1\r\n", body.as_str()),
        ("Transfer-Encoding: chunked, identity\r\n", body.as_str()),
        ("Transfer-Encoding: xchunked\r\n", smuggled.as_str()),
        ("Transfer-Encoding: \x0bchunked\r\n", smuggled.as_str()),
    ] {
        check_not_http(&post_with("/v1/completions", headers, body.as_bytes())).await;
    }
    let head = "POST /v1/completions HTTP/1.1\r\nHost: test.com\r\n";
    for length in ["-1", "+5", "0x5", "5, 6", "99999999999999999999999", "5 5", ""] {
        let request = format!("{head}Content-Length: {length}\r\n\r\n{{}}{{}}{{}}");
        check_not_http(request.as_bytes()).await;
    }
}

#[tokio::test]
async fn a_length_beside_chunks_is_not_believed() {
    // Chunks decide (RFC 9112, 6.3); the length must not reach the endpoint.
    let (server, setting) = Setting::with_sim().await;
    let body = completion(false, 1);
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let head =
        "POST /v1/completions HTTP/1.1\r\nHost: test.com\r\nContent-Type: application/json\r\n";
    for lengths in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    ] {
        let mut wire = setting.wire().await;
        wire.send(format!("{head}{lengths}\r\n{chunked}").as_bytes()).await;
        let reply = wire.answer().await;
        if reply.code == 200 {
            let seen = server.handle().last().expect("a request");
            assert_eq!(seen.body, body.as_bytes());
            let length = body.len().to_string();
            assert_eq!(
                seen.headers.get_all("content-length").iter().collect::<Vec<_>>(),
                [&length]
            );
        } else {
            assert_eq!(reply.code, 400);
        }
        drop(wire);
        setting.check_serves().await;
    }
}

#[tokio::test]
async fn chunks_that_are_none_are_refused() {
    let (server, setting) = Setting::with_sim().await;
    let head = "POST /v1/completions HTTP/1.1\r\nHost: test.com\r\nTransfer-Encoding: chunked\r\n";
    for chunks in [
        "hello\r\n",
        "-1\r\nx\r\n",
        "ffffffffffffffffff\r\nx\r\n",
        "5\r\nabcdefgh\r\n0\r\n\r\n",
        "5\nabcde\n0\n\n",
    ] {
        let mut wire = setting.wire().await;
        wire.send(format!("{head}\r\n{chunks}").as_bytes()).await;
        let reply = wire.answer().await;
        assert_eq!((reply.code, reply.ended), (400, Ended::Clean), "{chunks:?}");
        let record = setting.records().pop().expect("a record");
        assert_eq!(record.finish, Some(Finish::Refused("invalid_body")), "{chunks:?}");
        setting.check_serves().await;
    }
    assert_eq!(server.handle().requests(), 0);
}

#[tokio::test]
async fn a_body_shorter_than_its_length_is_never_answered_as_whole() {
    let (server, setting) = Setting::with_sim().await;
    let body = completion(false, 1);
    let request = post("/v1/completions", &body);
    let text = String::from_utf8_lossy(&request).replace(
        &format!("content-length: {}", body.len()),
        &format!("content-length: {}", body.len() + 1),
    );
    let mut wire = setting.wire().await;
    wire.send(text.as_bytes()).await;
    wire.finish_sending().await;
    let said = String::from_utf8_lossy(&wire.closed().await).into_owned();
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 400 "), "{said}");
    assert_eq!(server.handle().requests(), 0);
    check_left(&setting.record(1).await);
    setting.check_serves().await;
}

#[tokio::test]
async fn a_body_longer_than_its_length_is_no_second_request() {
    let (server, setting) = Setting::with_sim().await;
    let body = completion(false, 1);
    let request = post("/v1/completions", &body);
    let mut wire = setting.wire().await;
    wire.send(&[&request[..], b"}}}}}}\r\n\r\n"].concat()).await;
    assert_eq!(wire.answer().await.code, 200);
    let rest = String::from_utf8_lossy(&wire.closed().await).into_owned();
    assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 400 "), "{rest}");
    assert_eq!(server.handle().requests(), 1);
    setting.check_serves().await;
}

#[tokio::test]
async fn a_flood_of_headers_is_refused() {
    let (_server, setting) = Setting::with_sim().await;
    let many = "X-A: b\r\n".repeat(100_000);
    let long = format!("X-A: {}\r\n", "b".repeat(2 << 20));
    let path = format!("/{}", "p".repeat(2 << 20));
    for bytes in [
        post_with("/v1/completions", &many, b"{}"),
        post_with("/v1/completions", &long, b"{}"),
        get(&path),
        "A".repeat(2 << 20).into_bytes(),
    ] {
        let said = said_to(&setting, &bytes).await;
        let ok = said.is_empty() || said.starts_with("HTTP/1.1 4");
        assert!(ok, "{said:?}");
    }
    setting.check_serves().await;
}

#[tokio::test]
async fn methods_that_open_tunnels_open_none() {
    let (_server, setting) = Setting::with_sim().await;
    for request in [
        "CONNECT test.com:443 HTTP/1.1\r\nHost: test.com:443\r\n\r\n",
        "GET /v1/models HTTP/1.1\r\nHost: test.com\r\nConnection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
    ] {
        let mut wire = setting.wire().await;
        wire.send(request.as_bytes()).await;
        let reply = wire.answer().await;
        assert_ne!(reply.code, 101);
        assert!(!request.starts_with("CONNECT") || reply.code >= 400, "{reply:?}");
        drop(wire);
        setting.check_serves().await;
    }
}

/// Long enough for a request on a busy machine.
const PATIENCE: Duration = Duration::from_millis(300);

async fn impatient() -> (sim::Running, Setting) {
    let server = fast_sim().await;
    let setting = Setup::new(&[server.addr()])
        .limits(|limits| {
            limits.header_read_timeout = PATIENCE;
            limits.connection_idle_timeout = PATIENCE;
        })
        .start();
    (server, setting)
}

#[tokio::test]
async fn a_client_that_sends_nothing_or_half_a_head_is_closed() {
    let (_server, setting) = impatient().await;
    for begun in ["", "P", "POST /v1/compl", "PRI * HTTP/2.0\r\n"] {
        let mut wire = setting.wire().await;
        wire.send(begun.as_bytes()).await;
        let said = wire.closed().await;
        let said = String::from_utf8_lossy(&said);
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{begun:?} {said:?}");
    }
    setting.check_serves().await;
    until("no connection left", || setting.connections.running() == 1).await;
}

#[tokio::test]
async fn a_head_that_trickles_in_does_not_win_time() {
    let (_server, setting) = impatient().await;
    let mut wire = setting.wire().await;
    wire.send(b"GET / HTTP/1.1\r\n").await;
    let trickle = async {
        while wire.try_send(b"X-A: b\r\n").await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("the connection closed", trickle).await;
    setting.check_serves().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let (_server, setting) = impatient().await;
    let mut wire = setting.wire().await;
    wire.send(&get("/v1/models")).await;
    assert_eq!(wire.answer().await.code, 200);
    assert_eq!(wire.closed().await, b"");
}

#[tokio::test]
async fn a_long_answer_does_not_count_as_idling() {
    let server = crate::setting::slow_sim().await;
    let setting = Setup::new(&[server.addr()])
        .limits(|limits| {
            limits.header_read_timeout = PATIENCE;
            limits.connection_idle_timeout = PATIENCE;
        })
        .start();
    let mut wire = setting.wire().await;
    wire.send(&post("/v1/completions", &completion(true, 30))).await;
    // Thirty steps of an engine are about a second.
    let reply = wire.answer().await;
    assert_eq!((reply.ended, reply.data().len()), (Ended::Clean, 31));
}

#[tokio::test]
async fn a_client_that_leaves_at_once_is_no_trouble() {
    let (_server, setting) = Setting::with_sim().await;
    for _ in 0..50 {
        drop(Wire::open(setting.addr).await);
    }
    setting.check_serves().await;
    until("no connection left", || setting.connections.running() == 1).await;
}

#[tokio::test]
async fn a_large_body_is_refused_where_its_sender_can_read_why() {
    let server = fast_sim().await;
    let setting =
        Setup::new(&[server.addr()]).pool(|pool| pool.delivery.body_bytes_max = 1000).start();
    let head = "POST /v1/completions HTTP/1.1\r\nHost: test.com\r\nTransfer-Encoding: chunked\r\n";
    let mut request = format!("{head}\r\n").into_bytes();
    for _ in 0..400 {
        request.extend(format!("2710\r\n{}\r\n", "x".repeat(10_000)).into_bytes());
    }
    request.extend(b"0\r\n\r\n");
    let mut wire = setting.wire().await;
    wire.try_send(&request).await;
    let said = String::from_utf8_lossy(&wire.closed().await).into_owned();
    assert!(said.starts_with("HTTP/1.1 413 "), "{said:?}");
    setting.check_serves().await;
}
