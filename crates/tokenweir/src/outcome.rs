//! How a command ended, as people and scripts are told.

use std::{fmt::Display, io::Write, process::ExitCode};

/// How a command ended.
pub(crate) type Outcome = Result<(), Failed>;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Failed {
    /// It could not be done: exit code 1.
    Run(String),
    /// It was asked wrongly: exit code 2, with every problem on a line of its own.
    Usage(Vec<String>),
}

impl Failed {
    pub(crate) fn run(error: impl Display) -> Self {
        Self::Run(error.to_string())
    }

    pub(crate) fn usage(error: impl Display) -> Self {
        Self::Usage(vec![error.to_string()])
    }
}

/// Tells the outcome and turns it into an exit code.
pub(crate) trait Report {
    fn report(self) -> ExitCode;
}

impl Report for Outcome {
    fn report(self) -> ExitCode {
        match self {
            Ok(()) => ExitCode::SUCCESS,
            Err(Failed::Run(error)) => {
                say_error(&format!("error: {error}"));
                ExitCode::from(1)
            }
            Err(Failed::Usage(problems)) => {
                for problem in &problems {
                    say_error(problem);
                }
                if problems.len() > 1 {
                    say_error(&format!("{} problems", problems.len()));
                }
                ExitCode::from(2)
            }
        }
    }
}

/// A line on stdout. A reader that has gone is no error: `tokenweir get … | head` is fine.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    drop(writeln!(out, "{line}").and_then(|()| out.flush()));
}

/// A line on stderr.
pub(crate) fn say_error(line: &str) {
    drop(writeln!(std::io::stderr().lock(), "{line}"));
}
