//! Endpoints that misbehave as no simulated one does, written by hand.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::setting::LOCALHOST;

/// The head of a streamed answer.
pub(crate) const STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";
/// One token, as vLLM writes it.
pub(crate) const TOKEN: &str = "data: {\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"text\":\" word\",\"logprobs\":null,\"finish_reason\":null}]}\n\n";
/// The end of a chunked body.
pub(crate) const LAST_CHUNK: &str = "0\r\n\r\n";

/// A chunk of a chunked body.
pub(crate) fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

/// A whole answer of JSON.
pub(crate) fn json_answer(status: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// A server that does with each connection what a test says.
pub(crate) struct Fake {
    pub(crate) addr: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    opened: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl Fake {
    pub(crate) async fn start<F, R>(serve: F) -> Self
    where
        F: Fn(Conn) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((LOCALHOST, 0)).await.expect("a free port");
        let addr = listener.local_addr().expect("address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let opened = Arc::new(AtomicUsize::new(0));
        let mut task = JoinSet::new();
        let (requests, count) = (Arc::clone(&seen), Arc::clone(&opened));
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let seen = Arc::clone(&requests);
                connections.spawn(serve(Conn { stream, received: Vec::new(), seen }));
            }
        });
        Self { addr, seen, opened, _task: task }
    }

    /// Answers every request with these bytes; each connection takes many.
    pub(crate) async fn answering(answer: impl Into<String>) -> Self {
        let answer = answer.into();
        Self::start(move |mut conn| {
            let answer = answer.clone();
            async move { while conn.request().await.is_some() && conn.send(&answer).await {} }
        })
        .await
    }

    /// Answers the first request with these bytes and closes the connection.
    pub(crate) async fn answering_and_closing(answer: impl Into<String>) -> Self {
        let answer = answer.into();
        Self::start(move |mut conn| {
            let answer = answer.clone();
            async move {
                if conn.request().await.is_some() {
                    conn.send(&answer).await;
                }
            }
        })
        .await
    }

    /// Answers with these bytes and then keeps silent, until the other side leaves.
    pub(crate) async fn falling_silent_after(answer: impl Into<String>) -> Self {
        let answer = answer.into();
        Self::start(move |mut conn| {
            let answer = answer.clone();
            async move {
                if conn.request().await.is_some() && conn.send(&answer).await {
                    conn.left().await;
                }
            }
        })
        .await
    }

    /// Requests as they came, head and body.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().clone()
    }

    /// Connections there ever were.
    pub(crate) fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }
}

/// A connection to a [`Fake`].
pub(crate) struct Conn {
    pub(crate) stream: TcpStream,
    received: Vec<u8>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Conn {
    /// The next whole request, or nothing if the other side has closed.
    pub(crate) async fn request(&mut self) -> Option<String> {
        loop {
            if let Some(length) = request_length(&self.received) {
                let bytes: Vec<u8> = self.received.drain(..length).collect();
                let request = String::from_utf8_lossy(&bytes).into_owned();
                self.seen.lock().push(request.clone());
                return Some(request);
            }
            if !matches!(self.stream.read_buf(&mut self.received).await, Ok(1..)) {
                return None;
            }
        }
    }

    /// False if the other side has closed.
    pub(crate) async fn send(&mut self, text: &str) -> bool {
        self.stream.write_all(text.as_bytes()).await.is_ok()
    }

    /// Waits until the other side closes.
    pub(crate) async fn left(&mut self) {
        let mut buffer = [0; 1024];
        while let Ok(1..) = self.stream.read(&mut buffer).await {}
    }

    /// Closes with a reset.
    pub(crate) fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(Duration::ZERO)).expect("linger");
    }
}

/// The length of the first request, if it is whole.
fn request_length(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length = length.map_or(0, |length| length.trim().parse().expect("a length"));
    (bytes.len() >= head + length).then_some(head + length)
}
