//! A client that shows every byte.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One answer, taken apart.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    pub(crate) status: String,
    pub(crate) headers: Vec<(String, String)>,
    /// The chunks of a chunked body, or the whole body as one.
    pub(crate) chunks: Vec<String>,
    /// The body came to its proper end.
    pub(crate) complete: bool,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn body(&self) -> String {
        self.chunks.concat()
    }

    pub(crate) fn code(&self) -> u16 {
        self.status.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    /// The texts of a completion's stream, one an event.
    pub(crate) fn texts(&self) -> Vec<String> {
        let events = self.chunks.iter().filter_map(|chunk| chunk.strip_prefix("data: "));
        events
            .filter_map(|data| serde_json::from_str::<serde_json::Value>(data.trim()).ok())
            .filter_map(|data| data["choices"][0]["text"].as_str().map(str::to_owned))
            .collect()
    }
}

/// Takes as many bytes as one answer has; `None` if they are not all there.
fn take(bytes: &[u8], head_only: bool) -> Option<Reply> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    // A `100 Continue` stands before the answer proper.
    let text = text.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(&text);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.to_owned();
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(key, value)| (key.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let mut reply = Reply { status, headers, ..Reply::default() };
    if head_only {
        reply.complete = true;
    } else if reply.header("transfer-encoding") == Some("chunked") {
        let mut rest = body;
        while let Some((size, tail)) = rest.split_once("\r\n") {
            let size = usize::from_str_radix(size, 16).ok()?;
            if size == 0 {
                reply.complete = true;
                break;
            }
            let Some(chunk) = tail.get(..size) else { break };
            reply.chunks.push(chunk.to_owned());
            rest = tail.get(size + 2..).unwrap_or("");
        }
    } else {
        let length: usize = reply.header("content-length")?.parse().ok()?;
        reply.complete = body.len() >= length;
        reply.chunks.push(body.to_owned());
    }
    Some(reply)
}

/// A recorded answer.
pub(crate) fn recorded(bytes: &[u8], head_only: bool) -> Reply {
    take(bytes, head_only).expect("the recording is whole")
}

/// Answers longer than this are long.
const LONG_BYTES: usize = 1 << 16;

/// A connection.
pub(crate) struct Wire {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Wire {
    pub(crate) async fn open(addr: SocketAddr) -> Wire {
        Wire {
            stream: TcpStream::connect(addr).await.expect("the server listens"),
            received: Vec::new(),
        }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the server reads");
    }

    /// Reads until `enough` of an answer is there or the server closes; what there is then.
    async fn read(&mut self, head_only: bool, enough: impl Fn(&Reply) -> bool) -> Reply {
        loop {
            // A long stream is taken apart only at its end, or the client would be the slow one.
            let long = self.received.len() > LONG_BYTES;
            if (!long || self.received.ends_with(b"0\r\n\r\n"))
                && let Some(reply) = take(&self.received, head_only)
                && (reply.complete || enough(&reply))
            {
                return reply;
            }
            let mut buffer = vec![0; 16_384];
            match self.stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return take(&self.received, head_only).unwrap_or_default(),
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
            }
        }
    }

    /// The next whole answer.
    pub(crate) async fn answer(&mut self) -> Reply {
        let reply = self.read(false, |_| false).await;
        self.received.clear();
        reply
    }

    /// The next answer's head.
    pub(crate) async fn head(&mut self) -> Reply {
        self.read(true, |_| true).await
    }

    /// An answer, once it has at least so many chunks.
    pub(crate) async fn chunks(&mut self, count: usize) -> Reply {
        self.read(false, |reply| reply.chunks.len() >= count).await
    }

    /// Waits until the server closes.
    pub(crate) async fn closed(mut self) {
        let mut buffer = [0; 1024];
        while let Ok(1..) = self.stream.read(&mut buffer).await {}
    }
}

/// The bytes of a POST of JSON.
pub(crate) fn post(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: test.com\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: test.com\r\n\r\n").into_bytes()
}

/// One request on a connection of its own.
pub(crate) async fn exchange(addr: SocketAddr, request: &[u8]) -> Reply {
    let mut wire = Wire::open(addr).await;
    wire.send(request).await;
    if request.starts_with(b"HEAD") { wire.head().await } else { wire.answer().await }
}
