//! The loop over events, and what becomes of a request.

use std::time::Duration;

use scheduling::{Claim, Outcome, Unschedulable};

use super::endpoint::Endpoint;
use super::events::{Event, Events, Slab};
use super::figures::Figures;
use super::floor::Floor;
use super::gateway::{Asked, Gateway, Placed, Turn};
use super::oracle::Oracle;
use super::scrape::Scrape;
use super::{Class, Placement, WorldConfig};
use crate::comparison::variation;
use crate::distribution::precise;
use crate::tokens::mix;
use crate::workload::{Arrival, Arrivals, Pace, Shape};

/// Requests in the system at most. A run that gets there will never empty it again and is stopped.
const LIVE_MAX: usize = 200_000;
/// Between two looks at the state of the pool.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// Times a request is sent again before it counts as refused.
const RETRIES_MAX: usize = 3;
/// Ended requests between two words of progress.
const PROGRESS_EVERY: u64 = 1_000;

/// A request on its way.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) shape: Shape,
    /// Its number in the order of arrival, from 0.
    pub(super) number: u64,
    pub(super) endpoint: u32,
    /// Tokens the endpoint has given, which the gateway may not have yet.
    pub(super) given: u32,
    /// Prompt tokens its endpoint had in its cache when it was sent there; only the oracle knows.
    pub(super) cached: u32,
    arrived: Duration,
    gateway: u32,
    claim: Option<Claim>,
    first_token: Option<Duration>,
    heard: u32,
    avoided: Vec<u32>,
    /// Who sends it.
    class: Option<Class>,
    /// The figures are about it.
    counted: bool,
    /// Its endpoint can never run it, which is no failure of the endpoint.
    pub(super) unfit: bool,
}

impl Live {
    fn asked(&self) -> Asked<'_> {
        let (priority, flow) = self.class.map_or((0, 0), |class| (class.priority, class.flow));
        Asked { shape: &self.shape, unique: self.number, avoided: &self.avoided, priority, flow }
    }
}

pub(super) struct Run<'a> {
    pub(super) config: &'a WorldConfig,
    placement: Placement,
    pub(super) now: Duration,
    pub(super) events: Events,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) gateways: Vec<Gateway>,
    pub(super) oracle: Oracle,
    pub(super) live: Slab<Live>,
    pub(super) scrapes: Slab<Scrape>,
    /// What steps did, on its way to the gateways: requests, and whether that was their last token.
    pub(super) batches: Slab<Vec<(u32, bool)>>,
    pub(super) spare: Vec<Vec<(u32, bool)>>,
    arrivals: Arrivals,
    next: Option<Shape>,
    /// A request of the next stage, which begins when nothing of this one is left.
    held: Option<Arrival>,
    stage: usize,
    stage_began: Duration,
    rng: fastrand::Rng,
    /// Requests that have come; in a closed loop, requests that have come or are about to.
    taken: u64,
    asked: u64,
    ended: u64,
    exhausted: bool,
    floor: Floor,
    pub(super) figures: Figures,
    first_counted: Option<Duration>,
    last_end: Duration,
    cov: (f64, u64),
    pub(super) faults_on: u32,
}

impl<'a> Run<'a> {
    pub(super) fn new(config: &'a WorldConfig, placement: Placement, seed: u64) -> Run<'a> {
        let count = config.endpoints.len();
        let gateways = match placement {
            Placement::Policy(policy) => (0..u64::from(config.gateways))
                .map(|index| Gateway::new(policy, config, mix(seed, index + 11)))
                .collect(),
            Placement::Oracle => Vec::new(),
        };
        let figures = Figures::new(count);
        let mut run = Run {
            config,
            placement,
            now: Duration::ZERO,
            events: Events::default(),
            endpoints: config.endpoints.iter().map(Endpoint::new).collect(),
            gateways,
            oracle: Oracle::default(),
            live: Slab::default(),
            scrapes: Slab::default(),
            batches: Slab::default(),
            spare: Vec::new(),
            arrivals: config.workload.arrivals(&config.pace, seed),
            next: None,
            held: None,
            stage: 0,
            stage_began: Duration::ZERO,
            // Not of the policy: every policy meets the same requests at the same gateways and scrape phases.
            rng: fastrand::Rng::with_seed(mix(seed, 0x3012)),
            taken: 0,
            asked: 0,
            ended: 0,
            exhausted: false,
            floor: Floor::new(&config.endpoints),
            figures,
            first_counted: None,
            last_end: Duration::ZERO,
            cov: (0.0, 0),
            faults_on: 0,
        };
        run.plan();
        run
    }

    fn plan(&mut self) {
        if let Pace::Closed(users) = self.config.pace {
            self.asked = u64::from(users).min(self.config.requests);
            for _ in 0..self.asked {
                self.events.at(Duration::ZERO, Event::Arrive);
            }
        } else {
            self.plan_arrival();
            // The first stage may have no request.
            self.begin_stage();
        }
        for gateway in 0..self.gateways.len() {
            for endpoint in 0..self.endpoints.len() {
                let phase = if self.config.scrapes_in_step { 0.0 } else { self.rng.f64() };
                self.plan_scrapes(gateway, endpoint, phase);
            }
        }
        self.plan_faults();
        self.events.at(SAMPLE_EVERY, Event::Sample);
    }

    /// In an open loop: draws the next request and plans its arrival.
    fn plan_arrival(&mut self) {
        let left = self.taken < self.config.requests;
        match self.arrivals.next().filter(|_| left) {
            Some(arrival) if arrival.stage == self.stage => {
                self.next = Some(arrival.shape);
                self.events.at(self.stage_began + arrival.at, Event::Arrive);
            }
            Some(arrival) => self.held = Some(arrival),
            None => self.exhausted = true,
        }
    }

    /// The next stage, if the one before is over.
    fn begin_stage(&mut self) {
        if self.live.len() == 0
            && self.next.is_none()
            && let Some(arrival) = self.held.take()
        {
            (self.stage, self.stage_began) = (arrival.stage, self.now);
            self.events.at(self.now + arrival.at, Event::Arrive);
            self.next = Some(arrival.shape);
        }
    }

    pub(super) fn finish(mut self, progress: &mut dyn FnMut(u64) -> bool) -> Figures {
        let mut told = 0;
        while let Some((when, event)) = self.events.next() {
            self.now = when;
            self.happens(event);
            if self.exhausted && self.live.len() == 0 {
                break;
            }
            // Requests that nothing will ever happen to: no endpoint can take them. One that waits in a gateway may go when
            // the gateway hears that others have gone.
            let held = self.gateways.iter().any(|gateway| !gateway.waiting.is_empty());
            let mut goes_on = self.live.len() < LIVE_MAX && (self.events.doings > 0 || held);
            if self.ended >= told + PROGRESS_EVERY {
                told = self.ended;
                goes_on = progress(self.ended) && goes_on;
            }
            if !goes_on {
                self.figures.stopped = true;
                break;
            }
        }
        self.summed_up()
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Arrive => self.arrive(),
            Event::Deliver { live, endpoint } => self.deliver(live, endpoint),
            Event::StepEnd { endpoint, life } => self.step_end(endpoint, life),
            Event::Heard { batch } => self.heard(batch),
            Event::Lost { live } => self.lost(live),
            Event::ScrapeSent { gateway, endpoint } => self.scrape_sent(gateway, endpoint),
            Event::ScrapeRead { scrape } => self.scrape_read(scrape),
            Event::ScrapeHeard { scrape } => self.scrape_heard(scrape),
            Event::Fault { index, edge } => self.fault(index, edge),
            Event::Sample => self.sample(),
        }
    }

    fn arrive(&mut self) {
        let shape = if let Pace::Closed(_) = self.config.pace {
            self.arrivals.next().map(|arrival| arrival.shape)
        } else {
            self.next.take()
        };
        let Some(shape) = shape else { return };
        let number = self.taken;
        self.taken += 1;
        if let Pace::Closed(_) = self.config.pace {
            self.exhausted = self.taken >= self.config.requests;
        } else {
            self.plan_arrival();
        }
        if self.exhausted {
            self.figures.backlog = u64::try_from(self.live.len()).unwrap_or(u64::MAX);
        }
        let floor = self.floor.seconds(&shape);
        if number >= self.config.warmup {
            if self.first_counted.is_none() {
                self.first_counted = Some(self.now);
                self.forget_warmup();
            }
            self.figures.floor += floor;
        }
        let gateway = self.rng.u32(0..self.config.gateways.max(1));
        let class = self.draw_class();
        let counted = number >= self.config.warmup && class.is_none_or(|class| class.counted);
        let live = self.live.add(Live {
            shape,
            number,
            endpoint: 0,
            given: 0,
            cached: 0,
            arrived: self.now,
            gateway,
            claim: None,
            first_token: None,
            heard: 0,
            avoided: Vec::new(),
            class,
            counted,
            unfit: false,
        });
        self.place(live);
    }

    fn draw_class(&mut self) -> Option<Class> {
        let classes = &self.config.classes;
        let sum: f64 = classes.iter().map(|class| class.weight).sum();
        let mut at = if classes.is_empty() { 0.0 } else { self.rng.f64() * sum };
        classes.iter().copied().find(|class| {
            at -= class.weight;
            at < 0.0
        })
    }

    /// What was counted so far does not count.
    fn forget_warmup(&mut self) {
        for endpoint in &mut self.endpoints {
            endpoint.count_from_here();
        }
        let figures = &mut self.figures;
        (figures.preemptions, figures.cut, figures.retries) = (0, 0, 0);
        figures.sent.fill(0);
    }

    /// Finds an endpoint for a request, or lets it wait, or refuses it.
    fn place(&mut self, live: u32) {
        if self.placement == Placement::Oracle {
            if !self.some_endpoint_takes(live) {
                self.refuse(live);
                return;
            }
            self.oracle.waiting.push_back(live);
            self.consult_oracle();
            return;
        }
        let Some(request) = self.live.get(live) else { return };
        let gateway = &mut self.gateways[request.gateway as usize];
        match gateway.place(&request.asked(), live, self.now) {
            Placed::Sent(endpoint, claim) => {
                request.claim = Some(*claim);
                self.send(live, endpoint);
            }
            Placed::Waits => {
                let gateway = request.gateway;
                self.release(gateway);
            }
            Placed::Refused => self.refuse(live),
        }
    }

    /// Lets requests go that wait in a gateway, as far as there is room.
    pub(super) fn release(&mut self, gateway: u32) {
        'next: loop {
            // The oracle has its own queue and no gateway.
            let Some(gate) = self.gateways.get_mut(gateway as usize) else { return };
            if gate.waiting.is_empty() {
                return;
            }
            let next = gate.waiting.next();
            let (mut overtaken, mut reserved) = (Vec::new(), Vec::new());
            for ticket in &next {
                let Some(&live) = gate.waiting.get(*ticket) else { continue };
                let Some(request) = self.live.get(live) else { continue };
                let overdue = gate.waiting.is_overdue(*ticket);
                let turn = Turn { reserved: &reserved, overdue };
                match gate.pick(&request.asked(), &turn, self.now) {
                    Ok((endpoint, claim)) => {
                        gate.waiting.go(*ticket, &overtaken, self.now);
                        request.claim = Some(claim);
                        self.send(live, endpoint);
                        continue 'next;
                    }
                    Err(Unschedulable::Saturated { soonest }) if overdue => {
                        reserved.extend(soonest);
                    }
                    Err(Unschedulable::Saturated { .. }) => {
                        if !gate.yields(&request.asked(), self.now) {
                            overtaken.push(*ticket);
                        }
                    }
                    Err(Unschedulable::NoEndpoints | Unschedulable::Shed) => {
                        gate.waiting.leave(*ticket);
                        self.refuse(live);
                        continue 'next;
                    }
                }
            }
            return;
        }
    }

    /// Puts a request on its way to an endpoint.
    pub(super) fn send(&mut self, live: u32, endpoint: u32) {
        let Some(request) = self.live.get(live) else { return };
        request.endpoint = endpoint;
        self.figures.sent[endpoint as usize] += 1;
        if self.faults_on > 0 {
            self.figures.sent_during_faults += 1;
            let faulty = u64::from(self.endpoints[endpoint as usize].faults > 0);
            self.figures.sent_while_faulty[endpoint as usize] += faulty;
        }
        self.endpoints[endpoint as usize].on.push(live);
        self.events.at(self.now + self.config.network_delay, Event::Deliver { live, endpoint });
    }

    /// Tokens of one step arrive at the gateways.
    fn heard(&mut self, batch: u32) {
        let Some(mut tokens) = self.batches.take(batch) else { return };
        for (live, last) in tokens.drain(..) {
            let Some(request) = self.live.get(live) else { continue };
            request.heard += 1;
            if let Some(claim) = &mut request.claim {
                self.gateways[request.gateway as usize].tokens(claim, self.now);
            }
            let first = request.first_token.is_none();
            request.first_token.get_or_insert(self.now);
            let gateway = request.gateway;
            if last {
                self.complete(live);
            } else if first {
                // Its prompt is not in the way of others any more.
                self.release(gateway);
            }
        }
        self.spare.push(tokens);
    }

    /// A request is off its endpoint: another may have the room.
    fn give_back(&mut self, gateway: u32, claim: Option<Claim>, outcome: Outcome) {
        if let Some(claim) = claim {
            self.gateways[gateway as usize].end(claim, outcome, self.now);
            self.release(gateway);
        }
    }

    fn complete(&mut self, live: u32) {
        let Some(mut request) = self.live.take(live) else { return };
        self.give_back(request.gateway, request.claim.take(), Outcome::Served);
        if request.counted {
            let first = request.first_token.unwrap_or(self.now);
            self.figures.completed += 1;
            self.figures.output_tokens += u64::from(request.shape.output_tokens);
            self.figures.ttft.record(first.saturating_sub(request.arrived).as_secs_f64());
            self.figures.e2e.record(self.now.saturating_sub(request.arrived).as_secs_f64());
            if request.heard > 1 {
                let decode = self.now.saturating_sub(first).as_secs_f64();
                self.figures.tpot.record(decode / f64::from(request.heard - 1));
            }
        }
        self.gone();
    }

    /// The endpoint refused the request or died with it: sent again where it is not, unless something of the answer has
    /// already been passed on.
    fn lost(&mut self, live: u32) {
        let Some(request) = self.live.get(live) else { return };
        let outcome = if request.unfit { Outcome::Unknown } else { Outcome::Failed };
        let (gateway, claim) = (request.gateway, request.claim.take());
        self.give_back(gateway, claim, outcome);
        let Some(request) = self.live.get(live) else { return };
        let counts = u64::from(request.counted);
        if request.first_token.is_some() {
            self.figures.cut += counts;
            self.live.take(live);
            self.gone();
            return;
        }
        if request.avoided.len() >= RETRIES_MAX {
            self.refuse(live);
            return;
        }
        request.avoided.push(request.endpoint);
        request.given = 0;
        self.figures.retries += counts;
        self.place(live);
    }

    pub(super) fn refuse(&mut self, live: u32) {
        if let Some(mut request) = self.live.take(live) {
            self.give_back(request.gateway, request.claim.take(), Outcome::Unknown);
            self.figures.refused += u64::from(request.counted);
            self.gone();
        }
    }

    /// One request less. In a closed loop its user asks again.
    fn gone(&mut self) {
        self.ended += 1;
        self.last_end = self.now;
        self.begin_stage();
        let closed = matches!(self.config.pace, Pace::Closed(_));
        if closed && self.asked < self.config.requests {
            self.asked += 1;
            self.events.at(self.now, Event::Arrive);
        }
    }

    fn sample(&mut self) {
        let usage = |endpoint: &Endpoint| endpoint.engine.metrics().kv_cache_usage;
        let usages: Vec<f64> = self.endpoints.iter().map(usage).collect();
        let counts = self.first_counted.is_some() && !self.exhausted;
        if let Some(cov) = variation(&usages).filter(|_| counts) {
            self.cov.0 += cov;
            self.cov.1 += 1;
        }
        let waiting = |endpoint: &Endpoint| {
            let metrics = endpoint.engine.metrics();
            f64::from(metrics.waiting_capacity + metrics.waiting_deferred)
        };
        let state = self.endpoints.iter().map(|e| (usage(e), waiting(e)));
        self.figures.series.add(self.now.as_secs_f64(), state);
        self.events.at(self.now + SAMPLE_EVERY, Event::Sample);
    }

    fn summed_up(mut self) -> Figures {
        let from = self.first_counted.unwrap_or_default();
        let mut computed: Vec<f64> = Vec::new();
        for endpoint in &self.endpoints {
            let totals = endpoint.totals();
            self.figures.prefix_queries += totals.prefix_queries;
            self.figures.prefix_hits += totals.prefix_hits;
            self.figures.adapter_swaps += totals.adapter_swaps;
            computed.push(precise(totals.prefix_queries - totals.prefix_hits));
        }
        let mean = computed.iter().sum::<f64>() / precise(computed.len() as u64);
        let most = computed.iter().copied().fold(0.0, f64::max);
        let counted = self.taken.saturating_sub(self.config.warmup).max(1);
        let mut figures = self.figures;
        figures.seconds = self.last_end.saturating_sub(from).as_secs_f64();
        figures.kv_cov = self.cov.0 / precise(self.cov.1.max(1));
        figures.imbalance = if mean > 0.0 { most / mean } else { 1.0 };
        figures.floor /= precise(counted);
        figures
    }
}
