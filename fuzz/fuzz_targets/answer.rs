//! Any bytes as an HTTP/1.1 answer, in any cut: the same head, the same body, the same end.
//!
//! The first byte chooses the method and with what the answer begins, the second the size of the
//! pieces.

#![no_main]

use std::{
    io,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{Method, Response};
use http_body::Body;
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

fuzz_target!(|data: &[u8]| {
    let [choice, size, rest @ ..] = data else { return };
    let method = if choice & 1 == 1 { Method::HEAD } else { Method::GET };
    let begin = match choice >> 1 & 3 {
        0 => "",
        1 => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        2 => "HTTP/1.1 200 OK\r\ncontent-length: 40\r\n\r\n",
        _ => "HTTP/1.1 200 OK\r\n",
    };
    let bytes = [begin.as_bytes(), rest].concat();
    let whole = read(&method, &bytes, bytes.len().max(1));
    let pieces = read(&method, &bytes, usize::from(*size).max(1));
    assert_eq!(whole, pieces);
});

/// The head, the body, the trailers and whether it was whole.
fn read(method: &Method, bytes: &[u8], size: usize) -> Option<(String, Vec<u8>, String, bool)> {
    let mut connection = http1::Connection::new(Server { bytes, size });
    let mut context = Context::from_waker(Waker::noop());
    let head = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec();
    let sent = pin!(connection.send(method, head, Bytes::new())).poll(&mut context);
    let Poll::Ready(sent) = sent else { panic!("it waits for a server that never lets it wait") };
    let head: Response<()> = sent.ok()?;
    let (mut body, mut trailers) = (Vec::new(), String::new());
    loop {
        match Pin::new(&mut connection).poll_frame(&mut context) {
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => body.extend_from_slice(&data),
                Err(frame) => trailers = format!("{:?}", frame.into_trailers()),
            },
            Poll::Ready(end) => {
                let head = format!("{head:?}");
                return Some((head, body, trailers, end.is_none()));
            }
            Poll::Pending => panic!("it waits for a server that never lets it wait"),
        }
    }
}

/// Takes everything, and says these bytes, then closes.
struct Server<'a> {
    bytes: &'a [u8],
    size: usize,
}

impl AsyncRead for Server<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (now, later) = self.bytes.split_at(self.size.min(buf.remaining()).min(self.bytes.len()));
        buf.put_slice(now);
        self.bytes = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Server<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
