//! One endpoint's account: what is charged to it, what it said, what was learned of it.

use std::{collections::VecDeque, time::Duration};

use super::{
    Claim, Common, REPORT_INTERVAL, approximate,
    others::{Foreign, Others, Pace},
};
use crate::{
    Candidate, EndpointId, Load, Reading, Report, Signals, Speed,
    adapters::AdapterResidency,
    breaker::CircuitBreaker,
    mean::Mean,
    pulse::Pulse,
    slow_start::SlowStart,
    speed::{Gap, PoolSpeed, SpeedEstimate},
};

/// What a gateway had on an endpoint when it sent a scrape. Goes into [`Ledger::scraped`](super::Ledger::scraped) with the answer.
#[derive(Clone, Copy, Debug)]
pub struct ScrapeMark {
    /// Requests ever sent there, and the tokens of their prompts and expected answers.
    sent: u64,
    sent_tokens: f64,
    in_flight: u32,
    /// KV tokens that those hold, and those that they are going to.
    held_tokens: f64,
    kv_tokens: f64,
    /// Prompts of others that had been felt until then.
    felt: f64,
}

impl ScrapeMark {
    /// Of a scrape sent before any request was.
    pub const NOTHING: Self = Self {
        sent: 0,
        sent_tokens: 0.0,
        in_flight: 0,
        held_tokens: 0.0,
        kv_tokens: 0.0,
        felt: 0.0,
    };
}

/// What an endpoint's answers have taught.
#[derive(Debug, Default)]
struct Learned {
    speed: SpeedEstimate,
    /// When the latest came.
    first_token: Duration,
    prompts: Mean,
    ttft: Mean,
}

/// What a decision does not read of every endpoint is behind a pointer: of a thousand, the rest fits into a cache.
#[derive(Debug)]
pub(super) struct Account {
    id: EndpointId,
    /// How many hold its slot.
    pub(super) holders: u32,
    in_flight: u32,
    pub(super) sent: u64,
    sent_tokens: f64,
    prefill_tokens: f64,
    kv_tokens: f64,
    kv_variance: f64,
    /// What of the KV tokens is still to come.
    growth: f64,
    /// Prompts whose first token nobody will tell of: when they will be computed, and their tokens. One a request in
    /// flight, the next one first.
    unseen: VecDeque<(Duration, f64)>,
    context_tokens: f64,
    /// Tokens of a prompt that we send there.
    mean_prompt: f64,
    others: Others,
    adapters: AdapterResidency,
    signals: Box<Signals>,
    /// Of the signals, the tokens that its KV cache has.
    kv_capacity: Option<f64>,
    sent_at_scrape: u64,
    /// When it was last asked for a report.
    asked: Option<Duration>,
    learned: Box<Learned>,
    /// What was learned, beside what others have shown: those of this number.
    speed: Speed,
    compared: u64,
    pub(super) breaker: Box<CircuitBreaker>,
    pub(super) pulse: Box<Pulse>,
    /// Both say so.
    pub(super) well: bool,
    pub(super) slow_start: SlowStart,
}

impl Account {
    pub(super) fn new(id: EndpointId) -> Self {
        Self {
            id,
            holders: 1,
            in_flight: 0,
            sent: 0,
            sent_tokens: 0.0,
            prefill_tokens: 0.0,
            kv_tokens: 0.0,
            kv_variance: 0.0,
            growth: 0.0,
            unseen: VecDeque::new(),
            context_tokens: 0.0,
            mean_prompt: 0.0,
            others: Others::default(),
            adapters: AdapterResidency::default(),
            signals: Box::default(),
            kv_capacity: None,
            sent_at_scrape: 0,
            asked: None,
            learned: Box::default(),
            speed: Speed::default(),
            compared: 0,
            breaker: Box::default(),
            pulse: Box::default(),
            well: true,
            slow_start: SlowStart::default(),
        }
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    pub(super) fn sent_since_scrape(&self) -> u32 {
        let unseen = self.sent.saturating_sub(self.sent_at_scrape);
        // What was sent since and has already ended is no load any more.
        u32::try_from(unseen).unwrap_or(u32::MAX).min(self.in_flight)
    }

    pub(super) fn learned(&self) -> &SpeedEstimate {
        &self.learned.speed
    }

    /// How fast it is, [compared](Account::compare) with others.
    pub(super) fn speed(&self) -> Speed {
        self.speed
    }

    pub(super) fn compare(&mut self, others: &Common) {
        if self.compared != others.number {
            self.compared = others.number;
            self.speed = others.speeds.speed(&self.learned.speed);
        }
    }

    /// How many requests that need so many KV tokens each could begin at once, as far as it matters.
    ///
    /// What counts is what is held now, not what is going to be: as the engine itself would let them in. Answers that
    /// outgrow the cache are preempted there, which costs less than to keep room for all.
    pub(super) fn places(&self, need: f64, pinned: f64, grown: bool, others: &Foreign) -> u32 {
        const MATTER: u32 = 2;
        // A request too large for the whole cache must not wait for ever.
        let Some(capacity) = self.kv_capacity.filter(|_| self.in_flight > 0) else {
            return MATTER;
        };
        let held = if grown {
            self.kv_tokens + others.kv_tokens
        } else {
            self.kv_tokens - self.growth + others.held_tokens
        };
        let free = capacity - (held + pinned);
        (1..=MATTER).take_while(|count| f64::from(*count) * need <= free).last().unwrap_or(0)
    }

    /// Whether a request with so many tokens in the end would make others' first tokens late.
    pub(super) fn would_notice(&self, speed: &Speed, tokens: f64, others: &Foreign) -> bool {
        /// The share of a first token's time by which it may be later.
        const LATER_MAX: f64 = 0.05;
        /// Steps in that time: half of one under way, and one with the prompt.
        const STEPS: f64 = 1.5;
        let context = self.context_tokens + others.kv_tokens + tokens;
        let mean_prompt = self.learned.prompts.or(tokens);
        let alone = mean_prompt * speed.prefill_token_seconds + STEPS * speed.step_seconds;
        // Where nobody is, nobody is made late.
        self.in_flight > 0 && STEPS * context * speed.context_token_seconds > LATER_MAX * alone
    }

    pub(super) fn prefill_tokens_pending(&self) -> f64 {
        self.prefill_tokens
    }

    pub(super) fn predicted_ttft_seconds(&self) -> Option<f64> {
        self.learned.ttft.get()
    }

    /// It has nothing of ours, and nothing was heard of its speed for long.
    pub(super) fn is_untried(&self, now: Duration) -> bool {
        self.in_flight == 0 && self.learned.speed.is_stale(now)
    }

    /// All that does not hang on the request.
    pub(super) fn candidate(&self, speed: Speed) -> Candidate<'_> {
        Candidate {
            in_flight: self.in_flight,
            sent_since_scrape: self.sent_since_scrape(),
            speed,
            ..Candidate::new(&self.id, &self.signals)
        }
    }

    /// What is there.
    pub(super) fn load(&self, others: &Foreign) -> Load {
        Load {
            prefill_tokens: self.prefill_tokens,
            kv_tokens: self.kv_tokens,
            kv_variance: self.kv_variance,
            context_tokens: self.context_tokens,
            foreign_kv_tokens: others.kv_tokens,
            foreign_requests: others.requests,
            kv_capacity: self.kv_capacity,
        }
    }

    /// What others have there, so many seconds after the beginning of time; `pool` is what they have on endpoints that have
    /// told lately, on average.
    #[inline]
    pub(super) fn foreign(&self, now: f64, pool: &Foreign) -> Foreign {
        self.others.now(now, self.step(), || self.pace(), pool)
    }

    /// What the endpoint last told of others, and how far that still counts.
    pub(super) fn told(&self, now: f64) -> (f64, Foreign) {
        self.others.told(now)
    }

    /// Seconds of a step with all the context that is there.
    #[inline]
    fn step(&self) -> f64 {
        let context = self.context_tokens + self.others.kv_tokens();
        self.speed.step_seconds + self.speed.context_token_seconds * context
    }

    fn pace(&self) -> Pace {
        Pace {
            step: self.step(),
            prefill_token: self.speed.prefill_token_seconds,
            pending: self.prefill_tokens,
            mean_prompt: self.mean_prompt,
        }
    }

    /// Whether it has counted less than it had before: then it is another process.
    pub(super) fn has_restarted(&self, signals: &Signals) -> bool {
        let fell = |before: Option<Reading<u64>>, now: Option<Reading<u64>>| {
            before.zip(now).is_some_and(|(before, now)| now.value < before.value)
        };
        fell(self.signals.prompt_tokens, signals.prompt_tokens)
            || fell(self.signals.generation_tokens, signals.generation_tokens)
    }

    pub(super) fn id(&self) -> &EndpointId {
        &self.id
    }

    /// Takes from the signals what every decision asks for.
    fn note_signals(&mut self) {
        let Signals { kv_blocks, kv_block_tokens, .. } = &*self.signals;
        self.kv_capacity = kv_blocks.zip(*kv_block_tokens).map(|(blocks, tokens)| {
            // One block is vLLM's null block and holds nothing.
            approximate(blocks.value.saturating_sub(1)) * f64::from(tokens.value)
        });
    }

    pub(super) fn adapters(&self) -> &AdapterResidency {
        &self.adapters
    }

    /// Whether the endpoint's own list has this adapter.
    pub(super) fn lists(&self, adapter: Option<&str>) -> bool {
        let listed = self.signals.running_adapters.as_deref();
        listed.zip(adapter).is_some_and(|(listed, adapter)| listed.contains(adapter))
    }

    pub(super) fn charge(&mut self, claim: &Claim) {
        self.in_flight += 1;
        self.sent += 1;
        self.sent_tokens += claim.prompt_tokens + claim.expected;
        self.learned.prompts.add(claim.prompt_tokens);
        self.mean_prompt = self.learned.prompts.or(claim.prompt_tokens);
        self.prefill_tokens += claim.pending;
        self.kv_tokens += claim.kv_tokens;
        self.kv_variance += claim.kv_variance;
        self.growth += claim.growth();
        if let Some(due) = claim.due {
            let at = self.unseen.partition_point(|unseen| unseen.0 <= due);
            self.unseen.insert(at, (due, claim.pending));
        }
        self.context_tokens += claim.prompt_tokens + claim.expected;
        if let Some(adapter) = claim.adapter {
            self.adapters.charge(adapter);
        }
    }

    pub(super) fn tokens(&mut self, claim: &mut Claim, tokens: f64, now: Duration) {
        debug_assert!(claim.due.is_none(), "tokens of an answer that is not streamed");
        self.show_life(claim, now);
        let since = if claim.has_begun() { claim.last_token } else { claim.sent };
        self.others.token(since, !claim.has_begun(), &self.pace(), now);
        if claim.first_token.is_none() {
            claim.first_token = Some(now);
            self.learned.ttft.add(now.saturating_sub(claim.sent).as_secs_f64());
            // What was sent before it is computed before it.
            let since = claim.sent.max(self.learned.first_token);
            let took = now.saturating_sub(since);
            self.learned.speed.first_token(took, claim.prefill_tokens, since == claim.sent);
            self.compared = 0;
            self.learned.first_token = now;
            self.computed(std::mem::take(&mut claim.pending));
        } else {
            let clear = self.prefill_tokens <= 0.0 && self.learned.first_token <= claim.last_token;
            let context = self.context_tokens + self.others.kv_tokens();
            let took = now.saturating_sub(claim.last_token);
            if self.learned.speed.gap(now, Gap { took, tokens, context, clear }) {
                self.compared = 0;
            }
        }
        claim.last_token = now;
        self.growth -= tokens.min(claim.expected - claim.streamed);
        claim.streamed += tokens;
        if claim.streamed > claim.expected {
            // It has become longer than expected, and grows on.
            let more = claim.streamed - claim.expected;
            claim.expected = claim.streamed;
            claim.kv_tokens += more;
            self.kv_tokens += more;
            self.context_tokens += more;
        }
    }

    /// So many tokens of prompt are not pending any more.
    fn computed(&mut self, tokens: f64) {
        self.prefill_tokens -= tokens;
        self.others.settled(tokens);
    }

    /// When so many tokens of prompt more would be computed.
    pub(super) fn due(&self, uncached: f64, now: Duration) -> Duration {
        let pool = PoolSpeed::of(std::iter::once(&self.learned.speed));
        let token = pool.speed(&self.learned.speed).prefill_token_seconds;
        let seconds = (self.prefill_tokens + uncached) * token;
        now + Duration::try_from_secs_f64(seconds).unwrap_or_default()
    }

    /// Prompts that must be computed by now are not pending any more.
    pub(super) fn settle(&mut self, now: Duration) {
        while let Some((_, tokens)) = self.unseen.pop_front_if(|(due, _)| *due <= now) {
            self.computed(tokens);
        }
    }

    /// After it has been [settled](Account::settle).
    pub(super) fn end(&mut self, claim: &Claim, now: Duration) {
        self.in_flight = self.in_flight.saturating_sub(1);
        match claim.due {
            Some(due) if due <= now => {}
            Some(due) => {
                let mine = |unseen: &(Duration, f64)| *unseen == (due, claim.pending);
                if let Some(at) = self.unseen.iter().position(mine) {
                    self.unseen.remove(at);
                    self.computed(claim.pending);
                }
            }
            None => self.computed(claim.pending),
        }
        if claim.has_begun() {
            self.others.ended();
        }
        self.kv_tokens -= claim.kv_tokens;
        self.kv_variance -= claim.kv_variance;
        self.growth -= claim.growth();
        self.context_tokens -= claim.prompt_tokens + claim.expected;
        if self.in_flight == 0 {
            // Nothing is there, so what is left is the rounding of sums.
            (self.prefill_tokens, self.kv_tokens) = (0.0, 0.0);
            (self.kv_variance, self.context_tokens, self.growth) = (0.0, 0.0, 0.0);
        }
        if let Some(adapter) = claim.adapter {
            self.adapters.release(adapter);
        }
    }

    pub(super) fn mark(&self, pinned_tokens: f64) -> ScrapeMark {
        let kv_tokens = self.kv_tokens + pinned_tokens;
        ScrapeMark {
            sent: self.sent,
            sent_tokens: self.sent_tokens,
            in_flight: self.in_flight,
            held_tokens: kv_tokens - self.growth,
            kv_tokens,
            felt: self.others.felt(),
        }
    }

    pub(super) fn scraped(&mut self, mark: ScrapeMark, signals: Signals, output_tokens: f64) {
        if let Some(slots) = signals.adapters_max {
            self.adapters.set_slots(slots.value as usize);
        }
        self.feel_pulse(&signals);
        let before = std::mem::replace(&mut *self.signals, signals);
        self.note_signals();
        if let Some(running) = self.signals.running {
            self.see_others(mark, f64::from(running.value), output_tokens, running.heard);
            self.others.counted();
        }
        // A report may have come while the page was on its way, and then tells of a later moment.
        if !keep_later(&mut self.signals.waiting, before.waiting) {
            self.sent_at_scrape = mark.sent;
        }
        keep_later(&mut self.signals.kv_usage, before.kv_usage);
    }

    pub(super) fn asks_report(&mut self, now: Duration) -> bool {
        let asks = self.asked.is_none_or(|asked| now.saturating_sub(asked) >= REPORT_INTERVAL);
        if asks {
            self.asked = Some(now);
        }
        asks
    }

    pub(super) fn reported(
        &mut self,
        claim: &Claim,
        report: Report,
        (output_tokens, pinned): (f64, f64),
        now: Duration,
    ) {
        let mark = ScrapeMark {
            in_flight: self.in_flight.saturating_sub(1),
            held_tokens: self.kv_tokens - self.growth + pinned - (claim.kv_tokens - claim.growth()),
            kv_tokens: self.kv_tokens + pinned - claim.kv_tokens,
            ..self.mark(pinned)
        };
        let Signals { waiting, running, kv_usage, .. } = &mut *self.signals;
        tell(waiting, report.waiting, now);
        tell(running, report.running, now);
        tell(kv_usage, report.kv_usage, now);
        self.note_signals();
        if report.waiting.is_some() {
            self.sent_at_scrape = mark.sent;
        }
        // If it does not tell what runs: ours, and of others' as much as there was, or more if so many wait.
        let waiting = self.signals.waiting.map_or(0.0, |waiting| f64::from(waiting.value));
        let there = f64::from(mark.in_flight) + self.others.requests();
        let running = report.running.map_or((there - waiting).max(0.0), f64::from);
        self.see_others(mark, running, output_tokens, now);
    }

    /// What the endpoint has beyond what can be ours is others'. That is what we had when we asked, and what we have sent since:
    /// a busy endpoint takes its time to answer, and were that counted twice, it would look full.
    fn see_others(&mut self, mark: ScrapeMark, running: f64, output_tokens: f64, at: Duration) {
        let Some(waiting) = self.signals.waiting.map(|waiting| f64::from(waiting.value)) else {
            return;
        };
        let since = approximate(self.sent.saturating_sub(mark.sent));
        let own = f64::from(mark.in_flight) + since;
        let beyond = running + waiting - own;
        let requests = beyond.max(0.0);
        let others = |all: f64, own: f64| if requests > 0.0 { (all - own).max(0.0) } else { 0.0 };
        let (mut held_tokens, mut kv_tokens) = (0.0, 0.0);
        if let (Some(usage), Some(blocks), Some(tokens)) =
            (self.signals.kv_usage, self.signals.kv_blocks, self.signals.kv_block_tokens)
        {
            // A waiting request holds nothing yet and will hold what the others do on average; a running one is on average
            // half through its answer.
            let half = output_tokens / 2.0;
            let held = usage.value * approximate(blocks.value) * f64::from(tokens.value);
            let mean = if running > 0.0 { held / running } else { output_tokens };
            let total = held + waiting * (mean + half) + running * half;
            // Nobody passes those that wait, so there is no room that they do not need.
            let own_held = mark.held_tokens + since * self.mean_prompt;
            held_tokens = others(held + waiting * (mean - half).max(0.0), own_held);
            let own_tokens = mark.kv_tokens + (self.sent_tokens - mark.sent_tokens);
            kv_tokens = others(total, own_tokens);
        }
        let told = Foreign { held_tokens, kv_tokens, requests };
        self.others.tell(told, at, (mark.felt, output_tokens), &self.pace());
        self.others.beyond(beyond, own);
    }
}

/// Writes down what was heard now, if it was.
fn tell<T>(reading: &mut Option<Reading<T>>, value: Option<T>, heard: Duration) {
    if let Some(value) = value {
        *reading = Some(Reading { value, heard });
    }
}

/// Puts an earlier reading back if it was heard later than the one that has replaced it.
fn keep_later<T: Copy>(reading: &mut Option<Reading<T>>, before: Option<Reading<T>>) -> bool {
    let keep = reading.zip(before).is_some_and(|(reading, before)| before.heard > reading.heard);
    if keep {
        *reading = before;
    }
    keep
}
