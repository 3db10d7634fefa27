//! `/decisions`: the latest decisions, newest first, with the cost of every candidate.

use std::{collections::BTreeMap, time::SystemTime};

use jiff::Timestamp;
use picker::{DecisionRecord, PoolView};
use scheduling::{Cost, EndpointId};
use serde::Serialize;

use crate::query::parameter;

#[derive(Serialize)]
pub(crate) struct DecisionJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    request_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    pool: String,
    namespace: String,
    policy: &'static str,
    reason: &'static str,
    /// From the request's arrival to the pick.
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_ms: Option<f64>,
    endpoint: String,
    /// Of costs and their terms.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost_unit: Option<&'static str>,
    candidates: Vec<CandidateJson>,
}

#[derive(Serialize)]
struct CandidateJson {
    endpoint: String,
    cost: f64,
    terms: BTreeMap<&'static str, f64>,
}

/// All that are remembered, or as many as `limit` says.
pub(crate) fn list(view: &PoolView, query: &str) -> Result<Vec<DecisionJson>, &'static str> {
    let limit = match parameter(query, "limit") {
        Some(limit) => limit.parse().map_err(|_| "limit is a whole number, such as 20")?,
        None => usize::MAX,
    };
    Ok(latest(view, limit))
}

/// So many at the most, newest first.
pub(crate) fn latest(view: &PoolView, limit: usize) -> Vec<DecisionJson> {
    view.latest_decisions(limit).iter().map(|record| decision(record)).collect()
}

fn decision(record: &DecisionRecord) -> DecisionJson {
    DecisionJson {
        time: rfc3339(record.time),
        request_id: record.request_id.clone(),
        model: record.model.clone(),
        pool: record.pool.name.to_string(),
        namespace: record.pool.namespace.to_string(),
        policy: record.policy,
        reason: record.reason,
        queue_ms: record.queue.map(|queue| queue.as_secs_f64() * 1e3),
        endpoint: record.endpoint.to_string(),
        cost_unit: record.cost_unit,
        candidates: record.candidates.iter().map(candidate).collect(),
    }
}

fn candidate((endpoint, cost): &(EndpointId, Cost)) -> CandidateJson {
    let terms = cost.terms().map(|term| (term.name, term.value)).collect();
    CandidateJson { endpoint: endpoint.to_string(), cost: cost.total(), terms }
}

fn rfc3339(time: SystemTime) -> Option<String> {
    Timestamp::try_from(time).ok().map(|time| format!("{time:.3}"))
}
