//! What is known of a request when its endpoint is chosen.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::Slot;

/// Bytes of prompt a block stands for: 64 tokens at four bytes each. Coarser than vLLM's blocks of 16 tokens, so that a
/// long prompt is a few dozen lookups; as fine as the approximate index of the Endpoint Picker.
pub const BLOCK_BYTES: usize = 256;
/// Blocks of a prompt looked at; half a megabyte. What follows counts as not cached.
pub const BLOCKS_MAX: usize = 2048;
/// Bytes of a prompt that `prefix-hash` looks at; KubeAI's `prefixCharLength`.
const PREFIX_BYTES: usize = 100;

/// When a request may go to an endpoint.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Admission {
    /// At once; it waits there if it must.
    #[default]
    Always,
    /// When there is an endpoint where it could begin at once.
    WhenFree,
    /// When there is one where with it another request could still begin at once.
    WhenSpare,
    /// When, besides, another endpoint is not busy with a prompt, so that whoever comes next finds one.
    WhenQuiet,
    /// When, besides, those that are there and those that come would hardly notice it.
    WhenUnnoticed,
}

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
    /// Higher goes first; below zero it is [sheddable](InferenceRequest::sheddable).
    pub priority: i32,
    /// Whose it is: flows share a pool fairly. 0 if nobody said.
    pub flow: u64,
    /// Tokens its answer may have, if the request says so.
    pub max_tokens: Option<u64>,
    /// Its answer comes as a whole: nothing will be heard of its first token.
    pub unstreamed: bool,
    /// When it may go to an endpoint.
    pub admission: Admission,
    /// Endpoints that do not have what it asks for, ascending. It goes to one of these only where there is no other.
    pub absent: &'a [Slot],
    /// Endpoints that are kept free for others. It waits rather than goes there.
    pub reserved: &'a [Slot],
    /// It has waited long enough: if there is no room for it, it is told where there will be some soonest.
    pub overdue: bool,
}

impl InferenceRequest<'_> {
    /// It may be refused rather than wait.
    pub fn sheddable(&self) -> bool {
        self.priority < 0
    }
}

/// The hash chain of a prompt's full blocks, the prompt being its parts one after the other. `root` stands for whatever else
/// must be equal for a cache to be shared: model, adapter, salt.
pub fn hash_blocks(root: u64, parts: &[&[u8]], blocks: &mut Vec<u64>) {
    blocks.clear();
    let mut state = root;
    // A block that begins in one part and ends in another.
    let (mut begun, mut len) = ([0; BLOCK_BYTES], 0);
    for (at, mut part) in parts.iter().copied().enumerate().filter(|(_, part)| !part.is_empty()) {
        if len > 0 {
            let (head, rest) = part.split_at(part.len().min(BLOCK_BYTES - len));
            begun[len..][..head.len()].copy_from_slice(head);
            (len, part) = (len + head.len(), rest);
            if len < BLOCK_BYTES {
                continue;
            }
            state = hash_whole(state, &begun, blocks);
        }
        state = hash_whole(state, part, blocks);
        len = 0;
        if at + 1 < parts.len() {
            let rest = part.as_chunks::<BLOCK_BYTES>().1;
            begun[..rest.len()].copy_from_slice(rest);
            len = rest.len();
        }
    }
}

/// Hashes the whole blocks of one part, as far as the maximum lets it; `state` is the hash of what came before.
fn hash_whole(mut state: u64, part: &[u8], blocks: &mut Vec<u64>) -> u64 {
    let whole = part.chunks_exact(BLOCK_BYTES).take(BLOCKS_MAX - blocks.len());
    blocks.extend(whole.map(|block| {
        // Not seeded with what came before: a seed costs as much as the block itself.
        state = chained(state, xxh3_64(block));
        state
    }));
    state
}

/// Puts a block's hash behind what came before: SplitMix64's finaliser, in which every bit counts for every other.
fn chained(before: u64, block: u64) -> u64 {
    let mut mixed = (before ^ block.rotate_left(32)).wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// The hash of how a prompt of these parts begins, for `prefix-hash`.
pub fn hash_prefix(root: u64, parts: &[&[u8]]) -> u64 {
    let (mut beginning, mut len) = ([0; PREFIX_BYTES], 0);
    for (to, from) in beginning.iter_mut().zip(parts.iter().copied().flatten()) {
        *to = *from;
        len += 1;
    }
    xxh3_64_with_seed(&beginning[..len], root)
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
