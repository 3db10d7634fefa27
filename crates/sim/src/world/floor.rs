//! The idle floor: how soon a request's first token could come if nobody else were there.

use std::hash::BuildHasherDefault;

use hashbrown::HashSet;

use super::blocks::{self, BLOCK_TOKENS};
use crate::engine::EngineConfig;
use crate::profile::Batch;
use crate::tokens::Spread;
use crate::workload::Shape;

/// Blocks remembered as sent before; what comes later counts as never sent.
const SEEN_MAX: usize = 4_000_000;

/// Computes the floor of each request, in the order of their arrival.
#[derive(Debug)]
pub(crate) struct Floor {
    machines: Vec<EngineConfig>,
    seen: HashSet<u64, BuildHasherDefault<Spread>>,
    chain: Vec<u64>,
}

impl Floor {
    pub(crate) fn new(endpoints: &[EngineConfig]) -> Floor {
        let mut machines: Vec<EngineConfig> = Vec::new();
        for endpoint in endpoints {
            if machines.iter().all(|machine| machine.profile != endpoint.profile) {
                machines.push(endpoint.clone());
            }
        }
        Floor { machines, seen: HashSet::default(), chain: Vec::new() }
    }

    /// Seconds to the first token, alone on the fastest machine there is, which has in its cache all that was ever sent.
    pub(crate) fn seconds(&mut self, shape: &Shape) -> f64 {
        let cached = if shape.segments.is_empty() { 0 } else { self.cached(shape) };
        self.machines
            .iter()
            .map(|machine| first_token_seconds(machine, shape.prompt_tokens, cached))
            .fold(f64::INFINITY, f64::min)
    }

    /// Tokens of the prompt that were sent before, in whole blocks.
    fn cached(&mut self, shape: &Shape) -> u32 {
        blocks::content(&shape.segments, BLOCK_TOKENS, &mut self.chain);
        let mut state = u64::from(shape.adapter.map_or(0, |adapter| adapter + 1));
        let (mut cached, mut hit) = (0, true);
        for block in &self.chain {
            state = crate::tokens::mix(state, *block);
            hit = hit && self.seen.contains(&state);
            cached += if hit { BLOCK_TOKENS } else { 0 };
            if self.seen.len() < SEEN_MAX {
                self.seen.insert(state);
            }
        }
        cached
    }
}

/// The steps of a prefill in chunks of the token budget, summed.
pub(crate) fn first_token_seconds(machine: &EngineConfig, prompt: u32, cached: u32) -> f64 {
    let mut past = cached.min(prompt.saturating_sub(1));
    let mut seconds = 0.0;
    while past < prompt {
        let chunk = machine.profile.max_num_batched_tokens.min(prompt - past);
        let (tokens, before) = (f64::from(chunk), f64::from(past));
        let batch = Batch {
            tokens,
            sequences: 1.0,
            decode_context: 0.0,
            prefill_pairs: tokens * (before + tokens / 2.0),
        };
        seconds += machine.profile.cost.duration(&batch).as_secs_f64();
        past += chunk;
    }
    seconds / machine.speedup
}
