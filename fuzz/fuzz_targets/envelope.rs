//! Any bytes as a request body: no panic, and what is forwarded reads again as what it was made to
//! say.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use openai::{AnswerReader, Envelope, Operation};

const OPERATIONS: [Operation; 7] = [
    Operation::Completions,
    Operation::ChatCompletions,
    Operation::Embeddings,
    Operation::Responses,
    Operation::Messages,
    Operation::Tokenize,
    Operation::Other,
];

fuzz_target!(|data: &[u8]| {
    let body = Bytes::copy_from_slice(data);
    for operation in OPERATIONS {
        answer(operation, &body);
        let Ok(envelope) = Envelope::parse(operation, &body) else { continue };
        if !envelope.injects_usage() {
            assert_eq!(envelope.forward(&body, None), body);
        }
        let forwarded = envelope.forward(&body, Some("other \"model\""));
        let again = Envelope::parse(operation, &forwarded).expect("forwarded bytes are valid");
        if operation.reads_body() {
            assert_eq!(again.model(), Some("other \"model\""));
        }
        assert_eq!(again.stream(), envelope.stream());
        assert_eq!(again.max_tokens(), envelope.max_tokens());
        assert!(!again.injects_usage());
        assert_eq!(again.include_usage(), envelope.include_usage() || envelope.injects_usage());
        // Nothing is left to change.
        assert_eq!(again.forward(&forwarded, again.model()), forwarded);
    }
});

/// The same bytes as an answer: read alike whole and byte by byte.
fn answer(operation: Operation, body: &[u8]) {
    let (mut whole, mut bytewise) = (AnswerReader::new(operation), AnswerReader::new(operation));
    whole.push(body);
    body.chunks(1).for_each(|byte| bytewise.push(byte));
    assert_eq!(whole.answer(), bytewise.answer());
}
