//! HTTP/2 to endpoints: what they refuse.

use picker::AppProtocol;

use crate::{
    fake::{Conn, Fake, json_answer},
    frames::{END_HEADERS, END_STREAM, Frame, Frames, GOAWAY, HEADERS, RST_STREAM},
    setting::{Setup, completion, endpoint},
    wire::post,
};

const NO_ERROR: u32 = 0;
const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

/// What an endpoint says to the request of a stream.
type Says = fn(u32) -> Frame;

/// 200, without a body.
fn answer(stream: u32) -> Frame {
    Frame::new(HEADERS, END_HEADERS | END_STREAM, stream, [0x88])
}

fn reset(stream: u32, code: u32) -> Frame {
    Frame::new(RST_STREAM, 0, stream, code.to_be_bytes())
}

/// The stream before is the last one that was looked at.
fn go_away_before(stream: u32, code: u32) -> Frame {
    let last = stream.saturating_sub(2);
    Frame::new(GOAWAY, 0, 0, [last.to_be_bytes(), code.to_be_bytes()].concat())
}

/// Says this to the first request of a connection, and that to each later one.
async fn saying(first: Says, later: Says) -> Fake {
    Fake::start(move |Conn { stream, .. }| async move {
        let mut frames = Frames::accept(stream).await;
        let mut says = first;
        while let Some(request) = frames.find(|frame| frame.kind == HEADERS).await {
            frames.send(&[says(request.stream)]).await;
            says = later;
        }
    })
    .await
}

#[tokio::test]
async fn what_a_kept_connection_refuses_unseen_goes_over_a_new_one() {
    let refusals: [Says; 2] =
        [|stream| reset(stream, REFUSED_STREAM), |stream| go_away_before(stream, NO_ERROR)];
    for refusal in refusals {
        let fake = saying(answer, refusal).await;
        let setting = Setup::h2c(fake.addr).start();
        for nth in 1..=2 {
            assert_eq!(setting.ask(&post("/v1/unknown", "{}")).await.code, 200);
            assert_eq!(setting.record(nth).await.attempts, 1);
        }
        assert_eq!(fake.opened(), 2);
    }
}

#[tokio::test]
async fn what_an_endpoint_refuses_unseen_goes_to_another() {
    let refusals: [Says; 2] =
        [|stream| reset(stream, REFUSED_STREAM), |stream| go_away_before(stream, NO_ERROR)];
    for refusal in refusals {
        let refusing = saying(refusal, refusal).await;
        let other = Fake::answering(json_answer("200 OK", "{}")).await;
        let addr = other.addr;
        let setting = Setup::h2c(refusing.addr)
            .pool(move |pool| pool.endpoints.push(endpoint(addr, AppProtocol::Http1)))
            .start();
        assert_eq!(setting.ask(&post("/v1/unknown", "{}")).await.code, 200);
        assert_eq!(setting.record(1).await.attempts, 2);
        assert_eq!(setting.metric("tokenweir_retries_total", &["outcome=\"reset\""]), 1);
    }
}

#[tokio::test]
async fn what_an_endpoint_may_have_seen_is_not_sent_again() {
    let ends: [Says; 2] = [
        |stream| reset(stream, INTERNAL_ERROR),
        |stream| go_away_before(stream, ENHANCE_YOUR_CALM),
    ];
    for end in ends {
        let fake = saying(answer, end).await;
        let setting = Setup::h2c(fake.addr).start();
        assert_eq!(setting.ask(&post("/v1/unknown", "{}")).await.code, 200);
        let reply = setting.ask(&post("/v1/unknown", "{}")).await;
        assert_eq!((reply.code, reply.header("x-tokenweir-reason")), (502, Some("reset")));
        assert_eq!(fake.opened(), 1);
    }
}

#[tokio::test]
async fn a_stream_that_is_reset_is_no_dead_connection() {
    let fake = saying(answer, |stream| reset(stream, INTERNAL_ERROR)).await;
    let setting = Setup::h2c(fake.addr).start();
    let request = post("/v1/embeddings", &completion(false, 1));
    assert_eq!(setting.ask(&request).await.code, 200);
    let reply = setting.ask(&request).await;
    assert_eq!((reply.code, reply.header("x-tokenweir-reason")), (502, Some("reset")));
    assert_eq!(fake.opened(), 1);
}
