//! Finds what somebody probably meant to write.

/// The one of `known` that is a slip of the keyboard away from `word`, if any is.
pub(crate) fn closest<'k>(
    word: &str,
    known: impl IntoIterator<Item = &'k str>,
    slips_max: usize,
) -> Option<&'k str> {
    // A word of three letters is two slips away from too much.
    let slips_max = slips_max.min(word.chars().count().saturating_sub(1) / 2);
    known
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(slips, _)| *slips <= slips_max)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Letters to insert, delete, change or swap with a neighbour; case does not count.
fn distance(a: &str, b: &str) -> usize {
    const LETTERS_MAX: usize = 64;
    let a: Vec<char> = a.chars().flat_map(char::to_lowercase).take(LETTERS_MAX).collect();
    let b: Vec<char> = b.chars().flat_map(char::to_lowercase).take(LETTERS_MAX).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, &from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &to) in b.iter().enumerate() {
            let mut best =
                (above[j] + usize::from(from != to)).min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && from == b[j - 1] && a[i - 1] == to {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests;
