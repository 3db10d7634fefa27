use std::collections::BTreeSet;

use scheduling::{EndpointId, Policy, Reading, Signals};

use super::{
    series::{MODEL_LABEL_BYTES_MAX, MODEL_LABELS_MAX},
    *,
};
use crate::{
    Health,
    picker::tests::{Gateway, desired, key, record},
};

fn metrics() -> Metrics {
    Metrics::new(Workload { name: "gateway".to_owned(), namespace: "default".to_owned() }).unwrap()
}

/// The page's samples that start with `name`, each with its labels in order.
fn samples(page: &str, name: &str) -> BTreeSet<String> {
    let lines = page.lines().filter(|line| line.starts_with(name));
    lines
        .map(|line| {
            let Some((name, rest)) = line.split_once('{') else { return line.to_owned() };
            let (labels, value) = rest.rsplit_once('}').unwrap();
            let labels: BTreeSet<&str> = labels.split(',').collect();
            let labels: Vec<&str> = labels.into_iter().collect();
            format!("{name}{{{}}}{value}", labels.join(","))
        })
        .collect()
}

/// Exactly these samples start with `name`.
fn check(page: &str, name: &str, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(|line| (*line).to_owned()).collect();
    assert_eq!(samples(page, name), expected);
}

/// A whole answer from pool `p` for a model that an object names.
fn answered(model: &str) -> RequestRecord {
    let mut one = record(model);
    one.pool = Some(key("p"));
    one.model_known = true;
    one.response_code = 200;
    one.finish = Some(Finish::Complete(None));
    one
}

fn observed(records: impl IntoIterator<Item = RequestRecord>) -> String {
    let metrics = metrics();
    for record in records {
        metrics.observe(&record, Duration::from_millis(1500));
    }
    metrics.render(&[], &[])
}

/// Values of the label `model` in the count of requests.
fn model_labels(page: &str) -> BTreeSet<String> {
    let lines = samples(page, "istio_requests_total{");
    lines
        .iter()
        .map(|line| {
            let (_, rest) = line.split_once(",model=\"").unwrap();
            rest.split('"').next().unwrap().to_owned()
        })
        .collect()
}

#[test]
fn every_metric_is_declared_once_with_help() {
    let metrics = metrics();
    for name in ["accepted", "ok"] {
        metrics.connections.with_label_values(&[name]).inc();
        metrics.reloads.with_label_values(&[name]).inc();
    }
    metrics.scraped("p", "ok");
    metrics.retry("p", "reset");
    let mut refused = answered("m");
    refused.finish = Some(Finish::Refused("reset"));
    metrics.observe(&refused, Duration::ZERO);
    let page = metrics.render(&[], &[]);
    let helps: Vec<&str> = page.lines().filter(|line| line.starts_with("# HELP")).collect();
    let names: BTreeSet<&str> =
        helps.iter().filter_map(|line| line.split_whitespace().nth(2)).collect();
    let kinds = page.lines().filter(|line| line.starts_with("# TYPE")).count();
    assert!(names.len() >= 11, "{names:?}");
    assert_eq!((names.len(), helps.len()), (kinds, kinds));
    assert!(helps.iter().all(|line| line.split_whitespace().count() > 4), "{helps:?}");
}

#[test]
fn scrapes_are_counted_by_outcome() {
    let metrics = metrics();
    metrics.scraped("p", "ok");
    metrics.scraped("p", "ok");
    metrics.scraped("p", "failed");
    let expected = [
        "tokenweir_scrapes_total{outcome=\"ok\",pool=\"p\"} 2",
        "tokenweir_scrapes_total{outcome=\"failed\",pool=\"p\"} 1",
    ];
    check(&metrics.render(&[], &[]), "tokenweir_scrapes_total", &expected);
}

#[test]
fn tokens_are_counted_under_asms_names() {
    let with = |prompt_tokens, completion_tokens| {
        let mut one = answered("m");
        one.usage.prompt_tokens = prompt_tokens;
        one.usage.completion_tokens = completion_tokens;
        one
    };
    let mut nowhere = with(Some(1000), Some(1000));
    nowhere.pool = None;
    let page = observed([
        with(Some(12), Some(30)),
        with(Some(3), None),
        with(None, Some(4)),
        with(None, None),
        nowhere,
    ]);
    let labels = "{llmproxy_destination_service=\"p.default.svc.cluster.local\",\
                  llmproxy_model=\"m\",llmproxy_source_workload=\"gateway\",\
                  llmproxy_source_workload_namespace=\"default\"}";
    let expected = [
        format!("asm_llm_proxy_prompt_tokens{labels} 15"),
        format!("asm_llm_proxy_completion_tokens{labels} 34"),
    ];
    check(&page, "asm_llm_proxy", &expected.each_ref().map(String::as_str));
    assert!(page.contains("# TYPE asm_llm_proxy_prompt_tokens counter"), "{page}");
}

#[test]
fn requests_are_counted_with_istios_labels() {
    let mut lost = record("m");
    lost.response_code = 404;
    lost.response_flags = "NR";
    let page = observed([answered("m"), answered("m"), lost]);
    let labels = |model, code, flags, service, name, namespace| {
        let unknown = "=\"unknown\"";
        format!(
            "istio_requests_total{{connection_security_policy{unknown},\
             destination_app{unknown},destination_canonical_revision=\"latest\",\
             destination_canonical_service=\"{name}\",destination_cluster{unknown},\
             destination_principal{unknown},destination_service=\"{service}\",\
             destination_service_name=\"{name}\",destination_service_namespace=\"{namespace}\",\
             destination_version{unknown},destination_workload=\"{name}\",\
             destination_workload_namespace=\"{namespace}\",grpc_response_status=\"\",\
             model=\"{model}\",reporter=\"source\",request_protocol=\"http\",\
             response_code=\"{code}\",response_flags=\"{flags}\",source_app=\"gateway\",\
             source_canonical_revision=\"latest\",source_canonical_service=\"gateway\",\
             source_cluster{unknown},source_principal{unknown},source_version{unknown},\
             source_workload=\"gateway\",source_workload_namespace=\"default\"}}"
        )
    };
    let ok = labels("m", 200, "-", "p.default.svc.cluster.local", "p", "default");
    let lost = labels("m", 404, "NR", "unknown", "unknown", "unknown");
    check(&page, "istio_requests_total", &[&format!("{ok} 2"), &format!("{lost} 1")]);
}

#[test]
fn istios_histograms_count_milliseconds_and_bytes() {
    let mut one = answered("m");
    (one.bytes_received, one.bytes_sent) = (120, 4000);
    let page = observed([one]);
    for (name, sum) in [
        ("istio_request_duration_milliseconds", 1500),
        ("istio_request_bytes", 120),
        ("istio_response_bytes", 4000),
    ] {
        let sums = samples(&page, &format!("{name}_sum{{"));
        assert_eq!(sums.len(), 1, "{page}");
        assert!(sums.iter().all(|line| line.ends_with(&format!("}} {sum}"))), "{sums:?}");
    }
    let low = samples(&page, "istio_request_duration_milliseconds_bucket{");
    for (bucket, count) in [("le=\"1000\"", " 0"), ("le=\"2500\"", " 1")] {
        let line = low.iter().find(|line| line.contains(bucket)).unwrap();
        assert!(line.ends_with(count), "{line}");
    }
}

#[test]
fn latencies_are_observed_where_they_are_known() {
    let mut streamed = answered("m");
    let start = streamed.started;
    streamed.first_token = Some(start + Duration::from_millis(250));
    streamed.last_token = Some(start + Duration::from_millis(1250));
    streamed.usage.completion_tokens = Some(5);
    streamed.queue = Some(Duration::from_millis(125));
    let page = observed([streamed, answered("m")]);
    let labels = "{model=\"m\",pool=\"p\"}";
    for (name, sum, count) in [
        ("tokenweir_request_duration_seconds", "3", 2),
        ("tokenweir_time_to_first_token_seconds", "0.25", 1),
        ("tokenweir_time_per_output_token_seconds", "0.25", 1),
        ("tokenweir_queue_seconds", "0.125", 1),
    ] {
        check(&page, &format!("{name}_sum"), &[&format!("{name}_sum{labels} {sum}")]);
        check(&page, &format!("{name}_count"), &[&format!("{name}_count{labels} {count}")]);
    }
    let buckets = samples(&page, "tokenweir_time_to_first_token_seconds_bucket{");
    for (end, count) in [("0.1", 0), ("0.25", 1)] {
        let line = format!("_bucket{{le=\"{end}\",model=\"m\",pool=\"p\"}} {count}");
        assert!(buckets.iter().any(|sample| sample.ends_with(&line)), "{line}: {buckets:?}");
    }
}

#[test]
fn refusals_departures_and_broken_answers_are_counted_by_reason() {
    let ended = |finish, pool: Option<&str>| {
        let mut one = answered("m");
        one.finish = Some(finish);
        one.pool = pool.map(key);
        one
    };
    let page = observed([
        ended(Finish::Refused("no_route"), None),
        ended(Finish::Refused("no_endpoints"), Some("p")),
        ended(Finish::Refused("no_endpoints"), Some("p")),
        ended(Finish::ClientGone, Some("p")),
        ended(Finish::ClientGone, None),
        ended(Finish::EndpointGone, Some("p")),
        ended(Finish::EndpointGone, Some("p")),
        ended(Finish::IdleTimeout, Some("p")),
        ended(Finish::Draining, Some("p")),
        ended(Finish::Complete(None), Some("p")),
    ]);
    let refusals = [
        "tokenweir_refusals_total{pool=\"unknown\",reason=\"no_route\"} 1",
        "tokenweir_refusals_total{pool=\"p\",reason=\"no_endpoints\"} 2",
    ];
    check(&page, "tokenweir_refusals_total", &refusals);
    let departures = [
        "tokenweir_client_disconnects_total{pool=\"p\"} 1",
        "tokenweir_client_disconnects_total{pool=\"unknown\"} 1",
    ];
    check(&page, "tokenweir_client_disconnects_total", &departures);
    let broken = [
        "tokenweir_broken_answers_total{pool=\"p\",reason=\"draining\"} 1",
        "tokenweir_broken_answers_total{pool=\"p\",reason=\"endpoint_gone\"} 2",
        "tokenweir_broken_answers_total{pool=\"p\",reason=\"idle_timeout\"} 1",
    ];
    check(&page, "tokenweir_broken_answers_total", &broken);
    let reloads = [
        "tokenweir_config_reloads_total{outcome=\"applied\"} 0",
        "tokenweir_config_reloads_total{outcome=\"rejected\"} 0",
    ];
    check(&page, "tokenweir_config_reloads_total", &reloads);
}

#[test]
fn picks_are_counted_by_what_settled_them() {
    let gateway = Gateway::new(desired(Policy::LeastRequest, "p: a b | q: c"));
    for (pool, times) in [("p", 3), ("q", 2)] {
        (0..times).for_each(|_| drop(gateway.ask(pool, "m").unwrap()));
    }
    let page = gateway.page();
    let expected = [
        "tokenweir_picks_total{policy=\"least-request\",pool=\"p\",reason=\"load\"} 3",
        "tokenweir_picks_total{policy=\"least-request\",pool=\"q\",reason=\"only\"} 2",
    ];
    check(&page, "tokenweir_picks_total", &expected);
    let counts = [
        "tokenweir_pick_seconds_count{model=\"other\",pool=\"p\"} 3",
        "tokenweir_pick_seconds_count{model=\"other\",pool=\"q\"} 2",
    ];
    check(&page, "tokenweir_pick_seconds_count", &counts);
}

#[test]
fn a_model_becomes_a_label_only_if_it_is_real() {
    let long = "m".repeat(MODEL_LABEL_BYTES_MAX + 1);
    let longest = "m".repeat(MODEL_LABEL_BYTES_MAX);
    let cases = [
        ("m", true, 200, None, "m"),
        ("m", true, 503, None, "m"),
        ("m", false, 200, None, "m"),
        ("m", false, 404, None, "other"),
        ("m", false, 400, None, "other"),
        ("m", false, 499, None, "other"),
        ("m", true, 200, Some("x"), "m"),
        ("m", false, 200, Some("x"), "other"),
        ("", false, 200, None, "unknown"),
        ("", true, 404, None, "unknown"),
        (longest.as_str(), true, 200, None, longest.as_str()),
        (long.as_str(), true, 200, None, "other"),
    ];
    for (model, known, code, target, expected) in cases {
        let mut one = answered(model);
        one.model_known = known;
        one.response_code = code;
        one.target_model = target.map(str::to_owned);
        let labels = model_labels(&observed([one]));
        assert_eq!(labels, [expected.to_owned()].into(), "{model} {known} {code} {target:?}");
    }
}

#[test]
fn a_name_that_was_real_once_stays_a_label() {
    let mut failed = answered("m");
    (failed.model_known, failed.response_code) = (false, 500);
    let page = observed([failed.clone(), answered("m"), failed]);
    assert_eq!(model_labels(&page), ["m".to_owned(), "other".to_owned()].into());
    let failures = samples(&page, "istio_requests_total{");
    let of = |model: &str| {
        let mut lines = failures.iter().filter(|line| line.contains("response_code=\"500\""));
        lines.any(|line| line.contains(&format!("model=\"{model}\"")) && line.ends_with("} 1"))
    };
    assert!(of("m") && of("other"), "{failures:?}");
}

#[test]
fn model_labels_are_bounded() {
    let name = |number| format!("m{number:03}");
    let more = (0..MODEL_LABELS_MAX + 50).chain([0]);
    let page = observed(more.map(|number| {
        let mut one = answered(&name(number));
        one.model_known = false;
        one
    }));
    let mut expected: BTreeSet<String> = (0..MODEL_LABELS_MAX).map(name).collect();
    expected.insert("other".to_owned());
    assert_eq!(model_labels(&page), expected);
    check(
        &page,
        "tokenweir_request_duration_seconds_count{model=\"other\"",
        &["tokenweir_request_duration_seconds_count{model=\"other\",pool=\"p\"} 50"],
    );
    check(
        &page,
        "tokenweir_request_duration_seconds_count{model=\"m000\"",
        &["tokenweir_request_duration_seconds_count{model=\"m000\",pool=\"p\"} 2"],
    );
}

#[test]
fn ten_thousand_made_up_names_make_no_series_and_use_up_no_label() {
    let made_up = |names| {
        (0..names).map(|number| {
            let mut one = answered(&format!("x{number}"));
            (one.model_known, one.response_code) = (false, 404);
            one
        })
    };
    let page = observed(made_up(10_000).chain([answered("m")]));
    assert_eq!(model_labels(&page), ["m".to_owned(), "other".to_owned()].into());
    let small = observed(made_up(1).chain([answered("m")]));
    assert_eq!(page.lines().count(), small.lines().count());
}

fn hear(gateway: &Gateway, id: &str, health: Health, waiting: u32, kv: f64) {
    let heard = crate::monotonic();
    let signals = Signals {
        waiting: Some(Reading { value: waiting, heard }),
        running: Some(Reading { value: waiting + 1, heard }),
        kv_usage: Some(Reading { value: kv, heard }),
        ..Signals::default()
    };
    let writer = gateway.picker.writer();
    writer.signals(&EndpointId::new(id), signals, scheduling::ScrapeMark::NOTHING);
    writer.health(&EndpointId::new(id), health);
}

#[tokio::test(start_paused = true)]
async fn gauges_show_what_is_known_of_endpoints() {
    let gateway = Gateway::new(desired(Policy::LeastRequest, "p: a b"));
    hear(&gateway, "a", Health::Ready, 3, 0.5);
    tokio::time::advance(Duration::from_millis(1500)).await;
    let held = [gateway.pick().unwrap(), gateway.pick().unwrap(), gateway.pick().unwrap()];
    let on = |id: &str| held.iter().filter(|one| one.endpoint().spec.id.as_str() == id).count();
    let (a, b) = (on("a"), on("b"));
    let endpoint = |name: &str, id: &str, value: &str| {
        format!("tokenweir_endpoint_{name}{{endpoint=\"{id}\",pool=\"p\"}} {value}")
    };
    let expected = [
        endpoint("in_flight", "a", &a.to_string()),
        endpoint("in_flight", "b", &b.to_string()),
        endpoint("waiting", "a", "3"),
        endpoint("running", "a", "4"),
        endpoint("kv_usage", "a", "0.5"),
        endpoint("prefill_tokens_pending", "a", "2"),
        endpoint("prefill_tokens_pending", "b", "1"),
        endpoint("healthy", "a", "1"),
        endpoint("healthy", "b", "0"),
        endpoint("metrics_age_seconds", "a", "1.5"),
    ];
    check(&gateway.page(), "tokenweir_endpoint_", &expected.each_ref().map(String::as_str));

    // What it told last is over; for how long it has been silent is worth knowing.
    gateway.picker.writer().health(&EndpointId::new("a"), Health::Unready);
    let page = gateway.page();
    for load in ["waiting", "running", "kv_usage"] {
        check(&page, &format!("tokenweir_endpoint_{load}"), &[]);
    }
    let age = endpoint("metrics_age_seconds", "a", "1.5");
    check(&page, "tokenweir_endpoint_metrics_age_seconds", &[&age]);
}

#[test]
fn gauges_of_pools_are_means_over_ready_endpoints() {
    let gateway = Gateway::new(desired(Policy::LeastRequest, "p: a b c d | q: d"));
    hear(&gateway, "a", Health::Ready, 3, 0.5);
    hear(&gateway, "b", Health::Ready, 4, 0.25);
    hear(&gateway, "c", Health::Unready, 90, 1.0);
    let expected = [
        "inference_pool_average_kv_cache_utilization{name=\"p\"} 0.375",
        "inference_pool_average_kv_cache_utilization{name=\"q\"} 0",
        "inference_pool_average_queue_size{name=\"p\"} 3.5",
        "inference_pool_average_queue_size{name=\"q\"} 0",
        "inference_pool_ready_pods{name=\"p\"} 2",
        "inference_pool_ready_pods{name=\"q\"} 0",
    ];
    check(&gateway.page(), "inference_pool_", &expected);
}

#[test]
fn gauges_of_what_was_removed_disappear() {
    let gateway = Gateway::new(desired(Policy::LeastRequest, "p: a b | q: c"));
    for id in ["a", "b", "c"] {
        hear(&gateway, id, Health::Ready, 1, 0.5);
    }
    assert_eq!(samples(&gateway.page(), "tokenweir_endpoint_").len(), 21);
    gateway.picker.writer().apply(desired(Policy::LeastRequest, "p: b"));
    let page = gateway.page();
    let kept = samples(&page, "tokenweir_endpoint_");
    assert_eq!(kept.len(), 7, "{kept:?}");
    assert!(kept.iter().all(|line| line.contains("endpoint=\"b\"")), "{kept:?}");
    check(&page, "inference_pool_ready_pods", &["inference_pool_ready_pods{name=\"p\"} 1"]);
}

#[test]
fn the_tally_has_the_counts_of_the_page() {
    let metrics = metrics();
    let streamed = |model: &str, ttft: Duration| {
        let mut one = answered(model);
        one.first_token = Some(one.started + ttft);
        (one.usage.prompt_tokens, one.usage.completion_tokens) = (Some(10), Some(3));
        one
    };
    let ended = |finish: Finish| RequestRecord { finish: Some(finish), ..answered("m") };
    for record in [
        streamed("m", Duration::from_millis(1)),
        streamed("m", Duration::from_millis(300)),
        streamed("n", Duration::from_secs(1000)),
        ended(Finish::Refused("shed")),
        ended(Finish::ClientGone),
    ] {
        metrics.observe(&record, Duration::from_secs(2));
    }
    metrics.retry("p", "reset");
    let tally = metrics.tally();
    let requests: Vec<_> = tally
        .requests
        .iter()
        .map(|one| (one.pool.as_str(), one.model.as_str(), one.requests))
        .collect();
    assert_eq!(requests, [("p", "m", 4), ("p", "n", 1)]);
    let filled = |counts: &[u64]| -> Vec<(usize, u64)> {
        counts.iter().copied().enumerate().filter(|(_, count)| *count > 0).collect()
    };
    // Up to 1 ms, between 250 ms and 500 ms, and beyond 640 s.
    assert_eq!(filled(&tally.requests[0].ttft), [(0, 1), (9, 1)]);
    assert_eq!(filled(&tally.requests[1].ttft), [(TTFT_SECONDS.len(), 1)]);
    let tokens: Vec<_> = tally
        .tokens
        .iter()
        .map(|one| (one.service.as_str(), one.model.as_str(), one.prompt, one.completion))
        .collect();
    let service = "p.default.svc.cluster.local";
    assert_eq!(tokens, [(service, "m", 20, 6), (service, "n", 10, 3)]);
    let outcomes: Vec<_> = tally
        .outcomes
        .iter()
        .map(|one| (one.outcome, one.pool.as_str(), one.what.as_str(), one.count))
        .collect();
    let expected = [
        (TalliedOutcome::Retry, "p", "reset", 1),
        (TalliedOutcome::Refusal, "p", "shed", 1),
        (TalliedOutcome::Disconnect, "p", "", 1),
    ];
    assert_eq!(outcomes, expected);
}
