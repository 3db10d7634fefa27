use std::{
    future::{pending, ready as at_once},
    pin::pin,
    task::ready,
};

use tokio::{
    task::{JoinSet, coop},
    time::{interval, sleep},
};

use super::*;

/// Looks at it until it rings, from a task that is woken by itself every second, too.
async fn rings(alarm: &mut Alarm) -> Duration {
    let start = Instant::now();
    let mut every = interval(Duration::from_secs(1));
    poll_fn(|context| {
        while every.poll_tick(context).is_ready() {}
        alarm.poll(context)
    })
    .await;
    start.elapsed()
}

#[tokio::test(start_paused = true)]
async fn it_rings_when_it_was_set_to_however_often_it_is_looked_at() {
    let mut alarm = Alarm::at(Instant::now() + Duration::from_millis(2500));
    assert!(!alarm.has_rung());
    assert_eq!(rings(&mut alarm).await, Duration::from_millis(2500));
    assert!(alarm.has_rung());
    alarm.set(Instant::now() + Duration::from_millis(3700));
    assert!(!alarm.has_rung());
    assert_eq!(rings(&mut alarm).await, Duration::from_millis(3700));
}

#[tokio::test(start_paused = true)]
async fn it_wakes_whoever_looked_last() {
    let start = Instant::now();
    let mut alarm = Alarm::at(start + Duration::from_secs(5));
    let looked = poll_fn(|context| Poll::Ready(alarm.poll(context))).await;
    assert!(looked.is_pending());
    let mut elsewhere = JoinSet::new();
    elsewhere.spawn(async move { poll_fn(|context| alarm.poll(context)).await });
    elsewhere.join_next().await.unwrap().unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_had_its_turn_is_woken_all_the_same() {
    let start = Instant::now();
    let mut alarm = Alarm::at(start + Duration::from_secs(5));
    poll_fn(|context| {
        while has_budget_remaining() {
            ready!(coop::poll_proceed(context)).made_progress();
        }
        assert!(alarm.poll(context).is_pending());
        Poll::Ready(())
    })
    .await;
    poll_fn(|context| alarm.poll(context)).await;
    assert_eq!(start.elapsed(), Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_with_the_output_or_with_the_time() {
    let second = Duration::from_secs(1);
    let start = Instant::now();
    // Even if the time is over.
    assert_eq!(by(Some(start), pin!(at_once(7))).await, Some(7));
    assert_eq!(by(Some(start + second), pin!(pending::<()>())).await, None);
    assert_eq!(start.elapsed(), second);
    let slow = async { sleep(second).await };
    assert_eq!(within(2 * second, pin!(slow)).await, Some(()));
    let slow = async { sleep(second).await };
    assert_eq!(by(None, pin!(slow)).await, Some(()));
    assert_eq!(within(2 * second, pin!(pending::<()>())).await, None);
    assert_eq!(start.elapsed(), 5 * second);
}
