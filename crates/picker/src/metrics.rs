//! Every metric of the gateway, declared once: name, help, labels.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use prometheus::{HistogramVec, IntCounter, IntCounterVec, Registry, TextEncoder};

use crate::{Finish, Member, PoolKey, RequestRecord, pool::Picked};

mod gauges;
mod istio;
mod make;
mod series;
mod tally;

use gauges::Gauges;
use istio::IstioMetrics;
use make::Maker;
pub use make::MetricReference;
use series::AllSeries;
pub use tally::{OutcomeTally, RequestTally, TalliedOutcome, Tally, TokenTally};

/// vLLM's buckets for time to first token, so that both sides' quantiles compare.
const TTFT_SECONDS: [f64; 21] = [
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0,
];
/// vLLM's buckets for time per output token, begun one step lower.
const TPOT_SECONDS: [f64; 17] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];
/// Whole requests and waiting: a millisecond to a quarter of an hour.
const DURATION_SECONDS: [f64; 17] = [
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
    900.0,
];
/// Deciding takes microseconds.
const PICK_SECONDS: [f64; 10] = [1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 5e-4, 1e-3, 1e-2];

/// Who the gateway says it is in metrics.
#[derive(Clone, Debug)]
pub struct Workload {
    pub name: String,
    pub namespace: String,
}

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reference: Vec<MetricReference>,
    series: AllSeries,
    /// Gauges are set anew for each page; one page at a time.
    page: Mutex<()>,

    istio: IstioMetrics,
    latencies: Latencies,
    gauges: Gauges,
    picks: IntCounterVec,
    refusals: IntCounterVec,
    retries: IntCounterVec,
    scrapes: IntCounterVec,
    client_disconnects: IntCounterVec,
    broken_answers: IntCounterVec,

    /// Access log lines that found the log's buffer full or could not be written.
    pub log_lines_dropped: IntCounter,
    /// Spans that were not exported: their queue was full, or the collector did not take them.
    pub spans_dropped: IntCounter,
    /// Tasks and requests that ended in a panic.
    pub panics: IntCounter,
    /// Reloads of the configuration by outcome.
    pub reloads: IntCounterVec,
    /// Client connections accepted, refused at the limit, and ended for breaking the protocol.
    pub connections: IntCounterVec,
    /// Limits of client connections that were reached; requests have refusals.
    pub limits_reached: IntCounterVec,
}

impl Metrics {
    /// Fails only if two metrics have one name, which a test would have shown.
    pub fn new(workload: Workload) -> Result<Self, prometheus::Error> {
        let make = Maker::default();
        Ok(Self {
            istio: IstioMetrics::new(&make, workload)?,
            latencies: Latencies::new(&make)?,
            gauges: Gauges::new(&make)?,
            picks: make.counter(
                "tokenweir_picks_total",
                "Requests placed, by what settled it.",
                &["pool", "policy", "reason"],
            )?,
            refusals: make.counter(
                "tokenweir_refusals_total",
                "Requests the gateway answered itself.",
                &["reason", "pool"],
            )?,
            retries: make.counter(
                "tokenweir_retries_total",
                "Requests moved to another endpoint, by what the one before did.",
                &["pool", "outcome"],
            )?,
            scrapes: make.counter(
                "tokenweir_scrapes_total",
                "Readings of endpoints' metrics and health.",
                &["pool", "outcome"],
            )?,
            client_disconnects: make.counter(
                "tokenweir_client_disconnects_total",
                "Requests whose client left before the end.",
                &["pool"],
            )?,
            broken_answers: make.counter(
                "tokenweir_broken_answers_total",
                "Answers that had begun and broke off, or ended with the endpoint's own word that it died, by why.",
                &["pool", "reason"],
            )?,
            log_lines_dropped: make.plain(
                "tokenweir_access_log_dropped_total",
                "Access log lines dropped because their reader was too slow or the log could not be written.",
            )?,
            spans_dropped: make.plain(
                "tokenweir_spans_dropped_total",
                "Spans of requests that were not exported.",
            )?,
            panics: make.plain(
                "tokenweir_panics_total",
                "Tasks and requests that ended in a panic; each is a bug.",
            )?,
            reloads: reloads(&make)?,
            connections: make.counter(
                "tokenweir_connections_total",
                "Client connections, by what became of them.",
                &["outcome"],
            )?,
            limits_reached: make.counter(
                "tokenweir_limits_reached_total",
                "How often a limit of client connections took effect.",
                &["limit"],
            )?,
            series: AllSeries::default(),
            page: Mutex::default(),
            registry: make.registry,
            reference: make.made.into_inner(),
        })
    }

    /// Every metric there is, in the order of declaration.
    pub fn reference(&self) -> &[MetricReference] {
        &self.reference
    }

    /// Takes in a request that has ended.
    pub(crate) fn observe(&self, record: &RequestRecord, duration: Duration) {
        let series = self.series.of(record, || Arc::from(pool_label(record)));
        series.ended(self, record, duration);
        let pool = series.pool();
        match &record.finish {
            Some(Finish::Refused(reason)) => {
                self.refusals.with_label_values(&[*reason, pool]).inc();
            }
            Some(Finish::ClientGone) => self.client_disconnects.with_label_values(&[pool]).inc(),
            Some(broken) if broken.is_broken() => {
                let reason = broken.name().unwrap_or_default();
                self.broken_answers.with_label_values(&[pool, &*reason]).inc();
            }
            Some(_) | None => {}
        }
    }

    pub(crate) fn picked(&self, picked: &Picked, record: &RequestRecord, took: Duration) {
        let series = self.series.of(record, || Arc::from(pool_label(record)));
        series.picked(self, (picked.policy, picked.reason), took);
    }

    pub(crate) fn retry(&self, pool: &str, outcome: &str) {
        self.retries.with_label_values(&[pool, outcome]).inc();
    }

    /// Counts a reading of an endpoint in each pool that it is in.
    pub fn scraped(&self, pool: &str, outcome: &'static str) {
        self.scrapes.with_label_values(&[pool, outcome]).inc();
    }

    /// The page, in Prometheus text format 0.0.4.
    pub(crate) fn render(
        &self,
        pools: &[(PoolKey, Vec<Member>)],
        waiting: &[(String, (usize, u64))],
    ) -> String {
        let _one_at_a_time = self.page.lock();
        self.gauges.set(pools);
        self.gauges.set_waiting(waiting);
        let mut page = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut page) {
            tracing::error!(%error, "metrics could not be written");
        }
        page
    }
}

fn reloads(make: &Maker) -> Result<IntCounterVec, prometheus::Error> {
    let (name, help) = ("tokenweir_config_reloads_total", "Readings of a changed configuration.");
    let reloads = make.counter(name, help, &["outcome"])?;
    // A series that is born with its first count shows no increase.
    for outcome in ["applied", "rejected"] {
        reloads.with_label_values(&[outcome]);
    }
    Ok(reloads)
}

fn pool_label(record: &RequestRecord) -> String {
    record.pool.as_ref().map_or_else(|| "unknown".to_owned(), PoolKey::label)
}

/// Times, in seconds.
#[derive(Debug)]
struct Latencies {
    ttft: HistogramVec,
    tpot: HistogramVec,
    duration: HistogramVec,
    queue: HistogramVec,
    pick: HistogramVec,
}

impl Latencies {
    fn new(make: &Maker) -> Result<Self, prometheus::Error> {
        let model = ["model", "pool"];
        Ok(Self {
            ttft: make.histogram(
                "tokenweir_time_to_first_token_seconds",
                "Time from a streamed request's arrival to its first token.",
                &model,
                &TTFT_SECONDS,
            )?,
            tpot: make.histogram(
                "tokenweir_time_per_output_token_seconds",
                "Mean time per output token after the first, of streamed requests.",
                &model,
                &TPOT_SECONDS,
            )?,
            duration: make.histogram(
                "tokenweir_request_duration_seconds",
                "Time from a request's arrival to its end.",
                &model,
                &DURATION_SECONDS,
            )?,
            queue: make.histogram(
                "tokenweir_queue_seconds",
                "Time from a request's arrival to its pick, or to its refusal after waiting in vain.",
                &model,
                &DURATION_SECONDS,
            )?,
            pick: make.histogram(
                "tokenweir_pick_seconds",
                "Time to decide where a request goes.",
                &model,
                &PICK_SECONDS,
            )?,
        })
    }
}

#[cfg(test)]
mod tests;
