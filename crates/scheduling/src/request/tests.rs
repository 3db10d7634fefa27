use proptest::prelude::*;

use super::*;

fn chain(root: u64, prompt: &[u8]) -> Vec<u64> {
    let mut blocks = vec![99; 3];
    hash_blocks(root, &[prompt], &mut blocks);
    blocks
}

/// How many blocks of two prompts of so many bytes are equal if they differ from byte `differ` on.
fn check(bytes: usize, differ: usize, expected: usize) {
    let (one, mut other) = (vec![7; bytes], vec![7; bytes]);
    other[differ..].fill(8);
    let (one, other) = (chain(1, &one), chain(1, &other));
    assert_eq!(one.len(), (bytes / BLOCK_BYTES).min(BLOCKS_MAX));
    let equal = one.iter().zip(&other).take_while(|(one, other)| one == other).count();
    assert_eq!(equal, expected, "{bytes} bytes, different from {differ} on");
    assert!(one[equal..].iter().all(|block| !other.contains(block)), "nothing behind is equal");
}

#[test]
fn blocks_are_equal_up_to_the_first_that_differs() {
    check(1024, 1024, 4);
    check(1024, 1023, 3);
    check(1024, 512, 2);
    check(1024, 511, 1);
    check(1024, 0, 0);
    check(255, 0, 0);
    check(300, 260, 1);
}

#[test]
fn no_more_blocks_are_looked_at_than_the_maximum() {
    let bytes = (BLOCKS_MAX + 5) * BLOCK_BYTES;
    check(bytes, bytes - 1, BLOCKS_MAX);
}

#[test]
fn the_maximum_holds_for_all_parts_together() {
    let part = vec![7; BLOCKS_MAX * BLOCK_BYTES / 2 + 100];
    let mut blocks = Vec::new();
    for parts in [&[&part[..]; 3][..], &[&part[..]; 2], &[&[1; 100], &part, &part, &[1; 200]]] {
        hash_blocks(1, parts, &mut blocks);
        assert_eq!(blocks.len(), BLOCKS_MAX);
    }
}

#[test]
fn prompts_of_different_roots_share_nothing() {
    let prompt = [3; 1024];
    let (one, other) = (chain(1, &prompt), chain(2, &prompt));
    assert!(one.iter().all(|block| !other.contains(block)));
    assert_ne!(hash_prefix(1, &[&prompt]), hash_prefix(2, &[&prompt]));
}

#[test]
fn the_beginning_is_a_hundred_bytes() {
    let (one, mut other) = ([3; 200], [3; 200]);
    other[100] = 4;
    assert_eq!(hash_prefix(0, &[&one]), hash_prefix(0, &[&other]));
    other[99] = 4;
    assert_ne!(hash_prefix(0, &[&one]), hash_prefix(0, &[&other]));
    assert_ne!(hash_prefix(0, &[&one[..50]]), hash_prefix(0, &[&one[..51]]));
}

proptest! {
    #[test]
    fn a_longer_prompt_begins_with_the_chain_of_a_shorter_one(
        prompt in prop::collection::vec(0u8..3, 0..2_000),
        cut in 0usize..2_000,
        root: u64,
    ) {
        let short = chain(root, &prompt[..cut.min(prompt.len())]);
        let long = chain(root, &prompt);
        prop_assert!(long.starts_with(&short));
        let mut distinct = long.clone();
        distinct.sort_unstable();
        distinct.dedup();
        prop_assert_eq!(distinct.len(), long.len(), "equal blocks at different places differ");
    }

    #[test]
    fn a_prompt_in_parts_has_the_hashes_of_the_whole(
        prompt in prop::collection::vec(any::<u8>(), 0..2_000),
        mut cuts in prop::collection::vec(0usize..2_000, 0..5),
        root: u64,
    ) {
        cuts.push(0);
        cuts.push(prompt.len());
        for cut in &mut cuts {
            *cut = (*cut).min(prompt.len());
        }
        cuts.sort_unstable();
        let parts: Vec<&[u8]> = cuts.windows(2).map(|cut| &prompt[cut[0]..cut[1]]).collect();
        let mut blocks = vec![99; 3];
        hash_blocks(root, &parts, &mut blocks);
        prop_assert_eq!(blocks, chain(root, &prompt));
        prop_assert_eq!(hash_prefix(root, &parts), hash_prefix(root, &[&prompt]));
    }
}
