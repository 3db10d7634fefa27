//! What many measurements of one kind come to, in memory that does not grow with their number.

use hdrhistogram::Histogram;

/// Values up to this many units are told apart: a day in microseconds.
const UNITS_MAX: u64 = 86_400_000_000;
/// Significant digits of quantiles.
const DIGITS: u8 = 3;

/// Measurements: quantiles to three significant digits; number, mean, deviation, least and greatest exactly.
#[derive(Clone, Debug)]
pub struct Distribution {
    /// Absent only if the constants above were no bounds of a histogram.
    histogram: Option<Histogram<u64>>,
    /// Units in 1.
    scale: f64,
    count: u64,
    sum: f64,
    /// Sum of squared distances from the mean (Welford).
    spread: f64,
    running_mean: f64,
    least: f64,
    greatest: f64,
}

impl Distribution {
    fn new(scale: f64) -> Distribution {
        Distribution {
            histogram: Histogram::new_with_bounds(1, UNITS_MAX, DIGITS).ok(),
            scale,
            count: 0,
            sum: 0.0,
            spread: 0.0,
            running_mean: 0.0,
            least: f64::INFINITY,
            greatest: f64::NEG_INFINITY,
        }
    }

    /// Of times in seconds, told apart by microseconds.
    pub fn of_seconds() -> Distribution {
        Distribution::new(1e6)
    }

    /// Of numbers of things.
    pub fn of_counts() -> Distribution {
        Distribution::new(1.0)
    }

    /// Of things a second, told apart by thousandths.
    pub fn of_rates() -> Distribution {
        Distribution::new(1e3)
    }

    /// Adds a measurement; what is negative or no number counts as zero.
    pub fn record(&mut self, value: f64) {
        let value = if value.is_finite() { value.max(0.0) } else { 0.0 };
        if let Some(histogram) = &mut self.histogram {
            histogram.saturating_record(units(value * self.scale));
        }
        self.count += 1;
        self.sum += value;
        let off = value - self.running_mean;
        self.running_mean += off / precise(self.count);
        self.spread += off * (value - self.running_mean);
        self.least = self.least.min(value);
        self.greatest = self.greatest.max(value);
    }

    /// Takes in all of another's of the same kind.
    pub fn merge(&mut self, other: &Distribution) {
        if other.count == 0 {
            return;
        }
        if let (Some(own), Some(others)) = (&mut self.histogram, &other.histogram) {
            *own += others;
        }
        let (n, m) = (precise(self.count), precise(other.count));
        let off = other.running_mean - self.running_mean;
        self.spread += other.spread + off * off * n * m / (n + m);
        self.running_mean += off * m / (n + m);
        self.count += other.count;
        self.sum += other.sum;
        self.least = self.least.min(other.least);
        self.greatest = self.greatest.max(other.greatest);
    }

    /// The same with every value so many times as large; quantiles to three digits of what they were.
    #[must_use]
    pub fn scaled(&self, factor: f64) -> Distribution {
        let mut scaled = Distribution {
            count: self.count,
            sum: self.sum * factor,
            spread: self.spread * factor * factor,
            running_mean: self.running_mean * factor,
            least: self.least * factor,
            greatest: self.greatest * factor,
            ..Distribution::new(self.scale)
        };
        if let (Some(from), Some(to)) = (&self.histogram, &mut scaled.histogram) {
            for step in from.iter_recorded() {
                let units = units(precise(step.value_iterated_to()) * factor);
                to.saturating_record_n(units, step.count_since_last_iteration());
            }
        }
        scaled
    }

    /// (value, share of measurements up to there), rising.
    pub fn cumulated(&self) -> Vec<(f64, f64)> {
        let histogram = self.histogram.iter();
        let steps = histogram.flat_map(|histogram| histogram.iter_quantiles(32));
        steps
            .map(|step| (precise(step.value_iterated_to()) / self.scale, step.quantile()))
            .collect()
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// All together.
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// The mean; none without measurements, as of all that follow.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / precise(self.count))
    }

    /// The value that this share of the measurements does not exceed.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let histogram = self.histogram.as_ref().filter(|_| self.count > 0)?;
        let value = precise(histogram.value_at_quantile(share)) / self.scale;
        Some(value.clamp(self.least, self.greatest))
    }

    /// The least.
    pub fn min(&self) -> Option<f64> {
        (self.count > 0).then_some(self.least)
    }

    /// The greatest.
    pub fn max(&self) -> Option<f64> {
        (self.count > 0).then_some(self.greatest)
    }

    /// The standard deviation of a sample; zero of a single measurement.
    pub fn deviation(&self) -> Option<f64> {
        let degrees = precise(self.count.saturating_sub(1).max(1));
        (self.count > 0).then(|| (self.spread / degrees).sqrt())
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "neither negative nor without end; beyond the bounds a histogram saturates"
)]
fn units(value: f64) -> u64 {
    value.round() as u64
}

#[expect(clippy::cast_precision_loss, reason = "counts and microseconds are below 2^53")]
pub(crate) fn precise(count: u64) -> f64 {
    count as f64
}

/// How many there are of something in memory.
pub(crate) fn number(count: usize) -> f64 {
    precise(count as u64)
}

#[cfg(test)]
mod tests;
