//! Quantiles of what came between two readings.

use super::*;

/// So many times to first token in each bucket of these upper bounds in seconds; 0 is beyond all bounds.
fn reading(counts: &[(f64, u64)]) -> Buckets {
    let mut ttft = vec![0; Tally::TTFT_SECONDS.len() + 1];
    for (bound, count) in counts {
        let at = Tally::TTFT_SECONDS.iter().position(|one| (one - bound).abs() < 1e-9);
        ttft[at.unwrap_or(Tally::TTFT_SECONDS.len())] = *count;
    }
    let mut buckets = Buckets::default();
    buckets.add(&RequestTally {
        pool: "pool".into(),
        model: "model".into(),
        requests: 0,
        ttft,
        tpot: vec![0; Tally::TPOT_SECONDS.len() + 1],
    });
    buckets
}

#[track_caller]
fn check(before: &[(f64, u64)], now: &[(f64, u64)], expected: Option<[f32; 3]>) {
    let [ttft, tpot] = reading(now).since(&reading(before));
    assert_eq!(tpot, None, "no time per token was counted");
    match (ttft, expected) {
        (Some(found), Some(expected)) => {
            let near = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4);
            assert!(near, "{found:?} for {expected:?}");
        }
        (found, expected) => assert_eq!(found, expected),
    }
}

#[test]
fn nothing_new_has_no_quantiles() {
    check(&[], &[], None);
    check(&[(0.25, 7)], &[(0.25, 7)], None);
}

#[test]
fn a_quantile_lies_within_its_bucket() {
    // Between 0.1 s and 0.25 s.
    check(&[], &[(0.25, 100)], Some([0.175, 0.235, 0.2485]));
}

#[test]
fn only_what_came_in_between_counts() {
    check(&[(0.25, 100)], &[(0.25, 100), (1.0, 10)], Some([0.875, 0.975, 0.9975]));
}

#[test]
fn quantiles_go_over_the_buckets() {
    // Ninety below 0.001 s, ten between 5 s and 7.5 s.
    check(&[], &[(0.001, 90), (7.5, 10)], Some([0.000_555_6, 0.001, 7.25]));
}

#[test]
fn beyond_the_last_bound_the_bound_is_told() {
    check(&[], &[(0.0, 5)], Some([640.0; 3]));
}

#[test]
fn counts_may_wrap() {
    let almost = u64::from(u32::MAX);
    check(&[(0.25, almost)], &[(0.25, almost + 100)], Some([0.175, 0.235, 0.2485]));
}

#[test]
fn the_oldest_goes_when_the_maximum_is_reached() {
    let mut latest = Latest::new(3);
    assert_eq!(latest.back(0), None);
    (1..=5).for_each(|value| latest.push(value));
    assert_eq!(latest.iter().copied().collect::<Vec<_>>(), [3, 4, 5]);
    assert_eq!((latest.back(0), latest.back(2), latest.back(9)), (Some(&5), Some(&3), Some(&3)));
}
