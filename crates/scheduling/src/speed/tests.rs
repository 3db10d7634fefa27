use super::*;

/// Steps of `base + token · context` seconds at these contexts in turn, one every [`GAP_EVERY`].
fn steps(estimate: &mut SpeedEstimate, from: u64, base: f64, token: f64, contexts: [f64; 2]) {
    for (at, context) in (from..).zip(contexts.repeat(60)) {
        let took = Duration::from_secs_f64(base + token * context);
        let now = GAP_EVERY * u32::try_from(at).unwrap();
        estimate.gap(now, Gap { took, tokens: 1.0, context, clear: true });
    }
}

fn stepping(base: f64, token: f64, contexts: [f64; 2]) -> SpeedEstimate {
    let mut estimate = SpeedEstimate::default();
    steps(&mut estimate, 0, base, token, contexts);
    estimate
}

/// Prompts whose tokens take these seconds each, in turn.
fn computing(tokens_seconds: &[f64]) -> SpeedEstimate {
    let mut estimate = SpeedEstimate::default();
    for seconds in tokens_seconds {
        estimate.first_token(Duration::from_secs_f64(seconds * 1_000.0), 1_000.0, false);
    }
    estimate
}

/// What is known of the first of a pool.
fn known(pool: &[SpeedEstimate]) -> Speed {
    PoolSpeed::of(pool.iter()).speed(&pool[0])
}

fn check(value: f64, expected: f64) {
    assert!((value / expected - 1.0).abs() < 0.05, "{value} is not {expected}");
}

#[test]
fn what_a_token_of_context_costs_is_told_from_loads_that_differ() {
    let speed = known(&[stepping(0.02, 1e-6, [5_000.0, 50_000.0])]);
    check(speed.step_seconds, 0.02);
    check(speed.context_token_seconds, 1e-6);
}

#[test]
fn at_one_load_the_whole_step_is_right_all_the_same() {
    let speed = known(&[stepping(0.02, 1e-6, [30_000.0, 30_000.0])]);
    check(speed.step_seconds + speed.context_token_seconds * 30_000.0, 0.05);
}

#[test]
fn a_faster_machine_that_gets_more_does_not_turn_the_slope() {
    let fast = stepping(0.008, 4e-7, [30_000.0, 40_000.0]);
    let slow = stepping(0.028, 1.2e-6, [6_000.0, 9_000.0]);
    let of_fast = known(&[fast, slow]);
    check(of_fast.step_seconds + of_fast.context_token_seconds * 35_000.0, 0.022);
    assert!(of_fast.context_token_seconds > 1e-7, "{of_fast:?}");
    let of_slow = known(&[slow, fast]);
    check(of_slow.step_seconds + of_slow.context_token_seconds * 7_500.0, 0.037);
}

#[test]
fn what_is_unknown_is_like_the_others_or_a_guess() {
    let nothing = known(&[SpeedEstimate::default()]);
    check(nothing.prefill_token_seconds, PREFILL_TOKEN_SECONDS);
    check(nothing.step_seconds + nothing.context_token_seconds, STEP_SECONDS);
    let other = computing(&[1e-4; 20]);
    let like = known(&[SpeedEstimate::default(), other]);
    check(like.prefill_token_seconds, 1e-4);
    check(like.step_seconds + like.context_token_seconds, STEP_SECONDS);
}

#[test]
fn noise_is_drawn_to_the_mean_and_a_true_difference_is_kept() {
    let noisy = |first: f64| computing(&[first, 2e-4, 0.5e-4, 1.5e-4, 1e-4, 0.6e-4]);
    let alike = known(&[noisy(2.2e-4), noisy(0.5e-4), noisy(1e-4), noisy(1e-4)]);
    let own = noisy(2.2e-4).prefill().unwrap();
    let mean = alike.prefill_token_seconds;
    assert!((mean - 1.1e-4).abs() < (own - 1.1e-4).abs() / 2.0, "{mean} stays by {own}");
    let apart = known(&[computing(&[4e-4; 20]), computing(&[1e-4; 20]), computing(&[1e-4; 20])]);
    check(apart.prefill_token_seconds, 4e-4);
}

#[test]
fn prompts_computed_together_share_their_time() {
    let mut estimate = SpeedEstimate::default();
    for _ in 0..20 {
        estimate.first_token(Duration::from_millis(300), 1_000.0, false);
        estimate.first_token(Duration::ZERO, 1_000.0, false);
    }
    check(estimate.prefill().unwrap(), 1.5e-4);
}

#[test]
fn a_short_prompt_and_one_that_waited_for_room_are_no_measure() {
    let mut estimate = SpeedEstimate::default();
    estimate.first_token(Duration::from_millis(100), PROMPT_TOKENS_MIN - 1.0, false);
    assert_eq!(estimate.prefill(), None);
    let mut estimate = computing(&[1e-4; 10]);
    estimate.first_token(Duration::from_secs(30), 1_000.0, false);
    check(estimate.prefill().unwrap(), 1e-4);
}

#[test]
fn who_came_first_waited_for_the_step_under_way() {
    let mut estimate = stepping(0.04, 0.0, [1.0, 1.0]);
    estimate.first_token(Duration::from_millis(120), 1_000.0, true);
    check(estimate.prefill().unwrap(), 1e-4);
}

#[test]
fn gaps_in_which_a_prompt_was_computed_are_left_out() {
    let mut estimate = stepping(0.02, 0.0, [1.0, 1.0]);
    let gap = |took, clear| Gap { took, tokens: 1.0, context: 1.0, clear };
    for at in 1_000..1_100 {
        estimate.gap(GAP_EVERY * at, gap(Duration::from_millis(60), false));
    }
    let speed = known(&[estimate]);
    check(speed.step_seconds + speed.context_token_seconds, 0.02);
}

#[test]
fn old_samples_count_for_little_once_new_ones_come() {
    let mut estimate = stepping(0.08, 0.0, [1.0, 1.0]);
    let later = 120 + u64::try_from(FRESH.as_millis() / GAP_EVERY.as_millis()).unwrap() + 1;
    assert!(SpeedEstimate::default().is_stale(Duration::ZERO), "nothing was heard at all");
    assert!(!estimate.is_stale(GAP_EVERY * 120));
    assert!(estimate.is_stale(GAP_EVERY * u32::try_from(later).unwrap()));
    steps(&mut estimate, later, 0.02, 0.0, [1.0, 1.0]);
    let step = estimate.t.or(0.0);
    assert!(step < 0.022, "{step}");
}

#[test]
fn chunks_that_come_at_once_leave_numbers_that_can_be_compared() {
    let mut estimate = SpeedEstimate::default();
    let gap = Gap { took: Duration::ZERO, tokens: 1.0, context: 1000.0, clear: true };
    assert!(estimate.gap(Duration::from_secs(1), gap));
    let speed = PoolSpeed::of(std::iter::once(&estimate)).speed(&estimate);
    assert!(speed.step_seconds.is_finite() && speed.context_token_seconds.is_finite(), "{speed:?}");
}
