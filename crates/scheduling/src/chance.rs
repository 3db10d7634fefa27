//! Chance as an argument.

/// The turn and the dice of one decision. Equal chances give equal decisions.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Chance {
    /// Counts the decisions of a pool; round robin walks along it.
    pub turn: u64,
    state: u64,
}

impl Chance {
    pub fn new(turn: u64, seed: u64) -> Self {
        Self { turn, state: seed }
    }

    /// SplitMix64 (Steele, Lea, Flood 2014): one addition and three mixes a number, any seed is
    /// a good seed.
    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound` (0 if `bound` is 0). The multiply-shift keeps its bias below
    /// `bound / 2^64`.
    pub fn below(&mut self, bound: usize) -> usize {
        let wide = u128::from(self.next()) * bound as u128;
        usize::try_from(wide >> 64).unwrap_or(0)
    }
}
