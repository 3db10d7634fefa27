//! The ways to choose, by name.

use std::{fmt, str::FromStr};

/// How the endpoints of a pool are ranked.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Policy {
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
    /// Fewest requests in flight from this gateway.
    LeastRequest,
    /// The endpoint's own queue depth and KV use, as last scraped, and nothing else.
    QueueKv,
    /// The same, corrected by what this gateway sent since that scrape.
    #[default]
    QueueKvLocal,
}

impl Policy {
    pub const ALL: [Self; 5] =
        [Self::RoundRobin, Self::Random, Self::LeastRequest, Self::QueueKv, Self::QueueKvLocal];

    pub fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
            Self::Random => "random",
            Self::LeastRequest => "least-request",
            Self::QueueKv => "queue-kv",
            Self::QueueKvLocal => "queue-kv-local",
        }
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
