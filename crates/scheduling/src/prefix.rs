//! Which prompt blocks each endpoint has in its cache, by what was sent there: a mirror of vLLM's LRU an endpoint.
//!
//! Blocks of requests in flight are pinned, and the others wait in a queue for their turn to be forgotten, as in vLLM's
//! block pool. A request's blocks enter the queue together, the last one first, so that of one prompt the end is forgotten
//! before the beginning. An endpoint that holds a block therefore holds every block before it.
//!
//! Blocks that have always been used together are one run, cut where prompts part. To find and note a prompt takes a few
//! runs, however many blocks it has. Of all runs, an endpoint can have only the oldest in its queue in part.

use std::hash::{BuildHasherDefault, Hasher};

use hashbrown::HashMap;
use smallvec::SmallVec;

/// No run, no entry.
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

/// Blocks one after the other, and who holds them.
#[derive(Debug)]
struct Run {
    blocks: Vec<u64>,
    /// The run before it. Who holds this one, holds that one.
    parent: u32,
    /// In the order of endpoints.
    holders: SmallVec<[Holder; 1]>,
}

/// An endpoint that holds the beginning of a run.
#[derive(Clone, Copy, Debug)]
struct Holder {
    endpoint: u32,
    /// Blocks held, one at the least; all, if it is pinned.
    blocks: u32,
    /// Requests in flight that use it.
    pins: u32,
    entry: u32,
}

/// One run on one endpoint, in the endpoint's queue unless it is pinned.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// None if nobody uses the entry.
    run: u32,
    endpoint: u32,
    older: u32,
    newer: u32,
}

/// One endpoint's blocks: those nobody uses in a queue, least recently used first.
#[derive(Clone, Copy, Debug)]
struct Queue {
    oldest: u32,
    newest: u32,
    idle: u32,
    pinned: u32,
    capacity: u32,
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
    /// The run with which the prompt ends.
    last: u32,
    epoch: u32,
}

/// Blocks remembered of an endpoint that has not told the size of its cache: two million tokens, the Endpoint Picker's
/// default.
pub(crate) const CAPACITY_DEFAULT: u32 = 31_250;

/// Most blocks remembered of an endpoint, whatever size of its cache it tells: a quarter of a billion tokens.
pub(crate) const CAPACITY_MAX: u32 = 4_000_000;

/// The blocks of all endpoints. A block takes eight bytes, however many endpoints hold it; a run about a hundred, and for
/// each of its holders thirty more.
#[derive(Debug, Default)]
pub(crate) struct PrefixIndex {
    runs: Vec<Run>,
    unused_runs: Vec<u32>,
    /// Runs by their first block.
    by_first: HashMap<u64, u32, BuildHasherDefault<Identity>>,
    entries: Vec<Entry>,
    unused_entries: Vec<u32>,
    queues: Vec<Queue>,
}

impl Run {
    /// How many of its blocks `chain` begins with. Equal blocks mean that all before them are equal.
    fn shared(&self, chain: &[u64]) -> usize {
        let most = self.blocks.len().min(chain.len());
        if self.blocks[most - 1] == chain[most - 1] {
            return most;
        }
        let (mut equal, mut different) = (0, most - 1);
        while equal < different {
            let middle = usize::midpoint(equal, different);
            if self.blocks[middle] == chain[middle] {
                equal = middle + 1;
            } else {
                different = middle;
            }
        }
        equal
    }

    fn holder(&self, endpoint: u32) -> Result<usize, usize> {
        self.holders.binary_search_by_key(&endpoint, |holder| holder.endpoint)
    }
}

impl PrefixIndex {
    /// How many blocks are remembered of an endpoint, up to the maximum.
    pub(crate) fn set_capacity(&mut self, endpoint: u32, blocks: u32) {
        self.queue(endpoint).capacity = blocks.clamp(1, CAPACITY_MAX);
        self.shrink(endpoint);
    }

    /// Sets in `found`, which begins with zeros, for each endpoint how many blocks of `chain` it holds.
    pub(crate) fn matches(&self, chain: &[u64], found: &mut [Match]) {
        let (mut at, mut parent) = (0, NIL);
        while let Some(index) = chain.get(at).and_then(|first| self.by_first.get(first)) {
            let run = &self.runs[*index as usize];
            if run.parent != parent {
                return;
            }
            let shared = run.shared(&chain[at..]);
            for holder in &run.holders {
                if let Some(found) = found.get_mut(holder.endpoint as usize) {
                    found.cached = number(at) + holder.blocks.min(number(shared));
                    found.pinned = if holder.pins > 0 { found.cached } else { found.pinned };
                }
            }
            if shared < run.blocks.len() {
                return;
            }
            (at, parent) = (at + shared, *index);
        }
    }

    /// The endpoint has got a prompt with these blocks, and keeps them until it has answered.
    pub(crate) fn pin(&mut self, endpoint: u32, chain: &[u64]) -> Pin {
        let epoch = self.queue(endpoint).epoch;
        let (mut rest, mut last) = (chain, NIL);
        while let Some(run) = self.next_run(last, &mut rest) {
            self.hold(endpoint, run);
            last = run;
        }
        self.shrink(endpoint);
        Pin { endpoint, last, epoch }
    }

    /// The request has been answered. Its blocks stay until others need their room.
    pub(crate) fn unpin(&mut self, Pin { endpoint, last, epoch }: Pin) {
        if self.queue(endpoint).epoch != epoch {
            return;
        }
        let mut index = last;
        while let Some(run) = self.runs.get_mut(index as usize) {
            let Ok(at) = run.holder(endpoint) else { break };
            let Holder { pins, blocks, entry, .. } = &mut run.holders[at];
            index = run.parent;
            *pins -= 1;
            if *pins == 0 {
                let (blocks, entry) = (*blocks, *entry);
                let queue = self.queue(endpoint);
                queue.pinned -= blocks;
                queue.idle += blocks;
                let newest = queue.newest;
                self.link(endpoint, newest, entry);
                self.link(endpoint, entry, NIL);
            }
        }
        self.shrink(endpoint);
    }

    /// Blocks that requests in flight use there.
    pub(crate) fn pinned(&self, endpoint: u32) -> u32 {
        self.queues.get(endpoint as usize).map_or(0, |queue| queue.pinned)
    }

    /// The endpoint's cache is empty again. Pins on it mean nothing any more.
    pub(crate) fn forget(&mut self, endpoint: u32) {
        let queue = self.queue(endpoint);
        queue.epoch = queue.epoch.wrapping_add(1);
        let Queue { idle, pinned, .. } = *queue;
        self.drop_oldest(endpoint, idle);
        if pinned > 0 {
            let there = |entry: &Entry| entry.endpoint == endpoint && entry.run != NIL;
            let entries = self.entries.iter().zip(0..).filter(|(entry, _)| there(entry));
            let entries: Vec<u32> = entries.map(|(_, index)| index).collect();
            for entry in entries {
                self.remove(entry);
            }
            self.queue(endpoint).pinned = 0;
        }
    }

    /// The run with which `rest` begins, after the run `last`; `rest` becomes what follows. A run that goes on in another way
    /// is cut; what is new becomes one. `None` at the end, and for a block that has been seen after another one: hashes can
    /// be equal by chance.
    fn next_run(&mut self, last: u32, rest: &mut &[u64]) -> Option<u32> {
        let first = rest.first()?;
        let Some(&run) = self.by_first.get(first) else {
            let blocks = std::mem::take(rest).to_vec();
            let run = Run { blocks, parent: last, holders: SmallVec::new() };
            return Some(self.add(run));
        };
        let Run { blocks, parent, .. } = &self.runs[run as usize];
        if *parent != last {
            return None;
        }
        let whole = blocks.len();
        let shared = self.runs[run as usize].shared(rest);
        *rest = &rest[shared..];
        Some(if shared < whole { self.cut(run, shared) } else { run })
    }

    /// Cuts a run after so many blocks, and returns what is before the cut. What is after it remains the run that it was, to
    /// pins that end with it and to runs that follow it.
    fn cut(&mut self, index: u32, len: usize) -> u32 {
        let run = &mut self.runs[index as usize];
        let after = run.blocks.split_off(len);
        let mut blocks = std::mem::replace(&mut run.blocks, after);
        blocks.shrink_to_fit();
        let (parent, holders) = (run.parent, std::mem::take(&mut run.holders));
        let second = run.blocks[0];
        let front = self.add(Run { blocks, parent, holders: SmallVec::new() });
        let len = number(len);
        let (mut before, mut after) = (SmallVec::new(), SmallVec::new());
        for holder in holders {
            let Holder { endpoint, blocks, pins, entry } = holder;
            if blocks <= len {
                self.entries[entry as usize].run = front;
                before.push(holder);
                continue;
            }
            after.push(Holder { blocks: blocks - len, ..holder });
            let new = self.enter(Entry { run: front, endpoint, older: NIL, newer: NIL });
            before.push(Holder { blocks: len, entry: new, ..holder });
            if pins == 0 {
                // Both were used at the same time, and the end is forgotten first.
                let newer = self.entries[entry as usize].newer;
                self.link(endpoint, entry, new);
                self.link(endpoint, new, newer);
            }
        }
        self.runs[front as usize].holders = before;
        if after.is_empty() {
            self.discard(index);
        } else {
            let back = &mut self.runs[index as usize];
            (back.parent, back.holders) = (front, after);
            self.by_first.insert(second, index);
        }
        front
    }

    /// One more request on the endpoint uses the whole run.
    fn hold(&mut self, endpoint: u32, run: u32) {
        let Run { blocks, holders, .. } = &mut self.runs[run as usize];
        let whole = number(blocks.len());
        match holders.binary_search_by_key(&endpoint, |holder| holder.endpoint) {
            Ok(at) => {
                let Holder { blocks, pins, entry, .. } = &mut holders[at];
                *pins += 1;
                if *pins == 1 {
                    let (held, entry) = (std::mem::replace(blocks, whole), *entry);
                    let Entry { older, newer, .. } = self.entries[entry as usize];
                    self.link(endpoint, older, newer);
                    let queue = self.queue(endpoint);
                    queue.idle -= held;
                    queue.pinned += whole;
                }
            }
            Err(at) => {
                holders.insert(at, Holder { endpoint, blocks: whole, pins: 1, entry: NIL });
                let entry = self.enter(Entry { run, endpoint, older: NIL, newer: NIL });
                self.runs[run as usize].holders[at].entry = entry;
                self.queue(endpoint).pinned += whole;
            }
        }
    }

    /// Pinned blocks stay, however many: an endpoint cannot drop them either.
    fn shrink(&mut self, endpoint: u32) {
        let Queue { idle, pinned, capacity, .. } = *self.queue(endpoint);
        self.drop_oldest(endpoint, idle.saturating_add(pinned).saturating_sub(capacity).min(idle));
    }

    /// The endpoint forgets so many of the blocks in its queue.
    fn drop_oldest(&mut self, endpoint: u32, blocks: u32) {
        self.queue(endpoint).idle -= blocks;
        let mut left = blocks;
        while left > 0 {
            let oldest = self.queue(endpoint).oldest;
            let Some(&Entry { run, newer, .. }) = self.entries.get(oldest as usize) else { return };
            let run = &mut self.runs[run as usize];
            let Ok(at) = run.holder(endpoint) else { return };
            let held = &mut run.holders[at].blocks;
            if *held > left {
                *held -= left;
                return;
            }
            left -= *held;
            self.link(endpoint, NIL, newer);
            self.remove(oldest);
        }
    }

    /// Forgets a run on one endpoint that is in no queue.
    fn remove(&mut self, entry: u32) {
        let Entry { run: index, endpoint, .. } = self.entries[entry as usize];
        self.entries[entry as usize].run = NIL;
        self.unused_entries.push(entry);
        let run = &mut self.runs[index as usize];
        if let Ok(at) = run.holder(endpoint) {
            run.holders.remove(at);
        }
        if run.holders.is_empty() {
            self.discard(index);
        }
    }

    /// Nobody holds this run any more.
    fn discard(&mut self, index: u32) {
        let blocks = std::mem::take(&mut self.runs[index as usize].blocks);
        if let Some(first) = blocks.first()
            && self.by_first.get(first) == Some(&index)
        {
            self.by_first.remove(first);
        }
        self.unused_runs.push(index);
    }

    fn add(&mut self, run: Run) -> u32 {
        let first = run.blocks[0];
        let index = put(&mut self.runs, &mut self.unused_runs, run);
        self.by_first.insert(first, index);
        index
    }

    fn enter(&mut self, entry: Entry) -> u32 {
        put(&mut self.entries, &mut self.unused_entries, entry)
    }

    fn queue(&mut self, endpoint: u32) -> &mut Queue {
        let index = endpoint as usize;
        if self.queues.len() <= index {
            self.queues.resize(index + 1, Queue::default());
        }
        &mut self.queues[index]
    }

    /// Makes two entries neighbours in the endpoint's queue; beside its ends there is none.
    fn link(&mut self, endpoint: u32, older: u32, newer: u32) {
        match self.entries.get_mut(older as usize) {
            Some(older) => older.newer = newer,
            None => self.queue(endpoint).oldest = newer,
        }
        match self.entries.get_mut(newer as usize) {
            Some(newer) => newer.older = older,
            None => self.queue(endpoint).newest = older,
        }
    }
}

/// Puts a value where none is used any more, or at the end.
fn put<T>(values: &mut Vec<T>, unused: &mut Vec<u32>, value: T) -> u32 {
    if let Some(index) = unused.pop() {
        values[index as usize] = value;
        return index;
    }
    values.push(value);
    number(values.len() - 1)
}

/// Blocks, runs and entries are counted in 32 bits: more do not fit into memory.
fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(NIL)
}

#[cfg(test)]
mod tests;
