//! Strict reading of a whole JSON text: checks its grammar and tells where its members lie, without
//! building values. Iterative, so that no body can overflow the stack; strings, the bulk of a
//! prompt, are skipped with vector instructions.

use std::ops::Range;

/// Objects and arrays that may be open at once. Python's own reader gives up at about as many.
pub(crate) const DEPTH_MAX: usize = 1024;

const STACK_WORDS: usize = DEPTH_MAX / 64;

/// What is wrong with the text, and at which byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) at: usize,
    pub(crate) wrong: Wrong,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    Grammar(&'static str),
    TooDeep,
}

/// A value's type; its bytes are in [`Value::span`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    True,
    False,
    Number,
    Text,
    Array,
    Object,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) kind: Kind,
    /// A string's span includes its quotes.
    pub(crate) span: Range<usize>,
}

/// Where reading stands. `text` must be valid UTF-8, which the caller checks for the whole at once.
#[derive(Debug)]
pub(crate) struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

type Read<T> = Result<T, Fault>;

impl<'a> Scanner<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Scanner { text, at: 0 }
    }

    /// The offset of the next byte to read.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// The next byte that is not white space, not consumed.
    pub(crate) fn peek(&mut self) -> Option<u8> {
        while let Some(&byte) = self.text.get(self.at) {
            if byte > b' ' || !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.at += 1;
        }
        None
    }

    /// Enters an object whose `{` is next.
    pub(crate) fn enter_object(&mut self) -> Read<()> {
        if self.peek() != Some(b'{') {
            return self.fault("expected an object");
        }
        self.at += 1;
        Ok(())
    }

    /// The key (with its quotes) of the object's next member, its colon consumed; `None` once the
    /// object's end is consumed. `first`: no member was read before.
    pub(crate) fn member(&mut self, first: bool) -> Read<Option<Range<usize>>> {
        match self.peek() {
            Some(b'}') => {
                self.at += 1;
                return Ok(None);
            }
            Some(b',') if !first => self.at += 1,
            _ if first => {}
            _ => return self.fault("expected `,` or `}`"),
        }
        self.key().map(Some)
    }

    /// Consumes one whole value, of any depth. `depth`: containers open around it.
    pub(crate) fn value(&mut self, depth: usize) -> Read<Value> {
        let first = self.peek();
        let start = self.at;
        let kind = match first {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            _ => self.scalar()?,
        };
        if matches!(kind, Kind::Object | Kind::Array) {
            self.container(depth)?;
        }
        Ok(Value { kind, span: start..self.at })
    }

    /// Nothing but white space may be left.
    pub(crate) fn end(&mut self) -> Read<()> {
        match self.peek() {
            None => Ok(()),
            Some(_) => self.fault("unexpected data after the end of the JSON value"),
        }
    }

    #[cold]
    fn fault<T>(&self, wrong: &'static str) -> Read<T> {
        let wrong = if self.at >= self.text.len() { "the text ends too early" } else { wrong };
        Err(Fault { at: self.at.min(self.text.len()), wrong: Wrong::Grammar(wrong) })
    }

    fn container(&mut self, around: usize) -> Read<()> {
        let mut open = Stack::default();
        let mut value_next = true;
        loop {
            if value_next {
                if open.len > 0 && !open.top_is_object() {
                    self.at += whole_numbers(&self.text[self.at..]);
                }
                match self.peek() {
                    Some(byte @ (b'{' | b'[')) => {
                        if around + open.len >= DEPTH_MAX {
                            return Err(Fault { at: self.at, wrong: Wrong::TooDeep });
                        }
                        self.at += 1;
                        open.push(byte == b'{');
                        let close = if byte == b'{' { b'}' } else { b']' };
                        if self.peek() == Some(close) {
                            value_next = false;
                            continue;
                        }
                        if byte == b'{' {
                            self.key()?;
                        }
                        continue;
                    }
                    _ => self.scalar().map(drop)?,
                }
            }
            value_next = match (self.peek(), open.top_is_object()) {
                (Some(b','), true) => {
                    self.at += 1;
                    self.key()?;
                    true
                }
                (Some(b','), false) => {
                    self.at += 1;
                    true
                }
                (Some(b'}'), true) | (Some(b']'), false) => {
                    self.at += 1;
                    open.len -= 1;
                    if open.len == 0 {
                        return Ok(());
                    }
                    false
                }
                (_, true) => return self.fault("expected `,` or `}`"),
                (_, false) => return self.fault("expected `,` or `]`"),
            };
        }
    }

    fn key(&mut self) -> Read<Range<usize>> {
        if self.peek() != Some(b'"') {
            return self.fault("expected a key in double quotes");
        }
        let start = self.at;
        self.string()?;
        let span = start..self.at;
        if self.peek() != Some(b':') {
            return self.fault("expected `:` after a key");
        }
        self.at += 1;
        Ok(span)
    }

    #[inline]
    fn scalar(&mut self) -> Read<Kind> {
        match self.peek() {
            Some(b'"') => self.string().map(|()| Kind::Text),
            Some(b'-' | b'0'..=b'9') => self.number().map(|()| Kind::Number),
            Some(b't') => self.word("true").map(|()| Kind::True),
            Some(b'f') => self.word("false").map(|()| Kind::False),
            Some(b'n') => self.word("null").map(|()| Kind::Null),
            _ => self.fault("expected a value"),
        }
    }

    fn word(&mut self, word: &'static str) -> Read<()> {
        if !self.text[self.at..].starts_with(word.as_bytes()) {
            return self.fault("expected a value");
        }
        self.at += word.len();
        Ok(())
    }

    /// Consumes a string whose opening quote is next.
    fn string(&mut self) -> Read<()> {
        let open = self.at;
        self.at += 1;
        loop {
            let rest = &self.text[self.at..];
            let stop = special(rest);
            self.at += stop + 1;
            match rest.get(stop) {
                Some(b'"') => return Ok(()),
                Some(b'\\') => self.escape()?,
                Some(_) => {
                    self.at -= 1;
                    return self.fault(
                        "a string holds a control character; write it as an escape such as \\n",
                    );
                }
                None => {
                    self.at = open;
                    return self.fault("a string has no end");
                }
            }
        }
    }

    /// Consumes what follows a backslash.
    fn escape(&mut self) -> Read<()> {
        let rest = &self.text[self.at..];
        let length = match rest.first() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 1,
            Some(b'u') if rest.len() > 4 && rest[1..5].iter().all(u8::is_ascii_hexdigit) => 5,
            _ => return self.fault("a string holds an escape that JSON does not know"),
        };
        self.at += length;
        Ok(())
    }

    #[inline]
    fn number(&mut self) -> Read<()> {
        self.take(b'-', b'-');
        if !self.take(b'0', b'0') {
            self.digits()?;
        }
        if self.take(b'.', b'.') {
            self.digits()?;
        }
        if self.take(b'e', b'E') {
            if !self.take(b'+', b'+') {
                self.take(b'-', b'-');
            }
            self.digits()?;
        }
        Ok(())
    }

    /// Consumes at least one digit.
    #[inline]
    fn digits(&mut self) -> Read<()> {
        let start = self.at;
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        if self.at == start { self.fault("a number needs a digit here") } else { Ok(()) }
    }

    /// Consumes the next byte if it is one of two.
    fn take(&mut self, one: u8, other: u8) -> bool {
        let fits = self.text.get(self.at).is_some_and(|&byte| byte == one || byte == other);
        self.at += usize::from(fits);
        fits
    }
}

/// The length of the run of whole numbers at the beginning, each with its comma: a prompt may be
/// thousands of token ids, which this reads several times faster than value after value.
fn whole_numbers(text: &[u8]) -> usize {
    let (mut run, mut at) = (0, 0);
    loop {
        let start = at;
        while text.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        let number = &text[start..at];
        if number.is_empty() || number.len() > 1 && number[0] == b'0' || text.get(at) != Some(&b',')
        {
            return run;
        }
        at += 1;
        at += usize::from(text.get(at) == Some(&b' '));
        run = at;
    }
}

/// Bytes of a string looked at together: two or four vector registers.
const BLOCK: usize = 32;

/// The place of the first quote, backslash or control character; the end of the text if there is none.
fn special(rest: &[u8]) -> usize {
    // Zero for those, and for no other byte.
    let rank = |byte: u8| (byte ^ b'"').min(byte ^ b'\\').min(byte.saturating_sub(b' ' - 1));
    let (blocks, _) = rest.as_chunks::<BLOCK>();
    // A fold without early exit becomes vector instructions.
    let none =
        |block: &[u8; BLOCK]| block.iter().fold(u8::MAX, |least, &byte| least.min(rank(byte))) > 0;
    let start = blocks.iter().take_while(|block| none(block)).count() * BLOCK;
    let near = &rest[start..];
    let (words, _) = near.as_chunks::<8>();
    let words = words.iter().enumerate().find_map(|(index, word)| {
        let bits = special_bits(u64::from_le_bytes(*word));
        (bits != 0).then(|| index * 8 + bits.trailing_zeros() as usize / 8)
    });
    let tail = near.len() - near.len() % 8;
    let last = || near[tail..].iter().position(|&byte| rank(byte) == 0);
    start + words.or_else(|| Some(tail + last()?)).unwrap_or(near.len())
}

const ONES: u64 = 0x0101_0101_0101_0101;

/// Bytes of a word that are below the bound, each by its high bit. Those after the first may be wrong.
fn below(word: u64, bound: u8) -> u64 {
    const HIGHS: u64 = ONES << 7;
    word.wrapping_sub(ONES * u64::from(bound)) & !word & HIGHS
}

/// The lowest bit that is set is the high bit of the first such byte of a word.
fn special_bits(word: u64) -> u64 {
    stop_bits(word) | below(word, b' ')
}

/// Likewise for a quote or a backslash.
fn stop_bits(word: u64) -> u64 {
    let is = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    is(b'"') | is(b'\\')
}

/// Bytes looked at word by word before a vector search begins, which is slow to start: most strings
/// that are not a model's text are shorter.
const NEAR_WORDS: usize = 4;

/// Where a string ends or has an escape.
pub(crate) fn string_stop(rest: &[u8]) -> Option<usize> {
    let (words, _) = rest.as_chunks::<8>();
    let words = &words[..words.len().min(NEAR_WORDS)];
    for (index, word) in words.iter().enumerate() {
        let bits = stop_bits(u64::from_le_bytes(*word));
        if bits != 0 {
            return Some(index * 8 + bits.trailing_zeros() as usize / 8);
        }
    }
    let far = &rest[words.len() * 8..];
    Some(words.len() * 8 + memchr::memchr2(b'"', b'\\', far)?)
}

/// Which of the open containers are objects, one bit each.
#[derive(Debug, Default)]
struct Stack {
    words: [u64; STACK_WORDS],
    len: usize,
}

impl Stack {
    /// The caller has checked the depth.
    fn push(&mut self, object: bool) {
        let (word, bit) = (self.len / 64, self.len % 64);
        self.words[word] = self.words[word] & !(1 << bit) | u64::from(object) << bit;
        self.len += 1;
    }

    fn top_is_object(&self) -> bool {
        let top = self.len.saturating_sub(1);
        self.words[top / 64] >> (top % 64) & 1 == 1
    }
}

/// The text of a string's inside (between its quotes). Lenient: what cannot be decoded becomes
/// U+FFFD, and an escape cut short at the end is dropped, since the caller may have kept only the
/// beginning.
pub(crate) fn unescape(inside: &[u8]) -> String {
    let mut text = Vec::with_capacity(inside.len());
    let mut rest = inside;
    while let Some(stop) = memchr::memchr(b'\\', rest) {
        text.extend_from_slice(&rest[..stop]);
        rest = &rest[stop + 1..];
        let Some(&letter) = rest.first() else { break };
        rest = &rest[1..];
        match letter {
            b'b' => text.push(8),
            b'f' => text.push(12),
            b'n' => text.push(b'\n'),
            b'r' => text.push(b'\r'),
            b't' => text.push(b'\t'),
            b'u' => {
                if rest.len() < 4 {
                    rest = &[];
                    break;
                }
                let (decoded, used) = unescape_unicode(rest);
                text.extend_from_slice(decoded.encode_utf8(&mut [0; 4]).as_bytes());
                rest = &rest[used..];
            }
            other => text.push(other),
        }
    }
    text.extend_from_slice(rest);
    // Only the end can be cut inside a character: drop it rather than show a replacement.
    match String::from_utf8(text) {
        Ok(text) => text,
        Err(error) if error.utf8_error().error_len().is_none() => {
            let end = error.utf8_error().valid_up_to();
            String::from_utf8_lossy(&error.as_bytes()[..end]).into_owned()
        }
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    }
}

/// The character of the hexadecimal digits after `\u` (at least four bytes), and how many bytes it
/// took: a pair of surrogates is one character.
fn unescape_unicode(rest: &[u8]) -> (char, usize) {
    let Some(unit) = hex4(rest) else { return (char::REPLACEMENT_CHARACTER, 4) };
    if (0xD800..0xDC00).contains(&unit)
        && rest[4..].starts_with(b"\\u")
        && let Some(low @ 0xDC00..0xE000) = hex4(&rest[6..])
    {
        let joined = 0x1_0000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
        return (char::from_u32(joined).unwrap_or(char::REPLACEMENT_CHARACTER), 10);
    }
    (char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER), 4)
}

fn hex4(digits: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(digits.get(..4)?).ok()?;
    u32::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests;
