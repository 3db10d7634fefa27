//! HTTP/2 to endpoints: slow readers, what they refuse, and how many streams they take.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::Response;
use http_body::Body;
use hyper::{server::conn::http2::Builder, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use picker::{AppProtocol, Finish};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::{
    fake::{Conn, Fake, json_answer},
    frames::{DATA, END_HEADERS, END_STREAM, Frame, Frames, GOAWAY, HEADERS, RST_STREAM},
    setting::{Setting, Setup, completion, endpoint, soon, until},
    wire::{Ended, Wire, post},
};

const NO_ERROR: u32 = 0;
const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

/// What an endpoint says to the request of a stream.
type Says = fn(u32) -> Frame;

/// 200, without a body.
fn answer(stream: u32) -> Frame {
    Frame::new(HEADERS, END_HEADERS | END_STREAM, stream, [0x88])
}

fn reset(stream: u32, code: u32) -> Frame {
    Frame::new(RST_STREAM, 0, stream, code.to_be_bytes())
}

/// The stream before is the last one that was looked at.
fn go_away_before(stream: u32, code: u32) -> Frame {
    let last = stream.saturating_sub(2);
    Frame::new(GOAWAY, 0, 0, [last.to_be_bytes(), code.to_be_bytes()].concat())
}

/// Says this to the first request of a connection, and that to each later one.
async fn saying(first: Says, later: Says) -> Fake {
    Fake::start(move |Conn { stream, .. }| async move {
        let mut frames = Frames::accept(stream).await;
        let mut says = first;
        while let Some(request) = frames.find(|frame| frame.kind == HEADERS).await {
            frames.send(&[says(request.stream)]).await;
            says = later;
        }
    })
    .await
}

#[tokio::test]
async fn what_a_kept_connection_refuses_unseen_goes_over_a_new_one() {
    let refusals: [Says; 2] =
        [|stream| reset(stream, REFUSED_STREAM), |stream| go_away_before(stream, NO_ERROR)];
    for refusal in refusals {
        let fake = saying(answer, refusal).await;
        let setting = Setup::h2c(fake.addr).start();
        for nth in 1..=2 {
            assert_eq!(setting.ask(&post("/v1/unknown", "{}")).await.code, 200);
            assert_eq!(setting.record(nth).await.attempts, 1);
        }
        assert_eq!(fake.opened(), 2);
    }
}

#[tokio::test]
async fn what_an_endpoint_refuses_unseen_goes_to_another() {
    let refusals: [Says; 2] =
        [|stream| reset(stream, REFUSED_STREAM), |stream| go_away_before(stream, NO_ERROR)];
    for refusal in refusals {
        let refusing = saying(refusal, refusal).await;
        let other = Fake::answering(json_answer("200 OK", "{}")).await;
        let addr = other.addr;
        let setting = Setup::h2c(refusing.addr)
            .pool(move |pool| pool.endpoints.push(endpoint(addr, AppProtocol::Http1)))
            .start();
        assert_eq!(setting.ask(&post("/v1/unknown", "{}")).await.code, 200);
        assert_eq!(setting.record(1).await.attempts, 2);
        assert_eq!(setting.metric("tokenweir_retries_total", &["outcome=\"reset\""]), 1);
    }
}

#[tokio::test]
async fn what_an_endpoint_may_have_seen_is_not_sent_again() {
    let ends: [Says; 2] = [
        |stream| reset(stream, INTERNAL_ERROR),
        |stream| go_away_before(stream, ENHANCE_YOUR_CALM),
    ];
    for end in ends {
        let fake = saying(answer, end).await;
        let setting = Setup::h2c(fake.addr).start();
        assert_eq!(setting.ask(&post("/v1/unknown", "{}")).await.code, 200);
        let reply = setting.ask(&post("/v1/unknown", "{}")).await;
        assert_eq!((reply.code, reply.header("x-tokenweir-reason")), (502, Some("reset")));
        assert_eq!(fake.opened(), 1);
    }
}

#[tokio::test]
async fn a_stream_that_is_reset_is_no_dead_connection() {
    let fake = saying(answer, |stream| reset(stream, INTERNAL_ERROR)).await;
    let setting = Setup::h2c(fake.addr).start();
    let request = post("/v1/embeddings", &completion(false, 1));
    assert_eq!(setting.ask(&request).await.code, 200);
    let reply = setting.ask(&request).await;
    assert_eq!((reply.code, reply.header("x-tokenweir-reason")), (502, Some("reset")));
    assert_eq!(fake.opened(), 1);
}

/// All that an endpoint says to the request of a stream.
type SaysAll = fn(u32) -> Vec<Frame>;

/// Says this to every request.
async fn saying_all(says: SaysAll) -> Fake {
    Fake::start(move |Conn { stream, .. }| async move {
        let mut frames = Frames::accept(stream).await;
        while let Some(request) = frames.find(|frame| frame.kind == HEADERS).await {
            frames.send(&says(request.stream)).await;
        }
    })
    .await
}

/// 200, with five bytes to come.
fn answer_of_five(stream: u32) -> Frame {
    // `content-length` is the static table's 28th.
    Frame::new(HEADERS, END_HEADERS, stream, [0x88, 0x0f, 13, 1, b'5'])
}

#[tokio::test]
async fn an_answer_that_is_there_is_whole_though_its_end_is_not_told() {
    let whole: [(SaysAll, u16, &str); 2] = [
        (|stream| vec![answer_of_five(stream), Frame::new(DATA, 0, stream, "hello")], 200, "hello"),
        (|stream| vec![Frame::new(HEADERS, END_HEADERS, stream, [0x89])], 204, ""),
    ];
    for (says, code, text) in whole {
        let fake = saying_all(says).await;
        let setting = Setup::h2c(fake.addr).start();
        let reply = setting.ask(&post("/v1/unknown", "{}")).await;
        assert_eq!((reply.code, reply.text().as_str(), reply.ended), (code, text, Ended::Clean));
        let record = setting.record(1).await;
        let finish = record.finish.clone();
        assert_eq!((record.response_code, finish), (code, Some(Finish::Complete(None))));
    }
}

#[tokio::test]
async fn an_answer_short_of_its_length_is_cut_however_politely_it_ends() {
    let fake = saying_all(|stream| {
        let part = Frame::new(DATA, 0, stream, "he");
        vec![answer_of_five(stream), part, reset(stream, NO_ERROR)]
    })
    .await;
    let setting = Setup::h2c(fake.addr).start();
    let reply = setting.ask(&post("/v1/unknown", "{}")).await;
    assert_eq!((reply.text().as_str(), reply.ended), ("he", Ended::Cut));
    assert_eq!(setting.record(1).await.finish, Some(Finish::EndpointGone));
}

/// An answer of so many pieces, which then neither goes on nor ends.
struct Pieces(&'static [u8], usize);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        let Self(piece, left) = self.get_mut();
        let Some(less) = left.checked_sub(1) else { return Poll::Pending };
        *left = less;
        Poll::Ready(Some(Ok(http_body::Frame::data(Bytes::from_static(piece)))))
    }
}

/// Answers everything with so many of these pieces, and so many requests at once on a connection.
/// Also how many of its connections have ended.
async fn answering(
    piece: &'static [u8],
    pieces: usize,
    streams_max: Option<u32>,
) -> (Fake, Arc<AtomicUsize>) {
    let ended = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ended);
    let fake = Fake::start(move |Conn { stream, .. }| {
        let count = Arc::clone(&count);
        async move {
            let answer =
                move |_| async move { Ok::<_, Infallible>(Response::new(Pieces(piece, pieces))) };
            let mut builder = Builder::new(TokioExecutor::new());
            builder.max_concurrent_streams(streams_max);
            drop(builder.serve_connection(TokioIo::new(stream), service_fn(answer)).await);
            count.fetch_add(1, Ordering::Relaxed);
        }
    })
    .await;
    (fake, ended)
}

/// A client that has read the first bytes of its answer, and reads no more unless asked to.
async fn slow_reader(setting: &Setting) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut stream = socket.connect(setting.addr).await.expect("the proxy listens");
    stream.write_all(&post("/v1/unknown", "{}")).await.expect("the proxy reads");
    let mut status = [0; 15];
    soon("a status", stream.read_exact(&mut status)).await.expect("a status");
    assert_eq!(&status, b"HTTP/1.1 200 OK");
    stream
}

/// Many clients read nothing of answers that never end, and one reads so much of its own.
async fn check_slow_readers_hold_nobody_up(piece: &'static [u8], bytes: usize) {
    let (fake, _) = answering(piece, usize::MAX, None).await;
    let setting = Setup::h2c(fake.addr)
        .limits(|limits| limits.write_timeout = Duration::from_hours(1))
        .start();
    let mut slow = Vec::new();
    for _ in 0..8 {
        slow.push(slow_reader(&setting).await);
    }
    let mut reader = TcpStream::connect(setting.addr).await.expect("the proxy listens");
    reader.write_all(&post("/v1/unknown", "{}")).await.expect("the proxy reads");
    let mut buffer = vec![0; 1 << 16];
    let mut read = 0;
    while read < bytes {
        let more = soon("more of the answer", reader.read(&mut buffer)).await.expect("bytes");
        assert!(more > 0, "cut after {read} bytes");
        read += more;
    }
    assert_eq!(fake.opened(), 1);
    assert!(setting.records().is_empty(), "all go on");
}

#[tokio::test]
async fn slow_readers_hold_nobody_up_at_their_endpoint() {
    check_slow_readers_hold_nobody_up(&[b'x'; 1 << 14], 32 << 20).await;
}

#[tokio::test]
async fn small_pieces_that_nobody_reads_do_not_cost_the_connection() {
    check_slow_readers_hold_nobody_up(&[b'x'; 50], 2 << 20).await;
}

/// A client whose answer has begun.
async fn begun(setting: &Setting) -> Wire {
    let mut wire = setting.wire().await;
    wire.send(&post("/v1/unknown", "{}")).await;
    wire.so_far(|reply| reply.body == b"x").await;
    wire
}

async fn check_connections(streams_max: Option<u32>, requests: usize, connections: usize) {
    let (fake, ended) = answering(b"x", 1, streams_max).await;
    let setting = Setup::h2c(fake.addr)
        .limits(|limits| limits.upstream_idle_timeout = Duration::from_millis(10))
        .start();
    let mut wires = Vec::new();
    for _ in 0..requests {
        wires.push(begun(&setting).await);
    }
    assert_eq!(fake.opened(), connections);
    // Who leaves makes room.
    drop(wires.swap_remove(0));
    until("the place given back", || setting.records().len() == 1).await;
    wires.push(begun(&setting).await);
    assert_eq!((fake.opened(), ended.load(Ordering::Relaxed)), (connections, 0));
    drop(wires);
    // The first is kept.
    until("idle connections closed", || ended.load(Ordering::Relaxed) == connections - 1).await;
    drop(begun(&setting).await);
    assert_eq!(fake.opened(), connections);
}

#[tokio::test]
async fn requests_an_endpoint_allows_no_stream_for_get_another_connection() {
    check_connections(Some(2), 5, 3).await;
}

#[tokio::test]
async fn a_connection_carries_a_hundred_requests_where_an_endpoint_has_no_limit() {
    check_connections(None, 101, 2).await;
}
