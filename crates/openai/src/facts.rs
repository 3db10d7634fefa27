//! From the fields of one JSON text (an event's data, or a whole answer) to what they say of the
//! answer.

use crate::answer::{Answer, AnswerError, Usage};
use crate::json::unescape;
use crate::operation::Operation;
use crate::walker::{Found, Sink, Step};

/// Bounds on what is kept of a server's strings, in bytes.
const NAME_BYTES_MAX: usize = 64;
const MODEL_BYTES_MAX: usize = 256;
const MESSAGE_BYTES_MAX: usize = 256;
/// Counted as written. A longer one is put into no chunk, so that few bytes never become many.
const FINGERPRINT_BYTES_MAX: usize = 256;

/// What one JSON text says. `/v1/responses` wraps an answer in `response`, `/v1/messages` its
/// beginning in `message`; their fields are read as if unwrapped.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    usage: Usage,
    usage_is_object: bool,
    /// Whether the array `choices` is there, and whether it is empty.
    choices: Choices,
    /// Some choice has a `finish_reason`.
    choice_ended: bool,
    fingerprint: Fingerprint,
    model: Option<String>,
    first_finish: Option<String>,
    last_finish: Option<String>,
    incomplete_reason: Option<String>,
    status: Option<String>,
    kind: Option<String>,
    error: Option<AnswerError>,
    /// `message` and `code` outside an `error` object, as vLLM 0.8.5 has them next to
    /// `"object":"error"`.
    bare_error: AnswerError,
    object_is_error: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Choices {
    #[default]
    Absent,
    Empty,
    Some,
}

/// The field `system_fingerprint`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Fingerprint {
    #[default]
    Absent,
    /// Null, or nothing that can be put into another event.
    Unusable,
    /// The inside of the string, as written.
    Text(Vec<u8>),
}

impl Facts {
    /// Usage and nothing else: the event that `include_usage` adds.
    pub(crate) fn is_usage_only(&self) -> bool {
        self.choices == Choices::Empty && self.usage_is_object
    }

    /// Usage next to choices: the server sends it whether or not anyone asked for it.
    pub(crate) fn is_usage_forced(&self) -> bool {
        self.choices == Choices::Some && self.usage_is_object
    }

    /// Ends a choice and does not name the server's build, as it would if no usage had been asked
    /// for.
    pub(crate) fn lacks_fingerprint(&self) -> bool {
        self.choice_ended && self.fingerprint == Fingerprint::Absent
    }

    /// The inside of the string `system_fingerprint`, as written.
    pub(crate) fn into_fingerprint(self) -> Option<Vec<u8>> {
        match self.fingerprint {
            Fingerprint::Text(text) => Some(text),
            Fingerprint::Absent | Fingerprint::Unusable => None,
        }
    }

    /// The event's `type`; empty where it has none.
    pub(crate) fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or_default()
    }

    pub(crate) fn is_error(&self) -> bool {
        self.error.is_some() || self.is_bare_error()
    }

    fn is_bare_error(&self) -> bool {
        self.object_is_error || self.kind() == "error"
    }

    /// Adds what one event says to what is known of the answer.
    pub(crate) fn add_event(&self, operation: Operation, ended: bool, answer: &mut Answer) {
        let finish = match operation {
            Operation::Responses if ended => {
                self.incomplete_reason.clone().or_else(|| self.status.clone())
            }
            Operation::Responses => None,
            _ => self.last_finish.clone(),
        };
        self.add(finish, answer);
    }

    /// Sets what the read part of a whole answer says.
    pub(crate) fn set_answer(&self, operation: Operation, answer: &mut Answer) {
        let settled = |status: &String| !matches!(status.as_str(), "in_progress" | "queued");
        let finish = match operation {
            Operation::Responses => {
                self.incomplete_reason.clone().or_else(|| self.status.clone().filter(settled))
            }
            _ => self.first_finish.clone(),
        };
        *answer = Answer::default();
        self.add(finish, answer);
    }

    fn add(&self, finish: Option<String>, answer: &mut Answer) {
        let usage = &mut answer.usage;
        usage.prompt_tokens = self.usage.prompt_tokens.or(usage.prompt_tokens);
        usage.completion_tokens = self.usage.completion_tokens.or(usage.completion_tokens);
        usage.cached_tokens = self.usage.cached_tokens.or(usage.cached_tokens);
        if finish.is_some() {
            answer.finish_reason = finish;
        }
        if answer.model.is_none() {
            answer.model.clone_from(&self.model);
        }
        if answer.error.is_none() {
            answer.error.clone_from(&self.error);
            if answer.error.is_none() && self.is_bare_error() {
                answer.error = Some(self.bare_error.clone());
            }
        }
    }

    fn found_error(&mut self, path: &[Step], found: Found<'_>) {
        match (path, found) {
            ([], Found::Object) => drop(self.error.get_or_insert_default()),
            ([] | [Step::Message], Found::Text(text)) => {
                self.error.get_or_insert_default().message = bounded(text, MESSAGE_BYTES_MAX);
            }
            ([Step::Code], Found::Literal(text) | Found::Text(text)) => {
                self.error.get_or_insert_default().code = count(text);
            }
            _ => {}
        }
    }

    fn found_usage(&mut self, path: &[Step], found: Found<'_>) {
        let field = match (path, found) {
            ([], Found::Object) => {
                self.usage_is_object = true;
                return;
            }
            ([Step::PromptTokens | Step::InputTokens], _) => &mut self.usage.prompt_tokens,
            ([Step::CompletionTokens | Step::OutputTokens], _) => &mut self.usage.completion_tokens,
            ([Step::InputDetails, Step::CachedTokens] | [Step::CacheReadInputTokens], _) => {
                &mut self.usage.cached_tokens
            }
            _ => return,
        };
        if let Found::Literal(text) = found {
            *field = count(text).or(*field);
        }
    }

    fn found_choice(&mut self, path: &[Step], found: Found<'_>) {
        match (path, found) {
            ([], Found::Array) => self.choices = Choices::Empty,
            ([], _) => {}
            ([place, Step::FinishReason], Found::Text(text)) => {
                self.choice_ended = true;
                let reason = bounded(text, NAME_BYTES_MAX);
                if *place == Step::First {
                    self.first_finish = Some(reason.clone());
                }
                self.last_finish = Some(reason);
            }
            _ => self.choices = Choices::Some,
        }
    }

    fn found_fingerprint(&mut self, found: Found<'_>) {
        self.fingerprint = match found {
            // A line end inside would come from data of several lines, and would break another
            // event.
            Found::Text(text)
                if text.len() <= FINGERPRINT_BYTES_MAX && text.iter().all(|&byte| byte >= b' ') =>
            {
                Fingerprint::Text(text.to_vec())
            }
            _ => Fingerprint::Unusable,
        };
    }

    fn found_name(&mut self, path: &[Step], text: &[u8]) {
        match path {
            [Step::Model] => self.model = Some(bounded(text, MODEL_BYTES_MAX)),
            [Step::StopReason] | [Step::Delta, Step::StopReason] => {
                let reason = bounded(text, NAME_BYTES_MAX);
                self.first_finish = Some(reason.clone());
                self.last_finish = Some(reason);
            }
            [Step::IncompleteDetails, Step::Reason] => {
                self.incomplete_reason = Some(bounded(text, NAME_BYTES_MAX));
            }
            [Step::Status] => self.status = Some(bounded(text, NAME_BYTES_MAX)),
            _ => {}
        }
    }
}

impl Sink for Facts {
    fn found(&mut self, path: &[Step], found: Found<'_>) {
        match (path, found) {
            ([Step::Type], Found::Text(text)) => {
                return self.kind = Some(bounded(text, NAME_BYTES_MAX));
            }
            ([Step::Object], Found::Text(text)) => return self.object_is_error = text == b"error",
            ([Step::Message], Found::Text(text)) => {
                return self.bare_error.message = bounded(text, MESSAGE_BYTES_MAX);
            }
            ([Step::Code], Found::Literal(text) | Found::Text(text)) => {
                return self.bare_error.code = count(text);
            }
            ([Step::SystemFingerprint], _) => return self.found_fingerprint(found),
            _ => {}
        }
        let inner = match path {
            [Step::Response | Step::Message, inner @ ..] => inner,
            _ => path,
        };
        match (inner, found) {
            ([Step::Usage, rest @ ..], _) => self.found_usage(rest, found),
            ([Step::Choices, rest @ ..], _) => self.found_choice(rest, found),
            ([Step::Error, rest @ ..], _) => self.found_error(rest, found),
            (_, Found::Text(text)) => self.found_name(inner, text),
            _ => {}
        }
    }
}

/// The beginning of a string, at most `max` bytes of it.
fn bounded(inside: &[u8], max: usize) -> String {
    let mut text = unescape(inside);
    text.truncate(text.floor_char_boundary(max));
    text
}

fn count<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
