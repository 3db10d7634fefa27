//! `tokenweir bench`: load on a server, and how it bore it.

use std::{path::Path, time::Duration};

use openai::Operation;
use sim::{
    Pace, SimConfig, Workload,
    driver::{self, Outcome as Measured, Plan, Prompts, Slo, Target},
    workload::Popularity,
};

use crate::{
    args::{AskArgs, Asked, BenchArgs, Coming, LoadArgs, time},
    outcome::{Failed, Outcome, say, say_error},
    signals::stop_requested,
};

mod figures;
mod meter;
mod table;

pub(crate) use meter::Meter;

/// Users of a closed loop, as llmperf has.
const USERS: u32 = 10;
/// Requests, where nothing limits a run.
const REQUESTS: u64 = 100;
/// The generator's own delay beyond which its figures are doubtful.
const LATENESS_MAX: Duration = Duration::from_millis(10);

pub(crate) fn run(args: &BenchArgs) -> Outcome {
    let mut workload = workload(&args.load.workload).map_err(Failed::usage)?;
    let adapters = adapters(args, &mut workload).map_err(Failed::usage)?;
    let pace = pace(&args.load, &workload).map_err(Failed::usage)?;
    let slo = args.slo.as_deref().map_or_else(|| Ok(Slo::default()), slo).map_err(Failed::usage)?;
    if args.ask.no_stream && (slo.ttft.is_some() || slo.tpot.is_some()) {
        return Err(Failed::usage(
            "--no-stream cannot tell ttft and tpot; leave them out of --slo",
        ));
    }
    if args.ask.token_ids && args.endpoint == Asked::Chat {
        return Err(Failed::usage("--token-ids works with --endpoint completions only"));
    }
    // One thread: it shows in the figures when that is not enough.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failed::run)?;
    runtime.block_on(async {
        let target = target(args).await?;
        let model = match &args.model {
            Some(model) => model.clone(),
            None => driver::first_model(&target).await.map_err(Failed::run)?,
        };
        let mut plan = Plan { adapters, slo, ..Plan::new(target, model, workload, pace) };
        settle(&mut plan, args);
        plan.prompts = prompts(&plan, &args.ask).await?;
        say(&described(&plan));
        let meter = Meter::new();
        let stop = async { drop(stop_requested().await) };
        let measured = driver::drive(&plan, stop, &|progress| meter.show(&progress)).await;
        meter.end();
        show(args, &plan, &measured)
    })
}

/// The workload of this name; files are read here.
pub(crate) fn workload(spec: &str) -> Result<Workload, sim::WorkloadError> {
    Workload::named(spec, |path| std::fs::read_to_string(path).map_err(|error| error.to_string()))
}

/// The adapters' names, as many as the workload has.
fn adapters(args: &BenchArgs, workload: &mut Workload) -> Result<Vec<String>, String> {
    let wanted = workload.adapters();
    let given = u32::try_from(args.adapters.len()).unwrap_or(u32::MAX);
    if wanted == 0 && given > 0 {
        *workload = workload.clone().with_adapters(Popularity::uniform(given));
        return Ok(args.adapters.clone());
    }
    let names = if given == 0 { SimConfig::default().loras } else { args.adapters.clone() };
    if names.len() < wanted as usize {
        let given = names.len();
        return Err(format!(
            "the workload {workload} has {wanted} adapters and {given} are named; give --adapter {wanted} times"
        ));
    }
    Ok(names)
}

/// When requests come.
fn pace(load: &LoadArgs, workload: &Workload) -> Result<Pace, String> {
    let timed = workload.recorded().is_some_and(|trace| trace.timed);
    match (load.rate, load.arrivals, load.speed) {
        (Some(rate), None | Some(Coming::Poisson), _) => Ok(Pace::Poisson(rate)),
        (Some(rate), Some(Coming::Constant), _) => Ok(Pace::Constant(rate)),
        (Some(_), Some(Coming::Recorded), _) => {
            Err("recorded arrivals have a rate of their own; change it with --speed".to_owned())
        }
        (None, None, None) => {
            Ok(Pace::Closed(load.concurrency.map_or(USERS, std::num::NonZeroU32::get)))
        }
        (None, None | Some(Coming::Recorded), speed) if timed => {
            Ok(Pace::Recorded(speed.unwrap_or(1.0)))
        }
        (None, None | Some(Coming::Recorded), _) => {
            Err(format!("the workload {workload} has no recorded times; give --rate"))
        }
        (None, Some(Coming::Poisson | Coming::Constant), _) => {
            Err("--arrivals poisson and constant need --rate".to_owned())
        }
    }
}

/// Limits such as `ttft=500ms,e2e=10s`.
pub(crate) fn slo(text: &str) -> Result<Slo, String> {
    let mut slo = Slo::default();
    for part in text.split(',') {
        let (name, limit) =
            part.split_once('=').ok_or_else(|| format!("--slo: {part:?} is not NAME=TIME"))?;
        let field = match name.trim() {
            "ttft" => &mut slo.ttft,
            "tpot" => &mut slo.tpot,
            "e2e" => &mut slo.e2e,
            other => return Err(format!("--slo: {other:?} is none of ttft, tpot, e2e")),
        };
        *field = Some(time(limit.trim()).map_err(|why| format!("--slo {name}: {why}"))?);
    }
    Ok(slo)
}

async fn target(args: &BenchArgs) -> Result<Target, Failed> {
    let mut target = Target::resolve(&args.url).await.map_err(Failed::usage)?;
    if let Some(key) = args.api_key.clone().or_else(key_of_environment) {
        let value = format!("Bearer {key}");
        target = target.with_header("authorization", &value).map_err(Failed::usage)?;
    }
    for header in &args.headers {
        let wrong = || Failed::usage(format!("--header {header:?} is not NAME=VALUE"));
        let (name, value) = header.split_once('=').ok_or_else(wrong)?;
        target = target.with_header(name, value).map_err(Failed::usage)?;
    }
    match &args.host {
        Some(host) => target.with_host(host).map_err(Failed::usage),
        None => Ok(target),
    }
}

#[expect(clippy::disallowed_methods, reason = "this room reads the environment")]
fn key_of_environment() -> Option<String> {
    std::env::var("OPENAI_API_KEY").ok().filter(|key| !key.is_empty())
}

fn settle(plan: &mut Plan, args: &BenchArgs) {
    plan.operation = match args.endpoint {
        Asked::Completions => Operation::Completions,
        Asked::Chat => Operation::ChatCompletions,
    };
    let LoadArgs { requests, duration, warmup, seed, salt, .. } = &args.load;
    let unlimited = requests.is_none() && duration.is_none();
    plan.requests = if unlimited { Some(REQUESTS) } else { *requests };
    plan.duration = *duration;
    plan.warmup = *warmup;
    plan.seed = *seed;
    plan.salt = salt.unwrap_or_else(|| fastrand::u64(..));
    plan.stream = !args.ask.no_stream;
    plan.ignore_eos = !args.ask.no_ignore_eos;
    plan.timeout = args.ask.timeout;
}

async fn prompts(plan: &Plan, ask: &AskArgs) -> Result<Prompts, Failed> {
    if ask.token_ids {
        let (low, high) = ask.token_id_range;
        return Ok(Prompts::TokenIds(low, high));
    }
    let calibration = driver::calibrate(plan).await.map_err(Failed::run)?;
    if calibration.is_none() {
        say_error(
            "note: the server does not count tokens; a word is taken for one, and prompts may be longer or shorter",
        );
    }
    Ok(Prompts::Words(calibration.unwrap_or_default()))
}

fn described(plan: &Plan) -> String {
    let how = match &plan.pace {
        Pace::Poisson(rate) => format!("open loop, {rate} requests/s (Poisson)"),
        Pace::Constant(rate) => format!("open loop, {rate} requests/s (constant)"),
        Pace::Recorded(speed) => format!("open loop, recorded times, speed {speed}"),
        Pace::Stages(stages) => format!("open loop, {} stages", stages.len()),
        Pace::Closed(users) => format!("closed loop, {users} users"),
    };
    let adapters = match plan.workload.adapters() {
        0 => String::new(),
        count => format!(" with {count} adapters"),
    };
    let (workload, model, seed, salt) = (&plan.workload, &plan.model, plan.seed, plan.salt);
    format!("{workload} on {model}{adapters}; {how}; seed {seed}, salt {salt}")
}

fn show(args: &BenchArgs, plan: &Plan, measured: &Measured) -> Outcome {
    table::show(measured);
    if args.llmperf {
        table::show_llmperf(measured);
    }
    warn(plan, measured);
    if let Some(path) = &args.json {
        write(path, &figures::all(plan, measured)).map_err(Failed::run)?;
    }
    if measured.completed == 0 && !measured.interrupted {
        return Err(Failed::run("no request succeeded"));
    }
    Ok(())
}

fn write(path: &Path, figures: &serde_json::Value) -> Result<(), String> {
    std::fs::write(path, format!("{figures:#}\n"))
        .map_err(|error| format!("cannot write {}: {error}", path.display()))
}

/// Tells what makes the figures doubtful.
fn warn(plan: &Plan, measured: &Measured) {
    let open = !matches!(plan.pace, Pace::Closed(_));
    let lateness = measured.lateness.quantile(0.99).unwrap_or_default();
    if open && lateness > LATENESS_MAX.as_secs_f64() {
        say_error(&format!(
            "warning: requests were sent up to {:.0} ms late (p99): this machine is too slow for the load, and the \
             times include it",
            lateness * 1e3
        ));
    }
    if measured.not_sent > 0 {
        say_error(&format!(
            "warning: {} requests were not sent, because {} were under way",
            measured.not_sent, plan.in_flight_max
        ));
    }
    if measured.without_usage > 0 {
        say_error(&format!(
            "note: {} answers came without usage; their tokens are counted as chunks, which may hold several",
            measured.without_usage
        ));
    }
    if measured.interrupted {
        let unfinished = measured.unfinished();
        say_error(&format!("note: interrupted; {unfinished} requests under way are not counted"));
    }
}

#[cfg(test)]
mod tests;
