//! Which prompt blocks each endpoint has in its cache, by what was sent there: a mirror of vLLM's LRU an endpoint.
//!
//! A block is touched with all blocks before it, the last one first, so that of one prompt the end is forgotten before
//! the beginning. An endpoint that holds a block therefore holds every block before it, and how far a prompt is cached
//! is found by halving instead of by walking along it.

use std::hash::{BuildHasherDefault, Hasher};

use hashbrown::HashMap;
use smallvec::SmallVec;

/// No node.
const NIL: u32 = u32::MAX;

/// Keys are hashes already. The map is never iterated, so its order decides nothing.
#[derive(Debug, Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

type Map<V> = HashMap<u64, V, BuildHasherDefault<Identity>>;

/// One block on one endpoint: a link in the endpoint's queue and in the block's list of holders.
#[derive(Clone, Copy, Debug)]
struct Node {
    block: u64,
    endpoint: u32,
    older: u32,
    newer: u32,
    previous: u32,
    next: u32,
}

/// Who holds a block.
#[derive(Clone, Copy, Debug)]
struct Holders {
    first: u32,
    count: u32,
}

/// One endpoint's blocks, least recently used first.
#[derive(Clone, Copy, Debug)]
struct Queue {
    oldest: u32,
    newest: u32,
    len: usize,
    capacity: usize,
}

impl Default for Queue {
    fn default() -> Self {
        Self { oldest: NIL, newest: NIL, len: 0, capacity: CAPACITY_DEFAULT }
    }
}

/// Blocks remembered of an endpoint that has not told the size of its cache: two million tokens, the Endpoint Picker's
/// default.
pub(crate) const CAPACITY_DEFAULT: usize = 31_250;

/// The blocks of all endpoints. About 80 bytes a block and endpoint.
#[derive(Debug, Default)]
pub(crate) struct PrefixIndex {
    nodes: Vec<Node>,
    unused: Vec<u32>,
    holders: Map<Holders>,
    /// By block and endpoint together.
    places: Map<u32>,
    queues: Vec<Queue>,
}

fn place(block: u64, endpoint: u32) -> u64 {
    (block ^ (u64::from(endpoint) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
        .rotate_left(23)
        .wrapping_mul(0xD134_2543_DE82_EF95)
}

impl PrefixIndex {
    /// How many blocks are remembered of an endpoint.
    pub(crate) fn set_capacity(&mut self, endpoint: u32, blocks: usize) {
        self.queue(endpoint).capacity = blocks.max(1);
        self.shrink(endpoint);
    }

    /// Calls `found` with endpoints that hold the beginning of `chain`, and how many of its blocks, shorter matches
    /// first; the last call for an endpoint counts.
    pub(crate) fn matches(&self, chain: &[u64], mut found: impl FnMut(u32, u32)) {
        // (blocks held, by how many) at the ends of stretches over which the holders do not change.
        let mut ends: SmallVec<[(usize, u32); 8]> = SmallVec::new();
        let mut from = 0;
        while from < chain.len() {
            let count = self.count(chain[from]);
            if count == 0 {
                break;
            }
            let end = self.stretch(chain, from, count);
            ends.push((end, count));
            from = end;
        }
        for (end, _) in ends {
            let mut node = self.holders.get(&chain[end - 1]).map_or(NIL, |holders| holders.first);
            while node != NIL {
                let Node { endpoint, next, .. } = self.nodes[node as usize];
                found(endpoint, u32::try_from(end).unwrap_or(u32::MAX));
                node = next;
            }
        }
    }

    /// The end of the stretch from `from` on whose blocks all have `count` holders. Doubling steps, then halving: the
    /// holders can only become fewer.
    fn stretch(&self, chain: &[u64], from: usize, count: u32) -> usize {
        let same = |at: usize| self.count(chain[at]) == count;
        let (mut last, mut step) = (from, 1);
        let mut end = chain.len();
        while last + step < end {
            if !same(last + step) {
                end = last + step;
                break;
            }
            last += step;
            step *= 2;
        }
        // `last` is in the stretch, `end` is not (or is the chain's).
        while last + 1 < end {
            let middle = last + (end - last) / 2;
            if same(middle) { last = middle } else { end = middle }
        }
        last + 1
    }

    fn count(&self, block: u64) -> u32 {
        self.holders.get(&block).map_or(0, |holders| holders.count)
    }

    /// The endpoint has got a prompt with these blocks.
    pub(crate) fn touch(&mut self, endpoint: u32, chain: &[u64]) {
        self.queue(endpoint);
        for &block in chain.iter().rev() {
            let key = place(block, endpoint);
            let node = if let Some(&node) = self.places.get(&key) {
                self.unqueue(node);
                node
            } else {
                self.add(key, block, endpoint)
            };
            self.enqueue(node);
        }
        self.shrink(endpoint);
    }

    /// The endpoint's cache is empty again.
    pub(crate) fn forget(&mut self, endpoint: u32) {
        while self.queue(endpoint).len > 0 {
            self.drop_oldest(endpoint);
        }
    }

    /// Blocks remembered, of all endpoints.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.nodes.len() - self.unused.len()
    }

    fn queue(&mut self, endpoint: u32) -> &mut Queue {
        let index = endpoint as usize;
        if self.queues.len() <= index {
            self.queues.resize(index + 1, Queue::default());
        }
        &mut self.queues[index]
    }

    fn shrink(&mut self, endpoint: u32) {
        while self.queue(endpoint).len > self.queue(endpoint).capacity {
            self.drop_oldest(endpoint);
        }
    }

    fn add(&mut self, key: u64, block: u64, endpoint: u32) -> u32 {
        let holders = self.holders.entry(block).or_insert(Holders { first: NIL, count: 0 });
        let node =
            Node { block, endpoint, older: NIL, newer: NIL, previous: NIL, next: holders.first };
        let index = if let Some(index) = self.unused.pop() {
            self.nodes[index as usize] = node;
            index
        } else {
            self.nodes.push(node);
            u32::try_from(self.nodes.len() - 1).unwrap_or(NIL)
        };
        if holders.first != NIL {
            self.nodes[holders.first as usize].previous = index;
        }
        holders.first = index;
        holders.count += 1;
        self.places.insert(key, index);
        index
    }

    fn drop_oldest(&mut self, endpoint: u32) {
        let index = self.queue(endpoint).oldest;
        self.unqueue(index);
        let Node { block, previous, next, .. } = self.nodes[index as usize];
        if next != NIL {
            self.nodes[next as usize].previous = previous;
        }
        if previous != NIL {
            self.nodes[previous as usize].next = next;
        }
        if let Some(holders) = self.holders.get_mut(&block) {
            holders.count -= 1;
            if previous == NIL {
                holders.first = next;
            }
            if holders.count == 0 {
                self.holders.remove(&block);
            }
        }
        self.places.remove(&place(block, endpoint));
        self.unused.push(index);
    }

    fn enqueue(&mut self, index: u32) {
        let endpoint = self.nodes[index as usize].endpoint;
        let newest = self.queue(endpoint).newest;
        let node = &mut self.nodes[index as usize];
        (node.older, node.newer) = (newest, NIL);
        if newest != NIL {
            self.nodes[newest as usize].newer = index;
        }
        let queue = self.queue(endpoint);
        queue.newest = index;
        if queue.oldest == NIL {
            queue.oldest = index;
        }
        queue.len += 1;
    }

    fn unqueue(&mut self, index: u32) {
        let Node { endpoint, older, newer, .. } = self.nodes[index as usize];
        if older != NIL {
            self.nodes[older as usize].newer = newer;
        }
        if newer != NIL {
            self.nodes[newer as usize].older = older;
        }
        let queue = self.queue(endpoint);
        if older == NIL {
            queue.oldest = newer;
        }
        if newer == NIL {
            queue.newest = older;
        }
        queue.len -= 1;
    }
}

#[cfg(test)]
mod tests;
