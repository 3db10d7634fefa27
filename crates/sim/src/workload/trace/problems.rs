//! What is wrong with a file, line by line.

use std::fmt;

/// Problems that are told one by one; the others are counted.
pub const PROBLEMS_MAX: usize = 10;

/// Characters of a file that a problem shows.
const SHOWN_CHARS_MAX: usize = 40;

/// What is wrong with one line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceProblem {
    /// From 1.
    pub line: u32,
    /// What was found, what was expected, and what to do.
    pub what: String,
}

/// A file is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct TraceError {
    /// The file.
    pub path: String,
    /// The first problems, at most [`PROBLEMS_MAX`].
    pub problems: Vec<TraceProblem>,
    /// How many more there are.
    pub more: u32,
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            let end = if at == 0 { "" } else { "\n" };
            write!(f, "{end}{}:{}: {}", self.path, problem.line, problem.what)?;
        }
        if self.more > 0 {
            write!(f, "\n… and {} more", self.more)?;
        }
        Ok(())
    }
}

/// Problems found so far.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    found: Vec<TraceProblem>,
    more: u32,
}

impl Problems {
    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub(crate) fn add(&mut self, line: u32, what: impl Into<String>) {
        self.add_with(line, || what.into());
    }

    /// The same without putting the text together where it is only counted.
    pub(crate) fn add_with(&mut self, line: u32, what: impl FnOnce() -> String) {
        if self.found.len() < PROBLEMS_MAX {
            self.found.push(TraceProblem { line, what: what() });
        } else {
            self.more = self.more.saturating_add(1);
        }
    }

    pub(crate) fn error(self, path: &str) -> TraceError {
        TraceError { path: path.to_owned(), problems: self.found, more: self.more }
    }
}

/// A piece of a file for a problem's text: quoted, and cut if it is long.
pub(crate) fn shown(found: &str) -> String {
    match found.char_indices().nth(SHOWN_CHARS_MAX) {
        None => format!("{found:?}"),
        Some((end, _)) => format!("{:?}…", &found[..end]),
    }
}
