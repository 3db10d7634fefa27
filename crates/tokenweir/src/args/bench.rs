//! The flags of `tokenweir bench`.

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

use clap::ValueEnum;

use super::positive;

/// Measure any OpenAI-compatible server: put load on it and time its answers.
///
/// Without --rate a fixed number of users each send one request after the other (closed loop, --concurrency). With
/// --rate, or at a trace's recorded times, requests come whether or not earlier ones are answered (open loop), and
/// their time counts from when they were due. Ctrl-C ends the run and shows the figures so far.
#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    /// Server or gateway, e.g. http://127.0.0.1:8080
    #[arg(long, value_name = "URL")]
    pub(crate) url: String,
    /// Host header, for gateways that serve several hosts
    #[arg(long, value_name = "NAME")]
    pub(crate) host: Option<String>,
    /// Header of every request (repeatable)
    #[arg(long = "header", value_name = "NAME=VALUE")]
    pub(crate) headers: Vec<String>,
    /// Key sent as bearer token [default: the environment's OPENAI_API_KEY, if set]
    #[arg(long, value_name = "KEY")]
    pub(crate) api_key: Option<String>,
    /// Model to ask [default: the first that the server lists]
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Option<String>,
    /// Adapter that takes part in the load, in place of the base model (repeatable) [default: for
    /// the workload lora the ten of the tutorial]
    #[arg(long = "adapter", value_name = "NAME")]
    pub(crate) adapters: Vec<String>,
    /// What to ask for
    #[arg(long, value_enum, default_value_t = Asked::Completions)]
    pub(crate) endpoint: Asked,
    #[command(flatten)]
    pub(crate) load: LoadArgs,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
    /// What makes a request good, for goodput: any of ttft, tpot, e2e, e.g. ttft=500ms,tpot=50ms
    #[arg(long, value_name = "NAME=TIME,…")]
    pub(crate) slo: Option<String>,
    /// Also show a summary with llmperf's names and definitions.
    #[arg(long)]
    pub(crate) llmperf: bool,
    /// Write all figures to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// What requests are like and when they come.
#[derive(Debug, clap::Args)]
pub(crate) struct LoadArgs {
    /// llmperf, lora, shared-prefix, azure-conv, sharegpt, mooncake-conversation, or a file as
    /// KIND:FILE with KIND one of azure, burstgpt, mooncake, bailian, lengths
    #[arg(long, value_name = "NAME", default_value = "llmperf")]
    pub(crate) workload: String,
    /// Open loop: requests a second
    #[arg(long, value_name = "R", value_parser = positive, conflicts_with_all = ["concurrency", "speed"])]
    pub(crate) rate: Option<f64>,
    /// Open loop: when requests come [default: poisson with --rate, recorded with --speed]
    #[arg(long, value_enum, conflicts_with = "concurrency")]
    pub(crate) arrivals: Option<Coming>,
    /// Open loop: a trace's recorded times, this many times faster
    #[arg(long, value_name = "X", value_parser = positive, conflicts_with = "concurrency")]
    pub(crate) speed: Option<f64>,
    /// Closed loop: users that each send one request after the other [default: 10]
    #[arg(long, value_name = "N")]
    pub(crate) concurrency: Option<NonZeroU32>,
    /// Requests to count [default: 100, or no limit with --duration]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) requests: Option<u64>,
    /// How long to send requests; those under way then are waited for.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) duration: Option<Duration>,
    /// Requests sent before the counted ones
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) warmup: u64,
    /// Equal seeds give equal lengths and times.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Equal salts give equal texts [default: another one each run, so that no prefix cache knows
    /// the prompts of an earlier run]
    #[arg(long)]
    pub(crate) salt: Option<u64>,
}

/// How requests are put.
#[derive(Debug, clap::Args)]
pub(crate) struct AskArgs {
    /// Longest wait for a whole answer
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "180s")]
    pub(crate) timeout: Duration,
    /// Leave out `ignore_eos`, for servers that do not know it; answers may be shorter then.
    #[arg(long)]
    pub(crate) no_ignore_eos: bool,
    /// Ask for whole answers; nothing is known of single tokens then.
    #[arg(long)]
    pub(crate) no_stream: bool,
    /// Send prompts as token ids, which makes their lengths exact; completions only.
    #[arg(long)]
    pub(crate) token_ids: bool,
    /// Ids to choose from
    #[arg(long, value_name = "LO-HI", value_parser = id_range, default_value = "1000-2000")]
    pub(crate) token_id_range: (u32, u32),
}

/// What is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Asked {
    Completions,
    Chat,
}

/// When requests of an open loop come.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Coming {
    /// At random, independently of each other
    Poisson,
    /// At even distances
    Constant,
    /// At the times of a trace
    Recorded,
}

/// A time above zero.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    let time = text.parse::<jiff::SignedDuration>().ok();
    let time = time.and_then(|time| Duration::try_from(time).ok());
    let time = time.filter(|time| !time.is_zero());
    time.ok_or_else(|| "expected a time above 0, such as 10s or 500ms".to_owned())
}

fn id_range(text: &str) -> Result<(u32, u32), String> {
    let range = text
        .split_once('-')
        .and_then(|(low, high)| Some((low.trim().parse().ok()?, high.trim().parse().ok()?)));
    range
        .filter(|(low, high)| low <= high)
        .ok_or_else(|| "expected two ids, the lower one first, such as 1000-2000".to_owned())
}
