//! `lora-chain`: the filter chain of the first Endpoint Picker (Gateway API Inference Extension 0.1, 2025).
//!
//! A request that may not be refused: of the endpoints with fewer than 50 waiting, those that have the adapter, else those
//! with a free adapter slot, else all; of these the least queued, of these the least KV use. If 50 wait everywhere: least
//! queued, then adapter or slot, then least KV use. A request that may be refused: the same last chain over endpoints with
//! at most 5 waiting and at most 80 % of KV in use; refused if there is none. "Least" keeps all within the first N-th of the
//! span of values, N being the number of endpoints. Among those left, chance decides.

use std::time::Duration;

use smallvec::SmallVec;

use super::{Ranked, dice, filled, kv_usage, rank as ranked, waiting};
use crate::{AdapterFit, Candidate, Chance, InferenceRequest, Reason, Unschedulable};

/// Waiting requests from which on an endpoint's adapters do not matter any more.
const LORA_QUEUE_MAX: f64 = 50.0;
/// Waiting requests and share of KV up to which a sheddable request is taken.
const SHED_QUEUE_MAX: f64 = 5.0;
const SHED_KV_MAX: f64 = 0.8;

type Kept = SmallVec<[usize; 16]>;

struct Chain<'a> {
    candidates: &'a [Candidate<'a>],
    queues: Vec<f64>,
    usages: Vec<f64>,
    wanted: bool,
}

pub(super) fn rank(
    request: &InferenceRequest<'_>,
    candidates: &[Candidate<'_>],
    now: Duration,
    chance: &mut Chance,
) -> Result<(Ranked, Reason), Unschedulable> {
    let unknown = || vec![0.0; candidates.len()];
    let chain = Chain {
        candidates,
        queues: filled(candidates, |c| waiting(c, now)).unwrap_or_else(unknown),
        usages: filled(candidates, |c| kv_usage(c, now)).unwrap_or_else(unknown),
        wanted: candidates.iter().any(|c| c.adapter != AdapterFit::Base),
    };
    let all: Kept = (0..candidates.len()).collect();
    let kept = if request.sheddable() { chain.sheddable(&all)? } else { chain.critical(&all) };
    let listed = |index: &usize| chain.wanted && candidates[*index].adapter_listed;
    let reason = if kept.iter().all(listed) { Reason::Adapter } else { Reason::Load };
    // What the chain keeps comes first; should all of it fail, the least used of the others.
    let terms =
        |index: usize| [if kept.contains(&index) { 0.0 } else { 1.0 + chain.usages[index] }];
    Ok((ranked(candidates.len(), &["filtered_out"], terms, dice(chance)), reason))
}

impl Chain<'_> {
    fn critical(&self, all: &Kept) -> Kept {
        let calm = keep(all, |index| self.queues[index] < LORA_QUEUE_MAX);
        if calm.is_empty() {
            return self.queue_lora_kv(all);
        }
        let having = keep(&calm, |index| self.has_adapter(index));
        let able =
            if having.is_empty() { keep(&calm, |index| self.has_room(index)) } else { having };
        let from = if able.is_empty() { calm } else { able };
        least(&least(&from, &self.queues), &self.usages)
    }

    fn sheddable(&self, all: &Kept) -> Result<Kept, Unschedulable> {
        let free = keep(all, |index| {
            self.queues[index] <= SHED_QUEUE_MAX && self.usages[index] <= SHED_KV_MAX
        });
        if free.is_empty() { Err(Unschedulable::Shed) } else { Ok(self.queue_lora_kv(&free)) }
    }

    fn queue_lora_kv(&self, from: &Kept) -> Kept {
        let calm = least(from, &self.queues);
        let cheap = keep(&calm, |index| self.has_adapter(index) || self.has_room(index));
        least(if cheap.is_empty() { &calm } else { &cheap }, &self.usages)
    }

    fn has_adapter(&self, index: usize) -> bool {
        !self.wanted || self.candidates[index].adapter_listed
    }

    fn has_room(&self, index: usize) -> bool {
        let signals = self.candidates[index].signals;
        let listed = signals.running_adapters.as_ref().map_or(0, |listed| listed.len());
        signals.adapters_max.is_none_or(|max| listed < max.value as usize)
    }
}

fn keep(from: &Kept, predicate: impl Fn(usize) -> bool) -> Kept {
    from.iter().copied().filter(|index| predicate(*index)).collect()
}

/// Those within the first N-th of the values' span.
fn least(from: &Kept, values: &[f64]) -> Kept {
    let of = |index: &usize| values[*index];
    let low = from.iter().map(of).fold(f64::INFINITY, f64::min);
    let high = from.iter().map(of).fold(f64::NEG_INFINITY, f64::max);
    #[expect(clippy::cast_precision_loss, reason = "a count of endpoints")]
    let bound = low + (high - low) / from.len().max(1) as f64;
    keep(from, |index| values[index] <= bound)
}

#[cfg(test)]
mod tests;
