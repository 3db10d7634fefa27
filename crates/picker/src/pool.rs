//! A pool: the snapshot decisions are made on, and the lock under which a claim is charged.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use scheduling::{Candidate, Chance, Cost, Decision, Policy, Reason, Signals, schedule};
use smallvec::SmallVec;

use crate::{Endpoint, Metrics, ModelSpec, PoolKey, draw::weighted, endpoint::Claim};

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
    /// [`Endpoint::sent`] when the scrape behind `signals` was sent.
    pub sent_at_scrape: u64,
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
    /// Held from reading the loads until the claim is charged, so that no two picks see one load.
    turns: Mutex<u64>,
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
    pub(crate) fn new(key: PoolKey, metrics: Arc<Metrics>, seed: u64) -> Self {
        let snapshot = ArcSwap::default();
        Self { key, metrics, snapshot, turns: Mutex::new(0), seed }
    }

    pub(crate) fn key(&self) -> &PoolKey {
        &self.key
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Decides and charges, as one: the next pick already sees this claim.
    pub(crate) fn pick(&self, now: Duration, body_bytes: u64) -> Option<Picked> {
        let mut turns = self.turns.lock();
        let snapshot = self.snapshot.load();
        let usable = usable(&snapshot.members);
        let candidates: Vec<Candidate<'_>> =
            usable.iter().map(|member| candidate(member)).collect();
        let chance = Chance::new(*turns, self.seed.wrapping_add(*turns));
        let Decision { choices, reason, costs } =
            schedule(snapshot.policy, &candidates, now, chance).ok()?;
        *turns += 1;
        let mut chosen = choices.iter().map(|&index| Arc::clone(&usable[index].endpoint));
        let claim = Claim::new(chosen.next()?, body_bytes);
        let others = chosen.collect();
        drop(turns);
        let endpoints = usable.iter().map(|member| Arc::clone(&member.endpoint));
        let considered = endpoints.zip(costs).collect();
        Some(Picked { claim, others, policy: snapshot.policy, reason, considered })
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

fn candidate(member: &Member) -> Candidate<'_> {
    let in_flight = member.endpoint.in_flight();
    let sent = member.endpoint.sent().saturating_sub(member.sent_at_scrape);
    Candidate {
        id: &member.endpoint.spec.id,
        in_flight,
        // What was sent since and has already ended is no load any more.
        sent_since_scrape: u32::try_from(sent).unwrap_or(u32::MAX).min(in_flight),
        signals: &member.signals,
    }
}
