//! What two readings of `/endpoints` look like.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::*;

fn reading(tokens: u64) -> Vec<Pool> {
    let endpoint = |name: &str, health: &str, in_flight: u32, kv_usage: Option<f64>| {
        let mut shown = json!({ "endpoint": name, "health": health, "in_flight": in_flight });
        if let Some(kv_usage) = kv_usage {
            shown["kv_usage"] = json!(kv_usage);
            shown["generation_tokens_total"] = json!(tokens);
        }
        shown
    };
    let mut full = endpoint("10.0.0.1:8000", "ready", 3, Some(0.5));
    for (key, value) in [
        ("running", json!(2)),
        ("waiting", json!(1)),
        ("prefill_tokens_pending", json!(120.0)),
        ("predicted_ttft_seconds", json!(0.25)),
        ("scrape_age_seconds", json!(1.5)),
        ("adapters_max", json!(4)),
        ("running_adapters", json!(["sql", "tweet"])),
    ] {
        full[key] = value;
    }
    let mut ejected = endpoint("10.0.0.2:8000", "ready", 0, Some(0.75));
    ejected["out"] = json!("ejected");
    let down = endpoint("10.0.0.3:8000", "unready", 0, None);
    let mut stale = endpoint("10.0.0.4:8000", "ready", 1, None);
    stale["scrape_age_seconds"] = json!(5.1);
    let silent = endpoint("10.0.0.5:8000", "ready", 1, None);
    let new = endpoint("10.0.0.6:8000", "unknown", 0, None);
    let pools: Value = json!([
        { "name": "llama", "namespace": "default", "kind": "InferencePool", "queued": 2,
          "endpoints": [new, down, ejected, full, silent, stale] },
        { "name": "llama", "namespace": "other", "kind": "Service", "port": 80, "endpoints": [full] },
    ]);
    serde_json::from_value(pools).expect("pools")
}

fn check(by: SortBy, reverse: bool, expected: &[&str]) {
    let start = Instant::now();
    let mut fleet = Fleet::default();
    fleet.take(reading(100), start);
    fleet.take(reading(130), start + Duration::from_secs(2));
    let lines = lines(&fleet, Order { by, reverse });
    let firsts: Vec<String> = lines
        .iter()
        .skip(2)
        .map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(firsts, expected, "{lines:#?}");
}

const FIRST: &str = "10.0.0.1:8000 llama";
const FIRST_AGAIN: &str = "10.0.0.1:8000 other/llama:80";
const SECOND: &str = "10.0.0.2:8000 llama";
const THIRD: &str = "10.0.0.3:8000 llama";
const FOURTH: &str = "10.0.0.4:8000 llama";
const FIFTH: &str = "10.0.0.5:8000 llama";
const SIXTH: &str = "10.0.0.6:8000 llama";

#[test]
fn words_are_sorted_from_a_to_z() {
    let expected = [FIRST, FIRST_AGAIN, SECOND, THIRD, FOURTH, FIFTH, SIXTH];
    check(SortBy::Endpoint, false, &expected);
    let reverse = [SIXTH, FIFTH, FOURTH, THIRD, SECOND, FIRST, FIRST_AGAIN];
    check(SortBy::Endpoint, true, &reverse);
}

#[test]
fn states_are_sorted_from_the_worst() {
    let expected = [THIRD, SECOND, FIFTH, FOURTH, SIXTH, FIRST, FIRST_AGAIN];
    check(SortBy::State, false, &expected);
    let reverse = [FIRST, FIRST_AGAIN, SIXTH, FOURTH, FIFTH, SECOND, THIRD];
    check(SortBy::State, true, &reverse);
}

#[test]
fn numbers_are_sorted_from_the_largest_and_the_unknown_comes_last() {
    let expected = [SECOND, FIRST, FIRST_AGAIN, THIRD, FOURTH, FIFTH, SIXTH];
    check(SortBy::Kv, false, &expected);
    let reverse = [FIRST, FIRST_AGAIN, SECOND, THIRD, FOURTH, FIFTH, SIXTH];
    check(SortBy::Kv, true, &reverse);
}

#[test]
fn every_column_can_be_reached_and_the_last_leads_to_the_first() {
    let mut by = SortBy::Endpoint;
    for _ in SortBy::value_variants() {
        by = after(by);
    }
    assert_eq!(by, SortBy::Endpoint);
}

#[test]
fn a_line_shows_what_is_known_and_a_dash_for_the_rest() {
    let start = Instant::now();
    let mut fleet = Fleet::default();
    fleet.take(reading(100), start);
    fleet.take(reading(130), start + Duration::from_secs(2));
    let shown = lines(&fleet, Order { by: SortBy::Waiting, reverse: false });
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(
        shown[0],
        "endpoints 6: 1 not ready, 1 ejected, 1 no metrics, 1 stale metrics, 1 not asked yet, 1 ready; \
         requests in flight 5, waiting in the gateway 2"
    );
    assert_eq!(
        words(&shown[1]),
        "ENDPOINT POOL STATE IN FLIGHT RUNNING WAITING↓ KV PREFILL TTFT TOKENS/S SCRAPED ADAPTERS"
    );
    assert_eq!(
        words(&shown[2]),
        "10.0.0.1:8000 llama ready 3 2 1 50.0 % 120 250 ms 15.0 1.5 s 2/4 sql,tweet"
    );
    assert_eq!(words(&shown[5]), "10.0.0.3:8000 llama not ready 0 - - - - - - - -");
}

#[test]
fn a_server_that_counts_anew_has_no_rate_until_the_next_reading() {
    let start = Instant::now();
    let mut fleet = Fleet::default();
    fleet.take(reading(100), start);
    fleet.take(reading(10), start + Duration::from_secs(1));
    let rate = |fleet: &Fleet| fleet.tokens_per_second(&fleet.pools[0].endpoints[2]);
    assert_eq!(rate(&fleet), None);
    fleet.take(reading(30), start + Duration::from_secs(2));
    assert_eq!(rate(&fleet), Some(20.0));
}
