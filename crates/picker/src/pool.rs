//! A pool: the snapshot decisions are made on, and the decision itself.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use scheduling::{Chance, Cost, Decision, InferenceRequest, Policy, Reason, Signals, Slot};
use smallvec::SmallVec;

use crate::{
    Endpoint, Metrics, ModelSpec, PoolKey,
    draw::weighted,
    endpoint::{Claim, SharedLedger},
};

/// Whether an endpoint can be used, as far as is known.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Health {
    /// Not asked yet. Used like a ready one.
    #[default]
    Unknown,
    Ready,
    /// It refused, failed or did not answer its health check.
    Unready,
}

/// One endpoint in a snapshot.
#[derive(Clone, Debug)]
pub struct Member {
    pub endpoint: Arc<Endpoint>,
    pub health: Health,
    pub signals: Signals,
}

/// What a pool is at one moment. Never changed, only replaced.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) policy: Policy,
    pub(crate) models: Arc<[ModelSpec]>,
    pub(crate) members: Vec<Member>,
}

#[derive(Debug)]
pub(crate) struct Pool {
    key: PoolKey,
    metrics: Arc<Metrics>,
    pub(crate) snapshot: ArcSwap<Snapshot>,
    ledger: SharedLedger,
    turns: AtomicU64,
    seed: u64,
}

/// The endpoints of a decision after the first, in order.
pub(crate) type Chosen = SmallVec<[Arc<Endpoint>; scheduling::CHOICES_MAX]>;

/// What a pool chose for one request.
pub(crate) struct Picked {
    pub(crate) claim: Claim,
    pub(crate) others: Chosen,
    pub(crate) policy: Policy,
    pub(crate) reason: Reason,
    pub(crate) considered: Vec<(Arc<Endpoint>, Cost)>,
}

impl Pool {
    pub(crate) fn new(
        key: PoolKey,
        metrics: Arc<Metrics>,
        ledger: SharedLedger,
        seed: u64,
    ) -> Self {
        let snapshot = ArcSwap::default();
        Self { key, metrics, snapshot, ledger, turns: AtomicU64::new(0), seed }
    }

    pub(crate) fn key(&self) -> &PoolKey {
        &self.key
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(crate) fn policy(&self) -> Policy {
        self.snapshot.load().policy
    }

    /// Decides and charges, as one: the next pick already sees this claim.
    pub(crate) fn pick(&self, request: &InferenceRequest<'_>, now: Duration) -> Option<Picked> {
        let snapshot = self.snapshot.load();
        let usable = usable(&snapshot.members);
        let slots: SmallVec<[Slot; 16]> =
            usable.iter().map(|member| member.endpoint.slot()).collect();
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        let chance = Chance::new(turn, self.seed.wrapping_add(turn));
        let policy = snapshot.policy;
        let picked = self.ledger.lock().pick(policy, request, &slots, now, chance);
        let (Decision { choices, reason, costs }, charge) = picked.ok()?;
        let mut chosen = choices.iter().map(|&index| Arc::clone(&usable[index].endpoint));
        let claim = Claim::new(chosen.next()?, charge);
        let others = chosen.collect();
        let endpoints = usable.iter().map(|member| Arc::clone(&member.endpoint));
        let considered = endpoints.zip(costs).collect();
        Some(Picked { claim, others, policy, reason, considered })
    }

    /// The model entry for a request, if the pool has one, and the name to send on.
    pub(crate) fn target_model(&self, model: &str, chance: &mut Chance) -> Target {
        let snapshot = self.snapshot.load();
        let by_name = snapshot.models.iter().find(|spec| spec.model.as_deref() == Some(model));
        let generic = || snapshot.models.iter().find(|spec| spec.model.is_none());
        let Some(spec) = by_name.or_else(generic) else { return Target::default() };
        let weights = spec.targets.iter().map(|target| target.weight);
        let name = weighted(weights, chance).map(|index| Arc::clone(&spec.targets[index].name));
        Target { known: spec.model.is_some(), rewrite: name.filter(|name| **name != *model) }
    }
}

/// What the configuration says of a model.
#[derive(Default)]
pub(crate) struct Target {
    /// An object names this model.
    pub(crate) known: bool,
    /// The name to send on, if it is another.
    pub(crate) rewrite: Option<Arc<str>>,
}

/// The members not known to be unready. One that was never asked counts: should it not be there,
/// the request goes to the next choice.
fn usable(members: &[Member]) -> Vec<&Member> {
    members.iter().filter(|member| member.health != Health::Unready).collect()
}
