//! One queue for all endpoints, with their true state: what routing could be.
//!
//! A request waits until some endpoint would admit it at once, having the KV blocks for its prompt, a sequence and an
//! adapter slot. It goes where its first token comes soonest; of equals, to the one that holds the least.

use std::collections::VecDeque;

use super::blocks;
use super::endpoint::Endpoint;
use super::events::Slab;
use super::run::{Live, Run};
use crate::engine::AdapterId;
use crate::workload::Shape;

/// Requests of the queue's head that may be passed over.
const PASSED_MAX: usize = 64;

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    pub(super) waiting: VecDeque<u32>,
    /// Reused.
    content: Vec<u64>,
    adapters: Vec<u32>,
}

/// What an endpoint would have to do for a request, least first.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
struct Effort {
    /// Whether it takes an adapter slot that others may want.
    takes_slot: bool,
    /// Until its prompt is computed, behind those of others.
    seconds: f64,
    /// KV tokens held.
    held: u32,
}

impl Run<'_> {
    /// Lets requests go from the queue, in order, as long as there is an endpoint for the first. As in vLLM, those that
    /// want adapters are passed over while there is no slot.
    pub(super) fn consult_oracle(&mut self) {
        let mut at = 0;
        while let Some(&live) = self.oracle.waiting.get(at) {
            let Some((endpoint, cached)) = self.best_endpoint(live) else {
                at += 1;
                let wants_adapter = self.live.peek(live).is_some_and(|r| r.shape.adapter.is_some());
                if !wants_adapter || at >= PASSED_MAX {
                    return;
                }
                continue;
            };
            self.oracle.waiting.remove(at);
            if let Some(request) = self.live.get(live) {
                request.cached = cached;
            }
            self.send(live, endpoint);
        }
    }

    /// Whether the request could ever run.
    pub(super) fn some_endpoint_takes(&self, live: u32) -> bool {
        let takes = |live: &Live| self.endpoints.iter().any(|e| takes(e, &live.shape));
        self.live.peek(live).is_some_and(takes)
    }

    fn best_endpoint(&mut self, live: u32) -> Option<(u32, u32)> {
        let shape = &self.live.peek(live)?.shape;
        let mut best: Option<(Effort, u32, u32)> = None;
        for (index, endpoint) in (0..).zip(&self.endpoints) {
            let cached = self.oracle.cached(endpoint, shape);
            let effort = self.oracle.effort(endpoint, &self.live, shape, cached);
            if let Some(effort) = effort.filter(|e| best.is_none_or(|(least, ..)| *e < least)) {
                best = Some((effort, index, cached));
            }
        }
        best.map(|(_, index, cached)| (index, cached))
    }
}

impl Oracle {
    fn cached(&mut self, endpoint: &Endpoint, shape: &Shape) -> u32 {
        if shape.segments.is_empty() {
            return 0;
        }
        let block_tokens = endpoint.engine.config().profile.block_tokens;
        blocks::content(&shape.segments, block_tokens, &mut self.content);
        let adapter = shape.adapter.map(AdapterId);
        endpoint.engine.cached(adapter, 0, shape.prompt_tokens, &mut self.content)
    }

    /// `None` where it would have to wait. Requests on their way count like those that have arrived.
    fn effort(
        &mut self,
        endpoint: &Endpoint,
        live: &Slab<Live>,
        shape: &Shape,
        cached: u32,
    ) -> Option<Effort> {
        let config = endpoint.engine.config();
        let profile = &config.profile;
        let free = !endpoint.is_out()
            && takes(endpoint, shape)
            && endpoint.on.len() < profile.max_num_seqs as usize;
        if !free {
            return None;
        }
        let takes_slot = self.takes_slot(endpoint, live, shape.adapter)?;
        let uncached = shape.prompt_tokens - cached;
        let (mut pending, mut held) = (uncached, uncached);
        for there in endpoint.on.iter().filter_map(|on| live.peek(*on)) {
            let computed = there.shape.prompt_tokens - there.cached;
            pending += if there.given == 0 { computed } else { 0 };
            // The last block of each is half empty on average.
            held += computed + there.given + profile.block_tokens / 2;
        }
        let fits = held <= profile.usable_blocks() * profile.block_tokens;
        // What arithmetic a token takes is all that differs between machines here.
        fits.then(|| Effort { takes_slot, seconds: profile.cost.b * f64::from(pending), held })
    }

    /// Whether the request would be the first there of its adapter; `None` if there is no slot for it.
    fn takes_slot(
        &mut self,
        on: &Endpoint,
        live: &Slab<Live>,
        adapter: Option<u32>,
    ) -> Option<bool> {
        let Some(adapter) = adapter else { return Some(false) };
        self.adapters.clear();
        self.adapters.extend(on.on.iter().filter_map(|on| live.peek(*on)?.shape.adapter));
        if self.adapters.contains(&adapter) {
            return Some(false);
        }
        self.adapters.sort_unstable();
        self.adapters.dedup();
        (self.adapters.len() < on.engine.config().max_loras as usize).then_some(true)
    }
}

fn takes(endpoint: &Endpoint, shape: &Shape) -> bool {
    endpoint.engine.takes(shape.prompt_tokens, shape.output_tokens)
}
