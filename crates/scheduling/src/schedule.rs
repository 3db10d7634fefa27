//! Candidates in, decision out.

use std::{cmp::Ordering, time::Duration};

use smallvec::SmallVec;

use crate::{
    AdapterFit, CHOICES_MAX, Candidate, Chance, Choices, Cost, Decision, InferenceRequest, Policy,
    Reason, signals::SIGNAL_AGE_MAX,
};

mod gie;
mod lora_chain;
mod predicted;
mod prefix_hash;

/// Why nothing can be chosen.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unschedulable {
    #[error("no endpoint is ready")]
    NoEndpoints,
    /// Every endpoint would make the request wait, and it can wait where it is.
    #[error("every endpoint would make the request wait")]
    Saturated,
    /// Every endpoint is saturated, and the request may be refused.
    #[error("every endpoint is saturated")]
    Shed,
}

/// Ranks the candidates for one request.
///
/// Pure: equal arguments give equal decisions. Ties are settled by `chance`, so that gateways and
/// bursts that see the same numbers do not all go the same way.
pub fn schedule(
    policy: Policy,
    request: &InferenceRequest<'_>,
    candidates: &[Candidate<'_>],
    now: Duration,
    mut chance: Chance,
) -> Result<Decision, Unschedulable> {
    if candidates.is_empty() {
        return Err(Unschedulable::NoEndpoints);
    }
    let (costs, reason) = match policy {
        Policy::Predicted => (predicted::costs(candidates), Reason::Load),
        Policy::RoundRobin => (turn_costs(candidates.len(), chance.turn), Reason::Turn),
        Policy::Random => (vec![Cost::default(); candidates.len()], Reason::Random),
        Policy::LeastRequest => (in_flight_costs(candidates), Reason::Load),
        Policy::QueueKv => queue_kv_costs(candidates, now, |_| 0),
        Policy::QueueKvLocal => queue_kv_costs(candidates, now, |c| c.sent_since_scrape),
        Policy::PrefixHash => prefix_hash::costs(candidates),
        Policy::GieDefault => (gie::costs(request, candidates, now), Reason::Load),
        Policy::LoraChain => lora_chain::costs(request, candidates, now)?,
    };
    let choices = match policy {
        Policy::Predicted => predicted::choices(candidates, &costs, &mut chance),
        _ => cheapest(&costs, &mut chance),
    };
    let reason = match policy {
        _ if candidates.len() == 1 => Reason::Only,
        Policy::Predicted | Policy::GieDefault => advantage(candidates, choices[0]),
        _ => reason,
    };
    Ok(Decision { choices, reason, costs, left_out: Vec::new() })
}

/// Whether the chosen candidate has of the prompt, or the adapter, what some other has not.
fn advantage(candidates: &[Candidate<'_>], chosen: usize) -> Reason {
    let has_adapter =
        |c: &Candidate<'_>| matches!(c.adapter, AdapterFit::Active | AdapterFit::Resident);
    let cached = candidates[chosen].cached_blocks;
    if candidates.iter().any(|candidate| candidate.cached_blocks < cached) {
        Reason::Prefix
    } else if has_adapter(&candidates[chosen]) && !candidates.iter().all(has_adapter) {
        Reason::Adapter
    } else {
        Reason::Load
    }
}

/// The distance of each candidate from the one whose turn it is.
fn turn_costs(len: usize, turn: u64) -> Vec<Cost> {
    let first = usize::try_from(turn % len as u64).unwrap_or(0);
    (0..len).map(|index| Cost::of([("turn", count((index + len - first) % len))])).collect()
}

fn in_flight_costs(candidates: &[Candidate<'_>]) -> Vec<Cost> {
    candidates.iter().map(|c| Cost::of([("in_flight", f64::from(c.in_flight))])).collect()
}

/// Queue depth, scaled to 0..1 between the shortest and the longest queue, plus KV use.
///
/// A candidate whose signal is unknown takes the mean of those that are known: neither attractive
/// nor shunned. Where nobody's queue is known, own counts decide.
fn queue_kv_costs(
    candidates: &[Candidate<'_>],
    now: Duration,
    unseen: impl Fn(&Candidate<'_>) -> u32,
) -> (Vec<Cost>, Reason) {
    let queues = filled(candidates, |c| Some(waiting(c, now)? + f64::from(unseen(c))));
    let Some(queues) = queues else { return (in_flight_costs(candidates), Reason::Fallback) };
    let usages =
        filled(candidates, |c| kv_usage(c, now)).unwrap_or_else(|| vec![0.0; candidates.len()]);
    let costs = scaled(&queues)
        .zip(&usages)
        .map(|(queue, &usage)| Cost::of([("queue", queue), ("kv", usage)]))
        .collect();
    (costs, Reason::Load)
}

/// Requests in the endpoint's queue, if that was heard lately.
fn waiting(candidate: &Candidate<'_>, now: Duration) -> Option<f64> {
    Some(f64::from(candidate.signals.waiting?.fresh(now, SIGNAL_AGE_MAX)?))
}

/// Share of the endpoint's KV cache in use, if that was heard lately.
fn kv_usage(candidate: &Candidate<'_>, now: Duration) -> Option<f64> {
    candidate.signals.kv_usage?.fresh(now, SIGNAL_AGE_MAX)
}

/// Each value's place between the least, 0, and the greatest, 1; 0 for all if all are equal.
fn scaled(values: &[f64]) -> impl Iterator<Item = f64> {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let span = values.iter().copied().fold(f64::NEG_INFINITY, f64::max) - least;
    values.iter().map(move |value| if span > 0.0 { (value - least) / span } else { 0.0 })
}

/// One value a candidate, the unknown ones filled by the mean of the known; `None` if all are
/// unknown.
fn filled(
    candidates: &[Candidate<'_>],
    read: impl Fn(&Candidate<'_>) -> Option<f64>,
) -> Option<Vec<f64>> {
    let values: Vec<Option<f64>> = candidates.iter().map(read).collect();
    let known: Vec<f64> = values.iter().flatten().copied().collect();
    if known.is_empty() {
        return None;
    }
    let mean = known.iter().sum::<f64>() / count(known.len());
    Some(values.into_iter().map(|value| value.unwrap_or(mean)).collect())
}

/// The few cheapest, best first, in one pass; equals in random order.
fn cheapest(costs: &[Cost], chance: &mut Chance) -> Choices {
    let mut best: SmallVec<[(f64, u64, usize); CHOICES_MAX]> = SmallVec::new();
    for (index, cost) in costs.iter().enumerate() {
        let entry = (cost.total(), chance.next(), index);
        let before = |other: &(f64, u64, usize)| {
            entry.0.total_cmp(&other.0).then(entry.1.cmp(&other.1)) == Ordering::Less
        };
        let place = best.iter().position(before).unwrap_or(best.len());
        if place < CHOICES_MAX {
            best.truncate(CHOICES_MAX - 1);
            best.insert(place.min(best.len()), entry);
        }
    }
    best.into_iter().map(|(_, _, index)| index).collect()
}

#[expect(clippy::cast_precision_loss, reason = "counts of endpoints are far below 2^52")]
fn count(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests;
