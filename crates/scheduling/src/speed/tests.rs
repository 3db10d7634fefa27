use super::*;

const LIKE: Speed = Speed {
    prefill_token_seconds: 9.0,
    step_seconds: 9.0,
    context_token_seconds: 9.0,
    output_tokens: 0.0,
};

/// Feeds steps of `base + token · context`, and says what is learned of them.
fn learned(base: f64, token: f64, contexts: [f64; 2]) -> Speed {
    let mut estimate = SpeedEstimate::default();
    for context in contexts.repeat(40).into_iter().flat_map(|context| [context; 8]) {
        estimate.gap(Duration::from_secs_f64(base + token * context), 1.0, context);
    }
    estimate.now(&LIKE)
}

fn check(value: f64, expected: f64) {
    assert!((value / expected - 1.0).abs() < 0.05, "{value} is not {expected}");
}

#[test]
fn what_a_token_of_context_costs_is_told_from_loads_that_differ() {
    let speed = learned(0.02, 1e-6, [5_000.0, 50_000.0]);
    check(speed.step_seconds, 0.02);
    check(speed.context_token_seconds, 1e-6);
}

#[test]
fn at_one_load_the_whole_step_is_right_all_the_same() {
    let speed = learned(0.02, 1e-6, [30_000.0, 30_000.0]);
    check(speed.step_seconds + speed.context_token_seconds * 30_000.0, 0.05);
}

#[test]
fn what_is_unknown_is_like_the_others() {
    assert_eq!(SpeedEstimate::default().now(&LIKE), LIKE);
    let mut known = SpeedEstimate::default();
    known.first_token(Duration::from_millis(100), 1_000.0, 0.0);
    let like = SpeedEstimate::mean([known, SpeedEstimate::default()].iter());
    check(like.prefill_token_seconds, 1e-4);
    check(like.step_seconds, STEP_SECONDS);
}

#[test]
fn only_a_long_prompt_that_found_nobody_waiting_shows_the_speed_of_prefill() {
    for (took, own, ahead, learns) in [
        (100, 1_000.0, 0.0, true),
        (100, 1_000.0, 499.0, true),
        (100, 1_000.0, 600.0, false),
        (100, 100.0, 0.0, false),
    ] {
        let mut estimate = SpeedEstimate::default();
        estimate.first_token(Duration::from_millis(took), own, ahead);
        assert_eq!(estimate.prefill.get().is_some(), learns, "{own} behind {ahead}");
    }
}

#[test]
fn one_that_waited_for_room_is_no_measure() {
    let mut estimate = SpeedEstimate::default();
    for _ in 0..10 {
        estimate.first_token(Duration::from_millis(100), 1_000.0, 0.0);
    }
    estimate.first_token(Duration::from_secs(30), 1_000.0, 0.0);
    check(estimate.now(&LIKE).prefill_token_seconds, 1e-4);
}
