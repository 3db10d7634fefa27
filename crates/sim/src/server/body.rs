//! The bodies of answers: whole, or one event after another as the engine gives tokens.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::answer::{Answer, event};
use super::connection::Busy;
use super::errors::{ApiError, Dialect};
use super::host::Ticket;
use super::observe::InFlight;

/// A body, and what lives as long as it.
#[derive(Debug)]
pub(super) struct ReplyBody {
    content: Content,
    _busy: Option<Busy>,
}

#[derive(Debug)]
enum Content {
    Whole(Bytes),
    Events(Box<EventStream>),
}

/// The connection is to be cut in the middle of the answer.
#[derive(Debug, thiserror::Error)]
#[error("cut on purpose")]
pub(super) struct Cut;

/// How a stream ends before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Whole,
    /// Without a last chunk, after so many tokens.
    CutAfter(u32),
    /// With an error event, after so many tokens.
    DieAfter(u32),
}

/// An answer on its way. Dropping it tells the engine that the client left.
#[derive(Debug)]
pub(super) struct EventStream {
    answer: Answer,
    ticket: Ticket,
    ending: Ending,
    /// Events ready to go: at most those that open or close an answer, six.
    ready: VecDeque<String>,
    /// Tokens turned into events.
    given: u32,
    done: bool,
    _in_flight: InFlight,
}

impl ReplyBody {
    pub(super) fn whole(bytes: impl Into<Bytes>) -> ReplyBody {
        ReplyBody { content: Content::Whole(bytes.into()), _busy: None }
    }

    pub(super) fn events(stream: EventStream) -> ReplyBody {
        ReplyBody { content: Content::Events(Box::new(stream)), _busy: None }
    }

    /// The connection is busy until the body is sent.
    pub(super) fn holding(self, busy: Busy) -> ReplyBody {
        ReplyBody { _busy: Some(busy), ..self }
    }
}

impl EventStream {
    pub(super) fn new(
        answer: Answer,
        ticket: Ticket,
        ending: Ending,
        in_flight: InFlight,
    ) -> EventStream {
        let ready = answer.opening().into();
        EventStream { answer, ticket, ending, ready, given: 0, done: false, _in_flight: in_flight }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<String, Cut>>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            if self.done {
                return Poll::Ready(None);
            }
            match self.ending {
                Ending::CutAfter(tokens) if tokens <= self.given => {
                    return Poll::Ready(Some(Err(Cut)));
                }
                Ending::DieAfter(tokens) if tokens <= self.given => {
                    self.ready.push_back(event(&ApiError::engine_dead().body(Dialect::OpenAi)));
                    self.ready.push_back(event("[DONE]"));
                    self.done = true;
                    continue;
                }
                _ => {}
            }
            ready!(self.ticket.poll_beyond(self.given, cx));
            if self.given == 0 {
                self.ready.extend(self.answer.first());
            }
            self.ready.push_back(self.answer.token(self.given));
            self.given += 1;
            if self.given == self.answer.output {
                self.ready.extend(self.answer.closing());
                self.done = true;
            }
        }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match &mut self.content {
            Content::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Content::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Content::Events(stream) => {
                let event = ready!(stream.poll_event(cx));
                Poll::Ready(event.map(|event| event.map(|event| Frame::data(event.into()))))
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Events(_) => SizeHint::default(),
        }
    }
}
