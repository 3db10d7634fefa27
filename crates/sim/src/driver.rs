//! Drives load over HTTP: sends a workload's requests to any OpenAI-compatible server when they are due, and measures
//! the answers.
//!
//! In an open loop the clock of a request starts when it is due, not when there was time to send it; so a server that
//! stalls is seen by all the requests that would have come meanwhile, and a generator that cannot keep up is seen in
//! [`Outcome::lateness`] instead of flattering the server. In a closed loop a request is due when a user is free.
//!
//! One task serves a request; all belong to [`drive`] and end with it.
//!
//! Deliberately absent: TLS, HTTP/2, redirects, proxies, retries of what the server answered.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use openai::Operation;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

mod client;
mod exchange;
mod figures;
mod probe;
mod prompt;
mod target;

pub use figures::{Errors, Failure, Outcome, Slo};
pub use probe::{ProbeError, calibrate, first_model};
pub use prompt::{Calibration, Prompts};
pub use target::{Target, TargetError};

use crate::workload::{Arrival, Arrivals, Pace, Workload};
use client::Client;
use figures::Sample;
use prompt::Writer;

/// Requests of an open loop under way at once; those due beyond it are not sent, and counted.
pub const IN_FLIGHT_MAX: usize = 65_536;
/// Requests started in one go before anything else gets a turn.
const BATCH_MAX: usize = 64;
/// How often progress is told.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// What to send where, how often, and what to expect.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server.
    pub target: Target,
    /// Completions or chat completions.
    pub operation: Operation,
    /// The base model.
    pub model: String,
    /// Names of the workload's adapters: number i is asked for as `adapters[i]`.
    pub adapters: Vec<String>,
    /// What requests are like.
    pub workload: Workload,
    /// When they come.
    pub pace: Pace,
    /// Equal seeds give equal lengths and times.
    pub seed: u64,
    /// Equal salts give equal texts. A server with a prefix cache knows the texts of an earlier run of the same salt.
    pub salt: u64,
    /// Requests to count; none means as many as `duration` and the pace have room for.
    pub requests: Option<u64>,
    /// How long requests are started.
    pub duration: Option<Duration>,
    /// Requests before the counted ones.
    pub warmup: u64,
    /// What prompts consist of.
    pub prompts: Prompts,
    /// Ask for streams.
    pub stream: bool,
    /// Send `ignore_eos`, so that answers are as long as drawn. Not every server takes it.
    pub ignore_eos: bool,
    /// Longest wait for a whole answer.
    pub timeout: Duration,
    /// What makes a request good.
    pub slo: Slo,
    /// Requests of an open loop under way at once, normally [`IN_FLIGHT_MAX`].
    pub in_flight_max: usize,
}

impl Plan {
    /// A hundred streamed completions of the base model.
    pub fn new(target: Target, model: impl Into<String>, workload: Workload, pace: Pace) -> Plan {
        Plan {
            target,
            operation: Operation::Completions,
            model: model.into(),
            adapters: Vec::new(),
            workload,
            pace,
            seed: 0,
            salt: 0,
            requests: Some(100),
            duration: None,
            warmup: 0,
            prompts: Prompts::default(),
            stream: true,
            ignore_eos: true,
            timeout: Duration::from_mins(3),
            slo: Slo::default(),
            in_flight_max: IN_FLIGHT_MAX,
        }
    }

    /// The model a request names.
    fn model_of(&self, adapter: Option<u32>) -> &str {
        let named = adapter.and_then(|index| self.adapters.get(index as usize));
        named.unwrap_or(&self.model)
    }
}

/// How far a run is. Requests before the counted ones are included.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Progress {
    /// Requests sent.
    pub started: u64,
    /// Whole answers.
    pub completed: u64,
    /// Requests without one.
    pub failed: u64,
    /// Requests under way.
    pub in_flight: u64,
    /// How many there will be, where that is known.
    pub total: Option<u64>,
    /// Tokens answered.
    pub output_tokens: u64,
    /// Since the start.
    pub elapsed: Duration,
    /// How long requests are started, where that is limited.
    pub duration: Option<Duration>,
}

impl Progress {
    /// Tokens answered a second so far.
    pub fn output_tokens_per_s(&self) -> f64 {
        crate::distribution::precise(self.output_tokens) / self.elapsed.as_secs_f64().max(1e-3)
    }
}

/// Carries out a plan until it is done or `stop` resolves; what is under way then is given up and counted as
/// unfinished. Dropping the future closes all connections.
pub async fn drive(
    plan: &Plan,
    stop: impl Future<Output = ()>,
    progress: &(dyn Fn(Progress) + Sync),
) -> Outcome {
    let mut run = Run::new(plan);
    let mut stop = pin!(stop);
    let mut timer = Box::pin(sleep_until(run.began));
    let mut tick = interval(PROGRESS_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !run.is_over() {
        let more = run.start_due();
        let due = run.due(Instant::now()).filter(|_| !more);
        if let Some(due) = due.filter(|due| timer.deadline() != *due) {
            timer.as_mut().reset(due);
        }
        tokio::select! {
            () = &mut stop => {
                run.outcome.interrupted = true;
                break;
            }
            Some(ended) = run.tasks.join_next() => run.take(ended.ok()),
            () = tokio::task::yield_now(), if more => {}
            () = &mut timer, if due.is_some() => {}
            _ = tick.tick() => progress(run.progress()),
        }
    }
    progress(run.progress());
    run.finish()
}

/// A request that waits for its time.
struct Next {
    /// Since its stage began; meaningless in a closed loop.
    at: Duration,
    stage: usize,
    request: client::Ask,
}

/// A plan on its way.
struct Run<'a> {
    plan: &'a Plan,
    client: Arc<Client>,
    writer: Writer,
    arrivals: Arrivals,
    /// Drawn before it is due, so that writing a long prompt makes nothing late.
    next: Option<Next>,
    /// Requests drawn.
    drawn: u64,
    began: Instant,
    /// The stage under way, and when it began; the next one waits for its last answer.
    stage: (usize, Instant),
    tasks: JoinSet<Sample>,
    /// Counted and uncounted ones.
    started: u64,
    completed: u64,
    failed: u64,
    output_tokens: u64,
    /// When the first counted request was due, and when the last one ended.
    window: Option<(Instant, Instant)>,
    outcome: Outcome,
}

impl<'a> Run<'a> {
    fn new(plan: &'a Plan) -> Run<'a> {
        let mut run = Run {
            plan,
            client: Arc::new(Client::new(plan)),
            writer: Writer::new(plan),
            arrivals: plan.workload.arrivals(&plan.pace, plan.seed),
            next: None,
            drawn: 0,
            began: Instant::now(),
            stage: (0, Instant::now()),
            tasks: JoinSet::new(),
            started: 0,
            completed: 0,
            failed: 0,
            output_tokens: 0,
            window: None,
            outcome: Outcome::new(plan.slo),
        };
        run.draw();
        // Writing the first prompt is not part of the run.
        run.began = Instant::now();
        run.stage.1 = run.began;
        run
    }

    fn total(&self) -> Option<u64> {
        self.plan.requests.map(|requests| requests.saturating_add(self.plan.warmup))
    }

    /// Prepares the next request, if there is one.
    fn draw(&mut self) {
        self.next = None;
        if self.total().is_some_and(|total| self.drawn >= total) {
            return;
        }
        let Some(Arrival { at, stage, shape }) = self.arrivals.next() else { return };
        let open = !matches!(self.plan.pace, Pace::Closed(_));
        if open && self.plan.duration.is_some_and(|duration| at >= duration) {
            return;
        }
        let model = self.plan.model_of(shape.adapter);
        let body = self.writer.body(model, &shape, self.drawn);
        let counted = self.drawn >= self.plan.warmup;
        let request = client::Ask { body, counted, prompt_tokens: shape.prompt_tokens };
        self.next = Some(Next { at, stage, request });
        self.drawn += 1;
    }

    /// When the next request is due, unless there is none or no user is free.
    fn due(&self, now: Instant) -> Option<Instant> {
        let next = self.next.as_ref()?;
        match self.plan.pace {
            Pace::Closed(users) => {
                let free = self.tasks.len() < users as usize;
                free.then_some(now)
            }
            _ => (next.stage == self.stage.0).then(|| self.stage.1 + next.at),
        }
    }

    /// Starts what is due; whether more is due than one turn may start.
    fn start_due(&mut self) -> bool {
        for _ in 0..BATCH_MAX {
            let now = Instant::now();
            let next_stage = self.next.as_ref().map(|next| next.stage);
            if let Some(stage) = next_stage.filter(|stage| *stage != self.stage.0)
                && self.tasks.is_empty()
            {
                self.stage = (stage, now);
            }
            let Some(due) = self.due(now).filter(|due| *due <= now) else { return false };
            let closed = matches!(self.plan.pace, Pace::Closed(_));
            if closed && self.plan.duration.is_some_and(|duration| now - self.began >= duration) {
                self.next = None;
                return false;
            }
            if let Some(next) = self.next.take() {
                self.start(next.request, due);
            }
            self.draw();
        }
        true
    }

    fn start(&mut self, ask: client::Ask, due: Instant) {
        if ask.counted {
            self.window.get_or_insert((due, due));
        }
        if self.tasks.len() >= self.plan.in_flight_max {
            self.outcome.not_sent += u64::from(ask.counted);
            return;
        }
        self.started += 1;
        self.outcome.started += u64::from(ask.counted);
        let client = Arc::clone(&self.client);
        self.tasks.spawn(async move { client.measure(ask, due).await });
    }

    fn take(&mut self, sample: Option<Sample>) {
        // Without one the task panicked, which is a bug of ours and shows as unfinished.
        let Some(sample) = sample else { return };
        if sample.failure.is_some() {
            self.failed += 1;
        } else {
            self.completed += 1;
        }
        self.output_tokens += sample.output_tokens();
        if sample.counted {
            if let Some((_, last)) = &mut self.window {
                *last = sample.ended.max(*last);
            }
            self.outcome.add(sample);
        }
    }

    fn is_over(&self) -> bool {
        self.next.is_none() && self.tasks.is_empty()
    }

    fn progress(&self) -> Progress {
        Progress {
            started: self.started,
            completed: self.completed,
            failed: self.failed,
            in_flight: self.tasks.len() as u64,
            total: self.total(),
            output_tokens: self.output_tokens,
            elapsed: self.began.elapsed(),
            duration: self.plan.duration,
        }
    }

    fn finish(mut self) -> Outcome {
        if let Some((first, last)) = self.window {
            let last = if self.outcome.interrupted { Instant::now() } else { last };
            self.outcome.duration = last.saturating_duration_since(first);
        }
        self.outcome
    }
}
