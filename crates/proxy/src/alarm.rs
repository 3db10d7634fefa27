//! A timer that is looked at often and rarely rings; and waiting no longer than so long.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio::{
    task::coop::has_budget_remaining,
    time::{Duration, Instant, Sleep, sleep_until},
};

/// Rings once its time has come. It notes whom to wake once, where tokio's does with every look.
#[derive(Debug)]
pub(crate) struct Alarm {
    sleep: Pin<Box<Sleep>>,
    /// Whom it wakes.
    wakes: Option<Waker>,
}

impl Alarm {
    pub(crate) fn at(time: Instant) -> Self {
        Self { sleep: Box::pin(sleep_until(time)), wakes: None }
    }

    /// When it rings, or did.
    pub(crate) fn time(&self) -> Instant {
        self.sleep.deadline()
    }

    pub(crate) fn has_rung(&self) -> bool {
        self.sleep.is_elapsed()
    }

    pub(crate) fn set(&mut self, time: Instant) {
        self.sleep.as_mut().reset(time);
        self.wakes = None;
    }

    /// Resolves when it rings.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let wakes = self.wakes.as_ref().is_some_and(|waker| waker.will_wake(context.waker()));
        if wakes && !self.has_rung() {
            return Poll::Pending;
        }
        // A task that has had its turn is put off, and nothing noted.
        let notes = has_budget_remaining();
        let rung = self.sleep.as_mut().poll(context);
        self.wakes = (rung.is_pending() && notes).then(|| context.waker().clone());
        rung
    }
}

/// The future's output, or nothing once the deadline has passed. It is pinned where it is: within
/// another it would be moved, and its room taken twice.
pub(crate) async fn by<F: Future>(
    deadline: Option<Instant>,
    mut future: Pin<&mut F>,
) -> Option<F::Output> {
    // What is there at once needs no timer.
    let mut alarm = None;
    poll_fn(|context| match (future.as_mut().poll(context), deadline) {
        (Poll::Ready(output), _) => Poll::Ready(Some(output)),
        (Poll::Pending, None) => Poll::Pending,
        (Poll::Pending, Some(deadline)) => {
            let alarm = alarm.get_or_insert_with(|| Alarm::at(deadline));
            alarm.poll(context).map(|()| None)
        }
    })
    .await
}

/// As [`by`], from now on.
pub(crate) async fn within<F: Future>(time: Duration, future: Pin<&mut F>) -> Option<F::Output> {
    by(Some(Instant::now() + time), future).await
}

#[cfg(test)]
mod tests {
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
}
