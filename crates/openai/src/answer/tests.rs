//! Answers that are one JSON text, however they are cut.

use proptest::prelude::*;

use super::{Answer, AnswerError, AnswerReader, Usage};
use crate::operation::Operation;
use crate::tests::captures::answer;

fn read(operation: Operation, pieces: &[&[u8]]) -> Answer {
    let mut reader = AnswerReader::new(operation);
    for piece in pieces {
        reader.push(piece);
    }
    reader.answer().clone()
}

/// Reads whole, byte by byte and cut in two at every place.
fn check(operation: Operation, body: &[u8], expected: &Answer) {
    let text = String::from_utf8_lossy(body);
    assert_eq!(&read(operation, &[body]), expected, "{text}");
    let bytes: Vec<&[u8]> = body.chunks(1).collect();
    assert_eq!(&read(operation, &bytes), expected, "{text}");
    for cut in 0..body.len() {
        let (left, right) = body.split_at(cut);
        assert_eq!(&read(operation, &[left, right]), expected, "cut at {cut}: {text}");
    }
}

fn answered(prompt: u64, completion: Option<u64>, finish: Option<&str>) -> Answer {
    Answer {
        usage: Usage {
            prompt_tokens: Some(prompt),
            completion_tokens: completion,
            cached_tokens: None,
        },
        finish_reason: finish.map(str::to_owned),
        model: Some("tweet-summary".to_owned()),
        done: true,
        ..Answer::default()
    }
}

fn failed(code: Option<u16>, message: &str) -> Answer {
    let error = Some(AnswerError { code, message: message.to_owned() });
    Answer { error, done: true, ..Answer::default() }
}

#[test]
fn recorded_answers_tell_their_usage_and_end() {
    let length = answered(15, Some(16), Some("length"));
    check(Operation::ChatCompletions, &answer!("vllm-0.32.0/chat"), &length);
    check(Operation::ChatCompletions, &answer!("vllm-0.8.5/chat"), &length);
    let two = answered(18, Some(12), Some("length"));
    check(Operation::Completions, &answer!("vllm-0.32.0/completions-n2"), &two);
    let messages = answered(15, Some(8), Some("max_tokens"));
    check(Operation::Messages, &answer!("vllm-0.32.0/messages"), &messages);
    let mut responses = answered(16, Some(8), Some("max_output_tokens"));
    responses.usage.cached_tokens = Some(0);
    check(Operation::Responses, &answer!("vllm-0.32.0/responses"), &responses);
    let tokens = Answer { done: true, ..Answer::default() };
    check(Operation::Tokenize, &answer!("vllm-0.32.0/tokenize-prompt"), &tokens);
}

#[test]
fn every_shape_of_error_is_read() {
    let unknown = "The model `nope` does not exist. Valid aliases: /model/llama2.";
    check(
        Operation::Completions,
        &answer!("vllm-0.32.0/error-model-404"),
        &failed(Some(404), unknown),
    );
    check(
        Operation::Messages,
        &answer!("vllm-0.32.0/messages-error-model"),
        &failed(None, unknown),
    );
    check(
        Operation::Completions,
        &answer!("vllm-0.32.0/apikey-wrong"),
        &failed(None, "Unauthorized"),
    );
    let old = "The model does not support Embeddings API";
    check(Operation::Embeddings, &answer!("vllm-0.8.5/error-embeddings"), &failed(Some(400), old));
}

#[test]
fn the_first_choice_gives_the_finish_reason() {
    let body = br#"{"choices":[{"finish_reason":"stop"},{"finish_reason":"length"}]}"#;
    let finish_reason = Some("stop".to_owned());
    check(Operation::Completions, body, &Answer { finish_reason, done: true, ..Answer::default() });
}

#[test]
fn cached_tokens_are_read_where_the_server_tells_them() {
    let body = br#"{"usage":{"prompt_tokens":9,"prompt_tokens_details":{"cached_tokens":8}}}"#;
    let usage = Usage { prompt_tokens: Some(9), completion_tokens: None, cached_tokens: Some(8) };
    check(Operation::Embeddings, body, &Answer { usage, done: true, ..Answer::default() });
}

#[test]
fn fields_of_the_same_name_elsewhere_are_not_taken() {
    let body = br#"{"data":[{"usage":{"prompt_tokens":1},"model":"x","error":{"message":"y"}}],
        "choices":[{"message":{"content":"{\"usage\":{\"prompt_tokens\":2}}","error":"z",
        "tool":[[{"usage":{"prompt_tokens":3}}]]}}],"prompt_tokens":4,"error":null,"status":"x"}"#;
    check(Operation::ChatCompletions, body, &Answer { done: true, ..Answer::default() });
}

#[test]
fn an_answer_that_breaks_off_is_not_done() {
    let body = br#"{"model":"m","usage":{"prompt_tokens":12"#;
    let model = Some("m".to_owned());
    check(Operation::Completions, body, &Answer { model, ..Answer::default() });
}

#[test]
fn a_response_that_still_runs_has_no_finish_reason() {
    let done = Answer { done: true, ..Answer::default() };
    check(Operation::Responses, br#"{"status":"in_progress"}"#, &done);
    let finish_reason = Some("completed".to_owned());
    let completed = Answer { finish_reason, ..done };
    check(Operation::Responses, br#"{"status":"completed"}"#, &completed);
}

proptest! {
    #[test]
    fn any_bytes_in_any_cut_read_the_same(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "\"", "\\", "\\u00e9", " ", "\"usage\"", "\"model\"", "\"choices\"",
            "\"finish_reason\"", "\"error\"", "\"message\"", "12", "null", "é", "{\"usage\":{\"prompt_tokens\":",
        ]), 0..40),
        step in 1..9_usize,
    ) {
        let text = pieces.concat();
        let cut: Vec<&[u8]> = text.as_bytes().chunks(step).collect();
        for operation in [Operation::Completions, Operation::Responses] {
            prop_assert_eq!(read(operation, &[text.as_bytes()]), read(operation, &cut));
        }
    }
}
