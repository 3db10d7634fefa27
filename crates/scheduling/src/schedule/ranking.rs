//! From what each candidate costs to the order in which they are tried.
//!
//! A large pool is decided on sums alone; terms by name are made for the few cheapest, to explain the decision.

use std::cmp::Ordering;

use smallvec::SmallVec;

use crate::{CHOICES_MAX, COSTS_MAX, Chance, Choices, Cost, decision::total};

/// Candidates looked at before those that cannot be among the cheapest are dropped.
const KEPT_MAX: usize = 4 * COSTS_MAX;

/// The order, and what stands behind it.
pub(super) struct Ranked {
    pub(super) choices: Choices,
    pub(super) costs: Vec<(usize, Cost)>,
}

/// What each candidate costs in all, and the cheapest of them with their indices, cheapest first, equals in the candidates'
/// order.
pub(super) struct Totals {
    pub(super) all: SmallVec<[f64; 64]>,
    pub(super) cheapest: SmallVec<[(f64, usize); KEPT_MAX]>,
}

/// Ranks `len` candidates by the sum of their terms. `terms` is asked a second time for those that are explained.
pub(super) fn rank<const N: usize>(
    len: usize,
    names: &'static [&'static str; N],
    terms: impl Fn(usize) -> [f64; N],
    choose: impl FnOnce(&Totals) -> Choices,
) -> Ranked {
    let all: SmallVec<[f64; 64]> = (0..len).map(|index| total(&terms(index))).collect();
    let totals = Totals { cheapest: cheapest(&all), all };
    let cost = |(_, index): &(f64, usize)| (*index, Cost::of(names, &terms(*index)));
    let costs = totals.cheapest.iter().map(cost).collect();
    Ranked { choices: choose(&totals), costs }
}

fn cheapest(totals: &[f64]) -> SmallVec<[(f64, usize); KEPT_MAX]> {
    let order = |a: &(f64, usize), b: &(f64, usize)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
    let mut kept: SmallVec<[(f64, usize); KEPT_MAX]> = SmallVec::new();
    let mut worst: Option<f64> = None;
    for (index, &total) in totals.iter().enumerate() {
        // As cheap as the worst of those kept, it comes after them.
        if worst.is_some_and(|worst| total.total_cmp(&worst) != Ordering::Less) {
            continue;
        }
        if kept.len() == KEPT_MAX {
            let (_, last, _) = kept.select_nth_unstable_by(COSTS_MAX - 1, order);
            worst = Some(last.0);
            kept.truncate(COSTS_MAX);
        }
        kept.push((total, index));
    }
    kept.sort_unstable_by(order);
    kept.truncate(COSTS_MAX);
    kept
}

/// The few cheapest, best first; equals in random order.
pub(super) fn dice(chance: &mut Chance) -> impl FnOnce(&Totals) -> Choices {
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

impl Totals {
    /// Somebody, and the cheapest others in order.
    pub(super) fn first_then_cheapest(&self, first: Option<usize>) -> Choices {
        let cheapest = self.cheapest.iter().map(|(_, index)| *index);
        let rest = cheapest.filter(|index| Some(*index) != first);
        first.into_iter().chain(rest).take(CHOICES_MAX).collect()
    }
}

#[cfg(test)]
mod tests;
