//! How long answers are, learned from those that ended.

use std::collections::BTreeMap;

/// Tokens expected of an answer before any has ended.
const OUTPUT_TOKENS_DEFAULT: f64 = 128.0;
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

/// Lengths of answers, of all and of each adapter.
#[derive(Debug, Default)]
pub(crate) struct Lengths {
    all: Moments,
    by_adapter: BTreeMap<u64, Moments>,
}

impl Lengths {
    pub(crate) fn learn(&mut self, adapter: Option<u64>, tokens: f64) {
        self.all.add(tokens);
        if let Some(adapter) = adapter
            && (self.by_adapter.len() < ADAPTERS_MAX || self.by_adapter.contains_key(&adapter))
        {
            self.by_adapter.entry(adapter).or_default().add(tokens);
        }
    }

    fn of(&self, adapter: Option<u64>) -> &Moments {
        // A few answers say less of an adapter than many say of all.
        const ENOUGH: f64 = 16.0;
        let own = adapter.and_then(|adapter| self.by_adapter.get(&adapter));
        own.filter(|moments| moments.count >= ENOUGH).unwrap_or(&self.all)
    }

    /// Tokens to expect of an answer.
    pub(crate) fn mean(&self, adapter: Option<u64>) -> f64 {
        let moments = self.of(adapter);
        if moments.count > 0.0 { moments.mean } else { OUTPUT_TOKENS_DEFAULT }
    }

    /// How uncertain that is.
    pub(crate) fn variance(&self, adapter: Option<u64>) -> f64 {
        let moments = self.of(adapter);
        if moments.count > 0.0 {
            (moments.square - moments.mean * moments.mean).max(0.0)
        } else {
            OUTPUT_TOKENS_DEFAULT * OUTPUT_TOKENS_DEFAULT
        }
    }
}
