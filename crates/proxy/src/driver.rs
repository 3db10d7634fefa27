//! Drives a connection to an endpoint from the task that uses it.
//!
//! An HTTP/1.1 connection carries one request at a time, so a task of its own would only be woken to wake the request's.
//! Here the request's task reads and writes for itself. A connection that nobody uses is not driven: whether it is still
//! good shows when it is taken up again.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;

use crate::connections::RequestBody;

/// Turns of connection and request in one poll: then other tasks have a turn. It also gives tokio's budget back, without
/// which a connection that has used it up would ring for ever.
const TURNS_MAX: usize = 16;

type Connection = http1::Connection<TokioIo<TcpStream>, RequestBody>;

#[derive(Debug)]
pub(crate) struct Driver {
    /// Absent once it has ended.
    connection: Option<Pin<Box<Connection>>>,
    bell: Arc<Bell>,
    /// Rings the bell.
    waker: Waker,
}

impl Driver {
    pub(crate) fn new(connection: Connection) -> Self {
        // Nobody has polled it yet: it may have something to do.
        let bell = Arc::new(Bell { state: AtomicU8::new(RUNG), task: Mutex::new(None) });
        let waker = Waker::from(Arc::clone(&bell));
        Self { connection: Some(Box::pin(connection)), bell, waker }
    }

    /// Lets the connection take in what has happened since it was last polled, such as its end.
    pub(crate) fn catch_up(&mut self) {
        if self.bell.take()
            && let Some(connection) = &mut self.connection
            && connection.as_mut().poll(&mut Context::from_waker(&self.waker)).is_ready()
        {
            self.connection = None;
        }
    }

    /// Polls what comes from the connection, and the connection, until neither gets any further without the other side.
    pub(crate) fn poll<T>(
        &mut self,
        context: &mut Context<'_>,
        mut wanted: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let mut inside = Context::from_waker(&self.waker);
        self.bell.keep_inside();
        for _ in 0..TURNS_MAX {
            if let Poll::Ready(result) = wanted(&mut inside) {
                return Poll::Ready(result);
            }
            // Where nothing rang, the connection has nothing to do.
            if !self.bell.take() && self.bell.let_out(context.waker()) {
                return Poll::Pending;
            }
            let Some(connection) = &mut self.connection else { return Poll::Pending };
            if let Poll::Ready(ended) = connection.as_mut().poll(&mut inside) {
                // Whoever wants something of it hears of that there.
                if let Err(error) = ended {
                    tracing::debug!(%error, "upstream connection ended");
                }
                self.connection = None;
                return wanted(&mut inside);
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// It rang since it was last looked at.
const RUNG: u8 = 1;
/// Whoever rings wakes the task.
const OUT: u8 = 2;

/// What connection and request ring for each other: heard inside while they are polled, outside by the task.
#[derive(Debug)]
struct Bell {
    state: AtomicU8,
    task: Mutex<Option<Waker>>,
}

impl Bell {
    fn keep_inside(&self) {
        self.state.fetch_and(!OUT, Ordering::AcqRel);
    }

    /// Whether it rang.
    fn take(&self) -> bool {
        self.state.fetch_and(!RUNG, Ordering::AcqRel) & RUNG != 0
    }

    /// From now on the task is woken. False if it has rung already.
    fn let_out(&self, task: &Waker) -> bool {
        let mut known = self.task.lock();
        if !known.as_ref().is_some_and(|known| known.will_wake(task)) {
            *known = Some(task.clone());
        }
        drop(known);
        let rang = self.state.fetch_or(OUT, Ordering::AcqRel) & RUNG != 0;
        if rang {
            self.state.fetch_and(!(OUT | RUNG), Ordering::AcqRel);
        }
        !rang
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.fetch_or(RUNG, Ordering::AcqRel) & OUT != 0 {
            self.state.fetch_and(!OUT, Ordering::AcqRel);
            if let Some(task) = &*self.task.lock() {
                task.wake_by_ref();
            }
        }
    }
}

#[cfg(test)]
mod tests;
