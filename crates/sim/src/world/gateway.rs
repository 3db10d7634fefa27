//! A gateway in a world: the deciding code of the real one, told late what happens.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use scheduling::{
    Chance, Claim, Ending, EndpointId, InferenceRequest, Ledger, Policy, Reading, ScrapeMark,
    Signals, Slot, Unschedulable,
};

use super::blocks;
use crate::engine::Engine;
use crate::workload::Shape;

/// Bytes a token of prompt has here: what a gateway takes it for as long as nobody tells it better.
pub(super) const TOKEN_BYTES: u64 = 4;

/// One gateway.
#[derive(Debug)]
pub(super) struct Gateway {
    ledger: Ledger,
    policy: Policy,
    turn: u64,
    seed: u64,
    slots: Vec<Slot>,
    ready: Vec<bool>,
    usable: Vec<Slot>,
    chain: Vec<u64>,
    adapters: Vec<String>,
}

impl Gateway {
    pub(super) fn new(policy: Policy, endpoints: usize, adapters: u32, seed: u64) -> Gateway {
        let mut ledger = Ledger::default();
        let slots: Vec<Slot> = (0..endpoints)
            .map(|index| ledger.add(&EndpointId::new(format!("endpoint-{index}"))))
            .collect();
        Gateway {
            ledger,
            policy,
            turn: 0,
            seed,
            usable: slots.clone(),
            ready: vec![true; endpoints],
            slots,
            chain: Vec::new(),
            adapters: (0..adapters).map(adapter_name).collect(),
        }
    }

    /// Chooses an endpoint that is not among `avoided`.
    pub(super) fn pick(
        &mut self,
        shape: &Shape,
        unique: u64,
        avoided: &[u32],
        now: Duration,
    ) -> Result<(u32, Claim), Unschedulable> {
        let root = shape.adapter.map_or(0, |adapter| u64::from(adapter) + 1);
        self.chain.clear();
        if self.policy.reads_prefixes() {
            blocks::chain(shape, root, unique, &mut self.chain);
        }
        let request = InferenceRequest {
            model: shape.adapter.map(|adapter| self.adapters[adapter as usize].as_str()),
            prompt_bytes: u64::from(shape.prompt_tokens) * TOKEN_BYTES,
            blocks: &self.chain,
            prefix: blocks::prefix(shape, root, unique),
            sheddable: false,
        };
        self.usable.clear();
        let avoided = |index: usize| avoided.iter().any(|avoided| *avoided as usize == index);
        let usable = self.slots.iter().zip(&self.ready).enumerate();
        let usable = usable.filter(|(at, (_, ready))| **ready && !avoided(*at));
        self.usable.extend(usable.map(|(_, (slot, _))| *slot));
        let chance = Chance::new(self.turn, self.seed.wrapping_add(self.turn));
        let picked = self.ledger.pick(self.policy, &request, &self.usable, now, chance);
        self.turn += 1;
        let (_, claim) = picked?;
        let chosen = self.slots.iter().position(|slot| *slot == claim.slot()).unwrap_or(0);
        Ok((u32::try_from(chosen).unwrap_or(0), claim))
    }

    pub(super) fn set_ready(&mut self, endpoint: u32, ready: bool) {
        self.ready[endpoint as usize] = ready;
    }

    pub(super) fn tokens(&mut self, claim: &mut Claim, now: Duration) {
        self.ledger.tokens(claim, 1, now);
    }

    pub(super) fn end(&mut self, claim: Claim, complete: bool) {
        self.ledger.end(claim, Ending { complete, ..Ending::default() });
    }

    pub(super) fn mark(&self, endpoint: u32) -> ScrapeMark {
        self.ledger.mark(self.slots[endpoint as usize])
    }

    pub(super) fn scraped(&mut self, endpoint: u32, mark: ScrapeMark, signals: Signals) {
        self.ledger.scraped(self.slots[endpoint as usize], mark, signals);
    }
}

fn adapter_name(adapter: u32) -> String {
    format!("adapter-{adapter}")
}

/// What a scrape of this engine says, heard at this moment.
pub(super) fn signals(engine: &Engine, heard: Duration) -> Signals {
    let metrics = engine.metrics();
    let config = engine.config();
    let adapters = || -> BTreeSet<String> {
        metrics.running_adapters.iter().map(|adapter| adapter_name(adapter.0)).collect()
    };
    let reading = |value| Some(Reading { value, heard });
    Signals {
        waiting: reading(metrics.waiting_capacity + metrics.waiting_deferred),
        running: reading(metrics.running),
        kv_usage: Some(Reading { value: metrics.kv_cache_usage, heard }),
        kv_block_tokens: reading(config.profile.block_tokens),
        kv_blocks: Some(Reading { value: config.profile.blocks.into(), heard }),
        adapters_max: reading(config.max_loras),
        running_adapters: (!metrics.running_adapters.is_empty()).then(|| Arc::new(adapters())),
        prompt_tokens: Some(Reading { value: metrics.prompt_tokens, heard }),
        generation_tokens: Some(Reading { value: metrics.generation_tokens, heard }),
    }
}
