//! Figures for programs: all of them by name, and llmperf's.

use serde_json::{Map, Value, json};
use sim::{
    Distribution,
    driver::{Outcome, Plan},
};

/// llmperf's quantiles.
pub(crate) const LLMPERF_QUANTILES: [(&str, f64); 6] =
    [("p25", 0.25), ("p50", 0.5), ("p75", 0.75), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)];

/// Everything that was measured, and of what.
pub(crate) fn all(plan: &Plan, measured: &Outcome) -> Value {
    let mut figures = Map::new();
    figures.insert("workload".to_owned(), plan.workload.name().into());
    figures.insert("model".to_owned(), plan.model.as_str().into());
    figures.insert("seed".to_owned(), plan.seed.into());
    figures.insert("salt".to_owned(), plan.salt.into());
    figures.extend(measured_only(measured));
    figures.insert("llmperf".to_owned(), Value::Object(llmperf(measured)));
    Value::Object(figures)
}

/// What was measured, by names that end with their unit.
pub(crate) fn measured_only(measured: &Outcome) -> Map<String, Value> {
    let mut figures = Map::new();
    let times = [
        ("ttft", &measured.ttft),
        ("tpot", &measured.tpot),
        ("itl", &measured.itl),
        ("ntpot", &measured.ntpot),
        ("e2e", &measured.e2e),
        ("send_lateness", &measured.lateness),
    ];
    for (name, values) in times {
        let quantiles = [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)];
        let quantiles = quantiles.map(|(label, share)| (label, values.quantile(share)));
        let ends = [("min", values.min()), ("max", values.max())];
        for (label, value) in std::iter::once(("mean", values.mean())).chain(quantiles).chain(ends)
        {
            figures.insert(format!("{name}_{label}_s"), value.into());
        }
    }
    let errors: Map<String, Value> =
        measured.errors.iter().map(|(kind, e)| (kind.to_string(), e.count.into())).collect();
    let limit = |limit: Option<std::time::Duration>| limit.map(|limit| limit.as_secs_f64());
    let rest = json!({
        "started": measured.started,
        "completed": measured.completed,
        "failed": measured.failed,
        "not_sent": measured.not_sent,
        "unfinished": measured.unfinished(),
        "interrupted": measured.interrupted,
        "errors": errors,
        "duration_s": measured.duration.as_secs_f64(),
        "requests_per_s": measured.requests_per_s(),
        "output_tokens_per_s": measured.output_tokens_per_s(),
        "total_tokens_per_s": measured.total_tokens_per_s(),
        "prompt_tokens": measured.prompt_tokens,
        "cached_tokens": measured.cached_tokens,
        "output_tokens": measured.output_tokens,
        "without_usage": measured.without_usage,
        "slo_ttft_s": limit(measured.slo.ttft),
        "slo_tpot_s": limit(measured.slo.tpot),
        "slo_e2e_s": limit(measured.slo.e2e),
        "goodput_requests_per_s": measured.goodput_per_s(),
        "goodput_ratio": measured.goodput_share(),
    });
    if let Value::Object(rest) = rest {
        figures.extend(rest);
    }
    figures
}

/// llmperf's metrics of single requests. What it calls inter-token latency is E2E over output tokens.
pub(crate) fn llmperf_metrics(measured: &Outcome) -> [(&'static str, &Distribution); 6] {
    [
        ("inter_token_latency_s", &measured.ntpot),
        ("ttft_s", &measured.ttft),
        ("end_to_end_latency_s", &measured.e2e),
        ("request_output_throughput_token_per_s", &measured.output_rate),
        ("number_input_tokens", &measured.prompt_lengths),
        ("number_output_tokens", &measured.output_lengths),
    ]
}

/// llmperf's metrics of the whole run.
pub(crate) fn llmperf_totals(measured: &Outcome) -> [(&'static str, Value); 7] {
    let codes: Map<String, Value> =
        measured.errors.iter().map(|(kind, e)| (code(&kind.to_string()), e.count.into())).collect();
    [
        ("num_requests_started", measured.started.into()),
        ("error_rate", measured.error_share().into()),
        ("number_errors", measured.failed.into()),
        ("error_code_frequency", Value::Object(codes)),
        ("mean_output_throughput_token_per_s", measured.output_tokens_per_s().into()),
        ("num_completed_requests", measured.completed.into()),
        ("num_completed_requests_per_min", (measured.requests_per_s() * 60.0).into()),
    ]
}

/// llmperf knows statuses only.
fn code(kind: &str) -> String {
    kind.strip_prefix("status_").unwrap_or(kind).to_owned()
}

/// As in llmperf's summary file.
fn llmperf(measured: &Outcome) -> Map<String, Value> {
    let mut figures = Map::new();
    for (name, values) in llmperf_metrics(measured) {
        for (label, share) in LLMPERF_QUANTILES {
            let key = format!("results_{name}_quantiles_{label}");
            figures.insert(key, values.quantile(share).into());
        }
        let others = [
            ("mean", values.mean()),
            ("min", values.min()),
            ("max", values.max()),
            ("stddev", values.deviation()),
        ];
        for (label, value) in others {
            figures.insert(format!("results_{name}_{label}"), value.into());
        }
    }
    let totals = llmperf_totals(measured);
    figures.extend(totals.map(|(name, value)| (format!("results_{name}"), value)));
    figures
}
