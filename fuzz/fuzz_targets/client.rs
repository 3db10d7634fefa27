//! Any bytes as a client's connection, in any cut, HTTP/1.1 or HTTP/2: the proxy does not panic, and
//! the connection ends.
//!
//! The first byte says with what a connection begins, the second the size of the pieces.

#![no_main]

use std::sync::LazyLock;

use fuzz::{Gateway, REQUEST};
use libfuzzer_sys::fuzz_target;

static GATEWAY: LazyLock<Gateway> = LazyLock::new(Gateway::start);

/// An HTTP/2 connection that has said what has to be said.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fuzz_target!(|data: &[u8]| {
    let [choice, size, rest @ ..] = data else { return };
    let begin = match choice % 4 {
        0 => &b""[..],
        1 => HTTP2,
        2 => b"POST /v1/completions HTTP/1.1\r\nhost: test.com\r\n",
        _ => REQUEST.as_bytes(),
    };
    let bytes = [begin, rest].concat();
    let answer = GATEWAY.ask(&bytes, usize::from(*size) + 1);
    if choice % 4 != 1 && !answer.is_empty() && !bytes.starts_with(b"PRI ") {
        assert!(answer.starts_with(b"HTTP/1."), "{:?}", String::from_utf8_lossy(&answer));
    }
});
