use proptest::prelude::*;

use super::*;
use crate::Profile;

const REQUESTS: &str = include_str!("../../testdata/recorded/rtx4090-llama3.1-8b/requests.jsonl");
const META: &str = include_str!("../../testdata/recorded/rtx4090-llama3.1-8b/meta.json");

fn recording() -> Recording {
    Recording::parse("requests.jsonl", REQUESTS, Some(("meta.json", META))).unwrap()
}

fn config(recording: &Recording) -> EngineConfig {
    let profile = Profile::named("rtx4090-llama3.1-8b").unwrap();
    recording.limits.applied_to(EngineConfig { profile, ..EngineConfig::default() })
}

#[test]
fn a_recorded_run_is_reproduced_within_three_per_cent_and_its_tail_within_five() {
    let recording = recording();
    let replayed = recording.replay(config(&recording));
    let comparison = recording.compare(&replayed);
    for ((name, error), (_, recorded)) in
        comparison.errors().into_iter().zip(comparison.recorded.times())
    {
        println!("{name}: {recorded:.4}, {:+.2} %", error * 1e2);
        let most = if name.contains("p99") { 0.05 } else { 0.03 };
        assert!(error.abs() < most, "{name} {error}");
    }
    println!("{comparison:?}");
    assert_eq!(comparison.refused, 0);
    assert_eq!(comparison.recorded.preemptions, None);
    assert!(comparison.simulated.preemptions > Some(0));
    assert_eq!(replayed, recording.replay(config(&recording)));
}

#[test]
fn the_recorded_limits_are_those_of_the_profile() {
    let recording = recording();
    let limits = Limits {
        num_gpu_blocks: Some(2588),
        block_size: Some(16),
        max_num_seqs: Some(256),
        max_num_batched_tokens: Some(2048),
        max_model_len: Some(32_768),
        enable_prefix_caching: Some(true),
    };
    assert_eq!(recording.limits, limits);
    assert_eq!(config(&recording).profile, Profile::named("rtx4090-llama3.1-8b").unwrap());
}

#[test]
fn times_count_from_the_first_arrival_on_one_clock() {
    let recording = recording();
    assert_eq!(recording.requests.len(), 300);
    let close = |time: Duration, seconds: f64| (time.as_secs_f64() - seconds).abs() < 2e-6;
    let (first, second) = (&recording.requests[0], &recording.requests[1]);
    assert!(close(first.arrival, 0.0) && close(first.served.first_token, 0.691_279));
    assert!(close(second.arrival, 0.265_091) && close(second.served.last_token, 25.621_038));
    for latency in recording.latencies() {
        assert!(latency.ttft_s > 0.0 && latency.e2e_s > latency.ttft_s);
    }
}

fn line(input: &str, output: &str, times: [&str; 4]) -> String {
    let [arrival, queued, first, last] = times;
    format!(
        r#"{{"input_toks": {input}, "output_toks": {output}, "arrival_time": {arrival}, "queued_ts": {queued}, "first_token_ts": {first}, "last_token_ts": {last}}}"#
    )
}

#[test]
fn broken_recordings_say_where_and_what() {
    let good = line("10", "2", ["1000.5", "5", "6", "7"]);
    let table = [
        (String::new(), 1, "there are no requests"),
        (format!("{good}\n\n{{\"input_toks\": 3}}\n"), 3, "the fields output_toks, arrival_time"),
        ("nonsense".to_owned(), 1, "a JSON object a line"),
        (line("0", "2", ["1", "5", "6", "7"]), 1, "input_toks is 0"),
        (line("-4", "2", ["1", "5", "6", "7"]), 1, "cannot be negative"),
        (line("4", "\"x\"", ["1", "5", "6", "7"]), 1, "a whole number"),
        (line("4", "2", ["1", "5", "null", "7"]), 1, "leave out requests that failed"),
        (line("4", "2", ["1", "5", "8", "7"]), 1, "in this order"),
        (line("4", "2", ["1e300", "5", "6", "7"]), 1, "seconds are expected"),
    ];
    for (text, line, what) in table {
        let error = Recording::parse("r.jsonl", &text, None).unwrap_err();
        assert_eq!(error.problems[0].line, line, "{error}");
        assert!(error.to_string().contains(what), "{error}");
    }
    let table = [
        ("", 1, "not JSON"),
        ("[]", 1, "an object"),
        ("{\n\"kv_cache\": {\n\"block_size\": 0}}", 3, "block_size is \"0\""),
        ("{\"engine_kwargs\": {\"max_num_seqs\": \"many\"}}", 1, "max_num_seqs"),
    ];
    for (text, line, what) in table {
        let error = Recording::parse("r.jsonl", &good, Some(("m.json", text))).unwrap_err();
        assert_eq!(error.problems[0].line, line, "{error}");
        assert!(what == "an object" || error.to_string().contains(what), "{error}");
        assert_eq!(error.path, "m.json");
    }
}

#[test]
fn what_vllm_resolved_wins_over_what_it_was_given() {
    let good = line("10", "1", ["1000.5", "5", "6", "6"]);
    let meta = r#"{"engine_kwargs": {"max_num_seqs": 1, "max_model_len": 99}, "num_preemptions": 7,
        "kv_cache": {"block_size": 32}, "resolved_config": {"scheduler_config": {"max_num_seqs": 2},
        "model_config": {"max_model_len": null}}}"#;
    let recording = Recording::parse("r.jsonl", &good, Some(("m.json", meta))).unwrap();
    let limits = Limits {
        block_size: Some(32),
        max_num_seqs: Some(2),
        max_model_len: Some(99),
        ..Limits::default()
    };
    assert_eq!(recording.limits, limits);
    assert_eq!(recording.preemptions, Some(7));
}

#[test]
fn requests_of_one_token_have_no_part_in_tpot_and_refused_ones_in_nothing() {
    let text = [
        line("10", "1", ["100", "5", "6", "6"]),
        line("10", "3", ["101", "6", "7", "9"]),
        line("40000", "3", ["102", "7", "8", "99"]),
    ];
    let recording = Recording::parse("r.jsonl", &text.join("\n"), None).unwrap();
    let comparison = recording.compare(&recording.replay(config(&recording)));
    assert_eq!(comparison.refused, 1);
    assert!((comparison.recorded.tpot_mean_s - 1.0).abs() < 1e-9);
    assert!((comparison.recorded.e2e_mean_s - 2.0).abs() < 1e-9);
}

#[test]
fn percentiles_are_numpys() {
    let values = [4.0, 1.0, 3.0, 2.0];
    for (share, expected) in [(0.0, 1.0), (0.5, 2.5), (0.99, 3.97), (1.0, 4.0)] {
        assert!((percentile(&values, share) - expected).abs() < 1e-12, "{share}");
    }
    assert!(percentile(&[], 0.5).is_nan());
}

proptest! {
    #[test]
    fn arbitrary_text_is_read_or_refused(requests in ".{0,200}", meta in ".{0,200}") {
        let read = Recording::parse("r", &requests, Some(("m", &meta)));
        prop_assert!(read.is_err_and(|error| !error.problems.is_empty()));
    }
}
