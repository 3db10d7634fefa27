//! One endpoint's account: what is charged to it, what it said, what was learned of it.

use std::{collections::VecDeque, time::Duration};

use super::{
    Claim, Common, REPORT_INTERVAL, ScrapeMark, approximate,
    others::{Foreign, Others, Pace, Page},
};
use crate::{
    Candidate, EndpointId, KvCapacity, Load, Reading, Report, Signals, Speed,
    adapters::AdapterResidency,
    breaker::CircuitBreaker,
    mean::Mean,
    pulse::Pulse,
    slow_start::SlowStart,
    speed::{Gap, PoolSpeed, SpeedEstimate},
};

/// What an endpoint's answers have taught.
#[derive(Debug, Default)]
struct Learned {
    speed: SpeedEstimate,
    /// When the latest came.
    first_token: Duration,
    mean_prompt: Mean,
    ttft: Mean,
}

/// What a decision reads of every endpoint; the details are behind a pointer, so that of a thousand this fits into a cache.
#[derive(Debug)]
pub(super) struct Account {
    in_flight: u32,
    prefill_tokens: f64,
    kv_tokens: f64,
    kv_variance: f64,
    /// What of the KV tokens is still to come.
    growth: f64,
    context_tokens: f64,
    others: Others,
    adapters: AdapterResidency,
    /// Of the signals, the tokens that its KV cache has.
    kv_capacity: KvCapacity,
    /// What was learned, beside what others have shown: those of this number.
    speed: Speed,
    compared: u32,
    pub(super) details: Box<Details>,
}

/// What is looked at of an endpoint that was chosen or has said something.
#[derive(Debug)]
pub(super) struct Details {
    id: EndpointId,
    /// How many hold its slot.
    pub(super) holders: u32,
    pub(super) sent: u64,
    /// Of these, the ones that another process at this address may have got.
    former: u64,
    sent_tokens: f64,
    /// Prompts whose first token nobody will tell of: when they will be computed, and their tokens. One a request in
    /// flight, the next one first.
    unseen: VecDeque<(Duration, f64)>,
    signals: Signals,
    sent_at_scrape: u64,
    /// When it was last asked for a report.
    asked: Option<Duration>,
    learned: Learned,
    pub(super) breaker: CircuitBreaker,
    pub(super) pulse: Pulse,
    pub(super) slow_start: SlowStart,
}

impl Account {
    pub(super) fn new(id: EndpointId) -> Self {
        let details = Details {
            id,
            holders: 1,
            sent: 0,
            former: 0,
            sent_tokens: 0.0,
            unseen: VecDeque::new(),
            signals: Signals::default(),
            sent_at_scrape: 0,
            asked: None,
            learned: Learned::default(),
            breaker: CircuitBreaker::default(),
            pulse: Pulse::default(),
            slow_start: SlowStart::default(),
        };
        Self {
            in_flight: 0,
            prefill_tokens: 0.0,
            kv_tokens: 0.0,
            kv_variance: 0.0,
            growth: 0.0,
            context_tokens: 0.0,
            others: Others::default(),
            adapters: AdapterResidency::default(),
            kv_capacity: KvCapacity::default(),
            speed: Speed::default(),
            compared: 0,
            details: Box::new(details),
        }
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    pub(super) fn sent_since_scrape(&self) -> u32 {
        let unseen = self.details.sent.saturating_sub(self.details.sent_at_scrape);
        // What was sent since and has already ended is no load any more.
        u32::try_from(unseen).unwrap_or(u32::MAX).min(self.in_flight)
    }

    pub(super) fn learned(&self) -> &SpeedEstimate {
        &self.details.learned.speed
    }

    /// How fast it is, [compared](Account::compare) with others.
    pub(super) fn speed(&self) -> Speed {
        self.speed
    }

    pub(super) fn compare(&mut self, others: &Common) {
        if self.compared != others.number {
            self.compared = others.number;
            self.speed = others.speeds.speed(&self.details.learned.speed);
        }
    }

    /// How many requests that need so many KV tokens each could begin at once, as far as it matters.
    ///
    /// What counts is what is held now, not what is going to be: as the engine itself would let them in. Answers that
    /// outgrow the cache are preempted there, which costs less than to keep room for all.
    pub(super) fn places(&self, need: f64, pinned: f64, grown: bool, others: &Foreign) -> u32 {
        const MATTER: u32 = 2;
        // A request too large for the whole cache must not wait for ever.
        if self.in_flight == 0 {
            return MATTER;
        }
        let held = if grown {
            self.kv_tokens + others.kv_tokens
        } else {
            self.kv_tokens - self.growth + others.held_tokens
        };
        let free = self.kv_capacity.tokens() - (held + pinned);
        (1..=MATTER).take_while(|count| f64::from(*count) * need <= free).last().unwrap_or(0)
    }

    /// Whether a request with so many tokens in the end would make others' first tokens late.
    pub(super) fn would_notice(&self, speed: &Speed, tokens: f64, others: &Foreign) -> bool {
        /// The share of a first token's time by which context may make it later. What else a request does to others, such as
        /// that they wait for a step under way, comes on top; simulated, all of it together stays below a tenth.
        const LATER_MAX: f64 = 0.02;
        /// Steps in that time: half of one under way, and one with the prompt.
        const STEPS: f64 = 1.5;
        let context = self.context_tokens + others.kv_tokens + tokens;
        let mean_prompt = self.details.learned.mean_prompt.or(tokens);
        let alone = mean_prompt * speed.prefill_token_seconds + STEPS * speed.step_seconds;
        // Where nobody is, nobody is made late.
        self.in_flight > 0 && STEPS * context * speed.context_token_seconds > LATER_MAX * alone
    }

    /// Tokens that its KV cache has.
    pub(super) fn kv_capacity(&self) -> f64 {
        self.kv_capacity.tokens()
    }

    pub(super) fn prefill_tokens_pending(&self) -> f64 {
        self.prefill_tokens
    }

    pub(super) fn predicted_ttft_seconds(&self) -> Option<f64> {
        self.details.learned.ttft.get()
    }

    /// Requests of ours that end in a second, on average, if an answer has so many tokens.
    pub(super) fn ending_rate(&self, output_tokens: f64) -> f64 {
        let answer = self.details.learned.ttft.or(0.0) + output_tokens * self.step();
        if answer > 0.0 { f64::from(self.in_flight) / answer } else { 0.0 }
    }

    /// It has nothing of ours, and nothing was heard of its speed for long.
    pub(super) fn is_untried(&self, now: Duration) -> bool {
        self.in_flight == 0 && self.details.learned.speed.is_stale(now)
    }

    /// All that does not hang on the request.
    pub(super) fn candidate(&self, speed: Speed) -> Candidate<'_> {
        Candidate {
            in_flight: self.in_flight,
            sent_since_scrape: self.sent_since_scrape(),
            speed,
            ..Candidate::new(&self.details.id, &self.details.signals)
        }
    }

    /// What is there, `others`' included. How long their answers get is as uncertain as for our own.
    pub(super) fn load(&self, others: &Foreign, output_variance: f64) -> Load {
        Load {
            prefill_tokens: self.prefill_tokens,
            kv_tokens: self.kv_tokens,
            kv_variance: self.kv_variance + others.requests * output_variance,
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
            mean_prompt: self.details.learned.mean_prompt.or(0.0),
        }
    }

    /// Whether it is another process: it says so, or has counted less than it had before.
    pub(super) fn has_restarted(&self, signals: &Signals) -> bool {
        let start = |signals: &Signals| signals.process_start.map(|start| start.value.to_bits());
        let starts = start(&self.details.signals).zip(start(signals));
        let fell = |before: Option<Reading<u64>>, now: Option<Reading<u64>>| {
            before.zip(now).is_some_and(|(before, now)| now.value < before.value)
        };
        starts.is_some_and(|(before, now)| before != now)
            || fell(self.details.signals.prompt_tokens, signals.prompt_tokens)
            || fell(self.details.signals.generation_tokens, signals.generation_tokens)
    }

    /// Nothing of what this gateway has used is there any more.
    pub(super) fn forget_adapters(&mut self) {
        self.details.former = self.details.sent;
        self.adapters.forget();
    }

    pub(super) fn id(&self) -> &EndpointId {
        &self.details.id
    }

    /// Takes from the signals what every decision asks for.
    fn note_signals(&mut self) {
        let Signals { kv_blocks, kv_block_tokens, .. } = &self.details.signals;
        let kv_capacity = kv_blocks.zip(*kv_block_tokens).map(|(blocks, tokens)| {
            // One block is vLLM's null block and holds nothing.
            KvCapacity::of(approximate(blocks.value.saturating_sub(1)) * f64::from(tokens.value))
        });
        self.kv_capacity = kv_capacity.unwrap_or_default();
    }

    pub(super) fn adapters(&self) -> &AdapterResidency {
        &self.adapters
    }

    /// Whether the endpoint's own list has this adapter.
    pub(super) fn lists(&self, adapter: Option<&str>) -> bool {
        let listed = self.details.signals.running_adapters.as_deref();
        listed.zip(adapter).is_some_and(|(listed, adapter)| listed.contains(adapter))
    }

    pub(super) fn charge(&mut self, claim: &Claim) {
        self.in_flight += 1;
        self.details.sent += 1;
        self.details.sent_tokens += claim.prompt_tokens + claim.expected;
        self.details.learned.mean_prompt.add(claim.prompt_tokens);
        self.prefill_tokens += claim.pending;
        self.kv_tokens += claim.kv_tokens;
        self.kv_variance += claim.kv_variance;
        self.growth += claim.growth();
        if let Some(due) = claim.due {
            let at = self.details.unseen.partition_point(|unseen| unseen.0 <= due);
            self.details.unseen.insert(at, (due, claim.pending));
        }
        self.context_tokens += claim.prompt_tokens + claim.expected;
        if let Some(adapter) = claim.adapter {
            self.adapters.charge(adapter);
        }
    }

    /// Says whether that changes anything but how much of an answer is still to come.
    pub(super) fn tokens(&mut self, claim: &mut Claim, tokens: f64, now: Duration) -> bool {
        debug_assert!(claim.due.is_none(), "tokens of an answer that is not streamed");
        self.show_life(claim, now);
        let first = claim.first_token.is_none();
        let since = if first { claim.sent } else { claim.last_token };
        let felt = self.others.token(since, first, &self.pace(), now);
        if first {
            claim.first_token = Some(now);
            self.details.learned.ttft.add(now.saturating_sub(claim.sent).as_secs_f64());
            // What was sent before it is computed before it.
            let since = claim.sent.max(self.details.learned.first_token);
            let took = now.saturating_sub(since);
            self.details.learned.speed.first_token(took, claim.prefill_tokens, since == claim.sent);
            self.compared = 0;
            self.details.learned.first_token = now;
            self.computed(std::mem::take(&mut claim.pending));
        } else {
            let clear =
                self.prefill_tokens <= 0.0 && self.details.learned.first_token <= claim.last_token;
            let context = self.context_tokens + self.others.kv_tokens();
            let took = now.saturating_sub(claim.last_token);
            if self.details.learned.speed.gap(now, Gap { took, tokens, context, clear }) {
                self.compared = 0;
            }
        }
        claim.last_token = now;
        self.growth -= tokens.min(claim.expected - claim.streamed);
        claim.streamed += tokens;
        let outgrown = claim.streamed > claim.expected;
        if outgrown {
            // It has become longer than expected, and grows on.
            let more = claim.streamed - claim.expected;
            claim.expected = claim.streamed;
            claim.kv_tokens += more;
            self.kv_tokens += more;
            self.context_tokens += more;
        }
        first || felt || outgrown || self.compared == 0
    }

    /// So many tokens of prompt are not pending any more.
    fn computed(&mut self, tokens: f64) {
        self.prefill_tokens -= tokens;
        self.others.settled(tokens);
    }

    /// When so many tokens of prompt more would be computed.
    pub(super) fn due(&self, uncached: f64, now: Duration) -> Duration {
        let pool = PoolSpeed::of(std::iter::once(&self.details.learned.speed));
        let token = pool.speed(&self.details.learned.speed).prefill_token_seconds;
        let seconds = (self.prefill_tokens + uncached) * token;
        now + Duration::try_from_secs_f64(seconds).unwrap_or_default()
    }

    /// When the next prompt will be computed whose first token nobody will tell of.
    pub(super) fn next_due(&self) -> Option<Duration> {
        Some(self.details.unseen.front()?.0)
    }

    /// Prompts that must be computed by now are not pending any more.
    pub(super) fn settle(&mut self, now: Duration) {
        while let Some((_, tokens)) = self.details.unseen.pop_front_if(|(due, _)| *due <= now) {
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
                if let Some(at) = self.details.unseen.iter().position(mine) {
                    self.details.unseen.remove(at);
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
            let stays = claim.numbered.number > self.details.former;
            self.adapters.release(adapter, stays);
        }
    }

    pub(super) fn mark(&self, pinned_tokens: f64) -> ScrapeMark {
        let kv_tokens = self.kv_tokens + pinned_tokens;
        ScrapeMark {
            sent: self.details.sent,
            sent_tokens: self.details.sent_tokens,
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
        let before = std::mem::replace(&mut self.details.signals, signals);
        self.note_signals();
        if let Some(running) = self.details.signals.running {
            self.see_others(mark, f64::from(running.value), output_tokens, running.heard);
            self.others.counted();
        }
        // A report may have come while the page was on its way, and then tells of a later moment.
        if !keep_later(&mut self.details.signals.waiting, before.waiting) {
            self.details.sent_at_scrape = mark.sent;
        }
        keep_later(&mut self.details.signals.kv_usage, before.kv_usage);
    }

    pub(super) fn asks_report(&mut self, now: Duration) -> bool {
        let asks =
            self.details.asked.is_none_or(|asked| now.saturating_sub(asked) >= REPORT_INTERVAL);
        if asks {
            self.details.asked = Some(now);
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
        let Signals { waiting, running, kv_usage, .. } = &mut self.details.signals;
        tell(waiting, report.waiting, now);
        tell(running, report.running, now);
        tell(kv_usage, report.kv_usage, now);
        self.note_signals();
        if report.waiting.is_some() {
            self.details.sent_at_scrape = mark.sent;
        }
        // If it does not tell what runs: ours, and of others' as much as there was, or more if so many wait.
        let waiting = self.details.signals.waiting.map_or(0.0, |waiting| f64::from(waiting.value));
        let there = f64::from(mark.in_flight) + self.others.requests();
        let running = report.running.map_or((there - waiting).max(0.0), f64::from);
        self.see_others(mark, running, output_tokens, now);
    }

    /// What the endpoint has beyond what can be ours is others'. That is what we had when we asked, and what we have sent since:
    /// a busy endpoint takes its time to answer, and were that counted twice, it would look full.
    fn see_others(&mut self, mark: ScrapeMark, running: f64, output_tokens: f64, at: Duration) {
        let Details { signals, sent, sent_tokens, learned, .. } = &*self.details;
        let Some(waiting) = signals.waiting.map(|waiting| f64::from(waiting.value)) else {
            return;
        };
        let since = approximate(sent.saturating_sub(mark.sent));
        let own = f64::from(mark.in_flight) + since;
        let beyond = running + waiting - own;
        let requests = beyond.max(0.0);
        let others = |all: f64, own: f64| if requests > 0.0 { (all - own).max(0.0) } else { 0.0 };
        let (mut held_tokens, mut kv_tokens) = (0.0, 0.0);
        if let (Some(usage), Some(blocks), Some(tokens)) =
            (signals.kv_usage, signals.kv_blocks, signals.kv_block_tokens)
        {
            // A waiting request holds nothing yet and will hold what the others do on average; a running one is on average
            // half through its answer.
            let half = output_tokens / 2.0;
            let held = usage.value * approximate(blocks.value) * f64::from(tokens.value);
            let mean = if running > 0.0 { held / running } else { output_tokens };
            let total = held + waiting * (mean + half) + running * half;
            // Nobody passes those that wait, so there is no room that they do not need.
            let own_held = mark.held_tokens + since * learned.mean_prompt.or(0.0);
            held_tokens = others(held + waiting * (mean - half).max(0.0), own_held);
            kv_tokens = others(total, mark.kv_tokens + (sent_tokens - mark.sent_tokens));
        }
        let told = Foreign { held_tokens, kv_tokens, requests };
        let page = Page { at, felt: mark.felt, output_tokens, beyond, own };
        self.others.tell(told, &page, &self.pace());
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
