//! One vLLM V1 instance as a pure state machine: scheduler, KV cache, prefix cache, adapter slots. It has no clock.
//!
//! Whoever drives it calls [`Engine::begin_step`], waits that long on a clock of their own, and calls
//! [`Engine::end_step`]; [`Engine::offer`] and [`Engine::abort`] may come at any time between. Nothing a step does can
//! be seen before its end, neither a token nor a gauge, as with the real server.
//!
//! The rules, in vLLM's order: running requests first, each as many tokens as it lacks and the budget allows; if blocks
//! run out, the last running request is preempted and will be recomputed; then, if none was preempted, waiting requests
//! first come first served, each only if the free blocks cover all of its tokens, passing over those whose adapter finds
//! no slot.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::profile::{Batch, Profile};

mod adapters;
mod blocks;
mod metrics;
mod sequence;

use adapters::{AdapterMemory, LoadCost};
use blocks::BlockPool;
pub use metrics::{Histogram, Metrics};
use sequence::Sequence;

/// A request's name, chosen by whoever offers it; unique among the live ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// An adapter's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AdapterId(pub u32);

/// Why a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended its answer.
    Stop,
    /// The token limit ended it.
    Length,
}

/// What an instance is asked to do.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its name.
    pub id: RequestId,
    /// The adapter it needs; none means the base model.
    pub adapter: Option<AdapterId>,
    /// `cache_salt`: requests of different salts share no cache.
    pub salt: u64,
    /// Length of the prompt.
    pub prompt_tokens: u32,
    /// Length of the answer it is going to get, at least 1.
    pub output_tokens: u32,
    /// The limit it came with, for the metrics.
    pub max_tokens: Option<u32>,
    /// How it is going to end.
    pub finish: Finish,
    /// What is in the leading full blocks of prompt and answer, one value a block, equal for equal tokens. Blocks beyond
    /// the last value are shared with nobody.
    pub content: Vec<u64>,
}

/// Why a request is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// It could never run: prompt and answer do not fit.
    #[error("the request needs more tokens than the context or the KV cache holds")]
    TooLong,
    /// The queue is at its maximum.
    #[error("the queue is full")]
    QueueFull,
}

/// How an instance is set up.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Cost and limits.
    pub profile: Profile,
    /// `--max-loras`: adapters in one batch.
    pub max_loras: u32,
    /// `--max-cpu-loras`: adapters that need no disk.
    pub max_cpu_loras: u32,
    /// Time to copy an adapter into a slot.
    pub lora_swap: Duration,
    /// Time to read an adapter from disk, on top of that.
    pub lora_disk: Duration,
    /// How much longer a step takes when all its sequences use adapters.
    pub lora_step_share: f64,
    /// Requests that may wait. vLLM has no bound; a model of it that others test with needs one.
    pub waiting_max: usize,
    /// `--enable-prefix-caching`.
    pub prefix_caching: bool,
    /// Every step takes this many times less.
    pub speedup: f64,
}

impl Default for EngineConfig {
    fn default() -> EngineConfig {
        EngineConfig {
            profile: Profile::default(),
            max_loras: 4,
            max_cpu_loras: 12,
            lora_swap: Duration::from_millis(30),
            lora_disk: Duration::from_millis(500),
            lora_step_share: 0.035,
            waiting_max: 65_536,
            prefix_caching: true,
            speedup: 1.0,
        }
    }
}

/// A request's next token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Whose.
    pub id: RequestId,
    /// It is the last.
    pub last: bool,
}

/// What became true at the end of a step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effects {
    /// Requests that each got their next token.
    pub tokens: Vec<Token>,
    /// Requests that lost their blocks and wait again.
    pub preempted: Vec<RequestId>,
}

/// One vLLM instance.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    pool: BlockPool,
    adapters: AdapterMemory,
    running: Vec<Sequence>,
    waiting: VecDeque<Sequence>,
    /// What there is in `waiting`: requests passed over for want of an adapter slot, and requests an adapter. Kept along,
    /// because a queue may be long and a step must not take time in proportion.
    deferred: u32,
    waiting_adapters: BTreeMap<AdapterId, u32>,
    /// A step has begun and not ended.
    stepping: bool,
    /// When it began.
    step_began: Duration,
    /// Tokens the step that is under way may still take, and adapters it uses.
    budget: u32,
    batch_adapters: Vec<AdapterId>,
    effects: Effects,
    /// Counters of lookups, published with the step.
    lookups: (u64, u64),
    metrics: Metrics,
}

impl Engine {
    /// An empty instance.
    pub fn new(config: EngineConfig) -> Engine {
        let cost = LoadCost { swap: config.lora_swap, disk: config.lora_disk };
        Engine {
            pool: BlockPool::new(config.profile.usable_blocks()),
            adapters: AdapterMemory::new(config.max_loras, config.max_cpu_loras, cost),
            running: Vec::new(),
            waiting: VecDeque::new(),
            deferred: 0,
            waiting_adapters: BTreeMap::new(),
            stepping: false,
            step_began: Duration::ZERO,
            budget: 0,
            batch_adapters: Vec::new(),
            effects: Effects::default(),
            lookups: (0, 0),
            metrics: Metrics::new(),
            config,
        }
    }

    /// How it is set up.
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// The state published at the end of the last step.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Requests that are in the instance, seen from inside: running and waiting at this moment.
    pub fn live(&self) -> usize {
        self.running.len() + self.waiting.len()
    }

    /// How many tokens of a prompt with this content are cached now. `content` is used up.
    pub fn cached(
        &self,
        adapter: Option<AdapterId>,
        salt: u64,
        prompt_tokens: u32,
        content: &mut [u64],
    ) -> u32 {
        if !self.config.prefix_caching {
            return 0;
        }
        sequence::chain(adapter, salt, content);
        let block_tokens = self.config.profile.block_tokens;
        let findable = (prompt_tokens.saturating_sub(1) / block_tokens) as usize;
        self.pool.hits(&content[..findable.min(content.len())]).0 * block_tokens
    }

    /// Whether a request of these lengths could ever run.
    pub fn takes(&self, prompt_tokens: u32, output_tokens: u32) -> bool {
        let tokens = prompt_tokens.saturating_add(output_tokens);
        let profile = &self.config.profile;
        let fits = tokens <= profile.max_model_len
            && tokens.div_ceil(profile.block_tokens) <= profile.usable_blocks();
        fits && prompt_tokens > 0 && output_tokens > 0
    }

    /// Takes a request into the queue.
    pub fn offer(&mut self, request: Request, now: Duration) -> Result<(), Rejected> {
        if !self.takes(request.prompt_tokens, request.output_tokens) {
            return Err(Rejected::TooLong);
        }
        if self.waiting.len() >= self.config.waiting_max {
            self.metrics.rejected_queue_full += 1;
            return Err(Rejected::QueueFull);
        }
        let sequence = Sequence::new(request, now, self.config.prefix_caching);
        self.count_waiting(sequence.adapter);
        self.waiting.push_back(sequence);
        Ok(())
    }

    /// Drops a request; unknown ones are ignored. In the middle of a step its blocks stay until the step ends.
    pub fn abort(&mut self, id: RequestId) {
        if let Some(at) = self.waiting.iter().position(|s| s.id == id) {
            self.unqueue(at);
        } else if let Some(at) = self.running.iter().position(|s| s.id == id) {
            if self.stepping {
                self.running[at].aborted = true;
            } else {
                let mut sequence = self.running.remove(at);
                self.pool.release(&mut sequence.blocks);
            }
        }
        if !self.stepping {
            self.publish();
        }
    }

    /// Forgets an adapter that was unloaded, wherever it was kept.
    pub fn forget_adapter(&mut self, adapter: AdapterId) {
        self.adapters.forget(adapter);
    }

    /// Schedules the next step and says how long it takes; `None` when there is nothing to do.
    pub fn begin_step(&mut self, now: Duration) -> Option<Duration> {
        if self.stepping || self.live() == 0 {
            return None;
        }
        self.budget = self.config.profile.max_num_batched_tokens;
        self.batch_adapters.clear();
        self.effects.tokens.clear();
        self.effects.preempted.clear();
        self.schedule_running();
        if self.effects.preempted.is_empty() {
            self.schedule_waiting(now);
        }
        self.stepping = true;
        self.step_began = now;
        Some(self.step_time())
    }

    /// Every running request, in order, while budget and blocks last.
    fn schedule_running(&mut self) {
        let mut at = 0;
        while at < self.running.len() && self.budget > 0 {
            let wanted = self.running[at].missing().min(self.budget);
            if !self.make_room(at, wanted) {
                break;
            }
            self.take(at, wanted);
            at += 1;
        }
    }

    /// Gets the blocks request `at` needs for `tokens` more, preempting from the end; false if it went itself.
    fn make_room(&mut self, at: usize, tokens: u32) -> bool {
        loop {
            let sequence = &mut self.running[at];
            let needed = sequence.blocks_missing(tokens, self.config.profile.block_tokens);
            if self.pool.hold_new(needed, &mut sequence.blocks) {
                return true;
            }
            let Some(mut last) = self.running.pop() else { return false };
            self.pool.release(&mut last.blocks);
            last.preempt();
            self.effects.preempted.push(last.id);
            self.count_waiting(last.adapter);
            self.waiting.push_front(last);
            if self.running.len() <= at {
                return false;
            }
        }
    }

    /// Waiting requests, first come first served, but for those whose adapter finds no slot.
    fn schedule_waiting(&mut self, now: Duration) {
        let mut at = 0;
        while at < self.waiting.len() && self.budget > 0 {
            if self.running.len() >= self.config.profile.max_num_seqs as usize {
                break;
            }
            let deferred = self.waiting[at].adapter.is_some_and(|adapter| {
                self.batch_adapters.len() >= self.adapters.slots_max()
                    && !self.batch_adapters.contains(&adapter)
            });
            let before = std::mem::replace(&mut self.waiting[at].deferred, deferred);
            self.deferred = self.deferred + u32::from(deferred) - u32::from(before);
            if deferred {
                at += 1;
                continue;
            }
            if !self.admit(at, now) {
                break;
            }
        }
    }

    /// Moves the waiting request `at` into the batch if the free blocks cover all of its tokens.
    fn admit(&mut self, at: usize, now: Duration) -> bool {
        let block_tokens = self.config.profile.block_tokens;
        let sequence = &mut self.waiting[at];
        let total = sequence.tokens();
        // At least the last token is computed again, because its output is what is asked for.
        let findable = (total.saturating_sub(1) / block_tokens) as usize;
        let keys = &sequence.keys[..findable.min(sequence.keys.len())];
        let (hits, hits_free) = self.pool.hits(keys);
        let cover = total.div_ceil(block_tokens) - hits + hits_free;
        if cover > self.pool.free() {
            return false;
        }
        self.pool.hold_cached(&keys[..hits as usize], &mut sequence.blocks);
        sequence.start(hits, block_tokens, now);
        if sequence.preemptions == 0 {
            self.lookups.0 += u64::from(total);
            self.lookups.1 += u64::from(sequence.computed);
        }
        let chunk = sequence.missing().min(self.budget);
        let needed = sequence.blocks_missing(chunk, block_tokens);
        let held = self.pool.hold_new(needed, &mut sequence.blocks);
        debug_assert!(held, "admission has just counted the free blocks");
        if let Some(sequence) = self.unqueue(at) {
            self.running.push(sequence);
            self.take(self.running.len() - 1, chunk);
        }
        true
    }

    /// Request `at` computes `tokens` in this step. Blocks this fills can be found by those scheduled after it.
    fn take(&mut self, at: usize, tokens: u32) {
        let sequence = &mut self.running[at];
        sequence.chunk = tokens;
        self.budget -= tokens;
        let full = (sequence.computed + tokens) / self.config.profile.block_tokens;
        let full = (full as usize).min(sequence.keys.len());
        for block in sequence.published..full {
            self.pool.publish(sequence.blocks[block], sequence.keys[block]);
        }
        sequence.published = sequence.published.max(full);
        if let Some(adapter) = sequence.adapter
            && !self.batch_adapters.contains(&adapter)
        {
            self.batch_adapters.push(adapter);
        }
    }

    fn step_time(&mut self) -> Duration {
        let mut batch = Batch::default();
        let mut adapted = 0.0;
        for sequence in self.running.iter().filter(|s| s.chunk > 0) {
            let (chunk, past) = (f64::from(sequence.chunk), f64::from(sequence.computed));
            batch.tokens += chunk;
            batch.sequences += 1.0;
            if sequence.decoding() {
                batch.decode_context += past + chunk;
            } else {
                batch.prefill_pairs += chunk * (past + chunk / 2.0);
            }
            if sequence.adapter.is_some() {
                adapted += 1.0;
            }
        }
        let slower = 1.0 + self.config.lora_step_share * adapted / f64::max(batch.sequences, 1.0);
        let step = self.config.profile.cost.duration(&batch).mul_f64(slower);
        let load = self.adapters.activate(&self.batch_adapters);
        (step + load).div_f64(self.config.speedup)
    }

    /// Ends the step that was begun; what it did, and the new gauges, are seen from now on.
    pub fn end_step(&mut self, now: Duration) -> &Effects {
        if !self.stepping {
            self.effects = Effects::default();
            return &self.effects;
        }
        self.stepping = false;
        let mut step_tokens = 0;
        let (metrics, effects, pool) = (&mut self.metrics, &mut self.effects, &mut self.pool);
        self.running.retain_mut(|sequence| {
            if sequence.aborted {
                pool.release(&mut sequence.blocks);
                return false;
            }
            sequence.computed += std::mem::take(&mut sequence.chunk);
            if sequence.missing() > 0 {
                return true;
            }
            step_tokens += sequence.emit(now, metrics);
            let last = sequence.done();
            effects.tokens.push(Token { id: sequence.id, last });
            if !last {
                return true;
            }
            sequence.finish(now, metrics);
            pool.release(&mut sequence.blocks);
            false
        });
        self.metrics.steps += 1;
        self.metrics.adapter_swaps = self.adapters.swaps();
        self.metrics.iteration_tokens.observe(f64::from(step_tokens));
        self.metrics.prefix_queries += std::mem::take(&mut self.lookups.0);
        self.metrics.prefix_hits += std::mem::take(&mut self.lookups.1);
        self.publish();
        &self.effects
    }

    fn publish(&mut self) {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let metrics = &mut self.metrics;
        metrics.running = count(self.running.len());
        metrics.waiting_deferred = self.deferred;
        metrics.waiting_capacity = count(self.waiting.len()) - self.deferred;
        metrics.kv_cache_usage = self.pool.usage();
        metrics.running_adapters.clear();
        for adapter in self.running.iter().filter_map(|sequence| sequence.adapter) {
            if !metrics.running_adapters.contains(&adapter) {
                metrics.running_adapters.push(adapter);
            }
        }
        metrics.waiting_adapters.clear();
        metrics.waiting_adapters.extend(self.waiting_adapters.keys());
    }

    fn count_waiting(&mut self, adapter: Option<AdapterId>) {
        if let Some(adapter) = adapter {
            *self.waiting_adapters.entry(adapter).or_default() += 1;
        }
    }

    /// Takes a request out of the queue.
    fn unqueue(&mut self, at: usize) -> Option<Sequence> {
        let mut sequence = self.waiting.remove(at)?;
        self.deferred -= u32::from(std::mem::take(&mut sequence.deferred));
        if let Some(adapter) = sequence.adapter
            && let Some(count) = self.waiting_adapters.get_mut(&adapter)
        {
            *count -= 1;
            if *count == 0 {
                self.waiting_adapters.remove(&adapter);
            }
        }
        Some(sequence)
    }
}

#[cfg(test)]
mod tests;
