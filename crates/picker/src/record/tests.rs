use scheduling::Policy;

use super::*;
use crate::{
    Fault, Wire,
    picker::tests::{Gateway, desired, record},
};

/// Ends a request that was never picked, and compares finish, code, flags and bytes.
fn check(end: impl FnOnce(&mut RequestRecord), expected: (&str, u16, &str, u64)) {
    let gateway = Gateway::new(desired(Policy::default(), "p: a"));
    let mut open = gateway.picker.open(record("m"));
    end(open.get().unwrap());
    assert!(gateway.written().is_empty());
    drop(open);
    let written = gateway.written();
    assert_eq!(written.len(), 1);
    let one = &written[0];
    let finish = one.finish.as_ref().and_then(Finish::name).unwrap_or_default();
    assert_eq!((&*finish, one.response_code, one.response_flags, one.bytes_sent), expected);
}

/// Every refusal with its row of the table.
fn refusals() -> Vec<(Refusal, Wire)> {
    let second = Duration::from_secs(1);
    let text = || "x".to_owned();
    let row = |refusal, status, reason, fault, flag| {
        (refusal, Wire { status, reason, fault, flag, retry_after: None })
    };
    let (client, gateway, endpoint) = (Fault::Client, Fault::Gateway, Fault::Endpoint);
    let mut rows = vec![
        row(Refusal::InvalidBody(text()), 400, "invalid_body", client, "-"),
        row(Refusal::BodyTooLarge { limit_bytes: 1 }, 413, "too_large", client, "-"),
        row(Refusal::HeadersTooLarge, 431, "too_large", client, "-"),
        row(Refusal::BodyTimeout(second), 408, "body_timeout", client, "-"),
        row(Refusal::NoRoute { host: text(), path: text() }, 404, "no_route", client, "NR"),
        row(Refusal::NoEndpoints { pool: text() }, 503, "no_endpoints", gateway, "UH"),
        row(Refusal::Shed { pool: text(), retry_after: second }, 429, "shed", gateway, "UO"),
        row(
            Refusal::QueueFull { pool: text(), retry_after: second * 7 / 2 },
            429,
            "queue_full",
            gateway,
            "UO",
        ),
        row(
            Refusal::QueueTimeout { pool: text(), waited: second, retry_after: second / 4 },
            503,
            "queue_timeout",
            gateway,
            "UO",
        ),
        row(Refusal::Unreachable { tried: 2 }, 502, "unreachable", endpoint, "UF"),
        row(Refusal::Reset, 502, "reset", endpoint, "UC"),
        row(Refusal::FirstTokenTimeout, 504, "first_token_timeout", endpoint, "UT"),
        row(Refusal::IdleTimeout, 504, "idle_timeout", endpoint, "UT"),
        row(Refusal::RouteTimeout(second), 504, "route_timeout", endpoint, "UT"),
        row(Refusal::Draining, 503, "draining", gateway, "-"),
        row(Refusal::Exhausted, 503, "overloaded", gateway, "UO"),
        row(Refusal::TooManyConnections, 503, "overloaded", gateway, "UO"),
        row(Refusal::PathTooLong, 414, "too_large", client, "-"),
        row(Refusal::MalformedHead, 400, "malformed_head", client, "DPE"),
        row(Refusal::InvalidTarget, 400, "malformed_head", client, "DPE"),
        row(Refusal::HeaderTimeout(second), 408, "header_timeout", client, "-"),
        row(Refusal::Panicked, 500, "panicked", gateway, "-"),
        row(Refusal::InvalidHost, 400, "invalid_host", client, "-"),
        row(Refusal::Overloaded, 503, "overloaded", gateway, "UO"),
        row(Refusal::PoolNotFound { pool: text() }, 503, "no_endpoints", gateway, "UH"),
    ];
    // In seconds, rounded up.
    for (index, retry_after) in [(5, 1), (6, 1), (7, 4), (8, 1), (15, 1), (16, 1), (23, 1), (24, 1)]
    {
        rows[index].1.retry_after = Some(retry_after);
    }
    rows
}

#[test]
fn every_refusal_reads_as_the_table_says() {
    for (refusal, wire) in refusals() {
        assert_eq!(refusal.wire(), wire, "{refusal:?}");
        check(|one| one.refuse(&refusal, 77), (wire.reason, wire.status, wire.flag, 77));
    }
}

#[test]
fn every_refusal_says_what_to_do() {
    for (refusal, _) in refusals() {
        let text = refusal.to_string();
        let advises =
            ["retry", "send", "check", "correct", "ran out"].iter().any(|word| text.contains(word));
        assert!(advises || matches!(refusal, Refusal::InvalidBody(_)), "{text}");
    }
}

#[test]
fn a_request_without_an_end_was_left_by_its_client() {
    check(|_| (), ("client_gone", 499, "DC", 0));
    let half = |one: &mut RequestRecord| {
        one.response_code = 200;
        one.bytes_sent = 40;
    };
    check(half, ("client_gone", 499, "DC", 40));
}

#[test]
fn a_record_that_moved_is_written_once() {
    let gateway = Gateway::new(desired(Policy::default(), "p: a"));
    let mut first = gateway.picker.open(record("m"));
    let mut second = first.take();
    assert!(first.get().is_none());
    drop(first);
    assert!(gateway.written().is_empty());
    second.get().unwrap().finish = Some(Finish::Complete(None));
    drop(second);
    assert_eq!(gateway.written().len(), 1);
    assert_eq!(gateway.written()[0].finish, Some(Finish::Complete(None)));
}

#[tokio::test(start_paused = true)]
async fn a_request_lasts_until_its_record_is_dropped() {
    let gateway = Gateway::new(desired(Policy::default(), "p: a"));
    let open = gateway.picker.open(record("m"));
    tokio::time::advance(Duration::from_secs(3)).await;
    drop(open);
    let page = gateway.page();
    let line = "tokenweir_request_duration_seconds_sum{model=\"other\",pool=\"unknown\"} 3\n";
    assert!(page.contains(line), "{page}");
}

#[test]
fn times_of_tokens_are_reckoned_from_what_was_seen() {
    let millis = Duration::from_millis;
    let cases = [
        (None, None, Some(5), None, None),
        (Some(100), Some(100), Some(1), Some(100), None),
        (Some(100), Some(100), Some(0), Some(100), None),
        (Some(100), Some(500), None, Some(100), None),
        (Some(100), Some(500), Some(5), Some(100), Some(100)),
        (Some(100), Some(500), Some(2), Some(100), Some(400)),
    ];
    for (first, last, completion_tokens, ttft, tpot) in cases {
        let mut one = record("m");
        one.first_token = first.map(|at| one.started + millis(at));
        one.last_token = last.map(|at| one.started + millis(at));
        one.usage.completion_tokens = completion_tokens;
        let expected = (ttft.map(millis), tpot.map(millis));
        assert_eq!((one.ttft(), one.tpot()), expected, "{first:?} {last:?} {completion_tokens:?}");
    }
}
