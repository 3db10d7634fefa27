//! Counts over the latest times, from readings of counters that only grow.

use std::collections::VecDeque;

use picker::{RequestTally, Tally};

/// The latest values, up to a maximum.
#[derive(Debug)]
pub(super) struct Latest<T> {
    values: VecDeque<T>,
    max: usize,
}

impl<T> Latest<T> {
    pub(super) fn new(max: usize) -> Self {
        Self { values: VecDeque::new(), max }
    }

    /// Takes the newest, for which the oldest may have to go.
    pub(super) fn push(&mut self, value: T) {
        if self.values.len() == self.max {
            self.values.pop_front();
        }
        self.values.push_back(value);
    }

    /// Oldest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.values.iter()
    }

    /// The one so many before the newest, or the oldest.
    pub(super) fn back(&self, steps: usize) -> Option<&T> {
        self.values.get(self.values.len().saturating_sub(steps + 1))
    }
}

/// How many requests had which times, since the start. The counts wrap; differences do not mind.
#[derive(Clone, Debug)]
pub(super) struct Buckets {
    ttft: Box<[u32]>,
    tpot: Box<[u32]>,
}

/// Quantiles 0.5, 0.9 and 0.99 in seconds; `None` of nothing.
pub(super) type Quantiles = Option<[f32; 3]>;

impl Default for Buckets {
    fn default() -> Self {
        let zeros = |bounds: &[f64]| vec![0; bounds.len() + 1].into_boxed_slice();
        Self { ttft: zeros(Tally::TTFT_SECONDS), tpot: zeros(Tally::TPOT_SECONDS) }
    }
}

impl Buckets {
    pub(super) fn add(&mut self, tally: &RequestTally) {
        for (mine, counts) in [(&mut self.ttft, &tally.ttft), (&mut self.tpot, &tally.tpot)] {
            for (mine, count) in mine.iter_mut().zip(counts) {
                *mine = mine.wrapping_add(wrapped(*count));
            }
        }
    }

    /// Of the times between an earlier reading and this one: to first token, and per output token.
    pub(super) fn since(&self, before: &Self) -> [Quantiles; 2] {
        [
            quantiles(&self.ttft, &before.ttft, Tally::TTFT_SECONDS),
            quantiles(&self.tpot, &before.tpot, Tally::TPOT_SECONDS),
        ]
    }
}

#[expect(clippy::cast_possible_truncation, reason = "differences are taken of what wraps alike")]
fn wrapped(count: u64) -> u32 {
    count as u32
}

fn quantiles(now: &[u32], before: &[u32], bounds: &[f64]) -> Quantiles {
    let counts: Vec<f64> =
        now.iter().zip(before).map(|(now, before)| f64::from(now.wrapping_sub(*before))).collect();
    let all: f64 = counts.iter().sum();
    (all > 0.0).then(|| [0.5, 0.9, 0.99].map(|q| quantile(&counts, bounds, q * all)))
}

/// The value below which so many are: linear within its bucket, as Prometheus' `histogram_quantile` has it.
#[expect(clippy::cast_possible_truncation, reason = "no more than three digits are shown")]
fn quantile(counts: &[f64], bounds: &[f64], rank: f64) -> f32 {
    let (mut below, mut from) = (0.0, 0.0);
    for (count, to) in counts.iter().zip(bounds) {
        if *count > 0.0 && below + count >= rank {
            return (from + (to - from) * (rank - below) / count) as f32;
        }
        (below, from) = (below + count, *to);
    }
    // Beyond the last bound nothing is known.
    from as f32
}

#[cfg(test)]
mod tests;
