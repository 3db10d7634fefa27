//! `compare --live`: the same requests through the real gateway, in a process of its own, to simulated endpoints over
//! loopback sockets.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::Stdio,
    time::Duration,
};

use sim::{
    Handle, Pace, Running, Server, SimConfig,
    comparison::{Outcome, Plan},
    driver::{self, Prompts, Target},
    report::Report,
    world::{Figures, Placement},
};
use tokio::{
    process::{Child, Command},
    time::{Instant, interval, sleep},
};

use super::report;
use crate::{
    args::CompareArgs,
    command::bench::Meter,
    outcome::{Failed, say_error},
};

/// Requests a run, where nothing else is asked: some minutes at the scenarios' rates.
const REQUESTS: u64 = 600;
/// Longest wait for a gateway to be ready.
const READY_MAX: Duration = Duration::from_secs(20);
/// Between two looks at the endpoints, in simulated time.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// Ids of prompt tokens; what they are does not matter to a simulated endpoint.
const TOKEN_IDS: (u32, u32) = (1000, 2000);

pub(super) fn run(args: &CompareArgs, plan: &Plan) -> Result<Report, Failed> {
    let mut plan = plan.clone();
    plan.placements.retain(|placement| *placement != Placement::Oracle);
    if plan.scenario.gateways != 1 {
        let gateways = plan.scenario.gateways;
        return Err(Failed::usage(format!(
            "--live runs one gateway, not {gateways}; say --gateways 1"
        )));
    }
    if !plan.scenario.faults.is_empty() {
        return Err(Failed::usage("--live breaks nothing; tokenweir sim --fault does"));
    }
    let longest = args.requests.unwrap_or_else(|| plan.requests().min(REQUESTS));
    plan.scenario.requests = longest;
    let runtime = tokio::runtime::Runtime::new().map_err(Failed::run)?;
    let outcomes = runtime.block_on(async {
        let mut outcomes = Vec::new();
        for placement in &plan.placements {
            let mut figures = Vec::new();
            for seed in 1..=plan.seeds {
                say_error(&format!("{}, seed {seed} of {}", placement.name(), plan.seeds));
                figures.push(Box::pin(one(&plan, *placement, seed.into(), args.speedup)).await?);
            }
            outcomes.push(Outcome::new(*placement, figures));
        }
        Ok::<_, Failed>(outcomes)
    })?;
    let mut report = report(&plan, outcomes, Vec::new());
    report.scenario = format!("live {}", report.scenario);
    Ok(report)
}

/// One policy, one seed: fresh endpoints, a fresh gateway.
async fn one(
    plan: &Plan,
    placement: Placement,
    seed: u64,
    speedup: f64,
) -> Result<Figures, Failed> {
    let endpoints = endpoints(plan, speedup).await?;
    let gateway = Gateway::start(plan, placement, &endpoints, speedup).await?;
    let target = Target::resolve(&format!("http://{}", gateway.address)).await;
    let load = load(plan, target.map_err(Failed::run)?, seed, speedup);
    let mut figures = Figures::new(endpoints.len());
    let meter = Meter::new();
    let stop = async { drop(crate::signals::stop_requested().await) };
    let measured = {
        let watch = Watch::new(&endpoints, &mut figures);
        let show = |progress| meter.show(&progress);
        let drive = driver::drive(&load, stop, &show);
        tokio::select! {
            measured = drive => measured,
            never = watch.look(SAMPLE_EVERY.div_f64(speedup), speedup) => match never {},
        }
    };
    meter.end();
    if measured.interrupted {
        return Err(Failed::run("interrupted"));
    }
    if let Some((kind, errors)) = measured.errors.iter().next() {
        say_error(&format!("warning: {} requests failed, {kind}: {}", errors.count, errors.first));
    }
    take(&mut figures, &measured, &endpoints, speedup);
    figures.floor = plan.floor(seed);
    gateway.stop().await;
    Ok(figures)
}

/// The pool's simulated servers.
async fn endpoints(plan: &Plan, speedup: f64) -> Result<Vec<Running>, Failed> {
    let mut running = Vec::new();
    for engine in &plan.scenario.endpoints {
        let config = SimConfig {
            profile: engine.profile.clone(),
            loras: adapters(plan),
            max_loras: engine.max_loras,
            max_cpu_loras: engine.max_cpu_loras,
            lora_swap: engine.lora_swap,
            lora_disk: engine.lora_disk,
            speedup,
            ..SimConfig::default()
        };
        running.push(Server::start(config).await.map_err(Failed::run)?);
    }
    Ok(running)
}

fn adapters(plan: &Plan) -> Vec<String> {
    (0..plan.scenario.workload.adapters()).map(|index| format!("adapter-{index}")).collect()
}

/// The load, with time shortened as the endpoints shorten it.
fn load(plan: &Plan, target: Target, seed: u64, speedup: f64) -> driver::Plan {
    let pace = match &plan.scenario.pace {
        Pace::Poisson(rate) => Pace::Poisson(rate * speedup),
        Pace::Constant(rate) => Pace::Constant(rate * speedup),
        Pace::Recorded(faster) => Pace::Recorded(faster * speedup),
        Pace::Closed(users) => Pace::Closed(*users),
        Pace::Stages(stages) => Pace::Stages(
            stages
                .iter()
                .map(|stage| sim::workload::Stage {
                    rate: stage.rate * speedup,
                    seconds: stage.seconds / speedup,
                })
                .collect(),
        ),
    };
    let requests = plan.requests();
    let warmup = requests / sim::comparison::WARMUP_SHARE;
    let base =
        driver::Plan::new(target, SimConfig::default().model, plan.scenario.workload.clone(), pace);
    driver::Plan {
        adapters: adapters(plan),
        seed,
        requests: Some(requests - warmup),
        warmup,
        prompts: Prompts::TokenIds(TOKEN_IDS.0, TOKEN_IDS.1),
        ..base
    }
}

/// Looks at the endpoints now and then.
struct Watch<'a> {
    handles: Vec<Handle>,
    figures: &'a mut Figures,
}

impl<'a> Watch<'a> {
    fn new(endpoints: &[Running], figures: &'a mut Figures) -> Self {
        Self {
            handles: endpoints.iter().map(|endpoint| endpoint.handle().clone()).collect(),
            figures,
        }
    }

    /// For ever. Dropping the future loses nothing.
    async fn look(self, every: Duration, speedup: f64) -> Infallible {
        let began = Instant::now();
        let mut ticks = interval(every);
        let mut looks = 0.0;
        loop {
            ticks.tick().await;
            let metrics: Vec<_> = self.handles.iter().map(Handle::metrics).collect();
            let usages: Vec<f64> = metrics.iter().map(|metrics| metrics.kv_cache_usage).collect();
            if let Some(cov) = sim::comparison::variation(&usages) {
                looks += 1.0;
                self.figures.kv_cov += (cov - self.figures.kv_cov) / looks;
            }
            let state = metrics.iter().map(|metrics| {
                let waiting = metrics.waiting_capacity + metrics.waiting_deferred;
                (metrics.kv_cache_usage, f64::from(waiting))
            });
            self.figures.series.add(began.elapsed().as_secs_f64() * speedup, state);
        }
    }
}

/// What was measured, in simulated time.
fn take(figures: &mut Figures, measured: &driver::Outcome, endpoints: &[Running], speedup: f64) {
    figures.ttft = measured.ttft.scaled(speedup);
    figures.tpot = measured.tpot.scaled(speedup);
    figures.e2e = measured.e2e.scaled(speedup);
    figures.completed = measured.completed;
    figures.refused = measured.failed;
    figures.output_tokens = measured.output_tokens;
    figures.seconds = measured.duration.as_secs_f64() * speedup;
    for endpoint in endpoints {
        let metrics = endpoint.handle().metrics();
        figures.prefix_queries += metrics.prefix_queries;
        figures.prefix_hits += metrics.prefix_hits;
        figures.preemptions += metrics.preemptions;
        figures.adapter_swaps += metrics.adapter_swaps;
    }
}

/// The gateway as a process of its own; killed when dropped.
struct Gateway {
    process: Child,
    address: SocketAddr,
}

impl Gateway {
    async fn start(
        plan: &Plan,
        placement: Placement,
        endpoints: &[Running],
        speedup: f64,
    ) -> Result<Self, Failed> {
        let [traffic, admin, health, stats] = free_ports()?;
        let scrape = plan.scenario.scrape_interval.div_f64(speedup);
        let program = std::env::current_exe().map_err(Failed::run)?;
        let process = Command::new(program)
            .arg("serve")
            .arg("--endpoint")
            .args(endpoints.iter().map(|endpoint| format!("http://{}", endpoint.addr())))
            .args(["--port", &traffic.port().to_string(), "--policy", placement.name()])
            .args(["--bind", &traffic.ip().to_string(), "--admin", &admin.to_string()])
            .args(["--health", &health.to_string(), "--stats", &stats.to_string()])
            .args(["--scrape-interval", &format!("{}ms", scrape.as_millis().max(1))])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Failed::run(format!("cannot start the gateway: {error}")))?;
        let mut gateway = Self { process, address: traffic };
        gateway.ready(health).await?;
        // One round of scrapes, so that the first requests are not the only ones that go by nothing.
        sleep(scrape * 2).await;
        Ok(gateway)
    }

    /// Waits until it says that it is ready.
    async fn ready(&mut self, health: SocketAddr) -> Result<(), Failed> {
        let deadline = Instant::now() + READY_MAX;
        loop {
            let authority = health.to_string();
            let asked = crate::fetch::fetch(
                &authority,
                &authority,
                http::Method::GET,
                "/healthz/ready",
                bytes::Bytes::new(),
            );
            if asked.await.is_ok_and(|(status, _)| status == 200) {
                return Ok(());
            }
            if let Ok(Some(status)) = self.process.try_wait() {
                return Err(Failed::run(format!("the gateway ended at once: {status}")));
            }
            if Instant::now() > deadline {
                return Err(Failed::run(format!("the gateway was not ready within {READY_MAX:?}")));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn stop(mut self) {
        // It serves nobody any more; nothing is lost.
        drop(self.process.kill().await);
    }
}

/// Ports that nothing listens on at the moment.
fn free_ports<const N: usize>() -> Result<[SocketAddr; N], Failed> {
    // All are held until all are known, so that they differ.
    let mut held = Vec::new();
    let mut ports = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); N];
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(Failed::run)?;
        *port = listener.local_addr().map_err(Failed::run)?;
        held.push(listener);
    }
    Ok(ports)
}
