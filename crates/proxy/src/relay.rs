//! An answer on its way to the client: bytes out as they come in, followed as they pass.
//!
//! Poll-driven. Nothing is read from the endpoint before the client has taken what came before, so
//! a slow reader slows its endpoint and fills no memory here.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use openai::{Answer, AnswerReader, ErrorShape, Operation, StreamReader, error_event};
use picker::{Assignment, Cutoff, Finish};
use tokio::time::{Duration, Instant, Sleep, sleep};

use crate::{
    alarm::Alarm,
    connections::{AnswerBody, Broken},
};

/// How long the notice that a stream was cut may take to leave, before the connection is broken
/// off behind it.
const CUT_LINGER: Duration = Duration::from_millis(50);

/// The answer ends uncleanly, so that nobody takes it for a whole one.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the endpoint's answer was cut")]
pub(crate) struct Cut;

/// Follows an answer's bytes.
#[derive(Debug)]
pub(crate) enum Reader {
    Stream(Box<StreamReader>),
    Json(Box<AnswerReader>),
    /// Nothing to learn from it.
    Opaque,
}

/// What reading a piece of an answer has shown.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// A whole event came.
    pub(crate) event: bool,
    /// Something came that a client would want to see at once, such as a keep-alive comment.
    pub(crate) comment: bool,
    /// The answer's tokens have begun.
    pub(crate) tokens: bool,
}

impl Reader {
    pub(crate) fn push(&mut self, bytes: Bytes, out: &mut VecDeque<Bytes>) -> Seen {
        match self {
            Self::Stream(reader) => {
                let progress = reader.push(bytes, out);
                Seen {
                    event: progress.events > 0,
                    comment: progress.comments,
                    tokens: progress.events > 0 && reader.answer().tokens_started,
                }
            }
            Self::Json(reader) => {
                reader.push(&bytes);
                out.push_back(bytes);
                Seen::default()
            }
            Self::Opaque => {
                out.push_back(bytes);
                Seen::default()
            }
        }
    }

    pub(crate) fn finish(&mut self, out: &mut VecDeque<Bytes>) {
        if let Self::Stream(reader) = self {
            reader.finish(out);
        }
    }

    pub(crate) fn answer(&self) -> Option<&Answer> {
        match self {
            Self::Stream(reader) => Some(reader.answer()),
            Self::Json(reader) => Some(reader.answer()),
            Self::Opaque => None,
        }
    }
}

/// What an endpoint has sent so far.
#[derive(Debug)]
pub(crate) struct Opening {
    /// Absent once it has ended.
    pub(crate) body: Option<AnswerBody>,
    pub(crate) reader: Reader,
    /// Read, and not yet passed on.
    pub(crate) out: VecDeque<Bytes>,
}

impl Opening {
    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.body.as_mut().map_or(Poll::Ready(None), |body| body.poll_frame(context))
    }

    /// The next frame. Dropping the future loses nothing.
    pub(crate) async fn frame(&mut self) -> Option<Result<Frame<Bytes>, Broken>> {
        poll_fn(|context| self.poll_frame(context)).await
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(AnswerBody::is_end_stream)
    }

    /// Bytes that are to come at least.
    fn left(&self) -> u64 {
        self.body.as_ref().map_or(0, |body| body.size_hint().lower())
    }

    /// All bytes have come that the answer said it has, though perhaps not its end.
    fn is_whole(&self) -> bool {
        self.body.as_ref().is_none_or(|body| body.size_hint().exact() == Some(0))
    }

    /// The body has ended: its connection may be used again.
    pub(crate) fn end(&mut self) {
        if let Some(body) = self.body.take() {
            body.give_back();
        }
    }
}

/// When an answer is given up.
#[derive(Debug)]
pub(crate) struct Patience {
    pub(crate) idle: Duration,
    pub(crate) deadline: Option<Instant>,
    pub(crate) cutoff: Cutoff,
}

/// The response body. Whoever drops it has ended the request.
#[derive(Debug)]
pub(crate) struct Relay {
    opening: Opening,
    assignment: Assignment,
    patience: Patience,
    heard: Instant,
    /// Set when something is first waited for: most answers are whole before.
    alarm: Option<Alarm>,
    shape: ErrorShape,
    /// Bytes passed on so far end at an event's end.
    at_event_end: bool,
    trailers: Option<http::HeaderMap>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The endpoint has more to say.
    Open,
    /// The endpoint is done; the client is not.
    Draining(Finish),
    /// The cut is being told, then the body ends uncleanly. The time for that runs from when the notice was taken.
    Cut(Option<Pin<Box<Sleep>>>),
    Done,
}

impl Relay {
    /// `bodiless`: nothing follows the answer's head, whatever that says.
    pub(crate) fn new(
        opening: Opening,
        assignment: Assignment,
        patience: Patience,
        (operation, bodiless): (Operation, bool),
    ) -> Self {
        let heard = Instant::now();
        let mut relay = Self {
            alarm: None,
            opening,
            assignment,
            patience,
            heard,
            shape: operation.error_shape(),
            at_event_end: true,
            trailers: None,
            stage: Stage::Open,
        };
        if bodiless || relay.opening.is_end_stream() {
            relay.complete();
        }
        relay
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        loop {
            if let Some(bytes) = self.opening.out.pop_front() {
                return Poll::Ready(Some(Ok(self.pass(bytes))));
            }
            match &mut self.stage {
                Stage::Open => ready!(self.poll_endpoint(context)),
                Stage::Draining(_) => {
                    self.close();
                    if let Some(trailers) = self.trailers.take() {
                        return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                    }
                }
                Stage::Cut(linger) => {
                    let linger = linger.get_or_insert_with(|| Box::pin(sleep(CUT_LINGER)));
                    ready!(linger.as_mut().poll(context));
                    self.stage = Stage::Done;
                    return Poll::Ready(Some(Err(Cut)));
                }
                Stage::Done => return Poll::Ready(None),
            }
        }
    }

    /// Hands bytes to the client. With the last of them the request has ended well: whoever asks
    /// [`Body::is_end_stream`] next will not ask for more.
    fn pass(&mut self, bytes: Bytes) -> Frame<Bytes> {
        self.at_event_end = ends_event(&bytes);
        let len = bytes.len() as u64;
        self.assignment.note(|record| record.bytes_sent += len);
        if self.opening.out.is_empty() && self.trailers.is_none() {
            self.close();
        }
        Frame::data(bytes)
    }

    /// From draining to done.
    fn close(&mut self) {
        if let Stage::Draining(finish) = &self.stage {
            self.assignment.finish(finish.clone());
            self.stage = Stage::Done;
        }
    }

    /// Takes in one piece, the end, a failure or the lack of any.
    fn poll_endpoint(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self.opening.poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                self.heard = Instant::now();
                match frame.into_data() {
                    Ok(data) => self.take_in(data),
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                }
                if self.opening.is_end_stream() {
                    self.complete();
                }
            }
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(endpoint = %self.assignment.endpoint().spec.id, %error, "answer cut");
                self.endpoint_gone();
            }
            // HTTP/2 may end a stream as if all were well.
            Poll::Ready(None) if self.opening.left() > 0 => self.endpoint_gone(),
            Poll::Ready(None) => self.complete(),
            Poll::Pending => return self.poll_patience(context),
        }
        Poll::Ready(())
    }

    fn take_in(&mut self, data: Bytes) {
        let seen = self.opening.reader.push(data, &mut self.opening.out);
        if seen.tokens {
            self.assignment.tokens(self.heard);
        }
    }

    /// The alarm is set anew only when it rings: a chunk costs no timer.
    fn poll_patience(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.patience.cutoff.is_over() {
            self.cut(Finish::Draining, 503, "the gateway stopped mid-answer");
            return Poll::Ready(());
        }
        let first = self.patience.next(self.heard);
        let alarm = self.alarm.get_or_insert_with(|| Alarm::at(first));
        loop {
            ready!(alarm.poll(context));
            let (next, now) = (self.patience.next(self.heard), Instant::now());
            if now < next {
                alarm.set(next);
                continue;
            }
            if self.patience.deadline.is_some_and(|deadline| deadline <= now) {
                self.cut(Finish::RouteTimeout, 504, "the request's timeout ran out mid-answer");
            } else {
                self.cut(Finish::IdleTimeout, 504, "the endpoint fell silent mid-answer");
            }
            return Poll::Ready(());
        }
    }

    fn complete(&mut self) {
        self.opening.end();
        self.opening.reader.finish(&mut self.opening.out);
        let finish = self.note_answer();
        self.stage = Stage::Draining(finish);
        if self.opening.out.is_empty() && self.trailers.is_none() {
            self.close();
        }
    }

    fn endpoint_gone(&mut self) {
        let message = "the endpoint closed the connection mid-answer";
        self.cut(Finish::EndpointGone, 502, message);
    }

    /// Ends a stream visibly: an error event, no `[DONE]`, an unclean end.
    fn cut(&mut self, finish: Finish, status: u16, message: &str) {
        // The connection is closed.
        self.opening.body = None;
        self.opening.reader.finish(&mut self.opening.out);
        self.note_answer();
        self.break_off(finish);
        if matches!(self.opening.reader, Reader::Stream(_)) {
            let at_event_end =
                self.opening.out.back().map_or(self.at_event_end, |last| ends_event(last));
            if !at_event_end {
                self.opening.out.push_back(Bytes::from_static(b"\n\n"));
            }
            let message = format!("{message}; the answer is incomplete, retry the request");
            self.opening.out.push_back(error_event(self.shape, status, &message));
        }
        self.stage = Stage::Cut(None);
    }

    fn break_off(&mut self, finish: Finish) {
        let flag = match finish {
            Finish::EndpointGone => "UC",
            Finish::Draining => "LR",
            _ => "UT",
        };
        self.assignment.note(|record| record.response_flags = flag);
        self.assignment.finish(finish);
    }

    /// Writes what the answer said into the record; how the answer ended.
    fn note_answer(&mut self) -> Finish {
        let Some(answer) = self.opening.reader.answer() else { return Finish::Complete(None) };
        self.assignment.usage(answer.usage);
        self.assignment.note(|record| {
            if record.request_model.is_none() {
                record.request_model.clone_from(&answer.model);
            }
        });
        let died = answer.error.as_ref().is_some_and(|e| e.code.is_none_or(|code| code >= 500));
        let streamed = matches!(self.opening.reader, Reader::Stream(_));
        if died && streamed {
            // A dead engine ends its streams politely; only the event tells.
            self.assignment.note(|record| record.response_flags = "UC");
            Finish::EndpointGone
        } else {
            Finish::Complete(answer.finish_reason.clone())
        }
    }
}

fn ends_event(bytes: &[u8]) -> bool {
    bytes.ends_with(b"\n\n") || bytes.ends_with(b"\r\n\r\n")
}

impl Drop for Relay {
    /// What the answer has said so far is worth knowing, though the client has left; or though it has not, and the gateway
    /// ends before it has taken all.
    fn drop(&mut self) {
        if matches!(self.stage, Stage::Open) {
            if self.opening.is_whole() && self.opening.out.is_empty() {
                // Its client did not wait for the end, having all.
                return self.complete();
            }
            self.note_answer();
        }
        let unfinished = matches!(self.stage, Stage::Open | Stage::Draining(_));
        if unfinished && self.patience.cutoff.is_over() {
            self.break_off(Finish::Draining);
        }
    }
}

impl Patience {
    fn next(&self, heard: Instant) -> Instant {
        let idle = heard + self.idle;
        self.deadline.map_or(idle, |deadline| deadline.min(idle))
    }
}

impl Body for Relay {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        self.get_mut().poll(context)
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.stage, Stage::Done) && self.opening.out.is_empty()
    }

    /// The endpoint's own length where the bytes pass unchanged.
    fn size_hint(&self) -> SizeHint {
        if self.is_end_stream() {
            return SizeHint::with_exact(0);
        }
        let waiting: usize = self.opening.out.iter().map(Bytes::len).sum();
        match (&self.opening.reader, &self.opening.body) {
            (Reader::Stream(_), _) => SizeHint::default(),
            (_, None) => SizeHint::with_exact(waiting as u64),
            (_, Some(body)) => body
                .size_hint()
                .exact()
                .map_or_else(SizeHint::default, |rest| SizeHint::with_exact(rest + waiting as u64)),
        }
    }
}
