//! How a simulated server is started: the flags of `vllm serve` that matter here, and what is not vLLM's.

use std::time::Duration;

use crate::engine::EngineConfig;
use crate::profile::Profile;

/// A simulated server's settings. The default is the server of the product's guide: Llama 2 7B on an A10 with ten
/// adapters, four of them at a time.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// Machine and model: step times, KV cache, limits, among them `max_model_len`.
    pub profile: Profile,
    /// `--served-model-name`.
    pub model: String,
    /// `--lora-modules`, by name.
    pub loras: Vec<String>,
    /// `--max-loras`: adapters in one batch.
    pub max_loras: u32,
    /// `--max-cpu-loras`: adapters that are swapped in rather than read from disk.
    pub max_cpu_loras: u32,
    /// Time to swap an adapter into a slot.
    pub lora_swap: Duration,
    /// Time to read an adapter from disk, on top of that.
    pub lora_disk: Duration,
    /// Every step takes this many times less; what the server measures and tells shrinks with it.
    pub speedup: f64,
    /// Equal seeds give equal answers.
    pub seed: u64,
    /// Requests that may wait; one more gets 503. vLLM itself has no bound unless told.
    pub waiting_max: usize,
    /// `--enable-prefix-caching`.
    pub prefix_caching: bool,
    /// Metric names of the V0 engine: `vllm:gpu_cache_usage_perc`, no `engine` label.
    pub legacy_metrics: bool,
}

/// The adapters of the guide's server.
const LORAS: [&str; 10] = [
    "sql-lora",
    "sql-lora-1",
    "sql-lora-2",
    "sql-lora-3",
    "sql-lora-4",
    "tweet-summary",
    "tweet-summary-1",
    "tweet-summary-2",
    "tweet-summary-3",
    "tweet-summary-4",
];

impl Default for SimConfig {
    fn default() -> SimConfig {
        let engine = EngineConfig::default();
        SimConfig {
            profile: engine.profile,
            model: "/model/llama2".to_owned(),
            loras: LORAS.map(str::to_owned).to_vec(),
            max_loras: engine.max_loras,
            max_cpu_loras: engine.max_cpu_loras,
            lora_swap: engine.lora_swap,
            lora_disk: engine.lora_disk,
            speedup: engine.speedup,
            seed: 0,
            waiting_max: engine.waiting_max,
            prefix_caching: engine.prefix_caching,
            legacy_metrics: false,
        }
    }
}

impl SimConfig {
    /// The default, sped up so much that a test need not wait: an answer of a hundred tokens takes about 3 ms.
    pub fn fast() -> SimConfig {
        SimConfig { speedup: 1000.0, ..SimConfig::default() }
    }

    /// What the engine is to be set up with.
    pub fn engine(&self) -> EngineConfig {
        EngineConfig {
            profile: self.profile.clone(),
            max_loras: self.max_loras,
            max_cpu_loras: self.max_cpu_loras,
            lora_swap: self.lora_swap,
            lora_disk: self.lora_disk,
            waiting_max: self.waiting_max,
            prefix_caching: self.prefix_caching,
            speedup: self.speedup,
            ..EngineConfig::default()
        }
    }
}
