//! Pools and loads that show what routing is worth, by name.

use std::time::Duration;

use scheduling::FlowControl;

use crate::engine::EngineConfig;
use crate::profile::Profile;
use crate::workload::{Pace, Popularity, Stage, Workload};
use crate::world::{Class, FaultKind, ScheduledFault};

/// A pool and what is asked of it.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// `S1` to `S11`, or `trace` for a user's own.
    pub name: String,
    /// What it shows.
    pub title: String,
    /// The pool.
    pub endpoints: Vec<EngineConfig>,
    /// What requests are like.
    pub workload: Workload,
    /// When they come, unless told otherwise.
    pub pace: Pace,
    /// Gateways.
    pub gateways: u32,
    /// How often each reads each endpoint's metrics.
    pub scrape_interval: Duration,
    /// All gateways scrape at once instead of each at a random phase.
    pub scrapes_in_step: bool,
    /// One way between gateway and endpoint.
    pub network_delay: Duration,
    /// What breaks.
    pub faults: Vec<ScheduledFault>,
    /// How requests wait in a gateway.
    pub flow_control: FlowControl,
    /// Who sends the requests; nobody in particular if there is none.
    pub classes: Vec<Class>,
    /// Requests a seed; those of [`Pace::Stages`] are as many as come.
    pub requests: u64,
}

/// One way between gateway and endpoint in one zone of a data centre.
pub const NETWORK_DELAY: Duration = Duration::from_micros(250);

/// Name and what it shows.
const TITLES: [(&str, &str); 11] = [
    ("S1", "the tutorial's pool under llmperf: 3 × A10, Llama 2 7B, equal sizes"),
    ("S2", "ten LoRA adapters over four slots on that pool"),
    ("S3", "skewed sizes: Azure conversation on 8 × A10"),
    ("S4", "KV pressure: ShareGPT lengths on 8 × A10"),
    ("S5", "shared prefixes: 150 groups of 6,000 tokens on 8 × (2 × H100), Qwen3 32B"),
    ("S6", "shared prefixes and a large KV cache: 4 × (4 × H100), Llama 3 70B"),
    ("S7", "recorded prefix reuse: Mooncake conversation on 8 × H100, Llama 3 8B"),
    ("S8", "several gateways that see each other's work late: S3 with four"),
    ("S9", "a mixed pool: 4 × A10 and 4 × A100 under ShareGPT lengths"),
    ("S10", "trouble: of S3's endpoints one stalls, one lies, one restarts, one drains"),
    ("S11", "fifteen LoRA adapters over three slots: 10 × H100, Llama 3 8B"),
];

/// Requests whose prompt and answer exceed this do not fit the context of the A10 pools.
const A10_TOKENS_MAX: u32 = 4000;

impl Scenario {
    /// The names there are, with what each shows.
    pub fn names() -> impl Iterator<Item = (&'static str, &'static str)> {
        TITLES.into_iter()
    }

    /// The scenario of this name, whatever its case.
    pub fn named(name: &str) -> Option<Scenario> {
        let (name, title) =
            TITLES.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        let scenario = match name {
            "S1" => on(a10(575, 3), Workload::llmperf(), Pace::Poisson(4.6)),
            "S2" => on(a10(575, 3), Workload::lora(10, Popularity::zipf), Pace::Poisson(4.0)),
            "S3" | "S8" | "S10" => azure(name),
            "S4" => on(a10(851, 8), sharegpt()?, Pace::Poisson(7.4)),
            "S5" => Scenario {
                requests: u64::MAX,
                ..on(
                    pool("h100x2-qwen3-32b", 8),
                    Workload::shared_prefix(150, 5, 6000, 1200, 1000),
                    Pace::Stages(stages(&SAAS)),
                )
            },
            "S6" => Scenario {
                requests: u64::MAX,
                ..on(
                    pool("h100x4-llama3-70b", 4),
                    Workload::shared_prefix(83, 3, 8000, 1000, 1000),
                    Pace::Stages(stages(&CAPACITY)),
                )
            },
            "S7" => mooncake()?,
            "S9" => {
                let mut endpoints = a10(575, 4);
                endpoints.extend(pool("a100-llama2-7b", 4));
                on(endpoints, sharegpt()?, Pace::Poisson(25.0))
            }
            _ => fifteen_adapters(),
        };
        Some(Scenario { name: name.to_owned(), title: title.to_owned(), ..scenario })
    }
}

/// Rate and seconds: llm-d's "b2b SaaS" with its warm-up in front.
const SAAS: [(f64, f64); 17] = [
    (15.0, 50.0),
    (3.0, 20.0),
    (10.0, 20.0),
    (15.0, 20.0),
    (20.0, 38.0),
    (22.0, 34.0),
    (25.0, 30.0),
    (30.0, 25.0),
    (35.0, 21.0),
    (40.0, 38.0),
    (43.0, 36.0),
    (46.0, 33.0),
    (49.0, 30.0),
    (52.0, 29.0),
    (55.0, 27.0),
    (57.0, 26.0),
    (60.0, 25.0),
];

/// Rate and seconds: llm-d's "37-capacity".
const CAPACITY: [(f64, f64); 10] = [
    (9.0, 30.0),
    (3.0, 210.0),
    (4.0, 180.0),
    (5.0, 120.0),
    (6.0, 120.0),
    (8.0, 90.0),
    (10.0, 70.0),
    (12.0, 60.0),
    (15.0, 50.0),
    (20.0, 50.0),
];

fn stages(table: &[(f64, f64)]) -> Vec<Stage> {
    table.iter().map(|&(rate, seconds)| Stage { rate, seconds }).collect()
}

fn pool(profile: &str, replicas: usize) -> Vec<EngineConfig> {
    let profile = Profile::named(profile).unwrap_or_default();
    vec![EngineConfig { profile, ..EngineConfig::default() }; replicas]
}

fn a10(blocks: u32, replicas: usize) -> Vec<EngineConfig> {
    let mut endpoints = pool("a10-llama2-7b", replicas);
    for endpoint in &mut endpoints {
        endpoint.profile.blocks = blocks;
    }
    endpoints
}

fn on(endpoints: Vec<EngineConfig>, workload: Workload, pace: Pace) -> Scenario {
    Scenario {
        name: String::new(),
        title: String::new(),
        endpoints,
        workload,
        pace,
        gateways: 1,
        scrape_interval: Duration::from_secs(1),
        scrapes_in_step: false,
        network_delay: NETWORK_DELAY,
        faults: Vec::new(),
        flow_control: FlowControl::default(),
        classes: Vec::new(),
        requests: 8_000,
    }
}

fn built_in(name: &str) -> Option<Workload> {
    Workload::named(name, |_| Err(String::new())).ok()
}

fn sharegpt() -> Option<Workload> {
    Some(built_in("sharegpt")?.at_most(A10_TOKENS_MAX))
}

fn azure(name: &str) -> Scenario {
    let workload = built_in("azure-conv").unwrap_or_else(Workload::llmperf).at_most(A10_TOKENS_MAX);
    let scenario = on(a10(575, 8), workload, Pace::Poisson(5.0));
    let at = |seconds| Duration::from_secs(seconds);
    let fault = |endpoint, kind, from, until| ScheduledFault {
        endpoint,
        kind,
        from: at(from),
        until: at(until),
    };
    match name {
        "S8" => Scenario { gateways: 4, ..scenario },
        "S10" => Scenario {
            pace: Pace::Poisson(4.0),
            faults: vec![
                fault(0, FaultKind::Stall, 600, 610),
                fault(1, FaultKind::FrozenMetrics, 800, 860),
                fault(2, FaultKind::Restart, 1_000, 1_030),
                fault(3, FaultKind::Drain, 1_200, 1_230),
            ],
            ..scenario
        },
        _ => scenario,
    }
}

fn mooncake() -> Option<Scenario> {
    let mut endpoints = pool("h100-llama3-8b", 8);
    for endpoint in &mut endpoints {
        endpoint.profile.max_model_len = 131_072;
    }
    let workload = built_in("mooncake-conversation")?.at_most(131_072);
    // A little over a round of the trace's 12,031.
    Some(Scenario { requests: 12_000, ..on(endpoints, workload, Pace::Recorded(3.0)) })
}

fn fifteen_adapters() -> Scenario {
    let mut endpoints = pool("h100-llama3-8b", 10);
    for endpoint in &mut endpoints {
        endpoint.max_loras = 3;
        endpoint.max_cpu_loras = 15;
    }
    let shares = [[0.12; 5], [0.06; 5], [0.02; 5]].concat();
    let workload = Workload::llmperf().with_adapters(Popularity::weights(&shares));
    on(endpoints, workload, Pace::Poisson(60.0))
}
