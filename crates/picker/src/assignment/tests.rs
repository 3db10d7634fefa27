use std::panic::{AssertUnwindSafe, catch_unwind};

use scheduling::Policy;

use super::*;
use crate::picker::tests::{Gateway, desired};

/// Runs a request over the endpoints and asks for what is left: the load, then each record's
/// finish, code, flags, endpoint and attempts.
fn check(endpoints: &str, request: impl FnOnce(&Gateway, Assignment), expected: &str) {
    let gateway = Gateway::new(desired(Policy::RoundRobin, &format!("p: {endpoints}")));
    let assignment = gateway.pick().unwrap();
    assert!(gateway.load().starts_with("a=1"), "{}", gateway.load());
    assert!(gateway.written().is_empty(), "a record was written before the end");
    request(&gateway, assignment);
    assert!(!gateway.load().contains("=1"), "{}", gateway.load());
    let lines: Vec<String> = gateway
        .written()
        .iter()
        .map(|record| {
            let finish = record.finish.as_ref().and_then(Finish::name).unwrap_or_default();
            let host = record.upstream_host.as_deref().unwrap_or("-");
            let (code, flags) = (record.response_code, record.response_flags);
            format!("{finish} {code} {flags} {host} {}", record.attempts)
        })
        .collect();
    assert_eq!(lines, [expected]);
}

fn answer(mut assignment: Assignment, finish: Finish) {
    assignment.note(|record| record.response_code = 200);
    assignment.finish(finish);
}

#[test]
fn a_request_that_nobody_ended_was_left_by_its_client() {
    check("a", |_, assignment| drop(assignment), "client_gone 499 DC a 1");
}

#[test]
fn an_end_is_written_as_it_was_said() {
    let stop = Finish::Complete(Some("stop".to_owned()));
    check("a b", |_, assignment| answer(assignment, stop), "stop 200 - a 1");
    check("a b", |_, one| answer(one, Finish::Complete(None)), " 200 - a 1");
    check("a b", |_, one| answer(one, Finish::EndpointGone), "endpoint_gone 200 - a 1");
    check("a b", |_, one| answer(one, Finish::IdleTimeout), "idle_timeout 200 - a 1");
    check("a b", |_, one| answer(one, Finish::Draining), "draining 200 - a 1");
    check("a b", |_, one| answer(one, Finish::ClientGone), "client_gone 499 DC a 1");
}

#[test]
fn the_last_word_on_the_end_counts() {
    let request = |_: &Gateway, mut assignment: Assignment| {
        assignment.finish(Finish::EndpointGone);
        answer(assignment, Finish::Complete(Some("length".to_owned())));
    };
    check("a", request, "length 200 - a 1");
}

#[test]
fn moving_on_moves_the_claim() {
    let request = |gateway: &Gateway, mut assignment: Assignment| {
        let mut seen = vec![assignment.endpoint().spec.id.to_string()];
        for left in [true, false] {
            assert!(assignment.advance("error"));
            assert_eq!(!assignment.others.is_empty(), left);
            let id = assignment.endpoint().spec.id.to_string();
            let load = gateway.load();
            assert_eq!(load.matches("=1").count(), 1, "{load}");
            assert!(load.contains(&format!("{id}=1")), "{load}");
            seen.push(id);
        }
        assert!(!assignment.advance("error"), "there was a fourth choice");
        assert!(gateway.load().contains(&format!("{}=1", seen[2])));
        assert_eq!(seen, ["a", "b", "c"]);
    };
    check("a b c d", request, "client_gone 499 DC c 3");
}

#[test]
fn retries_are_counted_by_what_the_endpoint_did() {
    let request = |gateway: &Gateway, mut assignment: Assignment| {
        assert!(assignment.advance("unreachable"));
        assert!(assignment.advance("error"));
        assert!(!assignment.advance("error"));
        let page = gateway.page();
        for outcome in ["unreachable", "error"] {
            let line = format!("tokenweir_retries_total{{outcome=\"{outcome}\",pool=\"p\"}} 1\n");
            assert!(page.contains(&line), "{page}");
        }
    };
    check("a b c", request, "client_gone 499 DC c 3");
}

#[test]
fn a_panic_returns_the_claim_and_is_not_held_against_the_client() {
    let request = |gateway: &Gateway, assignment: Assignment| {
        let panicked = catch_unwind(AssertUnwindSafe(move || {
            let mut assignment = assignment;
            assert!(assignment.advance("error"));
            panic!("a bug");
        }));
        assert!(panicked.is_err());
        assert!(!gateway.page().contains("tokenweir_client_disconnects_total{"));
    };
    check("a b", request, "panicked 500 - b 2");
}

#[test]
fn an_end_said_before_a_panic_holds() {
    let request = |_: &Gateway, assignment: Assignment| {
        let panicked = catch_unwind(AssertUnwindSafe(move || {
            answer(assignment, Finish::Complete(None));
            panic!("a bug");
        }));
        assert!(panicked.is_err());
    };
    check("a", request, " 200 - a 1");
}

#[test]
fn the_gateways_own_answer_returns_the_claim_at_once() {
    let request = |gateway: &Gateway, assignment: Assignment| {
        let mut record = assignment.into_record();
        assert_eq!(gateway.load(), "a=0");
        assert!(gateway.written().is_empty());
        record.get().unwrap().refuse(&crate::Refusal::Reset, 12);
    };
    check("a", request, "reset 502 UC a 1");
}

#[test]
fn tokens_keep_the_first_and_the_last_instant() {
    let gateway = Gateway::new(desired(Policy::RoundRobin, "p: a"));
    let mut assignment = gateway.pick().unwrap();
    let start = Instant::now();
    let at = |seconds| start + std::time::Duration::from_secs(seconds);
    for seconds in [1, 2, 5] {
        assignment.tokens(at(seconds));
    }
    let usage = Usage { prompt_tokens: Some(3), ..Usage::default() };
    assignment.usage(usage);
    drop(assignment);
    let record = gateway.written().remove(0);
    assert_eq!((record.first_token, record.last_token), (Some(at(1)), Some(at(5))));
    assert_eq!(record.usage, usage);
}

#[test]
fn a_prompt_is_pending_until_its_first_token_or_its_claims_end() {
    let gateway = Gateway::new(desired(Policy::RoundRobin, "p: a b"));
    let pending = || {
        let members = gateway.picker.view().members();
        let of = |member: &crate::Member| member.endpoint.prefill_tokens_pending();
        members.iter().map(of).collect::<Vec<_>>()
    };
    let mut assignment = gateway.ask_long("p", 400).unwrap();
    assert_eq!(pending(), [100.0, 0.0]);
    assert!(assignment.advance("error"));
    assert_eq!(pending(), [0.0, 100.0]);
    assignment.tokens(Instant::now());
    assert_eq!(pending(), [0.0, 0.0]);
    drop(assignment);
    drop(gateway.ask_long("p", 400).unwrap());
    assert_eq!(pending(), [0.0, 0.0]);
}
