use std::{future::pending, net::SocketAddr};

use tokio::time::{sleep, sleep_until};

use super::*;

fn second(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn limits() -> Limits {
    Limits {
        header_read_timeout: second(10),
        connection_idle_timeout: second(40),
        connection_age_max: second(1000),
        write_timeout: second(20),
        ..Limits::default()
    }
}

fn peer(port: u16) -> Peer {
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    Peer { remote: addr, local: addr, port: 80 }
}

fn metrics() -> Metrics {
    let workload = picker::Workload { name: "a".into(), namespace: "b".into() };
    Metrics::new(workload).unwrap()
}

fn begin(watch: &Arc<Watch>) -> Active {
    watch.begin(false, &metrics())
}

/// The next verdict that is not to wait, and the seconds until then.
async fn next(watch: &Watch) -> (Verdict, u64) {
    let begun = Instant::now();
    loop {
        match watch.verdict() {
            Verdict::Until(next) => sleep_until(next).await,
            verdict => return (verdict, begun.elapsed().as_secs()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_sends_nothing_is_closed_as_one_whose_head_is_late() {
    let watch = Watch::new(limits(), &peer(1));
    assert_eq!(next(&watch).await, (Verdict::Close(Reached::HeaderTimeout), 10));
    assert!(watch.head_was_late());
}

#[tokio::test(start_paused = true)]
async fn a_head_has_its_time_from_its_first_byte_on() {
    let watch = Watch::new(limits(), &peer(1));
    drop(begin(&watch));
    sleep(second(30)).await;
    watch.bytes_came();
    sleep(second(9)).await;
    watch.bytes_came();
    assert_eq!(next(&watch).await, (Verdict::Close(Reached::HeaderTimeout), 1));
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_requests_is_asked_to_finish_and_then_closed() {
    let watch = Watch::new(limits(), &peer(1));
    drop(begin(&watch));
    assert_eq!(next(&watch).await, (Verdict::Finish(Reached::ConnectionIdle), 40));
    watch.finishing();
    assert_eq!(next(&watch).await, (Verdict::Closed, CLOSE_LINGER.as_secs()));
}

#[tokio::test(start_paused = true)]
async fn a_request_at_work_is_given_the_time_it_takes() {
    let watch = Watch::new(Limits { connection_age_max: second(1 << 30), ..limits() }, &peer(1));
    let active = begin(&watch);
    sleep(second(500)).await;
    assert!(matches!(watch.verdict(), Verdict::Until(_)));
    watch.finishing();
    sleep(second(500)).await;
    assert!(matches!(watch.verdict(), Verdict::Until(_)));
    drop(active);
    assert_eq!(next(&watch).await, (Verdict::Closed, CLOSE_LINGER.as_secs()));
}

#[tokio::test(start_paused = true)]
async fn an_http_2_connection_without_requests_is_idle_and_owes_no_head() {
    let watch = Watch::new(limits(), &peer(1));
    watch.speaks_http2();
    sleep(second(30)).await;
    assert_eq!(next(&watch).await, (Verdict::Finish(Reached::ConnectionIdle), 10));
}

#[tokio::test(start_paused = true)]
async fn who_goes_on_keeping_a_connection_looks_at_it_anew() {
    let (watch, metrics, start) = (Watch::new(limits(), &peer(1)), metrics(), Instant::now());
    let begun = keep(pin!(sleep(second(1))), |_| {}, &watch, pending(), &metrics).await;
    assert_eq!(begun, Some(()));
    watch.speaks_http2();
    let kept = keep(pin!(pending::<()>()), |_| {}, &watch, pending(), &metrics).await;
    assert_eq!((kept, start.elapsed()), (None, second(40) + CLOSE_LINGER));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_closed_and_one_that_takes_a_little_is_not() {
    let watch = Watch::new(limits(), &peer(1));
    let _active = begin(&watch);
    for _ in 0..5 {
        watch.blocked(true);
        sleep(second(19)).await;
        assert!(matches!(watch.verdict(), Verdict::Until(_)));
        watch.blocked(false);
    }
    watch.blocked(true);
    assert_eq!(next(&watch).await, (Verdict::Close(Reached::WriteTimeout), 20));
}

#[tokio::test(start_paused = true)]
async fn an_old_connection_finishes_and_not_all_do_at_once() {
    let mut ends = Vec::new();
    for port in 0..50 {
        let watch = Watch::new(limits(), &peer(port));
        watch.speaks_http2();
        let _active = watch.begin(true, &metrics());
        let (verdict, after) = next(&watch).await;
        assert_eq!(verdict, Verdict::Finish(Reached::ConnectionAge));
        assert!((900..=1000).contains(&after), "{after}");
        ends.push(after);
    }
    ends.sort_unstable();
    ends.dedup();
    assert!(ends.len() > 25, "{ends:?}");
}

#[tokio::test(start_paused = true)]
async fn an_old_http_1_connection_says_so_with_its_next_answer() {
    let metrics = metrics();
    let watch = Watch::new(limits(), &peer(1));
    let active = begin(&watch);
    sleep(second(1000)).await;
    assert!(matches!(watch.verdict(), Verdict::Until(_)), "the request is not cut");
    let mut answer = Response::new(ReplyBody::Own(http_body_util::Full::default()));
    let young = Watch::new(limits(), &peer(1));
    begin(&young).note_age(&mut answer, &metrics);
    assert!(answer.headers().is_empty());
    active.note_age(&mut answer, &metrics);
    assert_eq!(answer.headers()[header::CONNECTION], "close");
}

/// An answer whose endpoint says nothing.
struct Silent;

impl Future for Silent {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        TURN.with(|turn| turn.asked.fetch_add(1, Ordering::Relaxed));
        Poll::Pending
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_stuck_only_if_it_is_the_clients_turn() {
    let waits = tokio::time::timeout(second(3600), until_stuck(Silent, second(20))).await;
    assert!(waits.is_err(), "the endpoint's silence is the endpoint's");
}

/// One piece that nobody takes.
struct Untaken(bool);

impl Future for Untaken {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if !std::mem::replace(&mut self.0, true) {
            TURN.with(|turn| {
                turn.asked.fetch_add(1, Ordering::Relaxed);
                turn.clients.store(true, Ordering::Relaxed);
            });
        }
        Poll::Pending
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_nobody_takes_anything_of_is_given_up() {
    let begun = Instant::now();
    assert!(!until_stuck(Untaken(false), second(20)).await);
    assert!(begun.elapsed() <= second(41));
    assert!(until_stuck(async {}, second(20)).await);
}
