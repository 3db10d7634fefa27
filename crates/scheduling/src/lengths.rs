//! How long answers are, learned from those that ended.

use std::collections::BTreeMap;

/// Tokens expected of an answer before any has ended.
const OUTPUT_TOKENS_DEFAULT: f64 = 128.0;
/// The same where a request sets a limit: half of it, but no more than this.
const OUTPUT_TOKENS_UNKNOWN_MAX: f64 = 1024.0;
/// Adapters told apart; answers of others count for the whole only.
const ADAPTERS_MAX: usize = 1024;
/// Weight of the newest answer: the mean follows the latest two hundred or so.
const NEW_WEIGHT: f64 = 0.005;

/// Mean and mean square, exponentially weighted; a plain mean while there are few.
#[derive(Clone, Copy, Debug, Default)]
struct Moments {
    count: f64,
    mean: f64,
    square: f64,
}

impl Moments {
    fn add(&mut self, value: f64) {
        self.count += 1.0;
        let weight = NEW_WEIGHT.max(1.0 / self.count);
        self.mean += weight * (value - self.mean);
        self.square += weight * (value * value - self.square);
    }
}

/// How well the limit a request sets foretells its answer's length.
#[derive(Clone, Copy, Debug, Default)]
struct Limited {
    count: f64,
    /// Tokens of an answer over its limit.
    ratio: f64,
    /// Mean squared error of the limit times that, and of the plain mean.
    error: f64,
    plain_error: f64,
}

impl Limited {
    fn add(&mut self, limit: f64, tokens: f64, plain: f64) {
        self.count += 1.0;
        let weight = NEW_WEIGHT.max(1.0 / self.count);
        self.error += weight * ((self.ratio * limit - tokens).powi(2) - self.error);
        self.plain_error += weight * ((plain - tokens).powi(2) - self.plain_error);
        self.ratio += weight * (tokens / limit - self.ratio);
    }

    /// Whether it is much the better one.
    fn tells(&self) -> bool {
        self.count >= ENOUGH && self.error < self.plain_error / 2.0
    }
}

/// A few answers say less of an adapter, or of limits, than many say of all.
const ENOUGH: f64 = 16.0;

/// An answer's length to expect, and how uncertain it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Expected {
    pub(crate) tokens: f64,
    pub(crate) variance: f64,
}

/// Lengths of answers, of all and of each adapter.
#[derive(Debug, Default)]
pub(crate) struct Lengths {
    all: Moments,
    by_adapter: BTreeMap<u64, Moments>,
    limited: Limited,
}

impl Lengths {
    /// An answer that could have had `limit` tokens has ended with so many.
    pub(crate) fn learn(&mut self, adapter: Option<u64>, limit: Option<f64>, tokens: f64) {
        if let Some(limit) = limit.filter(|limit| *limit > 0.0) {
            let plain = self.of(adapter).mean;
            self.limited.add(limit, tokens, plain);
        }
        self.all.add(tokens);
        if let Some(adapter) = adapter
            && (self.by_adapter.len() < ADAPTERS_MAX || self.by_adapter.contains_key(&adapter))
        {
            self.by_adapter.entry(adapter).or_default().add(tokens);
        }
    }

    fn of(&self, adapter: Option<u64>) -> &Moments {
        let own = adapter.and_then(|adapter| self.by_adapter.get(&adapter));
        own.filter(|moments| moments.count >= ENOUGH).unwrap_or(&self.all)
    }

    /// What to expect of an answer that may have `limit` tokens.
    pub(crate) fn expect(&self, adapter: Option<u64>, limit: Option<f64>) -> Expected {
        let moments = self.of(adapter);
        let limit = limit.filter(|limit| *limit > 0.0);
        match limit {
            Some(limit) if self.limited.tells() => {
                let tokens = self.limited.ratio * limit;
                Expected { tokens, variance: self.limited.error }
            }
            _ if moments.count > 0.0 => {
                let tokens = limit.map_or(moments.mean, |limit| moments.mean.min(limit));
                let variance = (moments.square - moments.mean * moments.mean).max(0.0);
                Expected { tokens, variance }
            }
            // Anywhere up to the limit.
            _ => {
                let tokens = limit.map_or(OUTPUT_TOKENS_DEFAULT, |limit| limit / 2.0);
                let tokens = tokens.min(OUTPUT_TOKENS_UNKNOWN_MAX);
                Expected { tokens, variance: tokens * tokens }
            }
        }
    }
}

#[cfg(test)]
mod tests;
