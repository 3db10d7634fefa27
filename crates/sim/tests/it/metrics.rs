//! GET /metrics beside recordings of the real one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use sim::{Server, SimConfig};

use crate::wire::{exchange, get, post};

/// What a page says of a metric family: type and help.
type Families = BTreeMap<String, (String, String)>;
/// Series, as name and sorted label names, `reason` and the like with their values.
type Series = BTreeSet<String>;

fn recorded(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/metrics").join(name);
    std::fs::read_to_string(path).expect("a recording")
}

fn families(page: &str) -> Families {
    let mut families = Families::new();
    for line in page.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|l| l.split_once(' ')) {
            help.clone_into(&mut families.entry(name.to_owned()).or_default().1);
        }
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' ')) {
            kind.clone_into(&mut families.entry(name.to_owned()).or_default().0);
        }
    }
    families.retain(|name, _| name.starts_with("vllm:"));
    families
}

/// Series with the value of every label, but for those of adapters and configuration.
fn series(page: &str) -> Series {
    page.lines()
        .filter(|line| line.starts_with("vllm:"))
        .filter(|line| !line.contains("_info{"))
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(series, _)| series.to_owned())
        .collect()
}

fn value(page: &str, series: &str) -> f64 {
    let line = page.lines().find(|line| line.starts_with(series));
    let line = line.unwrap_or_else(|| panic!("no {series}"));
    let number = line.rsplit_once(' ').and_then(|(_, number)| number.parse().ok());
    number.unwrap_or_else(|| panic!("{line} has no number"))
}

async fn page(server: &sim::Running) -> String {
    let reply = exchange(server.addr(), &get("/metrics")).await;
    let content_type = reply.header("content-type");
    assert_eq!(content_type, Some("text/plain; version=1.0.0; charset=utf-8"));
    reply.body()
}

#[tokio::test]
async fn a_fresh_server_has_every_series_of_the_real_one_and_no_other() {
    let server = Server::start(SimConfig::fast()).await.unwrap();
    let (page, real) = (page(&server).await, recorded("vllm-0.32.0-load.prom"));
    assert_eq!(families(&page), families(&real));
    assert_eq!(series(&page), series(&real));
    let count = |page: &str| page.lines().filter(|line| line.starts_with("vllm:lora")).count();
    assert_eq!(count(&page), 0, "this one appears with the first step");
}

#[tokio::test]
async fn the_numbers_are_those_of_the_work_done() {
    let server = Server::start(SimConfig::fast()).await.unwrap();
    for model in ["sql-lora", "tweet-summary", ""] {
        let body = format!(r#"{{"model": "{model}", "prompt": "one two", "max_tokens": 20}}"#);
        assert_eq!(exchange(server.addr(), &post("/v1/completions", &body)).await.code(), 200);
    }
    let page = page(&server).await;
    for (series, expected) in [
        (r#"vllm:generation_tokens_total{engine="0",model_name="/model/llama2"}"#, 60.0),
        (r#"vllm:prompt_tokens_total{engine="0",model_name="/model/llama2"}"#, 9.0),
        (r#"vllm:request_success_total{engine="0",finished_reason="length","#, 3.0),
        ("vllm:iteration_tokens_total_count{", 60.0),
        ("vllm:iteration_tokens_total_sum{", 69.0),
        (r#"vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf","#, 3.0),
        ("vllm:inter_token_latency_seconds_count{", 57.0),
        ("vllm:num_requests_running{", 0.0),
        (r#"http_requests_total{handler="/v1/completions",method="POST",status="2xx"}"#, 3.0),
    ] {
        assert!(
            (value(&page, series) - expected).abs() < 1e-9,
            "{series}: {}",
            value(&page, series)
        );
    }
    // Old label sets stay; the newest has the greatest value.
    let lora = |running: &str| {
        let labels = format!(
            r#"vllm:lora_requests_info{{max_lora="4",running_lora_adapters="{running}",waiting_lora_adapters="{running}"}}"#
        );
        value(&page, &labels)
    };
    assert!(lora("sql-lora") < lora("tweet-summary"));
    assert!(lora("tweet-summary") < lora(""));
    assert!(page.contains(r#"block_size="16""#) && page.contains(r#"num_gpu_blocks="575""#));
}

#[tokio::test]
async fn adapters_that_wait_are_deferred() {
    let server = Server::start(SimConfig { speedup: 5.0, ..SimConfig::default() }).await.unwrap();
    let mut wires = Vec::new();
    for adapter in 0..5 {
        let mut wire = crate::wire::Wire::open(server.addr()).await;
        let model =
            if adapter == 0 { "sql-lora".to_owned() } else { format!("sql-lora-{adapter}") };
        let body = format!(r#"{{"model": "{model}", "prompt": "x", "max_tokens": 2000}}"#);
        wire.send(&post("/v1/completions", &body)).await;
        wires.push(wire);
    }
    server.handle().until(|handle| handle.metrics().waiting_deferred == 1).await;
    let page = page(&server).await;
    let deferred = r#"vllm:num_requests_waiting_by_reason{engine="0",model_name="/model/llama2",reason="deferred"}"#;
    assert!((value(&page, deferred) - 1.0).abs() < 1e-9);
    assert!((value(&page, "vllm:num_requests_running{") - 4.0).abs() < 1e-9);
    assert!((value(&page, "vllm:num_requests_waiting{") - 1.0).abs() < 1e-9);
    assert!(value(&page, "vllm:kv_cache_usage_perc{") > 0.0);
}

#[tokio::test]
async fn legacy_names_are_those_of_the_old_engine() {
    let config = SimConfig { legacy_metrics: true, ..SimConfig::fast() };
    let server = Server::start(config).await.unwrap();
    let body = r#"{"prompt": "one two", "max_tokens": 20}"#;
    exchange(server.addr(), &post("/v1/completions", body)).await;
    let (page, real) = (page(&server).await, recorded("vllm-0.8.5-load.prom"));
    let (ours, theirs) = (families(&page), families(&real));
    for (name, kind) in &ours {
        assert_eq!(theirs.get(name), Some(kind), "{name}");
    }
    for name in ["vllm:gpu_cache_usage_perc", "vllm:time_per_output_token_seconds"] {
        assert!(ours.contains_key(name), "{name}");
    }
    assert!(!page.contains("engine=\"0\"") && !page.contains("_created"));
    assert!(!page.contains("vllm:kv_cache_usage_perc"));
}
