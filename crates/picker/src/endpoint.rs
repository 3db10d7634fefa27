//! An endpoint as the picker remembers it: where it is, and what this gateway has on it.

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

use tokio::time::Instant;

use crate::EndpointSpec;

/// One endpoint, shared by every pool it is in and every request it answers. It outlives snapshots.
#[derive(Debug)]
pub struct Endpoint {
    pub spec: EndpointSpec,
    load: EndpointLoad,
}

#[derive(Debug, Default)]
struct EndpointLoad {
    in_flight: AtomicU32,
    sent: AtomicU64,
    /// Estimated prompt tokens of requests without a first token.
    prefill_pending: AtomicU64,
    /// Seconds from the pick to the first token.
    ttft: Mean,
    /// Body bytes a prompt token takes.
    bytes_per_token: Mean,
}

/// Body bytes a prompt token takes until it has been learned: about what English text takes.
const BYTES_PER_TOKEN: f64 = 4.0;

impl Endpoint {
    pub(crate) fn new(spec: EndpointSpec) -> Self {
        Self { spec, load: EndpointLoad::default() }
    }

    /// Requests of this gateway it has not finished.
    pub fn in_flight(&self) -> u32 {
        self.load.in_flight.load(Ordering::Relaxed)
    }

    /// Requests ever sent to it. Read before a scrape, it tells which requests the scrape saw.
    pub fn sent(&self) -> u64 {
        self.load.sent.load(Ordering::Relaxed)
    }

    /// Prompt tokens of this gateway's requests that have no first token yet, estimated from
    /// their length. Answers that are not streamed show their first token with their last.
    pub fn prefill_tokens_pending(&self) -> u64 {
        self.load.prefill_pending.load(Ordering::Relaxed)
    }

    /// The time to first token to expect: the mean of the latest ones; `None` before the first.
    pub fn predicted_ttft_seconds(&self) -> Option<f64> {
        self.load.ttft.get()
    }

    /// Takes in how many tokens a body of this length had.
    pub(crate) fn learn_length(&self, body_bytes: u64, prompt_tokens: u64) {
        if prompt_tokens > 0 {
            self.load.bytes_per_token.add(approximate(body_bytes) / approximate(prompt_tokens));
        }
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate")]
    fn tokens_of(&self, body_bytes: u64) -> u64 {
        let per_token = self.load.bytes_per_token.get().unwrap_or(BYTES_PER_TOKEN);
        (approximate(body_bytes) / per_token) as u64
    }
}

/// An exponentially weighted mean of positive samples, without a lock: of two additions at one
/// moment one may be lost.
#[derive(Debug, Default)]
struct Mean(AtomicU64);

/// Weight of a new sample: the mean follows the latest ten or so.
const SAMPLE_WEIGHT: f64 = 0.1;

impl Mean {
    fn get(&self) -> Option<f64> {
        let mean = f64::from_bits(self.0.load(Ordering::Relaxed));
        (mean > 0.0).then_some(mean)
    }

    fn add(&self, sample: f64) {
        let mean = self.get().map_or(sample, |mean| mean + SAMPLE_WEIGHT * (sample - mean));
        self.0.store(mean.to_bits(), Ordering::Relaxed);
    }
}

#[expect(clippy::cast_precision_loss, reason = "bytes and tokens of one request")]
fn approximate(count: u64) -> f64 {
    count as f64
}

/// One request's charge on one endpoint, from the pick until it is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) endpoint: Arc<Endpoint>,
    since: Instant,
    /// What is still charged as pending prefill.
    prefill_tokens: u64,
}

impl Claim {
    pub(crate) fn new(endpoint: Arc<Endpoint>, body_bytes: u64) -> Self {
        let prefill_tokens = endpoint.tokens_of(body_bytes);
        endpoint.load.in_flight.fetch_add(1, Ordering::Relaxed);
        endpoint.load.sent.fetch_add(1, Ordering::Relaxed);
        endpoint.load.prefill_pending.fetch_add(prefill_tokens, Ordering::Relaxed);
        Self { endpoint, since: Instant::now(), prefill_tokens }
    }

    /// The first token is there: the prompt is no longer pending.
    pub(crate) fn first_token(&mut self, now: Instant) {
        self.endpoint.load.ttft.add(now.duration_since(self.since).as_secs_f64());
        self.end_prefill();
    }

    fn end_prefill(&mut self) {
        let tokens = std::mem::take(&mut self.prefill_tokens);
        self.endpoint.load.prefill_pending.fetch_sub(tokens, Ordering::Relaxed);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.end_prefill();
        let before = self.endpoint.load.in_flight.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "an endpoint was released twice");
    }
}
