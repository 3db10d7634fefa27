//! Lenient reading of a JSON text that arrives in pieces, in constant memory: tells which fields it
//! meets, as far as somebody wants them. Whether the text is right is the client's business; this
//! reader only must never take a field for another, however the text is cut.

use crate::json::string_stop;

/// Containers deep enough to hold every field that is read.
const LEVELS: usize = 4;

/// Bytes kept of a string: enough for a message of 256 bytes in which every character is an escape.
const TOKEN_BYTES_MAX: usize = 1536;

/// Names of fields that are read, and places in arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    CachedTokens,
    CacheReadInputTokens,
    Choices,
    Code,
    CompletionTokens,
    Delta,
    Error,
    FinishReason,
    IncompleteDetails,
    InputTokens,
    /// `prompt_tokens_details` and `input_tokens_details`
    InputDetails,
    Message,
    Model,
    Object,
    OutputTokens,
    PromptTokens,
    Reason,
    Response,
    Status,
    StopReason,
    SystemFingerprint,
    Type,
    Usage,
    /// The first item of an array.
    First,
    /// Another item of an array.
    Later,
    Unknown,
}

impl Step {
    /// By its length first: most keys are nobody's, which is then soon seen.
    fn named(name: &[u8]) -> Step {
        let names: &[(&[u8], Step)] = match name.len() {
            4 => &[(b"code", Step::Code), (b"type", Step::Type)],
            5 => &[
                (b"delta", Step::Delta),
                (b"error", Step::Error),
                (b"model", Step::Model),
                (b"usage", Step::Usage),
            ],
            6 => &[(b"object", Step::Object), (b"reason", Step::Reason), (b"status", Step::Status)],
            7 => &[(b"choices", Step::Choices), (b"message", Step::Message)],
            8 => &[(b"response", Step::Response)],
            11 => &[(b"stop_reason", Step::StopReason)],
            12 => &[(b"input_tokens", Step::InputTokens)],
            13 => &[
                (b"cached_tokens", Step::CachedTokens),
                (b"finish_reason", Step::FinishReason),
                (b"output_tokens", Step::OutputTokens),
                (b"prompt_tokens", Step::PromptTokens),
            ],
            17 => &[(b"completion_tokens", Step::CompletionTokens)],
            18 => &[
                (b"incomplete_details", Step::IncompleteDetails),
                (b"system_fingerprint", Step::SystemFingerprint),
            ],
            20 => &[(b"input_tokens_details", Step::InputDetails)],
            21 => &[(b"prompt_tokens_details", Step::InputDetails)],
            23 => &[(b"cache_read_input_tokens", Step::CacheReadInputTokens)],
            _ => &[],
        };
        names.iter().find(|(known, _)| *known == name).map_or(Step::Unknown, |(_, step)| *step)
    }
}

/// What the walker meets at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    /// The inside of a string, escapes as written, perhaps only its beginning.
    Text(&'a [u8]),
    /// A number, `true`, `false` or `null`.
    Literal(&'a [u8]),
    /// The beginning of an object.
    Object,
    /// The beginning of an array.
    Array,
}

/// Receives what the walker meets.
pub(crate) trait Sink {
    fn found(&mut self, path: &[Step], found: Found<'_>);
}

/// Where reading stands between two pieces.
#[derive(Debug)]
pub(crate) struct Walker {
    state: State,
    /// Containers open now; only the outermost [`LEVELS`] are remembered.
    depth: usize,
    /// Where in each remembered container reading stands.
    path: [Step; LEVELS],
    /// Which of the remembered containers are objects.
    object: [bool; LEVELS],
    /// The next string is a key of the innermost container.
    key_next: bool,
    /// The outermost container was closed.
    closed: bool,
    token: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Between,
    Text,
    Escape,
    Literal,
}

impl Walker {
    pub(crate) fn new() -> Self {
        Walker {
            state: State::Between,
            depth: 0,
            path: [Step::Unknown; LEVELS],
            object: [false; LEVELS],
            key_next: false,
            closed: false,
            token: Vec::new(),
        }
    }

    /// Whether the outermost object or array was closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Reads on.
    pub(crate) fn push(&mut self, mut piece: &[u8], sink: &mut impl Sink) {
        while !piece.is_empty() {
            let used = match self.state {
                State::Between => self.between(piece, sink),
                State::Text => self.text(piece, sink),
                State::Escape => {
                    self.keep(&piece[..1]);
                    self.state = State::Text;
                    1
                }
                State::Literal => self.literal(piece, sink),
            };
            piece = piece.get(used..).unwrap_or_default();
        }
    }

    /// Reads on up to the beginning of a string, a number or a word; returns the bytes used.
    fn between(&mut self, piece: &[u8], sink: &mut impl Sink) -> usize {
        for (at, byte) in piece.iter().enumerate() {
            match byte {
                b' ' | b'\n' | b'\r' | b'\t' => {}
                b'{' => self.open(true, sink),
                b'[' => self.open(false, sink),
                b'}' | b']' => {
                    self.closed |= self.depth == 1;
                    self.depth = self.depth.saturating_sub(1);
                    self.key_next = false;
                }
                b',' => {
                    if let Some(level) = self.level() {
                        self.key_next = self.object[level];
                        if !self.object[level] {
                            self.path[level] = Step::Later;
                        }
                    }
                }
                b':' => self.key_next = false,
                b'"' => {
                    self.token.clear();
                    self.state = State::Text;
                    return at + 1;
                }
                _ => {
                    self.token.clear();
                    self.state = State::Literal;
                    return at;
                }
            }
        }
        piece.len()
    }

    /// The index of the innermost container, where it is remembered.
    fn level(&self) -> Option<usize> {
        self.depth.checked_sub(1).filter(|&level| level < LEVELS)
    }

    fn open(&mut self, object: bool, sink: &mut impl Sink) {
        if self.depth <= LEVELS {
            let found = if object { Found::Object } else { Found::Array };
            sink.found(&self.path[..self.depth], found);
        }
        if self.depth < LEVELS {
            self.object[self.depth] = object;
            self.path[self.depth] = if object { Step::Unknown } else { Step::First };
        }
        self.depth += 1;
        self.key_next = object;
    }

    /// Reads on in a string; returns the bytes used.
    fn text(&mut self, piece: &[u8], sink: &mut impl Sink) -> usize {
        let Some(stop) = string_stop(piece) else {
            self.keep(piece);
            return piece.len();
        };
        if piece[stop] == b'\\' {
            self.keep(&piece[..=stop]);
            self.state = State::Escape;
            return stop + 1;
        }
        self.state = State::Between;
        if let Some(level) = self.level() {
            let path = &mut self.path;
            let text = whole(&mut self.token, &piece[..stop]);
            if self.key_next {
                path[level] = Step::named(text);
            } else {
                sink.found(&path[..self.depth], Found::Text(text));
            }
        }
        stop + 1
    }

    /// Reads on in a number or word; returns the bytes used, the byte that ends it not among them.
    fn literal(&mut self, piece: &[u8], sink: &mut impl Sink) -> usize {
        let Some(stop) = piece.iter().position(|byte| ENDS_LITERAL[usize::from(*byte)]) else {
            self.keep(piece);
            return piece.len();
        };
        self.state = State::Between;
        if self.level().is_some() {
            let text = whole(&mut self.token, &piece[..stop]);
            sink.found(&self.path[..self.depth], Found::Literal(text));
        }
        stop
    }

    fn keep(&mut self, bytes: &[u8]) {
        // What is below the remembered levels is nobody's field.
        if self.depth > LEVELS {
            return;
        }
        extend(&mut self.token, bytes);
    }
}

/// The bytes behind a number or word.
const ENDS_LITERAL: [bool; 256] = {
    let mut ends = [false; 256];
    let mut rest: &[u8] = b",}]:\" \n\r\t";
    while let [byte, after @ ..] = rest {
        ends[*byte as usize] = true;
        rest = after;
    }
    ends
};

/// A string or literal whose end has come, of which the beginning may have been kept.
fn whole<'a>(kept: &'a mut Vec<u8>, end: &'a [u8]) -> &'a [u8] {
    if kept.is_empty() {
        return &end[..end.len().min(TOKEN_BYTES_MAX)];
    }
    extend(kept, end);
    kept
}

fn extend(token: &mut Vec<u8>, bytes: &[u8]) {
    let room = TOKEN_BYTES_MAX - token.len();
    token.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

#[cfg(test)]
mod tests;
