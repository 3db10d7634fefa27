//! A bug in the midst of a request: what becomes of this one, of the others, and of what it had from its client.
//!
//! The binary of this build panics where a request asks for it, with a message that quotes the request; a release build
//! has nothing of the kind, which the end-to-end tests check on the one that is shipped.

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::PathBuf,
};

use rustix::process::Signal;
use sim::{Fault, SimConfig};

use crate::gateway::{Endpoint, Gateway, Start, ask, completion, connect, is_whole, post, until};

const SECRETS: [&str; 3] = ["sk-in-a-header", "sk-in-a-body", "sk-in-a-query"];

/// A request that asks for a bug at this place, and has all that nobody else may see.
fn breaking_at(place: &str) -> String {
    let [header, body, query] = SECRETS;
    let body = format!(r#"{{"model":"/model/llama2","prompt":"{body}","max_tokens":5}}"#);
    let headers = format!(
        "authorization: Bearer {header}\r\nx-tokenweir-panic: {place}\r\nconnection: close\r\n"
    );
    post(&body, &headers).replace(" HTTP/1.1", &format!("?key={query} HTTP/1.1"))
}

fn check_no_secret(what: &str, text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "{what} has {secret}: {text}");
    }
}

/// What a panic says reaches neither the client nor a log, at whatever level and in whatever format.
fn check(format: &str) {
    let endpoint = Endpoint::start(SimConfig::fast());
    let path =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("panics-{format}.access.log"));
    let access_log = File::create(&path).expect("a file");
    let start = Start { stdout: access_log.into(), log: "trace", ..Start::default() };
    let mut gateway = Gateway::before(&endpoint, start, &["--log-format", format]);

    // One that is under way meanwhile, and is not to notice.
    endpoint.server.handle().set_fault(Fault::Freeze);
    let mut bystander = connect(gateway.port);
    bystander.write_all(completion(5).as_bytes()).expect("it reads");
    until("it is under way", || endpoint.server.handle().in_flight() == 1);

    for place in ["waiting", "assigned"] {
        let answer = ask(gateway.port, &breaking_at(place));
        assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
        assert!(answer.contains("x-tokenweir-reason: panicked\r\n"), "{answer}");
        check_no_secret("the answer", &answer);
    }
    // Their claims came back: of both, only the one that stands still is in flight.
    assert_eq!(gateway.metric("tokenweir_endpoint_in_flight", ""), 1);
    assert_eq!(gateway.metric("tokenweir_panics_total", ""), 2);

    endpoint.server.handle().set_fault(Fault::None);
    let mut answer = String::new();
    bystander.read_to_string(&mut answer).expect("it is answered");
    assert!(is_whole(&answer), "{answer}");
    assert!(is_whole(&gateway.completion()), "it goes on");

    gateway.signal(Signal::TERM);
    assert_eq!(gateway.ended().code(), Some(0), "{}", gateway.said());
    until("all is said", || gateway.times_said("request panicked: a bug") == 2);
    let said = gateway.said();
    // The hook's line, which has the place, and the request's.
    assert_eq!(said.matches("panicked: a bug").count(), 4, "{said}");
    assert!(said.contains("crates/proxy/src/serve.rs:"), "{said}");
    check_no_secret("the log", &said);
    let access_log = fs::read_to_string(&path).expect("a log");
    assert_eq!(access_log.lines().filter(|line| line.contains("panicked")).count(), 2);
    check_no_secret("the access log", &access_log);
}

#[test]
fn a_panic_ends_one_request_and_what_it_says_stays_inside() {
    check("json");
    check("text");
}
