//! Makes metrics: each is registered where it is declared.

use std::cell::RefCell;

use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry,
    core::Collector,
};

/// A metric as its reference names it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MetricReference {
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    pub labels: Vec<String>,
    pub help: String,
}

/// Makes metrics, registers them and keeps what their reference says.
#[derive(Default)]
pub(super) struct Maker {
    pub(super) registry: Registry,
    pub(super) made: RefCell<Vec<MetricReference>>,
}

impl Maker {
    fn keep<C: Collector + Clone + 'static>(
        &self,
        kind: &'static str,
        metric: C,
    ) -> Result<C, prometheus::Error> {
        self.registry.register(Box::new(metric.clone()))?;
        self.made.borrow_mut().extend(metric.desc().into_iter().map(|desc| MetricReference {
            name: desc.fq_name.clone(),
            kind,
            labels: desc.variable_labels.clone(),
            help: desc.help.clone(),
        }));
        Ok(metric)
    }

    pub(super) fn plain(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.keep("counter", IntCounter::new(name, help)?)
    }

    pub(super) fn counter(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.keep("counter", IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    pub(super) fn gauge(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<GaugeVec, prometheus::Error> {
        self.keep("gauge", GaugeVec::new(Opts::new(name, help), labels)?)
    }

    pub(super) fn histogram(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> Result<HistogramVec, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.keep("histogram", HistogramVec::new(options, labels)?)
    }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus values are floats")]
pub(super) fn approximate(value: u64) -> f64 {
    value as f64
}
