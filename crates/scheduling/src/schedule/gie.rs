//! `gie-default`: what the Endpoint Picker of the Gateway API Inference Extension does without a configuration.
//!
//! Three scorers, each 0 to 1, summed with weights: queue (min–max over the candidates) 2, KV (1 − use) 2, prefix (share of
//! the prompt's blocks matched) 3; the highest sum wins, equals at random. Here a cost is a score not reached.

use std::time::Duration;

use super::{filled, kv_usage, scaled, waiting};
use crate::{Candidate, Cost, InferenceRequest};

const QUEUE_WEIGHT: f64 = 2.0;
const KV_WEIGHT: f64 = 2.0;
const PREFIX_WEIGHT: f64 = 3.0;

pub(super) fn costs(
    request: &InferenceRequest<'_>,
    candidates: &[Candidate<'_>],
    now: Duration,
) -> Vec<Cost> {
    let unknown = || vec![0.0; candidates.len()];
    let queues = filled(candidates, |c| waiting(c, now)).unwrap_or_else(unknown);
    let usages = filled(candidates, |c| kv_usage(c, now)).unwrap_or_else(unknown);
    let blocks = f64::from(u32::try_from(request.blocks.len()).unwrap_or(u32::MAX)).max(1.0);
    let costs = scaled(&queues).zip(&usages).zip(candidates).map(|((queue, usage), candidate)| {
        let matched = f64::from(candidate.cached_blocks) / blocks;
        Cost::of([
            ("queue", QUEUE_WEIGHT * queue),
            ("kv", KV_WEIGHT * usage),
            ("prefix", PREFIX_WEIGHT * (1.0 - matched)),
        ])
    });
    costs.collect()
}

#[cfg(test)]
mod tests;
