//! What is asked of a pool: how long prompts and answers are, what prompts share, which adapters they want, and when
//! they come.
//!
//! A [`Workload`] says what requests are like, a [`Pace`] when they come; together with a seed they give the same
//! requests every time, to the simulated world and to the load generator alike.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

mod adapters;
mod draw;
mod pace;
pub(crate) mod trace;

pub use adapters::Popularity;
pub use draw::Shapes;
pub use pace::{Arrival, Arrivals, Pace, Stage};
pub use trace::{PROBLEMS_MAX, Row, Trace, TraceError, TraceProblem};

use draw::Source;
use trace::{Kind, NoKind};

/// A run of tokens at the start of a prompt. Equal ids hold equal tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// What the tokens are.
    pub id: u64,
    /// How many.
    pub tokens: u32,
}

/// What one request is like.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shape {
    /// Length of the prompt, at least 1.
    pub prompt_tokens: u32,
    /// Length of the answer, at least 1.
    pub output_tokens: u32,
    /// Which of the workload's adapters it wants; none means the base model.
    pub adapter: Option<u32>,
    /// How the prompt begins; what lies beyond is in no other prompt.
    pub segments: Vec<Segment>,
}

/// What requests are like.
#[derive(Clone, Debug)]
pub struct Workload {
    name: Cow<'static, str>,
    source: Source,
    popularity: Option<Popularity>,
}

impl Workload {
    /// The names that need no file. `lora` is `llmperf` over ten adapters.
    pub const NAMES: [&str; 6] =
        ["llmperf", "lora", "shared-prefix", "azure-conv", "sharegpt", "mooncake-conversation"];
    /// Kinds of files, written `KIND:FILE`. `mooncake@N:FILE` and `bailian@N:FILE` have blocks of N tokens.
    pub const FILES: [&str; 5] = ["azure", "burstgpt", "mooncake", "bailian", "lengths"];

    /// llmperf's defaults in its README: prompts of 550±150 tokens, answers of 150±10.
    pub fn llmperf() -> Workload {
        Workload::lengths_of(
            "llmperf",
            Source::Normal { prompt: (550.0, 150.0), output: (150.0, 10.0) },
        )
    }

    /// llmperf over this many adapters.
    pub fn lora(adapters: u32, popularity: fn(u32) -> Popularity) -> Workload {
        Workload {
            name: "lora".into(),
            popularity: Some(popularity(adapters)),
            ..Workload::llmperf()
        }
    }

    /// Prompts of `groups` × `prompts` kinds: `shared` tokens that a group has in common, then `own` tokens; answers of
    /// `output` tokens.
    pub fn shared_prefix(
        groups: u32,
        prompts: u32,
        shared: u32,
        own: u32,
        output: u32,
    ) -> Workload {
        let source = Source::SharedPrefix { groups, prompts, shared, own, output };
        Workload::lengths_of("shared-prefix", source)
    }

    /// Requests as recorded.
    pub fn trace(trace: Arc<Trace>) -> Workload {
        Workload { name: trace.name.clone().into(), source: Source::Trace(trace), popularity: None }
    }

    fn lengths_of(name: &'static str, source: Source) -> Workload {
        Workload { name: name.into(), source, popularity: None }
    }

    /// The workload of this name, or of the file named behind a colon, its text as `read` gives it.
    pub fn named(
        spec: &str,
        read: impl FnOnce(&str) -> Result<String, String>,
    ) -> Result<Workload, WorkloadError> {
        match spec.split_once(':') {
            None => Workload::built_in(spec).ok_or_else(|| WorkloadError::Unknown(spec.to_owned())),
            Some((kind, path)) => {
                Kind::named(kind).map_err(|why| match why {
                    NoKind::Unknown => WorkloadError::Unknown(spec.to_owned()),
                    NoKind::Block => WorkloadError::Block(spec.to_owned()),
                })?;
                let text = read(path)
                    .map_err(|why| WorkloadError::Unreadable { path: path.to_owned(), why })?;
                let trace = Trace::parse(kind, path, &text)?;
                Ok(Workload { name: spec.to_owned().into(), ..Workload::trace(Arc::new(trace)) })
            }
        }
    }

    fn built_in(name: &str) -> Option<Workload> {
        Some(match name {
            "llmperf" => Workload::llmperf(),
            "lora" => Workload::lora(10, Popularity::zipf),
            "shared-prefix" => Workload::shared_prefix(150, 5, 6000, 1200, 1000),
            _ => Workload::trace(Arc::new(Trace::built_in(name)?)),
        })
    }

    /// The same requests over adapters.
    #[must_use]
    pub fn with_adapters(self, popularity: Popularity) -> Workload {
        Workload { popularity: Some(popularity), ..self }
    }

    /// The same without the requests whose prompt and answer have more tokens together.
    #[must_use]
    pub fn at_most(self, tokens: u32) -> Workload {
        let source = match self.source {
            Source::Trace(trace) => Source::Trace(Arc::new(trace.at_most(tokens))),
            other => other,
        };
        Workload { source, ..self }
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The recorded requests, if that is what it is.
    pub fn recorded(&self) -> Option<&Trace> {
        match &self.source {
            Source::Trace(trace) => Some(trace),
            _ => None,
        }
    }

    /// How many adapters it uses.
    pub fn adapters(&self) -> u32 {
        self.popularity.as_ref().map_or(0, Popularity::adapters)
    }

    /// Requests without end, equal for equal seeds.
    pub fn shapes(&self, seed: u64) -> Shapes {
        Shapes::new(self.source.clone(), self.popularity.clone(), seed)
    }

    /// Requests and when they come, equal for equal seeds. Ends only where `pace` does.
    pub fn arrivals(&self, pace: &Pace, seed: u64) -> Arrivals {
        Arrivals::new(self, pace, seed)
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Why there is no workload.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum WorkloadError {
    /// Nothing has this name.
    #[error(
        "no workload is called {0:?}; use one of {names}, or a file as KIND:FILE with KIND one of {files}",
        names = Workload::NAMES.join(", "),
        files = Workload::FILES.join(", ")
    )]
    Unknown(String),
    /// The size of a block is wrong.
    #[error("{0:?}: {why}", why = NoKind::Block)]
    Block(String),
    /// The file cannot be read.
    #[error("cannot read {path}: {why}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system said.
        why: String,
    },
    /// The file is not what it should be.
    #[error(transparent)]
    Trace(#[from] TraceError),
}

/// Seconds as a time; what is negative or no number is none.
fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or_default()
}

#[cfg(test)]
mod tests;
