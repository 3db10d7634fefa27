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
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Owns tasks: starts them, tells them to stop, waits for them.
#[derive(Clone, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    panics: IntCounter,
}

impl Tasks {
    /// `panics` counts tasks that ended in a panic, each of which is a bug.
    pub fn new(panics: IntCounter) -> Self {
        Self { tracker: TaskTracker::new(), stop: CancellationToken::new(), panics }
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
