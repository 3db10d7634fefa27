//! What a request body says, read in one pass, and the body to send upstream: the received bytes
//! with at most a few spans exchanged, so that a field this gateway has never heard of reaches the
//! server as it was written.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use crate::errors::quoted;
use crate::json::{DEPTH_MAX, Fault, Kind, Scanner, Value, Wrong, unescape};
use crate::operation::Operation;

/// Longest model name, in bytes as written; names end up in maps, logs and metrics.
pub(crate) const MODEL_BYTES_MAX: usize = 1024;

/// Longest key that is compared with the known ones: these have at most 22 bytes, each at most six
/// as escape.
const KEY_BYTES_MAX: usize = 256;

/// A request body that is refused. The message is for the client.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum InvalidBody {
    /// There is nothing to read.
    #[error(
        "the request body is empty; send a JSON object, such as {{\"model\":\"...\",\"prompt\":\"...\"}}"
    )]
    Empty,
    /// Some byte is not part of a character.
    #[error("the request body is not UTF-8 at byte {at}; encode it as UTF-8")]
    NotUtf8 {
        /// Offset of the first wrong byte.
        at: usize,
    },
    /// The grammar is broken.
    #[error("the request body is not valid JSON at byte {at}: {wrong}; send one JSON object")]
    NotJson {
        /// Offset of the first byte that does not fit.
        at: usize,
        /// What does not fit.
        wrong: &'static str,
    },
    /// Objects and arrays inside each other beyond the limit.
    #[error(
        "the request body opens more than {DEPTH_MAX} objects and arrays inside each other at byte {at}; flatten it"
    )]
    TooDeep {
        /// Offset of the first bracket too many.
        at: usize,
    },
    /// JSON, but an array, a string or another value.
    #[error(
        "the request body is not a JSON object (byte {at}); put its fields between `{{` and `}}`"
    )]
    NotAnObject {
        /// Offset of the value.
        at: usize,
    },
    /// `model` is a number, an object or another value.
    #[error("`model` at byte {at} is not a string; write the model's name in double quotes")]
    ModelNotAString {
        /// Offset of the value.
        at: usize,
    },
    /// Two `model` keys: servers take the last one, which lets a request be routed and billed as
    /// another.
    #[error("`model` is given twice, at bytes {first} and {second}; remove one")]
    ModelTwice {
        /// Offset of the first value.
        first: usize,
        /// Offset of the second value.
        second: usize,
    },
    /// A name that no model has.
    #[error(
        "`model` at byte {at} has {bytes} bytes, more than {MODEL_BYTES_MAX}; use a shorter name"
    )]
    ModelTooLong {
        /// Offset of the value.
        at: usize,
        /// Its length.
        bytes: usize,
    },
}

impl From<Fault> for InvalidBody {
    fn from(fault: Fault) -> Self {
        match fault.wrong {
            Wrong::Grammar(wrong) => InvalidBody::NotJson { at: fault.at, wrong },
            Wrong::TooDeep => InvalidBody::TooDeep { at: fault.at },
        }
    }
}

/// What the gateway needs to know of a request body.
#[derive(Clone, Debug)]
pub struct Envelope {
    operation: Operation,
    /// Where the top object lies; `None` when the body was not read.
    object: Option<Object>,
    model: Option<String>,
    model_span: Option<Range<usize>>,
    stream: bool,
    options: StreamOptions,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    prompt: [Range<usize>; PROMPT_PARTS],
    cache_salt: Range<usize>,
}

/// Parts of [`Envelope::prompt`], in their order.
const PROMPT_PARTS: usize = 3;
const SYSTEM: usize = 0;
const TOOLS: usize = 1;
const ASKED: usize = 2;

#[derive(Clone, Debug)]
struct Object {
    inside: Range<usize>,
    empty: bool,
}

/// The `stream_options` in effect: the last one.
#[derive(Clone, Debug)]
enum StreamOptions {
    Absent,
    Null {
        span: Range<usize>,
    },
    /// Asks for usage.
    WithUsage,
    /// Does not, be it by leaving `include_usage` out, whose default is false in
    /// vLLM 0.32.
    WithoutUsage {
        /// What asks for usage, and the span it is to replace.
        include: Range<usize>,
        text: &'static str,
        /// The value of `continuous_usage_stats`, where it is true.
        continuous: Option<Range<usize>>,
    },
    /// Of a type the server will refuse; left alone so that the client sees the server's own
    /// message.
    Invalid,
}

impl Envelope {
    /// Reads `body` once. A body of [`Operation::Other`] is not looked at.
    pub fn parse(operation: Operation, body: &[u8]) -> Result<Envelope, InvalidBody> {
        let mut envelope = Envelope {
            operation,
            object: None,
            model: None,
            model_span: None,
            stream: false,
            options: StreamOptions::Absent,
            max_tokens: None,
            max_completion_tokens: None,
            prompt: [const { 0..0 }; PROMPT_PARTS],
            cache_salt: 0..0,
        };
        if operation.reads_body() {
            envelope.read(body)?;
        }
        Ok(envelope)
    }

    /// The operation the body was read for.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// The model's name; `None` when absent or null, which servers answer with their base model, as
    /// they do the empty name.
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// Whether the answer is to be streamed.
    pub fn stream(&self) -> bool {
        self.stream
    }

    /// Whether the client itself asked for usage at the end of a stream.
    pub fn include_usage(&self) -> bool {
        matches!(self.options, StreamOptions::WithUsage)
    }

    /// The most tokens the answer may have, where the client gave a limit.
    pub fn max_tokens(&self) -> Option<u64> {
        self.max_completion_tokens.or(self.max_tokens)
    }

    /// The prompt as written, in the order in which chat templates usually put it before the model: `system` or
    /// `instructions`, `tools`, and the inside of the string or array `prompt`, `messages` or `input`. Two requests whose
    /// prompts begin alike are alike in the first bytes of it, as long as their clients write JSON the same way. Parts are
    /// empty where absent. `body`: the bytes that were parsed.
    pub fn prompt<'a>(&self, body: &'a [u8]) -> [&'a [u8]; PROMPT_PARTS] {
        self.prompt.each_ref().map(|span| body.get(span.clone()).unwrap_or_default())
    }

    /// What must be equal, beside model and prompt, for the server's cache to be shared: `cache_salt` as written. Empty if
    /// there is none. `body`: the bytes that were parsed.
    pub fn cache_salt<'a>(&self, body: &'a [u8]) -> &'a [u8] {
        body.get(self.cache_salt.clone()).unwrap_or_default()
    }

    /// Whether [`Envelope::forward`] asks for usage on the client's behalf; the extra event is then
    /// to be taken out of the answer.
    pub fn injects_usage(&self) -> bool {
        self.stream
            && self.operation.has_stream_options()
            && !matches!(self.options, StreamOptions::WithUsage | StreamOptions::Invalid)
    }

    /// The body to send upstream. `body`: the bytes that were parsed. All bytes but those of the
    /// model's name and of the usage option are the same and in the same order; when nothing
    /// changes, it is `body` itself.
    pub fn forward(&self, body: &Bytes, model: Option<&str>) -> Bytes {
        let Some(object) = &self.object else { return body.clone() };
        let mut edits = Vec::with_capacity(3);
        if let Some(name) = model.filter(|&name| self.model() != Some(name)) {
            edits.push(self.model_edit(object, name));
        }
        if self.injects_usage() {
            self.usage_edits(object, &mut edits);
        }
        splice(body, edits)
    }

    fn model_edit(&self, object: &Object, name: &str) -> Edit {
        if let Some(span) = &self.model_span {
            return Edit { span: span.clone(), text: quoted(name) };
        }
        let comma = if object.empty { "" } else { "," };
        let text = format!("\"model\":{}{comma}", quoted(name));
        Edit { span: object.inside.start..object.inside.start, text }
    }

    fn usage_edits(&self, object: &Object, edits: &mut Vec<Edit>) {
        let mut edit = |span: &Range<usize>, text: &str| {
            edits.push(Edit { span: span.clone(), text: text.to_owned() });
        };
        match &self.options {
            StreamOptions::WithUsage | StreamOptions::Invalid => {}
            // Never the first member: there is a `stream`.
            StreamOptions::Absent => {
                let end = object.inside.end;
                edit(&(end..end), r#","stream_options":{"include_usage":true}"#);
            }
            StreamOptions::Null { span } => edit(span, r#"{"include_usage":true}"#),
            StreamOptions::WithoutUsage { include, text, continuous } => {
                edit(include, text);
                // Without usage it had no effect; with usage it would put usage into every event.
                if let Some(span) = continuous {
                    edit(span, "false");
                }
            }
        }
    }

    fn read(&mut self, body: &[u8]) -> Result<(), InvalidBody> {
        if let Err(error) = std::str::from_utf8(body) {
            return Err(InvalidBody::NotUtf8 { at: error.valid_up_to() });
        }
        let mut scanner = Scanner::new(body);
        match scanner.peek() {
            None => return Err(InvalidBody::Empty),
            Some(b'{') => {}
            Some(_) => {
                let at = scanner.at();
                scanner.value(0)?;
                scanner.end()?;
                return Err(InvalidBody::NotAnObject { at });
            }
        }
        scanner.enter_object()?;
        let start = scanner.at();
        let mut empty = true;
        while let Some(key) = scanner.member(empty)? {
            empty = false;
            self.member(body, &key, &mut scanner)?;
        }
        self.object = Some(Object { inside: start..scanner.at() - 1, empty });
        scanner.end()?;
        Ok(())
    }

    fn member(
        &mut self,
        body: &[u8],
        key: &Range<usize>,
        scanner: &mut Scanner<'_>,
    ) -> Result<(), InvalidBody> {
        match Key::of(&body[key.clone()]) {
            Key::Model => {
                let value = scanner.value(1)?;
                self.take_model(body, value)?;
            }
            Key::StreamOptions => self.options = read_options(body, scanner)?,
            Key::Stream => self.stream = lax_bool(body, &scanner.value(1)?) == Some(true),
            Key::MaxTokens if self.limits_by_max_tokens() => {
                self.max_tokens = lax_count(body, &scanner.value(1)?);
            }
            Key::MaxOutputTokens if self.operation == Operation::Responses => {
                self.max_tokens = lax_count(body, &scanner.value(1)?);
            }
            Key::MaxCompletionTokens if self.operation == Operation::ChatCompletions => {
                self.max_completion_tokens = lax_count(body, &scanner.value(1)?);
            }
            Key::Prompt(part, operations) if operations.contains(&self.operation) => {
                self.prompt[part] = prompt_part(part, scanner.value(1)?);
            }
            Key::CacheSalt => self.cache_salt = scanner.value(1)?.span,
            _ => {
                scanner.value(1)?;
            }
        }
        Ok(())
    }

    fn limits_by_max_tokens(&self) -> bool {
        matches!(
            self.operation,
            Operation::Completions | Operation::ChatCompletions | Operation::Messages
        )
    }

    fn take_model(&mut self, body: &[u8], value: Value) -> Result<(), InvalidBody> {
        let at = value.span.start;
        if let Some(first) = &self.model_span {
            return Err(InvalidBody::ModelTwice { first: first.start, second: at });
        }
        match value.kind {
            Kind::Null => {}
            Kind::Text if value.span.len() - 2 > MODEL_BYTES_MAX => {
                return Err(InvalidBody::ModelTooLong { at, bytes: value.span.len() - 2 });
            }
            Kind::Text => self.model = Some(unescape(inside(body, &value.span))),
            _ => return Err(InvalidBody::ModelNotAString { at }),
        }
        self.model_span = Some(value.span);
        Ok(())
    }
}

/// Top-level keys that matter.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    Model,
    Stream,
    StreamOptions,
    MaxTokens,
    MaxCompletionTokens,
    MaxOutputTokens,
    IncludeUsage,
    ContinuousUsageStats,
    /// This part of the prompt, of these operations.
    Prompt(usize, &'static [Operation]),
    CacheSalt,
    Unknown,
}

impl Key {
    /// Keys may be written with escapes, and the server reads them decoded.
    fn of(quoted: &[u8]) -> Key {
        let inside = &quoted[1..quoted.len() - 1];
        if inside.len() <= KEY_BYTES_MAX && inside.contains(&b'\\') {
            return Key::named(unescape(inside).as_bytes());
        }
        Key::named(inside)
    }

    fn named(name: &[u8]) -> Key {
        match name {
            b"model" => Key::Model,
            b"stream" => Key::Stream,
            b"stream_options" => Key::StreamOptions,
            b"max_tokens" => Key::MaxTokens,
            b"max_completion_tokens" => Key::MaxCompletionTokens,
            b"max_output_tokens" => Key::MaxOutputTokens,
            b"include_usage" => Key::IncludeUsage,
            b"continuous_usage_stats" => Key::ContinuousUsageStats,
            b"system" => Key::Prompt(SYSTEM, &[Operation::Messages]),
            b"instructions" => Key::Prompt(SYSTEM, &[Operation::Responses]),
            b"tools" => Key::Prompt(
                TOOLS,
                &[Operation::ChatCompletions, Operation::Messages, Operation::Responses],
            ),
            b"prompt" => Key::Prompt(ASKED, &[Operation::Completions]),
            b"messages" => Key::Prompt(ASKED, &[Operation::ChatCompletions, Operation::Messages]),
            b"input" => Key::Prompt(ASKED, &[Operation::Responses]),
            b"cache_salt" => Key::CacheSalt,
            _ => Key::Unknown,
        }
    }
}

/// Where a part of the prompt lies. What is asked goes on with the next turn of a conversation, so its last bracket or quote
/// is no part of it. Those of the others keep the parts apart.
fn prompt_part(part: usize, Value { kind, span }: Value) -> Range<usize> {
    match kind {
        Kind::Null => 0..0,
        Kind::Text | Kind::Array if part == ASKED => span.start + 1..span.end - 1,
        _ => span,
    }
}

/// Of a key that is given twice, the last value counts, as it does for the server.
fn read_options(body: &[u8], scanner: &mut Scanner<'_>) -> Result<StreamOptions, InvalidBody> {
    if scanner.peek() != Some(b'{') {
        let value = scanner.value(1)?;
        return Ok(match value.kind {
            Kind::Null => StreamOptions::Null { span: value.span },
            _ => StreamOptions::Invalid,
        });
    }
    scanner.enter_object()?;
    let start = scanner.at();
    let (mut include, mut continuous) = (None, None);
    let mut first = true;
    while let Some(key) = scanner.member(first)? {
        first = false;
        let key = Key::of(&body[key]);
        let value = scanner.value(2)?;
        match key {
            Key::IncludeUsage => include = Some(value),
            Key::ContinuousUsageStats => continuous = Some(value),
            _ => {}
        }
    }
    let (include, text) = match include {
        None if first => (start..start, r#""include_usage":true"#),
        None => (start..start, r#""include_usage":true,"#),
        Some(value) => match lax_bool(body, &value) {
            Some(true) => return Ok(StreamOptions::WithUsage),
            Some(false) => (value.span, "true"),
            None => return Ok(StreamOptions::Invalid),
        },
    };
    let continuous = continuous
        .filter(|value| lax_bool(body, value) == Some(true))
        .map(|value: Value| value.span);
    Ok(StreamOptions::WithoutUsage { include, text, continuous })
}

fn inside<'a>(body: &'a [u8], string: &Range<usize>) -> &'a [u8] {
    &body[string.start + 1..string.end - 1]
}

/// A truth value as the server reads it (pydantic's lax mode; null is false); `None`: the server
/// refuses it.
fn lax_bool(body: &[u8], value: &Value) -> Option<bool> {
    match value.kind {
        Kind::True => Some(true),
        Kind::False | Kind::Null => Some(false),
        Kind::Number => match number(body, value) {
            1.0 => Some(true),
            0.0 => Some(false),
            _ => None,
        },
        Kind::Text if value.span.len() <= KEY_BYTES_MAX => {
            let word = unescape(inside(body, &value.span)).to_ascii_lowercase();
            match word.as_str() {
                "1" | "true" | "t" | "yes" | "y" | "on" => Some(true),
                "0" | "false" | "f" | "no" | "n" | "off" => Some(false),
                _ => None,
            }
        }
        _ => None,
    }
}

/// A number of tokens: a whole number, also when written with a fraction or an exponent.
fn lax_count(body: &[u8], value: &Value) -> Option<u64> {
    if value.kind != Kind::Number {
        return None;
    }
    let text = std::str::from_utf8(&body[value.span.clone()]).ok()?;
    if let Ok(count) = text.parse() {
        return Some(count);
    }
    let count = number(body, value);
    // Beyond 2^53 a float is no count anyone means, so the cast is exact.
    let whole = count.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(&count);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be whole and in range"
    )]
    whole.then_some(count as u64)
}

fn number(body: &[u8], value: &Value) -> f64 {
    let text = std::str::from_utf8(&body[value.span.clone()]).unwrap_or_default();
    text.parse().unwrap_or(f64::NAN)
}

/// One exchanged span; empty where something is only put in.
struct Edit {
    span: Range<usize>,
    text: String,
}

/// `body` with the edits made, which do not overlap.
fn splice(body: &Bytes, mut edits: Vec<Edit>) -> Bytes {
    if edits.is_empty() {
        return body.clone();
    }
    edits.sort_by_key(|edit| edit.span.start);
    let added: usize = edits.iter().map(|edit| edit.text.len()).sum();
    let mut spliced = BytesMut::with_capacity(body.len() + added);
    let mut copied = 0;
    for edit in edits {
        // Spans come from the body that was parsed; a shorter one is the caller's mistake, not a
        // panic.
        let start = edit.span.start.clamp(copied, body.len().max(copied));
        let end = edit.span.end.clamp(start, body.len().max(start));
        spliced.extend_from_slice(body.get(copied..start).unwrap_or_default());
        spliced.extend_from_slice(edit.text.as_bytes());
        copied = end;
    }
    spliced.extend_from_slice(body.get(copied..).unwrap_or_default());
    spliced.freeze()
}

#[cfg(test)]
mod tests;
