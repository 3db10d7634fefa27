use std::{sync::Arc, time::Duration};

use picker::{PoolKey, PoolKind, wall_clock};
use scheduling::EndpointId;
use serde_json::{Value, json};

use super::*;

fn decision(candidates: Vec<(EndpointId, Cost)>) -> DecisionRecord {
    let name: Arc<str> = "pool".into();
    let kind = PoolKind::InferencePool;
    DecisionRecord {
        time: wall_clock(),
        request_id: "r1".into(),
        model: None,
        pool: PoolKey { kind, namespace: "default".into(), name, port: 0 },
        policy: "predicted",
        reason: "prefix",
        queue: Some(Duration::from_micros(1_234)),
        endpoint: EndpointId::new("10.0.0.1:8000"),
        cost_unit: Some("seconds"),
        candidates,
    }
}

fn candidate(endpoint: &str) -> (EndpointId, Cost) {
    let names = &["kv_wait", "prefill_ahead", "prefill", "adapter", "decode", "stall"];
    let values =
        [1e-119, 0.123_456_789, 0.25, 0.820_278_752_011, 3.281_115_008_046, 0.008_441_172_303];
    (EndpointId::new(endpoint), Cost::of(names, &values))
}

fn told(decision: &DecisionRecord) -> (usize, Value) {
    let value = header_value(decision).unwrap();
    let text = value.to_str().unwrap();
    (text.len(), serde_json::from_str(text).unwrap())
}

#[test]
fn a_decision_is_told_in_one_line_of_json() {
    let decision = decision(vec![candidate("10.0.0.1:8000")]);
    let text = header_value(&decision).unwrap();
    assert_eq!(
        text,
        concat!(
            r#"{"policy":"predicted","reason":"prefix","queue_ms":1.234,"endpoint":"10.0.0.1:8000","#,
            r#""cost_unit":"seconds","candidates":[{"endpoint":"10.0.0.1:8000","cost":4.483292,"#,
            r#""terms":{"kv_wait":0.0,"prefill_ahead":0.123457,"prefill":0.25,"adapter":0.820279,"#,
            r#""decode":3.281115,"stall":0.008441}}]}"#
        )
    );
}

#[test]
fn what_is_not_known_or_has_no_unit_is_left_out() {
    let cost = (EndpointId::new("a:1"), Cost::of(&["turn"], &[f64::INFINITY]));
    let decision = DecisionRecord { queue: None, cost_unit: None, ..decision(vec![cost]) };
    let expected = json!({
        "policy": "predicted", "reason": "prefix", "endpoint": "10.0.0.1:8000",
        "candidates": [{ "endpoint": "a:1", "cost": null, "terms": { "turn": null } }],
    });
    assert_eq!(told(&decision).1, expected);
}

#[test]
fn a_large_pool_is_told_by_its_cheapest() {
    let check = |name: &str, expected: usize| {
        let decision = decision((0..40).map(|n| candidate(&format!("{name}{n}:8000"))).collect());
        let (length, value) = told(&decision);
        assert!(length <= EXPLAIN_BYTES_MAX, "{length}");
        let candidates = value["candidates"].as_array().unwrap();
        assert_eq!(candidates.len(), expected, "{value}");
        for (index, candidate) in candidates.iter().enumerate() {
            assert_eq!(candidate["endpoint"], format!("{name}{index}:8000"));
        }
    };
    check("10.100.200.2", EXPLAIN_CANDIDATES_MAX);
    check(&format!("{}example.com", "long.".repeat(40)), 5);
    check(&"x".repeat(3_000), 0);
}

#[test]
fn the_one_chosen_is_told_of_though_it_is_dear() {
    let check = |name: &str, expected: &[usize]| {
        let name_of = |n: usize| format!("{name}{n}:8000");
        let candidates = (0..40).map(|n| candidate(&name_of(n))).collect();
        let endpoint = EndpointId::new(name_of(39));
        let (_, value) = told(&DecisionRecord { endpoint, ..decision(candidates) });
        let candidates = value["candidates"].as_array().unwrap();
        let name = |one: &Value| one["endpoint"].as_str().unwrap().to_owned();
        let names: Vec<String> = candidates.iter().map(name).collect();
        let expected: Vec<String> = expected.iter().map(|n| name_of(*n)).collect();
        assert_eq!(names, expected);
    };
    check("10.100.200.2", &[0, 1, 2, 3, 4, 5, 6, 39]);
    check(&format!("{}example.com", "long.".repeat(70)), &[0, 1, 39]);
    check(&format!("{}example.com", "long.".repeat(150)), &[39]);
}

#[test]
fn only_a_one_asks() {
    for (value, asks) in [("1", true), ("0", false), ("", false), ("true", false), ("11", false)] {
        assert_eq!(is_asked(Some(&HeaderValue::from_static(value))), asks, "{value:?}");
    }
    assert!(!is_asked(None));
}
