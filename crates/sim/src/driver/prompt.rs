//! Request bodies with prompts of a given number of tokens.
//!
//! Equal segments become equal text, and what lies beyond is in no other prompt, so that a prefix cache finds what the
//! workload says it should. How many words make how many tokens is asked of the server ([`super::calibrate`]).

use std::fmt::Write;

use bytes::Bytes;
use openai::Operation;

use super::Plan;
use crate::distribution::precise;
use crate::tokens::mix;
use crate::workload::Shape;

/// What prompts consist of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Prompts {
    /// Common short words.
    Words(Calibration),
    /// Token ids between these two, which only completions take. No tokenizer has a say.
    TokenIds(u32, u32),
}

impl Default for Prompts {
    fn default() -> Prompts {
        Prompts::Words(Calibration::default())
    }
}

/// How many tokens a number of words is: `base` + `per_word` × words.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Calibration {
    /// Tokens of an empty prompt: its beginning, and the template of a chat.
    pub base: f64,
    /// Tokens of a word.
    pub per_word: f64,
}

impl Default for Calibration {
    fn default() -> Calibration {
        Calibration { base: 1.0, per_word: 1.0 }
    }
}

impl Calibration {
    /// The line through two counts of (words, tokens), if it rises.
    pub(super) fn fit((words, tokens): (u64, u64), (more, counted): (u64, u64)) -> Option<Self> {
        let per_word = (precise(counted) - precise(tokens)) / (precise(more) - precise(words));
        let base = precise(tokens) - per_word * precise(words);
        (per_word > 0.0 && per_word.is_finite()).then_some(Calibration { base, per_word })
    }
}

/// Writes requests of one plan.
#[derive(Debug)]
pub(super) struct Writer {
    operation: Operation,
    prompts: Prompts,
    stream: bool,
    ignore_eos: bool,
    salt: u64,
}

impl Writer {
    pub(super) fn new(plan: &Plan) -> Writer {
        Writer {
            operation: plan.operation,
            prompts: plan.prompts,
            stream: plan.stream,
            ignore_eos: plan.ignore_eos,
            salt: plan.salt,
        }
    }

    /// The body of request `number`.
    pub(super) fn body(&self, model: &str, shape: &Shape, number: u64) -> Bytes {
        let mut text = String::with_capacity(256 + shape.prompt_tokens as usize * 6);
        text.push_str(r#"{"model":"#);
        text.push_str(&serde_json::Value::from(model).to_string());
        let chat = self.operation == Operation::ChatCompletions;
        text.push_str(match (chat, self.prompts) {
            (true, _) => r#","messages":[{"role":"user","content":""#,
            (false, Prompts::Words(_)) => r#","prompt":""#,
            (false, Prompts::TokenIds(..)) => r#","prompt":["#,
        });
        self.push_prompt(&mut text, shape, number);
        text.push_str(match (chat, self.prompts) {
            (true, _) => r#""}]"#,
            (false, Prompts::Words(_)) => r#"""#,
            (false, Prompts::TokenIds(..)) => "]",
        });
        // Writing to a string does not fail.
        let _ = write!(text, r#","max_tokens":{},"temperature":0"#, shape.output_tokens);
        if self.ignore_eos {
            text.push_str(r#","ignore_eos":true"#);
        }
        if self.stream {
            text.push_str(r#","stream":true,"stream_options":{"include_usage":true}"#);
        }
        text.push('}');
        text.into()
    }

    fn push_prompt(&self, text: &mut String, shape: &Shape, number: u64) {
        let total = self.pieces(shape.prompt_tokens.into()).max(1);
        let (mut at, mut tokens) = (0, 0);
        for segment in &shape.segments {
            tokens += u64::from(segment.tokens);
            let end = self.pieces(tokens).clamp(at, total);
            self.push_pieces(text, mix(mix(self.salt, 1), segment.id), at, end);
            at = end;
        }
        self.push_pieces(text, mix(mix(self.salt, 2), number), at, total);
    }

    /// How many words or ids are so many tokens.
    fn pieces(&self, tokens: u64) -> u64 {
        match self.prompts {
            Prompts::TokenIds(..) => tokens,
            Prompts::Words(Calibration { base, per_word }) => {
                let words = ((precise(tokens) - base) / per_word).round().max(0.0);
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "not negative, and a cast saturates"
                )]
                let words = words as u64;
                words
            }
        }
    }

    /// Pieces `from` to `to` of a prompt, drawn from `source`.
    fn push_pieces(&self, text: &mut String, source: u64, from: u64, to: u64) {
        for at in from..to {
            let drawn = mix(source, at - from);
            match self.prompts {
                Prompts::Words(_) => {
                    if at > 0 {
                        text.push(' ');
                    }
                    text.push_str(word(drawn));
                }
                Prompts::TokenIds(low, high) => {
                    let id = u64::from(low) + drawn % (u64::from(high.max(low) - low) + 1);
                    let _ = write!(text, "{}{id}", if at > 0 { "," } else { "" });
                }
            }
        }
    }
}

fn word(drawn: u64) -> &'static str {
    let [first, ..] = drawn.to_le_bytes();
    WORDS[usize::from(first)]
}

/// Words that most tokenizers have as one token, with the space before them; so has the simulator.
const WORDS: [&str; 256] = [
    "able", "acid", "also", "area", "army", "away", "baby", "back", "ball", "band", "bank", "base",
    "bath", "bear", "beat", "bed", "been", "beer", "bell", "belt", "best", "bike", "bill", "bird",
    "blue", "boat", "body", "bone", "book", "born", "boss", "both", "bowl", "box", "boy", "burn",
    "bus", "busy", "cake", "call", "calm", "came", "camp", "card", "care", "case", "cash", "cast",
    "cat", "city", "club", "coal", "coat", "code", "cold", "come", "cook", "cool", "copy", "corn",
    "cost", "crew", "crop", "dark", "data", "date", "dawn", "day", "dead", "deal", "dear", "deep",
    "desk", "diet", "dirt", "dog", "done", "door", "down", "draw", "drop", "dry", "duck", "dust",
    "duty", "each", "earn", "east", "easy", "edge", "else", "even", "ever", "face", "fact", "fair",
    "fall", "farm", "fast", "fear", "feed", "feel", "file", "film", "find", "fine", "fire", "firm",
    "fish", "five", "flag", "flat", "flow", "fly", "food", "foot", "form", "four", "free", "from",
    "fuel", "full", "fund", "game", "gate", "gave", "gift", "girl", "give", "glad", "goal", "gold",
    "good", "gray", "grew", "grow", "hair", "half", "hall", "hand", "hard", "hat", "head", "hear",
    "heat", "held", "help", "here", "hero", "high", "hill", "hold", "hole", "home", "hope", "host",
    "hour", "huge", "hunt", "idea", "inch", "iron", "item", "join", "jump", "just", "keep", "key",
    "kind", "king", "knee", "knew", "know", "lack", "lady", "lake", "land", "last", "late", "lead",
    "leaf", "left", "less", "life", "lift", "like", "line", "lion", "list", "live", "loan", "lock",
    "long", "look", "lost", "love", "luck", "made", "mail", "main", "make", "male", "many", "map",
    "mark", "mass", "meal", "mean", "meat", "meet", "menu", "milk", "mind", "mine", "miss", "mode",
    "moon", "more", "most", "move", "much", "must", "name", "near", "neck", "need", "news", "next",
    "nice", "nine", "none", "nose", "note", "oil", "once", "only", "open", "oven", "over", "pack",
    "page", "pain", "pair", "park", "part", "past", "path", "peak", "pick", "plan", "play", "poem",
    "pool", "poor", "port", "post",
];

#[cfg(test)]
mod tests;
