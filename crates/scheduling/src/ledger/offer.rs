//! What a request is offered: the endpoints that it may go to, each described when it is looked at.

use std::time::Duration;

use super::{Common, Ledger, Slot, account::Account, approximate, others::Foreign};
use crate::{
    AdapterFit, Admission, BLOCK_BYTES, Candidate, Candidates, InferenceRequest, Load, Policy,
    Speed, Unschedulable,
    outline::{Ask, Outline},
    prefix::Match,
    schedule::wait_seconds,
};

pub(super) struct Offer<'a> {
    ledger: &'a Ledger,
    request: &'a InferenceRequest<'a>,
    adapter: Option<u64>,
    common: &'a Common,
    now: Duration,
    seconds: f64,
    slots: &'a [Slot],
    /// Those of them that it may go to, by index; `None` if it may go to all.
    kept: Option<Vec<usize>>,
    /// Where each comes on the hash ring; empty if nobody asks.
    ring_ranks: Vec<u32>,
    asks_lists: bool,
    /// Tokens of the prompt, of one of its blocks, and of the answer to expect.
    tokens: f64,
    block_tokens: f64,
    output: f64,
}

impl Ledger {
    /// What `slots` look like to this request. Their prefixes must have been found, and their speeds compared.
    pub(super) fn offer<'a>(
        &'a self,
        policy: Policy,
        (request, adapter): (&'a InferenceRequest<'a>, Option<u64>),
        slots: &'a [Slot],
        common: &'a Common,
        now: Duration,
    ) -> Offer<'a> {
        let ring_ranks = match policy {
            Policy::PrefixHash => self.ring_ranks(request.prefix, slots),
            _ => Vec::new(),
        };
        Offer {
            ledger: self,
            request,
            adapter,
            common,
            now,
            seconds: now.as_secs_f64(),
            slots,
            kept: None,
            ring_ranks,
            asks_lists: policy == Policy::LoraChain && adapter.is_some(),
            tokens: self.tokens_of(request.prompt_bytes),
            block_tokens: self.tokens_of(BLOCK_BYTES as u64),
            output: self.lengths.expect(adapter, request.max_tokens.map(approximate)).tokens,
        }
    }

    fn ring_ranks(&self, prefix: u64, slots: &[Slot]) -> Vec<u32> {
        let mut ranks = vec![u32::MAX; slots.len()];
        let mut rank = 0;
        for slot in self.ring.iter().flat_map(|ring| ring.from(prefix)) {
            let at = slots.iter().position(|offered| offered.0 == slot);
            if let Some(own) = at.map(|at| &mut ranks[at])
                && *own == u32::MAX
            {
                *own = rank;
                rank += 1;
                if rank as usize == slots.len() {
                    break;
                }
            }
        }
        ranks
    }
}

impl Offer<'_> {
    /// Only the endpoints that the request may go to now.
    pub(super) fn admitted(mut self) -> Result<Self, Unschedulable> {
        // If nobody is there, that is not for waiting to mend.
        if self.slots.is_empty() {
            return Ok(self);
        }
        self.leave_out();
        if self.is_empty() {
            return Err(Unschedulable::Saturated { soonest: None });
        }
        match self.request.admission {
            Admission::Always => {}
            Admission::WhenFree => {
                if !self.all().any(|candidate| candidate.places > 0) {
                    return Err(self.saturated());
                }
            }
            Admission::WhenSpare | Admission::WhenQuiet | Admission::WhenUnnoticed => {
                let (mut kept, mut quiet) = (Vec::new(), 0);
                for (index, candidate) in self.all().enumerate() {
                    if candidate.places > 1 {
                        kept.push(self.place(index));
                    }
                    quiet +=
                        usize::from(candidate.places > 0 && candidate.load.prefill_tokens <= 0.0);
                }
                let quiet_min = match self.request.admission {
                    Admission::WhenSpare => 0,
                    // If there are two at all.
                    _ => self.len().min(2),
                };
                if kept.is_empty() || quiet < quiet_min {
                    return Err(self.saturated());
                }
                self.kept = Some(kept);
            }
        }
        Ok(self)
    }

    /// Neither those that lack what it asks for nor those that are kept for others.
    fn leave_out(&mut self) {
        let InferenceRequest { absent, reserved, .. } = *self.request;
        if absent.is_empty() && reserved.is_empty() {
            return;
        }
        let lacks = |slot: &Slot| absent.binary_search(slot).is_ok();
        let absent = self.slots.iter().all(lacks);
        let stays = |slot: &Slot| (absent || !lacks(slot)) && !reserved.contains(slot);
        self.kept = Some((0..self.slots.len()).filter(|at| stays(&self.slots[*at])).collect());
    }

    /// There is no room now.
    fn saturated(&self) -> Unschedulable {
        let wait = |index: &usize| wait_seconds(&self.get(*index));
        let soonest = || (0..self.len()).min_by(|a, b| wait(a).total_cmp(&wait(b)));
        let soonest = self.request.overdue.then(soonest).flatten();
        Unschedulable::Saturated { soonest: soonest.map(|index| self.slots[self.place(index)]) }
    }

    /// Where a candidate is among the slots.
    #[inline]
    fn place(&self, index: usize) -> usize {
        self.kept.as_ref().map_or(index, |kept| kept[index])
    }

    pub(super) fn into_kept(self) -> Option<Vec<usize>> {
        self.kept
    }

    /// Requests such as this one that could begin there at once.
    #[inline]
    fn places(
        &self,
        account: &Account,
        (fit, speed): (AdapterFit, &Speed),
        (unshared, pinned): (f64, f64),
        others: &Foreign,
    ) -> u32 {
        match self.request.admission {
            Admission::Always => 0,
            // Nothing makes room for a prompt larger than the whole cache: the endpoint is to refuse it, and nobody to wait
            // behind it.
            _ if unshared > account.kv_capacity() => u32::MAX,
            _ if fit == AdapterFit::Full => 0,
            Admission::WhenFree => account.places(unshared, pinned, false, others),
            Admission::WhenUnnoticed
                if account.would_notice(speed, self.tokens + self.output, others) =>
            {
                0
            }
            Admission::WhenSpare | Admission::WhenQuiet | Admission::WhenUnnoticed => {
                account.places(unshared + self.output, pinned, true, others)
            }
        }
    }
}

impl Candidates for Offer<'_> {
    #[inline]
    fn len(&self) -> usize {
        self.kept.as_ref().map_or(self.slots.len(), Vec::len)
    }

    // What nobody asks for is not worked out: that is only seen from inside the loop over all of them.
    #[expect(clippy::inline_always, reason = "half of the time of a decision among a thousand")]
    #[inline(always)]
    fn get(&self, index: usize) -> Candidate<'_> {
        let index = self.place(index);
        let slot = self.slots[index];
        let Match { cached, pinned } = self.ledger.cached[slot.index()];
        let account = &self.ledger.accounts[slot];
        let speed = Speed { output_tokens: self.output, ..account.speed() };
        let unshared = (self.tokens - f64::from(pinned) * self.block_tokens).max(1.0);
        let pinned_tokens = f64::from(self.ledger.prefixes.pinned(slot.0)) * self.block_tokens;
        let fit = account.adapters().fit(self.adapter);
        let others = account.foreign(self.seconds, &self.common.foreign);
        let load = account.load(&others, self.common.output_variance);
        Candidate {
            cached_blocks: cached,
            uncached_tokens: (self.tokens - f64::from(cached) * self.block_tokens).max(1.0),
            unshared_tokens: unshared,
            adapter: fit,
            adapter_pressure: account.adapters().pressure(),
            adapter_listed: self.asks_lists && account.lists(self.request.model),
            ring_rank: self.ring_ranks.get(index).copied().unwrap_or(u32::MAX),
            load: Load { kv_tokens: load.kv_tokens + pinned_tokens, ..load },
            places: self.places(account, (fit, &speed), (unshared, pinned_tokens), &others),
            // As long as no endpoint has shown anything, none is behind the others.
            untried: self.common.speeds.known && account.is_untried(self.now),
            ..account.candidate(speed)
        }
    }
    #[expect(clippy::inline_always, reason = "what is returned is as large as what there is to do")]
    #[inline(always)]
    fn outline(&self, index: usize) -> (Outline, Ask) {
        let index = self.place(index);
        let slot = self.slots[index];
        let outline = *self.ledger.accounts.outline(slot, self.common);
        let Match { cached, pinned } = self.ledger.cached[slot.index()];
        let unshared = (self.tokens - f64::from(pinned) * self.block_tokens).max(1.0);
        let (adapter, adapter_pressure) = match self.adapter {
            None => (AdapterFit::Base, 0.0),
            adapter => {
                let adapters = self.ledger.accounts[slot].adapters();
                (adapters.fit(adapter), adapters.pressure())
            }
        };
        let ask = Ask {
            uncached_tokens: (self.tokens - f64::from(cached) * self.block_tokens).max(1.0),
            output_tokens: self.output,
            need_tokens: unshared + self.output,
            adapter,
            adapter_pressure,
        };
        (outline, ask)
    }
}
