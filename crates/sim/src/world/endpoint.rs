//! The endpoints' side: requests arrive, steps end, things break.

use std::time::Duration;

use scheduling::Signals;

use super::blocks;
use super::events::Event;
use super::fault::{FaultEdge, FaultKind};
use super::gateway::signals;
use super::run::Run;
use crate::engine::{AdapterId, Engine, EngineConfig, Finish, Request, RequestId};

/// An endpoint and what is the matter with it.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "any of these can be the matter at once")]
pub(super) struct Endpoint {
    pub(super) engine: Engine,
    /// Restarts so far.
    life: u32,
    /// A step was to end while the engine stood still.
    held: bool,
    stalled: bool,
    pub(super) down: bool,
    pub(super) draining: bool,
    pub(super) frozen: Option<Signals>,
    /// Faults that hold.
    pub(super) faults: u32,
    /// Requests sent here that have not ended.
    pub(super) on: Vec<u32>,
    /// Before the last restart.
    before: Totals,
    /// When counting began.
    uncounted: Totals,
}

/// What an endpoint has done, restarts included.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) prefix_queries: u64,
    pub(super) prefix_hits: u64,
    pub(super) adapter_swaps: u64,
}

impl Endpoint {
    pub(super) fn new(config: &EngineConfig) -> Endpoint {
        Endpoint {
            engine: Engine::new(config.clone()),
            life: 0,
            held: false,
            stalled: false,
            down: false,
            draining: false,
            frozen: None,
            faults: 0,
            on: Vec::new(),
            before: Totals::default(),
            uncounted: Totals::default(),
        }
    }

    /// What it has done since counting began.
    pub(super) fn totals(&self) -> Totals {
        let (all, uncounted) = (self.all_totals(), self.uncounted);
        Totals {
            prefix_queries: all.prefix_queries - uncounted.prefix_queries,
            prefix_hits: all.prefix_hits - uncounted.prefix_hits,
            adapter_swaps: all.adapter_swaps - uncounted.adapter_swaps,
        }
    }

    pub(super) fn count_from_here(&mut self) {
        self.uncounted = self.all_totals();
    }

    fn all_totals(&self) -> Totals {
        let metrics = self.engine.metrics();
        Totals {
            prefix_queries: self.before.prefix_queries + metrics.prefix_queries,
            prefix_hits: self.before.prefix_hits + metrics.prefix_hits,
            adapter_swaps: self.before.adapter_swaps + metrics.adapter_swaps,
        }
    }

    /// It stands still or is not there.
    fn is_still(&self) -> bool {
        self.stalled || self.down
    }

    /// It takes no request, or none gets anywhere.
    pub(super) fn is_out(&self) -> bool {
        self.is_still() || self.draining
    }

    /// Whether it was there.
    fn left(&mut self, live: u32) -> bool {
        let at = self.on.iter().position(|on| *on == live);
        at.map(|at| self.on.swap_remove(at)).is_some()
    }
}

impl Run<'_> {
    /// A request reaches its endpoint.
    pub(super) fn deliver(&mut self, live: u32, to: u32) {
        let endpoint = &mut self.endpoints[to as usize];
        let Some(request) = self.live.get(live) else { return };
        let block_tokens = endpoint.engine.config().profile.block_tokens;
        let offered = Request {
            id: RequestId(live.into()),
            adapter: request.shape.adapter.map(AdapterId),
            salt: 0,
            prompt_tokens: request.shape.prompt_tokens,
            output_tokens: request.shape.output_tokens,
            max_tokens: None,
            finish: Finish::Length,
            content: blocks::content_of(&request.shape, request.number, block_tokens),
        };
        let takes = !endpoint.down && !endpoint.draining;
        request.unfit = takes && endpoint.engine.offer(offered, self.now).is_err();
        if !takes || request.unfit {
            // One that was on its way when the process died is known to be lost already.
            if endpoint.left(live) {
                self.events.at(self.now + self.config.network_delay, Event::Lost { live });
            }
            return;
        }
        self.kick(to);
    }

    /// Lets an endpoint begin its next step, if it has one and can.
    fn kick(&mut self, index: u32) {
        let endpoint = &mut self.endpoints[index as usize];
        if endpoint.is_still() {
            return;
        }
        if let Some(step) = endpoint.engine.begin_step(self.now) {
            let life = endpoint.life;
            self.events.at(self.now + step, Event::StepEnd { endpoint: index, life });
        }
    }

    pub(super) fn step_end(&mut self, index: u32, life: u32) {
        let endpoint = &mut self.endpoints[index as usize];
        if life != endpoint.life {
            return;
        }
        if endpoint.stalled {
            endpoint.held = true;
            return;
        }
        let effects = endpoint.engine.end_step(self.now);
        self.figures.preemptions += effects.preempted.len() as u64;
        let mut batch = self.spare.pop().unwrap_or_default();
        let mut any_finished = false;
        for token in &effects.tokens {
            let id = u32::try_from(token.id.0).unwrap_or(u32::MAX);
            if let Some(request) = self.live.get(id) {
                request.given += 1;
            }
            any_finished |= token.last;
            batch.push((id, token.last));
        }
        if any_finished {
            for (live, _) in batch.iter().filter(|(_, last)| *last) {
                endpoint.left(*live);
            }
        }
        if batch.is_empty() {
            self.spare.push(batch);
        } else {
            let batch = self.batches.add(batch);
            self.events.at(self.now + self.config.network_delay, Event::Heard { batch });
        }
        self.kick(index);
        if any_finished {
            self.consult_oracle();
        }
    }

    pub(super) fn plan_faults(&mut self) {
        for (index, fault) in (0..).zip(&self.config.faults) {
            self.events.at(fault.from, Event::Fault { index, edge: FaultEdge::Begins });
            self.events.at(fault.until, Event::Fault { index, edge: FaultEdge::Ends });
        }
    }

    pub(super) fn fault(&mut self, index: u32, edge: FaultEdge) {
        let fault = self.config.faults[index as usize];
        let begins = edge == FaultEdge::Begins;
        let Some(endpoint) = self.endpoints.get_mut(fault.endpoint as usize) else { return };
        if begins {
            endpoint.faults += 1;
            self.faults_on += 1;
        } else {
            endpoint.faults -= 1;
            self.faults_on -= 1;
        }
        match fault.kind {
            FaultKind::FrozenMetrics => {
                endpoint.frozen = begins.then(|| signals(&endpoint.engine, Duration::ZERO));
            }
            FaultKind::Drain => {
                endpoint.draining = begins;
                self.consult_oracle();
            }
            FaultKind::Stall => self.stall(fault.endpoint, begins),
            FaultKind::Restart => self.crash(fault.endpoint, begins),
        }
    }

    fn stall(&mut self, index: u32, begins: bool) {
        let endpoint = &mut self.endpoints[index as usize];
        endpoint.stalled = begins;
        if begins {
            return;
        }
        if std::mem::take(&mut endpoint.held) {
            let life = endpoint.life;
            self.events.at(self.now, Event::StepEnd { endpoint: index, life });
        } else {
            self.kick(index);
        }
        self.consult_oracle();
    }

    fn crash(&mut self, index: u32, begins: bool) {
        let endpoint = &mut self.endpoints[index as usize];
        endpoint.down = begins;
        if begins {
            endpoint.before = endpoint.all_totals();
            endpoint.engine = Engine::new(endpoint.engine.config().clone());
            endpoint.life += 1;
            for live in std::mem::take(&mut endpoint.on) {
                self.events.at(self.now + self.config.network_delay, Event::Lost { live });
            }
        } else {
            self.consult_oracle();
        }
    }
}
