//! The KV cache: a fixed number of blocks, shared by content, the least recently freed taken first.
//!
//! A block is held (`refs > 0`) or free. A free block may still carry cached content; it counts as free and keeps its
//! place in the queue until somebody holds it again or it is needed for something else.

use std::hash::BuildHasherDefault;

use hashbrown::HashMap;

use crate::tokens::Spread;

/// No neighbour in the free queue.
const NIL: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Block {
    refs: u32,
    /// What the block's tokens and all before them are, if other requests may find it.
    key: Option<u64>,
    prev: u32,
    next: u32,
}

/// All blocks of one instance.
#[derive(Debug)]
pub(super) struct BlockPool {
    blocks: Vec<Block>,
    /// Content to block; at most one entry a block.
    cached: HashMap<u64, u32, BuildHasherDefault<Spread>>,
    head: u32,
    tail: u32,
    free: u32,
}

impl BlockPool {
    pub(super) fn new(usable: u32) -> BlockPool {
        let mut pool = BlockPool {
            blocks: vec![Block { refs: 0, key: None, prev: NIL, next: NIL }; usable as usize],
            cached: HashMap::default(),
            head: NIL,
            tail: NIL,
            free: 0,
        };
        for id in 0..usable {
            pool.enqueue(id);
        }
        pool
    }

    /// Blocks nobody holds, cached or not.
    pub(super) fn free(&self) -> u32 {
        self.free
    }

    /// Share of the blocks that live requests hold.
    pub(super) fn usage(&self) -> f64 {
        let all = u32::try_from(self.blocks.len()).unwrap_or(u32::MAX);
        f64::from(all - self.free) / f64::from(all.max(1))
    }

    /// How many of `keys`, from the first on, are cached; and how many of those are free now, so that holding them
    /// uses up free blocks.
    pub(super) fn hits(&self, keys: &[u64]) -> (u32, u32) {
        let (mut hits, mut free) = (0, 0);
        for key in keys {
            let Some(id) = self.cached.get(key) else { break };
            hits += 1;
            free += u32::from(self.blocks[*id as usize].refs == 0);
        }
        (hits, free)
    }

    /// Holds the cached blocks of `keys`, all of which [`BlockPool::hits`] has counted.
    pub(super) fn hold_cached(&mut self, keys: &[u64], held: &mut Vec<u32>) {
        for key in keys {
            let Some(&id) = self.cached.get(key) else { break };
            if self.blocks[id as usize].refs == 0 {
                self.dequeue(id);
            }
            self.blocks[id as usize].refs += 1;
            held.push(id);
        }
    }

    /// Holds `count` blocks with nothing in them, dropping the least recently used cached content; or none of them, if
    /// fewer are free.
    pub(super) fn hold_new(&mut self, count: u32, held: &mut Vec<u32>) -> bool {
        if count > self.free {
            return false;
        }
        for _ in 0..count {
            let id = self.head;
            self.dequeue(id);
            let block = &mut self.blocks[id as usize];
            block.refs = 1;
            if let Some(key) = block.key.take() {
                self.cached.remove(&key);
            }
            held.push(id);
        }
        true
    }

    /// Lets others find the content of a held block. Content somebody else has already computed stays with that block.
    pub(super) fn publish(&mut self, id: u32, key: u64) {
        if self.blocks[id as usize].key.is_none() && !self.cached.contains_key(&key) {
            self.blocks[id as usize].key = Some(key);
            self.cached.insert(key, id);
        }
    }

    /// Gives blocks back, the last first: the end of a sequence is the least likely to be shared, so it goes first.
    pub(super) fn release(&mut self, held: &mut Vec<u32>) {
        while let Some(id) = held.pop() {
            let block = &mut self.blocks[id as usize];
            block.refs -= 1;
            if block.refs == 0 {
                self.enqueue(id);
            }
        }
    }

    fn enqueue(&mut self, id: u32) {
        let tail = self.tail;
        let block = &mut self.blocks[id as usize];
        block.prev = tail;
        block.next = NIL;
        match tail {
            NIL => self.head = id,
            tail => self.blocks[tail as usize].next = id,
        }
        self.tail = id;
        self.free += 1;
    }

    fn dequeue(&mut self, id: u32) {
        let Block { prev, next, .. } = self.blocks[id as usize];
        match prev {
            NIL => self.head = next,
            prev => self.blocks[prev as usize].next = next,
        }
        match next {
            NIL => self.tail = prev,
            next => self.blocks[next as usize].prev = prev,
        }
        self.free -= 1;
    }
}

#[cfg(test)]
mod tests;
