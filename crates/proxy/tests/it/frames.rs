//! A client, or an endpoint, that speaks HTTP/2 frame by frame, the wrong ones included.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::setting::soon;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;

/// One frame.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self { kind, flags, stream, payload: payload.into() }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).expect("a length").to_be_bytes();
        let head = [&length[1..], &[self.kind, self.flags], &self.stream.to_be_bytes()].concat();
        [head, self.payload.clone()].concat()
    }

    /// The error code of a RST_STREAM or GOAWAY.
    pub(crate) fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        let code = self.payload.get(at..at + 4).expect("a code");
        u32::from_be_bytes(code.try_into().expect("four bytes"))
    }

    pub(crate) fn ends_stream(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }
}

/// A header block: every field spelled out, nothing remembered.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            // The length takes seven bits, then as many more as it needs.
            let length = text.len();
            if length < 127 {
                block.push(u8::try_from(length).expect("short"));
            } else {
                block.push(127);
                let mut rest = length - 127;
                while rest >= 128 {
                    block.push(u8::try_from(rest % 128).expect("seven bits") | 128);
                    rest /= 128;
                }
                block.push(u8::try_from(rest).expect("seven bits"));
            }
            block.extend(text.as_bytes());
        }
    }
    block
}

/// The fields of a completion's head, and more.
pub(crate) fn completion_fields<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let usual = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/v1/completions"),
        (":authority", "test.com"),
        ("content-type", "application/json"),
    ];
    [&usual[..], more].concat()
}

/// A connection.
pub(crate) struct Frames {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Frames {
    /// With the preface sent, and these settings.
    pub(crate) async fn open(addr: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let stream = TcpStream::connect(addr).await.expect("the proxy listens");
        let mut frames = Self { stream, received: Vec::new() };
        let settings: Vec<u8> = settings
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        frames.send_bytes(PREFACE).await;
        frames.send(&[Frame::new(SETTINGS, 0, 0, settings)]).await;
        frames
    }

    /// The server's side, with the client's preface read and settings sent that change nothing.
    pub(crate) async fn accept(mut stream: TcpStream) -> Self {
        let mut preface = [0; PREFACE.len()];
        soon("a preface", stream.read_exact(&mut preface)).await.expect("a preface");
        assert_eq!(preface, PREFACE);
        let mut frames = Self { stream, received: Vec::new() };
        frames.send(&[Frame::new(SETTINGS, 0, 0, [])]).await;
        frames
    }

    /// False if the other side has closed.
    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) -> bool {
        soon("bytes sent", self.stream.write_all(bytes)).await.is_ok()
    }

    pub(crate) async fn send(&mut self, frames: &[Frame]) -> bool {
        self.send_bytes(&frames.iter().flat_map(Frame::bytes).collect::<Vec<_>>()).await
    }

    /// The next frame, or nothing once the other side has closed.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let [a, b, c, kind, flags, s, t, u, v, ..] = self.received[..] {
                let length = u32::from_be_bytes([0, a, b, c]) as usize;
                if self.received.len() >= 9 + length {
                    let payload = self.received[9..9 + length].to_vec();
                    self.received.drain(..9 + length);
                    return Some(Frame {
                        kind,
                        flags,
                        stream: u32::from_be_bytes([s, t, u, v]),
                        payload,
                    });
                }
            }
            self.received.reserve(65_536);
            let read = soon("bytes", self.stream.read_buf(&mut self.received)).await;
            if !matches!(read, Ok(1..)) {
                return None;
            }
        }
    }

    /// The next frame that is wanted; others are passed over.
    pub(crate) async fn find(&mut self, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if wanted(&frame) {
                return Some(frame);
            }
        }
    }

    /// A stream's answer: whether its status is 200, and its body; nothing if it was reset or the
    /// connection ended.
    pub(crate) async fn answer(&mut self, stream: u32) -> Option<(bool, Vec<u8>)> {
        let (mut ok, mut body) = (None, Vec::new());
        loop {
            let frame = self.find(|frame| frame.stream == stream).await?;
            match frame.kind {
                // The first field is the status; 200 has an index of its own.
                HEADERS => drop(ok.get_or_insert(frame.payload.first() == Some(&0x88))),
                DATA => body.extend(&frame.payload),
                RST_STREAM => return None,
                _ => {}
            }
            if frame.ends_stream() {
                return Some((ok?, body));
            }
        }
    }
}
