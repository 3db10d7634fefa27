//! What requests and pages say of an endpoint's condition, and whether it may be chosen therefore.

use std::time::Duration;

use super::{Claim, Ledger, Slot, account::Account};
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
        self.accounts[slot.index()].trouble()
    }

    /// The endpoint was not usable, and is again: it begins slowly.
    pub fn returned(&mut self, slot: Slot) {
        let account = &mut self.accounts[slot.index()];
        // Its failed health checks may have come from a restart, of which no counter has told yet.
        *account.pulse = Pulse::default();
        account.note_condition();
        account.slow_start = SlowStart::New;
    }
}

impl Account {
    fn trouble(&self) -> Option<Trouble> {
        if self.breaker.is_open() {
            Some(Trouble::Ejected)
        } else {
            self.pulse.is_hung().then_some(Trouble::Hung)
        }
    }

    /// Nothing is or was lately the matter with it.
    pub(super) fn is_settled(&self) -> bool {
        debug_assert_eq!(self.well, !self.breaker.is_open() && self.pulse.is_felt());
        self.well && self.slow_start.is_over()
    }

    /// To be called when its breaker or its pulse may have changed.
    fn note_condition(&mut self) {
        self.well = !self.breaker.is_open() && self.pulse.is_felt();
    }

    /// Whether it may get a request now, as far as its condition goes.
    pub(super) fn admits(&self, now: Duration) -> bool {
        self.breaker.admits(now) && self.pulse.admits(self.in_flight(), now)
    }

    /// A request is about to be charged.
    pub(super) fn send(&mut self, now: Duration) -> Sent {
        self.pulse.sent(self.in_flight(), now);
        self.breaker.send(self.sent + 1, now)
    }

    /// Tokens came.
    pub(super) fn show_life(&mut self, claim: &Claim, now: Duration) {
        let before = self.trouble();
        self.pulse.alive(now);
        if claim.first_token.is_none() {
            self.breaker.first_token(claim.numbered, self.sent);
            self.slow_start.served();
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
            self.pulse.alive(now);
            if claim.first_token.is_none() {
                self.slow_start.served();
            }
        }
        self.pulse.ended(self.in_flight());
        self.breaker.end(claim.numbered, outcome, self.sent, &claim.rule, now, chance);
        self.come_back(before);
    }

    /// A page was read.
    pub(super) fn feel_pulse(&mut self, signals: &Signals) {
        let before = self.trouble();
        let alone = PoolSpeed::of(std::iter::once(self.learned()));
        let token = alone.speed(self.learned()).prefill_token_seconds;
        self.pulse.scraped(signals, self.prefill_tokens_pending() * token);
        self.come_back(before);
    }

    /// Another process is at this address: what the one before did is not held against it.
    pub(super) fn begin_anew(&mut self) {
        *self.breaker = CircuitBreaker::anew(self.sent);
        *self.pulse = Pulse::default();
        self.note_condition();
        self.slow_start = SlowStart::New;
    }

    /// If it was out and is no longer, it begins slowly.
    fn come_back(&mut self, before: Option<Trouble>) {
        self.note_condition();
        if before.is_some() && self.trouble().is_none() {
            self.slow_start = SlowStart::New;
        }
    }
}
