//! How fast an endpoint is, learned from the answers it streams to us.

use std::time::Duration;

use crate::{Speed, mean::Mean};

/// Before anything is known of any endpoint: a 7B model on a mid-range GPU.
const PREFILL_TOKEN_SECONDS: f64 = 1.5e-4;
const STEP_SECONDS: f64 = 0.03;
const CONTEXT_TOKEN_SECONDS: f64 = 1e-6;
/// Prompts shorter than this say more about a step's floor than about the time a token takes.
const PROMPT_TOKENS_MIN: f64 = 128.0;
/// Gaps of which one is taken in: neighbouring ones say the same.
const GAPS_EACH: u32 = 8;
/// Spread of the context, as a share of its mean, below which it cannot be told what a token of it costs.
const SPREAD_MIN: f64 = 0.05;

/// Running estimates of one endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SpeedEstimate {
    prefill: Mean,
    gaps: u32,
    /// Regression of the step's length t on the context x in flight: means of x, t, x², x·t.
    x: Mean,
    t: Mean,
    xx: Mean,
    xt: Mean,
}

impl SpeedEstimate {
    /// A first token came so long after the request was sent; `own` tokens had to be computed for it, and `ahead` tokens
    /// of other requests were still to be computed when it came.
    pub(crate) fn first_token(&mut self, took: Duration, own: f64, ahead: f64) {
        // Only a request that found nobody waiting shows the speed of prefill alone.
        if own >= PROMPT_TOKENS_MIN && ahead < own / 2.0 {
            let took = took.as_secs_f64();
            // It waited for the step that was under way, half of one on average.
            let alone = (took - self.t.or(0.0) / 2.0).max(took / 4.0);
            let sample = alone / own;
            // A request that waited for room shows the queue, not the speed.
            if self.prefill.count() < 4.0 || sample < 3.0 * self.prefill.or(sample) {
                self.prefill.add(sample);
            }
        }
    }

    /// So long lay between two chunks of one answer, the second of which had `tokens`, while requests with so many tokens
    /// of context were in flight.
    pub(crate) fn gap(&mut self, gap: Duration, tokens: f64, context: f64) {
        self.gaps += 1;
        if !self.gaps.is_multiple_of(GAPS_EACH) {
            return;
        }
        let step = gap.as_secs_f64() / tokens.max(1.0);
        // A preempted request waits for its turn, which says nothing of a step.
        if self.t.count() > 4.0 && step > 4.0 * self.t.or(step) {
            return;
        }
        self.x.add(context);
        self.t.add(step);
        self.xx.add(context * context);
        self.xt.add(context * step);
    }

    /// What is known; what is not is as `like`.
    pub(crate) fn now(&self, like: &Speed) -> Speed {
        let (step, token) = self.line().unwrap_or((like.step_seconds, like.context_token_seconds));
        Speed {
            prefill_token_seconds: self.prefill.or(like.prefill_token_seconds),
            step_seconds: step,
            context_token_seconds: token,
            output_tokens: 0.0,
        }
    }

    /// A step's length without context, and what a token of context adds.
    fn line(&self) -> Option<(f64, f64)> {
        let (x, t) = (self.x.get()?, self.t.get()?);
        let variance = self.xx.or(0.0) - x * x;
        let covariance = self.xt.or(0.0) - x * t;
        let told = variance > (SPREAD_MIN * x).powi(2);
        // Not told apart, a third of the step is taken for the context's.
        let token = if told { covariance / variance } else { t / 3.0 / x.max(1.0) };
        // A step cannot become shorter by context, nor consist of it alone.
        let token = token.clamp(0.0, 0.9 * t / x.max(1.0));
        Some((t - token * x, token))
    }

    /// What to take of endpoints about which nothing is known: the mean of the others.
    pub(crate) fn mean<'a>(of: impl Iterator<Item = &'a SpeedEstimate>) -> Speed {
        let (mut prefill, mut step, mut token) =
            (Plain::default(), Plain::default(), Plain::default());
        for estimate in of {
            prefill.add(estimate.prefill.get());
            step.add(estimate.line().map(|line| line.0));
            token.add(estimate.line().map(|line| line.1));
        }
        Speed {
            prefill_token_seconds: prefill.or(PREFILL_TOKEN_SECONDS),
            step_seconds: step.or(STEP_SECONDS),
            context_token_seconds: token.or(CONTEXT_TOKEN_SECONDS),
            output_tokens: 0.0,
        }
    }
}

/// A plain mean.
#[derive(Default)]
struct Plain {
    count: f64,
    sum: f64,
}

impl Plain {
    fn add(&mut self, value: Option<f64>) {
        if let Some(value) = value {
            self.count += 1.0;
            self.sum += value;
        }
    }

    fn or(&self, default: f64) -> f64 {
        if self.count > 0.0 { self.sum / self.count } else { default }
    }
}

#[cfg(test)]
mod tests;
