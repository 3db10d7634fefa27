//! What each path answers.

use std::{collections::BTreeSet, sync::Arc, sync::atomic::Ordering};

use picker::{Health, monotonic};
use scheduling::{EndpointId, Reading, Signals};
use serde_json::{Value, json};

use crate::setting::{DEADLINE, Setting, ask, ask_with, get};

#[tokio::test]
async fn readiness_is_told_with_its_reason() {
    let setting = Setting::start().await;
    let reply = get(setting.health, "/healthz/ready").await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "ready"));

    *setting.unready.lock().expect("unready") = Some("draining".to_owned());
    let reply = get(setting.health, "/healthz/ready").await;
    assert_eq!((reply.status, reply.body.as_str()), (503, "draining"));
    let reply = ask(setting.health, "HEAD", "/healthz/ready").await;
    assert_eq!((reply.status, reply.body.as_str()), (503, ""));
    assert_eq!(get(setting.health, "/healthz/live").await.status, 200);
    setting.end().await;
}

#[tokio::test]
async fn metrics_have_two_addresses() {
    let setting = Setting::start().await;
    drop(setting.pick("r1"));
    for path in ["/stats/prometheus", "/metrics"] {
        let reply = get(setting.stats, path).await;
        assert_eq!(reply.status, 200);
        let content_type = reply.header("content-type").expect("a type");
        assert!(content_type.starts_with("text/plain; version=0.0.4"), "{content_type}");
        assert!(reply.body.contains("tokenweir_picks_total{"), "{}", reply.body);
    }
    setting.end().await;
}

#[tokio::test]
async fn other_paths_and_methods_are_refused_with_advice() {
    let setting = Setting::start().await;
    let (health, stats, admin) = (setting.health, setting.stats, setting.admin);
    let table = [
        (health, "GET", "/", 404, "/healthz/ready"),
        (health, "GET", "/metrics", 404, "/healthz/ready"),
        (health, "POST", "/healthz/ready", 405, "GET, HEAD"),
        (stats, "GET", "/nothing?x=1", 404, "/stats/prometheus"),
        (stats, "DELETE", "/metrics", 405, "GET, HEAD"),
        (admin, "GET", "/nothing", 404, "/config_dump"),
        (admin, "GET", "/endpoints/", 404, "/config_dump"),
        (admin, "POST", "/endpoints", 405, "GET, HEAD"),
        (admin, "GET", "/drain", 405, "POST"),
    ];
    for (address, method, path, status, advice) in table {
        let reply = ask(address, method, path).await;
        assert_eq!(reply.status, status, "{method} {path}");
        let error = reply.json();
        if status == 405 {
            assert_eq!(reply.header("allow"), Some(advice), "{method} {path}");
        } else {
            let paths = error["paths"].as_array().expect("paths");
            assert!(paths.contains(&json!(advice)), "{method} {path}: {paths:?}");
        }
        assert_eq!(error["error"]["code"], json!(status));
    }
    assert_eq!(setting.drains.load(Ordering::Relaxed), 0);
    setting.end().await;
}

#[tokio::test]
async fn the_index_leads_to_every_view() {
    let setting = Setting::start().await;
    let reply = get(setting.admin, "/").await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), Some("text/html; charset=utf-8"));
    for (at, _) in reply.body.match_indices("href=\"") {
        let target = reply.body[at + 6..].split('"').next().expect("a link");
        assert_eq!(get(setting.admin, &format!("/{target}")).await.status, 200, "{target}");
    }
    setting.end().await;
}

#[tokio::test]
async fn endpoints_show_what_is_known_and_leave_out_the_rest() {
    let setting = Setting::start().await;
    let known = EndpointId::new("10.0.0.1:8000");
    let heard = monotonic();
    let signals = Signals {
        waiting: Some(Reading { value: 2, heard }),
        running: Some(Reading { value: 5, heard }),
        kv_usage: Some(Reading { value: 0.25, heard }),
        kv_block_tokens: Some(Reading { value: 16, heard }),
        kv_blocks: Some(Reading { value: 256, heard }),
        adapters_max: Some(Reading { value: 4, heard }),
        running_adapters: Some(Arc::new(BTreeSet::from(["sql-lora".to_owned()]))),
        process_start: None,
        prompt_tokens: Some(Reading { value: 1204, heard }),
        generation_tokens: Some(Reading { value: 442, heard }),
    };
    setting.picker.writer().signals(&known, signals, scheduling::ScrapeMark::NOTHING);
    setting.picker.writer().health(&known, Health::Ready);
    let assignment = setting.pick("r1");

    let mut pools = get(setting.admin, "/endpoints").await.json();
    let age = pools[0]["endpoints"][0].as_object_mut().expect("an endpoint");
    let age = age.remove("scrape_age_seconds").and_then(|age| age.as_f64()).expect("an age");
    assert!((0.0..DEADLINE.as_secs_f64()).contains(&age), "{age}");
    let expected = json!([
        {
            "name": "llama", "namespace": "default", "kind": "InferencePool",
            "policy": "least-request", "queued": 0,
            "endpoints": [
                {
                    "endpoint": "10.0.0.1:8000", "workload": "vllm-0", "address": "10.0.0.1",
                    "health": "ready", "in_flight": 1, "waiting": 2, "running": 5,
                    "kv_usage": 0.25, "kv_blocks": 256, "block_size": 16, "adapters_max": 4,
                    "running_adapters": ["sql-lora"], "prompt_tokens_total": 1204,
                    "generation_tokens_total": 442, "prefill_tokens_pending": 1.0,
                },
                {
                    "endpoint": "10.0.0.2:8000", "workload": "vllm-1", "address": "10.0.0.2",
                    "health": "unknown", "in_flight": 0, "prefill_tokens_pending": 0.0,
                },
            ],
        },
        {
            "name": "llama", "namespace": "default", "kind": "Service", "port": 8000,
            "policy": "least-request", "queued": 0, "endpoints": [],
        },
    ]);
    assert_eq!(pools, expected);
    drop(assignment);
    setting.end().await;
}

#[tokio::test]
async fn endpoints_show_why_they_get_no_requests() {
    let setting = Setting::start().await;
    let first = |request_id: &str| {
        let mut assignment = setting.pick(request_id);
        let id = assignment.endpoint().spec.id.to_string();
        assignment.finish(picker::Finish::EndpointGone);
        id
    };
    // Whichever fails three times first.
    let failed: Vec<String> = (0..5).map(|nth| first(&format!("r{nth}"))).collect();
    let pools = get(setting.admin, "/endpoints").await.json();
    let endpoints = pools[0]["endpoints"].as_array().expect("endpoints");
    let out = endpoints.iter().filter(|endpoint| endpoint["out"] == json!("ejected"));
    let out: Vec<&str> = out.filter_map(|endpoint| endpoint["endpoint"].as_str()).collect();
    assert_eq!(out.len(), 1, "{pools}");
    assert!(failed.iter().filter(|id| *id == out[0]).count() >= 3);
    let others = endpoints.iter().filter(|endpoint| endpoint.get("out").is_none());
    assert_eq!(others.count(), 1);
    setting.end().await;
}

#[tokio::test]
async fn decisions_come_newest_first_and_add_up() {
    let setting = Setting::start().await;
    let assignments: Vec<_> = ["r1", "r2", "r3"].map(|id| setting.pick(id)).into_iter().collect();
    let ids = |decisions: &Value| -> Vec<String> {
        let decisions = decisions.as_array().expect("an array").iter();
        decisions.map(|one| one["request_id"].as_str().expect("an id").to_owned()).collect()
    };
    let all = get(setting.admin, "/decisions").await.json();
    assert_eq!(ids(&all), ["r3", "r2", "r1"]);
    let two = get(setting.admin, "/decisions?limit=2").await.json();
    assert_eq!(ids(&two), ["r3", "r2"]);
    assert_eq!(ids(&get(setting.admin, "/decisions?limit=0").await.json()), [""; 0]);
    let reply = get(setting.admin, "/decisions?limit=few").await;
    assert_eq!(reply.status, 400);
    assert!(reply.body.contains("whole number"), "{}", reply.body);

    let newest = &all[0];
    for (field, value) in [
        ("model", "llama2"),
        ("pool", "llama"),
        ("namespace", "default"),
        ("policy", "least-request"),
        ("reason", "load"),
    ] {
        assert_eq!(newest[field], json!(value), "{field}");
    }
    let time = newest["time"].as_str().expect("a time");
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000Z");
    assert!(newest["queue_ms"].as_f64().is_some_and(|waited| waited >= 0.0), "{newest}");
    assert_eq!(newest.get("cost_unit"), None, "requests in flight have no unit");
    let candidates = newest["candidates"].as_array().expect("candidates");
    assert_eq!(candidates.len(), 2);
    for candidate in candidates {
        assert!(candidate["endpoint"].is_string());
        let terms = candidate["terms"].as_object().expect("terms");
        let sum: f64 = terms.values().filter_map(Value::as_f64).sum();
        assert!((candidate["cost"].as_f64().expect("a cost") - sum).abs() < 1e-9, "{candidate}");
    }
    drop(assignments);
    setting.end().await;
}

#[tokio::test]
async fn a_decision_of_predicted_has_its_terms_in_seconds() {
    let setting = Setting::start().await;
    let mut desired = picker::Desired::clone(&setting.picker.view().desired());
    desired.pools[0].policy = scheduling::Policy::Predicted;
    setting.picker.writer().apply(desired);
    let assignment = setting.pick("r1");
    let decision = get(setting.admin, "/decisions").await.json()[0].take();
    assert_eq!(decision["cost_unit"], "seconds");
    assert!(["10.0.0.1:8000", "10.0.0.2:8000"].map(Value::from).contains(&decision["endpoint"]));
    for candidate in decision["candidates"].as_array().expect("candidates") {
        let terms: Vec<_> = candidate["terms"].as_object().expect("terms").keys().collect();
        let expected =
            ["adapter", "crowding", "decode", "kv_wait", "prefill", "prefill_ahead", "stall"];
        assert_eq!(terms, expected);
    }
    drop(assignment);
    setting.end().await;
}

#[tokio::test]
async fn the_configuration_is_shown_with_its_settings() {
    let setting = Setting::start().await;
    let dump = get(setting.admin, "/config_dump").await.json();
    assert_eq!(dump["generation"], json!(3));
    assert_eq!(dump["desired"]["pools"][1]["pool"]["kind"], "Service");
    assert_eq!(dump["desired"]["listeners"], json!([]));
    setting.end().await;
}

#[tokio::test]
async fn objects_are_filtered() {
    let setting = Setting::start().await;
    let count = |value: Value| value.as_array().expect("an array").len();
    assert_eq!(count(get(setting.admin, "/objects").await.json()), 2);
    let pools = get(setting.admin, "/objects?kind=inferencepools&namespace=default").await.json();
    assert_eq!(pools[0]["metadata"]["name"], "llama");
    assert_eq!(count(pools), 1);
    assert_eq!(count(get(setting.admin, "/objects?kind=secret").await.json()), 0);
    setting.end().await;
}

#[tokio::test]
async fn a_drain_is_begun_by_post_and_not_from_another_site() {
    let setting = Setting::start().await;
    let drains = || setting.drains.load(Ordering::Relaxed);
    let host = "Host: localhost\r\n";
    let foreign = format!("{host}Sec-Fetch-Site: cross-site\r\n");
    assert_eq!(ask_with(setting.admin, "POST", "/drain", &foreign).await.status, 403);
    assert_eq!(
        ask_with(setting.admin, "POST", "/drain", "Host: evil.example\r\n").await.status,
        403
    );
    assert_eq!(
        ask_with(setting.admin, "GET", "/objects", "Host: evil.example\r\n").await.status,
        403
    );
    assert_eq!(drains(), 0);

    let reply = ask_with(setting.admin, "POST", "/drain", host).await;
    assert_eq!((reply.status, reply.json()), (200, json!({ "draining": true })));
    assert_eq!(drains(), 1);
    setting.end().await;
}

#[tokio::test]
async fn levels_are_shown_and_changed_but_not_from_another_site() {
    let setting = Setting::start().await;
    let path = "/logging?proxy=debug&level=info";
    let foreign = "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n";
    assert_eq!(ask_with(setting.admin, "POST", path, foreign).await.status, 403);
    assert_eq!(
        ask(setting.admin, "DELETE", path).await.header("allow"),
        Some("GET, HEAD, POST, PUT")
    );
    assert_eq!(
        get(setting.admin, path).await.json(),
        json!({ "asked": [] }),
        "reading changes nothing"
    );

    let asked = json!({ "asked": [["proxy", "debug"], ["level", "info"]] });
    assert_eq!(ask(setting.admin, "POST", path).await.json(), asked);
    let reply = ask(setting.admin, "PUT", "/logging?picker=loud").await;
    assert_eq!((reply.status, &reply.json()["error"]["message"]), (400, &json!("expected info")));
    assert_eq!(get(setting.admin, "/logging").await.json(), asked);
    setting.end().await;
}

#[tokio::test]
async fn health_and_stats_answer_under_any_host() {
    let setting = Setting::start().await;
    for (address, path) in [(setting.health, "/healthz/ready"), (setting.stats, "/metrics")] {
        let reply = ask_with(address, "GET", path, "Host: gateway.example\r\n").await;
        assert_eq!(reply.status, 200, "{path}");
    }
    setting.end().await;
}
