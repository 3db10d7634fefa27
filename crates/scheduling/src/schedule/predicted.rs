//! `predicted`: the seconds until a request would have its last token, and what its prompt and its KV room cost the others,
//! summed without weights.

use smallvec::SmallVec;

use super::ranking::{self, Ranked, Totals};
use crate::{
    AdapterFit, COSTS_MAX, Candidate, Candidates, Chance, Choices, Load,
    decision::total,
    outline::{Ask, Outline},
};

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
    if candidates.len() <= COSTS_MAX {
        rank_few(candidates, chance)
    } else {
        rank_many(candidates, chance)
    }
}

/// Of few, all costs are told, so that they are worked out once.
fn rank_few(candidates: &(impl Candidates + ?Sized), chance: &mut Chance) -> Ranked {
    let mut pool = PoolLoad::default();
    let mut trial = None;
    let mut costs: SmallVec<[[f64; TERMS.len()]; COSTS_MAX]> = SmallVec::new();
    for (index, candidate) in candidates.all().enumerate() {
        let outline = Outline::of(&candidate.load, &candidate.speed, candidate.in_flight);
        pool.add(&outline);
        costs.push(cost(&outline, &Ask::of(&candidate), |need, decode| {
            kv_wait(need, decode, &candidate.load)
        }));
        if candidate.untried && trial.is_none() {
            trial = Some(index);
        }
    }
    let pool = pool.of_each(costs.len());
    let terms = |index: usize| in_pool(costs[index], pool);
    ranking::rank(costs.len(), &TERMS, terms, |totals| choices(trial, totals, chance))
}

/// Of many, outlines and sums are enough; costs are worked out of the few that are told of.
fn rank_many(candidates: &(impl Candidates + ?Sized), chance: &mut Chance) -> Ranked {
    let mut pool = PoolLoad::default();
    let mut trial = None;
    let mut sums: Vec<[f64; 3]> = Vec::with_capacity(candidates.len());
    let cost_of = |index: usize, outline: &Outline, ask: &Ask| {
        cost(outline, ask, |need, decode| kv_wait_of(candidates, index, need, decode))
    };
    sums.extend((0..candidates.len()).map(|index| {
        let (outline, ask) = candidates.outline(index);
        pool.add(&outline);
        if outline.idle && trial.is_none() && candidates.get(index).untried {
            trial = Some(index);
        }
        let [own @ .., crowding, stall] = cost_of(index, &outline, &ask);
        [total(&own), crowding, stall]
    }));
    let pool = pool.of_each(sums.len());
    let totals = sums.iter().map(|[own, crowding, stall]| {
        let [in_flight, crowded] = pool;
        own + crowding * crowded + stall * in_flight
    });
    let terms = |index: usize| {
        let (outline, ask) = candidates.outline(index);
        in_pool(cost_of(index, &outline, &ask), pool)
    };
    ranking::explain(totals, &TERMS, terms, |totals| choices(trial, totals, chance))
}

/// What choosing it costs; of the last two terms, for each request that is in flight on the pool's endpoints. `kv_wait`
/// tells how long so many KV tokens are waited for, with requests that take so long.
#[inline]
fn cost(outline: &Outline, ask: &Ask, kv_wait: impl FnOnce(f64, f64) -> f64) -> [f64; TERMS.len()] {
    let need = ask.need_tokens;
    let decode = ask.output_tokens * outline.step_seconds;
    let prefill = ask.uncached_tokens * outline.prefill_token_seconds;
    [
        if need <= outline.room { 0.0 } else { kv_wait(need, decode) },
        outline.ahead_seconds,
        prefill,
        adapter_seconds(ask, decode),
        // Its own answer, a step a token.
        decode,
        // KV room that it takes and others have to wait for: the likelier, the fuller both this endpoint and the pool are.
        need * decode * outline.crowding,
        // While a prompt is computed, nobody else on the machine gets a token.
        prefill,
    ]
}

/// The same, with these numbers of requests.
fn in_pool(
    [kv_wait, ahead, prefill, adapter, decode, crowding, stall]: [f64; TERMS.len()],
    [in_flight, crowded]: [f64; 2],
) -> [f64; TERMS.len()] {
    [kv_wait, ahead, prefill, adapter, decode, crowding * crowded, stall * in_flight]
}

/// Seconds until a candidate would have room for the request and a slot for its adapter.
pub(crate) fn wait_seconds(candidate: &Candidate<'_>) -> f64 {
    let outline = Outline::of(&candidate.load, &candidate.speed, candidate.in_flight);
    let kv_wait = |need, decode| kv_wait(need, decode, &candidate.load);
    let [kv_wait, _, _, adapter, ..] = cost(&outline, &Ask::of(candidate), kv_wait);
    kv_wait + adapter
}

/// What its adapter costs, where an answer takes so many seconds.
#[inline]
fn adapter_seconds(ask: &Ask, decode: f64) -> f64 {
    // How often it has to be brought in, takes a slot, and waits itself, while requests of the adapters in the slots go on
    // passing it. By a table, since a branch would go another way on every endpoint.
    let [swaps, slots, waits] = match ask.adapter {
        AdapterFit::Base | AdapterFit::Active => [0.0, 0.0, 0.0],
        AdapterFit::Resident => [0.0, 1.0, 0.0],
        AdapterFit::Room => [1.0, 1.0, 0.0],
        AdapterFit::Full => [1.0, 0.0, 1.0],
    };
    // A slot that this request takes is one that the next adapter has to wait for: on average until half of a request's
    // time is over, and the likelier, the fewer are left.
    let slot = ask.adapter_pressure.powi(2) * decode / 2.0;
    swaps * ADAPTER_SWAP_SECONDS + slots * slot + waits * (ask.adapter_pressure * decode)
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
    fn add(&mut self, outline: &Outline) {
        self.in_flight += outline.in_flight;
        self.taken += outline.taken;
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
fn kv_wait(need: f64, hold: f64, load: &Load) -> f64 {
    let taken = load.kv_tokens + load.foreign_kv_tokens;
    let capacity = load.kv_capacity.tokens();
    let missing = expected_excess(taken + need - capacity, load.kv_variance);
    if missing <= 0.0 {
        return 0.0;
    }
    missing * hold.max(1e-3) / taken.min(capacity).max(need)
}

/// The same of a candidate. Most have room enough, which their outlines tell.
#[cold]
fn kv_wait_of(candidates: &(impl Candidates + ?Sized), index: usize, need: f64, hold: f64) -> f64 {
    kv_wait(need, hold, &candidates.get(index).load)
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
    let within = totals.up_to(band);
    let drawn = chance.below(within.len());
    let trial = trial.filter(|_| chance.below(TRIAL_EACH) == 0);
    let best = || within.get(drawn).copied();
    totals.first_then_cheapest(trial.or_else(best))
}

#[cfg(test)]
mod tests;
