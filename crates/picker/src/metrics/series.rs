//! The series of requests: found by their labels once, and kept.
//!
//! Istio's labels are 26. To find a series by them costs more than everything else that is counted of a request.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
    time::Duration,
};

use parking_lot::Mutex;
use prometheus::{Histogram, HistogramVec, IntCounter};
use scheduling::{Policy, Reason};
use smallvec::SmallVec;

use super::{Metrics, istio::OfRequests};
use crate::{PoolKey, RequestRecord};

/// Distinct values a `model` label takes from answers, and as many again from objects; more become
/// `other`.
pub(super) const MODEL_LABELS_MAX: usize = 256;
/// Longest value of a `model` label, in bytes; a longer name becomes `other`.
pub(super) const MODEL_LABEL_BYTES_MAX: usize = 256;
/// Pairs of pool and model whose series are kept; those of more are found anew for every request.
const PAIRS_MAX: usize = 8192;
/// Ways of ending, and of being placed, kept for each pair; likewise.
const WAYS_MAX: usize = 32;

/// The series of every pool and model.
#[derive(Debug, Default)]
pub(super) struct AllSeries(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// Values of the label `model`.
    models: BTreeSet<String>,
    pools: BTreeMap<Option<PoolKey>, BTreeMap<Arc<str>, Arc<Series>>>,
    pairs: usize,
}

/// The series of one pool and model. Each appears with its first value.
#[derive(Debug)]
pub(super) struct Series {
    key: Option<PoolKey>,
    pool: Arc<str>,
    model: Arc<str>,
    duration: OnceLock<Histogram>,
    ttft: OnceLock<Histogram>,
    tpot: OnceLock<Histogram>,
    queue: OnceLock<Histogram>,
    pick: OnceLock<Histogram>,
    prompt_tokens: OnceLock<IntCounter>,
    completion_tokens: OnceLock<IntCounter>,
    ends: Mutex<Ways<(u16, &'static str), OfRequests>>,
    picks: Mutex<Ways<(Policy, Reason), IntCounter>>,
}

impl AllSeries {
    /// Those of a request; `pool` is its pool's label.
    pub(super) fn of(
        &self,
        record: &RequestRecord,
        pool: impl FnOnce() -> Arc<str>,
    ) -> Arc<Series> {
        let mut kept = self.0.lock();
        if let Some(model) = &record.request_model
            && let Some(series) = kept.find(&record.pool, model)
        {
            return series;
        }
        let model = kept.model_label(record);
        if let Some(series) = kept.find(&record.pool, &model) {
            return series;
        }
        let series = Arc::new(Series::new(record.pool.clone(), pool(), model.into()));
        if kept.pairs < PAIRS_MAX {
            kept.pairs += 1;
            let models = kept.pools.entry(record.pool.clone()).or_default();
            models.insert(Arc::clone(&series.model), Arc::clone(&series));
        }
        series
    }
}

impl Kept {
    #[expect(clippy::ref_option, reason = "it is the key of a map")]
    fn find(&self, pool: &Option<PoolKey>, model: &str) -> Option<Arc<Series>> {
        self.pools.get(pool)?.get(model).map(Arc::clone)
    }

    /// The model as a label: a name that clients make up never becomes one.
    fn model_label(&mut self, record: &RequestRecord) -> String {
        let Some(model) = record.request_model.as_deref().filter(|model| !model.is_empty()) else {
            return "unknown".to_owned();
        };
        let models = &mut self.models;
        if models.contains(model) {
            return model.to_owned();
        }
        // A rewritten request was answered for the name sent on, whatever the client's was.
        let answered = record.response_code == 200 && record.target_model.is_none();
        let real = record.model_known || answered;
        // Names that objects give have room of their own: what clients make up, and an obliging
        // endpoint answers for, cannot take it.
        let room = if record.model_known { 2 * MODEL_LABELS_MAX } else { MODEL_LABELS_MAX };
        if !real || models.len() >= room || model.len() > MODEL_LABEL_BYTES_MAX {
            return "other".to_owned();
        }
        models.insert(model.to_owned());
        model.to_owned()
    }
}

impl Series {
    fn new(key: Option<PoolKey>, pool: Arc<str>, model: Arc<str>) -> Self {
        Self {
            key,
            pool,
            model,
            duration: OnceLock::new(),
            ttft: OnceLock::new(),
            tpot: OnceLock::new(),
            queue: OnceLock::new(),
            pick: OnceLock::new(),
            prompt_tokens: OnceLock::new(),
            completion_tokens: OnceLock::new(),
            ends: Mutex::default(),
            picks: Mutex::default(),
        }
    }

    /// The pool's label.
    pub(super) fn pool(&self) -> &str {
        &self.pool
    }

    pub(super) fn picked(&self, all: &Metrics, how: (Policy, Reason), took: Duration) {
        let labels = [&*self.pool, how.0.name(), how.1.name()];
        self.picks.lock().with(how, || all.picks.with_label_values(&labels), IntCounter::inc);
        self.observe(&self.pick, &all.latencies.pick, took);
    }

    pub(super) fn ended(&self, all: &Metrics, record: &RequestRecord, duration: Duration) {
        let how = (record.response_code, record.response_flags);
        let of_requests = || all.istio.of_requests(self.key.as_ref(), &self.model, how);
        self.ends.lock().with(how, of_requests, |series| series.observe(record, duration));
        self.count_tokens(all, record);
        let latencies = &all.latencies;
        self.observe(&self.duration, &latencies.duration, duration);
        let others = [
            (&self.ttft, &latencies.ttft, record.ttft()),
            (&self.tpot, &latencies.tpot, record.tpot()),
            (&self.queue, &latencies.queue, record.queue),
        ];
        for (kept, all, value) in others {
            if let Some(value) = value {
                self.observe(kept, all, value);
            }
        }
    }

    fn count_tokens(&self, all: &Metrics, record: &RequestRecord) {
        let Some(pool) = &self.key else { return };
        let (istio, model) = (&all.istio, &*self.model);
        if let Some(tokens) = record.usage.prompt_tokens {
            self.prompt_tokens.get_or_init(|| istio.prompt_tokens(pool, model)).inc_by(tokens);
        }
        if let Some(tokens) = record.usage.completion_tokens {
            let counter = || istio.completion_tokens(pool, model);
            self.completion_tokens.get_or_init(counter).inc_by(tokens);
        }
    }

    fn observe(&self, kept: &OnceLock<Histogram>, all: &HistogramVec, value: Duration) {
        let labels = [&*self.model, &*self.pool];
        let histogram = kept.get_or_init(|| all.with_label_values(&labels));
        histogram.observe(value.as_secs_f64());
    }
}

/// A few series by what tells them apart.
#[derive(Debug)]
struct Ways<K, S>(SmallVec<[(K, S); 2]>);

impl<K, S> Default for Ways<K, S> {
    fn default() -> Self {
        Self(SmallVec::new())
    }
}

impl<K: PartialEq, S> Ways<K, S> {
    /// Does something with the series of `key`, which is found if it is not kept.
    fn with(&mut self, key: K, find: impl FnOnce() -> S, use_it: impl FnOnce(&S)) {
        if let Some((_, series)) = self.0.iter().find(|(kept, _)| *kept == key) {
            return use_it(series);
        }
        let series = find();
        use_it(&series);
        if self.0.len() < WAYS_MAX {
            self.0.push((key, series));
        }
    }
}
