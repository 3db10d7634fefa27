use super::*;
use crate::Reading;

fn at(second: u32) -> Duration {
    Duration::from_secs(second.into())
}

/// A page: running, prompt tokens, generation tokens, KV use in percent. `-` is absent.
fn page(text: &str, second: u32) -> Signals {
    let fields: Vec<Option<u32>> = text.split(' ').map(|field| field.parse().ok()).collect();
    let heard = at(second);
    let reading = |field: usize| fields[field].map(|value| Reading { value, heard });
    let count = |field: usize| fields[field].map(|value| Reading { value: value.into(), heard });
    Signals {
        running: reading(0),
        prompt_tokens: count(1),
        generation_tokens: count(2),
        kv_usage: fields[3].map(|value| Reading { value: f64::from(value) / 100.0, heard }),
        ..Signals::default()
    }
}

/// An endpoint with this many own requests since second 0, and a second between two pages; `0` as seconds of prefill.
fn check(pages: &[&str], own: u32, hung: bool) {
    check_prefilling(pages, own, 0.0, hung);
}

fn check_prefilling(pages: &[&str], own: u32, prefill_seconds: f64, hung: bool) {
    let mut pulse = Pulse::default();
    for request in 0..own {
        pulse.sent(request, at(0));
    }
    for (second, text) in (0..).zip(pages) {
        pulse.scraped(&page(text, second), prefill_seconds);
    }
    assert_eq!(pulse.is_hung(), hung, "{pages:?}, own {own}");
}

const STILL: &str = "3 500 900 40";

#[test]
fn an_engine_that_has_requests_and_does_nothing_hangs() {
    check(&[STILL; 5], 1, false);
    check(&[STILL; 6], 1, true);
    check(&["3 500 900 -"; 6], 1, true);
    check(&["3 - 900 40"; 6], 1, true);
}

#[test]
fn an_engine_without_requests_is_idle() {
    check(&["0 500 900 0"; 60], 1, false);
}

#[test]
fn an_engine_that_says_nothing_is_unknown() {
    check(&["- - - -"; 60], 1, false);
    check(&["- 500 900 40"; 60], 1, false);
    check(&["3 - - 40"; 60], 1, false);
}

#[test]
fn whatever_moves_is_alive() {
    for moved in ["3 501 900 40", "3 500 901 40", "3 500 900 41"] {
        let mut pages = vec![STILL; 5];
        pages.push(moved);
        check(&pages, 1, false);
        pages.extend([moved; 4]);
        check(&pages, 1, false);
        pages.push(moved);
        check(&pages, 1, true);
        pages.push(STILL);
        check(&pages, 1, false);
    }
}

#[test]
fn other_gauges_move_without_the_engine() {
    check(&["1 5 9 4", "2 5 9 4", "3 5 9 4", "3 5 9 4", "4 5 9 4", "5 5 9 4"], 1, true);
}

#[test]
fn few_pages_prove_nothing_however_long_ago_they_are() {
    let mut pulse = Pulse::default();
    pulse.sent(0, at(0));
    for (second, hung) in [(0, false), (15, false), (30, true)] {
        pulse.scraped(&page(STILL, second), 0.0);
        assert_eq!(pulse.is_hung(), hung, "{second}");
    }
}

#[test]
fn a_long_prompt_may_take_twice_as_long_as_it_should() {
    check_prefilling(&[STILL; 45], 1, 20.0, false);
    check_prefilling(&[STILL; 46], 1, 20.0, true);
    check_prefilling(&[STILL; 6], 1, f64::NAN, true);
    check_prefilling(&[STILL; 600], 1, f64::INFINITY, false);
}

#[test]
fn what_is_sent_to_an_engine_that_stands_still_does_not_excuse_it() {
    let mut pulse = Pulse::default();
    pulse.sent(0, at(0));
    for second in 0..=5 {
        pulse.scraped(&page(STILL, second), f64::from(second) * 10.0);
    }
    assert!(pulse.is_hung());
}

#[test]
fn a_page_that_stands_still_is_not_believed_against_tokens() {
    let mut pulse = Pulse::default();
    pulse.sent(0, at(0));
    for second in 0..60 {
        pulse.scraped(&page(STILL, second), 0.0);
        pulse.alive(at(second));
        assert!(!pulse.is_hung() && pulse.is_felt() && pulse.admits(1, at(second)));
    }
}

#[test]
fn one_own_request_goes_and_sees_what_a_page_says() {
    let mut pulse = Pulse::default();
    for second in 0..60 {
        pulse.scraped(&page(STILL, second), 0.0);
        assert!(!pulse.is_hung());
    }
    assert!(pulse.admits(0, at(60)));
    pulse.sent(0, at(60));
    assert!(!pulse.admits(1, at(60)));
    for second in 60..65 {
        pulse.scraped(&page(STILL, second), 0.0);
        assert!(!pulse.is_hung());
    }
    pulse.scraped(&page(STILL, 65), 0.0);
    assert!(pulse.is_hung() && !pulse.admits(1, at(65)));
    // Its client leaves; the engine still hangs.
    pulse.ended(0);
    pulse.scraped(&page(STILL, 66), 0.0);
    assert!(pulse.is_hung() && !pulse.admits(0, at(66)));
    pulse.scraped(&page("3 500 901 40", 67), 0.0);
    assert!(!pulse.is_hung() && pulse.admits(7, at(67)));
}

#[test]
fn a_page_too_old_to_be_believed_lets_one_request_try() {
    let mut pulse = Pulse::default();
    pulse.sent(0, at(0));
    for second in 0..=5 {
        pulse.scraped(&page(STILL, second), 0.0);
    }
    assert!(pulse.is_hung());
    for (second, in_flight, admits) in [(10, 0, false), (11, 0, true), (11, 1, false)] {
        assert_eq!(pulse.admits(in_flight, at(second)), admits, "{second} {in_flight}");
    }
    pulse.alive(at(12));
    assert!(pulse.is_felt() && pulse.admits(5, at(12)));
}
