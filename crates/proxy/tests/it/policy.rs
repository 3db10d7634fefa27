//! What a pool's policy and objectives say is what its requests get, from the next one on.

use std::{net::SocketAddr, time::Duration};

use picker::{ObjectiveSpec, PoolSpec, monotonic};
use scheduling::{EndpointId, Policy, Reading, ScrapeMark, Signals};

use crate::{
    fake::Fake,
    refusals::check_refused,
    setting::{MODEL, Setting, Setup, completion, fast_sim},
    wire::{post, post_with},
};

const LONG: Duration = Duration::from_hours(1);
const SHORT: Duration = Duration::from_millis(50);

fn request() -> Vec<u8> {
    post("/v1/completions", &completion(true, 1))
}

#[tokio::test]
async fn no_more_endpoints_are_tried_than_may_be() {
    let fakes = [
        Fake::answering_and_closing("").await,
        Fake::answering_and_closing("").await,
        Fake::answering_and_closing("").await,
    ];
    let setting = Setup::new(&fakes.each_ref().map(|fake| fake.addr))
        .pool(|pool| pool.outlier_detection.max_ejection_percent = 0)
        .start();
    let mut seen = 0;
    for (nth, attempts) in [3, 1, 2, 3].into_iter().enumerate() {
        setting.change(|pool| pool.delivery.attempts_max = attempts);
        check_refused(&setting, &request(), 502, "reset").await;
        assert_eq!(setting.records()[nth].attempts as usize, attempts);
        seen += attempts;
        assert_eq!(fakes.iter().map(|fake| fake.seen().len()).sum::<usize>(), seen);
    }
}

#[tokio::test]
async fn a_pool_has_a_timeout_for_the_whole_answer() {
    let fake = Fake::falling_silent_after("").await;
    let setting = Setup::new(&[fake.addr]).pool(|pool| pool.delivery.timeout = Some(SHORT)).start();
    let reply = check_refused(&setting, &request(), 504, "route_timeout").await;
    assert!(reply.text().contains("timeout of 50ms"), "{reply:?}");
}

#[tokio::test]
async fn a_routes_timeout_goes_before_that_of_the_pool() {
    let fake = Fake::falling_silent_after("").await;
    let long = |pool: &mut PoolSpec| pool.delivery.timeout = Some(LONG);
    let setting = Setup::new(&[fake.addr]).timeout(SHORT).pool(long).start();
    let reply = check_refused(&setting, &request(), 504, "route_timeout").await;
    assert!(reply.text().contains("timeout of 50ms"), "{reply:?}");

    let server = fast_sim().await;
    let short = |pool: &mut PoolSpec| pool.delivery.timeout = Some(Duration::from_nanos(1));
    let setting = Setup::new(&[server.addr()]).timeout(LONG).pool(short).start();
    assert_eq!(setting.ask(&request()).await.code, 200);
}

#[tokio::test]
async fn a_changed_policy_is_for_the_next_request() {
    let server = fast_sim().await;
    let setting = Setup::new(&[server.addr()]).start();
    let mut wire = setting.wire().await;
    for (body_bytes_max, code) in [(1000, 200), (10, 413), (1000, 200)] {
        setting.change(|pool| pool.delivery.body_bytes_max = body_bytes_max);
        if code == 413 {
            let reply = check_refused(&setting, &request(), 413, "too_large").await;
            assert!(reply.text().contains("larger than 10 bytes"), "{reply:?}");
        } else {
            wire.send(&request()).await;
            assert_eq!(wire.answer().await.code, code);
        }
    }

    let fake = Fake::falling_silent_after("").await;
    let setting = Setup::new(&[fake.addr]).start();
    for reason in ["first_token_timeout", "route_timeout"] {
        setting.change(|pool| {
            let limit = |name| (reason == name).then_some(SHORT);
            pool.delivery.first_token_timeout = limit("first_token_timeout");
            pool.delivery.timeout = limit("route_timeout");
        });
        check_refused(&setting, &request(), 504, reason).await;
    }
}

/// A pool that sheds what may be shed, and has an objective for that.
fn saturated(addr: SocketAddr) -> Setting {
    let setting = Setup::new(&[addr])
        .pool(|pool| {
            pool.policy = Policy::LoraChain;
            pool.objectives = vec![ObjectiveSpec { name: "batch".into(), priority: -1 }];
        })
        .start();
    let waiting = Some(Reading { value: 20, heard: monotonic() });
    let signals = Signals { waiting, ..Signals::default() };
    setting.writer.signals(&EndpointId::new(addr.to_string()), signals, ScrapeMark::NOTHING);
    setting
}

#[tokio::test]
async fn a_request_is_shed_that_names_an_objective_of_low_priority() {
    let server = fast_sim().await;
    let setting = saturated(server.addr());
    let body = completion(false, 1);
    let ask = |header: &str| post_with("/v1/completions", header, body.as_bytes());
    for name in ["x-gateway-inference-objective", "X-LLM-D-Inference-Objective"] {
        let request = ask(&format!("{name}: batch\r\n"));
        let reply = check_refused(&setting, &request, 429, "shed").await;
        assert_eq!(reply.header("retry-after"), Some("1"));
        assert_eq!(reply.json()["error"]["type"], "RateLimitError");
        assert_eq!(setting.records().last().map(|record| record.response_flags), Some("UO"));
    }
    assert_eq!(server.handle().requests(), 0);
    for header in ["", "x-gateway-inference-objective: other\r\n"] {
        assert_eq!(setting.ask(&ask(header)).await.code, 200, "{header}");
    }
    assert_eq!(setting.metric("tokenweir_refusals_total", &[r#"reason="shed""#]), 2);
}

#[tokio::test]
async fn a_message_that_is_shed_is_told_so_in_anthropics_shape() {
    let server = fast_sim().await;
    let setting = saturated(server.addr());
    let body = format!(r#"{{"model":"{MODEL}","max_tokens":1,"messages":[]}}"#);
    let header = "x-llm-d-inference-objective: batch\r\n";
    let reply = setting.ask(&post_with("/v1/messages", header, body.as_bytes())).await;
    assert_eq!((reply.code, reply.header("x-tokenweir-reason")), (429, Some("shed")));
    assert_eq!(reply.json()["error"]["type"], "rate_limit_error");
}
