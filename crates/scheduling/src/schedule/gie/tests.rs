use crate::{InferenceRequest, Policy, schedule::tests::firsts};

/// Costs of a request with four blocks, and who is chosen.
fn check(candidates: &str, expected: &[f64], chosen: &str) {
    let request = InferenceRequest { blocks: &[1, 2, 3, 4], ..InferenceRequest::default() };
    let (firsts, costs) = firsts(Policy::GieDefault, &request, candidates).unwrap();
    assert_eq!(firsts, chosen, "{candidates}");
    for (cost, expected) in costs.iter().zip(expected) {
        assert!((cost - expected).abs() < 1e-9, "{candidates}: {costs:?}");
    }
    assert_eq!(costs.len(), expected.len());
}

#[test]
fn queue_counts_two_kv_two_and_prefix_three() {
    check("a waiting=0 kv=0.25 cached=2 | b waiting=4 kv=0.5", &[2.0, 6.0], "a");
    check("a waiting=1 kv=0.5 | b waiting=3 kv=0.5 | c waiting=5 kv=0", &[4.0, 5.0, 5.0], "a");
    check("a waiting=2 kv=0 | b waiting=2 kv=0", &[3.0, 3.0], "a b");
}

#[test]
fn a_whole_prefix_outweighs_the_longest_queue_and_half_of_one_does_not() {
    check("a waiting=90 cached=4 | b waiting=0", &[2.0, 3.0], "a");
    check("a waiting=90 cached=2 | b waiting=0", &[3.5, 3.0], "b");
    check("a waiting=90 cached=3 | b waiting=0", &[2.75, 3.0], "a");
    check("a waiting=0 kv=1 cached=4 | b waiting=0 kv=0", &[2.0, 3.0], "a");
}

#[test]
fn queues_are_scaled_by_their_span_and_not_by_their_length() {
    check("a waiting=100 | b waiting=101", &[3.0, 5.0], "a");
    check("a waiting=0 | b waiting=1", &[3.0, 5.0], "a");
}

#[test]
fn what_nobody_has_told_costs_nothing() {
    check("a | b cached=1", &[3.0, 2.25], "b");
    check("a age=60 waiting=9 kv=1 | b", &[3.0, 3.0], "a b");
}
