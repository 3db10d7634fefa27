//! HTTP/1: how requests and answers are framed, and that connections last.

use crate::{
    fake::{Fake, json_answer},
    setting::{Setting, Setup, completion, until},
    wire::{Ended, Wire, get, post},
};

const HEAD: &str =
    "POST /v1/completions HTTP/1.1\r\nHost: test.com\r\nContent-Type: application/json\r\n";

#[tokio::test]
async fn a_chunked_body_reaches_the_endpoint_whole() {
    let (server, setting) = Setting::with_sim().await;
    let body = completion(false, 2);
    let mut request =
        [HEAD, "Transfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n"].concat().into_bytes();
    for piece in body.as_bytes().chunks(5) {
        request.extend(format!("{:X};ext=1\r\n", piece.len()).into_bytes());
        request.extend(piece);
        request.extend(b"\r\n");
    }
    request.extend(b"0\r\nX-Sum: 1\r\n\r\n");
    let mut wire = setting.wire().await;
    for piece in request.chunks(11) {
        wire.send(piece).await;
    }
    assert_eq!(wire.answer().await.code, 200);
    let seen = server.handle().last().expect("a request");
    assert_eq!(seen.body, body.as_bytes());
    assert_eq!(seen.headers["content-length"], body.len().to_string());
    assert!(!seen.headers.contains_key("transfer-encoding"));
    assert_eq!(setting.record(1).await.bytes_received, body.len() as u64);
}

#[tokio::test]
async fn a_large_body_reaches_the_endpoint_whole() {
    let fake = Fake::answering(json_answer("200 OK", "{}")).await;
    let setting = Setup::new(&[fake.addr]).start();
    let mut wire = setting.wire().await;
    for words in [1_000, 10_000, 300_000] {
        let words: Vec<String> = (0..words).map(|word| word.to_string()).collect();
        let body = format!(r#"{{"prompt":"{}"}}"#, words.join(" "));
        let plain = post("/v1/completions", &body);
        let begin = "Transfer-Encoding: chunked\r\n\r\nb\r\n{\"prompt\":\"\r\n";
        let pieces = words.chunks(1_234).map(|piece| {
            let piece = piece.join(" ") + " ";
            format!("{:x}\r\n{piece}\r\n", piece.len())
        });
        let chunked = [HEAD, begin, &pieces.collect::<String>(), "2;x=y\r\n\"}\r\n0\r\n\r\n"];
        let chunked = chunked.concat().into_bytes();
        for (request, body) in [(plain, &body), (chunked, &body.replace("\"}", " \"}"))] {
            wire.send(&request).await;
            assert_eq!(wire.answer().await.code, 200);
            let seen = fake.seen().pop().expect("a request");
            assert!(seen.ends_with(&format!("\r\n\r\n{body}")), "{} bytes", body.len());
        }
    }
}

#[tokio::test]
async fn an_answer_says_when_it_was_made() {
    let setting = Setup::new(&[]).start();
    let reply = setting.ask(&get("/v1/models")).await;
    let date = reply.header("date").expect("a date");
    assert!(date.ends_with(" GMT") && date.len() == 29, "{date}");
    let date = jiff::fmt::rfc2822::parse(date).expect("a date").timestamp();
    let age = picker::wall_clock().duration_since(date.into()).expect("no time to come");
    assert!(age < crate::setting::DEADLINE, "{age:?}");
    let answer = json_answer("200 OK", "{}").replacen("\r\n", "\r\ndate: yesterday\r\n", 1);
    let fake = Fake::answering(answer).await;
    let setting = Setup::new(&[fake.addr]).start();
    let reply = setting.ask(&get("/v1/models")).await;
    let dates = reply.headers.iter().filter(|(name, _)| name == "date");
    assert_eq!(dates.map(|(_, date)| &**date).collect::<Vec<_>>(), ["yesterday"]);
}

#[tokio::test]
async fn a_client_that_waits_to_be_told_is_told_to_go_on() {
    let (server, setting) = Setting::with_sim().await;
    let body = completion(false, 2);
    let length = body.len();
    let mut wire = setting.wire().await;
    let head = format!("{HEAD}Expect: 100-continue\r\nContent-Length: {length}\r\n\r\n");
    wire.send(head.as_bytes()).await;
    wire.interim("HTTP/1.1 100 Continue\r\n\r\n").await;
    wire.send(body.as_bytes()).await;
    assert_eq!(wire.answer().await.code, 200);
    assert!(!server.handle().last().expect("a request").headers.contains_key("expect"));
}

#[tokio::test]
async fn a_client_that_waits_to_be_told_is_refused_without_its_body() {
    let (_server, setting) = Setting::with_sim().await;
    let mut wire = setting.wire().await;
    let head = HEAD.replace("test.com", "nowhere.com");
    wire.send(format!("{head}Expect: 100-continue\r\nContent-Length: 9\r\n\r\n").as_bytes()).await;
    let reply = wire.answer().await;
    assert_eq!((reply.code, reply.interim.as_slice()), (404, [0_u16; 0].as_slice()));
}

#[tokio::test]
async fn an_http_1_0_client_gets_an_answer_it_can_read() {
    let (_server, setting) = Setting::with_sim().await;
    for stream in [false, true] {
        let body = completion(stream, 3);
        let length = body.len();
        let head = HEAD.replace("HTTP/1.1", "HTTP/1.0");
        let mut wire = setting.wire().await;
        wire.send(format!("{head}Content-Length: {length}\r\n\r\n{body}").as_bytes()).await;
        let reply = wire.answer().await;
        assert_eq!((reply.code, reply.ended), (200, Ended::Clean));
        assert_eq!(reply.header("transfer-encoding"), None, "HTTP/1.0 knows no chunks");
        if stream {
            assert_eq!(reply.data().len(), 4, "three tokens and the end: {reply:?}");
            assert_eq!(reply.data()[3], "[DONE]");
        } else {
            assert_eq!(reply.json()["usage"]["completion_tokens"], 3);
        }
        assert_eq!(wire.closed().await, b"", "the connection ends with its answer");
        assert_eq!(setting.records().pop().expect("a record").protocol, "HTTP/1.0");
    }
}

#[tokio::test]
async fn connections_last_on_both_sides() {
    let (server, setting) = Setting::with_sim().await;
    let mut wire = setting.wire().await;
    for round in 0..50 {
        wire.send(&post("/v1/completions", &completion(round % 2 == 0, 2))).await;
        let reply = wire.answer().await;
        assert_eq!((reply.code, reply.ended), (200, Ended::Clean));
        assert_eq!(reply.header("connection"), None);
    }
    assert_eq!(server.handle().connections_total(), 1);
    assert_eq!(setting.metric("tokenweir_connections_total", &["accepted"]), 1);
}

#[tokio::test]
async fn a_client_that_asks_for_it_is_closed_after_its_answer() {
    let (_server, setting) = Setting::with_sim().await;
    let mut wire = setting.wire().await;
    wire.send(b"GET /v1/models HTTP/1.1\r\nHost: test.com\r\nConnection: close\r\n\r\n").await;
    let reply = wire.answer().await;
    assert_eq!((reply.code, reply.header("connection")), (200, Some("close")));
    assert_eq!(wire.closed().await, b"");
}

#[tokio::test]
async fn requests_sent_at_once_are_answered_in_turn() {
    let (_server, setting) = Setting::with_sim().await;
    let mut requests = Vec::new();
    for tokens in 1..=4_u8 {
        requests.extend(post("/v1/completions", &completion(tokens % 2 == 0, tokens.into())));
        requests.extend(get("/v1/models"));
    }
    requests.extend(post("/v1/completions", "not JSON"));
    requests.extend(get("/v1/models"));
    let mut wire = setting.wire().await;
    wire.send(&requests).await;
    for tokens in 1..=4_u8 {
        let reply = wire.answer().await;
        if tokens % 2 == 0 {
            assert_eq!(reply.data().len(), usize::from(tokens) + 1, "{reply:?}");
        } else {
            assert_eq!(reply.json()["usage"]["completion_tokens"], tokens);
        }
        assert_eq!(wire.answer().await.json()["object"], "list");
    }
    assert_eq!(wire.answer().await.code, 400);
    assert_eq!(wire.answer().await.code, 200, "a refusal does not end the connection");
}

#[tokio::test]
async fn methods_other_than_post_pass() {
    let (_server, setting) = Setting::with_sim().await;
    let mut wire = setting.wire().await;
    wire.send(&get("/v1/models")).await;
    let reply = wire.answer().await;
    assert_eq!((reply.code, &reply.json()["object"]), (200, &"list".into()));
    wire.send(&get("/v1/completions")).await;
    let reply = wire.answer().await;
    assert_eq!((reply.code, reply.header("allow")), (405, Some("POST")));
    wire.send(b"DELETE /v1/models HTTP/1.1\r\nHost: test.com\r\n\r\n").await;
    assert_eq!(wire.answer().await.code, 405);
    wire.send(b"OPTIONS * HTTP/1.1\r\nHost: test.com\r\n\r\n").await;
    assert_eq!(wire.answer().await.code, 404);
}

#[tokio::test]
async fn the_answer_to_head_has_a_length_and_no_body() {
    let fake = Fake::answering("HTTP/1.1 200 OK\r\ncontent-length: 12345\r\n\r\n").await;
    let setting = Setup::new(&[fake.addr]).start();
    let mut wire = setting.wire().await;
    for _ in 0..2 {
        wire.send(b"HEAD /v1/models HTTP/1.1\r\nHost: test.com\r\n\r\n").await;
        let reply = wire.head_answer().await;
        assert_eq!((reply.code, reply.header("content-length")), (200, Some("12345")));
    }
    assert_eq!(fake.opened(), 1, "the endpoint's connection is used again");
    assert!(fake.seen()[0].starts_with("HEAD /v1/models HTTP/1.1\r\n"));
    setting.record(2).await;
}

#[tokio::test]
async fn the_answer_to_a_refused_head_has_no_body() {
    let setting = Setup::new(&[]).start();
    let mut wire = setting.wire().await;
    for _ in 0..2 {
        wire.send(b"HEAD /v1/models HTTP/1.1\r\nHost: test.com\r\n\r\n").await;
        assert_eq!(wire.head_answer().await.code, 503);
    }
}

#[tokio::test]
async fn an_answer_without_a_body_has_none() {
    for code in [204, 304] {
        let fake = Fake::answering(format!("HTTP/1.1 {code} Odd\r\netag: x\r\n\r\n")).await;
        let setting = Setup::new(&[fake.addr]).start();
        let mut wire = setting.wire().await;
        for _ in 0..2 {
            wire.send(&get("/v1/models")).await;
            let reply = wire.answer().await;
            assert_eq!((reply.code, reply.header("etag")), (code, Some("x")));
            assert_eq!(reply.header("transfer-encoding"), None);
        }
        setting.record(2).await;
    }
}

#[tokio::test]
async fn an_answer_that_ends_with_its_connection_arrives_whole() {
    let body = r#"{"model":"m"}"#;
    let head = "HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n";
    let fake = Fake::answering_and_closing(format!("{head}{body}")).await;
    let setting = Setup::new(&[fake.addr]).start();
    let mut wire = setting.wire().await;
    for _ in 0..2 {
        wire.send(&post("/v1/completions", &completion(false, 1))).await;
        let reply = wire.answer().await;
        assert_eq!((reply.version.as_str(), reply.text().as_str()), ("HTTP/1.1", body));
        assert_eq!(reply.ended, Ended::Clean);
    }
}

#[tokio::test]
async fn interim_answers_of_the_endpoint_are_not_its_answer() {
    let early = "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n";
    let fake = Fake::answering(format!("{early}{}", json_answer("200 OK", "{}"))).await;
    let setting = Setup::new(&[fake.addr]).start();
    let mut wire = setting.wire().await;
    for _ in 0..2 {
        wire.send(&post("/v1/completions", &completion(false, 1))).await;
        let reply = wire.answer().await;
        assert_eq!((reply.code, reply.text().as_str()), (200, "{}"));
    }
}

#[tokio::test]
async fn connections_above_the_limit_are_refused_until_others_end() {
    let (_server, setting) = {
        let server = crate::setting::fast_sim().await;
        let setting = Setup::new(&[server.addr()]).limits(|l| l.connections_max = 2).start();
        (server, setting)
    };
    let mut first = setting.wire().await;
    let mut second = setting.wire().await;
    for wire in [&mut first, &mut second] {
        wire.send(&get("/v1/models")).await;
        assert_eq!(wire.answer().await.code, 200);
    }
    let mut refused = setting.wire().await;
    let reply = refused.answer().await;
    assert_eq!((reply.code, reply.header("x-tokenweir-reason")), (503, Some("overloaded")));
    assert_eq!((reply.header("retry-after"), reply.ended), (Some("1"), Ended::Clean));
    assert_eq!(refused.closed().await, b"");
    assert_eq!(setting.metric("tokenweir_connections_total", &["refused"]), 1);
    assert_eq!(setting.metric("tokenweir_limits_reached_total", &["\"connections\""]), 1);
    drop(first);
    until("the first connection's end", || setting.connections.running() <= 2).await;
    let mut third = Wire::open(setting.addr).await;
    third.send(&get("/v1/models")).await;
    assert_eq!(third.answer().await.code, 200);
    second.send(&get("/v1/models")).await;
    assert_eq!(second.answer().await.code, 200);
}
