//! The metrics that Istio and ASM users already have dashboards for.

use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};

use super::{
    Workload,
    make::{Maker, approximate},
};
use crate::{PoolKey, RequestRecord};

/// Istio's label set in its order, and `model`.
const ISTIO_LABELS: [&str; 26] = [
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_service",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_service_name",
    "destination_service_namespace",
    "destination_cluster",
    "request_protocol",
    "response_code",
    "grpc_response_status",
    "response_flags",
    "connection_security_policy",
    "model",
];
const TOKEN_LABELS: [&str; 4] = [
    "llmproxy_source_workload",
    "llmproxy_source_workload_namespace",
    "llmproxy_destination_service",
    "llmproxy_model",
];

/// Envoy's default histogram buckets, in milliseconds.
const ISTIO_MILLIS: [f64; 19] = [
    0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4, 3e4, 6e4, 3e5, 6e5,
    1.8e6, 3.6e6,
];
/// Envoy's default buckets serve bytes as well, as in Istio.
const ISTIO_BYTES: [f64; 19] = ISTIO_MILLIS;

/// Istio's request metrics and ASM's token counters.
#[derive(Debug)]
pub(super) struct IstioMetrics {
    workload: Workload,
    prompt_tokens: IntCounterVec,
    completion_tokens: IntCounterVec,
    requests: IntCounterVec,
    millis: HistogramVec,
    request_bytes: HistogramVec,
    response_bytes: HistogramVec,
}

impl IstioMetrics {
    pub(super) fn new(make: &Maker, workload: Workload) -> Result<Self, prometheus::Error> {
        Ok(Self {
            workload,
            prompt_tokens: make.counter(
                "asm_llm_proxy_prompt_tokens",
                "Prompt tokens, as counted by the endpoints.",
                &TOKEN_LABELS,
            )?,
            completion_tokens: make.counter(
                "asm_llm_proxy_completion_tokens",
                "Completion tokens, as counted by the endpoints.",
                &TOKEN_LABELS,
            )?,
            requests: make.counter(
                "istio_requests_total",
                "Requests that have ended.",
                &ISTIO_LABELS,
            )?,
            millis: make.histogram(
                "istio_request_duration_milliseconds",
                "Time from a request's arrival to its end.",
                &ISTIO_LABELS,
                &ISTIO_MILLIS,
            )?,
            request_bytes: make.histogram(
                "istio_request_bytes",
                "Size of request bodies.",
                &ISTIO_LABELS,
                &ISTIO_BYTES,
            )?,
            response_bytes: make.histogram(
                "istio_response_bytes",
                "Size of response bodies.",
                &ISTIO_LABELS,
                &ISTIO_BYTES,
            )?,
        })
    }

    /// The counters of prompt tokens and of completion tokens.
    pub(super) fn tokens(&self) -> [&IntCounterVec; 2] {
        [&self.prompt_tokens, &self.completion_tokens]
    }

    /// The series of requests that end this way.
    pub(super) fn of_requests(
        &self,
        pool: Option<&PoolKey>,
        model: &str,
        (code, flags): (u16, &str),
    ) -> OfRequests {
        let code = code.to_string();
        let service = pool.map(PoolKey::service);
        let service = service.as_deref().unwrap_or("unknown");
        let name = pool.map_or("unknown", |pool| &pool.name);
        let namespace = pool.map_or("unknown", |pool| &pool.namespace);
        let me = self.workload.name.as_str();
        let mine = self.workload.namespace.as_str();
        let labels = [
            "source", me, me, "latest", mine, "unknown", me, "unknown", "unknown", name, namespace,
            "unknown", "unknown", "unknown", service, name, "latest", name, namespace, "unknown",
            "http", &code, "", flags, "unknown", model,
        ];
        OfRequests {
            requests: self.requests.with_label_values(&labels),
            millis: self.millis.with_label_values(&labels),
            request_bytes: self.request_bytes.with_label_values(&labels),
            response_bytes: self.response_bytes.with_label_values(&labels),
        }
    }

    pub(super) fn prompt_tokens(&self, pool: &PoolKey, model: &str) -> IntCounter {
        self.of_tokens(&self.prompt_tokens, pool, model)
    }

    pub(super) fn completion_tokens(&self, pool: &PoolKey, model: &str) -> IntCounter {
        self.of_tokens(&self.completion_tokens, pool, model)
    }

    fn of_tokens(&self, tokens: &IntCounterVec, pool: &PoolKey, model: &str) -> IntCounter {
        let service = pool.service();
        let Workload { name, namespace } = &self.workload;
        tokens.with_label_values(&[name.as_str(), namespace.as_str(), service.as_str(), model])
    }
}

/// Istio's series of requests that have all labels in common.
#[derive(Debug)]
pub(super) struct OfRequests {
    requests: IntCounter,
    millis: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
}

impl OfRequests {
    pub(super) fn observe(&self, record: &RequestRecord, duration: Duration) {
        self.requests.inc();
        self.millis.observe(duration.as_secs_f64() * 1e3);
        self.request_bytes.observe(approximate(record.bytes_received));
        self.response_bytes.observe(approximate(record.bytes_sent));
    }
}
