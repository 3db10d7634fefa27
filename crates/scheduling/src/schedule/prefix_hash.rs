//! `prefix-hash`: consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2016), as KubeAI routes: the first
//! endpoint on the ring, from the hash of the prompt's first hundred characters on, whose load with this request would not
//! exceed 1.25 times the mean.

use crate::{Candidate, Cost, Reason};

/// KubeAI's `meanLoadPercentage` of 125.
const LOAD_FACTOR: f64 = 1.25;

pub(super) fn costs(candidates: &[Candidate<'_>]) -> (Vec<Cost>, Reason) {
    let endpoints = f64::from(u32::try_from(candidates.len()).unwrap_or(u32::MAX));
    let total: f64 = candidates.iter().map(|c| f64::from(c.in_flight)).sum();
    let bound = ((total + 1.0) / endpoints * LOAD_FACTOR).ceil();
    let costs = candidates.iter().map(|candidate| {
        let over = f64::from(candidate.in_flight) + 1.0 > bound;
        Cost::of([
            ("ring", f64::from(candidate.ring_rank)),
            ("over_bound", if over { endpoints } else { 0.0 }),
        ])
    });
    (costs.collect(), Reason::Prefix)
}

#[cfg(test)]
mod tests;
