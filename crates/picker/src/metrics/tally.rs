//! What was counted since the start, as plain numbers: for who shows it rather than scrapes it.

use std::collections::BTreeMap;

use prometheus::{
    HistogramVec, IntCounterVec,
    core::Collector,
    proto::{Bucket, Metric, MetricFamily},
};

use super::{Metrics, TPOT_SECONDS, TTFT_SECONDS};

/// Counts since the start. A reading of the same counters that the Prometheus page has.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Requests that have ended, by pool and model.
    pub requests: Vec<RequestTally>,
    /// Tokens, by destination service and model.
    pub tokens: Vec<TokenTally>,
    /// What became of requests, by pool.
    pub outcomes: Vec<OutcomeTally>,
}

#[derive(Clone, Debug)]
pub struct RequestTally {
    /// As [`PoolKey::label`](crate::PoolKey::label) has it.
    pub pool: String,
    pub model: String,
    pub requests: u64,
    /// Times to first token by bucket: below each of [`Tally::TTFT_SECONDS`] and not below the one before it, then the rest.
    pub ttft: Vec<u64>,
    /// Times per output token, likewise by [`Tally::TPOT_SECONDS`].
    pub tpot: Vec<u64>,
}

#[derive(Clone, Debug)]
pub struct TokenTally {
    /// As [`PoolKey::service`](crate::PoolKey::service) has it; pools may share one.
    pub service: String,
    pub model: String,
    pub prompt: u64,
    pub completion: u64,
}

#[derive(Clone, Debug)]
pub struct OutcomeTally {
    pub outcome: TalliedOutcome,
    pub pool: String,
    /// The reason, or for a retry what the endpoint before did; nothing for a disconnect.
    pub what: String,
    pub count: u64,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum TalliedOutcome {
    Pick,
    Retry,
    Refusal,
    Disconnect,
    Broken,
}

impl Tally {
    /// Upper bounds of the buckets of times to first token.
    pub const TTFT_SECONDS: &'static [f64] = &TTFT_SECONDS;
    /// Upper bounds of the buckets of times per output token.
    pub const TPOT_SECONDS: &'static [f64] = &TPOT_SECONDS;
}

impl Metrics {
    pub(crate) fn tally(&self) -> Tally {
        Tally { requests: self.requests(), tokens: self.tokens(), outcomes: self.outcomes() }
    }

    fn requests(&self) -> Vec<RequestTally> {
        let mut requests = BTreeMap::new();
        let key = |metric: &Metric| (label(metric, "pool"), label(metric, "model"));
        each(&self.latencies.duration, |metric| {
            let (pool, model) = key(metric);
            let tally = RequestTally {
                pool,
                model,
                requests: metric.get_histogram().get_sample_count(),
                ttft: vec![0; TTFT_SECONDS.len() + 1],
                tpot: vec![0; TPOT_SECONDS.len() + 1],
            };
            requests.insert(key(metric), tally);
        });
        let mut fill = |of: &HistogramVec, choose: fn(&mut RequestTally) -> &mut Vec<u64>| {
            each(of, |metric| {
                // Whoever has a time has a duration, too; but for one that ended in between.
                if let Some(tally) = requests.get_mut(&key(metric)) {
                    *choose(tally) = buckets(metric);
                }
            });
        };
        fill(&self.latencies.ttft, |tally| &mut tally.ttft);
        fill(&self.latencies.tpot, |tally| &mut tally.tpot);
        requests.into_values().collect()
    }

    fn tokens(&self) -> Vec<TokenTally> {
        let [prompt, completion] = self.istio.tokens();
        let mut tokens = BTreeMap::<_, TokenTally>::new();
        let mut add = |of: &IntCounterVec, choose: fn(&mut TokenTally) -> &mut u64| {
            each(of, |metric| {
                let service = label(metric, "llmproxy_destination_service");
                let model = label(metric, "llmproxy_model");
                let tally = tokens
                    .entry((service.clone(), model.clone()))
                    .or_insert_with(|| TokenTally { service, model, prompt: 0, completion: 0 });
                *choose(tally) += count(metric);
            });
        };
        add(prompt, |tally| &mut tally.prompt);
        add(completion, |tally| &mut tally.completion);
        tokens.into_values().collect()
    }

    fn outcomes(&self) -> Vec<OutcomeTally> {
        let mut outcomes = Vec::new();
        let kinds = [
            (TalliedOutcome::Pick, &self.picks, "reason"),
            (TalliedOutcome::Retry, &self.retries, "outcome"),
            (TalliedOutcome::Refusal, &self.refusals, "reason"),
            (TalliedOutcome::Disconnect, &self.client_disconnects, ""),
            (TalliedOutcome::Broken, &self.broken_answers, "reason"),
        ];
        for (outcome, of, what) in kinds {
            each(of, |metric| {
                let (pool, what) = (label(metric, "pool"), label(metric, what));
                outcomes.push(OutcomeTally { outcome, pool, what, count: count(metric) });
            });
        }
        outcomes
    }
}

fn each(of: &impl Collector, take: impl FnMut(&Metric)) {
    let families = of.collect();
    families.iter().flat_map(MetricFamily::get_metric).for_each(take);
}

/// A label's value; empty if there is no such label.
fn label(metric: &Metric, name: &str) -> String {
    let found = metric.get_label().iter().find(|pair| pair.name() == name);
    found.map_or_else(String::new, |pair| pair.value().to_owned())
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "integers that only grow, told as floats"
)]
fn count(metric: &Metric) -> u64 {
    metric.get_counter().get_value() as u64
}

/// From counts up to each bound to counts between them.
fn buckets(metric: &Metric) -> Vec<u64> {
    let histogram = metric.get_histogram();
    let bounded = histogram.get_bucket().iter().map(Bucket::cumulative_count);
    let mut below = 0;
    bounded
        .chain([histogram.get_sample_count()])
        .map(|upto| {
            // The sum of all is read at another moment than its parts.
            let between = upto.saturating_sub(below);
            below = below.max(upto);
            between
        })
        .collect()
}
