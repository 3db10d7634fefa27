//! Which requests are which operation.

use super::Operation;
use crate::errors::ErrorShape;

fn check(method: &str, path: &str, expected: Operation) {
    let operation = Operation::of(method, path);
    assert_eq!(operation, expected, "{method} {path}");
    assert_eq!(operation.reads_body(), expected != Operation::Other);
}

#[test]
fn an_operation_is_a_post_to_an_exact_path() {
    check("POST", "/v1/completions", Operation::Completions);
    check("POST", "/v1/chat/completions", Operation::ChatCompletions);
    check("POST", "/v1/embeddings", Operation::Embeddings);
    check("POST", "/v1/responses", Operation::Responses);
    check("POST", "/v1/messages", Operation::Messages);
    check("POST", "/tokenize", Operation::Tokenize);
}

#[test]
fn a_path_is_read_as_vllm_reads_it() {
    // Starlette decodes all of it once; its expressions let a line feed stand at the end.
    check("POST", "/v1/%63ompletions", Operation::Completions);
    check("POST", "/v1%2Fcompletions", Operation::Completions);
    check("POST", "%2fv1%2fchat%2fcompletions", Operation::ChatCompletions);
    check("POST", "/v1/chat/completions%0A", Operation::ChatCompletions);
    check("POST", "/%74%6f%6B%65%6e%69%7a%65", Operation::Tokenize);
    check("POST", "/v1/%2563ompletions", Operation::Other);
    check("POST", "/v1/completions%0a%0a", Operation::Other);
    check("POST", "/v1/completions%00", Operation::Other);
    check("POST", "/v1/completions%", Operation::Other);
    check("POST", "/v1/completions%3Fx=1", Operation::Other);
    check("POST", "/v1/%C3%A7ompletions", Operation::Other);
    check("POST", "/v1/%6", Operation::Other);
}

#[test]
fn everything_else_is_other() {
    check("GET", "/v1/completions", Operation::Other);
    check("post", "/v1/completions", Operation::Other);
    check("POST", "/v1/completions/", Operation::Other);
    check("POST", "/v1/completions?x=1", Operation::Other);
    check("POST", "/v1/messages/count_tokens", Operation::Other);
    check("GET", "/v1/models", Operation::Other);
}

#[test]
fn only_messages_has_errors_in_the_shape_of_anthropic() {
    assert_eq!(Operation::Messages.error_shape(), ErrorShape::Anthropic);
    assert_eq!(Operation::Responses.error_shape(), ErrorShape::OpenAi);
    assert_eq!(Operation::Other.error_shape(), ErrorShape::OpenAi);
}
