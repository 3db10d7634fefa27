//! A pool: the snapshot decisions are made on, and the decision itself.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use openai::Operation;
use parking_lot::Mutex;
use scheduling::{
    Admission, AdmissionQueue, Chance, Cost, Decision, EndpointId, Entry, FlowControl,
    InferenceRequest, OutlierDetection, Policy, Reason, Signals, Slot, Unschedulable,
};
use smallvec::SmallVec;

use crate::{
    Delivery, Endpoint, Metrics, ModelSpec, ObjectiveSpec, PoolKey,
    absences::Absences,
    draw::weighted,
    endpoint::{Claim, SharedLedger},
    prompt::Prompt,
    waiting::{Lobby, Room},
};

/// Ports of one pool whose cluster's name is kept; a pool has one, or a few where its endpoints share a machine.
const CLUSTERS_MAX: usize = 16;
/// Of requests for which no object says another.
const PRIORITY_DEFAULT: i32 = 0;

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

/// One endpoint, and what it was last found to be.
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
    pub(crate) outlier_detection: OutlierDetection,
    pub(crate) flow_control: FlowControl,
    pub(crate) models: Arc<[ModelSpec]>,
    pub(crate) objectives: Arc<[ObjectiveSpec]>,
    pub(crate) usable: Usable,
    pub(crate) delivery: Delivery,
}

#[derive(Debug)]
pub(crate) struct Pool {
    key: PoolKey,
    metrics: Arc<Metrics>,
    pub(crate) snapshot: ArcSwap<Snapshot>,
    ledger: SharedLedger,
    /// Locked before the ledger, never after it.
    room: Room,
    lobby: Arc<Lobby>,
    turns: AtomicU64,
    seed: u64,
    /// What Envoy would call the endpoints with each port.
    clusters: Mutex<Clusters>,
    absences: Absences,
}

/// The endpoints of a decision after the first, in order.
pub(crate) type Chosen = SmallVec<[Arc<Endpoint>; scheduling::CHOICES_MAX]>;

type Clusters = SmallVec<[(u16, Arc<str>); 2]>;

/// What a pool chose for one request.
#[derive(Debug)]
pub(crate) struct Picked {
    pub(crate) claim: Claim,
    pub(crate) others: Chosen,
    pub(crate) policy: Policy,
    pub(crate) reason: Reason,
    /// The cheapest candidates and the one chosen, cheapest first.
    pub(crate) considered: Vec<(EndpointId, Cost)>,
}

impl Pool {
    pub(crate) fn new(
        key: PoolKey,
        metrics: Arc<Metrics>,
        (ledger, lobby): (SharedLedger, Arc<Lobby>),
        seed: u64,
    ) -> Self {
        let (snapshot, room) = (ArcSwap::default(), Room::default());
        let (turns, clusters) = (AtomicU64::new(0), Mutex::default());
        let absences = Absences::default();
        Self { key, metrics, snapshot, ledger, room, lobby, turns, seed, clusters, absences }
    }

    /// What Envoy would call the endpoints with this port.
    pub(crate) fn cluster(&self, port: u16) -> Arc<str> {
        let mut clusters = self.clusters.lock();
        if let Some((_, name)) = clusters.iter().find(|(known, _)| *known == port) {
            return Arc::clone(name);
        }
        let name: Arc<str> = format!("outbound|{port}||{}", self.key.service()).into();
        if clusters.len() < CLUSTERS_MAX {
            clusters.push((port, Arc::clone(&name)));
        }
        name
    }

    pub(crate) fn room(&self) -> &Room {
        &self.room
    }

    pub(crate) fn absences(&self) -> &Absences {
        &self.absences
    }

    pub(crate) fn lobby(&self) -> &Lobby {
        &self.lobby
    }

    pub(crate) fn flow_control(&self) -> FlowControl {
        self.snapshot.load().flow_control
    }

    /// Whether requests wait in the gateway while every endpoint would make them wait.
    pub(crate) fn is_late_binding(&self) -> bool {
        let snapshot = self.snapshot.load();
        snapshot.flow_control.is_on(snapshot.policy)
    }

    pub(crate) fn has_usable(&self) -> bool {
        !self.snapshot.load().usable.slots.is_empty()
    }

    /// What a request's place among those that wait hangs on.
    pub(crate) fn entry(&self, prompt: &Prompt<'_>, body_bytes: u64) -> Entry {
        let request = prompt.request(Admission::Always);
        let tokens = self.ledger.lock().size(&request);
        Entry { priority: request.priority, flow: request.flow, tokens, bytes: body_bytes }
    }

    /// When a client may ask again.
    pub(crate) fn retry_after<T>(&self, room: &AdmissionQueue<T>) -> Duration {
        let snapshot = self.snapshot.load();
        room.retry_after(|| self.ledger.lock().ending_interval(&snapshot.usable.slots))
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
    pub(crate) fn pick(
        &self,
        request: &InferenceRequest<'_>,
        operation: Option<Operation>,
        now: Duration,
    ) -> Result<Picked, Unschedulable> {
        let snapshot = self.snapshot.load();
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        let chance = Chance::new(turn, self.seed.wrapping_add(turn));
        let policy = snapshot.policy;
        let rule = &snapshot.outlier_detection;
        let absent = self.absences.of(request.model, operation, now);
        let request = &InferenceRequest { absent: &absent, ..*request };
        let usable = &snapshot.usable;
        let picked = self.ledger.lock().pick(policy, request, &usable.slots, rule, now, chance);
        let (Decision { choices, reason, costs, .. }, charge) = picked?;
        let endpoint = |index: usize| &usable.endpoints[index];
        let mut chosen = choices.iter().map(|&index| Arc::clone(endpoint(index)));
        let claim = Claim::new(chosen.next().ok_or(Unschedulable::NoEndpoints)?, charge);
        let others = chosen.collect();
        let considered = costs.into_iter().map(|(index, cost)| {
            let id = endpoint(index).spec.id.clone();
            (id, cost)
        });
        let considered = considered.collect();
        Ok(Picked { claim, others, policy, reason, considered })
    }

    /// The priority that goes with an objective's name. One that nobody has made has the usual one.
    pub(crate) fn objective(&self, name: &str) -> i32 {
        let snapshot = self.snapshot.load();
        let found = snapshot.objectives.iter().find(|objective| *objective.name == *name);
        found.map_or(PRIORITY_DEFAULT, |objective| objective.priority)
    }

    /// The model entry for a request, if the pool has one, and the name to send on.
    pub(crate) fn target_model(&self, model: &str, chance: &mut Chance) -> Target {
        let snapshot = self.snapshot.load();
        let by_name = snapshot.models.iter().find(|spec| spec.model.as_deref() == Some(model));
        let generic = || snapshot.models.iter().find(|spec| spec.model.is_none());
        let Some(spec) = by_name.or_else(generic) else { return Target::default() };
        let weights = spec.targets.iter().map(|target| target.weight);
        let name = weighted(weights, chance).map(|index| Arc::clone(&spec.targets[index].name));
        Target {
            known: spec.model.is_some(),
            priority: spec.priority,
            rewrite: name.filter(|name| **name != *model),
        }
    }
}

/// What the configuration says of a model.
pub(crate) struct Target {
    /// An object names this model.
    pub(crate) known: bool,
    pub(crate) priority: i32,
    /// The name to send on, if it is another.
    pub(crate) rewrite: Option<Arc<str>>,
}

impl Default for Target {
    fn default() -> Self {
        Self { known: false, priority: PRIORITY_DEFAULT, rewrite: None }
    }
}

/// The endpoints not known to be unready. One that was never asked counts: should it not be there, the request goes to the
/// next choice. What they say of their load is the ledger's to know.
#[derive(Debug, Default)]
pub(crate) struct Usable {
    endpoints: Vec<Arc<Endpoint>>,
    slots: Vec<Slot>,
}

impl Usable {
    pub(crate) fn of(endpoints: Vec<Arc<Endpoint>>) -> Self {
        let slots = endpoints.iter().map(|endpoint| endpoint.slot()).collect();
        Self { endpoints, slots }
    }

    #[cfg(test)]
    pub(crate) fn specs(&self) -> Vec<crate::EndpointSpec> {
        self.endpoints.iter().map(|endpoint| endpoint.spec.clone()).collect()
    }
}

impl Health {
    pub(crate) fn is_usable(self) -> bool {
        self != Self::Unready
    }
}
