//! The one way to start a task: every task has a name and an owner that reports its end.

use std::{
    any::Any,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
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
    stop: Signal,
    cutoff: Cutoff,
    panics: IntCounter,
}

impl Tasks {
    /// `panics` counts tasks that ended in a panic, each of which is a bug.
    pub fn new(panics: IntCounter) -> Self {
        let tracker = TaskTracker::new();
        Self { tracker, stop: Signal::default(), cutoff: Cutoff::default(), panics }
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
        let mut future = Box::pin(future);
        let mut over = self.cutoff.0.heard();
        let woken = poll_fn(move |context| {
            // It looks at the cutoff itself; it only has to be polled.
            let _ = Pin::new(&mut over).poll(context);
            future.as_mut().poll(context)
        });
        runtime.spawn(self.tracker.track_future(async move {
            if let Err(panic) = contain(woken).await {
                panics.inc();
                tracing::error!(task = name, %panic, "task panicked: a bug");
            }
        }));
    }

    /// Resolves once [`Tasks::stop`] was called. Dropping it loses nothing.
    pub fn stopping(&self) -> impl Future<Output = ()> + Send + 'static {
        self.stop.heard()
    }

    /// Asks every task that waits for [`Tasks::stopping`] to end.
    pub fn stop(&self) {
        self.stop.give();
    }

    pub fn is_stopping(&self) -> bool {
        self.stop.is_given()
    }

    /// Breaks off what has not finished since [`Tasks::stop`], as far as it looks at the [`Cutoff`]:
    /// every task is polled once more.
    pub fn cut(&self) {
        self.cutoff.0.give();
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
pub struct Cutoff(Signal);

impl Cutoff {
    /// Costs next to nothing. A task need not wait for it: it is polled when it is over.
    pub fn is_over(&self) -> bool {
        self.0.is_given()
    }
}

/// Something said once, to many. All clones are one.
#[derive(Clone, Debug, Default)]
struct Signal {
    given: Arc<AtomicBool>,
    /// Wakes those that wait. To look at it takes a lock.
    token: CancellationToken,
}

impl Signal {
    fn give(&self) {
        self.given.store(true, Ordering::Release);
        self.token.cancel();
    }

    fn is_given(&self) -> bool {
        self.given.load(Ordering::Acquire)
    }

    fn heard(&self) -> Heard {
        let woken = Box::pin(self.token.clone().cancelled_owned());
        Heard { given: Arc::clone(&self.given), woken, wakes: None }
    }
}

/// Resolves once the signal was given. To be polled again by the same task costs next to nothing.
struct Heard {
    given: Arc<AtomicBool>,
    woken: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Whom it wakes.
    wakes: Option<Waker>,
}

impl Future for Heard {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.given.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        if self.wakes.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            return Poll::Pending;
        }
        self.wakes = Some(context.waker().clone());
        self.woken.as_mut().poll(context)
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
