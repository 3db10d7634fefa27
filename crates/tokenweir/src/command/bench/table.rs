//! Figures for people.

use std::fmt::Write;

use sim::driver::Outcome;

use super::figures::{LLMPERF_QUANTILES, llmperf_metrics};
use crate::outcome::say;

pub(crate) fn show(measured: &Outcome) {
    let milliseconds = |value: f64| format!("{:.2}", value * 1e3);
    let rows = [
        ("TTFT ms", &measured.ttft),
        ("TPOT ms", &measured.tpot),
        ("ITL ms", &measured.itl),
        ("NTPOT ms", &measured.ntpot),
        ("E2E ms", &measured.e2e),
    ];
    say(&format!(
        "\n{:<10}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}",
        "", "mean", "p50", "p90", "p95", "p99", "max"
    ));
    for (name, values) in rows {
        let mut line = format!("{name:<10}");
        let quantiles = [0.5, 0.9, 0.95, 0.99].map(|share| values.quantile(share));
        for value in [&[values.mean()], &quantiles[..], &[values.max()]].concat() {
            let shown = value.map_or_else(|| "-".to_owned(), milliseconds);
            // Writing to a string does not fail.
            let _ = write!(line, "{shown:>10}");
        }
        say(&line);
    }
    say("");
    counts(measured);
}

fn counts(measured: &Outcome) {
    let row = |name: &str, value: String| say(&format!("{name:<22}{value}"));
    let seconds = measured.duration.as_secs_f64();
    row(
        "requests",
        format!("{} completed, {} failed in {seconds:.2} s", measured.completed, measured.failed),
    );
    row("requests/s", format!("{:.3}", measured.requests_per_s()));
    row("output tokens/s", format!("{:.1}", measured.output_tokens_per_s()));
    row("total tokens/s", format!("{:.1}", measured.total_tokens_per_s()));
    let (prompt, cached) = (measured.prompt_tokens, measured.cached_tokens);
    let cached = if cached > 0 { format!(" ({cached} from a cache)") } else { String::new() };
    row("tokens", format!("{prompt} in{cached}, {} out", measured.output_tokens));
    if let (Some(rate), Some(share)) = (measured.goodput_per_s(), measured.goodput_share()) {
        row("goodput", format!("{rate:.3} requests/s, {:.1}% of requests", share * 100.0));
    }
    for (kind, errors) in &measured.errors {
        row(&format!("failed: {kind}"), format!("{}, the first: {}", errors.count, errors.first));
    }
    if measured.not_sent > 0 {
        row("not sent", measured.not_sent.to_string());
    }
    let late = measured.lateness.quantile(0.99).unwrap_or_default() * 1e3;
    row("sent late, p99", format!("{late:.2} ms"));
}

/// The summary that llmperf prints.
pub(crate) fn show_llmperf(measured: &Outcome) {
    say("\nllmperf:");
    for (name, values) in llmperf_metrics(measured) {
        say(name);
        for (label, share) in LLMPERF_QUANTILES {
            llmperf_row(label, values.quantile(share));
        }
        llmperf_row("mean", values.mean());
        llmperf_row("min", values.min());
        llmperf_row("max", values.max());
        llmperf_row("stddev", values.deviation());
    }
    for (name, value) in super::figures::llmperf_totals(measured) {
        say(&format!("{name} = {value}"));
    }
}

fn llmperf_row(label: &str, value: Option<f64>) {
    let value = value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    say(&format!("    {label} = {value}"));
}
