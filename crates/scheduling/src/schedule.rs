//! Candidates in, decision out.

use std::time::Duration;

use ranking::{Ranked, dice, rank};

use crate::{
    AdapterFit, Candidate, Candidates, Chance, Decision, InferenceRequest, Policy, Reason, Slot,
    signals::SIGNAL_AGE_MAX,
};

mod gie;
mod lora_chain;
mod predicted;
mod prefix_hash;
mod ranking;

pub(crate) use predicted::wait_seconds;

/// Why nothing can be chosen.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unschedulable {
    #[error("no endpoint is ready")]
    NoEndpoints,
    /// Every endpoint would make the request wait, and it can wait where it is.
    #[error("every endpoint would make the request wait")]
    Saturated {
        /// Where it would find room first, if it is [overdue](InferenceRequest::overdue) and that is not kept for others.
        soonest: Option<Slot>,
    },
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
    candidates: &(impl Candidates + ?Sized),
    now: Duration,
    mut chance: Chance,
) -> Result<Decision, Unschedulable> {
    if candidates.is_empty() {
        return Err(Unschedulable::NoEndpoints);
    }
    let len = candidates.len();
    let (ranked, reason) = match policy {
        Policy::Predicted => (predicted::rank(candidates, &mut chance), Reason::Load),
        Policy::RoundRobin => (by_turn(len, &mut chance), Reason::Turn),
        Policy::Random => (rank(len, &[], |_| [], dice(&mut chance)), Reason::Random),
        policy => {
            let candidates: Vec<Candidate<'_>> = candidates.all().collect();
            of_peers(policy, request, &candidates, now, &mut chance)?
        }
    };
    let Ranked { choices, costs } = ranked;
    let reason = match policy {
        _ if len == 1 => Reason::Only,
        Policy::Predicted | Policy::GieDefault => advantage(candidates, choices[0]),
        _ => reason,
    };
    Ok(Decision { choices, reason, costs, left_out: Vec::new() })
}

/// By the policies of others, which are here to be compared with. They look at everything more than once.
fn of_peers(
    policy: Policy,
    request: &InferenceRequest<'_>,
    candidates: &[Candidate<'_>],
    now: Duration,
    chance: &mut Chance,
) -> Result<(Ranked, Reason), Unschedulable> {
    Ok(match policy {
        Policy::QueueKv => by_queue_kv(candidates, now, |_| 0, chance),
        Policy::QueueKvLocal => by_queue_kv(candidates, now, |c| c.sent_since_scrape, chance),
        Policy::PrefixHash => (prefix_hash::rank(candidates, chance), Reason::Prefix),
        Policy::GieDefault => (gie::rank(request, candidates, now, chance), Reason::Load),
        Policy::LoraChain => lora_chain::rank(request, candidates, now, chance)?,
        _ => (by_in_flight(candidates, chance), Reason::Load),
    })
}

/// Whether the chosen candidate has of the prompt, or the adapter, what some other has not.
fn advantage(candidates: &(impl Candidates + ?Sized), chosen: usize) -> Reason {
    let has_adapter =
        |c: Candidate<'_>| matches!(c.adapter, AdapterFit::Active | AdapterFit::Resident);
    let chosen = candidates.get(chosen);
    let cached = chosen.cached_blocks;
    if cached > 0 && candidates.all().any(|candidate| candidate.cached_blocks < cached) {
        Reason::Prefix
    } else if has_adapter(chosen) && !candidates.all().all(has_adapter) {
        Reason::Adapter
    } else {
        Reason::Load
    }
}

/// By the distance from the one whose turn it is.
fn by_turn(len: usize, chance: &mut Chance) -> Ranked {
    let first = usize::try_from(chance.turn % len as u64).unwrap_or(0);
    rank(len, &["turn"], |index| [count((index + len - first) % len)], dice(chance))
}

fn by_in_flight(candidates: &[Candidate<'_>], chance: &mut Chance) -> Ranked {
    let terms = |index: usize| [f64::from(candidates[index].in_flight)];
    rank(candidates.len(), &["in_flight"], terms, dice(chance))
}

/// Queue depth, scaled to 0..1 between the shortest and the longest queue, plus KV use.
///
/// A candidate whose signal is unknown takes the mean of those that are known: neither attractive
/// nor shunned. Where nobody's queue is known, own counts decide.
fn by_queue_kv(
    candidates: &[Candidate<'_>],
    now: Duration,
    unseen: impl Fn(&Candidate<'_>) -> u32,
    chance: &mut Chance,
) -> (Ranked, Reason) {
    let queues = filled(candidates, |c| Some(waiting(c, now)? + f64::from(unseen(c))));
    let Some(queues) = queues else {
        return (by_in_flight(candidates, chance), Reason::Fallback);
    };
    let queue = scaled(&queues);
    let usages =
        filled(candidates, |c| kv_usage(c, now)).unwrap_or_else(|| vec![0.0; candidates.len()]);
    let terms = |index: usize| [queue(queues[index]), usages[index]];
    (rank(candidates.len(), &["queue", "kv"], terms, dice(chance)), Reason::Load)
}

/// Requests in the endpoint's queue, if that was heard lately.
fn waiting(candidate: &Candidate<'_>, now: Duration) -> Option<f64> {
    Some(f64::from(candidate.signals.waiting?.fresh(now, SIGNAL_AGE_MAX)?))
}

/// Share of the endpoint's KV cache in use, if that was heard lately.
fn kv_usage(candidate: &Candidate<'_>, now: Duration) -> Option<f64> {
    candidate.signals.kv_usage?.fresh(now, SIGNAL_AGE_MAX)
}

/// Tells a value's place between the least, 0, and the greatest, 1; 0 for all if all are equal.
fn scaled(values: &[f64]) -> impl Fn(f64) -> f64 + use<> {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let span = values.iter().copied().fold(f64::NEG_INFINITY, f64::max) - least;
    move |value| if span > 0.0 { (value - least) / span } else { 0.0 }
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

#[expect(clippy::cast_precision_loss, reason = "counts of endpoints are far below 2^52")]
fn count(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests;
