//! Pages that read, slowly or not at all.

use http_body_util::BodyExt;
use tokio::time::Instant;

use super::*;

fn page() -> (watch::Sender<Bytes>, Channel<Bytes>, impl Future<Output = ()>) {
    let ticks = watch::Sender::new(Bytes::new());
    let (sender, body) = Channel::new(UNREAD_MAX);
    let told = tell(ticks.subscribe(), sender);
    (ticks, body, told)
}

async fn read(body: &mut Channel<Bytes>) -> Option<Bytes> {
    body.frame().await.map(|frame| frame.expect("a frame").into_data().expect("data"))
}

/// Lets the other side go as far as it can.
async fn go_on(mut told: std::pin::Pin<&mut impl Future<Output = ()>>) {
    for _ in 0..8 {
        tokio::select! {
            biased;
            () = &mut told => panic!("the page was given up"),
            () = tokio::task::yield_now() => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_that_reads_slowly_skips_ticks_and_gets_the_latest() {
    let (ticks, mut body, told) = page();
    let mut told = std::pin::pin!(told);
    for nth in 1..=5 {
        ticks.send_replace(Bytes::from(format!("tick {nth}")));
        go_on(told.as_mut()).await;
    }
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(read(&mut body).await.expect("a tick"));
        go_on(told.as_mut()).await;
    }
    assert_eq!(seen, ["tick 1", "tick 2", "tick 5"], "one waits to be taken, one to be sent");
}

#[tokio::test(start_paused = true)]
async fn a_page_that_takes_nothing_is_given_up() {
    let (ticks, body, told) = page();
    let mut told = std::pin::pin!(told);
    for nth in 1..=2 {
        ticks.send_replace(Bytes::from(format!("tick {nth}")));
        go_on(told.as_mut()).await;
    }
    let since = Instant::now();
    told.await;
    assert_eq!(since.elapsed(), STALLED_MAX);
    drop(body);
}

#[tokio::test(start_paused = true)]
async fn a_page_that_has_left_is_forgotten() {
    let (ticks, body, told) = page();
    drop(body);
    ticks.send_replace(Bytes::from("tick"));
    told.await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_dashboard_ends_its_pages() {
    let (ticks, mut body, told) = page();
    drop(ticks);
    told.await;
    assert_eq!(read(&mut body).await, None);
}
