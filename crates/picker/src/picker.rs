//! `EndpointPicker`: what the process knows of pools and routes, and how requests are placed.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use openai::Envelope;
use parking_lot::Mutex;
#[cfg(test)]
use scheduling::Policy;
use scheduling::{Chance, Cost, EndpointId, Ledger, ScrapeMark, Signals};
use tokio::sync::watch;

use crate::{
    Assignment, Delivery, Desired, Endpoint, Health, Journal, Member, Metrics, OpenRecord, PoolKey,
    PoolSpec, Refusal, RequestRecord, RouteQuery, Routed, Tally,
    endpoint::SharedLedger,
    monotonic,
    pool::{Picked, Pool, Snapshot, Usable},
    prompt::Prompt,
    route::RouteTable,
    waiting::{Lobby, Placed},
    wall_clock,
};

use memory::{Known, Members, Memory, members_of};

mod memory;

/// Decisions kept for explanation.
const DECISIONS_MAX: usize = 1_000;

/// Places requests. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct EndpointPicker(Arc<Shared>);

/// The only mutator of what the picker knows; held by the controller and the datalayer.
#[derive(Clone, Debug)]
pub struct PoolWriter(Arc<Shared>);

/// Reads what the picker knows.
#[derive(Clone, Debug)]
pub struct PoolView(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    table: ArcSwap<Table>,
    memory: Mutex<Memory>,
    ledger: SharedLedger,
    lobby: Arc<Lobby>,
    /// Counts applications of a desired state.
    version: watch::Sender<u64>,
    metrics: Arc<Metrics>,
    journal: Arc<dyn Journal>,
    decisions: Mutex<VecDeque<Arc<DecisionRecord>>>,
    draws: AtomicU64,
    seed: u64,
}

#[derive(Debug, Default)]
struct Table {
    pools: BTreeMap<PoolKey, Arc<Pool>>,
    routes: RouteTable,
}

/// What a request says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// What was read of the body, if it was.
    pub envelope: Option<&'a Envelope>,
    /// The whole body.
    pub body: &'a [u8],
    /// Name of the objective it is for.
    pub objective: Option<&'a str>,
    /// Whose it is; 0 if nobody said.
    pub flow: u64,
}

/// A past decision and its candidates' costs.
#[derive(Clone, Debug)]
pub struct DecisionRecord {
    pub time: SystemTime,
    pub request_id: String,
    pub model: Option<String>,
    pub pool: PoolKey,
    pub policy: &'static str,
    pub reason: &'static str,
    /// From the request's start to the pick, its waiting included.
    pub queue: Option<Duration>,
    /// The one chosen. Another may have answered.
    pub endpoint: EndpointId,
    /// What the costs are in; those of most policies are plain numbers.
    pub cost_unit: Option<&'static str>,
    /// Cheapest first; of a large pool the cheapest [`scheduling::COSTS_MAX`], the one chosen among them in any case.
    pub candidates: Vec<(EndpointId, Cost)>,
}

impl EndpointPicker {
    /// `seed` starts every draw the picker makes; equal seeds and requests give equal picks.
    pub fn new(metrics: Arc<Metrics>, journal: Arc<dyn Journal>, seed: u64) -> Self {
        Self(Arc::new(Shared {
            table: ArcSwap::default(),
            memory: Mutex::default(),
            ledger: SharedLedger::default(),
            lobby: Arc::default(),
            version: watch::Sender::new(0),
            metrics,
            journal,
            decisions: Mutex::default(),
            draws: AtomicU64::new(0),
            seed,
        }))
    }

    pub fn writer(&self) -> PoolWriter {
        PoolWriter(Arc::clone(&self.0))
    }

    pub fn view(&self) -> PoolView {
        PoolView(Arc::clone(&self.0))
    }

    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }

    /// Starts a request's record.
    pub fn open(&self, record: RequestRecord) -> OpenRecord {
        OpenRecord::new(record, Arc::clone(&self.0.metrics), Arc::clone(&self.0.journal))
    }

    /// Finds the pool for a request.
    pub fn route(&self, query: &dyn RouteQuery) -> Result<Routed, Refusal> {
        let table = self.0.table.load();
        let routed = table.routes.route(query, self.0.chance())?;
        let target = table.pools.get(&routed.pool).cloned();
        Ok(routed.to(target))
    }

    /// Where a request goes whose pool is known without a route.
    pub fn straight_to(&self, pool: &PoolKey) -> Routed {
        let target = self.0.table.load().pools.get(pool).cloned();
        let (pool, delivery) = (pool.clone(), Delivery::default());
        let name: Arc<str> = "".into();
        let routed = Routed {
            route: Arc::clone(&name),
            rule: None,
            name,
            pool,
            timeout: None,
            delivery,
            target: None,
        };
        routed.to(target)
    }

    /// Decides where a request goes and charges it there; if it has to, it waits before. On success the record has moved
    /// into the assignment.
    ///
    /// Dropping the future gives a place among those that wait up.
    pub async fn pick(
        &self,
        routed: &Routed,
        asked: Asked<'_>,
        record: &mut OpenRecord,
    ) -> Result<Assignment, Refusal> {
        let pool = routed.target.as_ref();
        let pool = pool.ok_or_else(|| Refusal::PoolNotFound { pool: routed.pool.to_string() })?;
        let started = tokio::time::Instant::now();
        // No name is not a name to rewrite: the endpoint answers with its base model.
        let model = asked.envelope.and_then(Envelope::model);
        let model = model.filter(|model| !model.is_empty());
        let target = model.map(|name| pool.target_model(name, &mut self.0.chance()));
        let target = target.unwrap_or_default();
        let priority = asked.objective.map_or(target.priority, |name| pool.objective(name));
        let name = target.rewrite.as_deref().or(model);
        let prompt = Prompt::read(asked, name, priority, pool.policy());
        let placed = pool.place(prompt, asked.body.len() as u64, monotonic())?;
        let took = started.elapsed();
        let mut picked = match placed {
            Placed::Picked(picked) => picked,
            Placed::Waits(wait) => {
                let waited = wait.picked().await;
                if let (Err(Refusal::QueueTimeout { .. }), Some(record)) = (&waited, record.get()) {
                    record.queue = Some(record.started.elapsed());
                }
                waited?
            }
        };
        if let Some(record) = record.get() {
            record.policy = Some(picked.policy.name());
            record.reason = Some(picked.reason.name());
            record.queue = Some(record.started.elapsed());
            record.model_known = target.known;
            record.target_model = target.rewrite.as_deref().map(str::to_owned);
            self.0.metrics.picked(&picked, record, took);
            let decision = self.0.remember(&routed.pool, &mut picked, record);
            record.decision = record.explain.then_some(decision);
        }
        let Picked { claim, mut others, .. } = picked;
        others.truncate(routed.delivery.attempts_max.saturating_sub(1));
        Ok(Assignment::new(claim, others, Arc::clone(pool), target.rewrite, record.take()))
    }
}

impl PoolWriter {
    /// Makes this the desired state. What was learned of endpoints that stay is kept; requests in
    /// flight on those that leave finish.
    ///
    /// Takes its time for what is not as it was: in a large cluster, endpoints come and go one by one.
    pub fn apply(&self, desired: impl Into<Arc<Desired>>) {
        let (shared, desired) = (&self.0, desired.into());
        let mut memory = shared.memory.lock();
        let old = shared.table.load();
        let pools = desired.pools.iter().map(|spec| {
            let fresh = || {
                let metrics = Arc::clone(&shared.metrics);
                let books = (Arc::clone(&shared.ledger), Arc::clone(&shared.lobby));
                Arc::new(Pool::new(spec.key.clone(), metrics, books, shared.seed))
            };
            (spec.key.clone(), old.pools.get(&spec.key).cloned().unwrap_or_else(fresh))
        });
        let table = Table { pools: pools.collect(), routes: RouteTable::new(&desired.routes) };
        let changed = memory.change(&desired, |spec| {
            let (ledger, lobby) = (Arc::clone(&shared.ledger), Arc::clone(&shared.lobby));
            Member::new(Endpoint::new(spec.clone(), ledger, lobby))
        });
        for spec in changed.iter().map(|place| &memory.desired.pools[*place]) {
            if let Some(pool) = table.pools.get(&spec.key) {
                publish(pool, spec, &memory.members);
            }
        }
        shared.table.store(Arc::new(table));
        drop(memory);
        shared.lobby.release();
        shared.version.send_modify(|version| *version += 1);
    }

    /// Takes in what a scrape said; `mark` is [`Endpoint::mark`] from just before the scrape.
    pub fn signals(&self, id: &EndpointId, signals: Signals, mark: ScrapeMark) {
        let mut memory = self.0.memory.lock();
        let Some(Known { member, .. }) = memory.members.get_mut(id) else { return };
        member.endpoint.watched(|ledger, slot| ledger.scraped(slot, mark, signals.clone()));
        member.signals = signals;
        drop(memory);
        self.0.lobby.release();
    }

    pub fn health(&self, id: &EndpointId, health: Health) {
        let mut memory = self.0.memory.lock();
        let Some(Known { member, pools }) = memory.members.get_mut(id) else { return };
        let before = std::mem::replace(&mut member.health, health);
        if before.is_usable() == health.is_usable() {
            return;
        }
        if health.is_usable() {
            member.endpoint.watched(Ledger::returned);
        }
        let keys: Vec<PoolKey> = pools.iter().map(|(key, _)| key.clone()).collect();
        let table = self.0.table.load();
        for (pool, key) in keys.iter().filter_map(|key| Some((table.pools.get(key)?, key))) {
            publish(pool, &memory.desired.pools[memory.places[key]], &memory.members);
        }
        drop(memory);
        self.0.lobby.release();
    }

    /// Resolves when a new desired state has been applied. Dropping it loses nothing.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.version.subscribe()
    }

    pub fn view(&self) -> PoolView {
        PoolView(Arc::clone(&self.0))
    }
}

impl PoolView {
    pub fn desired(&self) -> Arc<Desired> {
        Arc::clone(&self.0.memory.lock().desired)
    }

    /// Every endpoint once.
    pub fn members(&self) -> Vec<Member> {
        let memory = self.0.memory.lock();
        let mut members: Vec<Member> =
            memory.members.values().map(|known| known.member.clone()).collect();
        drop(memory);
        members.sort_unstable_by(|a, b| a.endpoint.spec.id.cmp(&b.endpoint.spec.id));
        members
    }

    /// Every pool with its endpoints.
    pub fn pools(&self) -> Vec<(PoolKey, Vec<Member>)> {
        let memory = self.0.memory.lock();
        let members = |spec: &PoolSpec| members_of(spec, &memory.members).cloned().collect();
        memory.desired.pools.iter().map(|spec| (spec.key.clone(), members(spec))).collect()
    }

    /// Requests that wait for a pool, and what their bodies take in bytes.
    pub fn queue(&self, pool: &PoolKey) -> (usize, u64) {
        let table = self.0.table.load();
        table.pools.get(pool).map_or((0, 0), |pool| {
            let room = pool.room().lock();
            (room.len(), room.bytes())
        })
    }

    /// The latest decisions, newest first.
    pub fn decisions(&self) -> Vec<Arc<DecisionRecord>> {
        self.latest_decisions(usize::MAX)
    }

    /// So many of them at the most.
    pub fn latest_decisions(&self, limit: usize) -> Vec<Arc<DecisionRecord>> {
        self.0.decisions.lock().iter().rev().take(limit).cloned().collect()
    }

    /// What was counted since the start.
    pub fn tally(&self) -> Tally {
        self.0.metrics.tally()
    }

    /// The Prometheus page.
    pub fn metrics_text(&self) -> String {
        let pools = self.pools();
        let waiting: Vec<_> = pools.iter().map(|(key, _)| (key.label(), self.queue(key))).collect();
        self.0.metrics.render(&pools, &waiting)
    }
}

#[cfg(test)]
impl EndpointPicker {
    pub(crate) fn lobby(&self) -> &Lobby {
        &self.0.lobby
    }

    /// A pool's policy, and the endpoints it sends requests to.
    pub(crate) fn usable(&self, pool: &PoolKey) -> (Policy, Vec<crate::EndpointSpec>) {
        let snapshot = self.0.table.load().pools[pool].snapshot.load_full();
        (snapshot.policy, snapshot.usable.specs())
    }
}

impl Shared {
    fn chance(&self) -> Chance {
        let draw = self.draws.fetch_add(1, Ordering::Relaxed);
        // An odd constant keeps these seeds apart from the pools', which count up by one.
        Chance::new(draw, self.seed ^ draw.wrapping_mul(0xD134_2543_DE82_EF95))
    }

    fn remember(
        &self,
        pool: &PoolKey,
        picked: &mut Picked,
        request: &RequestRecord,
    ) -> Arc<DecisionRecord> {
        let record = DecisionRecord {
            time: wall_clock(),
            request_id: request.request_id.clone(),
            model: request.request_model.clone(),
            pool: pool.clone(),
            policy: picked.policy.name(),
            reason: picked.reason.name(),
            queue: request.queue,
            endpoint: picked.claim.endpoint.spec.id.clone(),
            cost_unit: picked.policy.cost_unit(),
            candidates: std::mem::take(&mut picked.considered),
        };
        let record = Arc::new(record);
        let mut decisions = self.decisions.lock();
        if decisions.len() == DECISIONS_MAX {
            decisions.pop_front();
        }
        decisions.push_back(Arc::clone(&record));
        record
    }
}

impl Member {
    fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint: Arc::new(endpoint),
            health: Health::default(),
            signals: Signals::default(),
        }
    }

    /// Time since the endpoint last told its load.
    pub fn scrape_age(&self, now: Duration) -> Option<Duration> {
        Some(now.saturating_sub(self.signals.running?.heard))
    }
}

fn publish(pool: &Pool, spec: &PoolSpec, members: &Members) {
    let usable = members_of(spec, members).filter(|member| member.health.is_usable());
    let usable = usable.map(|member| Arc::clone(&member.endpoint)).collect();
    pool.snapshot.store(Arc::new(Snapshot {
        policy: spec.policy,
        outlier_detection: spec.outlier_detection,
        flow_control: spec.flow_control,
        models: spec.models.as_slice().into(),
        objectives: spec.objectives.as_slice().into(),
        usable: Usable::of(usable),
        delivery: spec.delivery,
    }));
    pool.absences().forget();
}

#[cfg(test)]
pub(crate) mod tests;
