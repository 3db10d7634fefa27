//! `tokenweir compare`: policies side by side.

use std::{path::Path, sync::Mutex, time::Duration};

use scheduling::{FlowControl, Policy};
use sim::{
    Pace,
    comparison::{Plan, SEEDS_MAX},
    engine::EngineConfig,
    profile::Profile,
    report::{Report, SweepPoint},
    scenario::{NETWORK_DELAY, Scenario},
    world::Placement,
};

use super::bench::workload;
use crate::{
    args::{CompareArgs, PoolArgs, Spacing, Switch},
    outcome::{Failed, Outcome, say},
    profile::profile,
};

mod live;
mod progress;
mod recorded;

use progress::Meter;

/// Seeds, where nothing else is asked.
const SEEDS: u32 = 4;
/// Endpoints of a trace's pool: as many as the tutorial has.
const REPLICAS: u16 = 3;
/// Requests a run of a trace, where it has not fewer of its own.
const REQUESTS: u64 = 8_000;
/// The load where nothing tells one.
const LOAD: f64 = 0.8;
/// Loads of a sweep, as shares of λ*.
const SWEEP: [f64; 11] = [0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99];

pub(crate) fn run(args: &CompareArgs) -> Outcome {
    if let Some(folder) = &args.recorded {
        return recorded::run(folder, args);
    }
    if args.scenario.as_deref() == Some("help") {
        for (name, title) in Scenario::names() {
            say(&format!("{name:<4} {title}"));
        }
        return Ok(());
    }
    let plan = plan(args).map_err(Failed::Usage)?;
    let report = if args.live { live::run(args, &plan)? } else { virtually(args, &plan) };
    write(args.json.as_deref(), || format!("{:#}\n", report.json()))?;
    write(args.html.as_deref(), || report.html())?;
    say(report.table().trim_end());
    Ok(())
}

/// What is asked for, or all that is wrong with it.
fn plan(args: &CompareArgs) -> Result<Plan, Vec<String>> {
    let mut problems = Vec::new();
    let placements = placements(&args.policies).unwrap_or_else(|wrong| {
        problems.extend(wrong);
        Vec::new()
    });
    let scenario = scenario(args).map_err(|wrong| problems.extend(wrong));
    let seeds = args.seeds.unwrap_or(if args.live { 1 } else { SEEDS });
    if seeds == 0 || seeds > SEEDS_MAX {
        problems.push(format!("--seeds: expected 1 to {SEEDS_MAX}"));
    }
    if args.requests == Some(0) {
        problems.push("--requests: expected a number above 0".to_owned());
    }
    let all = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = args.threads.unwrap_or_else(all).max(1);
    match scenario {
        Ok(scenario) if problems.is_empty() => Ok(Plan { scenario, placements, seeds, threads }),
        _ => Err(problems),
    }
}

/// The policies of these names, in their order; round robin and the oracle stand beside every result.
fn placements(names: &[String]) -> Result<Vec<Placement>, Vec<String>> {
    let mut problems = Vec::new();
    let mut placements = Vec::new();
    for name in names.iter().map(|name| name.trim()).filter(|name| *name != "oracle") {
        match name.parse::<Policy>() {
            Ok(policy) if placements.contains(&Placement::Policy(policy)) => {}
            Ok(policy) => placements.push(Placement::Policy(policy)),
            Err(unknown) => problems.push(format!("--policies: {unknown}")),
        }
    }
    if names.is_empty() {
        placements.extend(Policy::ALL.map(Placement::Policy));
    }
    let round_robin = Placement::Policy(Policy::RoundRobin);
    if !placements.contains(&round_robin) {
        placements.push(round_robin);
    }
    placements.push(Placement::Oracle);
    if problems.is_empty() { Ok(placements) } else { Err(problems) }
}

/// Pool and load.
fn scenario(args: &CompareArgs) -> Result<Scenario, Vec<String>> {
    let mut scenario = match (&args.scenario, &args.trace) {
        (Some(name), _) => named(name).map_err(|wrong| vec![wrong])?,
        (None, trace) => own(trace.as_deref().unwrap_or_default(), args)?,
    };
    let mut problems = Vec::new();
    if let Some(name) = args.pool.profile.as_deref().filter(|_| args.scenario.is_some()) {
        match profile(name) {
            Ok(profile) => {
                scenario.endpoints.iter_mut().for_each(|e| e.profile = profile.clone());
            }
            Err(wrong) => problems.push(format!("--profile: {wrong}")),
        }
    }
    for endpoint in &mut scenario.endpoints {
        limit(&mut endpoint.profile, &args.pool);
    }
    if let Some(tokens) = args.load.longest {
        if scenario.workload.recorded().is_none() {
            problems.push(format!("--longest: {} is no trace", scenario.workload));
        }
        scenario.workload = scenario.workload.at_most(tokens);
    }
    scenario.gateways = args.pool.gateways.unwrap_or(scenario.gateways);
    scenario.scrape_interval = args.pool.scrape_interval.unwrap_or(scenario.scrape_interval);
    scenario.scrapes_in_step = args.pool.scrapes_in_step;
    scenario.flow_control.late_binding = args.pool.late_binding.map(Switch::is_on);
    scenario.network_delay = args.pool.network_delay.unwrap_or(scenario.network_delay);
    if scenario.scrape_interval < Duration::from_millis(1) {
        problems.push("--scrape-interval: expected at least 1ms".to_owned());
    }
    problems.extend(misfits(&scenario, args));
    if !problems.is_empty() {
        return Err(problems);
    }
    let before = scenario.pace.clone();
    scenario.pace = pace(&scenario, args).map_err(|wrong| vec![wrong])?;
    if matches!(before, Pace::Stages(_)) && before != scenario.pace {
        scenario.requests = REQUESTS;
    }
    scenario.requests = args.requests.unwrap_or(scenario.requests);
    Ok(scenario)
}

fn named(name: &str) -> Result<Scenario, String> {
    Scenario::named(name).ok_or_else(|| {
        let list: Vec<String> =
            Scenario::names().map(|(name, title)| format!("  {name:<4} {title}")).collect();
        let v0 = if name.eq_ignore_ascii_case("V0") {
            "\nV0, a real server's recorded run, is compare --recorded DIR --profile NAME"
        } else {
            ""
        };
        format!("--scenario: none is called {name:?}; there are\n{}{v0}", list.join("\n"))
    })
}

/// A user's own workload on a pool of equals.
fn own(trace: &str, args: &CompareArgs) -> Result<Scenario, Vec<String>> {
    let mut problems = Vec::new();
    let workload = workload(trace).map_err(|wrong| problems.push(format!("--trace: {wrong}")));
    let name = args.pool.profile.as_deref().unwrap_or(Profile::NAMES[0]);
    let profile = profile(name).map_err(|wrong| problems.push(format!("--profile: {wrong}")));
    let replicas = args.pool.replicas.unwrap_or(REPLICAS);
    if replicas == 0 {
        problems.push("--replicas: expected a number above 0".to_owned());
    }
    let (Ok(workload), Ok(profile), []) = (workload, profile, problems.as_slice()) else {
        return Err(problems);
    };
    let recorded = workload.recorded();
    let requests = recorded.map_or(REQUESTS, |trace| REQUESTS.max(trace.rows.len() as u64));
    Ok(Scenario {
        name: "trace".to_owned(),
        title: format!("{replicas} × {}", profile.name),
        endpoints: vec![EngineConfig { profile, ..EngineConfig::default() }; replicas.into()],
        pace: match recorded.and_then(sim::workload::Trace::rate) {
            Some(_) => Pace::Recorded(1.0),
            None => Pace::Poisson(0.0),
        },
        workload,
        gateways: 1,
        scrape_interval: Duration::from_secs(1),
        scrapes_in_step: false,
        network_delay: NETWORK_DELAY,
        faults: Vec::new(),
        flow_control: FlowControl::default(),
        classes: Vec::new(),
        requests,
    })
}

/// The limits of a profile that flags replace.
pub(super) fn limit(profile: &mut Profile, args: &PoolArgs) {
    profile.blocks = args.kv_blocks.unwrap_or(profile.blocks);
    profile.max_num_seqs = args.max_num_seqs.unwrap_or(profile.max_num_seqs);
    let budget = args.max_num_batched_tokens;
    profile.max_num_batched_tokens = budget.unwrap_or(profile.max_num_batched_tokens);
    profile.max_model_len = args.max_model_len.unwrap_or(profile.max_model_len);
}

/// Requests of a trace that no endpoint could ever answer.
fn misfits(scenario: &Scenario, args: &CompareArgs) -> Option<String> {
    let trace = scenario.workload.recorded()?;
    if trace.rows.is_empty() {
        return Some("--longest: no request of the trace is that short".to_owned());
    }
    let smallest =
        scenario.endpoints.iter().map(|endpoint| &endpoint.profile).min_by_key(|p| holds(p))?;
    let path = args
        .trace
        .as_deref()
        .map_or(trace.name.as_str(), |spec| spec.split_once(':').map_or(spec, |(_, path)| path));
    let what = if smallest.max_model_len == holds(smallest) {
        format!("the context of {}", smallest.name)
    } else {
        format!("the KV cache of {}", smallest.name)
    };
    trace.check_fits(path, holds(smallest), &what).err().map(|misfits| misfits.to_string())
}

/// Tokens of the longest request an endpoint takes.
fn holds(profile: &Profile) -> u32 {
    profile.max_model_len.min(profile.usable_blocks() * profile.block_tokens)
}

/// When requests come, as asked.
fn pace(scenario: &Scenario, args: &CompareArgs) -> Result<Pace, String> {
    let load = &args.load;
    if let Some(users) = load.concurrency {
        if users == 0 {
            return Err("--concurrency: expected a number above 0".to_owned());
        }
        return Ok(Pace::Closed(users));
    }
    let capacity = || sim::limits::Demand::of(&scenario.workload, 1).capacity(&scenario.endpoints);
    let own = scenario.pace.rate(&scenario.workload).filter(|rate| *rate > 0.0);
    let asked = load.rate.or_else(|| load.load.map(|share| share * capacity()));
    let unchanged = asked.is_none() && load.arrivals.is_none() && own.is_some();
    if unchanged {
        return Ok(scenario.pace.clone());
    }
    let rate = asked.or(own).unwrap_or_else(|| LOAD * capacity());
    let recorded = scenario.workload.recorded().and_then(sim::workload::Trace::rate);
    let spacing = load.arrivals.unwrap_or(match scenario.pace {
        Pace::Recorded(_) if recorded.is_some() => Spacing::Recorded,
        Pace::Constant(_) => Spacing::Constant,
        _ => Spacing::Poisson,
    });
    match (spacing, recorded) {
        (Spacing::Poisson, _) => Ok(Pace::Poisson(rate)),
        (Spacing::Constant, _) => Ok(Pace::Constant(rate)),
        (Spacing::Recorded, Some(own)) => Ok(Pace::Recorded(rate / own)),
        (Spacing::Recorded, None) => {
            Err(format!("--arrivals recorded: {} has no times", scenario.workload))
        }
    }
}

/// In virtual time.
fn virtually(args: &CompareArgs, plan: &Plan) -> Report {
    let rates = if args.load.sweep { SWEEP.as_slice() } else { &[] };
    let runs = (plan.placements.len() * plan.seeds as usize) as u64;
    let meter = Mutex::new(Meter::new(runs * plan.requests() * (1 + rates.len() as u64)));
    let before = std::sync::atomic::AtomicU64::new(0);
    let progress = |ended: u64| {
        let before = before.load(std::sync::atomic::Ordering::Relaxed);
        if let Ok(mut meter) = meter.try_lock() {
            meter.at(before + ended);
        }
        true
    };
    let capacity = plan.capacity();
    let outcomes = plan.run(&progress);
    let point = |(index, share): (usize, &f64)| {
        let done = runs * plan.requests() * (index as u64 + 1);
        before.store(done, std::sync::atomic::Ordering::Relaxed);
        let rate = share * capacity;
        SweepPoint { rate, outcomes: at_rate(plan, rate).run(&progress) }
    };
    let sweep = rates.iter().enumerate().map(point).collect();
    if let Ok(meter) = meter.into_inner() {
        meter.end();
    }
    report(plan, outcomes, sweep)
}

/// The same at another rate.
fn at_rate(plan: &Plan, rate: f64) -> Plan {
    let mut plan = plan.clone();
    let pace = match (&plan.scenario.pace, plan.rate()) {
        (Pace::Recorded(faster), Some(own)) => Pace::Recorded(faster * rate / own),
        (Pace::Constant(_), _) => Pace::Constant(rate),
        _ => Pace::Poisson(rate),
    };
    if matches!(plan.scenario.pace, Pace::Stages(_)) {
        plan.scenario.requests = REQUESTS;
    }
    plan.scenario.pace = pace;
    plan
}

fn report(plan: &Plan, outcomes: Vec<sim::comparison::Outcome>, sweep: Vec<SweepPoint>) -> Report {
    Report {
        scenario: plan.scenario.name.clone(),
        title: plan.scenario.title.clone(),
        workload: plan.scenario.workload.name().to_owned(),
        rate: plan.rate(),
        staged: matches!(plan.scenario.pace, Pace::Stages(_)),
        lambda_star: plan.capacity(),
        seeds: plan.seeds,
        requests: plan.requests(),
        outcomes,
        sweep,
    }
}

/// Writes a file, if one is asked for.
pub(super) fn write(path: Option<&Path>, text: impl FnOnce() -> String) -> Outcome {
    let Some(path) = path else { return Ok(()) };
    std::fs::write(path, text())
        .map_err(|error| Failed::run(format!("cannot write {}: {error}", path.display())))
}
