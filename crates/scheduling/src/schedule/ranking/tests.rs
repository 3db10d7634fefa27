use proptest::prelude::*;

use super::*;

fn ranked(totals: &[f64], first: usize) -> Ranked {
    let terms = |index: usize| [totals[index] / 2.0, totals[index] / 2.0];
    rank(totals.len(), &["one", "other"], terms, |totals| totals.first_then_cheapest(Some(first)))
}

/// Few values, so that many are equal.
fn totals() -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec((0u32..40).prop_map(f64::from), 1..400)
}

proptest! {
    #[test]
    fn the_cheapest_and_the_chosen_are_explained_in_order_and_their_terms_add_up(
        totals in totals(),
        first: usize,
    ) {
        let first = first % totals.len();
        let mut sorted: Vec<(usize, f64)> = totals.iter().copied().enumerate().collect();
        sorted.sort_by(|a, b| a.1.total_cmp(&b.1));
        sorted.truncate(COSTS_MAX);
        if sorted.iter().all(|(index, _)| *index != first) {
            sorted[COSTS_MAX - 1] = (first, totals[first]);
        }
        let costs = ranked(&totals, first).costs;
        let explained: Vec<(usize, f64)> =
            costs.iter().map(|(index, cost)| (*index, cost.total())).collect();
        prop_assert_eq!(explained, sorted);
    }

    #[test]
    fn the_first_is_followed_by_the_cheapest_others(totals in totals(), first: usize) {
        let first = first % totals.len();
        let choices = ranked(&totals, first).choices;
        let mut rest: Vec<usize> = (0..totals.len()).filter(|at| *at != first).collect();
        rest.sort_by(|a, b| totals[*a].total_cmp(&totals[*b]));
        rest.truncate(CHOICES_MAX - 1);
        prop_assert_eq!((choices[0], &choices[1..]), (first, rest.as_slice()));
    }

    #[test]
    fn dice_decide_among_equals_only(totals in totals(), seed: u64) {
        let mut chance = Chance::new(0, seed);
        let ranked = rank(totals.len(), &["one"], |index| [totals[index]], dice(&mut chance));
        let mut sorted = totals.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.truncate(CHOICES_MAX);
        let chosen: Vec<f64> = ranked.choices.iter().map(|index| totals[*index]).collect();
        prop_assert_eq!(chosen, sorted);
    }
}
