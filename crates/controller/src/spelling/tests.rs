//! Table of slips and what was meant.

use super::closest;

fn check(word: &str, known: &[&str], expected: Option<&str>) {
    assert_eq!(closest(word, known.iter().copied(), 2), expected, "{word}");
}

#[test]
fn a_slip_is_recognised_and_another_word_is_not() {
    check("targetPortNumbr", &["selector", "targetPortNumber"], Some("targetPortNumber"));
    check("Selector", &["selector"], Some("selector"));
    check("seelctor", &["selector"], Some("selector"));
    check("hsot", &["host", "rules"], Some("host"));
    check("hosts", &["host", "rules"], Some("host"));
    check("Deployment", &["InferencePool", "Service"], None);
    check("Secret", &["Service"], None);
    check("ab", &["cd"], None);
    check("", &["x"], None);
}
