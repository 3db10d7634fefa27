//! Gauges of endpoints and pools: set anew from what is known whenever a page is asked for.

use prometheus::GaugeVec;

use super::make::{Maker, approximate};
use crate::{Health, Member, PoolKey, monotonic};

/// What the gateway knows of each endpoint and pool.
#[derive(Debug)]
pub(super) struct Gauges {
    in_flight: GaugeVec,
    waiting: GaugeVec,
    running: GaugeVec,
    kv_usage: GaugeVec,
    prefill_tokens_pending: GaugeVec,
    predicted_ttft: GaugeVec,
    healthy: GaugeVec,
    metrics_age: GaugeVec,
    pool_kv: GaugeVec,
    pool_queue: GaugeVec,
    pool_ready: GaugeVec,
    queue_requests: GaugeVec,
    queue_bytes: GaugeVec,
}

impl Gauges {
    pub(super) fn new(make: &Maker) -> Result<Self, prometheus::Error> {
        let of_endpoint = |name, help| make.gauge(name, help, &["pool", "endpoint"]);
        let of_pool = |name, help| make.gauge(name, help, &["name"]);
        Ok(Self {
            in_flight: of_endpoint(
                "tokenweir_endpoint_in_flight",
                "Requests of this gateway the endpoint has not finished.",
            )?,
            waiting: of_endpoint(
                "tokenweir_endpoint_waiting",
                "Requests queued in the endpoint's engine, as last scraped.",
            )?,
            running: of_endpoint(
                "tokenweir_endpoint_running",
                "Requests in the endpoint's batch, as last scraped.",
            )?,
            kv_usage: of_endpoint(
                "tokenweir_endpoint_kv_usage",
                "Share of the endpoint's KV cache in use, 0 to 1, as last scraped.",
            )?,
            prefill_tokens_pending: of_endpoint(
                "tokenweir_endpoint_prefill_tokens_pending",
                "Prompt tokens sent by this gateway and not yet answered by a first token, estimated.",
            )?,
            predicted_ttft: of_endpoint(
                "tokenweir_endpoint_predicted_ttft_seconds",
                "Time to first token to expect: the mean of the endpoint's latest ones.",
            )?,
            healthy: of_endpoint(
                "tokenweir_endpoint_healthy",
                "1 if the endpoint's health check succeeds and it is neither ejected nor hung.",
            )?,
            metrics_age: of_endpoint(
                "tokenweir_endpoint_metrics_age_seconds",
                "Time since the endpoint last told its load.",
            )?,
            pool_kv: of_pool(
                "inference_pool_average_kv_cache_utilization",
                "Mean KV use of the pool's ready endpoints, 0 to 1.",
            )?,
            pool_queue: of_pool(
                "inference_pool_average_queue_size",
                "Mean queue length of the pool's ready endpoints.",
            )?,
            pool_ready: of_pool("inference_pool_ready_pods", "Ready endpoints of the pool.")?,
            queue_requests: make.gauge(
                "tokenweir_queue_requests",
                "Requests waiting in the gateway for an endpoint with room.",
                &["pool"],
            )?,
            queue_bytes: make.gauge(
                "tokenweir_queue_bytes",
                "What the bodies of requests waiting in the gateway take.",
                &["pool"],
            )?,
        })
    }

    pub(super) fn set(&self, pools: &[(PoolKey, Vec<Member>)]) {
        let of_pool = [&self.pool_kv, &self.pool_queue, &self.pool_ready];
        for gauge in self.of_endpoint().into_iter().chain(of_pool) {
            gauge.reset();
        }
        for (key, members) in pools {
            let pool = key.label();
            for member in members {
                let labels = [&*pool, member.endpoint.spec.id.as_str()];
                for (gauge, value) in self.of_endpoint().into_iter().zip(values(member)) {
                    if let Some(value) = value {
                        gauge.with_label_values(&labels).set(value);
                    }
                }
            }
            self.set_pool_gauges(&pool, members);
        }
    }

    /// How many wait in each pool, and what their bodies take.
    pub(super) fn set_waiting(&self, pools: &[(String, (usize, u64))]) {
        self.queue_requests.reset();
        self.queue_bytes.reset();
        for (pool, (requests, bytes)) in pools {
            self.queue_requests.with_label_values(&[pool]).set(approximate(*requests as u64));
            self.queue_bytes.with_label_values(&[pool]).set(approximate(*bytes));
        }
    }

    /// In the order of [`values`].
    fn of_endpoint(&self) -> [&GaugeVec; 8] {
        [
            &self.in_flight,
            &self.waiting,
            &self.running,
            &self.kv_usage,
            &self.prefill_tokens_pending,
            &self.predicted_ttft,
            &self.healthy,
            &self.metrics_age,
        ]
    }

    fn set_pool_gauges(&self, name: &str, members: &[Member]) {
        let ready: Vec<&Member> = members.iter().filter(|member| is_healthy(member)).collect();
        let mean = |values: Vec<f64>| {
            let sum: f64 = values.iter().sum();
            if values.is_empty() { 0.0 } else { sum / approximate(values.len() as u64) }
        };
        let kv = ready.iter().filter_map(|m| m.signals.kv_usage.map(|r| r.value)).collect();
        let queue =
            ready.iter().filter_map(|m| m.signals.waiting.map(|r| f64::from(r.value))).collect();
        self.pool_kv.with_label_values(&[name]).set(mean(kv));
        self.pool_queue.with_label_values(&[name]).set(mean(queue));
        self.pool_ready.with_label_values(&[name]).set(approximate(ready.len() as u64));
    }
}

fn is_healthy(member: &Member) -> bool {
    member.health == Health::Ready && member.endpoint.trouble().is_none()
}

/// What is known of an endpoint; what is not known has no value.
fn values(member: &Member) -> [Option<f64>; 8] {
    let Member { endpoint, signals, .. } = member;
    let age = |heard| monotonic().saturating_sub(heard).as_secs_f64();
    // What a server that is down has told last is not what is there.
    let load = (member.health != Health::Unready).then_some(signals);
    [
        Some(f64::from(endpoint.in_flight())),
        load.and_then(|load| load.waiting).map(|reading| f64::from(reading.value)),
        load.and_then(|load| load.running).map(|reading| f64::from(reading.value)),
        load.and_then(|load| load.kv_usage).map(|reading| reading.value),
        Some(endpoint.prefill_tokens_pending()),
        endpoint.predicted_ttft_seconds(),
        Some(f64::from(u8::from(is_healthy(member)))),
        signals.waiting.map(|reading| age(reading.heard)),
    ]
}
