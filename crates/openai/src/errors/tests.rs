//! Errors the gateway writes and those it recognises.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::{ErrorShape, error_body, error_event, is_error, is_model_error, is_shutdown_error};
use crate::operation::Operation;
use crate::stream::StreamReader;
use crate::tests::captures::answer;

fn check(shape: ErrorShape, status: u16, kind: &str) {
    let message = "say \"it\"\nand go \u{1F600}";
    let body: Value = serde_json::from_slice(&error_body(shape, status, message)).unwrap();
    let expected = match shape {
        ErrorShape::OpenAi => {
            json!({"error": {"message": message, "type": kind, "param": null, "code": status}})
        }
        ErrorShape::Anthropic => {
            json!({"type": "error", "error": {"type": kind, "message": message}})
        }
    };
    assert_eq!(body, expected);
}

#[test]
fn an_error_has_the_type_its_status_has_elsewhere() {
    check(ErrorShape::OpenAi, 400, "BadRequestError");
    check(ErrorShape::OpenAi, 404, "NotFoundError");
    check(ErrorShape::OpenAi, 413, "RequestTooLargeError");
    check(ErrorShape::OpenAi, 429, "RateLimitError");
    check(ErrorShape::OpenAi, 500, "InternalServerError");
    check(ErrorShape::OpenAi, 502, "BadGatewayError");
    check(ErrorShape::OpenAi, 503, "ServiceUnavailableError");
    check(ErrorShape::OpenAi, 504, "GatewayTimeoutError");
    check(ErrorShape::Anthropic, 400, "invalid_request_error");
    check(ErrorShape::Anthropic, 404, "not_found_error");
    check(ErrorShape::Anthropic, 413, "request_too_large");
    check(ErrorShape::Anthropic, 429, "rate_limit_error");
    check(ErrorShape::Anthropic, 502, "api_error");
    check(ErrorShape::Anthropic, 503, "overloaded_error");
}

#[test]
fn the_bytes_are_those_servers_write() {
    assert_eq!(
        error_body(ErrorShape::OpenAi, 503, "busy"),
        r#"{"error":{"message":"busy","type":"ServiceUnavailableError","param":null,"code":503}}"#
    );
    assert_eq!(
        error_event(ErrorShape::OpenAi, 502, "gone"),
        "data: {\"error\":{\"message\":\"gone\",\"type\":\"BadGatewayError\",\"param\":null,\"code\":502}}\n\n"
    );
    assert_eq!(
        error_event(ErrorShape::Anthropic, 502, "gone"),
        "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"gone\"}}\n\n"
    );
}

#[test]
fn an_error_event_is_read_as_an_error() {
    for (operation, shape) in [
        (Operation::ChatCompletions, ErrorShape::OpenAi),
        (Operation::Messages, ErrorShape::Anthropic),
    ] {
        let mut reader = StreamReader::new(operation, true);
        reader.push(error_event(shape, 502, "gone"), &mut VecDeque::new());
        assert_eq!(reader.answer().error.as_ref().unwrap().message, "gone");
    }
}

#[test]
fn only_the_answer_of_a_server_that_shuts_down_is_a_shutdown_error() {
    assert!(is_shutdown_error(&answer!("vllm-0.32.0/fail-drain-end-new-request")));
    assert!(!is_shutdown_error(&answer!("vllm-0.32.0/fail-engine-plain-1")));
    assert!(!is_shutdown_error(&answer!("vllm-0.32.0/completions-n2")));
    let said_by_a_model = br#"{"choices":[{"text":"cannot schedule new futures after shutdown"}]}"#;
    assert!(!is_shutdown_error(said_by_a_model));
    assert!(!is_shutdown_error(b""));
}

#[test]
fn only_the_answer_of_a_server_without_the_model_is_a_model_error() {
    assert!(is_model_error(&answer!("vllm-0.32.0/error-model-404")));
    assert!(is_model_error(&answer!("vllm-0.32.0/messages-error-model")));
    assert!(is_model_error(&answer!("vllm-0.8.5/error-model-404")));
    assert!(!is_model_error(&answer!("vllm-0.8.5/error-embeddings")));
    assert!(!is_model_error(br#"{"detail":"Not Found"}"#));
    let response = br#"{"error":{"message":"Response with id 'resp_1' not found.","type":"invalid_request_error","param":"response_id","code":404}}"#;
    assert!(!is_model_error(response));
    assert!(!is_model_error(br#"{"error":{"message":"The model `a` is busy","code":404}}"#));
    let said_by_a_model = br#"{"choices":[{"text":"The model `a` does not exist."}]}"#;
    assert!(!is_model_error(said_by_a_model));
}

#[test]
fn what_no_handler_of_a_server_has_said_is_no_error_of_its() {
    assert!(is_error(&answer!("vllm-0.32.0/error-model-404")));
    assert!(is_error(&answer!("vllm-0.32.0/messages-error-model")));
    assert!(is_error(&answer!("vllm-0.8.5/error-model-404")));
    assert!(!is_error(br#"{"detail":"Not Found"}"#));
    assert!(!is_error(b"<html>404 Not Found</html>"));
    assert!(!is_error(b""));
}
