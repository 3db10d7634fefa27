//! What a gateway has on each endpoint and has learned of it: the state behind its decisions.
//!
//! A request is charged to its endpoint in the same call that chooses it, so the next choice already sees it. All of
//! the state is here, and none of the waiting: the caller brings time and chance, and says what happened to a request.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::{
    BLOCK_BYTES, Candidate, Chance, Decision, EndpointId, InferenceRequest, Policy, Signals,
    Unschedulable, hash_name,
    lengths::Lengths,
    mean::Mean,
    prefix::{CAPACITY_DEFAULT, PrefixIndex},
    ring::HashRing,
    schedule,
    speed::SpeedEstimate,
};

mod account;

use account::{Account, Foreign};

/// Bytes of a prompt a token takes until it has been learned: about what English text takes.
const BYTES_PER_TOKEN: f64 = 4.0;
/// What text can take. Anything else was no text, such as an image, or no prompt that was seen.
const BYTES_PER_TOKEN_KNOWN: std::ops::RangeInclusive<f64> = 0.5..=16.0;
/// Adapters' names remembered, of all endpoints; later ones are treated like base models.
const ADAPTERS_MAX: usize = 4096;

/// Where an endpoint is in a [`Ledger`].
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Slot(u32);

impl Slot {
    fn index(self) -> usize {
        self.0 as usize
    }
}

/// One request's charge on one endpoint. To be given back with [`Ledger::end`].
#[derive(Debug)]
#[must_use = "a claim that is not ended stays charged"]
pub struct Claim {
    slot: Slot,
    adapter: Option<u64>,
    sent: Duration,
    first_token: Option<Duration>,
    last_token: Duration,
    prompt_bytes: u64,
    prompt_tokens: f64,
    /// What of the prompt is not cached.
    prefill_tokens: f64,
    /// What of that is charged at the moment.
    pending: f64,
    kv_tokens: f64,
    kv_variance: f64,
    /// What was expected of the answer, and what came.
    expected: f64,
    streamed: f64,
}

impl Claim {
    /// The endpoint it is on.
    pub fn slot(&self) -> Slot {
        self.slot
    }
}

/// How a request ended, as far as something can be learned from it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Ending {
    /// The answer was whole.
    pub complete: bool,
    /// Length of the prompt, as the endpoint counted it.
    pub prompt_tokens: Option<u64>,
    /// Length of the answer, likewise; without it, as many tokens as were told of.
    pub output_tokens: Option<u64>,
}

/// What a gateway had on an endpoint when it sent a scrape. Goes into [`Ledger::scraped`] with the answer.
#[derive(Clone, Copy, Debug)]
pub struct ScrapeMark {
    sent: u64,
    in_flight: u32,
    kv_tokens: f64,
}

impl ScrapeMark {
    /// Of a scrape sent before any request was.
    pub const NOTHING: Self = Self { sent: 0, in_flight: 0, kv_tokens: 0.0 };
}

/// Endpoints as their gateway knows them.
#[derive(Debug, Default)]
pub struct Ledger {
    accounts: Vec<Account>,
    unused: Vec<Slot>,
    by_id: BTreeMap<EndpointId, Slot>,
    prefixes: PrefixIndex,
    ring: HashRing,
    lengths: Lengths,
    bytes_per_token: Mean,
    /// Names that endpoints have listed as adapters.
    adapters: BTreeSet<String>,
    /// Blocks cached by slot, for the request being placed.
    cached: Vec<u32>,
}

impl Ledger {
    /// The slot of this endpoint, a new one if there is none. It is the endpoint's until it has been
    /// [released](Ledger::release) as often as it was asked for.
    pub fn add(&mut self, id: &EndpointId) -> Slot {
        if let Some(slot) = self.by_id.get(id) {
            self.accounts[slot.index()].holders += 1;
            return *slot;
        }
        let account = Account::new(id.clone());
        let slot = if let Some(slot) = self.unused.pop() {
            self.accounts[slot.index()] = account;
            slot
        } else {
            self.accounts.push(account);
            Slot(u32::try_from(self.accounts.len() - 1).unwrap_or(u32::MAX))
        };
        self.by_id.insert(id.clone(), slot);
        self.place_on_ring();
        slot
    }

    /// Forgets an endpoint that has left. Whoever holds its slot can go on using it.
    pub fn remove(&mut self, id: &EndpointId) {
        if let Some(slot) = self.by_id.remove(id) {
            self.prefixes.forget(slot.0);
            self.place_on_ring();
        }
    }

    /// Gives a slot back. The last to do so must have ended all claims on it; then another endpoint gets it.
    pub fn release(&mut self, slot: Slot) {
        let account = &mut self.accounts[slot.index()];
        debug_assert!(account.holders > 0, "a slot was released twice");
        account.holders -= 1;
        if account.holders == 0 {
            let id = account.id().clone();
            if self.by_id.get(&id) == Some(&slot) {
                self.remove(&id);
            }
            // Who still had the slot may have sent something there after the endpoint had left.
            self.prefixes.forget(slot.0);
            self.unused.push(slot);
        }
    }

    fn place_on_ring(&mut self) {
        self.ring = HashRing::new(self.by_id.iter().map(|(id, slot)| (slot.0, id)));
    }

    /// Chooses among the endpoints of `usable`, and charges the choice.
    pub fn pick(
        &mut self,
        policy: Policy,
        request: &InferenceRequest<'_>,
        usable: &[Slot],
        now: Duration,
        chance: Chance,
    ) -> Result<(Decision, Claim), Unschedulable> {
        self.find_prefixes(request.blocks);
        let adapter = self.adapter(request);
        let candidates = self.candidates(policy, request, adapter, usable, now);
        let decision = schedule(policy, request, &candidates, now, chance)?;
        let uncached = candidates[decision.choices[0]].uncached_tokens;
        drop(candidates);
        let slot = usable[decision.choices[0]];
        self.prefixes.touch(slot.0, request.blocks);
        let prompt_tokens = self.tokens_of(request.prompt_bytes);
        let claim =
            self.charge(slot, adapter, request.prompt_bytes, (prompt_tokens, uncached), now);
        Ok((decision, claim))
    }

    /// The request's adapter, if its model is one.
    fn adapter(&self, request: &InferenceRequest<'_>) -> Option<u64> {
        request.model.filter(|model| self.adapters.contains(*model)).map(hash_name)
    }

    /// How much of the prompt each endpoint has.
    fn find_prefixes(&mut self, blocks: &[u64]) {
        self.cached.clear();
        self.cached.resize(self.accounts.len(), 0);
        let cached = &mut self.cached;
        self.prefixes.matches(blocks, |endpoint, blocks| {
            if let Some(cached) = cached.get_mut(endpoint as usize) {
                *cached = blocks;
            }
        });
    }

    fn tokens_of(&self, prompt_bytes: u64) -> f64 {
        approximate(prompt_bytes) / self.bytes_per_token.or(BYTES_PER_TOKEN)
    }

    fn candidates<'a>(
        &'a self,
        policy: Policy,
        request: &InferenceRequest<'_>,
        adapter: Option<u64>,
        usable: &[Slot],
        now: Duration,
    ) -> Vec<Candidate<'a>> {
        let output = self.lengths.mean(adapter);
        let tokens = self.tokens_of(request.prompt_bytes);
        let block_tokens = self.tokens_of(BLOCK_BYTES as u64);
        let accounts = usable.iter().map(|slot| &self.accounts[slot.index()]);
        let like = SpeedEstimate::mean(accounts.map(Account::speed));
        let accounts = usable.iter().map(|slot| &self.accounts[slot.index()]);
        let foreign = Foreign::mean(accounts.filter_map(|account| account.foreign(now)));
        let candidate = |slot: &Slot| {
            let cached = self.cached[slot.index()];
            let account = &self.accounts[slot.index()];
            Candidate {
                cached_blocks: cached,
                uncached_tokens: (tokens - f64::from(cached) * block_tokens).max(1.0),
                adapter: account.adapters().fit(adapter),
                adapter_pressure: account.adapters().pressure(),
                adapter_listed: adapter.is_some() && account.lists(request.model),
                ring_rank: u32::MAX,
                load: account.load(now, &foreign),
                ..account.candidate(output, &like)
            }
        };
        let mut candidates: Vec<Candidate<'a>> = usable.iter().map(candidate).collect();
        if policy == Policy::PrefixHash {
            self.rank_on_ring(request.prefix, usable, &mut candidates);
        }
        candidates
    }

    fn rank_on_ring(&self, prefix: u64, usable: &[Slot], candidates: &mut [Candidate<'_>]) {
        let mut rank = 0;
        for slot in self.ring.from(prefix) {
            let at = usable.iter().position(|usable| usable.0 == slot);
            if let Some(candidate) = at.map(|at| &mut candidates[at])
                && candidate.ring_rank == u32::MAX
            {
                candidate.ring_rank = rank;
                rank += 1;
                if rank as usize == usable.len() {
                    return;
                }
            }
        }
    }

    fn charge(
        &mut self,
        slot: Slot,
        adapter: Option<u64>,
        prompt_bytes: u64,
        (prompt_tokens, uncached): (f64, f64),
        now: Duration,
    ) -> Claim {
        let expected = self.lengths.mean(adapter);
        let claim = Claim {
            slot,
            adapter,
            sent: now,
            first_token: None,
            last_token: now,
            prompt_bytes,
            prompt_tokens,
            prefill_tokens: uncached,
            pending: uncached,
            kv_tokens: uncached + expected,
            kv_variance: self.lengths.variance(adapter),
            expected,
            streamed: 0.0,
        };
        self.accounts[slot.index()].charge(&claim);
        claim
    }

    /// Takes a request that one endpoint did not answer to another.
    pub fn advance(&mut self, claim: Claim, to: Slot, now: Duration) -> Claim {
        let (adapter, bytes, tokens) = (claim.adapter, claim.prompt_bytes, claim.prompt_tokens);
        self.end(claim, Ending::default());
        self.charge(to, adapter, bytes, (tokens, tokens), now)
    }

    /// Tokens came in a stream: the first of the answer, or more.
    pub fn tokens(&mut self, claim: &mut Claim, tokens: u32, now: Duration) {
        self.accounts[claim.slot.index()].tokens(claim, f64::from(tokens), now);
    }

    /// The request is over.
    #[expect(clippy::needless_pass_by_value, reason = "a claim is ended once")]
    pub fn end(&mut self, claim: Claim, ending: Ending) {
        if ending.complete {
            let output = ending.output_tokens.map_or(claim.streamed, approximate);
            if output > 0.0 {
                self.lengths.learn(claim.adapter, output);
            }
        }
        let tokens = ending.prompt_tokens.map_or(0.0, approximate);
        let per_token = approximate(claim.prompt_bytes) / tokens;
        if BYTES_PER_TOKEN_KNOWN.contains(&per_token) {
            self.bytes_per_token.add(per_token);
        }
        self.accounts[claim.slot.index()].end(&claim);
    }

    /// To be taken when a scrape is sent: only what was sent before can be in its answer.
    pub fn mark(&self, slot: Slot) -> ScrapeMark {
        self.accounts[slot.index()].mark()
    }

    /// Takes in what a scrape said.
    pub fn scraped(&mut self, slot: Slot, mark: ScrapeMark, signals: Signals) {
        let blocks = match (signals.kv_blocks, signals.kv_block_tokens) {
            (Some(blocks), Some(tokens)) => {
                let tokens = approximate(blocks.value) * f64::from(tokens.value);
                floor(tokens / self.tokens_of(BLOCK_BYTES as u64))
            }
            _ => CAPACITY_DEFAULT,
        };
        self.prefixes.set_capacity(slot.0, blocks);
        if self.accounts[slot.index()].has_restarted(&signals) {
            self.prefixes.forget(slot.0);
        }
        for name in signals.running_adapters.iter().flat_map(|names| names.iter()) {
            if self.adapters.len() < ADAPTERS_MAX && !self.adapters.contains(name) {
                self.adapters.insert(name.clone());
            }
        }
        let output = self.lengths.mean(None);
        self.accounts[slot.index()].scraped(mark, signals, output);
    }

    /// Requests of this gateway the endpoint has not finished.
    pub fn in_flight(&self, slot: Slot) -> u32 {
        self.accounts[slot.index()].in_flight()
    }

    /// Of these, the ones that the last scrape cannot have seen.
    pub fn sent_since_scrape(&self, slot: Slot) -> u32 {
        self.accounts[slot.index()].sent_since_scrape()
    }

    /// Prompt tokens of this gateway's requests that are not cached there and have no first token yet.
    pub fn prefill_tokens_pending(&self, slot: Slot) -> f64 {
        self.accounts[slot.index()].prefill_tokens_pending()
    }

    /// The time to first token to expect: the mean of the latest; `None` before the first.
    pub fn predicted_ttft_seconds(&self, slot: Slot) -> Option<f64> {
        self.accounts[slot.index()].predicted_ttft_seconds()
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of one machine")]
fn approximate(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
fn floor(value: f64) -> usize {
    value as usize
}

#[cfg(test)]
mod tests;
