//! The rounds of one endpoint: ask for its health, read its metrics, tell the picker.

use std::{sync::Arc, time::Duration};

use picker::{Endpoint, Health, Metrics, PoolWriter, Tasks, monotonic};
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, MissedTickBehavior, interval_at},
};

use crate::{
    client::{Client, Get},
    failure::Failure,
    metrics_text::parse_metrics,
};

/// Longest metrics page; a hundred times a usual one.
pub const METRICS_BYTES_MAX: usize = 8 * 1024 * 1024;
/// For the whole health check. Generous: a busy server answers late, and its neighbours would have
/// to take its load.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest answer to a health check; real ones are empty.
const HEALTH_BYTES_MAX: usize = 64 * 1024;
/// A metrics page may take until the next round, so that it never delays a health check, but at
/// least and at most this long.
const METRICS_TIMEOUT_MIN: Duration = Duration::from_millis(250);
const METRICS_TIMEOUT_MAX: Duration = Duration::from_secs(5);

/// What all scrapers share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) writer: PoolWriter,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) interval: Duration,
    /// Bounds how many scrapers are in a round.
    pub(crate) rounds: Arc<Semaphore>,
}

/// Names of the pools an endpoint is in.
pub(crate) type PoolNames = Arc<[Arc<str>]>;

pub(crate) struct Scraper {
    shared: Shared,
    endpoint: Arc<Endpoint>,
    /// Its sender is dropped when the endpoint has left.
    pools: watch::Receiver<PoolNames>,
    client: Client,
    health: Health,
    /// Outcome of the last scrape of a healthy endpoint, so that only changes are logged.
    outcome: &'static str,
}

const OK: &str = "ok";

impl Scraper {
    pub(crate) fn new(
        shared: Shared,
        endpoint: Arc<Endpoint>,
        pools: watch::Receiver<PoolNames>,
        tasks: Tasks,
    ) -> Self {
        let client = Client::new(endpoint.spec.clone(), tasks);
        let health = Health::default();
        Self { shared, endpoint, pools, client, health, outcome: OK }
    }

    /// Asks until the endpoint has left or `tasks` are stopping. Dropping the future closes the
    /// connection; what was learned stays.
    pub(crate) async fn run(mut self, tasks: Tasks) {
        let mut pools = self.pools.clone();
        let left = async { while pools.changed().await.is_ok() {} };
        tokio::select! {
            () = left => {}
            () = tasks.stopping() => {}
            () = self.rounds() => {}
        }
    }

    async fn rounds(&mut self) {
        let interval = self.shared.interval;
        // Anywhere in the interval, so that the rounds of many endpoints spread over it.
        let first = Instant::now() + interval.mul_f64(fastrand::f64());
        let mut ticks = interval_at(first, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            self.client.idle_during(ticks.tick()).await;
            let rounds = Arc::clone(&self.shared.rounds);
            let Ok(_permit) = rounds.acquire().await else { return };
            // Boxed, so that thousands of scrapers keep no room for it while they wait.
            let outcome = Box::pin(self.round()).await;
            for pool in self.pools.borrow().iter() {
                self.shared.metrics.scraped(pool, outcome);
            }
        }
    }

    /// One round. Health comes first, so that nothing about the metrics can delay it.
    async fn round(&mut self) -> &'static str {
        let health = self.ask_health().await;
        self.judge_health(health.as_ref().err());
        match health {
            Err(failure) if !failure.is_answer() => failure.outcome(),
            Ok(()) | Err(_) => {
                let read = self.read_metrics().await;
                self.judge_metrics(read.err())
            }
        }
    }

    async fn ask_health(&mut self) -> Result<(), Failure> {
        let path = "/health";
        let body_bytes_max = HEALTH_BYTES_MAX;
        let get = Get { path, timeout: HEALTH_TIMEOUT, body_bytes_max };
        match self.client.get(get, &mut Vec::new()).await {
            Ok(status) if status.is_server_error() => Err(Failure::Status { path, status }),
            // It did answer; how much is its own affair.
            Ok(_) | Err(Failure::TooLarge { .. }) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    fn judge_health(&mut self, failure: Option<&Failure>) {
        let health = if failure.is_none() { Health::Ready } else { Health::Unready };
        let unknown = failure.is_some_and(Failure::is_own);
        if self.health == health || unknown {
            return;
        }
        self.health = health;
        let endpoint = &self.endpoint.spec.id;
        match failure {
            None => tracing::info!(%endpoint, "endpoint is ready"),
            Some(reason) => tracing::warn!(%endpoint, %reason, "endpoint is not ready"),
        }
        self.shared.writer.health(endpoint, health);
    }

    async fn read_metrics(&mut self) -> Result<(), Failure> {
        let path = "/metrics";
        let timeout = self.shared.interval.clamp(METRICS_TIMEOUT_MIN, METRICS_TIMEOUT_MAX);
        let get = Get { path, timeout, body_bytes_max: METRICS_BYTES_MAX };
        // The page tells of no request sent after this moment.
        let (mark, heard) = (self.endpoint.mark(), monotonic());
        // Thousands of scrapers that each kept the page of their last round would take hundreds of megabytes.
        let mut page = Vec::new();
        let read = match self.client.get(get, &mut page).await {
            Ok(status) if status.is_success() => {
                parse_metrics(&page, heard).ok_or(Failure::Invalid { path })
            }
            Ok(status) => Err(Failure::Status { path, status }),
            Err(failure) => Err(failure),
        };
        self.shared.writer.signals(&self.endpoint.spec.id, read?, mark);
        Ok(())
    }

    fn judge_metrics(&mut self, failure: Option<Failure>) -> &'static str {
        let outcome = failure.as_ref().map_or(OK, Failure::outcome);
        if outcome != self.outcome {
            self.outcome = outcome;
            let endpoint = &self.endpoint.spec.id;
            match failure {
                None => tracing::info!(%endpoint, "metrics can be read again"),
                Some(reason) => tracing::warn!(%endpoint, %reason, "metrics cannot be read"),
            }
        }
        outcome
    }
}
