//! Servers that answer as vLLM does, without a model: whole answers at once, streams as fast as they go or at a pace.

use std::{io, time::Duration};

use bytes::{Buf, BytesMut};
use memchr::memmem;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep_until},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[arg(required = true)]
    ports: Vec<u16>,
    /// Milliseconds between two events of a stream
    #[arg(long, default_value_t = 0)]
    pause_ms: u64,
}

const ANSWER: &str = r#"{"id":"chatcmpl-3e1c1c2a4b","object":"chat.completion","created":1763880000,"model":"mock","choices":[{"index":0,"message":{"role":"assistant","content":"The fox is quick, brown, and above all not lazy.","tool_calls":[]},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":96,"total_tokens":110,"completion_tokens":14}}"#;
const CHUNK: &str = r#"data: {"id":"chatcmpl-3e1c1c2a4b","object":"chat.completion.chunk","created":1763880000,"model":"mock","choices":[{"index":0,"delta":{"content":" fox"},"logprobs":null,"finish_reason":null}]}"#;
const USAGE: &str = r#"data: {"id":"chatcmpl-3e1c1c2a4b","object":"chat.completion.chunk","created":1763880000,"model":"mock","choices":[],"usage":{"prompt_tokens":96,"total_tokens":160,"completion_tokens":64}}"#;
const PAGE: &str = "vllm:num_requests_running{engine=\"0\",model_name=\"mock\"} 0.0\nvllm:num_requests_waiting{engine=\"0\",model_name=\"mock\"} 0.0\nvllm:kv_cache_usage_perc{engine=\"0\",model_name=\"mock\"} 0.0\n";
const STREAM_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";

pub(crate) async fn run(arguments: Arguments) -> io::Result<()> {
    let pause = Duration::from_millis(arguments.pause_ms);
    for port in arguments.ports {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // Whoever leaves is no news.
                tokio::spawn(async move { serve(stream, pause).await.unwrap_or_default() });
            }
        });
    }
    std::future::pending().await
}

async fn serve(mut stream: TcpStream, pause: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut received = BytesMut::with_capacity(16 * 1024);
    loop {
        let length = loop {
            if let Some(length) = request_length(&received) {
                break length;
            }
            if stream.read_buf(&mut received).await? == 0 {
                return Ok(());
            }
        };
        let request = &received[..length];
        if request.starts_with(b"GET") {
            let page = if memmem::find(request, b" /metrics").is_some() { PAGE } else { "" };
            stream.write_all(&whole("text/plain", page)).await?;
        } else if memmem::find(request, b"\"stream\":true").is_some() {
            let events = number_after(request, b"\"max_tokens\":").unwrap_or(64);
            let usage = memmem::find(request, b"\"include_usage\":true").is_some();
            answer_stream(&mut stream, events, usage, pause).await?;
        } else {
            stream.write_all(&whole("application/json", ANSWER)).await?;
        }
        received.advance(length);
    }
}

/// The length of the first request, once all of it is there.
fn request_length(received: &[u8]) -> Option<usize> {
    let head = memmem::find(received, b"\r\n\r\n")? + 4;
    let body = number_after(&received[..head], b"content-length: ").unwrap_or(0);
    (received.len() >= head + body).then_some(head + body)
}

fn number_after(text: &[u8], key: &[u8]) -> Option<usize> {
    let at = memmem::find(text, key)? + key.len();
    let digits = text[at..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0')))
}

fn whole(kind: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

fn chunk(event: &str) -> Vec<u8> {
    format!("{:x}\r\n{event}\n\n\r\n", event.len() + 2).into_bytes()
}

async fn answer_stream(
    stream: &mut TcpStream,
    events: usize,
    usage: bool,
    pause: Duration,
) -> io::Result<()> {
    stream.write_all(STREAM_HEAD).await?;
    let token = chunk(CHUNK);
    let mut next = Instant::now();
    for _ in 0..events {
        stream.write_all(&token).await?;
        if pause.is_zero() {
            tokio::task::yield_now().await;
        } else {
            next += pause;
            sleep_until(next).await;
        }
    }
    if usage {
        stream.write_all(&chunk(USAGE)).await?;
    }
    stream.write_all(&[chunk("data: [DONE]"), b"0\r\n\r\n".to_vec()].concat()).await
}
