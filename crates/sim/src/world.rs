//! A pool, its gateways and its clients in virtual time: an event heap drives the engines, and the gateways decide with
//! the code that routes real traffic.
//!
//! One thread, no clock, no wait. Equal settings and seeds give equal results, to the byte.

use std::time::Duration;

use scheduling::{FlowControl, Policy};

use crate::engine::EngineConfig;
use crate::workload::{Pace, Workload};

mod blocks;
mod endpoint;
mod events;
mod fault;
mod figures;
mod floor;
mod gateway;
mod oracle;
mod run;
mod scrape;
mod series;

pub use fault::{FaultKind, ScheduledFault};
pub use figures::Figures;
pub(crate) use floor::Floor;
pub use series::Series;

/// Who chooses endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Gateways, each with a policy, on what they know.
    Policy(Policy),
    /// One queue for all, first come first served, with the true state of every endpoint: a request leaves it when some
    /// endpoint would admit it at once. What any gateway is measured against.
    Oracle,
}

impl Placement {
    /// The policy's name, or `oracle`.
    pub fn name(self) -> &'static str {
        match self {
            Placement::Policy(policy) => policy.name(),
            Placement::Oracle => "oracle",
        }
    }
}

/// Some of the requests, and who sends them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Class {
    /// How many of all, as a weight beside the other classes'.
    pub weight: f64,
    /// The flow they belong to.
    pub flow: u64,
    /// Their priority; below zero they may be refused.
    pub priority: i32,
    /// Whether the figures are about them.
    pub counted: bool,
}

/// What happens in a world.
#[derive(Clone, Debug)]
pub struct WorldConfig {
    /// The pool, one engine an endpoint.
    pub endpoints: Vec<EngineConfig>,
    /// Gateways; each request comes to one of them at random.
    pub gateways: u32,
    /// How often each gateway reads each endpoint's metrics.
    pub scrape_interval: Duration,
    /// All gateways scrape at once instead of each at a random phase.
    pub scrapes_in_step: bool,
    /// One way between gateway and endpoint.
    pub network_delay: Duration,
    /// What breaks.
    pub faults: Vec<ScheduledFault>,
    /// How requests wait in a gateway.
    pub flow_control: FlowControl,
    /// Who sends them; nobody in particular if there is none.
    pub classes: Vec<Class>,
    /// What requests are like.
    pub workload: Workload,
    /// When they come.
    pub pace: Pace,
    /// How many; the pace may end before.
    pub requests: u64,
    /// The first so many are not counted: the pool is not yet as full as it will be.
    pub warmup: u64,
}

/// Runs a world to the end of its last request.
///
/// `progress` is told now and then how many requests have ended; it may return false to stop early.
pub fn run(
    config: &WorldConfig,
    placement: Placement,
    seed: u64,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Figures {
    run::Run::new(config, placement, seed).finish(progress)
}

#[cfg(test)]
mod tests;
