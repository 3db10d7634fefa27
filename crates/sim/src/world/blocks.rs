//! Which blocks of prompts are equal: for the engines' caches, and for the gateways' idea of them.

use scheduling::{BLOCK_BYTES, BLOCKS_MAX};

use super::gateway::TOKEN_BYTES;
use crate::tokens::mix;
use crate::workload::{Segment, Shape};

/// Tokens of the blocks that gateways look at.
#[expect(clippy::cast_possible_truncation, reason = "a small constant")]
pub(super) const BLOCK_TOKENS: u32 = (BLOCK_BYTES as u64 / TOKEN_BYTES) as u32;

/// What is in the leading full blocks of `block_tokens` tokens, as far as segments tell.
pub(super) fn content(segments: &[Segment], block_tokens: u32, blocks: &mut Vec<u64>) {
    blocks.clear();
    let mut block = Block::new(block_tokens);
    for segment in segments {
        block.fill(*segment, |content| blocks.push(content));
    }
}

/// The same for a request as its endpoint sees it: beyond the segments come blocks that are in no other prompt. A
/// preempted request may find its own again.
pub(super) fn content_of(shape: &Shape, unique: u64, block_tokens: u32) -> Vec<u64> {
    let full = (shape.prompt_tokens + shape.output_tokens) / block_tokens.max(1);
    let mut blocks = Vec::with_capacity(full as usize);
    content(&shape.segments, block_tokens, &mut blocks);
    let shared = blocks.len() as u64;
    blocks.extend((shared..u64::from(full)).map(|block| mix(unique, block)));
    blocks
}

/// The hash chain a gateway would make of the prompt: that of its segments, then blocks that no other prompt has.
pub(super) fn chain(shape: &Shape, root: u64, unique: u64, blocks: &mut Vec<u64>) {
    content(&shape.segments, BLOCK_TOKENS, blocks);
    let mut state = mix(root, 1);
    for block in &mut *blocks {
        state = mix(state, *block);
        *block = state;
    }
    let full = (shape.prompt_tokens / BLOCK_TOKENS) as usize;
    let mut own = mix(state, unique);
    while blocks.len() < full.min(BLOCKS_MAX) {
        own = mix(own, 1);
        blocks.push(own);
    }
    blocks.truncate(BLOCKS_MAX);
}

/// A block being filled.
struct Block {
    size: u32,
    filled: u32,
    state: u64,
}

impl Block {
    fn new(size: u32) -> Block {
        Block { size: size.max(1), filled: 0, state: 0 }
    }

    fn fill(&mut self, segment: Segment, mut full: impl FnMut(u64)) {
        let mut at = 0;
        while at < segment.tokens {
            let take = (self.size - self.filled).min(segment.tokens - at);
            self.state = mix(self.state, mix(segment.id, u64::from(at) << 32 | u64::from(take)));
            self.filled += take;
            at += take;
            if self.filled == self.size {
                full(self.state);
                (self.filled, self.state) = (0, 0);
            }
        }
    }
}

/// The hash of what a prompt's first hundred characters would be: 25 tokens.
pub(super) fn prefix(shape: &Shape, root: u64, unique: u64) -> u64 {
    const TOKENS: u32 = 25;
    let mut block = Block::new(TOKENS);
    let mut first = None;
    for segment in &shape.segments {
        block.fill(*segment, |content| first = first.or(Some(content)));
        if first.is_some() {
            break;
        }
    }
    mix(root, first.unwrap_or_else(|| mix(unique, 7)))
}
