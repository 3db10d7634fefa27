//! What an endpoint last said of itself.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// Signals older than this are unknown. Five scrapes at the default interval: a lost scrape or two
/// changes nothing, a dead metrics page does.
pub(crate) const SIGNAL_AGE_MAX: Duration = Duration::from_secs(5);

/// A value and when it was heard, on the process's monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading<T> {
    pub value: T,
    pub heard: Duration,
}

impl<T: Copy> Reading<T> {
    /// The value, unless it is older than `age_max`: old is unknown, neither zero nor full.
    pub fn fresh(&self, now: Duration, age_max: Duration) -> Option<T> {
        (now.saturating_sub(self.heard) <= age_max).then_some(self.value)
    }
}

/// What an endpoint said of itself along with an answer: part of what a scrape tells.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Report {
    pub waiting: Option<u32>,
    pub running: Option<u32>,
    pub kv_usage: Option<f64>,
}

/// An endpoint's own metrics. A field is `None` until the endpoint has said it once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Signals {
    /// Requests queued in the engine, summed over its ranks.
    pub waiting: Option<Reading<u32>>,
    /// Requests in the engine's batch, summed over its ranks.
    pub running: Option<Reading<u32>>,
    /// Share of KV blocks held by live requests, 0 to 1; of the fullest rank.
    pub kv_usage: Option<Reading<f64>>,
    /// Tokens a KV block holds.
    pub kv_block_tokens: Option<Reading<u32>>,
    /// KV blocks of the engine.
    pub kv_blocks: Option<Reading<u64>>,
    /// Adapters that fit into one batch.
    pub adapters_max: Option<Reading<u32>>,
    /// Adapters with a request in the batch.
    pub running_adapters: Option<Arc<BTreeSet<String>>>,
    /// When its process began, in seconds since 1970. Servers of several processes do not say it.
    pub process_start: Option<Reading<f64>>,
    /// Prompt tokens processed since the engine started.
    pub prompt_tokens: Option<Reading<u64>>,
    /// Tokens generated since the engine started.
    pub generation_tokens: Option<Reading<u64>>,
}
