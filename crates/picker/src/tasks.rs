//! The one way to start a task: every task has a name and an owner that reports its end.

use std::{
    any::Any,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
};

use prometheus::IntCounter;
use tokio::runtime::Handle;
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFutureOwned},
    task::TaskTracker,
};

/// Owns tasks: starts them, tells them to stop, waits for them.
#[derive(Clone, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    cutoff: Cutoff,
    panics: IntCounter,
}

impl Tasks {
    /// `panics` counts tasks that ended in a panic, each of which is a bug.
    pub fn new(panics: IntCounter) -> Self {
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        Self { tracker, stop, cutoff: Cutoff::default(), panics }
    }

    /// Starts a task. A panic in it ends this task alone; it is logged and counted.
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        self.spawn_on(&Handle::current(), name, future);
    }

    /// As [`Tasks::spawn`], on another runtime than the caller's.
    pub fn spawn_on(
        &self,
        runtime: &Handle,
        name: &'static str,
        future: impl Future<Output = ()> + Send + 'static,
    ) {
        let panics = self.panics.clone();
        // Each layer around a future has room for it twice: before and while it is polled. A box has it once.
        let future = Box::pin(future);
        runtime.spawn(self.tracker.track_future(async move {
            if let Err(panic) = contain(future).await {
                panics.inc();
                tracing::error!(task = name, %panic, "task panicked: a bug");
            }
        }));
    }

    /// Resolves once [`Tasks::stop`] was called. Dropping it loses nothing.
    pub fn stopping(&self) -> impl Future<Output = ()> + Send + 'static {
        // A token of its own: waiting on the shared one would take one lock for all tasks whenever
        // any of them is polled.
        self.stop.child_token().cancelled_owned()
    }

    /// Asks every task that waits for [`Tasks::stopping`] to end.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Breaks off what has not finished since [`Tasks::stop`], as far as it watches the [`Cutoff`].
    pub fn cut(&self) {
        self.cutoff.0.cancel();
    }

    pub fn cutoff(&self) -> &Cutoff {
        &self.cutoff
    }

    /// Waits until every task has ended. Dropping the future only stops waiting.
    pub async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Tasks that have not ended.
    pub fn running(&self) -> usize {
        self.tracker.len()
    }
}

/// The end of all patience: [`Tasks::cut`]. All clones are one.
#[derive(Clone, Debug, Default)]
pub struct Cutoff(CancellationToken);

impl Cutoff {
    /// The same for another thread: all that wait for one of them share a lock.
    #[must_use]
    pub fn beside(&self) -> Self {
        Self(self.0.child_token())
    }

    pub fn is_over(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Resolves when it is over. Dropping it loses nothing.
    pub fn over(&self) -> WaitForCancellationFutureOwned {
        self.0.clone().cancelled_owned()
    }
}

/// Runs a future so that a panic in it is an error of this future alone. Dropping it drops the
/// inner future.
pub async fn contain<F: Future>(future: F) -> Result<F::Output, Panic> {
    let mut future = pin!(future);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Err(panic) => Poll::Ready(Err(Panic::of(&*panic))),
    })
    .await
}

/// What a panic said. A text that was put together at run time may quote a prompt or a key, and is left out.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct Panic(&'static str);

impl Panic {
    /// Of what was given to a hook, or caught.
    pub fn of(payload: &(dyn Any + Send)) -> Self {
        Self(payload.downcast_ref().copied().unwrap_or("what it said may quote a request"))
    }
}

#[cfg(test)]
mod tests;
