//! What a decision among many endpoints asks of each of them, worked out beforehand where it does not hang on the request.

use crate::{AdapterFit, Candidate, Load, Speed};

/// An endpoint's part in what a request costs there: one line of a processor's cache, and not parts of two.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(align(64))]
pub struct Outline {
    /// Seconds that prompts take which are pending there.
    pub(crate) ahead_seconds: f64,
    /// Seconds a token of prompt takes.
    pub(crate) prefill_token_seconds: f64,
    /// Seconds of a step with all the context that is there and on its way.
    pub(crate) step_seconds: f64,
    /// KV tokens that a request may need and certainly not wait for.
    pub(crate) room: f64,
    /// The share of the KV cache that is taken, more than the whole if requests wait for it.
    pub(crate) taken: f64,
    /// The square of that, up to the whole, for each KV token: what a token makes others wait, for each second and request.
    pub(crate) crowding: f64,
    /// Requests in flight.
    pub(crate) in_flight: f64,
    /// None of them is ours.
    pub(crate) idle: bool,
}

impl Outline {
    #[inline]
    pub(crate) fn of(load: &Load, speed: &Speed, in_flight: u32) -> Self {
        /// In deviations of what is taken: farther from filling the cache, the wait that `predicted` works out is 0. That is
        /// so from 30 scales of its logistic function on, 1.702 of which are a deviation.
        const FAR: f64 = 18.0;
        let kv_tokens = load.kv_tokens + load.foreign_kv_tokens;
        let taken = load.kv_capacity.share(kv_tokens);
        let full = taken.min(1.0);
        Self {
            ahead_seconds: load.prefill_tokens * speed.prefill_token_seconds,
            prefill_token_seconds: speed.prefill_token_seconds,
            step_seconds: step_seconds(load, speed),
            room: load.kv_capacity.tokens() - kv_tokens - FAR * load.kv_variance.max(0.0).sqrt(),
            taken,
            crowding: load.kv_capacity.share(full * full),
            in_flight: f64::from(in_flight) + load.foreign_requests,
            idle: in_flight == 0,
        }
    }
}

/// Seconds of a step with all the context that is there and on its way.
#[inline]
pub(crate) fn step_seconds(load: &Load, speed: &Speed) -> f64 {
    let context = load.context_tokens + load.foreign_kv_tokens;
    speed.step_seconds + speed.context_token_seconds * context
}

/// A request's part in what it costs on one endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ask {
    /// Tokens of the prompt that have to be computed.
    pub(crate) uncached_tokens: f64,
    /// Tokens of the answer.
    pub(crate) output_tokens: f64,
    /// KV tokens that no request there holds yet.
    pub(crate) need_tokens: f64,
    pub(crate) adapter: AdapterFit,
    /// Adapters that would then be in use there, over its slots.
    pub(crate) adapter_pressure: f64,
}

impl Ask {
    #[inline]
    pub(crate) fn of(candidate: &Candidate<'_>) -> Self {
        let output_tokens = candidate.speed.output_tokens;
        Self {
            uncached_tokens: candidate.uncached_tokens,
            output_tokens,
            need_tokens: candidate.unshared_tokens + output_tokens,
            adapter: candidate.adapter,
            adapter_pressure: candidate.adapter_pressure,
        }
    }
}
