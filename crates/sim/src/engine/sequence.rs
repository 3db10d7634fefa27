//! One request inside an engine: how far it is, which blocks it holds, when what happened to it.

use std::time::Duration;

use super::metrics::Metrics;
use super::{AdapterId, Finish, Request, RequestId};
use crate::tokens::mix;

/// One live request.
#[derive(Debug)]
pub(super) struct Sequence {
    pub(super) id: RequestId,
    pub(super) adapter: Option<AdapterId>,
    /// Chained content of the leading blocks: equal only if the block, all before it, adapter and salt are equal.
    pub(super) keys: Vec<u64>,
    /// How many of them can be found by others.
    pub(super) published: usize,
    pub(super) blocks: Vec<u32>,
    /// Tokens whose keys and values are in the blocks.
    pub(super) computed: u32,
    /// Tokens the step under way computes.
    pub(super) chunk: u32,
    pub(super) preemptions: u32,
    pub(super) aborted: bool,
    /// Passed over in the last step, for want of an adapter slot.
    pub(super) deferred: bool,
    prompt: u32,
    output: u32,
    max_tokens: Option<u32>,
    finish: Finish,
    emitted: u32,
    /// Prompt tokens found in the cache when it first started.
    cached: u32,
    preemptions_told: u32,
    offered: Duration,
    scheduled: Option<Duration>,
    first_token: Duration,
    last_token: Duration,
}

/// Makes of the content of blocks what they are found by: equal only if all before is equal, adapter and salt too.
pub(super) fn chain(adapter: Option<AdapterId>, salt: u64, content: &mut [u64]) {
    let root = adapter.map_or(0, |adapter| u64::from(adapter.0) + 1);
    let mut state = mix(mix(0, root), salt);
    for key in content {
        state = mix(state, *key);
        *key = state;
    }
}

impl Sequence {
    pub(super) fn new(request: Request, now: Duration, prefix_caching: bool) -> Sequence {
        let mut keys = if prefix_caching { request.content } else { Vec::new() };
        chain(request.adapter, request.salt, &mut keys);
        Sequence {
            id: request.id,
            adapter: request.adapter,
            keys,
            published: 0,
            blocks: Vec::new(),
            computed: 0,
            chunk: 0,
            preemptions: 0,
            aborted: false,
            deferred: false,
            prompt: request.prompt_tokens,
            output: request.output_tokens,
            max_tokens: request.max_tokens,
            finish: request.finish,
            emitted: 0,
            cached: 0,
            preemptions_told: 0,
            offered: now,
            scheduled: None,
            first_token: now,
            last_token: now,
        }
    }

    /// Tokens there are by now, prompt and answer.
    pub(super) fn tokens(&self) -> u32 {
        self.prompt + self.emitted
    }

    /// Tokens not yet computed; the next token comes when there are none.
    pub(super) fn missing(&self) -> u32 {
        self.tokens() - self.computed
    }

    /// Everything but the newest token is computed, so the step under way is a decode.
    pub(super) fn decoding(&self) -> bool {
        self.emitted > 0 && self.computed + 1 == self.tokens()
    }

    /// Blocks to be added for `tokens` more computed ones.
    pub(super) fn blocks_missing(&self, tokens: u32, block_tokens: u32) -> u32 {
        let held = u32::try_from(self.blocks.len()).unwrap_or(u32::MAX);
        (self.computed + tokens).div_ceil(block_tokens).saturating_sub(held)
    }

    /// It leaves the queue with `hits` cached blocks in hand.
    pub(super) fn start(&mut self, hits: u32, block_tokens: u32, now: Duration) {
        self.computed = hits * block_tokens;
        self.published = hits as usize;
        if self.scheduled.is_none() {
            self.scheduled = Some(now);
            self.cached = self.computed;
        }
    }

    /// It lost its blocks; all but its answer so far is to be computed again.
    pub(super) fn preempt(&mut self) {
        self.computed = 0;
        self.chunk = 0;
        self.published = 0;
        self.preemptions += 1;
    }

    pub(super) fn done(&self) -> bool {
        self.emitted >= self.output
    }

    /// Its next token is out; how many tokens vLLM counts into the step for that.
    pub(super) fn emit(&mut self, now: Duration, metrics: &mut Metrics) -> u32 {
        self.emitted += 1;
        metrics.generation_tokens += 1;
        metrics.preemptions += u64::from(self.preemptions - self.preemptions_told);
        self.preemptions_told = self.preemptions;
        let previous = std::mem::replace(&mut self.last_token, now);
        if self.emitted > 1 {
            metrics.inter_token_latency.observe_time(now.saturating_sub(previous));
            return 1;
        }
        self.first_token = now;
        metrics.time_to_first_token.observe_time(now.saturating_sub(self.offered));
        metrics.prompt_tokens += u64::from(self.prompt);
        metrics.prompt_tokens_cached += u64::from(self.cached);
        self.prompt + 1
    }

    /// Its last token is out.
    pub(super) fn finish(&self, now: Duration, metrics: &mut Metrics) {
        match self.finish {
            Finish::Stop => metrics.finished_stop += 1,
            Finish::Length => metrics.finished_length += 1,
        }
        let scheduled = self.scheduled.unwrap_or(self.offered).max(self.offered);
        let decode = now.saturating_sub(self.first_token);
        metrics.e2e_latency.observe_time(now.saturating_sub(self.offered));
        metrics.queue_time.observe_time(scheduled.saturating_sub(self.offered));
        metrics.inference_time.observe_time(now.saturating_sub(scheduled));
        metrics.prefill_time.observe_time(self.first_token.saturating_sub(scheduled));
        metrics.decode_time.observe_time(decode);
        let per_token = decode.checked_div(self.emitted - 1).unwrap_or_default();
        metrics.time_per_output_token.observe_time(per_token);
        metrics.request_prompt_tokens.observe(f64::from(self.prompt));
        metrics.request_generation_tokens.observe(f64::from(self.emitted));
        metrics.request_params_n.observe(1.0);
        if let Some(max) = self.max_tokens {
            metrics.request_params_max_tokens.observe(f64::from(max));
        }
        metrics.request_preemptions.observe(f64::from(self.preemptions));
        metrics.request_prefill_computed.observe(f64::from(self.prompt - self.cached));
    }
}
