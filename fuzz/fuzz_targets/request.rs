//! Any bytes as a client's HTTP/1.1 connection, in any cut: the same requests, the same bodies, the
//! same end, and the same answers.
//!
//! The first byte chooses with what the client begins, the second the size of the pieces.

#![no_main]

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::Response;
use http1::{Answer, Downstream, HeadLimits};
use http_body::{Body, Frame};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const LIMITS: HeadLimits = HeadLimits { bytes_max: 16 * 1024, headers_max: 100 };

fuzz_target!(|data: &[u8]| {
    let [choice, size, rest @ ..] = data else { return };
    let begin = match choice % 4 {
        0 => "",
        1 => "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
        2 => "POST / HTTP/1.1\r\ncontent-length: 40\r\n\r\n",
        _ => "GET / HTTP/1.0\r\nconnection: keep-alive\r\n",
    };
    let bytes = [begin.as_bytes(), rest].concat();
    let whole = read(&bytes, bytes.len().max(1));
    let pieces = read(&bytes, usize::from(*size).max(1));
    assert_eq!(whole, pieces);
});

/// What was asked, and what was answered.
fn read(bytes: &[u8], size: usize) -> (Vec<String>, Vec<u8>) {
    let mut heard = Vec::new();
    let client = Client { bytes, size, heard: &mut heard };
    let mut connection = Downstream::new(client, LIMITS);
    let mut context = Context::from_waker(Waker::noop());
    let mut seen = Vec::new();
    loop {
        match now(connection.poll_head(&mut context)) {
            Ok(Some(head)) => seen.push(format!("{head:?}")),
            Ok(None) => break,
            Err(bad) => {
                seen.push(format!("{bad:?}"));
                break;
            }
        }
        let mut body = Vec::new();
        let end = loop {
            match now(connection.poll_body(&mut context)) {
                Some(Ok(piece)) => body.extend_from_slice(&piece),
                end => break end,
            }
        };
        seen.push(format!("{body:?} {:?}", end.map(|error| error.map_err(|e| e.to_string()))));
        let mut answer = Answer::new(Response::new(Echo(body.into())), |_| {});
        let answered = now(connection.poll_answer(&mut context, &mut answer));
        seen.push(format!("{answered:?}"));
        if !connection.persists() {
            break;
        }
    }
    drop(connection);
    if seen.iter().any(|head| head.contains("\"expect\"")) {
        // Whether it is told to go on hangs on whether its body is there.
        heard.clear();
    }
    (seen, heard)
}

fn now<T>(poll: Poll<T>) -> T {
    let Poll::Ready(now) = poll else { panic!("it waits for a client that never lets it wait") };
    now
}

/// A body of one piece whose length is not told.
struct Echo(Bytes);

impl Body for Echo {
    type Data = Bytes;
    type Error = ();

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ()>>> {
        let piece = std::mem::take(&mut self.0);
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }
}

/// Says these bytes, then leaves; takes everything.
struct Client<'a> {
    bytes: &'a [u8],
    size: usize,
    heard: &'a mut Vec<u8>,
}

impl AsyncRead for Client<'_> {
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

impl AsyncWrite for Client<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let taken = bytes.len().min(self.size);
        self.heard.extend_from_slice(&bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
