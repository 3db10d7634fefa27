//! What is remembered of one request: a record that is written exactly once, however it ends.

use std::{
    borrow::Cow,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use openai::Usage;
use tokio::time::Instant;

use crate::{DecisionRecord, Metrics, PoolKey, Refusal, RequestTrace, wall_clock};

/// Longest text taken from a client into a record, in bytes.
pub const RECORD_TEXT_BYTES_MAX: usize = 1024;

/// Writes records somewhere, such as an access log. Called once a request, on the request's task:
/// it must not block.
pub trait Journal: Send + Sync + std::fmt::Debug {
    fn write(&self, record: &RequestRecord);
}

/// How a request ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Finish {
    /// The answer is complete; with the engine's own reason, if it gave one (`stop`, `length`, …).
    Complete(Option<String>),
    /// The gateway answered itself.
    Refused(&'static str),
    /// The client left before the end.
    ClientGone,
    /// The endpoint died, or said so, inside its answer.
    EndpointGone,
    /// The endpoint was silent for too long inside its answer.
    IdleTimeout,
    /// The time for the whole answer ran out inside it.
    RouteTimeout,
    /// The gateway stopped, and waited no longer for the answer's end.
    Draining,
}

impl Finish {
    /// The answer had begun and did not end as it should.
    pub fn is_broken(&self) -> bool {
        matches!(self, Self::EndpointGone | Self::IdleTimeout | Self::RouteTimeout | Self::Draining)
    }

    pub fn name(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Complete(reason) => reason.as_deref().map(Cow::Borrowed),
            Self::Refused(reason) => Some(Cow::Borrowed(reason)),
            Self::ClientGone => Some(Cow::Borrowed("client_gone")),
            Self::EndpointGone => Some(Cow::Borrowed("endpoint_gone")),
            Self::IdleTimeout => Some(Cow::Borrowed("idle_timeout")),
            Self::RouteTimeout => Some(Cow::Borrowed("route_timeout")),
            Self::Draining => Some(Cow::Borrowed("draining")),
        }
    }
}

/// Everything known of one request.
#[derive(Clone, Debug)]
pub struct RequestRecord {
    pub start_time: SystemTime,
    pub started: Instant,
    pub method: String,
    pub path: String,
    pub protocol: &'static str,
    pub authority: String,
    pub user_agent: Option<String>,
    pub x_forwarded_for: Option<String>,
    pub request_id: String,
    pub downstream_remote: SocketAddr,
    pub downstream_local: SocketAddr,

    pub route: Option<Arc<str>>,
    pub pool: Option<PoolKey>,
    pub policy: Option<&'static str>,
    pub reason: Option<&'static str>,
    /// The model the client asked for; else the one the answer names.
    pub request_model: Option<String>,
    /// Whether `request_model` is named by the configuration or was answered for: only such names
    /// become metric labels.
    pub model_known: bool,
    /// The name sent upstream where it differs from the client's.
    pub target_model: Option<String>,
    pub stream: bool,
    pub upstream_host: Option<String>,
    pub upstream_cluster: Option<Arc<str>>,
    /// Endpoints tried.
    pub attempts: u32,

    pub response_code: u16,
    pub response_flags: &'static str,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    /// From the request's start to the pick, its waiting included.
    pub queue: Option<Duration>,
    /// From the request's start to the endpoint's response head.
    pub upstream_service_time: Option<Duration>,
    pub first_token: Option<Instant>,
    pub last_token: Option<Instant>,
    pub usage: Usage,
    pub finish: Option<Finish>,

    /// The client wants to know the decision: it is to be kept.
    pub explain: bool,
    pub decision: Option<Arc<DecisionRecord>>,
    /// Only where traces are exported.
    pub trace: Option<Box<RequestTrace>>,
}

impl RequestRecord {
    /// A request that begins now, of which nothing else is known.
    pub fn new(downstream_remote: SocketAddr, downstream_local: SocketAddr) -> Self {
        Self {
            start_time: wall_clock(),
            started: Instant::now(),
            method: String::new(),
            path: String::new(),
            protocol: "HTTP/1.1",
            authority: String::new(),
            user_agent: None,
            x_forwarded_for: None,
            request_id: String::new(),
            downstream_remote,
            downstream_local,
            route: None,
            pool: None,
            policy: None,
            reason: None,
            request_model: None,
            model_known: false,
            target_model: None,
            stream: false,
            upstream_host: None,
            upstream_cluster: None,
            attempts: 0,
            response_code: 0,
            response_flags: "-",
            bytes_received: 0,
            bytes_sent: 0,
            queue: None,
            upstream_service_time: None,
            first_token: None,
            last_token: None,
            usage: Usage::default(),
            finish: None,
            explain: false,
            decision: None,
            trace: None,
        }
    }

    /// Time to first token, for streams; nobody can see it elsewhere.
    pub fn ttft(&self) -> Option<Duration> {
        self.first_token.map(|at| at.duration_since(self.started))
    }

    /// Mean time per output token after the first.
    pub fn tpot(&self) -> Option<Duration> {
        let span = self.last_token?.duration_since(self.first_token?);
        let gaps = u32::try_from(self.usage.completion_tokens?.checked_sub(1)?).ok()?;
        span.checked_div(gaps)
    }

    /// Notes that the gateway answers itself, with a body of this length.
    pub fn refuse(&mut self, refusal: &Refusal, body_bytes: usize) {
        let wire = refusal.wire();
        self.response_code = wire.status;
        self.response_flags = wire.flag;
        self.bytes_sent = body_bytes as u64;
        self.finish = Some(Finish::Refused(wire.reason));
    }
}

/// A request that has not ended. Dropping it writes its record: the one log line, the one set of
/// counts. Without a [`Finish`] by then, the client has left, unless a panic drops it.
#[derive(Debug)]
pub struct OpenRecord {
    record: Option<Box<RequestRecord>>,
    metrics: Arc<Metrics>,
    journal: Arc<dyn Journal>,
}

impl OpenRecord {
    pub fn new(record: RequestRecord, metrics: Arc<Metrics>, journal: Arc<dyn Journal>) -> Self {
        Self { record: Some(Box::new(record)), metrics, journal }
    }

    /// The record, unless it was moved on by [`OpenRecord::take`].
    pub fn get(&mut self) -> Option<&mut RequestRecord> {
        self.record.as_deref_mut()
    }

    /// Moves the record to a new owner; this one writes nothing any more.
    #[must_use]
    pub fn take(&mut self) -> Self {
        Self {
            record: self.record.take(),
            metrics: Arc::clone(&self.metrics),
            journal: Arc::clone(&self.journal),
        }
    }
}

impl Drop for OpenRecord {
    fn drop(&mut self) {
        let Some(mut record) = self.record.take() else { return };
        if record.finish.is_none() {
            if std::thread::panicking() {
                record.refuse(&Refusal::Panicked, 0);
            } else {
                record.finish = Some(Finish::ClientGone);
            }
        }
        if record.finish == Some(Finish::ClientGone) {
            record.response_code = 499;
            record.response_flags = "DC";
        }
        let duration = record.started.elapsed();
        self.metrics.observe(&record, duration);
        self.journal.write(&record);
    }
}

#[cfg(test)]
mod tests;
