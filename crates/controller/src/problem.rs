//! What is wrong with a configuration, where, and what to do about it.

use std::{fmt, sync::Arc};

/// How bad a problem is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// Worth knowing; nothing to do.
    Info,
    /// The object is used, but not all of it does what it says.
    Warning,
    /// The object cannot be used.
    Error,
}

/// One finding: what was found, what was expected, what to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    pub severity: Severity,
    pub file: Arc<str>,
    /// Counted from 1; absent when the problem is with the file as a whole.
    pub line: Option<u32>,
    /// `InferencePool default/x`.
    pub object: Option<String>,
    /// `spec.targetPortNumber`.
    pub field: Option<String>,
    pub message: String,
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        f.write_str(": ")?;
        for part in [&self.object, &self.field].into_iter().flatten() {
            write!(f, "{part}: ")?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// A file and a line in it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    pub file: Arc<str>,
    pub line: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

impl Place {
    pub(crate) fn problem(&self, severity: Severity, message: String) -> Problem {
        Problem {
            severity,
            file: Arc::clone(&self.file),
            line: Some(self.line),
            object: None,
            field: None,
            message,
            hint: None,
        }
    }
}
