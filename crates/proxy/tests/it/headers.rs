//! Headers: what is passed on, what is not, and what is added.

use http::HeaderMap;

use crate::{
    fake::{Fake, json_answer},
    setting::{Setting, Setup, completion, fast_sim},
    wire::{post, post_with},
};

/// The headers at the endpoint of a request with these.
async fn at_endpoint(headers: &str) -> HeaderMap {
    let (server, setting) = Setting::with_sim().await;
    let body = completion(false, 1);
    let reply = setting.ask(&post_with("/v1/completions", headers, body.as_bytes())).await;
    assert_eq!(reply.code, 200, "{reply:?}");
    let headers = server.handle().last().expect("a request").headers;
    let lengths: Vec<_> = headers.get_all("content-length").iter().collect();
    assert_eq!(lengths, [body.len().to_string().as_str()], "one length, the body's");
    assert!(!headers.contains_key("transfer-encoding"));
    headers
}

fn values<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers.get_all(name).iter().map(|value| value.to_str().expect("text")).collect()
}

#[tokio::test]
async fn what_concerns_one_connection_is_not_passed_on() {
    let headers = at_endpoint(
        "Connection: keep-alive, X-Private\r\nConnection: x-other\r\nX-Private: 1\r\nX-Other: 2\r\n\
         Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic x\r\n\
         TE: trailers\r\nTrailer: x\r\nUpgrade: websocket\r\nAccept-Encoding: gzip\r\n\
         X-Kept: 1\r\nX-Kept: 2\r\nAuthorization: Bearer key\r\n",
    )
    .await;
    for name in [
        "connection",
        "x-private",
        "x-other",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "te",
        "trailer",
        "upgrade",
        "accept-encoding",
        "expect",
    ] {
        assert_eq!(values(&headers, name), [""; 0], "{name}");
    }
    assert_eq!(values(&headers, "x-kept"), ["1", "2"]);
    assert_eq!(values(&headers, "authorization"), ["Bearer key"]);
    assert_eq!(values(&headers, "content-type"), ["application/json"]);
}

#[tokio::test]
async fn host_and_path_are_the_clients() {
    let (server, setting) = Setting::with_sim().await;
    let body = completion(false, 1);
    let length = body.len();
    let rest = format!("Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}");
    for (target, host, expected) in [
        ("/v1/completions", "test.com", "test.com"),
        ("/v1/completions?a=%2F&b", "TEST.com.:8008", "TEST.com.:8008"),
        ("http://Test.com:1/v1/completions?a=%2F&b", "other.com", "Test.com:1"),
    ] {
        let request = format!("POST {target} HTTP/1.1\r\nHost: {host}\r\n{rest}");
        let reply = setting.ask(request.as_bytes()).await;
        assert_eq!(reply.code, 200, "{target} {reply:?}");
        let seen = server.handle().last().expect("a request");
        assert_eq!(values(&seen.headers, "host"), [expected]);
        assert_eq!(seen.path, &target[target.find("/v1").expect("a path")..]);
        let record = setting.records().pop().expect("a record");
        // A query may hold a key: it is passed on and not recorded.
        assert_eq!((&*record.authority, &*record.path), (expected, "/v1/completions"));
    }
}

#[tokio::test]
async fn the_client_is_named_to_the_endpoint() {
    let headers = at_endpoint("").await;
    assert_eq!(values(&headers, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(values(&headers, "x-forwarded-proto"), ["http"]);
    let headers =
        at_endpoint("X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-For: 10.0.0.2, 10.0.0.3\r\nX-Forwarded-Proto: https\r\n")
            .await;
    assert_eq!(values(&headers, "x-forwarded-for"), ["10.0.0.1,10.0.0.2, 10.0.0.3,127.0.0.1"]);
    assert_eq!(values(&headers, "x-forwarded-proto"), ["https"]);
}

#[tokio::test]
async fn a_request_keeps_its_id_everywhere() {
    let (server, setting) = Setting::with_sim().await;
    let body = completion(false, 1);
    let request = post_with("/v1/completions", "X-Request-Id: my-id/7\r\n", body.as_bytes());
    let reply = setting.ask(&request).await;
    assert_eq!(reply.header("x-request-id"), Some("my-id/7"));
    assert_eq!(reply.json()["id"], "cmpl-my-id/7");
    assert_eq!(server.handle().last().expect("a request").headers["x-request-id"], "my-id/7");
    assert_eq!(setting.record(1).await.request_id, "my-id/7");
}

#[tokio::test]
async fn a_request_without_an_id_gets_one_of_its_own() {
    let (server, setting) = Setting::with_sim().await;
    let mut ids = Vec::new();
    for odd in ["", "X-Request-Id: \r\n", "X-Request-Id: a b\r\n", "X-Request-Id: \u{e9}\r\n"] {
        let body = completion(false, 1);
        let reply = setting.ask(&post_with("/v1/completions", odd, body.as_bytes())).await;
        let id = reply.header("x-request-id").expect("an id").to_owned();
        assert_eq!(id.len(), 36, "{id}");
        assert_eq!(server.handle().last().expect("a request").headers["x-request-id"], id);
        assert!(!ids.contains(&id), "{id}");
        ids.push(id);
    }
}

#[tokio::test]
async fn an_answer_names_its_endpoint_unless_switched_off() {
    let server = fast_sim().await;
    let setting = Setup::new(&[server.addr()]).start();
    let request = post("/v1/completions", &completion(false, 1));
    let reply = setting.ask(&request).await;
    assert_eq!(reply.header("x-tokenweir-endpoint"), Some(server.addr().to_string().as_str()));
    let setting = Setup::new(&[server.addr()]).no_endpoint_header().start();
    assert_eq!(setting.ask(&request).await.header("x-tokenweir-endpoint"), None);
}

#[tokio::test]
async fn what_concerns_the_endpoints_connection_stays_there() {
    let body = "{}";
    let fake = Fake::answering(
        json_answer("200 OK", body).replace(
            "content-type",
            "Connection: close, x-private\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: x\r\nX-Kept: a\r\nX-Kept: b\r\ncontent-type",
        ),
    )
    .await;
    let setting = Setup::new(&[fake.addr]).start();
    let mut wire = setting.wire().await;
    for _ in 0..2 {
        wire.send(&post("/v1/completions", &completion(false, 1))).await;
        let reply = wire.answer().await;
        assert_eq!((reply.code, reply.text().as_str()), (200, body));
        for name in ["connection", "x-private", "keep-alive", "proxy-authenticate"] {
            assert_eq!(reply.header(name), None, "{name}");
        }
        let kept: Vec<_> = reply.headers.iter().filter(|(name, _)| name == "x-kept").collect();
        assert_eq!(kept.len(), 2);
    }
    assert_eq!(fake.opened(), 2, "a connection the endpoint will close is not used again");
}
