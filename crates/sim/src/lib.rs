//! A model of a vLLM server that needs no GPU: the one test double of this workspace, and the server that
//! `tokenweir sim` and `tokenweir demo` run.
//!
//! [`Engine`] is vLLM's scheduler, KV cache and adapter slots as a pure state machine whose steps take as long as on the
//! machine of its [`Profile`]. [`Server`] puts it behind vLLM's HTTP interface on tokio's clock; a test starts one with
//! [`Server::start`], looks into it and breaks it with its [`Handle`].
//!
//! - [`engine`] is the state machine
//! - [`profile`] holds step times and limits of real machines
//! - [`server`] is the HTTP interface
//! - [`fleet`] runs several servers on consecutive ports
//! - [`workload`] is what is asked of it
//! - [`world`] drives a pool and its gateways in virtual time
//! - [`recorded`] repeats a run of a real server and compares
//! - [`driver`] asks it of any server over HTTP and measures the answers
//! - [`tokens`] has the rule that stands for a tokenizer, and where answers come from
//!
//! # Deliberately absent
//!
//! A tokenizer and a model: token counts follow a fixed rule, answers are words drawn from a hash. Sampling parameters,
//! stop strings, log probabilities, echo, tools and structured output are accepted and change nothing; several choices
//! (`n`) and batches of prompts are refused. Embeddings, KV events, tensor and data parallelism, disaggregated prefill,
//! speculative decoding, TLS, API keys. No noise in step times: equal inputs give equal times.

pub mod comparison;
pub mod distribution;
pub mod driver;
pub mod engine;
pub mod fleet;
pub mod limits;
pub mod profile;
pub mod recorded;
pub mod report;
pub mod scenario;
pub mod server;
pub mod tokens;
pub mod workload;
pub mod world;

pub use distribution::Distribution;
pub use engine::{Engine, EngineConfig};
pub use fleet::{Fleet, FleetError, run_fleet};
pub use profile::Profile;
pub use recorded::{Comparison, Recording};
pub use server::{Fault, FaultError, Handle, Running, Server, SimConfig};
pub use workload::{Pace, Workload, WorkloadError};
