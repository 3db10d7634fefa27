//! What one machine with one model costs: the step-time formula, its measured coefficients, the KV cache's size.
//!
//! The coefficients come from operator profiles and published runs of real vLLM servers; the two marked *validated*
//! reproduce a recorded run within a few per cent, the others are the same formula scaled, good to about ±15 %.

use std::borrow::Cow;
use std::time::Duration;

/// Coefficients of the step-time formula, all in milliseconds.
///
/// `max(base + s·n, a + b·n) + q·S + k·ΣctxD + p·Σ chunk·(past + chunk/2) + h` with n = tokens in the batch, S =
/// sequences in it, ctxD = the context of each decoding sequence, chunk and past = each piece of prefill.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepCost {
    /// Cost of reading the weights once; the floor of every step.
    pub base: f64,
    /// Per token while the batch is bound by memory.
    pub s: f64,
    /// Intercept of the part bound by arithmetic.
    pub a: f64,
    /// Per token while the batch is bound by arithmetic.
    pub b: f64,
    /// Per sequence.
    pub q: f64,
    /// Per token of context of a decoding sequence.
    pub k: f64,
    /// Per query and key pair of prefill.
    pub p: f64,
    /// Head, sampler and host.
    pub h: f64,
}

/// What a step carries, summed over its sequences.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Batch {
    /// Tokens computed in the step.
    pub tokens: f64,
    /// Sequences in the step.
    pub sequences: f64,
    /// Context tokens of the sequences that decode.
    pub decode_context: f64,
    /// Query and key pairs of the sequences that prefill: Σ chunk·(past + chunk/2).
    pub prefill_pairs: f64,
}

impl StepCost {
    /// How long a step with this batch takes.
    pub fn duration(&self, batch: &Batch) -> Duration {
        let weights = (self.base + self.s * batch.tokens).max(self.a + self.b * batch.tokens);
        let millis = weights
            + self.q * batch.sequences
            + self.k * batch.decode_context
            + self.p * batch.prefill_pairs
            + self.h;
        Duration::from_secs_f64(millis.max(0.0) / 1e3)
    }
}

/// One vLLM instance: cost of a step and the limits it was started with.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// The name it is asked for by.
    pub name: Cow<'static, str>,
    /// Cost of a step.
    pub cost: StepCost,
    /// `num_gpu_blocks`; one of them is vLLM's null block and holds nothing.
    pub blocks: u32,
    /// Tokens a block.
    pub block_tokens: u32,
    /// `--max-num-seqs`.
    pub max_num_seqs: u32,
    /// `--max-num-batched-tokens`: the token budget of a step.
    pub max_num_batched_tokens: u32,
    /// `--max-model-len`: prompt and answer together.
    pub max_model_len: u32,
}

/// The limits of a profile in a row of the table below.
struct Limits {
    blocks: u32,
    max_num_seqs: u32,
    budget: u32,
    max_model_len: u32,
}

const fn cost(v: [f64; 8]) -> StepCost {
    StepCost { base: v[0], s: v[1], a: v[2], b: v[3], q: v[4], k: v[5], p: v[6], h: v[7] }
}

const fn limits(blocks: u32, max_num_seqs: u32, budget: u32, max_model_len: u32) -> Limits {
    Limits { blocks, max_num_seqs, budget, max_model_len }
}

/// base, s, a, b, q, k, p, h; then blocks, sequences, token budget, context.
const TABLE: [(&str, StepCost, Limits); 8] = [
    // --gpu_memory_utilization 0.8 and four adapter slots: A40 and A30 profiles scaled to the A10's 600 GB/s and 125 TF.
    (
        "a10-llama2-7b",
        cost([27.7, 0.060, 9.0, 0.150, 0.02, 1.25e-3, 1.3e-5, 2.5]),
        limits(575, 256, 2048, 4096),
    ),
    (
        "a100-llama3-8b",
        cost([9.8, 0.029, 6.4, 0.0672, 0.006, 9.2e-5, 2.0e-6, 0.7]),
        limits(27_500, 256, 2048, 8192),
    ),
    (
        "a100-llama2-7b",
        cost([8.8, 0.029, 2.2, 0.0646, 0.01, 3.7e-4, 6e-6, 0.6]),
        limits(7_260, 256, 2048, 4096),
    ),
    (
        "h100-llama3-8b",
        cost([6.0, 0.012, 3.1, 0.0221, 0.006, 5.6e-5, 7.5e-7, 0.45]),
        limits(27_500, 1024, 8192, 8192),
    ),
    // The added 4 ms are 160 all-reduces.
    (
        "h100x4-llama3-70b",
        cost([14.8 + 4.0, 0.013, 10.1 + 4.0, 0.0535, 0.02, 3.5e-5, 2.4e-6, 1.0]),
        limits(28_836, 1024, 8192, 32_768),
    ),
    (
        "h100x2-qwen3-32b",
        cost([11.0, 0.02, 4.0, 0.0377, 0.02, 4.4e-5, 2.6e-6, 0.5]),
        limits(19_208, 1024, 8192, 32_768),
    ),
    // Validated against a recorded run, with the constant part of attention (0.37 ms) and the second norm of a layer in
    // h, and a base that fits the profile best at 30 to 130 tokens, where a loaded server lives.
    (
        "rtx4090-llama3.1-8b",
        cost([15.7, 0.0334, 1.0, 0.0875, 0.006_35, 1.415e-4, 4.56e-6, 2.1]),
        limits(2_588, 256, 2048, 32_768),
    ),
    // Validated against a recorded run with 128 sequences.
    (
        "rtxpro6000-llama3.1-8b",
        cost([9.95, 0.0140, 4.2, 0.0351, 0.0036, 1.12e-4, 2.59e-6, 1.2]),
        limits(36_578, 128, 2048, 32_768),
    ),
];

/// Tokens a block in every named profile: vLLM's default on GPUs.
const BLOCK_TOKENS: u32 = 16;

impl Profile {
    /// The names there are, the default first.
    pub const NAMES: [&str; TABLE.len()] = {
        let mut names = [""; TABLE.len()];
        let mut i = 0;
        while i < TABLE.len() {
            names[i] = TABLE[i].0;
            i += 1;
        }
        names
    };

    /// The profile of this name, if there is one.
    pub fn named(name: &str) -> Option<Profile> {
        TABLE.iter().find(|row| row.0 == name).map(Profile::from_row)
    }

    fn from_row((name, cost, limits): &(&'static str, StepCost, Limits)) -> Profile {
        Profile {
            name: Cow::Borrowed(name),
            cost: *cost,
            blocks: limits.blocks,
            block_tokens: BLOCK_TOKENS,
            max_num_seqs: limits.max_num_seqs,
            max_num_batched_tokens: limits.budget,
            max_model_len: limits.max_model_len,
        }
    }

    /// Blocks that can hold tokens: all but the null block.
    pub fn usable_blocks(&self) -> u32 {
        self.blocks.saturating_sub(1)
    }
}

impl Default for Profile {
    fn default() -> Profile {
        Profile::from_row(&TABLE[0])
    }
}

#[cfg(test)]
mod tests;
