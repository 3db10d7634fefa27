//! Rows on their way from lines of text into a trace.

use std::time::Duration;

use super::{Problems, Row, Segment, Trace, TraceError, shown};

/// Seconds since 1970 or since the start that are taken for a time: up to the year 2255.
const SECONDS_MAX: f64 = 9e9;

/// What one line says.
#[derive(Debug)]
pub(super) struct Line {
    /// From 1.
    pub(super) number: u32,
    /// Nanoseconds since any fixed time; zero where the trace has no times.
    pub(super) at: i64,
    pub(super) prompt_tokens: u32,
    pub(super) output_tokens: u32,
}

/// A trace that grows line by line.
#[derive(Debug)]
pub(super) struct Builder {
    trace: Trace,
    problems: Problems,
    path: String,
    /// Time of the first row, and time and number of the last.
    first: Option<i64>,
    last: (i64, u32),
}

impl Builder {
    pub(super) fn new(path: &str, timed: bool, problems: Problems) -> Builder {
        let trace = Trace { name: path.to_owned(), timed, ..Trace::default() };
        Builder { trace, problems, path: path.to_owned(), first: None, last: (i64::MIN, 0) }
    }

    pub(super) fn problem(&mut self, line: u32, what: impl Into<String>) {
        self.problems.add(line, what);
    }

    /// The line says that its request failed.
    pub(super) fn failed(&mut self) {
        self.trace.failed = self.trace.failed.saturating_add(1);
    }

    /// Adds a request whose prompt begins with the blocks of these ids.
    pub(super) fn row(&mut self, line: &Line, ids: &[u64], block_tokens: u32) {
        let (before, before_line) = self.last;
        if line.at < before {
            let earlier = Duration::from_nanos(before.abs_diff(line.at)).as_secs_f64();
            self.problems.add_with(line.number, || {
                format!(
                    "this is {earlier} s before line {before_line}; rows are expected in the order of their times: \
                     sort the file"
                )
            });
        }
        self.last = (line.at, line.number);
        let first = *self.first.get_or_insert(line.at);
        let start = self.segments();
        let mut left = line.prompt_tokens;
        for id in ids {
            let tokens = left.min(block_tokens);
            left -= tokens;
            self.trace.segments.push(Segment { id: *id, tokens });
        }
        let segments = start..self.segments();
        self.trace.rows.push(Row {
            // Out of order is a problem, noted above.
            at: Duration::from_nanos(u64::try_from(line.at - first).unwrap_or(0)),
            prompt_tokens: line.prompt_tokens,
            output_tokens: line.output_tokens,
            segments,
            line: line.number,
        });
    }

    fn segments(&self) -> u32 {
        u32::try_from(self.trace.segments.len()).unwrap_or(u32::MAX)
    }

    /// The trace, if nothing was wrong and there is something in it.
    pub(super) fn finish(mut self) -> Result<Trace, TraceError> {
        if self.problems.is_empty() && self.trace.rows.is_empty() {
            self.problems.add(1, "there are no requests; at least one row is expected");
        }
        if self.problems.is_empty() { Ok(self.trace) } else { Err(self.problems.error(&self.path)) }
    }
}

/// Lines with their numbers, from 1, without blank ones and without space around them.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = (u32, &str)> {
    let numbered = text.lines().enumerate();
    let numbered = numbered.map(|(i, line)| (u32::try_from(i + 1).unwrap_or(u32::MAX), line));
    numbered.map(|(number, line)| (number, line.trim())).filter(|(_, line)| !line.is_empty())
}

/// A number of tokens; `name` is whose.
pub(super) fn tokens(name: &str, text: &str) -> Result<u32, String> {
    // Some tools write whole numbers as 512.0.
    let whole = match text.split_once('.') {
        Some((whole, rest)) if !rest.is_empty() && rest.bytes().all(|b| b == b'0') => whole,
        _ => text,
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if digits(whole) {
        return whole
            .parse()
            .map_err(|_| format!("{name} is {}; at most {} is possible", shown(text), u32::MAX));
    }
    let negative = whole.strip_prefix('-').is_some_and(digits);
    let expected = if negative { "it cannot be negative" } else { "a whole number is expected" };
    Err(format!("{name} is {}; {expected}: correct the row or leave it out", shown(text)))
}

/// Two numbers of tokens, both at least 1, or what is wrong with them.
pub(super) fn both(
    (prompt_name, prompt): (&str, Result<u32, String>),
    (output_name, output): (&str, Result<u32, String>),
) -> Result<(u32, u32), String> {
    let some = |name: &str, tokens: Result<u32, String>| match tokens {
        Ok(0) => Err(format!("{name} is 0; at least 1 is expected: leave the row out")),
        other => other,
    };
    match (some(prompt_name, prompt), some(output_name, output)) {
        (Ok(prompt), Ok(output)) => Ok((prompt, output)),
        (Err(one), Err(other)) => Err(format!("{one}; {other}")),
        (Err(one), Ok(_)) | (Ok(_), Err(one)) => Err(one),
    }
}

/// Nanoseconds of a time in units of so many seconds.
pub(super) fn nanos(value: f64, unit_seconds: f64) -> Option<i64> {
    let seconds = value * unit_seconds;
    #[expect(clippy::cast_possible_truncation, reason = "checked before")]
    (0.0..=SECONDS_MAX).contains(&seconds).then(|| (seconds * 1e9).round() as i64)
}
