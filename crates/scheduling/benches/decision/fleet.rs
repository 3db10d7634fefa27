//! A busy fleet as its gateway knows it: pages scraped, requests in flight, speeds learned, prefix index full.

use std::{cell::RefCell, collections::BTreeSet, sync::Arc, time::Duration};

use scheduling::{
    BLOCK_BYTES, Chance, Claim, Ending, EndpointId, InferenceRequest, Ledger, Outcome,
    OutlierDetection, Policy, Reading, Signals, Slot, hash_blocks, hash_name,
};

/// Length of each prompt.
pub(crate) const PROMPT_BYTES: usize = 8192;
const ADAPTERS: usize = 10;
/// Adapters that requests to one endpoint ask for.
const ADAPTERS_EACH: usize = 3;
/// Of a prompt, the blocks that all requests for one adapter begin with, and those that a group of them does. Each group is
/// on a few endpoints.
const ADAPTER_BLOCKS: usize = 4;
const GROUP_BLOCKS: usize = 16;
const GROUPS_EACH: usize = 16;
const GROUP_ENDPOINTS: usize = 4;
const IN_FLIGHT_EACH: usize = 30;
/// vLLM's KV blocks on an 80 GB accelerator with a model of eight billion parameters.
const KV_BLOCKS: u64 = 27_000;
const KV_BLOCK_TOKENS: u32 = 16;
const STEP: Duration = Duration::from_millis(20);

thread_local! {
    static FLEETS: RefCell<Vec<(usize, Fleet)>> = const { RefCell::new(Vec::new()) };
}

pub(crate) struct Fleet {
    ledger: Ledger,
    slots: Vec<Slot>,
    signals: Vec<Signals>,
    rule: OutlierDetection,
    adapters: Vec<String>,
    /// Requests in flight.
    unanswered: Vec<Claim>,
    groups: usize,
    prompt: Vec<u8>,
    blocks: Vec<u64>,
    now: Duration,
    turn: u64,
}

impl Fleet {
    /// Lends a fleet of this size; the first call makes it.
    pub(crate) fn with<R>(endpoints: usize, then: impl FnOnce(&mut Fleet) -> R) -> R {
        FLEETS.with_borrow_mut(|fleets| {
            if !fleets.iter().any(|(size, _)| *size == endpoints) {
                fleets.push((endpoints, Fleet::new(endpoints)));
            }
            let at = fleets.iter().position(|(size, _)| *size == endpoints).unwrap_or(0);
            then(&mut fleets[at].1)
        })
    }

    fn new(endpoints: usize) -> Self {
        let mut ledger = Ledger::default();
        let name = |at: usize| EndpointId::new(format!("10.0.{}.{}:8000", at / 250, at % 250));
        let slots = (0..endpoints).map(|at| ledger.add(&name(at))).collect();
        let adapters: Vec<String> = (0..ADAPTERS).map(|at| format!("adapter-{at}")).collect();
        let text = b"Context: the quick brown fox jumps over the lazy dog. ".iter().copied();
        let mut fleet = Self {
            ledger,
            slots,
            signals: (0..endpoints).map(|at| signals(at, &adapters)).collect(),
            rule: OutlierDetection::default(),
            adapters,
            unanswered: Vec::new(),
            groups: ADAPTERS * (endpoints * GROUPS_EACH / GROUP_ENDPOINTS).div_ceil(ADAPTERS),
            prompt: text.cycle().take(PROMPT_BYTES).collect(),
            blocks: Vec::new(),
            now: Duration::from_secs(1000),
            turn: 0,
        };
        for _ in 0..endpoints {
            fleet.scrape_next();
        }
        for at in 0..endpoints {
            fleet.fill(at);
        }
        // Those that run are on the pages.
        for _ in 0..endpoints {
            fleet.scrape_next();
        }
        fleet
    }

    /// Sends an endpoint more prompts than it remembers, answers them, and leaves some unanswered.
    fn fill(&mut self, at: usize) {
        let remembered = 4 * usize::try_from(KV_BLOCKS).unwrap_or(0) * KV_BLOCK_TOKENS as usize;
        let fresh = PROMPT_BYTES - GROUP_BLOCKS * BLOCK_BYTES;
        let prompts = remembered / fresh + 2 * IN_FLIGHT_EACH;
        let groups = self.groups_of(at);
        let slots = [self.slots[at]];
        for prompt in 0..prompts {
            let group = groups[prompt % groups.len()];
            let mut claim = self.claim_among(Policy::Predicted, &slots, group);
            if prompt >= prompts - IN_FLIGHT_EACH {
                self.unanswered.push(claim);
                continue;
            }
            let begun = self.now;
            self.now += Duration::from_millis(200);
            for token in 0..8 {
                self.ledger.tokens(&mut claim, 1, self.now);
                self.now += STEP + Duration::from_millis(token % 3);
            }
            self.now = begun;
            self.ledger.end(claim, ending(), self.now);
        }
    }

    /// The groups whose requests this endpoint has had.
    fn groups_of(&self, at: usize) -> Vec<usize> {
        let endpoints = self.slots.len();
        let serves = |group: usize| adapters_of(at).any(|adapter| adapter == group % ADAPTERS);
        let near = |group: usize| {
            let home = group * GROUP_ENDPOINTS / GROUPS_EACH;
            (at + endpoints - home % endpoints) % endpoints
        };
        let mut groups: Vec<usize> = (0..self.groups).filter(|group| serves(*group)).collect();
        groups.sort_by_key(|group| near(*group));
        groups.truncate(GROUPS_EACH);
        groups
    }

    /// Decides on the next request, and ends it.
    pub(crate) fn decide(&mut self, policy: Policy) {
        let claim = self.claim(policy);
        self.ledger.end(claim, ending(), self.now);
    }

    pub(crate) fn claim(&mut self, policy: Policy) -> Claim {
        let slots = std::mem::take(&mut self.slots);
        let group = self.next_group();
        let claim = self.claim_among(policy, &slots, group);
        self.slots = slots;
        claim
    }

    /// The same with one endpoint to choose from, another one each time.
    pub(crate) fn decide_among_one(&mut self) {
        let slot = self.slots[self.at()];
        let group = self.next_group();
        let claim = self.claim_among(Policy::Predicted, &[slot], group);
        self.ledger.end(claim, ending(), self.now);
    }

    fn next_group(&self) -> usize {
        // Far from the one before, as neighbours in time are.
        usize::try_from(self.turn * 7919).unwrap_or(0) % self.groups
    }

    fn at(&self) -> usize {
        usize::try_from(self.turn).unwrap_or(0) % self.slots.len()
    }

    fn claim_among(&mut self, policy: Policy, among: &[Slot], group: usize) -> Claim {
        self.turn += 1;
        let model = &self.adapters[group % ADAPTERS];
        // A hash chain: what changes here changes all blocks from here on.
        self.prompt[ADAPTER_BLOCKS * BLOCK_BYTES..][..8].copy_from_slice(&group.to_le_bytes());
        self.prompt[GROUP_BLOCKS * BLOCK_BYTES..][..8].copy_from_slice(&self.turn.to_le_bytes());
        self.blocks.clear();
        if policy.reads_prefixes() {
            hash_blocks(hash_name(model), &[&self.prompt], &mut self.blocks);
        }
        let request = InferenceRequest {
            model: Some(model),
            prompt_bytes: PROMPT_BYTES as u64,
            blocks: &self.blocks,
            ..InferenceRequest::default()
        };
        let chance = Chance::new(self.turn, self.turn);
        let picked = self.ledger.pick(policy, &request, among, &self.rule, self.now, chance);
        divan::black_box(picked.expect("there are endpoints")).1
    }

    pub(crate) fn end(&mut self, claim: Claim) {
        self.ledger.end(claim, ending(), self.now);
    }

    /// Lets so many tokens of an answer come.
    pub(crate) fn tokens(&mut self, claim: &mut Claim, count: u32) {
        for step in 0..count {
            self.ledger.tokens(claim, 1, self.now + STEP * step);
        }
    }

    /// The next endpoint's page.
    pub(crate) fn scrape_next(&mut self) {
        self.turn += 1;
        let at = self.at();
        let (slot, mut signals) = (self.slots[at], self.signals[at].clone());
        hear(&mut signals, self.now);
        let mark = self.ledger.mark(slot);
        self.ledger.scraped(slot, mark, signals);
    }
}

fn ending() -> Ending {
    let outcome = Outcome::Served;
    Ending { complete: true, outcome, prompt_tokens: Some(2048), output_tokens: Some(150) }
}

fn adapters_of(at: usize) -> impl Iterator<Item = usize> {
    (0..ADAPTERS_EACH).map(move |step| (at + 3 * step) % ADAPTERS)
}

fn signals(at: usize, adapters: &[String]) -> Signals {
    let running: BTreeSet<String> = adapters_of(at).map(|at| adapters[at].clone()).collect();
    let uneven = u32::try_from(at % 7).unwrap_or(0);
    Signals {
        waiting: Some(heard(uneven / 3)),
        running: Some(heard(28 + uneven)),
        kv_usage: Some(heard(0.15 + 0.01 * f64::from(uneven))),
        kv_block_tokens: Some(heard(KV_BLOCK_TOKENS)),
        kv_blocks: Some(heard(KV_BLOCKS)),
        adapters_max: Some(heard(4)),
        running_adapters: Some(Arc::new(running)),
        process_start: None,
        prompt_tokens: Some(heard(1_000_000)),
        generation_tokens: Some(heard(100_000)),
    }
}

fn heard<T>(value: T) -> Reading<T> {
    Reading { value, heard: Duration::ZERO }
}

fn hear(signals: &mut Signals, now: Duration) {
    for reading in [&mut signals.waiting, &mut signals.running].into_iter().flatten() {
        reading.heard = now;
    }
    if let Some(reading) = &mut signals.kv_usage {
        reading.heard = now;
    }
}
