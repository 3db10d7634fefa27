//! Candidates in, decision out.

use std::{cmp::Ordering, time::Duration};

use smallvec::SmallVec;

use crate::{CHOICES_MAX, Chance, Choices, Cost, Decision, EndpointId, Policy, Reason, Signals};

/// Signals older than this are unknown. Five scrapes at the default interval: a lost scrape or two
/// changes nothing, a dead metrics page does.
const SIGNAL_AGE_MAX: Duration = Duration::from_secs(5);

/// Everything a policy may know of an endpoint that could answer.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    pub id: &'a EndpointId,
    /// Requests of this gateway the endpoint has not finished.
    pub in_flight: u32,
    /// Requests of this gateway the endpoint's last scrape cannot have seen.
    pub sent_since_scrape: u32,
    pub signals: &'a Signals,
}

/// Why nothing can be chosen.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unschedulable {
    #[error("no endpoint is ready")]
    NoEndpoints,
}

/// Ranks the candidates for one request.
///
/// Pure: equal arguments give equal decisions. Ties are settled by `chance`, so that gateways and
/// bursts that see the same numbers do not all go the same way.
pub fn schedule(
    policy: Policy,
    candidates: &[Candidate<'_>],
    now: Duration,
    mut chance: Chance,
) -> Result<Decision, Unschedulable> {
    if candidates.is_empty() {
        return Err(Unschedulable::NoEndpoints);
    }
    let (costs, reason) = match policy {
        Policy::RoundRobin => (turn_costs(candidates.len(), chance.turn), Reason::Turn),
        Policy::Random => (vec![Cost::default(); candidates.len()], Reason::Random),
        Policy::LeastRequest => (in_flight_costs(candidates), Reason::Load),
        Policy::QueueKv => queue_kv_costs(candidates, now, |_| 0),
        Policy::QueueKvLocal => queue_kv_costs(candidates, now, |c| c.sent_since_scrape),
    };
    let reason = if candidates.len() == 1 { Reason::Only } else { reason };
    Ok(Decision { choices: cheapest(&costs, &mut chance), reason, costs })
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
    let queues = filled(candidates, |c| {
        let waiting = c.signals.waiting?.fresh(now, SIGNAL_AGE_MAX)?;
        Some(f64::from(waiting) + f64::from(unseen(c)))
    });
    let Some(queues) = queues else { return (in_flight_costs(candidates), Reason::Fallback) };
    let usages = filled(candidates, |c| c.signals.kv_usage?.fresh(now, SIGNAL_AGE_MAX))
        .unwrap_or_else(|| vec![0.0; candidates.len()]);

    let shortest = queues.iter().copied().fold(f64::INFINITY, f64::min);
    let longest = queues.iter().copied().fold(0.0, f64::max);
    let span = longest - shortest;
    let scaled = |queue: f64| if span > 0.0 { (queue - shortest) / span } else { 0.0 };
    let costs = queues
        .iter()
        .zip(&usages)
        .map(|(&queue, &usage)| Cost::of([("queue", scaled(queue)), ("kv", usage)]))
        .collect();
    (costs, Reason::Load)
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
