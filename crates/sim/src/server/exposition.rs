//! GET /metrics: the series of vLLM 0.32 with their names, types, labels and help, or those of 0.8.5 (V0).

use std::fmt::Write as _;
use std::time::Duration;

use super::Shared;
use super::errors::quote;
use crate::engine::{Histogram, Metrics};

/// The text.
pub(super) fn write(shared: &Shared) -> String {
    let mut page = Page {
        text: String::with_capacity(60_000),
        legacy: shared.legacy_with(shared.watch.fault()),
        labels: Vec::new(),
        created: shared.host.created(),
    };
    if !page.legacy {
        page.labels.push(("engine", "0".to_owned()));
    }
    page.labels.push(("model_name", shared.config.model.clone()));
    let metrics = shared.host.metrics();
    if page.legacy {
        page.v0(shared, &metrics);
    } else {
        page.v1(shared, &metrics);
    }
    page.http(shared);
    page.text
}

/// A page being written.
struct Page {
    text: String,
    legacy: bool,
    /// Those that almost every series has.
    labels: Vec<(&'static str, String)>,
    /// When the engine was new, since 1970.
    created: Duration,
}

type Labels<'a> = &'a [(&'a str, &'a str)];

/// A counter as Prometheus shows it; beyond 2^53 it loses ones, as vLLM's own does.
#[expect(clippy::cast_precision_loss, reason = "the exposition format has only floating numbers")]
fn float(count: u64) -> f64 {
    count as f64
}

/// A number as Python's client writes it: from a million on with an exponent of two digits.
fn number(value: f64) -> String {
    let plain = format!("{value:?}");
    match plain.find('.') {
        Some(dot) if value > 0.0 && dot > 6 => {
            let digits = format!("{}.{}{}", &plain[..1], &plain[1..dot], &plain[dot + 1..]);
            let digits = digits.trim_end_matches(['0', '.']);
            format!("{digits}e+{:02}", dot - 1)
        }
        _ => plain,
    }
}

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One line; labels sorted by name, as the client does.
    fn line(&mut self, name: &str, common: bool, more: Labels<'_>, value: f64) {
        let common = if common { self.labels.as_slice() } else { &[] };
        let mut labels: Vec<(&str, &str)> = common.iter().map(|(k, v)| (*k, v.as_str())).collect();
        labels.extend_from_slice(more);
        labels.sort_unstable();
        self.text.push_str(name);
        if !labels.is_empty() {
            let labels: Vec<String> =
                labels.iter().map(|(key, value)| format!("{key}={}", quote(value))).collect();
            let _ = write!(self.text, "{{{}}}", labels.join(","));
        }
        let _ = writeln!(self.text, " {}", number(value));
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.gauges(name, help, &[(&[], value)]);
    }

    fn gauges(&mut self, name: &str, help: &str, series: &[(Labels<'_>, f64)]) {
        self.head(name, "gauge", help);
        for (labels, value) in series {
            self.line(name, true, labels, *value);
        }
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.counters(name, help, &[(&[], value)]);
    }

    /// `name` without `_total`.
    fn counters(&mut self, name: &str, help: &str, series: &[(Labels<'_>, u64)]) {
        let total = format!("{name}_total");
        self.head(&total, "counter", help);
        for (labels, value) in series {
            self.line(&total, true, labels, float(*value));
        }
        let labels: Vec<Labels<'_>> = series.iter().map(|(labels, _)| *labels).collect();
        self.created(name, help, &labels);
    }

    /// The `_created` gauge that V1 puts beside counters and histograms.
    fn created(&mut self, name: &str, help: &str, series: &[Labels<'_>]) {
        if self.legacy {
            return;
        }
        let name = format!("{name}_created");
        self.head(&name, "gauge", help);
        for labels in series {
            self.line(&name, true, labels, self.created.as_secs_f64());
        }
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        let mut below = 0;
        let bounds = histogram.bounds.iter().map(|bound| format!("{bound:?}"));
        for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(&histogram.counts) {
            below += count;
            self.line(&bucket, true, &[("le", &bound)], float(below));
        }
        self.line(&format!("{name}_count"), true, &[], float(below));
        self.line(&format!("{name}_sum"), true, &[], histogram.sum);
        self.created(name, help, &[&[]]);
    }

    fn v1(&mut self, shared: &Shared, m: &Metrics) {
        for (name, what) in [
            ("estimated_flops_per_gpu", "floating point operations per GPU"),
            ("estimated_read_bytes_per_gpu", "bytes read from memory per GPU"),
            ("estimated_write_bytes_per_gpu", "bytes written to memory per GPU"),
        ] {
            let help =
                format!("Estimated number of {what} (for Model Flops Utilization calculations).");
            self.counter(&format!("vllm:{name}"), &help, 0);
        }
        self.gauge(
            "vllm:num_requests_running",
            "Number of requests in model execution batches.",
            f64::from(m.running),
        );
        self.v1_waiting(m);
        self.gauge(
            "vllm:kv_cache_usage_perc",
            "KV-cache usage. 1 means 100 percent usage.",
            m.kv_cache_usage,
        );
        self.v1_prefix_cache(m);
        self.tokens(m);
        self.v1_endings(m);
        self.v1_histograms(m);
        self.lora(shared);
        self.cache_config(shared);
    }

    fn v1_waiting(&mut self, m: &Metrics) {
        let (capacity, deferred) = (f64::from(m.waiting_capacity), f64::from(m.waiting_deferred));
        self.gauge(
            "vllm:num_requests_waiting",
            "Number of requests waiting to be processed.",
            capacity + deferred,
        );
        self.gauges(
            "vllm:num_requests_waiting_by_reason",
            "Number of waiting requests by reason. Reason labels: 'capacity' = waiting for scheduling capacity; \
             'deferred' = deferred by transient constraints (LoRA budget, KV transfer, blocked status). Sum of all \
             reasons equals vllm:num_requests_waiting.",
            &[(&[("reason", "capacity")], capacity), (&[("reason", "deferred")], deferred)],
        );
        self.gauges(
            "vllm:engine_sleep_state",
            "Engine sleep state; awake = 0 means engine is sleeping; awake = 1 means engine is awake; \
             weights_offloaded = 1 means sleep level 1; discard_all = 1 means sleep level 2.",
            &[
                (&[("sleep_state", "awake")], 1.0),
                (&[("sleep_state", "weights_offloaded")], 0.0),
                (&[("sleep_state", "discard_all")], 0.0),
            ],
        );
    }

    fn v1_prefix_cache(&mut self, m: &Metrics) {
        const EXTERNAL: &str = "from KV connector cross-instance cache sharing, ";
        for (prefix, kind, whence, unit, queries, hits) in [
            ("", "Prefix", "", "tokens", m.prefix_queries, m.prefix_hits),
            ("external_", "External prefix", EXTERNAL, "tokens", 0, 0),
            ("mm_", "Multi-modal", "", "items", 0, 0),
        ] {
            let base = if prefix == "mm_" {
                "mm_cache".to_owned()
            } else {
                format!("{prefix}prefix_cache")
            };
            let comma = if whence.is_empty() { ", " } else { " " };
            self.counter(
                &format!("vllm:{base}_queries"),
                &format!(
                    "{kind} cache queries{comma}{whence}in terms of number of queried {unit}."
                ),
                queries,
            );
            self.counter(
                &format!("vllm:{base}_hits"),
                &format!("{kind} cache hits{comma}{whence}in terms of number of cached {unit}."),
                hits,
            );
        }
    }

    fn tokens(&mut self, m: &Metrics) {
        self.counter(
            "vllm:num_preemptions",
            "Cumulative number of preemption from the engine.",
            m.preemptions,
        );
        self.counter("vllm:prompt_tokens", "Number of prefill tokens processed.", m.prompt_tokens);
        if !self.legacy {
            let cached = m.prompt_tokens_cached;
            self.counters(
                "vllm:prompt_tokens_by_source",
                "Number of prompt tokens by source.",
                &[
                    (&[("source", "local_compute")], m.prompt_tokens - cached),
                    (&[("source", "local_cache_hit")], cached),
                    (&[("source", "external_kv_transfer")], 0),
                ],
            );
            self.counter(
                "vllm:prompt_tokens_cached",
                "Number of cached prompt tokens (local + external).",
                cached,
            );
            self.counters(
                "vllm:prompt_tokens_cached_by_source",
                "Prefix-cache hit tokens by the cache tier that supplied them: device (local HBM), host (offloaded to \
                 DRAM), disk, p2p (transferred from another vLLM instance) or external_unspecified. Counted at \
                 admission; sums to vllm:prefix_cache_hits + vllm:external_prefix_cache_hits.",
                &[
                    (&[("source", "device")], m.prefix_hits),
                    (&[("source", "host")], 0),
                    (&[("source", "p2p")], 0),
                    (&[("source", "disk")], 0),
                    (&[("source", "external_unspecified")], 0),
                ],
            );
        }
        self.counter(
            "vllm:generation_tokens",
            "Number of generation tokens processed.",
            m.generation_tokens,
        );
    }

    fn v1_endings(&mut self, m: &Metrics) {
        // Aborted requests are not counted by vLLM either.
        self.counters(
            "vllm:request_success",
            "Count of successfully processed requests.",
            &[
                (&[("finished_reason", "stop")], m.finished_stop),
                (&[("finished_reason", "length")], m.finished_length),
                (&[("finished_reason", "abort")], 0),
                (&[("finished_reason", "error")], 0),
                (&[("finished_reason", "repetition")], 0),
            ],
        );
        let engine = self.labels.remove(0);
        self.counters(
            "vllm:admission_rejections",
            "Number of admission attempts rejected by a queue limit, by reason.",
            &[
                (&[("reason", "max_num_queued_reqs")], m.rejected_queue_full),
                (&[("reason", "max_num_queued_tokens")], 0),
            ],
        );
        self.labels.insert(0, engine);
    }

    fn v1_histograms(&mut self, m: &Metrics) {
        let prefill = "Number of prefill tokens processed.";
        let output = "Number of generation tokens processed.";
        let most = "Histogram of maximum number of requested generation tokens.";
        let table: [(&str, &str, &Histogram); 8] = [
            ("request_prompt_tokens", prefill, &m.request_prompt_tokens),
            ("request_generation_tokens", output, &m.request_generation_tokens),
            (
                "iteration_tokens_total",
                "Histogram of number of tokens per engine_step.",
                &m.iteration_tokens,
            ),
            ("request_max_num_generation_tokens", most, &m.request_generation_tokens),
            ("request_params_n", "Histogram of the n request parameter.", &m.request_params_n),
            (
                "request_params_max_tokens",
                "Histogram of the max_tokens request parameter.",
                &m.request_params_max_tokens,
            ),
            (
                "time_to_first_token_seconds",
                "Histogram of time to first token in seconds.",
                &m.time_to_first_token,
            ),
            (
                "inter_token_latency_seconds",
                "Histogram of inter-token latency in seconds.",
                &m.inter_token_latency,
            ),
        ];
        for (name, help, histogram) in table {
            self.histogram(&format!("vllm:{name}"), help, histogram);
        }
        self.histogram(
            "vllm:request_time_per_output_token_seconds",
            "Histogram of time_per_output_token_seconds per request.",
            &m.time_per_output_token,
        );
        self.request_times(m);
        self.histogram(
            "vllm:request_num_preemptions",
            "Histogram of the number of times a request was preempted.",
            &m.request_preemptions,
        );
        self.histogram(
            "vllm:request_prefill_kv_computed_tokens",
            "Histogram of new KV tokens computed during prefill (excluding cached tokens).",
            &m.request_prefill_computed,
        );
    }

    fn request_times(&mut self, m: &Metrics) {
        let end_to_end =
            if self.legacy { "end to end request latency" } else { "e2e request latency" };
        self.histogram(
            "vllm:e2e_request_latency_seconds",
            &format!("Histogram of {end_to_end} in seconds."),
            &m.e2e_latency,
        );
        for (name, phase, histogram) in [
            ("queue", "WAITING", &m.queue_time),
            ("inference", "RUNNING", &m.inference_time),
            ("prefill", "PREFILL", &m.prefill_time),
            ("decode", "DECODE", &m.decode_time),
        ] {
            self.histogram(
                &format!("vllm:request_{name}_time_seconds"),
                &format!("Histogram of time spent in {phase} phase for request."),
                histogram,
            );
        }
    }

    fn v0(&mut self, shared: &Shared, m: &Metrics) {
        self.lora(shared);
        for (name, help, value) in [
            (
                "num_requests_running",
                "Number of requests currently running on GPU.",
                f64::from(m.running),
            ),
            (
                "num_requests_waiting",
                "Number of requests waiting to be processed.",
                f64::from(m.waiting_capacity + m.waiting_deferred),
            ),
            (
                "gpu_cache_usage_perc",
                "GPU KV-cache usage. 1 means 100 percent usage.",
                m.kv_cache_usage,
            ),
        ] {
            self.gauge(&format!("vllm:{name}"), help, value);
        }
        self.cache_config(shared);
        self.histogram(
            "vllm:iteration_tokens_total",
            "Histogram of number of tokens per engine_step.",
            &m.iteration_tokens,
        );
        self.histogram(
            "vllm:time_to_first_token_seconds",
            "Histogram of time to first token in seconds.",
            &m.time_to_first_token,
        );
        self.histogram(
            "vllm:time_per_output_token_seconds",
            "Histogram of time per output token in seconds.",
            &m.inter_token_latency,
        );
        // V0 has no series of what has not happened yet.
        if m.finished_stop + m.finished_length > 0 {
            self.request_times(m);
        }
        self.tokens(m);
        let endings = [("length", m.finished_length), ("stop", m.finished_stop)];
        self.head(
            "vllm:request_success_total",
            "counter",
            "Count of successfully processed requests.",
        );
        for (reason, count) in endings.into_iter().filter(|(_, count)| *count > 0) {
            let labels = [("finished_reason", reason)];
            self.line("vllm:request_success_total", true, &labels, float(count));
        }
    }

    fn lora(&mut self, shared: &Shared) {
        self.head("vllm:lora_requests_info", "gauge", "Running stats on lora requests.");
        let max = shared.config.max_loras.to_string();
        for series in shared.host.lora_series() {
            let (running, waiting) =
                (shared.models.names(&series.running), shared.models.names(&series.waiting));
            let labels = [
                ("max_lora", max.as_str()),
                ("running_lora_adapters", &running),
                ("waiting_lora_adapters", &waiting),
            ];
            self.line("vllm:lora_requests_info", false, &labels, series.at.as_secs_f64());
        }
    }

    fn cache_config(&mut self, shared: &Shared) {
        self.head("vllm:cache_config_info", "gauge", "Information of the LLMEngine CacheConfig");
        let profile = &shared.config.profile;
        let (block_size, blocks) = (profile.block_tokens.to_string(), profile.blocks.to_string());
        let tokens = profile.blocks.saturating_mul(profile.block_tokens).to_string();
        let caching = if shared.config.prefix_caching { "True" } else { "False" };
        let mut labels = vec![
            ("block_size", block_size.as_str()),
            ("cache_dtype", "auto"),
            ("enable_prefix_caching", caching),
            ("gpu_memory_utilization", "0.8"),
            ("is_attention_free", "False"),
            ("num_gpu_blocks", &blocks),
            ("num_gpu_blocks_override", "None"),
            ("sliding_window", "None"),
        ];
        if self.legacy {
            labels.extend([("num_cpu_blocks", "0"), ("prefix_caching_hash_algo", "builtin")]);
        } else {
            labels.extend([
                ("effective_attention_block_size", block_size.as_str()),
                ("engine", "0"),
                ("kv_cache_size_tokens", &tokens),
                ("num_cpu_blocks", "None"),
                ("prefix_caching_hash_algo", "sha256"),
            ]);
        }
        self.line("vllm:cache_config_info", false, &labels, 1.0);
    }

    fn http(&mut self, shared: &Shared) {
        self.head(
            "http_requests_total",
            "counter",
            "Total number of requests by method, status and handler.",
        );
        for ((handler, method, status), count) in shared.watch.answers() {
            let labels = [("handler", handler), ("method", method), ("status", status)];
            self.line("http_requests_total", false, &labels, float(count));
        }
    }
}

#[cfg(test)]
mod tests;
