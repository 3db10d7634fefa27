//! A request's decision, told to the client that asks for it.
//!
//! `curl -i -H 'x-tokenweir-explain: 1' …` shows one more response header, whose value is JSON.

use http::{HeaderMap, HeaderName, HeaderValue};
use picker::DecisionRecord;
use scheduling::{Cost, EndpointId};
use serde::{Serialize, Serializer};

use crate::access_log::millis;

/// Asks for the decision. It is not passed on.
pub(crate) const X_TOKENWEIR_EXPLAIN: HeaderName = HeaderName::from_static("x-tokenweir-explain");
const X_TOKENWEIR_DECISION: HeaderName = HeaderName::from_static("x-tokenweir-decision");
/// Candidates told of, the cheapest and the one chosen.
const EXPLAIN_CANDIDATES_MAX: usize = 8;
/// Longest value. Of the 4 KiB that the strictest of usual proxies take as a whole head, half.
const EXPLAIN_BYTES_MAX: usize = 2 * 1024;

pub(crate) fn is_asked(said: Option<&HeaderValue>) -> bool {
    said.is_some_and(|value| value == "1")
}

/// Adds the decision to an answer's head.
pub(crate) fn explain(headers: &mut HeaderMap, decision: &DecisionRecord) {
    if let Some(value) = header_value(decision) {
        headers.insert(X_TOKENWEIR_DECISION, value);
    }
}

#[derive(Serialize)]
struct Explanation<'a> {
    policy: &'static str,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_ms: Option<f64>,
    endpoint: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost_unit: Option<&'static str>,
    candidates: Vec<Explained<'a>>,
}

#[derive(Serialize)]
struct Explained<'a> {
    endpoint: &'a str,
    cost: f64,
    terms: Terms<'a>,
}

struct Terms<'a>(&'a Cost);

impl Serialize for Terms<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.terms().map(|term| (term.name, rounded(term.value))))
    }
}

/// To a millionth: below that is noise, and a header has no room for it.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// As many of the candidates as have room.
fn header_value(decision: &DecisionRecord) -> Option<HeaderValue> {
    let told = decision.candidates.len().min(EXPLAIN_CANDIDATES_MAX);
    (0..=told).rev().find_map(|told| {
        let text = serde_json::to_string(&explanation(decision, told)).ok()?;
        (text.len() <= EXPLAIN_BYTES_MAX).then(|| HeaderValue::try_from(text).ok())?
    })
}

fn explanation(decision: &DecisionRecord, told: usize) -> Explanation<'_> {
    let candidates = told_of(decision, told).map(|(endpoint, cost)| Explained {
        endpoint: endpoint.as_str(),
        cost: rounded(cost.total()),
        terms: Terms(cost),
    });
    Explanation {
        policy: decision.policy,
        reason: decision.reason,
        queue_ms: decision.queue.map(millis),
        endpoint: decision.endpoint.as_str(),
        cost_unit: decision.cost_unit,
        candidates: candidates.collect(),
    }
}

/// The cheapest candidates, so many in all with the one chosen, which may be dearer.
fn told_of(decision: &DecisionRecord, told: usize) -> impl Iterator<Item = &(EndpointId, Cost)> {
    let mut dearer = decision.candidates.iter().skip(told);
    let chosen = dearer.find(|(endpoint, _)| *endpoint == decision.endpoint).filter(|_| told > 0);
    let cheapest = told - usize::from(chosen.is_some());
    decision.candidates.iter().take(cheapest).chain(chosen)
}

#[cfg(test)]
mod tests;
