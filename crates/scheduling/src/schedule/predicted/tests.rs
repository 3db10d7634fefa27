use proptest::prelude::*;

use super::*;
use crate::{
    Candidate, InferenceRequest, KvCapacity, Policy, Speed,
    schedule::tests::{Parsed, decide, firsts, parse},
};

/// Who may be chosen. A step takes 30 ms here, a token of prompt 0.1 ms, an answer 100 tokens.
fn check(candidates: &str, chosen: &str) {
    let request = InferenceRequest::default();
    let (firsts, costs) = firsts(Policy::Predicted, &request, candidates).unwrap();
    assert_eq!(firsts, chosen, "{candidates}: {costs:?}");
}

#[test]
fn a_full_kv_cache_is_avoided_and_an_unknown_one_is_not() {
    let free = "b uncached=1000 kv_tokens=1000 capacity=9000";
    check(&format!("a uncached=1000 kv_tokens=9000 capacity=9000 | {free}"), "b");
    check(&format!("a uncached=1000 foreign_kv=9000 capacity=9000 | {free}"), "b");
    check(&format!("a uncached=1000 kv_tokens=9000 | {free}"), "a b");
    check(&format!("a uncached=1000 kv_tokens=90000 capacity=99000 | {free}"), "a b");
}

#[test]
fn uncertain_lengths_make_a_nearly_full_cache_worse() {
    let near = |variance: f64| {
        format!("a capacity=9000 kv_tokens=8500 variance={variance} | b prefill=700")
    };
    check(&near(0.0), "a");
    check(&near(4e6), "b");
}

#[test]
fn prefill_that_is_pending_there_is_waited_for() {
    check("a prefill=5000 | b", "b");
    check("a prefill=5000 | b uncached=9000", "a");
}

#[test]
fn context_there_makes_every_step_longer() {
    check("a context=20000 | b context=1000", "b");
    check("a foreign_kv=20000 | b context=1000", "b");
}

#[test]
fn an_adapter_in_use_is_best_then_an_idle_one_then_room_and_a_full_endpoint_last() {
    let fits = ["active", "resident", "room", "full"];
    for (at, better) in fits.iter().enumerate() {
        for worse in &fits[at + 1..] {
            // A swap alone is less than the band; it shows beside short answers only.
            let swap = if (*better, *worse) == ("resident", "room") { "a b" } else { "a" };
            check(&format!("a fit={better} pressure=0.5 | b fit={worse} pressure=0.5"), swap);
        }
    }
    let parsed = parse("a fit=resident pressure=0.5 | b fit=room pressure=0.5");
    let chance = Chance::new(0, 0);
    let decision =
        decide(Policy::Predicted, &InferenceRequest::default(), &parsed, chance).unwrap();
    let order: Vec<usize> = decision.costs.iter().map(|(index, _)| *index).collect();
    assert_eq!(order, [0, 1]);
    check("a fit=resident pressure=1 | b fit=resident pressure=0.25", "b");
}

#[test]
fn a_prompt_stays_with_its_holder_the_longer_the_more_others_it_would_delay() {
    check("a prefill=3000 cached=9 | b uncached=1000", "b");
    check("a prefill=3000 cached=9 in_flight=10 | b uncached=1000 in_flight=10", "a");
    check("a prefill=3000 cached=9 foreign=10 | b uncached=1000 foreign=10", "a");
    check("a prefill=30000 cached=9 in_flight=10 | b uncached=1000 in_flight=10", "b");
}

#[test]
fn where_the_pool_is_full_a_prompt_in_use_takes_less_room_than_one_that_is_only_cached() {
    let pool = |tokens: u32| {
        let load = format!("in_flight=20 kv_tokens={tokens} capacity=100000");
        format!("a {load} unshared=1 context=20000 | b {load} unshared=6000")
    };
    check(&pool(20_000), "b");
    check(&pool(99_000), "a");
}

#[test]
fn an_endpoint_that_was_not_tried_for_long_is_tried_now_and_then() {
    let parsed = parse("a | b prefill=90000 untried=1 | c");
    let firsts = (0..3_200).map(|seed| {
        let request = InferenceRequest::default();
        decide(Policy::Predicted, &request, &parsed, Chance::new(0, seed)).unwrap().choices[0]
    });
    let trials = firsts.filter(|first| *first == 1).count();
    assert!((60..150).contains(&trials), "{trials} of about 100");
}

#[test]
fn chance_decides_among_those_within_the_band_only() {
    check("a | b prefill=500 | c prefill=5000", "a b");
    check("a prefill=700 | b prefill=500 | c", "b c");
}

#[test]
fn three_endpoints_are_named_and_after_the_first_in_order() {
    let parsed = parse("a prefill=4000 | b prefill=2000 | c | d prefill=300 | e prefill=6000 | f");
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..64 {
        let request = InferenceRequest::default();
        let decision = decide(Policy::Predicted, &request, &parsed, Chance::new(0, seed)).unwrap();
        let names = decision.choices.iter().map(|choice| parsed[*choice].id.as_str());
        seen.insert(names.collect::<String>());
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["cfd", "dcf", "fcd"]);
}

#[test]
fn the_reason_is_what_could_be_reused() {
    for (candidates, expected) in [
        ("a | b", crate::Reason::Load),
        ("a | b cached=1", crate::Reason::Prefix),
        ("a cached=1 | b cached=1", crate::Reason::Load),
        ("a fit=room | b fit=resident", crate::Reason::Adapter),
        ("a fit=room | b fit=full", crate::Reason::Load),
    ] {
        let request = InferenceRequest::default();
        let chance = Chance::new(0, 0);
        let decision = decide(Policy::Predicted, &request, &parse(candidates), chance).unwrap();
        assert_eq!(decision.reason, expected, "{candidates}");
    }
}

#[test]
fn the_expected_excess_is_that_of_a_normal_number() {
    // Of the tables: σ (φ(z) + z Φ(z)) with z = mean / σ. The logistic function is off by a hundredth of σ at most.
    for (mean, deviation, expected) in [
        (0.0, 1.0, 0.3989),
        (1.0, 1.0, 1.0833),
        (-1.0, 1.0, 0.0833),
        (200.0, 100.0, 200.85),
        (-5.0, 0.0, 0.0),
        (5.0, 0.0, 5.0),
        (1e6, 1.0, 1e6),
        (-1e6, 1.0, 0.0),
    ] {
        let excess = expected_excess(mean, deviation);
        let most = 0.02 * f64::max(deviation, 1e-9);
        assert!((excess - expected).abs() < most, "{mean} ± {deviation}: {excess}");
    }
}

proptest! {
    #[test]
    fn nothing_waits_where_an_outline_has_room(
        kv_tokens in 0.0..200_000.0f64,
        deviation in 0.0..20_000.0f64,
        capacity in 1.0..200_000.0f64,
        need in 1.0..50_000.0f64,
    ) {
        let load = Load {
            kv_tokens,
            kv_variance: deviation * deviation,
            kv_capacity: KvCapacity::of(capacity),
            ..Load::default()
        };
        let outline = Outline::of(&load, &Speed::default(), 1);
        if need <= outline.room {
            prop_assert_eq!(kv_wait(need, 3.0, &load).total_cmp(&0.0), std::cmp::Ordering::Equal);
        }
    }

    #[test]
    fn of_many_the_cheapest_are_told_by_the_costs_of_each(
        loads in prop::collection::vec((0u32..40, 0u32..9_000, 0u32..9_000, 0usize..4), 33..70),
        seed: u64,
    ) {
        let fits = ["active", "resident", "room", "full"];
        let line = |(in_flight, prefill, kv, fit): &(u32, u32, u32, usize)| {
            let fit = fits[*fit];
            format!(
                "a in_flight={in_flight} prefill={prefill} kv_tokens={kv} variance=90000 \
                 capacity=9000 context={kv} fit={fit} pressure=0.7 uncached=500"
            )
        };
        let lines: Vec<String> = loads.iter().map(line).collect();
        let parsed = parse(&lines.join(" | "));
        let request = InferenceRequest::default();
        let decision =
            decide(Policy::Predicted, &request, &parsed, Chance::new(0, seed)).unwrap();
        // As each of them is worked out where they are few, with the averages of all.
        let candidates: Vec<Candidate<'_>> = parsed.iter().map(Parsed::candidate).collect();
        let mut pool = PoolLoad::default();
        let costs: Vec<_> = candidates.iter().map(|candidate| {
            let outline = Outline::of(&candidate.load, &candidate.speed, candidate.in_flight);
            pool.add(&outline);
            let wait = |need: f64, hold: f64| kv_wait(need, hold, &candidate.load);
            // Asks for the wait everywhere.
            let outline = Outline { room: 0.0, ..outline };
            cost(&outline, &Ask::of(candidate), wait)
        }).collect();
        let pool = pool.of_each(costs.len());
        let mut totals: Vec<f64> = costs.iter().map(|cost| total(&in_pool(*cost, pool))).collect();
        let of_first = totals[decision.choices[0]];
        totals.sort_unstable_by(f64::total_cmp);
        prop_assert!(of_first <= totals[0] + (totals[0] * BAND_SHARE).max(BAND_SECONDS) + 1e-9);
        prop_assert_eq!(decision.costs.len(), COSTS_MAX);
        for ((_, cost), total) in decision.costs.iter().zip(&totals) {
            prop_assert!((cost.total() - total).abs() < 1e-9, "{} {total}", cost.total());
        }
    }
}
