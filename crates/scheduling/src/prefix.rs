//! Which prompt blocks each endpoint has in its cache, by what was sent there: a mirror of vLLM's LRU an endpoint.
//!
//! Blocks of requests in flight are pinned, and the others wait in a queue for their turn to be forgotten, as in vLLM's
//! block pool. A request's blocks enter the queue together, the last one first, so that of one prompt the end is forgotten
//! before the beginning. An endpoint that holds a block therefore holds every block before it, and how far a prompt is
//! cached is found by halving instead of by walking along it.

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

/// One block on one endpoint: a link in the block's list of holders, and in the endpoint's queue unless it is pinned.
#[derive(Clone, Copy, Debug)]
struct Node {
    block: u64,
    endpoint: u32,
    /// The block before it on that endpoint.
    parent: u32,
    /// Requests in flight that use it.
    pins: u32,
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

/// One endpoint's blocks: those nobody uses in a queue, least recently used first.
#[derive(Clone, Copy, Debug)]
struct Queue {
    oldest: u32,
    newest: u32,
    idle: usize,
    pinned: usize,
    capacity: usize,
    /// Counts how often all of it was forgotten.
    epoch: u32,
}

impl Default for Queue {
    fn default() -> Self {
        Self { oldest: NIL, newest: NIL, idle: 0, pinned: 0, capacity: CAPACITY_DEFAULT, epoch: 0 }
    }
}

/// How much of a prompt an endpoint has.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Match {
    pub(crate) cached: u32,
    /// Of these, the ones that requests in flight use.
    pub(crate) pinned: u32,
}

/// A request's hold on its blocks. To be given back with [`PrefixIndex::unpin`].
#[derive(Debug)]
#[must_use = "blocks that stay pinned are never forgotten"]
pub(crate) struct Pin {
    endpoint: u32,
    last: u32,
    epoch: u32,
}

/// Blocks remembered of an endpoint that has not told the size of its cache: two million tokens, the Endpoint Picker's
/// default.
pub(crate) const CAPACITY_DEFAULT: usize = 31_250;

/// The blocks of all endpoints. About 90 bytes a block and endpoint.
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

    /// Calls `found` with endpoints that hold the beginning of `chain`, how many of its blocks, and how many of these are
    /// pinned; shorter matches first, the last call for an endpoint counts.
    pub(crate) fn matches(&self, chain: &[u64], mut found: impl FnMut(u32, Match)) {
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
            let cached = u32::try_from(end).unwrap_or(u32::MAX);
            let mut node = self.holders.get(&chain[end - 1]).map_or(NIL, |holders| holders.first);
            while node != NIL {
                let Node { endpoint, next, .. } = self.nodes[node as usize];
                found(endpoint, Match { cached, pinned: cached - self.idle_from(node) });
                node = next;
            }
        }
    }

    /// Blocks up to the first pinned one, from this one back.
    fn idle_from(&self, mut node: u32) -> u32 {
        let mut idle = 0;
        while node != NIL && self.nodes[node as usize].pins == 0 {
            idle += 1;
            node = self.nodes[node as usize].parent;
        }
        idle
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

    /// The endpoint has got a prompt with these blocks, and keeps them until it has answered.
    pub(crate) fn pin(&mut self, endpoint: u32, chain: &[u64]) -> Pin {
        let epoch = self.queue(endpoint).epoch;
        let mut last = NIL;
        for &block in chain {
            let key = place(block, endpoint);
            let node = if let Some(&node) = self.places.get(&key) {
                if self.nodes[node as usize].pins == 0 {
                    self.unqueue(node);
                    self.queue(endpoint).pinned += 1;
                }
                node
            } else {
                self.queue(endpoint).pinned += 1;
                self.add(key, block, endpoint, last)
            };
            self.nodes[node as usize].pins += 1;
            last = node;
        }
        self.shrink(endpoint);
        Pin { endpoint, last, epoch }
    }

    /// The request has been answered. Its blocks stay until others need their room.
    #[expect(clippy::needless_pass_by_value, reason = "a pin is given back once")]
    pub(crate) fn unpin(&mut self, pin: Pin) {
        if self.queue(pin.endpoint).epoch != pin.epoch {
            return;
        }
        let mut index = pin.last;
        while index != NIL {
            let node = &mut self.nodes[index as usize];
            node.pins -= 1;
            let Node { pins, parent, .. } = *node;
            if pins == 0 {
                self.queue(pin.endpoint).pinned -= 1;
                self.enqueue(index);
            }
            index = parent;
        }
        self.shrink(pin.endpoint);
    }

    /// Blocks that requests in flight use there.
    pub(crate) fn pinned(&self, endpoint: u32) -> usize {
        self.queues.get(endpoint as usize).map_or(0, |queue| queue.pinned)
    }

    /// The endpoint's cache is empty again. Pins on it mean nothing any more.
    pub(crate) fn forget(&mut self, endpoint: u32) {
        let queue = self.queue(endpoint);
        queue.epoch = queue.epoch.wrapping_add(1);
        while self.queue(endpoint).idle > 0 {
            self.drop_oldest(endpoint);
        }
        if self.queue(endpoint).pinned > 0 {
            let pinned = self
                .nodes
                .iter()
                .zip(0..)
                .filter(|(node, _)| node.endpoint == endpoint && node.pins > 0);
            let pinned: Vec<u32> = pinned.map(|(_, index)| index).collect();
            for index in pinned {
                self.remove(index);
            }
            self.queue(endpoint).pinned = 0;
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

    /// Pinned blocks stay, however many: an endpoint cannot drop them either.
    fn shrink(&mut self, endpoint: u32) {
        loop {
            let Queue { idle, pinned, capacity, .. } = *self.queue(endpoint);
            if idle == 0 || idle + pinned <= capacity {
                return;
            }
            self.drop_oldest(endpoint);
        }
    }

    fn add(&mut self, key: u64, block: u64, endpoint: u32, parent: u32) -> u32 {
        let holders = self.holders.entry(block).or_insert(Holders { first: NIL, count: 0 });
        let node = Node {
            block,
            endpoint,
            parent,
            pins: 0,
            older: NIL,
            newer: NIL,
            previous: NIL,
            next: holders.first,
        };
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
        self.remove(index);
    }

    /// Forgets a block that is in no queue.
    fn remove(&mut self, index: u32) {
        let Node { block, endpoint, previous, next, .. } = self.nodes[index as usize];
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
        self.nodes[index as usize].pins = 0;
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
        queue.idle += 1;
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
        queue.idle -= 1;
    }
}

#[cfg(test)]
mod tests;
