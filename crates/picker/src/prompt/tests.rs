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

/// How long two prompts are, and how many of their blocks are the same.
fn shared(operation: Operation, one: &str, other: &str) -> ([u64; 2], usize) {
    let read = |body: &str| {
        let envelope = Envelope::parse(operation, body.as_bytes()).unwrap();
        let envelope = Some(&envelope);
        let asked = Asked { envelope, body: body.as_bytes(), ..Asked::default() };
        let model = asked.envelope.and_then(Envelope::model);
        let prompt = Prompt::read(asked, model, 0, Policy::Predicted);
        (prompt.bytes, prompt.blocks)
    };
    let ((one_bytes, one), (other_bytes, other)) = (read(one), read(other));
    let same = one.iter().zip(&other).take_while(|(one, other)| one == other).count();
    ([one_bytes, other_bytes], same)
}

#[test]
fn requests_share_the_blocks_of_what_goes_before_their_questions() {
    use Operation::{ChatCompletions, Messages, Responses};
    let long = "x".repeat(32 * 1024);
    let check = |operation, body: &str, blocks: usize| {
        let body = body.replace("LONG", &long);
        let (one, other) = (body.replace('Q', "why?"), body.replace('Q', "how long?"));
        let ([one, other], same) = shared(operation, &one, &other);
        assert_eq!((same, other - one), (blocks, 5), "{operation:?}");
        assert!(one > 32 * 1024, "{one}");
    };
    check(Messages, r#"{"model":"m","messages":[{"content":"Q"}],"system":"LONG"}"#, 128);
    check(Messages, r#"{"system":"a","tools":["LONG"],"messages":["Q"]}"#, 128);
    check(Responses, r#"{"instructions":"LONG","input":"Q"}"#, 128);
    check(Responses, r#"{"input":"Q","tools":[{"name":"LONG"}]}"#, 128);
    check(ChatCompletions, r#"{"messages":["Q"],"tools":["LONG"]}"#, 128);
    check(ChatCompletions, r#"{"messages":["LONG","Q"],"tools":["LONG"]}"#, 256);
    // Another system prompt before it, and nothing is the same.
    check(Messages, r#"{"system":"Q","tools":["LONG"],"messages":["LONG"]}"#, 0);
}

#[test]
fn prompts_of_other_models_and_salts_share_nothing() {
    let body =
        |fields: &str| format!(r#"{{{fields},"system":"{}","messages":[]}}"#, "x".repeat(1024));
    let check = |one: &str, other: &str, blocks: usize| {
        let (_, same) = shared(Operation::Messages, &body(one), &body(other));
        assert_eq!(same, blocks, "{one} {other}");
    };
    check(r#""model":"m""#, r#""model":"m""#, 4);
    check(r#""model":"m""#, r#""model":"n""#, 0);
    check(r#""cache_salt":"a""#, r#""cache_salt":"a""#, 4);
    check(r#""cache_salt":"a""#, r#""cache_salt":"b""#, 0);
    check(r#""cache_salt":"a""#, r#""model":"m""#, 0);
}
