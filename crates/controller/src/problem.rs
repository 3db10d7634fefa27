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

impl Problem {
    /// The problem as it is told at the object itself: field, message and hint.
    pub(crate) fn without_place(&self) -> String {
        let field = self.field.as_ref().map_or_else(String::new, |field| format!("{field}: "));
        let hint = self.hint.as_ref().map_or_else(String::new, |hint| format!("; {hint}"));
        format!("{field}{}{hint}", self.message)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An object of an API server has no place but its own name, which follows.
        let named = self.line.is_none()
            && self.object.as_ref().is_some_and(|object| object.ends_with(&*self.file));
        if !named {
            f.write_str(&self.file)?;
            if let Some(line) = self.line {
                write!(f, ":{line}")?;
            }
            f.write_str(": ")?;
        }
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

/// A file and a line in it; line 0 when there is none, as with objects of an API server, whose
/// place is their `namespace/name`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    pub file: Arc<str>,
    pub line: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

impl Place {
    pub(crate) fn problem(&self, severity: Severity, message: String) -> Problem {
        Problem {
            severity,
            file: Arc::clone(&self.file),
            line: (self.line > 0).then_some(self.line),
            object: None,
            field: None,
            message,
            hint: None,
        }
    }
}
