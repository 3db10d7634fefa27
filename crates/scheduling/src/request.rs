//! What is known of a request when its endpoint is chosen.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Bytes of prompt a block stands for: 64 tokens at four bytes each. Coarser than vLLM's blocks of 16 tokens, so that a
/// long prompt is a few dozen lookups; as fine as the approximate index of the Endpoint Picker.
pub const BLOCK_BYTES: usize = 256;
/// Blocks of a prompt looked at; half a megabyte. What follows counts as not cached.
pub const BLOCKS_MAX: usize = 2048;
/// Bytes of a prompt that `prefix-hash` looks at; KubeAI's `prefixCharLength`.
const PREFIX_BYTES: usize = 100;

/// A request, as far as choosing an endpoint needs it.
#[derive(Clone, Copy, Debug, Default)]
pub struct InferenceRequest<'a> {
    /// The name the endpoint will read: a base model or an adapter.
    pub model: Option<&'a str>,
    /// Length of the prompt.
    pub prompt_bytes: u64,
    /// Hash chain of the prompt's blocks, as [`hash_blocks`] makes it: equal values mean that the block and all before it
    /// are equal. Empty if the policy does not [read prefixes](crate::Policy::reads_prefixes).
    pub blocks: &'a [u64],
    /// Hash of how the prompt begins.
    pub prefix: u64,
    /// It may be refused rather than wait.
    pub sheddable: bool,
}

/// The hash chain of a prompt's full blocks. `root` stands for whatever else must be equal for a cache to be shared: model,
/// adapter, salt.
pub fn hash_blocks(root: u64, prompt: &[u8], blocks: &mut Vec<u64>) {
    blocks.clear();
    let mut state = root;
    blocks.extend(prompt.chunks_exact(BLOCK_BYTES).take(BLOCKS_MAX).map(|block| {
        state = xxh3_64_with_seed(block, state);
        state
    }));
}

/// The hash of how a prompt begins, for `prefix-hash`.
pub fn hash_prefix(root: u64, prompt: &[u8]) -> u64 {
    xxh3_64_with_seed(&prompt[..prompt.len().min(PREFIX_BYTES)], root)
}

/// The hash of bytes, and of what came before them.
pub fn hash_bytes(before: u64, bytes: &[u8]) -> u64 {
    xxh3_64_with_seed(bytes, before)
}

/// The hash of a name.
pub fn hash_name(name: &str) -> u64 {
    xxh3_64(name.as_bytes())
}

#[cfg(test)]
mod tests;
