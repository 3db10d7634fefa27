use super::*;

/// An answer whose tokens came at these milliseconds after it was due, sent 2 ms late.
fn answer(tokens: &[u64]) -> Sample {
    let due = Instant::now();
    let at = |millis: u64| due + Duration::from_millis(millis);
    let mut sample = Sample::new(true, 7, due, at(2));
    sample.first = tokens.first().map(|millis| at(*millis));
    sample.last = tokens.last().map(|millis| at(*millis));
    sample.chunks = tokens.len() as u64;
    let gaps = tokens.windows(2).map(|pair| u32::try_from(pair[1] - pair[0]).unwrap() * 1000);
    sample.gaps = gaps.collect();
    sample.usage.completion_tokens = Some(tokens.len() as u64);
    sample.usage.prompt_tokens = Some(10);
    sample
}

fn near(value: Option<f64>, expected: f64) {
    let value = value.unwrap();
    assert!((value - expected).abs() < 1e-9, "{value} is not {expected}");
}

#[test]
fn figures_follow_their_definitions() {
    let mut outcome = Outcome::new(Slo::default());
    outcome.add(answer(&[100, 110, 140, 160, 200]));
    outcome.duration = Duration::from_secs(2);
    near(outcome.ttft.mean(), 0.1);
    near(outcome.e2e.mean(), 0.2);
    near(outcome.tpot.mean(), 0.1 / 4.0);
    near(outcome.ntpot.mean(), 0.2 / 5.0);
    near(outcome.itl.max(), 0.04);
    near(outcome.lateness.mean(), 0.002);
    near(outcome.output_rate.mean(), 25.0);
    assert_eq!(outcome.itl.count(), 4);
    near(Some(outcome.requests_per_s()), 0.5);
    near(Some(outcome.output_tokens_per_s()), 2.5);
    near(Some(outcome.total_tokens_per_s()), 7.5);
    assert_eq!(outcome.goodput_per_s(), None);
}

#[test]
fn an_answer_of_one_token_has_no_time_per_further_token() {
    let mut outcome = Outcome::new(Slo::default());
    outcome.add(answer(&[100]));
    assert_eq!((outcome.tpot.count(), outcome.itl.count(), outcome.ttft.count()), (0, 0, 1));
    near(outcome.ntpot.mean(), 0.1);
}

#[test]
fn tokens_are_what_the_server_counts_and_chunks_only_if_it_does_not() {
    let mut outcome = Outcome::new(Slo::default());
    let mut several = answer(&[100, 200]);
    several.usage.completion_tokens = Some(5);
    outcome.add(several);
    near(outcome.tpot.mean(), 0.1 / 4.0);
    let mut untold = answer(&[100, 200]);
    untold.usage = Usage::default();
    outcome.add(untold);
    assert_eq!((outcome.prompt_tokens, outcome.output_tokens), (17, 7));
    assert_eq!(outcome.without_usage, 1);
}

#[test]
fn a_request_is_good_if_it_keeps_every_limit() {
    let limit = |millis: u64| Some(Duration::from_millis(millis));
    for (slo, good) in [
        (Slo { ttft: limit(100), ..Slo::default() }, 1),
        (Slo { ttft: limit(99), ..Slo::default() }, 0),
        (Slo { tpot: limit(25), ..Slo::default() }, 1),
        (Slo { ttft: limit(100), tpot: limit(24), e2e: None }, 0),
        (Slo { ttft: limit(100), tpot: limit(25), e2e: limit(200) }, 1),
        (Slo { e2e: limit(199), ..Slo::default() }, 0),
    ] {
        let mut outcome = Outcome::new(slo);
        outcome.add(answer(&[100, 110, 140, 160, 200]));
        let mut failed = answer(&[100]);
        failed.failure = Some((Failure::Cut, "cut".to_owned()));
        outcome.add(failed);
        outcome.duration = Duration::from_secs(1);
        assert_eq!(outcome.good, good, "{slo:?}");
        near(outcome.goodput_per_s(), precise(good));
        near(outcome.goodput_share(), precise(good) / 2.0);
    }
}

#[test]
fn failures_are_in_no_figure_but_their_own() {
    let mut outcome = Outcome::new(Slo::default());
    for said in ["first", "second"] {
        let mut failed = answer(&[100, 200]);
        failed.failure = Some((Failure::Status(503), said.to_owned()));
        outcome.add(failed);
    }
    outcome.add(answer(&[100, 200]));
    assert_eq!((outcome.completed, outcome.failed, outcome.ttft.count()), (1, 2, 1));
    let errors = &outcome.errors[&Failure::Status(503)];
    assert_eq!((errors.count, errors.first.as_str()), (2, "first"));
    near(Some(outcome.error_share()), 2.0 / 3.0);
    assert_eq!(outcome.lateness.count(), 3, "it was sent, too");
}
