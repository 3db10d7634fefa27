use super::*;

/// A step takes 40 ms, a prompt of a thousand tokens 200.
const PACE: Pace = Pace { step: 0.04, prefill_token: 2e-4, pending: 0.0, mean_prompt: 1_000.0 };
const TOLD: Foreign = Foreign { held_tokens: 5_000.0, kv_tokens: 6_000.0, requests: 4.0 };
const NOBODY: Foreign = Foreign { held_tokens: 0.0, kv_tokens: 0.0, requests: 0.0 };
const POOL: Foreign = Foreign { held_tokens: 1_000.0, kv_tokens: 2_000.0, requests: 2.0 };

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Of an endpoint that answers with a hundred tokens, which take 4 s, and has nothing of ours.
fn page(at: Duration, felt: f64, told: &Foreign) -> Page {
    Page { at, felt, output_tokens: 100.0, beyond: told.requests, own: 0.0 }
}

/// An endpoint that has just told of others, with a stream of ours.
fn watched() -> Others {
    watched_where_pages_tell(TOLD)
}

fn watched_where_pages_tell(told: Foreign) -> Others {
    let mut others = Others::default();
    others.tell(told, &page(ms(0), 0.0, &told), &PACE);
    others.counted();
    others.token(ms(0), true, &PACE, ms(40));
    others
}

/// Prompt tokens that are felt to have come since the page.
fn felt(others: &Others, pace: &Pace, now: Duration) -> f64 {
    let (left, told) = others.told(now.as_secs_f64());
    at(others, pace, now, &NOBODY).held_tokens / left - told.held_tokens
}

fn at(others: &Others, pace: &Pace, now: Duration, pool: &Foreign) -> Foreign {
    others.now(now.as_secs_f64(), pace.step, || *pace, pool)
}

fn check(actual: f64, expected: f64) {
    assert!((actual - expected).abs() < 1e-6, "{actual}, expected {expected}");
}

#[test]
fn a_late_token_tells_of_a_prompt_of_others() {
    let mut others = watched();
    others.token(ms(40), false, &PACE, ms(80));
    check(felt(&others, &PACE, ms(80)), 0.0);
    others.token(ms(80), false, &PACE, ms(320));
    check(felt(&others, &PACE, ms(320)), 1_000.0);
    // Another stream gets its token of the same step, which it says nothing new of.
    others.token(ms(80), false, &PACE, ms(320));
    check(felt(&others, &PACE, ms(320)), 1_000.0);
    // A step that is a little longer may be anything.
    others.token(ms(320), false, &PACE, ms(375));
    check(felt(&others, &PACE, ms(375)), 1_000.0);
    let now = at(&others, &PACE, ms(375), &NOBODY);
    let left = 1.0 - 0.375 / 4.0;
    check(now.requests, 5.0 * left);
    check(now.kv_tokens, 7_100.0 * left);
}

#[test]
fn a_prompt_of_ours_is_not_taken_for_one_of_others() {
    let pace = Pace { pending: 1_000.0, ..PACE };
    let mut others = watched();
    others.token(ms(40), false, &pace, ms(280));
    others.token(ms(40), true, &pace, ms(280));
    others.settled(1_000.0);
    check(felt(&others, &PACE, ms(280)), 0.0);
    // Both were computed, ours and as much of others'.
    others.token(ms(280), false, &pace, ms(720));
    others.token(ms(280), true, &pace, ms(720));
    others.settled(1_000.0);
    check(felt(&others, &PACE, ms(720)), 1_000.0);
}

#[test]
fn a_first_token_that_waited_for_room_tells_of_no_prompt() {
    let pace = Pace { pending: 1_000.0, ..PACE };
    let mut others = Others::default();
    others.tell(TOLD, &page(ms(3_000), 0.0, &TOLD), &PACE);
    others.counted();
    others.token(ms(3_000), true, &pace, ms(4_000));
    check(felt(&others, &PACE, ms(4_000)), 0.0);
}

#[test]
fn who_is_alone_takes_no_stall_for_a_prompt() {
    let mut others = watched_where_pages_tell(NOBODY);
    check(felt(&others, &PACE, ms(440)), 0.0);
    others.token(ms(40), false, &PACE, ms(1_540));
    check(felt(&others, &PACE, ms(1_540)), 0.0);
    assert_eq!(others.requests().to_bits(), 0);
}

#[test]
fn no_more_is_felt_than_others_can_have_sent() {
    let mut others = watched();
    // Of four answers that take 4 s each one ends in a second, so one comes.
    others.token(ms(40), false, &PACE, ms(1_040));
    let one_in = |seconds: f64| 1_000.0 * (seconds + 4.0 * seconds.sqrt());
    let lag = PAGE_LAG_SECONDS;
    check(felt(&others, &PACE, ms(1_040)), 4_800.0);
    others.token(ms(1_040), false, &PACE, ms(1_960));
    check(felt(&others, &PACE, ms(1_960)), one_in(1.96 + lag));
    // A silence counts within the same limit.
    check(felt(&others, &PACE, ms(2_560)), one_in(2.56 + lag));
    // What is no prompt any more is not even kept for later.
    let mut hung = watched();
    hung.token(ms(40), false, &PACE, ms(2_540));
    check(felt(&hung, &PACE, ms(2_540)), 0.0);
}

#[test]
fn a_page_that_tells_of_nobody_for_once_does_not_deafen() {
    let mut others = watched();
    others.tell(NOBODY, &page(ms(1_000), 0.0, &NOBODY), &PACE);
    others.counted();
    others.token(ms(1_000), false, &PACE, ms(1_240));
    check(felt(&others, &PACE, ms(1_240)), 1_000.0);
    // After many it is true.
    for at in 1_001..=1_060 {
        others.tell(NOBODY, &page(ms(at), others.felt(), &NOBODY), &PACE);
        others.counted();
    }
    others.token(ms(1_240), false, &PACE, ms(1_640));
    assert!(felt(&others, &PACE, ms(1_640)) < 200.0);
}

#[test]
fn a_page_has_what_was_felt_before_it_was_asked_for() {
    let mut others = watched();
    others.token(ms(40), false, &PACE, ms(280));
    let mark = others.felt();
    others.token(ms(280), false, &PACE, ms(420));
    others.tell(TOLD, &page(ms(300), mark, &TOLD), &PACE);
    check(felt(&others, &PACE, ms(420)), 500.0);
}

#[test]
fn a_silence_is_a_prompt_that_is_being_computed() {
    let others = watched();
    for (after, pending, expected) in [
        (40, 0.0, 0.0),
        (80, 0.0, 0.0),
        // At least the usual, or what it has taken already.
        (100, 0.0, 1_000.0),
        (400, 0.0, 1_800.0),
        // Ours explains it, but not all of it.
        (200, 1_000.0, 0.0),
        (600, 1_000.0, 1_800.0),
        // This is no prompt any more.
        (2_500, 0.0, 0.0),
    ] {
        check(felt(&others, &Pace { pending, ..PACE }, ms(40 + after)), expected);
    }
    let mut nobody = watched();
    nobody.ended();
    check(felt(&nobody, &PACE, ms(440)), 0.0);
}

#[test]
fn an_old_page_counts_less_and_less_and_then_the_pool_does() {
    let mut others = Others::default();
    check(at(&others, &PACE, ms(0), &POOL).held_tokens, 1_000.0);
    others.tell(TOLD, &page(ms(0), 0.0, &TOLD), &PACE);
    for (age, held) in [(0, 5_000.0), (1_000, 4_000.0), (3_000, 2_000.0), (4_000, 1_000.0)] {
        check(at(&others, &PACE, ms(age), &POOL).held_tokens, held);
    }
    check(at(&others, &PACE, ms(60_000), &POOL).requests, 2.0);
}

#[test]
fn a_mean_is_of_those_that_have_told_and_nothing_of_none() {
    let mean = Foreign::mean([(1.0, TOLD), (0.0, TOLD), (0.5, POOL)].into_iter());
    check(mean.held_tokens, 5_500.0 / 1.5);
    assert_eq!(Foreign::mean([(0.0, TOLD)].into_iter()), NOBODY);
}
