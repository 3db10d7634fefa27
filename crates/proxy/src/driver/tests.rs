//! A connection that is driven from outside, over a real socket.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body::Body as _;
use http_body_util::Full;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::timeout,
};

use super::*;

/// Large enough for many more reads and writes than a task may do without a pause.
const BYTES: usize = 16 * 1024 * 1024;

/// An endpoint that reads a request of this many bytes, and answers with as many.
async fn endpoint(listener: TcpListener) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut received = vec![0; 64 * 1024];
    let mut left = BYTES;
    while left > 0 {
        let read = stream.read(&mut received).await.unwrap();
        assert!(read > 0, "{left} bytes are missing");
        left = left.saturating_sub(read);
    }
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {BYTES}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..BYTES / received.len() {
        stream.write_all(&received).await.unwrap();
    }
}

#[tokio::test]
async fn a_long_request_and_its_long_answer_pass_though_the_task_has_to_pause() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let exchange = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let mut driver = Driver::new(connection);
        let request = Request::post("/").body(Full::new(Bytes::from(vec![b'x'; BYTES]))).unwrap();
        let mut sent = pin!(sender.send_request(request));
        let answer = poll_fn(|context| driver.poll(context, |inside| sent.as_mut().poll(inside)));
        let mut body = answer.await.unwrap().into_body();
        let mut received = 0;
        while let Some(frame) =
            poll_fn(|context| driver.poll(context, |inside| Pin::new(&mut body).poll_frame(inside)))
                .await
        {
            received += frame.unwrap().into_data().unwrap().len();
        }
        received
    };
    let both = async { tokio::join!(endpoint(listener), exchange) };
    let ((), received) = timeout(Duration::from_secs(20), both).await.expect("in time");
    assert_eq!(received, BYTES);
}
