//! What breaks in a world, and when.

use std::time::Duration;

/// A way for an endpoint to break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The engine stands still; health and metrics go on answering.
    Stall,
    /// The metrics page repeats what it said when the fault began; the engine goes on.
    FrozenMetrics,
    /// The server drains: what it has goes on, every new request is answered with an error at once, and while health answers
    /// the metrics show no load.
    Drain,
    /// The process dies with all it has, refuses connections, and comes back with empty caches.
    Restart,
}

/// A fault of one endpoint for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScheduledFault {
    /// Which endpoint.
    pub endpoint: u32,
    /// What is wrong with it.
    pub kind: FaultKind,
    /// From when.
    pub from: Duration,
    /// Until when.
    pub until: Duration,
}

/// Where in a fault's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FaultEdge {
    Begins,
    Ends,
}
