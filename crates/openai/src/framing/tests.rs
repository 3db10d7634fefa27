//! Ends of events and kinds of lines.

use super::{Framer, Line, lines};

/// Where events end in `stream`, read in pieces of `step` bytes; an LF that belongs to an empty
/// line's CR is passed over, as the framer's user does.
fn ends(stream: &[u8], step: usize) -> Vec<usize> {
    let (mut framer, mut ends, mut from) = (Framer::default(), Vec::new(), 0);
    for piece in stream.chunks(step) {
        let mut at = 0;
        loop {
            let last = ends.last().copied().unwrap_or_default();
            let after_cr = last > 0 && last == from + at && stream[last - 1] == b'\r';
            at += usize::from(after_cr && piece.get(at) == Some(&b'\n'));
            let Some(length) = framer.event_end(&piece[at..]) else { break };
            at += length;
            ends.push(from + at);
        }
        from += piece.len();
    }
    ends
}

fn check(stream: &str, expected: &[usize]) {
    for step in 1..=stream.len() {
        assert_eq!(ends(stream.as_bytes(), step), expected, "{stream:?} by {step}");
    }
}

#[test]
fn an_event_ends_with_an_empty_line() {
    check("a\n\n", &[3]);
    check("a\nb\n\nc\n", &[5]);
    check("\n\na\n\n", &[1, 2, 5]);
    check("a", &[]);
}

#[test]
fn lines_end_with_lf_cr_lf_or_cr() {
    check("a\r\n\r\nb", &[4]);
    check("a\r\rb\r\r", &[3, 6]);
    check("a\n\r\nb", &[3]);
    check("a\r\nb\r\n", &[]);
    check("a\r\n\n", &[4]);
}

#[test]
fn data_and_comments_are_told_from_other_lines() {
    let event = b": hello\nevent: x\ndata: a\r\ndata:b\rdata\ndatum: c\ndata:  d";
    let read: Vec<_> = lines(event).collect();
    let data = |text: &'static str| Line::Data(text.as_bytes());
    assert_eq!(read, [Line::Comment, data("a"), data("b"), data(""), data(" d")]);
}
