use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Blocks of a prompt written as a word: `abc` holds the chain of `a`, `ab`, `abc`.
fn chain(word: &str) -> Vec<u64> {
    let mut state = 7u64;
    let step = |state: u64, byte: u8| {
        (state ^ u64::from(byte)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31)
    };
    word.bytes()
        .map(|byte| {
            state = step(state, byte);
            state
        })
        .collect()
}

fn found(index: &PrefixIndex, word: &str) -> BTreeMap<u32, u32> {
    let mut found = BTreeMap::new();
    index.matches(&chain(word), |endpoint, found_there| {
        found.insert(endpoint, found_there.cached);
    });
    found
}

/// A prompt that was answered at once.
fn touch(index: &mut PrefixIndex, endpoint: u32, chain: &[u64]) {
    let pin = index.pin(endpoint, chain);
    index.unpin(pin);
}

#[test]
fn a_prompt_is_found_as_far_as_it_was_sent_before() {
    let mut index = PrefixIndex::default();
    touch(&mut index, 0, &chain("system one"));
    touch(&mut index, 1, &chain("system two"));
    touch(&mut index, 2, &chain("other"));
    assert_eq!(found(&index, "system one more"), BTreeMap::from([(0, 10), (1, 7)]));
    assert_eq!(found(&index, "oth"), BTreeMap::from([(2, 3)]));
    assert_eq!(found(&index, "nothing"), BTreeMap::new());
    index.forget(0);
    assert_eq!(found(&index, "system one more"), BTreeMap::from([(1, 7)]));
}

#[test]
fn the_end_of_what_was_used_least_recently_goes_first() {
    let mut index = PrefixIndex::default();
    index.set_capacity(0, 6);
    touch(&mut index, 0, &chain("abcd"));
    touch(&mut index, 0, &chain("xyz"));
    assert_eq!((found(&index, "abcd")[&0], found(&index, "xyz")[&0]), (3, 3));
    touch(&mut index, 0, &chain("abc"));
    touch(&mut index, 0, &chain("q"));
    assert_eq!((found(&index, "abcd")[&0], found(&index, "xyz")[&0]), (3, 2));
    assert_eq!(index.len(), 6);
}

#[test]
fn what_requests_in_flight_use_is_not_forgotten() {
    let pinned = |index: &PrefixIndex, word: &str| {
        let mut pinned = 0;
        index.matches(&chain(word), |_, found| pinned = found.pinned);
        pinned
    };
    let mut index = PrefixIndex::default();
    index.set_capacity(0, 4);
    let one = index.pin(0, &chain("abc"));
    let two = index.pin(0, &chain("abxy"));
    touch(&mut index, 0, &chain("q"));
    assert_eq!((found(&index, "abc")[&0], found(&index, "abxy")[&0]), (3, 4));
    assert_eq!((pinned(&index, "abcd"), pinned(&index, "abxyz"), index.pinned(0)), (3, 4, 5));
    index.unpin(two);
    assert_eq!((pinned(&index, "abc"), pinned(&index, "abxy"), index.pinned(0)), (3, 2, 3));
    assert_eq!(found(&index, "abxy")[&0], 3, "one had to go");
    index.unpin(one);
    assert_eq!((index.pinned(0), index.len()), (0, 4));
}

#[test]
fn a_pin_on_what_was_forgotten_means_nothing() {
    let mut index = PrefixIndex::default();
    let old = index.pin(0, &chain("abc"));
    index.forget(0);
    assert_eq!((index.len(), index.pinned(0)), (0, 0));
    let new = index.pin(0, &chain("xyz"));
    index.unpin(old);
    assert_eq!(index.pinned(0), 3);
    index.unpin(new);
    assert_eq!(index.pinned(0), 0);
}

proptest! {
    /// Against a plain list an endpoint, most recently used first.
    #[test]
    fn it_is_an_lru_of_blocks_an_endpoint(
        prompts in prop::collection::vec((0u32..3, "[ab]{0,6}"), 0..60),
        capacity in 1usize..12,
        asked in "[ab]{0,8}",
    ) {
        let mut index = PrefixIndex::default();
        let mut lists: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        for endpoint in 0..3 {
            index.set_capacity(endpoint, capacity);
        }
        for (endpoint, prompt) in &prompts {
            touch(&mut index, *endpoint, &chain(prompt));
            let list = lists.entry(*endpoint).or_default();
            for block in chain(prompt).iter().rev() {
                list.retain(|held| held != block);
                list.insert(0, *block);
            }
            list.truncate(capacity);
        }
        let mut expected = BTreeMap::new();
        for (endpoint, list) in &lists {
            let held = chain(&asked).iter().take_while(|block| list.contains(block)).count();
            if held > 0 {
                expected.insert(*endpoint, u32::try_from(held).unwrap());
            }
        }
        prop_assert_eq!(found(&index, &asked), expected);
        prop_assert_eq!(index.len(), lists.values().map(Vec::len).sum::<usize>());
    }
}
