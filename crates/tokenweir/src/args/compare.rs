//! The flags of `tokenweir compare`.

use std::{path::PathBuf, time::Duration};

use clap::ValueEnum;

use super::{positive, time};

/// Compare policies side by side on one workload.
///
/// In virtual time (the default) simulated endpoints, gateways and clients share a clock that jumps; the deciding code is
/// the one that routes real traffic. --live sends the same requests through the real gateway to simulated endpoints over
/// sockets, in real time. --recorded compares the simulator itself with a run of a real server.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["scenario", "trace", "recorded"])))]
pub(crate) struct CompareArgs {
    /// A named pool and load: S1 to S11; --scenario help lists them
    #[arg(long, value_name = "NAME")]
    pub(crate) scenario: Option<String>,
    /// A workload of your own, on --replicas of --profile: llmperf, lora, shared-prefix, azure-conv, sharegpt,
    /// mooncake-conversation, or a file: azure:FILE, burstgpt:FILE, mooncake:FILE, bailian:FILE, lengths:FILE
    #[arg(long, value_name = "WORKLOAD")]
    pub(crate) trace: Option<String>,
    /// Folder with requests.jsonl and meta.json of a real server's run, to replay on the simulator
    #[arg(long, value_name = "DIR", requires = "profile", conflicts_with_all = ["live", "policies", "html", "rate", "load", "sweep", "concurrency", "longest", "seeds", "requests", "replicas", "gateways", "scrape_interval"])]
    pub(crate) recorded: Option<PathBuf>,
    /// Policies, separated by commas; round-robin and the oracle are always there [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) policies: Vec<String>,
    #[command(flatten)]
    pub(crate) load: CompareLoad,
    #[command(flatten)]
    pub(crate) pool: PoolArgs,
    /// Runs a policy, each with another seed [default: 4; live: 1]
    #[arg(long, value_name = "N")]
    pub(crate) seeds: Option<u32>,
    /// Requests a run [default: the scenario's]
    #[arg(long, value_name = "N")]
    pub(crate) requests: Option<u64>,
    /// Runs at once [default: one a processor]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Through the real gateway and simulated endpoints over loopback sockets, in real time
    #[arg(long)]
    pub(crate) live: bool,
    /// With --live: let simulated time pass this many times faster
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = positive, requires = "live")]
    pub(crate) speedup: f64,
    /// Write all figures here
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write a page with plots here
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

/// How much is asked.
#[derive(Debug, clap::Args)]
pub(crate) struct CompareLoad {
    /// Requests a second
    #[arg(long, value_name = "R", value_parser = positive, conflicts_with_all = ["load", "concurrency"])]
    pub(crate) rate: Option<f64>,
    /// The same as a share of the fluid capacity λ*, such as 0.85
    #[arg(long, value_name = "X", value_parser = positive, conflicts_with = "concurrency")]
    pub(crate) load: Option<f64>,
    /// Closed loop: so many users, each of whom asks again when the answer is there
    #[arg(long, value_name = "N", conflicts_with = "arrivals")]
    pub(crate) concurrency: Option<u32>,
    /// When requests come [default: the scenario's; recorded for a trace with times, else poisson]
    #[arg(long, value_enum)]
    pub(crate) arrivals: Option<Spacing>,
    /// Also at rising rates, up to where no policy bears it any more
    #[arg(long, conflicts_with_all = ["concurrency", "live"])]
    pub(crate) sweep: bool,
    /// Leave out requests of a trace whose prompt and answer have more tokens together
    #[arg(long, value_name = "TOKENS")]
    pub(crate) longest: Option<u32>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Spacing {
    /// At random, independently
    Poisson,
    /// At even distances
    Constant,
    /// At the trace's own times, all faster or slower as --rate or --load want it
    Recorded,
}

/// The pool and its gateways.
#[derive(Debug, clap::Args)]
pub(crate) struct PoolArgs {
    /// Machine and model, a name or a YAML file [default: a10-llama2-7b]
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) profile: Option<String>,
    /// Endpoints [default: 3]
    #[arg(long, value_name = "N", conflicts_with = "scenario")]
    pub(crate) replicas: Option<u16>,
    /// KV blocks of each endpoint, instead of the profile's
    #[arg(long, value_name = "N")]
    pub(crate) kv_blocks: Option<u32>,
    /// Sequences in a batch, instead of the profile's
    #[arg(long, value_name = "N")]
    pub(crate) max_num_seqs: Option<u32>,
    /// Token budget of a step, instead of the profile's
    #[arg(long, value_name = "N")]
    pub(crate) max_num_batched_tokens: Option<u32>,
    /// Context length, instead of the profile's
    #[arg(long, value_name = "N")]
    pub(crate) max_model_len: Option<u32>,
    /// Gateways that share the load without talking to each other [default: the scenario's, 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) gateways: Option<u32>,
    /// How often each gateway reads each endpoint's metrics [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) scrape_interval: Option<Duration>,
    /// All gateways scrape at the same moments instead of each at its own
    #[arg(long, conflicts_with = "live")]
    pub(crate) scrapes_in_step: bool,
    /// Let requests wait in the gateway while every endpoint would make them wait, or never [default: on for predicted]
    #[arg(long, value_enum, value_name = "SWITCH", conflicts_with_all = ["live", "recorded"])]
    pub(crate) late_binding: Option<Switch>,
    /// One way between gateway and endpoint [default: 250us]
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "live")]
    pub(crate) network_delay: Option<Duration>,
}

/// On or off.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

impl Switch {
    pub(crate) fn is_on(self) -> bool {
        self == Self::On
    }
}
