//! Recorded requests: lengths, times, shared prefixes.

use std::ops::Range;
use std::time::Duration;

use super::{Segment, Shape};

mod builder;
mod calendar;
mod csv;
mod jsonl;
mod kind;
mod problems;

pub use problems::{PROBLEMS_MAX, TraceError, TraceProblem};

use builder::Builder;
pub(crate) use builder::lines;
pub(crate) use jsonl::{fields, length};
pub(super) use kind::{Kind, NoKind};
pub(crate) use problems::{Problems, shown};

/// One recorded request.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Since the first one; zero throughout where the trace has no times.
    pub at: Duration,
    /// Length of the prompt, at least 1.
    pub prompt_tokens: u32,
    /// Length of the answer, at least 1.
    pub output_tokens: u32,
    /// Where its segments are in [`Trace::segments`].
    pub segments: Range<u32>,
    /// Line of the file, from 1.
    pub line: u32,
}

/// Recorded requests in the order of their times.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trace {
    /// What it is called.
    pub name: String,
    /// The requests, at least one.
    pub rows: Vec<Row>,
    /// How prompts begin.
    pub segments: Vec<Segment>,
    /// It has times.
    pub timed: bool,
    /// Rows of the file that are not among [`Trace::rows`], because they say that the request failed.
    pub failed: u32,
}

impl Trace {
    /// Whether its prompts share prefixes.
    pub fn shares_prefixes(&self) -> bool {
        !self.segments.is_empty()
    }

    /// Requests a second on average, if it has times.
    pub fn rate(&self) -> Option<f64> {
        let span = self.rows.last()?.at.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "rows of a file")]
        let gaps = (self.rows.len() - 1) as f64;
        (self.timed && span > 0.0).then(|| gaps / span)
    }

    pub(super) fn shape(&self, index: usize) -> Shape {
        let row = &self.rows[index];
        let range = row.segments.start as usize..row.segments.end as usize;
        Shape {
            prompt_tokens: row.prompt_tokens,
            output_tokens: row.output_tokens,
            adapter: None,
            segments: self.segments[range].to_vec(),
        }
    }

    pub(super) fn at_most(&self, tokens: u32) -> Trace {
        let rows = self.rows.iter().filter(|row| row.tokens() <= tokens).cloned().collect();
        Trace { rows, ..self.clone() }
    }
}

impl Row {
    /// Prompt and answer together.
    pub fn tokens(&self) -> u32 {
        self.prompt_tokens.saturating_add(self.output_tokens)
    }
}

impl Trace {
    /// Reads a file of one of [`super::Workload::FILES`]. Where prompts are made of blocks, `KIND@N` says that a block
    /// has N tokens.
    pub fn parse(kind: &str, path: &str, text: &str) -> Result<Trace, TraceError> {
        let mut problems = Problems::default();
        let kind = match Kind::named(kind) {
            Ok(kind) => kind,
            Err(why) => {
                problems.add(1, format!("{kind:?} is no kind of trace: {why}"));
                return Err(problems.error(path));
            }
        };
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.trim_start().starts_with("version https://git-lfs") {
            let what = "this is a pointer of Git LFS, not the file; fetch it with `git lfs pull`";
            problems.add(1, what);
            return Err(problems.error(path));
        }
        let timed = kind != Kind::Lengths;
        let mut builder = Builder::new(path, timed, problems);
        match kind {
            Kind::Azure => csv::read(&csv::AZURE, text, &mut builder),
            Kind::BurstGpt => csv::read(&csv::BURSTGPT, text, &mut builder),
            Kind::Lengths => csv::read(&csv::LENGTHS, text, &mut builder),
            Kind::Mooncake(block) => jsonl::read(&jsonl::MOONCAKE, block, text, &mut builder),
            Kind::Bailian(block) => jsonl::read(&jsonl::BAILIAN, block, text, &mut builder),
        }
        builder.finish()
    }

    /// A trace that is part of this program. Reads it anew each time.
    pub fn built_in(name: &str) -> Option<Trace> {
        let (kind, path, text) = match name {
            "azure-conv" => (
                "azure",
                "AzureLLMInferenceTrace_conv.csv",
                include_str!("../../testdata/traces/AzureLLMInferenceTrace_conv.csv"),
            ),
            "mooncake-conversation" => (
                "mooncake",
                "conversation_trace.jsonl",
                include_str!("../../testdata/traces/conversation_trace.jsonl"),
            ),
            "sharegpt" => (
                "lengths",
                "sharegpt_val_10k_llama2.csv",
                include_str!("../../testdata/traces/sharegpt_val_10k_llama2.csv"),
            ),
            _ => return None,
        };
        let trace = Trace::parse(kind, path, text).ok()?;
        Some(Trace { name: name.to_owned(), ..trace })
    }

    /// Says which requests can never run where prompt and answer have room for `tokens_max` tokens together. `what` has
    /// that room, such as "the KV cache of a10-llama2-7b"; `path` is where the trace is from.
    pub fn check_fits(&self, path: &str, tokens_max: u32, what: &str) -> Result<(), TraceError> {
        let mut problems = Problems::default();
        for row in self.rows.iter().filter(|row| row.tokens() > tokens_max) {
            problems.add_with(row.line, || {
                format!(
                    "prompt and answer have {} tokens together, {what} holds {tokens_max}; leave such requests out \
                     with --longest {tokens_max}",
                    row.tokens()
                )
            });
        }
        if problems.is_empty() { Ok(()) } else { Err(problems.error(path)) }
    }
}

#[cfg(test)]
mod tests;
