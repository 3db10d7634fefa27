//! `predicted`: the seconds until a request would have its last token, and what its prompt and its KV room cost the others,
//! summed without weights.

use super::ranking::{self, Ranked, Totals};
use crate::{AdapterFit, Candidate, Chance, Choices, Load};

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

pub(super) fn rank(candidates: &[Candidate<'_>], chance: &mut Chance) -> Ranked {
    let pool = PoolLoad::of(candidates);
    let terms = |index: usize| cost(&candidates[index], &pool);
    ranking::rank(candidates.len(), &TERMS, terms, |totals| choices(candidates, totals, chance))
}

#[inline]
fn cost(candidate: &Candidate<'_>, pool: &PoolLoad) -> [f64; TERMS.len()] {
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
        pool.in_flight * room * (own * pool.taken).powi(2),
        // While a prompt is computed, nobody else on the machine gets a token.
        pool.in_flight * uncached * speed.prefill_token_seconds,
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
struct PoolLoad {
    /// Requests in flight.
    in_flight: f64,
    /// Share of the KV cache that is taken, up to the whole.
    taken: f64,
}

impl PoolLoad {
    fn of(candidates: &[Candidate<'_>]) -> Self {
        let count = f64::from(u32::try_from(candidates.len()).unwrap_or(u32::MAX)).max(1.0);
        let (mut in_flight, mut filled) = (0.0, 0.0);
        for candidate in candidates {
            in_flight += f64::from(candidate.in_flight) + candidate.load.foreign_requests;
            filled += taken(&candidate.load);
        }
        Self { in_flight: in_flight / count, taken: (filled / count).min(1.0) }
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
    let per_second = taken.min(capacity).max(need) / hold.max(1e-3);
    expected_excess(taken + need - capacity, load.kv_variance.sqrt()) / per_second
}

/// E[max(0, X)] for a normal X of this mean and deviation: φ and Φ in the logistic approximation.
fn expected_excess(mean: f64, deviation: f64) -> f64 {
    if deviation <= 0.0 {
        return mean.max(0.0);
    }
    // Integral of the logistic function that is closest to Φ.
    let scale = deviation / 1.702;
    match mean / scale {
        x if x > 30.0 => mean,
        x if x < -30.0 => 0.0,
        x => scale * x.exp().ln_1p(),
    }
}

/// The best, at random among those that are as good; then the next ones in order.
///
/// Now and then an endpoint that was not tried for long goes first: what was learned of it may have been noise, or may be
/// past, and who gets nothing teaches nothing.
fn choices(candidates: &[Candidate<'_>], totals: &Totals<'_>, chance: &mut Chance) -> Choices {
    let least = totals.cheapest.first().map_or(f64::INFINITY, |index| totals.all[*index]);
    let band = least + (least * BAND_SHARE).max(BAND_SECONDS);
    let within = totals.all.iter().filter(|total| **total <= band).count();
    let drawn = chance.below(within);
    let trial = candidates.iter().position(|candidate| candidate.untried);
    let trial = trial.filter(|_| chance.below(TRIAL_EACH) == 0);
    let best = || {
        let within = totals.all.iter().enumerate().filter(|(_, total)| **total <= band);
        within.map(|(index, _)| index).nth(drawn)
    };
    totals.first_then_cheapest(trial.or_else(best))
}

#[cfg(test)]
mod tests;
