//! How fast endpoints are, learned from the answers they stream to us.
//!
//! An endpoint's own samples are noisy and it may get few of them, so its estimate is drawn towards its pool's mean: all the
//! way as long as the endpoints differ by no more than noise would make them, hardly at all where machines truly differ
//! (empirical Bayes: the share of its own is τ² / (τ² + v), τ² being the variance between endpoints and v its own
//! estimate's).

use std::time::Duration;

use crate::{Speed, mean::Mean};

/// Before anything is known of any endpoint: a 7B model on a mid-range GPU.
const PREFILL_TOKEN_SECONDS: f64 = 1.5e-4;
const STEP_SECONDS: f64 = 0.03;
const CONTEXT_TOKEN_SECONDS: f64 = 1e-6;
/// No engine is faster, on average.
const STEP_SECONDS_MIN: f64 = 1e-6;
/// Prompts shorter than this say more about a step's floor than about the time a token takes.
const PROMPT_TOKENS_MIN: f64 = 128.0;
/// Between two gaps taken in: those of one step, and of the steps next to it, say the same.
const GAP_EVERY: Duration = Duration::from_millis(200);
/// Weight of the newest gap where it is to be told what a token of context costs: the latest two hundred, 40 s.
const LINE_NEW_WEIGHT: f64 = 0.005;
/// What was learned longer ago than this counts for little once something new comes, and is worth a trial.
const FRESH: Duration = Duration::from_secs(30);
/// Spread of the context, as a share of its mean, below which it cannot be told what a token of it costs.
const SPREAD_MIN: f64 = 0.05;
/// The context's share of a step at its mean: where it cannot be told, and at most.
const CONTEXT_SHARE: f64 = 1.0 / 3.0;
const CONTEXT_SHARE_MAX: f64 = 0.9;
/// Samples that a running mean stands for at most.
const SAMPLES_MAX: f64 = 50.0;
/// Relative variance of a sample before there are enough to tell.
const VARIANCE: f64 = 1.0;
const ENOUGH: f64 = 4.0;

/// Running estimates of one endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SpeedEstimate {
    /// Seconds between first tokens while prompts waited, and the tokens computed in them.
    took: Mean,
    computed: Mean,
    prefill_noise: Mean,
    /// When a gap was last taken in.
    heard: Option<Duration>,
    /// The step's length and the context in flight.
    t: Mean,
    x: Mean,
    step_noise: Mean,
    /// The same over a longer time, in which the context has changed: means of x, t, x², x·t.
    line: [Mean; 4],
}

impl SpeedEstimate {
    /// A first token came so long after the endpoint could turn to its prompt, of which `own` tokens had to be computed.
    /// `interrupted`: nothing was waiting before it, so it had to wait for the step that was under way.
    pub(crate) fn first_token(&mut self, took: Duration, own: f64, interrupted: bool) {
        if own < PROMPT_TOKENS_MIN {
            return;
        }
        let took = took.as_secs_f64();
        // Half a step on average.
        let half = if interrupted { self.t.or(0.0) / 2.0 } else { 0.0 };
        let took = (took - half).max(took / 4.0);
        let expected = self.prefill().map(|token| token * own);
        if let Some(expected) = expected.filter(|expected| *expected > 0.0) {
            // A request that waited for room shows the queue, not the speed.
            if self.took.count() >= ENOUGH && took > 3.0 * expected {
                return;
            }
            self.prefill_noise.add((took / expected - 1.0).powi(2));
        }
        self.took.add(took);
        self.computed.add(own);
    }

    /// Nothing was heard yet, or for so long that it may have changed.
    pub(crate) fn is_stale(&self, now: Duration) -> bool {
        self.heard.is_none_or(|heard| now.saturating_sub(heard) > FRESH)
    }

    /// Seconds a token of prompt takes.
    fn prefill(&self) -> Option<f64> {
        Some(self.took.get()? / self.computed.get()?)
    }

    /// Learns from the time between two chunks, which is a step for each token; says if it has.
    pub(crate) fn gap(&mut self, now: Duration, gap: Gap) -> bool {
        let Gap { took, tokens, context, clear } = gap;
        let age = self.heard.map(|heard| now.saturating_sub(heard));
        if age.is_some_and(|age| age < GAP_EVERY) || (!clear && self.t.count() >= ENOUGH) {
            return false;
        }
        self.heard = Some(now);
        if age.is_some_and(|age| age > FRESH) {
            for mean in [&mut self.took, &mut self.computed, &mut self.t, &mut self.x] {
                mean.fade(ENOUGH);
            }
        }
        let step = took.as_secs_f64() / tokens.max(1.0);
        let mean = self.t.or(step);
        // A preempted request waits for its turn, which says nothing of a step.
        if self.t.count() > ENOUGH && step > 4.0 * mean {
            // All the same, what is old may just have faded.
            return true;
        }
        self.step_noise.add((step / mean.max(1e-9) - 1.0).powi(2));
        self.x.add(context);
        self.t.add(step);
        let moments = [context, step, context * context, context * step];
        for (mean, moment) in self.line.iter_mut().zip(moments) {
            mean.add_weighted(moment, LINE_NEW_WEIGHT);
        }
        true
    }
}

/// Time between two chunks of one answer, the second of which had `tokens`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gap {
    pub(crate) took: Duration,
    pub(crate) tokens: f64,
    /// Tokens of context in flight on the endpoint.
    pub(crate) context: f64,
    /// None of our prompts was being computed meanwhile.
    pub(crate) clear: bool,
}

/// What the endpoints of a pool have in common, and how far they differ.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PoolSpeed {
    prefill: Common,
    /// Of each endpoint's step over what `mean_step` says for its context.
    step: Common,
    /// The pool's line: a step's length at the mean context, and the context's share of it.
    context: f64,
    seconds: f64,
    share: f64,
    /// Some endpoint has shown its steps.
    pub(crate) known: bool,
}

impl PoolSpeed {
    /// Of these endpoints.
    pub(crate) fn of<'a>(endpoints: impl Iterator<Item = &'a SpeedEstimate> + Clone) -> Self {
        let prefill = Common::of(endpoints.clone().filter_map(|endpoint| {
            Some((endpoint.prefill()?, endpoint.took.count(), endpoint.prefill_noise))
        }));
        let (mut n, mut context, mut seconds) = (0.0, 0.0, 0.0);
        let (mut variance, mut covariance) = (0.0, 0.0);
        for endpoint in endpoints.clone() {
            let (Some(x), Some(t)) = (endpoint.x.get(), endpoint.t.get()) else { continue };
            let weight = endpoint.t.count().min(SAMPLES_MAX);
            n += weight;
            context += weight * x;
            seconds += weight * t;
            // Within each endpoint, in shares of its means: one that is faster gets more, so that contexts and steps of
            // different machines go against each other.
            let [x, t, xx, xt] = endpoint.line.map(|moment| moment.or(0.0));
            variance += weight * (xx / (x * x).max(1e-9) - 1.0);
            covariance += weight * (xt / (x * t).max(1e-9) - 1.0);
        }
        let prefill = prefill.unwrap_or(Common { mean: PREFILL_TOKEN_SECONDS, variance: 0.0 });
        let step = Common { mean: 1.0, variance: 0.0 };
        if n == 0.0 {
            let (context, share) = (1.0, CONTEXT_TOKEN_SECONDS / STEP_SECONDS);
            return Self { prefill, step, context, seconds: STEP_SECONDS, share, known: false };
        }
        let told = variance > n * SPREAD_MIN * SPREAD_MIN;
        let share = if told { covariance / variance } else { CONTEXT_SHARE };
        let mut pool = Self {
            prefill,
            step,
            context: (context / n).max(1.0),
            // All of its chunks may have come two at a time, which is no step of no length.
            seconds: (seconds / n).max(STEP_SECONDS_MIN),
            // A step cannot become shorter by context, nor consist of it alone.
            share: share.clamp(0.0, CONTEXT_SHARE_MAX),
            known: true,
        };
        let ratios = endpoints.filter_map(|endpoint| {
            let (x, t) = (endpoint.x.get()?, endpoint.t.get()?);
            Some((t / pool.mean_step(x), endpoint.t.count(), endpoint.step_noise))
        });
        pool.step = Common::of(ratios).unwrap_or(pool.step);
        pool
    }

    /// The pool's step with so much context.
    fn mean_step(&self, context: f64) -> f64 {
        self.seconds * (1.0 + self.share * (context / self.context - 1.0))
    }

    /// One endpoint's speed.
    pub(crate) fn speed(&self, endpoint: &SpeedEstimate) -> Speed {
        let prefill = endpoint.prefill();
        let step = endpoint.x.get().zip(endpoint.t.get()).map(|(x, t)| t / self.mean_step(x));
        let drawn = |common: &Common, own: Option<f64>, count: f64, noise: Mean| {
            own.map_or(common.mean, |own| common.draw(own, count, noise))
        };
        let prefill = drawn(&self.prefill, prefill, endpoint.took.count(), endpoint.prefill_noise);
        let times = drawn(&self.step, step, endpoint.t.count(), endpoint.step_noise);
        Speed {
            prefill_token_seconds: prefill,
            step_seconds: times * self.seconds * (1.0 - self.share),
            context_token_seconds: times * self.seconds * self.share / self.context,
            output_tokens: 0.0,
        }
    }
}

/// A quantity of several endpoints: its mean, and the variance between them as a share of that.
#[derive(Clone, Copy, Debug)]
struct Common {
    mean: f64,
    variance: f64,
}

impl Common {
    /// Of endpoints' values, each with how many samples it has and how far these spread.
    fn of(values: impl Iterator<Item = (f64, f64, Mean)> + Clone) -> Option<Self> {
        let (mut n, mut sum) = (0.0, 0.0);
        for (value, count, _) in values.clone() {
            let weight = count.min(SAMPLES_MAX);
            n += weight;
            sum += weight * value;
        }
        if n == 0.0 || sum <= 0.0 {
            return None;
        }
        let mean = sum / n;
        let excess = values.map(|(value, count, noise)| {
            let weight = count.min(SAMPLES_MAX);
            weight * ((value / mean - 1.0).powi(2) - own_variance(count, noise))
        });
        Some(Self { mean, variance: (excess.sum::<f64>() / n).max(0.0) })
    }

    /// An endpoint's own value, drawn towards the mean.
    fn draw(&self, own: f64, count: f64, noise: Mean) -> f64 {
        let share = self.variance / (self.variance + own_variance(count, noise)).max(1e-12);
        self.mean + share * (own - self.mean)
    }
}

/// Relative variance of a mean of so many samples.
fn own_variance(count: f64, noise: Mean) -> f64 {
    let sample = if noise.count() < ENOUGH { VARIANCE } else { noise.or(VARIANCE) };
    sample / count.clamp(1.0, SAMPLES_MAX)
}

#[cfg(test)]
mod tests;
