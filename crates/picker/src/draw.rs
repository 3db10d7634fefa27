//! Drawing lots by weight.

use scheduling::Chance;

/// An index with a probability in proportion to its weight; `None` if all weights are zero.
pub(crate) fn weighted(
    weights: impl Iterator<Item = u32> + Clone,
    chance: &mut Chance,
) -> Option<usize> {
    let total: usize = weights.clone().map(|weight| weight as usize).sum();
    let mut left = chance.below(total);
    weights.enumerate().find_map(|(index, weight)| {
        let weight = weight as usize;
        if left < weight {
            return Some(index);
        }
        left -= weight;
        None
    })
}
