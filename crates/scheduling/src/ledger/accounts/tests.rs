use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{
    COSTS_MAX, Candidates as _, Chance, Ending, EndpointId, InferenceRequest, Ledger, Outcome,
    OutlierDetection, Policy, Reading, Signals, hash_blocks, outline::Ask,
};

const ENDPOINTS: usize = COSTS_MAX + 4;

/// What may happen; numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    Pick { among: usize, model: usize, blocks: usize, unstreamed: bool },
    Tokens(usize, u32),
    End(usize, bool),
    Advance(usize, usize),
    Scraped(usize, u32),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let at = 0usize..ENDPOINTS;
    let pick = (1..ENDPOINTS, 0usize..3, 0usize..9, any::<bool>());
    let step = prop_oneof![
        8 => pick.prop_map(|(among, model, blocks, unstreamed)| {
            Step::Pick { among, model, blocks, unstreamed }
        }),
        6 => (at.clone(), 0u32..300).prop_map(|(claim, tokens)| Step::Tokens(claim, tokens)),
        3 => (at.clone(), any::<bool>()).prop_map(|(claim, whole)| Step::End(claim, whole)),
        1 => (at.clone(), at.clone()).prop_map(|(claim, to)| Step::Advance(claim, to)),
        3 => (at, 0u32..9).prop_map(|(slot, running)| Step::Scraped(slot, running)),
        2 => (0u64..40).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 0..100)
}

/// A pool larger than those whose costs are all told.
struct Fleet {
    ledger: Ledger,
    slots: Vec<Slot>,
    claims: Vec<Claim>,
    now: Duration,
    turn: u64,
}

fn name(at: usize) -> EndpointId {
    EndpointId::new(format!("10.0.0.{at}:8000"))
}

fn page(running: u32, heard: Duration) -> Signals {
    let adapters = (0..running % 3).map(|n| format!("adapter-{n}")).collect();
    Signals {
        waiting: Some(Reading { value: running / 2, heard }),
        running: Some(Reading { value: running, heard }),
        kv_usage: Some(Reading { value: f64::from(running) / 9.0, heard }),
        kv_block_tokens: Some(Reading { value: 16, heard }),
        kv_blocks: Some(Reading { value: 1000, heard }),
        adapters_max: Some(Reading { value: 1 + running, heard }),
        running_adapters: Some(Arc::new(adapters)),
        ..Signals::default()
    }
}

impl Fleet {
    fn new() -> Self {
        let mut ledger = Ledger::default();
        let slots = (0..ENDPOINTS).map(|at| ledger.add(&name(at))).collect();
        Self { ledger, slots, claims: Vec::new(), now: Duration::from_secs(100), turn: 0 }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Pick { among, model, blocks, unstreamed } => {
                self.pick(among, model, blocks, unstreamed);
            }
            Step::Tokens(at, tokens) => {
                let len = self.claims.len().max(1);
                let claim = self.claims.get_mut(at % len).filter(|claim| claim.due.is_none());
                if let Some(claim) = claim {
                    self.ledger.tokens(claim, tokens, self.now);
                }
            }
            Step::End(at, served) if !self.claims.is_empty() => {
                let claim = self.claims.swap_remove(at % self.claims.len());
                let outcome = if served { Outcome::Served } else { Outcome::Failed };
                let ending = Ending { complete: served, outcome, ..Ending::default() };
                self.ledger.end(claim, ending, self.now);
            }
            Step::Advance(at, to) if !self.claims.is_empty() => {
                let claim = self.claims.swap_remove(at % self.claims.len());
                let to = self.slots[to];
                self.claims.push(self.ledger.advance(claim, to, Outcome::Failed, self.now));
            }
            Step::Scraped(at, running) => {
                let mark = self.ledger.mark(self.slots[at]);
                self.ledger.scraped(self.slots[at], mark, page(running, self.now));
            }
            Step::Wait(millis) => self.now += Duration::from_millis(millis),
            Step::End(..) | Step::Advance(..) => {}
        }
    }

    fn pick(&mut self, among: usize, model: usize, blocks: usize, unstreamed: bool) {
        self.turn += 1;
        let mut chain = Vec::new();
        hash_blocks(0, &[&vec![1; blocks * crate::BLOCK_BYTES]], &mut chain);
        let request = InferenceRequest {
            model: Some(["base", "adapter-0", "adapter-1"][model]),
            prompt_bytes: 3000,
            blocks: &chain,
            unstreamed,
            ..InferenceRequest::default()
        };
        // All of them, or a smaller pool beside it.
        let usable = if among.is_multiple_of(4) { &self.slots[..among] } else { &self.slots[..] };
        let (rule, chance) = (OutlierDetection::default(), Chance::new(self.turn, self.turn));
        let picked = self.ledger.pick(Policy::Predicted, &request, usable, &rule, self.now, chance);
        self.claims.push(picked.unwrap().1);
        self.verify(&request);
    }

    /// Compares each outline with what its account says, as of the time when they were compared.
    fn verify(&mut self, request: &InferenceRequest<'_>) {
        let adapter = self.ledger.adapter(request);
        self.ledger.find_prefixes(request.blocks);
        let common = self.ledger.common(&self.slots, self.now);
        let asked = (request, adapter);
        let offer = self.ledger.offer(Policy::Predicted, asked, &self.slots, &common, common.at);
        for index in 0..offer.len() {
            let candidate = offer.get(index);
            let (outline, ask) = offer.outline(index);
            let expected = Outline::of(&candidate.load, &candidate.speed, candidate.in_flight);
            assert_eq!(outline, expected);
            let expected = Ask::of(&candidate);
            let pressure = if adapter.is_some() { expected.adapter_pressure } else { 0.0 };
            assert_eq!(ask, Ask { adapter_pressure: pressure, ..expected });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_an_outline_is_what_its_account_comes_to(steps in steps()) {
        let mut fleet = Fleet::new();
        for step in &steps {
            fleet.step(step);
        }
        fleet.step(&Step::Pick { among: 1, model: 1, blocks: 4, unstreamed: false });
    }
}

#[test]
fn an_outline_is_not_believed_for_longer_than_a_comparison() {
    let mut fleet = Fleet::new();
    let request = InferenceRequest { prompt_bytes: 3000, ..InferenceRequest::default() };
    for at in 0..ENDPOINTS {
        let busy = if at == 0 { 8 } else { 0 };
        fleet.step(&Step::Scraped(at, busy));
    }
    fleet.verify(&request);
    // The pages have become too old.
    fleet.now += Duration::from_mins(1);
    fleet.verify(&request);
    let common = fleet.ledger.common(&fleet.slots, fleet.now);
    let outline = fleet.ledger.accounts.outline(fleet.slots[0], &common);
    assert!(outline.in_flight.abs() < 1e-9, "{outline:?}");
}
