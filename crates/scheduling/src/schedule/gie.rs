//! `gie-default`: what the Endpoint Picker of the Gateway API Inference Extension does without a configuration.
//!
//! Three scorers, each 0 to 1, summed with weights: queue (min–max over the candidates) 2, KV (1 − use) 2, prefix (share of
//! the prompt's blocks matched) 3; the highest sum wins, equals at random. Here a cost is a score not reached.

use std::time::Duration;

use super::{Ranked, dice, filled, kv_usage, rank as ranked, scaled, waiting};
use crate::{Candidate, Chance, InferenceRequest};

const QUEUE_WEIGHT: f64 = 2.0;
const KV_WEIGHT: f64 = 2.0;
const PREFIX_WEIGHT: f64 = 3.0;

pub(super) fn rank(
    request: &InferenceRequest<'_>,
    candidates: &[Candidate<'_>],
    now: Duration,
    chance: &mut Chance,
) -> Ranked {
    let unknown = || vec![0.0; candidates.len()];
    let queues = filled(candidates, |c| waiting(c, now)).unwrap_or_else(unknown);
    let usages = filled(candidates, |c| kv_usage(c, now)).unwrap_or_else(unknown);
    let blocks = f64::from(u32::try_from(request.blocks.len()).unwrap_or(u32::MAX)).max(1.0);
    let queue = scaled(&queues);
    let terms = |index: usize| {
        let matched = f64::from(candidates[index].cached_blocks) / blocks;
        [
            QUEUE_WEIGHT * queue(queues[index]),
            KV_WEIGHT * usages[index],
            PREFIX_WEIGHT * (1.0 - matched),
        ]
    };
    ranked(candidates.len(), &["queue", "kv", "prefix"], terms, dice(chance))
}

#[cfg(test)]
mod tests;
