//! After the first event nobody takes over: a cut answer is told and seen to be one.

use std::time::Duration;

use picker::Finish;
use serde_json::Value;
use sim::Fault;
use tokio::io::AsyncReadExt;

use crate::{
    fake::{Fake, LAST_CHUNK, STREAM_HEAD, TOKEN, chunk, json_answer},
    setting::{DEADLINE, Setting, Setup, completion, fast_sim, soon},
    wire::{Ended, Reply, post},
};

/// The answer so far, an error event and an unclean end.
pub(crate) fn check_cut(reply: &Reply, passed: &str, code: u16) {
    assert_eq!((reply.code, reply.ended), (200, Ended::Cut), "{reply:?}");
    let text = reply.text();
    let rest = text.strip_prefix(passed).unwrap_or_else(|| panic!("{text:?}"));
    let event = rest.strip_prefix("data: ").unwrap_or_else(|| panic!("{text:?}"));
    let error: Value = serde_json::from_str(event.trim_end()).expect("JSON");
    assert_eq!(error["error"]["code"], code);
    assert!(error["error"]["message"].as_str().is_some_and(|m| m.contains("incomplete")));
    assert!(event.ends_with("}\n\n"), "a whole event: {event:?}");
    assert!(!text.contains("[DONE]"));
}

pub(crate) async fn check_gone(setting: &Setting, finish: Finish, flags: &str) {
    let record = setting.record(1).await;
    assert_eq!((record.finish, record.response_flags), (Some(finish), flags));
    assert_eq!((record.response_code, record.attempts), (200, 1));
    assert_eq!(setting.metric("tokenweir_retries_total", &[]), 0);
}

#[tokio::test]
async fn an_endpoint_that_dies_is_told_of() {
    let dying = fast_sim().await;
    dying.handle().set_fault(Fault::CutAfter(3));
    let other = fast_sim().await;
    let setting = Setup::new(&[dying.addr(), other.addr()]).start();
    let reply = setting.ask(&post("/v1/completions", &completion(true, 100))).await;
    let text = reply.text();
    let passed = text.find(r#"data: {"error""#).expect("an error event");
    assert!(reply.data().len() >= 2, "tokens and the error: {reply:?}");
    check_cut(&reply, &text[..passed], 502);
    check_gone(&setting, Finish::EndpointGone, "UC").await;
    assert_eq!(other.handle().requests(), 0);
}

#[tokio::test]
async fn an_event_cut_in_two_does_not_swallow_the_error() {
    // The gateway has not asked for usage here, so that the beginning of the event has passed.
    let body = r#"{"prompt":"x","stream":true,"stream_options":{"include_usage":true}}"#;
    let half = "data: {\"id\":\"cmpl";
    let fake =
        Fake::answering_and_closing(format!("{STREAM_HEAD}{}{}", chunk(TOKEN), chunk(half))).await;
    let setting = Setup::new(&[fake.addr]).start();
    let reply = setting.ask(&post("/v1/completions", body)).await;
    check_cut(&reply, &format!("{TOKEN}{half}\n\n"), 502);
    check_gone(&setting, Finish::EndpointGone, "UC").await;
}

#[tokio::test]
async fn an_event_cut_in_two_that_was_held_back_passes_before_the_error() {
    let half = "data: {\"id\":\"cmpl";
    let fake =
        Fake::answering_and_closing(format!("{STREAM_HEAD}{}{}", chunk(TOKEN), chunk(half))).await;
    let setting = Setup::new(&[fake.addr]).start();
    let reply = setting.ask(&post("/v1/completions", &completion(true, 9))).await;
    check_cut(&reply, &format!("{TOKEN}{half}\n\n"), 502);
}

#[tokio::test]
async fn a_reset_is_told_of_like_an_end() {
    let fake = Fake::start(|mut conn| async move {
        conn.request().await;
        conn.send(&format!("{STREAM_HEAD}{}", chunk(TOKEN))).await;
        // Read by now, or the token would be lost with the reset.
        let mut rest = [0; 1];
        let read = conn.stream.peek(&mut rest);
        drop(tokio::time::timeout(Duration::from_millis(100), read).await);
        conn.reset();
    })
    .await;
    let setting = Setup::new(&[fake.addr]).start();
    let mut wire = setting.wire().await;
    wire.send(&post("/v1/completions", &completion(true, 9))).await;
    check_cut(&wire.answer().await, TOKEN, 502);
    check_gone(&setting, Finish::EndpointGone, "UC").await;
}

#[tokio::test]
async fn messages_are_cut_with_anthropics_error() {
    let dying = fast_sim().await;
    dying.handle().set_fault(Fault::CutAfter(3));
    let setting = Setup::new(&[dying.addr()]).start();
    let body = r#"{"max_tokens":9,"stream":true,"messages":[{"role":"user","content":"Hi"}]}"#;
    let reply = setting.ask(&post("/v1/messages", body)).await;
    assert_eq!(reply.ended, Ended::Cut);
    let text = reply.text();
    assert!(text.contains("\n\nevent: error\ndata: {\"type\":\"error\",\"error\":{"), "{text}");
    check_gone(&setting, Finish::EndpointGone, "UC").await;
}

#[tokio::test]
async fn a_dead_engines_polite_end_passes_and_is_recorded_as_what_it_is() {
    let dying = fast_sim().await;
    dying.handle().set_fault(Fault::DieAfter(3));
    let other = fast_sim().await;
    let setting = Setup::new(&[dying.addr(), other.addr()]).start();
    let reply = setting.ask(&post("/v1/completions", &completion(true, 100))).await;
    let data = reply.data();
    assert_eq!((reply.ended, data.len()), (Ended::Clean, 5), "three tokens, error, end: {reply:?}");
    assert!(data[3].contains("EngineCore encountered an issue"));
    assert_eq!(data[4], "[DONE]");
    check_gone(&setting, Finish::EndpointGone, "UC").await;
    assert_eq!(other.handle().requests(), 0);
}

#[tokio::test]
async fn a_plain_answer_that_breaks_off_ends_uncleanly() {
    let answer = json_answer("200 OK", r#"{"id":"cmpl-1","model":"m","choices":[]}"#);
    let (cut, _) = answer.split_at(answer.len() - 9);
    let fake = Fake::answering_and_closing(cut).await;
    let setting = Setup::new(&[fake.addr]).start();
    let reply = setting.ask(&post("/v1/completions", &completion(false, 9))).await;
    assert_eq!((reply.code, reply.ended), (200, Ended::Cut));
    assert!(cut.ends_with(&reply.text()));
    check_gone(&setting, Finish::EndpointGone, "UC").await;
}

#[tokio::test]
async fn a_client_that_knows_no_chunks_sees_a_cut_by_a_reset() {
    let plain = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    for head in [STREAM_HEAD, plain] {
        let fake = Fake::answering_and_closing(format!("{head}{}", chunk(TOKEN))).await;
        let setting = Setup::new(&[fake.addr]).start();
        let request = post("/v1/completions", &completion(head == STREAM_HEAD, 9));
        let request = String::from_utf8(request).expect("text").replace("HTTP/1.1", "HTTP/1.0");
        let mut wire = setting.wire().await;
        wire.send(request.as_bytes()).await;
        let mut stream = wire.into_stream();
        let mut said = Vec::new();
        let error = soon("an end", stream.read_to_end(&mut said)).await.expect_err("no clean end");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(said.starts_with("HTTP/1.0 200 OK\r\n") && said.contains(TOKEN), "{said}");
        check_gone(&setting, Finish::EndpointGone, "UC").await;
    }
}

#[tokio::test]
async fn a_chunked_plain_answer_that_breaks_off_ends_uncleanly() {
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    let fake = Fake::answering_and_closing(format!("{head}{}", chunk("{\"id\":"))).await;
    let setting = Setup::new(&[fake.addr]).start();
    let reply = setting.ask(&post("/v1/completions", &completion(false, 9))).await;
    assert_eq!((reply.text().as_str(), reply.ended), ("{\"id\":", Ended::Cut));
    check_gone(&setting, Finish::EndpointGone, "UC").await;
}

/// Long enough for a first token on a busy machine.
fn impatient(pool: &mut picker::PoolSpec) {
    pool.delivery.idle_timeout = Duration::from_millis(300);
}

#[tokio::test]
async fn silence_before_the_first_event_is_a_refusal() {
    // A queue may be long: a busy endpoint's requests do not move on to the next.
    let other = fast_sim().await;
    for begun in ["", "5\r\ndata:\r\n"] {
        let fake = Fake::falling_silent_after(format!("{STREAM_HEAD}{begun}")).await;
        let setting = Setup::new(&[fake.addr, other.addr()]).pool(impatient).start();
        let reply = setting.ask(&post("/v1/completions", &completion(true, 9))).await;
        assert_eq!((reply.code, reply.header("x-tokenweir-reason")), (504, Some("idle_timeout")));
        let record = setting.record(1).await;
        assert_eq!(record.finish, Some(Finish::Refused("idle_timeout")));
        assert_eq!((record.attempts, other.handle().requests()), (1, 0));
    }
}

#[tokio::test]
async fn silence_within_a_stream_cuts_it() {
    let fake = Fake::falling_silent_after(format!("{STREAM_HEAD}{}", chunk(TOKEN))).await;
    let setting = Setup::new(&[fake.addr]).pool(impatient).start();
    let reply = setting.ask(&post("/v1/completions", &completion(true, 9))).await;
    check_cut(&reply, TOKEN, 504);
    check_gone(&setting, Finish::IdleTimeout, "UT").await;
}

#[tokio::test]
async fn silence_within_a_plain_answer_cuts_it() {
    let answer = json_answer("200 OK", r#"{"id":"cmpl-1","model":"m","choices":[]}"#);
    let fake = Fake::falling_silent_after(&answer[..answer.len() - 9]).await;
    let setting = Setup::new(&[fake.addr]).pool(impatient).start();
    let reply = setting.ask(&post("/v1/completions", &completion(false, 9))).await;
    assert_eq!(reply.ended, Ended::Cut);
    check_gone(&setting, Finish::IdleTimeout, "UT").await;
}

#[tokio::test]
async fn a_stream_may_take_longer_than_the_silence_allowed() {
    // Twenty-five pauses of a twentieth of the allowance: together more than it.
    let fake = Fake::start(|mut conn| async move {
        conn.request().await;
        conn.send(STREAM_HEAD).await;
        for _ in 0..25 {
            conn.send(&chunk(TOKEN)).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        conn.send(&format!("{}{LAST_CHUNK}", chunk("data: [DONE]\n\n"))).await;
    })
    .await;
    let setting = Setup::new(&[fake.addr])
        .pool(|pool| pool.delivery.idle_timeout = Duration::from_secs(2))
        .start();
    let reply = setting.ask(&post("/v1/completions", &completion(true, 25))).await;
    assert_eq!((reply.ended, reply.data().len()), (Ended::Clean, 26));
}

#[tokio::test]
async fn a_keep_alive_comment_passes_at_once_and_is_no_token() {
    let fake = Fake::falling_silent_after(format!("{STREAM_HEAD}{}", chunk(": ping\n\n"))).await;
    let setting = Setup::new(&[fake.addr]).start();
    let mut wire = setting.wire().await;
    wire.send(&post("/v1/completions", &completion(true, 20))).await;
    let reply = wire.so_far(|reply| reply.text() == ": ping\n\n").await;
    assert_eq!(reply.code, 200);
    drop(wire);
    assert_eq!(setting.record(1).await.first_token, None);
}

#[tokio::test]
async fn a_routes_timeout_cuts_a_stream() {
    let fake = Fake::start(|mut conn| async move {
        conn.request().await;
        let mut more = conn.send(STREAM_HEAD).await;
        while more {
            more = conn.send(&chunk(TOKEN)).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let setting = Setup::new(&[fake.addr]).timeout(Duration::from_millis(500)).start();
    let reply = setting.ask(&post("/v1/completions", &completion(true, 9))).await;
    assert_eq!(reply.ended, Ended::Cut);
    assert!(reply.text().starts_with(TOKEN));
    assert!(!reply.text().contains("[DONE]"));
    let record = setting.record(1).await;
    assert_eq!(record.response_flags, "UT");
    assert!(record.started.elapsed() < DEADLINE);
}
