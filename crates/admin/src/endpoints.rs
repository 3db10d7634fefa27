//! `/endpoints`: every pool with its endpoints and what is known of them. The unknown is left out.

use std::{collections::BTreeSet, time::Duration};

use picker::{Health, Member, PoolKey, PoolKind, PoolView, monotonic};
use scheduling::Trouble;
use serde::Serialize;

#[derive(Serialize)]
pub(crate) struct PoolJson {
    #[serde(flatten)]
    pool: PoolName,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'static str>,
    /// Requests that wait in the gateway for one of the endpoints.
    queued: usize,
    endpoints: Vec<EndpointJson>,
}

/// How JSON names a pool, everywhere.
#[derive(Serialize)]
pub(crate) struct PoolName {
    name: String,
    namespace: String,
    kind: &'static str,
    /// Pools made from a Service only: an InferencePool has all ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
}

#[derive(Serialize)]
struct EndpointJson {
    endpoint: String,
    workload: String,
    address: String,
    health: &'static str,
    /// Why it gets no requests though it may be healthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    out: Option<&'static str>,
    in_flight: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    running: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kv_usage: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kv_blocks: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    block_size: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    adapters_max: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    running_adapters: Option<BTreeSet<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_tokens_total: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation_tokens_total: Option<u64>,
    /// Estimates of this gateway's own.
    prefill_tokens_pending: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    predicted_ttft_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scrape_age_seconds: Option<f64>,
}

pub(crate) fn list(view: &PoolView) -> Vec<PoolJson> {
    let (desired, now) = (view.desired(), monotonic());
    let pool = |(key, members): (PoolKey, Vec<Member>)| {
        let spec = desired.pools.iter().find(|spec| spec.key == key);
        PoolJson {
            pool: PoolName::of(&key),
            policy: spec.map(|spec| spec.policy.name()),
            queued: view.queue(&key).0,
            endpoints: members.iter().map(|member| endpoint(member, now)).collect(),
        }
    };
    view.pools().into_iter().map(pool).collect()
}

impl PoolName {
    pub(crate) fn of(key: &PoolKey) -> Self {
        let (kind, port) = match key.kind {
            PoolKind::InferencePool => ("InferencePool", None),
            PoolKind::Service => ("Service", Some(key.port)),
        };
        Self { name: key.name.to_string(), namespace: key.namespace.to_string(), kind, port }
    }
}

fn endpoint(member: &Member, now: Duration) -> EndpointJson {
    let (spec, signals) = (&member.endpoint.spec, &member.signals);
    EndpointJson {
        endpoint: spec.id.to_string(),
        workload: spec.workload.to_string(),
        address: spec.host.to_string(),
        health: match member.health {
            Health::Unknown => "unknown",
            Health::Ready => "ready",
            Health::Unready => "unready",
        },
        out: member.endpoint.trouble().map(Trouble::name),
        in_flight: member.endpoint.in_flight(),
        waiting: signals.waiting.map(|reading| reading.value),
        running: signals.running.map(|reading| reading.value),
        kv_usage: signals.kv_usage.map(|reading| reading.value),
        kv_blocks: signals.kv_blocks.map(|reading| reading.value),
        block_size: signals.kv_block_tokens.map(|reading| reading.value),
        adapters_max: signals.adapters_max.map(|reading| reading.value),
        running_adapters: signals.running_adapters.as_deref().cloned(),
        prompt_tokens_total: signals.prompt_tokens.map(|reading| reading.value),
        generation_tokens_total: signals.generation_tokens.map(|reading| reading.value),
        // Estimates have no digits behind the point, and fewer bytes without.
        prefill_tokens_pending: member.endpoint.prefill_tokens_pending().max(0.0).round(),
        predicted_ttft_seconds: member.endpoint.predicted_ttft_seconds(),
        scrape_age_seconds: member.scrape_age(now).map(|age| age.as_secs_f64()),
    }
}
