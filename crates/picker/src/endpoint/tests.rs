use std::time::Duration;

use scheduling::{EndpointId, Policy, Reading, ScrapeMark, Signals, Trouble};

use crate::{
    Assignment, Finish, Health, Member, monotonic,
    picker::tests::{Gateway, desired},
};

/// Endpoints a and b; an ejection lasts as long as is said.
fn gateway(base_ejection: Duration) -> Gateway {
    let mut desired = desired(Policy::RoundRobin, "p: a b");
    desired.pools[0].outlier_detection.base_ejection = base_ejection;
    desired.pools[0].outlier_detection.max_ejection = base_ejection;
    Gateway::new(desired)
}

fn on(assignment: &Assignment, id: &str) -> bool {
    assignment.endpoint().spec.id.as_str() == id
}

/// Its answer is a stream with a token.
fn answered(mut assignment: Assignment) {
    assignment.tokens(tokio::time::Instant::now());
    assignment.finish(Finish::Complete(None));
}

/// A request to this endpoint. Others that come before it are answered elsewhere.
fn send(gateway: &Gateway, id: &str) -> Option<Assignment> {
    for _ in 0..4 {
        let assignment = gateway.pick().unwrap();
        if on(&assignment, id) {
            return Some(assignment);
        }
        answered(assignment);
    }
    None
}

fn trouble(gateway: &Gateway, id: &str) -> Option<Trouble> {
    let members = gateway.picker.view().members();
    let at = |member: &&Member| member.endpoint.spec.id.as_str() == id;
    members.iter().find(at).unwrap().endpoint.trouble()
}

/// Ten requests to endpoint a end like this; then it is out or not.
fn check(end: impl Fn(Assignment), expected: Option<Trouble>) {
    check_after(10, end, expected);
}

fn check_after(requests: u32, end: impl Fn(Assignment), expected: Option<Trouble>) {
    let gateway = gateway(Duration::from_hours(1));
    for _ in 0..requests {
        if let Some(assignment) = send(&gateway, "a") {
            end(assignment);
        }
    }
    assert_eq!(trouble(&gateway, "a"), expected);
    assert_eq!(trouble(&gateway, "b"), None);
    assert_eq!(send(&gateway, "a").is_none(), expected.is_some());
    let mut left = gateway.pick().unwrap();
    assert_eq!(left.advance("error"), expected.is_none(), "it is in the list");
    assert!(gateway.load().contains("=1"), "{}", gateway.load());
}

fn with(code: u16, finish: Finish) -> impl Fn(Assignment) {
    move |mut assignment| {
        assignment.note(|record| record.response_code = code);
        assignment.finish(finish.clone());
    }
}

#[test]
fn an_endpoint_that_fails_is_in_no_decision() {
    let out = Some(Trouble::Ejected);
    check(|mut assignment| assert!(assignment.advance("unreachable")), out);
    check(with(200, Finish::EndpointGone), out);
    check(with(200, Finish::IdleTimeout), out);
    check(
        |mut assignment| {
            assignment.failed();
            drop(assignment.into_record());
        },
        out,
    );
    let passed_on = |mut assignment: Assignment| {
        assignment.failed();
        with(503, Finish::Complete(None))(assignment);
    };
    check(passed_on, out);
}

#[test]
fn clients_and_their_mistakes_are_not_held_against_an_endpoint() {
    check(drop, None);
    check(with(200, Finish::ClientGone), None);
    check(with(200, Finish::RouteTimeout), None);
    for code in [400, 404, 413, 422, 499] {
        check_after(30, with(code, Finish::Complete(None)), None);
    }
    for code in [401, 429, 500] {
        check(with(code, Finish::Complete(None)), None);
    }
    check(|assignment| drop(assignment.into_record()), None);
}

#[test]
fn an_endpoint_that_refuses_everything_at_once_is_in_no_decision() {
    for code in [401, 403, 429, 500, 501, 520] {
        check_after(30, with(code, Finish::Complete(None)), Some(Trouble::Ejected));
    }
    // A stream without a token.
    check_after(30, with(200, Finish::Complete(None)), Some(Trouble::Ejected));
    let whole = |mut assignment: Assignment| {
        assignment.note(|record| record.stream = false);
        with(200, Finish::Complete(None))(assignment);
    };
    check_after(30, whole, None);
}

#[test]
fn a_client_that_leaves_lets_the_next_request_try() {
    let gateway = gateway(Duration::ZERO);
    for _ in 0..3 {
        assert!(send(&gateway, "a").unwrap().advance("reset"));
    }
    for _ in 0..3 {
        let trial = send(&gateway, "a").unwrap();
        assert!(send(&gateway, "a").is_none(), "one at a time");
        drop(trial);
        assert_eq!(trouble(&gateway, "a"), Some(Trouble::Ejected));
    }
    let mut trial = send(&gateway, "a").unwrap();
    trial.tokens(tokio::time::Instant::now());
    assert_eq!(trouble(&gateway, "a"), None);
}

#[test]
fn the_only_endpoint_is_never_out() {
    let gateway = Gateway::new(desired(Policy::LeastRequest, "p: a"));
    for _ in 0..10 {
        gateway.pick().unwrap().finish(Finish::EndpointGone);
    }
    assert_eq!(trouble(&gateway, "a"), Some(Trouble::Ejected));
    answered(gateway.pick().unwrap());
    assert_eq!(trouble(&gateway, "a"), None);
}

fn say(gateway: &Gateway, second: u64, generated: u64) {
    let heard = monotonic() + Duration::from_secs(second);
    let signals = Signals {
        running: Some(Reading { value: 2, heard }),
        generation_tokens: Some(Reading { value: generated, heard }),
        ..Signals::default()
    };
    gateway.picker.writer().signals(&EndpointId::new("a"), signals, ScrapeMark::NOTHING);
}

#[test]
fn an_endpoint_that_hangs_is_unhealthy_until_it_moves() {
    let gateway = gateway(Duration::ZERO);
    gateway.picker.writer().health(&EndpointId::new("a"), Health::Ready);
    let held = send(&gateway, "a");
    for second in 0..10 {
        say(&gateway, second, 7);
    }
    assert_eq!(trouble(&gateway, "a"), Some(Trouble::Hung));
    assert!(send(&gateway, "a").is_none());
    let line = |value| format!("tokenweir_endpoint_healthy{{endpoint=\"a\",pool=\"p\"}} {value}\n");
    let ready = |count| format!("inference_pool_ready_pods{{name=\"p\"}} {count}\n");
    assert!(gateway.page().contains(&line(0)) && gateway.page().contains(&ready(0)));
    say(&gateway, 10, 8);
    assert_eq!(trouble(&gateway, "a"), None);
    assert!(gateway.page().contains(&line(1)) && gateway.page().contains(&ready(1)));
    drop(held);
    assert!(send(&gateway, "a").is_some());
}

#[test]
fn an_endpoint_that_is_ready_again_begins_slowly() {
    let gateway = Gateway::new(desired(Policy::LeastRequest, "p: a b"));
    for id in ["a", "b"] {
        answered(send(&gateway, id).unwrap());
    }
    let health = |health| gateway.picker.writer().health(&EndpointId::new("a"), health);
    health(Health::Unready);
    let busy: Vec<Assignment> = (0..8).map(|_| gateway.pick().unwrap()).collect();
    health(Health::Ready);
    let more: Vec<Assignment> = (0..8).map(|_| gateway.pick().unwrap()).collect();
    assert_eq!(gateway.load(), "a=2 b=14");
    drop((busy, more));
}
