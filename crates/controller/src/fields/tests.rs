//! Table of durations.

use std::time::Duration;

use super::duration;

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
