//! Tells an engine that hangs from one that is busy: it has requests, and nothing it counts moves.

use std::time::Duration;

use crate::{Signals, signals::SIGNAL_AGE_MAX};

/// How long nothing may move. The longest steps of real engines, which are those that compile or load something, take a few
/// seconds.
const STILL_MAX: Duration = Duration::from_secs(5);
/// Pages that must agree on it: one may be a copy.
const PAGES_MIN: u32 = 3;
/// A prompt that is being computed may take this many times what it is expected to: vLLM counts it when it is done.
const PREFILL_PATIENCE: f64 = 2.0;
/// Longest time a prompt is waited for.
const PREFILL_MAX: Duration = Duration::from_mins(10);

/// Whether one endpoint's engine is alive.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pulse {
    /// What pages have been showing, while requests are running.
    page: Option<Page>,
    /// Nothing has moved for too long.
    still: bool,
    /// And this gateway's own requests there have got nothing in that time either.
    hung: bool,
    /// Own requests are there, and since then none of them has got anything.
    waiting_since: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Page {
    beat: Beat,
    first: Duration,
    last: Duration,
    count: u32,
    patience: Duration,
}

/// What moves with an engine's steps. The KV use does so while a long prompt is computed chunk by chunk, when no counter
/// does.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Beat {
    prompt_tokens: Option<u64>,
    generation_tokens: Option<u64>,
    kv_usage: Option<f64>,
}

impl Pulse {
    /// Whether the engine hangs. It stays so until something moves.
    pub(crate) fn is_hung(&self) -> bool {
        self.hung
    }

    /// Nothing hints at the contrary.
    pub(crate) fn is_felt(&self) -> bool {
        !self.hung && !self.still
    }

    /// Whether a request may go there now. Where all looks dead and no own request shows whether it is, one may go and see;
    /// likewise where the page that said so has become too old to be believed.
    pub(crate) fn admits(&self, in_flight: u32, now: Duration) -> bool {
        let told = |page: Page| now.saturating_sub(page.last) <= SIGNAL_AGE_MAX;
        match self.page {
            Some(page) if self.hung && told(page) => false,
            _ if self.hung || self.still => in_flight == 0,
            _ => true,
        }
    }

    /// A request goes there; `in_flight` own ones are there already.
    pub(crate) fn sent(&mut self, in_flight: u32, now: Duration) {
        if in_flight == 0 {
            self.waiting_since = Some(now);
        }
    }

    /// Own requests there have got tokens: whatever its pages say, it works.
    pub(crate) fn alive(&mut self, now: Duration) {
        *self = Self { waiting_since: Some(now), ..Self::default() };
    }

    /// A request is over; `in_flight` own ones are left.
    pub(crate) fn ended(&mut self, in_flight: u32) {
        if in_flight == 0 {
            self.waiting_since = None;
        }
    }

    /// Takes in what a page said; `prefill_seconds` is the time that computing this gateway's prompts there should take.
    pub(crate) fn scraped(&mut self, signals: &Signals, prefill_seconds: f64) {
        let beat = Beat {
            prompt_tokens: signals.prompt_tokens.map(|reading| reading.value),
            generation_tokens: signals.generation_tokens.map(|reading| reading.value),
            kv_usage: signals.kv_usage.map(|reading| reading.value),
        };
        let counts = beat.prompt_tokens.or(beat.generation_tokens).is_some();
        let running = signals.running.filter(|running| running.value > 0 && counts);
        let Some(running) = running else {
            (self.page, self.still, self.hung) = (None, false, false);
            return;
        };
        let Some(page) = self.page.as_mut().filter(|page| page.beat == beat) else {
            let prefill = (PREFILL_PATIENCE * prefill_seconds).max(0.0);
            let prefill = prefill.min(PREFILL_MAX.as_secs_f64());
            let patience = STILL_MAX + Duration::from_secs_f64(prefill);
            let (first, last) = (running.heard, running.heard);
            self.page = Some(Page { beat, first, last, count: 1, patience });
            (self.still, self.hung) = (false, false);
            return;
        };
        page.last = running.heard;
        page.count = page.count.saturating_add(1);
        let long = |since: Duration| running.heard.saturating_sub(since) >= page.patience;
        self.still = page.count >= PAGES_MIN && long(page.first);
        self.hung |= self.still && self.waiting_since.is_some_and(long);
    }
}

#[cfg(test)]
mod tests;
