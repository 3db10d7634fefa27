//! A mean that forgets.

/// Weight of the newest sample: the mean follows the latest fifty or so.
const NEW_WEIGHT: f64 = 0.02;

/// An exponentially weighted mean; a plain one while there are few samples.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mean {
    count: f64,
    value: f64,
}

impl Mean {
    pub(crate) fn add(&mut self, sample: f64) {
        self.add_weighted(sample, NEW_WEIGHT);
    }

    /// With another weight of the newest sample.
    pub(crate) fn add_weighted(&mut self, sample: f64, new_weight: f64) {
        self.count += 1.0;
        self.value += new_weight.max(1.0 / self.count) * (sample - self.value);
    }

    /// Makes it count for so many samples at most.
    pub(crate) fn fade(&mut self, count: f64) {
        self.count = self.count.min(count);
    }

    pub(crate) fn or(&self, default: f64) -> f64 {
        if self.count > 0.0 { self.value } else { default }
    }

    pub(crate) fn get(&self) -> Option<f64> {
        (self.count > 0.0).then_some(self.value)
    }

    pub(crate) fn count(&self) -> f64 {
        self.count
    }
}
