//! What a decision costs: `cargo bench -p scheduling`.
//!
//! The pool is as in service: metrics read, requests in flight, speeds learned, prefix indexes full of prompts that share
//! their beginnings, ten adapters. The request has a prompt of 8 KiB that begins like others. What is measured hashes the
//! prompt, picks and charges.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    hint::black_box,
    sync::Arc,
    time::Duration,
};

use divan::{Bencher, counter::BytesCount};
use scheduling::{
    BLOCK_BYTES, Chance, Claim, Ending, EndpointId, InferenceRequest, Ledger, Outcome,
    OutlierDetection, Policy, Reading, ScrapeMark, Signals, Slot, hash_blocks,
};

const PROMPT_BYTES: usize = 8 * 1024;
/// Beginnings that prompts share.
const GROUPS: u64 = 64;
/// Of a prompt, its beginning.
const SHARED_BYTES: usize = 6 * 1024;
const ADAPTERS: u64 = 10;
const IN_FLIGHT_EACH: usize = 24;

fn main() {
    divan::main();
}

struct Pool {
    ledger: Ledger,
    slots: Vec<Slot>,
    rule: OutlierDetection,
    now: Duration,
    turn: u64,
    blocks: Vec<u64>,
}

fn prompt(group: u64, own: u64) -> Vec<u8> {
    let mut random = Random(group);
    let mut prompt: Vec<u8> = (0..SHARED_BYTES).map(|_| random.byte()).collect();
    let mut random = Random(own.wrapping_mul(77) ^ group);
    prompt.extend((SHARED_BYTES..PROMPT_BYTES).map(|_| random.byte()));
    prompt
}

/// Enough for text that is not all the same.
struct Random(u64);

impl Random {
    fn byte(&mut self) -> u8 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        b'a' + u8::try_from((self.0 >> 59) % 26).unwrap_or(0)
    }
}

fn adapter(number: u64) -> String {
    format!("adapter-{number}")
}

impl Pool {
    fn new(endpoints: usize) -> Self {
        let mut ledger = Ledger::default();
        let slots: Vec<Slot> = (0..endpoints)
            .map(|index| {
                ledger.add(&EndpointId::new(format!("10.0.{}.{}:8000", index / 250, index % 250)))
            })
            .collect();
        let now = Duration::from_secs(1_000);
        let adapters: Arc<BTreeSet<String>> = Arc::new((0..ADAPTERS).map(adapter).collect());
        for slot in &slots {
            ledger.scraped(*slot, ScrapeMark::NOTHING, signals(now, &adapters));
        }
        let rule = OutlierDetection::default();
        let mut pool = Self { ledger, slots, rule, now, turn: 0, blocks: Vec::new() };
        pool.fill();
        pool
    }

    /// Serves some requests to the end, and leaves others in flight.
    fn fill(&mut self) {
        let mut flying: Vec<Claim> = Vec::new();
        for number in 0..(self.slots.len() * IN_FLIGHT_EACH * 2) as u64 {
            let text = prompt(number % GROUPS, number);
            let mut claim = self.pick(Policy::Predicted, &text, &adapter(number % ADAPTERS));
            for token in 0..4 {
                self.now += Duration::from_millis(if token == 0 { 3 } else { 1 });
                self.ledger.tokens(&mut claim, 1, self.now);
            }
            flying.push(claim);
            if flying.len() > self.slots.len() * IN_FLIGHT_EACH {
                let claim = flying.swap_remove(usize::try_from(number).unwrap_or(0) % flying.len());
                self.end(claim);
            }
        }
        drop(flying);
        let adapters: Arc<BTreeSet<String>> = Arc::new((0..ADAPTERS).map(adapter).collect());
        for slot in self.slots.clone() {
            let mark = self.ledger.mark(slot);
            self.ledger.scraped(slot, mark, signals(self.now, &adapters));
        }
    }

    fn pick(&mut self, policy: Policy, text: &[u8], adapter: &str) -> Claim {
        let mut blocks = std::mem::take(&mut self.blocks);
        hash_blocks(7, text, &mut blocks);
        let request = InferenceRequest {
            model: Some(adapter),
            prompt_bytes: text.len() as u64,
            blocks: &blocks,
            ..InferenceRequest::default()
        };
        self.turn += 1;
        let chance = Chance::new(self.turn, self.turn);
        let picked = self.ledger.pick(policy, &request, &self.slots, &self.rule, self.now, chance);
        let (decision, claim) = picked.expect("somebody is there");
        black_box(&decision);
        self.blocks = blocks;
        claim
    }

    fn end(&mut self, claim: Claim) {
        let ending = Ending {
            complete: true,
            outcome: Outcome::Served,
            prompt_tokens: Some(2_000),
            output_tokens: Some(150),
        };
        self.ledger.end(claim, ending, self.now);
    }
}

fn signals(heard: Duration, adapters: &Arc<BTreeSet<String>>) -> Signals {
    Signals {
        waiting: Some(Reading { value: 0, heard }),
        running: Some(Reading { value: 24, heard }),
        kv_usage: Some(Reading { value: 0.6, heard }),
        kv_block_tokens: Some(Reading { value: 16, heard }),
        kv_blocks: Some(Reading { value: 7_000, heard }),
        adapters_max: Some(Reading { value: 4, heard }),
        running_adapters: Some(Arc::clone(adapters)),
        prompt_tokens: Some(Reading { value: 1, heard }),
        generation_tokens: Some(Reading { value: 1, heard }),
    }
}

#[divan::bench(args = [8, 64, 1_000])]
fn predicted(bencher: Bencher<'_, '_>, endpoints: usize) {
    decide(bencher, endpoints, Policy::Predicted);
}

#[divan::bench(args = [8, 64, 1_000])]
fn round_robin(bencher: Bencher<'_, '_>, endpoints: usize) {
    decide(bencher, endpoints, Policy::RoundRobin);
}

fn decide(bencher: Bencher<'_, '_>, endpoints: usize, policy: Policy) {
    let pool = Pool::new(endpoints);
    let texts: Vec<Vec<u8>> = (0..256).map(|own| prompt(own % GROUPS, own + 1_000_000)).collect();
    let mut turn = 0;
    let held: Cell<Option<Claim>> = Cell::new(None);
    let pool = RefCell::new(pool);
    // The one before ends outside of what is measured.
    let input = || {
        if let Some(claim) = held.take() {
            pool.borrow_mut().end(claim);
        }
    };
    bencher.with_inputs(input).bench_local_values(|()| {
        turn += 1;
        held.set(Some(pool.borrow_mut().pick(policy, &texts[turn % texts.len()], "adapter-3")));
    });
}

#[divan::bench]
fn hash(bencher: Bencher<'_, '_>) {
    let text = prompt(1, 2);
    let mut blocks = Vec::with_capacity(PROMPT_BYTES / BLOCK_BYTES);
    bencher
        .counter(BytesCount::new(PROMPT_BYTES))
        .bench_local(|| hash_blocks(black_box(7), black_box(&text), &mut blocks));
}

#[divan::bench]
fn token(bencher: Bencher<'_, '_>) {
    let mut pool = Pool::new(8);
    let mut claim = pool.pick(Policy::Predicted, &prompt(1, 2), "adapter-3");
    bencher.bench_local(|| {
        pool.now += Duration::from_millis(30);
        pool.ledger.tokens(&mut claim, 1, pool.now);
    });
}
