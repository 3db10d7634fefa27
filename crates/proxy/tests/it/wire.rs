//! A client that shows every byte.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::setting::soon;

/// How an answer's body ended.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Ended {
    /// Not, so far.
    #[default]
    Open,
    /// As its framing says.
    Clean,
    /// The connection closed in the middle.
    Cut,
}

/// One answer, taken apart.
#[derive(Clone, Default)]
pub(crate) struct Reply {
    pub(crate) version: String,
    pub(crate) code: u16,
    /// Names in lower case, in their order.
    pub(crate) headers: Vec<(String, String)>,
    /// Without its chunks' frames.
    pub(crate) body: Vec<u8>,
    pub(crate) ended: Ended,
    /// Codes of the interim answers before it.
    pub(crate) interim: Vec<u16>,
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { code, headers, ended, .. } = self;
        write!(f, "{code} {headers:?} {:?} ({ended:?})", self.text())
    }
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        let text = self.text();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
    }

    /// The data of a stream's events.
    pub(crate) fn data(&self) -> Vec<String> {
        let text = self.text();
        text.lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned).collect()
    }

    fn take_head(&mut self, head: &str) {
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap_or_default();
        let (version, rest) = status.split_once(' ').expect("a status line");
        version.clone_into(&mut self.version);
        self.code = rest.get(..3).and_then(|code| code.parse().ok()).expect("a status");
        self.headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(key, value)| (key.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
    }
}

/// What the bytes have of an answer, and how many of them are its.
fn parse(bytes: &[u8], to_head: bool) -> Option<(Reply, usize)> {
    let mut reply = Reply::default();
    let mut used = 0;
    loop {
        let end = used + bytes[used..].windows(4).position(|four| four == b"\r\n\r\n")?;
        reply.take_head(&String::from_utf8_lossy(&bytes[used..end]));
        used = end + 4;
        if reply.code >= 200 {
            break;
        }
        reply.interim.push(reply.code);
    }
    let rest = &bytes[used..];
    let taken = if to_head || matches!(reply.code, 204 | 304) {
        reply.ended = Ended::Clean;
        0
    } else if reply.header("transfer-encoding") == Some("chunked") {
        take_chunks(rest, &mut reply)
    } else if let Some(length) = reply.header("content-length") {
        let length: usize = length.parse().expect("a length");
        let taken = length.min(rest.len());
        reply.body = rest[..taken].to_vec();
        if taken == length {
            reply.ended = Ended::Clean;
        }
        taken
    } else {
        reply.body = rest.to_vec();
        rest.len()
    };
    Some((reply, used + taken))
}

fn take_chunks(bytes: &[u8], reply: &mut Reply) -> usize {
    let mut at = 0;
    while let Some(end) = bytes[at..].windows(2).position(|two| two == b"\r\n") {
        let size = std::str::from_utf8(&bytes[at..at + end]).expect("a chunk's size");
        let size = usize::from_str_radix(size, 16).expect("a chunk's size");
        let begin = at + end + 2;
        let Some(chunk) = bytes.get(begin..begin + size + 2) else { break };
        assert!(chunk.ends_with(b"\r\n"), "a chunk's end: {chunk:?}");
        reply.body.extend_from_slice(&chunk[..size]);
        at = begin + size + 2;
        if size == 0 {
            reply.ended = Ended::Clean;
            break;
        }
    }
    at
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    received: Vec<u8>,
    closed: bool,
}

impl Wire {
    pub(crate) async fn open(addr: SocketAddr) -> Self {
        Self::of(TcpStream::connect(addr).await.expect("the server listens"))
    }

    pub(crate) fn of(stream: TcpStream) -> Self {
        Self { stream, received: Vec::new(), closed: false }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let sent = soon("bytes sent", self.stream.write_all(bytes)).await;
        sent.expect("the server reads");
    }

    /// Sends what the server will take.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> bool {
        soon("bytes sent", self.stream.write_all(bytes)).await.is_ok()
    }

    /// Says that nothing more will be sent.
    pub(crate) async fn finish_sending(&mut self) {
        self.stream.shutdown().await.expect("the connection is open");
    }

    async fn receive(&mut self) {
        self.received.reserve(65_536);
        let read = soon("bytes", self.stream.read_buf(&mut self.received)).await;
        self.closed = !matches!(read, Ok(1..));
    }

    async fn read(&mut self, to_head: bool, enough: impl Fn(&Reply) -> bool) -> (Reply, usize) {
        loop {
            if let Some((mut reply, used)) = parse(&self.received, to_head) {
                if self.closed && reply.ended == Ended::Open {
                    let framed = ["content-length", "transfer-encoding"];
                    let framed = framed.iter().any(|name| reply.header(name).is_some());
                    reply.ended = if framed { Ended::Cut } else { Ended::Clean };
                }
                if reply.ended != Ended::Open || enough(&reply) {
                    return (reply, used);
                }
            }
            let received = String::from_utf8_lossy(&self.received);
            assert!(!self.closed, "the server closed without an answer: {received:?}");
            self.receive().await;
        }
    }

    /// The next whole answer.
    pub(crate) async fn answer(&mut self) -> Reply {
        let (reply, used) = self.read(false, |_| false).await;
        self.received.drain(..used);
        reply
    }

    /// The next answer, to a HEAD request.
    pub(crate) async fn head_answer(&mut self) -> Reply {
        let (reply, used) = self.read(true, |_| false).await;
        self.received.drain(..used);
        reply
    }

    /// The next answer, once there is enough of it; it stays to be read.
    pub(crate) async fn so_far(&mut self, enough: impl Fn(&Reply) -> bool) -> Reply {
        self.read(false, enough).await.0
    }

    /// Waits for an interim answer with this head, and takes it.
    pub(crate) async fn interim(&mut self, head: &str) {
        while self.received.len() < head.len() && !self.closed {
            self.receive().await;
        }
        assert_eq!(String::from_utf8_lossy(&self.received), head);
        self.received.clear();
    }

    /// Waits until the server closes; the bytes that came before and were not read.
    pub(crate) async fn closed(mut self) -> Vec<u8> {
        while !self.closed {
            self.receive().await;
        }
        self.received
    }

    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }
}

pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: test.com\r\n\r\n").into_bytes()
}

/// A POST of JSON.
pub(crate) fn post(path: &str, body: &str) -> Vec<u8> {
    post_with(path, "", body.as_bytes())
}

/// A POST of JSON with further header lines, each with its line end.
pub(crate) fn post_with(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: test.com\r\ncontent-type: application/json\r\n{headers}content-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}
