//! What requests and pages say of an endpoint's condition, and whether it may be chosen therefore.

use std::time::Duration;

use super::{
    Claim, Ledger, Slot,
    account::{Account, Details},
};
use crate::{
    Chance, Outcome, Signals,
    breaker::{CircuitBreaker, Sent},
    pulse::Pulse,
    slow_start::SlowStart,
    speed::PoolSpeed,
};

/// Why an endpoint gets no requests.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Trouble {
    /// It failed several times in a row.
    Ejected,
    /// It has requests and does nothing.
    Hung,
}

impl Trouble {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ejected => "ejected",
            Self::Hung => "hung",
        }
    }
}

impl Ledger {
    /// What takes the endpoint out, if anything does.
    pub fn trouble(&self, slot: Slot) -> Option<Trouble> {
        self.accounts[slot].trouble()
    }

    /// The endpoint was not usable, and is again: it begins slowly.
    pub fn returned(&mut self, slot: Slot) {
        let account = &mut self.accounts[slot];
        // Its failed health checks may have come from a restart, of which no counter has told yet.
        account.details.pulse = Pulse::default();
        account.details.slow_start = SlowStart::New;
    }
}

impl Account {
    fn trouble(&self) -> Option<Trouble> {
        if self.details.breaker.is_open() {
            Some(Trouble::Ejected)
        } else {
            self.details.pulse.is_hung().then_some(Trouble::Hung)
        }
    }

    /// Nothing is or was lately the matter with it. That does not change with time.
    pub(super) fn is_settled(&self) -> bool {
        let Details { breaker, pulse, slow_start, .. } = &*self.details;
        !breaker.is_open() && pulse.is_felt() && slow_start.is_over()
    }

    /// Whether it may get a request now, as far as its condition goes.
    pub(super) fn admits(&self, now: Duration) -> bool {
        self.details.breaker.admits(now) && self.details.pulse.admits(self.in_flight(), now)
    }

    /// A request is about to be charged.
    pub(super) fn send(&mut self, now: Duration) -> Sent {
        self.details.pulse.sent(self.in_flight(), now);
        self.details.breaker.send(self.details.sent + 1, now)
    }

    /// Tokens came.
    pub(super) fn show_life(&mut self, claim: &Claim, now: Duration) {
        let before = self.trouble();
        self.details.pulse.alive(now);
        if claim.first_token.is_none() {
            self.details.breaker.first_token(claim.numbered, self.details.sent);
            self.details.slow_start.served();
        }
        self.come_back(before);
    }

    /// A request is over, and no longer charged.
    pub(super) fn judge(
        &mut self,
        claim: &Claim,
        outcome: Outcome,
        now: Duration,
        chance: &mut Chance,
    ) {
        let before = self.trouble();
        if outcome == Outcome::Served {
            self.details.pulse.alive(now);
            if claim.first_token.is_none() {
                self.details.slow_start.served();
            }
        }
        self.details.pulse.ended(self.in_flight());
        self.details.breaker.end(
            claim.numbered,
            outcome,
            self.details.sent,
            &claim.rule,
            now,
            chance,
        );
        self.come_back(before);
    }

    /// A page was read.
    pub(super) fn feel_pulse(&mut self, signals: &Signals) {
        let before = self.trouble();
        let alone = PoolSpeed::of(std::iter::once(self.learned()));
        let token = alone.speed(self.learned()).prefill_token_seconds;
        self.details.pulse.scraped(signals, self.prefill_tokens_pending() * token);
        self.come_back(before);
    }

    /// Another process is at this address: what the one before did is not held against it, and what it had is not there.
    pub(super) fn begin_anew(&mut self) {
        self.forget_adapters();
        self.details.breaker = CircuitBreaker::anew(self.details.sent);
        self.details.pulse = Pulse::default();
        self.details.slow_start = SlowStart::New;
    }

    /// If it was out and is no longer, it begins slowly.
    fn come_back(&mut self, before: Option<Trouble>) {
        if before.is_some() && self.trouble().is_none() {
            self.details.slow_start = SlowStart::New;
        }
    }
}
