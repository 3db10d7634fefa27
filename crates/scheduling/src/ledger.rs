//! What a gateway has on each endpoint and has learned of it: the state behind its decisions.
//!
//! A request is charged to its endpoint in the same call that chooses it, so the next choice already sees it. All of
//! the state is here, and none of the waiting: the caller brings time and chance, and says what happened to a request.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::{
    BLOCK_BYTES, COSTS_MAX, Candidates as _, Chance, Decision, EndpointId, InferenceRequest,
    Outcome, OutlierDetection, Policy, Report, Signals, Unschedulable,
    breaker::Sent,
    hash_name,
    lengths::{Expected, Lengths},
    mean::Mean,
    prefix::{CAPACITY_DEFAULT, Match, Pin, PrefixIndex},
    ring::HashRing,
    schedule,
    speed::PoolSpeed,
};

mod account;
mod accounts;
mod offer;
mod others;
mod screen;
mod trouble;

use account::Account;
use accounts::Accounts;
use others::Foreign;
pub use trouble::Trouble;

/// Bytes of a prompt a token takes until it has been learned: about what English text takes.
const BYTES_PER_TOKEN: f64 = 4.0;
/// What text can take. Anything else was no text, such as an image, or no prompt that was seen.
const BYTES_PER_TOKEN_KNOWN: std::ops::RangeInclusive<f64> = 0.5..=16.0;
/// Adapters' names remembered, of all endpoints; later ones are treated like base models.
const ADAPTERS_MAX: usize = 4096;

/// How often an endpoint is asked to report along with an answer. A report costs a vLLM half of what a scrape does, about
/// four milliseconds without serving, and a line in its log.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);

/// How long it is known what endpoints have in common: means over many requests, which do not change faster.
const COMMON_FRESH: Duration = Duration::from_millis(100);

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
    /// When its prompt will be computed, if its first token does not show it.
    due: Option<Duration>,
    /// Its prompt's blocks, which it may share with others.
    pin: Option<Pin>,
    /// KV tokens of its own: what its blocks do not have.
    kv_tokens: f64,
    kv_variance: f64,
    /// Tokens the answer may have, as far as its request says.
    limit: Option<u64>,
    /// What was expected of the answer, and what came.
    expected: f64,
    streamed: f64,
    /// How the endpoint is judged by its end.
    numbered: Sent,
    rule: OutlierDetection,
}

impl Claim {
    /// The endpoint it is on.
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// Tokens still to come. Where nobody tells of any, half of them are there, on average over its time.
    fn growth(&self) -> f64 {
        match self.due {
            Some(_) => self.expected / 2.0,
            None => self.expected - self.streamed,
        }
    }

    /// Whether its first token has come.
    pub fn has_begun(&self) -> bool {
        self.first_token.is_some()
    }
}

/// What a request is charged for.
struct Charge {
    adapter: Option<u64>,
    prompt: ChargedPrompt,
    limit: Option<u64>,
    expected: Expected,
    rule: OutlierDetection,
    unstreamed: bool,
}

/// What of that its prompt is.
struct ChargedPrompt {
    bytes: u64,
    /// Tokens that have to be computed.
    uncached: f64,
    /// Tokens that are in no pinned block.
    unshared: f64,
}

/// How a request ended, as far as something can be learned from it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Ending {
    /// The answer was whole.
    pub complete: bool,
    /// What it says of the endpoint.
    pub outcome: Outcome,
    /// Length of the prompt, as the endpoint counted it.
    pub prompt_tokens: Option<u64>,
    /// Length of the answer, likewise; without it, as many tokens as were told of.
    pub output_tokens: Option<u64>,
}

/// What a gateway had on an endpoint when it sent a scrape. Goes into [`Ledger::scraped`] with the answer.
#[derive(Clone, Copy, Debug)]
pub struct ScrapeMark {
    /// Requests ever sent there, and the tokens of their prompts and expected answers.
    sent: u64,
    sent_tokens: f64,
    in_flight: u32,
    /// KV tokens that those hold, and those that they are going to.
    held_tokens: f64,
    kv_tokens: f64,
    /// Prompt tokens of others that had been felt until then.
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

/// What the endpoints of a pick have in common.
#[derive(Clone, Copy, Debug)]
struct Common {
    /// Which it is, counted from 1.
    number: u32,
    at: Duration,
    speeds: PoolSpeed,
    foreign: Foreign,
    /// Of the tokens of an answer.
    output_variance: f64,
}

/// Endpoints as their gateway knows them.
#[derive(Debug, Default)]
pub struct Ledger {
    accounts: Accounts,
    unused: Vec<Slot>,
    by_id: BTreeMap<EndpointId, Slot>,
    /// When each endpoint will have computed a prompt whose first token nobody will tell of, the next one.
    dues: BTreeSet<(Duration, Slot)>,
    prefixes: PrefixIndex,
    /// Made when it is asked for: with each endpoint that comes or goes it changes, and only one policy asks.
    ring: Option<HashRing>,
    lengths: Lengths,
    bytes_per_token: Mean,
    /// Names that endpoints have listed as adapters.
    adapters: BTreeSet<String>,
    /// What of the prompt being placed is cached, by slot.
    cached: Vec<Match>,
    /// Of the endpoints of the latest pick, which are these.
    common: Option<Common>,
    compared: Vec<Slot>,
    /// The latest pick's, for what is drawn between picks.
    chance: Chance,
}

impl Ledger {
    /// The slot of this endpoint, a new one if there is none. It is the endpoint's until it has been
    /// [released](Ledger::release) as often as it was asked for.
    pub fn add(&mut self, id: &EndpointId) -> Slot {
        if let Some(slot) = self.by_id.get(id) {
            self.accounts[*slot].details.holders += 1;
            return *slot;
        }
        let account = Account::new(id.clone());
        let slot = if let Some(slot) = self.unused.pop() {
            self.accounts[slot] = account;
            slot
        } else {
            self.accounts.push(account)
        };
        self.by_id.insert(id.clone(), slot);
        self.ring = None;
        slot
    }

    /// Gives a slot back. The last to do so must have ended all claims on it; then what was known of the endpoint is
    /// forgotten, and another one gets the slot. One that comes back before, with requests of ours still there, is who it was.
    pub fn release(&mut self, slot: Slot) {
        let account = &mut self.accounts[slot];
        debug_assert!(account.details.holders > 0, "a slot was released twice");
        account.details.holders -= 1;
        if account.details.holders == 0 {
            let id = account.id().clone();
            self.by_id.remove(&id);
            self.ring = None;
            self.prefixes.forget(slot.0);
            self.unused.push(slot);
        }
    }

    /// Chooses among the endpoints of `usable` that are not out, and charges the choice.
    pub fn pick(
        &mut self,
        policy: Policy,
        request: &InferenceRequest<'_>,
        usable: &[Slot],
        rule: &OutlierDetection,
        now: Duration,
        chance: Chance,
    ) -> Result<(Decision, Claim), Unschedulable> {
        self.chance = chance;
        self.settle(now);
        self.find_prefixes(request.blocks);
        let adapter = self.adapter(request);
        let screened = self.screen(usable, request.absent, rule, now);
        let common = self.common(&screened.slots, now);
        self.place_on_ring(policy);
        let offer = self.offer(policy, (request, adapter), &screened.slots, &common, now);
        let offer = offer.admitted()?;
        let mut decision = schedule(policy, request, &offer, now, chance)?;
        let uncached = offer.get(decision.choices[0]).uncached_tokens;
        let kept = offer.into_kept();
        screened.place(&mut decision, kept.as_deref());
        let slot = usable[decision.choices[0]];
        let pin = self.prefixes.pin(slot.0, request.blocks);
        let blocks = request.blocks.len() as u64;
        let prompt = ChargedPrompt {
            bytes: request.prompt_bytes,
            uncached,
            unshared: self
                .tokens_of(request.prompt_bytes.saturating_sub(blocks * BLOCK_BYTES as u64)),
        };
        let expected = self.lengths.expect(adapter, request.max_tokens.map(approximate));
        let limit = request.max_tokens;
        let claim = self.charge(
            slot,
            Charge {
                adapter,
                prompt,
                limit,
                expected,
                rule: *rule,
                unstreamed: request.unstreamed,
            },
            Some(pin),
            now,
        );
        Ok((decision, claim))
    }

    /// The request's adapter, if its model is one.
    fn adapter(&self, request: &InferenceRequest<'_>) -> Option<u64> {
        request.model.filter(|model| self.adapters.contains(*model)).map(hash_name)
    }

    /// What endpoints have in common, which is not looked up anew for every request; and brings up to date what is known of
    /// each of them beside the others.
    fn common(&mut self, usable: &[Slot], now: Duration) -> Common {
        let known = self.common.filter(|common| now.saturating_sub(common.at) < COMMON_FRESH);
        let known = known.filter(|_| self.compared == usable);
        let common = known.unwrap_or_else(|| self.look_up_common(usable, now));
        // Of few, a decision asks for everything, since it tells of all of them.
        if usable.len() <= COSTS_MAX {
            for slot in usable {
                self.accounts.compare(*slot, &common);
            }
            return common;
        }
        let (block_tokens, prefixes) = (self.tokens_of(BLOCK_BYTES as u64), &self.prefixes);
        let pinned = |slot: Slot| f64::from(prefixes.pinned(slot.0)) * block_tokens;
        self.accounts.outline_beside(usable, known.is_none(), &common, pinned);
        common
    }

    fn look_up_common(&mut self, usable: &[Slot], now: Duration) -> Common {
        let accounts = || usable.iter().map(|slot| &self.accounts[*slot]);
        let common = Common {
            number: self.common.map_or(0, |common| common.number).wrapping_add(1).max(1),
            at: now,
            speeds: PoolSpeed::of(accounts().map(Account::learned)),
            foreign: Foreign::mean(accounts().map(|account| account.told(now.as_secs_f64()))),
            output_variance: self.lengths.expect(None, None).variance,
        };
        self.common = Some(common);
        self.compared.clear();
        self.compared.extend_from_slice(usable);
        common
    }

    /// Prompts that must be computed by now are not pending any more.
    fn settle(&mut self, now: Duration) {
        while let Some(&(due, slot)) = self.dues.first().filter(|(due, _)| *due <= now) {
            self.dues.remove(&(due, slot));
            let account = &mut self.accounts[slot];
            account.settle(now);
            self.dues.extend(account.next_due().map(|due| (due, slot)));
        }
    }

    /// Changes an account, and notes what that changes of what it is waited for.
    fn change<R>(&mut self, slot: Slot, change: impl FnOnce(&mut Account) -> R) -> R {
        let account = &mut self.accounts[slot];
        let before = account.next_due();
        let result = change(account);
        let after = account.next_due();
        if before != after {
            before.map(|due| self.dues.remove(&(due, slot)));
            self.dues.extend(after.map(|due| (due, slot)));
        }
        result
    }

    /// How much of the prompt each endpoint has.
    fn find_prefixes(&mut self, blocks: &[u64]) {
        self.cached.clear();
        self.cached.resize(self.accounts.len(), Match::default());
        self.prefixes.matches(blocks, &mut self.cached);
    }

    fn tokens_of(&self, prompt_bytes: u64) -> f64 {
        approximate(prompt_bytes) / self.bytes_per_token.or(BYTES_PER_TOKEN)
    }

    fn place_on_ring(&mut self, policy: Policy) {
        if policy == Policy::PrefixHash {
            let ids = || self.by_id.iter().map(|(id, slot)| (slot.0, id));
            self.ring.get_or_insert_with(|| HashRing::new(ids()));
        }
    }

    /// Tokens of the prompt blocks that requests in flight there use, each block once.
    fn pinned_tokens(&self, slot: Slot) -> f64 {
        f64::from(self.prefixes.pinned(slot.0)) * self.tokens_of(BLOCK_BYTES as u64)
    }

    fn charge(&mut self, slot: Slot, charge: Charge, pin: Option<Pin>, now: Duration) -> Claim {
        let Charge { adapter, prompt, limit, expected, rule, unstreamed } = charge;
        let due = unstreamed.then(|| self.accounts[slot].due(prompt.uncached, now));
        let claim = Claim {
            slot,
            adapter,
            sent: now,
            first_token: None,
            last_token: now,
            prompt_bytes: prompt.bytes,
            prompt_tokens: self.tokens_of(prompt.bytes),
            prefill_tokens: prompt.uncached,
            pending: prompt.uncached,
            due,
            pin,
            kv_tokens: prompt.unshared + expected.tokens,
            kv_variance: expected.variance,
            limit,
            expected: expected.tokens,
            streamed: 0.0,
            numbered: self.accounts[slot].send(now),
            rule,
        };
        self.change(slot, |account| account.charge(&claim));
        claim
    }

    /// Takes a request that one endpoint did not answer to another; `outcome` is what that says of the first.
    pub fn advance(&mut self, claim: Claim, to: Slot, outcome: Outcome, now: Duration) -> Claim {
        let (bytes, tokens) = (claim.prompt_bytes, claim.prompt_tokens);
        let charge = Charge {
            adapter: claim.adapter,
            prompt: ChargedPrompt { bytes, uncached: tokens, unshared: tokens },
            limit: claim.limit,
            expected: self.lengths.expect(claim.adapter, claim.limit.map(approximate)),
            rule: claim.rule,
            unstreamed: claim.due.is_some(),
        };
        self.end(claim, Ending { outcome, ..Ending::default() }, now);
        self.charge(to, charge, None, now)
    }

    /// Tokens came in a stream: the first of the answer, or more.
    pub fn tokens(&mut self, claim: &mut Claim, tokens: u32, now: Duration) {
        self.accounts.tokens(claim, f64::from(tokens), now);
    }

    /// The request is over.
    pub fn end(&mut self, mut claim: Claim, ending: Ending, now: Duration) {
        if let Some(pin) = claim.pin.take() {
            self.prefixes.unpin(pin);
        }
        if ending.complete {
            let output = ending.output_tokens.map_or(claim.streamed, approximate);
            if output > 0.0 {
                self.lengths.learn(claim.adapter, claim.limit.map(approximate), output);
            }
        }
        let tokens = ending.prompt_tokens.map_or(0.0, approximate);
        let per_token = approximate(claim.prompt_bytes) / tokens;
        if BYTES_PER_TOKEN_KNOWN.contains(&per_token) {
            self.bytes_per_token.add(per_token);
        }
        self.change(claim.slot, |account| {
            account.settle(now);
            account.end(&claim, now);
        });
        let account = &mut self.accounts[claim.slot];
        account.judge(&claim, ending.outcome, now, &mut self.chance);
    }

    /// To be taken when a scrape is sent: what was sent before is in its answer, and what is sent while it is under way may be.
    pub fn mark(&self, slot: Slot) -> ScrapeMark {
        self.accounts[slot].mark(self.pinned_tokens(slot))
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
        if self.accounts[slot].has_restarted(&signals) {
            self.prefixes.forget(slot.0);
            self.accounts[slot].begin_anew();
        }
        for name in signals.running_adapters.iter().flat_map(|names| names.iter()) {
            if self.adapters.len() < ADAPTERS_MAX && !self.adapters.contains(name) {
                self.adapters.insert(name.clone());
            }
        }
        let output = self.lengths.expect(None, None).tokens;
        self.accounts[slot].scraped(mark, signals, output);
    }

    /// Tokens of the request's prompt and of the answer to expect.
    pub fn size(&self, request: &InferenceRequest<'_>) -> f64 {
        let limit = request.max_tokens.map(approximate);
        let answer = self.lengths.expect(self.adapter(request), limit).tokens;
        self.tokens_of(request.prompt_bytes) + answer
    }

    /// Whether a request that goes there now is to ask for a report. If so, it counts as asked.
    pub fn asks_report(&mut self, slot: Slot, now: Duration) -> bool {
        self.accounts[slot].asks_report(now)
    }

    /// Takes in what the endpoint of a claim said of itself when it ended that claim's answer: it was true then, and has
    /// nothing of the claim any more.
    pub fn reported(&mut self, claim: &Claim, report: Report, now: Duration) {
        let output = self.lengths.expect(None, None).tokens;
        let pinned = self.pinned_tokens(claim.slot);
        self.accounts[claim.slot].reported(claim, report, (output, pinned), now);
    }

    /// Seconds between two of this gateway's requests that end on these endpoints, to expect; 0 if nothing is there.
    pub fn ending_interval(&self, slots: &[Slot]) -> f64 {
        let output = self.lengths.expect(None, None).tokens;
        let rate: f64 = slots.iter().map(|slot| self.accounts[*slot].ending_rate(output)).sum();
        if rate > 0.0 { 1.0 / rate } else { 0.0 }
    }

    /// Requests of this gateway the endpoint has not finished.
    pub fn in_flight(&self, slot: Slot) -> u32 {
        self.accounts[slot].in_flight()
    }

    /// Of these, the ones that the last scrape cannot have seen.
    pub fn sent_since_scrape(&self, slot: Slot) -> u32 {
        self.accounts[slot].sent_since_scrape()
    }

    /// Prompt tokens of this gateway's requests that are not cached there and have no first token yet.
    pub fn prefill_tokens_pending(&self, slot: Slot) -> f64 {
        self.accounts[slot].prefill_tokens_pending()
    }

    /// The time to first token to expect: the mean of the latest; `None` before the first.
    pub fn predicted_ttft_seconds(&self, slot: Slot) -> Option<f64> {
        self.accounts[slot].predicted_ttft_seconds()
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of one machine")]
fn approximate(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
fn floor(value: f64) -> u32 {
    value as u32
}

#[cfg(test)]
mod tests;
