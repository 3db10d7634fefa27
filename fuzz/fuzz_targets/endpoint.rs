//! Any bytes as an endpoint's answer, in any cut: the proxy does not panic, the client's answer ends,
//! and the claim is given back.
//!
//! The first byte says with what the answer begins, the second the size of the pieces.

#![no_main]

use std::sync::LazyLock;

use fuzz::Gateway;
use libfuzzer_sys::fuzz_target;

static GATEWAY: LazyLock<Gateway> = LazyLock::new(Gateway::start);

fuzz_target!(|data: &[u8]| {
    let [choice, size, rest @ ..] = data else { return };
    let begin = match choice % 4 {
        0 => "",
        1 => "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n",
        2 => "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n",
        _ => "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
    };
    let bytes = [begin.as_bytes(), rest].concat();
    let answer = GATEWAY.relay(&bytes, usize::from(*size) + 1);
    assert!(answer.starts_with(b"HTTP/1.1 "), "{:?}", String::from_utf8_lossy(&answer));
});
