//! What the gateway says of its endpoints, and what two readings of it tell together.

use std::collections::BTreeMap;

use serde::Deserialize;
use tokio::time::Instant;

/// Older readings are not used by any policy.
const OLD_SECONDS: f64 = 5.0;

/// A pool of `/endpoints`.
#[derive(Debug, Deserialize)]
pub(super) struct Pool {
    name: String,
    namespace: String,
    #[serde(default)]
    port: Option<u16>,
    #[serde(default)]
    pub(super) queued: usize,
    pub(super) endpoints: Vec<Endpoint>,
}

/// An endpoint of it; what is not known is `None`.
#[derive(Debug, Deserialize)]
pub(super) struct Endpoint {
    #[serde(rename = "endpoint")]
    pub(super) id: String,
    health: String,
    out: Option<String>,
    pub(super) in_flight: u32,
    pub(super) running: Option<u32>,
    pub(super) waiting: Option<u32>,
    pub(super) kv_usage: Option<f64>,
    pub(super) prefill_tokens_pending: Option<f64>,
    pub(super) predicted_ttft_seconds: Option<f64>,
    pub(super) adapters_max: Option<u32>,
    pub(super) running_adapters: Option<Vec<String>>,
    pub(super) scrape_age_seconds: Option<f64>,
    generation_tokens_total: Option<u64>,
}

/// Every endpoint as of the latest reading.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    pub(super) pools: Vec<Pool>,
    /// Tokens generated up to a moment: of the latest reading in which they had moved on, and per second since the one before.
    tokens: BTreeMap<String, Tokens>,
}

#[derive(Clone, Copy, Debug)]
struct Tokens {
    at: Instant,
    total: u64,
    per_second: Option<f64>,
}

impl Pool {
    /// As metrics call it.
    pub(super) fn label(&self) -> String {
        let name = match self.namespace.as_str() {
            "default" => self.name.clone(),
            namespace => format!("{namespace}/{}", self.name),
        };
        self.port.map_or_else(|| name.clone(), |port| format!("{name}:{port}"))
    }
}

/// An endpoint's condition, the worst first; in the words of the dashboard.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum State<'a> {
    NotReady,
    /// It gets no requests though it may be healthy.
    Out(&'a str),
    NoMetrics,
    StaleMetrics,
    NotAskedYet,
    Ready,
}

impl<'a> State<'a> {
    pub(super) fn word(self) -> &'a str {
        match self {
            Self::NotReady => "not ready",
            Self::Out(why) => why,
            Self::NoMetrics => "no metrics",
            Self::StaleMetrics => "stale metrics",
            Self::NotAskedYet => "not asked yet",
            Self::Ready => "ready",
        }
    }
}

impl Endpoint {
    pub(super) fn state(&self) -> State<'_> {
        match (&*self.health, self.out.as_deref(), self.scrape_age_seconds) {
            ("unready", ..) => State::NotReady,
            (_, Some(out), _) => State::Out(out),
            ("ready", None, None) => State::NoMetrics,
            ("ready", None, Some(age)) if age > OLD_SECONDS => State::StaleMetrics,
            ("ready", ..) => State::Ready,
            _ => State::NotAskedYet,
        }
    }
}

impl Fleet {
    /// Takes a reading made at this moment.
    pub(super) fn take(&mut self, pools: Vec<Pool>, at: Instant) {
        let mut tokens = BTreeMap::new();
        for endpoint in pools.iter().flat_map(|pool| &pool.endpoints) {
            let Some(total) = endpoint.generation_tokens_total else { continue };
            let before = self.tokens.get(&endpoint.id);
            tokens.insert(endpoint.id.clone(), Tokens::after(before, total, at));
        }
        (self.pools, self.tokens) = (pools, tokens);
    }

    /// Tokens the endpoint generates per second, once two readings tell.
    pub(super) fn tokens_per_second(&self, endpoint: &Endpoint) -> Option<f64> {
        self.tokens.get(&endpoint.id)?.per_second
    }
}

impl Tokens {
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    fn after(before: Option<&Self>, total: u64, at: Instant) -> Self {
        // A server that was restarted counts from zero.
        let per_second = before.filter(|before| before.total <= total).map(|before| {
            let passed = at.duration_since(before.at).as_secs_f64().max(1e-3);
            (total - before.total) as f64 / passed
        });
        Self { at, total, per_second }
    }
}
