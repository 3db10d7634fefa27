//! Tokens without a tokenizer: a fixed rule that anyone can recompute, and answers that betray any damage.
//!
//! Text is cut into pieces of at most four bytes, a piece never crossing from letters to white space, a single space
//! before a word belonging to the word's first piece (`Write as` is `Writ`, `e`, ` as`). A prompt has one token more in
//! front, the beginning of sequence. A token's id is a hash of its piece into a vocabulary of 32,000; the size of
//! Llama 2's.
//!
//! An answer's token i is a space and a four-letter word drawn from (seed, model, prompt, i), which the rule above reads
//! back as one token. So replicas of one seed give equal answers, two prompts give different ones, a missing, doubled or
//! reordered token changes the text, and an answer sent back as part of a longer conversation hits the prefix cache.

/// Size of the vocabulary.
pub const VOCABULARY: u32 = 32_000;
/// The beginning-of-sequence token.
pub const BOS: u32 = 1;
/// The end-of-sequence token.
pub const EOS: u32 = 2;
/// Ids below are special.
const SPECIAL: u32 = 3;
/// Longest piece.
const PIECE_BYTES: usize = 4;

/// One round of a fast, well-spread 64-bit hash (splitmix64's finisher over the running value).
pub(crate) fn mix(state: u64, value: u64) -> u64 {
    let mut x =
        (state ^ value.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Hashes keys that are hashes already. For maps that are never iterated, whose order therefore decides nothing.
#[derive(Debug, Default)]
pub(crate) struct Spread(u64);

impl std::hash::Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = mix_bytes(self.0, bytes);
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// Hash of bytes, eight at a time.
pub(crate) fn mix_bytes(state: u64, bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(mix(state, bytes.len() as u64), |state, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        mix(state, u64::from_le_bytes(word))
    })
}

/// The pieces of a text.
fn pieces(text: &str) -> impl Iterator<Item = &[u8]> {
    let mut rest = text.as_bytes();
    std::iter::from_fn(move || {
        let first = *rest.first()?;
        let led = first == b' ' && rest.get(1).is_some_and(|b| !b.is_ascii_whitespace());
        let start = usize::from(led);
        let white = rest[start].is_ascii_whitespace();
        let length = rest[start..]
            .iter()
            .take(PIECE_BYTES)
            .take_while(|b| b.is_ascii_whitespace() == white)
            .count();
        // A run of white space leaves its last space to the word that follows.
        let cut = start + length;
        let leaves_space = white
            && length > 1
            && rest[cut - 1] == b' '
            && rest.get(cut).is_some_and(|b| !b.is_ascii_whitespace());
        let (piece, tail) = rest.split_at(cut - usize::from(leaves_space));
        rest = tail;
        Some(piece)
    })
}

fn piece_id(piece: &[u8]) -> u32 {
    let hash = mix_bytes(0, piece) % u64::from(VOCABULARY - SPECIAL);
    SPECIAL + u32::try_from(hash).unwrap_or(0)
}

/// Adds the tokens of a text, without any special token.
pub(crate) fn push_text(tokens: &mut Vec<u32>, text: &str) {
    tokens.extend(pieces(text).map(piece_id));
}

/// The tokens of a prompt given as text.
pub fn tokenize(text: &str) -> Vec<u32> {
    let mut tokens = vec![BOS];
    push_text(&mut tokens, text);
    tokens
}

/// The pieces of a prompt given as text, the first token's being `<s>`.
pub(crate) fn piece_texts(text: &str) -> Vec<String> {
    let texts = pieces(text).map(|piece| String::from_utf8_lossy(piece).into_owned());
    std::iter::once("<s>".to_owned()).chain(texts).collect()
}

/// Where an answer comes from: equal origins give equal answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin(u64);

impl Origin {
    /// The origin of the answer of `model` to the prompt of these tokens.
    pub fn new(seed: u64, model: &str, prompt: &[u32]) -> Origin {
        let start = mix_bytes(mix(0, seed), model.as_bytes());
        Origin(prompt.iter().fold(start, |state, token| mix(state, u64::from(*token))))
    }

    /// Text of the answer's token `index`, counted from 0: a space and a word.
    pub fn word(self, index: u32) -> String {
        const CONSONANTS: &[u8; 16] = b"bdfgjklmnprstvwz";
        const VOWELS: &[u8; 4] = b"aeio";
        let hash = mix(self.0, u64::from(index) + 1);
        let pick = |shift: u32, of: &[u8]| {
            let at = (hash >> shift) % of.len() as u64;
            char::from(of[usize::try_from(at).unwrap_or(0)])
        };
        let word = [pick(0, CONSONANTS), pick(8, VOWELS), pick(16, CONSONANTS), pick(24, VOWELS)];
        std::iter::once(' ').chain(word).collect()
    }

    /// The first `count` tokens' text.
    pub fn text(self, count: u32) -> String {
        (0..count).map(|index| self.word(index)).collect()
    }

    /// The first `count` tokens.
    pub(crate) fn push_tokens(self, tokens: &mut Vec<u32>, count: u32) {
        tokens.extend((0..count).map(|index| piece_id(self.word(index).as_bytes())));
    }

    /// How long the answer is when nothing limits it: between 1 and about a thousand, mostly a few hundred.
    pub(crate) fn natural_length(self) -> u32 {
        let draw = |salt: u64| u32::try_from(mix(self.0, !salt) % 330).unwrap_or(0);
        // The sum of three even draws: a hump, no long tail.
        1 + draw(1) + draw(2) + draw(3)
    }
}

/// What is in each full block of some tokens, as the engine wants it.
pub(crate) fn block_content(tokens: &[u32], block_tokens: u32) -> Vec<u64> {
    tokens
        .chunks_exact(block_tokens.max(1) as usize)
        .map(|block| block.iter().fold(0, |state, token| mix(state, u64::from(*token))))
        .collect()
}

#[cfg(test)]
mod tests;
