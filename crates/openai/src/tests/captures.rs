//! Recorded exchanges with real servers, for tests; `testdata/README.md` tells where they come
//! from.

use std::sync::LazyLock;

use crate::operation::Operation;

/// A recorded stream: its name, the operation it answers, its body without chunked framing.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) name: &'static str,
    pub(crate) operation: Operation,
    pub(crate) body: Vec<u8>,
}

macro_rules! answer {
    ($name:literal) => {
        crate::tests::captures::body(include_bytes!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/testdata/",
            $name,
            ".resp"
        )))
    };
}

macro_rules! request {
    ($name:literal) => {
        crate::tests::captures::body(include_bytes!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/testdata/",
            $name,
            ".req"
        )))
    };
}

macro_rules! streams {
    ($($operation:ident $name:literal,)*) => {
        vec![$(Stream { name: $name, operation: Operation::$operation, body: answer!($name) },)*]
    };
}

pub(crate) use {answer, request};

/// Every recorded stream.
pub(crate) static STREAMS: LazyLock<Vec<Stream>> = LazyLock::new(|| {
    streams![
        Completions "vllm-0.32.0/completions-stream",
        Completions "vllm-0.32.0/completions-stream-usage",
        Completions "vllm-0.32.0/completions-stream-usage-continuous",
        Completions "vllm-0.32.0/completions-stream-n2-usage",
        Completions "vllm-0.32.0/completions-stream-interval",
        Completions "vllm-0.32.0/sse-keep-alive-while-queued",
        Completions "vllm-0.32.0/fail-engine-stream-1",
        ChatCompletions "vllm-0.32.0/fail-engine-stream-2",
        ChatCompletions "vllm-0.32.0/chat-stream",
        ChatCompletions "vllm-0.32.0/chat-stream-usage",
        ChatCompletions "vllm-0.32.0/chat-stream-usage-continuous",
        ChatCompletions "vllm-0.32.0/chat-stream-logprobs",
        ChatCompletions "vllm-0.32.0/tools-auto-stream",
        Responses "vllm-0.32.0/responses-stream",
        Messages "vllm-0.32.0/messages-stream",
        Completions "vllm-0.8.5/completions-stream",
        Completions "vllm-0.8.5/completions-stream-usage",
        Completions "vllm-0.8.5/completions-stream-usage-continuous",
        ChatCompletions "vllm-0.8.5/chat-stream-usage",
    ]
});

/// The stream of that name.
pub(crate) fn stream(name: &str) -> &'static Stream {
    STREAMS.iter().find(|stream| stream.name == name).unwrap()
}

/// The body of a recorded message, without chunked framing.
pub(crate) fn body(message: &[u8]) -> Vec<u8> {
    let split = memchr::memmem::find(message, b"\r\n\r\n").unwrap();
    let (head, body) = (&message[..split], &message[split + 4..]);
    if memchr::memmem::find(head, b"transfer-encoding: chunked").is_none() {
        return body.to_vec();
    }
    let (mut rest, mut whole) = (body, Vec::new());
    loop {
        let line = memchr::memmem::find(rest, b"\r\n").unwrap();
        let length = std::str::from_utf8(&rest[..line]).unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        if length == 0 {
            return whole;
        }
        whole.extend_from_slice(&rest[line + 2..line + 2 + length]);
        rest = &rest[line + 2 + length + 2..];
    }
}
