//! What can go wrong in a round, in words for the log and as an outcome for the metrics.

use std::{error::Error, fmt::Write as _, io, time::Duration};

use http::StatusCode;

pub(crate) type Cause = Box<dyn Error + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("its name has no address")]
    NoAddress,
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    #[error("connecting took more than {0:?}")]
    ConnectTimeout(Duration),
    /// Before the head of an answer: on a reused connection it may only have been idle too long.
    #[error("{path} was not answered: {}", causes(.error))]
    Unanswered { path: &'static str, error: Cause },
    #[error("the answer to {path} broke off: {}", causes(.error))]
    BrokenOff { path: &'static str, error: Cause },
    #[error("{path} took more than {limit:?}")]
    Timeout { path: &'static str, limit: Duration },
    #[error("{path} answered {status}")]
    Status { path: &'static str, status: StatusCode },
    #[error("the answer to {path} is longer than {max} bytes")]
    TooLarge { path: &'static str, max: usize },
    #[error("{path} has none of vLLM's gauges")]
    Invalid { path: &'static str },
}

impl Failure {
    /// The `outcome` of the metric that counts scrapes.
    pub(crate) fn outcome(&self) -> &'static str {
        match self {
            Self::ConnectTimeout(_) | Self::Timeout { .. } => "timeout",
            Self::TooLarge { .. } => "too_large",
            Self::Invalid { .. } => "invalid",
            Self::NoAddress
            | Self::Connect(_)
            | Self::Unanswered { .. }
            | Self::BrokenOff { .. }
            | Self::Status { .. } => "failed",
        }
    }

    /// Whether this process lacks something, which says nothing of the endpoint.
    pub(crate) fn is_own(&self) -> bool {
        matches!(self, Self::Connect(error) if picker::is_exhausted(error))
    }

    /// Whether the endpoint did answer, if not as wanted.
    pub(crate) fn is_answer(&self) -> bool {
        matches!(self, Self::Status { .. } | Self::TooLarge { .. } | Self::Invalid { .. })
    }
}

/// hyper says little itself; the reason is in what it wraps.
fn causes(error: &Cause) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
