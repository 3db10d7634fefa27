//! One endpoint's account: what is charged to it, what it said, what was learned of it.

use std::time::Duration;

use super::{Claim, ScrapeMark, approximate};
use crate::{
    Candidate, EndpointId, Load, Reading, Signals, Speed, adapters::AdapterResidency, mean::Mean,
    signals::SIGNAL_AGE_MAX, speed::SpeedEstimate,
};

/// What others have on an endpoint: other gateways, clients that ask it directly.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Foreign {
    kv_tokens: f64,
    requests: f64,
}

impl Foreign {
    /// The mean of some; nothing of none.
    pub(super) fn mean(of: impl Iterator<Item = Foreign>) -> Foreign {
        let (mut count, mut sum) = (0.0, Foreign::default());
        for foreign in of {
            count += 1.0;
            sum.kv_tokens += foreign.kv_tokens;
            sum.requests += foreign.requests;
        }
        let count = f64::max(count, 1.0);
        Foreign { kv_tokens: sum.kv_tokens / count, requests: sum.requests / count }
    }
}

#[derive(Debug)]
pub(super) struct Account {
    id: EndpointId,
    /// How many hold its slot.
    pub(super) holders: u32,
    in_flight: u32,
    sent: u64,
    prefill_tokens: f64,
    kv_tokens: f64,
    kv_variance: f64,
    context_tokens: f64,
    foreign: Foreign,
    adapters: AdapterResidency,
    signals: Signals,
    sent_at_scrape: u64,
    speed: SpeedEstimate,
    ttft: Mean,
}

impl Account {
    pub(super) fn new(id: EndpointId) -> Self {
        Self {
            id,
            holders: 1,
            in_flight: 0,
            sent: 0,
            prefill_tokens: 0.0,
            kv_tokens: 0.0,
            kv_variance: 0.0,
            context_tokens: 0.0,
            foreign: Foreign::default(),
            adapters: AdapterResidency::default(),
            signals: Signals::default(),
            sent_at_scrape: 0,
            speed: SpeedEstimate::default(),
            ttft: Mean::default(),
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

    pub(super) fn speed(&self) -> &SpeedEstimate {
        &self.speed
    }

    pub(super) fn prefill_tokens_pending(&self) -> f64 {
        self.prefill_tokens
    }

    pub(super) fn predicted_ttft_seconds(&self) -> Option<f64> {
        self.ttft.get()
    }

    /// All that does not hang on the request.
    pub(super) fn candidate(&self, output_tokens: f64, like: &Speed) -> Candidate<'_> {
        Candidate {
            in_flight: self.in_flight,
            sent_since_scrape: self.sent_since_scrape(),
            speed: Speed { output_tokens, ..self.speed.now(like) },
            ..Candidate::new(&self.id, &self.signals)
        }
    }

    /// What is there. `others` is what others have on endpoints that have told lately, on average: taken for one that has
    /// not.
    pub(super) fn load(&self, now: Duration, others: &Foreign) -> Load {
        let Foreign { kv_tokens, requests } = self.foreign(now).unwrap_or(*others);
        Load {
            prefill_tokens: self.prefill_tokens,
            kv_tokens: self.kv_tokens,
            kv_variance: self.kv_variance,
            context_tokens: self.context_tokens,
            foreign_kv_tokens: kv_tokens,
            foreign_requests: requests,
            kv_capacity: self.kv_capacity(),
        }
    }

    /// What others have there, if that was heard lately.
    pub(super) fn foreign(&self, now: Duration) -> Option<Foreign> {
        self.signals.running?.fresh(now, SIGNAL_AGE_MAX).map(|_| self.foreign)
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

    fn kv_capacity(&self) -> Option<f64> {
        // One block is vLLM's null block and holds nothing.
        let blocks = self.signals.kv_blocks?.value.saturating_sub(1);
        Some(approximate(blocks) * f64::from(self.signals.kv_block_tokens?.value))
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
        self.prefill_tokens += claim.pending;
        self.kv_tokens += claim.kv_tokens;
        self.kv_variance += claim.kv_variance;
        self.context_tokens += claim.prompt_tokens + claim.expected;
        if let Some(adapter) = claim.adapter {
            self.adapters.charge(adapter);
        }
    }

    pub(super) fn tokens(&mut self, claim: &mut Claim, tokens: f64, now: Duration) {
        if claim.first_token.is_none() {
            claim.first_token = Some(now);
            self.ttft.add(now.saturating_sub(claim.sent).as_secs_f64());
            let ahead = self.prefill_tokens - claim.pending;
            self.speed.first_token(now.saturating_sub(claim.sent), claim.prefill_tokens, ahead);
            self.prefill_tokens -= std::mem::take(&mut claim.pending);
        } else {
            let context = self.context_tokens + self.foreign.kv_tokens;
            self.speed.gap(now.saturating_sub(claim.last_token), tokens, context);
        }
        claim.last_token = now;
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

    pub(super) fn end(&mut self, claim: &Claim) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.prefill_tokens -= claim.pending;
        self.kv_tokens -= claim.kv_tokens;
        self.kv_variance -= claim.kv_variance;
        self.context_tokens -= claim.prompt_tokens + claim.expected;
        if self.in_flight == 0 {
            // Nothing is there, so what is left is the rounding of sums.
            (self.prefill_tokens, self.kv_tokens) = (0.0, 0.0);
            (self.kv_variance, self.context_tokens) = (0.0, 0.0);
        }
        if let Some(adapter) = claim.adapter {
            self.adapters.release(adapter);
        }
    }

    pub(super) fn mark(&self) -> ScrapeMark {
        ScrapeMark { sent: self.sent, in_flight: self.in_flight, kv_tokens: self.kv_tokens }
    }

    pub(super) fn scraped(&mut self, mark: ScrapeMark, signals: Signals, output_tokens: f64) {
        self.sent_at_scrape = mark.sent;
        if let Some(slots) = signals.adapters_max {
            self.adapters.set_slots(slots.value as usize);
        }
        self.signals = signals;
        self.see_others(mark, output_tokens);
    }

    /// What the endpoint has beyond what was ours when the scrape was sent is others'.
    fn see_others(&mut self, mark: ScrapeMark, output_tokens: f64) {
        let (Some(running), Some(waiting)) = (self.signals.running, self.signals.waiting) else {
            return;
        };
        let (running, waiting) = (f64::from(running.value), f64::from(waiting.value));
        self.foreign.requests = (running + waiting - f64::from(mark.in_flight)).max(0.0);
        let (Some(usage), Some(blocks), Some(tokens)) =
            (self.signals.kv_usage, self.signals.kv_blocks, self.signals.kv_block_tokens)
        else {
            return;
        };
        let capacity = approximate(blocks.value) * f64::from(tokens.value);
        // A waiting request holds nothing yet and will hold what the others do on average; a running one is on average
        // half through its answer.
        let held = usage.value * capacity;
        let mean_prompt = if running > 0.0 { held / running } else { output_tokens };
        let total =
            held + waiting * (mean_prompt + output_tokens / 2.0) + running * output_tokens / 2.0;
        let any = self.foreign.requests > 0.0;
        self.foreign.kv_tokens = if any { (total - mark.kv_tokens).max(0.0) } else { 0.0 };
    }
}
