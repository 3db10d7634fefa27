//! What an engine says about itself: vLLM's gauges, counters and histograms, as of the end of the last step.

use std::time::Duration;

use super::AdapterId;

/// Upper bounds of vLLM's request latency histograms, seconds.
const REQUEST_SECONDS: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0, 1920.0, 7680.0,
];
const FIRST_TOKEN_SECONDS: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
];
const TOKEN_SECONDS: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
];
const STEP_TOKENS: &[f64] =
    &[1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0];
const REQUEST_TOKENS: &[f64] =
    &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0];
const PREEMPTIONS: &[f64] = &[1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0];
const CHOICES: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0];

/// A cumulative histogram with vLLM's buckets.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// Upper bounds; the one of +Inf is not in it.
    pub bounds: &'static [f64],
    /// Observations a bucket, not cumulated; the last is beyond every bound.
    pub counts: Vec<u64>,
    /// Sum of the observations.
    pub sum: f64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Histogram {
        Histogram { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    pub(super) fn observe(&mut self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket] += 1;
        self.sum += value;
    }

    pub(super) fn observe_time(&mut self, value: Duration) {
        self.observe(value.as_secs_f64());
    }

    /// Number of observations.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// One engine's published state. Nothing in it changes between two ends of a step, as with the real server: a burst is
/// invisible until the step that was running, or its own first, is over.
#[derive(Clone, Debug, PartialEq)]
pub struct Metrics {
    /// Requests in the batch.
    pub running: u32,
    /// Requests waiting for capacity: blocks, sequence slots or token budget.
    pub waiting_capacity: u32,
    /// Requests waiting for an adapter slot.
    pub waiting_deferred: u32,
    /// Share of the blocks held by live requests, 0 to 1.
    pub kv_cache_usage: f64,
    /// Adapters of running requests, in the order of the batch.
    pub running_adapters: Vec<AdapterId>,
    /// Adapters of waiting requests, sorted.
    pub waiting_adapters: Vec<AdapterId>,
    /// Steps taken; equals the count of `iteration_tokens`.
    pub steps: u64,
    /// Prompt tokens of requests whose first token is out, cached ones included.
    pub prompt_tokens: u64,
    /// Of those, tokens the prefix cache had.
    pub prompt_tokens_cached: u64,
    /// Tokens given out.
    pub generation_tokens: u64,
    /// Tokens looked up in the prefix cache at admission.
    pub prefix_queries: u64,
    /// Tokens found.
    pub prefix_hits: u64,
    /// Preemptions, counted when the preempted request next gives output, as vLLM does.
    pub preemptions: u64,
    /// Times an adapter was brought into a slot. vLLM does not tell this.
    pub adapter_swaps: u64,
    /// Requests that ended by themselves.
    pub finished_stop: u64,
    /// Requests that ended at their token limit.
    pub finished_length: u64,
    /// Offers refused because the queue was full.
    pub rejected_queue_full: u64,
    /// Tokens a step: prompt tokens of prefills completed in it and tokens given out.
    pub iteration_tokens: Histogram,
    /// Seconds from offer to first token.
    pub time_to_first_token: Histogram,
    /// Seconds between tokens.
    pub inter_token_latency: Histogram,
    /// Seconds a token after the first, one observation a request.
    pub time_per_output_token: Histogram,
    /// Seconds from offer to last token.
    pub e2e_latency: Histogram,
    /// Seconds from offer to first being scheduled.
    pub queue_time: Histogram,
    /// Seconds from being scheduled to last token.
    pub inference_time: Histogram,
    /// Seconds from being scheduled to first token.
    pub prefill_time: Histogram,
    /// Seconds from first to last token.
    pub decode_time: Histogram,
    /// Prompt tokens a request.
    pub request_prompt_tokens: Histogram,
    /// Tokens given out a request.
    pub request_generation_tokens: Histogram,
    /// The `n` parameter; always 1 here.
    pub request_params_n: Histogram,
    /// The `max_tokens` parameter.
    pub request_params_max_tokens: Histogram,
    /// Preemptions a request.
    pub request_preemptions: Histogram,
    /// Prompt tokens computed, not found in the cache.
    pub request_prefill_computed: Histogram,
}

impl Metrics {
    pub(super) fn new() -> Metrics {
        let seconds = || Histogram::new(REQUEST_SECONDS);
        let tokens = || Histogram::new(REQUEST_TOKENS);
        Metrics {
            running: 0,
            waiting_capacity: 0,
            waiting_deferred: 0,
            kv_cache_usage: 0.0,
            running_adapters: Vec::new(),
            waiting_adapters: Vec::new(),
            steps: 0,
            prompt_tokens: 0,
            prompt_tokens_cached: 0,
            generation_tokens: 0,
            prefix_queries: 0,
            prefix_hits: 0,
            preemptions: 0,
            adapter_swaps: 0,
            finished_stop: 0,
            finished_length: 0,
            rejected_queue_full: 0,
            iteration_tokens: Histogram::new(STEP_TOKENS),
            time_to_first_token: Histogram::new(FIRST_TOKEN_SECONDS),
            inter_token_latency: Histogram::new(TOKEN_SECONDS),
            time_per_output_token: Histogram::new(TOKEN_SECONDS),
            e2e_latency: seconds(),
            queue_time: seconds(),
            inference_time: seconds(),
            prefill_time: seconds(),
            decode_time: seconds(),
            request_prompt_tokens: tokens(),
            request_generation_tokens: tokens(),
            request_params_n: Histogram::new(CHOICES),
            request_params_max_tokens: tokens(),
            request_preemptions: Histogram::new(PREEMPTIONS),
            request_prefill_computed: tokens(),
        }
    }
}
