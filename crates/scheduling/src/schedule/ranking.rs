//! From what each candidate costs to the order in which they are tried.
//!
//! A large pool is decided on sums alone; terms by name are made for the few cheapest, to explain the decision.

use std::cmp::Ordering;

use smallvec::SmallVec;

use crate::{CHOICES_MAX, COSTS_MAX, Chance, Choices, Cost, decision::total};

/// Candidates kept before those that cannot be among the cheapest are dropped.
const KEPT_MAX: usize = 2 * COSTS_MAX;

/// The order, and what stands behind it.
pub(super) struct Ranked {
    pub(super) choices: Choices,
    pub(super) costs: Vec<(usize, Cost)>,
}

/// What each candidate costs in all, and the indices of the cheapest, cheapest first, equals in the candidates' order.
pub(super) struct Totals<'a> {
    pub(super) all: &'a [f64],
    pub(super) cheapest: &'a [usize],
}

/// Ranks `len` candidates by the sum of their terms.
pub(super) fn rank<const N: usize>(
    len: usize,
    names: &'static [&'static str; N],
    terms: impl Fn(usize) -> [f64; N],
    choose: impl FnOnce(&Totals<'_>) -> Choices,
) -> Ranked {
    let totals = (0..len).map(|index| total(&terms(index)));
    explain(totals, names, &terms, choose)
}

/// Ranks candidates by these sums of their terms; which terms these are is asked of the few that are told of.
pub(super) fn explain<const N: usize>(
    totals: impl Iterator<Item = f64>,
    names: &'static [&'static str; N],
    terms: impl Fn(usize) -> [f64; N],
    choose: impl FnOnce(&Totals<'_>) -> Choices,
) -> Ranked {
    let all: SmallVec<[f64; 2 * COSTS_MAX]> = totals.collect();
    let mut told = cheapest(&all);
    let choices = choose(&Totals { all: &all, cheapest: &told });
    // Whoever is chosen is explained. One of many equals, or one on trial, takes the place of the dearest.
    let untold = choices.first().filter(|chosen| !told.contains(chosen));
    if let (Some(chosen), Some(dearest)) = (untold, told.last_mut()) {
        *dearest = *chosen;
    }
    let cost = |index: &usize| (*index, Cost::of(names, &terms(*index)));
    let costs = told.iter().map(cost).collect();
    Ranked { choices, costs }
}

fn cheapest(totals: &[f64]) -> SmallVec<[usize; COSTS_MAX]> {
    let mut kept: SmallVec<[u128; KEPT_MAX]> = SmallVec::new();
    // As cheap as the worst of those kept, it comes after them.
    let mut below = u64::MAX;
    for (index, &total) in totals.iter().enumerate() {
        let key = sortable(total);
        if key >= below {
            continue;
        }
        kept.push((u128::from(key) << 64) | index as u128);
        if kept.len() == KEPT_MAX {
            let (_, worst, _) = kept.select_nth_unstable(COSTS_MAX - 1);
            below = u64::try_from(*worst >> 64).unwrap_or(u64::MAX);
            kept.truncate(COSTS_MAX);
        }
    }
    if kept.len() > COSTS_MAX {
        kept.select_nth_unstable(COSTS_MAX - 1);
        kept.truncate(COSTS_MAX);
    }
    kept.sort_unstable();
    let index = |kept: &u128| usize::try_from(kept & u128::from(u64::MAX)).unwrap_or(0);
    kept.iter().map(index).collect()
}

/// A number that orders as `f64::total_cmp` does.
fn sortable(value: f64) -> u64 {
    let bits = value.to_bits();
    if bits >> 63 == 0 { bits | 1 << 63 } else { !bits }
}

/// The few cheapest, best first; equals in random order.
pub(super) fn dice(chance: &mut Chance) -> impl FnOnce(&Totals<'_>) -> Choices {
    |totals| {
        let mut best: SmallVec<[(f64, u64, usize); CHOICES_MAX]> = SmallVec::new();
        for (index, &total) in totals.all.iter().enumerate() {
            let entry = (total, chance.next(), index);
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
}

impl Totals<'_> {
    /// Those that cost no more than this, in the candidates' order.
    pub(super) fn up_to(&self, most: f64) -> SmallVec<[usize; COSTS_MAX]> {
        let within = |index: &usize| self.all[*index] <= most;
        if self.cheapest.last().is_some_and(within) {
            return (0..self.all.len()).filter(within).collect();
        }
        let mut few: SmallVec<[usize; COSTS_MAX]> =
            self.cheapest.iter().copied().take_while(within).collect();
        few.sort_unstable();
        few
    }

    /// Somebody, and the cheapest others in order.
    pub(super) fn first_then_cheapest(&self, first: Option<usize>) -> Choices {
        let rest = self.cheapest.iter().copied().filter(|index| Some(*index) != first);
        first.into_iter().chain(rest).take(CHOICES_MAX).collect()
    }
}

#[cfg(test)]
mod tests;
