//! The reader of streamed answers: follows the events while their bytes pass by. Where the gateway
//! asked for usage and the client did not, it takes out the usage event and gives the client the
//! bytes the server would have sent without being asked. For every way of cutting a stream into
//! chunks it forwards the same bytes and learns the same.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use memchr::memmem::Finder;

use crate::answer::Answer;
use crate::ending::Ending;
use crate::facts::Facts;
use crate::framing::{Framer, Line, lines};
use crate::operation::Operation;
use crate::walker::Walker;

/// Longest event that is held back or kept for reading. Of a longer one only the beginning is read,
/// and it passes whatever it is.
pub(crate) const EVENT_BYTES_MAX: usize = 1024 * 1024;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// What one chunk brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Data events that ended in this chunk; counted as in [`Answer::events`].
    pub events: u32,
    /// The first token came with this chunk.
    pub first_token: bool,
    /// An event with a comment ended in this chunk: a sign of life without a token.
    pub comments: bool,
}

/// Follows a streamed answer; forwards its bytes, minus the traces of the injected usage.
#[derive(Debug)]
pub struct StreamReader {
    operation: Operation,
    strip_usage: bool,
    signs: Signs,
    framer: Framer,
    /// The beginning of an event whose end has not come: a copy of forwarded bytes, or, where usage
    /// is taken out, bytes held back.
    pending: BytesMut,
    /// The current event is longer than [`EVENT_BYTES_MAX`]: it was read as far as that, and
    /// passes.
    oversized: bool,
    /// The last event ended with a CR at the end of its chunk, so that an LF may follow which is
    /// part of it; what became of that event.
    tail: Option<Fate>,
    /// The last events, while they wait for the usage event.
    ending: Ending,
    /// No event was read yet: a byte order mark may come.
    fresh: bool,
    answer: Answer,
}

impl StreamReader {
    /// A reader for the answer to one request. `strip_usage`: forward what the server would have
    /// sent if nobody had asked for usage, because the gateway did so itself. That is without the
    /// event that has usage and no choices, and with that event's `system_fingerprint` in the
    /// chunks that end a choice. A server that sends usage with every chunk, although it was asked
    /// for it at the end only, sends it unasked, and all of it passes.
    pub fn new(operation: Operation, strip_usage: bool) -> Self {
        StreamReader {
            operation,
            strip_usage,
            signs: Signs::of(operation),
            framer: Framer::default(),
            pending: BytesMut::new(),
            oversized: false,
            tail: None,
            ending: Ending::default(),
            fresh: true,
            answer: Answer::default(),
        }
    }

    /// Reads `chunk` and appends to `out` what may be forwarded: slices of it, wherever possible.
    /// Nothing is held back unless usage is to be taken out, and then only the beginning of an
    /// event at the chunk's end, and the end of the stream: a chunk that ends a choice and what
    /// follows waits for the usage event. With several choices, the tokens of the others thus wait
    /// once the first one has ended, up to a megabyte of them.
    pub fn push(&mut self, chunk: Bytes, out: &mut VecDeque<Bytes>) -> Progress {
        let mut progress = Progress::default();
        let started = self.answer.tokens_started;
        let mut pass = Pass { at: 0, kept: 0 };
        if let Some(fate) = self.tail.take_if(|_| !chunk.is_empty())
            && chunk[0] == b'\n'
        {
            pass.at = 1;
            pass.kept = usize::from(fate != Fate::Pass);
            if fate == Fate::Hold {
                self.ending.hold(&chunk[..1]);
            }
        }
        while let Some(length) = self.framer.event_end(&chunk[pass.at..]) {
            self.complete(&chunk, length, &mut pass, out, &mut progress);
        }
        if pass.at < chunk.len() {
            self.hold(&chunk, &mut pass, out, &mut progress);
        }
        if self.strip_usage {
            forward(chunk.slice(pass.kept..pass.at), out);
        } else {
            forward(chunk, out);
        }
        progress.first_token = self.answer.tokens_started && !started;
        progress
    }

    /// The body ended cleanly: forwards what was held back, and reads it, for a server may leave
    /// out the last empty line.
    pub fn finish(&mut self, out: &mut VecDeque<Bytes>) {
        let event = self.pending.split().freeze();
        if !event.is_empty() {
            let fate = self.take(&event, out, &mut Progress::default());
            if self.strip_usage && fate == Fate::Pass {
                forward(event, out);
            }
        }
        forward(self.ending.release(), out);
    }

    /// What the events so far say.
    pub fn answer(&self) -> &Answer {
        &self.answer
    }

    /// The current event ends `length` bytes after `pass.at`.
    fn complete(
        &mut self,
        chunk: &Bytes,
        length: usize,
        pass: &mut Pass,
        out: &mut VecDeque<Bytes>,
        progress: &mut Progress,
    ) {
        let end = pass.at + length;
        let rest = &chunk[pass.at..end];
        let mut fate = Fate::Pass;
        if self.oversized {
            self.oversized = false;
        } else if self.pending.len() + length > EVENT_BYTES_MAX {
            self.observe_beginning(rest, out, progress);
        } else if self.pending.is_empty() {
            fate = self.take(rest, out, progress);
        } else {
            self.pending.extend_from_slice(rest);
            let event = self.pending.split().freeze();
            fate = self.take(&event, out, progress);
            if self.strip_usage && fate == Fate::Pass {
                forward(event, out);
                pass.kept = end;
            }
        }
        let next = self.pass_tail(chunk, end, fate);
        if fate == Fate::Hold {
            self.ending.hold(&chunk[end..next]);
        }
        if fate != Fate::Pass {
            forward(chunk.slice(pass.kept..pass.at), out);
            pass.kept = next;
        }
        pass.at = next;
    }

    /// Where the next event begins, after an event that ends at `end`.
    fn pass_tail(&mut self, chunk: &[u8], end: usize, fate: Fate) -> usize {
        if chunk[end - 1] != b'\r' {
            return end;
        }
        match chunk.get(end) {
            Some(b'\n') => end + 1,
            Some(_) => end,
            None => {
                self.tail = Some(fate);
                end
            }
        }
    }

    /// The current event goes on after this chunk.
    fn hold(
        &mut self,
        chunk: &Bytes,
        pass: &mut Pass,
        out: &mut VecDeque<Bytes>,
        progress: &mut Progress,
    ) {
        let rest = &chunk[pass.at..];
        if !self.oversized && self.pending.len() + rest.len() > EVENT_BYTES_MAX {
            self.observe_beginning(rest, out, progress);
            self.oversized = true;
        }
        if self.oversized {
            pass.at = chunk.len();
        } else {
            if !self.ending.has_room(self.pending.len() + rest.len()) {
                forward(self.ending.release(), out);
            }
            self.pending.extend_from_slice(rest);
        }
    }

    /// The current event, now known to be too long, goes on with `rest`: reads its beginning and
    /// lets go of what was held back.
    fn observe_beginning(
        &mut self,
        rest: &[u8],
        out: &mut VecDeque<Bytes>,
        progress: &mut Progress,
    ) {
        let held = self.pending.split().freeze();
        let role = if held.is_empty() {
            self.observe(&rest[..EVENT_BYTES_MAX], false, progress)
        } else {
            let mut beginning = BytesMut::from(&held[..]);
            beginning.extend_from_slice(&rest[..EVENT_BYTES_MAX - held.len()]);
            self.observe(&beginning, false, progress)
        };
        if self.strip_usage {
            self.settle(role, EVENT_BYTES_MAX + 1, out);
            forward(held, out);
        }
    }

    /// Learns from a whole event and decides what becomes of it; holds it back where that is its
    /// fate.
    fn take(&mut self, event: &[u8], out: &mut VecDeque<Bytes>, progress: &mut Progress) -> Fate {
        let role = self.observe(event, true, progress);
        if !self.strip_usage {
            return Fate::Pass;
        }
        let fate = self.settle(role, event.len(), out);
        if fate == Fate::Hold {
            self.ending.hold(event);
        }
        fate
    }

    /// What becomes of an event of `length` bytes; lets go of what waited for it, which is all that
    /// lies before it.
    fn settle(&mut self, role: Role, length: usize, out: &mut VecDeque<Bytes>) -> Fate {
        if !self.ending.has_room(length) {
            forward(self.ending.release(), out);
        }
        match role {
            Role::Other => {}
            Role::ChoiceEnd { from_end } => self.ending.choice_ends(length - from_end),
            Role::Usage { fingerprint } => {
                forward(self.ending.stamp(fingerprint.as_deref()), out);
                return Fate::Drop;
            }
            Role::UsageForced => forward(self.ending.force_usage(), out),
            Role::NoUsageToCome => forward(self.ending.release(), out),
        }
        if self.ending.is_holding() { Fate::Hold } else { Fate::Pass }
    }

    /// Learns from an event, or, if not `whole`, from its beginning.
    fn observe(&mut self, event: &[u8], whole: bool, progress: &mut Progress) -> Role {
        let event = match event.strip_prefix(BYTE_ORDER_MARK) {
            Some(rest) if self.fresh => rest,
            _ => event,
        };
        self.fresh = false;
        let (mut first, mut several) = (None, false);
        for line in lines(event) {
            match line {
                Line::Comment => progress.comments = true,
                Line::Data(data) if first.is_none() => first = Some(data),
                Line::Data(_) => several = true,
            }
        }
        let Some(first) = first else { return Role::Other };
        if !several && first.trim_ascii().is_empty() {
            return Role::Other;
        }
        if !several && first.trim_ascii() == b"[DONE]" {
            self.answer.done = true;
            return Role::NoUsageToCome;
        }
        // Until the first token every event may be the one; afterwards few say anything new.
        if self.answer.tokens_started && !several && !self.signs.are_in(first) {
            self.count(progress);
            return Role::Other;
        }
        self.read(event, whole, progress)
    }

    fn read(&mut self, event: &[u8], whole: bool, progress: &mut Progress) -> Role {
        let mut walker = Walker::new();
        let mut facts = Facts::default();
        for line in lines(event) {
            if let Line::Data(data) = line {
                walker.push(data, &mut facts);
                walker.push(b"\n", &mut facts);
            }
        }
        let usage_only = facts.is_usage_only();
        let error = facts.is_error();
        self.answer.tokens_started |= match self.operation {
            Operation::Messages => facts.kind() == "content_block_delta",
            Operation::Responses => facts.kind().rsplit('.').next() == Some("delta"),
            _ => !usage_only && !error,
        };
        let ended = match self.operation {
            Operation::Messages => facts.kind() == "message_stop",
            Operation::Responses => {
                matches!(
                    facts.kind(),
                    "response.completed" | "response.incomplete" | "response.failed"
                )
            }
            _ => false,
        };
        self.answer.done |= ended;
        facts.add_event(self.operation, ended, &mut self.answer);
        if self.strip_usage && usage_only && !self.ending.is_usage_forced() && !error && whole {
            return Role::Usage { fingerprint: facts.into_fingerprint() };
        }
        self.count(progress);
        if facts.is_usage_forced() {
            return Role::UsageForced;
        }
        if error {
            return Role::NoUsageToCome;
        }
        if whole && walker.is_closed() && facts.lacks_fingerprint() {
            return last_brace(event).map_or(Role::Other, |from_end| Role::ChoiceEnd { from_end });
        }
        Role::Other
    }

    fn count(&mut self, progress: &mut Progress) {
        self.answer.events += 1;
        progress.events += 1;
    }
}

/// What an event is to the end of its stream.
#[derive(Debug, PartialEq, Eq)]
enum Role {
    Other,
    /// It ends a choice. `from_end`: how many bytes before the event's end the fingerprint belongs.
    ChoiceEnd {
        from_end: usize,
    },
    /// The usage event that the gateway asked for.
    Usage {
        fingerprint: Option<Vec<u8>>,
    },
    /// It shows that the server sends usage whether or not anyone asked.
    UsageForced,
    /// Behind it no usage event is to be expected.
    NoUsageToCome,
}

/// What becomes of an event's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Pass,
    Drop,
    Hold,
}

/// How many bytes before the event's end the brace lies that closes its data.
fn last_brace(event: &[u8]) -> Option<usize> {
    let data = lines(event).filter_map(|line| match line {
        Line::Data(data) => Some(data.trim_ascii_end()).filter(|data| !data.is_empty()),
        Line::Comment => None,
    });
    let brace = data.last()?.last().filter(|&&last| last == b'}')?;
    Some(event.len() - event.element_offset(brace)?)
}

/// Where the passage through one chunk stands.
struct Pass {
    /// Start of the event that is being read.
    at: usize,
    /// Start of what is not forwarded yet.
    kept: usize,
}

fn forward(bytes: Bytes, out: &mut VecDeque<Bytes>) {
    if !bytes.is_empty() {
        out.push_back(bytes);
    }
}

/// Cheap signs that an event says something besides a token. They may be wrong in one direction
/// only: a text of the model can look like one, and then the event is read in vain.
#[derive(Debug)]
struct Signs {
    usage: Finder<'static>,
    finish: Finder<'static>,
    error: Finder<'static>,
    end: Option<Finder<'static>>,
}

impl Signs {
    fn of(operation: Operation) -> Self {
        let (finish, end) = match operation {
            Operation::Messages => (r#""stop_reason""#, Some(r#""message_stop""#)),
            Operation::Responses => (r#""incomplete_details""#, Some(r#""response""#)),
            _ => (r#""finish_reason""#, None),
        };
        Signs {
            usage: Finder::new(r#""usage""#),
            finish: Finder::new(finish),
            error: Finder::new(r#""error""#),
            end: end.map(Finder::new),
        }
    }

    fn are_in(&self, data: &[u8]) -> bool {
        // vLLM puts `"finish_reason":null` into every event and, before 0.9, `"usage":null`.
        has_value(data, &self.usage, b'{')
            || has_value(data, &self.finish, b'"')
            || self.error.find(data).is_some()
            || self.end.as_ref().is_some_and(|end| end.find(data).is_some())
    }
}

/// Whether the key occurs with a value that begins with `first`.
fn has_value(data: &[u8], key: &Finder<'_>, first: u8) -> bool {
    key.find_iter(data).any(|at| {
        let after = data[at + key.needle().len()..].trim_ascii_start();
        after
            .strip_prefix(b":")
            .is_some_and(|value| value.trim_ascii_start().first() == Some(&first))
    })
}

#[cfg(test)]
mod tests;
