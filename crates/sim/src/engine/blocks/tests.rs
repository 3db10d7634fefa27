use proptest::prelude::*;

use super::*;

/// Walks the free queue both ways and counts what is held.
fn check(pool: &BlockPool, held: &[Vec<u32>]) {
    let mut forward = Vec::new();
    let mut id = pool.head;
    while id != NIL {
        assert_eq!(pool.blocks[id as usize].refs, 0);
        forward.push(id);
        id = pool.blocks[id as usize].next;
    }
    let mut backward = Vec::new();
    let mut id = pool.tail;
    while id != NIL {
        backward.push(id);
        id = pool.blocks[id as usize].prev;
    }
    backward.reverse();
    assert_eq!(forward, backward);
    assert_eq!(forward.len(), pool.free as usize);
    for (id, block) in (0..).zip(&pool.blocks) {
        let holders = held.iter().flatten().filter(|h| **h == id).count();
        assert_eq!(block.refs as usize, holders);
        assert!(block.refs > 0 || forward.contains(&id));
        assert!(block.key.is_none_or(|key| pool.cached[&key] == id));
    }
}

proptest! {
    #[test]
    fn no_block_is_lost_or_held_and_free_at_once(ops in prop::collection::vec((0..3u8, 0..6u32, 0..8usize), 1..200)) {
        let mut pool = BlockPool::new(12);
        let mut held: Vec<Vec<u32>> = Vec::new();
        for (op, count, pick) in ops {
            match op {
                0 => {
                    let mut blocks = Vec::new();
                    if pool.hold_new(count, &mut blocks) {
                        for (key, id) in (0..).zip(&blocks) {
                            pool.publish(*id, key);
                        }
                        held.push(blocks);
                    } else {
                        prop_assert!(blocks.is_empty() && count > pool.free());
                    }
                }
                1 => {
                    let keys: Vec<u64> = (0..u64::from(count)).collect();
                    let (hits, free) = pool.hits(&keys);
                    let mut blocks = Vec::new();
                    let before = pool.free();
                    pool.hold_cached(&keys[..hits as usize], &mut blocks);
                    prop_assert_eq!(before - pool.free(), free);
                    held.push(blocks);
                }
                _ if !held.is_empty() => {
                    let index = pick % held.len();
                    pool.release(&mut held[index]);
                    held.swap_remove(index);
                }
                _ => {}
            }
            check(&pool, &held);
        }
    }
}

#[test]
fn the_end_of_the_oldest_sequence_is_evicted_first() {
    let mut pool = BlockPool::new(4);
    let mut held = Vec::new();
    assert!(pool.hold_new(3, &mut held));
    for (key, id) in (0..).zip(&held) {
        pool.publish(*id, key);
    }
    pool.release(&mut held);
    assert_eq!(pool.hits(&[0, 1, 2]), (3, 3));
    // The fourth block was never used, so it goes first; then the tail of the sequence.
    assert!(pool.hold_new(2, &mut held));
    assert_eq!(pool.hits(&[0, 1, 2]), (2, 2));
}
