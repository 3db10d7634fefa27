//! The ways to choose, by name.

use std::{fmt, str::FromStr};

/// How the endpoints of a pool are ranked.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Policy {
    #[default]
    /// The seconds a request would take, from own work in flight, others' load, cached prefix, adapters and learned speed.
    Predicted,
    /// The endpoint's own queue depth and KV use, as last scraped, and nothing else.
    QueueKv,
    /// The same, corrected by what this gateway sent since that scrape.
    QueueKvLocal,
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
    /// Fewest requests in flight from this gateway.
    LeastRequest,
    /// Consistent hashing of the prompt's first hundred characters with bounded load.
    PrefixHash,
    /// The Endpoint Picker without a configuration: queue 2, KV 2, prefix 3.
    GieDefault,
    /// The filter chain of the first Endpoint Picker.
    LoraChain,
}

impl Policy {
    pub const ALL: [Self; 9] = [
        Self::Predicted,
        Self::QueueKv,
        Self::QueueKvLocal,
        Self::RoundRobin,
        Self::Random,
        Self::LeastRequest,
        Self::PrefixHash,
        Self::GieDefault,
        Self::LoraChain,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Predicted => "predicted",
            Self::QueueKv => "queue-kv",
            Self::QueueKvLocal => "queue-kv-local",
            Self::RoundRobin => "round-robin",
            Self::Random => "random",
            Self::LeastRequest => "least-request",
            Self::PrefixHash => "prefix-hash",
            Self::GieDefault => "gie-default",
            Self::LoraChain => "lora-chain",
        }
    }

    /// The unit of its costs, if they have one.
    pub fn cost_unit(self) -> Option<&'static str> {
        (self == Self::Predicted).then_some("seconds")
    }

    /// Whether it asks where a prompt's blocks are cached.
    pub fn reads_prefixes(self) -> bool {
        matches!(self, Self::Predicted | Self::GieDefault)
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No policy has this name.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no policy is called {0:?}; use one of {names}", names = Policy::ALL.map(Policy::name).join(", "))]
pub struct UnknownPolicy(pub String);

impl FromStr for Policy {
    type Err = UnknownPolicy;

    fn from_str(name: &str) -> Result<Self, UnknownPolicy> {
        Self::ALL
            .into_iter()
            .find(|policy| policy.name() == name)
            .ok_or_else(|| UnknownPolicy(name.to_owned()))
    }
}
