//! Until something of an answer has passed, another endpoint takes over.

use http::StatusCode;
use picker::Finish;
use sim::Fault;

use crate::{
    fake::{Fake, LAST_CHUNK, STREAM_HEAD, chunk, json_answer},
    setting::{Port, Setting, Setup, completion, fast_sim, soon},
    wire::{Ended, Reply, get, post},
};

const ERROR_EVENT: &str = "data: {\"error\":{\"message\":\"EngineCore encountered an issue.\",\"type\":\"InternalServerError\",\"param\":null,\"code\":500}}\n\n";
const SHUTDOWN: &str = r#"{"error":{"message":"cannot schedule new futures after shutdown","type":"InternalServerError","param":null,"code":500}}"#;

fn check_whole(reply: &Reply) {
    assert_eq!((reply.code, reply.ended), (200, Ended::Clean), "{reply:?}");
    let data = reply.data();
    assert_eq!((data.len(), data[3].as_str()), (4, "[DONE]"), "three tokens, once: {reply:?}");
}

/// The request goes to `first`, fails there, and is answered by another endpoint.
async fn check_replaced(first: std::net::SocketAddr, outcome: &str) {
    let server = fast_sim().await;
    let setting = Setup::new(&[first, server.addr()]).start();
    let mut wire = setting.wire().await;
    wire.send(&post("/v1/completions", &completion(true, 3))).await;
    let reply = wire.answer().await;
    check_whole(&reply);
    assert_eq!(reply.header("x-tokenweir-endpoint"), Some(server.addr().to_string().as_str()));
    let record = setting.record(1).await;
    assert_eq!((record.attempts, record.response_code), (2, 200));
    assert_eq!(record.upstream_host, Some(server.addr().to_string()));
    assert_eq!(record.finish, Some(Finish::Complete(Some("length".into()))));
    assert_eq!(record.usage.completion_tokens, Some(3));
    let label = format!("outcome=\"{outcome}\"");
    assert_eq!(setting.metric("tokenweir_retries_total", &[&label]), 1);
    wire.send(&get("/v1/models")).await;
    wire.answer().await;
}

#[tokio::test]
async fn an_endpoint_that_refuses_connections_is_replaced() {
    let port = Port::free();
    check_replaced(port.addr, "unreachable").await;
}

#[tokio::test]
async fn an_endpoint_that_closes_before_its_head_is_replaced() {
    let fake = Fake::answering_and_closing("").await;
    check_replaced(fake.addr, "reset").await;
    assert_eq!((fake.seen().len(), fake.opened()), (1, 1));
}

#[tokio::test]
async fn an_endpoint_that_resets_before_its_head_is_replaced() {
    let fake = Fake::start(|mut conn| async move {
        conn.request().await;
        conn.reset();
    })
    .await;
    check_replaced(fake.addr, "reset").await;
    assert_eq!(fake.seen().len(), 1);
}

#[tokio::test]
async fn an_endpoint_that_breaks_off_within_its_head_is_replaced() {
    let fake = Fake::answering_and_closing("HTTP/1.1 200 OK\r\ncontent-ty").await;
    check_replaced(fake.addr, "reset").await;
}

#[tokio::test]
async fn an_endpoint_that_dies_between_its_head_and_its_first_event_is_replaced() {
    for begun in ["", "5\r\ndata:\r\n", "40\r\ndata: {\"id\":"] {
        let fake = Fake::answering_and_closing(format!("{STREAM_HEAD}{begun}")).await;
        check_replaced(fake.addr, "reset").await;
        assert_eq!(fake.seen().len(), 1);
    }
}

#[tokio::test]
async fn an_endpoint_that_cannot_serve_is_replaced() {
    for status in ["502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout"] {
        let fake = Fake::answering(json_answer(status, r#"{"error":"x"}"#)).await;
        check_replaced(fake.addr, "error").await;
        let fake = Fake::answering(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")).await;
        check_replaced(fake.addr, "error").await;
    }
}

#[tokio::test]
async fn an_endpoint_that_shuts_down_is_replaced() {
    let fake = Fake::answering(json_answer("500 Internal Server Error", SHUTDOWN)).await;
    check_replaced(fake.addr, "error").await;
}

#[tokio::test]
async fn an_endpoint_whose_first_event_is_an_error_is_replaced() {
    let fake = Fake::answering(format!("{STREAM_HEAD}{}{LAST_CHUNK}", chunk(ERROR_EVENT))).await;
    check_replaced(fake.addr, "error").await;
    let server = fast_sim().await;
    server.handle().set_fault(Fault::DieAfter(0));
    check_replaced(server.addr(), "error").await;
    server.handle().set_fault(Fault::CutAfter(0));
    check_replaced(server.addr(), "reset").await;
}

#[tokio::test]
async fn the_same_body_goes_to_the_next_endpoint() {
    let fake = Fake::answering_and_closing("").await;
    let server = fast_sim().await;
    let setting = Setup::new(&[fake.addr, server.addr()]).start();
    setting.ask(&post("/v1/completions", &completion(true, 3))).await;
    let seen = fake.seen().remove(0);
    let (_, body) = seen.split_once("\r\n\r\n").expect("a body");
    assert_eq!(server.handle().last().expect("a request").body, body.as_bytes());
}

#[tokio::test]
async fn the_list_is_walked_to_its_end() {
    let (port, fake) = (Port::free(), Fake::answering_and_closing("").await);
    let server = fast_sim().await;
    let setting = Setup::new(&[port.addr, fake.addr, server.addr()]).start();
    check_whole(&setting.ask(&post("/v1/completions", &completion(true, 3))).await);
    assert_eq!(setting.record(1).await.attempts, 3);
}

/// If nobody serves, the last endpoint's own answer passes as it is.
async fn check_passed_on(answer: &str, code: u16, text: &str, ended: Ended) -> Setting {
    let (first, second) =
        (Fake::answering(json_answer("503 Busy", "{}")).await, Fake::answering(answer).await);
    let setting = Setup::new(&[first.addr, second.addr]).start();
    let mut wire = setting.wire().await;
    wire.send(&post("/v1/completions", &completion(true, 3))).await;
    let reply = wire.answer().await;
    assert_eq!((reply.code, reply.text().as_str(), reply.ended), (code, text, ended));
    assert_eq!(reply.header("x-tokenweir-reason"), None);
    assert_eq!(reply.header("x-tokenweir-endpoint"), Some(second.addr.to_string().as_str()));
    assert_eq!(setting.record(1).await.attempts, 2);
    wire.send(&get("/v1/models")).await;
    wire.answer().await;
    setting
}

#[tokio::test]
async fn if_nobody_can_serve_the_last_endpoints_own_answer_passes() {
    let first = fast_sim().await;
    let second = fast_sim().await;
    for (server, status) in [(&first, 503), (&second, 502)] {
        let status = StatusCode::from_u16(status).expect("a status");
        server.handle().set_fault(Fault::Status(status));
    }
    let setting = Setup::new(&[first.addr(), second.addr()]).start();
    let reply = setting.ask(&post("/v1/completions", &completion(true, 3))).await;
    assert_eq!((reply.code, &reply.json()["error"]["message"]), (502, &"injected fault".into()));
    assert_eq!(reply.header("x-tokenweir-reason"), None);
    let record = setting.record(1).await;
    assert_eq!((record.attempts, record.response_code), (2, 502));
    assert_eq!(record.finish, Some(Finish::Complete(None)));
}

#[tokio::test]
async fn if_nobody_can_serve_the_last_error_event_passes() {
    let text = format!("{ERROR_EVENT}data: [DONE]\n\n");
    let answer = format!("{STREAM_HEAD}{}{LAST_CHUNK}", chunk(&text));
    let first = Fake::answering(answer.clone()).await;
    let second = Fake::answering(answer).await;
    let setting = Setup::new(&[first.addr, second.addr]).start();
    let reply = setting.ask(&post("/v1/completions", &completion(true, 3))).await;
    assert_eq!((reply.code, reply.text(), reply.ended), (200, text, Ended::Clean));
    let record = setting.record(1).await;
    assert_eq!((record.attempts, record.finish), (2, Some(Finish::EndpointGone)));
}

#[tokio::test]
async fn an_error_answer_that_breaks_off_is_no_whole_answer() {
    let head = "HTTP/1.1 503 Busy\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n";
    let fake = Fake::answering_and_closing(format!("{head}{{\"error\":")).await;
    let setting = Setup::new(&[fake.addr]).start();
    let mut wire = setting.wire().await;
    wire.send(&post("/v1/completions", &completion(true, 3))).await;
    let reply = wire.answer().await;
    assert_eq!((reply.code, reply.header("x-tokenweir-reason")), (502, Some("reset")), "{reply:?}");
    assert_eq!(setting.record(1).await.finish, Some(Finish::Refused("reset")));
    check_replaced(fake.addr, "reset").await;
}

#[tokio::test]
async fn a_chunked_error_answer_that_breaks_off_is_no_whole_answer() {
    let head = "HTTP/1.1 503 Busy\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n9\r\n{\"error\":\r\n";
    let fake = Fake::answering_and_closing(head).await;
    let setting = Setup::new(&[fake.addr]).start();
    let reply = setting.ask(&post("/v1/completions", &completion(true, 3))).await;
    assert_eq!((reply.code, reply.header("x-tokenweir-reason")), (502, Some("reset")), "{reply:?}");
    check_replaced(fake.addr, "reset").await;
}

#[tokio::test]
async fn a_slow_error_answer_arrives_whole() {
    let text = format!(r#"{{"error":{{"message":"{}"}}}}"#, "x".repeat(200_000));
    check_passed_on(&json_answer("503 Busy", &text), 503, &text, Ended::Clean).await;
}

#[tokio::test]
async fn answers_that_are_the_clients_own_fault_are_not_retried() {
    for (code, body) in [
        (400, r#"{"error":{"message":"bad","type":"BadRequestError","param":null,"code":400}}"#),
        (401, r#"{"error":"Unauthorized"}"#),
        (404, r#"{"error":{"message":"Response with id 'resp_1' not found.","code":404}}"#),
        (429, "{}"),
        (500, r#"{"error":{"message":"your request broke me","code":500}}"#),
        (501, "{}"),
    ] {
        let fake = Fake::answering(json_answer(&format!("{code} Odd"), body)).await;
        let server = fast_sim().await;
        let setting = Setup::new(&[fake.addr, server.addr()]).start();
        let reply = setting.ask(&post("/v1/completions", &completion(true, 3))).await;
        assert_eq!((reply.code, reply.text().as_str()), (code, body));
        assert_eq!(server.handle().requests(), 0);
        assert_eq!(setting.record(1).await.attempts, 1);
        assert_eq!(setting.metric("tokenweir_retries_total", &[]), 0);
    }
}

#[tokio::test]
async fn a_first_event_that_blames_the_client_is_not_retried() {
    let text = ERROR_EVENT.replace("500", "400");
    let fake = Fake::answering(format!("{STREAM_HEAD}{}{LAST_CHUNK}", chunk(&text))).await;
    let server = fast_sim().await;
    let setting = Setup::new(&[fake.addr, server.addr()]).start();
    let reply = setting.ask(&post("/v1/completions", &completion(true, 3))).await;
    assert_eq!((reply.code, reply.text()), (200, text));
    assert_eq!(server.handle().requests(), 0);
}

/// Answers the first request of a connection; closes on the second without a byte.
async fn closing_when_reused() -> Fake {
    Fake::start(|mut conn| async move {
        if conn.request().await.is_some() {
            conn.send(&json_answer("200 OK", "{}")).await;
            conn.request().await;
        }
    })
    .await
}

#[tokio::test]
async fn a_kept_connection_that_turns_out_dead_is_replaced_for_free() {
    let fake = closing_when_reused().await;
    let setting = Setup::new(&[fake.addr]).start();
    for nth in 1..=3 {
        let reply = setting.ask(&post("/v1/completions", &completion(false, 1))).await;
        assert_eq!((reply.code, reply.text().as_str()), (200, "{}"));
        assert_eq!(setting.record(nth).await.attempts, 1);
    }
    assert_eq!((fake.opened(), fake.seen().len()), (3, 5));
    assert_eq!(setting.metric("tokenweir_retries_total", &[]), 0);
}

#[tokio::test]
async fn an_unrepeatable_request_on_a_dead_kept_connection_is_refused() {
    let fake = closing_when_reused().await;
    let setting = Setup::new(&[fake.addr]).start();
    assert_eq!(setting.ask(&post("/v1/unknown", "{}")).await.code, 200);
    let reply = setting.ask(&post("/v1/unknown", "{}")).await;
    assert_eq!((reply.code, reply.header("x-tokenweir-reason")), (502, Some("reset")));
    assert_eq!((fake.opened(), fake.seen().len()), (1, 2));
}

#[tokio::test]
async fn a_kept_connection_that_breaks_within_a_head_is_not_replaced() {
    let fake = Fake::start(|mut conn| async move {
        if conn.request().await.is_some() {
            conn.send(&json_answer("200 OK", "{}")).await;
            conn.request().await;
            conn.send("HTTP/1.1 200 OK\r\nconte").await;
        }
    })
    .await;
    let setting = Setup::new(&[fake.addr]).start();
    let request = post("/v1/completions", &completion(false, 1));
    assert_eq!(setting.ask(&request).await.code, 200);
    let reply = setting.ask(&request).await;
    assert_eq!((reply.code, reply.header("x-tokenweir-reason")), (502, Some("reset")));
    assert_eq!((fake.opened(), fake.seen().len()), (1, 2));
}

#[tokio::test]
async fn a_connection_the_endpoint_has_closed_is_not_used() {
    let fake = Fake::answering_and_closing(json_answer("200 OK", "{}")).await;
    let setting = Setup::new(&[fake.addr]).start();
    for nth in 1..=5 {
        let reply = setting.ask(&post("/v1/completions", &completion(false, 1))).await;
        assert_eq!((reply.code, reply.text().as_str()), (200, "{}"));
        assert_eq!(setting.record(nth).await.attempts, 1);
    }
    assert_eq!(fake.opened(), 5);
}

#[tokio::test]
async fn idle_connections_are_given_up_before_the_endpoint_closes_them() {
    let server = fast_sim().await;
    let setting = Setup::new(&[server.addr()])
        .limits(|limits| limits.upstream_idle_timeout = std::time::Duration::from_millis(10))
        .start();
    for _ in 0..2 {
        setting.ask(&post("/v1/completions", &completion(false, 1))).await;
        let closed = server.handle().until(|handle| handle.connections() == 0);
        soon("the connection given up", closed).await;
    }
    assert_eq!(server.handle().connections_total(), 2);
}

#[tokio::test]
async fn connections_kept_for_an_endpoint_are_bounded() {
    let server = fast_sim().await;
    let setting =
        Setup::new(&[server.addr()]).limits(|limits| limits.upstream_idle_max = 2).start();
    for round in 1..=2 {
        server.handle().set_fault(Fault::Freeze);
        let mut wires = Vec::new();
        for _ in 0..8 {
            let mut wire = setting.wire().await;
            wire.send(&post("/v1/completions", &completion(true, 3))).await;
            wires.push(wire);
        }
        soon("eight at work", server.handle().until(|handle| handle.in_flight() == 8)).await;
        server.handle().set_fault(Fault::None);
        for wire in &mut wires {
            assert_eq!(wire.answer().await.code, 200);
        }
        setting.record(8 * round).await;
    }
    assert_eq!(server.handle().connections_total(), 8 + 6, "two of eight are used again");
}
