//! A client that does not read holds its endpoint back, and nobody else.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep},
};

use crate::{
    fake::{Fake, TOKEN, chunk},
    setting::{DEADLINE, Setting, Setup, check_left, completion, soon, until},
    wire::post,
};

/// More than the buffers of two connections' sockets can hold.
const HELD_BYTES_MAX: usize = 64 << 20;
/// An endpoint that gets rid of nothing for this long is held back.
const STILL: Duration = Duration::from_secs(1);

/// An endpoint whose answers never end, and the bytes it has got rid of.
async fn endless(head: &'static str) -> (Fake, Arc<AtomicUsize>) {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let piece: Arc<str> = chunk(&TOKEN.repeat(400)).into();
    let fake = Fake::start(move |mut conn| {
        let (sent, piece) = (Arc::clone(&counter), Arc::clone(&piece));
        async move {
            conn.request().await;
            conn.send(head).await;
            while conn.stream.write_all(piece.as_bytes()).await.is_ok() {
                sent.fetch_add(piece.len(), Ordering::Relaxed);
            }
        }
    })
    .await;
    (fake, sent)
}

/// Waits until the endpoint can send no more; how much it sent.
async fn held_back(sent: &AtomicUsize) -> usize {
    let deadline = Instant::now() + DEADLINE;
    let (mut last, mut since) = (0, Instant::now());
    loop {
        let now = sent.load(Ordering::Relaxed);
        assert!(now < HELD_BYTES_MAX, "the endpoint's bytes pile up: {now}");
        assert!(Instant::now() < deadline, "the endpoint goes on sending: {now}");
        if now != last {
            (last, since) = (now, Instant::now());
        } else if now > 0 && since.elapsed() > STILL {
            return now;
        }
        sleep(Duration::from_millis(5)).await;
    }
}

async fn check_held_back(head: &'static str) {
    let (fake, sent) = endless(head).await;
    let setting =
        Setup::new(&[fake.addr]).pool(|pool| pool.delivery.idle_timeout = STILL / 2).start();
    let mut stream = TcpStream::connect(setting.addr).await.expect("the proxy listens");
    let request = post("/v1/completions", &completion(true, 9));
    stream.write_all(&request).await.expect("the proxy reads");
    let stopped_at = held_back(&sent).await;
    check_others_are_served(&setting, &fake).await;

    // The client's delay is not the endpoint's silence: what was held back goes on.
    let mut buffer = vec![0; 1 << 20];
    let mut read = 0;
    while read < 2 * stopped_at {
        let count = soon("more of the answer", stream.read(&mut buffer)).await.expect("bytes");
        assert!(count > 0, "the answer was cut after {read} bytes");
        read += count;
    }
    assert!(sent.load(Ordering::Relaxed) > stopped_at);
    held_back(&sent).await;
    assert_eq!(setting.in_flight(), 1, "charged as long as it lasts");
    drop(stream);
    check_left(&setting.record(2).await);
}

/// Another client of the same endpoint gets its answer, as far as it reads it.
async fn check_others_are_served(setting: &Setting, fake: &Fake) {
    let mut wire = setting.wire().await;
    wire.send(&post("/v1/completions", &completion(true, 9))).await;
    wire.so_far(|reply| reply.body.len() > 10_000).await;
    assert_eq!(fake.opened(), 2);
    drop(wire);
    until("the second client's record", || setting.records().len() == 1).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_a_stream_holds_its_endpoint_back() {
    check_held_back(crate::fake::STREAM_HEAD).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_a_plain_answer_holds_its_endpoint_back() {
    check_held_back(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
    )
    .await;
}
