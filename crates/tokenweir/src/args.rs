//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Parser, Subcommand, ValueEnum};

mod bench;
mod compare;

pub(crate) use bench::{AskArgs, Asked, BenchArgs, Coming, LoadArgs, time};
pub(crate) use compare::{CompareArgs, PoolArgs, Spacing, Switch};

/// An inference gateway: one address in front of your vLLM servers.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(DemoArgs),
    Serve(ServeArgs),
    Check(CheckArgs),
    Get(GetArgs),
    Top(TopArgs),
    Sim(SimArgs),
    Bench(Box<BenchArgs>),
    Compare(Box<CompareArgs>),
    /// Print the CustomResourceDefinitions, as `kubectl apply -f -` takes them
    ///
    /// For clusters that have none of these kinds. Those of the Inference Extension accept what upstream's own
    /// definitions accept; a cluster that has those keeps them.
    Crds,
    Reference(ReferenceArgs),
}

/// Print a page of the generated reference.
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(crate) struct ReferenceArgs {
    #[arg(value_enum)]
    pub(crate) page: Page,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Page {
    Cli,
    Metrics,
}

/// Try it with nothing installed: three simulated vLLM endpoints and the gateway in front.
///
/// Every port is opened on 127.0.0.1 unless a flag says otherwise.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// Port of the gateway on 127.0.0.1.
    #[arg(long, default_value_t = 8080)]
    pub(crate) port: u16,
    /// Keep a gentle load on the gateway, so that there is something to see.
    #[arg(long)]
    pub(crate) load: bool,
    /// Let simulated time pass this many times faster.
    #[arg(long, default_value_t = 1.0, value_parser = positive)]
    pub(crate) speedup: f64,
    #[command(flatten)]
    pub(crate) settings: SettingArgs,
}

/// Run the gateway.
///
/// Objects come from files (-f), from a Kubernetes API server (--kubernetes) or, with no object at
/// all, from a list of endpoints (--endpoint). Files are read again when they change. SIGTERM and Ctrl-C stop the gateway gracefully.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("source").required(true).args(["files", "endpoints", "kubernetes"])))]
pub(crate) struct ServeArgs {
    /// YAML or JSON file, or folder of such files, with Gateways, routes, pools, … (repeatable)
    #[arg(short = 'f', long = "file", value_name = "PATH", num_args = 1..)]
    pub(crate) files: Vec<PathBuf>,
    /// vLLM server to serve, e.g. http://10.0.0.1:8000 (repeatable); any host, any model
    #[arg(long = "endpoint", value_name = "URL", num_args = 1..)]
    pub(crate) endpoints: Vec<String>,
    /// Follow the objects of the Kubernetes API server that KUBECONFIG, ~/.kube/config or the Pod's
    /// service account names, and write their statuses
    #[arg(long)]
    pub(crate) kubernetes: bool,
    /// Port to serve --endpoint on; otherwise the Gateways say.
    #[arg(long, default_value_t = 8080, conflicts_with_all = ["files", "kubernetes"])]
    pub(crate) port: u16,
    #[command(flatten)]
    pub(crate) settings: SettingArgs,
}

/// Settings of the gateway. Each can also be a key of the --config file; a flag wins.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct SettingArgs {
    /// YAML file with these settings, keys named as the flags.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Address the Gateways' ports are opened on [default: 0.0.0.0]
    #[arg(long, value_name = "IP")]
    pub(crate) bind: Option<String>,
    /// Admin pages [default: 127.0.0.1:15000]
    #[arg(long, value_name = "ADDR")]
    pub(crate) admin: Option<String>,
    /// Health checks [default: 0.0.0.0:15021]
    #[arg(long, value_name = "ADDR")]
    pub(crate) health: Option<String>,
    /// Prometheus metrics [default: 0.0.0.0:15090]
    #[arg(long, value_name = "ADDR")]
    pub(crate) stats: Option<String>,
    /// Labels that the selectors of Gateways match [default: istio=ingressgateway]
    #[arg(long, value_name = "KEY=VALUE,…")]
    pub(crate) labels: Option<String>,
    /// Policy of pools that name none: predicted, queue-kv, queue-kv-local, round-robin, random,
    /// least-request, prefix-hash, gie-default, lora-chain [default: predicted]
    #[arg(long, value_name = "NAME")]
    pub(crate) policy: Option<String>,
    /// How long running requests may take to finish at a stop [default: 60s]
    #[arg(long, value_name = "TIME")]
    pub(crate) drain_timeout: Option<String>,
    /// Format of access log (stdout) and log (stderr): json or text [default: json]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<String>,
    /// How often endpoints are asked for their metrics and health [default: 1s]
    #[arg(long, value_name = "TIME")]
    pub(crate) scrape_interval: Option<String>,
    /// Send `x-tokenweir-endpoint` with answers: true or false [default: true]
    #[arg(long, value_name = "BOOL")]
    pub(crate) endpoint_header: Option<String>,
    /// With --kubernetes, the only namespace whose objects are followed [default: all]
    #[arg(long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    /// With --kubernetes, name of the Lease whose holder writes statuses [default: tokenweir]
    #[arg(long, value_name = "NAME")]
    pub(crate) lease_name: Option<String>,
    /// With --kubernetes, namespace of that Lease [default: the process's own]
    #[arg(long, value_name = "NAMESPACE")]
    pub(crate) lease_namespace: Option<String>,
    /// With --kubernetes, the Service whose addresses are those of the Gateways [default: none]
    #[arg(long, value_name = "NAME")]
    pub(crate) publish_service: Option<String>,
}

/// Say what is wrong with a configuration, or what it will do.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// YAML or JSON file, or folder of such files (repeatable)
    #[arg(short = 'f', long = "file", value_name = "PATH", num_args = 1.., required = true)]
    pub(crate) files: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) settings: SettingArgs,
}

/// Show objects with their status, from a running gateway.
#[derive(Debug, clap::Args)]
pub(crate) struct GetArgs {
    /// Kind, e.g. inferencepool
    pub(crate) kind: String,
    /// One object of that kind
    pub(crate) name: Option<String>,
    /// Namespace; all if not given
    #[arg(short = 'n', long)]
    pub(crate) namespace: Option<String>,
    #[arg(short = 'o', long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    /// The gateway's admin port
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:15000")]
    pub(crate) admin: String,
}

/// Show the endpoints of a running gateway, kept up to date.
///
/// On a terminal: s sorts by the next column, r turns the order round, arrow keys, PgUp, PgDn, Home and End move through the
/// rows, q ends it. Elsewhere the table is printed again each second.
#[derive(Debug, clap::Args)]
pub(crate) struct TopArgs {
    /// The gateway's admin port
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:15000")]
    pub(crate) admin: String,
    /// Column to sort by: numbers the largest first, states the worst first
    #[arg(long, value_enum, default_value_t = SortBy::State)]
    pub(crate) sort: SortBy,
    /// The other way round
    #[arg(long)]
    pub(crate) reverse: bool,
    /// Print the table once and end
    #[arg(long)]
    pub(crate) once: bool,
}

/// A column of `top`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum SortBy {
    Endpoint,
    Pool,
    State,
    InFlight,
    Running,
    Waiting,
    Kv,
    Prefill,
    Ttft,
    Tokens,
    Scraped,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Yaml,
    Json,
}

/// Run simulated vLLM servers.
#[derive(Debug, clap::Args)]
pub(crate) struct SimArgs {
    /// Address of the first server; further ones take the following ports.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8000")]
    pub(crate) listen: SocketAddr,
    /// Number of servers
    #[arg(long, default_value_t = 1)]
    pub(crate) replicas: u16,
    /// Machine and model whose speed is simulated, a name or a YAML file
    #[arg(long, value_name = "NAME|FILE", default_value = "a10-llama2-7b")]
    pub(crate) profile: String,
    /// Name of the base model
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Name of a LoRA adapter (repeatable); none given: the ten of the tutorial
    #[arg(long = "lora", value_name = "NAME")]
    pub(crate) loras: Vec<String>,
    /// Adapters that fit into one batch
    #[arg(long)]
    pub(crate) max_loras: Option<u32>,
    /// Let time pass this many times faster.
    #[arg(long, default_value_t = 1.0, value_parser = positive)]
    pub(crate) speedup: f64,
    /// Equal seeds give equal answers.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Serve the metric names of vLLM's V0 engine, as the tutorial's image does.
    #[arg(long)]
    pub(crate) legacy_metrics: bool,
    /// Break the servers, or the one of this index, counted from 0 (repeatable; the last one for a server counts);
    /// e.g. stall, status:503@0.1, 2=crash:5; a wrong one lists the forms
    #[arg(long = "fault", value_name = "[INDEX=]FAULT", value_parser = placed_fault)]
    pub(crate) faults: Vec<PlacedFault>,
    /// Serve the faults of all servers here, to be read and changed at /faults
    #[arg(long, value_name = "ADDR")]
    pub(crate) admin: Option<SocketAddr>,
}

/// A fault and the server that has it, or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlacedFault {
    pub(crate) index: Option<u16>,
    pub(crate) fault: sim::Fault,
}

fn placed_fault(text: &str) -> Result<PlacedFault, String> {
    let (index, fault) = match text.split_once('=') {
        None => (None, text),
        Some((index, fault)) => {
            let index = index.parse::<u16>();
            let index = index.map_err(|_| "expected the index of a server before =, such as 0")?;
            (Some(index), fault)
        }
    };
    let fault = fault.parse().map_err(|error: sim::FaultError| error.to_string())?;
    Ok(PlacedFault { index, fault })
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value > 0.0 => Ok(value),
        Ok(_) | Err(_) => Err("expected a number above 0, such as 10".to_owned()),
    }
}

#[cfg(test)]
mod tests;
