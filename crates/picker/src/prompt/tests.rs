//! What of a request its endpoint is chosen by.

use openai::{Envelope, Operation};
use scheduling::{Admission, Policy};

use super::Prompt;
use crate::Asked;

/// Reads a body, and compares model, prompt length, token budget, priority and flow.
fn check(body: &str, expected: (Option<&str>, u64, Option<u64>)) {
    let envelope = Envelope::parse(Operation::Completions, body.as_bytes()).unwrap();
    let asked =
        Asked { envelope: Some(&envelope), body: body.as_bytes(), objective: None, flow: 77 };
    let prompt = Prompt::read(asked, envelope.model(), -5, Policy::default());
    let request = prompt.request(Admission::Always);
    assert_eq!((request.model, request.prompt_bytes, request.max_tokens), expected, "{body}");
    assert_eq!((request.priority, request.flow), (-5, 77), "{body}");
}

#[test]
fn a_request_says_its_model_length_and_budget() {
    check(r#"{"model":"m","prompt":"12345"}"#, (Some("m"), 5, None));
    check(r#"{"model":"m","prompt":"12345","max_tokens":9}"#, (Some("m"), 5, Some(9)));
    check(r#"{"max_tokens":0}"#, (None, 0, Some(0)));
}

#[test]
fn a_body_that_is_not_read_says_nothing() {
    let asked = Asked { body: b"GET", flow: 3, ..Asked::default() };
    let prompt = Prompt::read(asked, None, 8, Policy::default());
    let request = prompt.request(Admission::Always);
    assert_eq!((request.model, request.prompt_bytes, request.max_tokens), (None, 0, None));
    assert_eq!((request.priority, request.flow), (8, 3));
}
