//! One request and its answer, measured.
//!
//! The first token is the first event with a choice, of chats the first whose delta has content: a chat opens with an
//! event that only names the role.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use memchr::memmem;
use openai::{AnswerReader, Operation, StreamReader, Usage};
use tokio::time::Instant;

use super::client::{Ask, Client, Link, Unanswered};
use super::figures::{Failure, Sample};

/// Bytes read of an answer that is an error.
const ERROR_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a chat's stream in which its first content is looked for; beyond, the first event counts.
const OPENING_BYTES_MAX: usize = 64 * 1024;
/// Gaps between chunks kept of one answer; further ones are not in the figures.
const GAPS_MAX: usize = 1 << 16;
/// Bytes kept of what a server says of an error.
const MESSAGE_BYTES_MAX: usize = 256;

/// Why a request failed: its kind, and what was said.
type Failed = (Failure, String);

impl Client {
    /// Sends a request that was due at this time. Dropping the future closes its connection.
    pub(super) async fn measure(&self, ask: Ask, due: Instant) -> Sample {
        let sent = Instant::now();
        let mut sample = Sample::new(ask.counted, ask.prompt_tokens, due, sent);
        let exchange = Box::pin(self.exchange(ask.body, &mut sample));
        let outcome = tokio::time::timeout(self.timeout, exchange).await;
        sample.failure = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(failed)) => Some(failed),
            Err(_) => Some((Failure::Timeout, format!("no whole answer in {:?}", self.timeout))),
        };
        sample.ended = Instant::now();
        sample
    }

    async fn exchange(&self, body: Bytes, sample: &mut Sample) -> Result<(), Failed> {
        let (mut link, response) = self.send(body).await.map_err(|error| match error {
            Unanswered::Connect(error) => (Failure::Connect, error.to_string()),
            Unanswered::Http(error) => (Failure::Http, error.to_string()),
        })?;
        let (head, body) = response.into_parts();
        if head.status != StatusCode::OK {
            let message = refused(&mut link, self.operation, body).await;
            self.keep(link);
            return Err((Failure::Status(head.status.as_u16()), message));
        }
        if self.stream {
            self.follow(&mut link, body, sample).await?;
        } else {
            self.collect(&mut link, body, sample).await?;
        }
        self.keep(link);
        Ok(())
    }

    async fn follow(
        &self,
        link: &mut Link,
        mut body: Incoming,
        sample: &mut Sample,
    ) -> Result<(), Failed> {
        let mut stream = Stream::new(self.operation, sample);
        link.along(async {
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| (Failure::Cut, error.to_string()))?;
                if let Ok(chunk) = frame.into_data() {
                    stream.push(chunk, Instant::now());
                }
            }
            stream.finish()
        })
        .await
    }

    async fn collect(
        &self,
        link: &mut Link,
        mut body: Incoming,
        sample: &mut Sample,
    ) -> Result<(), Failed> {
        let mut reader = AnswerReader::new(self.operation);
        link.along(async {
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| (Failure::Cut, error.to_string()))?;
                if let Ok(chunk) = frame.into_data() {
                    reader.push(&chunk);
                }
            }
            let answer = reader.answer();
            if let Some(error) = &answer.error {
                return Err((Failure::ErrorEvent, error.message.clone()));
            }
            if !answer.done {
                return Err((Failure::Cut, "the answer is no whole JSON text".to_owned()));
            }
            sample.last = Some(Instant::now());
            sample.usage = answer.usage;
            Ok(())
        })
        .await
    }
}

/// What an answer that is an error says.
async fn refused(link: &mut Link, operation: Operation, body: Incoming) -> String {
    let body = link.along(Limited::new(body, ERROR_BYTES_MAX).collect()).await;
    body.map_or_else(|error| error.to_string(), |body| message(operation, &body.to_bytes()))
}

/// The message of an error body; the beginning of its text if it is of no known shape.
pub(super) fn message(operation: Operation, body: &[u8]) -> String {
    let mut reader = AnswerReader::new(operation);
    reader.push(body);
    match &reader.answer().error {
        Some(error) if !error.message.is_empty() => error.message.clone(),
        _ => String::from_utf8_lossy(&body[..body.len().min(MESSAGE_BYTES_MAX)]).into_owned(),
    }
}

/// A streamed answer on its way.
struct Stream<'a> {
    reader: StreamReader,
    sample: &'a mut Sample,
    /// What the reader would forward; nobody wants it.
    passed: VecDeque<Bytes>,
    /// A chat's stream up to its first content.
    opening: Option<BytesMut>,
}

impl<'a> Stream<'a> {
    fn new(operation: Operation, sample: &'a mut Sample) -> Stream<'a> {
        let chat = operation == Operation::ChatCompletions;
        Stream {
            // Taking out the usage event is what keeps it from being counted.
            reader: StreamReader::new(operation, true),
            sample,
            passed: VecDeque::new(),
            opening: chat.then(BytesMut::new),
        }
    }

    fn push(&mut self, chunk: Bytes, now: Instant) {
        if let Some(opening) = &mut self.opening {
            opening.extend_from_slice(&chunk);
        }
        let progress = self.reader.push(chunk, &mut self.passed);
        self.passed.clear();
        if self.sample.first.is_none() {
            self.begin(progress.events, progress.first_token, now);
        } else if progress.events > 0 {
            self.gaps(progress.events, now);
        }
    }

    /// Looks for the first token in what has come; these events came just now.
    fn begin(&mut self, events: u32, first_token: bool, now: Instant) {
        let with_it = match &self.opening {
            None if first_token => events,
            None => return,
            Some(_) if !self.reader.answer().tokens_started => return,
            Some(opening) => match content_at(opening) {
                Some(at) => 1 + choices(&opening[at..]),
                None if opening.len() < OPENING_BYTES_MAX => return,
                None => events,
            },
        };
        self.opening = None;
        self.sample.first = Some(now);
        self.sample.last = Some(now);
        self.sample.chunks = 1;
        if with_it > 1 {
            self.gaps(with_it - 1, now);
        }
    }

    /// So many chunks after the first came together, after one gap.
    fn gaps(&mut self, events: u32, now: Instant) {
        let sample = &mut *self.sample;
        sample.chunks += u64::from(events);
        let gap = sample.last.map_or(0, |last| now.saturating_duration_since(last).as_micros());
        sample.last = Some(now);
        let gaps = std::iter::once(u32::try_from(gap).unwrap_or(u32::MAX))
            .chain(std::iter::repeat_n(0, events as usize - 1));
        let room = GAPS_MAX.saturating_sub(sample.gaps.len());
        sample.gaps.extend(gaps.take(room));
    }

    /// The body came to its end.
    fn finish(&mut self) -> Result<(), Failed> {
        self.reader.finish(&mut self.passed);
        self.passed.clear();
        let answer = self.reader.answer();
        self.sample.usage = answer.usage;
        if let Some(error) = &answer.error {
            return Err((Failure::ErrorEvent, error.message.clone()));
        }
        if !answer.done && answer.finish_reason.is_none() {
            return Err((Failure::Cut, "the stream ended without `[DONE]`".to_owned()));
        }
        // An answer without any token is over when its stream is.
        self.sample.last.get_or_insert_with(Instant::now);
        Ok(())
    }
}

/// Events with choices.
fn choices(text: &[u8]) -> u32 {
    let found = memmem::find_iter(text, br#""choices""#);
    let with_one = found.filter(|at| {
        let rest = &text[at + br#""choices""#.len()..];
        value(rest)
            .and_then(|value| value.strip_prefix(b"["))
            .is_some_and(|inside| inside.trim_ascii_start().first() == Some(&b'{'))
    });
    u32::try_from(with_one.count()).unwrap_or(u32::MAX)
}

/// Where a chat's first content is: text, reasoning or a call of a tool.
fn content_at(text: &[u8]) -> Option<usize> {
    let first = |key: &[u8], is_content: fn(&[u8]) -> bool| {
        memmem::find_iter(text, key)
            .find(|at| value(&text[at + key.len()..]).is_some_and(is_content))
    };
    let texts = |value: &[u8]| matches!(value, [b'"', next, ..] if *next != b'"');
    let calls = |value: &[u8]| {
        let inside = value.strip_prefix(b"[").map(<[u8]>::trim_ascii_start);
        inside.is_some_and(|inside| inside.first() == Some(&b'{'))
    };
    // `content` is the end of `reasoning_content`, too.
    let found = [
        first(br#"content""#, texts),
        first(br#""reasoning""#, texts),
        first(br#""tool_calls""#, calls),
    ];
    found.into_iter().flatten().min()
}

/// What follows a key's colon.
fn value(rest: &[u8]) -> Option<&[u8]> {
    Some(rest.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start())
}

impl Sample {
    pub(super) fn new(counted: bool, prompt_tokens: u32, due: Instant, sent: Instant) -> Sample {
        Sample {
            counted,
            prompt_tokens,
            due,
            sent,
            first: None,
            last: None,
            ended: sent,
            gaps: Vec::new(),
            chunks: 0,
            usage: Usage::default(),
            failure: None,
        }
    }
}

#[cfg(test)]
mod tests;
