//! Many: streams that say nothing for a long time, and requests without end.
//!
//! Each has a size for every day and, ignored, one that is printed with the memory it takes:
//! `cargo test --release -p tokenweir --test it -- --ignored --nocapture crowd`

use std::{net::SocketAddr, sync::Arc};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sim::{Server, SimConfig};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::watch,
    task::JoinSet,
};

use crate::gateway::{Gateway, Start, completion, free_port, resident_kib, until};

/// A token of a stream, and its end.
const TOKEN: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
    transfer-encoding: chunked\r\n\r\n26\r\ndata: {\"choices\":[{\"text\":\" word\"}]}\n\n\r\n";
const END: &str = "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";
const WELL: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// Files a process has open besides.
const OTHER_FILES: usize = 500;
/// What one idle stream may take of memory.
const STREAM_KIB_MAX: u64 = 30;

async fn read_until(stream: &mut TcpStream, received: &mut Vec<u8>, end: &[u8]) -> bool {
    while !received.windows(end.len()).any(|window| window == end) {
        if !matches!(stream.read_buf(received).await, Ok(1..)) {
            return false;
        }
    }
    true
}

/// Gives each request for text a token, and the end when it is told to.
async fn silent(listener: TcpListener, ended: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut ended = ended.clone();
        connections.spawn(async move {
            let mut received = Vec::new();
            while read_until(&mut stream, &mut received, b"\r\n\r\n").await {
                if received.starts_with(b"GET ") {
                    received.clear();
                    let _ = stream.write_all(WELL.as_bytes()).await;
                    continue;
                }
                let _ = stream.write_all(TOKEN.as_bytes()).await;
                let _ = ended.wait_for(|ended| *ended).await;
                let _ = stream.write_all(END.as_bytes()).await;
                return;
            }
        });
    }
}

/// Opens so many streams, each of which gets a token and then nothing; the memory each takes, in
/// KiB. In the end all of them are whole.
fn idle_streams(count: usize) -> u64 {
    let runtime = Runtime::new().expect("a runtime");
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (end, ended) = watch::channel(false);
    runtime.spawn(silent(listener, ended));
    let port = free_port();
    let number = port.to_string();
    let arguments = ["--endpoint", &url, "--port", &number, "--policy", "round-robin"];
    let gateway = Gateway::start(port, Start::default(), &arguments);
    let before = resident_kib(&gateway);
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let mut streams = JoinSet::new();
    runtime.block_on(async {
        for _ in 0..count {
            let mut stream = TcpStream::connect(addr).await.expect("it listens");
            stream.write_all(completion(2).as_bytes()).await.expect("it reads");
            let mut received = Vec::new();
            assert!(read_until(&mut stream, &mut received, b" word").await, "a token");
            streams.spawn(async move {
                let _ = stream.read_to_end(&mut received).await;
                String::from_utf8_lossy(&received).into_owned()
            });
        }
    });
    let each = resident_kib(&gateway).saturating_sub(before) / count as u64;
    end.send_replace(true);
    runtime.block_on(async {
        while let Some(answer) = streams.join_next().await {
            let answer = answer.expect("no panic");
            assert!(answer.contains("data: [DONE]\n\n"), "{answer}");
            assert!(!answer.contains("error"), "{answer}");
        }
    });
    until("nothing is in flight", || gateway.metric("tokenweir_endpoint_in_flight", "") == 0);
    each
}

#[test]
fn streams_may_be_idle() {
    idle_streams(300);
}

#[test]
#[ignore = "ten thousand streams, or as many as there may be files for; it prints what each takes"]
fn ten_thousand_idle_streams_take_little_memory() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("what is allowed");
    // Each is two here, the client's and the endpoint's, and two in the gateway.
    let room = maximum.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
    let count = (room.saturating_sub(OTHER_FILES) / 2).min(10_000);
    let each = idle_streams(count);
    println!("{count} idle streams: {each} KiB each");
    assert!(each <= STREAM_KIB_MAX, "{each} KiB");
}

/// One of all kinds of requests; false if it was not answered as it should be.
async fn one(addr: SocketAddr, nth: usize) -> bool {
    let Ok(mut stream) = TcpStream::connect(addr).await else { return false };
    let request = completion(1 + u32::try_from(nth % 7).expect("small"));
    let request = match nth % 10 {
        0 => request.replace('{', "["),
        1 | 2 => request.replace("true}", "null}"),
        // A prompt and a model of its own: nothing may be kept of each.
        _ => request.replace("Say", &format!("{:03}", nth % 1000)),
    };
    if stream.write_all(request.as_bytes()).await.is_err() {
        return false;
    }
    let mut answer = Vec::new();
    if nth % 10 == 3 {
        // This one leaves in the middle.
        return read_until(&mut stream, &mut answer, b"data:").await;
    }
    let read = stream.read_to_end(&mut answer).await.is_ok();
    let answer = String::from_utf8_lossy(&answer);
    read && match nth % 10 {
        0 => answer.starts_with("HTTP/1.1 400 "),
        1 | 2 => answer.contains("\"usage\""),
        _ => answer.contains("data: [DONE]\n\n"),
    }
}

/// Sends so many requests, some of which are wrong, and some of whose clients leave; the memory
/// after each tenth, in KiB.
fn soak(requests: usize) -> Vec<u64> {
    let runtime = Runtime::new().expect("a runtime");
    let server = runtime.block_on(Server::start(SimConfig::fast())).expect("a simulated server");
    let url = format!("http://{}", server.addr());
    let port = free_port();
    let number = port.to_string();
    let gateway = Gateway::start(port, Start::default(), &["--endpoint", &url, "--port", &number]);
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let mut memory = Vec::new();
    for tenth in 0..10 {
        let next = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        runtime.block_on(async {
            let mut clients = JoinSet::new();
            for _ in 0..32 {
                let next = Arc::clone(&next);
                clients.spawn(async move {
                    loop {
                        let nth = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        if nth >= requests / 10 {
                            return;
                        }
                        assert!(one(addr, tenth * (requests / 10) + nth).await, "request {nth}");
                    }
                });
            }
            while let Some(ended) = clients.join_next().await {
                ended.expect("every request is answered");
            }
        });
        memory.push(resident_kib(&gateway));
    }
    until("nothing is in flight", || gateway.metric("tokenweir_endpoint_in_flight", "") == 0);
    assert_eq!(gateway.metric("tokenweir_panics_total", ""), 0);
    assert_eq!(gateway.metric("istio_requests_total", ""), requests as u64);
    memory
}

#[test]
fn requests_of_all_kinds_come_and_go() {
    soak(2000);
}

#[test]
#[ignore = "two million requests; it prints the memory they leave"]
fn two_million_requests_leave_memory_flat() {
    let memory = soak(2_000_000);
    println!("resident after each 200000 requests, KiB: {memory:?}");
    let (early, late) = (memory[2], memory[9]);
    assert!(late <= early + early / 10, "{memory:?}");
}
