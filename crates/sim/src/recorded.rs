//! A recorded run of a real vLLM server, repeated on the model of it, and how far the two are apart.
//!
//! A recording is what LLMServingSim's `bench` leaves in a folder: `requests.jsonl` with a request a line, and
//! `meta.json` with how the server was set up.
//!
//! # Times
//!
//! `arrival_time` is when the request reached the server's front end, in seconds of the calendar. `queued_ts`,
//! `first_token_ts` and `last_token_ts` are seconds of a clock of the engine's that began somewhere. The distance between
//! the two clocks is taken to be the smallest there is between a request's arrival and its queueing: that request was
//! queued at once. Times are then counted from the first arrival.
//!
//! A request's time begins with its arrival, as in vLLM's own metrics and as a client sees it, and not with `queued_ts`:
//! the engine looks at what has arrived only between two steps, so `queued_ts` hides up to a step of waiting, which the
//! model has as well. In the run that the tests repeat these are 30 ms on average and 201 at most.

use std::time::Duration;

mod compare;
mod read;
mod replay;

pub use compare::{Comparison, Figures, Latency, percentile};
pub use replay::Replayed;

use crate::EngineConfig;
use crate::workload::TraceError;

/// What `requests.jsonl` says of a request. Times count from the first arrival.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordedRequest {
    /// When it came.
    pub arrival: Duration,
    /// Length of the prompt, at least 1.
    pub prompt_tokens: u32,
    /// Length of the answer, at least 1.
    pub output_tokens: u32,
    /// When its answer came.
    pub served: Served,
    /// Line of the file, from 1.
    pub line: u32,
}

/// When an answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// End of the step that gave the first token.
    pub first_token: Duration,
    /// End of the step that gave the last token.
    pub last_token: Duration,
}

/// How the server was set up, as far as `meta.json` says: what vLLM made of its arguments, otherwise the arguments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Blocks of the KV cache, vLLM's null block included.
    pub num_gpu_blocks: Option<u32>,
    /// Tokens a block.
    pub block_size: Option<u32>,
    /// Sequences that run at once.
    pub max_num_seqs: Option<u32>,
    /// Tokens a step.
    pub max_num_batched_tokens: Option<u32>,
    /// Prompt and answer together.
    pub max_model_len: Option<u32>,
    /// Whether prompts share blocks.
    pub enable_prefix_caching: Option<bool>,
}

impl Limits {
    /// `config` with these limits where they are known.
    #[must_use]
    pub fn applied_to(&self, mut config: EngineConfig) -> EngineConfig {
        let profile = &mut config.profile;
        let limits = [
            (self.num_gpu_blocks, &mut profile.blocks),
            (self.block_size, &mut profile.block_tokens),
            (self.max_num_seqs, &mut profile.max_num_seqs),
            (self.max_num_batched_tokens, &mut profile.max_num_batched_tokens),
            (self.max_model_len, &mut profile.max_model_len),
        ];
        for (known, limit) in limits {
            *limit = known.unwrap_or(*limit);
        }
        config.prefix_caching = self.enable_prefix_caching.unwrap_or(config.prefix_caching);
        config
    }
}

/// A recorded run.
#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    /// In the order of their arrivals, at least one.
    pub requests: Vec<RecordedRequest>,
    /// How the server was set up.
    pub limits: Limits,
    /// How often requests lost their blocks, if `meta.json` says so with `num_preemptions`.
    pub preemptions: Option<u64>,
}

impl Recording {
    /// Reads `requests.jsonl` and, if there is one, `meta.json`: paths and texts.
    pub fn parse(
        requests_path: &str,
        requests_text: &str,
        meta: Option<(&str, &str)>,
    ) -> Result<Recording, TraceError> {
        let requests = read::requests(requests_path, requests_text)?;
        let (limits, preemptions) = match meta {
            None => (Limits::default(), None),
            Some((path, text)) => read::meta(path, text)?,
        };
        Ok(Recording { requests, limits, preemptions })
    }

    /// The same requests at the same times on the model. `config` is taken as it is; [`Limits::applied_to`] gives it
    /// the recorded server's limits. Equal configurations give equal results.
    pub fn replay(&self, config: EngineConfig) -> Replayed {
        replay::replay(&self.requests, config)
    }

    /// How long each request took, in the order of [`Recording::requests`].
    pub fn latencies(&self) -> Vec<Latency> {
        self.requests.iter().map(|request| Latency::of(request, request.served)).collect()
    }

    /// The recorded run beside a simulated one.
    pub fn compare(&self, replayed: &Replayed) -> Comparison {
        Comparison::of(self, replayed)
    }
}

#[cfg(test)]
mod tests;
