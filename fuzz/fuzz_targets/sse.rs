//! Any bytes as a stream, in any cut: the same bytes are forwarded and the same is learned.
//!
//! The first byte chooses the operation and whether usage is taken out, the second the size of the
//! pieces.

#![no_main]

use std::collections::VecDeque;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use openai::{Answer, Operation, StreamReader};

const OPERATIONS: [Operation; 5] = [
    Operation::Completions,
    Operation::ChatCompletions,
    Operation::Responses,
    Operation::Messages,
    Operation::Other,
];

const FINGERPRINT: &[u8] = b"system_fingerprint";

fuzz_target!(|data: &[u8]| {
    let [choice, size, stream @ ..] = data else { return };
    let operation = OPERATIONS[usize::from(choice >> 1) % OPERATIONS.len()];
    let strip = choice & 1 == 1;
    let whole = read(operation, strip, stream, stream.len().max(1));
    let pieces = read(operation, strip, stream, usize::from(*size).max(1));
    assert_eq!(whole, pieces);
    if !strip {
        assert_eq!(whole.0, stream);
    }
    // Only a fingerprint that is moved to several chunks makes a stream longer.
    let named = stream.windows(FINGERPRINT.len()).any(|bytes| bytes == FINGERPRINT);
    assert!(named || whole.0.len() <= stream.len());
});

fn read(operation: Operation, strip: bool, stream: &[u8], size: usize) -> (Vec<u8>, Answer, u32) {
    let mut reader = StreamReader::new(operation, strip);
    let mut out = VecDeque::new();
    let mut events = 0;
    for piece in stream.chunks(size) {
        events += reader.push(Bytes::copy_from_slice(piece), &mut out).events;
    }
    reader.finish(&mut out);
    (out.iter().flatten().copied().collect(), reader.answer().clone(), events)
}
