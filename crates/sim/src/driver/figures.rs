//! What was measured, with the field's definitions.
//!
//! | figure | of one request |
//! |---|---|
//! | TTFT | first token − due |
//! | E2E | last token − due |
//! | TPOT | (E2E − TTFT) / (output tokens − 1), of answers of more than one token |
//! | NTPOT | E2E / output tokens |
//! | ITL | every gap between two chunks of an answer |
//!
//! Failed requests are in none of them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use openai::Usage;
use tokio::time::Instant;

use crate::distribution::{Distribution, precise};

/// Why a request has no whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// No connection.
    Connect,
    /// An answer of another status than 200.
    Status(u16),
    /// The answer ended before its end.
    Cut,
    /// An error inside the answer.
    ErrorEvent,
    /// No whole answer in time.
    Timeout,
    /// The connection failed before an answer, or what came was no HTTP.
    Http,
}

/// As a name in figures.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Connect => f.write_str("connect"),
            Failure::Status(code) => write!(f, "status_{code}"),
            Failure::Cut => f.write_str("cut_stream"),
            Failure::ErrorEvent => f.write_str("error_event"),
            Failure::Timeout => f.write_str("timeout"),
            Failure::Http => f.write_str("http"),
        }
    }
}

/// Failures of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Errors {
    /// How many.
    pub count: u64,
    /// What was said of the first.
    pub first: String,
}

/// What makes a request good: every limit that is given.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Slo {
    /// Longest time to first token.
    pub ttft: Option<Duration>,
    /// Longest time per output token. Answers of one token meet it.
    pub tpot: Option<Duration>,
    /// Longest time to the last token.
    pub e2e: Option<Duration>,
}

impl Slo {
    /// Whether there is any limit.
    pub fn is_given(&self) -> bool {
        *self != Slo::default()
    }

    fn is_met(&self, ttft: Option<f64>, tpot: Option<f64>, e2e: f64) -> bool {
        let within = |limit: Option<Duration>, time: f64| {
            limit.is_none_or(|limit| time <= limit.as_secs_f64())
        };
        // What was not measured, without a stream, cannot be said to be met.
        ttft.map_or(self.ttft.is_none(), |time| within(self.ttft, time))
            && tpot.is_none_or(|time| within(self.tpot, time))
            && within(self.e2e, e2e)
    }
}

/// One request as it went.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) counted: bool,
    pub(super) prompt_tokens: u32,
    pub(super) due: Instant,
    pub(super) sent: Instant,
    pub(super) first: Option<Instant>,
    pub(super) last: Option<Instant>,
    pub(super) ended: Instant,
    /// Microseconds.
    pub(super) gaps: Vec<u32>,
    pub(super) chunks: u64,
    pub(super) usage: Usage,
    pub(super) failure: Option<(Failure, String)>,
}

impl Sample {
    /// As the server counts; where it does not, chunks.
    pub(super) fn output_tokens(&self) -> u64 {
        self.usage.completion_tokens.unwrap_or(self.chunks)
    }

    fn since_due(&self, at: Option<Instant>) -> Option<f64> {
        Some(at?.saturating_duration_since(self.due).as_secs_f64())
    }
}

/// What a run measured. Times are in seconds, and those of a request count from when it was due.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Time to first token; of streams only.
    pub ttft: Distribution,
    /// Time per output token, the first excluded; of streams of more than one token.
    pub tpot: Distribution,
    /// Inter-token latency: all gaps between chunks.
    pub itl: Distribution,
    /// Normalized time per output token.
    pub ntpot: Distribution,
    /// End-to-end latency.
    pub e2e: Distribution,
    /// How late requests were sent, failed ones included: the load generator's own delay.
    pub lateness: Distribution,
    /// Output tokens a second of each request.
    pub output_rate: Distribution,
    /// Prompt tokens of each request.
    pub prompt_lengths: Distribution,
    /// Output tokens of each request.
    pub output_lengths: Distribution,
    /// Requests sent.
    pub started: u64,
    /// Whole answers.
    pub completed: u64,
    /// Requests without one.
    pub failed: u64,
    /// Requests that were due when too many were under way.
    pub not_sent: u64,
    /// Prompt tokens of whole answers.
    pub prompt_tokens: u64,
    /// Prompt tokens of them that the server had in its cache, where it says so.
    pub cached_tokens: u64,
    /// Output tokens of whole answers.
    pub output_tokens: u64,
    /// Whole answers whose server told no usage: their chunks are counted instead, and the drawn prompt.
    pub without_usage: u64,
    /// Failures by kind.
    pub errors: BTreeMap<Failure, Errors>,
    /// What makes a request good.
    pub slo: Slo,
    /// Whole answers that met it.
    pub good: u64,
    /// From when the first request was due to when the last one ended.
    pub duration: Duration,
    /// It was stopped.
    pub interrupted: bool,
}

impl Outcome {
    pub(super) fn new(slo: Slo) -> Outcome {
        Outcome {
            ttft: Distribution::of_seconds(),
            tpot: Distribution::of_seconds(),
            itl: Distribution::of_seconds(),
            ntpot: Distribution::of_seconds(),
            e2e: Distribution::of_seconds(),
            lateness: Distribution::of_seconds(),
            output_rate: Distribution::of_rates(),
            prompt_lengths: Distribution::of_counts(),
            output_lengths: Distribution::of_counts(),
            started: 0,
            completed: 0,
            failed: 0,
            not_sent: 0,
            prompt_tokens: 0,
            cached_tokens: 0,
            output_tokens: 0,
            without_usage: 0,
            errors: BTreeMap::new(),
            slo,
            good: 0,
            duration: Duration::ZERO,
            interrupted: false,
        }
    }

    pub(super) fn add(&mut self, sample: Sample) {
        self.lateness.record(sample.sent.saturating_duration_since(sample.due).as_secs_f64());
        match sample.failure {
            None => self.add_answer(&sample),
            Some((kind, said)) => {
                self.failed += 1;
                let errors = self.errors.entry(kind).or_default();
                if errors.count == 0 {
                    errors.first = said;
                }
                errors.count += 1;
            }
        }
    }

    fn add_answer(&mut self, sample: &Sample) {
        self.completed += 1;
        let prompt = sample.usage.prompt_tokens.unwrap_or(sample.prompt_tokens.into());
        let output = sample.output_tokens();
        self.prompt_tokens += prompt;
        self.output_tokens += output;
        self.cached_tokens += sample.usage.cached_tokens.unwrap_or(0);
        self.without_usage += u64::from(sample.usage.completion_tokens.is_none());
        self.prompt_lengths.record(precise(prompt));
        self.output_lengths.record(precise(output));
        for gap in &sample.gaps {
            self.itl.record(f64::from(*gap) / 1e6);
        }
        let ttft = sample.since_due(sample.first);
        let e2e = sample.since_due(sample.last).unwrap_or_default();
        let tpot = ttft.filter(|_| output > 1).map(|ttft| (e2e - ttft) / precise(output - 1));
        self.e2e.record(e2e);
        if let Some(time) = ttft {
            self.ttft.record(time);
        }
        if let Some(time) = tpot {
            self.tpot.record(time);
        }
        if output > 0 {
            self.ntpot.record(e2e / precise(output));
        }
        if e2e > 0.0 {
            self.output_rate.record(precise(output) / e2e);
        }
        self.good += u64::from(self.slo.is_met(ttft, tpot, e2e));
    }

    /// So many things over the run's duration.
    fn per_second(&self, count: u64) -> f64 {
        let seconds = self.duration.as_secs_f64();
        if seconds > 0.0 { precise(count) / seconds } else { 0.0 }
    }

    /// Whole answers a second.
    pub fn requests_per_s(&self) -> f64 {
        self.per_second(self.completed)
    }

    /// Output tokens a second.
    pub fn output_tokens_per_s(&self) -> f64 {
        self.per_second(self.output_tokens)
    }

    /// Prompt and output tokens a second.
    pub fn total_tokens_per_s(&self) -> f64 {
        self.per_second(self.prompt_tokens + self.output_tokens)
    }

    /// Requests a second that met the SLO, if there is one.
    pub fn goodput_per_s(&self) -> Option<f64> {
        self.slo.is_given().then(|| self.per_second(self.good))
    }

    /// The share of requests that met the SLO, failed and unsent ones not having met it, those under way at an
    /// interruption left out.
    pub fn goodput_share(&self) -> Option<f64> {
        let all = self.completed + self.failed + self.not_sent;
        (self.slo.is_given() && all > 0).then(|| precise(self.good) / precise(all))
    }

    /// The share of ended requests that failed.
    pub fn error_share(&self) -> f64 {
        let ended = self.completed + self.failed;
        if ended > 0 { precise(self.failed) / precise(ended) } else { 0.0 }
    }

    /// Requests that were under way when the run was stopped.
    pub fn unfinished(&self) -> u64 {
        self.started - self.completed - self.failed
    }
}

#[cfg(test)]
mod tests;
