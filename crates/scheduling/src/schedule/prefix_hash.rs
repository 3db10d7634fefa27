//! `prefix-hash`: consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2016), as KubeAI routes: the first
//! endpoint on the ring, from the hash of the prompt's first hundred characters on, whose load with this request would not
//! exceed 1.25 times the mean.

use super::{Ranked, dice, rank as ranked};
use crate::{Candidate, Chance};

/// KubeAI's `meanLoadPercentage` of 125.
const LOAD_FACTOR: f64 = 1.25;

pub(super) fn rank(candidates: &[Candidate<'_>], chance: &mut Chance) -> Ranked {
    let endpoints = f64::from(u32::try_from(candidates.len()).unwrap_or(u32::MAX));
    let total: f64 = candidates.iter().map(|c| f64::from(c.in_flight)).sum();
    let bound = ((total + 1.0) / endpoints * LOAD_FACTOR).ceil();
    let terms = |index: usize| {
        let candidate = &candidates[index];
        let over = f64::from(candidate.in_flight) + 1.0 > bound;
        [f64::from(candidate.ring_rank), if over { endpoints } else { 0.0 }]
    };
    ranked(candidates.len(), &["ring", "over_bound"], terms, dice(chance))
}

#[cfg(test)]
mod tests;
