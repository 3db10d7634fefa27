//! Connections: how many, how long, and how they end.

use admin::CONNECTIONS_MAX;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::setting::{DEADLINE, Setting, exchange, get};

#[tokio::test]
async fn a_request_body_is_ignored() {
    let setting = Setting::start().await;
    let body = "x".repeat(5000);
    let request = format!(
        "POST /drain HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(exchange(setting.admin, &request).await.status, 200);
    setting.end().await;
}

#[tokio::test]
async fn a_head_beyond_the_maximum_is_refused() {
    let setting = Setting::start().await;
    let request =
        format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: {}\r\n\r\n", "x".repeat(100_000));
    let refused = timeout(DEADLINE, async {
        let mut stream = TcpStream::connect(setting.admin).await.expect("connect");
        // The server may close before it has read it all.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        answer
    });
    let answer = refused.await.expect("an end");
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{answer:?}");
    setting.end().await;
}

#[tokio::test]
async fn connections_beyond_the_maximum_wait_for_a_place() {
    let setting = Setting::start().await;
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        held.push(TcpStream::connect(setting.health).await.expect("connect"));
    }
    // Three servers and a task for each connection.
    let full = 3 + CONNECTIONS_MAX;
    let filled = async {
        while setting.tasks.running() < full {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, filled).await.expect("all are accepted");

    let mut waiting = Box::pin(get(setting.health, "/healthz/live"));
    tokio::select! {
        reply = &mut waiting => panic!("answered without a place: {reply:?}"),
        // Another port is not affected; once it has answered, this one has had its chance too.
        reply = get(setting.stats, "/metrics") => assert_eq!(reply.status, 200),
    }
    held.pop();
    assert_eq!(waiting.await.status, 200);
    drop(held);
    setting.end().await;
}

#[tokio::test]
async fn idle_connections_do_not_hold_up_the_end() {
    let setting = Setting::start().await;
    let mut idle = TcpStream::connect(setting.admin).await.expect("connect");
    idle.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("write");
    assert_ne!(idle.read(&mut [0; 16]).await.expect("an answer"), 0);
    let half_a_head = TcpStream::connect(setting.admin).await.expect("connect");
    half_a_head.try_write(b"GET / HT").expect("write");
    setting.end().await;
    drop((idle, half_a_head));
}
