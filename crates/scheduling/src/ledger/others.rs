//! What others have on an endpoint: other gateways, and clients that ask it directly.
//!
//! Its pages tell, but late. What has come since, our own streams there feel: while an engine computes a prompt, none of its
//! streams gets a token. What has left since is expected to be as much as requests' lengths say.
//!
//! A stall of the machine, of the network or of the gateway itself feels the same. So no more is taken for prompts of others
//! than others can have sent, judging by how many requests the pages usually tell of: nothing where there are none.

use std::time::Duration;

use crate::{mean::Mean, signals::SIGNAL_AGE_MAX};

/// A step that takes longer than expected by this share of one has had prompts in it. Shorter ones are told by the next page.
const FELT_STEPS: f64 = 0.5;
/// The same of a step that has not ended yet: it may just be the network.
const SILENT_STEPS: f64 = 1.0;
/// A first token that takes so many times what it is expected to has waited for room, not for prompts.
const WAITED: f64 = 3.0;
/// A silence longer than this is trouble, not a prompt: the longest that real engines compute at once take less.
const SILENCE_SECONDS_MAX: f64 = 2.0;
/// Weight of the newest page in what pages usually tell: the mean follows the latest ten.
const USUAL_NEW_WEIGHT: f64 = 0.1;
/// Arrivals are believed up to so many deviations above their mean. Prompts' lengths spread as well, so it is more than the
/// three that would do for counts.
const DEVIATIONS_MAX: f64 = 4.0;
/// A page is that much older than it looks: gauges move when a step ends, and prompts make it long.
const PAGE_LAG_SECONDS: f64 = 0.1;

/// Load of others.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Foreign {
    /// KV tokens held, those of waiting prompts included.
    pub(super) held_tokens: f64,
    /// KV tokens that are or will be held.
    pub(super) kv_tokens: f64,
    pub(super) requests: f64,
}

impl Foreign {
    /// The mean of some, each with its weight; nothing of none.
    pub(super) fn mean(of: impl Iterator<Item = (f64, Foreign)>) -> Foreign {
        let (mut weights, mut sum) = (0.0, Foreign::default());
        for (weight, foreign) in of {
            weights += weight;
            sum = sum.plus(weight, &foreign);
        }
        if weights > 0.0 { Foreign::default().plus(1.0 / weights, &sum) } else { sum }
    }

    #[inline]
    fn plus(self, times: f64, more: &Foreign) -> Foreign {
        Foreign {
            held_tokens: self.held_tokens + times * more.held_tokens,
            kv_tokens: self.kv_tokens + times * more.kv_tokens,
            requests: self.requests + times * more.requests,
        }
    }
}

/// What is known of an endpoint besides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Seconds of a step, and of a token of prompt.
    pub(super) step: f64,
    pub(super) prefill_token: f64,
    /// Prompt tokens of ours that are not computed yet.
    pub(super) pending: f64,
    /// Tokens of a prompt.
    pub(super) mean_prompt: f64,
}

/// A page of metrics, beside what it told of others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page {
    /// When it was true.
    pub(super) at: Duration,
    /// Prompt tokens that had been felt when it was asked for.
    pub(super) felt: f64,
    /// Tokens of an answer.
    pub(super) output_tokens: f64,
    /// Requests that it counted, less those that can have been ours; and how many these were.
    pub(super) beyond: f64,
    pub(super) own: f64,
}

/// See above. Times are in seconds; what a decision does not read of every endpoint is behind a pointer.
#[derive(Debug, Default)]
pub(super) struct Others {
    /// What the last page told and what was felt since.
    known: Foreign,
    /// When the page was true, and the share of those requests that ends in a second.
    at: f64,
    ending: f64,
    /// Some page has told.
    any: bool,
    /// Our answers that have begun, and when a token last came.
    streams: u32,
    heard: f64,
    felt: Box<Felt>,
}

#[derive(Debug, Default)]
struct Felt {
    /// What the page told, and tokens of an answer.
    told: Foreign,
    output_tokens: f64,
    /// Requests beyond our own that pages have told of lately, on average; less than none where ours have ended meanwhile.
    usual: Mean,
    /// The same of the last page.
    beyond: f64,
    /// Prompt tokens felt, in all and until the page.
    tokens: f64,
    tokens_told: f64,
    /// Prompt tokens that were computed while some of ours were pending, and taken for these.
    ours: f64,
}

impl Others {
    /// Requests that were told of or felt.
    pub(super) fn requests(&self) -> f64 {
        self.known.requests
    }

    /// Their KV tokens.
    pub(super) fn kv_tokens(&self) -> f64 {
        self.known.kv_tokens
    }

    /// Prompt tokens felt in all.
    pub(super) fn felt(&self) -> f64 {
        self.felt.tokens
    }

    pub(super) fn tell(&mut self, told: Foreign, heard: &Page, pace: &Pace) {
        (self.at, self.any) = (heard.at.as_secs_f64(), true);
        // Those that were there are anywhere in their answers. Before any answer was seen, pages count as long as other signals.
        let answer = heard.output_tokens * pace.step;
        self.ending = 1.0 / if answer > 0.0 { answer } else { SIGNAL_AGE_MAX.as_secs_f64() };
        (self.felt.told, self.felt.output_tokens) = (told, heard.output_tokens);
        self.felt.tokens_told = heard.felt;
        // Some of ours that have just ended may be counted still.
        self.felt.beyond = heard.beyond - heard.own * self.ending * PAGE_LAG_SECONDS;
        self.known = self.felt_by(self.at, 0.0, pace);
    }

    /// The page counted the requests of others itself.
    pub(super) fn counted(&mut self) {
        let Felt { usual, beyond, .. } = &mut *self.felt;
        usual.add_weighted(*beyond, USUAL_NEW_WEIGHT);
    }

    /// What the page told and what was felt since, `silent` prompt tokens more included.
    fn felt_by(&self, now: f64, silent: f64, pace: &Pace) -> Foreign {
        let Felt { told, usual, tokens, tokens_told, .. } = &*self.felt;
        // As many come as end.
        let age = (now - self.at).max(0.0) + PAGE_LAG_SECONDS;
        let mean = usual.or(0.0).max(0.0) * self.ending * age;
        let most = (mean + DEVIATIONS_MAX * mean.sqrt()) * pace.mean_prompt;
        let tokens = (tokens - tokens_told).max(0.0) + silent;
        told.plus(1.0, &self.came(tokens.min(most), pace))
    }

    /// What prompts with so many tokens bring along.
    fn came(&self, tokens: f64, pace: &Pace) -> Foreign {
        let requests = tokens / pace.mean_prompt.max(1.0);
        let kv_tokens = tokens + requests * self.felt.output_tokens;
        Foreign { held_tokens: tokens, kv_tokens, requests }
    }

    /// How far the page still counts: the share of the requests of then that are still there.
    #[inline]
    fn left(&self, now: f64) -> f64 {
        let left = 1.0 - self.ending * (now - self.at).max(0.0);
        if self.any { left.max(0.0) } else { 0.0 }
    }

    /// What the page told, and how far it still counts. Without what was felt since: on average as much has left.
    pub(super) fn told(&self, now: f64) -> (f64, Foreign) {
        (self.left(now), self.felt.told)
    }

    /// What is there now: what is known, as far as it still counts, and beyond that what there is on the pool's endpoints on
    /// average. `step` is that of `pace`, which is rarely asked for.
    #[inline]
    pub(super) fn now(
        &self,
        now: f64,
        step: f64,
        pace: impl FnOnce() -> Pace,
        pool: &Foreign,
    ) -> Foreign {
        let (left, mut known) = (self.left(now), self.known);
        let silence = now - self.heard;
        if self.streams > 0 && silence > (1.0 + SILENT_STEPS) * step {
            let pace = pace();
            known = self.felt_by(now, silent_prompt(silence, &pace), &pace);
        }
        Foreign::default().plus(left, &known).plus(1.0 - left, pool)
    }

    /// A token has come, `since` the one before or since its request was sent, if it is the first. Says whether a prompt was
    /// felt.
    pub(super) fn token(
        &mut self,
        since: Duration,
        first: bool,
        pace: &Pace,
        now: Duration,
    ) -> bool {
        let now = now.as_secs_f64();
        let since = since.as_secs_f64().max(std::mem::replace(&mut self.heard, now));
        self.streams += u32::from(first);
        let excess = now - since - pace.step;
        let some = excess > FELT_STEPS * pace.step && now - since <= SILENCE_SECONDS_MAX;
        if !some || pace.prefill_token <= 0.0 {
            return false;
        }
        let waited = WAITED * (pace.step + pace.pending * pace.prefill_token);
        if first && now - since > waited {
            return false;
        }
        let computed = excess / pace.prefill_token;
        let ours = computed.min(pace.pending - self.felt.ours).max(0.0);
        self.felt.ours += ours;
        self.felt.tokens += computed - ours;
        self.known = self.felt_by(now, 0.0, pace);
        true
    }

    /// A prompt of ours with so many tokens is not pending any more.
    pub(super) fn settled(&mut self, tokens: f64) {
        self.felt.ours = (self.felt.ours - tokens).max(0.0);
    }

    /// An answer that had begun is over.
    pub(super) fn ended(&mut self) {
        self.streams = self.streams.saturating_sub(1);
    }
}

/// Tokens of a prompt that is being computed as it seems: streams should have had their next token by now.
#[cold]
fn silent_prompt(silence: f64, pace: &Pace) -> f64 {
    let excess = silence - pace.step - pace.pending * pace.prefill_token;
    let some = pace.prefill_token > 0.0 && silence <= SILENCE_SECONDS_MAX;
    if some && excess > SILENT_STEPS * pace.step {
        (excess / pace.prefill_token).max(pace.mean_prompt)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests;
