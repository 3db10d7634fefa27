//! `predicted`: the seconds until a request would have its last token, and what its prompt and its KV room cost the others,
//! summed without weights.

use smallvec::SmallVec;

use super::ranking::{self, Ranked, Totals};
use crate::{AdapterFit, COSTS_MAX, Candidate, Candidates, Chance, Choices, Load};

/// Candidates so close to the best are as good, and chance chooses: predictions are not better than that, and gateways
/// that see the same numbers must not all do the same.
const BAND_SHARE: f64 = 0.02;
const BAND_SECONDS: f64 = 0.005;
/// Of so many requests one is a trial while there is an endpoint that was not tried for long.
const TRIAL_EACH: usize = 32;
/// Time to bring an adapter into a free slot; vLLM copies some tens of megabytes.
const ADAPTER_SWAP_SECONDS: f64 = 0.03;

/// The terms of a [cost](cost), in seconds.
const TERMS: [&str; 7] =
    ["kv_wait", "prefill_ahead", "prefill", "adapter", "decode", "crowding", "stall"];

pub(super) fn rank(candidates: &(impl Candidates + ?Sized), chance: &mut Chance) -> Ranked {
    let mut pool = PoolLoad::default();
    let mut trial = None;
    let mut costs: SmallVec<[[f64; TERMS.len()]; COSTS_MAX]> =
        SmallVec::with_capacity(candidates.len());
    for index in 0..candidates.len() {
        let candidate = candidates.get(index);
        pool.add(&candidate);
        costs.push(cost(&candidate));
        if candidate.untried && trial.is_none() {
            trial = Some(index);
        }
    }
    let [in_flight, crowded] = pool.of_each(costs.len());
    let terms = |index: usize| {
        let [kv_wait, ahead, prefill, adapter, decode, crowding, stall] = costs[index];
        [kv_wait, ahead, prefill, adapter, decode, crowding * crowded, stall * in_flight]
    };
    ranking::rank(costs.len(), &TERMS, terms, |totals| choices(trial, totals, chance))
}

/// What choosing it costs; of the last two terms, for each request that is in flight on the pool's endpoints.
#[inline]
fn cost(candidate: &Candidate<'_>) -> [f64; TERMS.len()] {
    let Candidate { load, speed, .. } = candidate;
    let uncached = candidate.uncached_tokens;
    let decode = speed.output_tokens * step(candidate);
    let need = candidate.unshared_tokens + speed.output_tokens;
    // Seconds of the whole cache's turnover that it takes.
    let own = taken(load).min(1.0);
    let room = load.kv_capacity.map_or(0.0, |capacity| need * decode / capacity.max(1.0));
    // A slot that this request takes is one that the next adapter has to wait for: on average until half of a request's
    // time is over, and the likelier, the fewer are left.
    let slot = candidate.adapter_pressure.powi(2) * decode / 2.0;
    let adapter = match candidate.adapter {
        AdapterFit::Base | AdapterFit::Active => 0.0,
        AdapterFit::Resident => slot,
        AdapterFit::Room => ADAPTER_SWAP_SECONDS + slot,
        // It waits itself, while requests of the adapters in the slots go on passing it.
        AdapterFit::Full => ADAPTER_SWAP_SECONDS + candidate.adapter_pressure * decode,
    };
    [
        kv_wait(need, decode, candidate),
        load.prefill_tokens * speed.prefill_token_seconds,
        uncached * speed.prefill_token_seconds,
        adapter,
        // Its own answer, a step a token.
        decode,
        // KV room that it takes and others have to wait for: the likelier, the fuller both this endpoint and the pool are.
        room * own * own,
        // While a prompt is computed, nobody else on the machine gets a token.
        uncached * speed.prefill_token_seconds,
    ]
}

/// Seconds of a step with all the context that is there and on its way.
fn step(candidate: &Candidate<'_>) -> f64 {
    let Candidate { load, speed, .. } = candidate;
    let context = load.context_tokens + load.foreign_kv_tokens;
    speed.step_seconds + speed.context_token_seconds * context
}

/// Share of the KV cache that is taken, more than the whole if requests wait for it; 0 if its size is not known.
fn taken(load: &Load) -> f64 {
    load.kv_capacity
        .map_or(0.0, |capacity| (load.kv_tokens + load.foreign_kv_tokens) / capacity.max(1.0))
}

/// A pool's endpoints, on average.
///
/// The average, not each endpoint's own: what a request's work costs the others is what it is worth in this pool, and must
/// not make a busy endpoint look worse than its waits already do.
#[derive(Default)]
struct PoolLoad {
    in_flight: f64,
    taken: f64,
}

impl PoolLoad {
    #[inline]
    fn add(&mut self, candidate: &Candidate<'_>) {
        self.in_flight += f64::from(candidate.in_flight) + candidate.load.foreign_requests;
        self.taken += taken(&candidate.load);
    }

    /// Requests in flight on each of so many endpoints, and the same times the square of the share of the KV cache that is
    /// taken, up to the whole.
    fn of_each(&self, endpoints: usize) -> [f64; 2] {
        let endpoints = f64::from(u32::try_from(endpoints).unwrap_or(u32::MAX)).max(1.0);
        let in_flight = self.in_flight / endpoints;
        [in_flight, in_flight * (self.taken / endpoints).min(1.0).powi(2)]
    }
}

/// Seconds until there is room for `need` more KV tokens: what is expected to be missing over the rate at which requests
/// that end give tokens back, each after `hold` seconds.
fn kv_wait(need: f64, hold: f64, candidate: &Candidate<'_>) -> f64 {
    let load = &candidate.load;
    let taken = load.kv_tokens + load.foreign_kv_tokens;
    let Some(capacity) = load.kv_capacity.filter(|capacity| *capacity > 0.0) else {
        return 0.0;
    };
    let missing = expected_excess(taken + need - capacity, load.kv_variance);
    if missing <= 0.0 {
        return 0.0;
    }
    missing * hold.max(1e-3) / taken.min(capacity).max(need)
}

/// E[max(0, X)] for a normal X of this mean and variance: φ and Φ in the logistic approximation.
#[inline]
fn expected_excess(mean: f64, variance: f64) -> f64 {
    /// In scales: farther from 0, the mean decides alone.
    const FAR: f64 = 30.0;
    // Scale of the logistic function that is closest to Φ.
    let scale_squared = variance / (1.702 * 1.702);
    if mean * mean >= FAR * FAR * scale_squared {
        return mean.max(0.0);
    }
    let scale = scale_squared.sqrt();
    scale * (mean / scale).exp().ln_1p()
}

/// The best, at random among those that are as good; then the next ones in order.
///
/// Now and then an endpoint that was not tried for long goes first: what was learned of it may have been noise, or may be
/// past, and who gets nothing teaches nothing.
fn choices(trial: Option<usize>, totals: &Totals<'_>, chance: &mut Chance) -> Choices {
    let least = totals.cheapest.first().map_or(f64::INFINITY, |index| totals.all[*index]);
    let band = least + (least * BAND_SHARE).max(BAND_SECONDS);
    let within = totals.all.iter().filter(|total| **total <= band).count();
    let drawn = chance.below(within);
    let trial = trial.filter(|_| chance.below(TRIAL_EACH) == 0);
    let best = || {
        let within = totals.all.iter().enumerate().filter(|(_, total)| **total <= band);
        within.map(|(index, _)| index).nth(drawn)
    };
    totals.first_then_cheapest(trial.or_else(best))
}

#[cfg(test)]
mod tests;
