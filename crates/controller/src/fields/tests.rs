//! Tables of durations and quantities.

use std::time::Duration;

use super::{bytes, duration, gateway_duration};

fn check(text: &str, expected_ms: Option<u64>) {
    assert_eq!(duration(text), expected_ms.map(Duration::from_millis), "{text:?}");
}

#[test]
fn durations_are_read_as_istio_reads_them() {
    check("5s", Some(5_000));
    check("1.5s", Some(1_500));
    check("300ms", Some(300));
    check("0.3s", Some(300));
    check("1h", Some(3_600_000));
    check("1h30m", Some(5_400_000));
    check("0s", Some(0));
    check("", None);
    check("5", None);
    check("s", None);
    check("-5s", None);
    check("5 s", None);
    check("5sec", None);
    check("1.2.3s", None);
    check(".s", None);
    check("99999999999999999999999999h", None);
}

#[test]
fn durations_of_the_gateway_api_are_read_as_gep_2257_says() {
    let check = |text: &str, expected_ms: Option<u64>| {
        assert_eq!(gateway_duration(text), expected_ms.map(Duration::from_millis), "{text:?}");
    };
    check("0s", Some(0));
    check("500ms", Some(500));
    check("60s", Some(60_000));
    check("1m30s", Some(90_000));
    check("1h1m1s1ms", Some(3_661_001));
    check("5s1h", Some(3_605_000));
    check("99999h", Some(359_996_400_000));
    check("00001s", Some(1_000));
    check("", None);
    check("0", None);
    check("60", None);
    check("s", None);
    check("1.5s", None);
    check("-1s", None);
    check("1us", None);
    check("1d", None);
    check("1 s", None);
    check("1S", None);
    check("1s ", None);
    check("100000s", None);
    check("1s1s1s1s1s", None);
    check("1\u{661}s", None);
}

#[test]
fn bytes_are_read_as_kubernetes_reads_quantities() {
    let check = |text: &str, expected: Option<u64>| assert_eq!(bytes(text), expected, "{text:?}");
    check("0", Some(0));
    check("1048576", Some(1_048_576));
    check("256Mi", Some(256 << 20));
    check("1k", Some(1_000));
    check("2M", Some(2_000_000));
    check("1.5Gi", Some(3 << 29));
    check("1.5", Some(2));
    check(".5Ki", Some(512));
    check("1.Ki", Some(1024));
    check("1e6", Some(1_000_000));
    check("1E3", Some(1_000));
    check("15E", Some(15_000_000_000_000_000_000));
    check("15Ei", Some(15 << 60));
    check("16Ei", None);
    check("1e20", None);
    check("1e99", None);
    check("", None);
    check(".", None);
    check("Mi", None);
    check("-1", None);
    check("1e-1", None);
    check("1.2.3", None);
    check("100m", None);
    check("32MB", None);
    check("32MiB", None);
    check("32mi", None);
    check("32 Mi", None);
    check("99999999999999999999999999999999999999999", None);
    check("0.00000000000000000000000000000000000000001", None);
}
