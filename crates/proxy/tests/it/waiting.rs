//! Requests wait in the gateway while the endpoints have no room, and their clients notice nothing else of it.

use std::time::Duration;

use picker::{ObjectiveSpec, PoolSpec, monotonic};
use scheduling::{EndpointId, Reading, ScrapeMark, Signals};
use sim::Running;

use crate::{
    refusals::check_shape,
    setting::{Setting, Setup, check_left, completion, slow_sim, soon, until},
    wire::{Ended, Reply, Wire, post, post_with},
};

const SHORT: Duration = Duration::from_millis(50);

fn request(max_tokens: u32) -> Vec<u8> {
    post("/v1/completions", &completion(true, max_tokens))
}

/// A slow server that says it has room for one prompt of two tokens.
async fn narrow(change: fn(&mut PoolSpec)) -> (Running, Setting) {
    let server = slow_sim().await;
    let waits = |pool: &mut PoolSpec| pool.flow_control.late_binding = Some(true);
    let setting = Setup::new(&[server.addr()]).pool(waits).pool(change).start();
    let heard = monotonic();
    let signals = Signals {
        kv_block_tokens: Some(Reading { value: 2, heard }),
        // One of them holds nothing.
        kv_blocks: Some(Reading { value: 2, heard }),
        ..Signals::default()
    };
    let id = EndpointId::new(server.addr().to_string());
    setting.writer.signals(&id, signals, ScrapeMark::NOTHING);
    (server, setting)
}

fn as_usual(_: &mut PoolSpec) {}

fn waiting(setting: &Setting) -> u64 {
    setting.metric("tokenweir_queue_requests", &["pool=\"pool\""])
}

/// A request at work, and another one that waits.
async fn one_and_one(server: &Running, setting: &Setting) -> (Wire, Wire) {
    let mut first = setting.wire().await;
    first.send(&request(30)).await;
    first.so_far(|reply| !reply.data().is_empty()).await;
    let mut second = setting.wire().await;
    second.send(&request(2)).await;
    until("the second waits", || waiting(setting) == 1).await;
    assert_eq!((server.handle().requests(), setting.in_flight()), (1, 1));
    (first, second)
}

#[tokio::test]
async fn a_request_that_still_waits_when_the_drain_is_over_is_refused() {
    let (server, setting) = narrow(as_usual).await;
    let (_first, mut second) = one_and_one(&server, &setting).await;
    setting.connections.stop();
    setting.connections.cut();
    check_shape(&second.answer().await, 503, "draining");
    assert_eq!(waiting(&setting), 0);
    setting.record(2).await;
    assert_eq!(setting.metric("tokenweir_client_disconnects_total", &[]), 0);
}

/// The answer to a request that is refused, and may come again when the one at work should be done.
async fn refused(setting: &Setting, request: &[u8], code: u16, reason: &'static str) -> Reply {
    let reply = setting.ask(request).await;
    check_shape(&reply, code, reason);
    let retry_after = reply.header("retry-after").and_then(|seconds| seconds.parse::<u64>().ok());
    assert!(matches!(retry_after, Some(1..=60)), "{retry_after:?}");
    let label = format!("reason=\"{reason}\"");
    assert_eq!(setting.metric("tokenweir_refusals_total", &[&label, "pool=\"pool\""]), 1);
    reply
}

#[tokio::test]
async fn a_request_waits_for_another_to_end_and_is_answered() {
    let (server, setting) = narrow(as_usual).await;
    let (mut first, mut second) = one_and_one(&server, &setting).await;
    assert!(setting.metric("tokenweir_queue_bytes", &[]) > 60, "its body");
    assert_eq!(first.answer().await.ended, Ended::Clean);
    let reply = second.answer().await;
    assert_eq!((reply.code, reply.ended, reply.data().len()), (200, Ended::Clean, 3));
    let record = setting.record(2).await;
    assert!(record.queue > Some(Duration::from_millis(500)), "{:?}", record.queue);
    assert_eq!((waiting(&setting), setting.metric("tokenweir_queue_bytes", &[])), (0, 0));
}

#[tokio::test]
async fn a_client_that_leaves_lets_the_next_one_go() {
    let (server, setting) = narrow(as_usual).await;
    let (first, second) = one_and_one(&server, &setting).await;
    drop(second);
    until("its place given up", || waiting(&setting) == 0).await;
    until("its record", || setting.records().len() == 1).await;
    check_left(&setting.records()[0]);
    assert_eq!(server.handle().requests(), 1, "the endpoint never saw it");
    let mut third = setting.wire().await;
    third.send(&request(2)).await;
    until("the third waits", || waiting(&setting) == 1).await;
    drop(first);
    assert_eq!(third.answer().await.code, 200);
    setting.record(3).await;
}

#[tokio::test]
async fn a_request_that_waits_in_vain_is_told_when_to_come_again() {
    let (server, setting) = narrow(|pool| pool.flow_control.wait_max = SHORT).await;
    let mut first = setting.wire().await;
    first.send(&request(3000)).await;
    first.so_far(|reply| !reply.data().is_empty()).await;
    let reply = refused(&setting, &request(1), 503, "queue_timeout").await;
    assert!(reply.text().contains("within 50ms"), "{reply:?}");
    assert_eq!(server.handle().requests(), 1);
}

#[tokio::test]
async fn a_request_that_finds_the_queue_full_is_told_when_to_come_again() {
    let (server, setting) = narrow(|pool| pool.flow_control.requests_max = 1).await;
    let (_first, _second) = one_and_one(&server, &setting).await;
    refused(&setting, &request(1), 429, "queue_full").await;
    assert_eq!(waiting(&setting), 1);
}

#[tokio::test]
async fn a_sheddable_request_is_told_when_to_come_again() {
    let low = |pool: &mut PoolSpec| {
        pool.objectives.push(ObjectiveSpec { name: "low".into(), priority: -1 });
    };
    let (server, setting) = narrow(low).await;
    let (_first, _second) = one_and_one(&server, &setting).await;
    let objective = "x-gateway-inference-objective: low\r\n";
    let request = post_with("/v1/completions", objective, completion(true, 1).as_bytes());
    refused(&setting, &request, 429, "shed").await;
}

#[tokio::test]
async fn waiting_takes_its_time_from_the_whole_answer() {
    let (server, setting) = narrow(as_usual).await;
    let (_first, second) = one_and_one(&server, &setting).await;
    drop(second);
    setting.change(|pool| pool.delivery.timeout = Some(SHORT));
    let reply = setting.ask(&request(1)).await;
    check_shape(&reply, 504, "route_timeout");
    assert_eq!((waiting(&setting), server.handle().requests()), (0, 1));
}

#[tokio::test]
async fn a_draining_proxy_answers_those_who_wait() {
    let (server, setting) = narrow(as_usual).await;
    let (mut first, mut second) = one_and_one(&server, &setting).await;
    setting.connections.stop();
    assert_eq!(first.answer().await.code, 200);
    let reply = second.answer().await;
    assert_eq!((reply.code, reply.ended), (200, Ended::Clean));
    soon("all tasks ended", setting.connections.ended()).await;
}
