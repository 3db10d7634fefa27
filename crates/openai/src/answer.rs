//! What is known of an answer, and the reader of answers that are one JSON text.

use crate::facts::Facts;
use crate::operation::Operation;
use crate::walker::Walker;

/// The tokens an answer cost, as the server counts them. Absent is not zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt, those found in the cache included.
    pub prompt_tokens: Option<u64>,
    /// Tokens made.
    pub completion_tokens: Option<u64>,
    /// Tokens of the prompt that were found in the cache; most servers tell only when configured
    /// to.
    pub cached_tokens: Option<u64>,
}

/// What is known of an answer so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Its cost; of several counts the last.
    pub usage: Usage,
    /// Why it ended, in the server's words: of a stream with several choices the last one's, of a
    /// JSON answer the first one's. At most 64 bytes.
    pub finish_reason: Option<String>,
    /// The model that answered, by its own account. At most 256 bytes.
    pub model: Option<String>,
    /// The first error the server told of, be it after tokens.
    pub error: Option<AnswerError>,
    /// Data events of a stream; without comments, `[DONE]` and events that were taken out.
    pub events: u64,
    /// The first token of a stream was seen.
    pub tokens_started: bool,
    /// The server said that the stream is over, or a JSON answer closed its last bracket.
    pub done: bool,
}

/// An error inside an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnswerError {
    /// The status the server would have given, where it says so.
    pub code: Option<u16>,
    /// What it says; at most 256 bytes.
    pub message: String,
}

/// Follows an answer that is one JSON text, in constant memory, however its bytes are cut.
#[derive(Debug)]
pub struct AnswerReader {
    operation: Operation,
    walker: Walker,
    facts: Facts,
    answer: Answer,
}

impl AnswerReader {
    /// A reader for the answer to one request.
    pub fn new(operation: Operation) -> Self {
        AnswerReader {
            operation,
            walker: Walker::new(),
            facts: Facts::default(),
            answer: Answer::default(),
        }
    }

    /// Reads on.
    pub fn push(&mut self, bytes: &[u8]) {
        self.walker.push(bytes, &mut self.facts);
        self.facts.set_answer(self.operation, &mut self.answer);
        self.answer.done = self.walker.is_closed();
    }

    /// What the bytes so far say.
    pub fn answer(&self) -> &Answer {
        &self.answer
    }
}

#[cfg(test)]
mod tests;
