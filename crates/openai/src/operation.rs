//! Which of the operations the gateway understands a request is.

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
    /// The operation of a request; `path` is without its query string.
    pub fn of(method: &str, path: &str) -> Operation {
        if method != "POST" {
            return Operation::Other;
        }
        match path {
            "/v1/completions" => Operation::Completions,
            "/v1/chat/completions" => Operation::ChatCompletions,
            "/v1/embeddings" => Operation::Embeddings,
            "/v1/responses" => Operation::Responses,
            "/v1/messages" => Operation::Messages,
            "/tokenize" => Operation::Tokenize,
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
