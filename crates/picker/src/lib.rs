//! Remembers: pools, routes, what is in flight where, and one record of every request.
//!
//! The edge rooms meet here and nowhere else. The controller and the datalayer write through
//! [`PoolWriter`], the proxy asks [`EndpointPicker`], the admin pages read [`PoolView`].
//!
//! Deliberately absent: sockets, HTTP, files, Kubernetes, serde. Deciding itself is `scheduling`'s.

mod absences;
mod assignment;
mod clock;
mod desired;
mod draw;
mod endpoint;
mod exhausted;
mod metrics;
mod picker;
mod pool;
mod prompt;
mod record;
mod refusal;
mod route;
mod tasks;
mod trace;
mod waiting;

pub use assignment::Assignment;
pub use clock::{monotonic, wall_clock};
pub use desired::{
    AppProtocol, Delivery, Desired, EndpointSpec, HostPattern, ListenerSpec, ModelSpec,
    ObjectiveSpec, PoolKey, PoolKind, PoolSpec, RouteMatch, RouteRule, RouteSpec, StringMatch,
    TargetModel, WeightedPool,
};
pub use endpoint::Endpoint;
pub use exhausted::is_exhausted;
pub use metrics::{
    MetricReference, Metrics, OutcomeTally, RequestTally, TalliedOutcome, Tally, TokenTally,
    Workload,
};
pub use picker::{Asked, DecisionRecord, EndpointPicker, PoolView, PoolWriter};
pub use pool::{Health, Member};
pub use record::{Finish, Journal, OpenRecord, RECORD_TEXT_BYTES_MAX, RequestRecord};
pub use refusal::{Fault, Refusal, Wire};
pub use route::{RouteQuery, Routed};
pub use tasks::{Cutoff, Panic, Tasks, contain};
pub use trace::{RequestTrace, Sampling, TraceContext};
