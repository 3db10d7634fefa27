//! Which of the operations the gateway understands a request is.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::errors::ErrorShape;

/// What a request asks for, by its method and path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `POST /v1/completions`
    Completions,
    /// `POST /v1/chat/completions`
    ChatCompletions,
    /// `POST /v1/embeddings`
    Embeddings,
    /// `POST /v1/responses`
    Responses,
    /// `POST /v1/messages`, in Anthropic's format
    Messages,
    /// `POST /tokenize`
    Tokenize,
    /// Everything else; passes without its body being read
    Other,
}

impl Operation {
    /// The operation of a request; `path` is as the client sent it, without its query string.
    ///
    /// What has escapes is read as vLLM's server reads it: all are decoded, once, and a line feed at the end does not
    /// count. A path that is taken for another there would be served without being counted.
    pub fn of(method: &str, path: &str) -> Operation {
        if method != "POST" {
            return Operation::Other;
        }
        let decoded = Cow::from(percent_decode_str(path));
        match decoded.strip_suffix(b"\n").unwrap_or(&decoded) {
            b"/v1/completions" => Operation::Completions,
            b"/v1/chat/completions" => Operation::ChatCompletions,
            b"/v1/embeddings" => Operation::Embeddings,
            b"/v1/responses" => Operation::Responses,
            b"/v1/messages" => Operation::Messages,
            b"/tokenize" => Operation::Tokenize,
            _ => Operation::Other,
        }
    }

    /// Whether the request's body must be a JSON object, which [`crate::Envelope`] reads.
    pub fn reads_body(self) -> bool {
        self != Operation::Other
    }

    /// The shape in which clients of this operation expect errors.
    pub fn error_shape(self) -> ErrorShape {
        match self {
            Operation::Messages => ErrorShape::Anthropic,
            _ => ErrorShape::OpenAi,
        }
    }

    /// Whether `stream_options.include_usage` exists for this operation.
    pub(crate) fn has_stream_options(self) -> bool {
        matches!(self, Operation::Completions | Operation::ChatCompletions)
    }
}

#[cfg(test)]
mod tests;
