use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::time::{sleep, timeout};

use super::*;

fn tasks() -> (Tasks, IntCounter) {
    let panics = IntCounter::new("panics", "Panics.").unwrap();
    (Tasks::new(panics.clone()), panics)
}

/// Runs a task beside one that counts to three; both must have ended, with so many panics.
async fn check(future: impl Future<Output = ()> + Send + 'static, expected: u64) {
    let (tasks, panics) = tasks();
    let counted = Arc::new(AtomicU32::new(0));
    tasks.spawn("subject", future);
    let count = Arc::clone(&counted);
    tasks.spawn("neighbour", async move {
        for _ in 0..3 {
            sleep(Duration::from_secs(1)).await;
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    tasks.ended().await;
    assert_eq!((panics.get(), counted.load(Ordering::Relaxed)), (expected, 3));
    assert_eq!(tasks.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_counted_and_ends_that_task_alone() {
    check(async {}, 0).await;
    check(async { panic!("at once") }, 1).await;
    let later = async {
        sleep(Duration::from_millis(1500)).await;
        panic!("later");
    };
    check(later, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_drops_what_the_task_held() {
    let (tasks, _) = tasks();
    let held = Arc::new(());
    let inside = Arc::clone(&held);
    tasks.spawn("subject", async move {
        sleep(Duration::from_secs(1)).await;
        panic!("a bug with {inside:?}");
    });
    assert_eq!(Arc::strong_count(&held), 2);
    tasks.ended().await;
    assert_eq!(Arc::strong_count(&held), 1);
}

#[tokio::test(start_paused = true)]
async fn stopping_reaches_every_task_and_ended_waits_for_the_last() {
    let (tasks, _) = tasks();
    for seconds in [1, 20] {
        let stopping = tasks.stopping();
        tasks.spawn("subject", async move {
            stopping.await;
            sleep(Duration::from_secs(seconds)).await;
        });
    }
    assert!(!tasks.is_stopping());
    assert!(timeout(Duration::from_mins(1), tasks.ended()).await.is_err());
    assert_eq!(tasks.running(), 2);
    tasks.clone().stop();
    assert!(tasks.is_stopping());
    assert!(timeout(Duration::from_secs(19), tasks.ended()).await.is_err());
    assert_eq!(tasks.running(), 1);
    tasks.ended().await;
    assert_eq!(tasks.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_asks_after_the_stop_is_told_at_once() {
    let (tasks, _) = tasks();
    tasks.stop();
    timeout(Duration::from_secs(1), tasks.stopping()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_cutoff_wakes_every_task_and_those_that_begin_later_see_it() {
    let (tasks, _) = tasks();
    let until_over = || {
        let cutoff = tasks.cutoff().clone();
        poll_fn(move |_| if cutoff.is_over() { Poll::Ready(()) } else { Poll::Pending })
    };
    for _ in 0..2 {
        tasks.spawn("subject", until_over());
    }
    tasks.stop();
    assert!(timeout(Duration::from_mins(1), tasks.ended()).await.is_err(), "a stop cuts nothing");
    assert_eq!((tasks.running(), tasks.cutoff().is_over()), (2, false));
    tasks.clone().cut();
    tasks.spawn("later", until_over());
    tasks.ended().await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_elsewhere_than_before_is_woken_there() {
    let (tasks, _) = tasks();
    let mut stopping = Box::pin(tasks.stopping());
    assert!(poll_fn(|context| Poll::Ready(stopping.as_mut().poll(context))).await.is_pending());
    tasks.spawn("subject", stopping);
    tokio::task::yield_now().await;
    tasks.stop();
    tasks.ended().await;
}

#[tokio::test]
async fn a_contained_future_gives_its_value_or_what_its_panic_said() {
    assert_eq!(contain(async { 7 }).await, Ok(7));
    assert_eq!(contain(async { panic!("plain") }).await, Err::<(), _>(Panic("plain")));
    let text = "a prompt";
    for said in [
        contain(async { panic!("{text}, {}", tasks().1.get()) }).await,
        contain(async { assert!(text.split_at(text.len() + 1).0.is_empty()) }).await,
        contain(async { std::panic::panic_any(7) }).await,
    ] {
        assert_eq!(said.map_err(|panic| panic.to_string().contains(text)), Err(false));
    }
}
