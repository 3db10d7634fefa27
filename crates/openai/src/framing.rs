//! Where server-sent events end, and which of their lines are data. Lines end with LF, CR LF or CR;
//! an event ends with an empty line.

use memchr::memchr2;

/// Finds the ends of events in a stream that arrives in pieces.
#[derive(Debug, Default)]
pub(crate) struct Framer {
    /// The line that is being read has bytes.
    in_line: bool,
    /// The last byte was a CR: an LF right after it belongs to the same line end.
    after_cr: bool,
}

impl Framer {
    /// The length of what is left of the current event, its empty line included, if it ends within
    /// `piece`; otherwise the piece counts as read. Of an empty line's CR LF, the LF is not
    /// included.
    pub(crate) fn event_end(&mut self, piece: &[u8]) -> Option<usize> {
        let mut at = 0;
        loop {
            if self.after_cr && piece.get(at) == Some(&b'\n') {
                at += 1;
            }
            if at == piece.len() {
                // Nothing is read after the CR itself only when the piece was empty.
                self.after_cr &= at == 0;
                return None;
            }
            self.after_cr = false;
            let Some(length) = memchr2(b'\n', b'\r', &piece[at..]) else {
                self.in_line = true;
                return None;
            };
            let empty = length == 0 && !self.in_line;
            at += length + 1;
            self.in_line = false;
            if empty {
                return Some(at);
            }
            self.after_cr = piece[at - 1] == b'\r';
            if self.after_cr && at == piece.len() {
                return None;
            }
        }
    }
}

/// A line of an event that means something to a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    Data(&'a [u8]),
    Comment,
}

/// The data lines and comments of one event.
pub(crate) fn lines(event: &[u8]) -> impl Iterator<Item = Line<'_>> {
    let mut rest = event;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let end = memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
            let line = &rest[..end];
            // An LF after a CR reads as one more empty line, which means nothing here.
            rest = rest.get(end + 1..).unwrap_or_default();
            if line.first() == Some(&b':') {
                return Some(Line::Comment);
            }
            match line.strip_prefix(b"data") {
                Some([]) => return Some(Line::Data(&[])),
                Some([b':', value @ ..]) => {
                    return Some(Line::Data(value.strip_prefix(b" ").unwrap_or(value)));
                }
                _ => {}
            }
        }
        None
    })
}

#[cfg(test)]
mod tests;
