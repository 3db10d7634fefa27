//! Takes an endpoint that fails out of the candidates, and lets it try again.

use std::time::Duration;

use crate::Chance;

/// The last part of an ejection that chance may leave out, as one over this: gateways that lost an endpoint together do
/// not come back to it together.
const JITTER_PART: u32 = 4;
/// Steps in which an ejection's jitter is drawn.
const JITTER_STEPS: u32 = 1 << 10;
/// Refusals in a row that take an endpoint out: many more than failures, since a client may be what is wrong. Its requests
/// hardly fill such a row where others are served meanwhile.
const REFUSALS_MAX: u32 = 20;
/// Doublings counted; more than enough to get from any base to any maximum.
const DOUBLINGS_MAX: u32 = 24;

/// When an endpoint is taken for failing, and for how long it is left alone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OutlierDetection {
    /// [Failures](Outcome::Failed) in a row that take it out; of [refusals](Outcome::Refused) it takes more. With 0 none do.
    pub consecutive_failures: u32,
    /// For how long, the first time; each further time in a row it is twice as long.
    pub base_ejection: Duration,
    /// The longest.
    pub max_ejection: Duration,
    /// Percent of a pool's endpoints that may be out this way; with more, all are candidates. With 0 none are taken out.
    pub max_ejection_percent: u32,
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            consecutive_failures: 3,
            base_ejection: Duration::from_secs(1),
            max_ejection: Duration::from_secs(30),
            max_ejection_percent: 50,
        }
    }
}

impl OutlierDetection {
    /// Whether it takes anybody out, ever.
    fn ejects(&self) -> bool {
        self.consecutive_failures > 0 && self.max_ejection_percent > 0
    }

    /// How long an endpoint is left alone that has been ejected so often in a row.
    fn ejection(&self, ejections: u32, chance: &mut Chance) -> Duration {
        let doublings = ejections.saturating_sub(1).min(DOUBLINGS_MAX);
        let whole = self.base_ejection.saturating_mul(1 << doublings).min(self.max_ejection);
        let drawn = u32::try_from(chance.below(JITTER_STEPS as usize)).unwrap_or(0);
        whole.saturating_sub(whole / JITTER_PART / JITTER_STEPS * drawn)
    }

    /// Whether so many endpoints of a pool of `all` may be out.
    pub(crate) fn may_be_out(&self, out: usize, all: usize) -> bool {
        // Where nobody is left, a request that is tried is better than one that is refused.
        out < all && out * 100 <= all * self.max_ejection_percent as usize
    }
}

/// What a request's end says of its endpoint.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Outcome {
    /// It answered.
    Served,
    /// It could not be reached, broke off, said that it cannot serve, or said nothing in time.
    Failed,
    /// It answered and served nothing: an error that may be its own, or a stream without a token. Who does that at once
    /// always looks idle, and would get more and more.
    Refused,
    /// Nothing: the client left, or the request was wrong.
    #[default]
    Unknown,
}

/// A request as the breaker of its endpoint knows it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Sent {
    /// Which of the endpoint's requests, counted from 1.
    pub(crate) number: u64,
    /// It is the one request that shows whether an ejected endpoint is well again.
    pub(crate) trial: bool,
}

/// Whether one endpoint is out because of failures.
///
/// Requests are told apart by when they were sent: one that was sent before the endpoint broke and ends well says nothing of
/// now, and fifty that break together are one ejection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CircuitBreaker {
    /// In a row.
    failures: u32,
    /// Requests sent before the first of them end no row.
    failing_from: u64,
    /// Refusals in a row.
    refusals: u32,
    /// Requests sent before the last change of state count for nothing.
    counted_from: u64,
    /// In a row.
    ejections: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Closed,
    Open {
        until: Duration,
        /// A trial is under way.
        trial: bool,
    },
}

impl CircuitBreaker {
    /// Of another process at the same address; so many requests were sent to the one before.
    pub(crate) fn anew(sent: u64) -> Self {
        Self { counted_from: sent, ..Self::default() }
    }

    /// The endpoint is ejected, though it may be about to try again.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// Whether a request may go there now.
    pub(crate) fn admits(&self, now: Duration) -> bool {
        match self.state {
            State::Closed => true,
            State::Open { until, trial } => now >= until && !trial,
        }
    }

    /// A request goes there.
    pub(crate) fn send(&mut self, number: u64, now: Duration) -> Sent {
        let admits = self.admits(now);
        let trial = match &mut self.state {
            State::Open { trial, .. } if admits => {
                *trial = true;
                true
            }
            // Sent all the same, since too many are out.
            State::Open { .. } | State::Closed => false,
        };
        Sent { number, trial }
    }

    /// A first token came. It ends a trial, but not a row of failures: an endpoint that breaks in the middle of each answer
    /// gives first tokens too.
    pub(crate) fn first_token(&mut self, sent: Sent, last: u64) {
        if sent.number > self.counted_from && sent.trial {
            self.close(last);
        }
    }

    /// A request is over; `last` is the number of the latest one.
    pub(crate) fn end(
        &mut self,
        sent: Sent,
        outcome: Outcome,
        last: u64,
        rule: &OutlierDetection,
        now: Duration,
        chance: &mut Chance,
    ) {
        if sent.number <= self.counted_from {
            return;
        }
        if outcome == Outcome::Served {
            self.refusals = 0;
        }
        match outcome {
            Outcome::Served if self.is_open() => {
                self.close(last);
                self.ejections = 0;
            }
            Outcome::Served if self.failures == 0 || sent.number > self.failing_from => {
                (self.failures, self.ejections) = (0, 0);
            }
            Outcome::Failed if !self.is_open() => {
                if self.failures == 0 {
                    self.failing_from = last;
                }
                self.failures = self.failures.saturating_add(1);
                if rule.ejects() && self.failures >= rule.consecutive_failures {
                    self.open(last, rule, now, chance);
                }
            }
            Outcome::Refused if !self.is_open() => {
                self.refusals = self.refusals.saturating_add(1);
                if rule.ejects() && self.refusals >= REFUSALS_MAX.max(rule.consecutive_failures) {
                    self.open(last, rule, now, chance);
                }
            }
            Outcome::Failed | Outcome::Refused if sent.trial => self.open(last, rule, now, chance),
            Outcome::Unknown if sent.trial => {
                if let State::Open { trial, .. } = &mut self.state {
                    *trial = false;
                }
            }
            Outcome::Served | Outcome::Failed | Outcome::Refused | Outcome::Unknown => {}
        }
    }

    fn open(&mut self, last: u64, rule: &OutlierDetection, now: Duration, chance: &mut Chance) {
        self.ejections = self.ejections.saturating_add(1);
        let until = now.saturating_add(rule.ejection(self.ejections, chance));
        self.state = State::Open { until, trial: false };
        (self.failures, self.refusals, self.counted_from) = (0, 0, last);
    }

    fn close(&mut self, last: u64) {
        self.state = State::Closed;
        (self.failures, self.refusals, self.counted_from) = (0, 0, last);
    }
}

#[cfg(test)]
mod tests;
