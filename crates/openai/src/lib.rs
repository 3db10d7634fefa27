//! Reads: the wire format of OpenAI-style inference requests and answers. Bytes in, values out.
//!
//! A request body is read once ([`Envelope`]) and forwarded as received, but for spliced spans. An
//! answer is followed while its bytes pass by ([`StreamReader`] for server-sent events,
//! [`AnswerReader`] for JSON), so that the gateway knows its usage, its end and its errors without
//! holding it.
//!
//! Deliberately absent: sockets, clocks, randomness, locks and tasks (this room is pure); typed
//! models of requests and answers (what the gateway does not need, it does not read, and a field it
//! has never heard of passes unchanged); re-serialisation of anything a client or a server wrote;
//! tokenizing.
//!
//! Modules:
//! - `operation`: which of the known operations a request is
//! - `envelope`: what a request body says, and the body to send upstream
//! - `json`: strict reading of a whole JSON text, without building values
//! - `walker`: lenient reading of a JSON text that arrives in pieces
//! - `answer`: what is known of an answer, and the reader of answers that are one JSON text
//! - `facts`: from the fields of one JSON text to what they say of an answer
//! - `framing`: where server-sent events end and which of their lines are data
//! - `stream`: the reader of streamed answers
//! - `ending`: the end of a stream, held back until its usage event comes
//! - `load`: what a server says of its load along with an answer
//! - `errors`: answers the gateway gives itself, and errors it recognises

mod answer;
mod ending;
mod envelope;
mod errors;
mod facts;
mod framing;
mod json;
mod load;
mod operation;
mod stream;
#[cfg(test)]
mod tests;
mod walker;

pub use answer::{Answer, AnswerError, AnswerReader, Usage};
pub use envelope::{Envelope, InvalidBody};
pub use errors::{
    ErrorShape, error_body, error_event, is_error, is_model_error, is_shutdown_error,
};
pub use load::{LOAD_BYTES_MAX, LOAD_FORMAT, LOAD_HEADER, LOAD_REQUEST_HEADER, LoadReport};
pub use operation::Operation;
pub use stream::{Progress, StreamReader};
