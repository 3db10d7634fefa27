//! An endpoint that fails again and again is left alone for a while; its clients' faults are not its own.

use std::{net::SocketAddr, time::Duration};

use http::StatusCode;
use picker::Delivery;
use scheduling::Trouble;
use sim::Fault;

use crate::{
    fake::{Fake, LAST_CHUNK, STREAM_HEAD, TOKEN, chunk, json_answer},
    setting::{Port, Setting, Setup, completion, fast_sim, until},
    wire::{Ended, post},
};

const ERROR_EVENT: &str =
    "data: {\"error\":{\"message\":\"EngineCore encountered an issue.\",\"code\":500}}\n\n";
const SHUTDOWN: &str = r#"{"error":{"message":"cannot schedule new futures after shutdown","type":"InternalServerError","param":null,"code":500}}"#;
/// Requests, of which round robin sends every other one to the first of two endpoints.
const REQUESTS: u32 = 12;
const FAILURES: usize = 3;

fn stream() -> Vec<u8> {
    post("/v1/completions", &completion(true, 3))
}

/// Asks often, one request after the other.
async fn ask_often(setting: &Setting, request: &[u8]) {
    for nth in 1..=REQUESTS {
        setting.ask(request).await;
        setting.record(nth as usize).await;
    }
}

/// Requests go to `first` until it has failed three times, and then to the second only.
async fn check_ejected(first: SocketAddr, request: &[u8], change: fn(&mut Delivery)) {
    let server = fast_sim().await;
    let setting =
        Setup::new(&[first, server.addr()]).pool(move |spec| change(&mut spec.delivery)).start();
    ask_often(&setting, request).await;
    assert_eq!(setting.trouble(first), Some(Trouble::Ejected));
    assert_eq!(setting.trouble(server.addr()), None);
    let to_first = |record: &picker::RequestRecord| {
        record.attempts > 1 || record.upstream_host == Some(first.to_string())
    };
    assert_eq!(setting.records().iter().filter(|record| to_first(record)).count(), FAILURES);
}

fn as_usual(_: &mut Delivery) {}

#[tokio::test]
async fn one_that_refuses_connections_is_ejected() {
    check_ejected(Port::free().addr, &stream(), as_usual).await;
}

#[tokio::test]
async fn one_that_drains_is_ejected_and_its_clients_see_nothing_of_it() {
    let fake = Fake::answering(json_answer("500 Internal Server Error", SHUTDOWN)).await;
    let server = fast_sim().await;
    let setting = Setup::new(&[fake.addr, server.addr()]).start();
    for _ in 0..REQUESTS {
        let reply = setting.ask(&stream()).await;
        assert_eq!((reply.code, reply.ended, reply.data().len()), (200, Ended::Clean, 4));
    }
    assert_eq!(fake.seen().len(), FAILURES);
    assert_eq!(setting.trouble(fake.addr), Some(Trouble::Ejected));
}

#[tokio::test]
async fn one_that_closes_before_it_answers_is_ejected() {
    let fake = Fake::answering_and_closing("").await;
    check_ejected(fake.addr, &stream(), as_usual).await;
    let fake = Fake::answering_and_closing(STREAM_HEAD).await;
    check_ejected(fake.addr, &stream(), as_usual).await;
}

#[tokio::test]
async fn one_that_says_it_cannot_serve_is_ejected() {
    let fake = Fake::answering(json_answer("503 Service Unavailable", "{}")).await;
    check_ejected(fake.addr, &stream(), as_usual).await;
    // Nobody else may get such a request; it is a failure all the same.
    check_ejected(fake.addr, &post("/v1/other", "{}"), as_usual).await;
    let fake = Fake::answering(format!("{STREAM_HEAD}{}{LAST_CHUNK}", chunk(ERROR_EVENT))).await;
    check_ejected(fake.addr, &stream(), as_usual).await;
}

#[tokio::test]
async fn one_that_dies_in_the_middle_of_its_answers_is_ejected() {
    let begun = format!("{STREAM_HEAD}{}", chunk(TOKEN));
    let fake = Fake::answering_and_closing(begun.clone()).await;
    check_ejected(fake.addr, &stream(), as_usual).await;
    let dead = chunk(&format!("{ERROR_EVENT}data: [DONE]\n\n"));
    let fake = Fake::answering(format!("{begun}{dead}{LAST_CHUNK}")).await;
    check_ejected(fake.addr, &stream(), as_usual).await;
}

#[tokio::test]
async fn one_that_is_silent_is_ejected() {
    // What is silent for longer than the other takes to answer on a busy machine.
    const SILENCE: Duration = Duration::from_millis(500);
    let fake = Fake::falling_silent_after("").await;
    let no_token = |delivery: &mut Delivery| delivery.first_token_timeout = Some(SILENCE);
    check_ejected(fake.addr, &stream(), no_token).await;
    let fake = Fake::falling_silent_after(format!("{STREAM_HEAD}{}", chunk(TOKEN))).await;
    let silence = |delivery: &mut Delivery| delivery.idle_timeout = SILENCE;
    check_ejected(fake.addr, &stream(), silence).await;
}

/// An endpoint that answers so stays in.
async fn check_stays(answer: String) {
    let fake = Fake::answering(answer).await;
    let server = fast_sim().await;
    let setting = Setup::new(&[fake.addr, server.addr()]).start();
    ask_often(&setting, &stream()).await;
    assert_eq!(setting.trouble(fake.addr), None);
    assert_eq!(fake.seen().len(), REQUESTS as usize / 2);
}

#[tokio::test]
async fn refused_requests_are_not_held_against_an_endpoint() {
    for status in ["400 Bad Request", "401 Unauthorized", "404 Not Found", "429 Too Many Requests"]
    {
        check_stays(json_answer(status, r#"{"error":{"message":"no","code":400}}"#)).await;
    }
}

#[tokio::test]
async fn a_request_that_an_endpoint_stumbles_over_is_not_held_against_it() {
    check_stays(json_answer("500 Internal Server Error", r#"{"error":{"message":"x"}}"#)).await;
}

#[tokio::test]
async fn clients_that_leave_are_not_held_against_an_endpoint() {
    for begun in [String::new(), format!("{STREAM_HEAD}{}", chunk(TOKEN))] {
        let fake = Fake::falling_silent_after(begun.clone()).await;
        let server = fast_sim().await;
        let setting = Setup::new(&[fake.addr, server.addr()]).start();
        for nth in 1..=REQUESTS {
            let mut wire = setting.wire().await;
            wire.send(&stream()).await;
            if nth % 2 == 0 {
                wire.answer().await;
            } else {
                until("the request at the endpoint", || {
                    fake.seen().len() == nth.div_ceil(2) as usize
                })
                .await;
            }
            drop(wire);
            setting.record(nth as usize).await;
        }
        assert_eq!(setting.trouble(fake.addr), None);
        assert_eq!(fake.seen().len(), REQUESTS as usize / 2);
    }
}

#[tokio::test]
async fn one_that_is_well_again_is_readmitted() {
    let (first, second) = (fast_sim().await, fast_sim().await);
    first.handle().set_fault(Fault::Status(StatusCode::SERVICE_UNAVAILABLE));
    let setting = Setup::new(&[first.addr(), second.addr()]).ejecting_for(Duration::ZERO).start();
    ask_often(&setting, &stream()).await;
    assert_eq!(setting.trouble(first.addr()), Some(Trouble::Ejected));
    first.handle().set_fault(Fault::None);
    for _ in 0..2 {
        assert_eq!(setting.ask(&stream()).await.code, 200);
    }
    assert_eq!(setting.trouble(first.addr()), None);
}

#[tokio::test]
async fn the_only_endpoint_is_asked_however_often_it_failed() {
    let fake = Fake::answering(json_answer("503 Service Unavailable", "{}")).await;
    let setting = Setup::new(&[fake.addr]).start();
    ask_often(&setting, &stream()).await;
    assert_eq!(fake.seen().len(), REQUESTS as usize);
    assert_eq!(setting.trouble(fake.addr), Some(Trouble::Ejected));
}
