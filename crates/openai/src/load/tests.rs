use proptest::prelude::*;

use super::*;

fn report(waiting: Option<u32>, running: Option<u32>, kv_usage: Option<f64>) -> LoadReport {
    LoadReport { waiting, running, kv_usage }
}

fn check(value: &str, expected: Option<LoadReport>) {
    assert_eq!(LoadReport::parse(value.as_bytes()), expected, "{value:?}");
}

#[test]
fn what_vllm_sends_is_read() {
    // The captures orca-text, orca-json and dp2-orca-text, with other numbers.
    check(
        "TEXT named_metrics.num_requests_waiting=3.0, named_metrics.kv_cache_usage_perc=0.25",
        Some(report(Some(3), None, Some(0.25))),
    );
    check(
        r#"JSON {"named_metrics": {"num_requests_waiting": 3.0, "kv_cache_usage_perc": 0.25}}"#,
        Some(report(Some(3), None, Some(0.25))),
    );
    check(
        "TEXT named_metrics.num_requests_waiting=3.0, named_metrics.num_requests_waiting=4.0, \
         named_metrics.kv_cache_usage_perc=0.5, named_metrics.kv_cache_usage_perc=0.25",
        Some(report(Some(7), None, Some(0.5))),
    );
    check(
        "TEXT named_metrics.num_requests_waiting=0.0, named_metrics.kv_cache_usage_perc=2.5e-05",
        Some(report(Some(0), None, Some(2.5e-5))),
    );
}

#[test]
fn other_ways_to_write_it_are_read() {
    check(
        "text kv_cache_usage_perc:0.3,num_requests_running=2",
        Some(report(None, Some(2), Some(0.3))),
    );
    check("TEXT  gpu_cache_usage_perc = 0.3 ,, x", Some(report(None, None, Some(0.3))));
    check(
        "TEXT cpu_utilization=0.9, named_metrics.num_requests_waiting=1",
        Some(report(Some(1), None, None)),
    );
    check(
        r#"json {"cpu": 1, "named_metrics": {"num_requests_waiting": 1}}"#,
        Some(report(Some(1), None, None)),
    );
}

#[test]
fn what_makes_no_sense_is_absent() {
    for value in [
        "",
        "TEXT",
        "JSON",
        "TEXT ",
        "BIN CAAA",
        "named_metrics.num_requests_waiting=1",
        "TEXT named_metrics.num_requests_waiting",
        "TEXT named_metrics.num_requests_waiting=",
        "TEXT named_metrics.num_requests_waiting=NaN, named_metrics.kv_cache_usage_perc=nan",
        "TEXT num_requests_waiting=-1,num_requests_running=inf",
        "TEXT num_requests_waiting=1e999",
        "TEXT num_requests_waiting=one",
        "JSON {",
        "JSON []",
        r#"JSON {"named_metrics": 1}"#,
        r#"JSON {"named_metrics": {"num_requests_waiting": "1"}}"#,
        r#"JSON {"named_metrics": {"num_requests_waiting": NaN}}"#,
        r#"JSON {"num_requests_waiting": 1}"#,
    ] {
        check(value, None);
    }
    // The rest still counts.
    check(
        "TEXT num_requests_waiting=NaN, kv_cache_usage_perc=0.5",
        Some(report(None, None, Some(0.5))),
    );
    check("TEXT kv_cache_usage_perc=1.7", Some(report(None, None, Some(1.0))));
    check("TEXT num_requests_waiting=1e30", Some(report(Some(u32::MAX), None, None)));
}

#[test]
fn a_report_that_is_too_long_is_not_read() {
    let fits = "TEXT num_requests_waiting=1";
    let padding = ",x".repeat((LOAD_BYTES_MAX - fits.len()) / 2);
    check(&format!("{fits}{padding}"), Some(report(Some(1), None, None)));
    check(&format!("{fits}{padding},xx"), None);
}

proptest! {
    #[test]
    fn any_bytes_are_read_into_sane_values(
        format in prop_oneof![Just(""), Just("TEXT "), Just("JSON ")],
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let value = [format.as_bytes(), &bytes].concat();
        if let Some(usage) = LoadReport::parse(&value).and_then(|report| report.kv_usage) {
            prop_assert!((0.0..=1.0).contains(&usage), "{usage}");
        }
    }

    #[test]
    fn both_formats_say_the_same(waiting in 0_u32..100_000, kv_usage in 0.0_f64..=1.0) {
        let waiting_text = f64::from(waiting);
        let text = format!(
            "TEXT named_metrics.num_requests_waiting={waiting_text:?}, \
             named_metrics.kv_cache_usage_perc={kv_usage:?}"
        );
        let json = format!(
            r#"JSON {{"named_metrics": {{"num_requests_waiting": {waiting_text:?}, "kv_cache_usage_perc": {kv_usage:?}}}}}"#
        );
        let expected = LoadReport { waiting: Some(waiting), running: None, kv_usage: Some(kv_usage) };
        for value in [text, json] {
            let read = LoadReport::parse(value.as_bytes()).unwrap();
            prop_assert_eq!(read.waiting, expected.waiting);
            // serde_json reads a number to within a last place.
            prop_assert!((read.kv_usage.unwrap() - kv_usage).abs() < 1e-12);
        }
    }

    /// Damage anywhere in a good report is at worst a report with less in it, or other numbers.
    #[test]
    fn damaged_reports_are_read_without_harm(at in 0_usize..90, byte in any::<u8>(), cut in 0_usize..90) {
        let mut value =
            b"TEXT named_metrics.num_requests_waiting=3.0, named_metrics.kv_cache_usage_perc=0.25".to_vec();
        if let Some(place) = value.get_mut(at) {
            *place = byte;
        }
        value.truncate(cut);
        if let Some(usage) = LoadReport::parse(&value).and_then(|report| report.kv_usage) {
            prop_assert!((0.0..=1.0).contains(&usage), "{usage}");
        }
    }
}
