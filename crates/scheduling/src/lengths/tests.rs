use super::*;

/// Learns `limit:tokens` of answers, then says what is expected at a limit, `-` being none.
fn check(answers: &str, limit: &str, expected: f64) {
    let number = |text: &str| text.parse::<f64>().ok();
    let mut lengths = Lengths::default();
    for answer in answers.split_whitespace() {
        let (limit, tokens) = answer.split_once(':').unwrap();
        lengths.learn(None, number(limit), tokens.parse().unwrap());
    }
    let tokens = lengths.expect(None, number(limit)).tokens;
    assert!((tokens - expected).abs() < 1e-6 + expected * 0.05, "{tokens} is not {expected}");
}

#[test]
fn before_any_answer_it_is_a_guess_or_half_the_limit() {
    check("", "-", OUTPUT_TOKENS_DEFAULT);
    check("", "60", 30.0);
    check("", "1000000", OUTPUT_TOKENS_UNKNOWN_MAX);
    check("", "0", OUTPUT_TOKENS_DEFAULT);
}

#[test]
fn it_is_the_mean_but_never_more_than_the_limit() {
    check("-:100 -:300", "-", 200.0);
    check("-:100 -:300", "4096", 200.0);
    check("-:100 -:300", "50", 50.0);
}

#[test]
fn limits_that_are_always_reached_foretell_the_length() {
    let exact = "100:100 400:400 ".repeat(20);
    check(&exact, "400", 400.0);
    check(&exact, "100", 100.0);
    check(&exact, "-", 250.0);
}

#[test]
fn limits_that_say_nothing_are_only_limits() {
    let loose = "4096:100 2048:300 1024:200 ".repeat(20);
    check(&loose, "4096", 200.0);
    check(&loose, "20", 20.0);
}

#[test]
fn adapters_are_told_apart_once_there_are_enough() {
    let mut lengths = Lengths::default();
    for _ in 0..20 {
        lengths.learn(Some(1), None, 10.0);
        lengths.learn(None, None, 1_000.0);
    }
    lengths.learn(Some(2), None, 5.0);
    assert!(lengths.expect(Some(1), None).tokens < 11.0);
    assert!(lengths.expect(Some(2), None).tokens > 400.0);
}
