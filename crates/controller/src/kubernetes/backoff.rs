//! How long to wait before asking an API server again.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

/// First wait after a failure; doubled with each further one.
const FIRST: Duration = Duration::from_millis(500);
/// Longest wait, unless the server asks for more.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// The longest wait a server can ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(1);

/// When the server wants to be asked again: the newest `Retry-After` it sent, with whatever.
#[derive(Clone, Debug, Default)]
pub(super) struct RetryAfter(Arc<Mutex<Option<Instant>>>);

impl RetryAfter {
    /// Takes note of an answer's headers.
    pub(super) fn note(&self, headers: &http::HeaderMap) {
        let asked = headers.get(http::header::RETRY_AFTER);
        let asked = asked.and_then(|value| value.to_str().ok()?.trim().parse().ok());
        if let Some(seconds) = asked {
            let wait = Duration::from_secs(seconds).min(RETRY_AFTER_MAX);
            *self.0.lock() = Some(Instant::now() + wait);
        }
    }

    fn left(&self) -> Duration {
        let until = *self.0.lock();
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }
}

/// Waits that grow with each failure in a row.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
    retry_after: RetryAfter,
}

impl Backoff {
    pub(super) fn new(retry_after: RetryAfter) -> Self {
        Self { next: FIRST, retry_after }
    }

    pub(super) fn reset(&mut self) {
        self.next = FIRST;
    }

    /// The next wait: spread, so that many who fail together do not return together, and never
    /// shorter than the server asked for.
    pub(super) fn wait(&mut self) -> Duration {
        let spread = self.next.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.next = (self.next * 2).min(WAIT_MAX);
        spread.max(self.retry_after.left())
    }

    /// Dropping it ends the wait.
    pub(super) async fn pause(&mut self) {
        tokio::time::sleep(self.wait()).await;
    }
}

#[cfg(test)]
mod tests;
