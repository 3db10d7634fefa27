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
mod tests;
