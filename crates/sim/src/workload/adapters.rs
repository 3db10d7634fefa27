//! Which adapter is asked for how often.

/// Shares of adapters, cumulated.
#[derive(Clone, Debug, PartialEq)]
pub struct Popularity {
    cumulated: Vec<f64>,
}

impl Popularity {
    /// Adapter i is asked for in proportion to `weights[i]`.
    pub fn weights(weights: &[f64]) -> Popularity {
        let total: f64 = weights.iter().sum();
        let mut sum = 0.0;
        let cumulated = weights.iter().map(|weight| {
            sum += weight / total;
            sum
        });
        Popularity { cumulated: cumulated.collect() }
    }

    /// The i-th most popular is asked for 1/i as often as the first.
    pub fn zipf(adapters: u32) -> Popularity {
        Popularity::weights(&(1..=adapters).map(|rank| 1.0 / f64::from(rank)).collect::<Vec<_>>())
    }

    /// All alike.
    pub fn uniform(adapters: u32) -> Popularity {
        Popularity::weights(&vec![1.0; adapters as usize])
    }

    /// How many there are.
    pub fn adapters(&self) -> u32 {
        u32::try_from(self.cumulated.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn draw(&self, rng: &mut fastrand::Rng) -> u32 {
        let at = rng.f64();
        let index = self.cumulated.partition_point(|sum| *sum <= at);
        u32::try_from(index).unwrap_or(u32::MAX).min(self.adapters().saturating_sub(1))
    }
}
