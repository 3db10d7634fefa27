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
    let found = (0..).zip(matches(index, word)).filter(|(_, found)| found.cached > 0);
    found.map(|(endpoint, found)| (endpoint, found.cached)).collect()
}

fn matches(index: &PrefixIndex, word: &str) -> [Match; 3] {
    let mut found = [Match::default(); 3];
    index.matches(&chain(word), &mut found);
    found
}

/// Blocks remembered, of all endpoints. Checks on the way that everything is where it has to be.
fn remembered(index: &PrefixIndex) -> usize {
    let mut queued = 0;
    for (endpoint, queue) in (0..).zip(&index.queues) {
        let (mut blocks, mut older, mut at) = (0, NIL, queue.oldest);
        while at != NIL {
            let entry = index.entries[at as usize];
            assert_eq!((entry.endpoint, entry.older), (endpoint, older));
            let run = &index.runs[entry.run as usize];
            let holder = run.holders[run.holder(endpoint).unwrap()];
            assert_eq!((holder.entry, holder.pins), (at, 0));
            let whole = holder.blocks as usize == run.blocks.len();
            assert!(whole || older == NIL, "only of what is forgotten next, a part is held");
            blocks += holder.blocks;
            queued += 1;
            (older, at) = (at, entry.newer);
        }
        assert_eq!((queue.newest, queue.idle), (older, blocks));
    }
    assert_eq!(index.runs.len() - index.unused_runs.len(), index.by_first.len());
    let (mut entries, mut pinned) = (0, 0);
    for (first, at) in &index.by_first {
        let run = &index.runs[*at as usize];
        assert_eq!(run.blocks.first(), Some(first));
        assert!(!run.holders.is_empty());
        for holder in &run.holders {
            entries += 1;
            assert_eq!(index.entries[holder.entry as usize].run, *at);
            assert!(holder.blocks > 0);
            if holder.pins > 0 {
                assert_eq!(holder.blocks as usize, run.blocks.len());
                (pinned, queued) = (pinned + run.blocks.len(), queued + 1);
            }
            if run.parent != NIL {
                let parent = &index.runs[run.parent as usize];
                let before = parent.holders[parent.holder(holder.endpoint).unwrap()];
                assert_eq!(before.blocks as usize, parent.blocks.len());
                assert!(before.pins >= holder.pins);
            }
        }
    }
    assert_eq!((queued, index.entries.len() - index.unused_entries.len()), (entries, entries));
    let all = |count: fn(&Queue) -> u32| index.queues.iter().map(count).sum::<u32>() as usize;
    assert_eq!(all(|queue| queue.pinned), pinned);
    all(|queue| queue.idle) + pinned
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
    assert_eq!(remembered(&index), 6);
}

#[test]
fn its_parts_are_as_large_as_the_book_says() {
    let run = size_of::<Run>() + size_of::<(u64, u32)>();
    assert!((70..=100).contains(&run), "{run}");
    assert_eq!(size_of::<Holder>() + size_of::<Entry>(), 32);
}

#[test]
fn no_more_is_remembered_than_the_maximum_whatever_an_endpoint_tells() {
    let mut index = PrefixIndex::default();
    index.set_capacity(0, u32::MAX);
    assert_eq!(index.queues[0].capacity, CAPACITY_MAX);
    index.set_capacity(0, CAPACITY_MAX - 1);
    assert_eq!(index.queues[0].capacity, CAPACITY_MAX - 1);
    index.set_capacity(0, 0);
    assert_eq!(index.queues[0].capacity, 1);
}

#[test]
fn what_requests_in_flight_use_is_not_forgotten() {
    let pinned = |index: &PrefixIndex, word: &str| matches(index, word)[0].pinned;
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
    assert_eq!((index.pinned(0), remembered(&index)), (0, 4));
}

#[test]
fn a_pin_on_what_was_forgotten_means_nothing() {
    let mut index = PrefixIndex::default();
    let old = index.pin(0, &chain("abc"));
    index.forget(0);
    assert_eq!((remembered(&index), index.pinned(0)), (0, 0));
    let new = index.pin(0, &chain("xyz"));
    index.unpin(old);
    assert_eq!(index.pinned(0), 3);
    index.unpin(new);
    assert_eq!(index.pinned(0), 0);
}

/// Plain lists of blocks an endpoint: how often each is pinned, and the others, most recently used first.
#[derive(Clone, Default)]
struct Plain {
    pins: BTreeMap<u64, u32>,
    idle: Vec<u64>,
}

impl Plain {
    fn pin(&mut self, chain: &[u64], capacity: usize) {
        for block in chain {
            *self.pins.entry(*block).or_default() += 1;
            self.idle.retain(|idle| idle != block);
        }
        self.shrink(capacity);
    }

    fn unpin(&mut self, chain: &[u64], capacity: usize) {
        for block in chain.iter().rev() {
            let pins = self.pins.get_mut(block).unwrap();
            *pins -= 1;
            if *pins == 0 {
                self.pins.remove(block);
                self.idle.insert(0, *block);
            }
        }
        self.shrink(capacity);
    }

    fn shrink(&mut self, capacity: usize) {
        self.idle.truncate(capacity.saturating_sub(self.pins.len()));
    }

    fn found(&self, chain: &[u64]) -> Match {
        let held = |block: &&u64| self.pins.contains_key(block) || self.idle.contains(block);
        let pinned = chain.iter().take_while(|block| self.pins.contains_key(block)).count();
        let cached = chain.iter().take_while(held).count();
        Match { cached: number(cached), pinned: number(pinned) }
    }
}

const WORDS: &str = "[ab]{0,7}|a{0,9}[ab]{0,3}";

proptest! {
    /// Each prompt is answered when so many others have come.
    #[test]
    fn it_is_an_lru_of_blocks_an_endpoint(
        prompts in prop::collection::vec((0u32..3, WORDS, 0usize..6), 0..80),
        capacity in 1usize..24,
        asked in WORDS,
        forgotten in prop::option::of(0u32..3),
    ) {
        let mut index = PrefixIndex::default();
        let mut plain = vec![Plain::default(); 3];
        for endpoint in 0..3 {
            index.set_capacity(endpoint, number(capacity));
        }
        let mut pins = Vec::new();
        let mut epoch = 0;
        for (at, (endpoint, prompt, stays)) in prompts.iter().enumerate() {
            let chain = chain(prompt);
            pins.push((at + stays, *endpoint, epoch, index.pin(*endpoint, &chain), chain.clone()));
            plain[*endpoint as usize].pin(&chain, capacity);
            for (_, endpoint, pinned, pin, chain) in pins.extract_if(.., |(until, ..)| *until == at) {
                index.unpin(pin);
                if pinned == epoch || Some(endpoint) != forgotten {
                    plain[endpoint as usize].unpin(&chain, capacity);
                }
            }
            if let Some(endpoint) = forgotten.filter(|_| at == prompts.len() / 2) {
                index.forget(endpoint);
                plain[endpoint as usize] = Plain::default();
                epoch = 1;
            }
            let held = plain.iter().map(|plain| plain.pins.len() + plain.idle.len()).sum::<usize>();
            prop_assert_eq!(remembered(&index), held);
            for (endpoint, plain) in (0..).zip(&plain) {
                prop_assert_eq!(index.pinned(endpoint) as usize, plain.pins.len());
            }
        }
        let expected: Vec<Match> = plain.iter().map(|plain| plain.found(&chain(&asked))).collect();
        prop_assert_eq!(matches(&index, &asked).to_vec(), expected);
    }

    /// Two prompts of equal hashes are possible, and whoever sends them finds them. Nothing has to be found then.
    #[test]
    fn blocks_that_are_no_chain_do_no_harm(
        prompts in prop::collection::vec((0u32..3, prop::collection::vec(0u64..4, 0..8)), 0..60),
        capacity in 1usize..12,
        stay in 0usize..12,
    ) {
        let mut index = PrefixIndex::default();
        let mut pins = Vec::new();
        for (endpoint, prompt) in &prompts {
            index.set_capacity(*endpoint, number(capacity));
            pins.push(index.pin(*endpoint, prompt));
            let mut found = [Match::default(); 3];
            index.matches(prompt, &mut found);
            prop_assert!(found.iter().all(|found| found.cached as usize <= prompt.len()));
            while pins.len() > stay {
                index.unpin(pins.remove(0));
            }
        }
        for pin in pins {
            index.unpin(pin);
        }
        prop_assert!(index.queues.iter().all(|queue| queue.pinned == 0 && queue.idle <= number(capacity)));
        for endpoint in 0..3 {
            index.forget(endpoint);
        }
        prop_assert_eq!(index.entries.len(), index.unused_entries.len());
        prop_assert_eq!(index.runs.len(), index.unused_runs.len());
        prop_assert!(index.by_first.is_empty());
    }
}
