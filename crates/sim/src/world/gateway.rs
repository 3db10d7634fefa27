//! A gateway in a world: the deciding code of the real one, told late what happens.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use scheduling::{
    Admission, AdmissionQueue, Chance, Claim, Ending, EndpointId, Entry, FlowControl,
    InferenceRequest, Ledger, Outcome, OutlierDetection, Policy, Reading, ScrapeMark, Signals,
    Slot, Unschedulable,
};

use super::{WorldConfig, blocks};
use crate::engine::Engine;
use crate::workload::Shape;

/// Bytes a token of prompt has here: what a gateway takes it for as long as nobody tells it better.
pub(super) const TOKEN_BYTES: u64 = 4;

/// What a gateway is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) shape: &'a Shape,
    /// Told by nothing else.
    pub(super) unique: u64,
    /// Endpoints that have failed it.
    pub(super) avoided: &'a [u32],
    pub(super) priority: i32,
    pub(super) flow: u64,
}

/// What its having waited means to it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Turn<'a> {
    /// Endpoints kept for those that go before it.
    pub(super) reserved: &'a [Slot],
    pub(super) overdue: bool,
}

/// What became of it.
pub(super) enum Placed {
    Sent(u32, Box<Claim>),
    Waits,
    Refused,
}

/// One gateway.
#[derive(Debug)]
pub(super) struct Gateway {
    ledger: Ledger,
    policy: Policy,
    /// Requests wait here while every endpoint would make them wait.
    holds: bool,
    turn: u64,
    seed: u64,
    slots: Vec<Slot>,
    ready: Vec<bool>,
    usable: Vec<Slot>,
    chain: Vec<u64>,
    adapters: Vec<String>,
    pub(super) waiting: AdmissionQueue<u32>,
}

impl Gateway {
    pub(super) fn new(policy: Policy, config: &WorldConfig, seed: u64) -> Gateway {
        let (endpoints, adapters) = (config.endpoints.len(), config.workload.adapters());
        let mut ledger = Ledger::default();
        let slots: Vec<Slot> = (0..endpoints)
            .map(|index| ledger.add(&EndpointId::new(format!("endpoint-{index}"))))
            .collect();
        Gateway {
            ledger,
            policy,
            holds: config.flow_control.is_on(policy),
            turn: 0,
            seed,
            usable: slots.clone(),
            ready: vec![true; endpoints],
            slots,
            chain: Vec::new(),
            waiting: AdmissionQueue::default(),
            adapters: (0..adapters).map(adapter_name).collect(),
        }
    }

    /// Places a request or lets it wait. Those that have waited longer are not passed over.
    pub(super) fn place(&mut self, asked: &Asked<'_>, live: u32, now: Duration) -> Placed {
        let entry = self.entry(asked);
        if self.holds && !self.waiting.is_empty() {
            return self.wait(live, entry);
        }
        match self.pick(asked, &Turn::default(), now) {
            Ok((endpoint, claim)) => {
                self.waiting.passed(&entry, now);
                Placed::Sent(endpoint, Box::new(claim))
            }
            Err(Unschedulable::Saturated { .. }) => self.wait(live, entry),
            Err(Unschedulable::NoEndpoints | Unschedulable::Shed) => Placed::Refused,
        }
    }

    fn wait(&mut self, live: u32, entry: Entry) -> Placed {
        if entry.priority < 0 || self.waiting.is_full(&entry, &FlowControl::default()) {
            return Placed::Refused;
        }
        self.waiting.enter(live, entry);
        Placed::Waits
    }

    /// It leaves room for others, and so is not overtaken by them.
    pub(super) fn yields(&self, asked: &Asked<'_>, now: Duration) -> bool {
        self.waiting.admission(&self.entry(asked), now) != Admission::WhenFree
    }

    fn entry(&self, asked: &Asked<'_>) -> Entry {
        let request = InferenceRequest {
            prompt_bytes: u64::from(asked.shape.prompt_tokens) * TOKEN_BYTES,
            ..InferenceRequest::default()
        };
        let tokens = self.ledger.size(&request);
        Entry { priority: asked.priority, flow: asked.flow, tokens, bytes: 0 }
    }

    /// Chooses an endpoint that is not among those to avoid.
    pub(super) fn pick(
        &mut self,
        asked: &Asked<'_>,
        turn: &Turn<'_>,
        now: Duration,
    ) -> Result<(u32, Claim), Unschedulable> {
        let Asked { shape, unique, avoided, .. } = *asked;
        let root = shape.adapter.map_or(0, |adapter| u64::from(adapter) + 1);
        self.chain.clear();
        if self.policy.reads_prefixes() {
            blocks::chain(shape, root, unique, &mut self.chain);
        }
        let admission = match self.entry(asked) {
            _ if !self.holds => Admission::Always,
            entry => self.waiting.admission(&entry, now),
        };
        let request = InferenceRequest {
            model: shape.adapter.map(|adapter| self.adapters[adapter as usize].as_str()),
            prompt_bytes: u64::from(shape.prompt_tokens) * TOKEN_BYTES,
            blocks: &self.chain,
            prefix: blocks::prefix(shape, root, unique),
            priority: asked.priority,
            flow: asked.flow,
            max_tokens: None,
            unstreamed: false,
            admission,
            reserved: turn.reserved,
            overdue: turn.overdue,
            ..InferenceRequest::default()
        };
        self.usable.clear();
        let avoided = |index: usize| avoided.iter().any(|avoided| *avoided as usize == index);
        let usable = self.slots.iter().zip(&self.ready).enumerate();
        let usable = usable.filter(|(at, (_, ready))| **ready && !avoided(*at));
        self.usable.extend(usable.map(|(_, (slot, _))| *slot));
        let chance = Chance::new(self.turn, self.seed.wrapping_add(self.turn));
        let rule = OutlierDetection::default();
        let picked = self.ledger.pick(self.policy, &request, &self.usable, &rule, now, chance);
        self.turn += 1;
        let (_, claim) = picked?;
        let chosen = self.slots.iter().position(|slot| *slot == claim.slot()).unwrap_or(0);
        Ok((u32::try_from(chosen).unwrap_or(0), claim))
    }

    pub(super) fn set_ready(&mut self, endpoint: u32, ready: bool) {
        let before = std::mem::replace(&mut self.ready[endpoint as usize], ready);
        if ready && !before {
            self.ledger.returned(self.slots[endpoint as usize]);
        }
    }

    pub(super) fn tokens(&mut self, claim: &mut Claim, now: Duration) {
        self.ledger.tokens(claim, 1, now);
    }

    pub(super) fn end(&mut self, claim: Claim, outcome: Outcome, now: Duration) {
        let complete = outcome == Outcome::Served;
        self.ledger.end(claim, Ending { complete, outcome, ..Ending::default() }, now);
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
        process_start: None,
        prompt_tokens: Some(Reading { value: metrics.prompt_tokens, heard }),
        generation_tokens: Some(Reading { value: metrics.generation_tokens, heard }),
    }
}
